# The clock of the machine jumps, forward and back, while the server runs: jobs
# go on being run, none twice, and a lease moves by the jump at most.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Clock;
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Jobs qw(prepare_jobs enqueue effect executor_of ended effect_problems worker_pid);
use JobQueue::Session;
use JobQueue::Storm qw(run_problems log_problems);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $clock = JobQueue::Clock->new
  or plan skip_all => 'no compiler for the library that moves the clock';
my $node = $clock->run(sub { JobQueue::Cluster->new('main', conf => <<'CONF') });
jobqueue.max_executors = 3
jobqueue.retry_delay = 0
log_statement = none
CONF
prepare_jobs($node);
my $worker = '00000000-0000-4000-8000-000000000001';
# It waits for a lock: pg_sleep() goes by the clock.
my $slow = effect('slow', 'SELECT pg_advisory_xact_lock_shared(1)');
my $gate = JobQueue::Session->new($node);
my $scheduler = worker_pid($node, 'jobqueue scheduler');
my $now = 0;

for my $jump (600, -30, 4 * 3600, -2 * 3600, -2 * 86400, 86400)
{
	my $what = sprintf 'clock %+d s', $jump;

	# One job runs, another is held outside
	$gate->query('SELECT pg_advisory_lock(1)');
	my $running = enqueue($node, $slow);
	executor_of($node, $running);
	my $held = $node->safe_psql('postgres', qq{SELECT enqueue_job('outside') IS NULL;
		SELECT id FROM claim_jobs('$worker', '{outside}', lease => '1 hour')});
	$held =~ s/.*\n//s;

	$now += $jump;
	$clock->set_offset($now);
	my $jumped_at = time;
	my $offset = $node->safe_psql('postgres', 'SELECT round(extract(epoch FROM clock_timestamp()))') - time;
	cmp_ok(abs($offset - $now), '<', 5, "$what: the server believes it");

	my @ids = map { enqueue($node, effect('after')) } 1 .. 3;
	is(ended($node, $_, 'status, attempts'), 'completed|1', "$what: a new job is run") for @ids;
	my $failing = enqueue($node, effect('fails', 'SELECT 1/0'), 'max_attempts => 3');
	is(ended($node, $failing, 'status, attempts'), 'failed|3', "$what: a failing job is retried");

	my $unwanted = enqueue($node, $slow);
	executor_of($node, $unwanted);
	$node->safe_psql('postgres', "SELECT cancel_job($unwanted)");
	is(ended($node, $unwanted, 'status'), 'cancelled', "$what: a running job can be cancelled");
	cmp_ok(time - $jumped_at, '<', 20, "$what: all of that at once");

	# forward beyond its end, a lease is over; else the job stays with its holder
	if ($jump > 3600)
	{
		wait_for_query($node, "SELECT status FROM jobs_queue WHERE id = $held", 'queued');
		is($node->safe_psql('postgres', "SELECT resolve_job($held, '$worker', true)"), 'f', "$what: a lease is over");
		$node->safe_psql('postgres', "DELETE FROM jobs_queue WHERE id = $held");
	}
	else
	{
		is($node->safe_psql('postgres', "SELECT resolve_job($held, '$worker', true)"), 't', "$what: a lease holds");
	}
	$gate->query('SELECT pg_advisory_unlock(1)');
	is(ended($node, $running, 'status, attempts, claim_no'), 'completed|1|1', "$what: what ran goes on");
}
$gate->quit;
is(worker_pid($node, 'jobqueue scheduler'), $scheduler, 'the scheduler has seen it all');
is(effect_problems($node), '', 'every effect once');
$node->safe_psql('postgres', q{DELETE FROM job_runs WHERE job_type = 'outside'; DELETE FROM jobs_queue WHERE job_type = 'outside'});
is(run_problems($node), '', 'one run for each claim');
$node->stop('fast');
is(log_problems($node), '', 'nothing has crashed');
done_testing();
