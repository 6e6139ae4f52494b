--
-- Jobs that wait for each other: what the end of a parent does to its
-- children, workflows in one call, results of parents, job_timeline().
--
SET client_min_messages = warning;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM job_types;
SELECT count(*) AS edges_without_jobs FROM job_dependencies;
DELETE FROM job_dependencies;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
\set SHOW_CONTEXT never
\set w '''aaaaaaaa-0000-4000-8000-000000000001'''
CREATE SCHEMA regress_workflow;
GRANT USAGE ON SCHEMA regress_workflow TO PUBLIC;
CREATE FUNCTION regress_workflow.try(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
	answer text;
BEGIN
	EXECUTE statement INTO answer;
	RETURN coalesce(answer, 'null');
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN concat_ws(' | ', SQLSTATE, SQLERRM, nullif(detail, ''));
END
$$;
CREATE VIEW regress_workflow.jobs AS
	SELECT q.id, q.status, q.waiting_for AS waits, q.last_error, d.parents
	FROM jobs_queue q
		CROSS JOIN LATERAL (
			SELECT string_agg(concat_ws(' ', d.depends_on, d.on_failure, coalesce(d.status, '-')), ', ' ORDER BY d.depends_on) AS parents
			FROM job_dependencies d WHERE d.job_id = q.id) d;

-- A parent that fails: three children, one for each choice; and theirs.
SELECT enqueue_job('parent', max_attempts => 2);
SELECT enqueue_job('child', depends_on => '{1}'), enqueue_job('child', depends_on => '{1}', on_parent_failure => 'cancel'),
	enqueue_job('child', depends_on => '{1}', on_parent_failure => 'run'), enqueue_job('child', depends_on => '{1}', on_parent_failure => NULL);
SELECT enqueue_job('grandchild', depends_on => '{3}'), enqueue_job('grandchild', depends_on => '{3}', on_parent_failure => 'cancel'),
	enqueue_job('grandchild', depends_on => '{3,4}', on_parent_failure => 'run'), enqueue_job('grandchild', depends_on => '{3,2}', on_parent_failure => 'run');
-- not before its last attempt
SELECT fail_job(id, :w, 'once', retry_at => now()) FROM claim_next_job(:w, 'parent');
SELECT count(*) FROM jobs_queue WHERE status = 'blocked';
SELECT fail_job(id, :w, 'twice') FROM claim_next_job(:w, 'parent');
SELECT * FROM regress_workflow.jobs ORDER BY id;
-- Who is still blocked goes on when it is requeued and completes; the rest is
-- decided.
SELECT requeue_job(1);
SELECT complete_job(1, result => '{"n": 1}');
SELECT * FROM regress_workflow.jobs ORDER BY id;
SELECT id, resolve_job(id, :w, true) FROM claim_jobs(:w, '{child}') ORDER BY id;
SELECT * FROM regress_workflow.jobs WHERE id > 5 ORDER BY id;
SELECT * FROM parent_results(9);
-- a cancelled child that is requeued waits for nobody
SELECT requeue_job(3);
SELECT * FROM regress_workflow.jobs WHERE id = 3;
TRUNCATE jobs_queue RESTART IDENTITY;
SELECT count(*) FROM job_dependencies;

-- Every way to end without success.
SELECT enqueue_jobs('parent', '{1,2,3,4,5,6}', max_attempts => 1);
SELECT enqueue_job('child', depends_on => ARRAY[p], on_parent_failure => 'cancel') FROM generate_series(1, 6) AS p;
SELECT enqueue_job('grandchild', depends_on => ARRAY[p], on_parent_failure => 'cancel') FROM generate_series(7, 12) AS p;
SELECT cancel_job(1, 'by hand');
UPDATE jobs_queue SET status = 'failed' WHERE id = 2;
UPDATE jobs_queue SET status = 'error' WHERE id = 3;
SELECT id FROM claim_jobs(:w, '{parent}');
SELECT resolve_jobs(:w, '{4}', '{f}', '{broken}');
SELECT cancel_job(5);
SELECT release_job(5, :w);
DELETE FROM jobs_queue WHERE id = 6;
SELECT * FROM regress_workflow.jobs ORDER BY id;
-- and the cascade from a blocked job
SELECT enqueue_job('parent') AS p \gset
SELECT enqueue_job('child', depends_on => ARRAY[:p]) AS c \gset
SELECT enqueue_job('grandchild', depends_on => ARRAY[:c], on_parent_failure => 'cancel') AS g \gset
SELECT cancel_job(:c);
SELECT status, last_error FROM regress_workflow.jobs WHERE id >= :p ORDER BY id;
TRUNCATE jobs_queue RESTART IDENTITY;

-- Several ends in one call; who is both freed and cancelled is cancelled.
SELECT enqueue_jobs('parent', '{1,2,3}', max_attempts => 1);
SELECT enqueue_job('child', depends_on => '{1,2}', on_parent_failure => 'cancel'), enqueue_job('child', depends_on => '{1,2}', on_parent_failure => 'run'),
	enqueue_job('child', depends_on => '{1,2,3}', on_parent_failure => 'run'), enqueue_job('child', depends_on => '{1,3}', on_parent_failure => 'cancel');
SELECT count(*) FROM claim_jobs(:w, '{parent}');
SELECT resolve_jobs(:w, '{2,1,3}', '{f,t,t}', '{no,NULL,NULL}');
SELECT * FROM regress_workflow.jobs ORDER BY id;
TRUNCATE jobs_queue RESTART IDENTITY;
SELECT enqueue_jobs('parent', '{1,2,3}');
SELECT enqueue_job('child', depends_on => '{1,2,3}', on_parent_failure => 'run'), enqueue_job('child', depends_on => '{1,2,3}', on_parent_failure => 'cancel');
UPDATE jobs_queue SET status = 'cancelled' WHERE job_type = 'parent';
SELECT * FROM regress_workflow.jobs ORDER BY id;
TRUNCATE jobs_queue RESTART IDENTITY;

-- A deleted parent: "run" runs, everybody else is cancelled.
SELECT enqueue_jobs('parent', '{1,2}');
SELECT enqueue_job('child', depends_on => '{1}', on_parent_failure => 'run'), enqueue_job('child', depends_on => '{1,2}', on_parent_failure => 'run'),
	enqueue_job('child', depends_on => '{1}'), enqueue_job('child', depends_on => '{5}'), enqueue_job('child', depends_on => '{5}', on_parent_failure => 'cancel');
DELETE FROM jobs_queue WHERE id = 1;
SELECT * FROM regress_workflow.jobs ORDER BY id;
-- one whose end is decided already
DELETE FROM jobs_queue WHERE id = 5;
SELECT * FROM regress_workflow.jobs WHERE id > 5 ORDER BY id;
TRUNCATE jobs_queue RESTART IDENTITY;

-- A parent that has ended before: as if the child had been there.
SELECT enqueue_jobs('parent', '{1,2,3}');
SELECT cancel_job(1), complete_job(2, result => '2');
SELECT enqueue_job('child', depends_on => '{1,2}'), enqueue_job('child', depends_on => '{1,2}', on_parent_failure => 'cancel'),
	enqueue_job('child', depends_on => '{1,2}', on_parent_failure => 'run'), enqueue_job('child', depends_on => '{1,2,3}', on_parent_failure => 'run');
SELECT enqueue_sql('SELECT 1', depends_on => '{1}', on_parent_failure => 'cancel') AS sql,
	enqueue_http('https://example.com/', depends_on => '{1}', on_parent_failure => 'run') AS http;
SELECT * FROM enqueue_job_batch('[{"job_type": "child", "depends_on": [1], "on_parent_failure": "cancel"}]');
SELECT * FROM regress_workflow.jobs ORDER BY id;
SELECT regress_workflow.try(format('SELECT %s', call)) FROM unnest(ARRAY['enqueue_job(''a'', on_parent_failure => ''ignore'')',
	'enqueue_sql(''SELECT 1'', on_parent_failure => '''')', 'enqueue_http(''https://example.com/'', on_parent_failure => ''Run'')',
	'enqueue_job_batch(''[{"job_type": "a", "on_parent_failure": "x"}]'')', 'enqueue_job_batch(''[{"job_type": "a", "on_parent_failure": 1}]'')']) AS call;
TRUNCATE jobs_queue RESTART IDENTITY;

-- Jobs that are there cannot come to wait for each other, nor for themselves.
SELECT enqueue_job('a', unique_key => 'a'), enqueue_job('b', depends_on => '{1}'), enqueue_job('c', depends_on => '{2}', unique_key => 'c');
SELECT regress_workflow.try(format('SELECT enqueue_job(''a'', unique_key => ''a'', unique_mode => ''%s'', depends_on => ''{%s}'')', m, d))
FROM (VALUES ('replace', 1), ('replace', 2), ('replace', 3), ('keep_schedule', 3), ('skip', 3)) AS v (m, d);
SELECT * FROM regress_workflow.jobs ORDER BY id;
-- what has ended, or was queued by hand, holds nobody
UPDATE jobs_queue SET status = 'queued' WHERE id = 3;
SELECT enqueue_job('a', unique_key => 'a', unique_mode => 'replace', depends_on => '{3}');
SELECT * FROM regress_workflow.jobs ORDER BY id;
SELECT regress_workflow.try('INSERT INTO job_dependencies VALUES (1, 1)');
TRUNCATE jobs_queue RESTART IDENTITY;

-- A workflow in one call, in any order.
SELECT * FROM enqueue_job_batch('[
	{"job_type": "end", "key": "d", "depends_on_keys": ["b", "c", "b"]},
	{"job_type": "middle", "key": "b", "depends_on_keys": ["a"], "payload": {"n": "b"}},
	{"job_type": "alone"},
	{"job_type": "middle", "key": "c", "depends_on_keys": ["a"], "on_parent_failure": "run"},
	{"job_type": "start", "key": "a", "depends_on_keys": []},
	{"job_type": "last", "depends_on_keys": ["d"], "depends_on": []}]');
SELECT id, q.job_type, j.status, waits, parents FROM regress_workflow.jobs j JOIN jobs_queue q USING (id) ORDER BY id;
-- on top of jobs that are there
SELECT * FROM enqueue_job_batch('[{"job_type": "more", "key": "a", "depends_on": [5, 6]}, {"job_type": "more", "depends_on": [6], "depends_on_keys": ["a"]}]');
SELECT * FROM regress_workflow.jobs WHERE id > 6 ORDER BY id;
SELECT regress_workflow.try(format('SELECT count(*) FROM enqueue_job_batch(%L)', jobs)) FROM unnest(ARRAY[
	'[{"job_type": "a", "key": "a", "depends_on_keys": ["b"]}]',
	'[{"job_type": "a"}, {"job_type": "a", "depends_on_keys": ["a"]}]',
	'[{"job_type": "a", "key": "a"}, {"job_type": "a", "key": "b"}, {"job_type": "a", "key": "a"}]',
	'[{"job_type": "a", "key": "a", "depends_on_keys": ["a"]}]',
	'[{"job_type": "a", "key": "a", "depends_on_keys": ["b"]}, {"job_type": "a", "key": "b", "depends_on_keys": ["c"]}, {"job_type": "a", "key": "c", "depends_on_keys": ["b"]}]',
	'[{"job_type": "a", "key": ""}]', '[{"job_type": "a", "key": 1}]', '[{"job_type": "a", "depends_on_keys": "a"}]', '[{"job_type": "a", "depends_on_keys": [1]}]',
	'[{"job_type": "a", "key": "a", "depends_on_keys": [null]}]']) AS jobs;
SELECT regress_workflow.try(format('SELECT enqueue_job_batch(%L)', (SELECT jsonb_agg(jsonb_build_object('job_type', 'a', 'key', 'k' || i,
	'depends_on_keys', jsonb_build_array('k' || (i + 1) % 20))) FROM generate_series(0, 19) AS i)));
-- two elements that turn out to be the same job
SELECT regress_workflow.try($$SELECT count(*) FROM enqueue_job_batch('[{"job_type": "u", "unique_key": "u", "key": "a"}, {"job_type": "u", "unique_key": "u", "depends_on_keys": ["a"]}]')$$);
SELECT regress_workflow.try($$SELECT count(*) FROM enqueue_job_batch('[{"job_type": "v", "unique_key": "u", "key": "a"},
	{"job_type": "v", "unique_key": "u", "unique_mode": "replace", "depends_on_keys": ["a"]}]')$$);
SELECT count(*) FROM jobs_queue;
TRUNCATE jobs_queue RESTART IDENTITY;

-- Results: kept with the child, whatever becomes of the parent.
INSERT INTO job_types (job_type, keep_completed) VALUES ('fleeting', '0');
SELECT enqueue_job('fleeting'), enqueue_job('parent'), enqueue_job('parent'), enqueue_job('parent');
SELECT complete_job(4, result => '{"n": 4}');
SELECT enqueue_job('child', depends_on => '{1,2,3,4}', on_parent_failure => 'run');
SELECT complete_job(id, :w, '{"n": 1}') FROM claim_jobs(:w, '{fleeting}');
SELECT complete_job(2, result => '{"n": 2}');
SELECT * FROM parent_results(5);
DELETE FROM jobs_queue WHERE id IN (2, 4);
DELETE FROM job_runs;
SELECT cancel_job(3);
SELECT * FROM parent_results(5);
SELECT * FROM parent_results(1);
-- gone with the child, also one that is not kept
SELECT id FROM claim_next_job(:w, 'child');
DELETE FROM jobs_queue WHERE id = 3;
SELECT job_type, status, result FROM parent_results(5);
UPDATE job_types SET job_type = 'child' WHERE job_type = 'fleeting';
SELECT resolve_job(5, :w, true);
SELECT count(*) FROM job_dependencies;
TRUNCATE jobs_queue RESTART IDENTITY;
DELETE FROM job_types;
-- of the running job
SELECT enqueue_sql('SELECT 42 AS answer'), enqueue_sql('SELECT jsonb_agg(to_jsonb(p) ORDER BY job_id) AS parents, current_setting(''is_superuser'') AS super FROM parent_results() p', depends_on => '{1}');
SELECT run_job(1), run_job(2);
SELECT id, result FROM jobs_queue ORDER BY id;
SELECT regress_workflow.try('SELECT parent_results()'), regress_workflow.try('SELECT parent_results(0)');
TRUNCATE jobs_queue RESTART IDENTITY;

-- Whose results: those of parents whose owner the owner of the child can be.
CREATE ROLE regress_alice;
CREATE ROLE regress_bob;
CREATE ROLE regress_team;
CREATE ROLE regress_worker;
CREATE ROLE regress_operator;
GRANT regress_bob TO regress_team;
SELECT grant_job_role('regress_alice', 'producer'), grant_job_role('regress_bob', 'producer'), grant_job_role('regress_team', 'producer'),
	grant_job_role('regress_worker', 'worker'), grant_job_role('regress_operator', 'operator');
SET ROLE regress_alice;
SELECT enqueue_job('parent');
SET ROLE regress_bob;
SELECT enqueue_job('parent');
SELECT enqueue_job('child', depends_on => '{1,2}');
SET ROLE regress_team;
SELECT enqueue_job('child', depends_on => '{1,2}');
RESET ROLE;
SELECT complete_job(1, result => '"alice"'), complete_job(2, result => '"bob"');
SET ROLE regress_alice;
SELECT enqueue_job('child', depends_on => '{1,2}');
SELECT job_id, result FROM parent_results(5);
SELECT regress_workflow.try('SELECT parent_results(3)'), regress_workflow.try('SELECT parent_results(99)');
SET ROLE regress_team;
SELECT job_id, result FROM parent_results(4);
SELECT job_id, result FROM parent_results(3);
SET ROLE regress_bob;
SELECT job_id, result FROM parent_results(3);
SELECT regress_workflow.try('SELECT parent_results(4)'), regress_workflow.try('SELECT job_timeline(3)');
SET ROLE regress_worker;
SELECT id FROM claim_next_job(:w, 'child');
SELECT job_id, result FROM parent_results(3, :w);
SELECT regress_workflow.try(format('SELECT parent_results(%s)', arguments))
FROM unnest(ARRAY['3', '3, ''aaaaaaaa-0000-4000-8000-000000000002''', '4, ''aaaaaaaa-0000-4000-8000-000000000001''', '3, ''00000000-0000-0000-0000-000000000000''']) AS arguments;
SET ROLE regress_operator;
SELECT job_id, result FROM parent_results(5);
SELECT event, detail - 'worker_id' AS detail FROM job_timeline(3);
RESET ROLE;
TRUNCATE jobs_queue RESTART IDENTITY;

-- A job from its beginning to its end.
SELECT register_worker(:w, 'one');
SELECT enqueue_job('parent'), enqueue_job('parent');
SELECT enqueue_job('child', priority => 3, depends_on => '{1,2}', on_parent_failure => 'run', max_attempts => 3, unique_key => 'u', correlation_id => 'c');
SELECT complete_job(1);
SELECT cancel_job(2);
SELECT count(*) FROM claim_next_job(:w, 'child');
SELECT job_log('half way', 'warning', '{"left": null}', 3, :w);
SELECT set_job_stage(3, :w, 'second');
SELECT fail_job(3, :w, 'broken', retry_at => now() + interval '1 hour');
SELECT event, detail - 'owner' AS detail FROM job_timeline(3);
UPDATE jobs_queue SET scheduled_at = now() WHERE id = 3;
SELECT count(*) FROM claim_next_job(:w, 'child');
SELECT cancel_job(3, 'enough');
SELECT event, detail - 'owner' AS detail FROM job_timeline(3) OFFSET 8;
SELECT resolve_job(3, :w, false, 'stopped');
SELECT event, detail - 'owner' AS detail FROM job_timeline(3) OFFSET 7;
SELECT bool_and(at >= before) AS in_order FROM (SELECT at, lag(at) OVER (ROWS UNBOUNDED PRECEDING) AS before FROM job_timeline(3)) t;
-- a job that is gone has left its runs; one that never was, nothing
DELETE FROM jobs_queue WHERE id = 3;
SELECT event FROM job_timeline(3);
SELECT * FROM job_timeline(99);
-- of cron, of a blocked job, and of one that a parent took along
SELECT schedule_cron_task('nightly', '0 3 * * *', 'report') > 0 AS ok;
SELECT run_cron_task('nightly', '2026-01-01 03:00:00+00') AS id \gset
SELECT event, detail - '{task_id,owner}'::text[] AS detail FROM job_timeline(:id);
SELECT enqueue_job('child', depends_on => ARRAY[:id], on_parent_failure => 'cancel') AS child \gset
SELECT event, detail ->> 'depends_on' = '[' || :id || ']' AS waits FROM job_timeline(:child);
SELECT cancel_job(:id);
SELECT event, detail ->> 'status' AS status, detail ->> 'on_failure' AS on_failure FROM job_timeline(:child);
SELECT unschedule_cron_task('nightly');

DELETE FROM jobs_queue;
SELECT count(*) FROM job_dependencies;
DELETE FROM job_runs;
DELETE FROM job_logs;
DELETE FROM cron_runs;
DELETE FROM registered_workers;
DROP OWNED BY regress_alice, regress_bob, regress_team, regress_worker, regress_operator;
DROP ROLE regress_alice, regress_bob, regress_team, regress_worker, regress_operator;
DROP SCHEMA regress_workflow CASCADE;
