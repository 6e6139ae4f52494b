--
-- Schedules in words; and the words, read again, against when they fire.
--
SET TIMEZONE = 'UTC';
SET DATESTYLE = 'ISO, YMD';

SELECT schedule, cron_describe(schedule) AS words FROM unnest(ARRAY[
	-- times of day: all of them, evenly spaced ones, a few, and others
	'* * * * *', '*/1 * * * *', '*/2 * * * *', '*/5 * * * *', '*/15 * * * *', '*/20 * * * *', '0,20,40 * * * *', '*/30 * * * *',
	'*/60 * * * *', '0 * * * *', '30 * * * *', '5,35 * * * *', '10,20,30,40 * * * *', '10,20,30,40,50 * * * *', '1-59/2 * * * *',
	'5/15 * * * *', '*/7 * * * *', '*/25 * * * *', '10-50/2 * * * *', '3/3 * * * *', '0-29 * * * *', '0-5,10,20-21,58-59 * * * *',
	'0 0 * * *', '30 2 * * *', '59 23 * * *', '0 9,17 * * *', '0,30 9 * * *', '0 9-12 * * *', '0 9-13 * * *', '0 9-17 * * *',
	'30 9-17 * * *', '0 9-17/2 * * *', '0 */2 * * *', '0 */4 * * *', '0 */6 * * *', '30 */4 * * *', '0 1/2 * * *', '0 */5 * * *',
	'0 1,3-5,9 * * *', '5,20 9-17 * * *', '5,20 1,7 * * *', '5,20 1,7,19 * * *', '0 0-22 * * *', '0 1-23 * * *',
	'* 9 * * *', '* 9-17 * * *', '* 9-11,14-16 * * *', '* 9,11,13,15 * * *', '* */2 * * *', '*/15 9 * * *', '*/15 9-17 * * *',
	'7/15 9-17 * * *', '*/15 9-11,14-15 * * *', '*/15 22-23,0-1 * * *', '*/15 1,3,5 * * *', '*/15 */2 * * *', '*/25 9-17 * * *',
	'0-29 9-17 * * *', '*/7 2-3 * * *', '*/7 2 * * *', '1,2,4,8,16 * * * *',
	-- seconds
	'* * * * * *', '*/2 * * * * *', '*/10 * * * * *', '5/10 * * * * *', '0 * * * * *', '30 * * * * *', '15,45 * * * * *', '7,9 * * * * *',
	'0 */5 * * * *', '30 */5 * * * *', '30 5 * * * *', '30 2 1 * * *', '30 30 2 * * *', '*/30 30 2 * * *', '*/10 30 2 * * *',
	'* 30 2 * * *', '* 30 * * * *', '* * 2 * * *', '*/10 * 9-17 * * *', '*/10 * 9-11,13 * * *', '0,10,25 * 9-17 * * *',
	'5,20 */10 9-17 * * *', '*/7 */7 */7 * * *', '* 0-29 * * * *', '1-5 1-5 1-5 * * *',
	-- days of the month
	'0 0 1 * *', '0 0 1,15 * *', '0 0 1-7 * *', '0 0 */2 * *', '0 0 */10 * *', '0 0 2/2 * *', '0 0 1-31 * *', '0 0 ? * *', '0 0 31 * *',
	'0 0 1-30 * *', '0 0 L * *', '0 0 LW * *', '0 0 15W * *', '0 0 1W,15W * *', '0 0 15,L * *', '0 0 1,5-9,15W,16W,L,LW * *', '0 0 *,L,15W * *',
	-- weekdays
	'0 0 * * 1', '0 0 * * 0', '0 0 * * 7', '0 0 * * mon-fri', '0 0 * * 6,7', '0 0 * * sat,sun', '0 0 * * 5-7', '0 0 * * 1,3,5', '0 0 * * 1/2',
	'0 0 * * */2', '0 0 * * 0,1,2,6', '0 0 * * 0-6', '0 0 * * 1-7', '0 0 * * 1-6', '0 0 * * ?', '0 0 * * 5L', '0 0 * * sunL', '0 0 * * mon#2', '0 0 * * 0#5',
	'0 0 * * mon#1,tue#1,fri#3', '0 0 * * 1-3,fri#2,sunL', '0 0 * * mon-wed,friL', '0 0 * * *,friL',
	-- both days and weekdays: either, or with a star both
	'0 0 13 * 5', '0 0 1,15 * mon-fri', '0 0 L * friL', '0 0 15W,LW * mon#1,sunL', '0 0 1-31 * 5', '0 0 13,* * 5', '0 0 13 * 0-6', '0 0 13 * 1,*',
	'0 0 1-7 * */7', '0 0 */2 * 1', '0 0 */2 * 1,3', '0 0 */2 * 1-5,6#1', '0 0 */10 * */2', '0 0 *,13 * 5', '0 0 13 * *,1', '0 0 ? * 5', '0 0 13 * ?',
	'0 0 ? * ?', '0 0 L,LW * */2', '0 0 */3 * friL,sun#1,mon',
	-- months
	'0 0 1 1 *', '0 0 * 2 *', '0 0 * 1-6 *', '0 0 * 1,2 *', '0 0 * 1,7 *', '0 0 * jan-mar,oct,dec *', '0 0 * */2 *', '0 0 29 2 *', '0 0 31 2 1', '*/5 * * 12 *',
	'* * * * 5', '*/15 9-17 * 6-8 mon-fri', '0 12 1-7 */3 */7', '30 5 2 1 1 *', '0 0 * 1-12 *',
	-- macros and intervals
	'@yearly', '@annually', '@monthly', '@weekly', '@daily', '@midnight', '@hourly', '@reboot', E'\t@HOURLY ',
	'every second', 'every 1 seconds', 'every 30 seconds', 'every 90 seconds', 'every minute', 'every 5 minutes', 'every 90 minutes', 'every hour', 'every 24 hours',
	'every 25 hours', 'every day', 'every 2 days', 'every 366 days', '@every 1h30m', '@every 1d2h3m4s', '@every 1m1s', '@every 3600s'
]) WITH ORDINALITY AS s(schedule, n) ORDER BY n;

-- what is none, and no schedule at all
SELECT cron_describe(NULL) IS NULL AS strict;
SELECT cron_describe('0 24 * * *');
\echo :SQLSTATE
SELECT cron_describe('');
\echo :SQLSTATE
SELECT cron_describe('0 0 30 2 *');
\echo :SQLSTATE
SELECT cron_describe(repeat('*', 300));
\echo :SQLSTATE
SELECT provolatile, proisstrict, proparallel FROM pg_proc WHERE proname = 'cron_describe';

--
-- Read the words again: which times and which days do they name?
--

-- "1 to 3, 7 and 9"
CREATE FUNCTION pg_temp.numbers(list text) RETURNS integer[] LANGUAGE sql AS $$
	SELECT array_agg(DISTINCT n ORDER BY n)
	FROM regexp_matches(list, '(\d+)(?: to (\d+))?', 'g') AS m,
		 generate_series(m[1]::integer, coalesce(m[2], m[1])::integer) AS n
$$;

-- "every minute", "minutes 5 and 7", "every 2nd minute from 10 to 50"; null: not said
CREATE FUNCTION pg_temp.unit(words text, unit text, last integer) RETURNS integer[] LANGUAGE sql AS $$
	SELECT CASE
		WHEN words ~ ('every ' || unit || '$') THEN ARRAY(SELECT generate_series(0, last))
		WHEN words ~ 'every \d+.. ' THEN
			(SELECT ARRAY(SELECT generate_series(m[2]::integer, m[3]::integer, m[1]::integer))
			 FROM regexp_matches(words, 'every (\d+).. \w+ from (\d+) to (\d+)') AS m)
		ELSE pg_temp.numbers(words)
		END
	WHERE words ~ ('\m' || unit || 's?\M')
$$;

-- Seconds since midnight that the words of times name.
CREATE FUNCTION pg_temp.times_said(words text) RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
	step integer;
	part text;
	units text[];
	seconds integer[] := '{0}';
	minutes integer[];
	hours integer[];
BEGIN
	IF words ~ '^at \d\d:' THEN
		RETURN (SELECT array_agg(extract(epoch FROM m[1]::time)::integer ORDER BY m[1])
			FROM regexp_matches(words, '(\d\d:\d\d(?::\d\d)?)', 'g') AS m);
	ELSIF words ~ ' of ' OR words ~ ' every minute$' THEN
		FOREACH part IN ARRAY regexp_split_to_array(words, ' of ')
		LOOP
			seconds := coalesce(pg_temp.unit(part, 'second', 59), seconds);
			minutes := coalesce(pg_temp.unit(part, 'minute', 59), minutes);
			hours := coalesce(pg_temp.unit(part, 'hour', 23), hours);
		END LOOP;
		RETURN ARRAY(SELECT h * 3600 + m * 60 + s
			FROM unnest(seconds) AS s, unnest(minutes) AS m,
				unnest(coalesce(hours, ARRAY(SELECT generate_series(0, 23)))) AS h
			ORDER BY 1);
	END IF;
	step := extract(epoch FROM regexp_replace(substring(words from '^every ([^:]*?)(?= from |$)'), '^(?=[a-z])', '1 ')::interval);
	RETURN ARRAY(SELECT t
		FROM (SELECT extract(epoch FROM m[1]::time)::integer, extract(epoch FROM m[2]::time)::integer
				FROM regexp_matches(words, 'from ([0-9:]+) to ([0-9:]+)', 'g') AS m
			UNION ALL
			SELECT 0, 86399 WHERE words !~ ' from ') AS p(first, last),
			generate_series(first, last, step) AS t
		-- both ends are named, so both are meant
		WHERE words !~ ' from ' OR (last - first) % step = 0
		ORDER BY 1);
END
$$;

-- Seconds since midnight at which it does fire.
CREATE FUNCTION pg_temp.times_fired(schedule text) RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
	fired integer[] := '{}';
	after timestamptz := '2026-01-04 23:59:59.5';
	runs timestamptz[];
BEGIN
	LOOP
		runs := ARRAY(SELECT r FROM cron_next_runs(schedule, 'UTC', after, 1000) AS r WHERE r < '2026-01-06' ORDER BY 1);
		fired := fired || ARRAY(SELECT extract(epoch FROM r - '2026-01-05')::integer FROM unnest(runs) AS r ORDER BY 1);
		EXIT WHEN cardinality(runs) < 1000;
		after := runs[1000];
	END LOOP;
	RETURN fired;
END
$$;

-- A calendar of 32 months, with what can be said of a day.
CREATE TEMP TABLE calendar AS
	SELECT date::date, extract(day FROM date)::integer AS day, extract(month FROM date)::integer AS month,
		extract(isodow FROM date)::integer AS weekday,
		ceil(extract(day FROM date) / 7.0)::integer AS nth,
		extract(month FROM date) <> extract(month FROM date + interval '7 days') AS is_last,
		extract(month FROM date) <> extract(month FROM date + interval '1 day') AS is_last_day
	FROM generate_series('2026-01-01'::timestamp, '2028-08-31', '1 day') AS date;
-- The working day nearest to each day, in its month; of two, there is none.
CREATE TEMP TABLE nearest AS
	SELECT c.date AS target, c.day AS target_day, n.date
	FROM calendar c, LATERAL (
		SELECT w.date FROM calendar w
		WHERE w.month = c.month AND w.date BETWEEN c.date - 3 AND c.date + 3 AND w.weekday <= 5
		ORDER BY abs(w.date - c.date) LIMIT 1) AS n;

-- "day 1, the weekday nearest to day 15 and the last day of the month", dates
CREATE FUNCTION pg_temp.month_days_said(words text) RETURNS SETOF date LANGUAGE plpgsql AS $$
DECLARE
	near text := substring(words FROM 'nearest to days? ((?:\d+(?: to \d+)?(?:, | and )?)+)');
	near_days integer[] := coalesce(pg_temp.numbers(near), '{}');
	days integer[] := '{}';
	rest text := regexp_replace(words, 'the weekdays? nearest to days? (?:\d+(?: to \d+)?(?:, | and )?)+', '');
BEGIN
	IF rest ~ 'every \d+.. day' THEN
		days := (SELECT ARRAY(SELECT generate_series(m[2]::integer, m[3]::integer, m[1]::integer))
			 FROM regexp_matches(rest, 'every (\d+).. day from (\d+) to (\d+)') AS m);
	ELSIF rest ~ '\mdays? \d' THEN
		days := pg_temp.numbers(rest);
	END IF;
	RETURN QUERY SELECT c.date FROM calendar c
		WHERE c.day = ANY (days) OR (words ~ 'the last day' AND c.is_last_day)
			OR c.date IN (SELECT n.date FROM nearest n WHERE n.target_day = ANY (near_days))
			OR (words ~ 'the last weekday' AND c.date IN (
				SELECT max(w.date) FROM calendar w WHERE w.weekday <= 5 GROUP BY date_trunc('month', w.date)));
END
$$;

-- "Monday to Wednesday, the second Friday and the last Sunday of the month"
CREATE FUNCTION pg_temp.weekdays_said(words text) RETURNS SETOF date LANGUAGE plpgsql AS $$
DECLARE
	plain integer[];
BEGIN
	FOR n IN 1..7
	LOOP
		words := replace(words, ('{Monday,Tuesday,Wednesday,Thursday,Friday,Saturday,Sunday}'::text[])[n], n::text);
	END LOOP;
	plain := coalesce(pg_temp.numbers(regexp_replace(words, 'the \w+ \d', '', 'g')), '{}');
	RETURN QUERY SELECT c.date FROM calendar c
		WHERE c.weekday = ANY (plain)
			OR words ~ ('the ' || ('{first,second,third,fourth,fifth}'::text[])[c.nth] || ' ' || c.weekday)
			OR (c.is_last AND words ~ ('the last ' || c.weekday));
END
$$;

-- Days that the words after "at 00:00, " name.
CREATE FUNCTION pg_temp.days_said(words text) RETURNS date[] LANGUAGE plpgsql AS $$
DECLARE
	month_list text := substring(words FROM ', (?:in|from) (.*)$');
	months integer[];
	parts text[];
	days date[] := ARRAY(SELECT date FROM calendar);
BEGIN
	words := regexp_replace(words, ', (in|from) .*$', '');
	IF words <> 'every day' THEN
		parts := regexp_split_to_array(words, ' but only if that is | or on ');
		IF cardinality(parts) = 2 AND words ~ ' but only if that is ' THEN
			days := ARRAY(SELECT pg_temp.month_days_said(parts[1]) INTERSECT SELECT pg_temp.weekdays_said(parts[2]));
		ELSIF cardinality(parts) = 2 THEN
			days := ARRAY(SELECT pg_temp.month_days_said(parts[1]) UNION SELECT pg_temp.weekdays_said(parts[2]));
		ELSIF words ~ 'day' AND words !~ '(Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day' THEN
			days := ARRAY(SELECT pg_temp.month_days_said(words));
		ELSE
			days := ARRAY(SELECT pg_temp.weekdays_said(words));
		END IF;
	END IF;
	IF month_list IS NOT NULL THEN
		FOR n IN 1..12
		LOOP
			month_list := replace(month_list, to_char(make_date(2026, n, 1), 'FMMonth'), n::text);
		END LOOP;
		months := pg_temp.numbers(month_list);
	END IF;
	RETURN ARRAY(SELECT d FROM unnest(days) AS d
		WHERE months IS NULL OR extract(month FROM d) = ANY (months) ORDER BY 1);
END
$$;

CREATE FUNCTION pg_temp.days_fired(schedule text) RETURNS date[] LANGUAGE sql AS $$
	SELECT ARRAY(SELECT r::date FROM cron_next_runs(schedule, 'UTC', '2025-12-31 12:00', 1000) AS r WHERE r < '2028-09-01' ORDER BY 1)
$$;

-- Fields made from a seed, the same everywhere.
CREATE FUNCTION pg_temp.pick(seed text, n integer) RETURNS integer LANGUAGE sql AS $$
	SELECT ('x' || left(md5(seed), 7))::bit(28)::integer % n
$$;
CREATE FUNCTION pg_temp.item(seed text, low integer, high integer) RETURNS text LANGUAGE sql AS $$
	SELECT CASE pg_temp.pick(seed || 'kind', 8)
		WHEN 0 THEN '*'
		WHEN 1 THEN '*/' || step
		WHEN 2 THEN '*/' || ('{2,3,4,5,6,10,12,15,20,30}'::integer[])[1 + pg_temp.pick(seed || 'even', 10)]
		WHEN 3 THEN least(a, b) || '-' || greatest(a, b)
		WHEN 4 THEN least(a, b) || '-' || greatest(a, b) || '/' || step
		WHEN 5 THEN a || '/' || step
		ELSE a::text
		END
	FROM (SELECT low + pg_temp.pick(seed || 'a', high - low + 1), low + pg_temp.pick(seed || 'b', high - low + 1),
		1 + pg_temp.pick(seed || 'step', (high - low + 1) / 2)) AS v(a, b, step)
$$;
CREATE FUNCTION pg_temp.field(seed text, low integer, high integer, odd text[]) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(CASE WHEN odd <> '{}' AND pg_temp.pick(seed || i || 'is odd', 3) = 0
		THEN odd[1 + pg_temp.pick(seed || i || 'odd', cardinality(odd))]
		ELSE pg_temp.item(seed || i, low, high) END, ',' ORDER BY i)
	FROM generate_series(1, ('{1,1,1,1,2,3,4}'::integer[])[1 + pg_temp.pick(seed || 'n', 7)]) AS i
$$;

-- Times: a thousand made up, each of which says what is so.
CREATE TEMP TABLE times AS
	SELECT i, CASE WHEN i % 8 = 0 THEN pg_temp.field('s' || i, 0, 59, '{}') || ' ' ELSE '' END
		|| pg_temp.field('m' || i, 0, 59, '{}') || ' ' || pg_temp.field('h' || i, 0, 23, '{}') AS fields
	FROM generate_series(1, 1000) AS i;
SELECT fields, words
FROM (SELECT fields, regexp_replace(cron_describe(fields || ' * * *'), ', every day$', '') AS words
	FROM times WHERE cron_is_valid(fields || ' * * *')) AS t
WHERE pg_temp.times_said(words) IS DISTINCT FROM pg_temp.times_fired(fields || ' * * *')
ORDER BY 1;
-- all forms were among them
SELECT form COLLATE "C" AS form
FROM (SELECT regexp_replace(regexp_replace(regexp_replace(cron_describe(fields || ' * * *'),
		'[0-9:]+(st|nd|rd|th)?', 'N', 'g'), 'N((,| and| to) N)+', 'Ns', 'g'), '(hour|minute|second)s?', 'unit', 'g') AS form
	FROM times WHERE cron_is_valid(fields || ' * * *')) AS f
GROUP BY form HAVING count(*) > 1 ORDER BY 1;

-- Days, likewise.
CREATE TEMP TABLE days AS
	SELECT i, pg_temp.field('d' || i, 1, 31, '{L,LW,1W,15W,16W,28W,30W,31W}') || ' ' || pg_temp.field('o' || i, 1, 12, '{}') || ' '
		|| pg_temp.field('w' || i, 0, 7, '{1#1,5#3,0#5,6#2,3#4,5L,0L,2L}') AS fields
	FROM generate_series(1, 1000) AS i;
SELECT fields, words
FROM (SELECT fields, regexp_replace(cron_describe('0 0 ' || fields), '^at 00:00, ', '') AS words
	FROM days WHERE cron_is_valid('0 0 ' || fields)) AS d
WHERE pg_temp.days_said(words) IS DISTINCT FROM pg_temp.days_fired('0 0 ' || fields)
ORDER BY 1;
SELECT count(*) > 700 AS enough, count(*) FILTER (WHERE words ~ 'but only if') > 100 AS both,
	count(*) FILTER (WHERE words ~ 'or on') > 200 AS either, count(*) FILTER (WHERE words ~ ', (in|from) [A-Z]') > 200 AS months,
	count(DISTINCT words) > 600 AS various
FROM (SELECT cron_describe('0 0 ' || fields) AS words FROM days WHERE cron_is_valid('0 0 ' || fields)) AS d;

-- Together they say what they say alone.
SELECT t.fields, d.fields
FROM times t JOIN days d USING (i)
WHERE cron_is_valid(t.fields || ' ' || d.fields)
	AND regexp_replace(cron_describe(t.fields || ' ' || d.fields), ', every day', '')
		<> regexp_replace(cron_describe(t.fields || ' * * *') || regexp_replace(cron_describe('0 0 ' || d.fields), '^at 00:00', ''), ', every day', '', 'g');

-- Intervals: PostgreSQL reads the same length from the words.
SELECT count(*) AS differ
FROM generate_series(1, 400000, 37) AS n,
	 regexp_replace(cron_describe('every ' || n || ' seconds'), '^every (?:(?=[a-z])(hour|minute|second|day))?', '') AS words
WHERE extract(epoch FROM CASE WHEN words = '' THEN interval '1 second' ELSE words::interval END) <> n;
