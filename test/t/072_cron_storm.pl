# Ten sessions enqueue cron tasks as fast as they can, beside the scheduler, while
# operators set plans back and forth, pause, resume, redefine and run tasks by
# hand, and while the server crashes once. Afterwards no instant of a task is there
# twice, jobs and cron_runs agree, the counts are those of cron_runs, and tasks that
# nobody disturbed have had every second.
#
# JOBQUEUE_TEST_SEED repeats the operators' lots.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Session;
use JobQueue::Storm qw(storm_seed);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my ($enqueuers, $operators, $workers) = (10, 3, 2);
my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
max_connections = 40
log_statement = none
jobqueue.max_executors = 0
CONF
storm_seed();

# Ten that nobody disturbs, and forty with all mixes of policies
$node->safe_psql('postgres', q{
	SELECT schedule_cron_task('calm ' || n, '* * * * * *', 'calm', catch_up => 'all', catch_up_limit => 1000)
	FROM generate_series(1, 10) n;
	SELECT schedule_cron_task(format('wild %s %s %s', overlap, catch_up, n), CASE WHEN n % 2 = 0 THEN 'every 1 second' ELSE '* * * * * *' END,
		overlap, overlap => overlap, catch_up => catch_up, catch_up_limit => 5 * n)
	FROM unnest('{allow,skip,replace}'::text[]) overlap, unnest('{none,latest,all}'::text[]) catch_up, generate_series(1, 5) n
	ORDER BY random() LIMIT 40});

my @changes = (
	# plans back, among them to instants that were decided, and forward
	sub { sprintf q{UPDATE cron_tasks SET next_run_at = date_trunc('second', now()) - interval '%d s' WHERE name = '%s' AND enabled}, rand 8, $_[0] },
	sub { sprintf q{UPDATE cron_tasks SET next_run_at = last_instant WHERE name = '%s' AND enabled}, $_[0] },
	sub { sprintf q{UPDATE cron_tasks SET next_run_at = now() + interval '%d ms' WHERE name = '%s' AND enabled}, rand 1500, $_[0] },
	sub { "SELECT pause_cron_task('$_[0]', 'storm'), resume_cron_task('$_[0]')" },
	sub { "BEGIN; SELECT pause_cron_task('$_[0]'); SELECT resume_cron_task('$_[0]'); ROLLBACK" },
	sub { "UPDATE cron_tasks SET schedule = schedule, description = now() WHERE name = '$_[0]'" },
	sub {
		my ($overlap, $catch_up) = (split / /, $_[0])[1, 2];
		sprintf q{SELECT schedule_cron_task('%s', '%s', '%s', overlap => '%3$s', catch_up => '%s')}, $_[0],
		  (rand 1) < 0.5 ? '* * * * * *' : 'every 1 second', $overlap, $catch_up;
	},
	sub { sprintf q{SELECT run_cron_task('%s', date_trunc('second', now()) - interval '%d s')}, $_[0], rand 5 },
	sub { "SELECT run_cron_task('$_[0]')" },
	sub { "BEGIN; SELECT enqueue_cron_tasks(); ROLLBACK" });

my @wild = split /\n/, $node->safe_psql('postgres', q{SELECT name FROM cron_tasks WHERE name ~ 'wild'});

sub client
{
	my ($number, $go_on) = @_;

	my $s = JobQueue::Session->new($node);
	my $me = sprintf '00000000-0000-4000-8000-%012d', $number;
	while ($go_on->())
	{
		if (!$s->connected)
		{
			$s->connect || ($s->quit, sleep 0.02);
			next;
		}
		my $sql =
			$number <= $enqueuers ? 'SELECT enqueue_cron_tasks()'
		  : $number <= $enqueuers + $operators ? $changes[ rand @changes ]->($wild[ rand @wild ])
		  : "SELECT complete_job(id, '$me', claim_no => claim_no) FROM claim_next_job('$me', (ARRAY['skip','replace'])[1 + (random() * 1.99 - 0.5)::int])";
		my $state = $s->try($sql);

		# an instant by hand that has run; a loser of a deadlock; the crash
		next if $state =~ /^(?:00000|23505|40P01)$/;
		if ($state ne JobQueue::Session::LOST && $state !~ /^57P0[123]$/)
		{
			die "$state $s->{message} in: $sql";
		}
		$s->quit;
	}
	return;
}

my $clients = JobQueue::Storm->start($enqueuers + $operators + $workers, \&client);
sub wait_for_seconds
{
	my ($more) = @_;

	my $count = $node->safe_psql('postgres', q{SELECT count(DISTINCT cron_instant) FROM jobs_queue WHERE job_type = 'calm'});
	wait_for_query($node, sprintf(q{SELECT count(DISTINCT cron_instant) >= %d FROM jobs_queue WHERE job_type = 'calm'}, $count + $more));
	return;
}
wait_for_seconds(3);
is($clients->failures, '', 'no client has failed before the crash');

my $offset = -s $node->logfile;
my $victim = '';
my $until = time + 60;
while ($victim eq '' && time < $until)
{
	$victim = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity
		WHERE query ~ '^SELECT enqueue_cron_tasks' AND pid <> pg_backend_pid() ORDER BY state = 'active' DESC LIMIT 1});
}
ok(kill('KILL', $victim), 'one of them is killed');
# why: the log is the only one who says so while nobody can connect
sleep 0.05 until slurp_file($node->logfile, $offset) =~ /all server processes terminated; reinitializing/ || time > $until;
wait_for_query($node, 'SELECT true');
wait_for_seconds(4);
is($clients->stop, '', 'no client failed');

# The scheduler alone catches up what is left, then nothing more comes.
wait_for_query($node, sprintf(q{SELECT bool_and(decided_until >= to_timestamp(%d)) FROM cron_tasks WHERE name ~ 'calm'}, time + 1));
$node->safe_psql('postgres', q{SELECT pause_cron_task(name) FROM cron_tasks WHERE enabled});

is($node->safe_psql('postgres', q{SELECT cron_task_id, cron_instant, count(*) FROM jobs_queue
	GROUP BY 1, 2 HAVING count(*) > 1}), '', 'no instant of a task has two jobs');
is($node->safe_psql('postgres', q{SELECT r, q.id FROM jobs_queue q
	FULL JOIN (SELECT * FROM cron_runs WHERE job_id IS NOT NULL) r ON (r.job_id, r.task_id, r.instant) = (q.id, q.cron_task_id, q.cron_instant)
	WHERE r.job_id IS NULL OR q.id IS NULL}), '', 'each job has its row of cron_runs, and each row its job');
is($node->safe_psql('postgres', q{SELECT * FROM cron_runs WHERE (job_id IS NULL) <> (skip_reason IS NOT NULL)}), '', 'a run without a job has a reason');
is($node->safe_psql('postgres', q{SELECT t.name, t.run_count, t.skipped_count, r.* FROM cron_tasks t LEFT JOIN (
		SELECT task_id, count(job_id) AS run, count(skip_reason) AS skipped, max(instant) AS last FROM cron_runs WHERE kind = 'schedule' GROUP BY 1) r ON r.task_id = t.id
	WHERE t.run_count <> coalesce(run, 0) OR t.skipped_count < coalesce(skipped, 0)
		OR t.skipped_count > coalesce(skipped, 0) + (SELECT count(*) FROM cron_runs m WHERE m.task_id = t.id AND m.kind = 'manual')}),
	'', 'tasks have counted their runs, also those that were made up for by hand');
is($node->safe_psql('postgres', q{SELECT t.name, t.enabled, t.missed_count, count(*), 1 + extract(epoch FROM max(q.cron_instant) - min(q.cron_instant))
	FROM cron_tasks t JOIN jobs_queue q ON q.cron_task_id = t.id WHERE t.name ~ 'calm' GROUP BY t.id
	HAVING t.missed_count > 0 OR count(*) <> 1 + extract(epoch FROM max(q.cron_instant) - min(q.cron_instant))
		OR t.decided_until <> max(q.cron_instant) OR t.last_instant <> max(q.cron_instant)}), '', 'what nobody disturbed has every second');
is($node->safe_psql('postgres', q{SELECT count(DISTINCT cron_task_id) FROM jobs_queue WHERE job_type = 'calm'}), '10', 'all ten of them');
is($node->safe_psql('postgres', q{SELECT name, disabled_reason FROM cron_tasks WHERE disabled_reason <> 'paused'}), '', 'no task has had a fault');
is($node->safe_psql('postgres', q{SELECT name FROM cron_tasks t WHERE name ~ 'wild' AND NOT EXISTS (SELECT FROM cron_runs r WHERE r.task_id = t.id)
	AND name !~ 'none'}), '', 'the disturbed ones have run, too');

$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed of itself or leaked');
done_testing();
