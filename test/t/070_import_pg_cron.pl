# The jobs of a real pg_cron, where it is installed: scheduled there, imported
# and handed over in one transaction.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($share) = run_command([ 'pg_config', '--sharedir' ]);
plan skip_all => 'pg_cron is not installed' if !-e "$share/extension/pg_cron.control";

my $node = JobQueue::Cluster->new('main', conf => "shared_preload_libraries = 'jobqueue, pg_cron'\ncron.database_name = 'postgres'");
$node->safe_psql('postgres', q{
	CREATE EXTENSION pg_cron;
	CREATE ROLE app LOGIN;
	GRANT USAGE ON SCHEMA cron TO app;
	SET ROLE app;
	SELECT cron.schedule('0 0 1 1 *', 'SELECT 1');
	SELECT cron.schedule('nightly', '30 2 * * *', 'VACUUM');
	SELECT cron.schedule('seven fields', '0 0 * * 1 foo bar', 'SELECT 1');
});
is($node->safe_psql('postgres', 'SELECT jobid, task_id > 0, name, problem FROM import_pg_cron()'),
	"1|t|pg_cron job 1|\n2|t|nightly|\n3||seven fields|pg_cron ignores what follows the fifth field: \"foo bar\"; write five fields",
	'jobs are imported, and what pg_cron does not understand is not');
is($node->safe_psql('postgres', 'SELECT name, owner, schedule, timezone, enabled FROM cron_tasks ORDER BY id'),
	"pg_cron job 1|app|0 0 1 1 *|GMT|f\nnightly|app|30 2 * * *|GMT|f", 'nothing runs twice');

# As the page says: both sides change at once.
$node->safe_psql('postgres', q{
	BEGIN;
	CREATE TEMP TABLE imported AS SELECT * FROM import_pg_cron(enable => true);
	SELECT cron.unschedule(jobid) FROM imported WHERE task_id IS NOT NULL;
	COMMIT;
});
is($node->safe_psql('postgres', q{SELECT string_agg(jobid::text, ','), (SELECT count(*) FROM cron_tasks WHERE enabled) FROM cron.job}),
	'3|2', 'the jobs have moved');
$node->safe_psql('postgres', q{UPDATE cron_tasks SET next_run_at = now() WHERE name = 'nightly'});
wait_for_query($node, q{SELECT status, owner FROM jobs_queue WHERE job_type = 'sql'}, 'completed|app');
pass('and run');
$node->stop;
done_testing();
