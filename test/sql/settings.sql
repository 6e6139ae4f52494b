-- Every setting: its unit, default, bounds and context.
\set SHOW_CONTEXT never
SELECT name, vartype AS type, unit, boot_val AS default, min_val AS min, max_val AS max,
	enumvals, context
FROM pg_settings WHERE name LIKE 'jobqueue.%' ORDER BY name COLLATE "C";
SELECT name FROM pg_settings
WHERE name LIKE 'jobqueue.%' AND (short_desc NOT LIKE 'Sets %.' OR category <> 'Customized Options')
ORDER BY name COLLATE "C";

-- The tests run with these, and one run of them with a claim path of its own.
SELECT name, setting, source FROM pg_settings
WHERE name LIKE 'jobqueue.%' AND setting IS DISTINCT FROM boot_val AND source <> 'client' ORDER BY name COLLATE "C";
SHOW jobqueue.lease;
SHOW jobqueue.max_payload;
SHOW jobqueue.poll_interval;

-- No session can have a value of its own, whoever it is and however it tries.
\set VERBOSITY sqlstate
SELECT format('SET %s = %L', name, boot_val) FROM pg_settings
WHERE name LIKE 'jobqueue.%' ORDER BY name COLLATE "C"
\gexec
SELECT format('ALTER ROLE CURRENT_USER SET %s = %L', name, boot_val) FROM pg_settings
WHERE name LIKE 'jobqueue.%' ORDER BY name COLLATE "C"
\gexec
SELECT format('ALTER DATABASE %I SET %s = %L', current_database(), name, boot_val) FROM pg_settings
WHERE name IN ('jobqueue.enabled', 'jobqueue.lease', 'jobqueue.launcher') ORDER BY name COLLATE "C"
\gexec
\set VERBOSITY default
SET jobqueue.lease = '1min';
SET jobqueue.launcher = off;
SELECT set_config('jobqueue.max_attempts', '1', false);
CREATE FUNCTION pg_temp.f() RETURNS void LANGUAGE sql SET jobqueue.lease = 1 AS '';

-- Values out of bounds, of another kind or malformed are refused.
ALTER SYSTEM SET jobqueue.lease = '1kB';
ALTER SYSTEM SET jobqueue.lease = 'banana';
ALTER SYSTEM SET jobqueue.max_payload = '1min';
ALTER SYSTEM SET jobqueue.log_level = 'chatty';
ALTER SYSTEM SET jobqueue.enabled = 'perhaps';
ALTER SYSTEM SET jobqueue.databases = 'one two';
ALTER SYSTEM SET jobqueue.run_job_types = 'a,,b';
ALTER SYSTEM SET jobqueue.run_job_types = '"a';

-- What is logged. A level may be called as others call it.
ALTER SYSTEM SET jobqueue.log_level = 'warn';
ALTER SYSTEM RESET jobqueue.log_level;
ALTER SYSTEM SET jobqueue.log_events = 'some';
ALTER SYSTEM SET jobqueue.log_format = 'xml';
\set VERBOSITY sqlstate
ALTER SYSTEM SET jobqueue.statistics_interval = '2d';
\set VERBOSITY default
SELECT format('ALTER SYSTEM SET jobqueue.%s = %L', name, value)
FROM (VALUES
	('event_prefix', ''), ('event_prefix', 'a b'), ('event_prefix', 'a.'), ('event_prefix', '.a'), ('event_prefix', 'a..b'), ('event_prefix', 'ä'),
	('event_prefix', '"a"'), ('event_prefix', repeat('a', 64)),
	('service_name', ''), ('service_name', E'a\nb'), ('service_name', 'ä'), ('service_name', repeat('a', 256))) AS bad(name, value)
\gexec

-- Where requests may go.
SELECT format('ALTER SYSTEM SET jobqueue.http_%s = %L', CASE WHEN name IN ('proxy', 'ca_file') THEN name ELSE 'allow_' || name END, value)
FROM (VALUES
	('hosts', 'a b'), ('hosts', 'a,,b'), ('hosts', ','), ('hosts', '*.'), ('hosts', '*a'), ('hosts', 'a.*'), ('hosts', '*.*.a'), ('hosts', 'a..b'),
	('hosts', '.a'), ('hosts', 'a.'), ('hosts', 'a:80'), ('hosts', 'http://a'), ('hosts', '[::1]'), ('hosts', '127.1'), ('hosts', '*.1'),
	('hosts', '0x7f.0x1'), ('hosts', 'münchen.example'), ('hosts', repeat('a', 64)), ('hosts', '"a"'),
	('cidrs', '10.0.0.1/8'), ('cidrs', '10.0.0.0/33'), ('cidrs', '10/8'), ('cidrs', '10.0.0.0/'), ('cidrs', '10.0.0.0/-1'), ('cidrs', '010.0.0.0/8'),
	('cidrs', '10.0.0.0/8,'), ('cidrs', 'fd00::1/8'), ('cidrs', 'fd00::/129'), ('cidrs', '::/0x0'), ('cidrs', 'localhost'), ('cidrs', '*'), ('cidrs', 'fe80::1%eth0'),
	('ports', ''), ('ports', '0'), ('ports', '65536'), ('ports', '80;443'), ('ports', '-1'), ('ports', '80-'), ('ports', '-'), ('ports', '90-80'), ('ports', '80,'), ('ports', 'http'),
	('ports', '1-2-3'), ('ports', '080000'),
	('proxy', 'proxy'), ('proxy', 'socks5://a'), ('proxy', 'http://'), ('proxy', 'http://u:p@a'), ('proxy', 'http://a/path'), ('proxy', 'http://a?q'), ('proxy', 'http://a:0'),
	('proxy', 'http://a:b'), ('proxy', 'http://[::1'), ('proxy', 'http://[a]'), ('proxy', 'http://a b'), ('proxy', 'http://1.2.3'), ('proxy', 'http://[::1]x'),
	('ca_file', 'ca.pem'), ('ca_file', E'/a\nb')) AS bad(name, value)
\gexec

-- Where monitors listen.
SELECT format('ALTER SYSTEM SET jobqueue.monitor = %L', value)
FROM (VALUES
	('9187'), ('database'), ('port = 9187'), ('Port=9187'), ('database=a role=b'), ('database=a port=1'), ('role=b port=1'), ('database=a role=b port=1,'),
	(', database=a role=b port=1'), ('database=a role=b port=1,,database=a role=b port=2'), ('database=a role=b port=0'), ('database=a role=b port=65536'), ('database=a role=b port=-1'),
	('database=a role=b port=1x'), ('database=a role=b port='), ('database=a role=b port=1 port=2'), ('database=a database=c role=b port=1'), ('database= role=b port=1'),
	('database=' || repeat('a', 64) || ' role=b port=1'), ('database="a role=b port=1'), ('database="a"b role=b port=1'), ('database=a"b role=b port=1'),
	('database=a role=b port=1 address=localhost'), ('database=a role=b port=1 address=127.1'), ('database=a role=b port=1 address=[::1]'), ('database=a role=b port=1 address=::1 address=::1'),
	('database=a role=b port=1 host=a:1'), ('database=a role=b port=1 host='), ('database=a role=b port=1 host=münchen'), ('database=a role=b port=1 tls=on'),
	('database=a role=b port=1, database=c role=d port=1'), ((SELECT string_agg('database=a role=b port=' || n, ', ') FROM generate_series(1, 17) n))) AS bad(value)
\gexec
ALTER SYSTEM SET jobqueue.monitor = 'database="my ""app"", 1" role=obs port=9187 host=db.example.org host=db, database=b role=b port=9187 address=::1';
ALTER SYSTEM SET jobqueue.monitor_token_file = 'token';
\set VERBOSITY sqlstate
ALTER SYSTEM SET jobqueue.lease = '2d';
ALTER SYSTEM SET jobqueue.poll_interval = '0.01s';
ALTER SYSTEM SET jobqueue.max_payload = '300MB';
SELECT format('ALTER SYSTEM SET %s = %L', name, v)
FROM pg_settings, LATERAL (VALUES
		(1, (min_val::bigint - 1)::text), (2, (max_val::bigint + 1)::text), (3, ''),
		(4, 'banana'), (5, '99999999999999999999'), (6, 'NaN')) AS bad(n, v)
WHERE name LIKE 'jobqueue.%' AND vartype = 'integer' ORDER BY name COLLATE "C", n
\gexec
SELECT format('ALTER SYSTEM SET %s = %L', name, '') FROM pg_settings
WHERE name LIKE 'jobqueue.%' AND vartype IN ('bool', 'enum') ORDER BY name COLLATE "C"
\gexec

-- Values at the bounds are accepted, in any unit of the kind, quoted names too.
SELECT format('ALTER SYSTEM SET %s = %L', name, v)
FROM pg_settings, LATERAL (VALUES (1, min_val), (2, max_val)) AS good(n, v)
WHERE name LIKE 'jobqueue.%' AND vartype = 'integer' ORDER BY name COLLATE "C", n
\gexec
ALTER SYSTEM SET jobqueue.lease = '24h';
ALTER SYSTEM SET jobqueue.poll_interval = '1.5s';
ALTER SYSTEM SET jobqueue.databases = '*';
ALTER SYSTEM SET jobqueue.databases = 'one, "Two, three"';
ALTER SYSTEM SET jobqueue.run_job_types = '';
ALTER SYSTEM SET jobqueue.http_allow_hosts = '*.Example.com , example.com,192.0.2.1, fd00::1', a_b, '*';
ALTER SYSTEM SET jobqueue.http_allow_hosts = '';
ALTER SYSTEM SET jobqueue.http_allow_cidrs = '10.0.0.0/8, 10.1.2.3,fd00::/8', '::/0';
ALTER SYSTEM SET jobqueue.http_allow_cidrs = '';
ALTER SYSTEM SET jobqueue.http_allow_ports = 80, 443, '8000-8100 , 65535';
ALTER SYSTEM SET jobqueue.http_allow_ports = '*';
ALTER SYSTEM SET jobqueue.http_proxy = 'http://proxy';
ALTER SYSTEM SET jobqueue.http_proxy = 'HTTPS://[fd00::1]:3128/';
ALTER SYSTEM SET jobqueue.http_proxy = 'http://10.0.0.1:3128';
ALTER SYSTEM SET jobqueue.http_proxy = '';
ALTER SYSTEM SET jobqueue.http_ca_file = '/etc/ssl/of mine.pem';
ALTER SYSTEM SET jobqueue.http_ca_file = '';
SELECT format('ALTER SYSTEM RESET %s', name) FROM pg_settings
WHERE name LIKE 'jobqueue.%' ORDER BY name COLLATE "C"
\gexec
\set VERBOSITY default

-- The prefix is taken: what is not a setting is a mistake.
SET jobqueue.leese = 1;
\echo :SQLSTATE
SELECT set_config('jobqueue.x', '1', true);
\echo :SQLSTATE
SHOW jobqueue.x;
\echo :SQLSTATE

-- Ordinary roles see the values and change none.
CREATE ROLE regress_settings;
SET ROLE regress_settings;
SHOW jobqueue.max_attempts;
SET jobqueue.max_attempts = 1;
ALTER SYSTEM SET jobqueue.max_attempts = 1;
\echo :SQLSTATE
RESET ROLE;
DROP ROLE regress_settings;
