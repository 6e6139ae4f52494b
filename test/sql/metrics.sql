-- What shared memory counts of jobs, compared with what the tables have. The
-- workers are off here: nobody looks at the tables, so job_counts counts them.

CREATE VIEW seen AS
	SELECT m.job_type, m.stage, m.enqueued, m.started, m.succeeded, m.failed, m.retried, m.dead, m.cancelled,
		m.released, m.expired, m.skipped,
		(SELECT sum(b) FROM unnest(m.wait_buckets) b) AS waits, (SELECT sum(b) FROM unnest(m.run_buckets) b) AS runs,
		(SELECT sum(b) FROM unnest(m.total_buckets) b) AS totals
	FROM _job_metrics() m WHERE m.job_type LIKE 'm\_%' ORDER BY 1, 2;

-- A life of each kind.
INSERT INTO job_types (job_type, dead_letter, max_attempts, backoff) VALUES ('m_life', true, 2, '"0s"');
SELECT enqueue_job('m_life', stage => 'a', correlation_id => 'x') > 0 AS ok FROM generate_series(1, 5);
SELECT enqueue_job('m_life', scheduled_at => now() + interval '1 day') > 0 AS ok;
SELECT * FROM job_counts WHERE job_type LIKE 'm\_%';
SELECT count(*) FROM claim_jobs('00000000-0000-0000-0000-00000000000a', '{m_life}', 5);
SELECT complete_job(id, locked_by) FROM jobs_queue WHERE status = 'running' ORDER BY id LIMIT 2;
SELECT fail_job(id, locked_by, 'once') FROM jobs_queue WHERE status = 'running' ORDER BY id LIMIT 1;
SELECT fail_job(id, locked_by, 'for good', permanent => true) FROM jobs_queue WHERE status = 'running' ORDER BY id LIMIT 1;
SELECT release_job(id, locked_by) FROM jobs_queue WHERE status = 'running' ORDER BY id LIMIT 1;
SELECT cancel_job(id) FROM jobs_queue WHERE status = 'queued' AND attempts = 1;
SELECT * FROM seen \gx
SELECT * FROM job_counts WHERE job_type LIKE 'm\_%';

-- What is rolled back does not count, nor a subtransaction.
BEGIN;
SELECT enqueue_job('m_back') > 0 AS ok;
SAVEPOINT a;
SELECT enqueue_job('m_back') > 0 AS ok;
ROLLBACK TO a;
SAVEPOINT b;
SELECT enqueue_job('m_back') > 0 AS ok;
RELEASE b;
COMMIT;
BEGIN;
SELECT enqueue_job('m_back') > 0 AS ok;
ROLLBACK;
SELECT job_type, enqueued FROM seen WHERE job_type = 'm_back';

-- Plain DML.
INSERT INTO jobs_queue (job_type) VALUES ('m_plain'), ('m_plain'), ('m_plain');
UPDATE jobs_queue SET status = 'completed' WHERE id = (SELECT min(id) FROM jobs_queue WHERE job_type = 'm_plain');
UPDATE jobs_queue SET status = 'cancelled' WHERE id = (SELECT max(id) FROM jobs_queue WHERE job_type = 'm_plain');
UPDATE jobs_queue SET status = 'queued' WHERE job_type = 'm_plain' AND status = 'cancelled';
DELETE FROM jobs_queue WHERE job_type = 'm_plain' AND status = 'completed';
SELECT job_type, enqueued, cancelled FROM seen WHERE job_type = 'm_plain';
SELECT job_type, queued, ready, completed, cancelled FROM job_counts WHERE job_type = 'm_plain';

-- Jobs that wait for others; and instants that nothing can be subtracted from.
SELECT enqueue_job('m_wait', depends_on => ARRAY[enqueue_job('m_wait')]) > 0 AS ok;
SELECT job_type, enqueued FROM seen WHERE job_type = 'm_wait';
INSERT INTO jobs_queue (job_type, created_at, updated_at, scheduled_at) VALUES ('m_old', '-infinity', '-infinity', '-infinity');
SELECT count(*) FROM claim_jobs('00000000-0000-0000-0000-00000000000a', '{m_old}');
SELECT complete_job(id, locked_by) FROM jobs_queue WHERE job_type = 'm_old';
SELECT wait_us, total_us, wait_buckets[1] AS waits, total_buckets[1] AS totals FROM _job_metrics() WHERE job_type = 'm_old';

-- Metrics of users: at once, whatever becomes of the transaction.
SELECT job_metric_add('payments_created');
BEGIN;
SELECT job_metric_add('payments_created', 2);
SELECT job_metric_add('cin7_api_calls', 1, '{"host": "api", "ok": true}');
SELECT job_metric_observe('cin7', 12.5);
SELECT job_metric_observe('cin7', 7.5);
ROLLBACK;
SELECT kind, name, labels, count, sum FROM _user_metrics() ORDER BY 1, 2;
SELECT job_metric_add('');
SELECT job_metric_add(repeat('n', 101));
SELECT job_metric_add(E'two\nlines');
SELECT job_metric_add('n', -1);
SELECT job_metric_add('n', 'NaN');
SELECT job_metric_observe('n', 'Infinity');
SELECT job_metric_observe('n', NULL);
SELECT job_metric_add('n', 1, '[1]');
SELECT job_metric_add('n', 1, '"x"');
SELECT job_metric_add('n', 1, '{"a": {"b": 1}}');
SELECT job_metric_add('n', 1, '{"a": null}');
SELECT job_metric_add('n', 1, jsonb_build_object('a', repeat('x', 400)));
-- Observers see numbers, producers and workers may add to them.
CREATE ROLE m_observer;
CREATE ROLE m_worker;
SELECT grant_job_role('m_observer', 'observer');
SELECT grant_job_role('m_worker', 'worker');
SET ROLE m_observer;
SELECT count(*) > 0 AS ok FROM job_counts;
SELECT count(*) AS ok FROM job_history;
SELECT job_metric_add('payments_created');
RESET ROLE;
SET ROLE m_worker;
SELECT job_metric_add('payments_created');
SELECT * FROM job_counts;
RESET ROLE;

SELECT array_length(_metric_bounds(), 1) + 1 = (SELECT min(array_length(run_buckets, 1)) FROM _job_metrics()) AS fits;

DROP OWNED BY m_observer, m_worker;
DROP ROLE m_observer, m_worker;
DROP VIEW seen;
DELETE FROM jobs_queue WHERE job_type LIKE 'm\_%';
DELETE FROM job_types WHERE job_type LIKE 'm\_%';
