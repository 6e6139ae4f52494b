# HTTP jobs and programs of others: nginx with TLS and HTTP/2, nghttpd, and
# webhooks whose signatures another implementation verifies.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Nginx;
use JobQueue::Peers qw(certificate need_peers peer_file peer_program peers_directory start_peer);
use JSON::PP qw(decode_json);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

need_peers('nginx', 'nghttpd', 'webhooks');

# Nothing here waits for a poll: whoever makes a job ready says so.
my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
jobqueue.poll_interval = 1h
jobqueue.http_allow_cidrs = '127.0.0.0/8, ::1/128'
jobqueue.http_allow_ports = '*'
jobqueue.http_host_connections = 100
jobqueue.retry_delay = 0
CONF

# The endpoint and a job type of the same name that goes there.
sub add_endpoint
{
	my ($name, $url, %columns) = @_;

	my @names = sort keys %columns;
	my $sql = 'INSERT INTO http_endpoints (' . join(', ', 'name', 'url', @names) . ') VALUES ('
	  . join(', ', map { "\$sql\$$_\$sql\$" } $name, $url, @columns{@names}) . '); '
	  . "INSERT INTO job_types (job_type, runner, endpoint) VALUES ('$name', 'http', '$name')";
	$node->safe_psql('postgres', $sql);
	return;
}

sub enqueue
{
	my ($job_type, $payload) = @_;

	return $node->safe_psql('postgres', "SELECT enqueue_job('$job_type', \$json\$$payload\$json\$, max_attempts => 1)");
}

# Columns of a job that has ended, or has failed for the first time.
sub ended
{
	my ($id, $columns) = @_;

	wait_for_query($node, "SELECT count(*) FROM jobs_queue_done WHERE id = $id", 1);
	return $node->safe_psql('postgres', "SELECT $columns FROM jobs_queue WHERE id = $id");
}

# What the last run of a job keeps of the response.
sub response
{
	my ($id, $expression) = @_;

	return $node->safe_psql('postgres', "SELECT $expression FROM job_runs WHERE job_id = $id ORDER BY claim_no DESC LIMIT 1");
}

# The most requests that were open at the same time.
sub most_at_once
{
	my @requests = @_;

	my $most = 0;
	foreach my $one (@requests)
	{
		my $open = grep { $_->{begin} <= $one->{begin} && $one->{begin} < $_->{end} } @requests;
		$most = $open if $open > $most;
	}
	return $most;
}

my $tls = certificate();
my $other_tls = certificate();
my $nginx = JobQueue::Nginx->new(certificate => $tls);

# HTTP/1.1

add_endpoint('plain', $nginx->url('/ok'));
my $id = enqueue('plain', '{"a": 1}');
is(ended($id, 'status, result'), 'completed|{}', 'nginx answers');
is(response($id, q{response->>'status', response->>'http_version', response->>'body'}), '200|1.1|{}', 'over HTTP/1.1');

$node->safe_psql('postgres', q{SELECT enqueue_jobs('plain', array_fill('{}'::jsonb, '{200}'))});
wait_for_query($node, 'SELECT count(*) FROM jobs_queue_live', 0);
my @plain = $nginx->requests('plain');
is(scalar(@plain), 201, 'each job is one request');
my %connections = map { $_->{connection} => 1 } @plain;
cmp_ok(scalar(keys %connections), '<=', 100, 'connections are used again');

# The second is enqueued when the first is already on its way.
add_endpoint('plain_paced', $nginx->url('/paced'));
my @paced = (enqueue('plain_paced', '{}'));
wait_for_query($node, "SELECT status FROM jobs_queue WHERE id = $paced[0]", 'running');
push @paced, enqueue('plain_paced', '{}');
is(join(' ', map { ended($_, 'status') } @paced), 'completed completed', 'two slow requests');
is(most_at_once(grep { $_->{path} eq '/paced' } $nginx->requests('plain')), 2, 'one does not wait for the other');

# TLS and HTTP/2

add_endpoint('secure', $nginx->tls_url('/ok'), tls_ca => $tls->{ca_text});
$id = enqueue('secure', '{"a": 1}');
is(ended($id, 'status'), 'completed', 'nginx with TLS answers, by the authority of the endpoint');
is(response($id, q{response->>'http_version'}), '2', 'HTTP/2 is negotiated');
my ($first) = $nginx->requests('tls');
is("$first->{protocol} $first->{method} $first->{path}", 'HTTP/2.0 POST /ok', 'which nginx saw, too');

add_endpoint('paced', $nginx->tls_url('/paced'), tls_ca => $tls->{ca_text});
$node->safe_psql('postgres', q{SELECT enqueue_jobs('paced', array_fill('{}'::jsonb, '{20}'))});
wait_for_query($node, q{SELECT count(*) FROM jobs_queue_live WHERE job_type = 'paced'}, 0);
is($node->safe_psql('postgres', q{SELECT count(*) FROM jobs_queue WHERE job_type = 'paced' AND status = 'completed'}), 20, 'many slow requests');
my %sharing;
push @{ $sharing{ $_->{connection} } }, $_ foreach grep { $_->{path} eq '/paced' } $nginx->requests('tls');
my ($busiest) = sort { @$b <=> @$a } values %sharing;
cmp_ok(most_at_once(@$busiest), '>=', 5, 'several of them share a connection at the same time');
note(scalar(keys %sharing), ' connections, ', most_at_once(@$busiest), ' requests at once in one of them');

# From here on libcurl opens a connection for each request to this host.
add_endpoint('secure_old', $nginx->tls_url('/ok'), tls_ca => $tls->{ca_text}, http_version => '1.1');
$id = enqueue('secure_old', '{}');
is(ended($id, 'status'), 'completed', 'an endpoint may ask for HTTP/1.1');
is(response($id, q{response->>'http_version'}), '1.1', 'and gets it');

# Whom to trust

foreach my $case ([ 'another_authority', tls_ca => $other_tls->{ca_text} ], ['unknown_authority'])
{
	my ($name, @columns) = @$case;
	my $before = () = $nginx->requests('tls');

	add_endpoint($name, $nginx->tls_url('/ok'), @columns);
	$id = enqueue($name, '{}');
	like(ended($id, 'status, last_error'), qr/^(failed|error)\|.*certificate/s, "$name: the certificate is refused");
	is(scalar(() = $nginx->requests('tls')), $before, "$name: no request was sent");
}
(my $elsewhere = $nginx->tls_url('/ok')) =~ s/localhost/127.0.0.2/;
add_endpoint('another_name', $elsewhere, tls_ca => $tls->{ca_text});
like(ended(enqueue('another_name', '{}'), 'status, last_error'), qr/^(failed|error)\|/, 'nor is it taken for another host');

# Another server of HTTP/2

my $port = PostgreSQL::Test::Cluster::get_free_port();
start_peer([ peer_program('nghttpd'), '--echo-upload', '-a', '127.0.0.1', '-d', $tls->{directory},
	$port, $tls->{key}, $tls->{certificate} ], $port);
add_endpoint('echo', "https://localhost:$port/echo", tls_ca => $tls->{ca_text});
$id = enqueue('echo', '{"text": "größer als ein Byte ✓"}');
is(ended($id, 'status'), 'completed', 'nghttpd answers');
is(response($id, q{response->>'http_version', (response->>'body')::jsonb = (SELECT payload FROM jobs_queue WHERE id = job_id)}),
	'2|t', 'over HTTP/2, with what it got');
$node->safe_psql('postgres', q{SELECT enqueue_jobs('echo', (SELECT array_agg(jsonb_build_object('n', n)) FROM generate_series(1, 300) n))});
wait_for_query($node, q{SELECT count(*) FROM jobs_queue_live WHERE job_type = 'echo'}, 0);
is($node->safe_psql('postgres', q{
	SELECT count(*) FROM jobs_queue j JOIN job_runs r ON r.job_id = j.id
	WHERE j.job_type = 'echo' AND j.status = 'completed' AND (r.response->>'body')::jsonb = j.payload}),
	301, 'each of many jobs gets its own answer');

# Signatures

my $old = 'whsec_' . 'MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
my $new = 'whsec_' . 'C2FVsBQIhrscChlQIMV+b5sSYspob7oD';
my $never = 'whsec_' . 'tF0VTTEFTbgN6nSZ2NKCZ0yvgDNk1ZVb';
$port = PostgreSQL::Test::Cluster::get_free_port();
start_peer([ peer_program('node'), peer_file('verify.mjs'), peers_directory(), $port, $old, $new, $never ], $port);
$node->safe_psql('postgres', "SELECT set_secret('webhook', '$old')");
add_endpoint('signed', "http://127.0.0.1:$port/", signing_secret => 'webhook');

# What the verifier found of a job with this payload: its answer, as a hash.
sub verify
{
	my ($payload) = @_;

	my $job = enqueue('signed', $payload);
	like(ended($job, 'status'), qr/^completed/, 'the webhook is delivered');
	return { %{ decode_json(response($job, q{response->>'body'})) }, job => $job };
}

my $no_match = 'No matching signature found';
my $found = verify('{"type": "order.paid", "data": {"id": 7, "name": "Jürgen ✓"}}');
is_deeply($found->{verified}, [ 'ok', $no_match, $no_match ], 'verified by its secret, and by no other');
is_deeply($found->{tampered}, [ ($no_match) x 3 ], 'not when a byte of the body is another');
is_deeply($found->{earlier}, [ ('Message timestamp too old') x 3 ], 'not as a message of an hour ago');
ok($found->{id} =~ /^\S+$/ && $found->{idempotency_key}, 'it has an id and a key');
cmp_ok(abs($found->{timestamp} - time), '<', 60, 'and the time of now');
is_deeply(verify('{}')->{verified}[0], 'ok', 'an empty object, too');
is_deeply(verify('{"text": "' . 'ü' x 100_000 . '"}')->{verified}[0], 'ok', 'and a long one');

$node->safe_psql('postgres', "SELECT set_secret('webhook', '$new', keep_previous => '1 day')");
$found = verify('{"n": 2}');
is_deeply($found->{verified}, [ 'ok', 'ok', $no_match ], 'after a change both secrets verify it');
is_deeply($found->{tampered}, [ ($no_match) x 3 ], 'and neither verifies another body');

$node->safe_psql('postgres', "SELECT set_secret('webhook', '$old', keep_previous => '0')");
is_deeply(verify('{"n": 3}')->{verified}, [ 'ok', $no_match, $no_match ], 'without a time to overlap, only the new one does');

$node->stop;
done_testing();
