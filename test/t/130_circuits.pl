# Circuit breakers where the server works by itself: what stays undone behind an
# open one costs no attempt, and an open one outlives restarts and crashes.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::HttpJobs;
use JobQueue::Session;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $http = JobQueue::HttpJobs->new('main', conf => <<'CONF');
jobqueue.max_executors = 1
CONF
my ($node, $server) = @{$http}{qw(node server)};
my $worker = '00000000-0000-4000-8000-000000000001';

# Of the stage of a job type: its circuit, and what its jobs have cost.
sub circuit { return $http->sql("SELECT state, failures FROM job_circuit_status WHERE job_type = '$_[0]' AND stage = '$_[1]'") }
sub attempts { return $http->sql("SELECT count(*) FROM job_runs WHERE job_type = '$_[0]' AND stage = '$_[1]' AND charged") }

sub events
{
	my ($type) = @_;

	return $http->sql("SELECT string_agg(event, ' ' ORDER BY id) FROM queue_events WHERE job_type = '$type'");
}

sub trips_logged
{
	my ($type, $stage) = @_;

	return scalar(grep { /LOG:  event=jobqueue\.worker\.circuit_open .* jobType=$type stage=$stage .*cause=failures failures=\d+ cooldownMs=3600000/ } split /\n/, slurp_file($node->logfile));
}

sub end_cooldown
{
	my ($type) = @_;

	$http->sql("UPDATE job_circuits SET retry_at = now() WHERE job_type = '$type'");
	return;
}

# ---- SQL jobs ----

$http->sql('CREATE TABLE down (stage text)');
$http->sql(q{INSERT INTO job_types (job_type, runner, command, max_attempts, backoff, breaker_threshold, breaker_cooldown)
	VALUES ('ship', 'sql', 'SELECT 1 / (1 - (SELECT count(*) FROM down d WHERE d.stage = $1->>''stage''))', 1000, '{"delay": "0 s"}', 3, '1 hour')});
# The executor learns that these are quick, and claims many of them at once.
$http->sql(q{SELECT count(enqueue_job('ship', '{"stage": "quick"}', stage => 'quick')) FROM generate_series(1, 500)});
$http->wait_for(q{SELECT count(*) FROM jobs_queue_live}, 0);
$http->sql(q{INSERT INTO down VALUES ('label')});
$http->sql(q{SELECT count(enqueue_job('ship', jsonb_build_object('stage', s), stage => s)) FROM generate_series(1, 30), unnest('{label,bill}'::text[]) s});
$http->wait_for(q{SELECT count(*) FROM jobs_queue WHERE stage = 'bill' AND status = 'completed'}, 30);
$http->wait_for(q{SELECT state FROM job_circuits WHERE stage = 'label'}, 'open');
$http->wait_for(q{SELECT count(*) FROM jobs_queue WHERE status = 'running'}, 0);
is(circuit('ship', 'label'), 'open|3', 'three failures in a row open the circuit of their stage');
is(attempts('ship', 'label'), 3, 'and cost no attempt more');
is(attempts('ship', 'bill'), 30, 'while another stage goes on');
is(events('ship'), 'circuit_open', 'that is an event, once');
is($http->sql(q{SELECT stage, data FROM queue_events WHERE event = 'circuit_open'}), 'label|{"failures": 3, "cooldown_ms": 3600000}', 'which tells the cooldown');
is(trips_logged('ship', 'label'), 1, 'and a line in the log');
is($http->sql('SELECT last_error FROM job_circuits'), 'division by zero (22012)', 'the last error is kept');

# Nobody looks for work where there is none.
$http->sql(q{ALTER SYSTEM SET jobqueue.executor_idle_timeout = '100ms'; SELECT pg_reload_conf()});
$http->wait_for(q{SELECT count(*) FROM job_workers WHERE kind = 'executor'}, 0);
my $claims = $http->sql('SELECT memory_claims + sql_claims FROM job_claim_stats');
my $cycle = q{SELECT last_cycle_at FROM _server_workers() WHERE kind = 'scheduler'};
for (1 .. 5)
{
	my $seen = $http->sql($cycle);
	$http->wait_for("SELECT ($cycle) > '$seen'");
}
is($http->sql('SELECT memory_claims + sql_claims FROM job_claim_stats'), $claims, 'no executor is started behind an open circuit');

# A restart.
$http->stop;
$node->start;
$http->connect;
$http->sql(q{SELECT enqueue_job('ship', '{"stage": "bill"}', stage => 'bill')});
$http->wait_for(q{SELECT count(*) FROM jobs_queue WHERE stage = 'bill' AND status = 'completed'}, 31);
is(circuit('ship', 'label') . ' ' . attempts('ship', 'label'), 'open|3 3', 'a restart changes nothing');

# A crash, with a probe under way.
$http->sql(q{CREATE TABLE gate (a int); INSERT INTO gate VALUES (1)});
$http->sql(q{UPDATE job_types SET command = 'SELECT CASE WHEN EXISTS (SELECT FROM gate) THEN pg_sleep(300) END, 1 / (1 - (SELECT count(*) FROM down d WHERE d.stage = $1->>''stage''))' WHERE job_type = 'ship'});
end_cooldown('ship');
$http->wait_for(q{SELECT count(*) FROM job_circuits c JOIN jobs_queue q ON q.id = c.probe_job_id AND q.claim_no = c.probe_claim_no WHERE c.state = 'half_open' AND q.status = 'running'}, 1);
$http->wait_for(q{SELECT count(*) FROM _server_workers() w JOIN job_circuits c ON c.probe_job_id = w.job_id}, 1);
is($http->sql(q{SELECT count(*) FROM jobs_queue WHERE status = 'running'}), 1, 'one job is let through');
my $pid = $http->sql(q{SELECT pid FROM _server_workers() WHERE job_id IS NOT NULL});
$http->sql('CHECKPOINT');
$http->disconnect;
kill 'KILL', $pid;
wait_for_query($node, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", 0);
$http->connect;
$http->wait_for(q{SELECT count(*) FROM job_runs WHERE status = 'crashed'}, 1);
$http->wait_for(q{SELECT count(*) FROM job_circuits c JOIN jobs_queue q ON q.id = c.probe_job_id AND q.claim_no = c.probe_claim_no WHERE q.status = 'running'}, 1);
is($http->sql(q{SELECT state FROM job_circuits}) . ' ' . attempts('ship', 'label'), 'half_open 3', 'after a crash the next job is the probe');

# A probe that fails, and one that succeeds.
$http->sql('DELETE FROM gate');
$http->sql('SELECT pg_cancel_backend(pid) FROM _server_workers() WHERE job_id IS NOT NULL');
$http->wait_for(q{SELECT state, failures, retry_at > now() + interval '50 minutes' FROM job_circuits}, 'open|4|t');
is(attempts('ship', 'label'), 4, 'a probe that fails costs its own attempt only');
$http->sql('DELETE FROM down');
end_cooldown('ship');
$http->wait_for(q{SELECT count(*) FROM jobs_queue WHERE stage = 'label' AND status = 'completed'}, 30);
is(circuit('ship', 'label'), '', 'one that succeeds closes the circuit');
is(attempts('ship', 'label'), 34, 'and all jobs are done, one attempt each');
like(events('ship'), qr/\Acircuit_open (circuit_half_open )+circuit_reopened circuit_half_open circuit_closed\z/, 'as the events tell');
is(trips_logged('ship', 'label'), 1, 'the log has one line of all this');

# A cooldown ends by itself.
$http->sql(q{UPDATE job_types SET breaker_cooldown = '200 ms' WHERE job_type = 'ship'; INSERT INTO down VALUES ('label')});
$http->sql(q{SELECT count(enqueue_job('ship', '{"stage": "label"}', stage => 'label')) FROM generate_series(1, 5)});
$http->wait_for(q{SELECT count(*) >= 3 FROM queue_events WHERE event = 'circuit_reopened'});
$http->sql('DELETE FROM down');
$http->wait_for(q{SELECT count(*) FROM jobs_queue_live WHERE job_type = 'ship'}, 0);

# ---- HTTP jobs ----

$http->add('hook', '/status/{{payload.code}}', { max_concurrency => 1 }, { max_attempts => 1000, breaker_threshold => 3, breaker_cooldown => '1 hour' });
$http->sql(q{SELECT count(enqueue_job('hook', jsonb_build_object('code', CASE s WHEN 'down' THEN 503 ELSE 200 END), stage => s)) FROM generate_series(1, 40), unnest('{down,up}'::text[]) s});
$http->wait_for(q{SELECT count(*) FROM jobs_queue WHERE stage = 'up' AND status = 'completed'}, 40);
$http->wait_for(q{SELECT state FROM job_circuits WHERE stage = 'down'}, 'open');
$http->wait_for(q{SELECT count(*) FROM jobs_queue WHERE status = 'running'}, 0);
is(circuit('hook', 'down') . ' ' . attempts('hook', 'down'), 'open|3 3', 'failed requests open a circuit, and no other is sent');
is($server->count('/status/503'), 3, 'the server has seen as many');
is(trips_logged('hook', 'down'), 1, 'that is logged once');
end_cooldown('hook');
$http->wait_for(q{SELECT failures FROM job_circuits WHERE stage = 'down'}, 4);
is($server->count('/status/503'), 4, 'one request tries');
$http->sql(q{UPDATE jobs_queue SET payload = '{"code": 200}' WHERE stage = 'down'});
end_cooldown('hook');
$http->wait_for(q{SELECT count(*) FROM jobs_queue_live WHERE job_type = 'hook'}, 0);
is(attempts('hook', 'down'), 44, 'the rest is sent when one has succeeded');

# Many at once: what is under way may end, and nothing begins.
$http->add('wide', '/status/503', { max_concurrency => 10 }, { max_attempts => 1000, breaker_threshold => 3, breaker_cooldown => '1 hour' });
$http->enqueue_many('wide', 300);
$http->wait_for(q{SELECT state FROM job_circuits WHERE job_type = 'wide'}, 'open');
$http->wait_for(q{SELECT count(*) FROM jobs_queue WHERE status = 'running'}, 0);
cmp_ok(attempts('wide', ''), '<=', 20, 'with ten places few more than three requests fail');
is($http->sql(q{SELECT count(*) FROM queue_events WHERE job_type = 'wide'}), 1, 'they open it once');
$http->sql(q{DELETE FROM jobs_queue; DELETE FROM job_circuits});

# ---- outside workers ----

$http->sql(q{INSERT INTO job_types (job_type, max_attempts, backoff, breaker_threshold, breaker_cooldown) VALUES ('out', 1000, '{"delay": "0 s"}', 3, '1 hour')});
$http->sql(q{SELECT count(enqueue_job('out', stage => 's')) FROM generate_series(1, 10)});
my $held = $http->sql(qq{SELECT string_agg(id::text, ',') FROM claim_jobs('$worker', '{out}', 3)});
$http->sql(qq{SELECT resolve_job(id, '$worker', false, 'down') FROM unnest('{$held}'::bigint[]) id});
is($http->sql(qq{SELECT count(*) FROM claim_jobs('$worker', '{out}', 3)}), 0, 'it is open at once, before anybody has written it down');
$http->wait_for(q{SELECT count(*) FROM job_circuits WHERE job_type = 'out'}, 1);

# Who sleeps is woken when it closes, and at the end of its cooldown.
my $sleeper = JobQueue::Session->new($node);
my $is_asleep = q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND query LIKE 'CALL wait_for_jobs%'};
$sleeper->send(q{CALL wait_for_jobs('{out}', '10 minutes')});
$http->wait_for($is_asleep, 1);
$http->sql(q{SELECT close_circuit('out')});
$sleeper->finish;
is($sleeper->{output}, 't', 'a sleeper is woken when a circuit closes');
$http->sql(q{SELECT open_circuit('out', 's', '200 milliseconds')});
$sleeper->query(q{CALL wait_for_jobs('{out}', '10 minutes')});
is($sleeper->{output}, 't', 'and when a cooldown is over');
$http->sql(q{SELECT close_circuit('out')});

# A hundred thousand jobs behind an open circuit cost others nothing.
$http->sql(q{SELECT open_circuit('out', 's')});
$http->sql(q{INSERT INTO jobs_queue (job_type, stage) SELECT 'out', 's' FROM generate_series(1, 100000)});
$http->sql(q{SELECT count(enqueue_job('other')) FROM generate_series(1, 100)});
$http->sql(qq{SELECT count(*) FROM claim_jobs('$worker', max_jobs => 1)});
my $refills = $http->sql('SELECT refills FROM job_claim_stats');
is($http->sql(qq{SELECT count(c.id) FROM generate_series(1, 50), LATERAL claim_jobs('$worker', max_jobs => 1 + generate_series % 2) c WHERE c.job_type = 'other'}), 75, 'others are claimed');
cmp_ok($http->sql('SELECT refills FROM job_claim_stats') - $refills, '<=', 5, 'and nothing of those is read');
$http->sql('SELECT close_circuit(job_type) FROM job_types');
$http->sql('TRUNCATE jobs_queue');

# A crash at a trip: it has a row and an event, or neither.
for my $try (1 .. 3)
{
	$http->sql(q{SELECT count(enqueue_job('out', stage => 'crash')) FROM generate_series(1, 10)});
	my $victim = JobQueue::Session->new($node);
	my $victim_pid = $victim->query('SELECT pg_backend_pid()');
	$held = $http->sql(qq{SELECT string_agg(id::text, ',') FROM claim_jobs('$worker', '{out}', 3)});
	$http->sql(qq{SELECT resolve_job(id, '$worker', false, 'down') FROM unnest('{$held}'::bigint[]) id});
	kill 'KILL', $victim_pid;
	$http->disconnect;
	undef $victim;
	wait_for_query($node, "SELECT count(*) FROM pg_stat_activity WHERE pid = $victim_pid", 0);
	$http->connect;
	my $circuits = $http->sql(q{SELECT count(*) FROM job_circuits WHERE stage = 'crash'});
	is($http->sql(q{SELECT count(*) FROM queue_events WHERE stage = 'crash' AND event = 'circuit_open'}), $circuits, "a row and an event, or neither ($circuits)");
	is($http->sql(qq{SELECT count(*) FROM claim_jobs('$worker', '{out}', 3)}), $circuits ? 0 : 3, 'which claims heed');
	$http->sql(q{SELECT close_circuit('out')});
	$http->sql(q{DELETE FROM jobs_queue; DELETE FROM queue_events});
}
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing else crashed or leaked');
$http->stop;

# ---- without shared memory ----

my $plain = PostgreSQL::Test::Cluster->new('plain');
$plain->init;
$plain->append_conf('postgresql.conf', 'fsync = off');
$plain->start;
$plain->safe_psql('postgres', 'CREATE EXTENSION jobqueue');
$plain->safe_psql('postgres', q{
	INSERT INTO job_types (job_type, max_attempts, backoff, breaker_threshold, breaker_cooldown) VALUES ('out', 1000, '{"delay": "0 s"}', 3, '1 hour');
	SELECT count(enqueue_job('out', stage => s)) FROM generate_series(1, 20), unnest('{a,b}'::text[]) s;
});
my ($one, $two) = map { JobQueue::Session->new($plain) } 1 .. 2;

sub claim
{
	my ($session, $count, $stage) = @_;

	return split /\n/, $session->query("SELECT id FROM claim_jobs('$worker', '{out}', $count)" . ($stage ? " WHERE stage = '$stage'" : ''));
}

sub resolve
{
	my ($session, $id, $success) = @_;

	return $session->query("SELECT resolve_job($id, '$worker', $success, 'down')");
}

my $state = q{SELECT state, failures FROM job_circuit_status WHERE stage = 'a'};
$one->query(q{UPDATE jobs_queue SET scheduled_at = scheduled_at + interval '1 day' WHERE stage = 'b'});
my @jobs = claim($one, 10);
resolve($one, $jobs[0], 'false');
is($one->query($state), 'closed|1', 'a failure is counted in a row');
resolve($two, $jobs[1], 'true');
is($one->query($state), '', 'a success starts anew');
$one->query('BEGIN');
resolve($one, $jobs[2], 'false');
resolve($two, $jobs[3], 'false');
$one->query('COMMIT');
is($two->query($state), 'closed|1', 'nobody waits for who counts: what comes meanwhile is lost');
$one->query('BEGIN');
resolve($one, $jobs[4], 'false');
$one->query('ROLLBACK');
is($one->query($state), 'closed|1', 'what is undone does not count');
resolve($one, $jobs[4], 'false');
resolve($two, $jobs[5], 'false');
is($one->query($state), 'open|3', 'the third one opens the circuit');
is(scalar(claim($two, 5)), 0, 'nothing is claimed');
is($two->query(q{SELECT event, data FROM queue_events}), 'circuit_open|{"failures": 3, "cooldown_ms": 3600000}', 'that is an event');
is($two->query(q{SELECT last_error, cardinality(failed_jobs) FROM job_circuits}), 'down|3', 'with its error and jobs');
is(scalar(() = slurp_file($plain->logfile) =~ /LOG:  event=jobqueue\.worker\.circuit_open .* jobType=out stage=a .*cause=failures failures=3 cooldownMs=3600000/g), 1, 'and a line in the log');
resolve($one, $jobs[6], 'true');
is($one->query($state), 'open|3', 'a job that was running does not close it');
$one->query('UPDATE job_circuits SET retry_at = now()');
$one->query('BEGIN');
my @probe = claim($one, 5);
is(scalar(@probe), 1, 'one job is let through');
is(scalar(claim($two, 5)), 0, 'and no other');
$one->query('COMMIT');
is(scalar(claim($two, 5)), 0, 'while it is under way');
resolve($one, $probe[0], 'true');
is($one->query($state), '', 'it closes the circuit');
is(scalar(claim($two, 5)), 5, 'for all');
$_->quit for $one, $two;
$plain->stop;

done_testing();
