--
-- Schedules across changes of the clock, in both directions, in many zones.
--
-- What must come follows from the change alone: its instant and the offsets from
-- UTC before and after. A local time that fires once does so at the offset before,
-- if the clock showed it then, or else at the offset after, but not before the
-- change. Other schedules fire whenever the local time matches.
--
SET TIMEZONE = 'UTC';
SET DATESTYLE = 'ISO, YMD';

CREATE TEMP TABLE changes (
	id integer GENERATED ALWAYS AS IDENTITY,
	zone text,
	at timestamptz,
	before interval,
	after interval
);
INSERT INTO changes (zone, at, before, after) VALUES
	('Europe/Berlin', '2024-03-31 01:00', '+01:00', '+02:00'),
	('Europe/Dublin', '2024-03-31 01:00', '+00:00', '+01:00'),
	('Europe/Kyiv', '2024-03-31 01:00', '+02:00', '+03:00'),
	('Europe/Moscow', '2011-03-26 23:00', '+03:00', '+04:00'),
	('Atlantic/Azores', '2023-03-26 01:00', '-01:00', '+00:00'),
	('Africa/Cairo', '2024-04-25 22:00', '+02:00', '+03:00'),
	('Africa/Casablanca', '2024-04-14 02:00', '+00:00', '+01:00'),
	('Antarctica/Troll', '2024-03-31 01:00', '+00:00', '+02:00'),
	('Asia/Beirut', '2024-03-30 22:00', '+02:00', '+03:00'),
	('Asia/Gaza', '2022-03-26 22:00', '+02:00', '+03:00'),
	('Asia/Jerusalem', '2024-03-29 00:00', '+02:00', '+03:00'),
	('Asia/Kathmandu', '1985-12-31 18:30', '+05:30', '+05:45'),
	('Asia/Pyongyang', '2018-05-04 15:00', '+08:30', '+09:00'),
	('Asia/Shanghai', '1991-04-13 18:00', '+08:00', '+09:00'),
	('Asia/Tehran', '2022-03-21 20:30', '+03:30', '+04:30'),
	('America/Asuncion', '2023-10-01 04:00', '-04:00', '-03:00'),
	('America/Caracas', '2016-05-01 07:00', '-04:30', '-04:00'),
	('America/Havana', '2024-03-10 05:00', '-05:00', '-04:00'),
	('America/Los_Angeles', '2024-03-10 10:00', '-08:00', '-07:00'),
	('America/New_York', '2024-03-10 07:00', '-05:00', '-04:00'),
	('America/Santiago', '2023-09-03 04:00', '-04:00', '-03:00'),
	('America/Sao_Paulo', '2018-11-04 03:00', '-03:00', '-02:00'),
	('America/St_Johns', '2008-03-09 03:31', '-03:30', '-02:30'),
	('Australia/Adelaide', '2024-10-05 16:30', '+09:30', '+10:30'),
	('Australia/Lord_Howe', '2024-10-05 15:30', '+10:30', '+11:00'),
	('Australia/Sydney', '2024-10-05 16:00', '+10:00', '+11:00'),
	('Pacific/Apia', '2011-09-24 14:00', '-11:00', '-10:00'),
	('Pacific/Apia', '2011-12-30 10:00', '-10:00', '+14:00'),
	('Pacific/Auckland', '2024-09-28 14:00', '+12:00', '+13:00'),
	('Pacific/Chatham', '2024-09-28 14:00', '+12:45', '+13:45'),
	('Pacific/Kiritimati', '1994-12-31 10:00', '-10:00', '+14:00'),
	('Pacific/Kwajalein', '1993-08-21 12:00', '-12:00', '+12:00'),
	('Europe/Berlin', '2024-10-27 01:00', '+02:00', '+01:00'),
	('Europe/Dublin', '2024-10-27 01:00', '+01:00', '+00:00'),
	('Europe/Kyiv', '2024-10-27 01:00', '+03:00', '+02:00'),
	('Europe/Moscow', '2014-10-25 22:00', '+04:00', '+03:00'),
	('Atlantic/Azores', '2023-10-29 01:00', '+00:00', '-01:00'),
	('Africa/Cairo', '2024-10-31 21:00', '+03:00', '+02:00'),
	('Africa/Casablanca', '2024-03-10 02:00', '+01:00', '+00:00'),
	('Antarctica/Troll', '2024-10-27 01:00', '+02:00', '+00:00'),
	('Asia/Beirut', '2024-10-26 21:00', '+03:00', '+02:00'),
	('Asia/Gaza', '2022-10-28 23:00', '+03:00', '+02:00'),
	('Asia/Jerusalem', '2024-10-26 23:00', '+03:00', '+02:00'),
	('Asia/Kolkata', '1945-10-14 17:30', '+06:30', '+05:30'),
	('Asia/Pyongyang', '2015-08-14 15:00', '+09:00', '+08:30'),
	('Asia/Shanghai', '1991-09-14 17:00', '+09:00', '+08:00'),
	('Asia/Tehran', '2022-09-21 19:30', '+04:30', '+03:30'),
	('America/Asuncion', '2023-03-26 03:00', '-03:00', '-04:00'),
	('America/Caracas', '2007-12-09 07:00', '-04:00', '-04:30'),
	('America/Havana', '2024-11-03 05:00', '-04:00', '-05:00'),
	('America/Los_Angeles', '2024-11-03 09:00', '-07:00', '-08:00'),
	('America/New_York', '2024-11-03 06:00', '-04:00', '-05:00'),
	('America/Santiago', '2023-04-02 03:00', '-03:00', '-04:00'),
	('America/Sao_Paulo', '2018-02-18 02:00', '-02:00', '-03:00'),
	('America/St_Johns', '2008-11-02 02:31', '-02:30', '-03:30'),
	('Australia/Adelaide', '2024-04-06 16:30', '+10:30', '+09:30'),
	('Australia/Lord_Howe', '2024-04-06 15:00', '+11:00', '+10:30'),
	('Australia/Sydney', '2024-04-06 16:00', '+11:00', '+10:00'),
	('Pacific/Apia', '2011-04-02 14:00', '-10:00', '-11:00'),
	('Pacific/Auckland', '2024-04-06 14:00', '+13:00', '+12:00'),
	('Pacific/Chatham', '2024-04-06 14:00', '+13:45', '+12:45'),
	('Pacific/Norfolk', '2015-10-03 14:30', '+11:30', '+11:00');

-- the zones are as told
SELECT zone, at FROM changes
WHERE at AT TIME ZONE zone <> at AT TIME ZONE 'UTC' + after
   OR (at - interval '1 second') AT TIME ZONE zone <> at AT TIME ZONE 'UTC' + before - interval '1 second';

-- "middle" is a local time in the middle of what is skipped or shown twice. A
-- schedule says which local times match: minutes, hours, seconds.
CREATE TEMP VIEW schedules AS
SELECT c.*, s.*
FROM changes AS c,
	 LATERAL (SELECT at AT TIME ZONE 'UTC' + (before + after) / 2 AS middle) AS l,
	 LATERAL (SELECT extract(minute FROM middle)::integer AS m, extract(hour FROM middle)::integer AS h) AS p,
	 (SELECT array_agg(n) AS any_hour FROM generate_series(0, 23) AS n) AS a,
	 (SELECT array_agg(n) AS any_minute FROM generate_series(0, 59) AS n) AS b,
	 LATERAL (VALUES
		(1, 'once', format('%s %s * * *', m, h), ARRAY[m], ARRAY[h], '{0}'::integer[]),
		(2, 'once', format('*/20 %s %s * * *', m, h), ARRAY[m], ARRAY[h], '{0,20,40}'),
		(3, 'once', '0,30 0-23 * * *', '{0,30}', any_hour, '{0}'),
		(4, 'always', '*/15 * * * *', '{0,15,30,45}', any_hour, '{0}'),
		(5, 'always', '0 * * * *', '{0}', any_hour, '{0}'),
		(6, 'always', format('* %s * * *', h), any_minute, ARRAY[h], '{0}'),
		(7, 'always', format('10,50 * %s * * *', h), any_minute, ARRAY[h], '{10,50}')
	 ) AS s(number, fires, schedule, minutes, hours, seconds);

-- When they fire in the two days before the change and the two days after.
CREATE FUNCTION pg_temp.expected(s pg_temp.schedules) RETURNS timestamptz[]
LANGUAGE sql AS $$
	WITH local_times AS (
		SELECT date_trunc('day', s.at AT TIME ZONE 'UTC') + make_interval(0, 0, 0, day, hour, minute, second) AS local
		FROM generate_series(-4, 4) AS day, unnest(s.hours) AS hour, unnest(s.minutes) AS minute, unnest(s.seconds) AS second
	), instants AS (
		SELECT (local - s.before) AT TIME ZONE 'UTC' AS with_before, (local - s.after) AT TIME ZONE 'UTC' AS with_after
		FROM local_times
	), runs AS (
		SELECT with_before AS run FROM instants WHERE with_before < s.at
		UNION
		SELECT with_after FROM instants WHERE with_after >= s.at AND (s.fires = 'always' OR with_before >= s.at)
		UNION
		SELECT s.at FROM instants WHERE s.fires = 'once' AND with_before >= s.at AND with_after < s.at
	)
	SELECT array_agg(run ORDER BY run) FROM runs
	WHERE run > s.at - interval '2 days' AND run < s.at + interval '2 days'
$$;

CREATE TEMP TABLE verdicts AS
SELECT s.*, e.expected, r.runs, r.runs = e.expected AS ok
FROM pg_temp.schedules AS s,
	 LATERAL (SELECT pg_temp.expected(s)) AS e(expected),
	 LATERAL (
		SELECT array_agg(run ORDER BY run) AS runs
		FROM cron_next_runs(schedule, zone, at - interval '2 days', 1000) AS run
		WHERE run < at + interval '2 days') AS r;

-- how many runs each schedule has in these four days, and those of the first
SELECT zone, to_char(at, 'YYYY-MM-DD HH24:MI') AS change, after - before AS jump,
	   max(schedule) FILTER (WHERE number = 1) AS schedule,
	   (SELECT string_agg(to_char(run, 'DD HH24:MI'), ', ' ORDER BY run)
		FROM verdicts AS v, unnest(runs) AS run WHERE v.id = o.id AND number = 1) AS runs,
	   array_agg(cardinality(runs) ORDER BY number) AS counts
FROM verdicts AS o GROUP BY id, zone, at, before, after ORDER BY id;

SELECT zone, at, schedule, expected, runs FROM verdicts WHERE ok IS NOT TRUE ORDER BY id, number;
SELECT count(*) FROM verdicts;

-- in the hours around the change, at every second
SELECT zone, at
FROM changes, LATERAL (
	SELECT count(*) AS seconds, max(run) AS latest
	FROM cron_next_runs('* * * * * *', zone, at - interval '501 seconds', 1000) AS run) AS r
WHERE seconds <> 1000 OR latest <> at + interval '499 seconds';
