# Cron while the clock of the machine jumps, forward and back, and as it shows
# dates that are not like others: tasks go on at once, no instant becomes a job
# twice, and each that passed unseen is missed or made up for, as catch_up says.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Clock;
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Jobs qw(worker_pid);
use JobQueue::Session;
use JobQueue::Storm qw(log_problems);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# 2028-01-10 12:00:10 UTC
use constant START => 1831118410;

my $clock = JobQueue::Clock->new
  or plan skip_all => 'no compiler for the library that moves the clock';
$clock->set_time(START);
my $node = $clock->run(sub { JobQueue::Cluster->new('main', conf => <<'CONF') });
jobqueue.poll_interval = 1s
jobqueue.keep_cron_runs = 3650d
log_statement = none
timezone = UTC
CONF
my $scheduler = worker_pid($node, 'jobqueue scheduler');
my $session = JobQueue::Session->new($node);

sub query { return $session->query(@_) }

# Each instant that has become a job has one, and the row of cron_runs is its.
sub repeated
{
	return query(q{
		SELECT cron_task_id, cron_instant, count(*) FROM jobs_queue WHERE cron_task_id IS NOT NULL
		GROUP BY 1, 2 HAVING count(*) > 1
		UNION ALL
		SELECT coalesce(r.task_id, q.cron_task_id), coalesce(r.instant, q.cron_instant), 0
		FROM cron_runs r FULL JOIN jobs_queue q ON q.id = r.job_id
		WHERE r.job_id IS NULL OR q.id IS NULL OR (r.task_id, r.instant) <> (q.cron_task_id, q.cron_instant)});
}

# Waits until a task has been enqueued anew: the number of its newest job.
sub wait_for_run
{
	my ($task, $after) = @_;

	wait_for_query($node, "SELECT last_job_id > $after FROM cron_tasks WHERE name = '$task'");
	return query("SELECT last_job_id FROM cron_tasks WHERE name = '$task'");
}

# ---- jumps ----

query(q{
	SELECT schedule_cron_task('second', '* * * * * *', 'outside'),
		schedule_cron_task('five', 'every 5 seconds', 'outside'),
		schedule_cron_task('minute', '* * * * *', 'outside'),
		schedule_cron_task('minute_all', '* * * * *', 'outside', catch_up => 'all', catch_up_limit => 1000),
		schedule_cron_task('hour_none', '7 * * * *', 'outside', catch_up => 'none'),
		schedule_cron_task('hour_latest', '7 * * * *', 'outside'),
		schedule_cron_task('hour_all', '7 * * * *', 'outside', catch_up => 'all', catch_up_limit => 2),
		schedule_cron_task('night', '30 2 * * *', 'outside', timezone => 'Europe/Berlin'),
		schedule_cron_task('hand', '0 0 1 1 *', 'outside');
	UPDATE cron_tasks SET next_run_at = '2030-03-03 03:03:03' WHERE name = 'hand'});
my %first = map { split /\|/ } split /\n/, query(q{SELECT name, extract(epoch FROM next_run_at)::bigint FROM cron_tasks});
my $job = wait_for_run('second', 0);

# A task whose row somebody holds does not hold up the plans of the others.
my $operator = JobQueue::Session->new($node);
my $now = START - time;
for my $jump (600, -30, 4 * 3600, -2 * 3600, -2 * 86400)
{
	my $what = sprintf 'clock %+d s', $jump;
	my $offset = -s $node->logfile;
	my $before = query(q{SELECT max(id) FROM jobs_queue});

	$operator->query(q{BEGIN; SELECT FROM cron_tasks WHERE name = 'hour_none' FOR UPDATE}) if $jump == -7200;
	$now += $jump;
	$clock->set_offset($now);
	my $jumped_at = time;
	$job = wait_for_run('second', $before);
	my $seconds = time - $jumped_at;
	cmp_ok($seconds, '<', 10, "$what: a task of every second goes on") or diag("took $seconds s");
	is(query(q{SELECT count(*) FROM cron_tasks WHERE name LIKE ANY ('{second,five,minute,hour_latest,night}')
		AND next_run_at > now() + CASE name WHEN 'second' THEN interval '2 s' WHEN 'five' THEN '6 s'
			WHEN 'minute' THEN '1 min' WHEN 'night' THEN '1 day' ELSE '1 hour' END}), 0, "$what: no plan is far away");
	$operator->query('COMMIT') if $jump == -7200;
	wait_for_query($node, q{SELECT next_run_at <= now() + interval '1 hour' FROM cron_tasks WHERE name = 'hour_none'});
	is(query(q{SELECT next_run_at FROM cron_tasks WHERE name = 'hand'}), '2030-03-03 03:03:03+00', "$what: what was set by hand stands");
	is(repeated(), '', "$what: no instant twice");
	wait_for_run('five', $before) if $jump < 0;
	next if $jump < 0;

	# Forward: the instants between are missed, but for those that catch_up lets run.
	like(slurp_file($node->logfile, $offset), qr/instants of cron tasks passed without a job: \d+ of \d+ tasks, first of/,
		"$what: the log has a line of them");
	my %span = (second => 1, five => 5, minute => 60);
	for my $task (sort keys %span)
	{
		next if $jump > 600;    # a clock set back has made some of those up
		wait_for_run($task, $before);
		is(query("SELECT t.run_count + t.missed_count - 1 - (extract(epoch FROM max(r.instant))::bigint - $first{$task}) / $span{$task}
			FROM cron_tasks t JOIN cron_runs r ON r.task_id = t.id WHERE t.name = '$task' GROUP BY t.id"), 0,
			"$what: each instant of \"$task\" is run or missed");
	}
}
is(query(q{SELECT t.name, string_agg(to_char(r.instant, 'HH24:MI'), ' ' ORDER BY instant), t.run_count, t.missed_count
	FROM cron_tasks t LEFT JOIN cron_runs r ON r.task_id = t.id WHERE t.name LIKE 'hour%' GROUP BY t.id ORDER BY 1}),
	"hour_all|12:07 15:07 16:07|3|2\nhour_latest|12:07 16:07|2|3\nhour_none||0|5", 'each as its catch_up says');
is(query(q{SELECT count(*) FROM (SELECT lead(instant) OVER (ORDER BY instant) - instant FROM cron_runs
	JOIN cron_tasks t ON t.id = task_id WHERE t.name = 'minute_all' AND instant > '2028-01-10') AS g (gap) WHERE gap > interval '1 min'}), 0,
	'with catch_up all there is no gap');
is(query(q{SELECT count(*) FROM cron_runs JOIN cron_tasks t ON t.id = task_id WHERE t.name IN ('night', 'hand')}), 0,
	'what was never due has not run');

# A jump back to where the tasks have run before
my $before = query(q{SELECT max(id) FROM jobs_queue});
$now = START - 2 * 86400 - time;
$clock->set_offset($now + 600 - 30 + 14400 - 7200 - 3);
wait_for_run('second', $before);
is(repeated(), '', 'nor when the clock shows the same time again');

# ---- dates ----

# The tasks are made ten minutes before the clock shows the time, so that a slow
# machine is not too late; those that the jump leaves out are made up for.
sub crosses
{
	my ($time, $what, %tasks) = @_;

	query('TRUNCATE cron_tasks; TRUNCATE jobs_queue CASCADE');
	my $epoch = query("SELECT extract(epoch FROM timestamptz '$time')::bigint");
	$clock->set_time($epoch - 600);
	query(qq{SELECT schedule_cron_task('second', '* * * * * *', 'outside', timezone => 'Europe/Berlin', catch_up => 'all', catch_up_limit => 1000),
		schedule_cron_task('minute', '* * * * *', 'outside', timezone => 'Europe/Berlin', catch_up => 'all')});
	query("SELECT schedule_cron_task('$_', '$tasks{$_}[0]', 'outside', timezone => '" . ($tasks{$_}[1] // 'Europe/Berlin') . q{')})
	  for sort keys %tasks;
	$clock->set_time($epoch - 1);
	wait_for_query($node, qq{SELECT count(*) = 2 FROM cron_tasks WHERE name = 'second' AND decided_until > '$time'
		OR name = 'minute' AND decided_until >= date_trunc('minute', timestamptz '$time')});
	is(query(q{SELECT t.name, min(gap), max(gap) FROM (SELECT task_id, lead(instant) OVER (PARTITION BY task_id ORDER BY instant) - instant
		FROM cron_runs) AS g (id, gap) JOIN cron_tasks t USING (id) WHERE t.name IN ('second', 'minute') GROUP BY 1 ORDER BY 1}),
		"minute|00:01:00|00:01:00\nsecond|00:00:01|00:00:01", "$what: wildcards run right across it");
	cmp_ok(query(qq{SELECT extract(epoch FROM min(decided_at - instant)) FROM cron_runs WHERE instant >= '$time'}), '<', 1,
		"$what: and on time");
	is(repeated(), '', "$what: nothing twice");
	return query(q{SELECT t.name, string_agg(to_char(r.instant, 'MM-DD HH24:MI:SS'), ' ' ORDER BY r.instant), t.next_run_at, t.missed_count
		FROM cron_tasks t LEFT JOIN cron_runs r ON r.task_id = t.id
		WHERE t.name NOT IN ('second', 'minute') GROUP BY t.id ORDER BY 1});
}

is(crosses('2028-02-29 00:00:00+00', 'leap day', leap => [ '0 0 29 2 *', 'UTC' ], last => [ '0 0 1 3 *', 'UTC' ]),
	"last||2028-03-01 00:00:00+00|0\nleap|02-29 00:00:00|2032-02-29 00:00:00+00|0", 'leap day: runs, and not again for four years');
is(crosses('2028-03-26 01:00:00+00', 'clocks forward', gap => ['30 2 * * *'], first => ['0 3 * * *'], stars => ['*/10 2 * * *']),
	"first|03-26 01:00:00|2028-03-27 01:00:00+00|0\ngap|03-26 01:00:00|2028-03-27 00:30:00+00|0\nstars||2028-03-27 00:00:00+00|0",
	'clocks forward: what lies in the gap runs once, at its end');
is(crosses('2028-10-29 00:30:00+00', 'before clocks back', fixed => ['30 2 * * *'], hourly => ['30 * * * *']),
	"fixed|10-29 00:30:00|2028-10-30 01:30:00+00|0\nhourly|10-29 00:30:00|2028-10-29 01:30:00+00|0",
	'before clocks back: a fixed time runs when it is first shown');
is(crosses('2028-10-29 01:00:00+00', 'clocks back', fixed => ['30 2 * * *'], zero => ['0 2 * * *'], hourly => ['0 * * * *']),
	"fixed||2028-10-30 01:30:00+00|0\nhourly|10-29 01:00:00|2028-10-29 02:00:00+00|0\nzero||2028-10-30 01:00:00+00|0",
	'clocks back: fixed times of the second hour wait for the next day');
is(crosses('2028-12-31 23:00:00+00', 'end of the year', year => ['0 0 1 1 *']),
	'year|12-31 23:00:00|2029-12-31 23:00:00+00|0', 'end of the year: runs');
is(crosses('2038-01-19 03:14:08+00', 'end of 32 bits', odd => [ '8 14 3 19 1 *', 'UTC' ]),
	'odd|01-19 03:14:08|2039-01-19 03:14:08+00|0', 'end of 32 bits: runs');

is(worker_pid($node, 'jobqueue scheduler'), $scheduler, 'the scheduler has seen it all');
$_->quit for $session, $operator;
$node->stop('fast');
is(log_problems($node), '', 'nothing has crashed');
done_testing();
