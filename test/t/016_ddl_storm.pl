# While clients enqueue, claim and resolve, an administrator rewrites, reindexes,
# truncates, alters, drops and creates what they work on. Nobody crashes, errors
# are the ones that are allowed, nothing is lost, and after each the queue works
# and its order is right.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Session;
use JobQueue::Storm qw(claim_paths set_claim_path run_problems log_problems storm_seed);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
max_connections = 60
log_statement = none
shared_buffers = 128MB
deadlock_timeout = 200ms
jobqueue.retry_delay = 0
autovacuum_naptime = 1s
CONF
storm_seed();
my $probe_worker = '00000000-0000-4000-8000-0000000000ff';
my $clients_wanted = 8;

# What happened, written in the transaction that did it. Clients take its lock
# first in each statement, and so does whoever truncates the queue and the ledger.
my $ledger = 'CREATE TABLE ledger (kind text, job_id bigint, claim_no integer, client integer)';
my $job_types = q{INSERT INTO job_types (job_type, backoff, max_attempts) SELECT t, '{"delay": 0}', 1000 FROM unnest('{a,b,probe}'::text[]) t};

my $ledger_problems = q{
	WITH p AS (
		SELECT 'enqueued and not there' AS problem, job_id FROM ledger WHERE kind = 'enqueued' AND job_id NOT IN (SELECT id FROM jobs_queue)
		UNION ALL SELECT 'there and not enqueued', id FROM jobs_queue WHERE job_type IN ('a', 'b') AND id NOT IN (SELECT job_id FROM ledger WHERE kind = 'enqueued')
		UNION ALL SELECT kind || ' twice', job_id FROM ledger GROUP BY kind, job_id, claim_no HAVING count(*) > 1
		UNION ALL SELECT 'claim without its run', job_id FROM ledger l WHERE kind = 'claimed'
			AND NOT EXISTS (SELECT FROM job_runs r WHERE (r.job_id, r.claim_no) = (l.job_id, l.claim_no))
			AND NOT EXISTS (SELECT FROM jobs_queue q WHERE (q.id, q.claim_no, q.status) = (l.job_id, l.claim_no, 'running'))
		UNION ALL SELECT 'run without its claim', r.job_id FROM job_runs r WHERE r.job_type IN ('a', 'b')
			AND NOT EXISTS (SELECT FROM ledger l WHERE kind = 'claimed' AND (r.job_id, r.claim_no) = (l.job_id, l.claim_no))
		UNION ALL SELECT 'completed and not there', job_id FROM ledger l WHERE kind = 'completed'
			AND NOT EXISTS (SELECT FROM jobs_queue q WHERE q.id = l.job_id AND q.status = 'completed')
		UNION ALL SELECT 'there and not completed', id FROM jobs_queue WHERE status = 'completed' AND job_type IN ('a', 'b')
			AND id NOT IN (SELECT job_id FROM ledger WHERE kind = 'completed'))
	SELECT problem, count(*), min(job_id) FROM p GROUP BY 1 ORDER BY 1};

# A client: enqueues, claims one job or some, completes them, or lets them fail
# or go; sometimes all in one transaction. It writes down its errors, and how
# often it got through, where the parent can read it while tables come and go.
my $reports = PostgreSQL::Test::Utils::tempdir();

sub client
{
	my ($number, $go_on) = @_;

	my $me = sprintf '00000000-0000-4000-8000-%012d', $number;
	my $s = JobQueue::Session->new($node);
	my %prepared;
	my $completed = 0;
	my $say = sub { append_to_file("$reports/errors.$number", "$_[0]\n") };
	my $try = sub {
		my ($sql) = @_;
		my $state = $s->try($sql);
		return $s->{output} if $state eq '00000';
		$say->("$state " . $s->{message} =~ s/^.*?: .*?: //r);
		die "lost the connection: $s->{message}" if $state eq JobQueue::Session::LOST;
		$s->try('ROLLBACK');
		# why: what has failed because of a step would fail again until it is over
		sleep 0.02;
		return undef;
	};
	# Prepared statements outlive what they were planned for
	$s->query("PREPARE claim AS WITH c AS MATERIALIZED (SELECT id, claim_no FROM claim_next_job('$me', 'a'))
		INSERT INTO ledger SELECT 'claimed', id, claim_no, $number FROM c RETURNING job_id, claim_no");
	while ($go_on->())
	{
		my $type = rand(1) < 0.5 ? 'a' : 'b';
		if ($number % 4 == 0)
		{
			my $n = 1 + int rand 10;
			my $priority = int(rand 3) - 1;
			my $how = rand 1;
			$try->($how < 0.4 ? "INSERT INTO ledger SELECT 'enqueued', enqueue_jobs('$type', array_fill('{}'::jsonb, ARRAY[$n]), priority => $priority)"
				: $how < 0.8 ? "BEGIN; LOCK TABLE ledger IN ROW EXCLUSIVE MODE; WITH i AS (INSERT INTO jobs_queue (job_type, priority, stage) SELECT '$type', $priority, 's' || g % 2 FROM generate_series(1, $n) g RETURNING id) INSERT INTO ledger SELECT 'enqueued', id FROM i; COMMIT"
				: "BEGIN; INSERT INTO ledger SELECT 'enqueued', enqueue_job('$type'); SAVEPOINT s; INSERT INTO ledger SELECT 'enqueued', enqueue_job('$type'); ROLLBACK TO s; COMMIT");
			# why: jobs must not come faster than the others complete them
			sleep 0.01 * $n;
			next;
		}
		my $how = rand 1;
		my $transaction = $how > 0.7;
		$try->('BEGIN') if $transaction;
		my $got = $try->($how < 0.2 ? 'EXECUTE claim' : 'WITH c AS MATERIALIZED (SELECT id, claim_no FROM '
			. ($how < 0.5 ? "claim_next_job('$me', '$type')" : "claim_jobs('$me', '{a,b}', 4)") . ") INSERT INTO ledger SELECT 'claimed', id, claim_no, $number FROM c RETURNING job_id, claim_no");
		next if !defined $got;
		for my $job (split /\n/, $got)
		{
			my ($id, $no) = split /\|/, $job;
			my $lot = rand 1;
			my $done = $try->($lot < 0.8 ? "INSERT INTO ledger SELECT 'completed', $id WHERE resolve_job($id, '$me', true, NULL, $no) RETURNING 1"
				: $lot < 0.9 ? "SELECT resolve_job($id, '$me', false, 'no', $no)" : "SELECT release_job($id, '$me', $no)");
			$completed++ if ($done // '') eq '1';
		}
		if ($transaction)
		{
			$try->($how > 0.9 ? 'ROLLBACK' : 'COMMIT');
		}
		# why: clients that never rest keep the administrator from the processors
		sleep 0.02;
		append_to_file("$reports/completed.$number", "x") if $completed && $completed % 3 == 0;
	}
	$s->quit;
	return;
}

sub progress
{
	my $sum = 0;
	$sum += -s $_ for glob "$reports/completed.*";
	return $sum;
}

# Waits until the clients have got through some more.
sub wait_for_progress
{
	my ($name) = @_;

	my $wanted = progress() + 10;
	my $until = time + 30;
	# why: a look at files costs nothing that could be waited for
	sleep 0.02 while progress() < $wanted && time < $until;
	cmp_ok(progress(), '>=', $wanted, $name);
	return;
}

sub errors_since
{
	my ($offsets) = @_;

	my %seen;
	for my $number (1 .. $clients_wanted)
	{
		my $file = "$reports/errors.$number";
		next unless -e $file;
		$seen{$_}++ for map { s/ .*?\K\b\d+\b/N/gr } split /\n/, slurp_file($file, $offsets->{$number} // 0);
		$offsets->{$number} = -s $file;
	}
	return %seen;
}

# Jobs that only the administrator claims, some of them before the change, so
# that whatever remembers the lanes is warm: order is exact for them.
sub enqueue_probes
{
	my ($s) = @_;

	$s->query(q{DELETE FROM jobs_queue WHERE job_type = 'probe'});
	$s->query(q{INSERT INTO jobs_queue (job_type, stage, priority, scheduled_at)
		SELECT 'probe', 's' || i % 3, i % 4, now() - random() * interval '1 hour' FROM generate_series(1, 40) i});
	return claim_probes($s, 6);
}

# Claims one by one; says what was out of order.
sub claim_probes
{
	my ($s, $n) = @_;

	my @wrong;
	for (1 .. $n)
	{
		my ($wanted, $got) = map { $s->query($_) } "SELECT id FROM jobs_queue WHERE job_type = 'probe' AND status = 'queued' ORDER BY priority, scheduled_at, id LIMIT 1",
		  "SELECT id FROM claim_next_job('$probe_worker', 'probe')";
		push @wrong, "wanted $wanted, got $got" if $wanted ne $got;
	}
	return join "\n", @wrong;
}

my $start_over = q{BEGIN; LOCK TABLE ledger; TRUNCATE ledger; %s; COMMIT};

# Two of PostgreSQL's own habits. What a function returns is not locked while a
# statement that calls it is planned, nor is the function itself: a column that
# is added or dropped, or the extension, can go in between. And DROP TRIGGER
# locks the leaves of a partitioned table before the table.
my $row_type = qr/^42804 function return row and query-specified return row do not match$|^XX000 cache lookup failed for type/;
my $gone = qr/^(?:42P01|42883|3F000|55000|40P01) |^XX000 (?:cache lookup failed for|could not open relation with OID)/;
# A claim reads an index before it locks the table for writing.
my $deadlock = qr/^40P01 /;

# name, statements, what clients may be told meanwhile, whether the probes are gone
my @changes = (
	[ 'VACUUM', 'VACUUM jobs_queue' ],
	[ 'VACUUM FULL', 'VACUUM FULL jobs_queue_live' ],
	[ 'VACUUM FULL of all', 'VACUUM FULL jobs_queue' ],
	[ 'CLUSTER', 'CLUSTER jobs_queue_live USING jobs_queue_live_ready' ],
	[ 'CLUSTER by id', 'CLUSTER jobs_queue_live USING jobs_queue_live_pkey' ],
	[ 'REINDEX TABLE', 'REINDEX TABLE jobs_queue_live' ],
	[ 'REINDEX INDEX', 'REINDEX INDEX jobs_queue_live_ready' ],
	[ 'REINDEX INDEX CONCURRENTLY', 'REINDEX INDEX CONCURRENTLY jobs_queue_live_ready' ],
	[ 'CREATE INDEX', 'CREATE INDEX mine ON jobs_queue_live (correlation_id)' ],
	[ 'DROP INDEX', 'DROP INDEX mine' ],
	[ 'CREATE INDEX CONCURRENTLY', 'CREATE INDEX CONCURRENTLY mine ON jobs_queue_live (created_at)' ],
	[ 'DROP INDEX CONCURRENTLY', 'DROP INDEX CONCURRENTLY mine' ],
	[ 'ANALYZE', 'ANALYZE jobs_queue' ],
	[ 'ALTER TABLE SET (fillfactor)', 'ALTER TABLE jobs_queue_live SET (fillfactor = 60)' ],
	[ 'ADD COLUMN', 'ALTER TABLE jobs_queue ADD COLUMN mine integer', $row_type ],
	[ 'UPDATE of all', 'UPDATE jobs_queue SET mine = 1 WHERE job_type = \'probe\'' ],
	[ 'ADD COLUMN with a default that is computed', 'ALTER TABLE jobs_queue ADD COLUMN drawn float8 DEFAULT random()', $row_type ],
	[ 'DROP COLUMN', 'ALTER TABLE jobs_queue DROP COLUMN mine', $row_type ],
	[ 'DROP COLUMN, the other', 'ALTER TABLE jobs_queue DROP COLUMN drawn', $row_type ],
	[ 'ALTER TABLE, rolled back', 'BEGIN; ALTER TABLE jobs_queue ADD COLUMN mine integer DEFAULT random() * 10; ROLLBACK' ],
	[ 'CREATE and DROP TRIGGER', 'CREATE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$; CREATE TRIGGER mine BEFORE UPDATE ON jobs_queue FOR EACH ROW EXECUTE FUNCTION mine()' ],
	[ 'DROP TRIGGER', 'DROP TRIGGER mine ON jobs_queue; DROP FUNCTION mine()', $deadlock ],
	[ 'TRUNCATE, rolled back', 'BEGIN; LOCK TABLE ledger; TRUNCATE jobs_queue; ROLLBACK' ],
	[ 'TRUNCATE in a savepoint, rolled back', q{BEGIN; LOCK TABLE ledger; SAVEPOINT s; TRUNCATE jobs_queue; SELECT enqueue_job('probe', priority => -9); ROLLBACK TO s; COMMIT} ],
	[ 'TRUNCATE', sprintf($start_over, 'TRUNCATE jobs_queue'), undef, 1 ],
	[ 'INSERT, TRUNCATE, INSERT', sprintf($start_over, q{SELECT enqueue_job('probe', priority => 9) FROM generate_series(1, 10); TRUNCATE jobs_queue;
		INSERT INTO jobs_queue (job_type, priority, scheduled_at) SELECT 'probe', i % 2, now() - random() * interval '1 hour' FROM generate_series(1, 10) i}), undef, 10 ],
	[ 'TRUNCATE RESTART IDENTITY', sprintf($start_over, 'TRUNCATE jobs_queue RESTART IDENTITY'), undef, 1 ],
	# not relocatable: refused, and nothing happens
	[ 'ALTER EXTENSION SET SCHEMA', 'CREATE SCHEMA elsewhere; ALTER EXTENSION jobqueue SET SCHEMA elsewhere', undef, 0, '0A000' ],
	[ 'ALTER SCHEMA RENAME', 'ALTER SCHEMA public RENAME TO renamed; SELECT pg_sleep(0.1); ALTER SCHEMA renamed RENAME TO public', $gone ],
	[ 'DROP EXTENSION, CREATE EXTENSION', sprintf($start_over, "DROP EXTENSION jobqueue; CREATE EXTENSION jobqueue; $job_types"), $gone, 1 ],
	[ 'DROP EXTENSION, and CREATE EXTENSION later', "BEGIN; LOCK TABLE ledger; TRUNCATE ledger; DROP EXTENSION jobqueue; COMMIT; SELECT pg_sleep(0.2); BEGIN; CREATE EXTENSION jobqueue; $job_types; COMMIT", $gone, 1 ],
);

for my $path (claim_paths($node))
{
	set_claim_path($node, $path);
	my $admin = JobQueue::Session->new($node);
	$admin->query("DROP TABLE IF EXISTS ledger; $ledger; TRUNCATE jobs_queue, job_types; $job_types");
	unlink glob "$reports/*";
	my (%offsets, $allowed_before);
	my $log_offset = -s $node->logfile;
	my $clients = JobQueue::Storm->start($clients_wanted, \&client);
	wait_for_progress("$path: the clients work");

	for my $change (@changes)
	{
		my ($name, $sql, $allowed, $probes_gone, $refused) = @$change;

		is(enqueue_probes($admin), '', "$path: before $name: the order is right");
		my $state = '00000';
		for (1 .. 20)
		{
			$state = $admin->try($sql);
			last if $state ne '40P01' || "40P01 " !~ ($allowed // '-');
			$admin->try('ROLLBACK');
		}
		is($state, $refused // '00000', "$path: $name") or diag($admin->{message});
		$admin->try('ROLLBACK; DROP SCHEMA IF EXISTS elsewhere');
		is($admin->query("SELECT count(*) FROM jobs_queue WHERE job_type = 'probe'"), $probes_gone == 1 ? 0 : $probes_gone, "$path: $name: the queue is another one")
		  if $probes_gone;
		is(claim_probes($admin, 10), '', "$path: after $name: the order is right");
		is(enqueue_probes($admin), '', "$path: after $name: for new jobs, too");
		wait_for_progress("$path: after $name: the clients go on");
		my %errors = errors_since(\%offsets);
		# what a client says late belongs to the change before
		my @excuses = grep { defined } $allowed, $allowed_before;
		$allowed_before = $allowed;
		for my $excuse (@excuses) { delete @errors{ grep { /$excuse/ } keys %errors } }
		is(join("\n", map { "$errors{$_}: $_" } sort keys %errors), '', "$path: $name: no client was told what it should not be");
		is($clients->failures, '', "$path: $name: no client has died") or last;
	}

	is($clients->stop, '', "$path: the clients end");
	note("$path: clients got through " . progress() . ' times three');
	# What a client held when a change of schema or an error came between
	$admin->query(q{SELECT release_job(id, locked_by) FROM jobs_queue WHERE status = 'running'});
	$admin->query(q{DELETE FROM jobs_queue WHERE job_type = 'probe'; DELETE FROM job_runs WHERE job_type = 'probe'});
	is($admin->query($ledger_problems), '', "$path: nothing is lost, nothing is done twice");
	is(run_problems($node), '', "$path: one run for each claim");
	my $left = $admin->query(q{SELECT count(*) FROM jobs_queue_live});
	is($admin->query(qq{SELECT count(*) FROM generate_series(1, 1 + $left / 1000) g, LATERAL claim_jobs('$probe_worker', CASE WHEN g > 0 THEN '{a,b}'::text[] END, 1000)}), $left, "$path: one worker finds all that is left");
	$admin->query('TRUNCATE jobs_queue');
	$admin->quit;
	is(log_problems($node, $log_offset), '', "$path: nothing crashed or leaked");
}

$node->stop;
done_testing();
