-- Wrong input is refused before anything is written: by SQLSTATE and message.
\set SHOW_CONTEXT never
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
SET client_min_messages = warning;
ALTER SEQUENCE jobs_queue_id_seq RESTART;
ALTER SEQUENCE cron_tasks_id_seq RESTART;
CREATE SCHEMA regress_jobqueue;

-- How a statement ends, in one line; w is a worker.
CREATE FUNCTION regress_jobqueue.try(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
	message text;
	detail text;
	hint text;
BEGIN
	EXECUTE replace(statement, '$w', $w$'11111111-1111-1111-1111-111111111111'$w$) INTO result;
	RETURN 'ok: ' || coalesce(result, 'null');
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN sqlstate || ' ' || message || coalesce(E'\n  DETAIL ' || nullif(detail, ''), '')
		|| coalesce(E'\n  HINT ' || nullif(hint, ''), '');
END $$;
CREATE TABLE regress_jobqueue.statements (n integer GENERATED ALWAYS AS IDENTITY, statement text);
CREATE VIEW regress_jobqueue.outcomes AS
	SELECT '> ' || statement || E'\n' || regress_jobqueue.try(statement) AS outcome
	FROM regress_jobqueue.statements ORDER BY n;
\pset format unaligned
\pset tuples_only on

-- claim
INSERT INTO regress_jobqueue.statements (statement) VALUES
('SELECT claim_next_job(NULL)'),
('SELECT claim_next_job(NULL, ''mail'')'),
('SELECT claim_next_job(''not a uuid'')'),
('SELECT claim_next_job(''00000000-0000-0000-0000-000000000000'')'),
('SELECT claim_next_job($w, '''')'),
('SELECT claim_next_job($w, repeat(''x'', 255))'),
('SELECT claim_next_job($w, repeat(''x'', 256))'),
('SELECT claim_next_job($w, repeat(''ä'', 128))'),
('SELECT claim_next_job($w, E''a\nb'')'),
('SELECT claim_next_job($w, E''\x7f'')'),
('SELECT claim_next_job($w, ''unknown'')'),
('SELECT claim_next_job($w, ''sql'')'),
('SELECT claim_next_job()'),
('SELECT claim_jobs(NULL)'),
('SELECT claim_jobs(''00000000-0000-0000-0000-000000000000'')'),
('SELECT claim_jobs($w, ''{}'')'),
('SELECT claim_jobs($w, ''{NULL}'')'),
('SELECT claim_jobs($w, ''{a,""}'')'),
('SELECT claim_jobs($w, ''{{a,b},{c,d}}'')'),
('SELECT claim_jobs($w, ''{a,sql}'')'),
('SELECT claim_jobs($w, ''{a,a}'')'),
('SELECT claim_jobs($w, max_jobs => 0)'),
('SELECT claim_jobs($w, max_jobs => -1)'),
('SELECT claim_jobs($w, max_jobs => 1001)'),
('SELECT claim_jobs($w, lease => ''0'')'),
('SELECT claim_jobs($w, lease => ''-1 second'')'),
('SELECT claim_jobs($w, lease => ''1 month'')'),
('SELECT claim_jobs($w, lease => ''25 hours'')'),
('SELECT claim_jobs($w, lease => ''1 month -30 days'')'),
('SELECT claim_jobs($w, lease => ''178000000 years'')'),
('SELECT claim_jobs($w, lease => ''2147483647 days'')');
SELECT * FROM regress_jobqueue.outcomes;
TRUNCATE regress_jobqueue.statements;

-- resolve and its kin
INSERT INTO regress_jobqueue.statements (statement)
SELECT 'SELECT ' || replace(f, '$job', job) FROM unnest('{
"resolve_job($job, $w, true)","complete_job($job, $w)","fail_job($job, $w)","skip_job($job, $w)","release_job($job, $w)",
"snooze_job($job, $w, ''1 s'')","heartbeat_job($job, $w)","set_job_stage($job, $w, ''s'')",
"resolve_and_claim($job, $w, true)"}'::text[]) WITH ORDINALITY AS f(f, i),
	unnest('{null::bigint,0,-1,42}'::text[]) WITH ORDINALITY AS j(job, k) ORDER BY i, k;
INSERT INTO regress_jobqueue.statements (statement) VALUES
('SELECT complete_job(42)'),
('SELECT complete_job(NULL)'),
('SELECT resolve_job(1, NULL, true)'),
('SELECT resolve_job(1, ''00000000-0000-0000-0000-000000000000'', true)'),
('SELECT resolve_job(1, $w, NULL)'),
('SELECT resolve_job(1, $w, NULL, NULL)'),
('SELECT resolve_job(1, $w, true, claim_no => 0)'),
('SELECT resolve_job(1, $w, true, claim_no => -1)'),
('SELECT resolve_and_claim(1, $w, NULL)'),
('SELECT resolve_and_claim(1, $w, true, NULL, '''')'),
('SELECT resolve_and_claim(1, $w, true, NULL, ''sql'')'),
('SELECT fail_job(1, $w, ''e'', ''infinity'')'),
('SELECT fail_job(1, $w, ''e'', ''-infinity'')'),
('SELECT fail_job(1, $w, ''e'', ''1999-12-31'')'),
('SELECT fail_job(1, $w, ''e'', now() + interval ''11 years'')'),
('SELECT fail_job(1, $w, ''e'', permanent => NULL)'),
('SELECT snooze_job(1, $w, NULL)'),
('SELECT snooze_job(1, $w, ''-1 s'')'),
('SELECT snooze_job(1, $w, ''1 month'')'),
('SELECT snooze_job(1, $w, ''367 days'')'),
('SELECT heartbeat_job(1, $w, ''0'')'),
('SELECT heartbeat_job(1, $w, ''-1 s'')'),
('SELECT heartbeat_job(1, $w, ''1 month'')'),
('SELECT heartbeat_job(1, $w, ''25 hours'')'),
('SELECT set_job_stage(1, $w, NULL)'),
('SELECT set_job_stage(1, $w, repeat(''s'', 256))'),
('SELECT set_job_stage(1, $w, E''\t'')'),
('SELECT resolve_jobs(NULL, ''{1}'', ''{t}'')'),
('SELECT resolve_jobs($w, NULL, ''{t}'')'),
('SELECT resolve_jobs($w, ''{1}'', NULL)'),
('SELECT resolve_jobs($w, ''{}'', ''{}'')'),
('SELECT resolve_jobs($w, ''{1,2}'', ''{t}'')'),
('SELECT resolve_jobs($w, ''{1}'', ''{t,t}'')'),
('SELECT resolve_jobs($w, ''{1}'', ''{}'')'),
('SELECT resolve_jobs($w, ''{1}'', ''{t}'', ''{a,b}'')'),
('SELECT resolve_jobs($w, ''{1}'', ''{t}'', NULL, ''{1,2}'')'),
('SELECT resolve_jobs($w, ''{1}'', ''{t}'', NULL, ''{0}'')'),
('SELECT resolve_jobs($w, ''{1}'', ''{t}'', NULL, ''{-1}'')'),
('SELECT resolve_jobs($w, ''{NULL}'', ''{t}'')'),
('SELECT resolve_jobs($w, ''{1}'', ''{NULL}'')'),
('SELECT resolve_jobs($w, ''{0}'', ''{t}'')'),
('SELECT resolve_jobs($w, ''{{1,2}}'', ''{t,t}'')'),
('SELECT resolve_jobs($w, ''{1,2}'', ''{{t},{t}}'')'),
('SELECT resolve_jobs($w, ''{1,2}'', ''{t,t}'', ''{{a,b}}'')'),
('SELECT register_worker(NULL)'),
('SELECT register_worker(''00000000-0000-0000-0000-000000000000'')'),
('SELECT register_worker($w, '''')'),
('SELECT register_worker($w, repeat(''n'', 256))'),
('SELECT register_worker($w, E''a\rb'')'),
('SELECT register_worker($w, ''n'', jsonb_build_object(''x'', repeat(''x'', 1100000)))');
SELECT * FROM regress_jobqueue.outcomes;
TRUNCATE regress_jobqueue.statements;
SELECT 'left behind: ' || count(*) FROM registered_workers;

-- enqueue
INSERT INTO regress_jobqueue.statements (statement) VALUES
('SELECT enqueue_job(NULL)'),
('SELECT enqueue_job('''')'),
('SELECT enqueue_job(repeat(''x'', 256))'),
('SELECT enqueue_job(E''a\tb'')'),
('SELECT enqueue_job(''mail'', ''not json'')'),
('SELECT enqueue_job(''mail'', ''{"a": "\u0000"}'')'),
('SELECT enqueue_job(''mail'', jsonb_build_object(''x'', repeat(''x'', 1048576)))'),
('SELECT enqueue_job(''mail'', jsonb_build_object(''x'', repeat(''x'', 1048000))) > 0'),
('SELECT enqueue_job(''mail'', (repeat(''['', 101) || repeat('']'', 101))::jsonb)'),
('SELECT enqueue_job(''mail'', (repeat(''{"a":'', 101) || ''1'' || repeat(''}'', 101))::jsonb)'),
('SELECT enqueue_job(''mail'', (repeat(''['', 100) || repeat('']'', 100))::jsonb) > 0'),
('SELECT enqueue_job(''mail'', scheduled_at => ''infinity'')'),
('SELECT enqueue_job(''mail'', scheduled_at => ''-infinity'')'),
('SELECT enqueue_job(''mail'', scheduled_at => ''1999-12-31 23:59:59+00'')'),
('SELECT enqueue_job(''mail'', scheduled_at => ''2000-01-01 00:00+00'') > 0'),
('SELECT enqueue_job(''mail'', scheduled_at => now() + interval ''11 years'')'),
('SELECT enqueue_job(''mail'', scheduled_at => ''294276-01-01'')'),
('SELECT enqueue_job(''mail'', scheduled_at => ''yesterdayish'')'),
('SELECT enqueue_job(''mail'', priority => 32768)'),
('SELECT enqueue_job(''mail'', priority => -32769)'),
('SELECT enqueue_job(''mail'', max_attempts => 0)'),
('SELECT enqueue_job(''mail'', max_attempts => -1)'),
('SELECT enqueue_job(''mail'', max_attempts => 1001)'),
('SELECT enqueue_job(''mail'', unique_key => '''')'),
('SELECT enqueue_job(''mail'', unique_key => repeat(''k'', 513))'),
('SELECT enqueue_job(''mail'', unique_key => E''a\nb'')'),
('SELECT enqueue_job(''mail'', unique_key => ''k'', unique_mode => ''replaces'')'),
('SELECT enqueue_job(''mail'', unique_mode => '''')'),
('SELECT enqueue_job(''mail'', group_key => '''')'),
('SELECT enqueue_job(''mail'', group_key => repeat(''g'', 513))'),
('SELECT enqueue_job(''mail'', group_key => E''\x01'')'),
('SELECT enqueue_job(''mail'', stage => repeat(''s'', 256))'),
('SELECT enqueue_job(''mail'', stage => E''\x1f'')'),
('SELECT enqueue_job(''mail'', depends_on => ''{99}'')'),
('SELECT enqueue_job(''mail'', depends_on => ''{0}'')'),
('SELECT enqueue_job(''mail'', depends_on => ''{NULL}'')'),
('SELECT enqueue_job(''mail'', depends_on => ''{{1},{2}}'')'),
('SELECT enqueue_job(''mail'', depends_on => ''{}'') > 0'),
('SELECT enqueue_job(''mail'', timeout => ''0'')'),
('SELECT enqueue_job(''mail'', timeout => ''-1 s'')'),
('SELECT enqueue_job(''mail'', timeout => ''1 month'')'),
('SELECT enqueue_job(''mail'', timeout => ''25 hours'')'),
('SELECT enqueue_job(''sql'')'),
('SELECT enqueue_job(''sql'', ''[]'')'),
('SELECT enqueue_job(''sql'', ''{"command": null}'')'),
('SELECT enqueue_job(''sql'', ''{"command": ""}'')'),
('SELECT enqueue_job(''sql'', ''{"command": "SELEC 1"}'')'),
('SELECT enqueue_jobs(NULL, ''{}'')'),
('SELECT enqueue_jobs(''mail'', NULL)'),
('SELECT enqueue_jobs(''mail'', ''{}'')'),
('SELECT enqueue_jobs(''mail'', ''{NULL}'')'),
('SELECT enqueue_jobs(''mail'', ''{{"{}","{}"}}'')'),
('SELECT enqueue_jobs(''mail'', ''{"{}"}'', unique_keys => ''{a,b}'')'),
('SELECT enqueue_jobs(''mail'', ''{"{}","{}"}'', unique_keys => ''{{a,b}}'')'),
('SELECT enqueue_jobs(''mail'', ''{"{}"}'', unique_keys => ''{}'')'),
('SELECT enqueue_jobs(''mail'', ''{"{}"}'', unique_keys => ''{""}'')'),
('SELECT enqueue_jobs(''mail'', ''{"{}","[]"}'', priority => 40000)'),
('SELECT enqueue_jobs(''mail'', ''{"{}"}'', scheduled_at => ''infinity'')'),
('SELECT enqueue_jobs('''', ''{"{}"}'')'),
('SELECT enqueue_jobs(''sql'', ''{"{}"}'')'),
('SELECT enqueue_job_batch(NULL)'),
('SELECT enqueue_job_batch(''{}'')'),
('SELECT enqueue_job_batch(''1'')'),
('SELECT enqueue_job_batch(''[]'')'),
('SELECT enqueue_job_batch(''[1]'')'),
('SELECT enqueue_job_batch(''[[]]'')'),
('SELECT enqueue_job_batch(''[null]'')'),
('SELECT enqueue_job_batch(''[{}]'')'),
('SELECT enqueue_job_batch(''[{"job_type": null}]'')'),
('SELECT enqueue_job_batch(''[{"job_type": 1}]'')'),
('SELECT enqueue_job_batch(''[{"job_type": "mail", "pay": {}}]'')'),
('SELECT enqueue_job_batch(''[{"job_type": "mail"}, {"job_type": ""}]'')'),
('SELECT enqueue_job_batch(''[{"job_type": "mail", "priority": "1"}]'')'),
('SELECT enqueue_job_batch(''[{"job_type": "mail", "priority": 1e10}]'')'),
('SELECT enqueue_job_batch(''[{"job_type": "mail", "max_attempts": 0}]'')'),
('SELECT enqueue_job_batch(''[{"job_type": "mail", "scheduled_at": "soon"}]'')'),
('SELECT enqueue_job_batch(''[{"job_type": "mail", "scheduled_at": 5}]'')'),
('SELECT enqueue_job_batch(''[{"job_type": "mail", "scheduled_at": "infinity"}]'')'),
('SELECT enqueue_job_batch(''[{"job_type": "mail", "timeout": "-1s"}]'')'),
('SELECT enqueue_job_batch(''[{"job_type": "mail", "timeout": "for ever"}]'')'),
('SELECT enqueue_job_batch(''[{"job_type": "mail", "depends_on": 1}]'')'),
('SELECT enqueue_job_batch(''[{"job_type": "mail", "depends_on": ["1"]}]'')'),
('SELECT enqueue_job_batch(''[{"job_type": "mail", "depends_on": [[1]]}]'')'),
('SELECT enqueue_job_batch(''[{"job_type": "mail", "depends_on": [1.5e30]}]'')'),
('SELECT enqueue_job_batch(''[{"job_type": "mail", "tags": "a"}]'')'),
('SELECT enqueue_job_batch(''[{"job_type": "mail", "tags": [1]}]'')'),
('SELECT enqueue_job_batch(''[{"job_type": "mail", "tags": [["a"]]}]'')'),
('SELECT enqueue_job_batch(''[{"job_type": "mail", "unique_mode": "x"}]'')'),
('SELECT enqueue_sql(NULL)'),
('SELECT enqueue_sql('''')'),
('SELECT enqueue_sql(''  ; ;; '')'),
('SELECT enqueue_sql(''/* nothing */ -- at all'')'),
('SELECT enqueue_sql(''SELEC 1'')'),
('SELECT enqueue_sql(''SELECT 1; SELECT'' || chr(39))'),
('SELECT enqueue_sql(''PREPARE TRANSACTION ''''x'''''')'),
('SELECT enqueue_sql(''COPY t FROM STDIN'')'),
('SELECT enqueue_sql(''COPY t TO STDOUT'')'),
('SELECT enqueue_sql(''SELECT '' || repeat(''1'', 1048576))'),
('SELECT enqueue_sql(''SELECT 1'', priority => 99999)'),
('SELECT enqueue_sql(''SELECT 1'', timeout => ''0'')'),
('SELECT enqueue_sql(''SELECT 1'', mode => ''fast'')');
SELECT * FROM regress_jobqueue.outcomes;
TRUNCATE regress_jobqueue.statements;

-- the same by plain SQL
SELECT 'jobs that are right: ' || count(*) FROM jobs_queue;
DELETE FROM jobs_queue;
INSERT INTO jobs_queue (id, job_type) VALUES (1001, 'plain');
INSERT INTO regress_jobqueue.statements (statement) VALUES
('INSERT INTO jobs_queue (job_type) VALUES (NULL)'),
('INSERT INTO jobs_queue (job_type) VALUES ('''')'),
('INSERT INTO jobs_queue (job_type, status) VALUES (''x'', ''done'')'),
('INSERT INTO jobs_queue (job_type, status) VALUES (''x'', ''running'')'),
('INSERT INTO jobs_queue (job_type, status) VALUES (''x'', ''blocked'')'),
('INSERT INTO jobs_queue (job_type, scheduled_at) VALUES (''x'', ''infinity'')'),
('INSERT INTO jobs_queue (job_type, scheduled_at) VALUES (''x'', NULL)'),
('INSERT INTO jobs_queue (job_type, max_attempts) VALUES (''x'', 0)'),
('INSERT INTO jobs_queue (job_type, max_attempts) VALUES (''x'', 1001)'),
('INSERT INTO jobs_queue (job_type, attempts, max_attempts) VALUES (''x'', 2, 2)'),
('INSERT INTO jobs_queue (job_type, attempts) VALUES (''x'', -1)'),
('INSERT INTO jobs_queue (job_type, stage) VALUES (''x'', repeat(''s'', 256))'),
('INSERT INTO jobs_queue (job_type, unique_key) VALUES (''x'', '''')'),
('INSERT INTO jobs_queue (job_type, group_key) VALUES (''x'', repeat(''g'', 513))'),
('INSERT INTO jobs_queue (job_type, timeout) VALUES (''x'', ''1 month'')'),
('INSERT INTO jobs_queue (job_type, backoff) VALUES (''x'', ''[]'')'),
('INSERT INTO jobs_queue (job_type, backoff) VALUES (''x'', ''{"delay": "-1 s"}'')'),
('INSERT INTO jobs_queue (job_type, backoff) VALUES (''x'', ''{"delay": "1 month"}'')'),
('INSERT INTO jobs_queue (job_type, backoff) VALUES (''x'', ''{"delay": "a while"}'')'),
('INSERT INTO jobs_queue (job_type, backoff) VALUES (''x'', ''{"delay": 1e300}'')'),
('INSERT INTO jobs_queue (job_type, backoff) VALUES (''x'', ''{"strategy": "quadratic"}'')'),
('INSERT INTO jobs_queue (job_type, backoff) VALUES (''x'', ''{"multiplier": 0}'')'),
('INSERT INTO jobs_queue (job_type, backoff) VALUES (''x'', ''{"multiplier": 1e999}'')'),
('INSERT INTO jobs_queue (job_type, backoff) VALUES (''x'', ''{"jitter": 2}'')'),
('INSERT INTO jobs_queue (job_type, backoff) VALUES (''x'', ''{"dely": 2}'')'),
('INSERT INTO jobs_queue (job_type, payload) VALUES (''sql'', ''{}'')'),
('INSERT INTO jobs_queue (job_type, payload) VALUES (''x'', NULL)'),
('INSERT INTO jobs_queue (id, job_type) VALUES (1001, ''x'')'),
('UPDATE jobs_queue SET id = 1002 WHERE id = 1001'),
('UPDATE jobs_queue SET status = ''running'' WHERE id = 1001'),
('UPDATE jobs_queue SET status = ''blocked'' WHERE id = 1001'),
('UPDATE jobs_queue SET status = ''done'' WHERE id = 1001'),
('UPDATE jobs_queue SET status = NULL WHERE id = 1001'),
('UPDATE jobs_queue SET claim_no = 1 WHERE id = 1001'),
('UPDATE jobs_queue SET attempts = -1 WHERE id = 1001'),
('UPDATE jobs_queue SET attempts = 5 WHERE id = 1001'),
('UPDATE jobs_queue SET max_attempts = 0 WHERE id = 1001'),
('UPDATE jobs_queue SET max_attempts = 1001 WHERE id = 1001'),
('UPDATE jobs_queue SET scheduled_at = ''infinity'' WHERE id = 1001'),
('UPDATE jobs_queue SET scheduled_at = NULL WHERE id = 1001'),
('UPDATE jobs_queue SET job_type = '''' WHERE id = 1001'),
('UPDATE jobs_queue SET stage = E''\n'' WHERE id = 1001'),
('UPDATE jobs_queue SET unique_key = '''' WHERE id = 1001'),
('UPDATE jobs_queue SET group_key = repeat(''g'', 5000) WHERE id = 1001'),
('UPDATE jobs_queue SET timeout = ''-1 s'' WHERE id = 1001'),
('UPDATE jobs_queue SET backoff = ''1'' WHERE id = 1001'),
('UPDATE jobs_queue SET payload = (repeat(''['', 500) || repeat('']'', 500))::jsonb WHERE id = 1001'),
('UPDATE jobs_queue SET payload = jsonb_build_object(''x'', repeat(''x'', 1100000)) WHERE id = 1001'),
('UPDATE jobs_queue SET owner = NULL WHERE id = 1001');
SELECT * FROM regress_jobqueue.outcomes;
TRUNCATE regress_jobqueue.statements;

-- operate
INSERT INTO regress_jobqueue.statements (statement) VALUES
('SELECT requeue_job(NULL)'), ('SELECT requeue_job(0)'), ('SELECT requeue_job(42)'),
('SELECT cancel_job(NULL)'), ('SELECT cancel_job(-1)'), ('SELECT cancel_job(42)'),
('SELECT requeue_jobs(statuses => NULL)'),
('SELECT requeue_jobs(statuses => ''{}'')'),
('SELECT requeue_jobs(statuses => ''{NULL}'')'),
('SELECT requeue_jobs(statuses => ''{queued}'')'),
('SELECT requeue_jobs(statuses => ''{failed,done}'')'),
('SELECT requeue_jobs(max_jobs => -1)'),
('SELECT requeue_jobs(max_jobs => 0)'),
('SELECT requeue_jobs(error_like => ''\'')'),
('SELECT requeue_jobs(job_type => ''unknown'', finished_after => ''infinity'', finished_before => ''-infinity'')');
SELECT * FROM regress_jobqueue.outcomes;
TRUNCATE regress_jobqueue.statements;

-- cron
INSERT INTO regress_jobqueue.statements (statement)
SELECT format('SELECT schedule_cron_task(''t'', %L, ''mail'')', s) FROM unnest(ARRAY[
	'', ' ', '* * * *', '* * * * * * *', '60 * * * *', '* 24 * * *', '* * 0 * *', '* * * 13 *', '* * * * 8', '*/0 * * * *',
	'5-1 * * * *', 'a * * * *', '1- * * * *', ', * * * *', '1,, * * * *', '*/99999999999 * * * *', '* * L-40 * *', '* * W * *',
	'* * * * 2#6', '* * * foo *', '0 0 31 2 *', '0 0 30 2 *', '@never', 'every 0 seconds', 'every -1 minute', 'every 1 month',
	'every', 'every fortnight', '٣ * * * *', '-1 * * * *', '* * * * * ; DROP']) s;
INSERT INTO regress_jobqueue.statements (statement) VALUES
('SELECT schedule_cron_task(NULL, ''* * * * *'', ''mail'')'),
('SELECT schedule_cron_task('''', ''* * * * *'', ''mail'')'),
('SELECT schedule_cron_task(repeat(''n'', 256), ''* * * * *'', ''mail'')'),
('SELECT schedule_cron_task(E''a\nb'', ''* * * * *'', ''mail'')'),
('SELECT schedule_cron_task(''t'', NULL, ''mail'')'),
('SELECT schedule_cron_task(''t'', ''* * * * *'', NULL)'),
('SELECT schedule_cron_task(''t'', ''* * * * *'', '''')'),
('SELECT schedule_cron_task(''t'', ''* * * * *'', ''mail'', timezone => ''Mars/Olympus'')'),
('SELECT schedule_cron_task(''t'', ''* * * * *'', ''mail'', timezone => '''')'),
('SELECT schedule_cron_task(''t'', ''* * * * *'', ''mail'', timezone => ''../../etc/passwd'')'),
('SELECT schedule_cron_task(''t'', ''* * * * *'', ''mail'', timezone => repeat(''z'', 300))'),
('SELECT schedule_cron_task(''t'', ''* * * * *'', ''mail'', priority => 40000)'),
('SELECT schedule_cron_task(''t'', ''* * * * *'', ''mail'', max_attempts => 0)'),
('SELECT schedule_cron_task(''t'', ''* * * * *'', ''mail'', max_attempts => 1001)'),
('SELECT schedule_cron_task(''t'', ''* * * * *'', ''mail'', stage => repeat(''s'', 256))'),
('SELECT schedule_cron_task(''t'', ''* * * * *'', ''mail'', payload => jsonb_build_object(''x'', repeat(''x'', 1100000)))'),
('SELECT schedule_sql(''t'', ''* * * * *'', NULL)'),
('SELECT schedule_sql(''t'', ''* * * * *'', '''')'),
('SELECT schedule_sql(''t'', ''* * * * *'', ''SELEC 1'')'),
('SELECT schedule_sql(''t'', ''* * * *'', ''SELECT 1'')'),
('SELECT schedule_sql(NULL, ''* * * * *'', ''SELECT 1'')'),
('SELECT unschedule_cron_task(NULL)'),
('SELECT unschedule_cron_task(''unknown'')'),
('SELECT cron_is_valid(NULL)'),
('SELECT cron_is_valid('''')'),
('SELECT cron_is_valid(repeat(''* '', 1000000))'),
('SELECT cron_next_runs(NULL)'),
('SELECT cron_next_runs(''* * * * *'', NULL)'),
('SELECT cron_next_runs(''* * * * *'', after => NULL)'),
('SELECT cron_next_runs(''* * * * *'', after => ''infinity'')'),
('SELECT cron_next_runs(''* * * * *'', n => 0)'),
('SELECT cron_next_runs(''* * * * *'', n => NULL)'),
('SELECT cron_next_runs(''* * * * *'', n => 1001)');
SELECT * FROM regress_jobqueue.outcomes;
TRUNCATE regress_jobqueue.statements;
SELECT 'tasks: ' || count(*) FROM cron_tasks;

-- job types
INSERT INTO regress_jobqueue.statements (statement) VALUES
('INSERT INTO job_types (job_type) VALUES ('''')'),
('INSERT INTO job_types (job_type) VALUES (E''a\nb'')'),
('INSERT INTO job_types (job_type) VALUES (repeat(''x'', 256))'),
('INSERT INTO job_types (job_type, runner) VALUES (''t'', ''perl'')'),
('INSERT INTO job_types (job_type, runner) VALUES (''t'', ''sql'')'),
('INSERT INTO job_types (job_type, runner) VALUES (''t'', ''http'')'),
('INSERT INTO job_types (job_type, command) VALUES (''t'', ''SELECT 1'')'),
('INSERT INTO job_types (job_type, runner, command) VALUES (''t'', ''sql'', '''')'),
('INSERT INTO job_types (job_type, runner, command) VALUES (''t'', ''sql'', ''SELEC 1'')'),
('INSERT INTO job_types (job_type, runner, command) VALUES (''t'', ''sql'', ''COMMIT PREPARED ''''x'''''')'),
('INSERT INTO job_types (job_type, runner, command, mode) VALUES (''t'', ''sql'', ''SELECT 1'', ''fast'')'),
('SELECT enqueue_job(''sql'', ''{"command": "SELECT 1", "mode": "fast"}'')'),
('SELECT enqueue_job(''sql'', ''{"command": "SELECT 1", "mode": 1}'')'),
('INSERT INTO job_types (job_type, runner, command) VALUES (''sql'', ''sql'', ''SELECT 1'')'),
('INSERT INTO job_types (job_type) VALUES (''sql'')'),
('INSERT INTO job_types (job_type, max_attempts) VALUES (''t'', 0)'),
('INSERT INTO job_types (job_type, max_attempts) VALUES (''t'', 1001)'),
('INSERT INTO job_types (job_type, batch_size) VALUES (''t'', 0)'),
('INSERT INTO job_types (job_type, batch_size) VALUES (''t'', 1001)'),
('INSERT INTO job_types (job_type, lease) VALUES (''t'', ''0'')'),
('INSERT INTO job_types (job_type, lease) VALUES (''t'', ''1 month'')'),
('INSERT INTO job_types (job_type, timeout) VALUES (''t'', ''25 hours'')'),
('INSERT INTO job_types (job_type, keep_completed) VALUES (''t'', ''-1 day'')'),
('INSERT INTO job_types (job_type, backoff) VALUES (''t'', ''5'')'),
('INSERT INTO job_types (job_type, endpoint) VALUES (''t'', ''nowhere'')'),
('INSERT INTO http_endpoints (name, url, method) VALUES (''e'', ''https://x'', ''BREW'')'),
('INSERT INTO http_endpoints (name, url, max_concurrency) VALUES (''e'', ''https://x'', 0)');
SELECT * FROM regress_jobqueue.outcomes WHERE outcome NOT LIKE '%23514%';
SELECT left(outcome, strpos(outcome, E'\n  DETAIL')) FROM regress_jobqueue.outcomes WHERE outcome LIKE '%23514%';
TRUNCATE regress_jobqueue.statements;
SELECT 'job types: ' || count(*) FROM job_types;

-- read-only transactions
INSERT INTO regress_jobqueue.statements (statement) VALUES
('SELECT claim_next_job($w)'), ('SELECT claim_jobs($w)'), ('SELECT resolve_job(1, $w, true)'),
('SELECT resolve_jobs($w, ''{1}'', ''{t}'')'), ('SELECT resolve_and_claim(1, $w, true)'), ('SELECT complete_job(1)'),
('SELECT fail_job(1, $w)'), ('SELECT release_job(1, $w)'), ('SELECT snooze_job(1, $w, ''1 s'')'),
('SELECT heartbeat_job(1, $w)'), ('SELECT set_job_stage(1, $w, ''s'')'), ('SELECT register_worker($w)'),
('SELECT enqueue_job(''mail'')'), ('SELECT enqueue_jobs(''mail'', ''{"{}"}'')'), ('SELECT enqueue_job_batch(''[{"job_type": "mail"}]'')'),
('SELECT enqueue_sql(''SELECT 1'')'), ('SELECT requeue_job(1)'), ('SELECT requeue_jobs()'), ('SELECT cancel_job(1)'),
('SELECT schedule_cron_task(''t'', ''@hourly'', ''mail'')'), ('SELECT schedule_sql(''t'', ''@hourly'', ''SELECT 1'')'),
('SELECT unschedule_cron_task(''t'')'), ('SELECT enqueue_cron_tasks()'), ('SELECT grant_job_role(current_user::regrole, ''worker'')'),
('SELECT cron_is_valid(''@hourly'')'), ('SELECT count(*) FROM cron_next_runs(''@hourly'')'), ('SELECT count(*) FROM job_stats'),
('SELECT count(*) FROM running_jobs'), ('SELECT count(*) FROM job_workers'), ('SELECT count(*) FROM jobs_queue');
BEGIN READ ONLY;
SELECT * FROM regress_jobqueue.outcomes;
COMMIT;
TRUNCATE regress_jobqueue.statements;

-- After all that the session works as before.
\pset format aligned
\pset tuples_only off
SELECT current_setting('search_path') AS search_path, current_user = session_user AS same_user;
SELECT id > 0 AS claimed FROM claim_next_job('11111111-1111-1111-1111-111111111111', 'plain');
SELECT resolve_job(1001, '11111111-1111-1111-1111-111111111111', true);
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DROP SCHEMA regress_jobqueue CASCADE;
