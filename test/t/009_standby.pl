# A standby runs nothing; after promotion it takes over.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $primary = JobQueue::Cluster->new('primary', init => { allows_streaming => 1 });
$primary->safe_psql('postgres', q{
	CREATE ROLE alice LOGIN;
	GRANT ALL ON SCHEMA public TO alice;
	SELECT grant_job_role('alice', 'producer');
	CREATE TABLE effects (job_id bigint);
	GRANT ALL ON effects TO alice;
});
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

# A job is running on the primary, and another one is held outside.
my $id = $primary->safe_psql('postgres', q{SELECT enqueue_sql('INSERT INTO effects VALUES ($2); SELECT pg_sleep(1)')},
	extra_params => [ '-U', 'alice' ]);
wait_for_query($primary, "SELECT count(*) FROM _server_workers() WHERE job_id = $id", 1);
$primary->safe_psql('postgres', q{SELECT enqueue_job('outside'); SELECT FROM claim_jobs(gen_random_uuid(), '{outside}', lease => '1 hour')});
$primary->wait_for_catchup($standby);

is($standby->safe_psql('postgres', 'SELECT count(*) FROM _server_workers()'), '0', 'a standby has no workers');
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'jobqueue%'}), '0', 'nor processes');
is($standby->safe_psql('postgres', "SELECT status FROM jobs_queue WHERE id = $id"), 'running', 'it sees the job run');
my ($code, undef, $stderr) = $standby->psql('postgres', q{SELECT enqueue_job('outside')});
like($stderr, qr/recovery|read-only/, 'nothing can be enqueued there');
(undef, undef, $stderr) = $standby->psql('postgres', q{SELECT claim_next_job(gen_random_uuid(), 'outside')});
like($stderr, qr/recovery|read-only/, 'nor claimed');
foreach my $call ('pause_workers()', 'activate_jobs()', q{stop_worker(gen_random_uuid())}, q{pause_job_type('outside')})
{
	(undef, undef, $stderr) = $standby->psql('postgres', "SELECT $call");
	like($stderr, qr/cannot work on jobs during recovery/, "nor is there $call");
}
is($standby->safe_psql('postgres', 'SELECT is_active, reason, has_scheduler FROM queue_status'), 'f|standby|f', 'the reason is seen');
is($standby->safe_psql('postgres', q{SELECT string_agg("check", ' ' ORDER BY 1) FILTER (WHERE status <> 'ok'), job_health_json()->>'status' FROM job_health()}), '|ok', 'and it is in good health');

# Failover
$primary->stop('immediate');
my $promoted = time;
$standby->promote;
wait_for_query($standby, "SELECT status FROM jobs_queue WHERE id = $id", 'completed');
my $seconds = time - $promoted;
cmp_ok($seconds, '<', 6, 'the job of the old primary has run within 5 s') or diag("took $seconds s");
is($standby->safe_psql('postgres', 'SELECT count(*) FROM effects'), '1', 'with one effect');
is($standby->safe_psql('postgres', "SELECT claim_no, status, charged FROM job_runs WHERE job_id = $id ORDER BY 1"),
	"1|crashed|f\n2|completed|t", 'it was taken from its dead executor');
is($standby->safe_psql('postgres', q{SELECT status FROM jobs_queue WHERE job_type = 'outside'}), 'running', 'an outside worker keeps its job');

$standby->stop;
unlike(slurp_file($standby->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
