# Whether the gift cards do what their system is asked for: requirements G1 to G24.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../../test/lib";
use IPC::Run ();
use JobQueue::Example;
use JSON::PP qw(decode_json);
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;
use Time::HiRes qw(sleep);

my $cards = JobQueue::Example->new('gift-card', ids => [ map { "G$_" } 1 .. 24 ],
	variables => { square_url => '/ok/square', alerts_url => '/ok/alerts' });
my ($server, $node) = @{$cards}{qw(server node)};
my $webhook = $cards->session('shop_webhook');
my $operator = $cards->session('giftcards');
$operator->query('SET search_path = giftcards, public');

# A worker that the test plays, for what is about single claims.
my $player = $cards->session('giftcard_worker');
my $uuid = '00000000-0000-4000-8000-000000000001';
sub claim { return $player->query("SELECT id || ' ' || stage || ' ' || claim_no FROM claim_next_job('$uuid', 'giftcard')") }

sub fail_claim
{
	my ($claim, $error) = @_;

	my ($id, undef, $claim_no) = split / /, $claim;
	return $player->query("SELECT resolve_job($id, '$uuid', false, '$error', $claim_no)");
}

sub order { return $webhook->query("SELECT giftcards.receive_order('$_[0]', 5000, 'ann\@example.org')") }
sub column { my ($id, $columns) = @_; return $cards->sql("SELECT $columns FROM jobs_queue WHERE id = $id") }
sub make_due { return $operator->query(q{UPDATE giftcard_jobs SET scheduled_at = now() WHERE status = 'queued'}) }
sub stage_at { my ($stage, $path) = @_; $operator->query(sprintf q{UPDATE stages SET url = '%s' WHERE stage = '%s'}, $server->url($path), $stage); return }

# The worker that is shipped: its process, and the events that it printed.
my %worker;
sub start_worker
{
	my ($name, $poll_ms) = @_;

	local $ENV{PGHOST} = $node->host;
	local $ENV{PGPORT} = $node->port;
	local $ENV{PGDATABASE} = 'postgres';
	local $ENV{PGUSER} = 'giftcard_worker';
	local $ENV{GIFTCARD_WORKER_ID} = $name;
	local $ENV{GIFTCARD_WORKER_POLL_MS} = $poll_ms // 200;
	%worker = (said => '', log => '');
	$worker{run} = IPC::Run::start([ $^X, "$FindBin::RealBin/worker" ], 'init', sub { setpgrp 0, 0 }, '>', \$worker{said}, '2>', \$worker{log});
	return;
}

sub signal_worker { my ($signal) = @_; $worker{run}->signal($signal); return }

sub end_worker
{
	$worker{run}->finish;
	return $worker{run}->result(0);
}
sub events { $worker{run}->pump_nb if $worker{run}->pumpable; return map { decode_json($_) } grep { /\A\{.*\}\z/ } split /\n/, $worker{said} }
sub wait_for_status { my ($id, $status) = @_; $cards->wait_for("SELECT status FROM jobs_queue WHERE id = $id", $status); return }

# The lines of the server's log that are events, those of one order if wanted.
sub log_events
{
	my ($order) = @_;

	my @events = map { /LOG:  (\{"event":.*\})/ ? decode_json($1) : () } split /\n/, slurp_file($node->logfile);
	return grep { !defined $order || ($_->{correlationId} // '') eq $order } @events;
}

# What people were told.
sub told { return grep { /$_[0]/ } map { decode_json($_->{body})->{text} } $server->requests('/ok/alerts') }
sub wait_until_told { my ($what) = @_; $cards->wait_until("alert: $what", sub { scalar(() = told($what)) }); return scalar(() = told($what)) }

# ---- an order ----

$webhook->query('BEGIN');
order('order-0');
$webhook->query('ROLLBACK');
is($cards->sql('SELECT count(*) FROM jobs_queue'), 0, 'G1: an order that is rolled back leaves no job');
my $first = order('order-1');
is(column($first, q{status || ' ' || stage || ' ' || correlation_id || ' ' || (payload->>'amount_cents')}), 'queued customer order-1 5000',
	'G1: an order and its job commit together');
is(order('order-1'), '', 'G1: a webhook that is delivered twice makes one');
my $inserted = $operator->query(q{INSERT INTO giftcard_jobs (correlation_id, payload) VALUES ('order-2', '{"order": "order-2"}') RETURNING id});
is(column($inserted, q{job_type || ' ' || status || ' ' || stage}), 'giftcard queued customer', 'G1: so does a plain INSERT');
is(join(' ', map { "$_->{event} $_->{stage}" } log_events('order-1')), 'giftcard.job.enqueued customer', 'G8: which is told in the log, once');
is($operator->query(q{SELECT count(*) FROM giftcard_events WHERE event->>'event' = 'giftcard.job.enqueued'}), 2, 'G8: as does the list of events');

# ---- the worker, with a service that is down for a while ----

stage_at('card', '/flaky/1');
start_worker('till 1');
$cards->wait_for("SELECT count(*) FROM job_runs WHERE job_id IN ($first, $inserted)", 2);
is(column($first, q{status || ' ' || stage || ' ' || attempts || ' ' || last_error || ' ' || (progress ? 'customer')}),
	'queued card 1 card: HTTP status 503 true', 'G2: what failed is queued again, at the stage that failed, with what was achieved');
make_due();
wait_for_status($_, 'completed') for $first, $inserted;
is($server->count('/ok/square/customer') . ' ' . $server->count('/flaky/1'), '2 4', 'G2: the retry resumed there');
is($operator->query(q{SELECT string_agg(stage || ' ' || status || coalesce(' ' || error, ''), ', ' ORDER BY attempt) FROM giftcard_runs WHERE correlation_id = 'order-1'}),
	'card failed card: HTTP status 503, message completed', 'G22: every attempt with stage and error, from the correlation id');
is($operator->query(q{SELECT DISTINCT worker FROM giftcard_runs}), 'till 1', 'G4: by a worker with a name');
is($cards->sql(q{SELECT count(*) FROM job_workers WHERE name = 'till 1' AND worker_id IS NOT NULL}), 1, 'G4: beside its uuid');

$cards->wait_until('the worker has said all', sub { scalar(grep { $_->{event} eq 'giftcard.worker.job.completed' } events()) == 2 });
my @of_order = grep { ($_->{correlationId} // '') eq 'order-1' } events();
is(join(', ', map { "$_->{event} $_->{stage}" } @of_order), join(', ', map { "giftcard.worker.$_" } 'job.start customer', 'job.failed card', 'job.start card', 'job.completed message'),
	'G9: each attempt has a start and an end');
is(scalar(grep { join(' ', grep { !/error/ } sort keys %{$_}) ne 'correlationId event stage workerId' } events()), 0, 'G3: one line of JSON each, with the same four keys');
is($operator->query(q{SELECT string_agg(event->>'event', ' ' ORDER BY at) FROM giftcard_events WHERE event->>'correlationId' = 'order-1' AND event->>'workerId' = 'till 1'}),
	join(' ', map { $_->{event} } @of_order), 'G3, G9: and they can be queried');

is($cards->sql('SHOW jobqueue.poll_interval'), '2s', 'G5: the poll interval is a setting, and of the worker a variable; a commit wakes it before');

$cards->sql('SELECT _evaluate_alerts()');
is($cards->sql('SELECT count(*) FROM alerts'), 0, 'G12: two failures are no alert');

# ---- stopping ----

stage_at('card', '/ok/square/card');
stage_at('message', '/gate/stop');
my $last = order('order-3');
$cards->wait_for_requests('/gate/stop', 1);
my $never = order('order-4');
signal_worker('TERM');
sleep 0.1;
is(column($last, 'status'), 'running', 'G7: on SIGTERM the worker goes on with its job');
$server->open_gate('stop');
is(end_worker(), 0, 'G7: then it exits');
is(column($last, 'status') . ' ' . column($never, q{status || ' ' || claim_no}), 'completed queued 0', 'G7: and takes no other');

start_worker('till 2');
wait_for_status($never, 'completed');
$operator->query(q{SELECT stop_worker(worker_id) FROM registered_workers WHERE name = 'till 2'});
is(end_worker(), 0, 'G7: a worker can also be told by SQL, from anywhere');

start_worker('till 3');
$cards->wait_for(q{SELECT count(*) FROM registered_workers WHERE name = 'till 3'}, 1);
$cards->sql('ALTER ROLE giftcard_worker NOLOGIN');
$cards->wait_until('the worker notices', sub { scalar(grep { $_->{event} eq 'giftcard.worker.loop_error' } events()) });
$cards->sql('ALTER ROLE giftcard_worker LOGIN');
my $after = order('order-5');
wait_for_status($after, 'completed');
like((grep { $_->{event} eq 'giftcard.worker.loop_error' } events())[0]{error}, qr/psql: status/, 'G11: faults of the poller have an event of their own, and are survived');
signal_worker('INT');
is(end_worker(), 0, 'G7: SIGINT does the same');

# ---- dead letters ----

# Without the breaker, for once: it would have stopped them.
$operator->query(q{UPDATE job_types SET breaker_threshold = NULL WHERE job_type = 'giftcard'});
my @dead = map { order("order-$_") } 6 .. 8;
while (my $claim = claim())
{
	fail_claim($claim, 'customer: HTTP status 503');
	make_due();
}
$operator->query(q{UPDATE job_types SET breaker_threshold = 3 WHERE job_type = 'giftcard'});
is($operator->query(q{SELECT DISTINCT status || ' ' || attempts FROM giftcard_jobs WHERE status <> 'completed'}), 'error 5', 'G15: after five attempts they are in status "error", in the same table');
is($operator->query(q{SELECT string_agg(id || ' ' || correlation_id || ' ' || stage || ' ' || attempts || ' ' || last_error || ' ' || (payload->>'order') || ' ' || status, ', ' ORDER BY updated_at DESC)
	FROM giftcard_jobs WHERE status = 'error'}),
	join(', ', map { "$dead[$_] order-" . ($_ + 6) . ' customer 5 customer: HTTP status 503 order-' . ($_ + 6) . ' error' } 2, 1, 0),
	'G16: newest first, with all that the runbook asks for');
like($cards->sql(q{SET enable_seqscan = off; EXPLAIN (COSTS OFF) SELECT id FROM jobs_queue WHERE status = 'error' ORDER BY updated_at DESC}), qr/Index Scan.*jobs_queue_done_status/,
	'G16: by an index');
is(wait_until_told('giftcard: .* failed within 5 minutes'), 1, 'G12: so many failures are told');
is(wait_until_told('giftcard: .* ended without success'), 1, 'G14: and dead letters');
$player->send(q{CALL wait_for_jobs('{giftcard}', '2 minutes')});
$operator->query("UPDATE giftcard_jobs SET status = 'queued', scheduled_at = now(), attempts = 0, last_error = NULL WHERE id = $dead[0]");
is($player->finish . " $player->{output}", '00000 t', 'G17: a plain UPDATE requeues, and wakes a worker');
is(column($dead[0], q{status || ' ' || attempts || ' ' || stage}), 'queued 0 customer', 'G17: with all attempts, at its stage');

# ---- by hand ----

$operator->query("UPDATE giftcard_jobs SET scheduled_at = now() + interval '1 hour' WHERE id = $dead[0]");
is(claim(), '', 'G20: a job is held back by UPDATE');
$operator->query("UPDATE giftcard_jobs SET scheduled_at = now() WHERE id = $dead[0]");
my $advanced = claim();
like($advanced, qr/^$dead[0] /, 'G20: and advanced');
fail_claim($advanced, 'customer: HTTP status 503');
is($operator->query("SELECT payload->>'order' FROM giftcard_jobs WHERE id = $dead[0]"), 'order-6', 'G21: its payload can be read');
is($operator->query(qq{SELECT complete_job($dead[0], result => '{"card": "by hand"}')}), 't', 'G21: and when the work is done by hand, it is completed');
$operator->query("UPDATE giftcard_jobs SET status = 'completed' WHERE id = $dead[1]");
make_due();
is(claim() . column($dead[0], 'status') . ' ' . column($dead[1], 'status'), 'completed completed', 'G21: by UPDATE, too, and nobody does it again');

# ---- circuits ----

sub circuits { return $operator->query(q{SELECT string_agg(stage || ' ' || state, ', ' ORDER BY stage) FROM job_circuit_status WHERE job_type = 'giftcard' AND state <> 'closed'}) }
sub job_at { my ($stage, $number) = @_; return $operator->query("INSERT INTO giftcard_jobs (stage, correlation_id) VALUES ('$stage', '$number') RETURNING id") }
my $queued_cards = q{FROM giftcard_jobs WHERE stage = 'card' AND status = 'queued'};
my $opened = q{FROM giftcard_events WHERE event->>'event' = 'giftcard.worker.circuit_open' AND event->>'stage' = 'card'};

job_at('card', "order-$_") for 11 .. 14;
fail_claim(claim(), 'card: HTTP status 503') for 1, 2;
is(circuits(), '', 'G18: two failures are not enough');
my ($good) = split / /, claim();
$player->query("SELECT complete_job($good, '$uuid')");
make_due();
fail_claim(claim(), 'card: HTTP status 503') for 1, 2;
is(circuits(), '', 'G18: and a success starts the count anew');
fail_claim(claim(), 'card: HTTP status 503');
is(circuits(), 'card open', 'G18: the third failure of a stage in a row opens its circuit');
is($operator->query(q{SELECT round(extract(epoch FROM retry_at - opened_at)) FROM job_circuit_status WHERE stage = 'card'}), 60, 'G6: for a minute');

make_due();
my $other = job_at('message', 'order-15');
my $before = $operator->query("SELECT count(*), sum(attempts) $queued_cards");
like(claim(), qr/^$other message /, 'G19: other stages go on');
$player->query("SELECT complete_job($other, '$uuid')");
is(claim(), '', 'G19: the jobs of this one stay where they are');
is($operator->query("SELECT count(*), sum(attempts) $queued_cards"), $before, 'G19: and no attempt is charged');
$cards->wait_for(q{SELECT count(*) > 0 FROM queue_events WHERE event = 'circuit_open'});
is($operator->query("SELECT count(*) $opened"), 1, 'G10: one event for it, under the name that dashboards know');
is($operator->query("SELECT event->>'cooldown_ms' $opened"), 60000, 'G10: with the cooldown');
is(wait_until_told('giftcard, stage card: its circuit has opened'), 1, 'G13: an open circuit is told');
my ($in_log) = grep { $_->{event} eq 'giftcard.worker.circuit_open' } log_events();
is("$in_log->{stage} $in_log->{cooldownMs}", 'card 60000', 'G3, G10: and in the log');

$operator->query(q{UPDATE job_circuits SET retry_at = now() WHERE stage = 'card'});
my $probe = claim();
like($probe, qr/ card /, 'G6: after the minute one job is let through');
is(claim(), '', 'G6: and no second one');
fail_claim($probe, 'card: HTTP status 503');
is(circuits(), 'card open', 'G6: which fails: another minute');

# ---- an incident ----

is($operator->query(q{SELECT open_circuit('giftcard', 'message', reason => 'Square is down until further notice')}), 't', 'G23: a circuit is left open');
is($operator->query(q{SELECT retry_at IS NULL FROM job_circuits WHERE stage = 'message'}), 't', 'G23: without an end');
job_at('message', 'order-16');
is(claim(), '', 'G23: nobody gets its jobs');
$operator->query(q{SELECT close_circuit('giftcard')});
my $waiting = $operator->query(q{SELECT count(*) FROM giftcard_jobs WHERE status IN ('queued', 'error')});
is($operator->query(q{SELECT requeue_jobs('giftcard', '{error}', error_like => '%HTTP status 503')}), 1, 'G23: afterwards all dead letters of it are requeued at once');
make_due();
start_worker('till 4', 1000);
$cards->wait_for(q{SELECT count(*) FROM jobs_queue_live WHERE job_type = 'giftcard'}, 0);
$cards->wait_until('the worker has said all', sub { scalar(grep { $_->{event} eq 'giftcard.worker.job.completed' } events()) == $waiting });
is($operator->query(q{SELECT count(*) FROM giftcard_runs WHERE worker = 'till 4' AND status = 'completed'}), $waiting, 'G23: and one can watch them complete');
is(circuits(), '', 'G23: with all circuits closed');
$cards->wait_for(q{SELECT count(*) FROM pg_stat_activity WHERE usename = 'giftcard_worker' AND state = 'active' AND query LIKE 'CALL%'}, 1);
kill INT => -$operator->query(q{SELECT info->>'pid' FROM registered_workers WHERE name = 'till 4'});
is(end_worker() . scalar(grep { $_->{event} eq 'giftcard.worker.loop_error' } events()), '00', 'G7: Ctrl-C ends it without a fault');

# ---- without a worker ----

sub sent { return join ' ', map { $_->{path} =~ s/.*\///r } $server->requests($_[0]) }
$cards->sql(q{UPDATE http_endpoints SET url = replace(url, '/ok/square/', '/flaky/1/503/') WHERE name = 'square'});
$operator->query(q{SELECT enqueue_stages('order-20', '{"order": "order-20"}')});
for my $n (1 .. 3)
{
	$cards->wait_for(q{SELECT count(*) FROM job_runs WHERE job_type = 'giftcard-http' AND status = 'failed'}, $n);
	is($cards->sql(q{SELECT string_agg(status, ' ' ORDER BY id) FROM jobs_queue WHERE job_type = 'giftcard-http'}),
		join(' ', ('completed') x ($n - 1), 'queued', ('blocked') x (3 - $n)), "G2: in the server, stage $n fails, and the next waits");
	$cards->sql(q{UPDATE jobs_queue_live SET scheduled_at = now() WHERE job_type = 'giftcard-http' AND status = 'queued'});
}
$cards->wait_until_done(q{job_type = 'giftcard-http'});
is(sent('/flaky/1/503/'), 'customer customer card card message message', 'G2: each stage is repeated by itself');
is($operator->query(q{SELECT string_agg(DISTINCT keys, '; ') FROM giftcard_events, LATERAL (SELECT string_agg(k, ' ' ORDER BY k) FROM jsonb_object_keys(event - 'error') k) k(keys)
	WHERE event->>'correlationId' = 'order-20'}), 'correlationId event stage workerId', 'G3: the events of the server have the same keys');
is($operator->query(q{SELECT string_agg(split_part(event->>'event', '.job.', 2), ' ' ORDER BY at) FROM giftcard_events WHERE event->>'correlationId' = 'order-20' AND event->>'stage' = 'card'}),
	'enqueued start failed start completed', 'G9: each attempt has a start and an end');
my @logged = grep { $_->{stage} eq 'customer' } log_events('order-20');
is(join(' ', map { $_->{event} =~ s/giftcard\.//r } @logged), 'job.enqueued worker.job.start worker.job.failed worker.job.start worker.job.completed', 'G3, G8, G9: in the log, too');
is(scalar(grep { exists $_->{correlationId} && exists $_->{stage} && exists $_->{workerId} } @logged), 5, 'G3: with the same keys');

# A fault of the scheduler, which is none of a job.
$cards->sql('ALTER TABLE job_types RENAME COLUMN notify TO hidden');
$cards->wait_until('the scheduler stumbles', sub { scalar(grep { $_->{event} eq 'giftcard.worker.loop_error' } log_events()) });
$cards->sql('ALTER TABLE job_types RENAME COLUMN hidden TO notify');
my ($fault) = grep { $_->{event} eq 'giftcard.worker.loop_error' } log_events();
like($fault->{error}, qr/notify/, 'G11: faults of the workers of the server are events, too');
$cards->wait_for(q{SELECT count(*) FROM job_workers WHERE kind = 'scheduler'}, 1);

# An outage of the cards.
sub http_job { my ($stage, $status) = @_; return $operator->query(qq{SELECT enqueue_job('giftcard-http', '{"status": $status}', stage => '$stage')}) }
my $http_circuit = q{SELECT state FROM job_circuit_status WHERE job_type = 'giftcard-http' AND stage = 'card' AND state <> 'closed'};
$cards->sql(sprintf q{UPDATE http_endpoints SET url = '%s' WHERE name = 'square'}, $server->url('/status/{{payload.status}}/{{job.stage}}'));
http_job('card', 503) for 1 .. 5;
$cards->wait_for($http_circuit, 'open');
$cards->wait_for(q{SELECT count(*) FROM jobs_queue_live WHERE job_type = 'giftcard-http' AND status = 'running'}, 0);
my $sent = $server->count('/status/503');
$cards->sql(q{UPDATE jobs_queue_live SET scheduled_at = now() WHERE job_type = 'giftcard-http'});
wait_for_status(http_job('message', 200), 'completed');
is($server->count('/status/503') . ' ' . $cards->sql($http_circuit), "$sent open", 'G18, G19: the server, too, leaves a stage alone that fails, and goes on with the others');
$cards->sql(sprintf q{UPDATE http_endpoints SET url = '%s' WHERE name = 'square'}, $server->url('/ok/{{job.stage}}'));
$operator->query(q{SELECT close_circuit('giftcard-http', 'card')});
$cards->wait_until_done(q{job_type = 'giftcard-http'});
is($server->count('/ok/card'), 5, 'G23: until it is told to go on');

$cards->conclude;
