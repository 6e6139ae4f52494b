# 64 clients claim, roll back, fail, release and complete while others enqueue
# and an operator reorders: every claim is one worker's, nothing is lost, and
# what one client alone works on comes to it in order, at once.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Storm qw(claim_paths set_claim_path run_problems log_problems storm_seed);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
max_connections = 120
shared_buffers = 128MB
log_statement = none
CONF
my $seed = storm_seed();

# The ledger is written in the transactions that it tells about, so it has what
# was committed: jobs enqueued, jobs handed to a worker, and the answers of the
# functions that end a claim. No constraints: they would wait, and hide things.
$node->safe_psql('postgres', q{
	CREATE TABLE enqueued (job_id bigint);
	CREATE TABLE claims (job_id bigint, claim_no integer, worker uuid, script text);
	CREATE TABLE answers (job_id bigint, claim_no integer, status text, answer boolean);
	CREATE TABLE misses (job_type text, wanted bigint[], got bigint[], script text);
	-- Claims until there is nothing; returns what is ready all the same.
	CREATE FUNCTION drain() RETURNS TABLE (still_ready bigint) LANGUAGE plpgsql AS $$
	BEGIN
		LOOP
			WITH c AS MATERIALIZED (SELECT id, claim_no, locked_by FROM claim_jobs(worker(99), NULL, 1000))
				INSERT INTO claims SELECT id, claim_no, locked_by, 'drain' FROM c;
			IF NOT FOUND THEN
				RETURN QUERY SELECT count(*) FROM jobs_queue_live WHERE status = 'queued' AND scheduled_at <= now();
				RETURN;
			END IF;
			INSERT INTO answers SELECT id, claim_no, 'completed', resolve_job(id, worker(99), true, NULL, claim_no)
				FROM jobs_queue_live WHERE locked_by = worker(99);
		END LOOP;
	END $$;
	CREATE FUNCTION worker(integer) RETURNS uuid LANGUAGE sql IMMUTABLE AS
		$$ SELECT ('00000000-0000-4000-8000-' || lpad($1::text, 12, '0'))::uuid $$;
	INSERT INTO job_types (job_type, backoff, max_attempts) SELECT t, '{"delay": 0}', 3 FROM unnest('{a,b,c}'::text[]) t;
});

# Parts of the scripts. A claim sets :id and :no, to 0 where there was no job.
my $types = q{(ARRAY['a', 'b', 'c'])[:type::integer]};    # 0: NULL, all types

sub claim
{
	my ($script, $call) = @_;

	$call //= "claim_next_job(worker(:client_id::integer), $types)";
	return qq{
		WITH c AS MATERIALIZED (SELECT id, claim_no, locked_by FROM $call),
			l AS (INSERT INTO claims SELECT id, claim_no, locked_by, '$script' FROM c)
		SELECT coalesce(max(id), 0) AS id, coalesce(max(claim_no), 0) AS no FROM c \\gset
	} =~ s/\n\s*(?=\S)/ /gr =~ s/^\s+//r . "\n";
}

sub answer
{
	my ($status, $call) = @_;

	return "INSERT INTO answers SELECT :id::bigint, :no::integer, '$status', $call;\n";
}
my %end = (
	complete => answer('completed', 'resolve_job(:id::bigint, worker(:client_id::integer), true, NULL, :no::integer)'),
	fail => answer('failed', q{resolve_job(:id::bigint, worker(:client_id::integer), false, 'no', :no::integer)}),
	result => answer('completed', q{complete_job(:id::bigint, worker(:client_id::integer), '{"a": 1}', :no::integer)}),
	release => answer('released', 'release_job(:id::bigint, worker(:client_id::integer), :no::integer)'),
	snooze => answer('released', q{snooze_job(:id::bigint, worker(:client_id::integer), '0', :no::integer)}));
my $any_end = <<"SCRIPT";
\\set end random(1, 100)
\\if :end <= 60
$end{complete}\\elif :end <= 70
$end{result}\\elif :end <= 88
$end{fail}\\elif :end <= 94
$end{release}\\else
$end{snooze}\\endif
SCRIPT
my $draw = "\\set type random(0, 3)\n\\set lot random(1, 100)\n";

# n jobs with one call, and one call for all of their answers
sub batch
{
	my ($n) = @_;

	return qq{
		WITH c AS MATERIALIZED (SELECT id, claim_no, locked_by
			FROM claim_jobs(worker(:client_id::integer), CASE WHEN :type::integer > 0 THEN ARRAY[$types, 'none'] END, $n)),
			l AS (INSERT INTO claims SELECT id, claim_no, locked_by, 'batch' FROM c)
		SELECT count(*) AS n, coalesce(array_agg(id), '{}') AS ids, coalesce(array_agg(claim_no), '{}') AS nos FROM c \\gset
	} =~ s/\n\s*(?=\S)/ /gr =~ s/^\s+//r . "\n";
}
my $batch_end = q{
	WITH d AS MATERIALIZED (SELECT j, n, o, random() < :odds::float8 AS s FROM unnest(:ids::bigint[], :nos::integer[]) WITH ORDINALITY AS u (j, n, o)),
		r AS MATERIALIZED (SELECT resolve_jobs(worker(:client_id::integer), array_agg(j ORDER BY o), array_agg(s ORDER BY o), NULL, array_agg(n ORDER BY o)) AS a FROM d)
	INSERT INTO answers SELECT j, n, CASE WHEN s THEN 'completed' ELSE 'failed' END, a[o] FROM d, r;
} =~ s/\n\s*(?=\S)/ /gr =~ s/^\s+//r;

# resolve_and_claim as long as there is something
sub chain
{
	my ($length) = @_;

	return $end{complete} if $length == 0;
	return q{INSERT INTO answers VALUES (:id::bigint, :no::integer, 'completed', true);} . "\n"
	  . claim('chain', "resolve_and_claim(:id::bigint, worker(:client_id::integer), true, NULL, $types, :no::integer)")
	  . "\\if :id > 0\n" . chain($length - 1) . "\\endif\n";
}

my %scripts = (
	'single@10' => $draw . claim('single') . "\\if :id > 0\n$any_end\\endif\n",
	# a claim in a transaction that ends either way
	'rollback@5' => $draw . "BEGIN;\n" . claim('rollback') . "\\if :id > 0\n$any_end\\endif\n"
	  . "\\if :lot <= 60\nROLLBACK;\n\\else\nCOMMIT;\n\\endif\n",
	# claims in subtransactions, some rolled back, nested, beside claims that stay
	'savepoint@5' => $draw . "BEGIN;\nSAVEPOINT s;\n" . claim('savepoint 1') . "\\if :id > 0\n$any_end\\endif\n"
	  . "SAVEPOINT t;\n" . claim('savepoint 2') . "\\if :id > 0\n$any_end\\endif\nROLLBACK TO t;\n"
	  . "\\if :lot <= 60\nROLLBACK TO s;\n\\else\nRELEASE s;\n\\endif\n"
	  . claim('savepoint 3') . "\\if :id > 0\n$any_end\\endif\n"
	  . "\\set lot random(1, 100)\n\\if :lot <= 80\nCOMMIT;\n\\else\nROLLBACK;\n\\endif\n",
	'batch@4' => $draw . "\\set n random(1, 40)\n\\set odds 0.85\n" . batch(':n::integer')
	  . "\\if :n > 0\n$batch_end\\endif\n",
	'batch_rollback@2' => $draw . "\\set n random(1, 40)\n\\set odds 0.85\nBEGIN;\n" . batch(':n::integer')
	  . "\\if :n > 0\n$batch_end\\endif\n\\if :lot <= 60\nROLLBACK;\n\\else\nCOMMIT;\n\\endif\n",
	'chain@4' => $draw . claim('chain') . "\\if :id > 0\n" . chain(6) . "\\endif\n",
	'producer@3' => <<'SCRIPT',
\set n random(1, 15)
\set priority random(-2, 2)
\set type random(1, 3)
\set ms random(-1000, 1000)
\set lot random(1, 100)
BEGIN;
INSERT INTO enqueued SELECT enqueue_job((ARRAY['a', 'b', 'c'])[:type::integer], priority => :priority::integer, scheduled_at => now() + :ms::integer * interval '1 ms');
SAVEPOINT s;
INSERT INTO enqueued SELECT enqueue_jobs('b', array_fill('{}'::jsonb, ARRAY[:n::integer]), priority => :priority::integer, stage => 's' || :type::integer);
\if :lot <= 40
ROLLBACK TO s;
\elif :lot <= 70
RELEASE s;
\endif
WITH i AS (INSERT INTO jobs_queue (job_type, priority, stage) SELECT 'c', :priority::integer, 's' || i FROM generate_series(1, 3) i RETURNING id) INSERT INTO enqueued SELECT id FROM i;
\set lot random(1, 100)
\if :lot <= 75
COMMIT;
\else
ROLLBACK;
\endif
SCRIPT
	'operator@2' => <<'SCRIPT');
\set n random(1, 50000)
\set priority random(-3, 3)
\set ms random(-60000, 500)
\set lot random(1, 100)
BEGIN;
UPDATE jobs_queue SET priority = :priority::integer, scheduled_at = now() + :ms::integer * interval '1 ms' WHERE id = :first::bigint + :n::integer AND status = 'queued';
\if :lot <= 50
COMMIT;
\else
ROLLBACK;
\endif
SCRIPT

# A client that works alone on job types of its own: it knows which jobs a claim
# must return, although 63 others are at theirs. Of times only those are used
# that are past or future beyond doubt.
my $own_type = q{'own ' || :client_id::integer || ' ' || :own::integer};
my $ready = "(SELECT * FROM jobs_queue_live WHERE job_type = $own_type AND status = 'queued' AND scheduled_at <= now() ORDER BY priority, scheduled_at, id";

sub own_claim
{
	my ($script, $call, $n) = @_;

	return qq{
		WITH e AS MATERIALIZED (SELECT ARRAY(SELECT id FROM $ready LIMIT $n) r) AS ids),
			c AS MATERIALIZED (SELECT id, claim_no, locked_by FROM $call),
			g AS (SELECT ARRAY(SELECT id FROM c) AS ids),
			l AS (INSERT INTO claims SELECT id, claim_no, locked_by, '$script' FROM c),
			m AS (INSERT INTO misses SELECT $own_type, e.ids, g.ids, '$script' FROM e, g WHERE e.ids <> g.ids)
		SELECT count(*) AS n, coalesce(array_agg(id), '{}') AS ids, coalesce(array_agg(claim_no), '{}') AS nos,
			coalesce(min(id), 0) AS id, coalesce(min(claim_no), 0) AS no FROM c \\gset
	} =~ s/\n\s*(?=\S)/ /gr =~ s/^\s+//r . "\n";
}
my $own_draw = "\\set own random(1, 8)\n\\set priority random(-2, 2)\n\\set s random(1, 100000)\n\\set lot random(1, 100)\n\\set odds 1\n";
my $own_enqueue = "INSERT INTO enqueued SELECT enqueue_job($own_type, priority => :priority::integer, stage => 's' || (:s::integer % 3), "
  . "scheduled_at => now() - CASE WHEN :s::integer % 10 = 0 THEN -86400 ELSE :s::integer END * interval '1 s');\n";
my $own_one = own_claim('own', "claim_next_job(worker(:client_id::integer), $own_type)", 1) . "\\if :n > 0\n$end{complete}\\endif\n";
my $own_some = own_claim('own batch', "claim_jobs(worker(:client_id::integer), ARRAY[$own_type], 3)", 3) . "\\if :n > 0\n$batch_end\\endif\n";
my $own_draw_s = "\\set s random(1, 100000)\n\\set priority random(-2, 2)\n";
my %own_scripts = (
	'own_enqueue@6' => $own_draw . ($own_enqueue . $own_draw_s) x 8 . $own_one . "BEGIN;\n$own_enqueue\\if :lot <= 50\nROLLBACK;\n\\else\nCOMMIT;\n\\endif\n$own_one",
	'own_claim@3' => $own_draw . $own_one x 2 . $own_some,
	'own_rollback@3' => $own_draw . "BEGIN;\n$own_one$own_some\\if :lot <= 70\nROLLBACK;\n\\else\nCOMMIT;\n\\endif\n$own_one",
	'own_savepoint@3' => $own_draw . "BEGIN;\nSAVEPOINT s;\n$own_one$own_enqueue${own_draw_s}ROLLBACK TO s;\n$own_some"
	  . "SAVEPOINT t;\n$own_enqueue$own_one\\if :lot <= 50\nROLLBACK TO t;\n\\endif\n$own_one" . "COMMIT;\n$own_one",
	'own_release@3' => $own_draw . own_claim('own release', "claim_next_job(worker(:client_id::integer), $own_type)", 1)
	  . "\\if :n > 0\n$end{release}\\endif\n$own_one",
	'own_operator@4' => $own_draw . "BEGIN;\nUPDATE jobs_queue SET priority = :priority::integer, stage = 't', "
	  . "scheduled_at = now() - CASE WHEN :s::integer % 4 = 0 THEN -86400 ELSE :s::integer END * interval '1 s' WHERE id = (SELECT id FROM jobs_queue_live "
	  . "WHERE job_type = $own_type ORDER BY id OFFSET :s::integer % 3 LIMIT 1);\n\\if :lot <= 40\nROLLBACK;\n\\else\nCOMMIT;\n\\endif\n$own_one",
	'producer@6' => $scripts{'producer@3'});
for my $name ('single@10', 'savepoint@5', 'batch@4', 'chain@4')
{
	$own_scripts{$name} = $scripts{$name} =~ s/^\\set type .*/\\set type random(1, 3)/mr;
}

my $differences = q{
	WITH p AS (
		SELECT 'enqueued and not there' AS problem, job_id FROM enqueued WHERE job_id NOT IN (SELECT id FROM jobs_queue)
		UNION ALL SELECT 'there and not enqueued', id FROM jobs_queue WHERE id NOT IN (SELECT job_id FROM enqueued)
		UNION ALL SELECT 'not ended', id FROM jobs_queue WHERE status NOT IN ('completed', 'failed')
		UNION ALL SELECT 'enqueued twice', job_id FROM enqueued GROUP BY job_id HAVING count(*) > 1
		UNION ALL SELECT 'claimed twice', job_id FROM claims GROUP BY job_id, claim_no HAVING count(*) > 1
		UNION ALL SELECT 'answered twice', job_id FROM answers GROUP BY job_id, claim_no HAVING count(*) > 1
		UNION ALL SELECT 'claim without its run', job_id FROM claims NATURAL LEFT JOIN job_runs WHERE finished_at IS NULL
		UNION ALL SELECT 'run of nobody''s claim', r.job_id FROM job_runs r LEFT JOIN claims c USING (job_id, claim_no) WHERE c.job_id IS NULL
		UNION ALL SELECT 'run of another worker', r.job_id FROM job_runs r JOIN claims c USING (job_id, claim_no) WHERE c.worker IS DISTINCT FROM r.worker_id
		UNION ALL SELECT 'run that nobody ended', r.job_id FROM job_runs r LEFT JOIN answers a USING (job_id, claim_no) WHERE a.job_id IS NULL
		UNION ALL SELECT 'run that was ended otherwise', r.job_id FROM job_runs r JOIN answers a USING (job_id, claim_no) WHERE a.status <> r.status
		UNION ALL SELECT 'not the first of one''s own', wanted[1] FROM misses
		UNION ALL SELECT 'refused the holder', job_id FROM answers WHERE answer IS NOT TRUE)
	SELECT problem, count(*), min(job_id) FROM p GROUP BY 1 ORDER BY 1};

for my $path (claim_paths($node))
{
	set_claim_path($node, $path);
	$node->safe_psql('postgres', q{
		TRUNCATE jobs_queue, enqueued, claims, answers, misses;
		SELECT setseed(0.5);
		WITH i AS (INSERT INTO jobs_queue (job_type, stage, priority, scheduled_at)
			SELECT (ARRAY['a', 'b', 'c'])[1 + i % 3], 's' || i % 2, i % 5 - 2, now() - random() * interval '1 hour'
			FROM generate_series(1, 50000) i RETURNING id)
		INSERT INTO enqueued SELECT id FROM i;
		ANALYZE;
	});
	my $first = $node->safe_psql('postgres', 'SELECT min(job_id) FROM enqueued');
	my $started = time;
	$node->pgbench("-n -c 64 -j 2 -t 100 -M prepared -D first=$first --random-seed=$seed", 0,
		[qr{number of transactions actually processed: 6400/6400}], [qr{\A(?:pgbench: setting random seed[^\n]*\n)?\z}], "$path: 64 clients", { map { ("$path-$_" => $scripts{$_}) } keys %scripts });
	note('storm: ' . (time - $started) . ' s, ' . $node->safe_psql('postgres', q{SELECT (SELECT count(*) FROM claims), (SELECT count(*) FROM enqueued), (SELECT count(*) FROM jobs_queue_live)}));
	is($node->safe_psql('postgres', q{SELECT count(*) FROM jobs_queue WHERE status = 'running'}), '0', "$path: nobody holds a job");
	cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM claims'), '>', 10000, "$path: they had work");

	is($node->safe_psql('postgres', 'SELECT still_ready FROM drain()'), '0', "$path: one worker finds all that is left");

	# Now lanes that are empty most of the time, and many of them
	$node->pgbench("-n -c 64 -j 2 -t 60 -M prepared --random-seed=$seed", 0, [qr{processed: 3840/3840}],
		[qr{\A(?:pgbench: setting random seed[^\n]*\n)?\z}], "$path: 64 hungry clients", { map { ("$path-hungry-$_" => $own_scripts{$_}) } keys %own_scripts });
	note('hungry: ' . (time - $started) . ' s, ' . $node->safe_psql('postgres', q{SELECT count(*), count(*) FILTER (WHERE script LIKE 'own%') FROM claims}));
	is($node->safe_psql('postgres', 'SELECT still_ready FROM drain()'), '0', "$path: one worker finds all that is left of that");
	$node->safe_psql('postgres', q{UPDATE jobs_queue SET scheduled_at = now() WHERE scheduled_at > now() + interval '1 minute' AND status = 'queued'});
	wait_for_query($node, q{SELECT count(*) FROM jobs_queue_live WHERE scheduled_at > clock_timestamp()}, 0);
	is($node->safe_psql('postgres', 'SELECT still_ready FROM drain()'), '0', "$path: and what had to wait");
	note('drained: ' . (time - $started) . ' s');

	is($node->safe_psql('postgres', $differences), '', "$path: the ledger and the queue agree");
	is(run_problems($node), '', "$path: one run for each claim, one charge for each attempt");
	is($node->safe_psql('postgres', q{SELECT (SELECT count(*) FROM jobs_queue_done WHERE status IN ('completed', 'failed')) = (SELECT count(*) FROM enqueued),
			(SELECT count(*) FROM jobs_queue_live), (SELECT count(*) > 0 FROM jobs_queue_done WHERE status = 'failed')}),
		't|0|t', "$path: completed and failed are all that was enqueued");
	is($node->safe_psql('postgres', q{SELECT count(DISTINCT script), bool_or(script LIKE 'savepoint%') FROM claims}), '10|t', "$path: every script has claimed")
	  or diag($node->safe_psql('postgres', 'SELECT script, count(*) FROM claims GROUP BY 1'));
}

$node->stop;
is(log_problems($node), '', 'nothing crashed or leaked');
unlike(slurp_file($node->logfile), qr/\bERROR:/, 'no error was raised');
done_testing();
