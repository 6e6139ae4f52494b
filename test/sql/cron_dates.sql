--
-- Schedules across the centuries: ends of months, leap years, instants before 1970,
-- and the ends of time.
--
SET TIMEZONE = 'UTC';
SET DATESTYLE = 'ISO, YMD';

-- What schedules are asked for: the years around 1900, 1970, 2038, 2100 and 1, and the
-- last ones.
CREATE TEMP TABLE spans (
	zone text,
	after timestamptz,
	until timestamptz
);
INSERT INTO spans VALUES
('UTC', '0050-03-01 BC', '0050-03-01'), ('UTC', '1871-02-28', '1900-01-01'), ('Europe/Berlin', '1899-12-31', '1914-01-01'),
('UTC', '1969-12-31 23:59:59.999999', '1980-01-01'), ('America/New_York', '2037-11-30', '2042-01-01'),
('Pacific/Chatham', '2038-01-19 03:14:07', '2045-01-01'), ('UTC', '2096-02-29 12:00', '2110-01-01'),
('UTC', '9971-10-01', 'infinity'), ('Asia/Tokyo', '9999-02-28', 'infinity');

-- Every day of those, with what schedules ask of a day; "nearest" are the "n" of those
-- "nW" that mean this day, the workday of its month that is nearest to day n.
CREATE TEMP TABLE days AS
SELECT day::date, extract(year FROM day)::integer AS year, extract(month FROM day)::integer AS month,
	   extract(day FROM day)::integer AS d, extract(dow FROM day)::integer AS dow,
	   extract(day FROM date_trunc('month', day) + interval '1 month - 1 day')::integer AS last_day
FROM (SELECT DISTINCT generate_series(date_trunc('month', after - interval '1 day'),
									  least(until + interval '1 day', '9999-12-31 12:00'), '1 day')::timestamp AS day
	  FROM spans) AS s;

CREATE TEMP TABLE workdays AS
SELECT day, array_agg(n) AS nearest
FROM (SELECT DISTINCT ON (year, month, n) day, n
	  FROM days JOIN generate_series(1, 31) AS n ON n <= last_day AND abs(d - n) <= 2
	  WHERE dow BETWEEN 1 AND 5
	  ORDER BY year, month, n, abs(d - n)) AS w
GROUP BY day;

CREATE TEMP TABLE facts AS
SELECT *, (d + 6) / 7 AS nth, d > last_day - 7 AS is_last_nth
FROM days LEFT JOIN workdays USING (day);
CREATE INDEX ON facts (day);

CREATE TEMP TABLE rules (
	id integer GENERATED ALWAYS AS IDENTITY,
	schedule text,
	condition text
);
INSERT INTO rules (schedule, condition) VALUES
('0 12 31 * *', 'd = 31'),
('0 12 29-31 * *', 'd >= 29'),
('0 12 29 2 *', 'd = 29 AND month = 2'),
('0 12 29 2 ?', 'd = 29 AND month = 2'),
('0 12 29 */2 */7', 'd = 29 AND month % 2 = 1 AND dow = 0'),
('0 12 29 2 1', 'month = 2 AND (d = 29 OR dow = 1)'),
('0 12 */28 2 */7', 'month = 2 AND d IN (1, 29) AND dow = 0'),
('0 12 28,29 2 */2', 'month = 2 AND d IN (28, 29) AND dow % 2 = 0'),
('0 12 30-31 feb,apr *', 'd = 30 AND month = 4'),
('0 12 L * *', 'd = last_day'),
('0 12 L 2 */3', 'd = last_day AND month = 2 AND dow % 3 = 0'),
('0 12 1,L * *', 'd IN (1, last_day)'),
('0 12 LW * *', 'last_day = ANY (nearest)'),
('0 12 1W * *', '1 = ANY (nearest)'),
('0 12 15W * *', '15 = ANY (nearest)'),
('0 12 28W 2 *', '28 = ANY (nearest) AND month = 2'),
('0 12 29W 2 *', '29 = ANY (nearest) AND month = 2'),
('0 12 30W,31W * *', 'nearest && ''{30,31}'''),
('0 12 1W * */5', '1 = ANY (nearest) AND dow % 5 = 0'),
('0 12 31W * 0', '31 = ANY (nearest) OR dow = 0'),
('0 12 * * 5L', 'dow = 5 AND is_last_nth'),
('0 12 * feb 0L', 'dow = 0 AND is_last_nth AND month = 2'),
('0 12 * * 1#5', 'dow = 1 AND nth = 5'),
('0 12 * 2 6#5', 'dow = 6 AND nth = 5 AND month = 2'),
('0 12 * * 2#1,2#3,4L', 'dow = 2 AND nth IN (1, 3) OR dow = 4 AND is_last_nth'),
('0 12 L * 1#1', 'd = last_day OR dow = 1 AND nth = 1'),
('0 12 1-7 */3 */7', 'd <= 7 AND month % 3 = 1 AND dow = 0'),
('0 12 13 * 5', 'd = 13 OR dow = 5');

-- Noon of the days that a condition names.
CREATE FUNCTION pg_temp.noons(condition text, span spans) RETURNS timestamptz[]
LANGUAGE plpgsql AS $$
DECLARE
	noons timestamptz[];
BEGIN
	EXECUTE format('SELECT array_agg(noon ORDER BY noon) FROM (
		SELECT noon FROM facts, LATERAL (SELECT (day + time ''12:00'') AT TIME ZONE $1.zone AS noon) AS n
		WHERE day >= $1.after::date - 1 AND noon > $1.after AND noon < $1.until AND (%s) ORDER BY noon LIMIT 1000) AS r', condition)
		INTO noons USING span;
	RETURN noons;
END
$$;

CREATE TEMP TABLE verdicts AS
SELECT id, schedule, span.*, pg_temp.noons(condition, span) AS expected,
	   (SELECT array_agg(run ORDER BY run) FROM cron_next_runs(schedule, zone, after, 1000) AS run WHERE run < until) AS runs
FROM rules, spans AS span;
SELECT schedule, count(*) FILTER (WHERE runs IS NOT DISTINCT FROM expected) AS right, sum(cardinality(runs)) AS runs
FROM verdicts GROUP BY id, schedule ORDER BY id;
SELECT schedule, zone, after, expected, runs FROM verdicts WHERE runs IS DISTINCT FROM expected ORDER BY id, after;

-- around instants where numbers change sign or size, in zones with odd offsets
SELECT after, zone, (SELECT array_agg(run ORDER BY run) FROM cron_next_runs(schedule, zone, after, 2) AS run) AS runs
FROM (VALUES
	('* * * * * *', 'UTC', '1969-12-31 23:59:58.5'::timestamptz),
	('* * * * * *', 'UTC', '1969-12-31 23:59:59.999999'),
	('* * * * *', 'UTC', '1999-12-31 23:59:59.999999'),
	('*/7 * * * * *', 'UTC', '2038-01-19 03:14:07'),
	('0 0 * * *', 'UTC', '2106-02-07 06:28:15'),
	('0 0 1 1 *', 'UTC', '0001-12-31 23:59:59 BC'),
	('0 0 29 2 *', 'UTC', '0005-01-01 BC'),
	('0 0 29 2 *', 'UTC', '1896-03-01'),
	('0 0 29 2 *', 'UTC', '9996-01-01'),
	('59 59 23 31 12 *', 'UTC', '9999-12-31 23:59:58'),
	('0 0 1 1 *', 'UTC', '9999-01-01'),
	('0 0 1 1 *', 'Etc/GMT+12', '9998-01-02'),
	('0 12 * * *', 'America/New_York', '1883-11-16 17:00'),
	('0 12 * * *', 'Africa/Monrovia', '1972-01-05 13:00'),
	('* * * * *', 'Africa/Monrovia', '1972-01-07 00:43:30'),
	('0 0 1 1 *', 'UTC', '4713-11-24 BC'),
	('0 0 1 1 *', 'America/New_York', '4713-11-24 BC'),
	('0 0 1 1 *', 'America/Juneau', '4713-11-24 BC'),
	('every 3 seconds', 'UTC', '1969-12-31 23:59:59.5'),
	('every 366 days', 'UTC', '4713-11-24 BC'),
	('every 366 days', 'UTC', '294275-12-31')
) AS c(schedule, zone, after);
SELECT cron_next_runs('0 0 29 2 *', 'UTC', '-infinity', 1);
SELECT cron_next_runs('0 0 29 2 *', 'UTC', 'infinity', 1);
