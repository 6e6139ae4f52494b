# Alerts where the server works by itself: who is told, how often and in which
# order, also when the sink is down, when everything fails at once, and when the
# server crashes in between.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use Digest::SHA qw(hmac_sha256_base64);
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Http qw(set_and_reload);
use JobQueue::HttpJobs;
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $http = JobQueue::HttpJobs->new('main', conf => <<'CONF');
jobqueue.alert_interval = 200ms
jobqueue.max_executors = 1
autovacuum = off
CONF
my ($node, $server) = @{$http}{qw(node server)};
my $json = JSON::PP->new->utf8;

sub messages { return map { $json->decode($_->{body}) } $server->requests($_[0]) }
sub texts { return map { $_->{text} } messages($_[0]) }

# Waits for so many requests, and makes sure that there are no more of them
# once the scheduler has looked again.
sub is_told
{
	my ($path, $count, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$http->wait_for_requests($path, $count);
	settle();
	is($server->count($path), $count, $name) or diag explain [ messages($path) ];
	return;
}

# Until an evaluation that has begun after now is over, and messages are sent.
sub settle
{
	my $cycles = sub { $http->sql(q{SELECT last_cycle_at FROM _server_workers() WHERE kind = 'scheduler'}) };
	for (1 .. 5)
	{
		my $was = $cycles->();
		$http->wait_until('the scheduler looks again', sub { $cycles->() ne $was });
	}
	$http->wait_until_done(q{starts_with(job_type, 'alert:')});
	return;
}

# Jobs of a type, which fail while its row is in table "down".
sub add_type
{
	my ($type, $columns) = @_;

	$http->_insert('job_types', job_type => $type, runner => 'sql', max_attempts => 1,
		command => "SELECT 1 / (1 - (SELECT count(*) FROM down WHERE type = '$type'))", %{ $columns // {} });
	return;
}

sub run_jobs
{
	my ($type, $count) = @_;

	$http->sql("SELECT count(enqueue_job('$type')) FROM generate_series(1, $count)");
	$http->wait_until_done("job_type = '$type'");
	return;
}

$http->sql('CREATE TABLE down (type text); GRANT ALL ON down TO PUBLIC');
add_type($_) for qw(pay sync);

# ---- nobody is told of anything without a rule ----

$http->sql(q{INSERT INTO down VALUES ('pay')});
run_jobs('pay', 3);
settle();
is($http->sql('SELECT count(*) FROM alerts'), 0, 'without rules nothing happens');

# ---- Slack, by a URL that is a secret, and a webhook that is signed ----

my $secret_url = $server->url('/ok/slack/T0-S3CR3T');
$http->sql("SELECT set_secret('slack_url', '$secret_url')");
$http->sql(q{SELECT set_secret('hook_key', 'a key of some length')});
$http->sql(q{INSERT INTO http_endpoints (name, url) VALUES ('slack', '{{secret.slack_url}}')});
$http->add_endpoint('hook', '/ok/hook', { signing_secret => 'hook_key' });
$http->sql(q{INSERT INTO alert_sinks (name, kind, endpoint, channel) VALUES ('slack', 'slack', 'slack', '#payments-alerts')});
$http->sql(q{INSERT INTO alert_sinks (name, kind, endpoint, include_errors) VALUES ('hook', 'webhook', 'hook', true)});
$http->sql(q{INSERT INTO alert_sinks (name, kind) VALUES ('log', 'log')});
$http->sql(q{SELECT test_alert_sink('slack')});
is_told('/ok/slack', 1, 'a test reaches Slack');
my ($test) = messages('/ok/slack');
is("$test->{channel}: $test->{text}", '#payments-alerts: TEST test_alert_sink: this is a test of alert sink slack', 'with channel and text');

# The three failures from before count: there is one more to come.
$http->sql(q{INSERT INTO alert_rules (name, kind, job_type, threshold, period, severity, sinks, resolve_after, renotify)
	VALUES ('payments', 'failures', 'pay', 3, '5 minutes', 'critical', '{slack,hook,log}', '0', NULL)});
settle();
is($server->count('/ok/slack'), 1, 'three failures within five minutes are not more than three');
run_jobs('pay', 1);
is_told('/ok/slack', 2, 'the fourth is told to Slack');
is_told('/ok/hook', 1, 'and to the webhook, once');
like((texts('/ok/slack'))[1], qr/^FIRING \[critical\] payments: pay: 4 attempts have failed within 5 minutes$/, 'in words');
my ($request) = $server->requests('/ok/hook');
my $body = $json->decode($request->{body});
is_deeply([ @{$body}{qw(event rule kind severity job_type value threshold period_seconds)} ],
	[ 'alert.firing', 'payments', 'failures', 'critical', 'pay', 4, 3, 300 ], 'and in JSON');
like($body->{error}, qr/^division by zero \(22012\)$/, 'with the error, for who is to see it');
unlike((texts('/ok/slack'))[1] . $json->encode((messages('/ok/slack'))[1]), qr/division/, 'others do not see it');
my %header = %{ $request->{headers} };
my $signature = hmac_sha256_base64("$header{'webhook-id'}.$header{'webhook-timestamp'}.$request->{body}", 'a key of some length');
$signature .= '=' while length($signature) % 4;
is($header{'webhook-signature'}, "v1,$signature", 'signed as other requests are');
like(slurp_file($node->logfile), qr/LOG:  jobqueue alert: FIRING \[critical\] payments: pay: 4 attempts/, 'and a line in the log');
run_jobs('pay', 5);
settle();
is($server->count('/ok/slack'), 2, 'an alert that lasts is not sent again before its time');
my $said = $http->sql(q{SELECT string_agg(x::text, ' ') FROM (SELECT to_jsonb(r) FROM job_runs r UNION ALL SELECT to_jsonb(q) FROM jobs_queue q UNION ALL SELECT to_jsonb(a) FROM alerts a) t (x)});
unlike($said, qr/S3CR3T/, 'the URL is in no table that people read');
unlike(slurp_file($node->logfile) =~ s/.*set_secret.*//gr, qr/S3CR3T/, 'nor in the log');

# ---- again and again, and its end ----

$http->sql(q{UPDATE alert_rules SET enabled = false WHERE name = 'payments'});
is_told('/ok/hook', 2, 'the end of a rule ends its alerts');
is((messages('/ok/hook'))[1]{resolve_reason}, 'the rule was deleted, disabled or changed', 'which is said');
$http->sql(q{INSERT INTO alert_rules (name, kind, job_type, threshold, sinks, resolve_after, renotify)
	VALUES ('in a row', 'consecutive_failures', 'pay', 3, '{hook}', '0', '1 second')});
$http->wait_for_requests('/ok/hook', 5);
$http->sql(q{DELETE FROM down});
run_jobs('pay', 1);
$http->wait_for(q{SELECT count(*) FROM alerts WHERE resolved_at IS NULL}, 0);
settle();
my @states = map { $_->{state} } messages('/ok/hook');
like("@states", qr/^firing resolved(?: firing){3,} resolved$/, 'an alert that lasts is sent each time, and its end once');
my @numbers = map { $_->{notifications} } messages('/ok/hook');
is_deeply([ @numbers[ 2 .. $#numbers - 1 ] ], [ 1 .. @numbers - 3 ], 'with a number');
$http->sql(q{UPDATE alert_rules SET renotify = NULL, enabled = false});

# ---- a sink that is down ----

$http->add_endpoint('flaky', '/flaky/3', {});
$http->sql(q{INSERT INTO alert_sinks (name, kind, endpoint) VALUES ('flaky', 'webhook', 'flaky')});
$http->sql(q{UPDATE job_types SET backoff = '{"delay": "700 ms"}' WHERE job_type = 'alert:flaky'});
$http->sql(q{INSERT INTO alert_rules (name, kind, job_type, threshold, sinks, resolve_after) VALUES ('down', 'consecutive_failures', 'sync', 1, '{flaky}', '0')});
$http->sql(q{INSERT INTO down VALUES ('sync')});
run_jobs('sync', 1);
$http->wait_for_requests('/flaky', 1);
$http->sql(q{DELETE FROM down});
run_jobs('sync', 1);
$http->wait_for(q{SELECT count(*) FROM alerts WHERE rule = 'down' AND resolved_at IS NOT NULL}, 1);
settle();
@states = map { $_->{state} } messages('/flaky');
like("@states", qr/^(?:firing ){4}(?:resolved ?)+$/, 'the end of an alert waits for its beginning');
is($http->sql(q{SELECT count(*) FROM alerts WHERE job_type LIKE 'alert:%'}), 0, 'and nobody is told of the failures of messages');

# ---- one that refuses ----

$http->add_endpoint('refusing', '/status/404', {});
$http->sql(q{INSERT INTO alert_sinks (name, kind, endpoint) VALUES ('refusing', 'webhook', 'refusing')});
$http->sql(q{INSERT INTO alert_rules (name, kind, threshold, sinks) VALUES ('any', 'dead_letters', 0, '{hook}'), ('endpoints', 'endpoint_down', 1, '{hook}')});
$http->sql(q{SELECT test_alert_sink('refusing')});
$http->wait_until('the log says so', sub { slurp_file($node->logfile) =~ /WARNING:  job \d+ of type "alert:refusing", a message to an alert sink, has failed: HTTP status 404/ });
settle();
is($http->sql(q{SELECT string_agg(DISTINCT rule || ' ' || job_type || subject, ', ') FROM alerts WHERE resolved_at IS NULL}), 'any pay, any sync', 'a message that fails for good is a line in the log and no alert');

# ---- an endpoint, a circuit, a worker of the server ----

$http->add('shop', '/status/500', {}, { max_attempts => 2, breaker_threshold => 2, breaker_cooldown => '1 hour' });
$http->sql(q{INSERT INTO alert_rules (name, kind, sinks) VALUES ('circuit', 'circuit_open', '{hook}')});
$http->enqueue('shop');
$http->wait_for(q{SELECT count(*) FROM alerts WHERE rule IN ('endpoints', 'circuit')}, 2);
like($http->sql(q{SELECT string_agg(rule || ': ' || summary, ', ' ORDER BY rule) FROM alerts WHERE rule IN ('endpoints', 'circuit')}),
	qr/^circuit: shop: its circuit has opened, endpoints: endpoint shop: [12] requests in a row have failed$/, 'circuits and endpoints are told of');
$http->sql(q{INSERT INTO alert_rules (name, kind, period, sinks) VALUES ('workers', 'worker_error', '1 hour', '{hook}')});
$http->sql(q{CREATE ROLE stranger; CREATE SCHEMA strange AUTHORIZATION stranger; GRANT TRIGGER ON jobs_queue_live TO stranger; GRANT USAGE ON SCHEMA strange TO PUBLIC; SET ROLE stranger;
	CREATE FUNCTION strange.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER strange BEFORE INSERT ON public.jobs_queue_live FOR EACH ROW EXECUTE FUNCTION strange.f(); RESET ROLE});
$http->wait_for(q{SELECT count(*) > 0 FROM _worker_troubles() WHERE kind = 'scheduler' AND trouble = 'error'});
$http->sql(q{DROP TRIGGER strange ON jobs_queue_live});
$http->wait_for(q{SELECT count(*) > 0 FROM alerts WHERE rule = 'workers' AND subject = 'scheduler'});
pass('and errors of workers');

# ---- a storm ----

$http->sql(q{DELETE FROM alert_rules; DELETE FROM alerts; UPDATE job_circuits SET state = 'closed'; DELETE FROM jobs_queue WHERE job_type = 'shop'});
$http->add_endpoint('storm', '/ok/storm', {});
$http->sql(q{INSERT INTO alert_sinks (name, kind, endpoint) VALUES ('storm', 'webhook', 'storm')});
$http->sql(q{DELETE FROM jobs_queue WHERE status IN ('failed', 'error')});
$http->sql(q{INSERT INTO alert_rules (name, kind, threshold, sinks) VALUES ('storm', 'dead_letters', 0, '{storm}')});
$http->sql(q{INSERT INTO jobs_queue (job_type, status) SELECT 'storm ' || n, 'failed' FROM generate_series(1, 300) n});
is_told('/ok/storm', 1, 'three hundred alerts are one message');
is(join(' ', @{ (messages('/ok/storm'))[0] }{qw(event count firing)}, scalar @{ (messages('/ok/storm'))[0]{alerts} }), 'alert.digest 300 300 20', 'that tells of twenty of them');

$http->sql(q{INSERT INTO alert_sinks (name, kind, channel) VALUES ('bus', 'notify', 'alerts')});
my $heard = $node->safe_psql('postgres', q{LISTEN alerts; SELECT test_alert_sink('bus') IS NULL; UPDATE alert_rules SET sinks = '{bus}', severity = 'critical';
	DELETE FROM alerts; SELECT _evaluate_alerts()});
like($heard, qr/Asynchronous notification "alerts" with payload "\{.*"event": "alert.test"/, 'NOTIFY says it');
like($heard, qr/Asynchronous notification "alerts" with payload "\{"event": "alert.digest", "truncated": true\}"/, 'or that there is more than fits');

# ---- a crash ----

$http->sql(q{DELETE FROM alert_rules});
settle();
$http->sql(q{INSERT INTO alert_rules (name, kind, job_type, threshold, period, sinks, resolve_after)
	VALUES ('crash', 'consecutive_failures', 'pay', 3, NULL, '{storm}', '0'), ('window', 'failures', 'sync', 0, '1 hour', '{storm}', '0')});
$http->sql(q{INSERT INTO down VALUES ('pay'), ('sync')});
run_jobs($_, 3) for qw(pay sync);
$http->wait_for(q{SELECT count(*) FROM alerts WHERE resolved_at IS NULL}, 2);
settle();
my $before = $server->count('/ok/storm');
$http->disconnect;
$node->stop('immediate');
$node->start;
$http->connect;
$http->wait_for(q{SELECT count(*) FROM _server_workers() WHERE kind = 'scheduler' AND last_cycle_at IS NOT NULL}, 1);
settle();
is($http->sql(q{SELECT count(*) FROM alerts WHERE resolved_at IS NULL}), 2, 'a crash ends no alert');
is($server->count('/ok/storm'), $before, 'and sends none again');
run_jobs('pay', 1);
settle();
is($http->sql(q{SELECT count(*) FROM alerts WHERE resolved_at IS NULL}), 2, 'nor does a failure more');
is($http->sql(q{SELECT streak FROM _failure_counts() WHERE job_type = 'pay'}), 4, 'the failures in a row go on from there');
$http->sql(q{DELETE FROM down});
run_jobs('pay', 1);
$http->wait_for(q{SELECT string_agg(rule, ' ') FROM alerts WHERE resolved_at IS NULL}, 'window');
settle();
is($server->count('/ok/storm'), $before + 1, 'a success ends them');

# ---- two databases ----

$http->sql('CREATE DATABASE other');
$node->safe_psql('other', q{CREATE EXTENSION jobqueue; INSERT INTO alert_rules (name, kind, threshold) VALUES ('here', 'consecutive_failures', 2);
	INSERT INTO job_types (job_type, runner, command, max_attempts) VALUES ('pay', 'sql', 'SELECT 1/0', 1); SELECT enqueue_job('pay') FROM generate_series(1, 2)});
ok($node->poll_query_until('other', q{SELECT count(*) = 1 FROM alerts WHERE summary = 'pay: 2 attempts in a row have failed'}), 'each database has failures of its own');
settle();
is($http->sql(q{SELECT count(*) FROM alerts WHERE resolved_at IS NULL AND job_type = 'pay'}), 0, 'and nobody else is told');

# ---- off, and idle ----

$before = $server->count('/ok/storm');
set_and_reload($node, 'jobqueue.alerts_enabled', 'off');
$http->sql(q{INSERT INTO down VALUES ('pay')});
run_jobs('pay', 4);
settle();
is($http->sql(q{SELECT count(*) FROM _failure_counts() WHERE job_type = 'pay' AND streak > 0}) . $server->count('/ok/storm'), "0$before", 'while alerts are off nothing is counted or sent');
is($http->{session}->try('SELECT _evaluate_alerts()'), '55000', 'nor evaluated by hand');
set_and_reload($node, 'jobqueue.alerts_enabled', 'on');
run_jobs('pay', 3);
$http->wait_for(q{SELECT count(*) FROM alerts WHERE resolved_at IS NULL}, 2);
settle();

# Two alerts hold, and all rules are looked at five times a second.
$http->sql(q{SELECT install_default_alerts('{}'); DELETE FROM alert_rules WHERE kind IN ('no_consumer', 'backlog_age', 'dead_letters')});
settle();
$http->sql('VACUUM; CHECKPOINT');
my $position = sub { $http->sql('SELECT pg_current_wal_insert_lsn(), pg_snapshot_xmax(pg_current_snapshot())') };
my ($was, $still) = ($position->(), 0);
for (my $tries = 0; $still < 20 && $tries < 300; $tries++)
{
	my $now = $position->();
	$still = $now eq $was ? $still + 1 : 0;
	$was = $now;
	sleep 0.1;    # why: to see whether it stands still
}
is($still, 20, 'an idle server writes nothing, whatever alerts hold');

$http->stop('fast');
$server->stop;
unlike(slurp_file($node->logfile), qr/could not evaluate alert rules|could not send to alert sink|PANIC|TRAP|signal 11/, 'and the log has nothing that should not be there');
done_testing();
