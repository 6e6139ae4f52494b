-- A gift-card worker: each job is a flow in stages, and a retry resumes at the
-- stage that failed. With the statements of its runbook; see examples/README.md.
\set QUIET on
\pset footer off
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS jobqueue;

-- Attempts are used up after 5 (G2); what then fails goes to the dead letters,
-- status "error" (G15). A worker that is silent for a minute loses its job.
INSERT INTO job_types (job_type, max_attempts, backoff, lease, dead_letter, description) VALUES
	('giftcard', 5, '{"strategy": "exponential", "delay": "2 seconds", "multiplier": 2, "max_delay": "1 minute"}',
	 '1 minute', true, 'Issues a gift card: create customer, issue card, send message')
ON CONFLICT DO NOTHING;

-- ---------------------------------------------------------------------------
-- The webhook handler enqueues inside its own transaction (G1). The order is the
-- unique key: a webhook that is delivered twice makes one job
-- ---------------------------------------------------------------------------

CREATE TABLE IF NOT EXISTS orders (number text PRIMARY KEY, amount_cents integer NOT NULL);
SELECT 'order-' || gen_random_uuid() AS order \gset
BEGIN;
INSERT INTO orders VALUES (:'order', 5000);
SELECT enqueue_job('giftcard', jsonb_build_object('order', :'order'::text, 'amount_cents', 5000),
	unique_key => :'order', stage => 'customer', correlation_id => :'order') AS job_id \gset
COMMIT;
SELECT enqueue_job('giftcard', unique_key => :'order') = :job_id AS delivered_twice_is_one_job;

-- ---------------------------------------------------------------------------
-- The worker: a name for people (G4), stages that survive the attempt (G2)
-- ---------------------------------------------------------------------------

SELECT gen_random_uuid() AS worker \gset
SELECT register_worker(:'worker', 'giftcard worker 1') \g /dev/null

SELECT claim_no FROM claim_next_job(:'worker', 'giftcard') \gset
-- ... the customer was created; from here on a retry issues the card ...
SELECT set_job_stage(:job_id, :'worker', 'card', :claim_no) \g /dev/null
SELECT heartbeat_job(:job_id, :'worker', progress => '{"customer": "CUST-81"}', claim_no => :claim_no) \g /dev/null
\echo 'Who works on what:'
SELECT id, stage, worker_name, in_server FROM running_jobs WHERE id = :job_id;
SELECT resolve_job(:job_id, :'worker', false, 'card service: 503', :claim_no) \g /dev/null

\echo 'The retry resumes at the stage that failed, with what was achieved:'
SELECT status, stage, attempts, progress, last_error FROM jobs_queue WHERE id = :job_id;

-- A fault that no retry will cure ends the flow at once.
UPDATE jobs_queue SET scheduled_at = now() WHERE id = :job_id;
SELECT claim_no FROM claim_next_job(:'worker', 'giftcard') \gset
SELECT fail_job(:job_id, :'worker', 'card service: 401, the access token has expired', permanent => true,
	claim_no => :claim_no) \g /dev/null

-- ---------------------------------------------------------------------------
-- Runbook: dead letters (G16), what happened to an order (G22), requeue (G17)
-- ---------------------------------------------------------------------------

\echo 'Dead letters:'
SELECT id, correlation_id, stage, attempts, last_error, payload
FROM jobs_queue WHERE job_type = 'giftcard' AND status = 'error' ORDER BY updated_at DESC;

\echo 'Every attempt of this order:'
SELECT attempt, stage, status, error FROM job_runs WHERE correlation_id = :'order' ORDER BY claim_no;

\echo 'Requeued after the fix, by a plain UPDATE:'
UPDATE jobs_queue SET status = 'queued', scheduled_at = now(), attempts = 0, last_error = NULL WHERE id = :job_id;
SELECT status, stage, attempts FROM jobs_queue WHERE id = :job_id;

-- Hold one job, or a whole stage (G20); an outage is over when they are due again.
UPDATE jobs_queue SET scheduled_at = now() + interval '1 hour' WHERE job_type = 'giftcard' AND stage = 'card' AND status = 'queued';
\echo 'Held back:'
SELECT job_state(q), count(*) FROM jobs_queue q WHERE id = :job_id GROUP BY 1;
UPDATE jobs_queue SET scheduled_at = now() WHERE job_type = 'giftcard' AND stage = 'card' AND status = 'queued';

-- By hand (G21): read the payload, do the work, say so. Nobody will do it again.
SELECT payload FROM jobs_queue WHERE id = :job_id;
SELECT complete_job(:job_id, result => '{"card": "GC-0001", "by": "hand"}') AS completed_by_hand;

-- After an outage (G23): everything that died of it comes back, oldest first.
SELECT requeue_jobs('giftcard', '{error}', error_like => 'card service:%') AS requeued;

-- ---------------------------------------------------------------------------
-- Alerts (G12, G14): statements for whatever sends your alerts
-- ---------------------------------------------------------------------------

\echo 'More than 3 failures in 5 minutes (no row: none):'
SELECT stage, count(*) FROM job_runs
WHERE job_type = 'giftcard' AND status = 'failed' AND finished_at > now() - interval '5 minutes'
GROUP BY stage HAVING count(*) > 3;
\echo 'Any dead letter:'
SELECT count(*) AS dead_letters FROM jobs_queue WHERE job_type = 'giftcard' AND status = 'error';

SELECT set_config('example.job_id', :'job_id', false) \g /dev/null
DO $$
DECLARE
	job bigint := current_setting('example.job_id');
BEGIN
	ASSERT (SELECT status = 'completed' AND stage = 'card' AND result->>'by' = 'hand' FROM jobs_queue WHERE id = job),
		'the job did not complete';
	ASSERT (SELECT array_agg(stage || ' ' || status ORDER BY claim_no) = '{card failed,card failed}' FROM job_runs WHERE job_id = job),
		'the runs are not as expected';
END
$$;
\echo 'As it should be.'
