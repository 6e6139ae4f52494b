# Workflows of thousands of jobs in a running server: released by index, with
# the results of parents at hand; every end of a parent reaches its children;
# and many ends at once leave no job that waits for nobody.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Storm qw(run_problems storm_seed);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
jobqueue.max_executors = 2
jobqueue.poll_interval = 1s
jobqueue.crash_limit = 1
autovacuum = off
CONF
my $seed = storm_seed();
my $worker = '00000000-0000-4000-8000-000000000001';

# 1 -> 9,998 -> 1, in one call
$node->safe_psql('postgres', q{
	INSERT INTO job_types (job_type, runner, owner, command) VALUES
		('first', 'sql', CURRENT_USER::regrole, 'SELECT 7 AS seven'),
		('middle', 'sql', CURRENT_USER::regrole, 'SELECT (result->>''seven'')::int * ($1->>''n'')::int AS product FROM parent_results()'),
		('last', 'sql', CURRENT_USER::regrole, 'SELECT count(*) AS jobs, sum((result->>''product'')::int) AS total FROM parent_results()')});
my ($first, $last) = split /\|/, $node->safe_psql('postgres', q{
	SELECT min(id), max(id) FROM enqueue_job_batch((
		SELECT jsonb_agg(job) FROM (
			SELECT jsonb_build_object('job_type', 'last', 'depends_on_keys', (SELECT jsonb_agg(n::text) FROM generate_series(1, 9998) AS n)) AS job
			UNION ALL
			SELECT jsonb_build_object('job_type', 'middle', 'key', n::text, 'payload', jsonb_build_object('n', n), 'depends_on_keys', '["root"]'::jsonb)
			FROM generate_series(1, 9998) AS n
			UNION ALL
			SELECT '{"job_type": "first", "key": "root"}') jobs)) AS id});
wait_for_query($node, "SELECT status FROM jobs_queue WHERE id = $last", 'completed');
is($node->safe_psql('postgres', "SELECT result FROM jobs_queue WHERE id = $last"), '{"jobs": 9998, "total": ' . 7 * 9998 * 9999 / 2 . '}', 'a workflow of 10,000 jobs has come to its end, with the results of each parent');
is($node->safe_psql('postgres', q{SELECT status, count(*) FROM jobs_queue GROUP BY 1}), 'completed|10000', 'and all of it is done');
is(run_problems($node), '', 'each job in one run');

# The same from outside, one parent after the other and hundreds at once: no
# statement of ours reads a whole table.
$node->safe_psql('postgres', q{TRUNCATE jobs_queue});
$node->safe_psql('postgres', q{
	-- How often this session has read a whole table since it last reported that.
	CREATE FUNCTION scans() RETURNS bigint LANGUAGE sql AS $$
		SELECT sum(seq_scan) FROM pg_stat_xact_user_tables WHERE relname IN ('jobs_queue_live', 'jobs_queue_done', 'job_dependencies', 'job_runs') $$;
	CREATE PROCEDURE run_all(worker uuid, at_once integer, INOUT scans bigint) LANGUAGE plpgsql AS $$
	DECLARE
		ids bigint[];
	BEGIN
		LOOP
			SELECT array_agg(id) INTO ids FROM claim_jobs(worker, '{w}', at_once);
			EXIT WHEN ids IS NULL;
			PERFORM resolve_jobs(worker, ids, array_fill(true, ARRAY[cardinality(ids)]));
			COMMIT;
		END LOOP;
		scans := scans();
	END $$;
	CREATE FUNCTION diamond(width integer, policy text) RETURNS bigint LANGUAGE sql AS $$
		SELECT min(id) FROM enqueue_job_batch((
			SELECT jsonb_agg(job || jsonb_build_object('job_type', 'w', 'on_parent_failure', policy)) FROM (
				SELECT '{"key": "root"}'::jsonb AS job
				UNION ALL
				SELECT jsonb_build_object('key', n::text, 'depends_on_keys', '["root"]'::jsonb) FROM generate_series(1, width) AS n
				UNION ALL
				SELECT jsonb_build_object('depends_on_keys', (SELECT jsonb_agg(n::text) FROM generate_series(1, width) AS n))) jobs)) AS id $$});
for my $at_once (1, 500)
{
	my $root = $node->safe_psql('postgres', q{SELECT diamond(9998, 'block')});
	is($node->safe_psql('postgres', "CALL run_all('$worker', $at_once, NULL)"), '0', "$at_once at a time: no table was scanned");
	is($node->safe_psql('postgres', "SELECT status, count(*) FROM jobs_queue WHERE id >= $root GROUP BY 1"), 'completed|10000', 'and all of it is done');
}

# A root that fails takes all of it along, or none of it; a chain, too
for my $case ([ 'cancel', 'cancelled|10000' ], [ 'run', "cancelled|1\nqueued|9998\nblocked|1" ], [ 'block', "cancelled|1\nblocked|9999" ])
{
	my ($policy, $expected) = @$case;
	my $root = $node->safe_psql('postgres', "SELECT diamond(9998, '$policy')");
	is($node->safe_psql('postgres', "BEGIN; SELECT cancel_job($root); SELECT scans(); COMMIT"), "t\n0", "$policy: no table was scanned");
	is($node->safe_psql('postgres', "SELECT status, count(*) FROM jobs_queue WHERE id >= $root GROUP BY 1 ORDER BY min(id)"), $expected, 'and what it says becomes of the children');
	$node->safe_psql('postgres', q{TRUNCATE jobs_queue});
}
my $head = $node->safe_psql('postgres', q{
	SELECT min(id) FROM enqueue_job_batch((SELECT jsonb_agg(jsonb_build_object('job_type', 'w', 'key', n::text, 'on_parent_failure', 'cancel',
		'depends_on_keys', CASE WHEN n = 1 THEN '[]'::jsonb ELSE jsonb_build_array((n - 1)::text) END)) FROM generate_series(1, 10000) AS n)) AS id});
$node->safe_psql('postgres', "UPDATE jobs_queue SET status = 'failed' WHERE id = $head");
is($node->safe_psql('postgres', q{SELECT status, count(*), max(last_error) FROM jobs_queue GROUP BY 1 ORDER BY 1}), "cancelled|9999|parent job " . ($head + 9998) . " was cancelled\nfailed|1|", 'a chain of 10,000 is cancelled to its end');
$node->safe_psql('postgres', q{TRUNCATE jobs_queue});

# Ends that the server brings about: an expired lease, a crash, a role that is
# gone, an SQL job that fails
sub child_of
{
	my ($parent) = @_;

	return $node->safe_psql('postgres', "SELECT enqueue_job('w', depends_on => ARRAY[$parent], on_parent_failure => 'cancel')");
}
my $expired = $node->safe_psql('postgres', q{SELECT enqueue_job('silent', max_attempts => 1)});
my $child = child_of($expired);
$node->safe_psql('postgres', "SELECT FROM claim_jobs('$worker', '{silent}', 1, '1 ms')");
wait_for_query($node, "SELECT status, last_error FROM jobs_queue WHERE id = $child", "cancelled|parent job $expired failed");

my $failed = $node->safe_psql('postgres', q{SELECT enqueue_sql('SELECT 1 / 0', max_attempts => 1, scheduled_at => now() + interval '1 hour')});
$child = child_of($failed);
$node->safe_psql('postgres', "UPDATE jobs_queue SET scheduled_at = now() WHERE id = $failed");
wait_for_query($node, "SELECT status, last_error FROM jobs_queue WHERE id = $child", "cancelled|parent job $failed failed");

$node->safe_psql('postgres', q{CREATE ROLE gone LOGIN; SELECT grant_job_role('gone', 'producer')});
my $orphan = $node->safe_psql('postgres', q{SELECT enqueue_sql('SELECT 1', run_as => 'gone', scheduled_at => now() + interval '1 hour')});
$child = child_of($orphan);
$node->safe_psql('postgres', "DROP OWNED BY gone; DROP ROLE gone; UPDATE jobs_queue SET scheduled_at = now() WHERE id = $orphan");
wait_for_query($node, "SELECT status, last_error FROM jobs_queue WHERE id = $child", "cancelled|parent job $orphan failed");

my $crashing = $node->safe_psql('postgres', q{SELECT enqueue_sql('SELECT pg_sleep(3600)')});
$child = child_of($crashing);
wait_for_query($node, "SELECT status FROM jobs_queue WHERE id = $crashing", 'running');
$node->stop('immediate');
$node->start;
wait_for_query($node, "SELECT status, last_error FROM jobs_queue WHERE id = $child", "cancelled|parent job $crashing failed");
pass('children follow their parents, whatever ended these');

# Clients that enqueue children of each other's jobs, end several jobs at once,
# cancel and delete: none fails, not by a deadlock either, and in the end every
# blocked job waits for somebody.
$node->safe_psql('postgres', q{
	TRUNCATE jobs_queue;
	INSERT INTO job_types (job_type, max_attempts, backoff) VALUES ('s', 1, '{"delay": 0}');
	CREATE PROCEDURE struggle(worker uuid, rounds integer) LANGUAGE plpgsql AS $$
	DECLARE
		ids bigint[];
	BEGIN
		FOR i IN 1 .. rounds
		LOOP
			FOR j IN 1 .. 3
			LOOP
				BEGIN
					PERFORM enqueue_job('s', depends_on => ARRAY(SELECT id FROM jobs_queue_live ORDER BY random() LIMIT 3),
						on_parent_failure => (ARRAY['block', 'cancel', 'cancel', 'run'])[1 + floor(random() * 4)]);
				EXCEPTION WHEN no_data_found THEN
					NULL;    -- deleted meanwhile
				END;
				COMMIT;
			END LOOP;
			PERFORM enqueue_job('s');
			SELECT array_agg(id) INTO ids FROM claim_jobs(worker, '{s}', 4);
			COMMIT;
			IF ids IS NOT NULL THEN
				PERFORM resolve_jobs(worker, ids, ARRAY(SELECT random() < 0.6 FROM unnest(ids)));
				COMMIT;
			END IF;
			BEGIN
				PERFORM cancel_job(id) FROM (SELECT id FROM jobs_queue_live WHERE status = 'blocked' ORDER BY random() LIMIT 1) AS one;
			EXCEPTION WHEN no_data_found THEN
				NULL;    -- the same
			END;
			COMMIT;
			IF random() < 0.3 THEN
				DELETE FROM jobs_queue WHERE id = (SELECT id FROM jobs_queue WHERE status IN ('blocked', 'failed', 'completed') ORDER BY random() LIMIT 1);
				COMMIT;
			END IF;
		END LOOP;
	END $$;
});
my $clients = JobQueue::Storm->start(8, sub {
	my ($number) = @_;
	$node->safe_psql('postgres', "CALL struggle('00000000-0000-4000-8000-0000000000" . (10 + $number) . "', 60)");
});
is($clients->stop, '', 'no client failed');
is($node->safe_psql('postgres', q{
	SELECT 'waits for ' || q.waiting_for || ', edges ' || count(d.*), min(q.id)
	FROM jobs_queue q LEFT JOIN job_dependencies d ON d.job_id = q.id AND d.status IS NULL
	GROUP BY q.id, q.status, q.waiting_for
	HAVING CASE q.status WHEN 'blocked' THEN q.waiting_for = 0 OR q.waiting_for <> count(d.*) ELSE count(d.*) > 0 END
	UNION ALL
	SELECT format('%s waits for a job that is %s', d.on_failure, coalesce(p.status, 'gone')), d.job_id
	FROM job_dependencies d LEFT JOIN jobs_queue p ON p.id = d.depends_on
	WHERE d.status IS NULL AND (p.status IS NULL OR p.status = 'completed' OR p.status IN ('failed', 'cancelled') AND d.on_failure <> 'block')
	UNION ALL
	SELECT 'edge of a job that is gone', job_id FROM job_dependencies d WHERE NOT EXISTS (SELECT FROM jobs_queue q WHERE q.id = d.job_id)
	UNION ALL
	SELECT 'not cancelled by its parent', q.id FROM jobs_queue q JOIN job_dependencies d ON d.job_id = q.id
	WHERE d.on_failure = 'cancel' AND d.status <> 'completed' AND q.status <> 'cancelled'}), '', 'every blocked job waits for somebody, and nobody else does');
cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM jobs_queue WHERE last_error LIKE 'parent job%'}), '>', 10, 'many were cancelled by a parent');

$node->stop;
my $log = slurp_file($node->logfile);
unlike($log, qr/deadlock detected/, 'no deadlock');
unlike($log, qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
