# Where HTTP jobs may go: addresses are judged when the connection is made, hosts
# and ports before, all by the settings of that moment.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster;
use JobQueue::Http qw(http_conf add_http_type send_job runs_of set_and_reload);
use JobQueue::HttpServer;
use JobQueue::Resolver;
use JobQueue::Session;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $resolver = JobQueue::Resolver->new or plan skip_all => 'no compiler for the library that looks up names';

# Two servers at one port of two addresses: one is allowed later, the other never.
my $server = JobQueue::HttpServer->start(host => '127.0.0.2');
my $port = $server->port;
my $forbidden = eval { JobQueue::HttpServer->start(host => '127.0.0.1', port => $port) }
  or plan skip_all => 'the same port of another address is taken';
my $node = $resolver->run(sub {
	local @ENV{qw(http_proxy HTTP_PROXY https_proxy all_proxy ALL_PROXY)} = ($forbidden->url('/proxy')) x 5;
	local $ENV{HOME} = PostgreSQL::Test::Utils::tempdir();
	append_to_file("$ENV{HOME}/.netrc", "machine 127.0.0.2 login somebody password canary\n");
	JobQueue::Cluster->new('main', conf => http_conf(q{jobqueue.http_allow_cidrs = ''}, q{jobqueue.http_connect_timeout = '2s'}, q{jobqueue.retry_delay = '1s'}));
});
my $session = JobQueue::Session->new($node);

# Sends a job to a URL; returns how often it was tried, and its error or status.
sub outcome
{
	my ($url, $more) = @_;

	my $state = $session->try("SELECT enqueue_http('$url', max_attempts => 2" . ($more // '') . ')');
	return ($state, $session->{output}) if $state ne '00000';
	my @runs = runs_of($node, $session->{output});
	return (scalar @runs, $runs[-1]{error} // $runs[-1]{response}{status}, $runs[-1]);
}

# Asserts that a job is refused: when it is enqueued, or for good when it is sent.
sub is_refused
{
	my ($url, $what, $pattern) = @_;

	my $before = $server->count + $forbidden->count;
	my $started = time;
	my ($tries, $error) = outcome($url);
	like($tries, qr/^(?:1|22023|42501)$/, "$what: refused for good ($tries)");
	like($error, $pattern // qr/http_allow_cidrs/, "$what: says why");
	is($server->count + $forbidden->count, $before, "$what: nothing was sent");
	cmp_ok(time - $started, '<', 5, "$what: at once");
	return;
}

sub is_sent
{
	my ($url, $what) = @_;

	my ($tries, $status, $run) = outcome($url);
	is($status, 200, $what) or diag("$tries: $status");
	return $run;
}

# ---- addresses, in all ways to write them ----

is_refused("http://$_:$port/ok", $_) for qw(127.0.0.1 2130706433 0x7f.1 0x7f000001 0177.0.0.1 017700000001 127.1 127.0.1 0 0.0.0.0 localhost LOCALHOST localhost.
	[::1] [::] [0:0:0:0:0:0:0:1] [::ffff:127.0.0.1] [::ffff:7f00:1] [64:ff9b::127.0.0.1] [fc00::1] [fe80::1] [ff02::1]
	10.0.0.1 100.64.0.1 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1 192.168.0.1 198.18.0.1 224.0.0.1 240.0.0.1 255.255.255.255);

# ---- names that lead there ----

my %name = ('loop.test' => '127.0.0.1', 'private.test' => '10.1.2.3', 'metadata.test' => '169.254.169.254', 'six.test' => '::1', 'mapped.test' => '::ffff:127.0.0.1',
	'translated.test' => '64:ff9b::7f00:1', 'unique.test' => 'fd00::1', 'several.test' => '10.0.0.1,127.0.0.1,::1', 'zero.test' => '0.0.0.0');
$resolver->set($_, $name{$_}) for keys %name;
is_refused("http://$_:$port/ok", "$_, which is $name{$_}") for sort keys %name;

# ---- one address is allowed ----

set_and_reload($node, 'jobqueue.http_allow_cidrs', '127.0.0.2/32');
my $run = is_sent("http://127.0.0.2:$port/echo/direct", 'an address that is allowed');
my ($request) = $server->requests('/echo/direct');
is($request->{target}, '/echo/direct', 'without the proxy of the environment');
is($request->{headers}{authorization}, undef, 'and without passwords from the home directory');
is_refused("http://127.0.0.1:$port/ok", 'its neighbour');

# A name changes its mind.
$resolver->set('rebind.test', '127.0.0.2', '127.0.0.1');
is_sent("http://rebind.test:$port/ok", 'a name that is allowed at first');
is($resolver->lookups('rebind.test'), 1, 'was looked up once');
set_and_reload($node, 'jobqueue.http_timeout', '10s');
is_refused("http://rebind.test:$port/ok", 'and then is not');
is($resolver->lookups('rebind.test'), 2, 'looked up again');
$resolver->set('both.test', '127.0.0.1,127.0.0.2');
$run = is_sent("http://both.test:$port/ok", 'of two addresses, the one that is allowed will do');
is($run->{response}{address}, "127.0.0.2:$port", 'and is the one');
$resolver->set('first.test', '127.0.0.2,127.0.0.1');
my ($tries, $error) = outcome('http://first.test:' . $server->port('shut') . '/ok');
like($error, qr/^the request failed: (?:could not connect|its address)/, 'no way around through the second of two');
is($forbidden->count, 0, 'the forbidden server has seen nothing');
is($forbidden->open_connections, 0, 'no connection either');

# ---- names that cannot be looked up ----

for my $answer ('none', 'again')
{
	$resolver->set('no.test', $answer);
	($tries, $error) = outcome("http://no.test:$port/ok");
	is("$tries $error", '2 the request failed: could not resolve the name of the host', "a name that is \"$answer\" is tried again");
}
$resolver->set('dead.test', '::1');
($tries, $error) = outcome("http://dead.test:$port/ok");
is($tries, 1, 'a name with an address of IPv6 only, that is refused');
$resolver->set('many.test', join ',', map { "127.0.0.$_" } 3 .. 102);
is_refused("http://many.test:$port/ok", 'a hundred addresses, none of them allowed');
$resolver->set('more.test', join ',', map { "127.0.0.$_" } 2 .. 101);
is_sent("http://more.test:$port/ok", 'a hundred addresses, the first of them allowed');
$resolver->set('few.test', join ',', map { "127.0.0.$_" } 3 .. 10, 2);
is_sent("http://few.test:$port/ok", 'the last of a few addresses');

# ---- ports ----

set_and_reload($node, 'jobqueue.http_allow_ports', '80,443');
is_refused("http://127.0.0.2:$port/ok", 'a port that is not listed', qr/http_allow_ports/);
set_and_reload($node, 'jobqueue.http_allow_ports', "443,$port");
is_sent("http://127.0.0.2:$port/ok", 'a port that is listed');
is_refused('http://127.0.0.2:' . $server->port('second') . '/ok', 'its neighbour', qr/http_allow_ports/);
set_and_reload($node, 'jobqueue.http_allow_ports', '*');

# ---- hosts ----

set_and_reload($node, 'jobqueue.http_allow_hosts', 'one.test, *.suffix.test');
$resolver->set($_, '127.0.0.2') for qw(one.test a.suffix.test suffix.test asuffix.test one.test.evil.test evil-one.test a.b.suffix.test);
is_sent("http://$_:$port/ok", "$_ is listed") for qw(one.test a.suffix.test a.b.suffix.test);
is_sent("http://ONE.test:$port/ok", 'in any case');
is_refused("http://$_:$port/ok", "$_ is not", qr/http_allow_hosts/) for qw(asuffix.test one.test.evil.test evil-one.test 127.0.0.2 rebind.test);
set_and_reload($node, 'jobqueue.http_allow_hosts', '*');

# ---- a change holds for the next request, also where a connection is open ----

is_sent("http://127.0.0.2:$port/ok", 'a connection');
my %change = (
	'jobqueue.http_allow_cidrs' => [ '127.0.0.3/32', '127.0.0.2/32' ],
	'jobqueue.http_allow_ports' => [ '80,443', '*' ],
	'jobqueue.http_allow_hosts' => [ 'one.test', '*' ],
);
add_http_type($node, 'kept', $server->url('/ok'));
for my $setting (sort keys %change)
{
	my ($closed, $open) = @{ $change{$setting} };
	runs_of($node, send_job($node, 'kept'));
	($run) = runs_of($node, send_job($node, 'kept'));
	ok($run->{response}{reused}, "$setting: a connection is kept");
	my $count = $server->count;

	# Jobs that were enqueued before, too.
	my $waiting = $session->query(q{SELECT enqueue_job('kept', scheduled_at => clock_timestamp() + interval '1 s')});
	set_and_reload($node, $setting, $closed);
	my @runs = runs_of($node, $waiting);
	is(scalar @runs, 1, "$setting: a job is refused for good");
	like($runs[0]{error} // '', qr/\Q$setting\E/, "$setting: by the new setting");
	is($server->count, $count, "$setting: nothing was sent");
	set_and_reload($node, $setting, $open);
	($run) = runs_of($node, send_job($node, 'kept'));
	is($run->{status}, 'completed', "$setting: and allowed again");
	ok(!$run->{response}{reused}, "$setting: with a new connection");
}

# ---- what servers try to make clients do ----

is_sent("http://127.0.0.2:$port/cookie", 'a cookie');
is_sent("http://127.0.0.2:$port/echo/after_cookie", 'the next request');
is(($server->requests('/echo/after_cookie'))[0]{headers}{cookie}, undef, 'does not bring it back');
outcome("http://127.0.0.2:$port/authenticate");
is(join(',', map { $_->{headers}{authorization} // 'none' } $server->requests('/authenticate')), 'none', 'who asks for a password gets none, once');
outcome("http://127.0.0.2:$port/authenticate/407");
is(join(',', map { $_->{headers}{'proxy-authorization'} // 'none' } $server->requests('/authenticate/407')), 'none', 'not as a proxy either');

# ---- a proxy that is set ----

set_and_reload($node, 'jobqueue.http_proxy', $server->url(''));
outcome('http://far.test/ok');
is(($server->requests)[-1]{target}, 'http://far.test/ok', 'a proxy that is set is used');
is($resolver->lookups('far.test'), 0, 'and looks up names itself');

is($forbidden->count, 0, 'the forbidden server has not seen a request');
is($forbidden->open_connections, 0, 'and has no connection');
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|terminated by signal)\b|canary/, 'nothing crashed');
$session->quit;
$node->stop;
$_->stop for $server, $forbidden;
done_testing();
