# Without a free background worker slot, jobs wait; nothing spins or fails.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Room for the server's own logical replication launcher, for ours and for the
# schedulers of two databases.
my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
max_worker_processes = 4
max_parallel_workers = 0
jobqueue.shutdown_timeout = 0
CONF

$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION jobqueue');
wait_for_query($node, q{SELECT count(*) FROM _server_workers() WHERE kind = 'scheduler'}, 2);

my $id = $node->safe_psql('postgres', q{
	CREATE ROLE alice LOGIN;
	SELECT grant_job_role('alice', 'producer');
	GRANT USAGE ON SCHEMA public TO alice;
	SET SESSION AUTHORIZATION alice;
	SELECT enqueue_sql('SELECT 1')});
$id =~ s/\s//g;
$node->wait_for_log(qr/WARNING:  jobqueue is waiting for a background worker slot/);
my $now = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
wait_for_query($node, "SELECT count(*) FROM _server_workers() WHERE kind = 'scheduler' AND last_cycle_at > timestamptz '$now' + interval '2 s'", 2);
my $warnings = () = slurp_file($node->logfile) =~ /waiting for a background worker slot/g;
is($warnings, 1, 'one warning, however often it is tried');
is($node->safe_psql('postgres', "SELECT status, attempts FROM jobs_queue WHERE id = $id"), 'queued|0', 'the job waits');

$node->safe_psql('postgres', 'DROP DATABASE other WITH (FORCE)');
wait_for_query($node, "SELECT status FROM jobs_queue WHERE id = $id", 'completed');
is($node->safe_psql('postgres', "SELECT finished_at < timestamptz '$now' + interval '12 seconds' FROM jobs_queue WHERE id = $id"),
	't', 'and is run soon after a slot is free');

$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
