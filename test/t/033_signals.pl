# pg_cancel_backend() and pg_terminate_backend() of the server's own processes:
# what it costs the jobs, and who may do it. (004_shutdown.pl has the executor
# that is terminated, 002_sql_jobs.pl the one that is cancelled.)
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Jobs qw(prepare_jobs enqueue effect executor_of ended effect_problems wait_until_done worker_pid);
use JobQueue::Storm qw(run_problems log_problems);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
jobqueue.max_executors = 2
jobqueue.shutdown_timeout = 0
jobqueue.retry_delay = 0
CONF
prepare_jobs($node);
$node->safe_psql('postgres', q{
	CREATE ROLE nobody LOGIN;
	CREATE ROLE signaller LOGIN IN ROLE pg_signal_backend;
	INSERT INTO gate VALUES (1);
});
my $slow = effect('slow', 'DO $$ BEGIN WHILE EXISTS (SELECT FROM gate) LOOP PERFORM pg_sleep(0.02); END LOOP; END $$');
my $id = enqueue($node, $slow);
my $executor = executor_of($node, $id);
my $launcher = worker_pid($node, 'jobqueue launcher');
my $scheduler = worker_pid($node, 'jobqueue scheduler');

# A statement of a role: its SQLSTATE, or its answer.
sub answer
{
	my ($role, $sql) = @_;

	my ($code, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql", extra_params => [ '-U', $role ]);
	return $err =~ /ERROR:  (\w{5}):/ ? $1 : $out;
}

# Who may not
for my $signal (qw(pg_cancel_backend pg_terminate_backend))
{
	is(answer('nobody', "SELECT $signal($_)"), '42501', "$signal by just anybody") for $executor, $launcher, $scheduler;
	is(answer('signaller', "SELECT $signal($_)"), '42501', "$signal of a superuser's process by pg_signal_backend") for $launcher, $scheduler;
}

# Cancelled, again and again: they go on
for (1 .. 20)
{
	$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM unnest('{$launcher,$scheduler}'::int[]) pid");
}
is(ended($node, enqueue($node, effect('fast')), 'status'), 'completed', 'jobs are run while launcher and scheduler are cancelled');
is(worker_pid($node, 'jobqueue launcher'), $launcher, 'which leaves the launcher');
is(worker_pid($node, 'jobqueue scheduler'), $scheduler, 'and the scheduler');

# Terminated: others come, the job that runs does not notice
$node->safe_psql('postgres', "SELECT pg_terminate_backend($scheduler)");
wait_for_query($node, "SELECT count(*) FROM _server_workers() WHERE kind = 'scheduler' AND state = 'running' AND pid <> $scheduler", 1);
pass('the scheduler has a successor');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($launcher)");
wait_for_query($node, "SELECT count(*) FROM _server_workers() WHERE kind = 'launcher' AND state = 'running' AND pid <> $launcher", 1);
pass('the launcher, too');
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM _server_workers() WHERE kind IN ('launcher', 'scheduler')");
wait_for_query($node, q{SELECT count(*) FROM _server_workers() WHERE kind IN ('launcher', 'scheduler') AND state = 'running'}, 2);
is(executor_of($node, $id), $executor, 'the job still runs where it ran');
is(ended($node, enqueue($node, effect('fast')), 'status'), 'completed', 'new jobs are run');
$node->safe_psql('postgres', 'DELETE FROM gate');
is(ended($node, $id, 'status, attempts, claim_no'), 'completed|1|1', 'and the old one completes, once');

# Cancelled executor: this attempt has failed. By the owner of the session, and by pg_signal_backend
$node->safe_psql('postgres', 'INSERT INTO gate VALUES (1)');
for my $role (qw(alice signaller))
{
	$id = enqueue($node, $slow, 'max_attempts => 1');
	$executor = executor_of($node, $id);
	is(answer($role, "SELECT pg_cancel_backend($executor)"), 't', "$role may cancel a job of alice");
	like(ended($node, $id, 'status, attempts, last_error'), qr/^failed\|1\|.*\(57014\)$/, 'it has failed');
}

# Terminated by them: given back
$id = enqueue($node, $slow);
$executor = executor_of($node, $id);
is(answer('signaller', "SELECT pg_terminate_backend($executor)"), 't', 'and may terminate its executor');
wait_for_query($node, "SELECT count(*) FROM job_runs WHERE job_id = $id", 1);
is($node->safe_psql('postgres', "SELECT status, charged FROM job_runs WHERE job_id = $id AND claim_no = 1"), 'released|f', 'the job goes back uncharged');

# An executor that is busy with nothing is cancelled and terminated for nothing
$node->safe_psql('postgres', 'DELETE FROM gate');
wait_until_done($node);
$node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM _server_workers() WHERE kind = 'executor' AND state = 'idle'});
is(ended($node, enqueue($node, effect('fast')), 'status, attempts'), 'completed|1', 'a cancel of an idle executor hits no job');
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM _server_workers() WHERE kind = 'executor'});
is(ended($node, enqueue($node, effect('fast')), 'status'), 'completed', 'nor does its end');

# Many, at any moment
$node->safe_psql('postgres', 'SELECT enqueue_sql($cmd$' . effect('many') . '$cmd$, max_attempts => 100) FROM generate_series(1, 300)', extra_params => [ '-U', 'alice' ]);
for (1 .. 15)
{
	$node->safe_psql('postgres', q{SELECT CASE WHEN random() < 0.5 THEN pg_cancel_backend(pid) ELSE pg_terminate_backend(pid) END
		FROM _server_workers() WHERE kind = 'executor' AND pid > 0});
}
wait_until_done($node);
is($node->safe_psql('postgres', q{SELECT count(*) FROM effects WHERE what = 'many'}), '300', '300 jobs and a hail of signals: 300 effects');
is(effect_problems($node), '', 'every effect once');
is(run_problems($node), '', 'one run for each claim');
$node->stop;
unlike(slurp_file($node->logfile), qr/reinitializing/, 'no signal takes the server down');
is(log_problems($node), '', 'nothing has crashed');
done_testing();
