# run_on_start and @reboot: one run for each start of the server, in each
# database, and for nothing else that starts. A promoted standby goes on with
# cron where its primary stopped.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Clock;
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Jobs qw(worker_pid kill_and_return);
use JobQueue::Storm qw(log_problems);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $clock = JobQueue::Clock->new
  or plan skip_all => 'no compiler for the library that moves the clock';
my $node = $clock->run(sub { JobQueue::Cluster->new('main', init => { allows_streaming => 1 }, conf => "timezone = UTC\nlog_statement = none\nmax_prepared_transactions = 2") });

my $tasks = q{
	SELECT schedule_cron_task('reboot', '@reboot', 'outside'),
		schedule_cron_task('hourly', '59 0 1 1 *', 'outside', run_on_start => true),
		schedule_cron_task('off', '@reboot', 'outside', enabled => false),
		schedule_cron_task('later', '@reboot', 'outside', starts_at => '2999-01-01'),
		schedule_cron_task('twice', '@reboot', 'outside', max_runs => 2),
		schedule_cron_task('marker', '0 0 1 1 *', 'outside')};
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', "CREATE EXTENSION jobqueue; $tasks");
$node->safe_psql('postgres', $tasks);

# Which tasks have run how often; no run is without its job, nor for any instant
# but a start.
sub runs
{
	my ($server, $database) = @_;

	return join ' ', split /\n/, $server->safe_psql($database, q{
		SELECT t.name || ':' || count(*) || CASE WHEN count(DISTINCT q.id) = count(*) AND bool_and(kind = 'start') THEN '' ELSE '!' END
		FROM cron_runs r JOIN cron_tasks t ON t.id = r.task_id LEFT JOIN jobs_queue q ON q.id = r.job_id
		WHERE t.job_type = 'outside' AND t.name <> 'marker' GROUP BY t.name ORDER BY 1});
}

# Waits until the scheduler has looked for due tasks in both databases, after
# what has happened before this.
sub scheduler_has_looked
{
	my ($server) = @_;

	for my $database ('postgres', 'other')
	{
		$server->safe_psql($database, q{UPDATE cron_tasks SET next_run_at = now() WHERE name = 'marker'});
		$server->poll_query_until($database, q{SELECT planned_at IS NOT NULL FROM cron_tasks WHERE name = 'marker'})
		  or die "the scheduler of $database does not look";
	}
	return;
}

sub are
{
	my ($server, $expected, $what) = @_;

	scheduler_has_looked($server);
	is(runs($server, $_), $expected, "$what, in database $_") for 'postgres', 'other';
	return;
}

are($node, '', 'a task that is made after the start waits for the next');
$clock->run(sub { $node->restart });
are($node, 'hourly:1 reboot:1 twice:1', 'a start is one run');
my $started = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
is($node->safe_psql('postgres', "SELECT DISTINCT instant = '$started' FROM cron_runs JOIN cron_tasks t ON t.id = task_id WHERE name <> 'marker'"),
	't', 'its instant is that of the start');

my $pid = worker_pid($node, 'jobqueue scheduler');
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'jobqueue %'});
wait_for_query($node, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", 0);
are($node, 'hourly:1 reboot:1 twice:1', 'a new scheduler is none');

kill_and_return($node, worker_pid($node, 'checkpointer'));
is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $started, 'after a crash of a process the server is the same');
are($node, 'hourly:1 reboot:1 twice:1', 'nor is a recovery');

$node->safe_psql('postgres', 'SELECT pause_workers()');
wait_for_query($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'jobqueue scheduler' AND datname = 'postgres'}, 0);
$node->safe_psql('postgres', 'SELECT resume_workers()');
are($node, 'hourly:1 reboot:1 twice:1', 'nor the end of a pause');

$node->safe_psql($_, q{SELECT resume_cron_task('off'), pause_cron_task('reboot')}) for 'postgres', 'other';
are($node, 'hourly:1 reboot:1 twice:1', 'a task that is enabled after the start waits, too');
$node->stop('immediate');
$clock->run(sub { $node->start });
are($node, 'hourly:2 off:1 reboot:1 twice:2', 'a start after an immediate shutdown is one');
is($node->safe_psql('postgres', q{SELECT enabled, disabled_reason FROM cron_tasks WHERE name = 'twice'}), 'f|max_runs is reached',
	'max_runs counts starts');

# The clock is set back between two starts
$node->stop('fast');
$clock->set_offset(-7200);
$clock->run(sub { $node->start });
are($node, 'hourly:3 off:2 reboot:1 twice:2', 'a start is another even if it is earlier');

# Many of them, and one that somebody holds when the server starts
my $many = q{FROM cron_runs r JOIN cron_tasks t ON t.id = r.task_id WHERE t.job_type = 'many'};
$node->safe_psql('postgres', q{
	SELECT schedule_cron_task('many ' || n, '@reboot', 'many') FROM generate_series(1, 2500) n;
	BEGIN; SELECT FROM cron_tasks WHERE name = 'many 1' FOR UPDATE; PREPARE TRANSACTION 'holder'});
$clock->run(sub { $node->restart });
my $restarted = time;
wait_for_query($node, "SELECT count(*) $many", 2499);
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'holder'});
wait_for_query($node, "SELECT count(*) $many", 2500);
cmp_ok(time - $restarted, '<', 20, 'nothing but a lock makes one of many wait');
are($node, 'hourly:4 off:3 reboot:1 twice:2', 'each once');
$node->safe_psql('postgres', q{DELETE FROM cron_tasks WHERE job_type = 'many'});

# The same in sessions that enqueue beside the scheduler
$node->append_conf('postgresql.conf', 'jobqueue.enabled = off');
$clock->run(sub { $node->restart });
is($node->safe_psql('postgres', 'SELECT enqueue_cron_tasks(); SELECT enqueue_cron_tasks()'), "2\n0", 'whoever enqueues serves the start, once');
$node->append_conf('postgresql.conf', 'jobqueue.enabled = on');
$node->reload;
are($node, 'hourly:5 off:4 reboot:1 twice:2', 'and nobody else does again');

# ---- standby ----

$node->safe_psql('postgres', q{SELECT schedule_cron_task('second', '* * * * * *', 'ticks', catch_up => 'all', catch_up_limit => 1000);
	SELECT schedule_cron_task('minute', '* * * * *', 'ticks')});
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$clock->run(sub { $standby->start });
my $runs = runs($node, 'other');
wait_for_query($node, q{SELECT run_count >= 2 FROM cron_tasks WHERE name = 'second'});
$node->stop('immediate');
my $last = $standby->safe_psql('postgres', q{SELECT max(last_instant), max(last_job_id) FROM cron_tasks WHERE name = 'second'});
my ($instant, $job) = split /\|/, $last;
is(runs($standby, 'other'), $runs, 'a standby runs nothing');
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'jobqueue %'}), 0, 'and has no scheduler');
$clock->set_offset(-7200 + 600);
$standby->promote;
wait_for_query($standby, q{SELECT decided_until > now() - interval '5 s' FROM cron_tasks WHERE name = 'second'});
is($standby->safe_psql('postgres', q{SELECT max(lead - instant), count(*) FILTER (WHERE instant = lead) FROM (SELECT cron_instant, lead(cron_instant) OVER (ORDER BY cron_instant)
	FROM jobs_queue JOIN cron_tasks t ON t.id = cron_task_id WHERE t.name = 'second') AS s (instant, lead)}), '00:00:01|0',
	'after a promotion no instant is left out, and none is repeated');
cmp_ok($standby->safe_psql('postgres', "SELECT count(*) FROM jobs_queue WHERE cron_instant > '$instant' AND id > $job AND job_type = 'ticks'"), '>=', 590,
	'those between are caught up');
cmp_ok($standby->safe_psql('postgres', q{SELECT missed_count FROM cron_tasks WHERE name = 'minute'}), '>=', 9, 'as catch_up says');
scheduler_has_looked($standby);
is(runs($standby, 'other'), 'hourly:6 off:5 reboot:1 twice:2', 'its start is one, for the tasks that its primary had');

$_->stop('fast') for $standby;
is(log_problems($_), '', 'nothing else has crashed') for $node, $standby;
done_testing();
