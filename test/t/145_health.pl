# Checks of job_health() that other processes make complain: workers that are
# silent, that end or have no process, snapshots, locks, endpoints; and servers
# that work without workers.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Session;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Room for the server's own logical replication launcher, for our launcher, for
# the schedulers of two databases and one more.
my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
max_worker_processes = 5
max_parallel_workers = 0
max_prepared_transactions = 2
autovacuum_naptime = 1d
jobqueue.max_lanes = 8
jobqueue.shutdown_timeout = 0
jobqueue.dispatcher_idle_timeout = 100ms
jobqueue.executor_idle_timeout = 100ms
jobqueue.health_silence = 2s
jobqueue.health_cron_lateness = 1s
jobqueue.health_snapshot_age = 1s
jobqueue.health_dead_rows = 50
jobqueue.health_endpoint_failures = 2
jobqueue.http_allow_cidrs = '127.0.0.1/32'
jobqueue.http_allow_ports = '*'
CONF
$node->safe_psql('postgres', q{CREATE ROLE watcher LOGIN; SELECT grant_job_role('watcher', 'observer')});

# What a check says: its status, or a part of its detail.
sub query
{
	my ($check, $pattern) = @_;
	return qq{SELECT count(*) FROM job_health() WHERE "check" = '$check' AND status || ': ' || detail ~ '$pattern'};
}

sub says
{
	my ($check, $pattern, $what) = @_;
	wait_for_query($node, query($check, $pattern), 1);
	return ok(1, $what // "$check says: $pattern");
}

sub is_well { return says($_[0], '^ok', "$_[0] is well again") }

sub worker
{
	my ($kind) = @_;
	wait_for_query($node, qq{SELECT count(*) > 0 FROM job_workers WHERE kind = '$kind' AND pid > 0 AND state <> 'starting'});
	return $node->safe_psql('postgres', qq{SELECT pid FROM job_workers WHERE kind = '$kind'});
}

worker('scheduler');
is($node->safe_psql('postgres', q{SELECT "check", detail FROM job_health() WHERE status <> 'ok'}), '', 'all is well at first');
is($node->safe_psql('postgres', q{SELECT job_health_json()->>'status'}), 'ok', 'in one word, too');

# Silent workers
foreach my $kind ('launcher', 'scheduler')
{
	my $pid = worker($kind);
	$node->safe_psql('postgres', q{SELECT schedule_cron_task('tick', 'every 1 second', 'ticked')}) if $kind eq 'scheduler';
	kill 'STOP', $pid;
	says($kind, "^fail: the $kind has been silent for ");
	says('cron_late', '^(warn|fail): late: tick ') if $kind eq 'scheduler';
	is($node->safe_psql('postgres', qq{SELECT data->>'pid' FROM job_health() WHERE "check" = '$kind'}), $pid, 'it is named');
	kill 'CONT', $pid;
	is_well($kind);
}
is_well('cron_late');
$node->safe_psql('postgres', q{SELECT unschedule_cron_task('tick')});

# A worker that ends again and again
for my $time (1 .. 3)
{
	my $pid = worker('scheduler');
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	wait_for_query($node, "SELECT count(*) FROM job_workers WHERE kind = 'scheduler' AND pid = $pid", 0);
}
says('worker_errors', '^warn: the scheduler ended 3 times in ');

# No process for another worker; and nobody asks for the jobs meanwhile.
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION jobqueue');
wait_for_query($node, q{SELECT count(*) FROM _server_workers() WHERE kind = 'scheduler' AND state = 'running'}, 2);
$node->safe_psql('postgres', q{SELECT enqueue_sql('SELECT pg_sleep(60)'), enqueue_sql('SELECT 1')});
wait_for_query($node, q{SELECT count(*) FROM job_workers WHERE kind = 'executor'}, 1);
says('worker_slots', '^warn: no process was free for: executor of database postgres');
$node->safe_psql('postgres', q{SELECT cancel_job(id) FROM jobs_queue WHERE status = 'running'});
wait_for_query($node, q{SELECT count(*) FROM jobs_queue_live WHERE job_type = 'sql'}, 0);
is_well('worker_slots');
$node->safe_psql('postgres', 'DROP DATABASE other WITH (FORCE)');
$node->restart;
worker('scheduler');
is_well('worker_errors');

# Who keeps dead rows: named for an observer, too
my $report = JobQueue::Session->new($node);
$report->query(q{SET application_name = 'report'; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1});
my $holder = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE application_name = 'report'});
my $user = $node->safe_psql('postgres', 'SELECT current_user');
says('snapshots', "^warn: dead rows are kept for: session $holder of $user [(]report, idle in transaction[)], [0-9]+ s\$");
is($node->safe_psql('postgres', q{SELECT status, data->0->>'pid' FROM job_health() WHERE "check" = 'snapshots'}, extra_params => [ '-U', 'watcher' ]),
	"warn|$holder", 'an observer sees it');
$report->query('COMMIT');
is_well('snapshots');
$report->query('BEGIN; CREATE TABLE written ()');
says('snapshots', "^warn: .*session $holder ");
$report->query(q{PREPARE TRANSACTION 'forgotten'});
says('snapshots', '^warn: .*prepared transaction forgotten of ');
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'forgotten'});
is_well('snapshots');

# Dead rows
$node->safe_psql('postgres', q{SELECT count(enqueue_job('bulk')) FROM generate_series(1, 100); DELETE FROM jobs_queue});
says('dead_rows', '^warn: dead rows: [0-9]+ of jobs_queue_live');
$node->safe_psql('postgres', 'VACUUM jobs_queue_live');
is_well('dead_rows');

# A table that somebody has locked: that is said, soon, and the rest, too.
my $checks = $node->safe_psql('postgres', 'SELECT count(*) FROM job_health()');
$report->query('BEGIN; LOCK TABLE jobs_queue_done');
is($node->safe_psql('postgres', q{SELECT count(*), count(*) FILTER (WHERE detail ~ '^could not be checked: .*lock timeout.*55P03') > 0,
	count(*) FILTER (WHERE status = 'ok') > 10 FROM job_health()}), "$checks|t|t", 'a lock stops the checks that need the table, and no others');
$report->query('ROLLBACK');

# Endpoints
$node->safe_psql('postgres', q{
	INSERT INTO http_endpoints (name, url) VALUES ('crm', 'http://127.0.0.1:1/');
	SELECT enqueue_http('crm', max_attempts => 1) FROM generate_series(1, 2)});
says('endpoints', '^warn: crm has failed 2 times in a row');
$node->safe_psql('postgres', q{SELECT reset_endpoint_stats('crm')});
is_well('endpoints');

# Memory
$node->safe_psql('postgres', q{SELECT enqueue_job('many', stage => n::text) FROM generate_series(1, 8) n; SELECT count(*) FROM claim_jobs(gen_random_uuid(), '{many}', 8)});
says('shared_memory', '^warn: nearly full: 8 of 8 in jobqueue.max_lanes');

# Age
$node->safe_psql('postgres', 'ALTER SYSTEM SET jobqueue.health_transaction_age = 1');
$node->reload;
says('transaction_ids', '^warn: not frozen for long: database ');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET jobqueue.health_transaction_age');
$node->reload;
is_well('transaction_ids');

# The whole server off
$node->append_conf('postgresql.conf', 'jobqueue.enabled = off');
$node->reload;
says('queue', '^warn: jobqueue.enabled is off');
$node->append_conf('postgresql.conf', "jobqueue.enabled = on\njobqueue.databases = 'elsewhere'");
$node->reload;
says('queue', '^ok', 'a database that is left out misses nothing');
$node->safe_psql('postgres', q{SELECT enqueue_sql('SELECT 1')});
says('queue', '^warn: jobqueue.databases does not name this database');
$node->append_conf('postgresql.conf', 'jobqueue.databases = \'\'');
$node->reload;
is_well('queue');
wait_for_query($node, q{SELECT count(*) FROM jobs_queue WHERE job_type = 'sql' AND status = 'queued'}, 0);

# Without preloading
$node->append_conf('postgresql.conf', q{shared_preload_libraries = ''});
$node->restart;
is($node->safe_psql('postgres', q{SELECT "check", status, detail FROM job_health() WHERE "check" IN ('library', 'launcher', 'scheduler')}),
	"library|warn|the library is not preloaded: the server runs nothing, and claims are slower\n" . "launcher|ok|none without preloading\n"
	  . 'scheduler|ok|none is to be here: library not preloaded', 'outside workers do without');
$node->safe_psql('postgres', q{SELECT enqueue_sql('SELECT 1'); INSERT INTO job_types (job_type, dead_letter_limit) VALUES ('dead', 0);
	INSERT INTO jobs_queue (job_type, status) VALUES ('dead', 'error')});
is($node->safe_psql('postgres', q{SELECT "check", status, detail FROM job_health() WHERE status = 'fail'}),
	"library|fail|the library is not preloaded, and jobs wait that only the server runs\n"
	  . 'dead_letters|fail|too many dead letters: dead has 1, allowed are 0', 'SQL jobs do not; dead letters are counted');

$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
