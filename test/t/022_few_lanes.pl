# jobqueue.max_lanes: more lanes than there is room for, and no room at all.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Session;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main', conf => "jobqueue.launcher = off\njobqueue.max_lanes = 4");
my $worker = '00000000-0000-4000-8000-000000000001';
my $s = JobQueue::Session->new($node);

sub claim
{
	my ($n) = @_;

	return $s->query("SELECT string_agg(id::text, ' ') FROM claim_jobs('$worker', NULL, $n)");
}

# The first $n ready jobs, as the documentation defines the order.
sub wanted
{
	my ($n) = @_;

	return $s->query("SELECT string_agg(id::text, ' ') FROM (SELECT id FROM jobs_queue WHERE status = 'queued' AND scheduled_at <= now() ORDER BY priority, scheduled_at, id LIMIT $n) q");
}

sub count_of
{
	my ($what) = @_;

	return $s->query("SELECT $what FROM job_claim_stats");
}

# ---- as many lanes as there is room for ----

$s->query(q{INSERT INTO jobs_queue (job_type, priority) SELECT 't' || i % 4, 0 FROM generate_series(1, 40) i});
my $wanted = wanted(3);
is(claim(3), $wanted, 'four lanes: the first jobs are claimed');
is(count_of('memory_claims, sql_claims, overflows'), '1|0|0', 'through memory');
is($s->query('SELECT count(*) FROM job_lanes'), '4', 'which is full');

# ---- more of them ----

$s->query(q{INSERT INTO jobs_queue (job_type, priority) SELECT 'more' || i % 20, i % 3 - 1 FROM generate_series(1, 400) i});
for my $n (1, 5, 50)
{
	$wanted = wanted($n);
	is(claim($n), $wanted, "sixty lanes more: the first $n are claimed");
}
cmp_ok(count_of('sql_claims'), '>=', 3, 'through SQL');
cmp_ok(count_of('overflows'), '>=', 3, 'and the reason is counted');
is($s->try("SET jobqueue.debug_claim_path = memory; SELECT count(*) FROM claim_next_job('$worker')"), '55000', 'memory cannot serve');
like($s->{message}, qr/shared memory cannot serve this claim: there are more lanes than jobqueue\.max_lanes/, 'and says why');
$s->query('RESET jobqueue.debug_claim_path');
is($s->query('SELECT count(*) FROM job_lanes'), '4', 'there are no more than can be');
is($s->query("CALL wait_for_jobs('{more7}', '1 minute')"), 't', 'wait_for_jobs knows of the jobs all the same');
$s->query('BEGIN');
claim(200);
$s->query('ROLLBACK');
$wanted = wanted(1000);
is(claim(1000), $wanted, 'what was rolled back and all the rest is claimed');
is(claim(1000), '', 'until nothing is left');

# a sleeper wakes for a lane that has no room
my $sleeper = JobQueue::Session->new($node);
$sleeper->send("CALL wait_for_jobs('{unheard of}', '600 s')");
wait_for_query($node, "SELECT coalesce(wait_event_type = 'Extension', false) FROM pg_stat_activity WHERE pid = $sleeper->{pid}");
$s->query(q{SELECT enqueue_job('unheard of', stage => 's' || i) FROM generate_series(1, 9) i});
$sleeper->finish;
is($sleeper->{output}, 't', 'a sleeper wakes for a job of a lane that memory has no room for');

# fewer again: memory comes back when lanes have not been used for a while
$s->query(q{DELETE FROM jobs_queue; INSERT INTO jobs_queue (job_type) SELECT 'one' FROM generate_series(1, 1000)});
wait_for_query($node, "SELECT after.memory_claims > before.memory_claims FROM job_claim_stats before, LATERAL (SELECT count(*) AS n FROM claim_next_job('$worker')) c, LATERAL (SELECT memory_claims FROM _claim_counts() WHERE c.n = 1) after");
pass('with few lanes memory serves again');

# ---- none ----

$_->quit for $s, $sleeper;
$node->append_conf('postgresql.conf', 'jobqueue.max_lanes = 0');
$node->restart;
$s = JobQueue::Session->new($node);
$s->query('TRUNCATE jobs_queue');
$s->query(q{INSERT INTO jobs_queue (job_type, priority) SELECT 't' || i % 5, i % 3 FROM generate_series(1, 100) i});
$wanted = wanted(30);
is(claim(30), $wanted, 'no lanes at all: claims find their jobs');
is($s->query('SELECT count(*) FROM job_lanes'), '0', 'there are none to see');
is($s->query('SELECT memory_claims IS NULL FROM job_claim_stats'), 't', 'and nothing is counted');
is($s->try("SET jobqueue.debug_claim_path = memory; SELECT count(*) FROM claim_next_job('$worker')"), '55000', 'memory cannot serve');
like($s->{message}, qr/the library was not preloaded, or jobqueue\.max_lanes is 0/, 'and says why');
$s->query('RESET jobqueue.debug_claim_path');
$s->query('BEGIN; SAVEPOINT s');
claim(10);
$s->query('ROLLBACK TO s');
$wanted = wanted(100);
is(claim(100), $wanted, 'also after a rollback');
$s->query('COMMIT');
$sleeper = JobQueue::Session->new($node);
$sleeper->send("CALL wait_for_jobs('{t1}', '600 s')");
wait_for_query($node, "SELECT coalesce(wait_event_type = 'Extension', false) FROM pg_stat_activity WHERE pid = $sleeper->{pid}");
$s->query(q{SELECT enqueue_job('t1')});
is($sleeper->finish, '00000', 'a sleeper');
is($sleeper->{output}, 't', 'wakes');

$_->quit for $s, $sleeper;
$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
