-- Error rules: what a job type makes of certain failures; skipped and snoozed jobs.
\set SHOW_CONTEXT never
\set w1 '''aaaaaaaa-0000-4000-8000-000000000001'''
\set w2 '''bbbbbbbb-0000-4000-8000-000000000002'''
SET client_min_messages = warning;
SET intervalstyle = 'postgres';
ALTER SEQUENCE jobs_queue_id_seq RESTART;
CREATE SCHEMA regress_rules;
-- How a statement ends.
CREATE FUNCTION regress_rules.outcome(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	EXECUTE statement;
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(' | ', SQLSTATE || ' ' || SQLERRM, nullif(detail, ''), nullif(hint, ''));
END
$$;
-- What becomes of a job after a failure.
CREATE FUNCTION regress_rules.fail(type text, error text, fails integer DEFAULT 1,
	OUT status text, OUT attempts integer, OUT delay interval, OUT run text, OUT charged boolean, OUT last_error boolean)
LANGUAGE plpgsql AS $$
DECLARE
	worker constant uuid := 'aaaaaaaa-0000-4000-8000-000000000001';
	job bigint := public.enqueue_job(type);
BEGIN
	FOR i IN 1 .. fails LOOP
		UPDATE public.jobs_queue SET scheduled_at = now() WHERE id = job;
		PERFORM public.claim_next_job(worker, type);
		PERFORM public.resolve_job(job, worker, false, error);
	END LOOP;
	SELECT j.status, j.attempts, CASE j.status WHEN 'queued' THEN j.scheduled_at - j.updated_at END, r.status, r.charged,
		(j.last_error, r.error) IS NOT DISTINCT FROM (fail.error, fail.error)
	INTO fail.status, fail.attempts, delay, run, fail.charged, last_error
	FROM public.jobs_queue j JOIN public.job_runs r ON r.job_id = j.id AND r.claim_no = j.claim_no
	WHERE j.id = job;
	DELETE FROM public.jobs_queue WHERE id = job;
END
$$;

-- what they do: the first rule that matches decides
INSERT INTO job_types (job_type, max_attempts, backoff, dead_letter, error_rules) VALUES ('ruled', 3, '"10 s"', true, '[
	{"sqlstate": "23505", "then": "skip"},
	{"sqlstate": "23*", "then": "fail"},
	{"sqlstate": ["40001", "40P01", "55*"], "then": "release", "delay": "2 s"},
	{"sqlstate": "57P*", "error_like": "%shut_ing down%", "then": "release"},
	{"http_status": 404, "then": "skip"},
	{"http_status": [410, "3xx"], "then": "fail"},
	{"http_status": "4xx", "then": "retry", "delay": 7},
	{"http_status": 503, "then": "release"},
	{"error_like": "quota \\% of %", "then": "retry", "delay": "1 hour"},
	{"error_like": "gone", "then": "fail"},
	{"error_like": "later%", "then": "retry"}]');
SELECT e AS error, f.* FROM unnest(E'{
	"duplicate key (23505)",
	"violates a foreign key (23503)",
	"deadlock (40P01)",
	"could not serialize (40001)\nDETAIL:  more",
	"lock timeout (55P03)",
	"shutting down (57P01)",
	"cancelled (57P01)",
	"shutting down (57014)",
	"duplicate key (23505) or so",
	"duplicate key 23505",
	"duplicate key (2350a)",
	"23505)",
	"(23505)",
	"HTTP status 404",
	"HTTP status 404: no such page",
	"HTTP status 410",
	"HTTP status 308, a redirect that is not followed",
	"HTTP status 422",
	"HTTP status 503: try later",
	"HTTP status 500",
	"HTTP status 4041",
	"an HTTP status 404",
	"quota % of 7",
	"quota of 7",
	"gone",
	"gone away",
	"later",
	"something else",
	""}'::text[]) WITH ORDINALITY AS u(e, n), regress_rules.fail('ruled', e) f ORDER BY n;
-- without an error text; the last attempt; releases do not count, however many
SELECT * FROM regress_rules.fail('ruled', NULL);
SELECT * FROM regress_rules.fail('ruled', 'HTTP status 422', 3);
SELECT * FROM regress_rules.fail('ruled', 'deadlock (40P01)', 20);
-- the end of the rules: one without conditions
UPDATE job_types SET error_rules = '[{"sqlstate": "40001", "then": "retry"}, {"then": "fail"}]', dead_letter = false;
SELECT e AS error, f.status, run FROM unnest('{x (40001),x (40P01),x}'::text[]) e, regress_rules.fail('ruled', e) f;
UPDATE job_types SET error_rules = '[]';
SELECT f.status, run FROM regress_rules.fail('ruled', 'x (40001)') f;
-- a release waits a moment, whatever the backoff says
UPDATE job_types SET backoff = '"0"', error_rules = '[{"then": "release"}]';
SELECT delay FROM regress_rules.fail('ruled', 'x');

-- fail_job: what the worker says comes first; cancellation before all
UPDATE job_types SET backoff = '"10 s"', error_rules = '[{"sqlstate": "40001", "then": "release"}, {"http_status": 404, "then": "retry"},
	{"sqlstate": "23*", "then": "fail"}, {"sqlstate": "22012", "then": "skip"}]';
DELETE FROM job_runs;
SELECT count(*) FROM enqueue_jobs('ruled', array_fill('1'::jsonb, '{8}'));
SELECT min(id) AS first FROM jobs_queue \gset
SELECT count(*) FROM claim_jobs(:w1, '{ruled}', 8);
SELECT cancel_job(:first + 5), cancel_job(:first + 6), cancel_job(:first + 7);
SELECT fail_job(:first, :w1, 'permanent (40001)', permanent => true), fail_job(:first + 1, :w1, 'HTTP status 404', permanent => true),
	fail_job(:first + 2, :w1, 'then (40001)', '2030-01-01'), fail_job(:first + 3, :w1, 'never (23505)', '2030-01-01'),
	fail_job(:first + 4, :w1, 'earlier (40001)', '2020-01-01'),
	fail_job(:first + 5, :w1, 'cancelled (40001)'), fail_job(:first + 6, :w1, 'cancelled (22012)'), skip_job(:first + 7, :w1, 'too late');
SELECT job_id - :first AS n, r.status AS run, charged, j.status, attempts,
	CASE WHEN j.status = 'queued' THEN CASE WHEN scheduled_at > '2029-12-01' THEN 'retry_at' ELSE (scheduled_at - j.updated_at)::text END END AS waits
FROM job_runs r JOIN jobs_queue j ON j.id = job_id ORDER BY 1;
DELETE FROM jobs_queue;
DELETE FROM job_runs;

-- resolve_jobs: skipped jobs release those that wait for them, as completed ones
SELECT count(*) FROM enqueue_jobs('ruled', '{1,2,3}');
SELECT array_agg(id ORDER BY id) AS ids FROM jobs_queue \gset
SELECT enqueue_job('child', depends_on => :'ids'::bigint[]) AS child \gset
SELECT status, waiting_for FROM jobs_queue WHERE id = :child;
SELECT count(*) FROM claim_jobs(:w1, '{ruled}', 3);
SELECT resolve_jobs(:w1, :'ids'::bigint[], '{f,t,f}', '{division (22012),NULL,division (22012)}');
SELECT status, waiting_for FROM jobs_queue WHERE id = :child;
SELECT j.status, j.result IS NULL AS no_result, last_error, r.status AS run, charged, error FROM jobs_queue j JOIN job_runs r ON r.job_id = j.id ORDER BY j.id;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
-- where completed jobs are not kept, skipped ones are not either
UPDATE job_types SET keep_completed = '0';
SELECT enqueue_job('ruled') AS id \gset
SELECT enqueue_job('ruled') AS id2 \gset
SELECT count(*) FROM claim_jobs(:w1, '{ruled}', 2);
SELECT resolve_job(:id, :w1, false, 'x (22012)'), skip_job(:id2, :w1);
SELECT count(*) FROM jobs_queue;
SELECT status, charged, error FROM job_runs ORDER BY job_id;
DELETE FROM job_runs;
DELETE FROM job_types;

-- what is no rule
CREATE TABLE regress_rules.refused (id serial, rules text);
INSERT INTO regress_rules.refused (rules) VALUES
	('1'), ('null'), ('{}'), ('"x"'), ('[1]'), ('[[]]'), ('[{}]'), ('[{"then": "fail"}, {"then": "explode"}]'), ('[{"then": 1}]'),
	('[{"sqlstate": "23505"}]'), ('[{"sqlstate": 23505, "then": "fail"}]'), ('[{"sqlstate": "2350", "then": "fail"}]'),
	('[{"sqlstate": "23505*", "then": "fail"}]'), ('[{"sqlstate": "*", "then": "fail"}]'), ('[{"sqlstate": "2*", "then": "fail"}]'),
	('[{"sqlstate": "4000a", "then": "fail"}]'), ('[{"sqlstate": [], "then": "fail"}]'), ('[{"sqlstate": ["40001", null], "then": "fail"}]'),
	('[{"sqlstate": {"a": 1}, "then": "fail"}]'), ('[{"sqlstate": [["40001"]], "then": "fail"}]'),
	('[{"http_status": "404", "then": "fail"}]'), ('[{"http_status": 99, "then": "fail"}]'), ('[{"http_status": 600, "then": "fail"}]'),
	('[{"http_status": 404.5, "then": "fail"}]'), ('[{"http_status": 1e300, "then": "fail"}]'), ('[{"http_status": "6xx", "then": "fail"}]'),
	('[{"http_status": "4XX", "then": "fail"}]'), ('[{"http_status": [404, "x"], "then": "fail"}]'),
	('[{"error_like": 1, "then": "fail"}]'), ('[{"error_like": "a\\", "then": "fail"}]'), ('[{"error_like": "a\\\\", "then": "fail"}]'),
	('[{"then": "retry", "delay": "soon"}]'), ('[{"then": "retry", "delay": "1 month"}]'), ('[{"then": "retry", "delay": -1}]'),
	('[{"then": "retry", "delay": null}]'), ('[{"then": "release", "delay": "99 ms"}]'), ('[{"then": "release", "delay": "100 ms"}]'),
	('[{"then": "fail", "delay": "1 s"}]'), ('[{"then": "skip", "delay": "1 s"}]'), ('[{"then": "retry", "delay": 0}]'),
	('[{"then": "retry", "throttle": 0}]'), ('[{"then": "retry", "throttle": true}]'), ('[{"then": "retry", "sql_state": "23505"}]');
SELECT rules, regress_rules.outcome(format('INSERT INTO job_types (job_type, error_rules) VALUES (%L, %L)', 'rules ' || id, rules)) AS outcome
FROM regress_rules.refused ORDER BY id;
SELECT n, regress_rules.outcome(format('INSERT INTO job_types (job_type, error_rules) VALUES (''many'', %L)', jsonb_build_array() || to_jsonb(array_fill('{"then": "fail"}'::jsonb, ARRAY[n]))))
FROM unnest('{100,101}'::int[]) n;
SELECT regress_rules.outcome(format('INSERT INTO job_types (job_type, error_rules) VALUES (''long'', %L)', jsonb_build_array(jsonb_build_object('error_like', repeat('x', 1001), 'then', 'fail'))));
DELETE FROM job_types;

-- skip_job
SELECT count(enqueue_job('ocr')) FROM generate_series(1, 4);
SELECT min(id) AS first FROM jobs_queue \gset
SELECT count(*) FROM claim_jobs(:w1, '{ocr}', 3);
SELECT skip_job(:first, :w2) AS not_mine, skip_job(:first, :w1, claim_no => 2) AS stale, skip_job(:first + 3, :w1) AS queued, skip_job(4711, :w1) AS unknown;
SELECT skip_job(:first, :w1, 'no API key'), skip_job(:first + 1, :w1), skip_job(job_id => :first + 2, worker_id => :w1, reason => repeat('x', 9000), claim_no => 1);
SELECT skip_job(:first, :w1) AS again;
SELECT status, attempts, result, left(last_error, 20) AS last_error, finished_at IS NOT NULL AS ended, locked_by FROM jobs_queue ORDER BY id;
SELECT r.status, charged, left(error, 20) AS error, length(error), result FROM job_runs r ORDER BY job_id;
SELECT skip_job(NULL, :w1);
SELECT skip_job(1, NULL);
SELECT skip_job(1, :w1, claim_no => 0);
-- with a table that is not plain
CREATE FUNCTION regress_rules.look() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER look AFTER INSERT ON job_runs FOR EACH ROW EXECUTE FUNCTION regress_rules.look();
SELECT id AS last, skip_job(id, :w1, 'slowly') FROM claim_next_job(:w1, 'ocr') \gset
SELECT j.status, r.status AS run, error FROM jobs_queue j JOIN job_runs r ON r.job_id = id WHERE id = :last;
DROP TRIGGER look ON job_runs;
-- a requeued one starts over
SELECT requeue_job(:first);
SELECT status, attempts, last_error FROM jobs_queue WHERE id = :first;
DELETE FROM jobs_queue;
DELETE FROM job_runs;

-- skip_current_job: what the body did is done
CREATE TABLE regress_rules.effects (what text);
SELECT enqueue_sql($$INSERT INTO regress_rules.effects VALUES ('kept'); SELECT skip_current_job('nothing to send'); SELECT 1 AS one$$) AS id \gset
SELECT enqueue_job('child', depends_on => ARRAY[:id]) AS child \gset
SELECT run_job(:id);
SELECT status, result, last_error FROM jobs_queue WHERE id IN (:id, :child) ORDER BY id;
SELECT status, charged, error, result, command_tag FROM job_runs;
SELECT * FROM regress_rules.effects;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
-- twice: the last reason counts; with an error: it fails; in a job within a job: that one
SELECT enqueue_sql($$SELECT skip_current_job('once'); SELECT skip_current_job()$$) AS id \gset
SELECT run_job(:id);
SELECT enqueue_sql($$SELECT skip_current_job('in vain'); SELECT 1/0$$) AS id \gset
SELECT run_job(:id);
SELECT enqueue_sql($$SELECT skip_current_job('inner')$$) AS inner_id \gset
SELECT enqueue_sql(format('SELECT run_job(%s) AS done', :inner_id)) AS id \gset
SELECT run_job(:id);
SELECT j.status, r.status AS run, error, r.result FROM jobs_queue j JOIN job_runs r ON r.job_id = id ORDER BY id;
SELECT enqueue_sql($$SELECT skip_current_job('drained')$$) AS id \gset
SELECT * FROM drain_jobs();
SELECT skip_current_job();
DELETE FROM jobs_queue;
DELETE FROM job_runs;

-- rules for SQL jobs: the SQLSTATE is that of the error
INSERT INTO job_types (job_type, runner, command, backoff, error_rules) VALUES ('sql rules', 'sql', 'SELECT 1 / ($1->>''n'')::int', '"3 s"', '[
	{"sqlstate": "22012", "error_like": "division%(22012)", "then": "release"}, {"sqlstate": "22P02", "then": "fail"}, {"sqlstate": "22003", "then": "skip"}]');
SELECT count(*) FROM enqueue_jobs('sql rules', '{"{\"n\": 0}", "{\"n\": \"x\"}", "{\"n\": 99999999999}", "{\"n\": 1}"}');
SELECT count(run_job(id)) FROM jobs_queue;
SELECT payload->>'n' AS n, j.status, attempts, CASE j.status WHEN 'queued' THEN scheduled_at - j.updated_at END AS delay, r.status AS run, charged, error
FROM jobs_queue j JOIN job_runs r ON r.job_id = id ORDER BY id;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM job_types;

-- snooze_job: never charged, however often
INSERT INTO job_types (job_type, max_attempts) VALUES ('snoozed', 1);
SELECT enqueue_job('snoozed') AS id \gset
DO $$
DECLARE
	worker constant uuid := 'aaaaaaaa-0000-4000-8000-000000000001';
BEGIN
	FOR i IN 1 .. 20 LOOP
		ASSERT snooze_job((claim_next_job(worker, 'snoozed')).id, worker, '0');
	END LOOP;
END
$$;
SELECT status, attempts, claim_no, last_error FROM jobs_queue WHERE id = :id;
SELECT status, charged, attempt, count(*) FROM job_runs WHERE job_id = :id GROUP BY 1, 2, 3;
SELECT id = :id AS claimed, attempts, claim_no FROM claim_next_job(:w1, 'snoozed');
SELECT snooze_job(:id, :w1, '366 days', 21);
SELECT scheduled_at - updated_at BETWEEN '365 days 23:59' AND '366 days' AS late, job_state(j) FROM jobs_queue j WHERE id = :id;
SELECT count(*) FROM claim_next_job(:w1, 'snoozed');
UPDATE jobs_queue SET scheduled_at = now() WHERE id = :id;
SELECT count(*) FROM claim_next_job(:w1, 'snoozed');
SELECT cancel_job(:id), snooze_job(:id, :w1, '1 hour');
SELECT status, attempts FROM jobs_queue WHERE id = :id;

-- a rule that throttles the whole type, as after a 429; and by hand
INSERT INTO job_types (job_type, error_rules) VALUES
	('busy', '[{"error_like": "%429%", "then": "release", "delay": "1 second", "throttle": "1 hour"}]');
SELECT count(*) FROM enqueue_jobs('busy', '{1,2,3}');
SELECT count(*) FROM claim_jobs(:w1, '{busy}', 1);
SELECT resolve_job(id, :w1, false, 'HTTP 429') FROM jobs_queue WHERE job_type = 'busy' AND status = 'running';
SELECT throttled_until - now() BETWEEN '59 minutes' AND '1 hour' AS throttled FROM job_type_status WHERE job_type = 'busy';
SELECT count(*) FROM claim_jobs(:w1, '{busy}', 3);
SELECT throttle_job_type('busy', '1 minute') AS shorter, throttle_job_type('busy', '2 hours') AS longer,
	throttle_job_type('busy', '0') AS ended, throttle_job_type('busy', '0') AS again;
SELECT count(*) FROM claim_jobs(:w1, '{busy}', 3);
SELECT throttle_job_type('undeclared', '1 hour');
SELECT runner FROM job_types WHERE job_type = 'undeclared';
SELECT regress_rules.outcome(s) FROM unnest(ARRAY[
	$$SELECT throttle_job_type(NULL, '1 s')$$, $$SELECT throttle_job_type('x', NULL)$$,
	$$SELECT throttle_job_type('', '1 s')$$, $$SELECT throttle_job_type('x', '-1 s')$$,
	$$SELECT throttle_job_type('x', '400 days')$$]) s;
DELETE FROM jobs_queue;
DELETE FROM job_runs;
DELETE FROM job_types;
DROP SCHEMA regress_rules CASCADE;
