# When the scheduler wakes for cron, and when it does not: with a poll interval
# of an hour it is there for every second that is due and for every change, a
# row that somebody holds costs neither the other tasks nor the processor, a
# failure in the middle costs nothing, and tasks that are not due cost nothing.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Faults qw(install_faults arm reached disarm);
use JobQueue::Jobs qw(worker_pid);
use JobQueue::Session;
use JobQueue::Storm qw(log_problems);
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
jobqueue.poll_interval = 1h
jobqueue.retry_delay = 0
max_prepared_transactions = 5
autovacuum = off
checkpoint_timeout = 1h
log_statement = none
CONF
my $has_faults = install_faults($node);
my $session = JobQueue::Session->new($node);

sub query { return $session->query(@_) }

# Processor time of a process, in seconds
sub cpu_of
{
	my ($pid) = @_;

	my @fields = split ' ', slurp_file("/proc/$pid/stat") =~ s/.*\) //sr;
	return ($fields[11] + $fields[12]) / POSIX::sysconf(POSIX::_SC_CLK_TCK());
}

# How late the runs are, usually, in seconds
sub lateness
{
	my ($which) = @_;

	return query("SELECT extract(epoch FROM percentile_disc(0.3) WITHIN GROUP (ORDER BY decided_at - instant)) FROM cron_runs WHERE $which");
}

# ---- due seconds ----

query(q{SELECT schedule_cron_task('second', '* * * * * *', 'outside', catch_up => 'all')});
wait_for_query($node, q{SELECT run_count >= 5 FROM cron_tasks});
# A machine that is busy elsewhere may be late now and then.
cmp_ok(lateness('true'), '<', 0.5, 'a task of every second runs each second');
is(query(q{SELECT count(*) FROM cron_runs WHERE decided_at < instant}), 0, 'none is early');

# ---- changes, while nothing else wakes the scheduler ----

query(q{DELETE FROM cron_tasks; SELECT schedule_cron_task('yearly', '0 0 1 1 *', 'outside')});
my %changes = (
	'INSERT' => q{INSERT INTO cron_tasks (name, schedule, job_type, next_run_at) VALUES ('inserted', '0 0 1 1 *', 'outside', now())},
	'COPY' => qq{COPY cron_tasks (name, schedule, job_type) FROM stdin;\ncopied\t* * * * * *\toutside\n\\.},
	'UPDATE' => q{UPDATE cron_tasks SET next_run_at = now() - interval '1 day' WHERE name = 'yearly'},
	'a new schedule' => q{UPDATE cron_tasks SET schedule = 'every 1 second' WHERE name = 'yearly'},
	'MERGE' => q{MERGE INTO cron_tasks t USING (VALUES ('yearly')) AS v (name) ON t.name = v.name
		WHEN MATCHED THEN UPDATE SET starts_at = NULL, next_run_at = now()},
	'a call' => q{SELECT schedule_cron_task('called', 'every 1 second', 'outside')});
foreach my $change (sort keys %changes)
{
	my $before = query('SELECT coalesce(max(id), 0) FROM jobs_queue');
	query($changes{$change});
	wait_for_query($node, "SELECT count(*) > 0 FROM jobs_queue WHERE id > $before");
	pass("$change is honoured at once");
	query(q{DELETE FROM cron_tasks; SELECT schedule_cron_task('yearly', '0 0 1 1 *', 'outside')});
}

# Nobody is woken by a COMMIT PREPARED; whatever wakes the scheduler will do.
query(q{BEGIN; UPDATE cron_tasks SET next_run_at = now() WHERE name = 'yearly'; PREPARE TRANSACTION 'later'});
query(q{COMMIT PREPARED 'later'});
query('SELECT pg_reload_conf()');
wait_for_query($node, q{SELECT run_count FROM cron_tasks WHERE name = 'yearly'}, 1);
pass('a prepared transaction is honoured when the scheduler wakes');

# ---- a row that somebody holds ----

my $operator = JobQueue::Session->new($node);
query(q{SELECT schedule_cron_task('second', '* * * * * *', 'outside', catch_up => 'all'), schedule_cron_task('held', '0 0 1 1 *', 'outside')});
wait_for_query($node, q{SELECT run_count >= 1 FROM cron_tasks WHERE name = 'second'});
query(q{UPDATE cron_tasks SET next_run_at = date_trunc('second', now()) + interval '1.5 s' WHERE name = 'held'});
$operator->query(q{BEGIN; SELECT FROM cron_tasks WHERE name = 'held' FOR UPDATE});
wait_for_query($node, q{SELECT next_run_at < now() - interval '10 ms' FROM cron_tasks WHERE name = 'held'});
my $count = query(q{SELECT run_count FROM cron_tasks WHERE name = 'second'});
my $held_from = query('SELECT clock_timestamp()');
my $scheduler = worker_pid($node, 'jobqueue scheduler');
my ($cpu, $from) = (cpu_of($scheduler), time);
wait_for_query($node, "SELECT run_count >= $count + 4 FROM cron_tasks WHERE name = 'second'");
cmp_ok((cpu_of($scheduler) - $cpu) / (time - $from), '<', 0.05, 'a held row does not make the scheduler spin');
is(query(q{SELECT run_count FROM cron_tasks WHERE name = 'held'}), 0, 'its task waits');
cmp_ok(lateness("decided_at > '$held_from'"), '<', 0.4, 'the others are on time');
$operator->query('ROLLBACK');
wait_for_query($node, q{SELECT run_count FROM cron_tasks WHERE name = 'held'}, 1);
pass('it runs when the row is free');

# The whole table
$operator->query('BEGIN; LOCK TABLE cron_tasks');
my $offset = -s $node->logfile;
$node->wait_for_log(qr/canceling statement due to lock timeout/, $offset);
$operator->query('COMMIT');
$count = query(q{SELECT run_count FROM cron_tasks WHERE name = 'second'});
wait_for_query($node, "SELECT run_count > $count FROM cron_tasks WHERE name = 'second'");
pass('after a lock of the table all goes on');

# ---- more than fit into one transaction ----

query(q{DELETE FROM cron_tasks; DELETE FROM jobs_queue;
	INSERT INTO cron_tasks (name, schedule, job_type, overlap, next_run_at)
	SELECT 'task ' || n, '0 0 1 1 *', 'outside', 'skip', now() FROM generate_series(1, 4500) n});
wait_for_query($node, q{SELECT sum(run_count) FROM cron_tasks}, 4500);
query(q{UPDATE cron_tasks SET next_run_at = now()});
wait_for_query($node, q{SELECT sum(skipped_count) FROM cron_tasks}, 4500);
cmp_ok(query(q{SELECT extract(epoch FROM max(decided_at) - min(decided_at)) FROM cron_runs WHERE job_id IS NULL}), '<', 2.5,
	'runs that are skipped are no reason to wait');

# ---- failures in the middle ----

SKIP:
{
	skip 'this build has no fault points', 6 if !$has_faults;
	query(q{DELETE FROM cron_tasks; DELETE FROM jobs_queue;
		SELECT schedule_cron_task('every ' || n, '* * * * * *', 'outside', catch_up => 'all', catch_up_limit => 1000) FROM generate_series(1, 3) n});
	for my $action (qw(error sigterm pause sigkill))
	{
		$offset = -s $node->logfile;
		arm($node, 'in_cron_enqueue', $action, $action eq 'error' ? 3 : 1);
		$node->wait_for_log(qr/LOG:  fault point "in_cron_enqueue": $action/, $offset);
		if ($action eq 'sigkill')
		{
			$node->wait_for_log(qr/all server processes terminated; reinitializing/, $offset);
			wait_for_query($node, 'SELECT true');
			$session->connect or die $session->{message};
		}
		$count = query(q{SELECT max(run_count) FROM cron_tasks});
		disarm($node);
		wait_for_query($node, "SELECT bool_and(run_count > $count + 1) FROM cron_tasks");
		is(query(q{SELECT max(gap), bool_and(has_job) FROM (SELECT lead(instant) OVER (PARTITION BY task_id ORDER BY instant) - instant,
				(SELECT count(*) FROM jobs_queue q WHERE q.cron_task_id = task_id AND q.cron_instant = instant) = 1
			FROM cron_runs) AS r (gap, has_job)}), '00:00:01|t', "$action: every instant once");
	}
	is(query(q{SELECT bool_and(enabled), sum(missed_count) FROM cron_tasks}), 't|0', 'no fault has disabled a task');
	is(query(q{SELECT count(*) FROM jobs_queue WHERE cron_task_id IS NOT NULL GROUP BY cron_task_id, cron_instant HAVING count(*) > 1}), '',
		'or enqueued anything twice');
}

# ---- nothing due ----

query(q{
	DELETE FROM cron_tasks;
	DELETE FROM jobs_queue;
	INSERT INTO cron_tasks (name, schedule, job_type, run_on_start)
	SELECT 'task ' || n, '0 0 1 ' || date_part('month', now() + interval '6 months') || ' *', 'outside', n % 2 = 0 FROM generate_series(1, 1000) n;
	ALTER SYSTEM SET jobqueue.poll_interval = '100ms'});
query('SELECT pg_reload_conf(); VACUUM');
query('CHECKPOINT');

sub position { return query('SELECT pg_current_wal_insert_lsn(), pg_snapshot_xmax(pg_current_snapshot())') }

# What has happened is written down every 10 s.
my $before = position();
my $still = 0;
for (my $tries = 0; $still < 110 && $tries < 900; $tries++)
{
	my $now = position();
	$still = $now eq $before ? $still + 1 : 0;
	$before = $now;
	sleep 0.1;    # why: to see whether it stands still
}
my ($lsn_before, $xid_before) = split /\|/, $before;
sleep 0.1 for 1 .. 30;    # why: time for as many polls
my ($lsn, $xid) = split /\|/, position();
is($xid, $xid_before, 'a thousand tasks that are not due use no transaction id');
# A running-xacts record of the server itself is all that may come.
cmp_ok(query("SELECT '$lsn'::pg_lsn - '$lsn_before'::pg_lsn"), '<=', 200, 'and write no WAL');

$_->quit for $session, $operator;
$node->stop('fast');
is(log_problems($node), '', 'nothing else has crashed');
done_testing();
