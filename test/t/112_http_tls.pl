# HTTP jobs over TLS: a server that cannot prove who it is gets no request, and
# the job is tried again; the right authority is believed, from the endpoint or
# from the settings.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Certificates;
use JobQueue::Cluster;
use JobQueue::Http qw(http_conf add_http_type send_job runs_of set_and_reload);
use JobQueue::HttpServer;
use PostgreSQL::Test::Utils;
use Test::More;

# Seconds.
use constant { TIMEOUT => 3, MARGIN => 1 };

my $certificates = JobQueue::Certificates->new or plan skip_all => 'no openssl';
my @bad = grep { $certificates->has($_) } qw(expired early wrong_host self_signed no_server weak);
my $valid = $certificates->server('valid');
my $server = JobQueue::HttpServer->start(tls => {
	(map { $_ => $certificates->server($_) } qw(valid chain), @bad),
	old => [ @$valid, @JobQueue::Certificates::old_protocol ],
	asking => [ @$valid, '-Verify', 1, '-verify_return_error', '-CAfile', $certificates->ca ],
});
my $node = JobQueue::Cluster->new('main', conf => http_conf());
my $ca = slurp_file($certificates->ca);
my $unverified = qr/^the request failed: the certificate of the server could not be verified$/;

# Asserts that jobs of this type fail, are tried again, and send nothing.
sub is_refused
{
	my ($type, $error, $what) = @_;

	my @runs = runs_of($node, send_job($node, $type));
	is(scalar @runs, 2, "$what: tried again");
	like($runs[-1]{error} // '', $error, "$what: refused") or diag(explain(\@runs));
	cmp_ok($runs[-1]{seconds}, '<', TIMEOUT + MARGIN, "$what: in time");
	is($server->count("/echo/$type"), 0, "$what: nothing was sent");
	return;
}

sub is_sent
{
	my ($type, $what) = @_;

	my @runs = runs_of($node, send_job($node, $type, '{"a":1}'));
	is($runs[-1]{status}, 'completed', "$what: sent") or diag(explain(\@runs));
	is($runs[-1]{result}{body}, '{"a": 1}', "$what: and answered");
	return $runs[-1];
}

sub add_type
{
	my ($name, $port, %column) = @_;

	add_http_type($node, $name, $server->url("/echo/$name", $port), timeout => TIMEOUT . ' s', %column);
	return;
}

# ---- the authority of the endpoint ----

add_type($_, $_, tls_ca => $ca) for qw(valid chain old), @bad;
my $run = is_sent('valid', 'a good certificate');
cmp_ok($run->{response}{timings}{tls_ms}, '>', 0, 'the time of TLS is known');
is_sent('chain', 'one by an authority of the authority');
is_refused($_, $_ eq 'weak' ? qr/^the request failed: (?:the certificate of the server could not be verified|the TLS handshake failed)$/ : $unverified, $_) for @bad;
is_refused('old', qr/^the request failed: the TLS handshake failed$/, 'TLS 1.1');
add_type('by_name', 'valid', tls_ca => $ca);
$node->safe_psql('postgres', q{UPDATE http_endpoints SET url = replace(url, '127.0.0.1', 'localhost') WHERE name = 'by_name'});
is_sent('by_name', 'a name');
add_type('other_authority', 'valid', tls_ca => slurp_file($certificates->other_ca));
is_refused('other_authority', $unverified, 'by another authority');
add_type('no_authority', 'valid');
is_refused('no_authority', $unverified, 'by an authority that nobody knows');
add_type('both', 'valid', tls_ca => slurp_file($certificates->other_ca) . $ca);
is_sent('both', 'one of two authorities');

# A connection that was made with one authority is not used with another.
is_sent('valid', 'a good certificate');
is_refused('other_authority', $unverified, 'by another authority, beside a good one');

# ---- what is no TLS ----

add_type('plain', 'valid', tls_ca => $ca);
$node->safe_psql('postgres', sprintf q{UPDATE http_endpoints SET url = '%s' WHERE name = 'plain'}, $server->url('/echo/plain', 'chatty') =~ s/http:/https:/r);
is_refused('plain', qr/^the request failed: the TLS handshake failed$/, 'a server without TLS');
add_type('mute', 'valid', tls_ca => $ca);
$node->safe_psql('postgres', sprintf q{UPDATE http_endpoints SET url = '%s' WHERE name = 'mute'}, $server->url('/echo/mute', 'mute') =~ s/http:/https:/r);
is_refused('mute', qr/^the request failed: timed out in the TLS handshake$/, 'a handshake that hangs');
add_type('not_secret', 'valid');
$node->safe_psql('postgres', q{UPDATE http_endpoints SET url = replace(url, 'https:', 'http:') WHERE name = 'not_secret'});
is_refused('not_secret', qr/^the request failed: /, 'a request without TLS to a server with TLS');

# ---- the authority of the settings ----

add_type($_, 'valid') for qw(by_setting by_other_setting by_missing_file);
set_and_reload($node, 'jobqueue.http_ca_file', $certificates->ca);
is_sent('by_setting', 'the authority of the setting');
is_sent('by_setting', 'the same again');
is_refused('wrong_host', $unverified, 'a wrong host, with the setting');
set_and_reload($node, 'jobqueue.http_ca_file', $certificates->other_ca);
is_refused('by_other_setting', $unverified, 'another authority in the setting');
is_sent('valid', 'the authority of the endpoint, beside the setting');
set_and_reload($node, 'jobqueue.http_ca_file', '/nonexistent/ca.pem');
is_refused('by_missing_file', qr/^the request failed: the CA certificates could not be read$/, 'a file that is not there');
is_sent('valid', 'the authority of the endpoint, without that file');
set_and_reload($node, 'jobqueue.http_ca_file', $certificates->ca);
is_sent('by_setting', 'the file is back');

# ---- client certificates ----

my ($certificate, $key) = map { slurp_file($_) } $certificates->files('client');
$node->safe_psql('postgres', "SELECT set_secret('client', '$certificate$key')");
add_type('asked', 'asking', tls_ca => $ca);
is_refused('asked', qr/^the request failed: /, 'no client certificate where one is wanted');
add_type('answers', 'asking', tls_ca => $ca, client_certificate => 'client');
is_sent('answers', 'a client certificate');

my $log = slurp_file($node->logfile);
unlike($log, qr/\b(?:PANIC|TRAP|signal 11|terminated by signal)\b/, 'nothing crashed');
$node->stop;
$server->stop;
done_testing();
