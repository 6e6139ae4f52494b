# Which workers run where: they follow CREATE and DROP EXTENSION, CREATE and
# DROP DATABASE, and come back when somebody ends them.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main');

sub pid_of
{
	my ($kind, $database) = @_;
	my $where = defined $database ? "datname = '$database'" : 'datname IS NULL';

	return $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'jobqueue $kind' AND $where");
}

sub wait_for_scheduler
{
	my ($database, $count) = @_;

	wait_for_query($node,
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'jobqueue scheduler' AND datname = '$database'",
		$count);
}

# Where the extension is
wait_for_scheduler('postgres', 1);
is($node->safe_psql('postgres', 'SELECT kind, state, database IS NULL FROM _server_workers() ORDER BY 1'),
	"launcher|running|t\nscheduler|running|f", 'the workers tell of themselves');
is($node->safe_psql('postgres', "SELECT application_name FROM pg_stat_activity WHERE backend_type = 'jobqueue launcher'"),
	'jobqueue launcher', 'application_name says what they are');

# A database that comes later, and its extension that comes later still
$node->safe_psql('postgres', 'CREATE ROLE alice LOGIN');
$node->safe_psql('postgres', 'CREATE DATABASE later');
$node->safe_psql('later', 'CREATE EXTENSION jobqueue');
wait_for_scheduler('later', 1);
pass('a new database gets its scheduler');

my $run_a_job = q{
	GRANT ALL ON SCHEMA public TO alice;
	SELECT grant_job_role('alice', 'producer');
	SET SESSION AUTHORIZATION alice;
	SELECT enqueue_sql('SELECT 1');
};
$node->safe_psql('later', $run_a_job);
ok($node->poll_query_until('later', q{SELECT count(*) = 1 FROM jobs_queue WHERE status = 'completed'}),
	'and its jobs are run');

# DROP EXTENSION, and once more
$node->safe_psql('later', 'DROP EXTENSION jobqueue CASCADE');
wait_for_scheduler('later', 0);
pass('the scheduler ends with the extension');
wait_for_query($node,
	q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'jobqueue executor' AND datname = 'later'}, '0');
pass('and so do its executors');
$node->safe_psql('later', 'CREATE EXTENSION jobqueue');
wait_for_scheduler('later', 1);
$node->safe_psql('later', $run_a_job);
ok($node->poll_query_until('later', q{SELECT count(*) = 1 FROM jobs_queue WHERE status = 'completed'}),
	'a second CREATE EXTENSION is served without a restart');

# A transaction that is rolled back changes nothing
my $pid = pid_of('scheduler', 'later');
$node->safe_psql('later', 'BEGIN; DROP EXTENSION jobqueue CASCADE; ROLLBACK');
is(pid_of('scheduler', 'later'), $pid, 'DROP EXTENSION that is rolled back ends nothing');

$node->safe_psql('postgres', 'DROP DATABASE later WITH (FORCE)');
wait_for_query($node, q{SELECT count(*) FROM _server_workers() w WHERE database NOT IN (SELECT oid FROM pg_database)}, '0');
pass('DROP DATABASE WITH (FORCE) takes the workers with it');

# Databases that are not to be served
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION jobqueue');
wait_for_scheduler('other', 1);
$node->append_conf('postgresql.conf', q{jobqueue.databases = 'postgres'});
$node->reload;
wait_for_scheduler('other', 0);
pass('a database that is no longer listed loses its scheduler');
$node->append_conf('postgresql.conf', q{jobqueue.databases = '*'});
$node->reload;
wait_for_scheduler('other', 1);
pass('and gets one again');

# Whoever is ended comes back
my $launcher = pid_of('launcher');
my $scheduler = pid_of('scheduler', 'postgres');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($launcher)");
wait_for_query($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'jobqueue launcher' AND pid <> $launcher", 1);
is(pid_of('scheduler', 'postgres'), $scheduler, 'a new launcher adopts the schedulers');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($scheduler)");
wait_for_query($node,
	"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'jobqueue scheduler' AND datname = 'postgres' AND pid <> $scheduler", 1);
pass('a scheduler that was terminated is started again');

my $cancelled_at = $node->safe_psql('postgres',
	'SELECT clock_timestamp() FROM _server_workers() HAVING bool_and(pg_cancel_backend(pid))');
wait_for_query($node, "SELECT count(*) FROM _server_workers() WHERE last_cycle_at > timestamptz '$cancelled_at' + interval '300 ms'", 3);
pass('pg_cancel_backend does them no harm');

# An idle server
$node->safe_psql('postgres', 'CHECKPOINT');
my $before = $node->safe_psql('postgres', 'SELECT pg_snapshot_xmax(pg_current_snapshot())');
my $cycle = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
wait_for_query($node, "SELECT count(*) = 2 FROM _server_workers() WHERE kind = 'scheduler' AND last_cycle_at > timestamptz '$cycle' + interval '1 second'");
is($node->safe_psql('postgres', 'SELECT pg_snapshot_xmax(pg_current_snapshot())'),
	$before, 'idle workers use no transaction ids');

$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');

# Without preloading
my $plain = JobQueue::Cluster->new('plain', conf => q{shared_preload_libraries = ''});
is($plain->safe_psql('postgres', 'SELECT count(*) FROM _server_workers()'), '0', 'no workers without preloading');
is($plain->safe_psql('postgres', q{SELECT enqueue_job('mail') > 0}), 't', 'a plain session enqueues');
is($plain->safe_psql('postgres', q{SELECT job_type FROM claim_next_job(gen_random_uuid(), 'mail')}), 'mail', 'and claims');
is($plain->safe_psql('postgres', q{LOAD 'jobqueue'; SHOW jobqueue.lease}), '5min', 'LOAD works');
my (undef, undef, $stderr) = $plain->psql('postgres', q{LOAD 'jobqueue'; SHOW jobqueue.launcher});
like($stderr, qr/unrecognized configuration parameter "jobqueue.launcher"/, 'what needs preloading is not there');
$plain->stop;

done_testing();
