-- Tasks of each minute, that write down when they ran first after :start.
DELETE FROM cron.job;
TRUNCATE cron_bodies;
SELECT count(cron.schedule('burst ' || n, '* * * * *',
	format('INSERT INTO public.cron_bodies VALUES (%L, clock_timestamp())', :'start')))
	FROM generate_series(1, :tasks) AS n;
