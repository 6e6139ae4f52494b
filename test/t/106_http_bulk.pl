# Jobs that share a request: what is sent, when, and what becomes of each.
use strict;
use warnings;
use Digest::SHA qw(hmac_sha256_base64);
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster;
use JobQueue::HttpJobs;
use JSON::PP qw(decode_json);
use MIME::Base64 qw(encode_base64);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $http = JobQueue::HttpJobs->new('main');
my $server = $http->{server};
my $json = JSON::PP->new->canonical->allow_nonref;

# A server that always answers with this JSON.
sub answering
{
	my ($text, $status) = @_;

	$status //= 200;
	return $server->raw_url("HTTP/1.1 $status Whatever\r\nContent-Type: application/json\r\nContent-Length: " . length($text) . "\r\n\r\n$text");
}

# The n of the jobs in a request.
sub numbers_in
{
	my ($request) = @_;

	my $body = decode_json($request->{body});
	return join ' ', map { $_->{n} } ref $body eq 'ARRAY' ? @$body : ();
}

# Each job of a type, in the order of enqueueing, as the columns wanted.
sub jobs_of
{
	my ($type, $columns) = @_;

	return [ split /\n/, $http->sql("SELECT $columns FROM jobs_queue WHERE job_type = '$type' ORDER BY id") ];
}

# ---- requests ----

$http->add('ten', '/ok/ten', { max_concurrency => 1 }, { batch_size => 10, max_linger => '100 ms' });
$http->enqueue_many('ten', 95);
$http->wait_until_done(q{job_type = 'ten'});
my @requests = $server->requests('/ok/ten');
is_deeply([ map { numbers_in($_) } @requests ], [ map { my $n = $_; join ' ', map { $n * 10 + $_ } 1 .. ($n == 9 ? 5 : 10) } 0 .. 9 ], '95 jobs are 10 requests, in the order of their claims');
is(join(' ', map { "$_->{method} $_->{headers}{'content-type'}" } $requests[0]), 'POST application/json', 'which are JSON');
is($http->sql(q{SELECT count(*) FROM jobs_queue WHERE job_type = 'ten' AND status = 'completed' AND result IS NULL}), 95, 'the status stands for all of them');
is($http->sql(q{SELECT count(DISTINCT (response->>'status', attempt, response ? 'body')) || ' ' || min(response->>'status') || ' ' || bool_or(response ? 'body') FROM job_runs WHERE job_type = 'ten'}), '1 200 false', 'each run has the answer, but for its body');

$http->add('alone', '/ok/alone', { max_concurrency => 1 });
$http->enqueue_many('alone', 3);
$http->wait_until_done(q{job_type = 'alone'});
is_deeply([ map { $_->{body} } $server->requests('/ok/alone') ], [ '{"n": 1}', '{"n": 2}', '{"n": 3}' ], 'without a batch_size, each job has a request of its own');

$http->add('one_of_two', '/ok/one_of_two', {}, { batch_size => 2 });
$http->enqueue_many('one_of_two', 1);
$http->wait_until_done(q{job_type = 'one_of_two'});
is_deeply([ map { $_->{body} } $server->requests('/ok/one_of_two') ], ['[{"n": 1}]'], 'without max_linger nobody is waited for; one job is an array, too');

# ---- when ----

$http->add('full', '/ok/full', {}, { batch_size => 5, max_linger => '1 hour' });
$http->enqueue_many('full', 7);
$http->wait_for_requests('/ok/full', 1);
$http->wait_for(q{SELECT string_agg(status, ' ' ORDER BY id) FROM jobs_queue WHERE job_type = 'full'}, join ' ', ('completed') x 5, ('running') x 2);
$http->enqueue_many('full', 3);
$http->wait_until_done(q{job_type = 'full'});
is_deeply([ map { numbers_in($_) } $server->requests('/ok/full') ], [ '1 2 3 4 5', '6 7 1 2 3' ], 'a request that is full goes at once');

$http->add('lingering', '/ok/lingering', {}, { batch_size => 5, max_linger => '700 ms' });
my $before = time;
my $id = $http->enqueue('lingering', '{"n": 1}');
$http->ended($id, 'status');
my ($request) = $server->requests('/ok/lingering');
cmp_ok($request->{at} - $before, '>=', 0.7, 'one that is not full waits for max_linger');
cmp_ok($request->{at} - $before, '<', 3, 'and not for much longer');

# A target without a free place is not asked again and again.
$http->add('busy', '/gate/busy', { max_concurrency => 1 }, { batch_size => 2, max_linger => '1 ms' });
$http->enqueue_many('busy', 4);
$http->wait_for_requests('/gate/busy', 1);
my $pid = $http->dispatcher;
sub cpu_ticks { my @field = split ' ', slurp_file("/proc/$pid/stat"); return $field[13] + $field[14] }
my $ticks = cpu_ticks();
$http->sql('SELECT pg_sleep(1)');
cmp_ok(cpu_ticks() - $ticks, '<', 30, 'jobs that wait for a place cost no time of the processor');
$server->open_gate('busy');
$http->wait_until_done(q{job_type = 'busy'});

# ---- bodies ----

$http->add('wrapped', '/ok/wrapped', { body => '{"to": "{{payload.to}}", "id": "{{job.id}}"}', batch_body => '{"messages": "{{items}}", "sender": "us", "text": "all: {{items}}"}', headers => '{"X-Token": "{{secret.token}}"}' }, { batch_size => 2, max_linger => '1 hour' });
$http->sql(q{SELECT set_secret('token', 'S3cret')});
my @id = map { $http->enqueue('wrapped', qq({"to": "+4$_"})) } 1, 2;
$http->wait_until_done(q{job_type = 'wrapped'});
my @wrapped = $server->requests('/ok/wrapped');
is_deeply(decode_json($wrapped[0]{body}), { messages => [ { to => '+41', id => $id[0] }, { to => '+42', id => $id[1] } ], sender => 'us', text => qq(all: [{"id": $id[0], "to": "+41"}, {"id": $id[1], "to": "+42"}]) }, 'bodies from a template, and around them another one');
is($wrapped[0]{headers}{'x-token'}, 'S3cret', 'a secret in a header is the same for all');

# What would differ from job to job cannot be shared.
$http->add('own_url', '/ok/own/{{payload.n}}', {}, { batch_size => 2 });
$http->add('own_id', '/ok/own?id={{job.id}}', {}, { batch_size => 2 });
$http->add('own_header', '/ok/own', { headers => '{"X-N": "{{payload.n}}"}' }, { batch_size => 2 });
$http->add('own_text', '/ok/own', { body_type => 'text', body => '"n={{payload.n}}"' }, { batch_size => 2 });
$http->add('own_get', '/ok/own', { method => 'GET' }, { batch_size => 2 });
$http->enqueue_many($_, 2) for qw(own_url own_id own_header own_text own_get);
$http->wait_until_done(q{job_type LIKE 'own%'});
is_deeply(jobs_of($_->[0], 'status, attempts, last_error'), [ ("failed|1|not sent: $_->[1]") x 2 ], "$_->[0] is refused")
  for [ 'own_url', 'a URL that differs from job to job cannot be shared by several' ], [ 'own_id', 'a URL that differs from job to job cannot be shared by several' ],
  [ 'own_header', 'headers that differ from job to job cannot be shared by several' ], [ 'own_text', 'a request of several jobs needs a JSON body' ],
  [ 'own_get', 'a request of several jobs needs a JSON body' ];
is($server->count('/ok/own'), 0, 'nothing of that was sent');

# ---- outcomes ----

my $later = { backoff => '{"strategy": "fixed", "delay": "1 hour"}', max_linger => '1 hour' };
my @item = (
	[ 'true', 'completed||true' ],
	[ 'false', 'queued|the response says that it failed|' ],
	[ 'null', 'completed||null' ],
	[ '17', 'completed||17' ],
	[ '"id-5"', 'completed||"id-5"' ],
	[ '{}', 'completed||{}' ],
	[ '{"id": 5}', 'completed||{"id": 5}' ],
	[ '{"status": 200, "id": 5}', 'completed||{"id": 5, "status": 200}' ],
	[ '{"status": 429, "error": "later"}', 'queued|HTTP status 429: later|' ],
	[ '{"status": 404, "error": {"code": 7}}', 'failed|HTTP status 404: {"code": 7}|' ],
	[ '{"status": 503}', 'queued|HTTP status 503|' ],
	[ '{"success": false}', 'queued|the response says that it failed|' ],
	[ '{"success": true, "id": 7}', 'completed||{"id": 7, "success": true}' ],
	[ '{"success": false, "error": "no such number", "permanent": true}', 'failed|the response says that it failed: no such number|' ],
	[ '{"error": "try again", "permanent": false}', 'queued|the response says that it failed: try again|' ],
	[ '{"error": null, "id": 1}', 'completed||{"id": 1, "error": null}' ],
	[ '{"error": "", "id": 1}', 'completed||{"id": 1, "error": ""}' ],
	[ '{"status": "sent"}', 'completed||{"status": "sent"}' ],
	[ '{"status": 1e99}', 'queued|HTTP status 0|' ],
	[ '[1]', 'completed||[1]' ]);
$http->add('items', answering('[' . join(',', map { $_->[0] } @item) . ']'), {}, { batch_size => scalar(@item), %$later });
$http->enqueue_many('items', scalar @item, 'max_attempts => 3');
$http->wait_for(q{SELECT count(*) FROM job_runs WHERE job_type = 'items'}, scalar @item);
is_deeply(jobs_of('items', 'status, last_error, result'), [ map { $_->[1] } @item ], 'each job has an outcome of its own');
is($http->sql(q{SELECT count(DISTINCT r.xmin::text) || ' ' || count(*) FILTER (WHERE r.charged) FROM job_runs r WHERE job_type = 'items'}), '1 ' . @item, 'recorded together, as attempts');

# A status stands for itself, and what is not JSON for nothing.
my %answer = (
	results => [ answering('{"results": [{"id": 1}, false], "other": [true]}'), 'completed||{"id": 1}', 'queued|the response says that it failed|' ],
	no_results => [ answering('{"result": [false, false]}'), ('completed||') x 2 ],
	no_array => [ answering('{"results": {"a": false}}'), ('completed||') x 2 ],
	scalar => [ answering('"fine"'), ('completed||') x 2 ],
	too_few => [ answering('{"results": [true]}'), ('queued|the response has 1 outcomes for 2 jobs|') x 2 ],
	too_many => [ answering('{"results": [true, true, true]}'), ('queued|the response has 3 outcomes for 2 jobs|') x 2 ],
	none => [ answering('{"results": []}'), ('queued|the response has 0 outcomes for 2 jobs|') x 2 ],
	broken => [ answering('{"results": [true, '), ('completed||') x 2 ],
	failed => [ answering('{"results": [true, true]}', 500), ('queued|HTTP status 500: {"results": [true, true]}|') x 2 ],
	refused => [ answering('{"results": [true, true]}', 400), ('failed|HTTP status 400: {"results": [true, true]}|') x 2 ],
	hanging => [ $server->url('/hang'), ('queued|the request failed: timed out while waiting for the answer|') x 2 ],
	reset => [ $server->url('/reset'), ('queued|the request failed: the connection broke|') x 2 ]);
for my $name (sort keys %answer)
{
	$http->add("answer_$name", $answer{$name}[0], { batch_results => 'results', batch_body => '{"items": "{{items}}"}', timeout => '1 s' }, { batch_size => 2, %$later });
	$http->enqueue_many("answer_$name", 2, 'max_attempts => 3');
}
$http->wait_for(q{SELECT count(*) FROM job_runs WHERE job_type LIKE 'answer%'}, 2 * keys %answer);
for my $name (sort keys %answer)
{
	my (undef, @expected) = @{ $answer{$name} };
	is_deeply(jobs_of("answer_$name", 'status, last_error, result'), \@expected, "answer $name");
}

# ---- keys and signatures ----

my $key = encode_base64('k' x 32, '');
$http->sql("SELECT set_secret('signing', 'whsec_$key')");
$http->add('signed', '/flaky/2', { signing_secret => 'signing', batch_body => '{"items": "{{items}}"}' }, { batch_size => 3, max_linger => '1 hour', backoff => '{"strategy": "fixed", "delay": "10 ms"}' });
$http->enqueue_many('signed', 3, 'max_attempts => 5');
$http->wait_until_done(q{job_type = 'signed'});
my @signed = $server->requests('/flaky/2');
is(scalar(@signed), 3, 'the same jobs have the same key at each attempt, or the server would not know them');
like($signed[0]{headers}{'idempotency-key'}, qr/^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/, 'which is a UUID');
is($http->sql("SELECT count(*) FROM jobs_queue WHERE idempotency_key = '$signed[0]{headers}{'idempotency-key'}'"), 0, 'and none of a job');
is($signed[0]{headers}{'webhook-id'}, $signed[0]{headers}{'idempotency-key'}, 'the id of the signed message');
for my $r (@signed)
{
	my $signature = hmac_sha256_base64(join('.', @{ $r->{headers} }{qw(webhook-id webhook-timestamp)}, $r->{body}), 'k' x 32);
	$signature .= '=' while length($signature) % 4;
	is($r->{headers}{'webhook-signature'}, "v1,$signature", 'the signature is that of the body that was sent');
}
my %key_of = map { $_->{headers}{'idempotency-key'} => 1 } $server->requests('/ok/ten');
is(scalar(keys %key_of), 10, 'other jobs have another key');

# ---- cancelling ----

$http->add('cancelled', '/gate/cancelled', {}, { batch_size => 3, max_linger => '1 hour' });
@id = map { $http->enqueue('cancelled', qq({"n": $_})) } 1, 2;
$http->wait_for(q{SELECT count(*) FROM jobs_queue_live WHERE job_type = 'cancelled' AND status = 'running'}, 2);
$http->sql("SELECT cancel_job($id[0])");
is($http->ended($id[0], 'status, attempts'), 'cancelled|0', 'a job that waits for others can be cancelled');
push @id, map { $http->enqueue('cancelled', qq({"n": $_})) } 3, 4;
$http->wait_for_requests('/gate/cancelled', 1);
is(numbers_in($server->requests('/gate/cancelled')), '2 3 4', 'and is not sent with them');
$http->sql("SELECT cancel_job($id[2])");
$http->wait_for("SELECT cancel_requested_at IS NOT NULL FROM jobs_queue WHERE id = $id[2]");
$server->open_gate('cancelled');
$http->wait_until_done(q{job_type = 'cancelled'});
is_deeply([ map { $_->{status} } map { $http->last_run($_) } @id[ 1 .. 3 ] ], [ ('completed') x 3 ], 'once sent, it goes on with the others');

# ---- beside others ----

# Thousands of jobs are few requests.
$http->add('stuck', '/hang/stuck', { max_concurrency => 10, timeout => '1 min' }, { batch_size => 100 });
$http->add('beside', '/ok/beside');
$http->enqueue_many('stuck', 2000);
$http->wait_for_requests('/hang/stuck', 10);
is($http->ended($http->enqueue('beside'), 'status'), 'completed', 'jobs that share requests that hang keep no others');
is($http->ended($http->sql(sprintf q{SELECT enqueue_http(%s)}, JobQueue::HttpJobs::quoted($server->url('/ok/by_url'))), 'status'), 'completed', 'nor those with a URL');
is($http->ended($http->enqueue('one_of_two'), 'status'), 'completed', 'nor those that share other requests');

# What is under way would be cancelled with its requests only.
$http->stop('immediate');
done_testing();
