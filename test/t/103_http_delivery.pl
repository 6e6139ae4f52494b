# What an HTTP job sends, what is kept of the answer, and what becomes of the job.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster;
use JobQueue::HttpJobs;
use JobQueue::Jobs qw(kill_and_return);
use JSON::PP qw(decode_json);
use MIME::Base64 qw(decode_base64 encode_base64);
use PostgreSQL::Test::Utils;
use Test::More;

my $http = JobQueue::HttpJobs->new('main', conf => <<'CONF');
jobqueue.http_max_retry_after = 1h
CONF
my $server = $http->{server};

# The one request to a path.
sub request_to
{
	my ($path) = @_;

	my @requests = $server->requests($path);
	is(scalar(@requests), 1, "one request to $path");
	return $requests[0];
}

sub raw_answer
{
	my ($status, $type, $body) = @_;

	return $server->raw_url("HTTP/1.1 $status\r\n" . (defined $type ? "Content-Type: $type\r\n" : '') . "Content-Length: " . length($body) . "\r\n\r\n$body");
}

# ---- methods and bodies ----

my $binary = join '', map { chr } 0 .. 255;
my $in_base64 = encode_base64($binary, '');
my @body = (
	[ 'json', q{{"b": [1, 2.50, null, true, "\u00e4"]}}, 'application/json', qq({"b": [1, 2.50, null, true, "\xc3\xa4"]}) ],
	[ 'json', '"a string"', 'application/json', '"a string"' ],
	[ 'json', 'null', undef, '' ],
	[ 'text', q{"gr\u00fcn\nline"}, 'text/plain; charset=utf-8', "gr\xc3\xbcn\nline" ],
	[ 'text', '""', 'text/plain; charset=utf-8', '' ],
	[ 'form', q{{"a": "b c&d=\u00e4", "n": 7, "t": true, "z": null}}, 'application/x-www-form-urlencoded', 'a=b+c%26d%3D%C3%A4&n=7&t=true' ],
	[ 'binary', qq("$in_base64"), 'application/octet-stream', $binary ],
	[ undef, undef, undef, '' ]);
my @case;
for my $method (qw(GET HEAD POST PUT PATCH DELETE OPTIONS))
{
	for my $n (0 .. $#body)
	{
		my ($type, $body) = @{ $body[$n] };
		next if defined $body && $method =~ /GET|HEAD/;
		$http->sql(sprintf q{SELECT enqueue_http(%s, %s, %s, body_type => %s)}, map { JobQueue::HttpJobs::quoted($_) } $server->url("/echo/$method/$n"), $body, $method, $type);
		push @case, [ $method, $n ];
	}
}
$http->wait_until_done;
is($http->sql(q{SELECT count(*) FROM jobs_queue WHERE status = 'completed'}), scalar(@case), 'all methods and bodies are delivered');
my %by_path = map { $_->{path} => $_ } $server->requests('/echo/');
my @wrong;
for (@case)
{
	my ($method, $n) = @$_;
	my ($type, undef, $content_type, $expected) = @{ $body[$n] };
	my $r = $by_path{"/echo/$method/$n"} or do { push @wrong, "$method $n never came"; next };
	push @wrong, "$method $n came as $r->{method}" if $r->{method} ne $method;
	push @wrong, "$method $n has type " . ($r->{headers}{'content-type'} // 'none') if ($r->{headers}{'content-type'} // '') ne ($content_type // '');
	push @wrong, "$method $n has an Expect" if exists $r->{headers}{expect};
	push @wrong, "$method $n has body " . unpack('H*', $r->{body}) if $r->{body} ne $expected;
}
is(join("\n", @wrong), '', 'and arrive as they were written');
my $r = $by_path{'/echo/POST/0'};
like($r->{headers}{'user-agent'}, qr{^jobqueue/}, 'User-Agent');
is($http->sql("SELECT idempotency_key FROM jobs_queue WHERE idempotency_key = '$r->{headers}{'idempotency-key'}' AND payload->>'url' LIKE '%/echo/POST/0'"), $r->{headers}{'idempotency-key'}, 'Idempotency-Key is the job\'s');
is($r->{headers}{host}, '127.0.0.1:' . $server->port, 'Host');

# A POST without a body has a length.
is($by_path{'/echo/POST/7'}{headers}{'content-length'}, '0', 'an empty POST says so');

# ---- headers of a call ----

$http->sql(sprintf q{SELECT enqueue_http(%s, '{}', headers => '{"X-One": "1", "x-empty": "", "Content-Type": "application/vnd.x+json", "User-Agent": "mine/2", "Idempotency-Key": "own", "Accept": "x/y"}')},
	JobQueue::HttpJobs::quoted($server->url('/ok/headers')));
$http->wait_until_done;
$r = request_to('/ok/headers');
is(join('|', map { $r->{headers}{$_} // 'none' } qw(x-one x-empty content-type user-agent idempotency-key accept)), '1||application/vnd.x+json|mine/2|own|x/y', 'headers of a call, in the place of those that would be sent');

# ---- templates ----

$http->sql(q{SELECT set_secret('token', 'S3cret-Value')});
$http->add('template', '/ok/template/{{payload.path}}/{{payload.list.1}}?q={{payload.q}}&id={{job.id}}&t={{job.type}}', {
	headers => '{"X-Text": "a {{payload.q}} b", "X-Number": "{{payload.n}}", "X-Missing": "[{{payload.nothing}}]", "Authorization": "Bearer {{secret.token}}", "X-Attempt": "{{job.attempt}}", "X-Key": "{{job.idempotency_key}}"}',
	body => '{"whole": "{{payload.object}}", "number": "{{payload.n}}", "text": "n={{payload.n}}", "null": "{{payload.nothing}}", "id": "{{job.id}}", "id_text": "#{{job.id}}", "kept": [1, true, null, {"x": "{{payload.q}}"}], "stage": "{{job.stage}}", "corr": "{{job.correlation_id}}", "group": "{{job.group_key}}", "claim": "{{job.claim_no}}", "created": "{{job.created_at}}", "scheduled": "{{job.scheduled_at}}"}' });
my $id = $http->enqueue('template', q({"path": "a/b c?d#e%2f..", "list": [0, "\\u00e4&=+"], "q": "{{job.id}} \" \\\\ &x=1", "n": 1.50, "object": {"a": [1, {"b": "{{secret.token}}"}]}}), q{correlation_id => 'corr-1', group_key => 'g'});
is($http->ended($id, 'status'), 'completed', 'templates are filled in');
$r = request_to('/ok/template/');
is($r->{target}, "/ok/template/a%2Fb%20c%3Fd%23e%252f../%C3%A4%26%3D%2B?q=%7B%7Bjob.id%7D%7D%20%22%20%5C%20%26x%3D1&id=$id&t=template", 'values in a URL are percent-encoded, and not expanded again');
is(join('|', map { $r->{headers}{$_} // 'none' } qw(x-text x-number x-missing authorization x-attempt)), 'a {{job.id}} " \ &x=1 b|1.50|[]|Bearer S3cret-Value|1', 'in headers they stand as they are');
is($r->{headers}{'x-key'}, $r->{headers}{'idempotency-key'}, 'the key of the job');
my $body = decode_json($r->{body});
is_deeply($body->{whole}, { a => [ 1, { b => '{{secret.token}}' } ] }, 'a value that stands alone in a body keeps its type');
like($r->{body}, qr/"number": 1\.50,/, 'a number does, to the digit');
like($r->{body}, qr/"null": null/, 'what is missing is null');
like($r->{body}, qr/"id": $id,/, 'the id of a job is a number');
is_deeply([ @{$body}{qw(text id_text stage corr group)} ], [ 'n=1.50', "#$id", '', 'corr-1', 'g' ], 'within a text it is text');
is_deeply($body->{kept}, [ 1, JSON::PP::true, undef, { x => '{{job.id}} " \ &x=1' } ], 'all else stays');
like($body->{created}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00$/, 'instants are ISO 8601, in UTC');
is($http->sql(q{SELECT count(*) FROM job_runs r, jobs_queue q WHERE (r.*)::text ~ 'S3cret' OR (q.*)::text ~ 'S3cret'}), 0, 'the secret is in no table that is seen');

# A path that a value turns into another one is not sent.
$http->add('dots', '/ok/dots/{{payload.a}}/x');
for my $value ('..', '.')
{
	$id = $http->enqueue('dots', qq({"a": "$value"}));
	is($http->ended($id, 'status, attempts'), 'failed|1', "\"$value\" as a segment of the path is refused");
	like($http->last_run($id)->{error}, qr/^not sent: the URL cannot be filled in: /, 'and why');
}
$http->add('injected', '/ok/injected', { headers => '{"X-Value": "{{payload.a}}"}' });
$id = $http->enqueue('injected', '{"a": "b\r\nX-Second: c"}');
is($http->ended($id, 'status, attempts'), 'failed|1', 'a line break in a header is refused');
like($http->last_run($id)->{error}, qr/^not sent: header "X-Value" cannot be sent: /, 'and why');
$http->add('form', '/ok/form', { body_type => 'form', body => '{"to": "{{payload.to}}", "n": "{{payload.n}}", "fixed": "a b"}' });
$id = $http->enqueue('form', '{"to": "+49 1&2", "n": 5}');
is($http->ended($id, 'status'), 'completed', 'a form from a template');
is(join('|', sort split /&/, request_to('/ok/form')->{body} =~ s/\+/%20/gr), 'fixed=a%20b|n=5|to=%2B49%201%262', 'its values are encoded');
$http->add('text', '/ok/text', { method => 'PUT', body_type => 'text', body => '"Hello {{payload.name}}"' });
$id = $http->enqueue('text', '{"name": "W\u00f6rld"}');
$http->ended($id, 'status');
is(request_to('/ok/text')->{body}, "Hello W\xc3\xb6rld", 'a text from a template');
$http->add('no_string', '/ok/no_string', { body_type => 'text' });
$id = $http->enqueue('no_string', '{"a": 1}');
is($http->ended($id, 'status, attempts, last_error'), 'failed|1|not sent: a text or binary body must be a string', 'an object is no text');
is($server->count('/ok/injected') + $server->count('/ok/dots') + $server->count('/ok/no_string'), 0, 'nothing of what was refused was sent');

# ---- what is kept ----

$http->add('answer', raw_answer('200 OK', 'application/json; charset=utf-8', '{"a": [1, "x"]}'));
$id = $http->enqueue('answer');
is($http->ended($id, 'result'), '{"a": [1, "x"]}', 'a JSON answer is the result');
my $run = $http->last_run($id);
my $kept = $run->{response};
is_deeply($run->{result}, { a => [ 1, 'x' ] }, 'of the run, too');
is_deeply([ @{$kept}{qw(status body bytes http_version address)} ], [ 200, '{"a": [1, "x"]}', 15, '1.1', '127.0.0.1:' . $server->port ], 'status, body, size, version and address are kept');
is($kept->{headers}{'content-type'}, 'application/json; charset=utf-8', 'headers are kept, with names in lower case');
ok(!$kept->{truncated} && !exists $kept->{redirects} && !exists $kept->{body_base64}, 'nothing else');
ok(defined $kept->{timings}{$_}, "timing $_") for qw(first_byte_ms total_ms);
is(!$kept->{reused}, defined $kept->{timings}{connect_ms}, 'that to connect, where there was no connection');
cmp_ok($kept->{timings}{total_ms}, '>=', $kept->{timings}{first_byte_ms}, 'which grow');

my @answer = (
	[ 'problem+json', 'application/problem+json', '{"b": 2}', '{"b": 2}' ],
	[ 'upper', 'Application/JSON', '[1]', '[1]' ],
	[ 'text', 'text/plain', '{"b": 2}', '' ],
	[ 'jsonx', 'application/jsonx', '{"b": 2}', '' ],
	[ 'none', undef, '{"b": 2}', '' ],
	[ 'broken', 'application/json', '{"b": ', '' ],
	[ 'scalar', 'application/json', '"s"', '"s"' ],
	[ 'null', 'application/json', 'null', 'null' ]);
$http->add("answer_$_->[0]", raw_answer('200 OK', $_->[1], $_->[2])) for @answer;
for (@answer)
{
	my ($name, $type, $text, $result) = @$_;
	$id = $http->enqueue("answer_$name");
	is($http->ended($id, 'status, result'), "completed|$result", "answer $name: " . ($result ? 'a result' : 'no result'));
	is($http->last_run($id)->{response}{body}, $text, 'its text is kept');
}
$http->add('answer_binary', raw_answer('200 OK', 'image/x', $binary));
$http->add('answer_cut', raw_answer('200 OK', 'text/plain', "a\xc3\xa4" x 100), { max_response_size => 101 });
$http->add('answer_cut_binary', raw_answer('200 OK', 'image/x', "\xff" x 100), { max_response_size => 10 });
$http->add('answer_cut_json', raw_answer('200 OK', 'application/json', '"' . 'a' x 100 . '"'), { max_response_size => 50 });
$http->add('answer_zero', raw_answer('200 OK', 'text/plain', 'nothing of this'), { max_response_size => 0 });
my %id = map { $_ => $http->enqueue("answer_$_") } qw(binary cut cut_binary cut_json zero);
$http->wait_until_done;
is($http->sql(q{SELECT count(*) FROM jobs_queue WHERE job_type LIKE 'answer%' AND status <> 'completed'}), 0, 'all of them complete');
$kept = $http->last_run($id{binary})->{response};
is(decode_base64($kept->{body_base64}), $binary, 'what is no text is kept in base64');
ok(!exists $kept->{body}, 'and not as text');
$kept = $http->last_run($id{cut})->{response};
is($kept->{body}, "a\xe4" x 33 . 'a', 'a text is cut between two characters');
ok($kept->{truncated} && $kept->{bytes} == 101, 'which is said');
is(decode_base64($http->last_run($id{cut_binary})->{response}{body_base64}), "\xff" x 10, 'other bytes are cut anywhere');
is($http->ended($id{cut_json}, 'result IS NULL'), 't', 'half a JSON document is no result');
$kept = $http->last_run($id{zero})->{response};
ok($kept->{truncated} && $kept->{bytes} == 0 && !exists $kept->{body}, 'a limit of 0 keeps nothing of a body');

# ---- statuses ----

my %class = (
	(map { $_ => 'completed' } 200, 201, 202, 204, 226, 299),
	(map { $_ => 'failed' } 300, 301, 302, 304, 307, 400, 401, 403, 404, 405, 409, 410, 413, 422, 426, 451, 499),
	(map { $_ => 'queued' } 408, 425, 429, 500, 501, 502, 503, 504, 507, 511, 599));
for my $status (sort keys %class)
{
	$id{$status} = $http->sql(sprintf q{SELECT enqueue_http(%s, max_attempts => 2)}, JobQueue::HttpJobs::quoted($server->url("/status/$status")));
}
$http->wait_for(q{SELECT count(*) FROM job_runs WHERE response->>'address' IS NOT NULL AND job_id IN (} . join(', ', @id{ keys %class }) . ')', scalar keys %class);
my %found = map { $_ => $http->sql("SELECT status FROM jobs_queue WHERE id = $id{$_}") } keys %class;
is_deeply(\%found, \%class, scalar(keys %class) . ' statuses complete, fail for good, or are tried again');
is($http->sql("SELECT last_error FROM jobs_queue WHERE id = $id{503}"), 'HTTP status 503: status 503', 'the error quotes the answer');
is($http->sql("SELECT last_error FROM jobs_queue WHERE id = $id{302}"), 'HTTP status 302, a redirect that is not followed: status 302', 'and names a redirect');
is($http->sql("SELECT (response->>'status')::int FROM job_runs WHERE job_id = $id{404}"), 404, 'the answer of a failure is kept');
$http->sql('DELETE FROM jobs_queue_live');

# ---- Retry-After ----

# How long the next attempt is put off after the first one, in seconds, where the
# backoff is so long.
sub put_off
{
	my ($value, $backoff, $status) = @_;

	my $url = $server->url(sprintf '/retry_after/%d/9/%s', $status // 503, $value =~ s{([^A-Za-z0-9+-])}{sprintf '%%%02X', ord $1}ger);
	$url = $server->raw_url('HTTP/1.1 ' . ($status // 503) . " Later\r\nRetry-After: $value\r\nContent-Length: 0\r\n\r\n") if $value !~ /^\+/;
	my $one = $http->sql(sprintf q{INSERT INTO jobs_queue (job_type, payload, backoff) VALUES ('http', jsonb_build_object('url', %s::text), '{"delay": "%d seconds"}') RETURNING id}, JobQueue::HttpJobs::quoted($url), $backoff);
	$http->wait_for("SELECT count(*) FROM job_runs WHERE job_id = $one", 1);
	my $seconds = $http->sql("SELECT extract(epoch FROM q.scheduled_at - r.finished_at) FROM jobs_queue q, job_runs r WHERE q.id = $one AND r.job_id = $one AND q.status = 'queued'");
	$http->sql("DELETE FROM jobs_queue WHERE id = $one");
	return $seconds eq '' ? -1 : $seconds;
}

sub about
{
	my ($found, $expected, $what) = @_;

	cmp_ok(abs($found - $expected), '<=', 2, "$what: $found s");
	return;
}

about(put_off('120', 1), 120, 'Retry-After in seconds');
about(put_off('+120', 1), 120, 'as a date');
about(put_off('120', 300), 300, 'which is never sooner than the backoff');
about(put_off('0', 30), 30, 'not even at once');
about(put_off($_, 1), 3600, "nor later than jobqueue.http_max_retry_after: \"$_\"") for '999999999', '99999999999999999999999';
about(put_off('Fri, 31 Dec 2199 23:59:59 GMT', 1), 3600, 'as a date, either');
about(put_off('Mon, 01 Jan 2001 00:00:00 GMT', 30), 30, 'a date that has passed says nothing');
about(put_off($_, 30), 30, "nor does \"$_\"") for '-5', 'soon', '1.5', '', '120, 130';
about(put_off('120', 1, 429), 120, 'with status 429, too');
is(put_off('120', 1, 404), -1, 'but not with one that fails for good');

# ---- timeouts ----

$http->add('slow', '/hang/slow', { timeout => '300 ms' }, { max_attempts => 1 });
$http->add('slow_type', '/hang/slow_type', { timeout => '1 day' }, { max_attempts => 1, timeout => '300 ms' });
$http->add('slow_job', '/hang/slow_job', { timeout => '1 day' }, { max_attempts => 1, timeout => '1 day' });
$http->add('slow_body', '/slow_body', { timeout => '1 day', low_speed_limit => 1000, low_speed_time => '1 s' }, { max_attempts => 1 });
$http->add('deaf', $server->url('/', 'deaf'), { connect_timeout => '300 ms' }, { max_attempts => 1 });
%id = map { $_ => $http->enqueue($_) } qw(slow slow_type slow_body deaf);
$id{slow_job} = $http->enqueue('slow_job', '{}', q{timeout => '300 ms'});
$id{slow_call} = $http->sql(sprintf q{SELECT enqueue_http(%s, timeout => '300 ms', max_attempts => 1)}, JobQueue::HttpJobs::quoted($server->url('/hang/slow_call')));
my $no_answer = 'failed|the request failed: timed out while waiting for the answer';
is($http->ended($id{slow}, 'status, last_error'), $no_answer, 'the timeout of an endpoint');
is($http->ended($id{slow_type}, 'status, last_error'), $no_answer, 'of a job type');
is($http->ended($id{slow_job}, 'status, last_error'), $no_answer, 'of a job');
is($http->ended($id{slow_call}, 'status, last_error'), $no_answer, 'of a call');
is($http->ended($id{deaf}, 'status, last_error'), 'failed|the request failed: timed out while connecting', 'to connect');
like($http->ended($id{slow_body}, 'status, last_error'), qr/^failed\|the request failed: timed out while receiving the answer$/, 'an answer that is too slow');
for (qw(slow slow_type slow_job slow_call deaf))
{
	my $ms = $http->last_run($id{$_})->{response}{timings}{total_ms};
	ok($ms >= 290 && $ms < 1300, "$_ ends in time: $ms ms");
}

# ---- keys ----

$http->add('flaky', '/flaky/2', {}, { max_attempts => 5 });
$id = $http->enqueue('flaky');
is($http->ended($id, 'status, attempts'), 'completed|3', 'attempts go on until one completes');
my %count = $server->count_by_key('/flaky/2');
is_deeply([ values %count ], [3], 'all with the same key');
is((keys %count)[0], $http->sql("SELECT idempotency_key FROM jobs_queue WHERE id = $id"), 'that of the job');

$http->add('survivor', '/gate/survivor');
$id = $http->enqueue('survivor');
$http->wait_for_requests('/gate/survivor', 1);
my $pid = $http->dispatcher;
$http->disconnect;
kill_and_return($http->{node}, $pid);
$http->connect;
$http->wait_for_requests('/gate/survivor', 2);
$server->open_gate('survivor');
is($http->ended($id, 'status, attempts, crashes'), 'completed|1|1', 'a kill -9 costs no attempt');
%count = $server->count_by_key('/gate/survivor');
is_deeply([ values %count ], [2], 'and the key is the same after it');

# ---- endpoints that change ----

$http->add('moving', '/gate/moving', { max_concurrency => 1 });
$http->enqueue_many('moving', 6);
$http->wait_for_requests('/gate/moving', 1);
$http->sql(sprintf q{UPDATE http_endpoints SET url = %s WHERE name = 'moving'}, JobQueue::HttpJobs::quoted($server->url('/ok/moved')));
$server->open_gate('moving');
$http->wait_until_done(q{job_type = 'moving'});
is($server->count('/gate/moving') . ' ' . $server->count('/ok/moved'), '1 5', 'the next request goes where the endpoint leads now');

$http->add('closed', '/ok/closed', { enabled => 'false' });
$id = $http->enqueue('closed');
$http->ended($http->enqueue('answer'), 'status');
is($http->sql("SELECT status, claim_no FROM jobs_queue WHERE id = $id"), 'queued|0', 'jobs of a disabled endpoint wait');
$http->sql(q{UPDATE http_endpoints SET enabled = true WHERE name = 'closed'});
is($http->ended($id, 'status, attempts'), 'completed|1', 'and go on when it is enabled');
$http->add('closing', '/gate/closing', { max_concurrency => 1 });
$http->enqueue_many('closing', 3);
$http->wait_for_requests('/gate/closing', 1);
$http->sql(q{UPDATE http_endpoints SET enabled = false WHERE name = 'closing'});
$server->open_gate('closing');
$http->wait_for(q{SELECT string_agg(status, ' ' ORDER BY id) FROM jobs_queue WHERE job_type = 'closing'}, 'completed queued queued');
is($server->count('/gate/closing'), 1, 'what was under way is recorded, what waited is not sent');
$http->sql(q{UPDATE http_endpoints SET enabled = true WHERE name = 'closing'});
$http->wait_until_done(q{job_type = 'closing'});

$http->sql(q{UPDATE http_endpoints SET enabled = false WHERE name = 'closed'});
$id = $http->sql(q{SELECT enqueue_http('closed', '{}')});
$http->wait_for("SELECT count(*) FROM job_runs WHERE job_id = $id AND status = 'released'", 1);
is($http->sql("SELECT status, attempts FROM jobs_queue WHERE id = $id"), 'queued|0', 'a call to a disabled endpoint waits, uncharged');
$http->sql("DELETE FROM jobs_queue WHERE id = $id");

# ---- many at once ----

$http->add('crowd', '/late/20', { max_concurrency => 7 });
$http->enqueue_many('crowd', 500);
$http->add('beside', '/ok/beside');
is($http->ended($http->enqueue('beside'), 'status'), 'completed', 'those beside a crowd are not kept waiting');
$http->wait_until_done(q{job_type = 'crowd'});
my @at = sort { $a <=> $b } map { $_->{at} } $server->requests('/late/20');
is(scalar(@at), 500, 'each of many jobs is sent once');

# Each request is open for 20 ms at least: so there were as many at once as came in 20 ms.
my $most = 0;
for my $n (0 .. $#at)
{
	my $open = grep { $at[$_] > $at[$n] - 0.02 } ($n > 50 ? $n - 50 : 0) .. $n;
	$most = $open if $open > $most;
}
cmp_ok($most, '<=', 7, "never more than max_concurrency at once: $most");
cmp_ok($most, '>=', 5, 'and not far fewer');
my %connection = map { $_->{connection} => 1 } $server->requests('/late/20');
cmp_ok(scalar(keys %connection), '<=', 8, 'over connections that stay');
cmp_ok($http->sql(q{SELECT count(*) FROM job_runs WHERE job_type = 'crowd' AND (response->>'reused')::boolean}), '>=', 493, 'which the runs say');

$http->add('hanging', '/hang/crowd');
$http->enqueue_many('hanging', 30);
$http->wait_for_requests('/hang/crowd', 20);
is($http->ended($http->enqueue('beside'), 'status'), 'completed', 'nor do those that hang keep others');
is($http->ended($http->sql(sprintf q{SELECT enqueue_http(%s)}, JobQueue::HttpJobs::quoted($server->url('/ok/by_url'))), 'status'), 'completed', 'to the same host by a URL, either');
is($server->count('/hang/crowd'), 20, 'jobqueue.http_host_connections is the limit of an endpoint without one');
$http->sql(sprintf q{SELECT enqueue_http(%s) FROM generate_series(1, 30)}, JobQueue::HttpJobs::quoted($server->url('/hang/by_url')));
$http->wait_for_requests('/hang/by_url', 20);
is($http->ended($http->enqueue('beside'), 'status'), 'completed', 'an endpoint has its places beside those of URLs');
is($server->count('/hang/by_url'), 20, 'which have as many for a host');

$http->sql('SELECT count(cancel_job(id)) FROM jobs_queue_live');
$http->wait_until_done;

# Most places are taken, and hundreds wait for them.
for my $n (1 .. 4)
{
	$http->add("stuck$n", "/hang/stuck$n");
	$http->enqueue_many("stuck$n", 100);
}
$http->wait_for_requests('/hang/stuck', 80);
is($http->ended($http->enqueue('beside'), 'status'), 'completed', 'beside four targets that hang, an endpoint is served');
is($http->ended($http->sql(sprintf q{SELECT enqueue_http(%s)}, JobQueue::HttpJobs::quoted($server->url('/ok/by_url'))), 'status'), 'completed', 'and a URL');

$http->sql('SELECT count(cancel_job(id)) FROM jobs_queue_live');
$http->wait_until_done;
$http->stop;
done_testing();
