# What is known of HTTP endpoints: counters right after outcomes that are known,
# and test_endpoint(): good and bad servers, and whoever goes away meanwhile.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::HttpServer;
use JobQueue::Session;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = JobQueue::HttpServer->start;
my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
jobqueue.http_allow_cidrs = '127.0.0.0/8'
jobqueue.http_allow_ports = '*'
jobqueue.max_endpoint_stats = 20
CONF

my %url = (
	good => $server->url('/text_size/100'),
	missing => $server->url('/status/404'),
	throttled => $server->url('/status/429'),
	broken => $server->url('/status/503'),
	moved => $server->url('/status/302'),
	shut => $server->url('/ok', 'shut'),
	rude => $server->url('/ok', 'rude'),
	mute => $server->url('/ok', 'mute'),
	plain => $server->url('/ok', 'chatty') =~ s/\Ahttp:/https:/r,
	silent => $server->url('/ok', 'mute') =~ s/\Ahttp:/https:/r,
	deaf => $server->url('/ok', 'deaf'),
	outside => 'http://192.0.2.1/',
	unused => $server->url('/ok'),
	slow => $server->url('/gate/slow'),
);
for my $name (sort keys %url)
{
	my $timeout = $name =~ /\A(?:mute|silent|deaf)\z/ ? '500 ms' : '1 min';
	$node->safe_psql('postgres', qq{
		INSERT INTO http_endpoints (name, url, timeout, max_concurrency) VALUES ('$name', '$url{$name}', '$timeout', 4);
		INSERT INTO job_types (job_type, runner, endpoint, max_attempts) VALUES ('to $name', 'http', '$name', 1);
	});
}

sub status
{
	my ($columns, $name) = @_;

	return $node->safe_psql('postgres', "SELECT $columns FROM endpoint_status WHERE name = '$name'");
}

sub deliver
{
	my ($name, $count) = @_;

	$node->safe_psql('postgres', "SELECT count(enqueue_job('to $name')) FROM generate_series(1, $count)");
	return;
}

# ---- counters ----

my @names = qw(good missing throttled broken moved shut rude mute plain silent deaf outside);
deliver($_, 3) for @names;
wait_for_query($node, q{SELECT count(*) FROM jobs_queue_live}, '0');
my %outcome = (
	good => '3|0|1.0000|0|200|',
	missing => '0|3|0.0000|3|404|status 404',
	throttled => '0|3|0.0000|3|429|status 429',
	broken => '0|3|0.0000|3|503|status 503',
	moved => '0|3|0.0000|3|302|status 302',
);
is(status('succeeded, failed, success_rate, consecutive_failures, last_status, last_error', $_), $outcome{$_}, "outcomes at $_")
  for sort keys %outcome;
my $classes = 'requests, status_2xx, status_3xx, status_4xx, status_429, status_5xx, timeouts, connection_errors, tls_errors, refused, other_errors';
my %class = (
	good => '3|3|0|0|0|0|0|0|0|0|0',
	missing => '3|0|0|3|0|0|0|0|0|0|0',
	throttled => '3|0|0|3|3|0|0|0|0|0|0',
	broken => '3|0|0|0|0|3|0|0|0|0|0',
	moved => '3|0|3|0|0|0|0|0|0|0|0',
	shut => '3|0|0|0|0|0|0|3|0|0|0',
	rude => '3|0|0|0|0|0|0|3|0|0|0',
	mute => '3|0|0|0|0|0|3|0|0|0|0',
	plain => '3|0|0|0|0|0|0|0|3|0|0',
	silent => '3|0|0|0|0|0|3|0|0|0|0',
	deaf => '3|0|0|0|0|0|3|0|0|0|0',
	outside => '3|0|0|0|0|0|0|0|0|3|0',
	unused => '0|0|0|0|0|0|0|0|0|0|0',
);
is(status($classes, $_), $class{$_}, "classes at $_") for sort keys %class;
is(status('last_status IS NULL, last_error, last_success_at IS NULL, last_failure_at IS NULL', 'shut'), 't|could not connect|t|f', 'no answer has a reason and no status');
is(status('last_success_at IS NULL, last_failure_at IS NULL', 'good'), 'f|t', 'and a success none of a failure');
is(status('in_flight, max_concurrency, bytes, aborted', 'good'), '0|4|300|0', 'bytes of responses, and nothing is in flight');
is(status(q{(SELECT sum((b ->> 'requests')::integer) FROM jsonb_array_elements(latency_histogram) b), p50_ms <= p95_ms AND p95_ms <= p99_ms, avg_ms > 0}, 'good'),
	'3|t|t', 'each time is in the histogram');
is(status('p50_ms BETWEEN 450 AND 10000', 'mute'), 't', 'a timeout took its time');
is(status('avg_ms, p50_ms, latency_histogram', 'unused'), '||[]', 'of an endpoint that was never used nothing is known');
is(status('count(*)', 'nobody'), '0', 'what is no endpoint has no row');

# A success ends a row of failures.
$node->safe_psql('postgres', "UPDATE http_endpoints SET url = '$url{good}' WHERE name = 'broken'");
deliver('broken', 1);
wait_for_query($node, q{SELECT count(*) FROM jobs_queue_live}, '0');
is(status('succeeded, failed, success_rate, consecutive_failures, last_status, last_error', 'broken'), '1|3|0.2500|0|200|status 503',
	'a success ends the row of failures');

# Jobs with their own URLs are counted by host, without path and query.
$node->safe_psql('postgres', qq{SELECT enqueue_http('$url{good}?token=hunter2', '{}')});
wait_for_query($node, q{SELECT count(*) FROM jobs_queue_live}, '0');
my $origin = 'http://127.0.0.1:' . $server->port;
is($node->safe_psql('postgres', q{SELECT name, owner, enabled, requests, succeeded FROM endpoint_status WHERE kind = 'host'}),
	"$origin|||1|1", 'a host has a row of its own');
is($node->safe_psql('postgres', q{SELECT count(*) FROM endpoint_status s WHERE s::text LIKE '%hunter2%' OR s::text LIKE '%text_size%'}), '0', 'and no path');

# What is in flight is seen, and stays when the rest is forgotten.
deliver('slow', 2);
wait_for_query($node, q{SELECT in_flight FROM endpoint_status WHERE name = 'slow'}, '2');
is($node->safe_psql('postgres', q{SELECT reset_endpoint_stats('slow'), reset_endpoint_stats('unused')}), '1|0', 'counters are set back');
is(status('in_flight, requests, succeeded', 'slow'), '2|2|0', 'but what is in flight is not');
is(status('requests', 'good'), '3', 'and others keep theirs');
$server->open_gate('slow');
wait_for_query($node, q{SELECT count(*) FROM jobs_queue_live}, '0');
is(status('in_flight, requests, succeeded', 'slow'), '0|2|2', 'it ends as usual');

# Of another database nothing is seen.
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION jobqueue');
is($node->safe_psql('other', 'SELECT count(*) FROM endpoint_status'), '0', 'another database has its own');
is($node->safe_psql('other', 'SELECT reset_endpoint_stats()'), '0', 'and cannot set these back');

# More hosts than there is room for: endpoints stay.
for my $n (1 .. 20)
{
	$node->safe_psql('postgres', "SELECT enqueue_http('http://127.0.1.$n:" . $server->port('shut') . "/', '{}', max_attempts => 1)");
	wait_for_query($node, q{SELECT count(*) FROM jobs_queue_live}, '0');
}
is($node->safe_psql('postgres', q{SELECT count(*) FROM _endpoint_health()}), '20', 'there is no more than was asked for');
is($node->safe_psql('postgres', q{SELECT count(*) FROM _endpoint_health() WHERE kind = 'endpoint'}), '13', 'hosts make way, endpoints do not');
is($node->safe_psql('postgres', q{SELECT count(*) FROM endpoint_status WHERE name LIKE '%127.0.1.20:%'}), '1', 'the newest host is there');
is(status('count(*)', $origin), '0', 'the one used longest ago is not');
is($node->safe_psql('postgres', 'SELECT reset_endpoint_stats()'), '20', 'all are set back');
is($node->safe_psql('postgres', 'SELECT sum(requests), sum(in_flight) FROM endpoint_status'), '0|0', 'and nothing is left');

# ---- tests ----

sub test_phases
{
	my ($name, $rest) = @_;

	return $node->safe_psql('postgres', "SELECT phase, detail FROM test_endpoint('$name'" . ($rest // '') . ')');
}

my $address = '127.0.0.1:' . $server->port;
like(test_phases('good'), qr/\Aresolve\|127\.0\.0\.1\nconnect\|\Q$address\E, (?:new|reused) connection\nwait\|HTTP\/1\.1\nreceive\|0 bytes\ntotal\|status 200\z/,
	'the phases of a good endpoint');
like(test_phases('good'), qr/\nconnect\|\Q$address\E, reused connection\n/, 'the next one finds the connection');
is(($server->requests('/text_size'))[-1]{method}, 'HEAD', 'it was a HEAD request');
like(test_phases('missing', q{, 'GET'}), qr/\ntotal\|status 404\z/, 'an answer is an answer');
like(test_phases('good', q{, NULL, '{"a": 7}'}), qr/\nreceive\|100 bytes\ntotal\|status 200\z/, 'without a method it has that of the endpoint');
is(($server->requests('/text_size'))[-1]{method}, 'POST', 'which is this one');
like(($server->requests('/text_size'))[-1]{body}, qr/\A\{"a": ?7\}\z/, 'with the payload');
is($node->safe_psql('postgres', q{SELECT bool_and(duration_ms >= 0), sum(duration_ms) FILTER (WHERE phase <> 'total') = sum(duration_ms) FILTER (WHERE phase = 'total') FROM test_endpoint('good')}),
	't|t', 'the phases make up the whole');
is(test_phases('shut'), "resolve|\nconnect|could not connect", 'nobody listens there');
like(test_phases('rude'), qr/\n(?:connect|wait)\|[^\n]+\z/, 'somebody hangs up');
like(test_phases('mute'), qr/\nwait\|timed out while waiting for the answer\z/, 'nobody says anything');
like(test_phases('plain'), qr/\nconnect\|127\.0\.0\.1:\d+, new connection\ntls\|the TLS handshake failed\z/, 'there is no TLS');
like(test_phases('silent'), qr/\nconnect\|127\.0\.0\.1:\d+, new connection\ntls\|timed out in the TLS handshake\z/, 'it says no word of TLS');
is(test_phases('deaf'), "resolve|\nconnect|timed out while connecting", 'it takes no connection');
like(test_phases('outside'), qr/\Aprepare\|[^\n]*jobqueue\.http_allow_cidrs[^\n]*\z/, 'the settings forbid it');
is(status('in_flight, requests, succeeded, failed', 'rude'), '0|1|0|1', 'tests are counted');
$node->safe_psql('postgres', q{
	UPDATE http_endpoints SET enabled = false WHERE name = 'unused';
	INSERT INTO http_endpoints (name, url) VALUES ('secretive', 'http://127.0.0.1/{{secret.lost}}')});
like(test_phases('unused'), qr/\ntotal\|status 200\z/, 'what is not enabled can be tested');
like(test_phases('secretive'), qr/\Aprepare\|[^\n]*secret[^\n]*\z/, 'a secret is missing');

# A role that may not use the endpoint; one that may.
$node->safe_psql('postgres', q{
	CREATE ROLE op LOGIN;
	CREATE ROLE team;
	SELECT grant_job_role('op', 'operator');
	UPDATE http_endpoints SET owner = 'team' WHERE name = 'good'});
my $op = JobQueue::Session->new($node);
$op->query('SET ROLE op');
is($op->try(q{SELECT * FROM test_endpoint('good')}), '42501', 'only for members of the owner');
$node->safe_psql('postgres', 'GRANT team TO op');
is($op->query(q{SELECT detail FROM test_endpoint('good') WHERE phase = 'total'}), 'status 200', 'who may');

# Whoever waits can be cancelled, and its place is free at once.
$node->safe_psql('postgres', qq{INSERT INTO http_endpoints (name, url, timeout) VALUES ('hanging', '} . $server->url('/gate/never') . q{', '3 min')});
my @waiting = map { JobQueue::Session->new($node) } 1 .. 8;
sub wait_until_taken
{
	my ($count) = @_;

	wait_for_query($node, q{SELECT in_flight FROM endpoint_status WHERE name = 'hanging'}, $count);
	return;
}
$_->send(q{SELECT phase, detail FROM test_endpoint('hanging', 'GET')}) for @waiting;
wait_until_taken(8);
is($op->try(q{SELECT * FROM test_endpoint('good')}), '53400', 'eight at once, and no more');
like($op->{message}, qr/too many tests of HTTP endpoints at once/, 'it says so');
$node->safe_psql('postgres', "SELECT pg_cancel_backend($waiting[0]{pid})");
is($waiting[0]->finish, '57014', 'a test is cancelled');
is($op->query(q{SELECT detail FROM test_endpoint('good') WHERE phase = 'total'}), 'status 200', 'another takes its place');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($waiting[1]{pid})");
isnt($waiting[1]->finish, '00000', 'a session is ended');
is($op->query(q{SELECT detail FROM test_endpoint('good') WHERE phase = 'total'}), 'status 200', 'its place is free, too');
$waiting[2]{node}->safe_psql('postgres', "SELECT pg_cancel_backend($waiting[2]{pid})");
is($waiting[2]->finish, '57014', 'a test is cancelled');

# One that catches the cancel goes on with a place that is its own.
$waiting[2]->query(q{BEGIN; SET LOCAL statement_timeout = '500ms'});
$waiting[2]->query(q{
	DO $$
	BEGIN
		PERFORM * FROM test_endpoint('hanging', 'GET');
	EXCEPTION WHEN query_canceled THEN
		PERFORM * FROM test_endpoint('good');
	END $$});
$waiting[2]->query('COMMIT');

# Others get their answers when the server gives them. Late ones go nowhere, also
# when somebody else has the place now.
$node->safe_psql('postgres', q{INSERT INTO http_endpoints (name, url) VALUES ('second', '} . $server->url('/gate/second') . q{')});
$waiting[$_]->send(q{SELECT detail FROM test_endpoint('second') WHERE phase = 'total'}) for 0, 2;
wait_for_query($node, q{SELECT in_flight FROM endpoint_status WHERE name = 'second'}, '2');
$server->open_gate('never');
is($_->finish, '00000', 'an answer comes') for @waiting[3 .. 7];
like($_->{output}, qr/total\|status 200\z/, 'the right one') for @waiting[3 .. 7];
wait_until_taken(0);
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid IN ($waiting[0]{pid}, $waiting[2]{pid}) AND state = 'active'"), '2',
	'who waits for another one still does');
$server->open_gate('second');
is($_->finish . " $_->{output}", '00000 status 200', 'and gets his answer') for @waiting[0, 2];

# The dispatcher goes away.
$node->safe_psql('postgres', q{UPDATE http_endpoints SET url = '} . $server->url('/hang') . q{' WHERE name = 'hanging'});
$_->send(q{SELECT phase, detail FROM test_endpoint('hanging')}) for @waiting[3 .. 5];
wait_until_taken(3);
my $dispatcher = $node->safe_psql('postgres', q{SELECT pid FROM job_workers WHERE kind = 'dispatcher'});
$node->append_conf('postgresql.conf', 'jobqueue.shutdown_timeout = 100ms');
$node->reload;
$node->safe_psql('postgres', "SELECT pg_terminate_backend($dispatcher)");
is($_->finish, '55000', 'its tests end with it') for @waiting[3 .. 5];
like($waiting[3]{message}, qr/the test of HTTP endpoint "hanging" was given up/, 'they say why');
like(test_phases('good'), qr/\ntotal\|status 200\z/, 'another one comes for the next');
isnt($node->safe_psql('postgres', q{SELECT pid FROM job_workers WHERE kind = 'dispatcher'}), $dispatcher, 'it is another one');
is(status('in_flight, aborted', 'hanging'), '0|3', 'nothing is left in flight');

# Killed, it takes the server with it; what was in flight is not any more.
$waiting[6]->send(q{SELECT phase, detail FROM test_endpoint('hanging')});
wait_until_taken(1);
kill 'KILL', $node->safe_psql('postgres', q{SELECT pid FROM job_workers WHERE kind = 'dispatcher'});
isnt($waiting[6]->finish, '00000', 'a crash ends the session that waits');
wait_for_query($node, q{SELECT count(*) FROM job_workers WHERE kind = 'scheduler'}, '1');
like(test_phases('good'), qr/\ntotal\|status 200\z/, 'then all goes on');
is(status('in_flight', 'hanging'), '0', 'with new counters');

# Nobody comes.
$node->safe_psql('postgres', 'SELECT pause_workers()');
my $late = JobQueue::Session->new($node);
is($late->try(q{SELECT * FROM test_endpoint('good')}), '55000', 'a pause');
like($late->{message}, qr/cannot test HTTP endpoint "good"/, 'is told at once');
$node->safe_psql('postgres', 'SELECT resume_workers()');
$node->safe_psql('other', qq{INSERT INTO http_endpoints (name, url) VALUES ('good', '$url{good}')});
is($node->safe_psql('other', q{SELECT detail FROM test_endpoint('good') WHERE phase = 'total'}), 'status 200', 'each database has its dispatcher');

# No counters, no library.
$node->append_conf('postgresql.conf', 'jobqueue.max_endpoint_stats = 0');
$node->restart;
like(test_phases('good'), qr/\ntotal\|status 200\z/, 'tests need no counters');
is($node->safe_psql('postgres', 'SELECT sum(requests), reset_endpoint_stats() FROM endpoint_status'), '0|0', 'which are not there');
$node->append_conf('postgresql.conf', q{shared_preload_libraries = ''});
$node->restart;
is($node->safe_psql('postgres', 'SELECT sum(requests), reset_endpoint_stats() FROM endpoint_status'), '0|0', 'nor without preloading');
my $alone = JobQueue::Session->new($node);
is($alone->try(q{SELECT * FROM test_endpoint('good')}), '55000', 'which tests need');

$node->stop;
$server->stop;
done_testing();
