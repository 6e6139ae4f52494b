# Jobs of outside workers that fall silent come back.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main', conf => 'jobqueue.lease = 1s');
my $silent = '00000000-0000-4000-8000-000000000001';
my $alive = '00000000-0000-4000-8000-000000000002';

my ($id, $other) = split /\|/, $node->safe_psql('postgres',
	q{SELECT enqueue_job('outside', max_attempts => 2), enqueue_job('patient')});
$node->safe_psql('postgres', qq{
	SELECT FROM claim_jobs('$silent', '{outside}');
	SELECT FROM claim_jobs('$alive', '{patient}', lease => '1 hour');
});
is($node->safe_psql('postgres', "SELECT status, attempts, locked_by FROM jobs_queue WHERE id = $id"), "running|1|$silent", 'a worker holds a job');

wait_for_query($node, "SELECT status FROM jobs_queue WHERE id = $id", 'queued');
is($node->safe_psql('postgres', "SELECT status, charged FROM job_runs WHERE job_id = $id"), 'expired|t', 'the scheduler takes it back, charged');
is($node->safe_psql('postgres', "SELECT resolve_job($id, '$silent', true)"), 'f', 'the worker that comes too late changes nothing');
is($node->safe_psql('postgres', "SELECT status, locked_by FROM jobs_queue WHERE id = $other"), "running|$alive", 'a lease that runs on is honoured');

# Heartbeats
$node->safe_psql('postgres', qq{SELECT FROM claim_jobs('$silent', '{outside}'); SELECT heartbeat_job($id, '$silent', '1 hour')});
my $now = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
wait_for_query($node, "SELECT count(*) FROM _server_workers() WHERE kind = 'scheduler' AND last_cycle_at > timestamptz '$now' + interval '1500 ms'", 1);
is($node->safe_psql('postgres', "SELECT status, attempts FROM jobs_queue WHERE id = $id"), 'running|2', 'a heartbeat keeps a job');

# The last attempt
$node->safe_psql('postgres', qq{SELECT heartbeat_job($id, '$silent', '1 millisecond')});
wait_for_query($node, "SELECT status FROM jobs_queue WHERE id = $id", 'failed');
is($node->safe_psql('postgres', "SELECT attempts, last_error FROM jobs_queue WHERE id = $id"), '2|lease expired', 'an expired last attempt ends a job');

# Completed jobs that need not be kept
$node->safe_psql('postgres', qq{
	INSERT INTO job_types (job_type, keep_completed) VALUES ('short-lived', '1 hour'), ('long-lived', '300 days');
	SELECT enqueue_job(t) FROM unnest('{short-lived,long-lived}'::text[]) t, generate_series(1, 1500);
	SELECT count(resolve_job(id, '$alive', true)) FROM claim_jobs('$alive', '{short-lived,long-lived}', 1000);
	SELECT count(resolve_job(id, '$alive', true)) FROM claim_jobs('$alive', '{short-lived,long-lived}', 1000);
	SELECT count(resolve_job(id, '$alive', true)) FROM claim_jobs('$alive', '{short-lived,long-lived}', 1000);
	SET session_replication_role = replica;
	UPDATE jobs_queue SET finished_at = finished_at - interval '2 hours' WHERE status = 'completed';
});
is($node->safe_psql('postgres', q{SELECT job_type, count(*) FROM jobs_queue_done WHERE status = 'completed' GROUP BY 1 ORDER BY 1}),
	"long-lived|1500\nshort-lived|1500", 'many completed jobs');
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM _server_workers() WHERE kind = 'scheduler'});
wait_for_query($node, q{SELECT count(*) FROM jobs_queue_done WHERE job_type = 'short-lived'}, 0);
is($node->safe_psql('postgres', q{SELECT count(*) FROM jobs_queue_done WHERE status = 'completed'}), '1500', 'those that were kept for long enough are deleted');
is($node->safe_psql('postgres', q{SELECT count(*) FROM job_runs WHERE job_type = 'short-lived'}), '1500', 'and their runs stay');

$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
