# The process that sends HTTP jobs: what it holds while it waits, and what becomes
# of its requests when it, the server, or something else stops.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::HttpJobs;
use JobQueue::Jobs qw(is_gone kill_and_return);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $http = JobQueue::HttpJobs->new('main', init => { allows_streaming => 1 }, conf => <<'CONF');
jobqueue.shutdown_timeout = 2s
log_statement = none
CONF
my ($server, $node) = @{$http}{qw(server node)};

# The statuses of the jobs of a type: "2 completed, 3 queued".
sub statuses
{
	my ($type) = @_;

	return "SELECT string_agg(concat_ws(' ', n, status), ', ' ORDER BY status) FROM (SELECT status, count(*) AS n FROM jobs_queue WHERE job_type = '$type' GROUP BY 1) s";
}

sub is_statuses
{
	my ($type, $expected, $what) = @_;

	$http->wait_for(statuses($type), $expected);
	pass("$what: $expected");
	return;
}

sub cancel_all
{
	$http->sql('SELECT count(cancel_job(id)) FROM jobs_queue_live');
	$http->wait_until_done;
	return;
}

# ---- nothing is held ----

# Without anything else to do but to wait.
$http->set('jobqueue.poll_interval', '1min');
$http->add('hanging', '/hang/1');
$http->enqueue_many('hanging', 20);
$http->wait_for_requests('/hang/1', 20);
my $pid = $http->dispatcher;
$http->sql(q{
	CREATE FUNCTION held(process int) RETURNS TABLE (samples int, transactions int, snapshots int, locks int) LANGUAGE plpgsql AS $$
	DECLARE
		activity record;
	BEGIN
		SELECT 0, 0, 0, 0 INTO samples, transactions, snapshots, locks;
		WHILE samples < 200 LOOP
			PERFORM pg_sleep(0.005), pg_stat_clear_snapshot();
			SELECT a.* INTO STRICT activity FROM pg_stat_activity a WHERE pid = process;
			samples := samples + 1;
			transactions := transactions + (activity.xact_start IS NOT NULL OR activity.backend_xid IS NOT NULL)::int;
			snapshots := snapshots + (activity.backend_xmin IS NOT NULL)::int;
			locks := locks + (SELECT count(*) FROM pg_locks l WHERE l.pid = process);
		END LOOP;
		RETURN NEXT;
	END $$});
is($http->sql("SELECT * FROM held($pid)"), '200|0|0|0', 'no transaction, snapshot or lock while requests are under way');
is($http->hanging('/hang/1'), 20, 'which they were all the time');
$http->set('jobqueue.poll_interval', '100ms');

# ---- cancelling ----

my $id = $http->sql(q{SELECT min(id) FROM jobs_queue WHERE job_type = 'hanging'});
my $at = time;
$http->sql("SELECT cancel_job($id)");
is($http->ended($id, 'status'), 'cancelled', 'a job whose request hangs can be cancelled');
cmp_ok(time - $at, '<', 1, 'at once');
$http->wait_until('the connection is closed', sub { return $http->hanging('/hang/1') == 19 });
cmp_ok(time - $at, '<', 1, 'so is its connection');
$http->sql(q{UPDATE http_endpoints SET max_concurrency = 1 WHERE name = 'hanging'});
my $waiting = $http->enqueue('hanging');
$http->add('beside', '/ok/beside');
$http->ended($http->enqueue('beside'), 'status');
$http->sql("SELECT cancel_job($waiting)");
is($http->ended($waiting, 'status, attempts'), 'cancelled|0', 'so can one that waits for a place');
cancel_all();
$http->wait_until('all connections are closed', sub { return $http->hanging('/hang/1') == 0 });
pass('and all the others');

# ---- leases ----

# It goes on behind what follows.
$http->add('long', '/gate/long', { timeout => '1 min' }, { lease => '2 s' });
my $long = $http->enqueue('long');
$http->wait_for_requests('/gate/long', 1);
my $leased_until = $http->sql("SELECT lease_expires_at FROM jobs_queue WHERE id = $long");
my $long_at = time;
my @stalled;
sub look_at_lease { push @stalled, grep { $_ ne 'running' } $http->sql("SELECT job_state(q) FROM jobs_queue q WHERE id = $long") }

# ---- pauses ----

# Two requests are under way, three jobs behind them wait, when $stop->() is
# called; and are sent after $go_on->().
sub pauses
{
	my ($name, $stop, $go_on) = @_;

	$http->add("paused_$name", "/gate/paused_$name", { max_concurrency => 2, timeout => '1 min' });
	$http->enqueue_many("paused_$name", 5);
	$http->wait_for_requests("/gate/paused_$name", 2);
	$stop->("paused_$name");
	is_statuses("paused_$name", '3 queued, 2 running', "$name: what waits is given back");
	look_at_lease();
	$server->open_gate("paused_$name");
	is_statuses("paused_$name", '2 completed, 3 queued', 'what is under way is recorded');
	is($server->count("/gate/paused_$name"), 2, 'nothing new is sent');
	$go_on->("paused_$name");
	is_statuses("paused_$name", '5 completed', 'the others are, afterwards');
	is($http->sql("SELECT max(attempts) FROM jobs_queue WHERE job_type = 'paused_$name'"), 1, 'and nothing was charged');
	return;
}

pauses('type', sub { $http->sql("SELECT pause_job_type('$_[0]')") }, sub { $http->sql("SELECT resume_job_type('$_[0]')") });
$http->sql(q{UPDATE http_endpoints SET max_concurrency = 5 WHERE name = 'hanging'});

# ---- leases, the end ----

$http->wait_for("SELECT lease_expires_at > '$leased_until'::timestamptz + interval '6 s' FROM jobs_queue WHERE id = $long");
look_at_lease();
is(join(' ', @stalled), '', 'a lease of 2 s moves on as long as a request lasts');
$server->open_gate('long');
is($http->ended($long, 'status, claim_no'), 'completed|1', 'and the job completes');

pauses('workers', sub { $http->sql('SELECT pause_workers()') }, sub { $http->sql('SELECT resume_workers()') });
pauses('enabled', sub { $http->set('jobqueue.enabled', 'off') }, sub { $http->set('jobqueue.enabled', 'on') });

# ---- jobs that cannot be recorded ----

$http->add('unrecorded', '/ok/unrecorded');
$http->sql(q{
	CREATE FUNCTION raise_for_one() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF NEW.job_type = 'unrecorded' AND NEW.attempt = 1 AND (SELECT payload->>'n' FROM public.jobs_queue WHERE id = NEW.job_id) = '3' THEN
			RAISE 'not this one';
		END IF;
		RETURN NEW;
	END $$;
	CREATE TRIGGER raise_for_one BEFORE INSERT ON job_runs FOR EACH ROW EXECUTE FUNCTION raise_for_one()});
$http->enqueue_many('unrecorded', 5);
is_statuses('unrecorded', '4 completed, 1 running', 'a trigger that refuses one job keeps no other from being recorded');
is($http->ended($http->enqueue('beside'), 'status'), 'completed', 'nor from being sent');
$http->sql('ALTER TABLE job_runs DISABLE TRIGGER raise_for_one');
is_statuses('unrecorded', '5 completed', 'and when it is gone, that one is recorded, too');
is($server->count('/ok/unrecorded'), 5, 'without another request');
$http->sql('DELETE FROM jobs_queue; ALTER TABLE job_runs ENABLE TRIGGER raise_for_one');
$http->enqueue_many('unrecorded', 5);
is_statuses('unrecorded', '4 completed, 1 running', 'once more');
$pid = $http->dispatcher;
$http->sql('SELECT pause_workers()');
$http->wait_until('the dispatcher ends', sub { return is_gone($pid) });
$http->sql('SELECT resume_workers()');
is($http->ended($http->enqueue('beside'), 'status'), 'completed', 'the dispatcher can end with it, and another one starts');
$http->sql('DROP TRIGGER raise_for_one ON job_runs');
is_statuses('unrecorded', '5 completed', 'the job is sent again, as nobody knows any more how it ended');

# ---- the dispatcher stops ----

$http->add('drained', '/gate/drained', { max_concurrency => 2, timeout => '1 min' });
$http->add('released', '/gate/released', { max_concurrency => 3, timeout => '1 min' });
$http->enqueue_many('drained', 4);
$http->enqueue_many('released', 5);
$http->wait_for_requests('/gate/drained', 2);
$http->wait_for_requests('/gate/released', 3);
$pid = $http->dispatcher;
my @first_drained = split /\n/, $http->sql(q{SELECT id FROM jobs_queue WHERE job_type = 'drained' ORDER BY id LIMIT 2});
$at = time;
kill 'TERM', $pid;
$http->wait_for(q{SELECT count(*) FROM job_runs WHERE job_type IN ('drained', 'released') AND status = 'released'}, 4);
$server->open_gate('drained');
$http->wait_until('the dispatcher ends', sub { return is_gone($pid) });
my $seconds = time - $at;
ok($seconds >= 1.9 && $seconds < 4, "SIGTERM: it waits for its requests as long as jobqueue.shutdown_timeout: $seconds s");
is($http->sql("SELECT string_agg(status || ' ' || claim_no, ', ') FROM jobs_queue WHERE id IN (" . join(', ', @first_drained) . ')'), 'completed 1, completed 1', 'those that are answered in time are recorded');
$http->wait_for(q{SELECT count(*) FROM job_runs WHERE job_type = 'released' AND status = 'released' AND NOT charged}, 5);
pass('the others are given back, uncharged');
is_statuses('drained', '4 completed', 'what waited goes out afterwards');
$http->wait_for_requests('/gate/released', 6);
$server->open_gate('released');
is_statuses('released', '5 completed', 'and what was given back is sent again');
is($http->sql(q{SELECT max(crashes) FROM jobs_queue WHERE job_type = 'released'}), 0, 'which is no crash');
$http->sql('DELETE FROM jobs_queue');

# ---- it idles ----

$http->set('jobqueue.dispatcher_idle_timeout', '1s');
$http->wait_for(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'jobqueue dispatcher'}, 0);
pass('without work for jobqueue.dispatcher_idle_timeout, it ends');
$at = time;
is($http->ended($http->enqueue('beside'), 'status'), 'completed', 'a new job starts one');
cmp_ok(time - $at, '<', 2, 'at once');
$http->set('jobqueue.dispatcher_idle_timeout', '10min');

# ---- it is asked to stop ----

$http->add('asked', '/gate/asked', { timeout => '1 min', max_concurrency => 2 });
$http->enqueue_many('asked', 2);
$http->wait_for_requests('/gate/asked', 2);
my $asked = $http->dispatcher;
is($http->sql("SELECT running_jobs FROM job_workers WHERE pid = $asked"), 2, 'job_workers tells how many jobs it has');
is($http->sql("SELECT stop_worker(worker_id) FROM job_workers WHERE pid = $asked"), 't', 'stop_worker() knows it');
is($http->ended($http->enqueue('beside'), 'status'), 'completed', 'another one takes over');
isnt($http->sql(q{SELECT max(pid) FROM job_workers WHERE kind = 'dispatcher' AND state <> 'draining'}), $asked, 'which is not the same');
$server->open_gate('asked');
is_statuses('asked', '2 completed', 'what was under way is recorded');
$http->wait_for("SELECT count(*) FROM job_workers WHERE pid = $asked", 0);
is($http->sql('SELECT count(*) FROM worker_stops'), 0, 'and it ends, without a trace');

# ---- the scheduler stops ----

$http->add('on', '/gate/on', { timeout => '1 min', max_concurrency => 2 });
$http->enqueue_many('on', 3);
$http->wait_for_requests('/gate/on', 2);
my $dispatcher = $http->dispatcher;
my $scheduler = $http->sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'jobqueue scheduler'});
$http->sql("SELECT pg_terminate_backend($scheduler)");
$http->wait_for("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'jobqueue scheduler' AND pid <> $scheduler", 1);
is($http->ended($http->enqueue('beside'), 'status'), 'completed', 'another scheduler: jobs are sent');
$server->open_gate('on');
is_statuses('on', '3 completed', 'and go on');
is($server->count('/gate/on') . ' ' . $http->sql(q{SELECT max(claim_no) FROM jobs_queue WHERE job_type = 'on'}), '3 1', 'each once');

# ---- nothing waits for a poll ----

$http->set('jobqueue.poll_interval', '1h');
$http->add('full', '/gate/full', { max_concurrency => 1, timeout => '1 min' });
$http->add('flaky', '/flaky/3', {}, { max_attempts => 5 });
$http->enqueue_many('full', 3);
$http->wait_for_requests('/gate/full', 1);
my $last = $http->enqueue('beside');
$last = $http->enqueue('beside', '{}', "depends_on => ARRAY[$last]") for 1 .. 5;
is($http->ended($last, 'status'), 'completed', 'without polls: jobs that wait for others are sent when these are done');
is($http->ended($http->enqueue('flaky'), 'status, attempts'), 'completed|4', 'retries when they are due, beside a target that is full');
is($http->ended($http->enqueue('beside', '{}', q{scheduled_at => now() + interval '200 ms'}), 'status'), 'completed', 'and others when their time has come');
$server->open_gate('full');
is_statuses('full', '3 completed', 'and those that wait for a place when there is one');
$http->set('jobqueue.poll_interval', '100ms');

# ---- kill -9 ----

$http->add('killed', '/gate/killed', { max_concurrency => 50, timeout => '1 min' });
$http->enqueue_many('killed', 50);
$http->wait_for_requests('/gate/killed', 50);
$pid = $http->dispatcher;
$http->disconnect;
kill_and_return($node, $pid);
$http->connect;
$http->wait_for_requests('/gate/killed', 51);
is($http->ended($http->enqueue('beside'), 'status'), 'completed', 'after a kill -9 with 50 requests open, others are sent');
is($http->sql(q{SELECT count(*) FROM jobs_queue WHERE job_type = 'killed' AND crashes = 1}), 50, 'all of them have crashed once');
is($server->count('/gate/killed'), 51, 'those that have are sent one at a time');
$server->open_gate('killed');
is_statuses('killed', '50 completed', 'every job is delivered');
my %count = $server->count_by_key('/gate/killed');
is(scalar(keys %count), 50, 'with its key');
is_deeply([ grep { $_ > 2 } values %count ], [], 'which was seen twice at most');
is($http->sql(q{SELECT max(attempts) || ' ' || max(crashes) FROM jobs_queue WHERE job_type = 'killed'}), '1 1', 'and no attempt was charged for it');

# ---- two databases ----

$http->add('here', '/gate/both/here', { timeout => '1 min' });
$node->safe_psql('postgres', 'CREATE DATABASE second');
$node->safe_psql('second', sprintf q{
	CREATE EXTENSION jobqueue;
	INSERT INTO http_endpoints (name, url, timeout) VALUES ('there', %s, '1 min');
	INSERT INTO job_types (job_type, runner, endpoint) VALUES ('there', 'http', 'there')}, JobQueue::HttpJobs::quoted($server->url('/gate/both/there')));
$http->enqueue_many('here', 10);
$node->safe_psql('second', q{SELECT enqueue_job('there') FROM generate_series(1, 10)});
$http->wait_for_requests('/gate/both/here', 10);
$http->wait_for_requests('/gate/both/there', 10);
is($http->sql(q{SELECT count(DISTINCT datname) FROM pg_stat_activity WHERE backend_type = 'jobqueue dispatcher'}), 2, 'each database has a dispatcher');
$server->open_gate('both');
is_statuses('here', '10 completed', 'both send');
$node->poll_query_until('second', q{SELECT count(*) FROM jobs_queue WHERE status = 'completed'}, 10) or die 'the other database does not send';
$node->safe_psql('second', sprintf q{UPDATE http_endpoints SET url = %s; SELECT enqueue_job('there') FROM generate_series(1, 100)}, JobQueue::HttpJobs::quoted($server->url('/hang/there')));
$http->wait_for_requests('/hang/there', 20);
$http->set('jobqueue.shutdown_timeout', '1min');
$http->sql('DROP DATABASE second WITH (FORCE)');
pass('a database can be dropped while its requests hang, whatever jobqueue.shutdown_timeout is');
$http->set('jobqueue.shutdown_timeout', '2s');
$http->wait_until('its connections are closed', sub { return $http->hanging('/hang/there') == 0 });

# ---- promotion ----

$http->add('promoted', '/gate/promoted', { timeout => '1 min', max_concurrency => 5 });
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$http->enqueue_many('promoted', 5);
$http->wait_for_requests('/gate/promoted', 5);
$node->wait_for_catchup($standby, 'replay');
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'jobqueue%'}), 0, 'a standby sends nothing');
$http->stop('immediate');
$standby->promote;
$http->wait_for_requests('/gate/promoted', 6);
$server->open_gate('promoted');
wait_for_query($standby, statuses('promoted'), '5 completed');
is($server->count('/gate/promoted'), 10, 'after a promotion, what was under way on the old primary is sent again');
%count = $server->count_by_key('/gate/promoted');
is_deeply([ values %count ], [ (2) x 5 ], 'with the same keys');
$http->{node} = $node = $standby;
$http->connect;

# ---- the server stops ----

$http->add('stopped', '/hang/stopped', { timeout => '1 min', max_concurrency => 10 });
$http->enqueue_many('stopped', 10);
$http->wait_for_requests('/hang/stopped', 10);
$http->sql('DELETE FROM jobs_queue WHERE job_type = $$unrecorded$$; CREATE TRIGGER raise_for_one BEFORE INSERT ON job_runs FOR EACH ROW EXECUTE FUNCTION raise_for_one()');
$http->enqueue_many('unrecorded', 5);
is_statuses('unrecorded', '4 completed, 1 running', 'one cannot be recorded');
$http->disconnect;
$at = time;
$node->stop('fast');
cmp_ok(time - $at, '<', 4, 'a fast shutdown takes jobqueue.shutdown_timeout and no more than 2 s');
$node->start;
$http->connect;
$http->sql('DROP TRIGGER raise_for_one ON job_runs');
is_statuses('unrecorded', '5 completed', 'not even for a job that cannot be recorded');
$http->wait_for_requests('/hang/stopped', 20);
is($http->sql(q{SELECT string_agg(DISTINCT status || ' ' || charged || ' ' || claim_no, ', ') FROM job_runs WHERE job_type = 'stopped'}), 'released false 1', 'requests that hung are given back, uncharged');
is($http->sql(q{SELECT max(crashes) FROM jobs_queue WHERE job_type = 'stopped'}), 0, 'and sent by the next server');
cancel_all();

# ---- several dispatchers ----

$http->set('jobqueue.max_dispatchers', 3);
$http->add('crowd', '/late/5', { max_concurrency => 7 });
$http->enqueue_many('crowd', 1500);
$http->wait_until_done(q{job_type = 'crowd'});
cmp_ok($http->sql(q{SELECT count(DISTINCT worker_id) FROM job_runs WHERE job_type = 'crowd'}), '>', 1, 'more dispatchers than one share what is a lot');
my @crowd = sort { $a <=> $b } map { $_->{at} } $server->requests('/late/5');
is(scalar(@crowd), 1500, 'each job is sent once');

# Each is open for 5 ms at least: so there were as many at once as came in 5 ms.
my $most = 0;
for my $n (0 .. $#crowd)
{
	my $open = grep { $crowd[$_] > $crowd[$n] - 0.005 } ($n > 50 ? $n - 50 : 0) .. $n;
	$most = $open if $open > $most;
}
cmp_ok($most, '<=', 7, "never more than max_concurrency of all of them at once: $most");

# ---- the extension goes ----

$http->add('dropped', '/hang/dropped', { timeout => '1 min', max_concurrency => 10 });
$http->enqueue_many('dropped', 100);
$http->enqueue_many('beside', 1000);
$http->wait_for_requests('/hang/dropped', 10);
$http->sql('DROP EXTENSION jobqueue CASCADE');
$http->wait_for(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'jobqueue dispatcher'}, 0);
pass('the dispatcher ends with the extension');
$http->wait_until('its connections are closed', sub { return $http->hanging('/hang/dropped') == 0 });
my $before = $server->count;
$http->sql('CREATE EXTENSION jobqueue');
$http->add('beside', '/ok/again');
is($http->ended($http->enqueue('beside'), 'status'), 'completed', 'and another one comes with another one');
is($server->count, $before + 1, 'nothing of the old one is sent');

$http->stop;
unlike(slurp_file($standby->logfile), qr/\b(?:PANIC|TRAP|signal 11)\b/, 'nothing crashed');
done_testing();
