# Limits hold exactly, whoever claims: intervals of runs are compared with them
# after storms of claimers, while settings change, after crashes, with prepared
# transactions, and where shared memory is small or missing. What has been given
# up is free again, and nothing is stuck.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use IPC::Run qw(start);
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Session;
use JobQueue::Storm qw(run_problems log_problems storm_seed);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
max_connections = 60
max_prepared_transactions = 10
log_statement = none
shared_buffers = 64MB
jobqueue.retry_delay = 0
jobqueue.max_attempts = 1000
jobqueue.crash_limit = 100
jobqueue.max_executors = 3
CONF
my $seed = storm_seed();
my $functions = q{
	CREATE FUNCTION worker(integer) RETURNS uuid LANGUAGE sql IMMUTABLE AS
		$$ SELECT ('00000000-0000-4000-8000-' || lpad($1::text, 12, '0'))::uuid $$;
	CREATE FUNCTION fill(job_type text, n integer, key text DEFAULT NULL) RETURNS bigint LANGUAGE sql AS
		$$ SELECT count(*) FROM enqueue_jobs(job_type, array_fill('{}'::jsonb, ARRAY[n]), group_key => key) $$;
	CREATE FUNCTION claim(job_type text, n integer DEFAULT 1) RETURNS bigint LANGUAGE sql AS
		$$ SELECT count(*) FROM claim_jobs(worker(99), ARRAY[job_type], n) $$;
	CREATE FUNCTION finish(t text, n integer DEFAULT 1, success boolean DEFAULT true) RETURNS bigint LANGUAGE sql AS $$
		SELECT count(resolve_job(id, locked_by, success, NULL, claim_no)) FROM (SELECT id, locked_by, claim_no FROM jobs_queue_live
			WHERE job_type = t AND status = 'running' ORDER BY id LIMIT n) r $$;
	-- what has run and what runs, from a claim to its end
	CREATE VIEW runs AS
		SELECT r.job_type, r.job_id, r.claim_no, q.group_key, r.started_at, r.finished_at FROM job_runs r JOIN jobs_queue q ON q.id = r.job_id
		WHERE r.started_at IS NOT NULL
		UNION ALL SELECT job_type, id, claim_no, group_key, locked_at, 'infinity' FROM jobs_queue_live WHERE status = 'running';
	-- claims that began while as many ran already, of the type or of their group
	CREATE FUNCTION crowded(t text, most integer, of_group boolean DEFAULT false, since timestamptz DEFAULT '-infinity', until timestamptz DEFAULT 'infinity')
		RETURNS bigint LANGUAGE sql AS $$
		SELECT count(*) FROM (
			SELECT at, change, sum(change) OVER (PARTITION BY CASE WHEN of_group THEN group_key END ORDER BY at, change ROWS UNBOUNDED PRECEDING) AS n
			FROM (SELECT started_at AS at, 1 AS change, group_key FROM runs WHERE job_type = t
				UNION ALL SELECT finished_at, -1, group_key FROM runs WHERE job_type = t) c WHERE NOT of_group OR group_key IS NOT NULL) e
		WHERE change > 0 AND n > most AND at BETWEEN since AND until $$;
	-- claims that began within the window of too many others
	CREATE FUNCTION hasty(t text, most integer, w interval, of_group boolean DEFAULT false) RETURNS bigint LANGUAGE sql AS $$
		SELECT count(*) FROM (
			SELECT started_at - lag(started_at, most) OVER (PARTITION BY CASE WHEN of_group THEN group_key END ORDER BY started_at) AS past
			FROM runs WHERE job_type = t AND (NOT of_group OR group_key IS NOT NULL)) e
		WHERE past < w $$;
	-- jobs whose run began before one that comes earlier in their group
	CREATE FUNCTION overtaken(t text, firsts_only boolean) RETURNS bigint LANGUAGE sql AS $$
		SELECT count(*) FROM (SELECT job_id, max(job_id) OVER (PARTITION BY group_key ORDER BY started_at ROWS UNBOUNDED PRECEDING) AS latest
			FROM runs WHERE job_type = t AND group_key IS NOT NULL AND (NOT firsts_only OR claim_no = 1)) e
		WHERE job_id < latest $$;
};
$node->safe_psql('postgres', $functions);
my $s = JobQueue::Session->new($node);
my $scripts = PostgreSQL::Test::Utils::tempdir();
my $storms = 0;

# A pgbench that claims jobs, holds them for a moment and ends them.
#   setup   statements before each claim, such as BEGIN with an isolation level
sub storm
{
	my ($clients, %p) = @_;

	my $n = $p{batch} // 1;
	my $file = "$scripts/" . ++$storms;
	my $claim = "SELECT count(*) AS n, coalesce(array_agg(id), '{}') AS ids, coalesce(array_agg(claim_no), '{}') AS nos"
	  . " FROM claim_jobs(worker(:client_id::integer), ARRAY['$p{type}'], $n) \\gset\n";
	my $begin = $p{begin} // 'BEGIN';
	my $set = $p{set} ? "$p{set};\n" : '';
	append_to_file($file, $set . "\\set lot random(1, 100)\n\\set hold random(0, 3000)\n"
		. "\\if :lot <= " . ($p{rollbacks} // 8) . "\n$begin;\n${claim}ROLLBACK;\n\\else\n$begin;\n${claim}COMMIT;\n\\if :n > 0\n\\sleep :hold us\n"
		. "SELECT resolve_jobs(worker(:client_id::integer), :ids::bigint[], (SELECT array_agg(random() >= " . ($p{failures} // 0)
		. ") FROM unnest(:ids::bigint[])), NULL, :nos::integer[]);\n\\else\n\\sleep 1 ms\n\\endif\n\\endif\n");
	my $storm = { err => "$file.err" };
	$storm->{run} = start([ 'pgbench', '-n', '-M', 'prepared', '-c', $clients, '-j', 1, '-T', 170, '--max-tries=10000', "--random-seed=$seed",
			'-f', $file, $node->connstr('postgres') . ' application_name=storm' ], '<', \undef, '>', '/dev/null', '2>', $storm->{err});
	return $storm;
}

# Ends a storm; what its clients said, but for what a crash makes them say.
sub calm
{
	my ($storm) = @_;

	$storm->{run}->signal('TERM');
	eval { $storm->{run}->finish };
	return join "\n", grep { /ERROR|FATAL|PANIC/ } split /\n/, slurp_file($storm->{err});
}

# Claims of backends that a storm has left come back.
sub give_back
{
	my ($type) = @_;

	wait_for_query($node, q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'storm'}, '0');
	$s->query("SELECT count(release_job(id, locked_by, claim_no)) FROM jobs_queue_live WHERE job_type = '$type' AND status = 'running'");
	return;
}

sub drained
{
	my ($type) = @_;

	wait_for_query($node, "SELECT count(*) FROM jobs_queue_live WHERE job_type = '$type'", '0');
	return;
}

# That so many more claims have ended.
sub more_runs
{
	my ($type, $n) = @_;

	my $before = $s->query("SELECT count(*) FROM job_runs WHERE job_type = '$type'");
	wait_for_query($node, "SELECT count(*) >= $before + $n FROM job_runs WHERE job_type = '$type'");
	return;
}

# Sixteen claimers of all kinds, and a limit.
{
	$s->query(q{INSERT INTO job_types (job_type, max_concurrency) VALUES ('busy', 5); SELECT fill('busy', 3000)});
	my @storms = (
		storm(8, type => 'busy', batch => 3, failures => 0.1),
		storm(4, type => 'busy', set => 'SET jobqueue.debug_claim_path = sql'),
		storm(4, type => 'busy', begin => 'BEGIN ISOLATION LEVEL SERIALIZABLE'));
	drained('busy');
	is(join('', map { calm($_) } @storms), '', 'storm: no errors');
	is($s->query(q{SELECT crowded('busy', 5)}), '0', 'storm: never more than five at once');
	cmp_ok($s->query(q{SELECT crowded('busy', 4)}), '>', 0, 'storm: but five');
	is(run_problems($node), '', 'storm: one run for each claim');
	is($s->query(q{SELECT running FROM job_type_status WHERE job_type = 'busy'}), '0', 'storm: all places are free');
}

# The settings change meanwhile: from the moment that they hold for everybody,
# nobody begins above them.
{
	$s->query(q{INSERT INTO job_types (job_type) VALUES ('change'); SELECT fill('change', 100000)});
	my $storm = storm(16, type => 'change', batch => 2, failures => 0.05);
	my (@bad, $since);
	for my $most ('NULL', 5, 3, 'NULL', 4, 'NULL', 1, 6)
	{
		# claims that are under way end before the lock is there
		$s->query("UPDATE job_types SET max_concurrency = $most WHERE job_type = 'change'");
		$since = $s->query('BEGIN; LOCK TABLE jobs_queue_live IN SHARE MODE; SELECT clock_timestamp(); COMMIT');
		more_runs('change', 100);
		my $until = $s->query('SELECT clock_timestamp()');
		my $count = $most eq 'NULL' ? 0 : $s->query("SELECT crowded('change', $most, false, '$since', '$until')");
		push @bad, "$most: $count" if $count;
	}
	is(calm($storm), '', 'new settings: no errors');
	is("@bad", '', 'new settings: never more than the limit of the moment');
	give_back('change');
	wait_for_query($node, q{SELECT running = 0 FROM job_type_status WHERE job_type = 'change'});
	is($s->query(q{SELECT claim('change', 10)}), '6', 'new settings: all places are free in the end');
	$s->query(q{DELETE FROM jobs_queue WHERE job_type = 'change'});
}

# Rates: the sliding window, and tokens.
{
	$s->query(q{INSERT INTO job_types (job_type, rate_max, rate_window) VALUES ('rated', 20, '200 ms'); SELECT fill('rated', 300)});
	my $storm = storm(16, type => 'rated', batch => 3, failures => 0.05);
	drained('rated');
	is(calm($storm), '', 'rate: no errors');
	is($s->query(q{SELECT hasty('rated', 20, '200 ms')}), '0', 'rate: never more than 20 in 200 ms');
	cmp_ok($s->query(q{SELECT extract(epoch FROM max(started_at) - min(started_at)) FROM runs WHERE job_type = 'rated'}), '<', 8, 'rate: and not much less');
}

# Groups of one at a time, with failures; strict ones keep their order then, too.
{
	$s->query(q{INSERT INTO job_types (job_type, group_concurrency, group_strict) VALUES ('keyed', 1, false), ('strict', 1, true);
		SELECT count(enqueue_job(t, group_key => 'k' || k)) FROM unnest('{keyed,strict}'::text[]) t, generate_series(1, 3) i, generate_series(1, 2000) k
			WHERE t = 'keyed' AND i < 3 OR k <= 500});
	my @storms = (storm(8, type => 'keyed', batch => 10, failures => 0.1), storm(8, type => 'strict', batch => 10, failures => 0.2));
	drained($_) for 'keyed', 'strict';
	is(join('', map { calm($_) } @storms), '', 'groups: no errors');
	is($s->query("SELECT crowded('$_', 1, true)"), '0', "groups: $_, one at a time") for 'keyed', 'strict';
	is($s->query(q{SELECT overtaken('keyed', true)}), '0', 'groups: first attempts in order');
	is($s->query(q{SELECT overtaken('strict', false)}), '0', 'groups: strict, all attempts in order');
	cmp_ok($s->query(q{SELECT count(*) FROM job_runs WHERE job_type = 'strict' AND status = 'failed'}), '>', 50, 'groups: though many failed');
}

# Places that a prepared transaction has taken or given up.
{
	$s->query(q{INSERT INTO job_types (job_type, max_concurrency) VALUES ('prepared', 1); SELECT fill('prepared', 4)});
	$s->query(q{BEGIN; SELECT claim('prepared'); PREPARE TRANSACTION 'a'});
	is($s->query(q{SELECT claim('prepared')}), '0', 'prepared: a claim keeps its place');
	$s->query(q{ROLLBACK PREPARED 'a'});
	wait_for_query($node, q{SELECT claim('prepared')}, '1');
	$s->query(q{BEGIN; SELECT finish('prepared'); SELECT claim('prepared'); PREPARE TRANSACTION 'b'; ROLLBACK PREPARED 'b'});
	wait_for_query($node, q{SELECT running = 1 FROM job_type_status WHERE job_type = 'prepared'});
	is($s->query(q{SELECT claim('prepared')}), '0', 'prepared: the end of a claim that is undone leaves it its place');
	$s->query(q{BEGIN; SELECT finish('prepared'); PREPARE TRANSACTION 'c'});
	is($s->query(q{SELECT claim('prepared')}), '0', 'prepared: so does one that is not committed');
	$s->query(q{COMMIT PREPARED 'c'});
	wait_for_query($node, q{SELECT claim('prepared')}, '1');
	is($s->query(q{SELECT crowded('prepared', 1)}), '0', 'prepared: one at a time');
}

# A crash in the middle, and jobs that come then: what ran still counts.
{
	$s->query(q{INSERT INTO job_types (job_type, max_concurrency, lease) VALUES ('crash', 5, '1 second'); SELECT fill('crash', 1500)});
	my $storm = storm(16, type => 'crash', batch => 2);
	more_runs('crash', 200);
	kill 'KILL', $s->query(q{SELECT pid FROM pg_stat_activity WHERE application_name = 'storm' LIMIT 1});
	calm($storm);
	$s->quit;
	wait_for_query($node, 'SELECT true');
	$s = JobQueue::Session->new($node);
	$s->query(q{SELECT fill('crash', 100)});
	$storm = storm(16, type => 'crash', batch => 2);
	more_runs('crash', 200);
	$node->stop('immediate');
	calm($storm);
	$node->start;
	$s->quit;
	$s = JobQueue::Session->new($node);
	$storm = storm(16, type => 'crash', batch => 2);
	drained('crash');
	is(calm($storm), '', 'crash: no errors');
	is($s->query(q{SELECT crowded('crash', 5)}), '0', 'crash: never more than five at once');
}

# A type whose groups wait leaves room for those of others.
$s->quit;
$node->append_conf('postgresql.conf', 'jobqueue.max_groups = 100');
$node->restart;
$s = JobQueue::Session->new($node);
$s->query(q{INSERT INTO job_types (job_type, group_concurrency) VALUES ('wall', 1), ('other', 1);
	SELECT enqueue_job('wall', group_key => 'w' || i) FROM generate_series(1, 300) i;
	SELECT enqueue_job('other', group_key => 'o' || i) FROM generate_series(1, 40) i});
is($s->query(q{SELECT claim('wall')}), '1', 'groups: more than there is room for');
$s->query(q{SELECT throttle_job_type('wall', '1 hour')});
is($s->query(q{SELECT claim('other', 100) >= 16}), 't', 'groups: those of another type have some');
$s->query(q{SELECT throttle_job_type('wall', '0'); SELECT finish('wall', 300); SELECT finish('other', 40)});
wait_for_query($node, q{WITH c AS (SELECT claim('wall', 100) + claim('other', 100) AS n), f AS (SELECT finish('wall', 300) + finish('other', 40))
	SELECT count(*) FROM jobs_queue_done WHERE job_type IN ('wall', 'other') AND (SELECT n FROM c) >= 0 AND (SELECT * FROM f) >= 0}, 340);

$s->quit;
is(log_problems($node, 0), '', 'the server has not crashed');
$node->stop;
done_testing();
