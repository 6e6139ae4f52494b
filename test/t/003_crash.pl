# What a crash leaves: nothing is lost, nothing is done twice, and a job that
# takes the server down is stopped.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main', conf => 'jobqueue.max_executors = 4');

$node->safe_psql('postgres', q{
	CREATE ROLE alice LOGIN;
	GRANT ALL ON SCHEMA public TO alice;
	SELECT grant_job_role('alice', 'producer');
	CREATE TABLE effects (job_id bigint, what text);
	CREATE TABLE gate (a int);
	GRANT ALL ON effects, gate TO alice;
	INSERT INTO gate VALUES (1);
});

sub enqueue
{
	my ($command) = @_;

	return $node->safe_psql('postgres', "SELECT enqueue_sql(\$cmd\$$command\$cmd\$)", extra_params => [ '-U', 'alice' ]);
}

# Kills the executor of a job with -9, and waits for the server to come back.
sub kill_executor_of
{
	my ($id) = @_;

	wait_for_query($node, "SELECT count(*) FROM _server_workers() WHERE job_id = $id", 1);
	my $pid = $node->safe_psql('postgres', "SELECT pid FROM _server_workers() WHERE job_id = $id");
	kill 'KILL', $pid;
	wait_for_query($node, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", 0);
}

# Mid-job: the job sleeps as long as there is a gate
my $slow = q{INSERT INTO effects VALUES ($2, 'slow');
	DO $$ BEGIN WHILE EXISTS (SELECT FROM gate) LOOP PERFORM pg_sleep(0.05); END LOOP; END $$};
my $id = enqueue($slow);
kill_executor_of($id);
wait_for_query($node, "SELECT crashes FROM jobs_queue WHERE id = $id", 1);
is($node->safe_psql('postgres', "SELECT claim_no, status, charged, error FROM job_runs WHERE job_id = $id"),
	'1|crashed|f|the server crashed while it ran this job', 'a crash ends the run, uncharged');
$node->safe_psql('postgres', 'DELETE FROM gate');
wait_for_query($node, "SELECT status FROM jobs_queue WHERE id = $id", 'completed');
is($node->safe_psql('postgres', "SELECT attempts, crashes, claim_no FROM jobs_queue WHERE id = $id"), '1|1|2', 'it is run again');
is($node->safe_psql('postgres', "SELECT count(*) FROM effects WHERE job_id = $id"), '1', 'with one effect');

# A poison job among innocents. All begin to exist at once: it is run within a
# millisecond, and the session that enqueues them may not live to say goodbye.
$node->safe_psql('postgres', 'GRANT pg_execute_server_program TO alice');
my ($ignored, $poison) = $node->psql('postgres', q{
	SET SESSION AUTHORIZATION alice;
	BEGIN;
	SELECT enqueue_sql('INSERT INTO effects VALUES ($2, ''innocent'')') FROM generate_series(1, 50) OFFSET 50;
	SELECT enqueue_sql('COPY (SELECT 1) TO PROGRAM ''kill -9 $PPID''');
	SELECT enqueue_sql('INSERT INTO effects VALUES ($2, ''innocent'')') FROM generate_series(1, 50) OFFSET 50;
	COMMIT;
});
$poison = (split /\n/, $poison)[-1];
wait_for_query($node, q{SELECT count(*) FROM jobs_queue_live}, 0);
is($node->safe_psql('postgres', "SELECT status, crashes, attempts FROM jobs_queue WHERE id = $poison"),
	'failed|2|0', 'the poison job stops at crash_limit, and was not charged');
is($node->safe_psql('postgres', "SELECT count(*), count(DISTINCT job_id) FROM effects WHERE what = 'innocent'"),
	'100|100', 'the others complete, once');
is($node->safe_psql('postgres', "SELECT count(*) FROM jobs_queue WHERE status = 'completed' AND attempts <> 1"), '0', 'and were charged once');
my $slow_count = 6;
$poison = $node->safe_psql('postgres', qq{
	SET SESSION AUTHORIZATION alice;
	SELECT enqueue_sql('INSERT INTO effects VALUES (\$2, ''neighbour''); SELECT pg_sleep(0.5)') FROM generate_series(1, $slow_count) OFFSET $slow_count;
	SELECT enqueue_sql('SELECT pg_sleep(0.2); COPY (SELECT 1) TO PROGRAM ''kill -9 \$PPID''', priority => -1);
});
$poison =~ s/\s//g;
wait_for_query($node, q{SELECT count(*) FROM jobs_queue_live}, 0);
is($node->safe_psql('postgres', "SELECT status, crashes FROM jobs_queue WHERE id = $poison"), 'failed|2', 'a slow poison job stops as well');
is($node->safe_psql('postgres', "SELECT count(*), count(DISTINCT job_id) FROM effects WHERE what = 'neighbour'"),
	"$slow_count|$slow_count", 'and those that run beside it are not blamed');
my $restarts = () = slurp_file($node->logfile) =~ /all server processes terminated; reinitializing/g;
is($restarts, 5, 'two crashes for each poison job, one for the first');

# Immediate shutdown
$node->safe_psql('postgres', 'INSERT INTO gate VALUES (1)');
$id = enqueue($slow);
my $outside = $node->safe_psql('postgres', q{
	SELECT enqueue_job('outside') > 0;
	SELECT count(*) FROM claim_jobs(gen_random_uuid(), '{outside}', lease => '1 hour');
});
is($outside, "t\n1", 'an outside worker holds a job');
wait_for_query($node, "SELECT count(*) FROM _server_workers() WHERE job_id = $id", 1);
$node->stop('immediate');
$node->start;
wait_for_query($node, "SELECT crashes FROM jobs_queue WHERE id = $id", 1);
$node->safe_psql('postgres', 'DELETE FROM gate');
wait_for_query($node, "SELECT status FROM jobs_queue WHERE id = $id", 'completed');
is($node->safe_psql('postgres', "SELECT count(*) FROM effects WHERE job_id = $id"), '1', 'an immediate shutdown loses nothing and repeats nothing');
is($node->safe_psql('postgres', q{SELECT status, crashes FROM jobs_queue WHERE job_type = 'outside'}), 'running|0',
	'what outside workers hold stays theirs');

# Killed while idle, and the launcher too
my $pids = $node->safe_psql('postgres', q{SELECT pid FROM _server_workers() WHERE kind <> 'executor' ORDER BY kind});
for my $pid (split /\n/, $pids)
{
	kill 'KILL', $pid;
	wait_for_query($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('jobqueue launcher', 'jobqueue scheduler') AND pid <> $pid", 2);
}
$id = enqueue(q{INSERT INTO effects VALUES ($2, 'after')});
wait_for_query($node, "SELECT status FROM jobs_queue WHERE id = $id", 'completed');
pass('jobs are run after the launcher and the scheduler were killed');

is($node->safe_psql('postgres', q{SELECT q.id FROM jobs_queue q WHERE q.status <> 'running'
	AND q.claim_no <> (SELECT count(*) FROM job_runs r WHERE r.job_id = q.id)}), '', 'every claim has its run');
$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing else crashed or leaked');
done_testing();
