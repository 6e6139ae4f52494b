# job_types.notify: the scheduler says once that jobs have begun to wait, and
# producers say nothing.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Session;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = JobQueue::Cluster->new('main', conf => 'max_prepared_transactions = 5');
my $worker = '00000000-0000-4000-8000-000000000001';
$node->safe_psql('postgres', q{
	INSERT INTO job_types (job_type, notify, enabled) VALUES ('loud', true, true), ('loud too', true, true), ('quiet', false, true), ('off', true, false);
	INSERT INTO job_types (job_type, notify, runner, command) VALUES ('server', true, 'sql', 'SELECT 1');
});
my $listener = JobQueue::Session->new($node);
my $other = JobQueue::Session->new($node);
my @heard;

# Adds what has arrived to @heard; psql prints it after a statement.
sub listen_now
{
	push @heard, $listener->query('SELECT 1') =~ /Asynchronous notification "jobqueue" with payload "(.*?)" received/g;
	return;
}

# Waits until so many have arrived.
sub hear
{
	my ($count) = @_;

	my $until = time + 180;
	while (listen_now(), @heard < $count)
	{
		die "heard only @heard" if time > $until;
		sleep 0.02;
	}
	return;
}

# Waits until the scheduler has come round more than once, and has had its say.
sub let_the_scheduler_speak
{
	my $now = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
	wait_for_query($node, "SELECT count(*) FROM _server_workers() WHERE kind = 'scheduler' AND last_cycle_at > timestamptz '$now' + interval '300 ms'", 1);
	listen_now();
	return;
}

sub drain
{
	my ($type) = @_;

	1 while $other->query("SELECT count(resolve_job(id, '$worker', true)) FROM claim_jobs('$worker', '{$type}', 1000)");
	return;
}

sub forget
{
	let_the_scheduler_speak();
	@heard = ();
	return;
}

$listener->query('LISTEN jobqueue');
wait_for_query($node, q{SELECT count(*) FROM _server_workers() WHERE kind = 'scheduler' AND state = 'running'}, 1);
forget();

# a hundred transactions of producers
$other->query("SELECT enqueue_job('loud')") for 1 .. 100;
hear(1);
let_the_scheduler_speak();
is($heard[0], 'loud', 'the payload is the job type');
cmp_ok(scalar @heard, '<=', 10, 'far fewer notifications than jobs');
is(scalar(grep { $_ ne 'loud' } @heard), 0, 'and of no other type');

# claims that leave some do not make them new
$other->query("SELECT count(*) FROM claim_jobs('$worker', '{loud}', 10)");
forget();
$other->query("SELECT enqueue_job('loud')");
let_the_scheduler_speak();
is("@heard", '', 'nothing new is said while jobs wait');

# drained, and another one
drain('loud');
forget();
$other->query("SELECT enqueue_job('loud')");
hear(1);
is("@heard", 'loud', 'after a claim that found nothing, a new job is announced');
drain('loud');
forget();

# who has nothing to say
$other->query("SELECT enqueue_job(t) FROM unnest('{quiet,unknown,off,server}'::text[]) t");
let_the_scheduler_speak();
is("@heard", '', 'types without notify, disabled ones and those of the server are not announced');
$other->query("SELECT enqueue_job('loud too')");
hear(1);
is("@heard", 'loud too', 'each type for itself');
drain('loud too');
forget();

# later
my $id = $other->query("SELECT enqueue_job('loud', scheduled_at => clock_timestamp() + interval '2 s')");
let_the_scheduler_speak();
my $too_early = @heard && $other->query("SELECT clock_timestamp() < scheduled_at FROM jobs_queue WHERE id = $id") eq 't';
ok(!$too_early, 'a job of later is not announced at once');
hear(1);
is($other->query("SELECT clock_timestamp() >= scheduled_at FROM jobs_queue WHERE id = $id"), 't', 'but when it is due');
drain('loud');
forget();

# a claim that is rolled back, a retry
$id = $other->query("SELECT enqueue_job('loud')");
hear(1);
$other->query("SELECT FROM claim_jobs('$worker', '{loud}')");
$other->query("SELECT FROM claim_jobs('$worker', '{loud}')");
forget();
$other->query("SELECT fail_job($id, '$worker', retry_at => now())");
hear(1);
is("@heard", 'loud', 'a retry is announced');
drain('loud');
forget();

# two-phase commit: a NOTIFY of the producer would forbid it
is($other->try("BEGIN; SELECT enqueue_job('loud'); PREPARE TRANSACTION 'producer'"), '00000', 'a producer can be prepared');
$other->query(q{COMMIT PREPARED 'producer'});
hear(1);
is($heard[0], 'loud', 'and its job is announced');
drain('loud');
forget();

# producers in other sessions, functions and plain DML
$other->query(q{INSERT INTO jobs_queue (job_type, stage, priority) VALUES ('loud', 'x', 3)});
hear(1);
is("@heard", 'loud', 'plain DML in a lane of its own');
drain('loud');
forget();
$node->safe_psql('postgres', q{UPDATE job_types SET notify = false WHERE job_type = 'loud'});
$other->query("SELECT enqueue_job('loud')");
let_the_scheduler_speak();
is("@heard", '', 'it can be switched off');
$node->safe_psql('postgres', q{UPDATE job_types SET notify = true WHERE job_type = 'loud'});
hear(1);
is("@heard", 'loud', 'and on, for what waits already');
drain('loud');
forget();

# an idle scheduler writes nothing
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'jobqueue scheduler' AND backend_xid IS NOT NULL}), '0', 'it takes no transaction id for that');

$listener->quit;
$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
