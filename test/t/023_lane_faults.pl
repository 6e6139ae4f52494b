# What once went wrong with lanes and their sleepers: jobs that an update moved
# while a claim looked at them, leases that nobody saw expire, and sleepers that
# a locked job kept awake.
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

# How long sleepers would sleep, and how much earlier they must be up.
use constant { TIMEOUT => 600, PROMPT => 60 };

my $node = JobQueue::Cluster->new('main', conf => 'jobqueue.launcher = off');
my $worker = '00000000-0000-4000-8000-000000000001';
my $one = JobQueue::Session->new($node);
my $two = JobQueue::Session->new($node);
my $three = JobQueue::Session->new($node);

sub claim
{
	my ($s, $type, $n) = @_;

	return $s->query(sprintf "SELECT string_agg(id::text, ' ' ORDER BY id) FROM claim_jobs('$worker', '{$type}', %d)", $n // 1);
}

# ---- a newer version of a row ----

# While an update is open, claims pass its job over; what they give back in the
# end is the version that they saw. The update ends while they take the others.
my @late;
for my $round (1 .. 30)
{
	my @ids = split /\n/, $one->query("SELECT enqueue_jobs('moved', array_fill('1'::jsonb, '{300}'))");
	$one->query("BEGIN; UPDATE jobs_queue SET payload = '$round' WHERE id = $ids[0]");
	push @late, "round $round: not passed over" if claim($two, 'moved') ne $ids[1];
	$two->send("SELECT id FROM claim_jobs('$worker', '{moved}', 299)");
	sleep 0.0005 * ($round % 10);
	$one->send('COMMIT');
	$_->finish eq '00000' or die $_->{message} for $one, $two;
	my %got = map { $_ => 1 } split /\n/, $two->{output};
	$got{$_} = 1 for split / /, claim($three, 'moved', 10);
	push @late, sprintf "round $round: %d of 299", scalar keys %got if keys %got != 299;
}
is(join("\n", @late), '', 'a job that is updated while a claim passes it over is claimed as soon as that is over');
is($one->query('SELECT count(*) FROM jobs_queue WHERE status = $$queued$$'), '0', 'none is forgotten');

# The same with everybody at it at once: claims that take one job each, and
# updates that always have some of the others.
@late = ();
for my $round (1 .. 15)
{
	my @jobs = split /\n/, $one->query("SELECT enqueue_jobs('moved', array_fill('1'::jsonb, '{300}'))");
	$one->send(q{DO $$
		DECLARE
			j bigint;
		BEGIN
			FOR j IN SELECT id FROM jobs_queue WHERE status = 'queued' AND job_type = 'moved' ORDER BY id LOOP
				UPDATE jobs_queue SET payload = '2' WHERE id = j AND status = 'queued';
				COMMIT;
			END LOOP;
		END $$});
	$two->send(join ';', ("SELECT id FROM claim_jobs('$worker', '{moved}', 1)") x 100);
	$_->finish eq '00000' or die $_->{message} for $one, $two;
	my %got = map { $_ => 1 } grep { $_ } split /\n/, $two->{output};
	$got{$_} = 1 for split / /, claim($three, 'moved', 1000);
	push @late, sprintf "round $round: %d of 300", scalar keys %got if keys %got != @jobs;
	$one->query(q{DELETE FROM jobs_queue WHERE status = 'queued'});
}
is(join("\n", @late), '', 'one claim gets all that is left after updates that ran beside others');

# ---- nobody but a sleeper is there when a lease expires ----

my $id = $one->query("SELECT enqueue_job('leased')");
is($one->query("SELECT id FROM claim_jobs('$worker', '{leased}', 1, '1 s')"), $id, 'a worker claims a job and falls silent');
my $sleeper = JobQueue::Session->new($node);
my $started = time;
is($sleeper->query(sprintf "CALL wait_for_jobs('{leased}', '%d s')", TIMEOUT), 't', 'a sleeper takes the job back');
cmp_ok(time - $started, '<', PROMPT, 'long before its timeout');
is($sleeper->query("SELECT id, attempts FROM claim_jobs('00000000-0000-4000-8000-000000000002', '{leased}', 1)"), "$id|2", 'and can claim it');
is($one->query("SELECT status, charged FROM job_runs WHERE job_id = $id"), 'expired|t', 'the first run has expired');

# ---- a job that somebody has is no reason to get up ----

my $rounds = q{DO $$
	DECLARE
		until timestamptz := clock_timestamp() + interval '3 s';
		is_ready boolean;
		rounds integer := 0;
	BEGIN
		WHILE clock_timestamp() < until LOOP
			CALL wait_for_jobs('{held}', '3 s', is_ready);
			PERFORM FROM claim_jobs('00000000-0000-4000-8000-000000000001', '{held}', 1);
			COMMIT;
			rounds := rounds + 1;
		END LOOP;
		PERFORM set_config('test.rounds', rounds::text, false);
	END $$; SELECT current_setting('test.rounds')};
for my $hold ("SELECT FROM claim_jobs('$worker', '{held}', 1)", "UPDATE jobs_queue SET payload = '2' WHERE job_type = 'held'",
	"SELECT FROM jobs_queue WHERE job_type = 'held' FOR UPDATE")
{
	$id = $one->query("SELECT enqueue_job('held')");
	$one->query("BEGIN; $hold");
	my $count = $two->query($rounds);
	note("$count rounds while another session has: $hold");
	cmp_ok($count, '<', 20, 'waiting and claiming does not spin while another session has the job');
	$two->send(sprintf "CALL wait_for_jobs('{held}', '%d s')", TIMEOUT);
	$started = time;
	$one->query('ROLLBACK');
	is($two->finish . " $two->{output}", '00000 t', 'when that is rolled back it is ready');
	cmp_ok(time - $started, '<', PROMPT, 'soon');
	is(claim($two, 'held'), $id, 'and is claimed');
}
$node->stop;

# ---- no lanes at all ----

# The scheduler looks once a minute; an enqueue must call it.
$node->append_conf('postgresql.conf', "jobqueue.launcher = on\njobqueue.max_lanes = 0\njobqueue.poll_interval = 60s");
$node->start;
wait_for_query($node, "SELECT count(*) FROM _server_workers() WHERE kind = 'scheduler'", 1);
for my $what ('the first job of the server', 'one on an idle server')
{
	wait_for_query($node, q{SELECT wait_event_type FROM pg_stat_activity WHERE backend_type = 'jobqueue scheduler'}, 'Extension');
	$started = time;
	$id = $node->safe_psql('postgres', q{SELECT enqueue_sql('SELECT 1')});
	wait_for_query($node, "SELECT status FROM jobs_queue WHERE id = $id", 'completed');
	cmp_ok(time - $started, '<', 30, "without lanes: $what is done long before the scheduler would look");
	note(sprintf 'after %.1f s', time - $started);
}
$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
