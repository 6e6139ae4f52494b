-- Payloads and unique keys of cron tasks that name their run.
\set SHOW_CONTEXT never
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
ALTER SEQUENCE cron_tasks_id_seq RESTART 41;
ALTER SEQUENCE jobs_queue_id_seq RESTART;

-- All placeholders, in zones with odd offsets; the local date is another one.
INSERT INTO cron_tasks (name, schedule, timezone, job_type, next_run_at, ends_at, payload)
SELECT 'in ' || zone, '0 0 1 1 *', zone, 'x', '2024-03-31 23:45:07+00', '2024-03-31 23:45:07+00',
	'{"instant": "{{cron.instant}}", "local": "{{cron.local}}", "date": "{{cron.date}}", "time": "{{cron.time}}",
	"epoch": "{{cron.epoch}}", "task": "{{cron.task}}", "id": "{{cron.task_id}}"}'
FROM unnest('{UTC,Europe/Berlin,America/St_Johns,Asia/Kathmandu,Pacific/Kiritimati,Pacific/Marquesas}'::text[]) zone;
SELECT enqueue_cron_tasks();
SELECT q.payload->>'task' AS task, q.payload->>'id' AS id, q.payload->>'instant' AS instant, q.payload->>'local' AS local, q.payload->>'date' AS date,
	q.payload->>'time' AS time, q.payload->>'epoch' AS epoch FROM jobs_queue q ORDER BY id;
SELECT count(*) AS exact FROM jobs_queue
WHERE (payload->>'instant')::timestamptz = cron_instant AND (payload->>'local')::timestamptz = cron_instant
	AND to_timestamp((payload->>'epoch')::bigint) = cron_instant AND (payload->>'id')::bigint = cron_task_id;
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- Wherever strings are; keys, numbers and the braces of others stay.
SELECT schedule_cron_task('say "{{cron.epoch}}" \', '0 0 1 1 *', 'x', '{"list": ["{{cron.date}}", 1, null, true, {"deep": [["{{cron.time}}{{cron.time}}"]]}],
	"{{cron.date}}": "key", "task": "<{{cron.task}}>", "foreign": "{{name}} {{ cron.date }} {cron.date} }} {{", "empty": "", "o": {}, "a": [],
	"unicode": "ä{{cron.date}}€"}') > 0 AS ok;
UPDATE cron_tasks SET next_run_at = '2024-05-01 06:00+00', ends_at = '2024-05-01 06:00+00';
SELECT enqueue_cron_tasks();
SELECT jsonb_pretty(payload) FROM jobs_queue;
SELECT payload->'list'->>0 AS as_written FROM cron_tasks;
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- What cannot be filled in is refused when it is written.
SELECT schedule_cron_task('wrong', '@daily', 'x', '{"a": "{{cron.week}}"}');
SELECT schedule_cron_task('wrong', '@daily', 'x', '{"a": [{"b": "x {{cron.date}} {{cron.}}"}]}');
SELECT schedule_cron_task('wrong', '@daily', 'x', '{"a": "{{cron.date}"}');
SELECT schedule_cron_task('wrong', '@daily', 'x', '{"a": "{{cron.Date}}"}');
SELECT schedule_cron_task('wrong', '@daily', 'x', jsonb_build_object('a', '{{cron.' || repeat('ä', 50)));
SELECT schedule_cron_task('wrong', '@daily', 'x', '{"a": "{{cron.{{cron.date}}}}"}');
SELECT schedule_cron_task('wrong', '@daily', 'x', unique_key => '{{cron.month}}');
SELECT schedule_cron_task('wrong', '@daily', 'x', unique_key => '');
SELECT schedule_cron_task('wrong', '@daily', 'x', unique_key => repeat('k', 513));
INSERT INTO cron_tasks (name, schedule, job_type, payload) VALUES ('wrong', '@daily', 'x', '["{{cron.now}}"]');
SELECT schedule_cron_task('right', '@daily', 'x') > 0 AS ok;
UPDATE cron_tasks SET payload = '{"a": "{{cron.now}}"}';
UPDATE cron_tasks SET unique_key = '{{cron.now}}';
SELECT payload, unique_key FROM cron_tasks;
DELETE FROM cron_tasks;

-- Also of SQL jobs, though not in the command itself.
SELECT schedule_sql('sql', '0 0 1 1 *', 'SELECT $1->>''day''', '{"day": "{{cron.date}}"}') > 0 AS ok;
UPDATE cron_tasks SET next_run_at = '2024-05-01 06:00+00', ends_at = '2024-05-01 06:00+00';
SELECT enqueue_cron_tasks();
SELECT payload FROM jobs_queue;
SELECT run_job(id), (SELECT result FROM jobs_queue) IS NULL AS before FROM jobs_queue;
SELECT status, result FROM jobs_queue;
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- Instants by hand and starts of the server are told in whole seconds.
SELECT schedule_cron_task('hand', '@reboot', 'x', '{"at": "{{cron.instant}}", "s": "{{cron.epoch}}"}', unique_key => '{{cron.epoch}}') > 0 AS ok;
SELECT run_cron_task('hand', '2024-05-01 06:00:00.999999+00') > 0 AS ok;
SELECT payload, unique_key, cron_instant FROM jobs_queue;
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- A large payload; one that grows too large is its task's own trouble.
SELECT count(schedule_cron_task(name, '0 0 1 1 *', 'x', jsonb_build_object('a', payload))) FROM (VALUES
	('large', repeat('x', 900000) || '{{cron.date}}'), ('many', repeat('{{cron.time}} ', 60000)), ('good', '{{cron.date}}'),
	('grows to the limit and far beyond it by its own name, which is long enough for that', repeat('{{cron.task}}', 70000))) v(name, payload);
UPDATE cron_tasks SET next_run_at = '2024-05-01 06:00+00', ends_at = '2024-05-01 06:00+00';
SELECT enqueue_cron_tasks();
SELECT left(t.name, 20) AS name, t.enabled, t.run_count, t.disabled_reason, length(q.payload->>'a'), right(q.payload->>'a', 20)
FROM cron_tasks t LEFT JOIN jobs_queue q ON q.cron_task_id = t.id ORDER BY t.id;
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- A unique key: while a job of that key is alive, a run is skipped.
INSERT INTO cron_tasks (name, schedule, job_type, next_run_at, ends_at, catch_up, unique_key) VALUES
	('by day', '0 */6 * * *', 'x', '2024-05-01 00:00+00', '2024-05-02 12:00+00', 'all', 'day {{cron.date}}'),
	('constant', '0 */6 * * *', 'y', '2024-05-01 00:00+00', '2024-05-01 12:00+00', 'all', 'one'),
	('other type', '0 */6 * * *', 'z', '2024-05-01 00:00+00', '2024-05-01 12:00+00', 'all', 'one'),
	('taken', '0 */6 * * *', 'z', '2024-05-01 12:00+00', '2024-05-01 12:00+00', 'all', 'one'),
	('none', '0 */6 * * *', 'z', '2024-05-01 12:00+00', '2024-05-01 12:00+00', 'all', NULL);
SELECT enqueue_job('y', unique_key => 'one') > 0 AS ok;
SELECT enqueue_cron_tasks();
SELECT t.name, r.instant, r.skip_reason, q.unique_key FROM cron_runs r JOIN cron_tasks t ON t.id = r.task_id LEFT JOIN jobs_queue q ON q.id = r.job_id
ORDER BY t.id, r.instant;
SELECT name, run_count, skipped_count, missed_count, last_instant, decided_until FROM cron_tasks ORDER BY id;
SELECT cancel_job(q.id) FROM jobs_queue q WHERE unique_key = 'one' AND job_type = 'y';
UPDATE cron_tasks SET enabled = true, next_run_at = '2024-05-01 18:00+00' WHERE name = 'constant';
SELECT enqueue_cron_tasks();
SELECT run_count, skipped_count FROM cron_tasks WHERE name = 'constant';
-- By hand, too; and by hand once more, it makes up for one that was skipped.
SELECT run_cron_task('constant', '2024-05-03') IS NULL AS skipped, run_cron_task('constant', '2024-05-01 06:00+00') IS NULL AS again;
SELECT instant, kind, job_id, skip_reason FROM cron_runs WHERE kind = 'manual' ORDER BY instant;
SELECT cancel_job(q.id) FROM jobs_queue q WHERE unique_key = 'one' AND job_type = 'y' AND status = 'queued';
SELECT run_cron_task('constant', '2024-05-01 06:00+00') > 0 AS made_up;
SELECT r.instant, r.kind, r.skip_reason, q.status, q.cron_instant = r.instant AS same FROM cron_runs r JOIN cron_tasks t ON t.id = r.task_id
LEFT JOIN jobs_queue q ON q.id = r.job_id WHERE t.name = 'constant' ORDER BY r.instant;
SELECT run_cron_task('constant', '2024-05-01 06:00+00');
SELECT run_count, skipped_count FROM cron_tasks WHERE name = 'constant';
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- With overlap replace, a queued job gives its key to the next one; a running one
-- keeps it until it has ended.
SELECT schedule_cron_task('replaces', '0 0 1 1 *', 'x', overlap => 'replace', unique_key => 'one') > 0 AS ok;
UPDATE cron_tasks SET next_run_at = clock_timestamp();
SELECT enqueue_cron_tasks();
UPDATE cron_tasks SET next_run_at = clock_timestamp();
SELECT enqueue_cron_tasks();
SELECT status FROM jobs_queue ORDER BY id;
SELECT count(*) FROM claim_next_job('aaaaaaaa-0000-4000-8000-000000000001');
UPDATE cron_tasks SET next_run_at = clock_timestamp();
SELECT enqueue_cron_tasks();
SELECT status, cancel_requested_at IS NOT NULL AS cancelling FROM jobs_queue ORDER BY id;
SELECT skip_reason FROM cron_runs ORDER BY instant DESC LIMIT 1;
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- A trigger of the user that drops jobs is not taken for a unique key.
CREATE FUNCTION drop_job() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER dropping BEFORE INSERT ON jobs_queue FOR EACH ROW WHEN (NEW.job_type = 'dropped') EXECUTE FUNCTION drop_job();
INSERT INTO cron_tasks (name, schedule, job_type, next_run_at) VALUES
	('dropped', '0 0 1 1 *', 'dropped', now()), ('kept', '0 0 1 1 *', 'kept', now());
SELECT enqueue_cron_tasks();
SELECT t.name, t.enabled, t.run_count, t.skipped_count, r.job_id IS NOT NULL AS job, r.skip_reason FROM cron_runs r JOIN cron_tasks t ON t.id = r.task_id ORDER BY t.id;
DROP FUNCTION drop_job CASCADE;
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;

-- Many runs of a large payload take several statements, and no more memory.
INSERT INTO cron_tasks (name, schedule, job_type, payload, catch_up, catch_up_limit, next_run_at, ends_at) VALUES
	('large', '*/5 * * * *', 'x', jsonb_build_object('at', '{{cron.instant}}', 'a', repeat('x', 100000)), 'all', 500,
		'2024-05-01 00:00+00', '2024-05-01 23:59+00');
SELECT enqueue_cron_tasks();
SELECT t.run_count, count(DISTINCT q.cron_instant) AS instants, count(DISTINCT r.job_id) AS runs, bool_and((q.payload->>'at')::timestamptz = q.cron_instant) AS filled,
	bool_and(length(q.payload->>'a') = 100000) AS whole, bool_and(r.instant = q.cron_instant) AS same
FROM cron_tasks t JOIN jobs_queue q ON q.cron_task_id = t.id JOIN cron_runs r ON r.job_id = q.id GROUP BY 1;
DELETE FROM jobs_queue;
DELETE FROM cron_tasks;
