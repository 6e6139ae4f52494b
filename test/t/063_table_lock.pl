# Somebody who may locks the tables for long: the workers back off, say so, and
# go on as soon as they can; nothing is lost or run twice.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Session;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main', conf => "jobqueue.max_executors = 2\njobqueue.retry_delay = 0\nlog_line_prefix = '%m [%p] %b '");
$node->safe_psql('postgres', q{
	CREATE ROLE alice LOGIN;
	SELECT grant_job_role('alice', 'producer'), grant_job_role('alice', 'worker');
	CREATE TABLE effects (job_id bigint, at timestamptz DEFAULT clock_timestamp());
	GRANT INSERT ON effects TO alice});
my $pids = q{SELECT string_agg(kind || ' ' || pid, ', ' ORDER BY kind) FROM _server_workers() WHERE kind IN ('launcher', 'scheduler')};
wait_for_query($node, q{SELECT count(*) FROM _server_workers() WHERE kind IN ('launcher', 'scheduler')}, 2);
my $started = $node->safe_psql('postgres', $pids);

# A job that runs while the lock is taken, jobs that wait, and one held outside
my $worker = '11111111-0000-4000-8000-000000000001';
my $gate = JobQueue::Session->new($node);
$gate->query('SELECT pg_advisory_lock(1)');
my $running = $node->safe_psql('postgres', q{SELECT enqueue_sql('INSERT INTO effects VALUES ($2); SELECT pg_advisory_xact_lock(1)', run_as => 'alice')});
wait_for_query($node, "SELECT count(*) FROM _server_workers() WHERE job_id = $running", 1);
$node->safe_psql('postgres', q{SELECT enqueue_job('outside'); SELECT schedule_sql('tick', 'every 1 second', 'INSERT INTO effects VALUES (0)', run_as => 'alice')});
my $held = $node->safe_psql('postgres', "SELECT id FROM claim_next_job('$worker', 'outside')");

my $admin = JobQueue::Session->new($node);

# Somebody who waits, and has given up waiting, each time for one second.
my $waits = q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'jobqueue scheduler' AND wait_event_type = 'Lock'};

sub backs_off
{
	my ($table) = @_;

	wait_for_query($node, $waits);
	wait_for_query($node, $waits, 'f');
	wait_for_query($node, $waits);
	is($node->safe_psql('postgres', $pids), $started, "$table is locked: the scheduler gives up, and tries again");
}

my $offset = -s $node->logfile;
for my $table (qw(jobs_queue jobs_queue_live cron_tasks))
{
	$admin->query("BEGIN; LOCK TABLE $table IN ACCESS EXCLUSIVE MODE");
	backs_off($table);
	$admin->query('COMMIT');
	my $now = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
	wait_for_query($node, "SELECT count(*) > 0 FROM effects WHERE job_id = 0 AND at > '$now'");
	pass("$table is free: work goes on");
}
my @said = slurp_file($node->logfile, $offset) =~ /jobqueue scheduler \w+:  canceling statement due to lock timeout/g;
cmp_ok(scalar @said, '>=', 1, 'the log says so');
cmp_ok(scalar @said, '<=', 3, 'and not each time');

# The completion of a running job comes while the table is locked, perhaps for
# longer than an executor waits: then the job is rolled back and tried again.
$admin->query('BEGIN; LOCK TABLE jobs_queue IN ACCESS EXCLUSIVE MODE');
$gate->query('SELECT pg_advisory_unlock(1)');
backs_off('jobs_queue');
$admin->query('COMMIT');
wait_for_query($node, "SELECT status FROM jobs_queue WHERE id = $running", 'completed');
is($node->safe_psql('postgres', "SELECT count(*) FROM effects WHERE job_id = $running"), '1', 'a job that ended meanwhile has its effects once');
is($node->safe_psql('postgres', "SELECT resolve_job($held, '$worker', true)"), 't', 'an outside worker keeps its job');

# Clients wait as for any lock, and may give up
$admin->query('BEGIN; LOCK TABLE jobs_queue IN ACCESS EXCLUSIVE MODE');
my $client = JobQueue::Session->new($node);
is($client->try('SET lock_timeout = 200'), '00000', 'a client with a lock_timeout');
is($client->try(q{SELECT enqueue_job('x')}), '55P03', 'cannot enqueue');
is($client->try(qq{SELECT claim_next_job('$worker', 'x')}), '55P03', 'nor claim');
$admin->query('ROLLBACK');
is($client->try(q{SELECT enqueue_job('x')}), '00000', 'until the lock is gone');
is($client->query(qq{SELECT count(*) FROM claim_next_job('$worker', 'x')}), '1', 'and what it enqueues is claimed');

$node->safe_psql('postgres', q{DELETE FROM cron_tasks});
is($node->safe_psql('postgres', $pids), $started, 'launcher and scheduler are those from the start');
$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
