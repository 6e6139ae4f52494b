# A job that looks at no interrupt, as a loop in C may: nothing can end it but
# itself, and nobody tries to with force. Others go on meanwhile. Needs a build
# with -DJQ_FAULTS, for its function that spins.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Faults qw(install_faults);
use JobQueue::Jobs qw(prepare_jobs enqueue effect executor_of ended effect_problems worker_pid);
use JobQueue::Storm qw(run_problems log_problems);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
jobqueue.max_executors = 2
jobqueue.shutdown_timeout = 0
log_statement = none
CONF
if (!install_faults($node))
{
	$node->stop;
	plan skip_all => 'this build has no function that spins';
}
prepare_jobs($node);
$node->safe_psql('postgres', 'CREATE DATABASE other');

# It is over its timeout, and asked to end in every way there is
my $deaf = enqueue($node, effect('deaf', 'SELECT spin(6000)'), q{timeout => '200 milliseconds', max_attempts => 1});
my $pid = executor_of($node, $deaf);
my $scheduler = worker_pid($node, 'jobqueue scheduler');
$node->safe_psql('postgres', "SELECT cancel_job($deaf); SELECT pg_cancel_backend($pid)");

# Jobs of the same role and of others, behind it and beside it
my $last;
$last = enqueue($node, effect('beside')) for 1 .. 60;
is(ended($node, $last, 'status'), 'completed', 'jobs beside it complete');
wait_for_query($node, q{SELECT count(*) FROM jobs_queue_live}, 1);
is($node->safe_psql('postgres', "SELECT status, pid FROM jobs_queue q JOIN _server_workers() w ON w.job_id = q.id WHERE q.id = $deaf"),
	"running|$pid", 'while it spins');
is(worker_pid($node, 'jobqueue scheduler'), $scheduler, 'the scheduler is not held up');

# DROP DATABASE waits for every process to look once, as for any such session
# (docs/operations.md); it neither fails nor needs help.
$node->safe_psql('postgres', 'DROP DATABASE other');
pass('an unrelated DROP DATABASE ends with it at the latest');

like(ended($node, $deaf, 'status, attempts, last_error'), qr/^cancelled\|1\|.* \((?:57014|57P01)\)$/, 'when it looks up, it ends as cancelled, with its process if that was out of patience');
is(effect_problems($node), '', 'and leaves nothing');

# Terminated: the same
$deaf = enqueue($node, effect('deaf', 'SELECT spin(2000)'), 'max_attempts => 5');
$pid = executor_of($node, $deaf);
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
wait_for_query($node, "SELECT count(*) FROM job_runs WHERE job_id = $deaf", 1);
is($node->safe_psql('postgres', "SELECT status, charged FROM job_runs WHERE job_id = $deaf AND claim_no = 1"), 'released|f', 'a deaf job whose executor is terminated goes back uncharged');
$node->safe_psql('postgres', "SELECT cancel_job($deaf)");
is(ended($node, $deaf, 'status'), 'cancelled', 'and can be cancelled');

unlike(slurp_file($node->logfile), qr/terminated by signal|reinitializing/, 'nobody was killed');
is(run_problems($node), '', 'one run for each claim');
$node->stop;
is(log_problems($node), '', 'nothing has crashed');
done_testing();
