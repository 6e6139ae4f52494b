# A dump carries jobs, definitions and sequences; a restore takes them all.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main', conf => 'jobqueue.launcher = off');
my $worker = '00000000-0000-4000-8000-000000000001';

# One job in every status, by the ways that lead there.
$node->safe_psql('postgres', qq{
	CREATE ROLE alice LOGIN;
	SELECT grant_job_role('alice', 'producer');
	INSERT INTO job_types (job_type, dead_letter) VALUES ('letters', true);
	INSERT INTO job_types (job_type, runner, command) VALUES ('report', 'sql', 'SELECT 1');
	INSERT INTO http_endpoints (name, url) VALUES ('hook', 'https://example.org/hook');
	INSERT INTO event_subscriptions (event_type, job_type) VALUES ('order.*', 'letters');
	SELECT register_worker('$worker', 'dumped');
	SELECT schedule_cron_task('nightly', '0 3 * * *', 'report', timezone => 'Europe/Berlin');
	SELECT schedule_sql('off', '0 3 * * *', 'SELECT 1', enabled => false);
	SELECT enqueue_job('completed', '{"deep": {"quote''s": [1, null, "\\u00e9"]}}');
	SELECT resolve_job(id, '$worker', true) FROM claim_next_job('$worker', 'completed');
	SELECT enqueue_job('failed', max_attempts => 1);
	SELECT resolve_job(id, '$worker', false, 'no') FROM claim_next_job('$worker', 'failed');
	SELECT enqueue_job('letters', max_attempts => 1);
	SELECT resolve_job(id, '$worker', false, 'no') FROM claim_next_job('$worker', 'letters');
	SELECT cancel_job(enqueue_job('cancelled'), 'not wanted');
	SELECT enqueue_job('retried');
	SELECT resolve_job(id, '$worker', false, 'later') FROM claim_next_job('$worker', 'retried');
	SELECT enqueue_job('running', unique_key => 'one', tags => '{a,b}');
	SELECT FROM claim_next_job('$worker', 'running');
	SELECT enqueue_job('blocked', depends_on => ARRAY[enqueue_job('parent')]);
	SET ROLE alice;
	SELECT enqueue_sql('SELECT \$1', '{"x": 1}', now() + interval '1 day');
});

my @tables = qw(jobs_queue job_runs job_types cron_tasks http_endpoints
  event_subscriptions job_dependencies registered_workers);

sub contents
{
	my ($database) = @_;
	return map {
		$_ => $node->safe_psql($database, "SELECT row_to_json(t)::text FROM $_ t ORDER BY 1")
	} @tables;
}

my %before = contents('postgres');
is($node->safe_psql('postgres', 'SELECT count(DISTINCT status) FROM jobs_queue'), '7', 'jobs in every status');

my $dump = $node->basedir . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('copy'), $dump ], 'pg_restore');
my %copy = contents('copy');
is($copy{$_}, $before{$_}, "restored rows of $_ are the same") foreach @tables;

my $last = $node->safe_psql('postgres', 'SELECT max(id) FROM jobs_queue');
cmp_ok($node->safe_psql('copy', q{SELECT enqueue_job('next')}), '>', $last, 'ids go on where they were');
is($node->safe_psql('copy', q{SELECT name FROM cron_tasks WHERE next_run_at IS NOT NULL}), 'nightly', 'plans are kept');

# The copy works as the original does.
is($node->safe_psql('copy', qq{SELECT job_type FROM claim_next_job('$worker', 'parent')}), 'parent', 'a job of the copy is claimed');
is($node->safe_psql('copy', qq{SELECT resolve_job(id, '$worker', true) FROM jobs_queue WHERE job_type = 'parent'}), 't', 'and resolved');
is($node->safe_psql('copy', q{SELECT status FROM jobs_queue WHERE job_type = 'blocked'}), 'queued', 'its dependent is released');
$node->safe_psql('copy', q{UPDATE jobs_queue SET lease_expires_at = now() WHERE job_type = 'running'});
my $reclaimed;
$node->poll_query_until('copy', qq{SELECT count(*) > 0 FROM claim_next_job('$worker', 'running')}) and $reclaimed = 1;
ok($reclaimed, 'a restored running job comes back when its lease has ended');

# A plain-text dump with INSERT goes through the same triggers.
$node->command_ok([ 'pg_dump', '--inserts', '-f', $dump, $node->connstr('postgres') ], 'pg_dump --inserts');
$node->safe_psql('postgres', 'CREATE DATABASE copy2');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, '-d', $node->connstr('copy2') ], 'restored by psql');
%copy = contents('copy2');
is($copy{$_}, $before{$_}, "inserted rows of $_ are the same") foreach @tables;

$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
