# The contract without shared_preload_libraries: no shared memory, no workers.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\njobqueue.retry_delay = 0");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION jobqueue');
my $one = '00000000-0000-4000-8000-000000000001';
my $two = '00000000-0000-4000-8000-000000000002';

# Enqueue, claim, fail, claim again, complete.
my $id = $node->safe_psql('postgres', q{SELECT enqueue_job('plain', '{"a": 1}')});
is($node->safe_psql('postgres', "SELECT id, payload->>'a', attempts FROM claim_next_job('$one', 'plain')"), "$id|1|1", 'a job is claimed');
is($node->safe_psql('postgres', "SELECT count(*) FROM claim_next_job('$two', 'plain')"), '0', 'by one worker only');
is($node->safe_psql('postgres', "SELECT resolve_job($id, '$one', false, 'no')"), 't', 'a failure is recorded');
is($node->safe_psql('postgres', "SELECT attempts FROM claim_jobs('$two', '{plain}', 5)"), '2', 'the job is retried');
is($node->safe_psql('postgres', "SELECT resolve_job($id, '$two', true)"), 't', 'and completed');
is($node->safe_psql('postgres', "SELECT status, charged FROM job_runs WHERE job_id = $id ORDER BY claim_no"), "failed|t\ncompleted|t", 'with a run for each claim');
is($node->safe_psql('postgres', q{SELECT count(*) FROM enqueue_jobs('bulk', ARRAY['{}', '{}']::jsonb[])}), '2', 'bulk enqueue works');

# Nobody else looks after leases: claims do.
$node->safe_psql('postgres', "SELECT FROM claim_jobs('$one', '{bulk}', 2, '1 millisecond')");
ok($node->poll_query_until('postgres', "SELECT count(*) > 0 FROM claim_next_job('$two', 'bulk')"), 'an expired lease is taken back by claims');
is($node->safe_psql('postgres', q{SELECT DISTINCT status FROM job_runs WHERE job_type = 'bulk'}), 'expired', 'and leaves its run');

# Cron tasks are enqueued by whoever calls.
$node->safe_psql('postgres', q{
	SELECT schedule_cron_task('tick', 'every 1 minute', 'ticked');
	UPDATE cron_tasks SET next_run_at = now() - interval '30 seconds';
});
is($node->safe_psql('postgres', 'SELECT enqueue_cron_tasks()'), '1', 'a due cron task is enqueued');
is($node->safe_psql('postgres', 'SELECT enqueue_cron_tasks()'), '0', 'once');

# What needs the workers says so.
my ($out, $err);
$node->psql('postgres', q{SELECT enqueue_sql('SELECT 1')}, stdout => \$out, stderr => \$err);
like($err, qr/NOTICE:  this server does not run SQL jobs by itself\s+HINT:  Add jobqueue to shared_preload_libraries and restart the server\./, 'enqueue_sql says that nobody runs it');
$node->psql('postgres', q{SELECT schedule_sql('t', '@hourly', 'SELECT 1')}, stdout => \$out, stderr => \$err);
like($err, qr/NOTICE:  this server does not run SQL jobs/, 'so does schedule_sql');
is($node->safe_psql('postgres', q{SELECT count(*) FROM job_workers WHERE kind <> 'external'}), '0', 'there are no workers to see');
is($node->safe_psql('postgres', 'SELECT is_active, reason, has_scheduler FROM queue_status'), 'f|library not preloaded|f', 'and it says why');
is($node->safe_psql('postgres', 'SELECT pause_workers()'), 't', 'a pause is possible');
is($node->safe_psql('postgres', "SELECT count(*) FROM claim_next_job('$one')"), '0', 'and holds');
is($node->safe_psql('postgres', 'SELECT resume_workers()'), 't', 'until its end');

# The library loads late, and knows its settings then.
is($node->safe_psql('postgres', "LOAD 'jobqueue'; SHOW jobqueue.lease"), '5min', 'LOAD defines the settings');
is($node->psql('postgres', "LOAD 'jobqueue'; SET jobqueue.nonsense = 1"), 3, 'and reserves their prefix');
is($node->psql('postgres', "LOAD 'jobqueue'; SHOW jobqueue.launcher"), 3, 'a setting of the start is not defined later');

$node->append_conf('postgresql.conf', 'jobqueue.enabled = off');
$node->reload;
$node->safe_psql('postgres', q{SELECT enqueue_job('late')});
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM claim_next_job('$one', 'late')"), 'jobqueue.enabled stops claims');

$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|FATAL|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
