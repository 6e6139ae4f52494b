-- What schedules do in the nights when clocks change: psql -f demo/dst_night.sql
-- in any database that has the extension.  It changes nothing.
--
-- A schedule is fixed when neither its minute nor its hour starts with "*":
-- each of its local times runs once.  Any other runs at every instant whose
-- local time matches.
\set QUIET on
\pset footer off
\pset pager off

-- The next n runs after that instant.
CREATE FUNCTION pg_temp.runs(schedule text, zone text, after timestamptz, n integer)
	RETURNS TABLE ("local time" text, "ahead of UTC" text, "UTC" text)
	LANGUAGE sql AS $$
	SELECT to_char(run AT TIME ZONE zone, 'Dy DD Mon HH24:MI:SS'),
		to_char((run AT TIME ZONE zone) - (run AT TIME ZONE 'UTC'), 'HH24:MI'),
		to_char(run AT TIME ZONE 'UTC', 'DD Mon HH24:MI:SS')
	FROM cron_next_runs(schedule, zone, after, n) AS run
	ORDER BY run
$$;

\echo
\echo 'Europe/Berlin, 29 March 2026: at 02:00 it is 03:00.'
\echo '30 2 * * *: there is no 02:30 that night; it runs once, when the gap ends'
SELECT * FROM pg_temp.runs('30 2 * * *', 'Europe/Berlin', '2026-03-28 00:00+01', 3);
\echo '0 * * * *: each hour that there is, one hour after the other'
SELECT * FROM pg_temp.runs('0 * * * *', 'Europe/Berlin', '2026-03-29 00:30+01', 4);
\echo '*/15 * * * *: every 15 minutes of real time'
SELECT * FROM pg_temp.runs('*/15 * * * *', 'Europe/Berlin', '2026-03-29 01:15+01', 5);
\echo '*/20 30 2 * * *: three times that the gap swallows are one run; the next day there are three again'
SELECT * FROM pg_temp.runs('*/20 30 2 * * *', 'Europe/Berlin', '2026-03-29 00:00+01', 4);
\echo '*/30 * * * * *: every 30 seconds of real time'
SELECT * FROM pg_temp.runs('*/30 * * * * *', 'Europe/Berlin', '2026-03-29 01:59:00+01', 4);

\echo
\echo 'Europe/Berlin, 25 October 2026: at 03:00 it is 02:00 again.'
\echo '30 2 * * *: 02:30 comes twice; it runs the first time'
SELECT * FROM pg_temp.runs('30 2 * * *', 'Europe/Berlin', '2026-10-24 00:00+02', 3);
\echo '0 * * * *: the hour that comes twice has two runs, one hour apart'
SELECT * FROM pg_temp.runs('0 * * * *', 'Europe/Berlin', '2026-10-25 00:30+02', 5);
\echo '*/15 * * * *: every 15 minutes of real time'
SELECT * FROM pg_temp.runs('*/15 * * * *', 'Europe/Berlin', '2026-10-25 01:45+02', 9);
\echo '*/20 30 2 * * *: all three the first time, none the second'
SELECT * FROM pg_temp.runs('*/20 30 2 * * *', 'Europe/Berlin', '2026-10-25 00:00+02', 4);
\echo '*/30 * * * * *: every 30 seconds of real time, across the change'
SELECT * FROM pg_temp.runs('*/30 * * * * *', 'Europe/Berlin', '2026-10-25 02:59:00+02', 4);

\echo
\echo 'Australia/Lord_Howe, 4 October 2026: at 02:00 it is 02:30; half an hour is skipped.'
\echo '15 2 * * *: in the gap: once, when it ends'
SELECT * FROM pg_temp.runs('15 2 * * *', 'Australia/Lord_Howe', '2026-10-03 00:00+10:30', 3);
\echo '30 2 * * *: the first minute after the gap, as always'
SELECT * FROM pg_temp.runs('30 2 * * *', 'Australia/Lord_Howe', '2026-10-03 00:00+10:30', 3);
\echo '0 * * * *: there is no 02:00 that night; 90 minutes pass between two runs'
SELECT * FROM pg_temp.runs('0 * * * *', 'Australia/Lord_Howe', '2026-10-04 00:30+10:30', 3);
\echo '*/15 * * * *: every 15 minutes of real time'
SELECT * FROM pg_temp.runs('*/15 * * * *', 'Australia/Lord_Howe', '2026-10-04 01:15+10:30', 5);
\echo '*/20 15 2 * * *: three times in the gap are one run'
SELECT * FROM pg_temp.runs('*/20 15 2 * * *', 'Australia/Lord_Howe', '2026-10-04 00:00+10:30', 4);

\echo
\echo 'Australia/Lord_Howe, 5 April 2026: at 02:00 it is 01:30 again.'
\echo '45 1 * * *: 01:45 comes twice; it runs the first time'
SELECT * FROM pg_temp.runs('45 1 * * *', 'Australia/Lord_Howe', '2026-04-04 00:00+11', 3);
\echo '30 2 * * *: comes once, as always'
SELECT * FROM pg_temp.runs('30 2 * * *', 'Australia/Lord_Howe', '2026-04-04 00:00+11', 3);
\echo '0 * * * *: no full hour comes twice; 90 minutes pass between two runs'
SELECT * FROM pg_temp.runs('0 * * * *', 'Australia/Lord_Howe', '2026-04-05 00:30+11', 3);
\echo '*/15 * * * *: every 15 minutes of real time'
SELECT * FROM pg_temp.runs('*/15 * * * *', 'Australia/Lord_Howe', '2026-04-05 01:15+11', 6);
\echo '*/20 45 1 * * *: all three the first time, none the second'
SELECT * FROM pg_temp.runs('*/20 45 1 * * *', 'Australia/Lord_Howe', '2026-04-05 00:00+11', 4);
