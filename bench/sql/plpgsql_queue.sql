-- A queue in PL/pgSQL as applications carry it in their migrations: one table, a
-- partial index of what is ready, SKIP LOCKED, an UPDATE at the end, a row of
-- history. It has what such a queue needs and nothing that would slow it down:
-- no trigger, no foreign key, no second index.
DROP TABLE IF EXISTS jobs_queue, job_runs CASCADE;

CREATE TABLE jobs_queue (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	job_type text NOT NULL,
	status text NOT NULL DEFAULT 'queued'
		CHECK (status IN ('queued', 'running', 'completed', 'failed')),
	priority integer NOT NULL DEFAULT 0,
	scheduled_at timestamptz NOT NULL DEFAULT now(),
	payload jsonb NOT NULL DEFAULT '{}',
	attempts integer NOT NULL DEFAULT 0,
	max_attempts integer NOT NULL DEFAULT 5,
	last_error text,
	correlation_id text,
	locked_by uuid,
	locked_at timestamptz,
	created_at timestamptz NOT NULL DEFAULT now(),
	updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX jobs_queue_ready ON jobs_queue (job_type, priority, scheduled_at)
	WHERE status = 'queued';

CREATE TABLE job_runs (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	job_id bigint NOT NULL,
	attempt integer NOT NULL,
	worker_id uuid,
	success boolean NOT NULL,
	error text,
	started_at timestamptz,
	finished_at timestamptz NOT NULL DEFAULT now()
);

CREATE OR REPLACE FUNCTION claim_next_job(worker_id uuid, job_type text) RETURNS SETOF jobs_queue
	LANGUAGE plpgsql
AS $$
BEGIN
	RETURN QUERY
		UPDATE jobs_queue AS q
		SET status = 'running',
			attempts = q.attempts + 1,
			locked_by = claim_next_job.worker_id,
			locked_at = now(),
			updated_at = now()
		WHERE q.id = (
			SELECT j.id
			FROM jobs_queue AS j
			WHERE j.status = 'queued'
				AND j.job_type = claim_next_job.job_type
				AND j.scheduled_at <= now()
			ORDER BY j.priority, j.scheduled_at
			LIMIT 1
			FOR UPDATE SKIP LOCKED
		)
		RETURNING q.*;
END
$$;

CREATE OR REPLACE FUNCTION resolve_job(job_id bigint, worker_id uuid, success boolean, error text DEFAULT NULL)
	RETURNS boolean
	LANGUAGE plpgsql
AS $$
DECLARE
	job jobs_queue;
BEGIN
	UPDATE jobs_queue AS q
	SET status = CASE
			WHEN resolve_job.success THEN 'completed'
			WHEN q.attempts < q.max_attempts THEN 'queued'
			ELSE 'failed'
		END,
		scheduled_at = CASE
			WHEN resolve_job.success THEN q.scheduled_at
			ELSE now() + interval '1 minute'
		END,
		last_error = resolve_job.error,
		locked_by = NULL,
		updated_at = now()
	WHERE q.id = resolve_job.job_id
		AND q.status = 'running'
		AND q.locked_by = resolve_job.worker_id
	RETURNING q.* INTO job;
	IF NOT FOUND THEN
		RETURN false;
	END IF;

	INSERT INTO job_runs (job_id, attempt, worker_id, success, error, started_at)
	VALUES (job.id, job.attempts, resolve_job.worker_id, resolve_job.success,
		resolve_job.error, job.locked_at);
	RETURN true;
END
$$;
