# kill -9 of each kind of process while SQL jobs run, an immediate stop, the
# postmaster, and kills during recovery: no effect is lost or repeated, what
# was running is taken back at once, and no process outlives the server.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Jobs qw(prepare_jobs enqueue effect executor_of ended effect_problems wait_until_done worker_pid kill_and_return is_gone);
use JobQueue::Storm qw(run_problems log_problems);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
jobqueue.max_executors = 3
jobqueue.crash_limit = 100
jobqueue.shutdown_timeout = 0
log_line_prefix = '%n %p '
log_statement = none
CONF
prepare_jobs($node);

# Runs as long as there is a gate.
my $slow = effect('slow', 'DO $$ BEGIN WHILE EXISTS (SELECT FROM gate) LOOP PERFORM pg_sleep(0.02); END LOOP; END $$');
my @reclaim_seconds;

# A long job that is running, and short ones behind it; returns the long one.
sub fill_queue
{
	$node->safe_psql('postgres', 'INSERT INTO gate VALUES (1)');
	my $id = enqueue($node, $slow);
	executor_of($node, $id);
	$node->safe_psql('postgres', 'SELECT enqueue_sql($cmd$' . effect('short') . '$cmd$) FROM generate_series(1, 30)',
		extra_params => [ '-U', 'alice' ]);
	return $id;
}

# When the server was ready last, by its log.
sub ready_at
{
	my @ready = slurp_file($node->logfile) =~ /^([\d.]+) \d+ LOG:  database system is ready to accept connections$/mg;
	return $ready[-1];
}

# What must hold after every death of the server during fill_queue()'s jobs.
sub recovers
{
	my ($id, $what) = @_;

	wait_for_query($node, "SELECT crashes > 0 FROM jobs_queue WHERE id = $id");
	is($node->safe_psql('postgres', "SELECT DISTINCT status, charged FROM job_runs WHERE job_id = $id"), 'crashed|f', "$what: the run has crashed, uncharged");
	push @reclaim_seconds, $node->safe_psql('postgres', "SELECT extract(epoch FROM max(finished_at)) FROM job_runs WHERE job_id = $id") - ready_at();
	$node->safe_psql('postgres', 'DELETE FROM gate');
	is(ended($node, $id, 'status, attempts, claim_no - crashes'), 'completed|1|1', "$what: it is run again");
	wait_until_done($node);
	is(effect_problems($node), '', "$what: every effect once");
	return;
}

for my $victim ('executor', 'client backend', 'jobqueue launcher', 'jobqueue scheduler', 'checkpointer')
{
	my $id = fill_queue();
	my $session = $node->background_psql('postgres', on_error_die => 0);
	kill_and_return($node, $victim eq 'executor' ? executor_of($node, $id) : worker_pid($node, $victim));
	eval { $session->quit };
	recovers($id, $victim);
}

# Immediate stop
my $id = fill_queue();
$node->stop('immediate');
$node->start;
recovers($id, 'immediate stop');

# The postmaster: nobody stays behind
$id = fill_queue();
my @pids = split /\n/, $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'jobqueue%'});
cmp_ok(@pids, '>=', 3, 'launcher, scheduler and executor run');
$node->kill9;
my $killed_at = time;
my $until = $killed_at + 30;
sleep 0.01 while (grep { !is_gone($_) } @pids) && time < $until;
cmp_ok(time - $killed_at, '<', 2, 'no process of ours outlives the postmaster by 2 s');
start_again();
recovers($id, 'postmaster');

# Killed while it starts, again and again
$id = fill_queue();
$node->stop('immediate');
for my $delay (0.01, 0.03, 0.06, 0.1, 0.2)
{
	system_log('pg_ctl', '-W', '-D', $node->data_dir, '-l', $node->logfile, 'start');
	# why: at different moments of its start, none of which it tells
	sleep $delay;
	my $pid = eval { (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0] } or next;
	kill 'KILL', $pid;
	$until = time + 30;
	sleep 0.01 until is_gone($pid) || time > $until;
}
start_again();
recovers($id, 'kills while it starts');

# The launcher, as soon as it is there
my $restarts = () = slurp_file($node->logfile) =~ /all server processes terminated; reinitializing/g;
$id = fill_queue();
kill_and_return($node, worker_pid($node, 'jobqueue launcher')) for 1 .. 6;
my $restarts_now = () = slurp_file($node->logfile) =~ /all server processes terminated; reinitializing/g;
is($restarts_now - $restarts, 6, 'six kills of the launcher, six restarts');
wait_for_query($node, "SELECT crashes > 0 FROM jobs_queue WHERE id = $id");
$node->safe_psql('postgres', 'DELETE FROM gate');
is(ended($node, $id, 'status, attempts'), 'completed|1', 'the job survives them');
wait_until_done($node);

@reclaim_seconds = sort { $a <=> $b } @reclaim_seconds;
note(join ' ', 'seconds until what was running was taken back:', map { sprintf '%.2f', $_ } @reclaim_seconds);
cmp_ok($reclaim_seconds[ $#reclaim_seconds / 2 ], '<', 1, 'what was running is taken back within 1 s of the start');
is(effect_problems($node), '', 'every effect once, in the end');
is(run_problems($node), '', 'one run for each claim');
$node->stop;
is(log_problems($node), '', 'nothing but our kills has crashed');
done_testing();

# The dead server's memory may be in use for a moment.
sub start_again
{
	my $until = time + 60;
	while (1)
	{
		$node->{_pid} = undef;    # a failure takes what is left of the old one for the new
		return if $node->start(fail_ok => 1);
		die 'the server does not start' if time > $until;
		sleep 0.1;
	}
}
