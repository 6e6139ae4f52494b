# The scheduler enqueues cron tasks; whoever else does so beside it, each
# instant becomes one job.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main', conf => 'jobqueue.poll_interval = 1h');

$node->safe_psql('postgres', q{
	CREATE ROLE alice LOGIN;
	GRANT ALL ON SCHEMA public TO alice;
	SELECT grant_job_role('alice', r) FROM unnest('{producer,operator}'::text[]) r;
	CREATE TABLE ticks (at timestamptz DEFAULT clock_timestamp(), who text DEFAULT current_user);
	GRANT ALL ON ticks TO alice;
});

# The scheduler alone; with such a poll interval, by its own timer
$node->safe_psql('postgres', q{SELECT schedule_sql('tick', 'every 1 second', 'INSERT INTO ticks DEFAULT VALUES')},
	extra_params => [ '-U', 'alice' ]);
wait_for_query($node, 'SELECT count(*) >= 3 FROM ticks');
is($node->safe_psql('postgres', 'SELECT DISTINCT who FROM ticks'), 'alice', 'a cron task runs as its owner');
is($node->safe_psql('postgres', q{SELECT count(*) FROM jobs_queue WHERE cron_task_id IS NOT NULL
	GROUP BY cron_task_id, cron_instant HAVING count(*) > 1}), '', 'each instant once');
is($node->safe_psql('postgres', q{SELECT unschedule_cron_task('tick')}), 't', 'unschedule');

# Five sessions beside it
$node->safe_psql('postgres', q{SELECT schedule_cron_task('work', '* * * * * *', 'outside')});
my @sessions = map { $node->background_psql('postgres') } 1 .. 5;
my $until = time + 3;
while (time < $until)
{
	$_->query_safe('SELECT enqueue_cron_tasks()') for @sessions;
}
$_->quit for @sessions;
is($node->safe_psql('postgres', q{
	SELECT count(*) >= 3, count(*) = count(DISTINCT cron_instant),
		count(*) = 1 + extract(epoch FROM max(cron_instant) - min(cron_instant))
	FROM jobs_queue WHERE job_type = 'outside'}), 't|t|t', 'no instant twice, and none left out');

# A task with a fault is disabled; the others go on
$node->safe_psql('postgres', q{
	SELECT schedule_sql('tick', 'every 1 second', 'INSERT INTO ticks DEFAULT VALUES');
}, extra_params => [ '-U', 'alice' ]);
$node->safe_psql('postgres', q{TRUNCATE ticks});
wait_for_query($node, 'SELECT count(*) >= 1 FROM ticks');
pass('a task that is scheduled again runs again');

$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
