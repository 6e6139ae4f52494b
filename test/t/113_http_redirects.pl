# Redirects of HTTP jobs: not followed unless the endpoint says so, never further
# than it says, and each place that they lead to is judged like the first.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Certificates;
use JobQueue::Cluster;
use JobQueue::Http qw(http_conf add_http_type send_job runs_of);
use JobQueue::HttpServer;
use PostgreSQL::Test::Utils;
use Test::More;

# Seconds.
use constant { TIMEOUT => 2, MARGIN => 1 };

my $certificates = JobQueue::Certificates->new;
my $server = JobQueue::HttpServer->start(tls => $certificates ? { secure => $certificates->server('valid') } : {});
my $node = JobQueue::Cluster->new('main', conf => http_conf(q{jobqueue.http_allow_cidrs = '127.0.0.1/32'},
	'jobqueue.http_allow_ports = \'' . join(',', map { $server->port($_) } 'main', 'second', keys %{ $server->{tls} }) . q{'}));
my $count = 0;

# What becomes of a job that is sent to a URL.
sub follow
{
	my ($url, %column) = @_;

	my $name = 'type ' . ++$count;
	add_http_type($node, $name, $url, timeout => TIMEOUT . ' s', max_redirects => 3, %column);
	my @runs = runs_of($node, send_job($node, $name, '{"a":1}'));
	return @runs;
}

# Asserts that a job fails for good, after this many requests.
sub is_stopped
{
	my ($what, $url, $requests, %column) = @_;

	my $before = $server->count;
	my @runs = follow($url, %column);
	is(scalar @runs, 1, "$what: fails for good");
	like($runs[0]{error} // '', qr/^HTTP status 30\d, a redirect that is not followed/, "$what: is not followed") or diag(explain(\@runs));
	is($server->count - $before, $requests, "$what: that many requests");
	return;
}

# ---- how far ----

is_stopped('by default', $server->url('/redirect_chain/1'), 1, max_redirects => 0);
my ($run) = follow($server->url('/redirect_chain/3'));
is($run->{status}, 'completed', 'three redirects where three are allowed');
is($run->{response}{redirects}, 3, 'are counted');
is_stopped('one more', $server->url('/redirect_chain/4'), 4);
is_stopped('a loop', $server->url('/redirect_loop'), 4);
is_stopped('a loop of one', $server->url('/redirect_loop'), 2, max_redirects => 1);
is_stopped('without Location', $server->url('/redirect_nowhere'), 1);
is_stopped('to garbage', $server->url('/redirect_garbage'), 1);
is_stopped('to nothing', $server->redirect_url(302, ''), 1);

# ---- where to ----

my $secret = { headers => '{"authorization": "Bearer abc", "x-key": "def", "cookie": "g=h", "user-agent": "mine"}' };
my %elsewhere = (
	'file:' => 'file:///etc/passwd',
	'ftp:' => 'ftp://127.0.0.1/a',
	'gopher:' => 'gopher://127.0.0.1:' . $server->port . '/_GET%20/',
	'dict:' => 'dict://127.0.0.1:' . $server->port . '/a',
	'javascript:' => 'javascript:alert(1)',
	'data:' => 'data:text/plain,a',
	'unix:' => 'http+unix://%2ftmp%2f.s.PGSQL.5432/',
	'user information' => 'http://user:password@127.0.0.1:' . $server->port . '/ok',
	'another port' => $server->url('/ok', 'mute'),
	'port 22' => 'http://127.0.0.1:22/',
	'a port that is none' => 'http://127.0.0.1:99999/',
	'a space' => "http://127.0.0.1:" . $server->port . '/a b',
);
is_stopped("to $_", $server->redirect_url(302, $elsewhere{$_}), 1) for sort keys %elsewhere;

# By address: these are refused where the socket is opened, or before.
my %address = (
	'another loopback address' => $server->url('/ok', 'second') =~ s/127\.0\.0\.1/127.0.0.2/r,
	'metadata' => 'http://169.254.169.254:' . $server->port . '/latest/meta-data/',
	'a private address' => 'http://10.0.0.1:' . $server->port . '/',
	'zero' => 'http://0.0.0.0:' . $server->port . '/ok',
	'IPv6' => 'http://[::1]:' . $server->port . '/ok',
	'an address in IPv6' => 'http://[::ffff:127.0.0.2]:' . $server->port . '/ok',
	'a number' => 'http://2130706434:' . $server->port . '/ok',
);
for my $name (sort keys %address)
{
	my $before = $server->count;
	my @runs = follow($server->redirect_url(302, $address{$name}));
	is(scalar @runs, 1, "to $name: fails for good");
	like($runs[0]{error} // '', qr/a redirect that is not followed|http_allow_cidrs/, "to $name: is not followed") or diag(explain(\@runs));
	is($server->count - $before, 1, "to $name: nothing was sent there");
	cmp_ok($runs[0]{seconds}, '<', MARGIN, "to $name: at once");
}

# ---- what goes there ----

($run) = follow($server->redirect_url(302, '/echo/same'), %$secret);
my ($same) = $server->requests('/echo/same');
is($same->{headers}{$_}, { authorization => 'Bearer abc', 'x-key' => 'def', cookie => 'g=h' }->{$_}, "the same origin gets header $_") for qw(authorization x-key cookie);
($run) = follow($server->redirect_url(307, $server->url('/echo/other', 'second')), %$secret);
is($run->{status}, 'completed', 'to another origin');
my ($other) = $server->requests('/echo/other');
is_deeply([ grep { exists $other->{headers}{$_} } qw(authorization x-key cookie) ], [], 'which gets no secrets');
is($other->{headers}{host}, '127.0.0.1:' . $server->port('second'), 'but its own name');
ok(length $other->{headers}{'idempotency-key'}, 'and the key');
($run) = follow($server->redirect_url(307, $server->redirect_url(307, $server->url('/echo/back')) =~ s/:\d+/':' . $server->port('second')/er), %$secret);
is($run->{response}{redirects}, 2, 'there and back');
my ($back) = $server->requests('/echo/back');
is_deeply([ grep { exists $back->{headers}{$_} } qw(authorization x-key cookie) ], [], 'brings no secrets back');

for my $status (301, 302, 303, 307, 308)
{
	my $stays = $status >= 307;
	($run) = follow($server->redirect_url($status, "/echo/post/$status"));
	my ($request) = $server->requests("/echo/post/$status");
	is($request->{method}, $stays ? 'POST' : 'GET', "$status: a POST becomes " . ($stays ? 'a POST' : 'a GET'));
	is($request->{body}, $stays ? '{"a": 1}' : '', "$status: " . ($stays ? 'with' : 'without') . ' its body');
	follow($server->redirect_url($status, "/echo/get/$status"), method => 'GET');
	is(($server->requests("/echo/get/$status"))[0]{method}, 'GET', "$status: a GET stays one");
	follow($server->redirect_url($status, "/ok/head/$status"), method => 'HEAD');
	is(($server->requests("/ok/head/$status"))[0]{method}, 'HEAD', "$status: a HEAD, too");
	follow($server->redirect_url($status, "/echo/put/$status"), method => 'PUT');
	my ($put) = $server->requests("/echo/put/$status");
	is($put->{method}, $stays ? 'PUT' : 'GET', "$status: a PUT becomes " . ($stays ? 'a PUT' : 'a GET'));
}
follow($server->redirect_url(300, '/ok/choice'));
is($server->count('/ok/choice'), 1, '300 with a Location is one, too');

# ---- how long ----

my @runs = follow($server->redirect_url(302, '/hang/redirected'));
is(scalar @runs, 2, 'a redirect to what hangs: tried again');
like($runs[0]{error}, qr/^the request failed: timed out/, 'after a timeout');
cmp_ok($runs[0]{seconds}, '<', TIMEOUT + MARGIN, 'of the whole');
@runs = follow($server->redirect_url(302, '/status/503'));
is(scalar @runs, 2, 'the last status decides');
@runs = follow($server->redirect_url(302, '/status/404'));
is(scalar @runs, 1, 'in both ways');

# ---- TLS ----

SKIP:
{
	skip 'no openssl', 1 unless $certificates;
	my $ca = slurp_file($certificates->ca);
	($run) = follow($server->redirect_url(302, $server->url('/echo/up', 'secure')), tls_ca => $ca);
	is($run->{status}, 'completed', 'from http: to https:') or diag(explain($run));
	($run) = follow($server->redirect_url(302, $server->url('/echo/down')) =~ s/http:\/\/127\.0\.0\.1:\d+/$server->url('', 'secure')/er, tls_ca => $ca);
	is($run->{status}, 'failed', 'not from https: to http:');
	is($server->count('/echo/down'), 0, 'where nothing was sent');
}

unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|terminated by signal)\b|ERROR:/, 'nothing crashed');
$node->stop;
$server->stop;
done_testing();
