# Each fault point of the server's own work, each way to fail there: whatever
# happens, no effect is lost or repeated, every claim has one run, and the queue
# moves again by itself. Needs a build with -DJQ_FAULTS.
#
# JOBQUEUE_SWEEP_DEPTH=n lets the first, the second, ... the n-th time fail.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Faults qw(install_faults arm reached disarm);
use JobQueue::Jobs qw(prepare_jobs enqueue effect effect_problems wait_until_done);
use JobQueue::Storm qw(run_problems log_problems);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
jobqueue.max_executors = 2
jobqueue.executor_idle_timeout = 100ms
jobqueue.crash_limit = 100
jobqueue.max_attempts = 1000
jobqueue.retry_delay = 0
jobqueue.shutdown_timeout = 2s
log_statement = none
CONF
if (!install_faults($node))
{
	$node->stop;
	plan skip_all => 'this build has no fault points';
}
prepare_jobs($node);

my $worker = '00000000-0000-4000-8000-000000000001';

# Work that comes by every point: jobs that succeed, fail, and are cut off; a
# task of cron; an outside worker, whose calls may fail as well, and whose claim
# runs out.
sub fill_queue
{
	my $commands = join ', ', map { "\$cmd\$$_\$cmd\$" } effect('short'), effect('fails', 'SELECT 1/0'), effect('longer', 'SELECT pg_sleep(0.02)');
	my $sql = "SELECT enqueue_sql(c, max_attempts => CASE WHEN c LIKE '%1/0' THEN 2 ELSE 1000 END)
		FROM unnest(ARRAY[$commands]) c, generate_series(1, 4)";
	$node->psql('postgres', $sql, extra_params => [ '-U', 'alice' ]);
	return;
}

sub work_outside
{
	# whoever is paused is cut off, or this script would wait with it
	local $ENV{PGOPTIONS} = '-c statement_timeout=500ms';
	for my $sql (
		q{SELECT enqueue_job('outside') FROM generate_series(1, 3)},
		"SELECT FROM claim_jobs('$worker', '{outside}', 3, '100 milliseconds')",
		"SELECT heartbeat_job(max(id), '$worker', '200 milliseconds') FROM jobs_queue_live WHERE locked_by = '$worker'",
		"SELECT resolve_job(min(id), '$worker', true) FROM jobs_queue_live WHERE locked_by = '$worker'",
		q{UPDATE cron_tasks SET next_run_at = now() - interval '1 second' WHERE name = 'tick'})
	{
		$node->psql('postgres', $sql);
	}
	return;
}

# What is claimed and resolved outside must end for the queue to be empty.
sub is_empty
{
	$node->psql('postgres', "SELECT resolve_job(id, '$worker', true) FROM claim_jobs('$worker', '{outside,tick}', 100)");
	my ($code, $left) = $node->psql('postgres', 'SELECT count(*) FROM jobs_queue_live', timeout => 60);
	return defined $left && $left eq '0';
}

sub wait_until_empty
{
	my $until = time + 60;
	until (is_empty())
	{
		return 0 if time > $until;
		sleep 0.05;
	}
	return 1;
}

$node->safe_psql('postgres', q{SELECT schedule_cron_task('tick', 'every 1 hour', 'tick')});

# Points that are part of the build: what the first round has reached.
my @points = qw(after_spawn after_claim_update in_resolve in_watchdog in_heartbeat in_cron_enqueue
  after_claim_commit before_body after_body_before_resolve before_batch_commit after_batch_commit before_release);
my %is_placed = map { $_ => 1 } @points[ 0 .. 5 ];
fill_queue();
work_outside();
ok(wait_until_empty(), 'all is done where nothing fails');
$is_placed{$_} ||= reached($node, $_) > 0 for @points;
for my $point (grep { $is_placed{$_} } @points)
{
	# a release needs a shutdown: it has a test of its own
	cmp_ok(reached($node, $point), '>', 0, "$point is reached") if $point ne 'before_release';
}

my $depth = $ENV{JOBQUEUE_SWEEP_DEPTH} // 1;
for my $point (grep { $is_placed{$_} && $_ ne 'before_release' } @points)
{
	for my $action (qw(error sigkill sigterm pause))
	{
		for my $skip (0 .. $depth - 1)
		{
			my $what = "$point, $action" . ($depth > 1 ? ' at ' . ($skip + 1) : '');
			my $offset = -s $node->logfile;
			arm($node, $point, $action, 1, $skip);
			fill_queue();
			my $is_outside = $point =~ /heartbeat|watchdog|cron/;
			work_outside() if $is_outside;
			my $until = time + 20;
			my $fired = qr/LOG:  fault point "$point": $action/;
			my $has_fired;
			until ($has_fired = slurp_file($node->logfile, $offset) =~ $fired)
			{
				last if time > $until;
				# the deeper the point, the more work it needs
				my ($code, $left) = $node->psql('postgres', q{SELECT count(*) FROM jobs_queue_live WHERE job_type = 'sql'}, timeout => 60);
				next if $code != 0 || $left ne '0';
				$is_outside ? work_outside() : fill_queue();
				sleep 0.02;
			}
			ok($has_fired, "$what: happens");
			# the postmaster notices a death a little later
			$node->wait_for_log(qr/all server processes terminated; reinitializing/, $offset) if $has_fired && $action eq 'sigkill';
			disarm_when_up();
			ok(wait_until_empty(), "$what: the queue moves again") or last;
			is(effect_problems($node) . run_problems($node), '', "$what: effects once, one run for each claim");
		}
	}
}
is($node->safe_psql('postgres', q{SELECT enabled, disabled_reason IS NULL FROM cron_tasks}), 't|t', 'no fault has disabled the task');
is($node->safe_psql('postgres', q{SELECT count(*) FROM jobs_queue WHERE status = 'failed' AND coalesce(payload->>'command', '') NOT LIKE '%1/0'}), '0',
	'no fault has failed a job for good but those that fail anyway');

$node->stop;
is(log_problems($node), '', 'nothing else has crashed');
done_testing();

# After a crash there is nothing to disarm, but a server to wait for.
sub disarm_when_up
{
	my $until = time + 60;
	while (1)
	{
		my ($code) = $node->psql('postgres', 'SELECT disarm_faults()', timeout => 60);
		return if $code == 0;
		die 'the server did not come back' if time > $until;
		sleep 0.02;
	}
}
