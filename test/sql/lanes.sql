--
-- Claims through shared memory: what it serves, what it leaves to SQL, and that
-- the next claim is right, whatever has happened to the rows since the last.
--
-- A database of its own: its claims are counted from nothing.
CREATE DATABASE jobqueue_lanes TEMPLATE template0;
SELECT current_database() AS main \gset
\c jobqueue_lanes
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET TIMEZONE = 'UTC';
SET DATESTYLE = 'ISO, YMD';
SET jobqueue.debug_claim_path = auto;
CREATE EXTENSION jobqueue;
\set w1 '''aaaaaaaa-0000-4000-8000-000000000001'''

-- One claim, and which way it went.
CREATE FUNCTION claim(max_jobs integer DEFAULT 1, job_types text[] DEFAULT NULL, OUT path text, OUT ids bigint[])
LANGUAGE plpgsql AS $$
DECLARE
	before record;
	after record;
BEGIN
	SELECT * INTO before FROM job_claim_stats;
	ids := ARRAY(SELECT id FROM claim_jobs('aaaaaaaa-0000-4000-8000-000000000001', job_types, max_jobs));
	SELECT * INTO after FROM job_claim_stats;
	path := repeat('memory', (after.memory_claims - before.memory_claims)::integer)
		|| repeat('sql', (after.sql_claims - before.sql_claims)::integer);
END
$$;
-- The same, against what the claim order says.
CREATE FUNCTION claim_and_compare(max_jobs integer, types text[] DEFAULT NULL, OUT path text, OUT jobs integer, OUT are_right boolean)
LANGUAGE plpgsql AS $$
DECLARE
	wanted bigint[] := ARRAY(
		SELECT id FROM jobs_queue
		WHERE status = 'queued' AND scheduled_at <= clock_timestamp() AND (types IS NULL OR job_type = ANY (types))
		ORDER BY priority, scheduled_at, id LIMIT max_jobs);
	got bigint[];
BEGIN
	SELECT c.path, c.ids INTO path, got FROM claim(max_jobs, types) c;
	jobs := cardinality(got);
	are_right := got = wanted;
END
$$;

-- ---- which way ----

SELECT memory_claims, sql_claims, overflows, refills, repairs, stale_candidates FROM job_claim_stats;
SELECT * FROM job_lanes;
SELECT * FROM claim();
SELECT enqueue_jobs('a', '{1,2,3}');
SELECT enqueue_job('a', stage => 'x'), enqueue_job('a', priority => 3), enqueue_job('b');
SELECT * FROM claim();
SELECT job_type, stage, priority, candidates, read_until, last_used_at <= now() AS is_used FROM job_lanes ORDER BY 1, 2, 3;
SELECT * FROM claim(2, '{b,a}');
SELECT * FROM claim(10, '{a}');
SELECT * FROM claim(10);
SELECT * FROM claim(10, '{nothing}');
SELECT job_type, stage, priority, candidates FROM job_lanes ORDER BY 1, 2, 3;
SELECT memory_claims, sql_claims, overflows, refills > 0 AS has_read FROM job_claim_stats;

-- every function that claims
SELECT enqueue_jobs('a', '{1,2,3}');
SELECT id FROM claim_next_job(:w1, 'a');
SELECT id FROM resolve_and_claim(7, :w1, true, job_type => 'a');
SELECT id FROM claim_jobs(:w1);
SELECT memory_claims, sql_claims FROM job_claim_stats;

-- a snapshot of the transaction's own must decide
SELECT enqueue_jobs('a', '{1,2}');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM claim();
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT * FROM claim();
COMMIT;
SELECT * FROM claim();

-- jobs of one's own that nobody else can see
BEGIN;
SELECT enqueue_job('a');
SELECT * FROM claim();
SELECT * FROM claim();
COMMIT;
SELECT * FROM claim();
BEGIN;
UPDATE jobs_queue SET status = 'queued' WHERE id = 12;
SELECT * FROM claim();
ROLLBACK;
SELECT * FROM claim();
-- not those of later, which no claim wants
BEGIN;
SELECT enqueue_job('a', scheduled_at => now() + interval '1 hour');
SELECT * FROM claim();
ROLLBACK;
-- nor those of a subtransaction that is gone, once the transaction is over
BEGIN;
SAVEPOINT s;
SELECT enqueue_job('a');
ROLLBACK TO s;
SELECT ids FROM claim();
COMMIT;
SELECT * FROM claim();

-- asked for
SET jobqueue.debug_claim_path = sql;
SELECT enqueue_jobs('a', '{1,2}') > 0 AS ok;
SELECT path, cardinality(ids) FROM claim();
SET jobqueue.debug_claim_path = memory;
SELECT path, cardinality(ids) FROM claim();
SET jobqueue.debug_claim_path = auto;
TRUNCATE jobs_queue RESTART IDENTITY;

-- Things of the users' on the table: first as it is, then with memory insisted
-- on, then without the thing again.
CREATE FUNCTION with_obstacle(make text, remove text, OUT with_it text, OUT refusal text, OUT without_it text)
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE make;
	with_it := (SELECT path || ' ' || cardinality(ids) FROM claim());
	SET LOCAL jobqueue.debug_claim_path = memory;
	BEGIN
		PERFORM claim();
		refusal := 'none';
	EXCEPTION WHEN OTHERS THEN
		refusal := sqlstate || ' ' || sqlerrm;
	END;
	SET LOCAL jobqueue.debug_claim_path = auto;
	EXECUTE remove;
	without_it := (SELECT path || ' ' || cardinality(ids) FROM claim());
END
$$;
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
INSERT INTO jobs_queue (job_type) SELECT 'a' FROM generate_series(1, 60);
SELECT * FROM claim();
\x on
SELECT * FROM with_obstacle('CREATE TRIGGER t BEFORE UPDATE ON jobs_queue FOR EACH ROW EXECUTE FUNCTION nothing()', 'DROP TRIGGER t ON jobs_queue');
SELECT * FROM with_obstacle('CREATE TRIGGER t AFTER UPDATE ON jobs_queue_live FOR EACH STATEMENT EXECUTE FUNCTION nothing()', 'DROP TRIGGER t ON jobs_queue_live');
SELECT * FROM with_obstacle('CREATE RULE r AS ON UPDATE TO jobs_queue_live DO ALSO NOTHING', 'DROP RULE r ON jobs_queue_live');
SELECT * FROM with_obstacle('ALTER TABLE jobs_queue_live ENABLE ROW LEVEL SECURITY', 'ALTER TABLE jobs_queue_live DISABLE ROW LEVEL SECURITY');
SELECT * FROM with_obstacle('ALTER TABLE jobs_queue ADD CONSTRAINT c CHECK (priority < 100)', 'ALTER TABLE jobs_queue DROP CONSTRAINT c');
SELECT * FROM with_obstacle('CREATE INDEX i ON jobs_queue ((payload ->> ''to''))', 'DROP INDEX i');
SELECT * FROM with_obstacle('CREATE INDEX i ON jobs_queue (correlation_id) WHERE priority > 0', 'DROP INDEX i');
SELECT * FROM with_obstacle('ALTER TABLE jobs_queue ADD COLUMN shop text GENERATED ALWAYS AS (payload ->> ''shop'') STORED', 'ALTER TABLE jobs_queue DROP COLUMN shop');
SELECT * FROM with_obstacle('ALTER TABLE jobs_queue ADD COLUMN shop text NOT NULL DEFAULT ''''', 'ALTER TABLE jobs_queue DROP COLUMN shop');
SELECT * FROM with_obstacle('CREATE TABLE o (job_id bigint REFERENCES jobs_queue_live)', 'DROP TABLE o');
-- these are none
SELECT * FROM with_obstacle('CREATE INDEX i ON jobs_queue (correlation_id, tags)', 'DROP INDEX i');
SELECT * FROM with_obstacle('ALTER TABLE jobs_queue ADD COLUMN shop text', 'ALTER TABLE jobs_queue DROP COLUMN shop');
SELECT * FROM with_obstacle('CREATE TRIGGER t AFTER INSERT ON jobs_queue_done FOR EACH ROW EXECUTE FUNCTION nothing()', 'DROP TRIGGER t ON jobs_queue_done');
\x off
SET jobqueue.debug_claim_path = memory;
ALTER INDEX jobs_queue_live_ready RENAME TO ready;
SELECT * FROM claim();
ALTER INDEX ready RENAME TO jobs_queue_live_ready;
ALTER TABLE jobs_queue_live ENABLE ROW LEVEL SECURITY;
SELECT * FROM claim();
\echo :SQLSTATE
ALTER TABLE jobs_queue_live DISABLE ROW LEVEL SECURITY;
-- where SQL is as it should be, nothing is refused
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT path FROM claim();
ROLLBACK;
BEGIN;
SELECT enqueue_job('a') > 0 AS ok;
SELECT path FROM claim();
ROLLBACK;
SET jobqueue.debug_claim_path = auto;
-- a trigger that comes and goes within a transaction
BEGIN;
CREATE TRIGGER t BEFORE UPDATE ON jobs_queue FOR EACH ROW EXECUTE FUNCTION nothing();
SELECT path FROM claim();
ROLLBACK;
SELECT path FROM claim();
TRUNCATE jobs_queue RESTART IDENTITY;

-- ---- the order ----

INSERT INTO jobs_queue (job_type, stage, priority, scheduled_at)
SELECT 't' || i % 4, 's' || i % 3, i % 5 - 2, timestamptz '2020-01-01' + (i * 37 % 101) * interval '1 s'
FROM generate_series(1, 900) i;
SELECT * FROM claim_and_compare(1);
SELECT * FROM claim_and_compare(7, '{t1}');
SELECT * FROM claim_and_compare(50);
SELECT * FROM claim_and_compare(20, '{t3,t0,t3}');
SELECT count(*), sum(n.jobs), bool_and(n.are_right), min(n.path) FROM generate_series(1, 40) i, LATERAL claim_and_compare(1 + i % 3) n;
SELECT * FROM claim_and_compare(300, '{t2}');
SELECT * FROM claim_and_compare(1000);
SELECT * FROM claim_and_compare(1000);
TRUNCATE jobs_queue RESTART IDENTITY;

-- producers: functions, INSERT, COPY, another transaction with many of them
SELECT * FROM claim();
SELECT count(enqueue_job('a', scheduled_at => timestamptz '2020-01-01' - i * interval '1 s')) FROM generate_series(1, 20) i;
SELECT count(*) FROM enqueue_job_batch('[{"job_type": "a", "priority": -1}, {"job_type": "c"}]');
INSERT INTO jobs_queue (job_type, scheduled_at) VALUES ('a', '2020-01-01'), ('b', '2019-01-01'), ('a', now() + interval '1 year'), ('a', '2000-01-01');
COPY jobs_queue (job_type, scheduled_at, stage) FROM stdin;
a	2019-06-01	
a	2019-12-31 23:59:50	
b	2019-12-31 23:59:50	x
\.
INSERT INTO jobs_queue (job_type, scheduled_at)
SELECT 'a', timestamptz '2019-12-31 23:59:55' + i * interval '1 s' FROM generate_series(1, 8) i
ON CONFLICT DO NOTHING;
MERGE INTO jobs_queue q USING (VALUES ('d')) v (t) ON q.job_type = v.t WHEN NOT MATCHED THEN INSERT (job_type) VALUES (v.t);
SELECT * FROM claim_and_compare(3);
SELECT * FROM claim_and_compare(12, '{a,b}');
SELECT * FROM claim_and_compare(100);
TRUNCATE jobs_queue RESTART IDENTITY;

-- refused keys
INSERT INTO jobs_queue (job_type, scheduled_at) VALUES ('a', 'infinity');
INSERT INTO jobs_queue (job_type, scheduled_at) VALUES ('a', '-infinity');
SELECT enqueue_job('a', scheduled_at => 'infinity');
SELECT enqueue_job('a', priority => 40000);
SELECT count(*) FROM jobs_queue;
-- what a replica brings is found all the same, and what is never due is not
SET session_replication_role = replica;
INSERT INTO jobs_queue (id, job_type, scheduled_at, max_attempts, owner) VALUES
	(1, 'a', '2020-01-01', 5, current_user::regrole), (2, 'a', 'infinity', 5, current_user::regrole),
	(3, 'a', '-infinity', 5, current_user::regrole), (4, 'new', '2020-01-02', 5, current_user::regrole);
SELECT * FROM claim(10);
UPDATE jobs_queue SET scheduled_at = '2020-01-01' WHERE id = 2;
RESET session_replication_role;
SELECT * FROM claim(10);
SELECT * FROM claim(10);
TRUNCATE jobs_queue RESTART IDENTITY;

-- ---- what operators do between two claims ----

INSERT INTO jobs_queue (job_type, scheduled_at) SELECT 'a', timestamptz '2020-01-01' + i * interval '1 s' FROM generate_series(1, 20) i;
SELECT * FROM claim(1, '{a}');
UPDATE jobs_queue SET scheduled_at = now() + interval '1 hour' WHERE id = 2;
SELECT * FROM claim(1, '{a}');
UPDATE jobs_queue SET priority = -1 WHERE id = 20;
SELECT * FROM claim(1, '{a}');
UPDATE jobs_queue SET priority = 1 WHERE id = 4;
SELECT * FROM claim(1, '{a}');
UPDATE jobs_queue SET stage = 'x' WHERE id = 6;
SELECT * FROM claim(1, '{a}');
UPDATE jobs_queue SET job_type = 'b' WHERE id = 7;
SELECT * FROM claim(1, '{a}');
SELECT * FROM claim(1, '{b}');
DELETE FROM jobs_queue WHERE id = 9;
SELECT * FROM claim(1, '{a}');
UPDATE jobs_queue SET status = 'cancelled' WHERE id = 11;
SELECT * FROM claim(1, '{a}');
SELECT cancel_job(13);
SELECT * FROM claim(1, '{a}');
UPDATE jobs_queue SET status = 'queued', scheduled_at = '2020-01-01' WHERE id = 11;
UPDATE jobs_queue SET scheduled_at = '2020-01-01' WHERE id = 2;
SELECT * FROM claim(1, '{a}');
SELECT * FROM claim(1, '{a}');
SELECT release_job(14, :w1);
SELECT * FROM claim(1, '{a}');
UPDATE jobs_queue SET status = 'queued' WHERE id = 14;
SELECT * FROM claim(1, '{a}');
SELECT fail_job(14, :w1, retry_at => now());
SELECT snooze_job(12, :w1, '0');
SELECT set_job_stage(10, :w1, 'y'), fail_job(10, :w1, retry_at => '2020-01-01');
SELECT requeue_job(13);
SELECT ids FROM claim(3, '{a}');
SELECT * FROM claim_and_compare(100, '{a}');
SELECT * FROM claim(100);
TRUNCATE jobs_queue RESTART IDENTITY;
-- the same id and instant again, in another row, and in another lane and back
INSERT INTO jobs_queue (id, job_type, scheduled_at) SELECT i, 'a', '2020-01-01' FROM generate_series(101, 110) i;
SELECT * FROM claim();
DELETE FROM jobs_queue WHERE id = 102;
INSERT INTO jobs_queue (id, job_type, scheduled_at) VALUES (102, 'a', '2020-01-01');
SELECT * FROM claim();
BEGIN;
DELETE FROM jobs_queue WHERE id = 103;
INSERT INTO jobs_queue (id, job_type, scheduled_at) VALUES (103, 'a', '2020-01-01');
COMMIT;
SELECT * FROM claim();
UPDATE jobs_queue SET job_type = 'b' WHERE id = 104;
UPDATE jobs_queue SET job_type = 'a' WHERE id = 104;
UPDATE jobs_queue SET priority = 5 WHERE id IN (105, 106);
UPDATE jobs_queue SET priority = 0 WHERE id IN (105, 106);
SELECT * FROM claim(3);
-- a disabled type, and one that the server runs
INSERT INTO job_types (job_type, enabled) VALUES ('a', false);
SELECT * FROM claim();
UPDATE job_types SET enabled = true, runner = 'sql', command = 'SELECT 1' WHERE job_type = 'a';
SELECT * FROM claim();
DELETE FROM job_types;
SELECT * FROM claim();
-- another session knows all that
\c -
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET TIMEZONE = 'UTC';
SET jobqueue.debug_claim_path = auto;
SELECT * FROM claim();
TRUNCATE jobs_queue RESTART IDENTITY;

-- ---- many at once ----

-- more jobs than are noted one by one, and than a lane holds; before the others
INSERT INTO jobs_queue (job_type, scheduled_at) SELECT 'a', timestamptz '2020-01-01' + i * interval '1 s' FROM generate_series(1, 10) i;
SELECT * FROM claim();
INSERT INTO jobs_queue (job_type, scheduled_at) SELECT 'a', timestamptz '2019-01-01' + i * interval '1 s' FROM generate_series(1, 200) i;
SELECT * FROM claim_and_compare(150);
INSERT INTO jobs_queue (job_type, scheduled_at) SELECT 'a', timestamptz '2019-01-01' - i * interval '1 s' FROM generate_series(1, 600) i;
SELECT * FROM claim_and_compare(1);
SELECT * FROM claim_and_compare(400);
SELECT * FROM claim_and_compare(1000);
-- in more lanes than can be noted
INSERT INTO jobs_queue (job_type) SELECT 't' || i FROM generate_series(1, 100) i;
SELECT * FROM claim_and_compare(50);
INSERT INTO jobs_queue (job_type, scheduled_at) SELECT 't' || i % 100, timestamptz '2019-01-01' + i * interval '1 s' FROM generate_series(1, 400) i;
SELECT * FROM claim_and_compare(1, '{t77}');
SELECT * FROM claim_and_compare(300);
SELECT * FROM claim_and_compare(1000);
SELECT count(*) FROM job_lanes WHERE job_type LIKE 't%' AND stage = '' AND priority = 0;
-- and then none of it
SELECT enqueue_job('a') > 0 AS ok;
BEGIN;
INSERT INTO jobs_queue (job_type, priority) SELECT 'r' || i % 100, -1 FROM generate_series(1, 400) i;
ROLLBACK;
SELECT * FROM claim_and_compare(10);
-- one claim after the other within a transaction
INSERT INTO jobs_queue (job_type, scheduled_at) SELECT 'a', timestamptz '2020-01-01' + i * interval '1 s' FROM generate_series(1, 700) i;
BEGIN;
SELECT count(*), sum(n.jobs), bool_and(n.are_right), min(n.path) FROM generate_series(1, 7) i, LATERAL claim_and_compare(90) n;
ROLLBACK;
SELECT * FROM claim_and_compare(1000);
TRUNCATE jobs_queue RESTART IDENTITY;

-- ---- what does not last ----

SELECT count(*) FROM enqueue_jobs('a', '{1,2,3,4,5,6,7,8}');
BEGIN;
SELECT * FROM claim(3);
ROLLBACK;
SELECT * FROM claim();
BEGIN;
SELECT * FROM claim();
SAVEPOINT s;
SELECT * FROM claim(2);
ROLLBACK TO s;
SELECT * FROM claim();
SAVEPOINT t;
SELECT * FROM claim();
RELEASE t;
COMMIT;
SELECT * FROM claim();
BEGIN;
SAVEPOINT s;
SELECT * FROM claim();
RELEASE s;
ROLLBACK;
DO $$
BEGIN
	PERFORM claim(2);
	RAISE 'no';
EXCEPTION WHEN raise_exception THEN
	PERFORM claim();
END
$$;
SELECT id, status, attempts, claim_no FROM jobs_queue ORDER BY id;
SELECT * FROM claim(10);
-- two-phase: until it ends, nobody has what it took or made
SELECT count(*) FROM enqueue_jobs('a', '{1,2,3}');
BEGIN;
SELECT ids FROM claim();
SELECT enqueue_job('a', priority => -1);
PREPARE TRANSACTION 'lanes';
SELECT * FROM claim();
ROLLBACK PREPARED 'lanes';
SELECT * FROM claim();
BEGIN;
SELECT enqueue_job('a', priority => -1);
PREPARE TRANSACTION 'lanes';
COMMIT PREPARED 'lanes';
SELECT * FROM claim(10);
TRUNCATE jobs_queue RESTART IDENTITY;

-- ---- another file ----

INSERT INTO jobs_queue (job_type, scheduled_at) SELECT 'a', timestamptz '2020-01-01' - i * interval '1 s' FROM generate_series(1, 40) i;
SELECT * FROM claim();
VACUUM FULL jobs_queue;
SELECT * FROM claim();
CLUSTER jobs_queue_live USING jobs_queue_live_pkey;
SELECT * FROM claim();
REINDEX TABLE jobs_queue_live;
SELECT * FROM claim();
REINDEX TABLE CONCURRENTLY jobs_queue_live;
SELECT * FROM claim();
ALTER TABLE jobs_queue ADD COLUMN shop float DEFAULT random();
SELECT * FROM claim();
ALTER TABLE jobs_queue DROP COLUMN shop;
SELECT * FROM claim();
-- a rewrite that is rolled back, with claims in it
BEGIN;
CLUSTER jobs_queue_live USING jobs_queue_live_ready;
SELECT ids FROM claim();
ROLLBACK;
SELECT * FROM claim();
BEGIN;
TRUNCATE jobs_queue;
SELECT ids FROM claim();
SELECT enqueue_job('a') > 0 AS ok;
SELECT cardinality(ids) FROM claim();
ROLLBACK;
SELECT * FROM claim();
BEGIN;
TRUNCATE jobs_queue RESTART IDENTITY;
SELECT enqueue_jobs('a', '{1,2}');
COMMIT;
SELECT * FROM claim();
TRUNCATE jobs_queue RESTART IDENTITY;
SELECT * FROM claim();
INSERT INTO jobs_queue (job_type) VALUES ('a');
SELECT * FROM claim();
-- a new extension under the same names
DROP EXTENSION jobqueue;
CREATE EXTENSION jobqueue;
SELECT * FROM claim();
SELECT enqueue_jobs('a', '{1,2}');
SELECT * FROM claim();

-- in the end SQL finds nothing that memory has forgotten
SET jobqueue.debug_claim_path = sql;
SELECT * FROM claim(10);
SELECT * FROM claim(10);
\c :main
DROP DATABASE jobqueue_lanes;
