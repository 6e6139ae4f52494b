# A paused database is nobody's: what runs ends first, then no worker of the
# server is connected, and commands that want it alone succeed.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Session;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
jobqueue.max_executors = 4
jobqueue.executor_idle_timeout = 1h
jobqueue.log_level = debug
CONF
my $workers = q{SELECT count(*) FROM _server_workers() w JOIN pg_database d ON d.oid = w.database AND d.datname = '%s'};

# Waits for a condition in a database that is not "postgres".
sub wait_in
{
	my ($database, $sql) = @_;
	$node->poll_query_until($database, $sql) or die "waited in vain for $sql";
	return;
}

# From "postgres": a connection to the database itself would be in the way.
sub wait_until_left
{
	my ($database) = @_;
	wait_for_query($node, sprintf($workers, $database), '0');
	return;
}

sub make_shop
{
	my ($name) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $name");
	$node->safe_psql($name, q{
		CREATE EXTENSION jobqueue;
		CREATE TABLE effects (what text, at timestamptz DEFAULT clock_timestamp());
		SELECT schedule_sql('tick', 'every 1 second', $$INSERT INTO effects VALUES ('cron')$$);
		SELECT enqueue_sql($$INSERT INTO effects VALUES ('job')$$);
	});
	wait_in($name, q{SELECT count(DISTINCT what) = 2 FROM effects});
	return;
}

make_shop('shop');
is($node->safe_psql('postgres', sprintf $workers, 'shop') >= 2, 1, 'a scheduler and an executor');

# A job is running, and two wait behind it; the running one ends.
my $gate = JobQueue::Session->new($node, dbname => 'shop');
$gate->query('BEGIN');
$gate->query('SELECT pg_advisory_xact_lock(42)');
my $held = $node->safe_psql('shop', q{SELECT enqueue_sql($$SELECT pg_advisory_xact_lock(42); INSERT INTO effects VALUES ('held')$$)});
wait_in('shop', "SELECT status = 'running' FROM jobs_queue WHERE id = $held");
is($node->safe_psql('shop', 'SELECT pause_workers(), pause_workers()'), 't|f', 'paused');
my $waiting = $node->safe_psql('shop', q{SELECT enqueue_sql($$INSERT INTO effects VALUES ('late')$$)});
$node->safe_psql('shop', q{SELECT enqueue_job('outside')});
wait_in('shop', q{SELECT state = 'draining' FROM job_workers WHERE kind = 'scheduler'});
is($node->safe_psql('shop', q{SELECT count(*) FROM claim_next_job(gen_random_uuid())}), '0', 'an outside worker gets nothing');
is($node->safe_psql('shop', "SELECT status FROM jobs_queue WHERE id = $held"), 'running', 'the running job goes on');
wait_in('shop', q{SELECT array_agg(state) = '{draining}' FROM job_workers WHERE kind = 'executor'});
$gate->query('COMMIT');
$gate->quit;
wait_until_left('shop');
is($node->safe_psql('shop', 'SELECT is_active, reason, has_scheduler FROM queue_status'), 'f|paused|f', 'all have gone');
is($node->safe_psql('shop', "SELECT status FROM jobs_queue WHERE id = $held"), 'completed', 'after the end of the job');
is($node->safe_psql('shop', "SELECT status, claim_no FROM jobs_queue WHERE id = $waiting"), 'queued|0', 'what was enqueued waits');

# What wants the database alone.
my $crons = $node->safe_psql('shop', q{SELECT count(*) FROM jobs_queue WHERE cron_task_id IS NOT NULL});
my $tablespace = PostgreSQL::Test::Utils::tempdir();
$node->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION '$tablespace'");
foreach my $command (
	'ALTER DATABASE shop RENAME TO emporium',
	'CREATE DATABASE shop TEMPLATE emporium',
	'ALTER DATABASE emporium SET TABLESPACE elsewhere',
	'DROP DATABASE shop')
{
	my $began = time;
	my (undef, undef, $stderr) = $node->psql('postgres', $command);
	is($stderr, '', $command);
	cmp_ok(time - $began, '<', 4, "... at once");
}

# It survives a restart, and a crash.
foreach my $mode (qw(fast immediate))
{
	$node->stop($mode);
	$node->start;
	$node->wait_for_log(qr/jobqueue is paused in database "emporium"/);
	is($node->safe_psql('emporium', 'SELECT reason, has_scheduler FROM queue_status'), 'paused|f', "still paused after a restart ($mode)");
}
is($node->safe_psql('emporium', q{SELECT count(*) FROM jobs_queue WHERE cron_task_id IS NOT NULL}), $crons, 'cron stood still');

# Sleepers wake up, jobs and cron go on, and a pause that ends at once is none.
my $sleeper = JobQueue::Session->new($node, dbname => 'emporium');
is($node->safe_psql('emporium', 'SELECT resume_workers(), resume_workers()'), 't|f', 'resumed');
wait_in('emporium', "SELECT status = 'completed' FROM jobs_queue WHERE id = $waiting");
wait_in('emporium', qq{SELECT count(*) > $crons FROM jobs_queue WHERE cron_task_id IS NOT NULL});
is($sleeper->query(q{CALL wait_for_jobs('{outside}', '1 minute')}), 't', 'an outside worker goes on, too');
$sleeper->quit;
for my $i (1 .. 10)
{
	$node->safe_psql('emporium', $_) foreach 'SELECT pause_workers()', 'SELECT resume_workers()';
}
# A launcher that is slow hears of all that when the scheduler has just gone.
my $launcher = $node->safe_psql('postgres', q{SELECT pid FROM _server_workers() WHERE kind = 'launcher'});
kill 'STOP', $launcher;
$node->safe_psql('emporium', 'SELECT pause_workers()');
wait_in('emporium', 'SELECT NOT has_scheduler FROM queue_status');
$node->safe_psql('emporium', 'SELECT resume_workers()');
my $began = time;
kill 'CONT', $launcher;
my $id = $node->safe_psql('emporium', 'SELECT enqueue_sql($$SELECT 1$$)');
wait_in('emporium', "SELECT status = 'completed' FROM jobs_queue WHERE id = $id");
cmp_ok(time - $began, '<', 30, 'work goes on without waiting for the next probe');

# A job that hangs can be cancelled while the database is paused.
$id = $node->safe_psql('emporium', 'SELECT enqueue_sql($$SELECT pg_sleep(600)$$)');
wait_in('emporium', "SELECT count(*) = 1 FROM _server_workers() WHERE job_id = $id");
$node->safe_psql('emporium', 'SELECT pause_workers()');
wait_in('emporium', q{SELECT state = 'draining' FROM job_workers WHERE kind = 'scheduler'});
$node->safe_psql('emporium', "SELECT cancel_job($id)");
wait_until_left('emporium');
is($node->safe_psql('emporium', "SELECT status FROM jobs_queue WHERE id = $id"), 'cancelled', 'a hanging job is cancelled');

# An unrelated database can be dropped while jobs hang; and with FORCE their own.
$node->safe_psql('emporium', 'SELECT resume_workers()');
my @hung = split /\n/, $node->safe_psql('emporium', 'SELECT enqueue_sql($$SELECT pg_sleep(600)$$) FROM generate_series(1, 4)');
wait_in('emporium', 'SELECT count(*) = 4 FROM _server_workers() WHERE job_id IS NOT NULL');
$node->safe_psql('postgres', 'CREATE DATABASE unrelated');
$began = time;
$node->safe_psql('postgres', 'DROP DATABASE unrelated');
cmp_ok(time - $began, '<', 1, 'an unrelated database goes at once');
my $offset = -s $node->logfile;
$node->safe_psql('postgres', 'DROP DATABASE emporium WITH (FORCE)');
wait_for_query($node, q{SELECT count(*) FROM _server_workers() w WHERE database NOT IN (SELECT oid FROM pg_database)}, '0');
# Two more looks of the launcher
my $cycle = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
wait_for_query($node, "SELECT last_cycle_at > timestamptz '$cycle' + interval '2 seconds' FROM _server_workers() WHERE kind = 'launcher'");
my $fatal = () = slurp_file($node->logfile, $offset) =~ /FATAL:  database/g;
cmp_ok($fatal, '<=', 1, 'nobody tries to connect to it in vain, again and again');
is($node->safe_psql('postgres', 'SELECT has_scheduler FROM queue_status'), 't', 'other databases are served');

$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
