# A fast shutdown waits for nobody for long, and costs no job an attempt.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
jobqueue.shutdown_timeout = 500ms
jobqueue.max_executors = 1
CONF

$node->safe_psql('postgres', q{
	CREATE ROLE alice LOGIN;
	GRANT ALL ON SCHEMA public TO alice;
	SELECT grant_job_role('alice', 'producer');
	CREATE TABLE effects (job_id bigint);
	GRANT ALL ON effects TO alice;
});

sub enqueue
{
	my ($command) = @_;

	return $node->safe_psql('postgres', "SELECT enqueue_sql(\$cmd\$$command\$cmd\$)", extra_params => [ '-U', 'alice' ]);
}

# A job that would run for long
my $id = enqueue(q{INSERT INTO effects VALUES ($2); SELECT pg_sleep(600)});
wait_for_query($node, "SELECT count(*) FROM _server_workers() WHERE job_id = $id", 1);
my $started = time;
$node->stop('fast');
my $seconds = time - $started;
cmp_ok($seconds, '<', 10, 'a fast shutdown ends within 10 s') or diag("took $seconds s");

$node->append_conf('postgresql.conf', 'jobqueue.enabled = off');
$node->start;
is($node->safe_psql('postgres', "SELECT status, attempts, crashes, claim_no, last_error IS NULL FROM jobs_queue WHERE id = $id"),
	'queued|0|0|1|t', 'the job is queued again, with its attempt');
is($node->safe_psql('postgres', "SELECT status, charged FROM job_runs WHERE job_id = $id"), 'released|f', 'its run was released, uncharged');
is($node->safe_psql('postgres', 'SELECT count(*) FROM effects'), '0', 'and left no effect');
$node->safe_psql('postgres', "DELETE FROM jobs_queue WHERE id = $id");

# A job that ends in time is allowed to; those that wait behind it go back
$node->append_conf('postgresql.conf', "jobqueue.enabled = on\njobqueue.shutdown_timeout = 8s");
$node->reload;
$id = enqueue(q{INSERT INTO effects VALUES ($2); SELECT pg_sleep(1)});
enqueue('SELECT pg_sleep(600)') for 1 .. 3;
wait_for_query($node, "SELECT count(*) FROM _server_workers() WHERE job_id = $id", 1);
$started = time;
$node->stop('fast');
$seconds = time - $started;
cmp_ok($seconds, '<', 7, 'shutdown goes on as soon as the job has ended') or diag("took $seconds s");
$node->append_conf('postgresql.conf', 'jobqueue.enabled = off');
$node->start;
is($node->safe_psql('postgres', "SELECT status FROM jobs_queue WHERE id = $id"), 'completed', 'a job that ends in time completes');
is($node->safe_psql('postgres', q{SELECT DISTINCT status, attempts FROM jobs_queue WHERE status <> 'completed'}), 'queued|0', 'the others lost nothing');

# pg_terminate_backend() of an executor is the same on a small scale
$node->append_conf('postgresql.conf', "jobqueue.enabled = on\njobqueue.shutdown_timeout = 0");
$node->reload;
wait_for_query($node, 'SELECT count(job_id) FROM _server_workers()', 1);
my $pid = $node->safe_psql('postgres', "SELECT pg_terminate_backend(pid), pid FROM _server_workers() WHERE kind = 'executor'");
$pid =~ s/.*\|//;
wait_for_query($node, "SELECT count(job_id) FROM _server_workers() WHERE pid <> $pid", 1);
is($node->safe_psql('postgres', q{SELECT count(*) FROM job_runs WHERE charged AND status <> 'completed'}), '0', 'terminating an executor charges nobody');

$node->stop('fast');
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
