# SQL jobs in the server: whose they are, what they leave behind, how they end.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# One executor: what a job leaves behind, the next one would meet.
my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
jobqueue.max_executors = 1
jobqueue.retry_delay = 0
CONF

$node->safe_psql('postgres', q{
	CREATE ROLE alice LOGIN;
	CREATE ROLE friend;
	GRANT friend TO alice;
	GRANT ALL ON SCHEMA public TO alice;
	SELECT grant_job_role('alice', r) FROM unnest('{producer,operator}'::text[]) r;
	CREATE TABLE effects (job_id bigint, what text);
	GRANT ALL ON effects TO alice, friend;
});

# Enqueues a command for alice and returns the id of the job.
sub enqueue
{
	my ($command, $arguments) = @_;
	$arguments = defined $arguments ? ", $arguments" : '';

	return $node->safe_psql('postgres', "SELECT enqueue_sql(\$cmd\$$command\$cmd\$$arguments)",
		extra_params => [ '-U', 'alice' ]);
}

# The columns of a job once it has ended.
sub ended
{
	my ($id, $columns) = @_;

	wait_for_query($node, "SELECT count(*) FROM jobs_queue_done WHERE id = $id", 1);
	return $node->safe_psql('postgres', "SELECT $columns FROM jobs_queue WHERE id = $id");
}

# Success
my $id = enqueue(q{INSERT INTO effects VALUES ($2, $1->>'who') RETURNING what, 1 AS one}, q{payload => '{"who": "ann"}'});
is(ended($id, 'status, attempts, result'), 'completed|1|{"one": 1, "what": "ann"}', 'the first row is the result');
is($node->safe_psql('postgres', "SELECT what FROM effects WHERE job_id = $id"), 'ann', 'the effect is there');
is($node->safe_psql('postgres', "SELECT status, charged, claim_no, error IS NULL FROM job_runs WHERE job_id = $id"),
	'completed|t|1|t', 'the run is recorded');
is(ended(enqueue('SELECT'), 'status, result'), 'completed|{}', 'a row without columns');
is(ended(enqueue('DELETE FROM effects WHERE false'), 'status, result'), 'completed|', 'no row, no result');
is(ended(enqueue('SELECT pg_advisory_xact_lock(1)'), 'status, result'), 'completed|', 'void is no result');
is(ended(enqueue(q{SELECT repeat('x', 100000) AS long}), 'status, result'), 'completed|', 'a result that is too long is dropped');
is(ended(enqueue('SELECT i FROM generate_series(1, 100000) i'), 'status, result'), 'completed|{"i": 1}', 'only the first of many rows is kept');
is(ended(enqueue('CREATE TABLE made (a int); INSERT INTO made VALUES (1); SELECT a FROM made'), 'status, result'),
	'completed|{"a": 1}', 'statements that build on each other');

# Failure
$id = enqueue(q{INSERT INTO effects VALUES ($2, 'never'); SELECT 1/0}, 'max_attempts => 3');
is(ended($id, 'status, attempts, last_error'), 'failed|3|division by zero (22012)', 'a job is retried, then failed');
is($node->safe_psql('postgres', "SELECT count(*) FROM effects WHERE job_id = $id"), '0', 'nothing of it is left');
is($node->safe_psql('postgres', "SELECT claim_no, attempt, status, charged, error FROM job_runs WHERE job_id = $id ORDER BY 1"),
	join("\n", map { "$_|$_|failed|t|division by zero (22012)" } 1 .. 3), 'each attempt is recorded');
like(slurp_file($node->logfile), qr/LOG:  event=jobqueue\.worker\.job\.failed level=error .* jobId=$id jobType=sql .* attempt=3 maxAttempts=3 .* error="division by zero \(22012\)"/, 'and logged');
is(scalar(grep { /never/ && !/LOG:  statement:/ } split /\n/, slurp_file($node->logfile)), 0, 'the log does not show the command');

my @refused = (
	[ 'LISTEN x', qr/cannot execute LISTEN within a background process \(0A000\)/ ],
	[ 'SELECT nonsense', qr/column "nonsense" does not exist \(42703\)/ ],
	[ 'SELECT $3', qr/there is no parameter \$3 \(42P02\)/ ],
	[ q{INSERT INTO cron_tasks (id, name, schedule, job_type) VALUES (1, 'a', '@daily', 'b'), (1, 'a', '@daily', 'b')},
		qr/duplicate key value .* \(23505\)\nDETAIL:  Key /s ],
);
for (@refused)
{
	my ($command, $error) = @$_;
	like(ended(enqueue($command, 'max_attempts => 1'), 'last_error'), $error, "refused: $command");
}

# Whose session it is
is(ended(enqueue(q{SELECT session_user AS a, current_user AS b, current_setting('role') AS c}), 'result'),
	'{"a": "alice", "b": "alice", "c": "none"}', 'a job runs in a session of its owner');
is(ended(enqueue('RESET ROLE; RESET SESSION AUTHORIZATION; SELECT current_user AS a'), 'result'),
	'{"a": "alice"}', 'there is nothing behind it');
like(ended(enqueue('SET SESSION AUTHORIZATION postgres', 'max_attempts => 1'), 'last_error'),
	qr/permission denied to set session authorization|is not permitted/, 'and no way to a superuser');
$node->safe_psql('postgres', q{
	CREATE FUNCTION who() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN INSERT INTO effects VALUES (-1, ''deferred for '' || current_user); RETURN NULL; END';
	CREATE TABLE watched (a int);
	GRANT ALL ON watched TO alice;
	CREATE CONSTRAINT TRIGGER late AFTER INSERT ON watched DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION who();
});
is(ended(enqueue('INSERT INTO watched VALUES (1)'), 'status'), 'completed', 'a job with a deferred trigger');
is($node->safe_psql('postgres', 'SELECT what FROM effects WHERE job_id = -1'), 'deferred for alice', 'which runs as the owner too');

# What a job leaves behind
$id = enqueue(q{
	SET work_mem = '1234kB';
	SET search_path = pg_catalog;
	SET my.setting = 'x';
	SET default_transaction_read_only = on;
	SET ROLE friend;
	CREATE TEMP TABLE effects AS SELECT 1;
	PREPARE p AS SELECT 1;
	DECLARE c CURSOR WITH HOLD FOR SELECT 1;
	SELECT pg_advisory_lock(4711);
});
is(ended($id, 'status'), 'completed', 'a job that fills its session');
is(ended(enqueue(q{
	SELECT current_setting('work_mem') <> '1234kB' AS work_mem,
		current_setting('search_path') AS search_path,
		coalesce(current_setting('my.setting', true), '') AS placeholder,
		current_setting('transaction_read_only') AS read_only,
		current_user AS who,
		to_regclass('pg_temp.effects') AS temp,
		(SELECT count(*) FROM pg_prepared_statements) AS prepared,
		(SELECT count(*) FROM pg_cursors WHERE is_holdable) AS cursors,
		(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') AS locks
}), 'result'),
	'{"who": "alice", "temp": null, "locks": 0, "cursors": 0, "prepared": 0, "work_mem": true, "read_only": "off", "placeholder": "", "search_path": "\"$user\", public"}',
	'the next one does not see it');

# Settings of the role, which apply to the body and to nothing of ours
$node->safe_psql('postgres', q{ALTER ROLE alice SET default_transaction_read_only = on;
	ALTER ROLE alice SET default_transaction_isolation = 'repeatable read';
	ALTER ROLE alice SET work_mem = '4321kB';
	ALTER ROLE alice SET role = 'friend';
	ALTER ROLE alice SET statement_timeout = '700ms'});
wait_for_query($node, q{SELECT pg_terminate_backend(pid) FROM _server_workers() WHERE kind = 'executor' UNION ALL SELECT true LIMIT 1});
wait_for_query($node, q{SELECT count(*) FROM _server_workers() WHERE kind = 'executor'}, 0);
$id = $node->safe_psql('postgres', q{
	SET SESSION AUTHORIZATION alice;
	SET default_transaction_read_only = off;
	SELECT enqueue_sql('SELECT current_setting(''work_mem'') AS a, current_setting(''transaction_read_only'') AS b,
		current_setting(''transaction_isolation'') AS c, current_user AS d')});
is(ended($id, 'status, result'), 'completed|{"a": "4321kB", "b": "on", "c": "repeatable read", "d": "alice"}',
	'settings of the role reach the body, and the completion is written all the same');
$id = $node->safe_psql('postgres', q{
	SET SESSION AUTHORIZATION alice;
	SET default_transaction_read_only = off;
	SELECT enqueue_sql('SELECT pg_sleep(60)', max_attempts => 1)});
like(ended($id, 'last_error'), qr/statement timeout \(57014\)/, 'the statement_timeout of the role limits its jobs');
$node->safe_psql('postgres', 'ALTER ROLE alice RESET ALL; SELECT pg_terminate_backend(pid) FROM _server_workers() WHERE kind = \'executor\'');
wait_for_query($node, q{SELECT count(*) FROM _server_workers() WHERE kind = 'executor'}, 0);

# Timeouts and cancellation
$id = enqueue('SELECT pg_sleep(60)', q{timeout => '300ms', max_attempts => 1});
is(ended($id, 'status, last_error'), 'failed|canceling statement due to statement timeout (57014)', 'a timeout ends a job');
$id = enqueue('SELECT pg_sleep(60)', 'max_attempts => 1');
wait_for_query($node, "SELECT job_id = $id FROM _server_workers() WHERE kind = 'executor'");
$node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM _server_workers() WHERE kind = 'executor'});
is(ended($id, 'status, last_error'), 'failed|canceling statement due to user request (57014)', 'pg_cancel_backend fails the job');
$id = enqueue('SELECT pg_sleep(60)');
wait_for_query($node, "SELECT job_id = $id FROM _server_workers() WHERE kind = 'executor'");
is($node->safe_psql('postgres', "SELECT query FROM pg_stat_activity WHERE backend_type = 'jobqueue executor'"),
	"job $id (sql)", 'the activity names the job, not its command');
$node->safe_psql('postgres', "SELECT cancel_job($id)");
is(ended($id, 'status'), 'cancelled', 'a running job is really cancelled');

# A job type with a command runs as the owner of the type
$node->safe_psql('postgres', q{
	INSERT INTO job_types (job_type, runner, command) VALUES
		('greet', 'sql', 'INSERT INTO effects VALUES ($2, current_user || $1::text) RETURNING what');
}, extra_params => [ '-U', 'alice' ]);
$node->safe_psql('postgres', q{CREATE ROLE bob LOGIN; SELECT grant_job_role('bob', 'producer')});
$id = $node->safe_psql('postgres', q{SELECT enqueue_job('greet', '{"a": 1}')}, extra_params => [ '-U', 'bob' ]);
is(ended($id, 'status, owner, result'), 'completed|bob|{"what": "alice{\"a\": 1}"}', 'bob enqueues what alice defined');

# A job that loses its row is rolled back
$id = enqueue(q{INSERT INTO effects VALUES ($2, 'lost'); SELECT pg_advisory_lock(1); SELECT pg_sleep(0.1)});
wait_for_query($node, "SELECT count(*) FROM jobs_queue WHERE id = $id AND status = 'completed'", 1);
my $holder = $node->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(1)');
$id = enqueue(q{INSERT INTO effects VALUES ($2, 'lost'); SELECT pg_advisory_xact_lock(1)});
wait_for_query($node, "SELECT job_id = $id FROM _server_workers() WHERE kind = 'executor'");
$node->safe_psql('postgres', "DELETE FROM jobs_queue WHERE id = $id");
$holder->query_safe('SELECT pg_advisory_unlock(1)');
$holder->quit;
wait_for_query($node, q{SELECT count(*) FROM _server_workers() WHERE kind = 'executor' AND job_id IS NOT NULL}, 0);
is($node->safe_psql('postgres', "SELECT count(*) FROM effects WHERE job_id = $id"), '0', 'the effects of a job that was deleted meanwhile are rolled back');

# Exactly once, through several executors
$node->append_conf('postgresql.conf', 'jobqueue.max_executors = 4');
$node->reload;
$node->safe_psql('postgres', q{SELECT count(enqueue_sql('INSERT INTO effects VALUES ($2, ''once'')')) FROM generate_series(1, 2000)},
	extra_params => [ '-U', 'alice' ]);
wait_for_query($node, q{SELECT count(*) FROM jobs_queue_live}, 0);
is($node->safe_psql('postgres', q{SELECT count(*), count(DISTINCT job_id) FROM effects WHERE what = 'once'}),
	'2000|2000', '2000 jobs, 2000 effects');

# A long job does not hold up those that were claimed with it
$node->append_conf('postgresql.conf', "jobqueue.max_executors = 2");
$node->reload;
$node->safe_psql('postgres', q{SELECT enqueue_sql(CASE i WHEN 30 THEN 'SELECT pg_sleep(600)' ELSE 'SELECT 1' END) FROM generate_series(1, 60) i},
	extra_params => [ '-U', 'alice' ]);
wait_for_query($node, q{SELECT count(*) FROM jobs_queue_live}, 1);
pass('jobs behind a long one are given to others');

$node->stop('fast');
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
