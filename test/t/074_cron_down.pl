# Instants pass while nobody looks: the server is down, or stopped at once, the
# database is paused, the workers are disabled. Afterwards catch_up, its limit
# and start_deadline say what becomes of them, and it takes no time to find out.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Clock;
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Storm qw(log_problems);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# 2028-01-10 12:00:02 UTC
use constant START => 1831118402;

my $clock = JobQueue::Clock->new
  or plan skip_all => 'no compiler for the library that moves the clock';
$clock->set_time(START);
my $node = $clock->run(sub { JobQueue::Cluster->new('main', conf => <<'CONF') });
jobqueue.keep_cron_runs = 3650d
log_statement = none
timezone = UTC
CONF

sub query { return $node->safe_psql('postgres', @_) }

# Each round begins and ends right after a full minute, and is over long before
# the next one.
query(q{
	SELECT schedule_cron_task('all', '* * * * *', 'outside', catch_up => 'all', catch_up_limit => 1000),
		schedule_cron_task('cap', '* * * * *', 'outside', catch_up => 'all', catch_up_limit => 3),
		schedule_cron_task('deadline', '* * * * *', 'outside', catch_up => 'all', start_deadline => '150 s'),
		schedule_cron_task('hourly', '50 * * * *', 'outside', catch_up => 'none'),
		schedule_cron_task('late', '50 * * * *', 'outside', start_deadline => '1 min'),
		schedule_cron_task('latest', '* * * * *', 'outside'),
		schedule_cron_task('five', 'every 5 minutes', 'outside', catch_up => 'all', starts_at => '2028-01-10 12:00')});
my $until = START;

# Lets time pass; $what says how, and what it must have come to since then.
sub passes
{
	my ($what, $stop, $start) = @_;

	query('TRUNCATE cron_runs; UPDATE cron_tasks SET run_count = 0, missed_count = 0');
	$stop->();
	$until += 3600;
	$clock->set_time($until);
	$start->();
	wait_for_query($node, 'SELECT bool_and(next_run_at > now()) FROM cron_tasks');
	my $hour = 12 + ($until - START) / 3600;
	my $before = $hour - 1;
	is(query(q{SELECT t.name, to_char(min(instant), 'HH24:MI'), to_char(max(instant), 'HH24:MI'), count(r), run_count, missed_count
		FROM cron_tasks t LEFT JOIN cron_runs r ON r.task_id = t.id GROUP BY t.id ORDER BY 1}),
		join("\n", "all|$before:01|$hour:00|60|60|0", "cap|$before:58|$hour:00|3|3|57", "deadline|$before:58|$hour:00|3|3|57",
			"five|$before:05|$hour:00|12|12|0", 'hourly|||0|0|1', 'late|||0|0|1', "latest|$hour:00|$hour:00|1|1|59"),
		"$what: each task as its catch_up says");
	is(query(q{SELECT cron_task_id, cron_instant FROM jobs_queue GROUP BY 1, 2 HAVING count(*) > 1}), '', "$what: no instant twice");
	return;
}

my $start = sub { $clock->run(sub { $node->start }) };
passes('fast shutdown', sub { $node->stop('fast') }, $start);
passes('immediate shutdown', sub { $node->stop('immediate') }, $start);
passes('paused', sub { query('SELECT pause_workers()'); wait_for_query($node, 'SELECT count(*) = 0 FROM _server_workers() WHERE kind = \'scheduler\'') },
	sub { query('SELECT resume_workers()') });
passes('disabled', sub { set_enabled('off') }, sub { set_enabled('on') });
passes('extension without its library', sub { without_library() }, sub {
	$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', "'jobqueue'");
	$clock->run(sub { $node->restart });
});

sub set_enabled
{
	my ($value) = @_;

	query("ALTER SYSTEM SET jobqueue.enabled = $value");
	$node->reload;
	wait_for_query($node, 'SHOW jobqueue.enabled', $value);
	return;
}

sub without_library
{
	$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', "''");
	$clock->run(sub { $node->restart });
	return;
}

# The clock is set back while the server is down
$node->stop('fast');
my $newest = $until - 5400;
$clock->set_time($newest);
$clock->run(sub { $node->start });
wait_for_query($node, q{SELECT bool_and(next_run_at < now() + interval '1 hour') FROM cron_tasks});
pass('set back while the server was down: all is planned anew');

# Thousands of instants of hundreds of tasks, over ten days
query(q{
	TRUNCATE cron_tasks;
	TRUNCATE jobs_queue CASCADE;
	INSERT INTO cron_tasks (name, schedule, job_type, catch_up, timezone)
	SELECT 'task ' || n, CASE n % 4 WHEN 0 THEN '* * * * * *' WHEN 1 THEN 'every 7 seconds' WHEN 2 THEN '*/5 8-18 * * 1-5' ELSE '30 2 * * *' END,
		'outside', CASE n % 3 WHEN 0 THEN 'none' ELSE 'latest' END, 'Europe/Berlin' FROM generate_series(1, 500) n;
	SELECT schedule_cron_task('all', '* * * * * *', 'outside', catch_up => 'all', catch_up_limit => 1000)});
$node->stop('fast');
$clock->set_time($newest + 10 * 86400);
my $from = time;
$clock->run(sub { $node->start });
wait_for_query($node, q{SELECT count(*) FROM cron_tasks WHERE next_run_at < now() - interval '5 s'}, 0);
my $seconds = time - $from;
cmp_ok($seconds, '<', 20, 'ten days of thousands of tasks are over in a moment') or diag("took $seconds s");
is(query(q{SELECT count(*), max(instant) - min(instant) FROM (SELECT instant FROM cron_runs JOIN cron_tasks t ON t.id = task_id
	WHERE name = 'all' ORDER BY instant LIMIT 1000) AS r}), '1000|00:16:39', 'catch_up all: the newest thousand, without a gap');
is(query(q{SELECT name FROM cron_tasks WHERE catch_up = 'none' AND schedule = '30 2 * * *' AND (run_count > 0 OR missed_count <> 10) LIMIT 1}), '',
	'catch_up none: all are missed');
is(query(q{SELECT name FROM cron_tasks WHERE catch_up = 'latest' AND schedule = '30 2 * * *' AND (run_count <> 1 OR missed_count <> 9) LIMIT 1}), '',
	'catch_up latest: one is run');

$node->stop('fast');
is(log_problems($node), '', 'nothing has crashed');
done_testing();
