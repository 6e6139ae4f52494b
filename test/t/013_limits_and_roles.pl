# What was allowed once, who was there once, and tables that are not as they
# should be: nothing of it loses a job or stops the jobs of others.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main');
my $worker = '00000000-0000-4000-8000-000000000001';
$node->safe_psql('postgres', q{
	CREATE ROLE alice LOGIN;
	CREATE ROLE gone LOGIN;
	SELECT grant_job_role(r, 'producer') FROM unnest('{alice,gone}'::regrole[]) r;
});

# ---- a restore under limits that have changed ----

# Large payloads, and what the rules of another day let pass
$node->safe_psql('postgres', qq{
	CREATE FUNCTION pg_temp.noise(n integer) RETURNS jsonb LANGUAGE sql AS
		\$\$SELECT to_jsonb(string_agg(md5(i::text), '')) FROM generate_series(1, n) AS i\$\$;
	SELECT enqueue_job('large', pg_temp.noise(21000));
	SELECT enqueue_job('large done', pg_temp.noise(21000));
	SELECT resolve_job(id, '$worker', true) FROM claim_next_job('$worker', 'large done');
	SELECT enqueue_job('large retried', pg_temp.noise(21000));
	SELECT fail_job(id, '$worker', 'later', now()) FROM claim_next_job('$worker', 'large retried');
	SELECT enqueue_job('large child', pg_temp.noise(21000), depends_on => ARRAY[enqueue_job('parent')]);
	SELECT enqueue_job(t) FROM unnest('{old,far,staged,tried,keyed,deep}'::text[]) AS t;
	SET session_replication_role = replica;
	UPDATE jobs_queue SET scheduled_at = '1999-12-31 23:59:59+00' WHERE job_type = 'old';
	UPDATE jobs_queue SET scheduled_at = now() + interval '50 years' WHERE job_type = 'far';
	UPDATE jobs_queue SET stage = repeat('s', 300) WHERE job_type = 'staged';
	UPDATE jobs_queue SET max_attempts = 5000, timeout = '3 days' WHERE job_type = 'tried';
	UPDATE jobs_queue SET unique_key = repeat('u', 1000), group_key = repeat('g', 1000) WHERE job_type = 'keyed';
	UPDATE jobs_queue SET payload = (repeat('[', 300) || repeat(']', 300))::jsonb WHERE job_type = 'deep';
	UPDATE jobs_queue SET updated_at = updated_at + interval '1 ms';
});
is($node->safe_psql('postgres', q{SELECT count(*) FROM jobs_queue WHERE pg_column_size(payload) > 300000 AND octet_length(payload::text) > 650000}),
	'4', 'large payloads');

sub contents
{
	my ($database) = @_;

	return $node->safe_psql($database, q{
		SELECT row_to_json(q)::text FROM jobs_queue q UNION ALL SELECT row_to_json(r)::text FROM job_runs r
		UNION ALL SELECT row_to_json(d)::text FROM job_dependencies d ORDER BY 1});
}

my $before = contents('postgres');
my @dumps = map { $node->basedir . "/dump$_" } 1, 2;
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dumps[0], $node->connstr('postgres') ], 'pg_dump');
$node->command_ok([ 'pg_dump', '--inserts', '-f', $dumps[1], $node->connstr('postgres') ], 'pg_dump --inserts');
$node->append_conf('postgresql.conf', 'jobqueue.max_payload = 100kB');
$node->reload;
$node->poll_query_until('postgres', q{SELECT current_setting('jobqueue.max_payload') = '100kB'});
$node->safe_psql('postgres', "CREATE DATABASE copy$_") for 1, 2;
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('copy1'), $dumps[0] ], 'pg_restore');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dumps[1], '-d', $node->connstr('copy2') ], 'restored by psql');
ok(contents('copy1') eq $before, 'rows that are too large now are restored by COPY');
ok(contents('copy2') eq $before, 'and by INSERT');

my ($code, undef, $err) = $node->psql('copy1', q{SELECT enqueue_job('large', (SELECT payload FROM jobs_queue WHERE job_type = 'large'))});
like($err, qr/ERROR:  payload is too large/, 'a new one is refused there');
($code, undef, $err) = $node->psql('copy1', q{UPDATE jobs_queue SET payload = payload || '1' WHERE job_type = 'large'});
like($err, qr/ERROR:  payload is too large/, 'also as a change');
for my $type ('large', 'large retried', 'old', 'staged', 'tried', 'keyed', 'deep')
{
	is($node->safe_psql('copy1', qq{
		WITH job AS (SELECT * FROM claim_next_job('$worker', '$type'))
		SELECT payload = (SELECT payload FROM jobs_queue q WHERE q.id = job.id) AND fail_job(id, '$worker', 'again', now()) FROM job}),
		't', "$type: the job of the copy is claimed");
	is($node->safe_psql('copy1', qq{SELECT resolve_job(id, '$worker', true) FROM claim_next_job('$worker', '$type')}), 't', "$type: and completed");
}
is($node->safe_psql('copy1', q{SELECT requeue_jobs('large done', '{completed}')}), '1', 'one that had ended is requeued');
is($node->safe_psql('copy1', q{SELECT complete_job(id) FROM jobs_queue WHERE job_type = 'parent'}), 't', 'a parent completes');
is($node->safe_psql('copy1', q{SELECT status FROM jobs_queue WHERE job_type = 'large child'}), 'queued', 'and its child is released');
$node->safe_psql('postgres', "DROP DATABASE copy$_ WITH (FORCE)") for 1, 2;

# ---- roles that are dropped ----

$node->safe_psql('postgres', q{DELETE FROM jobs_queue});
my %id;
for my $role ('alice', 'gone')
{
	$node->safe_psql('postgres', qq{
		SET SESSION AUTHORIZATION $role;
		SELECT enqueue_job(t, correlation_id => '$role') FROM unnest('{completed,failed,running,retried,queued}'::text[]) t;
		SELECT enqueue_job('later', correlation_id => '$role', scheduled_at => now() + interval '1 day');
		SELECT enqueue_job('blocked', correlation_id => '$role', depends_on => ARRAY[enqueue_job('parent', correlation_id => '$role')]);
		RESET SESSION AUTHORIZATION;
		SELECT complete_job(id, '$worker') FROM claim_next_job('$worker', 'completed');
		SELECT fail_job(id, '$worker', 'no', permanent => true) FROM claim_next_job('$worker', 'failed');
		SELECT fail_job(id, '$worker', 'later') FROM claim_next_job('$worker', 'retried');
		SELECT FROM claim_jobs('$worker', '{running}', lease => '1 hour');
	});
}
my $jobs = q{SELECT job_type, status, owner, last_error FROM jobs_queue WHERE correlation_id = '%s' ORDER BY job_type COLLATE "C"};
my $of_alice = $node->safe_psql('postgres', sprintf($jobs, 'alice'));
my $oid = $node->safe_psql('postgres', q{SELECT 'gone'::regrole::oid});
like($of_alice, qr/^blocked\|blocked\|alice\|\ncompleted\|completed\|alice\|\nfailed\|failed\|alice\|no\n/, 'jobs in every status');
$node->safe_psql('postgres', q{DROP OWNED BY gone; DROP ROLE gone});

# A new scheduler looks at once.
sub restart_scheduler
{
	my $pid = $node->safe_psql('postgres', q{SELECT pid FROM _server_workers() WHERE kind = 'scheduler' AND database = (SELECT oid FROM pg_database WHERE datname = 'postgres')});
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)") if $pid ne '';
}
restart_scheduler();
wait_for_query($node, "SELECT count(*) FROM jobs_queue WHERE owner = $oid AND status <> 'running'", 0);
my $reason = "role $oid, the owner of the job, does not exist (42704)";
is($node->safe_psql('postgres', sprintf($jobs, 'gone')), <<"JOBS" =~ s/\n\z//r, 'its jobs are failed and disowned');
blocked|failed||$reason
completed|completed||
failed|failed||no
later|failed||$reason
parent|failed||$reason
queued|failed||$reason
retried|failed||$reason
running|running|$oid|
JOBS
is($node->safe_psql('postgres', sprintf($jobs, 'alice')), $of_alice, 'those of others are untouched');
is($node->safe_psql('postgres', q{SELECT count(*) FROM job_dependencies WHERE status IS NULL}), '1', 'nobody waits for what has ended');
is($node->safe_psql('postgres', qq{SELECT complete_job(id, '$worker') FROM jobs_queue WHERE status = 'running' AND correlation_id = 'gone'}), 't', 'a running job is left to its end');
is($node->safe_psql('postgres', q{SELECT requeue_jobs()}), '1', 'what belongs to nobody is not requeued');
restart_scheduler();
wait_for_query($node, "SELECT count(*) FROM jobs_queue WHERE owner = $oid", 0);
pass('and then disowned');
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dumps[0], $node->connstr('postgres') ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE copy3');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('copy3'), $dumps[0] ], 'pg_restore');
is($node->safe_psql('copy3', sprintf($jobs, 'gone')), $node->safe_psql('postgres', sprintf($jobs, 'gone')), 'jobs of nobody are restored');
is($node->safe_psql('copy3', q{UPDATE jobs_queue SET owner = 'alice', status = 'queued' WHERE correlation_id = 'gone' AND job_type = 'queued' RETURNING owner}),
	'alice', 'and adopted');

# ---- tables that are not as they should be ----

# In a new database, so that its first scheduler meets them
$node->safe_psql('postgres', 'CREATE DATABASE broken');
my $offset = -s $node->logfile;
$node->safe_psql('broken', 'BEGIN; CREATE EXTENSION jobqueue; ALTER TABLE jobs_queue RENAME COLUMN stage TO step; COMMIT');
$node->wait_for_log(qr/table "jobs_queue" does not have the columns that this version of jobqueue expects/, $offset);
($code, undef, $err) = $node->psql('broken', q{SELECT enqueue_job('mail')}, on_error_stop => 0);
like($err, qr/ERROR:  table "jobs_queue" does not have the columns/, 'a broken database says so');
($code, undef, $err) = $node->psql('broken', "SELECT enqueue_job('mail');\nSELECT enqueue_job('mail');\nSELECT claim_next_job('$worker');\n", on_error_stop => 0);
is(() = $err =~ /ERROR:  table "jobs_queue" does not have the columns/g, 3, 'each time');

# Runs a SQL job in a database of its own.
sub runs_jobs
{
	my ($database, $what) = @_;

	$node->safe_psql($database, q{SELECT grant_job_role('alice', 'producer')});
	my $id = $node->safe_psql($database, q{SET SESSION AUTHORIZATION alice; SELECT enqueue_sql('SELECT 1 AS a')});
	ok($node->poll_query_until($database, "SELECT status FROM jobs_queue WHERE id = $id", 'completed'), $what);
}

$node->safe_psql('postgres', 'CREATE DATABASE sound');
$node->safe_psql('sound', 'CREATE EXTENSION jobqueue');
runs_jobs('sound', 'a database that is created later is served');
runs_jobs('postgres', 'one that was there before, too');
$node->restart;
runs_jobs('sound', 'also after a restart');
$node->safe_psql('postgres', 'CREATE DATABASE another');
$node->safe_psql('another', 'CREATE EXTENSION jobqueue');
runs_jobs('another', 'when another one comes');
$node->safe_psql('sound', 'ALTER TABLE jobs_queue RENAME COLUMN stage TO step');
$node->safe_psql('broken', 'ALTER TABLE jobs_queue RENAME COLUMN step TO stage');
runs_jobs('broken', 'a database that is repaired is served');
runs_jobs('another', 'whatever becomes of others');
cmp_ok(() = slurp_file($node->logfile) =~ /does not have the columns/g, '<', 300, 'the log is not flooded');

$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
