-- Schedules as people write them, in zones with and without changes of clock.
DROP TABLE IF EXISTS cron_expressions;
CREATE TABLE cron_expressions AS
	SELECT schedule, zone
	FROM unnest('{* * * * *,*/5 * * * *,"0 * * * *","30 3 * * *","0 9-17 * * 1-5",
		"0 0 1 * *","15 2 1 1 *","0 0 29 2 *","0 12 * * MON,WED,FRI","*/15 8-18 * * 1-5",
		"5,35 */2 * * *","0 6 13 * 5",@hourly,@daily,@monthly,every 30 seconds,
		every 5 minutes,* * * * * *,*/10 * * * * *,"0 0 0 L * *"}'::text[]) AS schedule,
	unnest('{UTC,Europe/Berlin,America/New_York,Asia/Kolkata}'::text[]) AS zone;
