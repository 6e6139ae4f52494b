# SQL jobs of superusers: refused at once where jobqueue.allow_superuser_jobs is
# off, as it is by default, and never run there, however they came to be.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# The default, which the settings of this server would hide.
my $node = JobQueue::Cluster->new('main', conf => 'jobqueue.retry_delay = 0');
my $default = $node->safe_psql('postgres', q{SELECT boot_val FROM pg_settings WHERE name = 'jobqueue.allow_superuser_jobs'});
is($default, 'off', 'off by default');

# What was there before, from a time when the setting was on
$node->safe_psql('postgres', 'ALTER SYSTEM SET jobqueue.enabled = off');
$node->restart;
$node->safe_psql('postgres', q{
	CREATE ROLE app LOGIN;
	CREATE ROLE boss SUPERUSER LOGIN;
	GRANT boss TO app;
	SELECT grant_job_role('app', r) FROM unnest('{producer,operator}'::text[]) r;
	SELECT enqueue_sql('SELECT 1', correlation_id => 'old job');
	INSERT INTO job_types (job_type, runner, command) VALUES ('old_type', 'sql', 'SELECT 1');
	INSERT INTO job_types (job_type, owner, runner, command) VALUES ('of_app', 'app', 'sql', 'SELECT current_user AS who');
	SELECT enqueue_job('old_type');
	SELECT schedule_sql('old task', '@yearly', 'SELECT 1');
	UPDATE cron_tasks SET next_run_at = now() - interval '1 minute';
});
my $dump = $node->basedir . "/before.sql";
$node->command_ok([ "pg_dump", "-f", $dump, $node->connstr("postgres") ], "a dump is taken");
$node->append_conf('postgresql.conf', "jobqueue.allow_superuser_jobs = $default");
$node->safe_psql('postgres', 'ALTER SYSTEM RESET jobqueue.enabled');
$node->restart;

wait_for_query($node, q{SELECT count(*) FROM jobs_queue_live}, 0);
is($node->safe_psql('postgres', q{SELECT coalesce(correlation_id, job_type), status, attempts, last_error FROM jobs_queue ORDER BY id}),
	join("\n", map { qq{$_|failed|0|role "postgres" is a superuser, and jobqueue.allow_superuser_jobs is off (42501)} } 'old job', 'old_type'),
	'old jobs are rejected with the reason');
wait_for_query($node, q{SELECT NOT enabled FROM cron_tasks});
is($node->safe_psql('postgres', 'SELECT disabled_reason FROM cron_tasks'), 'SQL jobs cannot run as superuser "postgres" while jobqueue.allow_superuser_jobs is off', 'an old task is disabled with the reason');
$node->safe_psql('postgres', 'DELETE FROM jobs_queue; DELETE FROM cron_tasks');

# Every way to a new one
my $refusal = qr/ERROR:  42501: SQL jobs cannot run as superuser "(?:postgres|boss|app)" while jobqueue\.allow_superuser_jobs is off\nHINT:  Enqueue as another role, name one in run_as or owner, or turn the setting on and restart the server\./;

sub refused
{
	my ($sql, $role, $what) = @_;
	my $stderr;

	$node->psql('postgres', "\\set VERBOSITY verbose\n\\set SHOW_CONTEXT never\nSET SESSION AUTHORIZATION $role;\n$sql", stderr => \$stderr);
	like($stderr, $refusal, "refused: $what");
}

refused(q{SELECT enqueue_sql('SELECT 1')}, 'postgres', 'enqueue_sql');
refused(q{SELECT enqueue_sql('SELECT 1', run_as => 'boss')}, 'postgres', 'enqueue_sql as another superuser');
refused(q{SELECT enqueue_sql('SELECT 1', run_as => 'boss')}, 'app', 'enqueue_sql by a member of a superuser');
refused(q{SELECT enqueue_sql('SELECT 1', unique_key => 'k', unique_mode => 'replace')}, 'postgres', 'enqueue_sql with a key');
refused(q{SELECT enqueue_sql('SELECT 1', depends_on => '{1}')}, 'postgres', 'enqueue_sql of a job that waits');
refused(q{SELECT enqueue_job('sql', '{"command": "SELECT 1"}')}, 'postgres', 'enqueue_job');
refused(q{SELECT enqueue_jobs('sql', ARRAY['{"command": "SELECT 1"}']::jsonb[])}, 'postgres', 'enqueue_jobs');
refused(q{SELECT enqueue_job_batch('[{"job_type": "sql", "payload": {"command": "SELECT 1"}}]')}, 'postgres', 'enqueue_job_batch');
refused(q{INSERT INTO jobs_queue (job_type, payload) VALUES ('sql', '{"command": "SELECT 1"}')}, 'postgres', 'INSERT');
refused(q{INSERT INTO jobs_queue (job_type, payload, owner) VALUES ('sql', '{"command": "SELECT 1"}', 'boss')}, 'app', 'INSERT for a superuser');
refused(q{INSERT INTO jobs_queue_live (job_type, payload) VALUES ('sql', '{"command": "SELECT 1"}')}, 'postgres', 'INSERT into the leaf');
refused(qq{COPY jobs_queue (job_type, payload) FROM STDIN;\nsql\t{"command": "SELECT 1"}\n\\.\n}, 'postgres', 'COPY');
refused(q{SELECT schedule_sql('t', '@hourly', 'SELECT 1')}, 'postgres', 'schedule_sql');
refused(q{SELECT schedule_sql('t', '@hourly', 'SELECT 1', run_as => 'boss')}, 'app', 'schedule_sql as a superuser');
refused(q{SELECT schedule_cron_task('t', '@hourly', 'sql', '{"command": "SELECT 1"}')}, 'postgres', 'schedule_cron_task');
refused(q{INSERT INTO job_types (job_type, runner, command) VALUES ('t', 'sql', 'SELECT 1')}, 'postgres', 'a job type');
refused(q{INSERT INTO job_types (job_type, owner, runner, command) VALUES ('t', 'boss', 'sql', 'SELECT 1')}, 'app', 'a job type for a superuser');
refused(q{UPDATE job_types SET owner = 'boss' WHERE job_type = 'of_app'}, 'app', 'a job type given to a superuser');
refused(q{UPDATE job_types SET command = 'SELECT 2' WHERE job_type = 'old_type'}, 'postgres', 'a new command for an old job type');
refused(q{INSERT INTO job_types (job_type, runner, command) VALUES ('of_app', 'sql', 'SELECT 1') ON CONFLICT (job_type) DO UPDATE SET owner = EXCLUDED.owner}, 'postgres', 'an upsert of a job type');
$node->safe_psql('postgres', q{
	SET SESSION AUTHORIZATION app;
	SELECT enqueue_sql('SELECT 1', scheduled_at => now() + interval '1 hour', correlation_id => 'later'),
		enqueue_job('other', '{"command": "SELECT 1"}', now() + interval '1 hour', correlation_id => 'other');
	RESET SESSION AUTHORIZATION;
	UPDATE jobs_queue SET owner = 'boss' WHERE correlation_id = 'other'});
refused(q{UPDATE jobs_queue SET owner = 'boss' WHERE correlation_id = 'later'}, 'app', 'UPDATE of owner');
refused(q{UPDATE jobs_queue SET job_type = 'sql' WHERE correlation_id = 'other'}, 'app', 'UPDATE of job_type');
is($node->safe_psql('postgres', q{SELECT string_agg(correlation_id, ',' ORDER BY id) FROM jobs_queue}), 'later,other', 'nothing was written');
is($node->safe_psql('postgres', 'SELECT count(*) FROM cron_tasks'), '0', 'nor scheduled');

# What a superuser may do all the same
my $id = $node->safe_psql('postgres', q{SELECT enqueue_sql('SELECT current_user AS who, session_user AS session', run_as => 'app')});
wait_for_query($node, "SELECT status FROM jobs_queue WHERE id = $id", 'completed');
is($node->safe_psql('postgres', "SELECT owner, result FROM jobs_queue WHERE id = $id"), 'app|{"who": "app", "session": "app"}', 'run_as an ordinary role');
$id = $node->safe_psql('postgres', q{SELECT enqueue_job('of_app')});
wait_for_query($node, "SELECT status FROM jobs_queue WHERE id = $id", 'completed');
is($node->safe_psql('postgres', "SELECT owner, result FROM jobs_queue WHERE id = $id"), 'postgres|{"who": "app"}', 'enqueue for the job type of another');
$node->safe_psql('postgres', q{
	SELECT schedule_sql('tick', 'every 1 minute', 'SELECT current_user AS who', run_as => 'app');
	SELECT schedule_sql('tick', 'every 2 minutes', 'SELECT current_user AS who');
	UPDATE cron_tasks SET next_run_at = now()});
wait_for_query($node, q{SELECT count(*) FROM jobs_queue WHERE cron_task_id IS NOT NULL AND owner = 'app'::regrole AND status = 'completed' AND result = '{"who": "app"}'}, 1);
pass('schedule_sql with run_as, and change such a task without');
$node->safe_psql('postgres', q{
	SELECT enqueue_job('outside');
	INSERT INTO job_types (job_type, runner) VALUES ('outside', 'external'), ('sql', 'sql');
	UPDATE job_types SET enabled = false WHERE job_type = 'old_type'});
pass('work for outside workers, settings, and an end to old job types');

# A role that has become a superuser, and one that no longer is
$node->safe_psql('postgres', q{ALTER ROLE app SUPERUSER});
refused(q{SELECT enqueue_sql('SELECT 1')}, 'app', 'somebody who has become a superuser');
$node->safe_psql('postgres', q{ALTER ROLE app NOSUPERUSER});
$id = $node->safe_psql('postgres', q{SET SESSION AUTHORIZATION app; SELECT enqueue_sql('SELECT 1')});
wait_for_query($node, "SELECT status FROM jobs_queue WHERE id = $id", 'completed');
pass('and is none any more');

# A dump of the time before can be restored: refusing it would lose data
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', $dump ], 'a dump with jobs of superusers is restored');
$node->safe_psql('restored', 'SELECT activate_jobs()');
ok($node->poll_query_until('restored', 'SELECT count(*) = 2 AND bool_and(status = $$failed$$) FROM jobs_queue'), 'and they are rejected there');
is($node->safe_psql('restored', q{SELECT string_agg(job_type, ',' ORDER BY job_type) FROM job_types}), 'of_app,old_type', 'with all job types');

$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
