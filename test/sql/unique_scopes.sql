--
-- How long a unique key is taken: while its job is live, for a period, or as
-- long as something of the job is kept
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM job_keys;
DELETE FROM job_types;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
RESET client_min_messages;
\set w '''11111111-0000-4000-8000-000000000001'''
CREATE FUNCTION regress_error(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	hint text;
BEGIN
	EXECUTE statement;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(' | ', SQLSTATE, SQLERRM, nullif(hint, ''));
END
$$;

-- Throttle: one job per key and period, whatever became of it.
SELECT enqueue_job('t', '1', unique_key => 'k', unique_scope => 'period', unique_period => '1 hour') AS id;
SELECT enqueue_job('t', '2', unique_key => 'k', unique_scope => 'period', unique_period => '1 hour') AS queued;
SELECT id AS claimed FROM claim_next_job(:w, 't');
SELECT enqueue_job('t', '2', unique_key => 'k', unique_scope => 'period', unique_period => '1 hour') AS running;
SELECT resolve_job(1, :w, true);
SELECT enqueue_job('t', '2', unique_key => 'k', unique_scope => 'period', unique_period => '1 hour') AS completed;
DELETE FROM jobs_queue;
SELECT enqueue_job('t', '2', unique_key => 'k', unique_scope => 'period', unique_period => '1 hour') AS deleted;
SELECT count(*) FROM jobs_queue;
SELECT job_type, unique_key, job_id, expires_at > now() + interval '59 minutes' AND expires_at <= clock_timestamp() + interval '1 hour' AS hour FROM job_keys;
-- other types and keys have a period of their own
SELECT enqueue_job('u', unique_key => 'k', unique_scope => 'period', unique_period => '1 hour') > 1 AS type, enqueue_job('t', unique_key => 'l', unique_scope => 'period', unique_period => '1 hour') > 1 AS key;
-- the next period begins with the next job
UPDATE job_keys SET expires_at = now() - interval '1 second';
SELECT enqueue_job('t', '3', unique_key => 'k', unique_scope => 'period', unique_period => '1 hour') AS id \gset
SELECT :id > 1 AS is_new, (SELECT job_id = :id AND expires_at > now() FROM job_keys WHERE job_type = 't' AND unique_key = 'k') AS has_key;
-- when it ends and the job is still live, there is no second one
UPDATE job_keys SET expires_at = now() - interval '1 second';
SELECT enqueue_job('t', '4', unique_key => 'k', unique_scope => 'period', unique_period => '1 hour') = :id AS same;
SELECT k.expires_at = q.created_at + interval '1 hour' AS counts_from_that_job FROM job_keys k JOIN jobs_queue q ON q.id = k.job_id AND q.payload = '3';
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM job_keys;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- Kept: as long as there is something of the job.
SELECT enqueue_job('e', '1', unique_key => 'evt', unique_scope => 'kept') AS id;
SELECT job_type, unique_key, job_id, expires_at FROM job_keys;
SELECT resolve_job(id, :w, false, 'no') FROM claim_next_job(:w, 'e');
SELECT enqueue_job('e', '2', unique_key => 'evt', unique_scope => 'kept') AS retrying;
SELECT cancel_job(1), enqueue_job('e', '2', unique_key => 'evt', unique_scope => 'kept') AS cancelled;
SELECT requeue_job(1), enqueue_job('e', '2', unique_key => 'evt', unique_scope => 'kept') AS requeued;
SELECT resolve_job(id, :w, true) FROM claim_next_job(:w, 'e');
SELECT enqueue_job('e', '2', unique_key => 'evt', unique_scope => 'kept') AS completed;
SELECT id, status, payload FROM jobs_queue;
-- who deletes a job frees its key
DELETE FROM jobs_queue WHERE id = 1;
SELECT count(*) FROM job_keys;
SELECT enqueue_job('e', '3', unique_key => 'evt', unique_scope => 'kept') > 1 AS is_new;
UPDATE jobs_queue SET status = 'cancelled';
SELECT count(*) FROM job_keys;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
-- so does a purge, though the run stays
SELECT enqueue_job('p', unique_key => 'evt', unique_scope => 'kept'), enqueue_job('p', unique_key => 'other', unique_scope => 'period', unique_period => '1 day') IS NOT NULL AS ok \gset
SELECT resolve_job(id, :w, true) FROM claim_jobs(:w, '{p}', max_jobs => 2);
SELECT purge_jobs('p', '{completed}');
SELECT unique_key FROM job_keys;
SELECT count(*) FROM job_runs WHERE job_type = 'p';
DELETE FROM job_runs;
DELETE FROM job_keys;
-- a job that is not kept when it has completed leaves its run
INSERT INTO job_types (job_type, keep_completed) VALUES ('e', '0');
SELECT enqueue_job('e', '4', unique_key => 'evt', unique_scope => 'kept') AS id \gset
SELECT resolve_job(id, :w, true) FROM claim_next_job(:w, 'e');
SELECT count(*) FROM jobs_queue;
SELECT enqueue_job('e', '5', unique_key => 'evt', unique_scope => 'kept') = :id AS same;
SELECT enqueue_jobs('e', '{5,6}', unique_keys => '{evt,evt}', unique_scope => 'kept') = :id AS same;
SELECT count(*) FROM jobs_queue;
-- and when that has gone, nothing
DELETE FROM job_runs;
SELECT enqueue_job('e', '6', unique_key => 'evt', unique_scope => 'kept') > :id AS is_new;
SELECT enqueue_job('e', '7', unique_key => 'evt', unique_scope => 'kept') = (SELECT job_id FROM job_keys) AS same;
SELECT payload FROM jobs_queue;
DELETE FROM job_types;
-- TRUNCATE
TRUNCATE jobs_queue RESTART IDENTITY;
SELECT count(*) FROM job_keys;

-- A rolled back call leaves nothing.
BEGIN;
SAVEPOINT s;
SELECT enqueue_job('e', '1', unique_key => 'evt', unique_scope => 'kept') AS id;
ROLLBACK TO s;
SELECT enqueue_job('e', '2', unique_key => 'evt', unique_scope => 'kept') AS id;
ROLLBACK;
SELECT enqueue_job('e', '3', unique_key => 'evt', unique_scope => 'kept') AS id;
SELECT id, payload FROM jobs_queue;

-- Modes: a waiting job is replaced, one that runs or has ended is left alone.
SELECT enqueue_job('e', '4', unique_key => 'evt', unique_scope => 'kept', unique_mode => 'replace', priority => 7) AS id;
SELECT enqueue_job('e', '5', '2030-01-01', unique_key => 'evt', unique_scope => 'kept', unique_mode => 'keep_schedule') AS id;
SELECT id, payload, priority, scheduled_at <= now() AS is_due FROM jobs_queue;
SELECT id FROM claim_next_job(:w, 'e');
SELECT enqueue_job('e', '6', unique_key => 'evt', unique_scope => 'kept', unique_mode => 'replace') AS id;
SELECT resolve_job(3, :w, true);
SELECT enqueue_job('e', '6', unique_key => 'evt', unique_scope => 'kept', unique_mode => 'replace') AS id;
SELECT id, status, payload, unique_key, max_attempts FROM jobs_queue;

-- What came by itself has the key while it is live; a call with a scope keeps it.
INSERT INTO jobs_queue (job_type, unique_key) VALUES ('e', 'plain') RETURNING job_type;
SELECT count(*) FROM job_keys WHERE unique_key = 'plain';
SELECT enqueue_job('e', unique_key => 'plain', unique_scope => 'kept') = (SELECT id FROM jobs_queue WHERE unique_key = 'plain') AS same;
UPDATE jobs_queue SET status = 'completed' WHERE unique_key = 'plain';
SELECT enqueue_job('e', unique_key => 'plain', unique_scope => 'kept') = (SELECT id FROM jobs_queue WHERE unique_key = 'plain') AS same;
-- those that do not ask for more look at live jobs only
SELECT enqueue_job('e', unique_key => 'plain') > (SELECT job_id FROM job_keys WHERE unique_key = 'plain') AS is_new;
INSERT INTO jobs_queue (job_type, unique_key) VALUES ('e', 'evt') RETURNING job_type;
SELECT unique_key, count(*) FROM jobs_queue GROUP BY 1 ORDER BY 1;
TRUNCATE jobs_queue RESTART IDENTITY;

-- Many at once: one job for each key, ids in the order of the payloads, also
-- of keys that stand the other way round.
SELECT enqueue_jobs('b', '{1,2,3,4,5}', unique_keys => '{z,y,z,NULL,a}', unique_scope => 'kept');
SELECT id, payload, unique_key FROM jobs_queue ORDER BY id;
SELECT enqueue_jobs('b', '{1,2}', unique_keys => '{x,a}', unique_mode => 'replace', scheduled_at => '2030-01-01');
SELECT id, payload, unique_key, scheduled_at > now() AS later FROM jobs_queue ORDER BY id;
SELECT enqueue_job_batch('[{"job_type": "c", "unique_key": "k", "unique_scope": "period", "unique_period": "1 day", "payload": 1},
	{"job_type": "b", "unique_key": "k", "unique_scope": "kept", "payload": 2}, {"job_type": "c", "payload": 3},
	{"job_type": "c", "unique_key": "k", "unique_scope": "period", "unique_period": "1 day", "unique_mode": "replace", "payload": 4}]');
SELECT id, job_type, payload, unique_key FROM jobs_queue WHERE id > 7 ORDER BY id;
SELECT job_type, unique_key, job_id, expires_at IS NOT NULL AS expires FROM job_keys ORDER BY 1, 2;
TRUNCATE jobs_queue RESTART IDENTITY;
-- in one statement
CREATE TABLE regress_ids (n integer, id bigint);
INSERT INTO regress_ids SELECT n, enqueue_job('s', to_jsonb(n), unique_key => 'k' || n % 3, unique_scope => CASE n % 2 WHEN 0 THEN 'kept' ELSE 'live' END) FROM generate_series(1, 12) n;
SELECT n % 3 AS key, count(DISTINCT id) AS ids FROM regress_ids GROUP BY 1 ORDER BY 1;
SELECT unique_key, count(*), min(payload::text) AS payload FROM jobs_queue GROUP BY 1 ORDER BY 1;
DROP TABLE regress_ids;
TRUNCATE jobs_queue RESTART IDENTITY;

-- SQL and HTTP jobs, and a producer without rights to the table.
SET client_min_messages = warning;
CREATE ROLE regress_unique;
SELECT grant_job_role('regress_unique', 'producer');
SET ROLE regress_unique;
SELECT enqueue_sql('SELECT 1', unique_key => 'k', unique_scope => 'kept') AS id;
SELECT enqueue_sql('SELECT 2', unique_key => 'k', unique_scope => 'kept') AS id;
SELECT enqueue_http('https://a.example/', unique_key => 'k', unique_scope => 'period', unique_period => '1 day') AS id \gset
SELECT enqueue_http('https://b.example/', unique_key => 'k', unique_scope => 'period', unique_period => '1 day') = :id AS same;
SELECT regress_error('SELECT count(*) FROM job_keys');
-- somebody else's job is not replaced
RESET ROLE;
SELECT enqueue_job('e', unique_key => 'mine', unique_scope => 'kept') AS id \gset
SET ROLE regress_unique;
SELECT enqueue_job('e', unique_key => 'mine', unique_scope => 'kept') = :id AS same;
SELECT left(regress_error($$SELECT enqueue_job('e', unique_key => 'mine', unique_scope => 'kept', unique_mode => 'replace')$$), 5);
RESET ROLE;
RESET client_min_messages;
TRUNCATE jobs_queue RESTART IDENTITY;
DROP OWNED BY regress_unique;
DROP ROLE regress_unique;

-- A job that is put back beside another one with its key.
SELECT enqueue_job('r', '1', unique_key => 'k'), cancel_job(1), enqueue_job('r', '2', unique_key => 'k'), cancel_job(2),
	enqueue_job('r', '3', unique_key => 'k'), enqueue_job('r', '4', unique_key => 'l'), cancel_job(4), enqueue_job('r', '5', unique_key => 'l'), cancel_job(5);
SELECT regress_error('SELECT requeue_job(1)');
SELECT regress_error($$UPDATE jobs_queue SET status = 'queued' WHERE id = 2$$);
SELECT regress_error($$UPDATE jobs_queue SET status = 'queued' WHERE id IN (4, 5)$$);
SELECT requeue_jobs('r', '{cancelled}');
SELECT id, status FROM jobs_queue ORDER BY id;
SELECT requeue_jobs('r', '{cancelled}');
SELECT cancel_job(3), cancel_job(4);
SELECT requeue_job(2), regress_error('SELECT requeue_job(1)');
SELECT requeue_jobs('r', '{cancelled}', max_jobs => 1);
TRUNCATE jobs_queue RESTART IDENTITY;

-- Wrong input changes nothing.
SELECT regress_error(s) FROM unnest(ARRAY[
	$$SELECT enqueue_job('e', unique_key => 'k', unique_scope => 'always')$$,
	$$SELECT enqueue_job('e', unique_key => 'k', unique_scope => 'period')$$,
	$$SELECT enqueue_job('e', unique_key => 'k', unique_period => '1 hour')$$,
	$$SELECT enqueue_job('e', unique_key => 'k', unique_scope => 'kept', unique_period => '1 hour')$$,
	$$SELECT enqueue_job('e', unique_key => 'k', unique_scope => 'period', unique_period => '0')$$,
	$$SELECT enqueue_job('e', unique_key => 'k', unique_scope => 'period', unique_period => '-1 s')$$,
	$$SELECT enqueue_job('e', unique_key => 'k', unique_scope => 'period', unique_period => '1 month')$$,
	$$SELECT enqueue_job('e', unique_key => 'k', unique_scope => 'period', unique_period => '3661 days')$$,
	$$SELECT enqueue_job('e', unique_key => '', unique_scope => 'kept')$$,
	$$SELECT enqueue_job('e', unique_key => repeat('k', 513), unique_scope => 'kept')$$,
	$$SELECT enqueue_job('', unique_key => 'k', unique_scope => 'kept')$$,
	$$SELECT enqueue_job('e', scheduled_at => 'infinity', unique_key => 'k', unique_scope => 'kept')$$,
	$$SELECT enqueue_job('e', unique_key => 'k', unique_scope => 'kept', stage => repeat('s', 256))$$,
	$$SELECT enqueue_job('e', unique_key => 'k', unique_scope => 'kept', group_key => '')$$,
	$$SELECT enqueue_job('e', unique_key => 'k', unique_scope => 'kept', timeout => '2 days')$$,
	$$SELECT enqueue_job('sql', '1', unique_key => 'k', unique_scope => 'kept')$$,
	$$SELECT enqueue_job('http', '1', unique_key => 'k', unique_scope => 'kept')$$,
	$$SELECT enqueue_jobs('e', '{1}', unique_scope => 'period')$$,
	$$SELECT enqueue_jobs('e', '{1}', unique_keys => '{k}', unique_mode => 'sometimes')$$,
	$$SELECT enqueue_sql('SELECT 1', unique_key => 'k', unique_scope => '')$$,
	$$SELECT enqueue_http('https://a.example/', unique_key => 'k', unique_scope => 'period')$$,
	$$SELECT enqueue_job_batch('[{"job_type": "e"}, {"job_type": "e", "unique_key": "k", "unique_scope": "period"}]')$$,
	$$SELECT enqueue_job_batch('[{"job_type": "e", "unique_key": "k", "unique_scope": 1}]')$$]) WITH ORDINALITY AS u (s, n) ORDER BY n;
-- the same of a key that is taken
SELECT enqueue_job('e', unique_key => 'k', unique_scope => 'kept') > 0 AS ok;
SELECT regress_error(s) FROM unnest(ARRAY[
	$$SELECT enqueue_job('e', scheduled_at => 'infinity', unique_key => 'k', unique_scope => 'kept')$$,
	$$SELECT enqueue_job('e', unique_key => 'k', unique_scope => 'kept', stage => repeat('s', 256))$$,
	$$SELECT enqueue_job('e', to_jsonb(repeat('x', 1048577)), unique_key => 'k', unique_scope => 'kept', unique_mode => 'replace')$$]) WITH ORDINALITY AS u (s, n) ORDER BY n;
SELECT count(*) FROM jobs_queue;
SELECT unique_key, job_id = (SELECT id FROM jobs_queue) AS ok FROM job_keys;

TRUNCATE jobs_queue RESTART IDENTITY;
DROP FUNCTION regress_error;
