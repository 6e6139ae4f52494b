-- Metrics as text, for Prometheus and OpenMetrics, and as JSON. That their own
-- programs accept it all is in test/t/148_prometheus.pl.
\set SHOW_CONTEXT never
SELECT current_database() AS main \gset
CREATE DATABASE jobqueue_metrics_text TEMPLATE template0 ENCODING 'UTF8';
\c jobqueue_metrics_text
\encoding UTF8
SET client_min_messages = warning;
CREATE EXTENSION jobqueue;
SET TIMEZONE = 'UTC';

-- Labels, numbers and histograms.
SELECT label, _metric_label(label) FROM unnest(ARRAY['plain', 'a "quoted" one', E'back\\slash', E'two\nlines', E'\\n', 'Grüße, {x="y"}', '']) AS label;
SELECT number, _metric_number(number), _metric_round(number)
FROM unnest('{0,1,-1,0.1,12.3456,1205.678,0.00012345,1e20,1e-7,NaN,Infinity,-Infinity}'::double precision[]) AS number;
SELECT _histogram_lines('h_seconds', 'a="b"', '{1,0,2,4}', '{0.001,1,2.5}', 12);
SELECT _histogram_lines('h_seconds', '', '{0,0}', '{1}', 0.1);
SELECT fraction, _histogram_quantile('{1,0,2,4}', '{1,2,4}', fraction), _histogram_quantile('{10,10,0}', '{1,2}', fraction)
FROM unnest('{0,0.1,0.25,0.5,0.75,1}'::double precision[]) AS fraction;
SELECT _histogram_quantile('{0,0}', '{1}', 0.5), _histogram_sum('{{1,2,3},{10,20,30}}'), _histogram_sum('{{1}}');
SELECT _histogram_lines('h', '', '{1,2}', '{1,2}', 0);
SELECT _histogram_lines('h', '', '{1,NULL}', '{1}', 0);
SELECT _histogram_quantile('{}', '{}', 0.5);
SELECT _histogram_quantile('{1,2}', '{1}', 1.5);
SELECT _histogram_sum('{1,2}');
SELECT _histogram_sum('{{9223372036854775807},{1}}');

-- Nothing has happened yet.
SELECT regexp_replace(line, '[0-9.]+"|(?<= )[-0-9.e+]+$', 'N', 'g') AS line
FROM regexp_split_to_table(job_metrics_prometheus(), '\n') WITH ORDINALITY AS l(line, n)
WHERE line !~ '^# HELP' AND line !~ 'table_|claim_|check=' ORDER BY n;
SELECT job_metrics() - 'jobqueue' AS users, job_metrics()->'jobqueue'->'totals' AS totals, job_metrics()->'jobqueue'->'job_types' AS types;

-- Something has, to job types of any name.
INSERT INTO job_types (job_type, max_attempts, backoff, breaker_threshold, max_concurrency, rate_max, rate_window, enabled) VALUES
	('mail', 2, '"0s"', 2, 10, 100, '1 minute', true), ('a "b"\c{é}', NULL, NULL, NULL, NULL, NULL, NULL, false);
SELECT count(enqueue_job(t.job_type, stage => t.stage))
FROM (VALUES ('mail', ''), ('mail', 'send'), ('mail', 'send'), ('a "b"\c{é}', '"\'), ('later', '')) AS t(job_type, stage);
SELECT enqueue_job('later', scheduled_at => now() + interval '1 day') > 0 AS ok;
SELECT complete_job(id, locked_by) FROM claim_jobs('cccccccc-0000-4000-8000-000000000001', '{mail}', 1);
SELECT fail_job(id, locked_by, 'no', permanent => true) FROM claim_jobs('cccccccc-0000-4000-8000-000000000001', '{mail}', 2);
SELECT schedule_cron_task(E'every "hour"', '@hourly', 'mail') > 0 AS ok;
INSERT INTO http_endpoints (name, url) VALUES ('api', 'https://example.com/');
SELECT register_worker('cccccccc-0000-4000-8000-000000000001', 'one');
CREATE VIEW lines AS
	SELECT n, line FROM regexp_split_to_table(job_metrics_prometheus(), '\n') WITH ORDINALITY AS l(line, n);
SELECT line FROM lines WHERE line ~ '^jobqueue_(jobs|circuit|concurrency|rate|job_type)' ORDER BY n;
SELECT line FROM lines WHERE line ~ '_(bucket\{.*\+Inf.*|count\{.*)' ORDER BY n;
SELECT regexp_replace(line, '(?<= )[-0-9.e+]+$', 'N') AS line FROM lines
WHERE line ~ '^jobqueue_(oldest|cron|workers|endpoint_(enabled|conc|results|resp)|job_run_seconds_sum)' ORDER BY n;

-- Each family stands together, with one HELP and one TYPE.
SELECT split_part(line, ' ', 3) AS family, split_part(line, ' ', 4) AS type FROM lines WHERE line ~ '^# TYPE' ORDER BY n;
SELECT count(*) FILTER (WHERE line ~ '^# HELP') = count(*) FILTER (WHERE line ~ '^# TYPE') AS fits, count(*) - count(DISTINCT line) AS twice FROM lines WHERE line ~ '^#';

-- OpenMetrics has the same samples, and says more of them.
SELECT line FROM regexp_split_to_table(job_metrics_prometheus(openmetrics => true), '\n') WITH ORDINALITY AS l(line, n)
WHERE line ~ '^# (TYPE|UNIT) jobqueue_(build|jobs_enqueued|job_wait|table_size)|EOF' ORDER BY n;
SELECT o.line FROM regexp_split_to_table(job_metrics_prometheus(true), '\n') AS o(line)
WHERE o.line !~ '^#' AND o.line <> '' AND o.line !~ 'seconds|claims' AND NOT EXISTS (SELECT FROM lines l WHERE l.line = o.line);

-- Series are bounded: the rest is one.
SELECT limits AS max_series, line
FROM unnest('{4,3,1}'::integer[]) AS limits, regexp_split_to_table(job_metrics_prometheus(false, limits), '\n') WITH ORDINALITY AS l(line, n)
WHERE line ~ '^jobqueue_(jobs_enqueued_total|jobs\{.*"(ready|failed)"|job_wait_seconds_count)' ORDER BY limits DESC, n;

-- Metrics of users: by their names, or what can be made of them.
SELECT job_metric_add(name) FROM unnest('{worker_cycles,cin7-calls,cin7.calls,ok,ok!,1st,jobqueue_jobs,webhook_sum,Größe}'::text[]) AS name;
SELECT job_metric_add('webhooks_received', 24), job_metric_add('webhooks_received', 0.5, '{"shop": "a"}'), job_metric_add('webhooks_received', 1, '{"shop": "b"}');
SELECT job_metric_add('labelled', 1, '{"a-b": 1, "a_b": true, "1": "q\"u\\o\nte", "le": "x", "__name__": "x", "é": "ü"}');
SELECT job_metric_add('same', 1, '{"n": 1}'), job_metric_add('same', 2, '{"n": "1"}');
SELECT job_metric_observe('cin7_avg_ms', v) FROM unnest('{400,400,405}'::double precision[]) AS v;
SELECT job_metric_observe('stripe_avg_ms', 28.7, '{"card": "a"}'), job_metric_observe('stripe_avg_ms', 28.6, '{"card": "b"}');
SELECT job_metric_observe('webhook', 1), job_metric_observe('worker_cycles', 2);
SELECT line FROM lines WHERE n > (SELECT max(n) FROM lines WHERE line ~ '^jobqueue_') ORDER BY n;
SELECT line FROM regexp_split_to_table(job_metrics_prometheus(true), '\n') AS line WHERE line ~ '^# TYPE (worker|cin7_avg)';

-- JSON: users' counters are numbers, their timers objects, by name.
SELECT key, value FROM jsonb_each(job_metrics()) WHERE key <> 'jobqueue' ORDER BY key COLLATE "C";
SELECT jsonb_pretty(j #- '{wait_ms}' #- '{run_ms}' #- '{latency_ms}') FROM (SELECT job_metrics()#>'{jobqueue,job_types,mail}' AS j) j;
SELECT key, jsonb_typeof(value) FROM jsonb_each(job_metrics()->'jobqueue') ORDER BY key;
SELECT key, value->'count' AS count, value->'p50' <= value->'p95' AS ordered, ARRAY(SELECT jsonb_object_keys(value) ORDER BY 1) AS keys
FROM jsonb_each(job_metrics()#>'{jobqueue,job_types,mail}') WHERE key LIKE '%\_ms' ORDER BY 1;
SELECT _metric_latency(1205000, '{0,42}', '{1}') - '{p50,p95,p99}'::text[] AS latency;

-- For observers, in a transaction that writes nothing; not for everybody.
CREATE ROLE metrics_observer;
CREATE ROLE metrics_nobody;
SELECT grant_job_role('metrics_observer', 'observer');
SET ROLE metrics_observer;
BEGIN READ ONLY;
SET LOCAL search_path = pg_catalog;
SELECT length(public.job_metrics_prometheus()) > 1000 AS ok, length(public.job_metrics_prometheus(true)) > 1000 AS open, public.job_metrics() ? 'jobqueue' AS json;
COMMIT;
SET ROLE metrics_nobody;
SELECT job_metrics();
SELECT job_metrics_prometheus();
RESET ROLE;
DROP OWNED BY metrics_observer;
DROP ROLE metrics_observer, metrics_nobody;

-- In another schema, found by nobody's search_path, under another name.
DROP VIEW lines;
DROP EXTENSION jobqueue CASCADE;
CREATE SCHEMA elsewhere;
CREATE EXTENSION jobqueue SCHEMA elsewhere;
ALTER SCHEMA elsewhere RENAME TO "Else where";
SELECT length("Else where".job_metrics_prometheus()) > 1000 AS ok, "Else where".job_metrics() ? 'jobqueue' AS json;
\c :main
DROP DATABASE jobqueue_metrics_text WITH (FORCE);
