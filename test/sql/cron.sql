--
-- Schedules: what is accepted, what is refused and why, and when they fire.
--
SET TIMEZONE = 'UTC';
SET DATESTYLE = 'ISO, YMD';

-- Each case names the instants (UTC) that must come first after that one.
-- A case that fails shows the instants that came instead.
CREATE TEMP TABLE cases (
	id integer GENERATED ALWAYS AS IDENTITY,
	topic text,
	schedule text,
	timezone text,
	after timestamptz,
	expected timestamptz[]
);

CREATE VIEW pg_temp.verdicts AS
SELECT id, topic, schedule, timezone,
	   CASE WHEN runs = expected THEN 'ok' ELSE runs::text END AS verdict
FROM cases, LATERAL (
	SELECT coalesce(array_agg(run ORDER BY run), '{}') AS runs
	FROM cron_next_runs(schedule, timezone, after,
						greatest(cardinality(expected), 1)) AS run) AS r;

-- fields: numbers, lists, ranges, steps, names, blanks
INSERT INTO cases (topic, schedule, timezone, after, expected) VALUES
('minute', '* * * * *', 'UTC', '2026-01-01 00:00', '{2026-01-01 00:01,2026-01-01 00:02}'),
('minute', '* * * * *', 'UTC', '2026-01-01 00:00:59.999999', '{2026-01-01 00:01,2026-01-01 00:02}'),
('minute', '59 23 * * *', 'UTC', '2026-12-31 23:58:30', '{2026-12-31 23:59,2027-01-01 23:59}'),
('minute', '0 0 1 1 *', 'UTC', '2026-01-01 00:00', '{2027-01-01 00:00}'),
('minute', '0 0 1 1 *', 'UTC', '2025-12-31 23:59:59.999999', '{2026-01-01 00:00}'),
('list', '5,35,20 6,18 * * *', 'UTC', '2026-05-05 06:10', '{2026-05-05 06:20,2026-05-05 06:35,2026-05-05 18:05,2026-05-05 18:20}'),
('list', '0 0 1,15,31 * *', 'UTC', '2026-04-02', '{2026-04-15 00:00,2026-05-01 00:00,2026-05-15 00:00,2026-05-31 00:00}'),
('range', '0 9-11 * * *', 'UTC', '2026-05-05 10:00', '{2026-05-05 11:00,2026-05-06 09:00,2026-05-06 10:00}'),
('range', '0 22-23,0-1 * * *', 'UTC', '2026-05-05 21:00', '{2026-05-05 22:00,2026-05-05 23:00,2026-05-06 00:00,2026-05-06 01:00,2026-05-06 22:00}'),
('range', '7-7 7-7 7-7 7-7 *', 'UTC', '2026-01-01', '{2026-07-07 07:07,2027-07-07 07:07}'),
('step', '*/20 * * * *', 'UTC', '2026-05-05 10:05', '{2026-05-05 10:20,2026-05-05 10:40,2026-05-05 11:00}'),
('step', '*/25 * * * *', 'UTC', '2026-05-05 10:05', '{2026-05-05 10:25,2026-05-05 10:50,2026-05-05 11:00}'),
('step', '*/60 * * * *', 'UTC', '2026-05-05 10:05', '{2026-05-05 11:00,2026-05-05 12:00}'),
('step', '10-40/15 * * * *', 'UTC', '2026-05-05 10:05', '{2026-05-05 10:10,2026-05-05 10:25,2026-05-05 10:40,2026-05-05 11:10}'),
('step', '50/4 3 * * *', 'UTC', '2026-05-05', '{2026-05-05 03:50,2026-05-05 03:54,2026-05-05 03:58,2026-05-06 03:50}'),
('step', '0 0 */10 * *', 'UTC', '2026-01-25', '{2026-01-31 00:00,2026-02-01 00:00,2026-02-11 00:00,2026-02-21 00:00,2026-03-01 00:00}'),
('step', '0 0 * * 1/2', 'UTC', '2026-05-03', '{2026-05-04 00:00,2026-05-06 00:00,2026-05-08 00:00,2026-05-11 00:00}'),
('name', '0 0 1 JAN,jul *', 'UTC', '2026-01-15', '{2026-07-01 00:00,2027-01-01 00:00}'),
('name', '0 0 1 Oct-Dec *', 'UTC', '2026-10-15', '{2026-11-01 00:00,2026-12-01 00:00,2027-10-01 00:00}'),
('name', '0 12 * * mOn-FRi', 'UTC', '2026-05-01 12:00', '{2026-05-04 12:00,2026-05-05 12:00}'),
('name', '0 12 * * mon-fri/2', 'UTC', '2026-05-01 12:00', '{2026-05-04 12:00,2026-05-06 12:00,2026-05-08 12:00}'),
('name', '0 12 * feb/5 Sat', 'UTC', '2026-03-01', '{2026-07-04 12:00,2026-07-11 12:00}'),
('sunday', '0 12 * * 0', 'UTC', '2026-05-01', '{2026-05-03 12:00,2026-05-10 12:00}'),
('sunday', '0 12 * * 7', 'UTC', '2026-05-01', '{2026-05-03 12:00,2026-05-10 12:00}'),
('sunday', '0 12 * * 6-7', 'UTC', '2026-05-01', '{2026-05-02 12:00,2026-05-03 12:00,2026-05-09 12:00}'),
('blanks', E' \t 0\t0  2 \t3 * \t', 'UTC', '2026-01-01', '{2026-03-02 00:00}'),
('blanks', '00 007 02 03 *', 'UTC', '2026-01-01', '{2026-03-02 07:00}'),
('seconds', '30 * * * * *', 'UTC', '2026-01-01 00:00:30', '{2026-01-01 00:01:30,2026-01-01 00:02:30}'),
('seconds', '*/20 59 23 31 12 *', 'UTC', '2026-12-31 23:59:20', '{2026-12-31 23:59:40,2027-12-31 23:59:00}'),
('seconds', '* * * * * *', 'UTC', '2026-01-01 00:00:58.5', '{2026-01-01 00:00:59,2026-01-01 00:01:00}'),
('macro', '@yearly', 'UTC', '2026-05-05', '{2027-01-01 00:00,2028-01-01 00:00}'),
('macro', '@annually', 'UTC', '2026-05-05', '{2027-01-01 00:00}'),
('macro', '@monthly', 'UTC', '2026-05-05', '{2026-06-01 00:00,2026-07-01 00:00}'),
('macro', '@weekly', 'UTC', '2026-05-05', '{2026-05-10 00:00,2026-05-17 00:00}'),
('macro', '@daily', 'UTC', '2026-05-05', '{2026-05-06 00:00,2026-05-07 00:00}'),
('macro', '@midnight', 'UTC', '2026-05-05', '{2026-05-06 00:00}'),
('macro', ' @Hourly ', 'UTC', '2026-05-05', '{2026-05-05 01:00,2026-05-05 02:00}');

-- dates: month ends, leap years, day of month with day of week
INSERT INTO cases (topic, schedule, timezone, after, expected) VALUES
('31st', '0 0 31 * *', 'UTC', '2026-01-31', '{2026-03-31 00:00,2026-05-31 00:00,2026-07-31 00:00,2026-08-31 00:00}'),
('30th', '0 0 30 * *', 'UTC', '2026-01-30', '{2026-03-30 00:00,2026-04-30 00:00}'),
('leap', '0 0 29 2 *', 'UTC', '2026-01-01', '{2028-02-29 00:00,2032-02-29 00:00}'),
('leap', '0 0 29 2 *', 'UTC', '2096-03-01', '{2104-02-29 00:00}'),
('leap', '0 0 29 2 *', 'UTC', '1996-03-01', '{2000-02-29 00:00,2004-02-29 00:00}'),
('leap', '0 0 29 2 *', 'UTC', '2396-03-01', '{2400-02-29 00:00}'),
('leap', '0 0 30,31,29 2 *', 'UTC', '2026-01-01', '{2028-02-29 00:00}'),
('leap', '0 0 */28 2 */7', 'UTC', '2026-02-02', '{2032-02-01 00:00,2032-02-29 00:00}'),
('either', '0 0 13 * 5', 'UTC', '2026-03-01', '{2026-03-06 00:00,2026-03-13 00:00,2026-03-20 00:00,2026-03-27 00:00,2026-04-03 00:00,2026-04-10 00:00,2026-04-13 00:00}'),
('either', '0 0 31 2 1', 'UTC', '2026-02-01', '{2026-02-02 00:00,2026-02-09 00:00}'),
('both', '0 0 */2 * 1', 'UTC', '2026-05-01', '{2026-05-11 00:00,2026-05-25 00:00,2026-06-01 00:00}'),
('both', '0 0 1-7 * */7', 'UTC', '2026-05-01', '{2026-05-03 00:00,2026-06-07 00:00}'),
('both', '0 0 *,13 * 5', 'UTC', '2026-03-01', '{2026-03-06 00:00,2026-03-13 00:00}'),
('either', '0 0 13,* * 5', 'UTC', '2026-03-01', '{2026-03-02 00:00,2026-03-03 00:00}'),
('?', '0 0 ? * 1', 'UTC', '2026-05-01', '{2026-05-04 00:00,2026-05-11 00:00}'),
('?', '0 0 15 * ?', 'UTC', '2026-05-01', '{2026-05-15 00:00,2026-06-15 00:00}'),
('L', '0 0 L * *', 'UTC', '2026-01-15', '{2026-01-31 00:00,2026-02-28 00:00,2026-03-31 00:00,2026-04-30 00:00}'),
('L', '0 0 l 2 *', 'UTC', '2027-01-15', '{2027-02-28 00:00,2028-02-29 00:00}'),
('L', '0 0 15,L 2 *', 'UTC', '2026-01-15', '{2026-02-15 00:00,2026-02-28 00:00}'),
('LW', '0 0 LW * *', 'UTC', '2026-01-01', '{2026-01-30 00:00,2026-02-27 00:00,2026-03-31 00:00,2026-04-30 00:00,2026-05-29 00:00}'),
('W', '0 0 15W * *', 'UTC', '2026-01-01', '{2026-01-15 00:00,2026-02-16 00:00,2026-03-16 00:00,2026-04-15 00:00,2026-05-15 00:00}'),
('W', '0 0 1W * *', 'UTC', '2026-07-15', '{2026-08-03 00:00,2026-09-01 00:00,2026-10-01 00:00,2026-11-02 00:00}'),
('W', '0 0 31W * *', 'UTC', '2026-04-01', '{2026-05-29 00:00,2026-07-31 00:00,2026-08-31 00:00,2026-10-30 00:00}'),
('W', '0 0 28W 2 *', 'UTC', '2026-01-01', '{2026-02-27 00:00,2027-02-26 00:00,2028-02-28 00:00}'),
('nL', '0 18 * * 5L', 'UTC', '2026-01-01', '{2026-01-30 18:00,2026-02-27 18:00,2026-03-27 18:00,2026-04-24 18:00}'),
('nL', '0 18 * * sunL', 'UTC', '2026-05-01', '{2026-05-31 18:00,2026-06-28 18:00}'),
('n#k', '0 9 * * 2#2', 'UTC', '2026-05-01', '{2026-05-12 09:00,2026-06-09 09:00}'),
('n#k', '0 9 * * MON#1,fri#3', 'UTC', '2026-05-01', '{2026-05-04 09:00,2026-05-15 09:00,2026-06-01 09:00}'),
('n#k', '0 9 * * 7#5', 'UTC', '2026-05-01', '{2026-05-31 09:00,2026-08-30 09:00}'),
('n#k', '0 9 * 2 0#5', 'UTC', '2026-05-01', '{2032-02-29 09:00,2060-02-29 09:00}'),
('year', '0 0 1 1 *', 'UTC', '0044-03-15 BC', '{0043-01-01 00:00 BC}'),
('year', '0 0 1 1 *', 'UTC', '0001-06-01 BC', '{0001-01-01 00:00}'),
('year', '0 0 1 1 *', 'UTC', '9998-06-01', '{9999-01-01 00:00}'),
('year', '0 0 1 1 *', 'UTC', '9999-06-01', '{}'),
('year', '0 23 31 12 *', 'Etc/GMT+5', '9999-06-01', '{10000-01-01 04:00}'),
('year', '* * * * *', 'UTC', '294276-12-31', '{}');

-- a clock set forward: what lies in the gap fires once, when the gap ends,
-- unless the minute or the hour starts with a star
INSERT INTO cases (topic, schedule, timezone, after, expected) VALUES
('gap', '30 2 * * *', 'Europe/Berlin', '2026-03-28', '{2026-03-28 01:30,2026-03-29 01:00,2026-03-30 00:30}'),
('gap', '0 2 * * *', 'Europe/Berlin', '2026-03-28 12:00', '{2026-03-29 01:00,2026-03-30 00:00}'),
('gap', '0,30 1-4 * * *', 'Europe/Berlin', '2026-03-28 23:00', '{2026-03-29 00:00,2026-03-29 00:30,2026-03-29 01:00,2026-03-29 01:30,2026-03-29 02:00,2026-03-29 02:30,2026-03-29 23:00}'),
('gap', '30 2,3 * * *', 'Europe/Berlin', '2026-03-28 12:00', '{2026-03-29 01:00,2026-03-29 01:30,2026-03-30 00:30}'),
('gap', '30 2 28 3 *', 'Europe/Berlin', '2021-03-28 01:00', '{2022-03-28 00:30}'),
('gap', '30 2 * * 0', 'Europe/Berlin', '2026-03-24', '{2026-03-29 01:00,2026-04-05 00:30}'),
('gap', '*/10 30 2 * * *', 'Europe/Berlin', '2026-03-29', '{2026-03-29 01:00:00,2026-03-30 00:30:00,2026-03-30 00:30:10}'),
('gap', '*/30 2 * * *', 'Europe/Berlin', '2026-03-28 12:00', '{2026-03-30 00:00,2026-03-30 00:30}'),
('gap', '30 * * * *', 'Europe/Berlin', '2026-03-29', '{2026-03-29 00:30,2026-03-29 01:30,2026-03-29 02:30}'),
('gap', '30 2 * * *', 'America/New_York', '2026-03-07', '{2026-03-07 07:30,2026-03-08 07:00,2026-03-09 06:30}'),
('gap', '15 2 * * *', 'Australia/Lord_Howe', '2026-10-02 12:00', '{2026-10-02 15:45,2026-10-03 15:30,2026-10-04 15:15}'),
('gap', '45 2 * * *', 'Australia/Lord_Howe', '2026-10-02 12:00', '{2026-10-02 16:15,2026-10-03 15:45,2026-10-04 15:45}'),
('gap', '*/15 * * * *', 'Australia/Lord_Howe', '2026-10-03 15:00', '{2026-10-03 15:15,2026-10-03 15:30,2026-10-03 15:45}'),
('gap', '0 * * * *', 'Australia/Lord_Howe', '2026-10-03 14:00', '{2026-10-03 14:30,2026-10-03 16:00,2026-10-03 17:00}'),
('gap', '0 0 * * *', 'America/Sao_Paulo', '2018-11-03', '{2018-11-03 03:00,2018-11-04 03:00,2018-11-05 02:00}'),
('gap', '@daily', 'Africa/Cairo', '2026-04-23', '{2026-04-23 22:00,2026-04-24 21:00}'),
('gap', '0 12 * * *', 'Pacific/Apia', '2011-12-29', '{2011-12-29 22:00,2011-12-30 10:00,2011-12-30 22:00}'),
('gap', '0 6,12,18 30 12 *', 'Pacific/Apia', '2011-12-01', '{2011-12-30 10:00,2012-12-29 16:00}'),
('gap', '0 0 31 12 *', 'Pacific/Apia', '2011-12-01', '{2011-12-30 10:00,2012-12-30 10:00}'),
('gap', '0 * 30 12 *', 'Pacific/Apia', '2011-12-01', '{2012-12-29 10:00,2012-12-29 11:00}'),
('gap', '0 2 * 3 sun#2', 'America/New_York', '2024-12-01', '{2025-03-09 07:00,2026-03-08 07:00}');

-- a clock set back: a fixed time fires once, the first time it is shown
INSERT INTO cases (topic, schedule, timezone, after, expected) VALUES
('overlap', '30 2 * * *', 'Europe/Berlin', '2026-10-24', '{2026-10-24 00:30,2026-10-25 00:30,2026-10-26 01:30}'),
('overlap', '30 2 * * *', 'Europe/Berlin', '2026-10-25 00:30', '{2026-10-26 01:30}'),
('overlap', '30 2 * * *', 'Europe/Berlin', '2026-10-25 01:10', '{2026-10-26 01:30}'),
('overlap', '0 2,3 * * *', 'Europe/Berlin', '2026-10-25', '{2026-10-25 02:00,2026-10-26 01:00}'),
('overlap', '0 2,3 * * *', 'Europe/Berlin', '2026-10-24 23:00', '{2026-10-25 00:00,2026-10-25 02:00,2026-10-26 01:00}'),
('overlap', '*/30 2 * * *', 'Europe/Berlin', '2026-10-24 23:00', '{2026-10-25 00:00,2026-10-25 00:30,2026-10-25 01:00,2026-10-25 01:30,2026-10-26 01:00}'),
('overlap', '30 * * * *', 'Europe/Berlin', '2026-10-24 23:00', '{2026-10-24 23:30,2026-10-25 00:30,2026-10-25 01:30,2026-10-25 02:30}'),
('overlap', '30 1 * * *', 'America/New_York', '2026-10-31', '{2026-10-31 05:30,2026-11-01 05:30,2026-11-02 06:30}'),
('overlap', '0 */2 * * *', 'America/New_York', '2026-11-01 03:00', '{2026-11-01 04:00,2026-11-01 07:00,2026-11-01 09:00}'),
('overlap', '0,15,30,45 1 * * *', 'Australia/Lord_Howe', '2026-04-04 12:00', '{2026-04-04 14:00,2026-04-04 14:15,2026-04-04 14:30,2026-04-04 14:45,2026-04-05 14:30}'),
('overlap', '*/15 1 * * *', 'Australia/Lord_Howe', '2026-04-04 12:00', '{2026-04-04 14:00,2026-04-04 14:15,2026-04-04 14:30,2026-04-04 14:45,2026-04-04 15:00,2026-04-04 15:15,2026-04-05 14:30}'),
('overlap', '0 0 * * *', 'America/Sao_Paulo', '2018-02-16', '{2018-02-16 02:00,2018-02-17 02:00,2018-02-18 03:00}'),
('overlap', '30 23 * * *', 'America/Sao_Paulo', '2018-02-17', '{2018-02-17 01:30,2018-02-18 01:30,2018-02-19 02:30}'),
('overlap', '*/20 30 2 25 10 *', 'Europe/Berlin', '2020-10-01', '{2020-10-25 00:30:00,2020-10-25 00:30:20,2020-10-25 00:30:40,2021-10-25 00:30:00}'),
('plain', '0 9 * * *', 'Asia/Kathmandu', '2026-01-01', '{2026-01-01 03:15,2026-01-02 03:15}'),
('plain', '0 9 * * *', 'etc/gmt+5', '2026-01-01', '{2026-01-01 14:00}');

-- intervals are counted from "after", whatever the zone
INSERT INTO cases (topic, schedule, timezone, after, expected) VALUES
('interval', 'every 30 seconds', 'UTC', '2026-01-01 00:00:07.5', '{2026-01-01 00:00:37.5,2026-01-01 00:01:07.5}'),
('interval', 'every second', 'UTC', '2026-01-01', '{2026-01-01 00:00:01,2026-01-01 00:00:02}'),
('interval', 'Every Minute', 'UTC', '2026-01-01', '{2026-01-01 00:01}'),
('interval', E' every\t1  HOURS ', 'UTC', '2026-01-01', '{2026-01-01 01:00}'),
('interval', 'every 25 hours', 'UTC', '2026-01-01', '{2026-01-02 01:00,2026-01-03 02:00}'),
('interval', 'every 2 days', 'Europe/Berlin', '2026-03-28', '{2026-03-30 00:00,2026-04-01 00:00}'),
('interval', 'every 366 days', 'UTC', '2026-01-01', '{2027-01-02 00:00}'),
('interval', '@every 10m', 'UTC', '2026-01-01', '{2026-01-01 00:10,2026-01-01 00:20}'),
('interval', '@EVERY 1H30M', 'UTC', '2026-01-01', '{2026-01-01 01:30,2026-01-01 03:00}'),
('interval', '@every 1d2h3m4s', 'UTC', '2026-01-01', '{2026-01-02 02:03:04}'),
('interval', ' @every  90s ', 'UTC', '1999-12-31 23:59', '{2000-01-01 00:00:30}'),
('interval', '@every 1h', 'UTC', '294276-12-31 23:30', '{}');

SELECT * FROM pg_temp.verdicts ORDER BY id;

-- every minute of an hour that is always skipped: not one so far
SELECT coalesce(min(run), 'infinity') > '2026-12-31' AS never
FROM cron_next_runs('* 2 * 3 sun#2', 'America/New_York', '2007-01-01', 1) AS run;

-- far ahead, where the rules of a zone are extrapolated: still noon
SELECT count(*) AS differ
FROM unnest(ARRAY['Europe/Berlin', 'America/Santiago', 'Asia/Tokyo']) AS zone,
	 unnest(ARRAY['0 12 1 1 *', '0 12 1 7 *']) AS schedule,
	 generate_series(1990, 3190) AS year,
	 cron_next_runs(schedule, zone, make_timestamptz(year, 9, 9, 0, 0, 0), 1) AS run
WHERE to_char(run AT TIME ZONE zone, 'FMMI FMHH24 FMDD FMMM *') <> schedule;

-- whatever was listed: valid, in order, and the same one by one
SELECT count(*) FILTER (WHERE NOT cron_is_valid(schedule)) AS invalid,
	   count(*) FILTER (WHERE NOT (later > earlier AND later = alone)) AS differ,
	   count(*) > 2000 AS enough
FROM cases, LATERAL (
	SELECT run AS later, lag(run) OVER (ORDER BY run) AS earlier
	FROM cron_next_runs(schedule, timezone, after, 20) AS run) AS l
	LEFT JOIN LATERAL (
		SELECT run AS alone
		FROM cron_next_runs(schedule, timezone, earlier, 1) AS run) AS a ON true
WHERE earlier IS NOT NULL;

-- refused, with the place and the reason
CREATE FUNCTION pg_temp.refusal(schedule text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	IF cron_is_valid(schedule) THEN
		RETURN 'accepted';
	END IF;
	PERFORM cron_next_runs(schedule);
	RETURN 'not raised';
EXCEPTION WHEN invalid_parameter_value THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN detail;
END
$$;

\pset format unaligned
SELECT left(translate(schedule, E'\t\n', '~|'), 32) AS schedule,
	   pg_temp.refusal(schedule) AS refusal
FROM unnest(ARRAY[
	-- words
	'', E' \t ', 'hello', '* * * *', '* * * * * * *', '0 0 * * 1 foo bar',
	'0 0 * * 1 foo', '30 seconds',
	-- numbers
	'60 * * * *', '* 24 * * *', '* * 0 * *', '* * 32 * *', '* * * 0 *',
	'* * * 13 *', '* * * * 8', '60 * * * * *', '-1 * * * *', '+1 * * * *',
	'1.5 * * * *', '99999999999999999999 * * * *',
	-- ranges, lists, steps
	'5-1 * * * *', '* 22-2 * * *', '* * * * fri-mon', '* * * * sat-sun',
	'1- * * * *', '-5 * * * *', '1--5 * * * *', '1-5-9 * * * *',
	', * * * *', '1,,2 * * * *', '1, * * * *', ',1 * * * *',
	'*/0 * * * *', '*/61 * * * *', '* */25 * * *', '*/99999999999 * * * *',
	'*/ * * * *', '*/-5 * * * *', '*/a * * * *', '*/5/5 * * * *',
	'/5 * * * *', '5/0 * * * *', '** * * * *', '*5 * * * *', '*-5 * * * *',
	-- names
	'a * * * *', 'jan * * * *', '* * * foo *', '* * * january *',
	'* * * ja *', '* * * * Sunday', '* * * * jan', '* * * mon *',
	-- days
	'* * $ * *', 'L * * * *', '* * L-3 * *', '* * 5L * *', '* * WL * *',
	'* * W * *', '* * 0W * *', '* * 32W * *', '* * 1-5W * *', '* * L/2 * *',
	'* * * * L', '* * * * LW', '* * * * 8L', '* * * * 1-5L', '* * * * 5W',
	'* * * * 5#', '* * * * 5#0', '* * * * 5#6', '* * * * #2', '* * 5#2 * *',
	'* * * * 5#2/2', '? * * * *', '* ? * * *', '* * * ? *', '* * ?/2 * *',
	'* * ?,1 * *', '* * 1,? * *',
	-- no date
	'0 0 30 2 *', '0 0 31 2 *', '0 0 31 2,4,6,9,11 *', '0 0 30-31 feb ?',
	'0 0 31W 6 *', '*/5 0 0 30 2 *',
	-- macros and intervals
	'@', '@reboot now', '@fortnightly', '@daily 5', '@ daily', '@dail', '@dailyy',
	'every', 'every 5', 'every 0 minutes', 'every -1 minutes',
	'every 5 weeks', 'every five minutes', 'every 5minutes', 'every 5m',
	'every 5 minutes or so', 'every 5 s', 'every 5x minutes',
	'every 367 days', 'every 99999999999 days', 'everyminute',
	'@every', '@every 10', '@every m', '@every 1.5h', '@every 500ms',
	'@every 30m1h', '@every 1h1h', '@every 0s', '@every 8785h', '@every 5 m',
	'@every -5m', '@every1h',
	-- bytes
	E'* * * * *\n', E'* * * * *\u00a0', '٣ * * * *', '* * * * ＊',
	'* * * * *' || repeat(' ', 248)
]) WITH ORDINALITY AS s(schedule, n)
ORDER BY n;
\pset format aligned

-- as long as it may be
SELECT cron_is_valid('* * * * *' || repeat(' ', 247)),
	   cron_is_valid(repeat('0,', 122) || '10,1 * * * *'),
	   cron_is_valid(repeat('0,', 122) || '10,11 * * * *');
SELECT cron_is_valid(repeat('*', 10000000)) AS ten_megabytes;
SELECT cron_is_valid(NULL);

-- the whole message, its quote cut at 64 bytes between characters
SELECT cron_next_runs('0 0 31 2 *');
SELECT cron_next_runs('* 25 * * *');
SELECT cron_next_runs(repeat('0', 63) || repeat('é', 50));
SELECT cron_next_runs('');

-- arguments
SELECT count(*), bool_and(run > now()) FROM cron_next_runs('* * * * *') AS run;
SELECT cron_next_runs(schedule => '@monthly', after => '2026-01-01', n => 2);
SELECT count(*) FROM cron_next_runs('* * * * *', 'UTC', '2026-01-01', 1000);
SELECT cron_next_runs(NULL);
SELECT cron_next_runs('@daily', NULL);
SELECT cron_next_runs('@daily', 'UTC', NULL);
SELECT cron_next_runs('@daily', 'UTC', now(), NULL);
SELECT cron_next_runs('@daily', n => 0);
SELECT cron_next_runs('@daily', n => 1001);
SELECT cron_next_runs('@daily', 'UTC', 'infinity');
SELECT cron_next_runs('every day', 'UTC', '-infinity');

-- time zones go by the names of the database; POSIX specifications do not
SELECT cron_next_runs('@daily', 'Mars/Olympus');
SELECT cron_next_runs('every minute', 'Mars/Olympus');
DO $$
DECLARE
	name text;
BEGIN
	FOREACH name IN ARRAY ARRAY['', ' ', 'EST5EDT', 'FOO7', 'UTC+3',
		'Etc/GMT+99', '<A>3', '3', '-03:30', 'PST', 'Europe', 'Europe/Berlin ',
		'right/UTC', '../UTC', repeat('x', 300)]
	LOOP
		BEGIN
			PERFORM cron_next_runs('@daily', name);
			RAISE NOTICE 'accepted: %', name;
		EXCEPTION WHEN invalid_parameter_value THEN
			RAISE NOTICE '%', SQLERRM;
		END;
	END LOOP;
END
$$;
SELECT count(DISTINCT run)
FROM unnest(ARRAY['UTC', 'utc', 'GMT', 'Etc/UTC']) AS zone,
	 cron_next_runs('@daily', zone, '2026-01-01', 1) AS run;
