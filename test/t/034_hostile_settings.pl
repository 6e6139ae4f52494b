# Settings of the role, the database and the server that would break or change
# our own work: it is done as ever, and the job sees what its role was given.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Jobs qw(prepare_jobs enqueue effect ended effect_problems worker_pid);
use JobQueue::Storm qw(run_problems log_problems);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
jobqueue.max_executors = 2
jobqueue.retry_delay = 0
log_statement = none
CONF
prepare_jobs($node);
$node->safe_psql('postgres', q{
	CREATE ROLE bob;
	GRANT bob TO alice;
	GRANT ALL ON effects TO bob;
	CREATE SCHEMA evil;
	GRANT USAGE ON SCHEMA evil TO PUBLIC;
	CREATE TABLE evil.tricked (who text, what text);
	GRANT ALL ON evil.tricked TO PUBLIC;
	CREATE FUNCTION evil.eq(text, text) RETURNS boolean LANGUAGE plpgsql AS
		'BEGIN INSERT INTO evil.tricked VALUES (current_user, ''=''); RETURN $1 OPERATOR(pg_catalog.=) $2; END';
	CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.eq);
	CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE plpgsql AS
		'BEGIN INSERT INTO evil.tricked VALUES (current_user, ''now''); RETURN clock_timestamp(); END';
	CREATE FUNCTION evil.count(bigint) RETURNS bigint LANGUAGE plpgsql AS
		'BEGIN INSERT INTO evil.tricked VALUES (current_user, ''count''); RETURN 0; END';
	SELECT schedule_cron_task('tick', 'every 1 hour', 'tick');
});
my $has_transaction_timeout = $node->safe_psql('postgres', q{SELECT count(*) FROM pg_settings WHERE name = 'transaction_timeout'});
my $worker = '00000000-0000-4000-8000-000000000001';

# Setting, value, what the job then sees (undef: its statements fail so)
my @settings = (
	[ 'statement_timeout', '1ms', undef, qr/57014/ ],
	[ 'lock_timeout', '1ms', '1ms' ],
	[ 'idle_in_transaction_session_timeout', '1ms', '1ms' ],
	[ 'idle_session_timeout', '1ms', '1ms' ],
	$has_transaction_timeout ? [ 'transaction_timeout', '1ms', undef, qr/57014|25P04/ ] : (),
	[ 'default_transaction_read_only', 'on', undef, qr/25006/ ],
	[ 'default_transaction_isolation', 'serializable', 'serializable' ],
	[ 'default_transaction_deferrable', 'on', 'on' ],
	[ 'row_security', 'off', 'off' ],
	[ 'synchronous_commit', 'off', 'off' ],
	[ 'TimeZone', 'Pacific/Apia', 'Pacific/Apia' ],
	[ 'DateStyle', 'German, DMY', 'German, DMY' ],
	[ 'IntervalStyle', 'iso_8601', 'iso_8601' ],
	[ 'bytea_output', 'escape', 'escape' ],
	[ 'extra_float_digits', '-15', '-15' ],
	[ 'search_path', 'evil, public, pg_catalog', 'evil, public, pg_catalog' ],
	[ 'session_replication_role', 'replica', 'replica' ],
	[ 'log_statement', 'all', 'all' ],
	[ 'log_min_duration_statement', '0', '0' ],
	[ 'enable_indexscan', 'off', 'off' ],
	[ 'role', 'bob', 'none' ],
	[ 'client_encoding', 'LATIN1', 'LATIN1' ],
	[ 'max_stack_depth', '100kB', '100kB' ],
	[ 'temp_buffers', '800kB', '800kB' ],
	[ 'work_mem', '64kB', '64kB' ],
	[ 'xmloption', 'document', 'document' ],
	[ 'check_function_bodies', 'off', 'off' ],
	[ 'transform_null_equals', 'on', 'on' ],
	[ 'array_nulls', 'off', 'off' ],
	[ 'quote_all_identifiers', 'on', 'on' ],
	[ 'standard_conforming_strings', 'off', 'off' ],
	[ 'backslash_quote', 'on', 'on' ],
	[ 'plan_cache_mode', 'force_generic_plan', 'force_generic_plan' ],
	[ 'jit_above_cost', '0', '0' ],
	[ 'constraint_exclusion', 'on', 'on' ],
	[ 'default_tablespace', '', '' ],
	[ 'default_table_access_method', 'heap', 'heap' ]);

# Sessions of ours, which none of that reaches.
my $calm = join ' ', map { "-c $_" } qw(statement_timeout=0 lock_timeout=0 idle_session_timeout=0 idle_in_transaction_session_timeout=0
  default_transaction_read_only=off session_replication_role=origin search_path=public
  role=none log_statement=none log_min_duration_statement=-1 client_min_messages=error datestyle=iso),
  'default_transaction_isolation=read\ committed', $has_transaction_timeout ? 'transaction_timeout=0' : ();

sub sql
{
	my ($sql) = @_;

	local $ENV{PGOPTIONS} = $calm;
	return $node->safe_psql('postgres', $sql);
}

sub wait_for
{
	my ($sql, $expected) = @_;

	local $ENV{PGOPTIONS} = $calm;
	wait_for_query($node, $sql, $expected);
	return;
}

# One by one, for the role; the worst for the database, too.
for my $setting (@settings)
{
	my ($name, $value, $seen, $error) = @$setting;
	for my $where ('ROLE alice', $name =~ /timeout|^default_tr|^search|^role$|replication/ ? 'DATABASE postgres' : ())
	{
		my $what = "$name = '$value' for $where";
		my $quoted = $name eq 'search_path' ? $value : "'$value'";
		my $context = $node->safe_psql('template1', "SELECT context FROM pg_settings WHERE name = lower('$name') OR name = '$name'");
		next if $context eq 'postmaster' || $context eq 'sighup';
		$node->safe_psql('template1', "ALTER $where SET $name = $quoted");

		# Everybody starts anew under the setting
		sql(q{SELECT pg_terminate_backend(pid) FROM _server_workers() WHERE kind = 'executor'});
		my $id = sql(qq{SET SESSION AUTHORIZATION alice;
			SELECT enqueue_sql('INSERT INTO public.effects VALUES (\$2, ''seen''); SELECT pg_catalog.current_setting(''$name'') AS a, current_user AS b, pg_catalog.pg_sleep(0.005)', max_attempts => 1)});
		wait_for("SELECT count(*) FROM jobs_queue_done WHERE id = $id", 1);
		my ($status, $result, $message) = split /\|/, sql("SELECT status, coalesce(result->>'a', ''), last_error FROM jobs_queue WHERE id = $id");
		if (defined $seen)
		{
			is("$status|$result", "completed|$seen", "$what: the job runs and sees it") or diag($message);
		}
		else
		{
			like("$status|" . ($message // ''), qr/^failed\|.*$error|^completed/, "$what: the job may fail so, and that is recorded");
		}
		$node->safe_psql('template1', "ALTER $where RESET $name");
	}
}
is(sql('SELECT count(*) FROM jobs_queue_live'), '0', 'nothing is left behind');

# All of them for the database at once, before everything starts anew: the
# scheduler, cron, expired leases, and an outside worker's calls.
for my $setting (@settings)
{
	my ($name, $value) = @$setting;
	next if $name eq 'transaction_timeout' || $name eq 'max_stack_depth';
	my $quoted = $name eq 'search_path' ? $value : "'$value'";
	$node->safe_psql('template1', "ALTER DATABASE postgres SET $name = $quoted");
}
$node->restart;
sql(q{UPDATE cron_tasks SET next_run_at = now() - interval '1 second'});
wait_for(q{SELECT count(*) FROM jobs_queue WHERE job_type = 'tick'}, 1);
pass('cron enqueues');
sql("SELECT enqueue_job('outside'); SELECT FROM claim_jobs('$worker', '{outside}', lease => '1 millisecond')");
wait_for(q{SELECT status FROM jobs_queue WHERE job_type = 'outside'}, 'queued');
is(sql(q{SELECT status FROM job_runs WHERE job_type = 'outside'}), 'expired', 'a lease that is over is noticed');
sql(q{SET SESSION AUTHORIZATION alice; SELECT enqueue_sql('SELECT 1', max_attempts => 1)});
wait_for(q{SELECT count(*) FROM jobs_queue_live WHERE job_type = 'sql'}, 0);
pass('SQL jobs are run, or fail by what their role was given');
like(sql(q{SELECT date_trunc('year', max(next_run_at)) BETWEEN now() - interval '1 year' AND now() + interval '1 year' FROM cron_tasks}), qr/^t/, 'times are what they are');
is(sql(q{SELECT count(*) FROM evil.tricked WHERE who <> 'alice'}), '0', 'no hostile operator or function was called by us');
for my $setting (@settings)
{
	$node->safe_psql('template1', "ALTER DATABASE postgres RESET $setting->[0]");
}

# For the whole server; transaction_timeout would end every session while it
# begins, ours and theirs.
for my $setting ([ 'statement_timeout', '1ms' ], [ 'lock_timeout', '1ms' ], [ 'idle_in_transaction_session_timeout', '1ms' ], [ 'idle_session_timeout', '1ms' ],
	[ 'default_transaction_isolation', 'serializable' ], [ 'default_transaction_read_only', 'on' ])
{
	my ($name, $value) = @$setting;
	$node->append_conf('postgresql.conf', "$name = '$value'");
}
{
	local $ENV{PGOPTIONS} = '-c statement_timeout=0';
	$node->restart;
}
sql(q{UPDATE cron_tasks SET next_run_at = now() - interval '1 second'});
wait_for(q{SELECT count(*) FROM jobs_queue WHERE job_type = 'tick'}, 2);
sql(q{SELECT enqueue_job('outside', stage => 'second'); } . "SELECT FROM claim_jobs('$worker', '{outside}', 10, lease => '1 millisecond')");
wait_for(q{SELECT count(*) FROM jobs_queue WHERE job_type = 'outside' AND status = 'running'}, 0);
pass('the scheduler does its work under settings of the server');

is(sql(q{SELECT count(*) FROM jobs_queue WHERE job_type = 'sql' AND status NOT IN ('completed', 'failed')}), '0', 'every job has ended');
$node->stop;
is(log_problems($node), '', 'nothing has crashed');
unlike(slurp_file($node->logfile), qr/jobqueue scheduler.*FATAL/, 'no scheduler has ended');
done_testing();
