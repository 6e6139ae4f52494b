# Jobs of roles that cannot run them are rejected with the reason, and nobody
# else notices.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main', conf => 'jobqueue.allow_superuser_jobs = off');
my $version = $node->safe_psql('postgres', q{SELECT current_setting('server_version_num')::int / 10000});

$node->safe_psql('postgres', q{
	REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;
	CREATE ROLE alice LOGIN;
	CREATE ROLE climber LOGIN;
	CREATE ROLE gone LOGIN;
	CREATE ROLE nologin;
	CREATE ROLE stranger LOGIN;
	GRANT CONNECT ON DATABASE postgres TO alice, climber, gone, nologin;
	GRANT ALL ON SCHEMA public TO alice;
	SELECT grant_job_role(r, 'producer') FROM unnest('{alice,climber,gone,nologin,stranger}'::regrole[]) r;
	SELECT grant_job_role('gone', 'operator');
});
wait_for_query($node, q{SELECT count(*) FROM _server_workers() WHERE kind = 'scheduler'}, 1);
my $scheduler = $node->safe_psql('postgres', q{SELECT pid FROM _server_workers() WHERE kind = 'scheduler'});

sub enqueue_as
{
	my ($role, $command, $arguments) = @_;

	return $node->safe_psql('postgres', "SET SESSION AUTHORIZATION $role; SELECT enqueue_sql(\$cmd\$$command\$cmd\$)");
}

# The columns of a job once it has ended.
sub ended
{
	my ($id, $columns) = @_;

	wait_for_query($node, "SELECT count(*) FROM jobs_queue_done WHERE id = $id", 1);
	return $node->safe_psql('postgres', "SELECT $columns FROM jobs_queue WHERE id = $id");
}

my $id = $node->safe_psql('postgres', q{
	SET SESSION AUTHORIZATION climber;
	SELECT enqueue_sql('SELECT 1', scheduled_at => clock_timestamp() + interval '500 ms');
	RESET SESSION AUTHORIZATION;
	ALTER ROLE climber SUPERUSER});
like(ended($id, 'status, attempts, last_error'),
	qr/^failed\|0\|role "climber" is a superuser, and jobqueue.allow_superuser_jobs is off \(42501\)$/, 'a superuser by the time that the job is due');
like(ended(enqueue_as('stranger', 'SELECT 1'), 'status, attempts, last_error'),
	qr/^failed\|0\|role "stranger" has no privilege to connect to database "postgres" \(42501\)$/, 'no CONNECT');
$id = enqueue_as('nologin', 'SELECT current_user AS a');
if ($version < 17)
{
	like(ended($id, 'status, attempts, last_error'),
		qr/^failed\|0\|role "nologin" is not permitted to log in \(28000\)\nHINT:  /, 'NOLOGIN');
}
else
{
	is(ended($id, 'status, result'), 'completed|{"a": "nologin"}', 'NOLOGIN does not matter');
}

# A role that is dropped with jobs in the queue, some of them for later
$id = $node->safe_psql('postgres', q{SET SESSION AUTHORIZATION gone;
	SELECT enqueue_sql('SELECT 1', scheduled_at => clock_timestamp() + interval '1 second')});
$node->safe_psql('postgres', q{
	SET SESSION AUTHORIZATION gone;
	INSERT INTO job_types (job_type, runner, command) VALUES ('orphan', 'sql', 'SELECT 1');
	RESET SESSION AUTHORIZATION;
	DROP OWNED BY gone; DROP ROLE gone});
like(ended($id, 'status, attempts, last_error'), qr/^failed\|0\|role .* does not exist \(42704\)$/, 'a dropped role');
$id = $node->safe_psql('postgres', q{SET SESSION AUTHORIZATION alice; SELECT enqueue_job('orphan')});
like(ended($id, 'status, attempts, last_error'), qr/^failed\|0\|role .* does not exist \(42704\)$/, 'the dropped owner of a job type');

# Rejection is an end like any other
cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM dead_letter_jobs WHERE last_error LIKE '%(4%'}), '>=', 4, 'rejected jobs are to be seen');
$node->safe_psql('postgres', q{GRANT CONNECT ON DATABASE postgres TO stranger});
$id = $node->safe_psql('postgres', q{SELECT id FROM jobs_queue WHERE owner = 'stranger'::regrole});
$node->safe_psql('postgres', "SELECT requeue_job($id)");
wait_for_query($node, "SELECT status FROM jobs_queue WHERE id = $id", 'completed');
pass('and can be queued again once the reason is gone');

# Settings and limits of a role
$node->safe_psql('postgres', q{ALTER ROLE alice CONNECTION LIMIT 0; ALTER ROLE alice SET lock_timeout = 1; ALTER ROLE alice SET role = 'nologin'; GRANT nologin TO alice});
is(ended(enqueue_as('alice', 'SELECT current_user AS a'), 'status, result'), 'completed|{"a": "alice"}', 'settings of a role do no harm');

is($node->safe_psql('postgres', q{SELECT pid FROM _server_workers() WHERE kind = 'scheduler'}), $scheduler, 'the scheduler was never disturbed');

# Superusers, where that is allowed
$node->append_conf('postgresql.conf', 'jobqueue.allow_superuser_jobs = on');
$node->restart;
is(ended(enqueue_as('postgres', q{SELECT current_setting('is_superuser') AS a}), 'status, result'),
	'completed|{"a": "on"}', 'jobqueue.allow_superuser_jobs');

# Many roles and one executor: each gets its turn
$node->append_conf('postgresql.conf', "jobqueue.max_executors = 1\njobqueue.executor_idle_timeout = 1h");
$node->reload;
$node->safe_psql('postgres', q{
	DO $$
	BEGIN
		FOR i IN 1..5 LOOP
			EXECUTE format('CREATE ROLE r%s LOGIN', i);
			EXECUTE format('GRANT CONNECT ON DATABASE postgres TO r%s', i);
			PERFORM grant_job_role(format('r%s', i)::regrole, 'producer');
		END LOOP;
	END
	$$;
});
enqueue_as("r$_", 'SELECT pg_sleep(0.01)') for (1 .. 5, 1 .. 5, 1 .. 5);
wait_for_query($node, 'SELECT count(*) FROM jobs_queue_live', 0);
is($node->safe_psql('postgres', q{SELECT count(*), count(DISTINCT owner) FROM jobs_queue WHERE owner::text LIKE 'r_' AND status = 'completed'}),
	'15|5', 'no role starves');

$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak|FATAL)\b/, 'nothing crashed or leaked');
done_testing();
