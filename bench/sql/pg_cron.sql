-- pg_cron without tasks.
DROP EXTENSION IF EXISTS pg_cron;
DROP TABLE IF EXISTS cron_bodies CASCADE;
CREATE EXTENSION pg_cron;
CREATE TABLE cron_bodies (instant timestamptz NOT NULL, started_at timestamptz NOT NULL);
CREATE VIEW cron_started AS
	SELECT instant, 1000 * extract(epoch FROM started_at - instant) AS ms
	FROM cron_bodies;
