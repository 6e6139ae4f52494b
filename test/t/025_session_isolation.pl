# Jobs that share a session, and even a transaction, do not see each other.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster;
use JobQueue::SqlJobs;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
jobqueue.max_executors = 1
jobqueue.retry_delay = 0
jobqueue.executor_idle_timeout = 1min
jobqueue.max_payload = 4MB
autovacuum = off
CONF
my $jobs = JobQueue::SqlJobs->new($node);

$jobs->query(q{
	CREATE ROLE friend;
	GRANT friend TO alice;
	GRANT pg_read_all_stats TO alice;
	GRANT ALL ON effects TO friend;
	CREATE SEQUENCE numbers;
	GRANT ALL ON numbers TO alice, friend;
	CREATE TABLE parents (a int PRIMARY KEY);
	CREATE TABLE children (a int REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
	CREATE SCHEMA elsewhere;
	CREATE FUNCTION record_role() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF NEW.what = 'late failure' THEN RAISE EXCEPTION 'too late'; END IF;
		INSERT INTO effects VALUES (NEW.job_id, 'deferred for ' || current_user);
		RETURN NULL;
	END $$;
	CREATE TABLE watched (job_id bigint, what text);
	CREATE CONSTRAINT TRIGGER late AFTER INSERT ON watched DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION record_role();
	GRANT ALL ON ALL TABLES IN SCHEMA public TO alice, friend;
	GRANT ALL ON SCHEMA public, elsewhere TO alice, friend;
});

sub ends
{
	my ($columns, @ids) = @_;

	return $jobs->query("SELECT $columns FROM jobs_queue WHERE id IN (" . join(',', @ids) . ') ORDER BY id');
}

# What the first job leaves and what the second then sees, side by side in one
# transaction; where that cannot be, at least one after the other.
my @leaves = (
	[ q{SET work_mem = '1234kB'}, q{SELECT current_setting('work_mem') AS x}, '{"x": "4MB"}' ],
	[ q{SET LOCAL work_mem = '1234kB'}, q{SELECT current_setting('work_mem') AS x}, '{"x": "4MB"}' ],
	[ q{SELECT set_config('work_mem', '1234kB', false)}, q{SELECT current_setting('work_mem') AS x}, '{"x": "4MB"}' ],
	[ q{SELECT set_config('work_mem', '1234kB', true)}, q{SELECT current_setting('work_mem') AS x}, '{"x": "4MB"}' ],
	[ q{SET my.setting = 'secret'}, q{SELECT coalesce(current_setting('my.setting', true), '') AS x}, '{"x": ""}' ],
	[ q{SET LOCAL my.other = 'secret'}, q{SELECT coalesce(current_setting('my.other', true), '') AS x}, '{"x": ""}' ],
	[ q{SET ROLE friend}, q{SELECT current_user AS u, current_setting('role') AS r}, '{"r": "none", "u": "alice"}' ],
	[ q{SET LOCAL ROLE friend}, q{SELECT current_user AS u, current_setting('role') AS r}, '{"r": "none", "u": "alice"}' ],
	[ q{SET SESSION AUTHORIZATION alice}, q{SELECT session_user AS u}, '{"u": "alice"}' ],
	[ q{SET search_path = elsewhere}, q{SELECT current_schema() AS x}, '{"x": "public"}' ],
	[ q{SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'German'}, q{SELECT date '2026-02-01'::text AS d}, '{"d": "2026-02-01"}' ],
	[ q{SET statement_timeout = 1; SET lock_timeout = 1}, q{SELECT 1 AS x FROM (SELECT pg_sleep(0.01)) s}, '{"x": 1}' ],
	[ q{SET client_min_messages = error}, q{SELECT current_setting('client_min_messages') AS x}, '{"x": "notice"}' ],
	[ q{SELECT set_config('transaction_read_only', 'on', true)}, q{INSERT INTO effects VALUES ($2, 'written') RETURNING what AS x}, '{"x": "written"}' ],
	[ q{SET default_transaction_read_only = on}, q{INSERT INTO effects VALUES ($2, 'written') RETURNING what AS x}, '{"x": "written"}' ],
	[ q{PREPARE p AS SELECT 1}, q{SELECT count(*) AS x FROM pg_prepared_statements}, '{"x": 0}' ],
	[ q{DECLARE c CURSOR WITH HOLD FOR SELECT 1}, q{SELECT count(*) AS x FROM pg_cursors WHERE name <> ''}, '{"x": 0}' ],
	[ q{DECLARE c CURSOR FOR SELECT 1}, q{SELECT count(*) AS x FROM pg_cursors WHERE name = 'c'}, '{"x": 0}' ],
	[ q{SELECT nextval('numbers')}, q{SELECT currval('numbers')}, 'currval of sequence "numbers" is not yet defined in this session (55000)' ],
	[ q{SELECT nextval('numbers')}, q{SELECT lastval()}, 'lastval is not yet defined in this session (55000)' ],
	[ q{UNLISTEN *}, q{SELECT count(*) AS x FROM pg_listening_channels()}, '{"x": 0}' ],
	[ q{SET work_mem = '1234kB'; PREPARE p AS SELECT 1; SELECT nextval('numbers'), 1 / 0}, q{SELECT current_setting('work_mem') AS w, (SELECT count(*) FROM pg_prepared_statements) AS p}, '{"p": 0, "w": "4MB"}' ],
	[ q{SET ROLE friend; SELECT 1 / 0}, q{SELECT current_user AS u}, '{"u": "alice"}' ],
	[ q{SELECT 1 / 0}, q{SELECT job_id = $2 AS mine, attempt AS n FROM current_job()}, '{"n": 1, "mine": true}' ],
	[ q{DO 'BEGIN SET CONSTRAINTS ALL IMMEDIATE; END'}, q{INSERT INTO children VALUES (99); DELETE FROM children; SELECT 1 AS x}, '{"x": 1}', 'apart' ],
	[ q{SET CONSTRAINTS ALL IMMEDIATE}, q{INSERT INTO children VALUES (99); DELETE FROM children; SELECT 1 AS x}, '{"x": 1}', 'apart' ],
	[ q{CREATE TEMP TABLE effects AS SELECT 1}, q{SELECT to_regclass('pg_temp.effects') AS x}, '{"x": null}', 'apart' ],
	[ q{CREATE TEMP TABLE t ON COMMIT PRESERVE ROWS AS SELECT 1}, q{SELECT * FROM t}, 'relation "t" does not exist (42P01)', 'apart' ],
	[ q{CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1}, q{SELECT * FROM t}, 'relation "t" does not exist (42P01)', 'apart' ],
	[ q{CREATE TEMP TABLE t AS SELECT 1; SELECT 1 / 0}, q{SELECT to_regclass('pg_temp.t') AS x}, '{"x": null}', 'apart' ],
	[ q{CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'}, q{SELECT pg_temp.f()}, qr/\(3F000|42883\)/, 'apart' ],
	[ q{SELECT pg_advisory_lock(1)}, q{SELECT count(*) AS x FROM pg_locks WHERE locktype = 'advisory'}, '{"x": 0}', 'apart' ],
	[ q{SELECT pg_advisory_xact_lock_shared(1)}, q{SELECT count(*) AS x FROM pg_locks WHERE locktype = 'advisory'}, '{"x": 0}', 'apart' ],
	[ q{SELECT pg_advisory_lock(1), pg_advisory_lock(2), 1 / 0}, q{SELECT count(*) AS x FROM pg_locks WHERE locktype = 'advisory'}, '{"x": 0}', 'apart' ],
	[ q{LOCK TABLE watched}, q{SELECT count(*) AS x FROM pg_locks WHERE relation = 'watched'::regclass}, '{"x": 0}', 'apart' ],
	[ q{VACUUM watched; SET work_mem = '1234kB'; SET ROLE friend}, q{SELECT current_setting('work_mem') AS w, current_user AS u}, '{"u": "alice", "w": "4MB"}', 'apart' ],
	[ q{BEGIN; CREATE TEMP TABLE t AS SELECT 1; COMMIT; DECLARE c CURSOR WITH HOLD FOR SELECT 1}, q{SELECT (SELECT count(*) FROM pg_cursors WHERE name = 'c') AS c, to_regclass('pg_temp.t') AS t}, '{"c": 0, "t": null}', 'apart' ],
);
for (@leaves)
{
	my ($leave, $look, $seen, $apart) = @$_;
	my @ids;

	if ($apart)
	{
		$jobs->warm_up;
		@ids = $jobs->enqueue_together($leave, $look);
		$jobs->wait_until_gone(@ids);
	}
	else
	{
		@ids = $jobs->in_company($leave, $look);
	}
	is(ends('status, split_part(last_error, chr(10), 1)', $ids[0]), $leave =~ m{1 / 0} ? 'failed|division by zero (22012)' : 'completed|', "a job that runs: $leave");
	like(ends('coalesce(last_error, result::text)', $ids[1]), ref $seen ? $seen : qr/^\Q$seen\E$/, "what another sees of it: $look");
}
my $id = $jobs->enqueue('LISTEN x');
like($jobs->ended($id, 'last_error'), qr/cannot execute LISTEN within a background process \(0A000\)/, 'nobody would hear what a job listens to');

# A superuser's jobs, too
$jobs->configure('jobqueue.allow_superuser_jobs' => 'on');
$jobs->query(q{SELECT enqueue_sql('SET SESSION AUTHORIZATION friend; SELECT 1')});
$id = $jobs->query(q{SELECT enqueue_sql('SELECT session_user AS s, current_user AS c')});
my $superuser = $jobs->query('SELECT current_user');
is($jobs->ended($id, 'result'), qq({"c": "$superuser", "s": "$superuser"}), 'a superuser who becomes another is the superuser again');
$jobs->configure('jobqueue.allow_superuser_jobs' => 'off');

# Deferred triggers; what is tried until it runs in company must bear repetition
my @ids = $jobs->in_company(q{INSERT INTO watched VALUES ($2, 'a')}, q{SET ROLE friend; INSERT INTO watched VALUES ($2, 'b')},
	q{INSERT INTO watched VALUES ($2, 'late failure')}, q{INSERT INTO watched VALUES ($2, 'c')}, q{SELECT count(*) AS x FROM effects WHERE what = 'deferred for alice' AND job_id = $2 - 1});
is(ends('status, split_part(last_error, chr(10), 1)', @ids), "completed|\ncompleted|\nfailed|too late (P0001)\ncompleted|\ncompleted|", 'a deferred trigger fails its own job only');
is($jobs->query("SELECT job_id - $ids[0], what FROM effects WHERE job_id BETWEEN $ids[0] AND $ids[-1] AND what LIKE 'deferred%' ORDER BY 1"),
	"0|deferred for alice\n1|deferred for friend\n3|deferred for alice", 'each fires once, as the role of its job');
is(ends('result', $ids[4]), '{"x": 1}', 'and before the next job begins');
@ids = $jobs->in_company('SELECT 1', 'INSERT INTO children VALUES (-1)',
	'INSERT INTO children VALUES ($2); INSERT INTO parents VALUES ($2)', 'SELECT 1');
like(ends('last_error', $ids[1]), qr/violates foreign key constraint .* \(23503\)/, 'a deferred foreign key fails its own job');
is(ends('status', @ids), "completed\nfailed\ncompleted\ncompleted", 'only');

# Notifications
my $listener = JobQueue::Session->new($node);
$listener->query('LISTEN news');
@ids = $jobs->in_company(q{NOTIFY news, 'first'}, q{NOTIFY news, 'never'; SELECT 1 / 0}, q{SELECT pg_notify('news', 'last')});
my $heard = $listener->query('SELECT 1');
$heard .= $listener->query('SELECT 1') until $heard =~ /last/;
is(join(' ', $heard =~ /with payload "(\w+)"/g), 'first last', 'jobs that fail notify nobody');
$listener->quit;

# Limits of time: the smallest wins, in company and alone
$jobs->as_alice(q{INSERT INTO job_types (job_type, runner, command, timeout) VALUES
	('slow', 'sql', 'SELECT pg_sleep(600)', '10min'), ('limited', 'sql', 'SELECT pg_sleep(600)', '150ms')});
for ([ \q{enqueue_job('slow', timeout => '150ms', max_attempts => 1)}, 'the job' ],
	[ \q{enqueue_job('limited', timeout => '10min', max_attempts => 1)}, 'the type' ],
	[ \q{enqueue_job('limited', max_attempts => 1)}, 'the type alone' ],
	[ [ 'SELECT pg_sleep(600)', q{timeout => '30ms'} ], 'the job, before its batch ends' ])
{
	@ids = $jobs->behind('SELECT 1', 'SELECT 2', $_->[0]);
	is(ends('status, attempts, last_error', $ids[2]), 'failed|1|canceling statement due to statement timeout (57014)', "the limit of $_->[1]");
	is(ends('status, attempts', @ids[ 0, 1 ]), "completed|1\ncompleted|1", 'is for itself');
}
$id = $jobs->enqueue(\q{enqueue_job('sql', '{"mode": "autonomous", "command": "SELECT 1; SELECT pg_sleep(600)"}', timeout => '150ms', max_attempts => 1)});
is($jobs->ended($id, 'last_error'), 'canceling statement due to statement timeout (57014)', 'an autonomous job has a limit');
for my $setting (grep { $jobs->query("SELECT count(*) FROM pg_settings WHERE name = '$_'") } qw(statement_timeout transaction_timeout))
{
	$jobs->query("ALTER ROLE alice SET $setting = '150ms'");
	$jobs->restart_executors;
	@ids = $jobs->enqueue_together(\q{enqueue_job('slow', timeout => '10min', max_attempts => 1)}, 'SELECT 1', q{SELECT deadline - clock_timestamp() < '1 s' AS soon FROM current_job()});
	$jobs->wait_until_gone(@ids);
	is(ends('status, last_error, result', @ids), qq(failed|canceling statement due to statement timeout (57014)|\ncompleted||{"?column?": 1}\ncompleted||{"soon": true}), "$setting of the role");
	$jobs->query("ALTER ROLE alice RESET $setting");
}

# Settings of the role are those of its jobs, and none of ours
my %settings = (
	default_transaction_isolation => 'serializable',
	default_transaction_read_only => 'on',
	default_transaction_deferrable => 'on',
	DateStyle => 'German',
	IntervalStyle => 'sql_standard',
	bytea_output => 'escape',
	row_security => 'off',
	standard_conforming_strings => 'off',
	search_path => 'elsewhere',
	idle_in_transaction_session_timeout => '1ms',
	client_min_messages => 'error',
	role => 'friend',
	synchronous_commit => 'off',
	enable_indexscan => 'off',
);
for (sort keys %settings)
{
	$jobs->query("ALTER ROLE alice SET $_ = '$settings{$_}'");
	$jobs->restart_executors;
	@ids = $jobs->in_company(("SELECT current_setting('$_') AS x") x 2, q{SELECT 1 / 0}, "SELECT current_setting('$_') AS x");
	like(ends('status, attempts, result', @ids), $_ eq 'role' ? qr/^(?:completed\|1\|\{"x": "none"}\n){2}failed\|1\|\ncompleted\|1\|\{"x": "none"}$/
		: qr/^(?:completed\|1\|\{"x": "\Q$settings{$_}\E.*"}\n){2}failed\|1\|\ncompleted\|1\|\{"x": "\Q$settings{$_}\E.*"}$/, "$_ = $settings{$_}, and the ends are recorded");
	$id = $jobs->enqueue(\qq{enqueue_job('sql', '{"mode": "autonomous", "command": "SELECT current_setting(''$_'') AS x"}', timeout => '1min', max_attempts => 1)});
	like($jobs->ended($id, 'status, result'), $_ eq 'role' ? qr/completed.*none/ : qr/^completed\|\{"x": "\Q$settings{$_}\E/, 'in mode autonomous, too');
	$jobs->query("ALTER ROLE alice RESET $_");
}
$jobs->query(q{ALTER ROLE alice SET default_transaction_read_only = on});
$jobs->restart_executors;
@ids = $jobs->in_company('SELECT 1', q{INSERT INTO effects VALUES ($2, 'never')}, 'SELECT 1');
is(ends('last_error', $ids[1]), 'cannot execute INSERT in a read-only transaction (25006)', 'a role that only reads');
$jobs->query('ALTER ROLE alice RESET ALL');
$jobs->restart_executors;

# Large things
@ids = $jobs->in_company(q{SELECT repeat('x', 100000) AS x}, q{SELECT repeat(md5('a'), 20000) AS x FROM generate_series(1, 3)}, q{SELECT length($1->>'x') AS x});
is(ends('status, result', @ids), "completed|\ncompleted|\ncompleted|{\"x\": null}", 'results that are too large are not kept');
is($jobs->query("SELECT string_agg(command_tag, ',' ORDER BY job_id) FROM job_runs WHERE job_id BETWEEN $ids[0] AND $ids[2]"), 'SELECT 1,SELECT 3,SELECT 1', 'their tags are');
@ids = $jobs->behind('SELECT 1', 'SELECT 1', q{DO $do$ BEGIN RAISE EXCEPTION 'x%', repeat(chr(233), 5000000) USING DETAIL = repeat('d', 5000000); END $do$});
is(ends(q{status, octet_length(last_error) BETWEEN 4000 AND 8200, last_error LIKE 'x' || repeat(chr(233), 100) || '%'}, $ids[2]), 'failed|t|t', 'an error text of 10 MB is cut');
is($jobs->query("SELECT octet_length(error) BETWEEN 4000 AND 8200 FROM job_runs WHERE job_id = $ids[2]"), 't', 'in the run, too');
my $noisy = q{DO $do$ BEGIN FOR i IN 1 .. 100000 LOOP RAISE NOTICE 'notice %', i; END LOOP; END $do$; SELECT sum(total_bytes) AS bytes FROM pg_backend_memory_contexts};
my $quiet = $jobs->ended($jobs->enqueue('SELECT sum(total_bytes) AS bytes FROM pg_backend_memory_contexts'), q{result->>'bytes'});
for my $mode (qw(batched alone autonomous))
{
	$id = $jobs->enqueue(\"enqueue_job('sql', jsonb_build_object('command', \$cmd\$$noisy\$cmd\$, 'mode', '$mode'))");
	cmp_ok($jobs->ended($id, q{result->>'bytes'}), '<', $quiet + 2_000_000, "$mode: 100,000 notices take no memory");
	is($jobs->query("SELECT count(*), count(*) FILTER (WHERE level = 'notice'), max(message) FILTER (WHERE level = 'warning') FROM job_logs WHERE job_id = $id"),
		'101|100|99900 more lines were not kept', 'and are kept up to a cap');
}
unlike(slurp_file($node->logfile), qr/NOTICE:  notice /, 'the server log has none of them');
$jobs->warm_up;
@ids = split /\n/, $jobs->as_alice(q{SELECT enqueue_sql('SELECT length($1->>''x'') AS x', jsonb_build_object('x', repeat(md5(i::text), 32 * 1024))) FROM generate_series(1, 60) i});
$jobs->wait_until_gone(@ids);
is($jobs->query("SELECT DISTINCT status, result, attempts FROM jobs_queue WHERE id BETWEEN $ids[0] AND $ids[-1]"), 'completed|{"x": 1048576}|1', 'payloads of 1 MB');

# What a job says is kept once, whatever became of its batch
$jobs->warm_up;
@ids = $jobs->enqueue_together(q{DO 'BEGIN RAISE NOTICE ''hello''; END'}, q{SELECT job_log('hi', 'debug', '{"a": 1}'); SELECT 1 / 0}, q{DELETE FROM jobs_queue WHERE id = $2}, q{DO 'BEGIN RAISE WARNING ''bye''; END'});
$jobs->wait_until_gone(@ids);
is(ends('status', @ids), "completed\nfailed\nfailed\ncompleted", 'a batch that is run again');
is($jobs->query("SELECT job_id - $ids[0], claim_no, level, message, data FROM job_logs WHERE job_id BETWEEN $ids[0] AND $ids[-1] ORDER BY job_id"),
	qq(0|1|notice|hello|\n1|1|debug|hi|{"a": 1}\n3|1|warning|bye|), 'each line is there once');

$jobs->disconnect;
$node->stop('fast');
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
