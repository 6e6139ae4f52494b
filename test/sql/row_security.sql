--
-- Row security that an administrator puts on jobs_queue: plain DML of other
-- roles is filtered; the functions, the workers and the views act as the owner
-- of the tables, whom it does not bind.
--
SET client_min_messages = warning;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
\set SHOW_CONTEXT never
\set w1 '''11111111-0000-4000-8000-000000000001'''
CREATE ROLE regress_ann;
CREATE ROLE regress_ben;
CREATE ROLE regress_watch;
SELECT grant_job_role(r::regrole, j) FROM unnest('{regress_ann,regress_ben}'::text[]) r, unnest('{producer,worker,operator}'::text[]) j;
SELECT grant_job_role('regress_watch', 'observer');
CREATE FUNCTION regress_try(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	EXECUTE statement;
	GET DIAGNOSTICS n = ROW_COUNT;
	RETURN 'ok ' || n;
EXCEPTION WHEN OTHERS THEN
	RETURN sqlstate;
END
$$;
CREATE TABLE regress_policies (n integer, name text, statement text);
INSERT INTO regress_policies VALUES
	(1, 'none but the owner', 'SELECT 1'),
	(2, 'own jobs', $$CREATE POLICY own ON jobs_queue USING (owner::oid = (SELECT oid FROM pg_roles WHERE rolname = current_user));
		CREATE POLICY own ON jobs_queue_live USING (owner::oid = (SELECT oid FROM pg_roles WHERE rolname = current_user))$$),
	(3, 'reading all', $$CREATE POLICY see ON jobs_queue FOR SELECT USING (true); CREATE POLICY see ON jobs_queue_live FOR SELECT USING (true)$$),
	(4, 'forced', 'ALTER TABLE jobs_queue FORCE ROW LEVEL SECURITY; ALTER TABLE jobs_queue_live FORCE ROW LEVEL SECURITY');
GRANT SELECT ON regress_policies TO PUBLIC;

ALTER TABLE jobs_queue ENABLE ROW LEVEL SECURITY;
ALTER TABLE jobs_queue_live ENABLE ROW LEVEL SECURITY;
-- For each policy, and those before: what ann may do with a job of hers and one of ben's.
CREATE FUNCTION regress_matrix() RETURNS TABLE (policy text, sees text, inserts text, updates text, deletes text, enqueues text, claims text, resolves text, requeues text)
LANGUAGE plpgsql AS $$
DECLARE
	p regress_policies;
BEGIN
	FOR p IN SELECT * FROM regress_policies ORDER BY n LOOP
		RESET ROLE;
		EXECUTE p.statement;
		DELETE FROM jobs_queue;
		SET LOCAL ROLE regress_ben;
		PERFORM enqueue_job('of ben');
		SET LOCAL ROLE regress_ann;
		policy := p.name;
		enqueues := regress_try($q$SELECT enqueue_job('of ann')$q$);
		sees := (SELECT coalesce(string_agg(job_type, ', ' ORDER BY job_type), '-') FROM jobs_queue);
		inserts := regress_try($q$INSERT INTO jobs_queue (job_type) VALUES ('inserted')$q$);
		updates := regress_try('UPDATE jobs_queue SET priority = 1');
		claims := regress_try($q$SELECT FROM claim_jobs('11111111-0000-4000-8000-000000000001', '{of ann,of ben}', 5)$q$);
		resolves := (SELECT string_agg(r::text, '') FROM generate_series(1, (SELECT last_value FROM jobs_queue_id_seq)) AS i,
			LATERAL fail_job(i, '11111111-0000-4000-8000-000000000001', permanent => true) AS r WHERE r);
		requeues := (SELECT count(*) FROM generate_series(1, requeue_jobs()::int))::text;
		deletes := regress_try('DELETE FROM jobs_queue');
		RETURN NEXT;
	END LOOP;
	RESET ROLE;
END
$$;
GRANT SELECT ON jobs_queue_id_seq TO regress_ann;
SELECT * FROM regress_matrix();
-- Views are the owner's: their rows are counted whoever asks.
DELETE FROM jobs_queue;
SELECT enqueue_job('mine') > 0 AS ok;
SET ROLE regress_watch;
SELECT job_type, jobs FROM job_stats;
RESET ROLE;
-- A copy of the rows, as a dump makes it, is refused rather than filtered.
SET ROLE regress_ann;
SET row_security = off;
SELECT regress_try('SELECT * FROM jobs_queue');
RESET row_security;
RESET ROLE;
-- It costs what every addition to the live leaf costs: claims in SQL.
BEGIN;
SET LOCAL jobqueue.debug_claim_path = memory;
SELECT id FROM claim_next_job(:w1, 'mine');
ROLLBACK;

DROP POLICY own ON jobs_queue;
DROP POLICY own ON jobs_queue_live;
DROP POLICY see ON jobs_queue;
DROP POLICY see ON jobs_queue_live;
ALTER TABLE jobs_queue NO FORCE ROW LEVEL SECURITY;
ALTER TABLE jobs_queue DISABLE ROW LEVEL SECURITY;
ALTER TABLE jobs_queue_live NO FORCE ROW LEVEL SECURITY;
ALTER TABLE jobs_queue_live DISABLE ROW LEVEL SECURITY;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DROP FUNCTION regress_matrix, regress_try;
DROP TABLE regress_policies;
DROP OWNED BY regress_ann, regress_ben, regress_watch;
DROP ROLE regress_ann, regress_ben, regress_watch;
