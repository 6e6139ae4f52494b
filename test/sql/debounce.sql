--
-- Debounce by key, and what the last call comes to while the job is running
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
TRUNCATE jobs_queue RESTART IDENTITY;
DELETE FROM job_types;
\set w '''11111111-0000-4000-8000-000000000001'''

-- Each call puts the job off, and the last one wins.
SELECT enqueue_job('d', '1', '2030-01-01', unique_key => 'k', unique_mode => 'debounce') AS id;
SELECT enqueue_job('d', '2', '2030-01-02', unique_key => 'k', unique_mode => 'debounce', priority => 3, group_key => 'g') AS id;
SELECT enqueue_job('d', '3', '2030-01-03', unique_key => 'k', unique_mode => 'debounce') AS id;
SELECT id, payload, scheduled_at = '2030-01-03' AS latest, priority, group_key FROM jobs_queue;
-- nor earlier than the call says
SELECT enqueue_job('d', '4', '2029-01-03', unique_key => 'k', unique_mode => 'debounce') AS id;
SELECT id, payload, scheduled_at = '2029-01-03' AS latest FROM jobs_queue;
-- other calls: skip leaves it, keep_schedule takes the payload alone
SELECT enqueue_job('d', '5', unique_key => 'k') AS id;
SELECT enqueue_job('d', '6', unique_key => 'k', unique_mode => 'keep_schedule') AS id;
SELECT id, payload, scheduled_at = '2029-01-03' AS latest FROM jobs_queue;
TRUNCATE jobs_queue RESTART IDENTITY;

-- Not for longer than a period since the first call.
SELECT enqueue_job('d', '1', now() + interval '10 seconds', unique_key => 'k', unique_mode => 'debounce', unique_period => '1 minute') AS id;
SELECT enqueue_job('d', '2', now() + interval '50 seconds', unique_key => 'k', unique_mode => 'debounce', unique_period => '1 minute') AS id;
SELECT payload, scheduled_at < created_at + interval '55 seconds' AS as_asked FROM jobs_queue;
SELECT enqueue_job('d', '3', now() + interval '2 minutes', unique_key => 'k', unique_mode => 'debounce', unique_period => '1 minute') AS id;
SELECT payload, scheduled_at = created_at + interval '1 minute' AS not_later FROM jobs_queue;
-- once that is over, it is due at once
UPDATE jobs_queue SET created_at = now() - interval '5 minutes';
SELECT enqueue_job('d', '4', now() + interval '10 seconds', unique_key => 'k', unique_mode => 'debounce', unique_period => '1 minute') AS id;
SELECT id, payload FROM claim_next_job(:w, 'd');

-- It is running: the call is not lost. The new job has the key, the old one
-- goes on without.
SELECT enqueue_job('d', '5', now() + interval '10 seconds', unique_key => 'k', unique_mode => 'debounce', unique_period => '1 minute') > 1 AS is_new;
SELECT enqueue_job('d', '6', now() + interval '20 seconds', unique_key => 'k', unique_mode => 'debounce', unique_period => '1 minute') > 1 AS is_same;
SELECT status, payload, unique_key FROM jobs_queue ORDER BY id;
SELECT resolve_job(1, :w, true);
SELECT status, payload, unique_key FROM jobs_queue ORDER BY id;
TRUNCATE jobs_queue RESTART IDENTITY;
-- the same with replace and keep_schedule, while skip leaves the key to it
SELECT mode, enqueue_job(mode, '1', unique_key => 'k') FROM unnest('{skip,replace,keep_schedule,debounce}'::text[]) WITH ORDINALITY AS m (mode, n) ORDER BY n;
SELECT count(*) FROM claim_jobs(:w, '{skip,replace,keep_schedule,debounce}', 4);
SELECT mode, enqueue_job(mode, '2', now() + interval '1 day', unique_key => 'k', unique_mode => mode) > 4 AS is_new FROM unnest('{skip,replace,keep_schedule,debounce}'::text[]) WITH ORDINALITY AS m (mode, n) ORDER BY n;
SELECT job_type, status, payload, unique_key, max_attempts FROM jobs_queue ORDER BY job_type, created_at, id;
-- an old one that fails is not tried again: it would come after the new one
SELECT resolve_job(id, :w, false, 'no') FROM jobs_queue WHERE status = 'running' ORDER BY id;
SELECT job_type, status, payload, last_error FROM jobs_queue ORDER BY job_type, id;
TRUNCATE jobs_queue RESTART IDENTITY;
-- nor is one whose worker has died
SELECT enqueue_job('d', '1', unique_key => 'k') AS id;
SELECT id FROM claim_jobs(:w, '{d}', 1, '1 ms');
SELECT enqueue_job('d', '2', unique_key => 'k', unique_mode => 'replace') > 1 AS is_new;
SELECT id, status, payload, unique_key, attempts, max_attempts FROM jobs_queue ORDER BY payload;
TRUNCATE jobs_queue RESTART IDENTITY;

-- A job that enqueues its successor.
SELECT enqueue_sql($$SELECT enqueue_sql('SELECT 2', unique_key => 'chain', unique_mode => 'replace')$$, unique_key => 'chain') AS id \gset
SELECT run_job(:id);
SELECT payload->>'command' AS command, status, unique_key FROM jobs_queue ORDER BY id;
TRUNCATE jobs_queue RESTART IDENTITY;

-- One that waits for another job is not let go.
SELECT enqueue_job('p');
SELECT enqueue_job('d', '1', '2030-01-01', unique_key => 'k', unique_mode => 'debounce', depends_on => '{1}') AS id;
SELECT enqueue_job('d', '2', '2030-01-02', unique_key => 'k', unique_mode => 'debounce', depends_on => '{1}') AS id;
SELECT status, payload, waiting_for FROM jobs_queue WHERE job_type = 'd';
TRUNCATE jobs_queue RESTART IDENTITY;

-- Many at once: the last of each key.
SELECT enqueue_jobs('d', '{1,2,3}', '2030-01-01', unique_keys => '{a,b,a}', unique_mode => 'debounce');
SELECT enqueue_job_batch('[{"job_type": "d", "payload": 4, "unique_key": "b", "unique_mode": "debounce", "scheduled_at": "2030-01-02", "unique_period": "30 days"},
	{"job_type": "d", "payload": 5, "unique_key": "b", "unique_mode": "debounce", "scheduled_at": "2030-01-03"}]');
SELECT id, payload, unique_key, scheduled_at = '2030-01-01' AS first FROM jobs_queue ORDER BY id;
TRUNCATE jobs_queue RESTART IDENTITY;

-- Whose it is.
CREATE ROLE regress_debounce;
SELECT grant_job_role('regress_debounce', 'producer');
SELECT enqueue_job('d', '1', '2030-01-01', unique_key => 'k') AS id;
SELECT enqueue_job('d', '1', unique_key => 'run') AS id;
SELECT id FROM claim_next_job(:w, 'd');
SET ROLE regress_debounce;
\set VERBOSITY sqlstate
SELECT enqueue_job('d', '2', '2030-01-01', unique_key => 'k', unique_mode => 'debounce');
SELECT enqueue_job('d', '2', '2030-01-01', unique_key => 'run', unique_mode => 'debounce');
\set VERBOSITY default
RESET ROLE;
SELECT id, status, payload, unique_key FROM jobs_queue ORDER BY id;
DROP OWNED BY regress_debounce;
DROP ROLE regress_debounce;
TRUNCATE jobs_queue RESTART IDENTITY;

-- Wrong input.
SELECT enqueue_job('d', unique_key => 'k', unique_mode => 'debounce');
SELECT enqueue_job('d', scheduled_at => '2030-01-01', unique_key => 'k', unique_mode => 'debounce', unique_scope => 'kept');
SELECT enqueue_job('d', scheduled_at => '2030-01-01', unique_key => 'k', unique_mode => 'debounce', unique_period => '0');
SELECT enqueue_job('d', scheduled_at => 'infinity', unique_key => 'k', unique_mode => 'debounce');
SELECT enqueue_jobs('d', '{1}', unique_keys => '{k}', unique_mode => 'debounce');
SELECT count(*) FROM jobs_queue;
