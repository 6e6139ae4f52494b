--
-- Limits of a job type and of its groups, as one session sees them.
--
DELETE FROM jobs_queue;
DELETE FROM job_types;
CREATE FUNCTION claim(job_type text, n integer DEFAULT 1) RETURNS text
LANGUAGE sql AS $$
	SELECT coalesce(string_agg(coalesce(c.payload->>'n', c.id::text), ' '), '-')
	FROM claim_jobs('00000000-0000-0000-0000-000000000001', ARRAY[job_type], n) c
$$;
CREATE FUNCTION finish(job_type text, n text, success boolean DEFAULT true) RETURNS boolean
LANGUAGE sql AS $$
	SELECT resolve_job(q.id, q.locked_by, success, CASE WHEN NOT success THEN 'no' END)
	FROM jobs_queue q WHERE q.job_type = finish.job_type AND q.payload->>'n' = n AND q.status = 'running'
$$;

-- concurrency
INSERT INTO job_types (job_type, max_concurrency) VALUES ('two', 2);
SELECT count(*) FROM enqueue_jobs('two', (SELECT array_agg(jsonb_build_object('n', i)) FROM generate_series(1, 6) i));
SELECT claim('two', 10);
SELECT claim('two');
SELECT finish('two', '2'), claim('two');
SELECT claim('two');
-- a place comes back with a release, a cancellation by DML, a deletion
SELECT release_job(id, locked_by) FROM jobs_queue WHERE job_type = 'two' AND payload->>'n' = '1';
SELECT claim('two');
UPDATE jobs_queue SET status = 'cancelled' WHERE job_type = 'two' AND payload->>'n' = '1';
SELECT claim('two');
DELETE FROM jobs_queue WHERE job_type = 'two' AND payload->>'n' = '3';
SELECT claim('two');
-- and with a rollback
BEGIN;
SELECT finish('two', '4');
SELECT claim('two');
SELECT claim('two');
ROLLBACK;
SELECT claim('two');
BEGIN;
SAVEPOINT s;
SELECT finish('two', '4'), claim('two');
ROLLBACK TO s;
SELECT claim('two');
SELECT finish('two', '5'), claim('two');
COMMIT;
SELECT claim('two'), (SELECT count(*) FROM jobs_queue WHERE job_type = 'two' AND status = 'running') AS running;
-- one at a time, in one call
INSERT INTO job_types (job_type, max_concurrency) VALUES ('one', 1);
SELECT count(*) FROM enqueue_jobs('one', (SELECT array_agg(jsonb_build_object('n', i)) FROM generate_series(1, 3) i));
SELECT claim('one');
SELECT r.payload->>'n' AS n FROM jobs_queue q,
	resolve_and_claim(q.id, q.locked_by, true, job_type => 'one') r
	WHERE q.job_type = 'one' AND q.status = 'running';
SELECT claim('one');
-- a new limit counts what runs already
SELECT count(*) FROM enqueue_jobs('late', (SELECT array_agg(jsonb_build_object('n', i)) FROM generate_series(1, 5) i));
SELECT claim('late', 2);
INSERT INTO job_types (job_type, max_concurrency) VALUES ('late', 3);
SELECT claim('late', 5);
UPDATE job_types SET max_concurrency = NULL WHERE job_type = 'late';
SELECT claim('late');
UPDATE job_types SET max_concurrency = 4 WHERE job_type = 'late';
SELECT claim('late');
UPDATE job_types SET max_concurrency = 5 WHERE job_type = 'late';
SELECT claim('late');

-- rates
INSERT INTO job_types (job_type, rate_max, rate_window) VALUES ('rated', 3, '1 hour');
SELECT count(*) FROM enqueue_jobs('rated', (SELECT array_agg(jsonb_build_object('n', i)) FROM generate_series(1, 6) i));
BEGIN;
SELECT claim('rated', 2);
ROLLBACK;
SELECT claim('rated', 10), claim('rated');
SELECT finish('rated', '1'), claim('rated');
UPDATE job_types SET rate_max = 4 WHERE job_type = 'rated';
SELECT claim('rated', 10);

-- groups: one at a time, the others go on; only shared memory lets them take turns
SET jobqueue.debug_claim_path = auto;
INSERT INTO job_types (job_type, group_concurrency) VALUES ('grouped', 1);
SELECT count(*) FROM (SELECT enqueue_job('grouped', jsonb_build_object('n', g || i), group_key => g)
	FROM unnest('{a,b,c}'::text[]) g, generate_series(1, 3) i ORDER BY g, i) e;
SELECT claim('grouped', 10);
SELECT finish('grouped', 'b1'), claim('grouped', 10);
SELECT claim('grouped', 10);
SELECT finish('grouped', 'a1'), finish('grouped', 'c1');
SELECT claim('grouped', 10);
SELECT finish('grouped', 'a2'), finish('grouped', 'b2'), finish('grouped', 'c2');
SELECT claim('grouped', 10);
SELECT finish('grouped', 'a3'), finish('grouped', 'b3'), finish('grouped', 'c3'), claim('grouped', 10);
-- sleepers know of groups
SELECT enqueue_job('grouped', jsonb_build_object('n', 'd' || i), group_key => 'd') > 0 AS ok FROM generate_series(1, 2) i;
CALL wait_for_jobs('{grouped}', '0');
SELECT claim('grouped', 10), claim('grouped');
CALL wait_for_jobs('{grouped}', '0');
SELECT finish('grouped', 'd1');
CALL wait_for_jobs('{grouped}', '0');
SELECT claim('grouped'), finish('grouped', 'd2');
-- jobs without a key are not held up
SELECT enqueue_job('grouped', '{"n": "x"}') > 0, enqueue_job('grouped', '{"n": "y"}') > 0;
SELECT claim('grouped', 10);
-- new settings hold at once
INSERT INTO job_types (job_type, group_concurrency) VALUES ('raised', 1);
SELECT count(*) FROM (SELECT enqueue_job('raised', jsonb_build_object('n', g || i), group_key => g)
	FROM unnest('{a,b}'::text[]) g, generate_series(1, 6) i ORDER BY g, i) e;
SELECT claim('raised', 10);
UPDATE job_types SET group_concurrency = 2 WHERE job_type = 'raised';
SELECT claim('raised', 10);
UPDATE job_types SET group_concurrency = NULL, fair_groups = true WHERE job_type = 'raised';
SELECT claim('raised', 3);
UPDATE job_types SET group_rate_max = 1, group_rate_window = '1 hour' WHERE job_type = 'raised';
SELECT claim('raised', 10);
UPDATE job_types SET group_rate_max = 9 WHERE job_type = 'raised';
SELECT claim('raised', 10);
-- nor by a job that a prepared transaction has
INSERT INTO job_types (job_type, group_concurrency) VALUES ('prepared', 1);
SELECT enqueue_job('prepared', '{"n": "before"}', group_key => 'a') > 0 AS ok;
SELECT claim('prepared'), finish('prepared', 'before'), claim('prepared');
BEGIN;
SELECT enqueue_job('prepared', '{"n": "later"}', group_key => 'a') > 0 AS ok;
PREPARE TRANSACTION 'regress_limits';
SET statement_timeout = '10s';
SELECT claim('prepared');
SELECT enqueue_job('prepared', '{"n": "now"}', group_key => 'b') > 0 AS ok;
SELECT claim('prepared');
COMMIT PREPARED 'regress_limits';
RESET statement_timeout;
SELECT finish('prepared', 'now');
-- nor by lanes that are empty
SELECT enqueue_job('lanes', '{"n": "empty"}', stage => 'a', group_key => 'a') > 0 AS ok;
SELECT claim('lanes'), finish('lanes', 'empty');
INSERT INTO job_types (job_type, group_concurrency) VALUES ('lanes', 1);
SELECT enqueue_job('lanes', '{"n": "full"}', stage => 'b', group_key => 'b') > 0 AS ok;
SELECT claim('lanes');
-- nor is any group by those before it, however many wait in a full one
INSERT INTO job_types (job_type, group_concurrency) VALUES ('crowded', 1);
INSERT INTO jobs_queue (job_type, payload, group_key)
	SELECT 'crowded', jsonb_build_object('n', 'full' || i), 'full' FROM generate_series(1, 3000) i;
SELECT enqueue_job('crowded', '{"n": "other"}', group_key => 'other') > 0;
SELECT claim('crowded'), claim('crowded'), claim('crowded');
-- fair: each has its turn, however many jobs it has
INSERT INTO job_types (job_type, fair_groups) VALUES ('fair', true);
SELECT count(*) FROM (SELECT enqueue_job('fair', jsonb_build_object('n', g || i), group_key => g)
	FROM (VALUES ('a', 6), ('b', 2), ('c', 1)) v (g, n), generate_series(1, n) i ORDER BY g, i) e;
SELECT claim('fair', 4);
SELECT claim('fair'), claim('fair'), claim('fair', 10);
RESET jobqueue.debug_claim_path;
-- strict: a retry keeps its place
INSERT INTO job_types (job_type, group_concurrency, group_strict, backoff)
	VALUES ('strict', 1, true, '{"strategy": "fixed", "delay": "1 hour"}');
SELECT count(*) FROM (SELECT enqueue_job('strict', jsonb_build_object('n', g || i), group_key => g)
	FROM unnest('{a,b}'::text[]) g, generate_series(1, 2) i ORDER BY g, i) e;
SELECT claim('strict', 10);
SELECT finish('strict', 'a1', false), finish('strict', 'b1');
SELECT claim('strict', 10);
UPDATE jobs_queue SET scheduled_at = now() WHERE job_type = 'strict' AND payload->>'n' = 'a1';
SELECT claim('strict', 10);
SELECT finish('strict', 'a1');
SELECT claim('strict', 10);
-- also when its next claim is undone, or the limit is below what runs by now
INSERT INTO job_types (job_type, group_concurrency, group_strict, backoff)
	VALUES ('undone', 3, true, '{"delay": 0}');
SELECT count(*) FROM enqueue_jobs('undone', (SELECT array_agg(jsonb_build_object('n', i)) FROM generate_series(1, 5) i), group_key => 'a');
SELECT claim('undone', 10);
SELECT finish('undone', '1', false);
BEGIN;
SELECT claim('undone', 10);
ROLLBACK;
UPDATE job_types SET group_concurrency = 1 WHERE job_type = 'undone';
SELECT claim('undone', 10);
SELECT finish('undone', '1'), finish('undone', '2'), claim('undone', 10);
SELECT finish('undone', '3'), claim('undone', 10);
-- a job that is given up and claimed again in one transaction that is undone
INSERT INTO job_types (job_type, max_concurrency) VALUES ('again', 1);
SELECT count(*) FROM enqueue_jobs('again', (SELECT array_agg(jsonb_build_object('n', i)) FROM generate_series(1, 3) i));
SELECT claim('again');
BEGIN;
SELECT release_job(id, locked_by) FROM jobs_queue WHERE job_type = 'again' AND status = 'running';
SELECT claim('again'), claim('again');
ROLLBACK;
SELECT claim('again'), (SELECT count(*) FROM jobs_queue WHERE job_type = 'again' AND status = 'running') AS running;
-- a place that the same transaction gives up does not do where a rate is over
INSERT INTO job_types (job_type, group_concurrency, group_rate_max, group_rate_window)
	VALUES ('both', 1, 2, '1 hour');
SELECT count(*) FROM enqueue_jobs('both', (SELECT array_agg(jsonb_build_object('n', i)) FROM generate_series(1, 3) i), group_key => 'a');
SELECT claim('both', 10);
BEGIN;
SELECT finish('both', '1');
SELECT claim('both', 10);
SELECT finish('both', '2');
SELECT claim('both', 10);
COMMIT;
SELECT claim('both', 10);

-- nobody comes between a retry and its place, whatever is offered first
INSERT INTO job_types (job_type, group_concurrency, group_strict, backoff)
	VALUES ('kept', 1, true, '{"strategy": "fixed", "delay": "1 hour"}');
SELECT enqueue_job('kept', '{"n": "r"}', group_key => 'a') > 0, claim('kept'), finish('kept', 'r', false);
SELECT enqueue_job('kept', '{"n": "l1"}', group_key => 'a', priority => 1::smallint) > 0,
	enqueue_job('kept', '{"n": "h1"}', group_key => 'a', priority => -1::smallint) > 0;
SELECT claim('kept', 10);
UPDATE jobs_queue SET scheduled_at = now() WHERE job_type = 'kept' AND payload->>'n' = 'r';
SELECT enqueue_job('kept', '{"n": "l2"}', group_key => 'a', priority => 1::smallint) > 0,
	enqueue_job('kept', '{"n": "h2"}', group_key => 'a', priority => -1::smallint) > 0;
SELECT claim('kept', 10);
SELECT finish('kept', 'r'), claim('kept', 10);
SELECT finish('kept', 'h1'), claim('kept', 10);
-- a limit below what retries keep
INSERT INTO job_types (job_type, group_concurrency, group_strict, backoff)
	VALUES ('lowered', 2, true, '{"strategy": "fixed", "delay": "1 hour"}');
SELECT count(*) FROM (SELECT enqueue_job('lowered', jsonb_build_object('n', i), group_key => 'a')
	FROM generate_series(1, 3) i ORDER BY i) e;
SELECT claim('lowered', 10), finish('lowered', '1', false), finish('lowered', '2', false);
UPDATE job_types SET group_concurrency = 1 WHERE job_type = 'lowered';
UPDATE jobs_queue SET scheduled_at = now() WHERE job_type = 'lowered' AND payload->>'n' = '1';
SELECT claim('lowered', 10), claim('lowered');
-- a job that is claimed again in the transaction that released it
INSERT INTO job_types (job_type, max_concurrency) VALUES ('reclaimed', 1);
SELECT count(*) FROM enqueue_jobs('reclaimed', (SELECT array_agg(jsonb_build_object('n', i)) FROM generate_series(1, 2) i));
SELECT claim('reclaimed');
BEGIN;
SELECT release_job(id, locked_by) FROM jobs_queue WHERE job_type = 'reclaimed' AND status = 'running';
SELECT claim('reclaimed');
ROLLBACK;
SELECT claim('reclaimed');
-- what SQL finds counts in the same way
SET jobqueue.debug_claim_path = 'sql';
INSERT INTO job_types (job_type, group_rate_max, group_rate_window) VALUES ('by_sql', 1, '1 hour');
SELECT count(*) FROM (SELECT enqueue_job('by_sql', jsonb_build_object('n', i), group_key => 'a')
	FROM generate_series(1, 4) i ORDER BY i) e;
SELECT claim('by_sql'), claim('by_sql'), claim('by_sql', 10);
INSERT INTO job_types (job_type, group_concurrency, group_strict, backoff)
	VALUES ('strict_by_sql', 1, true, '{"strategy": "fixed", "delay": "1 hour"}');
SELECT count(*) FROM (SELECT enqueue_job('strict_by_sql', jsonb_build_object('n', i), group_key => 'a')
	FROM generate_series(1, 3) i ORDER BY i) e;
SELECT claim('strict_by_sql'), finish('strict_by_sql', '1', false);
UPDATE jobs_queue SET scheduled_at = now() WHERE job_type = 'strict_by_sql' AND payload->>'n' = '1';
SELECT claim('strict_by_sql', 10), claim('strict_by_sql', 10);
RESET jobqueue.debug_claim_path;

-- who waits for jobs sees those that only groups know
INSERT INTO job_types (job_type, fair_groups) VALUES ('awaited', true);
SELECT count(*) FROM (SELECT enqueue_job('awaited', jsonb_build_object('n', i), group_key => 'a')
	FROM generate_series(1, 2) i ORDER BY i) e;
SELECT claim('awaited');
CALL wait_for_jobs('{awaited}', '0');
SELECT claim('awaited');
CALL wait_for_jobs('{awaited}', '0');

DELETE FROM jobs_queue;
DELETE FROM job_types;
DROP FUNCTION claim, finish;
