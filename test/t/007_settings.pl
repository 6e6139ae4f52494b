# Settings that change what runs while the server is up.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main', conf => 'jobqueue.max_executors = 3');

$node->safe_psql('postgres', q{
	CREATE ROLE alice LOGIN;
	GRANT ALL ON SCHEMA public TO alice;
	SELECT grant_job_role('alice', r) FROM unnest('{producer,operator}'::text[]) r;
	SET SESSION AUTHORIZATION alice;
	INSERT INTO job_types (job_type, runner, command) VALUES ('one', 'sql', 'SELECT 1'), ('two', 'sql', 'SELECT 2');
});
wait_for_query($node, q{SELECT count(*) FROM _server_workers()}, 2);
my $launcher = $node->safe_psql('postgres', q{SELECT pid FROM _server_workers() WHERE kind = 'launcher'});

sub as_alice
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql, extra_params => [ '-U', 'alice' ]);
}

# Changes settings and waits until the scheduler has gone round twice.
sub configure
{
	my ($settings) = @_;

	$node->append_conf('postgresql.conf', $settings);
	$node->reload;
	my $now = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
	wait_for_query($node, "SELECT count(*) FROM _server_workers() WHERE kind = 'scheduler' AND last_cycle_at > timestamptz '$now' + interval '250 ms'", 1);
}

# enabled
configure('jobqueue.enabled = off');
my $id = as_alice(q{SELECT enqueue_sql('SELECT 1')});
as_alice(q{SELECT enqueue_job('outside')});
configure('');
is($node->safe_psql('postgres', "SELECT status FROM jobs_queue WHERE id = $id"), 'queued', 'enabled = off: nothing is run');
is($node->safe_psql('postgres', q{SELECT count(*) FROM claim_next_job(gen_random_uuid(), 'outside')}), '0', 'nor claimed');
configure('jobqueue.enabled = on');
wait_for_query($node, "SELECT status FROM jobs_queue WHERE id = $id", 'completed');
is($node->safe_psql('postgres', q{SELECT count(*) FROM claim_next_job(gen_random_uuid(), 'outside')}), '1', 'enabled = on: both again');

# While a job runs
$id = as_alice(q{SELECT enqueue_sql('SELECT pg_sleep(1)')});
wait_for_query($node, "SELECT count(*) FROM _server_workers() WHERE job_id = $id", 1);
configure('jobqueue.enabled = off');
wait_for_query($node, q{SELECT count(*) FROM _server_workers() WHERE kind = 'executor'}, 0);
is($node->safe_psql('postgres', "SELECT status FROM jobs_queue WHERE id = $id"), 'completed', 'executors end after their job');
configure('jobqueue.enabled = on');

# run_job_types
configure(q{jobqueue.run_job_types = 'two'});
as_alice(q{SELECT enqueue_job('one'), enqueue_job('two'), enqueue_sql('SELECT 1')});
wait_for_query($node, q{SELECT count(*) FROM jobs_queue_done WHERE job_type = 'two'}, 1);
configure('');
is($node->safe_psql('postgres', q{SELECT job_type FROM jobs_queue WHERE status = 'queued' ORDER BY 1}), "one\nsql", 'only what is listed is run');
configure(q{jobqueue.run_job_types = ''});
wait_for_query($node, q{SELECT count(*) FROM jobs_queue WHERE status = 'queued'}, 0);
pass('an empty list stands for all');

# Job types that are switched off
as_alice(q{UPDATE job_types SET enabled = false WHERE job_type = 'one'; SELECT enqueue_job('one')});
configure('');
is($node->safe_psql('postgres', q{SELECT job_type FROM jobs_queue WHERE status = 'queued'}), 'one', 'a disabled job type waits');
as_alice(q{UPDATE job_types SET enabled = true WHERE job_type = 'one'});
wait_for_query($node, q{SELECT count(*) FROM jobs_queue WHERE status = 'queued'}, 0);
pass('until it is enabled');

# max_executors
as_alice(q{SELECT enqueue_sql('SELECT pg_sleep(600)') FROM generate_series(1, 6)});
wait_for_query($node, q{SELECT count(job_id) FROM _server_workers()}, 3);
configure('');
is($node->safe_psql('postgres', q{SELECT count(*) FROM _server_workers() WHERE kind = 'executor'}), '3', 'as many executors as allowed');
configure('jobqueue.max_executors = 5');
wait_for_query($node, q{SELECT count(job_id) FROM _server_workers()}, 5);
pass('more are started when more are allowed');
configure('jobqueue.max_executors = 0');
as_alice(q{SELECT count(cancel_job(id)) FROM jobs_queue WHERE job_type = 'sql' AND status IN ('queued', 'running')});
wait_for_query($node, q{SELECT count(*) FROM _server_workers() WHERE kind = 'executor'}, 0);
pass('none when none is');

# Idle executors end
configure("jobqueue.max_executors = 2\njobqueue.executor_idle_timeout = 300ms");
$id = as_alice(q{SELECT enqueue_sql('SELECT 1')});
wait_for_query($node, "SELECT status FROM jobs_queue WHERE id = $id", 'completed');
wait_for_query($node, q{SELECT count(*) FROM _server_workers() WHERE kind = 'executor'}, 0);
pass('an idle executor ends');

# Retention: nothing is kept of this type
as_alice(q{UPDATE job_types SET keep_completed = '1 second' WHERE job_type = 'one'; SELECT enqueue_job('one')});
is($node->safe_psql('postgres', q{SELECT count(*) > 0 FROM jobs_queue WHERE job_type = 'one'}), 't', 'completed jobs are kept for a while');

# Values out of bounds keep the old ones, and disturb nobody
$node->append_conf('postgresql.conf', <<'CONF');
jobqueue.batch_size = 0
jobqueue.crash_limit = 101
jobqueue.databases = 'a,,b'
jobqueue.executor_idle_timeout = banana
jobqueue.lease = 0
jobqueue.log_level = loud
jobqueue.max_attempts = 1001
jobqueue.max_executors = -1
jobqueue.max_payload = 300MB
jobqueue.poll_interval = 1ms
jobqueue.retry_delay = 2d
jobqueue.run_job_types = '"'
jobqueue.shutdown_timeout = 1kB
CONF
my $offset = -s $node->logfile;
$node->reload;
$node->wait_for_log(qr/configuration file ".*" contains errors; unaffected changes were applied/, $offset);
my @wrong = slurp_file($node->logfile, $offset) =~ /"(jobqueue\.\w+)"/g;
my %wrong = map { $_ => 1 } @wrong;
is(scalar(keys %wrong), 13, 'each wrong value is named') or diag(join ' ', sort keys %wrong);
like(slurp_file($node->logfile, $offset), qr/List syntax is invalid/, 'with details');
is($node->safe_psql('postgres', q{SELECT pid FROM _server_workers() WHERE kind = 'launcher'}), $launcher, 'the launcher is the one from the start');

$node->stop('immediate');
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
