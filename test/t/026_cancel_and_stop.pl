# Jobs are stopped when somebody wants it, and only they; executors come and go
# without costing a job an attempt.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster;
use JobQueue::SqlJobs;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# Between two polls nothing but a wake-up can have been heard.
my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
jobqueue.max_executors = 1
jobqueue.retry_delay = 0
jobqueue.executor_idle_timeout = 1min
jobqueue.poll_interval = 1min
jobqueue.shutdown_timeout = 500ms
autovacuum = off
CONF
my $jobs = JobQueue::SqlJobs->new($node);
my $note = q{INSERT INTO effects VALUES ($2, 'done')};
my $sleep = "$note; SELECT pg_sleep(600)";

$jobs->query(q{
	CREATE FUNCTION wait_for_test(key bigint) RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_xact_lock_shared(key)';
	CREATE FUNCTION goes_on() RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		LOOP
			BEGIN
				PERFORM pg_sleep(600);
			EXCEPTION WHEN query_canceled THEN NULL;
			END;
		END LOOP;
	END $$});
my $blocked = "$note; SELECT wait_for_test(1)";

sub ends
{
	my ($columns, @ids) = @_;

	return $jobs->query("SELECT $columns FROM jobs_queue WHERE id IN (" . join(',', @ids) . ') ORDER BY id');
}

sub runs
{
	my (@ids) = @_;

	return $jobs->query('SELECT status, charged FROM job_runs WHERE job_id IN (' . join(',', @ids) . ') ORDER BY job_id, claim_no');
}

sub effects
{
	my (@ids) = @_;

	return $jobs->query('SELECT count(*) FROM effects WHERE job_id IN (' . join(',', @ids) . ')');
}

sub in_mode { my ($command, $mode) = @_; return \"enqueue_job('sql', jsonb_build_object('command', \$cmd\$$command\$cmd\$, 'mode', '$mode'), max_attempts => 1)" }

sub wait_until_runs
{
	my ($id) = @_;

	$jobs->wait_for("SELECT count(*) FROM _server_workers() WHERE job_id = $id", 1);
	return;
}

# Enqueues a job that blocks the executor and others that are claimed with it.
sub claim_behind
{
	my ($first, @others) = @_;

	for (1 .. 10)
	{
		$jobs->warm_up;
		my @ids = $jobs->enqueue_together($first, @others);
		wait_until_runs($ids[0]);
		return @ids if ends('status', @ids) eq join "\n", ('running') x @ids;
		$jobs->query("SELECT cancel_job(id) FROM jobs_queue_live");
		$jobs->wait_until_gone(@ids);
	}
	die 'jobs were not claimed together';
}

# A running job is stopped as soon as the request commits
for my $mode (qw(batched alone autonomous))
{
	my $id = $jobs->enqueue(in_mode($mode eq 'autonomous' ? "BEGIN; $sleep; COMMIT" : $sleep, $mode));
	wait_until_runs($id);
	my $started = time;
	is($jobs->query("SELECT cancel_job($id)"), 't', "$mode: a running job is asked to stop");
	is($jobs->ended($id, 'status, attempts'), 'cancelled|1', 'and stops');
	cmp_ok(time - $started, '<', 10, 'soon');
	is(runs($id) . ' ' . effects($id), 'cancelled|t 0', 'its run says so, its effects are gone');
}
my @ids = $jobs->enqueue_together($note, $sleep, $note);
wait_until_runs($ids[1]);
$jobs->wait_for("SELECT count(*) FROM job_runs WHERE job_id = $ids[0]", 1);
$jobs->query("SELECT cancel_job($ids[1])");
$jobs->wait_until_gone(@ids);
is(ends('status, attempts', @ids), "completed|1\ncancelled|1\ncompleted|1", 'one that has left a batch');

# A request counts when it commits
$jobs->query('SELECT pg_advisory_lock(1)');
my $id = $jobs->enqueue("$blocked; SELECT pg_sleep(0.3)");    # three times what it takes to stop a job
wait_until_runs($id);
for ("BEGIN; SELECT cancel_job($id); ROLLBACK",
	"BEGIN; SAVEPOINT a; SELECT cancel_job($id); ROLLBACK TO a; COMMIT",
	"BEGIN; SAVEPOINT a; SAVEPOINT b; SELECT cancel_job($id); RELEASE b; ROLLBACK TO a; COMMIT",
	"DO 'BEGIN PERFORM cancel_job($id); PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NULL; END'")
{
	$jobs->query($_);
}
$jobs->query('SELECT pg_advisory_unlock(1)');
is($jobs->ended($id, 'status, attempts'), 'completed|1', 'a request that is rolled back stops nothing');
for ("BEGIN; SAVEPOINT a; SELECT cancel_job(%d); RELEASE a; COMMIT", "DO 'BEGIN PERFORM cancel_job(%d); EXCEPTION WHEN division_by_zero THEN NULL; END'",
	"BEGIN; SAVEPOINT a; SELECT cancel_job(%d); ROLLBACK TO a; SELECT cancel_job(%1\$d); COMMIT")
{
	$id = $jobs->enqueue($sleep);
	wait_until_runs($id);
	$jobs->query(sprintf $_, $id);
	is($jobs->ended($id, 'status'), 'cancelled', "committed from a subtransaction: $_");
}

# One that waits behind another in a batch
$jobs->query('SELECT pg_advisory_lock(1)');
@ids = claim_behind($blocked, $note, $note, $note);
$jobs->query("SELECT cancel_job(id) FROM unnest('{$ids[1],$ids[2]}'::bigint[]) id");
$jobs->query('SELECT pg_advisory_unlock(1)');
$jobs->wait_until_gone(@ids);
is(ends('status', @ids), "completed\ncancelled\ncancelled\ncompleted", 'jobs that wait in a batch are cancelled');
is(effects(@ids[ 1, 2 ]), '0', 'and never begin');
is(ends('attempts', @ids[ 1, 2 ]), "0\n0", 'so they are not charged');

# One that has to run again, because its batch failed, does not begin again
$jobs->query(q{
	CREATE FUNCTION wait_for_request(job bigint) RETURNS void LANGUAGE plpgsql AS
		'BEGIN WHILE EXISTS (SELECT FROM jobs_queue WHERE id = job AND status = ''running'' AND cancel_requested_at IS NULL) LOOP NULL; END LOOP; END'});
for (1 .. 10)
{
	$jobs->warm_up;
	@ids = $jobs->enqueue_together($note, 'SELECT wait_for_request($2 - 1); DELETE FROM jobs_queue WHERE id = $2');
	$jobs->wait_for("SELECT $ids[1] = ANY (SELECT job_id FROM _server_workers()) OR NOT EXISTS (SELECT FROM jobs_queue_live WHERE id = $ids[1])");
	$jobs->query("SELECT cancel_job($ids[0])");
	$jobs->wait_until_gone(@ids);
	last if ends('status', $ids[0]) ne 'completed';
}
is(ends('status, attempts', $ids[0]) . ' ' . effects($ids[0]), 'cancelled|0 0', 'a job that was cancelled before its batch failed');

# A cancellation never hits another job
$jobs->disconnect;
$node->append_conf('postgresql.conf', "jobqueue.poll_interval = 100ms\njobqueue.max_executors = 2");
$node->restart;
$jobs->connect;
@ids = split /\n/, $jobs->as_alice(q{SELECT enqueue_sql('INSERT INTO effects VALUES ($2, ''raced''); SELECT pg_sleep(0.006 * random())', max_attempts => 1) FROM generate_series(1, 500)});
my %asked;
my $until = time + 60;
for (my $i = 0; time < $until && $jobs->query("SELECT count(*) FROM jobs_queue_live WHERE id BETWEEN $ids[0] AND $ids[-1]") > 0; $i++)
{
	my $which = $i % 3 == 0 ? "SELECT job_id FROM _server_workers() WHERE job_id BETWEEN $ids[0] AND $ids[-1]"
	  : "SELECT id FROM jobs_queue_live WHERE id BETWEEN $ids[0] AND $ids[-1] AND status = 'running' ORDER BY random() LIMIT 1";
	$asked{$_} = 1 for split /\n/, $jobs->query("SELECT id FROM ($which) AS w(id), cancel_job(id) c");
}
$jobs->wait_until_gone(@ids);
my %count = map { split /\|/ } split /\n/, $jobs->query("SELECT status, count(*) FROM jobs_queue WHERE id BETWEEN $ids[0] AND $ids[-1] GROUP BY 1");
note(join ', ', map { "$_ $count{$_}" } sort keys %count);
is(($count{completed} // 0) + ($count{cancelled} // 0), 500, 'jobs that are cancelled at random moments complete or are cancelled');
cmp_ok($count{cancelled} // 0, '>', 10, 'some are');
is(scalar(grep { !$asked{$_} } split /\n/, $jobs->query("SELECT id FROM jobs_queue WHERE id BETWEEN $ids[0] AND $ids[-1] AND status = 'cancelled'")), 0, 'only those that were asked for');
is($jobs->query("SELECT count(*), count(DISTINCT job_id) FROM effects e WHERE what = 'raced'"), ($count{completed} // 0) . '|' . ($count{completed} // 0), 'the completed ones have their effects, once');
is($jobs->query("SELECT count(*) FROM effects e JOIN jobs_queue q ON q.id = e.job_id WHERE what = 'raced' AND q.status <> 'completed'"), '0', 'the cancelled ones have none');
is($jobs->query("SELECT count(*) FROM jobs_queue WHERE id BETWEEN $ids[0] AND $ids[-1] AND attempts > 1"), '0', 'none was charged twice');

# A body that does not want to end takes its process along
$jobs->configure('jobqueue.cancel_grace' => '300ms', 'jobqueue.max_executors' => 1);
for my $mode (qw(batched alone autonomous))
{
	$id = $jobs->enqueue(in_mode("$note; SELECT goes_on()", $mode));
	wait_until_runs($id);
	my $pid = $jobs->query("SELECT pid FROM _server_workers() WHERE job_id = $id");
	$jobs->query("SELECT cancel_job($id)");
	is($jobs->ended($id, 'status, attempts'), 'cancelled|1', "$mode: a body that goes on after a cancellation is ended");
	is($jobs->query("SELECT error FROM job_runs WHERE job_id = $id"), 'the process that ran this job was terminated (57P01)', 'its run says how');
	is($jobs->query("SELECT count(*) FROM _server_workers() WHERE pid = $pid"), '0', 'its process is gone');
	$id = $jobs->enqueue(\"enqueue_job('sql', jsonb_build_object('command', 'SELECT goes_on()', 'mode', '$mode'), timeout => '100ms', max_attempts => 1)");
	is($jobs->ended($id, 'status, last_error'), 'failed|the process that ran this job was terminated (57P01)', 'also after its time');
	is($jobs->ended($jobs->enqueue($note), 'status, attempts'), 'completed|1', 'the next job runs');
}

# Those that were claimed with it are innocent
@ids = claim_behind(["$note; SELECT goes_on()", q{timeout => '300ms'}], ($note) x 3);
$jobs->wait_until_gone(@ids);
is(ends('status, attempts', @ids), "failed|1\ncompleted|1\ncompleted|1\ncompleted|1", 'what was claimed with it is not charged');
$jobs->configure('jobqueue.cancel_grace' => '3s');

# pg_terminate_backend: the job has a moment, then it goes back as it came
for my $mode (qw(batched alone autonomous))
{
	@ids = claim_behind(in_mode($sleep, $mode), $note, $note);
	my $pid = $jobs->query("SELECT pid FROM _server_workers() WHERE job_id = $ids[0]");
	$jobs->query("SELECT pg_terminate_backend($pid)");
	$jobs->wait_for("SELECT count(*) FROM job_runs WHERE job_id BETWEEN $ids[0] AND $ids[2]", 3);
	is(runs(@ids), join("\n", ('released|f') x 3), "$mode: the jobs of an executor that is terminated go back uncharged");
	wait_until_runs($ids[0]);
	$jobs->query("SELECT cancel_job($ids[0])");
	$jobs->wait_until_gone(@ids);
	is(ends('status, attempts', @ids), "cancelled|1\ncompleted|1\ncompleted|1", 'and another one has them');
}

# New executors take over from old ones
$jobs->configure('jobqueue.executor_max_jobs' => 50);
@ids = split /\n/, $jobs->as_alice(qq{SELECT enqueue_sql(\$\$$note\$\$) FROM generate_series(1, 400)});
$jobs->wait_until_gone(@ids);
is($jobs->query("SELECT DISTINCT status, attempts FROM jobs_queue WHERE id BETWEEN $ids[0] AND $ids[-1]"), 'completed|1', 'executors that end after some jobs');
cmp_ok($jobs->query("SELECT count(DISTINCT worker_id) FROM job_runs WHERE job_id BETWEEN $ids[0] AND $ids[-1]"), '>', 1, 'are followed by others');
$jobs->configure('jobqueue.executor_max_jobs' => 0, 'jobqueue.executor_max_memory' => '1MB');
@ids = split /\n/, $jobs->as_alice(qq{SELECT enqueue_sql(\$\$$note\$\$) FROM generate_series(1, 30)});
$jobs->wait_until_gone(@ids);
is($jobs->query("SELECT DISTINCT status, attempts FROM jobs_queue WHERE id BETWEEN $ids[0] AND $ids[-1]"), 'completed|1', 'executors that end when they are large');
cmp_ok($jobs->query("SELECT count(DISTINCT worker_id) FROM job_runs WHERE job_id BETWEEN $ids[0] AND $ids[-1]"), '>', 1, 'are followed by others');
is($jobs->query("SELECT count(*) FROM job_runs WHERE status <> 'completed' AND job_id BETWEEN $ids[0] AND $ids[-1]"), '0', 'nothing had to be given back');
$jobs->configure('jobqueue.executor_max_memory' => '256MB');

# Reloads in the middle
$jobs->configure('jobqueue.max_executors' => 2);
@ids = split /\n/, $jobs->as_alice(qq{SELECT enqueue_sql(\$\$$note; SELECT pg_sleep(0.002)\$\$) FROM generate_series(1, 300)});
my $reloads = 0;
while ($jobs->query("SELECT count(*) FROM jobs_queue_live WHERE id BETWEEN $ids[0] AND $ids[-1]") > 0)
{
	$jobs->query('ALTER SYSTEM SET jobqueue.executor_batch_size = ' . (1 + $reloads++ % 7));
	$jobs->query('SELECT pg_reload_conf()');
}
cmp_ok($reloads, '>', 1, 'reloads while jobs run');
is($jobs->query("SELECT DISTINCT status, attempts FROM jobs_queue WHERE id BETWEEN $ids[0] AND $ids[-1]"), 'completed|1', 'disturb none of them');
is($jobs->query("SELECT count(*), count(DISTINCT job_id) FROM effects WHERE job_id BETWEEN $ids[0] AND $ids[-1]"), '300|300', 'each runs once');
$jobs->query('ALTER SYSTEM RESET jobqueue.executor_batch_size');

# Roles take turns, whoever has more to do
$jobs->configure('jobqueue.max_executors' => 1);
$jobs->query(q{CREATE ROLE bob LOGIN; SELECT grant_job_role('bob', 'producer'); GRANT ALL ON effects TO bob});
$jobs->as_alice(q{SELECT count(enqueue_sql('SELECT pg_sleep(0.003)', max_attempts => 1)) FROM generate_series(1, 1000)});
@ids = split /\n/, $jobs->query(qq{SET SESSION AUTHORIZATION bob; SELECT enqueue_sql(\$\$$note\$\$) FROM generate_series(1, 3); RESET SESSION AUTHORIZATION});
$jobs->wait_until_gone(@ids);
cmp_ok($jobs->query('SELECT count(*) FROM jobs_queue_live'), '>', 0, 'the few jobs of one role do not wait for the many of another');
$jobs->wait_for('SELECT count(*) FROM jobs_queue_live', 0);
is($jobs->query("SELECT DISTINCT status, attempts FROM jobs_queue WHERE id > $ids[0] - 1000"), 'completed|1', 'and all of them complete at the first attempt');

# A fast shutdown gives back what runs, in every mode
$jobs->configure('jobqueue.max_executors' => 4);
@ids = map { $jobs->enqueue(in_mode($sleep, $_)) } qw(batched alone autonomous);
wait_until_runs($_) for @ids;
push @ids, $jobs->enqueue_together($note, $sleep, ($note) x 3);
wait_until_runs($ids[4]);
$jobs->disconnect;
my $started = time;
$node->stop('fast');
cmp_ok(time - $started, '<', 10, 'a fast shutdown ends within 10 s');
$node->append_conf('postgresql.conf', 'jobqueue.enabled = off');
$node->start;
$jobs->connect;
is(ends('status, attempts, crashes', @ids[ 0, 1, 2, 4 ]), join("\n", ('queued|0|0') x 4), 'its jobs are queued again, uncharged');
is(runs(@ids[ 0, 1, 2, 4 ]), join("\n", ('released|f') x 4), 'with a run that was released');
is($jobs->query('SELECT count(*) FROM jobs_queue WHERE status = \'running\' OR id BETWEEN ' . "$ids[3] AND $ids[-1] AND (status, attempts) NOT IN (('queued', 0), ('completed', 1))"), '0', 'and so are those of its batches');

$jobs->disconnect;
$node->stop('fast');
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
