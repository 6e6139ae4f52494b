# wait_for_jobs(): what a sleeping session holds, what wakes it and what does
# not, and that one that is cancelled leaves nothing behind.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Session;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# How long sleepers would sleep, and how much earlier they must be up.
use constant { TIMEOUT => 600, PROMPT => 60 };

my $node = JobQueue::Cluster->new('main', conf => "max_prepared_transactions = 5\njobqueue.launcher = off");
my $worker = '00000000-0000-4000-8000-000000000001';
my $other = JobQueue::Session->new($node);
my $claimer = JobQueue::Session->new($node);
my $wait_event = $node->pg_version >= 17 ? 'JobqueueWaitForJobs' : 'Extension';

# Jobs that went by another way than a claim may be remembered as ready until a
# claim looks at them.
sub find_nothing
{
	$claimer->query("SELECT id FROM claim_jobs('$worker')") eq '' or die 'there is something to claim';
	return;
}

# Sends a session to sleep, and sees it asleep.
sub go_to_sleep
{
	my ($s, $types, $then) = @_;

	find_nothing();
	$s->send(sprintf "CALL wait_for_jobs(%s, '%d s')%s", $types ? "'{$types}'" : 'NULL', TIMEOUT, $then ? "; $then" : '');
	$s->{slept_at} = time;
	wait_until_asleep($s);
	return;
}

sub wait_until_asleep
{
	my ($s) = @_;

	wait_for_query($node, qq{SELECT state = 'active' AND wait_event_type = 'Extension' AND wait_event = '$wait_event'
		FROM pg_stat_activity WHERE pid = $s->{pid}});
	return;
}

sub is_asleep
{
	my ($s, $what) = @_;

	is($node->safe_psql('postgres', "SELECT state, query LIKE 'CALL wait_for_jobs%' FROM pg_stat_activity WHERE pid = $s->{pid}"), 'active|t', $what);
	return;
}

# Waits for its end; it must be up long before its timeout.
sub wakes
{
	my ($s, $what, $expected) = @_;

	is($s->finish, '00000', "$what: no error");
	is($s->{output}, $expected // 't', $what);
	cmp_ok(time - $s->{slept_at}, '<', PROMPT, "$what: before its timeout");
	return;
}

sub new_session
{
	return JobQueue::Session->new($node);
}

sub drain
{
	return $other->query('DELETE FROM jobs_queue');
}

# ---- asleep ----

my $one = new_session();
go_to_sleep($one, 'a');
is($node->safe_psql('postgres', "SELECT backend_xmin IS NULL, backend_xid IS NULL FROM pg_stat_activity WHERE pid = $one->{pid}"), 't|t', 'a sleeper has neither snapshot nor transaction id');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_locks WHERE pid = $one->{pid} AND locktype <> 'virtualxid'"), '0', 'and no lock');
is($other->try('BEGIN; LOCK TABLE jobs_queue, jobs_queue_live; ALTER TABLE jobs_queue ADD note text; ALTER TABLE jobs_queue DROP note; COMMIT'), '00000', 'nobody waits for it');
is($other->try('CREATE INDEX CONCURRENTLY i ON jobs_queue_live (correlation_id); DROP INDEX CONCURRENTLY i'), '00000', 'not even an index that is built concurrently');
is_asleep($one, 'it sleeps on');

# ---- commit and rollback ----

$other->query("BEGIN; SELECT enqueue_job('a')");
is_asleep($one, 'a job that is not committed yet does not wake it');
$other->query('ROLLBACK');
is_asleep($one, 'nor one that is rolled back');
$other->query("BEGIN; SELECT enqueue_job('a')");
is_asleep($one, 'nor the next');
$other->query('COMMIT');
wakes($one, 'a commit wakes it');
is($other->query("SELECT count(*) FROM claim_next_job('$worker', 'a')"), '1', 'the job is still to be claimed');

$other->query("CREATE FUNCTION enqueue_in_vain() RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM enqueue_job(''a''); RAISE no_data_found; EXCEPTION WHEN no_data_found THEN NULL; END'");
go_to_sleep($one, 'a');
$other->query('SELECT enqueue_in_vain()');
is_asleep($one, 'a subtransaction that is rolled back does not wake it');
$other->query("COPY jobs_queue (job_type) FROM stdin;\na\n\\.\n");
wakes($one, 'COPY wakes it');
drain();
go_to_sleep($one, 'a');
$other->query("INSERT INTO jobs_queue (job_type) SELECT 'a' FROM generate_series(1, 1000)");
wakes($one, 'many jobs at once wake it');
drain();

# ---- which types ----

my $two = new_session();
go_to_sleep($one, 'a,b');
go_to_sleep($two, 'c');
$other->query("SELECT enqueue_job('c')");
wakes($two, 'a sleeper gets up for a job of its type');
is_asleep($one, 'another does not');
$other->query("SELECT enqueue_job('b')");
wakes($one, 'nor for one of many types, until it is one of them');
drain();
go_to_sleep($one, join ',', map { "t$_" } 1 .. 40);
$other->query("SELECT enqueue_job('t40')");
wakes($one, 'forty types are not too many');
drain();
go_to_sleep($one);
$other->query(q{INSERT INTO job_types (job_type, runner, command) VALUES ('server', 'sql', 'SELECT 1'); SELECT enqueue_job('server')});
is_asleep($one, 'a job that the server runs is for nobody outside');
$other->query("SELECT enqueue_job('never seen before')");
wakes($one, 'without types any other will do');
drain();

# ---- ready by other ways ----

my $id = $other->query("SELECT enqueue_job('a', scheduled_at => clock_timestamp() + interval '2 s')");
go_to_sleep($one, 'a');
wakes($one, 'a job becomes due');
is($other->query("SELECT clock_timestamp() >= scheduled_at FROM jobs_queue WHERE id = $id"), 't', 'not before its time');
drain();
go_to_sleep($one, 'a');
$id = $other->query("SELECT enqueue_job('a', scheduled_at => clock_timestamp() + interval '2 s')");
wakes($one, 'a job of later that comes while it sleeps becomes due');
is($other->query("SELECT clock_timestamp() >= scheduled_at FROM jobs_queue WHERE id = $id"), 't', 'not before its time either');
drain();
$id = $other->query("SELECT enqueue_job('a', scheduled_at => now() + interval '1 day')");
go_to_sleep($one, 'a');
$other->query("UPDATE jobs_queue SET scheduled_at = now() WHERE id = $id");
wakes($one, 'an operator hurries a job');

$other->query(q{INSERT INTO job_types (job_type, backoff) VALUES ('a', '{"delay": "1 second"}')});
is($other->query("SELECT id FROM claim_next_job('$worker', 'a')"), $id, 'a job is claimed');
go_to_sleep($one, 'a');
is($other->query("SELECT resolve_job($id, '$worker', false)"), 't', 'and fails');
wakes($one, 'its retry wakes');
is($other->query("SELECT id, attempts FROM claim_next_job('$worker', 'a')"), "$id|2", 'when it is due');
go_to_sleep($one, 'a');
$other->query("SELECT release_job($id, '$worker')");
wakes($one, 'a job that is given back wakes');
$other->query("SELECT cancel_job($id)");
go_to_sleep($one, 'a');
$other->query("SELECT requeue_job($id)");
wakes($one, 'a requeued job wakes');
drain();
$id = $other->query("SELECT enqueue_job('a')");
$other->query("BEGIN; SELECT FROM claim_next_job('$worker', 'a')");
go_to_sleep($one, 'a');
$other->query('ROLLBACK');
wakes($one, 'a claim that is rolled back wakes');
$other->query("BEGIN; SAVEPOINT s; SELECT FROM claim_next_job('$worker', 'a')");
go_to_sleep($one, 'a');
$other->query('ROLLBACK TO s');
wakes($one, 'also to a savepoint');
$other->query('COMMIT');
drain();
my ($parent, $child) = split /\|/, $other->query("SELECT p, enqueue_job('a', depends_on => ARRAY[p]) FROM enqueue_job('p') p");
$other->query("SELECT FROM claim_next_job('$worker', 'p')");
go_to_sleep($one, 'a');
$other->query("SELECT resolve_job($parent, '$worker', true)");
wakes($one, 'a job that waited for another wakes');
drain();
go_to_sleep($one, 'a');
$other->query("BEGIN; SELECT enqueue_job('a'); PREPARE TRANSACTION 'two-phase'");
$other->query(q{COMMIT PREPARED 'two-phase'});
wakes($one, 'what a prepared transaction brings is found');
is($other->query("SELECT count(*) FROM claim_next_job('$worker', 'a')"), '1', 'and can be claimed');
drain();

# ---- many sleepers ----

my $claim = "SELECT count(*) FROM claim_next_job('$worker', 'a')";
go_to_sleep($one, 'a', $claim);
go_to_sleep($two, 'a', $claim);
$other->query("SELECT enqueue_job('a')");
wakes($one, 'of two sleepers, the one that has slept longer gets a job', "t\n1");
is_asleep($two, 'the other sleeps on');
$other->query("SELECT enqueue_job('a')");
wakes($two, 'and gets the next', "t\n1");
drain();
my @ten = map { new_session() } 1 .. 10;
go_to_sleep($_, 'a', $claim) for @ten;
$other->query("SELECT enqueue_jobs('a', array_fill('1'::jsonb, '{10}'))");
my @claimed = map { wakes($_, 'ten jobs, ten sleepers', "t\n1"); $_->{output} =~ /1\z/ ? 1 : () } @ten;
is(scalar @claimed, 10, 'and each gets one');
$_->quit for @ten;
drain();

# ---- cancelled and terminated ----

go_to_sleep($one, 'a');
go_to_sleep($two, 'a');
$node->safe_psql('postgres', "SELECT pg_cancel_backend($one->{pid})");
is($one->finish, '57014', 'a sleeper is cancelled');
$other->query("SELECT enqueue_job('a')");
wakes($two, 'a job wakes the other');
drain();
go_to_sleep($one, 'a');
go_to_sleep($two, 'a');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($one->{pid})");
like($one->finish, qr/^(?:57P01|08006)$/, 'a sleeper is terminated');
$other->query("SELECT enqueue_job('a')");
wakes($two, 'a job wakes the other');
drain();
$one = new_session();
find_nothing();
$one->query(q{SET statement_timeout = '500ms'});
is($one->try("CALL wait_for_jobs('{a}', '600 s')"), '57014', 'statement_timeout is honoured');
is($one->query('SELECT 1'), '1', 'the session lives');
$one->query('RESET statement_timeout');
go_to_sleep($one, 'a');
$other->query("SELECT enqueue_job('a')");
wakes($one, 'and sleeps and wakes again');
drain();

# ---- nothing comes ----

find_nothing();
my $started = time;
is($one->query("CALL wait_for_jobs('{a}', '1 s')"), 'f', 'a timeout');
cmp_ok(time - $started, '>=', 1, 'takes its time');

# ---- fast shutdown ends sleepers ----

go_to_sleep($one, 'a');
$node->stop;
like($one->finish, qr/^(?:57P01|08006)$/, 'a shutdown does not wait for sleepers');
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');

# ---- without shared memory ----

my $bare = PostgreSQL::Test::Cluster->new('bare');
$bare->init;
$bare->append_conf('postgresql.conf', "fsync = off\njobqueue.poll_interval = 100ms");
$bare->start;
$bare->safe_psql('postgres', 'CREATE EXTENSION jobqueue');
is($bare->safe_psql('postgres', "CALL wait_for_jobs('{a}', '200 ms')"), 'f', 'not preloaded: nothing is ready');
my $sleeper = JobQueue::Session->new($bare);
$sleeper->send(sprintf "CALL wait_for_jobs('{a}', '%d s')", TIMEOUT);
$sleeper->{slept_at} = time;
$bare->poll_query_until('postgres', "SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = $sleeper->{pid}") or die 'does not sleep';
is($bare->safe_psql('postgres', "SELECT backend_xmin IS NULL, backend_xid IS NULL FROM pg_stat_activity WHERE pid = $sleeper->{pid}"), 't|t', 'a sleeper that polls has neither snapshot nor transaction id');
$bare->safe_psql('postgres', q{SELECT enqueue_job('b'); SELECT enqueue_job('a')});
wakes($sleeper, 'it finds a job by looking');
$bare->stop;
done_testing();
