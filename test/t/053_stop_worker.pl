# Workers that were asked to stop: an executor ends after its job, an outside
# worker learns of it in the middle of its session. And a paused job type.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Session;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
jobqueue.max_executors = 1
jobqueue.executor_idle_timeout = 1h
CONF
$node->safe_psql('postgres', q{CREATE TABLE effects (what text)});

# An idle executor ends at once; another one takes its place when there is work.
$node->safe_psql('postgres', q{SELECT enqueue_sql('SELECT 1')});
my $executor = q{SELECT worker_id FROM job_workers WHERE kind = 'executor' AND state = '%s'};
wait_for_query($node, qq{SELECT count(*) FROM job_workers WHERE kind = 'executor' AND state = 'idle'}, '1');
my $first = $node->safe_psql('postgres', sprintf $executor, 'idle');
is($node->safe_psql('postgres', "SELECT stop_worker('$first')"), 't', 'an idle executor is asked');
wait_for_query($node, "SELECT count(*) FROM job_workers WHERE worker_id = '$first'", '0');
is($node->safe_psql('postgres', 'SELECT count(*) FROM worker_stops'), '0', 'it was told, not written down');

# A busy one ends its job first.
my $gate = JobQueue::Session->new($node);
$gate->query('BEGIN');
$gate->query('SELECT pg_advisory_xact_lock(42)');
$node->safe_psql('postgres', q{
	INSERT INTO job_types (job_type, runner, command) VALUES ('report', 'sql', 'SELECT pg_advisory_xact_lock(42); INSERT INTO effects VALUES (''report'')');
});
my $id = $node->safe_psql('postgres', q{SELECT enqueue_job('report')});
wait_for_query($node, qq{SELECT count(*) FROM job_workers WHERE job_id = $id}, '1');
my $second = $node->safe_psql('postgres', sprintf $executor, 'running');
is($node->safe_psql('postgres', "SELECT state, running_jobs, job_id, job_type, role, pid IS NOT NULL FROM job_workers WHERE worker_id = '$second'"),
	'running|1|' . $id . '|report|' . $node->safe_psql('postgres', 'SELECT current_user') . '|t', 'what it is doing is seen');
is($node->safe_psql('postgres', "SELECT stop_worker('$second', 'deploy'), stop_worker('$second')"), 't|f', 'it is asked');
is($node->safe_psql('postgres', "SELECT state, job_id FROM job_workers WHERE worker_id = '$second'"), "draining|$id", 'and goes on with its job');
my $next = $node->safe_psql('postgres', q{SELECT enqueue_sql($$INSERT INTO effects VALUES ('next')$$)});
is($node->safe_psql('postgres', "SELECT status FROM jobs_queue WHERE id = $next"), 'queued', 'which another one waits for');

# From elsewhere nobody can be asked.
$node->safe_psql('postgres', 'CREATE DATABASE elsewhere');
$node->safe_psql('elsewhere', 'CREATE EXTENSION jobqueue');
$gate->query('COMMIT');
wait_for_query($node, q{SELECT string_agg(what, ',' ORDER BY what) FROM effects}, 'next,report');
wait_for_query($node, "SELECT count(*) FROM job_workers WHERE worker_id = '$second'", '0');
is($node->safe_psql('postgres', "SELECT status, attempts FROM jobs_queue WHERE id = $id"), 'completed|1', 'the job was completed');
wait_for_query($node, qq{SELECT count(*) FROM job_workers WHERE kind = 'executor' AND state = 'idle'}, '1');
my $third = $node->safe_psql('postgres', sprintf $executor, 'idle');
isnt($third, $second, 'by one executor, and the next by another');
$node->safe_psql('elsewhere', "SELECT stop_worker('$third')");
is($node->safe_psql('postgres', "SELECT state FROM job_workers WHERE worker_id = '$third'"), 'idle', 'an executor of another database is not concerned');

# A paused job type waits, whoever runs it; nothing else does.
$node->safe_psql('postgres', q{SELECT pause_job_type('report', 'not now'), pause_job_type('mail')});
$id = $node->safe_psql('postgres', q{SELECT enqueue_job('report')});
my $sleeper = JobQueue::Session->new($node);
$node->safe_psql('postgres', q{SELECT enqueue_job('mail')});
$sleeper->send(q{CALL wait_for_jobs('{mail}', '1 minute')});
$next = $node->safe_psql('postgres', q{SELECT enqueue_sql('SELECT 1')});
wait_for_query($node, "SELECT status FROM jobs_queue WHERE id = $next", 'completed');
is($node->safe_psql('postgres', "SELECT status, claim_no FROM jobs_queue WHERE id = $id"), 'queued|0', 'a paused type waits');
$node->safe_psql('postgres', q{SELECT resume_job_type('report'), resume_job_type('mail')});
wait_for_query($node, "SELECT status FROM jobs_queue WHERE id = $id", 'completed');
$sleeper->finish;
is($sleeper->{output}, 't', 'and goes on; who sleeps is woken');
$sleeper->quit;

# An outside worker with a session of its own, which has claimed before.
my $worker = '00000000-0000-4000-8000-000000000001';
my $session = JobQueue::Session->new($node);
$session->query(qq{SELECT register_worker('$worker', 'outside')});
$node->safe_psql('postgres', q{SELECT enqueue_jobs('mail', '{1,2,3,4}')});
like($session->query(qq{SELECT id FROM claim_next_job('$worker')}), qr/^\d+$/, 'it claims');
is($session->query(qq{SELECT heartbeat_worker('$worker')}), 't', 'and may go on');
$node->safe_psql('postgres', qq{SELECT stop_worker('$worker', 'deploy')});
is($session->query(qq{SELECT id FROM claim_next_job('$worker')}), '', 'asked to stop, it gets nothing');
is($session->query(qq{SELECT heartbeat_worker('$worker')}), 'f', 'and is told');
is($session->query(qq{SELECT heartbeat_job(id, '$worker') FROM running_jobs WHERE worker_id = '$worker'}), 't', 'its job is still its own');
$session->query(qq{SELECT register_worker('$worker', 'outside')});
like($session->query(qq{SELECT id FROM claim_next_job('$worker')}), qr/^\d+$/, 'started again, it claims');

# The same for a pause; a session in a transaction keeps what it has.
$session->query('BEGIN');
my $held = $session->query(qq{SELECT id FROM claim_next_job('$worker')});
$node->safe_psql('postgres', 'SELECT pause_workers()');
$session->query(qq{SELECT resolve_job($held, '$worker', true)});
$session->query('COMMIT');
is($node->safe_psql('postgres', "SELECT status FROM jobs_queue WHERE id = $held"), 'completed', 'what was claimed before a pause is resolved');
is($session->query(qq{SELECT id FROM claim_next_job('$worker')}), '', 'nothing more is claimed');
$node->safe_psql('postgres', 'SELECT resume_workers()');
like($session->query(qq{SELECT id FROM claim_next_job('$worker')}), qr/^\d+$/, 'before it is resumed');
$_->quit foreach $session, $gate;

$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
