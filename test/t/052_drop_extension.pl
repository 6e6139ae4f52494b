# The extension goes while its jobs run, and comes back: no restart is needed,
# and what happens to have its names is left alone.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main', extension => 0, conf => 'jobqueue.max_executors = 3');
my $postmaster = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
$node->safe_psql('postgres', q{
	CREATE TABLE effects (what text);
	CREATE SCHEMA jobs;
	CREATE EXTENSION jobqueue SCHEMA jobs;
});
my $pids = q{SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('jobqueue scheduler', 'jobqueue executor')};

# What is running when the extension goes is cut off or ends without effect.
sub a_job_runs
{
	my ($schema, $name) = @_;
	$node->safe_psql('postgres', qq{SELECT $schema.enqueue_sql(\$\$INSERT INTO effects VALUES ('$name')\$\$)});
	wait_for_query($node, qq{SELECT count(*) FROM effects WHERE what = '$name'}, '1');
	pass("a job runs: $name");
	return;
}

a_job_runs('jobs', 'first');
foreach my $round (1 .. 3)
{
	$node->safe_psql('postgres', q{SELECT jobs.enqueue_sql($$SELECT pg_sleep(0.3); INSERT INTO effects VALUES ('cut off'); SELECT pg_sleep(0.3)$$) FROM generate_series(1, 20)});
	wait_for_query($node, q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'jobqueue executor' AND query LIKE 'job %'});
	$node->safe_psql('postgres', 'DROP EXTENSION jobqueue CASCADE');
	wait_for_query($node, $pids, '0');
	my $done = $node->safe_psql('postgres', q{SELECT count(*) FROM effects WHERE what = 'cut off'});
	$node->safe_psql('postgres', 'CREATE EXTENSION jobqueue SCHEMA jobs');
	a_job_runs('jobs', "round $round");
	is($node->safe_psql('postgres', q{SELECT count(*) FROM effects WHERE what = 'cut off'}), $done, 'nothing of the old ones runs');
}

# Dropped and created in one transaction, while the workers are there.
$node->safe_psql('postgres', 'BEGIN; DROP EXTENSION jobqueue CASCADE; CREATE EXTENSION jobqueue SCHEMA jobs; COMMIT');
a_job_runs('jobs', 'same transaction');

# A pause goes with the extension.
$node->safe_psql('postgres', 'SELECT jobs.pause_workers()');
wait_for_query($node, $pids, '0');
$node->safe_psql('postgres', 'DROP EXTENSION jobqueue CASCADE; CREATE EXTENSION jobqueue SCHEMA jobs');
a_job_runs('jobs', 'after a pause');

# Its owner leaves, with everything he has.
$node->safe_psql('postgres', 'DROP EXTENSION jobqueue CASCADE');
wait_for_query($node, $pids, '0');
$node->safe_psql('postgres', q{
	DROP SCHEMA jobs;
	CREATE ROLE boss SUPERUSER LOGIN;
	SET ROLE boss;
	CREATE SCHEMA jobs;
	CREATE EXTENSION jobqueue SCHEMA jobs;
});
a_job_runs('jobs', 'of the boss');
$node->safe_psql('postgres', 'DROP OWNED BY boss CASCADE');
wait_for_query($node, $pids, '0');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_namespace WHERE nspname = 'jobs'}), '0', 'the schema has gone, too');

# A schema of that name, and tables of those names, are no extension.
my $offset = -s $node->logfile;
$node->safe_psql('postgres', 'CREATE SCHEMA jobs; CREATE TABLE jobs.jobs_queue (id bigint); CREATE TABLE jobs.database_identity (id bigint)');
# A change that matters makes the launcher look.
$node->safe_psql('postgres', 'DROP EXTENSION plpgsql');
$node->safe_psql('postgres', 'CREATE EXTENSION plpgsql');
wait_for_query($node, $pids, '0');
$node->safe_psql('postgres', 'DROP SCHEMA jobs CASCADE; CREATE SCHEMA jobs; CREATE EXTENSION jobqueue SCHEMA jobs');
a_job_runs('jobs', 'at last');
my @errors = grep { !/deadlock|is not held any more|terminating|canceling/ } slurp_file($node->logfile, $offset) =~ /(?:ERROR|FATAL): .*/g;
is("@errors", '', 'and nobody complained');

is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $postmaster, 'all that without a restart');
$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
