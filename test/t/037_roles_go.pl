# A role loses what its jobs need while some run and some wait: its end, its
# login, CONNECT, membership. Jobs end with a reason or go on; nobody else
# notices. (005_roles.pl has the roles that never could.)
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Jobs qw(prepare_jobs enqueue effect executor_of ended effect_problems wait_until_done worker_pid);
use JobQueue::Session;
use JobQueue::Storm qw(run_problems log_problems);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
jobqueue.max_executors = 4
jobqueue.retry_delay = 0
jobqueue.executor_idle_timeout = 1h
log_statement = none
CONF
prepare_jobs($node);
my $version = $node->safe_psql('postgres', q{SELECT current_setting('server_version_num')::int / 10000});
$node->safe_psql('postgres', q{
	CREATE ROLE staff NOLOGIN;
	GRANT ALL ON effects TO staff;
	REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;
	GRANT CONNECT ON DATABASE postgres TO alice;
	GRANT USAGE ON SCHEMA public TO PUBLIC;
});
for my $role (qw(gone locked_out nologin member))
{
	$node->safe_psql('postgres', qq{
		CREATE ROLE $role LOGIN;
		SELECT grant_job_role('$role', 'producer');
		GRANT CONNECT ON DATABASE postgres TO $role;
		GRANT ALL ON effects TO $role});
}
my $scheduler = worker_pid($node, 'jobqueue scheduler');
my $gate = JobQueue::Session->new($node);
$gate->query('SELECT pg_advisory_lock(1)');
my $slow = effect('slow', 'SELECT pg_advisory_xact_lock_shared(1)');
my $later = q{scheduled_at => clock_timestamp() + interval '1 hour', max_attempts => 1};

# One job of each role runs, one waits for later, one is due behind the first
my (%running, %waiting);
for my $role (qw(gone locked_out nologin member))
{
	$running{$role} = enqueue($node, $slow, undef, $role);
	executor_of($node, $running{$role});
	$waiting{$role} = enqueue($node, effect('waiting'), $later, $role);
}

$node->safe_psql('postgres', q{
	DROP OWNED BY gone; DROP ROLE gone;
	REVOKE CONNECT ON DATABASE postgres FROM locked_out;
	ALTER ROLE nologin NOLOGIN});
is($node->safe_psql('postgres', 'SELECT count(job_id) FROM _server_workers()'), '4', 'what runs goes on');
$gate->query('SELECT pg_advisory_unlock(1)');
for my $role (qw(locked_out nologin member))
{
	is(ended($node, $running{$role}, 'status, attempts'), 'completed|1', "$role: the running job completes");
}

# The session of a role that was dropped may end in any way but one
like(ended($node, $running{gone}, 'status'), qr/^(?:completed|failed)$/, 'gone: the running job ends');
$gate->query('SELECT pg_advisory_lock(1)');

# Those that waited become due, in new sessions
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM _server_workers() WHERE kind = 'executor'});
wait_for_query($node, q{SELECT count(*) FROM _server_workers() WHERE kind = 'executor'}, 0);
$node->safe_psql('postgres', "UPDATE jobs_queue SET scheduled_at = now() WHERE status = 'queued'");
like(ended($node, $waiting{gone}, 'status, attempts, last_error'), qr/^failed\|0\|role .* does not exist.* \(42704\)$/, 'gone: the waiting job fails with the reason');
like(ended($node, $waiting{locked_out}, 'status, attempts, last_error'), qr/^failed\|0\|role "locked_out" has no privilege to connect to database "postgres" \(42501\)$/, 'locked out: so does it');
if ($version < 17)
{
	like(ended($node, $waiting{nologin}, 'status, attempts, last_error'), qr/^failed\|0\|role "nologin" is not permitted to log in \(28000\)/, 'NOLOGIN: so does it');
}
else
{
	is(ended($node, $waiting{nologin}, 'status'), 'completed', 'NOLOGIN does not matter');
}
is(ended($node, $waiting{member}, 'status, attempts'), 'completed|1', 'a role that may still do it runs its job');

# Membership: what a job may do is asked when it runs, not when it was enqueued
$node->safe_psql('postgres', 'GRANT staff TO member');
my $first = enqueue($node, effect('as staff', 'SET ROLE staff; SELECT current_user AS a'), 'max_attempts => 1', 'member');
is(ended($node, $first, 'status, result'), 'completed|{"a": "staff"}', 'a member may become its group');
my $second = enqueue($node, effect('as staff', 'SET ROLE staff; SELECT current_user AS a'), $later, 'member');
$node->safe_psql('postgres', "REVOKE staff FROM member; UPDATE jobs_queue SET scheduled_at = now() WHERE id = $second");
like(ended($node, $second, 'status, last_error'), qr/^failed\|permission denied to set role "staff" \(42501\)$/, 'who was one may not any more, whenever it was enqueued');

# The rights that a body needs
$node->safe_psql('postgres', 'REVOKE ALL ON effects FROM member');
like(ended($node, enqueue($node, effect('denied'), 'max_attempts => 1', 'member'), 'status, last_error'), qr/^failed\|permission denied for table effects \(42501\)$/, 'nor write what it may not');

# EXECUTE is for those who enqueue: a job that is there is run
my $third = enqueue($node, 'SELECT 1 AS a', $later, 'member');
$node->safe_psql('postgres', q{SELECT revoke_job_role('member', 'producer')}) if $node->safe_psql('postgres', q{SELECT count(*) FROM pg_proc WHERE proname = 'revoke_job_role'});
$node->safe_psql('postgres', "UPDATE jobs_queue SET scheduled_at = now() WHERE id = $third");
is(ended($node, $third, 'status'), 'completed', 'who may not enqueue any more still has its jobs run');

# A role that comes back under its name is another one
$node->safe_psql('postgres', q{CREATE ROLE gone LOGIN});
is($node->safe_psql('postgres', q{SELECT count(*) FROM jobs_queue WHERE owner = 'gone'::regrole}), '0', 'a new role of the old name owns nothing');

# A superuser that is one no more, and the other way round, while its executor lives
$node->safe_psql('postgres', 'ALTER ROLE alice SUPERUSER');
is(ended($node, enqueue($node, 'SELECT 1 AS a'), 'status'), 'failed', 'superusers run no jobs unless that is allowed')
  if $node->safe_psql('postgres', 'SHOW jobqueue.allow_superuser_jobs') eq 'off';
$node->safe_psql('postgres', 'ALTER ROLE alice NOSUPERUSER');
is(ended($node, enqueue($node, effect('fast')), 'status'), 'completed', 'alice is served all the time');

$gate->quit;
wait_until_done($node);
is(worker_pid($node, 'jobqueue scheduler'), $scheduler, 'the scheduler was never disturbed');
is(effect_problems($node), '', 'every effect once');
# A job that cannot be run fails without an attempt.
is(run_problems($node) =~ s/^failed with attempts left\|\d+\|\d+\n?//mr, '', 'one run for each claim');
$node->stop;
is(log_problems($node), '', 'nothing has crashed');
done_testing();
