-- The jobs_queue contract of a web application: OCR, licence renewals,
-- moderation. Workers are Edge Functions that poll; see examples/README.md.
\set QUIET on
\pset footer off
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS jobqueue;

-- ---------------------------------------------------------------------------
-- Roles (C16): the application enqueues, workers work, nobody else does anything
-- ---------------------------------------------------------------------------

SELECT to_regrole('guide_app') IS NULL AS app_is_new, to_regrole('guide_worker') IS NULL AS worker_is_new \gset
\if :app_is_new
	CREATE ROLE guide_app;
\endif
\if :worker_is_new
	CREATE ROLE guide_worker;
\endif
SELECT grant_job_role('guide_app', 'producer'), grant_job_role('guide_worker', 'worker') \g /dev/null

-- ---------------------------------------------------------------------------
-- Jobs from server actions and seeds (C1, C2): job types need no DDL (C19), every
-- column but job_type has a default, and a job commits with what it is about
-- ---------------------------------------------------------------------------

-- What a job type is for, and how it is retried (C8, C9). Without a row, or
-- where a column is null: five attempts, five minutes between them.
INSERT INTO job_types (job_type, max_attempts, description) VALUES
	('ocr', 3, 'Reads the text of an uploaded document'),
	('moderation', NULL, 'Looks for comments that must not stay')
ON CONFLICT DO NOTHING;

SET ROLE guide_app;
BEGIN;
INSERT INTO jobs_queue (job_type, payload) VALUES ('ocr', '{"document": 17}') RETURNING id AS ocr_id \gset
SELECT enqueue_job('moderation', '{"comment": 5}', max_attempts => 2) AS moderation_id \gset
COMMIT;
RESET ROLE;

-- ---------------------------------------------------------------------------
-- A worker (C3 to C7): an id of its own, claim, work, resolve. The names of the
-- arguments are part of the contract, so PostgREST can call by name (C18)
-- ---------------------------------------------------------------------------

SET ROLE guide_worker;
SELECT gen_random_uuid() AS worker \gset

\echo 'A job that succeeds:'
SELECT id, job_type, payload, attempts, claim_no FROM claim_next_job(worker_id => :'worker', job_type => 'ocr');
SELECT resolve_job(job_id => :ocr_id, worker_id => :'worker', success => true, error => NULL);

\echo 'Nothing left to do is no row:'
SELECT id FROM claim_next_job(:'worker', 'ocr');

\echo 'A job that fails is queued again, five minutes from now:'
SELECT claim_no FROM claim_next_job(:'worker', 'moderation') \gset
SELECT resolve_job(:moderation_id, :'worker', false, 'model is not available', :claim_no);
\echo 'Saying it twice changes nothing:'
SELECT resolve_job(:moderation_id, :'worker', true, NULL, :claim_no);
RESET ROLE;
SELECT status, job_state(q), attempts, max_attempts, round(extract(epoch FROM scheduled_at - updated_at)) AS retry_in_s, last_error
FROM jobs_queue q WHERE id = :moderation_id;

\echo 'The second failure is the last, for max_attempts is 2:'
UPDATE jobs_queue SET scheduled_at = now() WHERE id = :moderation_id;
SELECT claim_no FROM claim_next_job(:'worker', 'moderation') \gset
SELECT resolve_job(:moderation_id, :'worker', false, 'model is not available', :claim_no);

-- ---------------------------------------------------------------------------
-- Cron (C10 to C12). With the library preloaded the server enqueues what is due by
-- itself; an outside scheduler may call as well, and nothing is enqueued twice
-- ---------------------------------------------------------------------------

SELECT schedule_cron_task('license-renewal', '0 6 * * *', 'license-renewal', '{"days_ahead": 30}',
	timezone => 'Europe/Berlin') \g /dev/null

\echo 'Due now, enqueued once:'
BEGIN;
UPDATE cron_tasks SET next_run_at = now() WHERE name = 'license-renewal';
SELECT enqueue_cron_tasks() AS first_call, enqueue_cron_tasks() AS second_call;
COMMIT;
SELECT name, last_enqueued_at IS NOT NULL AS was_enqueued, last_job_status FROM cron_overview;

-- ---------------------------------------------------------------------------
-- Alerts and audit (C13 to C15): statements for whatever sends your alerts
-- ---------------------------------------------------------------------------

\echo 'Failed jobs (add "AND finished_at < now() - interval ''10 minutes''" for the periodic check):'
SELECT id, job_type, last_error FROM jobs_queue WHERE status = 'failed';

\echo 'One row for each attempt:'
SELECT job_id, attempt, status, charged, error FROM job_runs WHERE job_id IN (:ocr_id, :moderation_id) ORDER BY job_id, claim_no;

SELECT set_config('example.ids', array[:ocr_id, :moderation_id]::text, false) \g /dev/null
DO $$
DECLARE
	ids bigint[] := current_setting('example.ids');
BEGIN
	ASSERT (SELECT status = 'completed' FROM jobs_queue WHERE id = ids[1]), 'the first job did not complete';
	ASSERT (SELECT status = 'failed' AND attempts = 2 FROM jobs_queue WHERE id = ids[2]), 'the second job did not fail';
	ASSERT (SELECT count(*) = 3 FROM job_runs WHERE job_id = ANY (ids)), 'runs are missing';
	ASSERT (SELECT count(*) = 1 FROM cron_tasks t JOIN jobs_queue q ON q.id = t.last_job_id
			WHERE t.name = 'license-renewal' AND q.cron_instant = q.scheduled_at), 'the cron task was not enqueued';
END
$$;
\echo 'As it should be.'
