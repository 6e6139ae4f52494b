# Transfers that hang, and names that cannot be looked up, take nothing from
# anybody else: other jobs are as fast as without them, and the dispatcher answers
# the server at once.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Http qw(http_conf add_http_type send_job runs_of dispatcher threads_of);
use JobQueue::HttpServer;
use JobQueue::Resolver;
use JobQueue::Session;
use List::Util qw(max);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);
use Time::Local qw(timegm);

# Milliseconds: how much later others may be; how soon an interrupt is served.
use constant { DELAY => 100, INTERRUPT => 50 };

# Threads that may look up names at once, and those that are there besides.
use constant THREADS => 64 + 6;

# How often a measurement that fails is repeated: this machine may be busy.
use constant TRIES => 2;

my $resolver = JobQueue::Resolver->new or plan skip_all => 'no compiler for the library that looks up names';
my $server = JobQueue::HttpServer->start;
my $node = $resolver->run(sub {
	JobQueue::Cluster->new('main', conf => http_conf('jobqueue.http_max_connections = 400', "log_timezone = 'UTC'", "log_line_prefix = '%m [%p] '", 'log_statement = all'));
});
my $session = JobQueue::Session->new($node);
$resolver->set('fast.test', '127.0.0.1');
add_http_type($node, 'fast', $server->url('/ok'));
add_http_type($node, 'fast by name', $server->url('/ok') =~ s/127\.0\.0\.1/fast.test/r);
my %slow = (gate => $server->url('/gate/all'), header => $server->url('/hang_header'), body => $server->url('/slow_body'),
	mute => $server->url('/ok', 'mute'), deaf => $server->url('/ok', 'deaf'));
add_http_type($node, $_, $slow{$_}, timeout => '10 min', connect_timeout => '10 min', max_concurrency => 100) for sort keys %slow;

# Milliseconds from the enqueuing of a job to its end: of many, one by one, the
# median and what nineteen of twenty do not exceed.
sub latency
{
	my ($type) = @_;

	my @ids;
	for (1 .. 40)
	{
		push @ids, $session->query("SELECT enqueue_job('$type')");
		sleep 0.02;
	}
	my $ids = join ',', @ids;
	wait_for_query($node, "SELECT count(*) FROM jobs_queue_live WHERE id IN ($ids)", 0);
	return split /\|/, $session->query(qq{
		SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY ms), percentile_cont(0.95) WITHIN GROUP (ORDER BY ms)
		FROM (SELECT 1000 * extract(epoch FROM r.finished_at - q.created_at) FROM jobs_queue q JOIN job_runs r ON r.job_id = q.id WHERE q.id IN ($ids)) AS t(ms)});
}

# Milliseconds, at most, until the dispatcher does what a signal asks for, by the
# times in the log of the server.
sub interrupts
{
	my ($pid) = @_;

	my $from = -s $node->logfile;
	for my $round (1 .. 20)
	{
		my $size = -s $node->logfile;
		$session->query("SELECT pg_log_backend_memory_contexts($pid)");
		# The server takes no other request before the end of this one.
		$node->wait_for_log(qr/\[$pid\] LOG:  Grand total: /, $size);
	}
	my (@asked, @served);
	for (split /\n/, slurp_file($node->logfile, $from))
	{
		my ($day, $time, $ms) = /^(\d+-\d+-\d+) (\d+:\d+:\d+)\.(\d+) / or next;
		my ($year, $month, $mday) = split /-/, $day;
		my $at = 1000 * timegm(reverse(split /:/, $time), $mday, $month - 1, $year) + $ms;
		push @asked, $at if /statement: SELECT pg_log_backend_memory_contexts/;
		push @served, $at if /\[$pid\] LOG:  logging memory contexts/;
	}
	is(scalar @asked, scalar @served, 'every interrupt was served');
	return max(map { $served[$_] - $asked[$_] } 0 .. $#asked);
}

# Seconds that it takes to drop a database that nobody uses.
sub drop_database
{
	$session->query('CREATE DATABASE unrelated');
	my $started = time;
	$session->query('DROP DATABASE unrelated');
	return time - $started;
}

# Asserts that $measure's result is below a bound, once it is tried again.
sub is_below
{
	my ($measure, $bound, $what) = @_;

	my $found;
	for (1 .. TRIES)
	{
		$found = $measure->();
		last if $found < $bound;
		note("$what: $found, once more");
	}
	cmp_ok($found, '<', $bound, $what);
	return;
}

my $pid;
my %alone;

sub is_unmoved
{
	my ($beside) = @_;

	for my $type ('fast', 'fast by name')
	{
		is_below(sub {
				my ($median, $most) = latency($type);
				note("$type beside $beside: median $median ms, 95 % $most ms; alone $alone{$type}[0], $alone{$type}[1]");
				return max($median - $alone{$type}[0], $most - $alone{$type}[1]);
			}, DELAY, "beside $beside, \"$type\" is not later by so many ms");
	}
	is_below(sub { interrupts($pid) }, INTERRUPT, "beside $beside, interrupts are served within ms");
	is_below(\&drop_database, 1, "beside $beside, another database is dropped within seconds");
	is(dispatcher($node), $pid, 'the dispatcher is the same');
	return;
}

sub cancel_all
{
	$session->query('SELECT count(cancel_job(id)) FROM jobs_queue_live');
	wait_for_query($node, 'SELECT count(*) FROM jobs_queue_live', 0);
	return;
}

# ---- alone ----

runs_of($node, send_job($node, $_)) for 'fast', 'fast by name';
$pid = dispatcher($node);
$alone{$_} = [ latency($_) ] for 'fast', 'fast by name';
cmp_ok($alone{fast}[0], '<', 100, "alone, a job takes $alone{fast}[0] ms");
my $threads = threads_of($pid);

# ---- beside transfers that hang ----

$session->query("SELECT enqueue_jobs('gate', array_fill('{}'::jsonb, '{100}'))");
wait_for_query($node, q{SELECT count(*) FROM jobs_queue_live WHERE status = 'running'}, 100);
sleep 0.01 until $server->count('/gate/all') == 100;
is_unmoved('a hundred requests without an answer');

# A setting that changes holds at once.
$node->safe_psql('postgres', q{ALTER SYSTEM SET jobqueue.http_allow_hosts = 'nobody.example'});
$node->reload;
wait_for_query($node, q{SELECT current_setting('jobqueue.http_allow_hosts') = 'nobody.example'});
$node->wait_for_log(qr/parameter "jobqueue\.http_allow_hosts" changed/);
my $deadline = time + 60;
my @runs;
do { @runs = runs_of($node, send_job($node, 'fast')) } while ($runs[0]{status} eq 'completed' && time < $deadline);
is($runs[0]{status}, 'failed', 'a reload takes effect beside them: ' . ($runs[0]{error} // ''));
$node->safe_psql('postgres', 'ALTER SYSTEM RESET jobqueue.http_allow_hosts');
$node->reload;
do { @runs = runs_of($node, send_job($node, 'fast')) } while ($runs[0]{status} ne 'completed' && time < $deadline);
is($runs[0]{status}, 'completed', 'and another one');
is($session->query(q{SELECT count(*) FROM jobs_queue_live WHERE job_type = 'gate' AND status = 'running'}), '100', 'they are still there');
is($server->count('/gate/all'), 100, 'and have not been sent again');
$server->open_gate('all');
wait_for_query($node, 'SELECT count(*) FROM jobs_queue_live', 0);
is($session->query(q{SELECT count(*) FROM jobs_queue WHERE job_type = 'gate' AND status = 'completed' AND attempts = 1}), '100', 'their answers come in the end');

# ---- beside those that never connect, and those that drip ----

$session->query("SELECT enqueue_jobs(t, array_fill('{}'::jsonb, '{40}')) FROM unnest('{mute,deaf,header}'::text[]) t; SELECT enqueue_jobs('body', array_fill('{}'::jsonb, '{20}'))");
wait_for_query($node, q{SELECT count(*) FROM jobs_queue_live WHERE status = 'running'}, 140);
is_unmoved('slow and deaf servers');
my $started = time;
cancel_all();
cmp_ok(time - $started, '<', 10, 'they can be cancelled');
is($session->query(q{SELECT count(*) FROM jobs_queue WHERE job_type <> 'gate' AND status = 'cancelled'}), '140', 'all of them');
$deadline = time + 60;
sleep 0.01 while $server->open_connections > 10 && time < $deadline;
cmp_ok($server->open_connections, '<=', 10, 'and their connections are closed');

# ---- beside endpoints that have no more room ----

for my $number (1 .. 60)
{
	add_http_type($node, "full $number", $server->url("/gate/full/$number"), timeout => '10 min', max_concurrency => 3);
}
$session->query("SELECT enqueue_job('full ' || n) FROM generate_series(1, 60) n, generate_series(1, 20)");
$deadline = time + 60;
sleep 0.01 until $server->count('/gate/full') == 180 || time > $deadline;
is($server->count('/gate/full'), 180, 'sixty endpoints have all the requests that they may have');
is_unmoved('endpoints without room');
$server->open_gate('full');
wait_for_query($node, 'SELECT count(*) FROM jobs_queue_live', 0);
is($server->count('/gate/full'), 1200, 'the others follow');

# ---- beside names that cannot be looked up ----

for my $number (1 .. 100)
{
	$resolver->set("hang$number.test", 'hang', '127.0.0.1');
	add_http_type($node, "name $number", $server->url("/ok/$number") =~ s/127\.0\.0\.1/hang$number.test/r, timeout => '5 s', connect_timeout => '5 s', max_attempts => 1000);
}
$session->query("SELECT enqueue_job('name ' || n) FROM generate_series(1, 30) n");
$deadline = time + 60;
sleep 0.01 until (grep { $resolver->lookups("hang$_.test") } 1 .. 30) == 30 || time > $deadline;
$resolver->set('new.test', '127.0.0.1');
add_http_type($node, 'new', $server->url('/ok') =~ s/127\.0\.0\.1/new.test/r);
my ($run) = runs_of($node, send_job($node, 'new'));
is($run->{status}, 'completed', 'a name is looked up beside thirty others that hang');
cmp_ok($run->{seconds}, '<', 1, 'at once');
is_unmoved('names without an answer');
wait_for_query($node, q{SELECT count(*) >= 30 FROM job_runs WHERE job_type LIKE 'name %'});
is($session->query(q{SELECT DISTINCT error FROM job_runs WHERE job_type LIKE 'name %'}), 'the request failed: timed out while resolving the name of the host', 'these time out');
is($session->query(q{SELECT max(finished_at - started_at) < '6 s' FROM job_runs WHERE job_type LIKE 'name %'}), 't', 'in time');
$session->query("SELECT enqueue_job('name ' || n) FROM generate_series(31, 100) n");
my $most = 0;
$deadline = time + 8;
while (time < $deadline)
{
	$most = max($most, threads_of($pid));
	sleep 0.01;
}
cmp_ok($most, '<', $threads + THREADS, "a hundred names that hang, some of them more than once: $most threads");
is_unmoved('more names without an answer than may be looked up');
$most = max($most, threads_of($pid));
cmp_ok($most, '<', $threads + THREADS, "still not more: $most threads");

# Once names can be looked up, all is as before.
cancel_all();
$resolver->set("hang$_.test", '127.0.0.1') for 1 .. 100;
$deadline = time + 60;
sleep 0.01 while threads_of($pid) > $threads && time < $deadline;
is(threads_of($pid), $threads, 'no thread is left of them');
is($session->query('SELECT count(*) FROM jobs_queue_live'), '0', 'and no job');

# ---- the end of the server ----

$resolver->set("hang$_.test", 'hang') for 1 .. 10;
$session->query("SELECT enqueue_job('name ' || n) FROM generate_series(1, 10) n");
wait_for_query($node, q{SELECT count(*) FROM jobs_queue_live WHERE status = 'running'}, 10);
$session->quit;
$started = time;
$node->stop('fast');
note('a fast shutdown took ', time - $started, ' s');
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|terminated by signal)\b/, 'nothing crashed');
$server->stop;
done_testing();
