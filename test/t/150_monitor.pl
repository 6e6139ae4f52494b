# The monitor: what it answers, to whom, and what it refuses.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Http qw(set_and_reload);
use JobQueue::Monitor qw(free_port monitor_conf wait_for_monitor ask knock hear hear_all);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $port = free_port();
my $node = JobQueue::Cluster->new('main', conf => monitor_conf($port));
my $log = $node->logfile;

sub sql { return $node->safe_psql('postgres', $_[0]) }

sub wait_for_log
{
	my ($pattern) = @_;

	for (1 .. 600)
	{
		return 1 if slurp_file($log) =~ $pattern;
		sleep 0.1;    # why: between two looks
	}
	return 0;
}

sub get { return ask($port, GET => @_) }
sub status { my ($answer) = @_; return defined $answer ? $answer->{status} : 'none' }

# ---- whose it cannot be ----

ok(wait_for_log(qr/cannot start the monitor for port $port: its role does not exist/), 'a role that is not there is said');
sql('CREATE ROLE watcher SUPERUSER LOGIN');
ok(wait_for_log(qr/port $port: its role is a superuser, as whom it must not be connected/), 'a superuser is refused');
sql('ALTER ROLE watcher NOSUPERUSER NOLOGIN');
ok(wait_for_log(qr/port $port: its role is not permitted to log in/), 'so is a role without LOGIN');
sql('REVOKE CONNECT ON DATABASE postgres FROM PUBLIC; ALTER ROLE watcher LOGIN');
ok(wait_for_log(qr/port $port: its role has no privilege to connect to its database/), 'and one that may not connect');
is(knock($port), undef, 'nobody listens then');
sql('GRANT CONNECT ON DATABASE postgres TO watcher');
wait_for_monitor($port);
is(() = slurp_file($log) =~ /cannot start the monitor for port $port/g, 4, 'each reason is given once');

# ---- without rights, and with them ----

my $answer = get('/ready');
is(status($answer), 403, 'a role without rights gets nothing');
like($answer->{json}{hint}, qr/grant_job_role/, 'and is told what would help');
sql(q{SELECT grant_job_role('watcher', 'operator')});
wait_for_query($node, q{SELECT count(*) FROM _server_workers() WHERE kind = 'scheduler' AND state = 'running'}, 1);
$answer = get('/ready');
is(status($answer), 200, '/ready');
is($answer->{body}, qq{{"ready": true}\n}, 'the server is ready');
is(sql(q{SELECT role || ' ' || state FROM job_workers WHERE kind = 'monitor'}), 'watcher idle', 'job_workers shows it');

$answer = get('/health');
is(status($answer), 200, '/health');
like($answer->{json}{status}, qr/\A(?:ok|warn)\z/, 'has a status');
like($answer->{json}{timestamp}, qr/\A\d{4}-.*Z\z/, 'a time');
cmp_ok($answer->{json}{uptime_ms}, '>', 0, 'and an uptime');
sql(q{INSERT INTO job_types (job_type, dead_letter, dead_letter_limit) VALUES ('lost', true, 0); INSERT INTO jobs_queue (job_type, status) VALUES ('lost', 'error')});
$answer = get('/health');
is(status($answer), 503, 'it is 503 when a check fails');
is($answer->{json}{status}, 'fail', 'and says so');
$answer = get('/metrics');
is(status($answer), 200, '/metrics');
is($answer->{header}{'content-type'}, 'text/plain; version=0.0.4; charset=utf-8', 'for Prometheus');
like($answer->{body}, qr/^# TYPE jobqueue_build_info gauge$/m, 'are metrics');
$answer = get('/metrics', headers => { Accept => 'application/openmetrics-text; version=1.0.0, text/plain; q=0.5' });
like($answer->{header}{'content-type'}, qr{\Aapplication/openmetrics-text; version=1\.0\.0}, 'as OpenMetrics for who asks for it');
like($answer->{body}, qr/^# EOF\n\z/m, 'to the end');
$answer = get('/api/metrics');
is(status($answer), 200, '/api/metrics');
is(ref $answer->{json}, 'HASH', 'is JSON');
is(status(get('/api/nothing')), 404, 'what is not there');

sql(q{SELECT pause_workers('test')});
wait_for_query($node, q{SELECT count(*) FROM _server_workers() WHERE kind = 'scheduler'}, 0);
$answer = get('/ready');
is(status($answer), 503, 'a paused database is not ready, but its monitor lives');
like($answer->{json}{reason}, qr/no scheduler/, 'and says why');
sql('SELECT resume_workers()');
set_and_reload($node, 'jobqueue.enabled', 'off');
for (1 .. 100)
{
	$answer = get('/ready');
	last if ($answer->{json}{reason} // '') =~ /enabled/;
	sleep 0.1;    # why: between two looks
}
is($answer->{json}{reason}, 'jobqueue.enabled is off', 'so it does while jobqueue.enabled is off');
set_and_reload($node, 'jobqueue.enabled', 'on');

# ---- the page ----

$answer = get('/');
is(status($answer), 200, 'the page');
like($answer->{body}, qr/\A<!doctype html>/i, 'is HTML');
is($answer->{header}{'content-type'}, 'text/html; charset=utf-8', 'says so');
is($answer->{header}{'cache-control'}, 'no-store', 'is not kept');
is($answer->{header}{'x-content-type-options'}, 'nosniff', 'and nothing else');
like($answer->{header}{'content-security-policy'}, qr/default-src 'none';.*frame-ancestors 'none'/, 'is guarded by a policy');
my $scripts = () = $answer->{body} =~ /<script/g;
my $digests = () = $answer->{header}{'content-security-policy'} =~ /'sha256-[A-Za-z0-9+\/]{43}='/g;
is($digests, $scripts, 'that knows each of its scripts');

# ---- from here on, functions that say what they are asked ----

sql(q{
	CREATE OR REPLACE FUNCTION monitor_get(path text, query jsonb DEFAULT '{}', accept text DEFAULT '',
			OUT status integer, OUT content_type text, OUT body text)
		LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
	BEGIN
		status := 200;
		content_type := 'application/json; charset=utf-8';
		CASE path
			WHEN '/api/fault' THEN RAISE EXCEPTION 'the secret of table %', query ->> 'x' USING ERRCODE = query ->> 'code';
			WHEN '/api/sleep' THEN PERFORM pg_sleep(60);
			WHEN '/api/write' THEN CREATE TABLE written (a integer);
			WHEN '/api/large' THEN body := to_json(repeat('x', (query ->> 'size')::integer)); RETURN;
			WHEN '/api/none' THEN status := NULL; RETURN;
			WHEN '/api/missing' THEN status := 404;
			WHEN '/api/settings' THEN query := to_jsonb(array[current_setting('search_path'), current_setting('role'), current_setting('work_mem'),
				(SELECT count(*)::text FROM pg_class WHERE relname = 'left_behind'), (SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory')]);
			ELSE NULL;
		END CASE;
		body := jsonb_build_object('path', path, 'query', query, 'accept', accept, 'user', current_user, 'session', session_user,
			'read_only', current_setting('transaction_read_only'));
	END $$;
	CREATE OR REPLACE FUNCTION monitor_post(path text, body jsonb, client text, OUT status integer, OUT content_type text, OUT body_text text)
		LANGUAGE plpgsql AS $$
	BEGIN
		status := 201;
		content_type := 'application/json; charset=utf-8';
		IF path LIKE '%/fault' THEN RAISE EXCEPTION 'no such job type' USING ERRCODE = body ->> 'code', HINT = 'Look again.'; END IF;
		IF path LIKE '%/leave' THEN
			SET work_mem = '77MB';
			SET search_path = 'elsewhere';
			PERFORM pg_advisory_lock(7);
			CREATE TEMP TABLE left_behind (a integer);
		END IF;
		body_text := jsonb_build_object('path', path, 'body', body, 'client', client, 'user', session_user,
			'read_only', current_setting('transaction_read_only'), 'size', length(body::text));
	END $$;
});

# ---- what is asked ----

$answer = get('/api/a%20b+c?x=1+2&y=%C3%A4&y=z&empty&=nothing&%26=%3D', headers => { Accept => 'text/plain' });
is(status($answer), 200, 'a target with escapes');
is($answer->{json}{path}, '/api/a b+c', 'its path is decoded');
is_deeply($answer->{json}{query}, { x => '1 2', y => 'z', empty => '', '&' => '=' }, 'so are its parameters');
is($answer->{json}{accept}, 'text/plain', 'Accept is passed on');
is("$answer->{json}{user} $answer->{json}{session} $answer->{json}{read_only}", 'watcher watcher on', 'it runs as the role, read-only');
is(status(get('/api/missing')), 404, 'the status is that of the function');
is(get('/api/%C3%A4')->{json}{path}, "/api/\x{e4}", 'UTF-8 in a path');

for my $bad ('/%', '/%4', '/%zz', '/%00', '/?a=%00', '/?%', "/\x01", "/\xc3\xa4", '/#a', '*', 'http://127.0.0.1/', 'a', '//?%%')
{
	is(status(get($bad)), 400, "400 for $bad" =~ s/([^ -~])/sprintf '\\x%02x', ord $1/ger);
}
is(status(get('/api/x?a=%ff')), 400, 'a parameter that is no UTF-8');
is(status(get('/%ff')), 400, 'a path that is none');

$answer = ask($port, HEAD => '/api/x');
is(status($answer), 200, 'HEAD');
is($answer->{header}{'content-length'}, length get('/api/x')->{body}, 'with the length that GET would have');

for my $method (qw(POST PUT DELETE PATCH OPTIONS TRACE BREW))
{
	$answer = ask($port, $method => '/api/x', body => '');
	is(status($answer) . ' ' . ($answer->{header}{allow} // ''), '405 GET, HEAD', "$method is not allowed");
}
$answer = get('/api/actions/x');
is(status($answer) . ' ' . ($answer->{header}{allow} // ''), '405 POST', 'an action takes POST only');

is(status(get('/' . 'a' x 4096)), 414, 'a long target');
is(status(get('/' . 'a' x 40000)), 414, 'a longer one');
is(status(get('/api/x?' . join '&', map { "p$_=1" } 1 .. 300)), 414, 'many parameters');
is(status(get('/api/x?' . join '&', map { "p$_=1" } 1 .. 200)), 200, 'not quite as many');
is(status(get('/', headers => { 'X-Long' => 'a' x 40000 })), 431, 'a long header');
is(status(get('/', headers => { map { ("X-$_" => 'a' x 20) } 1 .. 1000 })), 431, 'many headers');
my $socket = knock($port);
print $socket "GET /api/x HTTP/1.0\r\n\r\n";
is(status(hear($socket)), 200, 'HTTP/1.0');
$socket = knock($port);
print $socket "GET /api/x HTTP/1.1\r\n\r\n";
is(status(hear($socket)), 400, 'HTTP/1.1 without Host');
$socket = knock($port);
print $socket "GET /api/x HTTP/3.0\r\n\r\n";
is(status(hear($socket)), 505, 'HTTP/3.0');

# ---- what goes wrong ----

$answer = get('/api/fault?code=P0002&x=t');
is(status($answer), 500, 'an error');
unlike($answer->{body}, qr/secret/, 'says nothing of the database');
is($answer->{json}{code}, 'P0002', 'but its code');
like(slurp_file($log), qr/ERROR:  the secret of table t/, 'the log does');
$answer = get('/api/fault?code=22023&x=q');
is(status($answer), 400, 'an error of the request');
like($answer->{json}{error}, qr/the secret of table q/, 'is told');
unlike(slurp_file($log), qr/ERROR:  the secret of table q/, 'and not logged');
is(status(get('/api/fault?code=42501&x=r')), 403, 'what the role may not');
unlike(slurp_file($log), qr/ERROR:  the secret of table r/, 'is not logged either');
unlike(sql('SELECT data FROM _health_worker_errors'), qr/42501/, 'nor taken for a fault of the monitor');
is(status(get('/api/fault?code=55P03&x=s')), 503, 'a lock that somebody holds');
unlike(slurp_file($log), qr/ERROR:  the secret of table s/, 'is not logged');
unlike(sql('SELECT * FROM _worker_troubles()'), qr/55P03/, 'nor a fault of the monitor');
is(status(get('/api/write')), 500, 'nothing can be written');
is(status(get('/api/none')), 500, 'a function without an answer');
is(sql(q{SELECT count(*) FROM pg_class WHERE relname = 'written'}), '0', 'nothing was');
is(length get('/api/large?size=5000000')->{body}, 5_000_002, 'a large answer is complete');

# ---- who may ask ----

for my $host ("127.0.0.1:$port", '127.0.0.1', '10.0.0.1:80', "localhost:$port", 'LOCALHOST', "[::1]:$port", '[fd00::1]')
{
	is(status(get('/api/x', headers => { Host => $host })), 200, "Host: $host");
}
for my $host ("evil.example:$port", 'localhost.evil.example', '127.0.0.1.nip.io', '', '[evil]', '[::1', '[::1]x', '2130706433', '127.1', 'a' x 300)
{
	is(status(get('/api/x', headers => { Host => $host })), 403, "not Host: $host" =~ s/a{9,}/a.../r);
}
my %origin = ("http://127.0.0.1:$port" => 200, "https://127.0.0.1:$port" => 200, 'http://127.0.0.1' => 403, 'http://evil.example' => 403, 'null' => 403);
for my $origin (sort keys %origin)
{
	is(status(get('/api/x', headers => { Origin => $origin })), $origin{$origin}, "Origin: $origin");
}
my @sites = (['same-origin', 'cors', 200], ['none', 'navigate', 200], ['cross-site', 'navigate', 200], ['cross-site', 'no-cors', 403], ['same-site', 'cors', 403], ['cross-site', undef, 403]);
for my $site (@sites)
{
	is(status(get('/api/x', headers => { 'Sec-Fetch-Site' => $site->[0], 'Sec-Fetch-Mode' => $site->[1] })), $site->[2],
		"Sec-Fetch-Site: $site->[0], " . ($site->[1] // 'no mode'));
}
is($answer->{header}{'access-control-allow-origin'}, undef, 'no other site may read');
$socket = knock($port);
print $socket "GET /api/x HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n";
is(status(hear($socket)), 400, 'two hosts');
# What a proxy and the monitor would read differently: of the rest of the connection nothing is believed.
for my $framing ("Content-Length: 0\r\nContent-Length: 41", "Content-Length: 41\r\ncontent-length: 0", "Content-Length: 0\r\nContent-Length: 0",
	"Transfer-Encoding: chunked\r\nContent-Length: 41")
{
	$socket = knock($port);
	print $socket "POST /api/actions/x HTTP/1.1\r\nHost: localhost\r\n$framing\r\n\r\nGET /api/x HTTP/1.1\r\nHost: localhost\r\n\r\n";
	is(join(' ', hear_all($socket, 20) =~ m{HTTP/1\.1 (\d{3})\b}g), '400', 'one answer to ' . $framing =~ s/\r\n/, /r);
}

# ---- actions ----

my $file = $node->basedir . '/token';
my $token = 'the-token-of-this-test';

sub write_token
{
	my ($text, $mode) = @_;

	open my $out, '>', $file or die "could not write $file: $!";
	print $out $text;
	close $out;
	chmod $mode // 0600, $file or die;
	return;
}

sub act
{
	my ($action, %param) = @_;

	return ask($port, POST => "/api/actions/$action", body => $param{body} // '{}',
		headers => { Authorization => "Bearer " . ($param{token} // $token), 'Content-Type' => 'application/json', %{ $param{headers} // {} } });
}

$answer = act('x');
is(status($answer), 403, 'without a file for a token there are no actions');
like($answer->{json}{hint}, qr/jobqueue\.monitor_token_file/, 'the setting is named');
write_token("$token\n", 0644);
set_and_reload($node, 'jobqueue.monitor_token_file', $file);
for (1 .. 100)
{
	$answer = act('x');
	last if status($answer) == 503;
	sleep 0.1;    # why: between two looks
}
is(status($answer), 503, 'a file that others can read is not used');
ok(wait_for_log(qr/monitor refuses actions: file "\Q$file\E" can be used by others/), 'the log says why');
write_token("short\n");
is(status(act('x', token => 'short')), 503, 'nor is one with a short token');
write_token("$token\nx\n");
is(status(act('x', token => 'x')), 503, 'nor one whose previous token is short');
write_token("$token\n");

$answer = act('go', body => '{"ids": [1, 2]}');
is(status($answer), 201, 'an action with the token');
is_deeply($answer->{json}, { path => '/api/actions/go', body => { ids => [ 1, 2 ] }, client => '127.0.0.1', user => 'watcher', read_only => 'off', size => 15 },
	'gets action, arguments and client');
is(status(act('go', body => '')), 201, 'arguments may be missing');
$answer = act('x', token => 'the-token-of-this-tesT');
is(status($answer), 401, 'a wrong token');
is($answer->{header}{'www-authenticate'}, 'Bearer realm="jobqueue"', 'says which kind is wanted');
is(status(act('x', token => 'the-token')), 401, 'the beginning of it');
is(status(act('x', token => '')), 401, 'an empty one');
is(status(act('x', headers => { Authorization => undef })), 401, 'none');
is(status(act('x', headers => { Authorization => "Basic $token" })), 401, 'another kind');
is(() = slurp_file($log) =~ /refused an action of 127\.0\.0\.1, whose token is wrong/g, 1, 'wrong tokens are logged, once');
unlike(slurp_file($log), qr/the-token/, 'but not what they are');
is(status(act('x', headers => { 'Content-Type' => $_ })), 415, "not as $_") for 'text/plain', 'application/x-www-form-urlencoded', 'application/jsonx';
is(status(act('x', headers => { 'Content-Type' => undef })), 415, 'nor as nothing');
is(status(act('x', headers => { 'Content-Type' => 'application/json; charset=utf-8' })), 201, 'with a charset');
is(status(act('x', headers => { Origin => 'http://evil.example' })), 403, 'not for another page');
is(status(act('x', headers => { Host => 'evil.example' })), 403, 'nor under another name');
is(status(act('x', body => $_)), 400, 'a body that is no JSON') for '{', "{}\0", "\xff", '{"a": "\u0000"}', '[' x 100_000;
is(act('x', body => '"' . ('x' x 200_000) . '"')->{json}{size}, 200_002, 'a body of 200 kB');
is(status(act('x', body => ' ' x 300_000)), 413, 'one of 300 kB');
$socket = knock($port);
print $socket join "\r\n", 'POST /api/actions/x HTTP/1.1', 'Host: localhost', "Authorization: Bearer $token", 'Content-Type: application/json',
  'Transfer-Encoding: chunked', '', (map { sprintf "%x\r\n%s", 65536, ' ' x 65536 } 1 .. 5), '0', '', '';
is(status(hear($socket)), 413, 'also in chunks');
$socket = knock($port);
print $socket join "\r\n", 'POST /api/actions/x HTTP/1.1', 'Host: localhost', "Authorization: Bearer $token", 'Content-Type: application/json',
  'Transfer-Encoding: chunked', '', '7', '{"a": 1', '1', '}', '0', '', '';
is_deeply(hear($socket)->{json}{body}, { a => 1 }, 'a body in chunks');
$answer = act('fault', body => '{"code": "55000"}');
is(status($answer), 409, 'an action that fails');
is_deeply($answer->{json}, { error => 'no such job type', hint => 'Look again.', code => '55000' }, 'says why');
is(status(act('fault', body => '{"code": "42501"}')), 403, 'one that may not');
is(status(act('fault', body => '{"code": "22023"}')), 400, 'one that is wrong');

my $before = get('/api/settings')->{json}{query};
is(status(act('leave')), 201, 'an action that changes the session');
is_deeply(get('/api/settings')->{json}{query}, $before, 'leaves nothing of it behind');

write_token("another-token-of-this-test\n$token\n");
is(status(act('x')), 201, 'the previous token of the file');
is(status(act('x', token => 'another-token-of-this-test')), 201, 'and the new one');
write_token("another-token-of-this-test\n");
is(status(act('x')), 401, 'the old one, after it was removed');

# ---- a connection that stays ----

$socket = knock($port);
for (1 .. 3)
{
	is(ask($port, GET => "/api/$_", socket => $socket)->{json}{path}, "/api/$_", "request $_ of a connection");
}
print $socket join '', map { "GET /api/p$_ HTTP/1.1\r\nHost: localhost\r\n\r\n" } 1 .. 20;
is_deeply([ map { my $heard = hear($socket); $heard && $heard->{json}{path} } 1 .. 20 ], [ map { "/api/p$_" } 1 .. 20 ], 'twenty at once, answered in order');

# ---- names that the setting lists, on the fly ----

my $pid = sql(q{SELECT pid FROM _server_workers() WHERE kind = 'monitor'});
is(status(get('/api/x', headers => { Host => "DB.example:$port" })), 403, 'a name that is not listed');
set_and_reload($node, 'jobqueue.monitor', "database=postgres role=watcher port=$port host=db.example");
for (1 .. 100)
{
	$answer = get('/api/x', headers => { Host => "DB.example:$port" });
	last if status($answer) == 200;
	sleep 0.1;    # why: between two looks
}
is(status($answer), 200, 'is one after a reload');
is(sql(q{SELECT pid FROM _server_workers() WHERE kind = 'monitor'}), $pid, 'in the same process');

$node->stop;
unlike(slurp_file($log), qr/\b(?:PANIC|TRAP|signal \d+|leak|FATAL)\b/, 'nothing crashed or leaked');
done_testing();
