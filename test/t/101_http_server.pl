# The HTTP server, the certificates and the look-up of names that the tests of
# HTTP jobs use do what they say.
use strict;
use warnings;
use Compress::Zlib ();
use FindBin;
use lib "$FindBin::RealBin/../lib";
use IO::Select;
use IO::Socket::INET;
use JobQueue::Certificates;
use JobQueue::HttpServer;
use JobQueue::Resolver;
use JSON::PP qw(decode_json);
use MIME::Base64 qw(encode_base64url);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

# What is sent in a moment ends with one of these.
use constant { CLOSED => 'closed', RESET => 'reset', OPEN => 'open', MORE => 'more' };

# Enough to know that something has no end.
use constant PLENTY => 400_000;

my $server = JobQueue::HttpServer->start;

sub connection
{
	my ($port, $wait) = @_;

	return IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $server->port($port), Timeout => $wait // 30);
}

sub send_request
{
	my ($socket, $target, %param) = @_;

	my $body = $param{body} // '';
	print $socket join "\r\n", ($param{method} // 'POST') . " $target HTTP/1.1", 'Host: 127.0.0.1',
	  'Content-Length: ' . length $body, @{ $param{headers} // [] }, '', $body;
	$socket->flush;
	return;
}

# Reads until $limit bytes have come, nothing comes for a while, or the end.
sub receive
{
	my ($socket, $limit) = @_;
	my $bytes = '';

	my $select = IO::Select->new($socket);
	while (length $bytes < $limit)
	{
		return (OPEN, $bytes) unless $select->can_read(0.3);
		my $length = sysread $socket, $bytes, 65536, length $bytes;
		return (RESET, $bytes) unless defined $length;
		return (CLOSED, $bytes) if $length == 0;
	}
	return (MORE, $bytes);
}

sub ask
{
	my ($target, %param) = @_;

	my $socket = connection($param{port}) or die "could not connect: $!";
	send_request($socket, $target, %param);
	return receive($socket, $param{limit} // PLENTY);
}

sub path_of { return $_[0] =~ s{\Ahttp://[^/]*}{}r }

sub body { return $_[0] =~ s/\A.*?\r\n\r\n//sr }

# ---- each behaviour ----

my $ok = qr/\AHTTP\/1\.1 200 OK\r\n.*\r\n\r\n/s;
my $length_of_text = 'a' x 1000;

# Name => arguments, how it ends, what was sent.
my %expected = (
	ok => [ '', OPEN, qr/$ok\{"ok":true}\z/ ],
	text => [ '', OPEN, qr/${ok}fine\z/ ],
	empty => [ '', OPEN, qr/${ok}\z/ ],
	no_content => [ '', OPEN, qr/\AHTTP\/1\.1 204 No Content\r\n\r\n\z/ ],
	status => [ '/404', OPEN, qr/\AHTTP\/1\.1 404 Not Found\r\n.*\r\n\r\nstatus 404\z/s ],
	echo => [ '/a', OPEN, qr/${ok}\{"body":"","headers":\[\["Host","127\.0\.0\.1"\],\["Content-Length","0"\]\],"method":"POST","target":"\/echo\/a"}\z/ ],
	raw => [ '/' . encode_base64url("a\0\xff"), CLOSED, qr/\Aa\0\xff\z/ ],
	gate => [ '/never', OPEN, qr/\A\z/ ],
	late => [ '/100', OPEN, $ok ],
	text_size => [ '/1000', OPEN, qr/${ok}$length_of_text\z/ ],
	json_size => [ '/1002', OPEN, qr/${ok}"$length_of_text"\z/ ],
	flaky => [ '/1', OPEN, qr/\AHTTP\/1\.1 503 / ],
	retry_after => [ '/429/1/17', OPEN, qr/\AHTTP\/1\.1 429 .*\r\nRetry-After: 17\r\n/s ],
	hang => [ '', OPEN, qr/\A\z/ ],
	hang_header => [ '', OPEN, qr/\r\nX-Some\z/ ],
	hang_body => [ '', OPEN, qr/${ok}begin\z/ ],
	slow_header => [ '', MORE, qr/\r\nX-Slow: a+\z/, 70 ],
	slow_body => [ '', MORE, qr/${ok}a+\z/, 100 ],
	endless_body => [ '', MORE, qr/${ok}a+\z/ ],
	endless_chunks => [ '', MORE, qr/${ok}(?:4000\r\na{16384}\r\n)+/ ],
	endless_headers => [ '', MORE, qr/\r\n(?:X-Endless: header\r\n)+[^\r\n]*\r?\z/ ],
	endless_header_line => [ '', MORE, qr/\r\nX-Endless: a+\z/ ],
	endless_status_line => [ '', MORE, qr/\AHTTP\/1\.1 200 a+\z/ ],
	endless_continue => [ '', MORE, qr/\A(?:HTTP\/1\.1 100 Continue\r\n\r\n)+/ ],
	endless_early_hints => [ '', MORE, qr/\A(?:HTTP\/1\.1 103 Early Hints\r\nLink: [^\n]*\r\n\r\n)+/ ],
	endless_trailer => [ '', MORE, qr/${ok}2\r\nok\r\n0\r\n(?:X-Endless: trailer\r\n)+/ ],
	endless_extension => [ '', MORE, qr/${ok}2;a+\z/ ],
	header_size => [ '/1000', OPEN, qr/\r\nX-Large: $length_of_text\r\n.*\r\n\r\nok\z/s ],
	many_headers => [ '/300', OPEN, qr/\r\nX-Header-300: value\r\n.*\r\n\r\nok\z/s ],
	early_hints => [ '', OPEN, qr/\A(?:HTTP\/1\.1 103 Early Hints\r\nLink: <\/a>\r\n\r\n){3}HTTP\/1\.1 200 OK\r\n/ ],
	nul_header => [ '', OPEN, qr/\r\nX-Nul: a\0b\r\n/ ],
	bare_cr_header => [ '', OPEN, qr/\r\nX-Return: a\rX-Second: b\r\n/ ],
	bare_lf => [ '', CLOSED, qr/\AHTTP\/1\.1 200 OK\nX-Feed: a\nContent-Length: 2\n\nok\z/ ],
	folded_header => [ '', OPEN, qr/\r\nX-Folded: a\r\n  b\r\n/ ],
	no_colon_header => [ '', OPEN, qr/\r\nX-Nothing\r\n/ ],
	binary_header => [ '', OPEN, qr/\r\nX-Binary: \xff\xfe\x80\r\n/ ],
	repeated_header => [ '', OPEN, qr/X-Repeated: 1\r\nX-Repeated: 2\r\nX-Repeated: 3\r\n/ ],
	conflicting_length => [ '', CLOSED, qr/\r\nContent-Length: 2\r\nContent-Length: 20\r\n\r\nok\z/ ],
	length_and_chunked => [ '', OPEN, qr/\r\nContent-Length: 200\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n\z/ ],
	negative_length => [ '', CLOSED, qr/\r\nContent-Length: -5\r\n\r\nok\z/ ],
	huge_length => [ '', CLOSED, qr/\r\nContent-Length: 9{23}\r\n\r\nok\z/ ],
	bad_length => [ '', CLOSED, qr/\r\nContent-Length: two\r\n\r\nok\z/ ],
	bad_type => [ '', OPEN, qr/\r\nContent-Type: \xff;;=,\x01\r\n/ ],
	authenticate => [ '', OPEN, qr/\AHTTP\/1\.1 401 .*\r\nWWW-Authenticate: Negotiate\r\nWWW-Authenticate: NTLM\r\n/s ],
	cookie => [ '', OPEN, qr/\r\nSet-Cookie: a=b/ ],
	upgrade => [ '', OPEN, qr/\AHTTP\/1\.1 101 .*\r\n\r\n\x81\x02hi\z/s ],
	http09 => [ '', CLOSED, qr/\A<html>hello<\/html>\n\z/ ],
	bad_status_line => [ '', CLOSED, qr/\AHTTP\/1\.1 two hundred\r\n/ ],
	bad_status => [ '', CLOSED, qr/\AHTTP\/1\.1 99999 / ],
	bad_version => [ '', CLOSED, qr/\AHTTP\/7\.3 200 / ],
	http2_bytes => [ '', CLOSED, qr/\A\0\0\x12\x04\0/ ],
	garbage => [ '', CLOSED, qr/\A\0\x01.*\xff\z/s ],
	no_content_with_body => [ '', OPEN, qr/\AHTTP\/1\.1 204 .*\r\n\r\nbody\z/s ],
	not_modified => [ '', OPEN, qr/\AHTTP\/1\.1 304 / ],
	short_body => [ '', CLOSED, qr/\r\nContent-Length: 100\r\n\r\nonly some\z/ ],
	long_body => [ '', OPEN, qr/\r\nContent-Length: 2\r\n\r\nokHTTP\/1\.1 500 / ],
	bad_chunk_size => [ '', CLOSED, qr/\r\n\r\nzz\r\nok\r\n0\r\n\r\n\z/ ],
	negative_chunk => [ '', CLOSED, qr/\r\n\r\n-2\r\nok\r\n0\r\n\r\n\z/ ],
	chunk_overflow => [ '', CLOSED, qr/\r\n\r\nf{17}\r\nok\r\n/ ],
	short_chunk => [ '', CLOSED, qr/\r\n\r\n64\r\nonly some\z/ ],
	chunk_hang => [ '', OPEN, qr/\r\n\r\n64\r\nonly some\z/ ],
	no_last_chunk => [ '', CLOSED, qr/\r\n\r\n2\r\nok\r\n\z/ ],
	trailer => [ '', OPEN, qr/\r\n\r\n2\r\nok\r\n0\r\nX-Trailer: yes\r\n\r\n\z/ ],
	gzip => [ '', OPEN, sub { Compress::Zlib::memGunzip(body($_[0])) eq '{"ok":true}' } ],
	gzip_bomb => [ '', OPEN, \&is_bomb, 4_000_000 ],
	bad_gzip => [ '', OPEN, qr/\r\nContent-Encoding: gzip\r\n.*\r\n\r\nno gzip at all\z/s ],
	many_encodings => [ '', OPEN, qr/\r\nContent-Encoding: (?:gzip, ){999}gzip\r\n/ ],
	unknown_encoding => [ '', OPEN, qr/\r\nContent-Encoding: rot13\r\n/ ],
	nul_bytes => [ '', OPEN, qr/${ok}a\0b\z/ ],
	invalid_utf8 => [ '', OPEN, qr/charset=utf-8\r\n.*\r\n\r\na\xff\xfeb\xc3\z/s ],
	latin1 => [ '', OPEN, qr/charset=iso-8859-1\r\n.*\r\n\r\ncaf\xe9\z/s ],
	utf16 => [ '', OPEN, qr/charset=utf-16\r\n.*\r\n\r\n\xff\xfeo\0k\0\z/s ],
	bad_charset => [ '', OPEN, qr/charset=\xff'"\\\r\n/ ],
	deep_json => [ '/1000', OPEN, qr/${ok}\[{1000}]{1000}\z/ ],
	json_nul => [ '', OPEN, qr/${ok}\{"a":"b\\u0000c"}\z/ ],
	json_surrogate => [ '', OPEN, qr/${ok}\{"a":"\\ud800"}\z/ ],
	json_number => [ '', OPEN, qr/${ok}\{"a":1e999999}\z/ ],
	json_invalid_utf8 => [ '', OPEN, qr/${ok}\{"a":"\xff"}\z/ ],
	json_broken => [ '', OPEN, qr/${ok}\{"a":\z/ ],
	json_html => [ '', OPEN, qr/\r\nContent-Type: application\/json\r\n.*\r\n\r\n<html>/s ],
	json_scalar => [ '', OPEN, qr/${ok}17\z/ ],
	json_empty => [ '', OPEN, qr/${ok}\z/ ],
	json_twice => [ '', OPEN, qr/${ok}\{"a":1,"a":2}\z/ ],
	reset => [ '', RESET, qr/\A\z/ ],
	reset_header => [ '', RESET, qr/\r\nX-Some\z/ ],
	reset_body => [ '', RESET, qr/\r\nContent-Length: 100\r\n\r\nonly some\z/ ],
	close => [ '', CLOSED, qr/\A\z/ ],
	close_header => [ '', CLOSED, qr/\r\nX-Some\z/ ],
	close_after => [ '', CLOSED, qr/$ok\{"ok":true}\z/ ],
	close_at_second => [ '', OPEN, $ok ],
	talk_after => [ '', OPEN, qr/$ok\{"ok":true}HTTP\/1\.1 408 / ],
	redirect => [ '/307/' . encode_base64url('file:///etc/passwd'), OPEN, qr/\AHTTP\/1\.1 307 .*\r\nLocation: file:\/\/\/etc\/passwd\r\n/s ],
	redirect_loop => [ '', OPEN, qr/\AHTTP\/1\.1 302 Found\r\nLocation: \/redirect_loop\r\n/ ],
	redirect_chain => [ '/2', OPEN, qr/\r\nLocation: \/redirect_chain\/1\r\n/ ],
	redirect_nowhere => [ '', OPEN, qr/\AHTTP\/1\.1 302 Found\r\nContent-Length: 0\r\n\r\n\z/ ],
	redirect_garbage => [ '', OPEN, qr/\r\nLocation: http:\/\/\x01 \[::\/\xff\r\n/ ],
);

sub is_bomb
{
	my ($inflate) = Compress::Zlib::inflateInit(-WindowBits => Compress::Zlib::WANT_GZIP());
	my ($input, $size) = (body($_[0]), 0);
	while (length $input)
	{
		my $piece = substr $input, 0, 1000, '';
		my ($out, $status) = $inflate->inflate(\$piece);
		$size += length $out;
		last if $status == Compress::Zlib::Z_STREAM_END();
		return 0 if $status != Compress::Zlib::Z_OK();
	}
	return $size == 2**30 && length $_[0] < 2_000_000;
}

is_deeply([ sort keys %expected ], [ JobQueue::HttpBehaviours::names() ], 'every behaviour is tested');
cmp_ok(scalar keys %expected, '>=', 30, 'and there are enough of them');

# All at once: what stays open is known by its silence.
my %answer;
my $select = IO::Select->new;
for my $name (sort keys %expected)
{
	my $socket = connection() or die "could not connect: $!";
	send_request($socket, "/$name$expected{$name}[0]");
	$answer{$name} = { socket => $socket, end => OPEN, bytes => '' };
	$answer{ fileno $socket } = $answer{$name};
	$answer{$name}{limit} = $expected{$name}[3] // PLENTY;
	$select->add($socket);
}
while (my @ready = $select->can_read(1))
{
	for my $socket (@ready)
	{
		my $answer = $answer{ fileno $socket };
		my $length = sysread $socket, $answer->{bytes}, 65536, length $answer->{bytes};
		next if $length && length $answer->{bytes} < $answer->{limit};
		$answer->{end} = $length ? MORE : defined $length ? CLOSED : RESET;
		$select->remove($socket);
	}
}
for my $name (sort keys %expected)
{
	my (undef, $end, $what) = @{ $expected{$name} };
	my $bytes = $answer{$name}{bytes};
	is($answer{$name}{end}, $end, "$name: $end");
	ok(ref $what eq 'CODE' ? $what->($bytes) : $bytes =~ $what, "$name: as expected")
	  or diag(substr($bytes, 0, 300) =~ s/[^\n -~]/./gr);
}
%answer = ();
undef $select;
like((ask('/unheard_of'))[1], qr/\AHTTP\/1\.1 404 .*there is no "\/unheard_of"/s, 'what is not known is not found');

# ---- those that remember ----

my @key = (headers => ['Idempotency-Key: a']);
is(join(' ', map { (ask('/flaky/2', @key))[1] =~ /\A\S+ (\d+)/ } 1 .. 3), '503 503 200', 'flaky for a key');
like((ask('/flaky/2', headers => ['Idempotency-Key: b']))[1], qr/\A\S+ 503/, 'another key has its own count');
is_deeply({ $server->count_by_key('/flaky/2') }, { a => 3, b => 1 }, 'the server knows how often a key came');
like((ask('/retry_after/503/1/+60'))[1], qr/\r\nRetry-After: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n/, 'Retry-After with a date');
like((ask('/retry_after/429/1/17'))[1], $ok, 'is for once');
my $waiting = connection();
send_request($waiting, '/gate/one');
is_deeply([ receive($waiting, 1) ], [ OPEN, '' ], 'a gate is closed');
$server->open_gate('one');
like((receive($waiting, 1000))[1], $ok, 'until it is opened');
my $kept = connection();
send_request($kept, '/close_at_second');
like((receive($kept, 1000))[1], $ok, 'a connection is kept');
send_request($kept, '/close_at_second');
is_deeply([ receive($kept, 1000) ], [ CLOSED, '' ], 'and closed when the next request comes');

# ---- what it knows of requests ----

my $before = $server->count;
my $one = connection('second');
send_request($one, '/echo?a=b', body => "\0\xff\r\n", method => 'PUT', headers => [ 'X-A: 1', 'x-a: 2', 'Expect: 100-continue' ]);
my (undef, $bytes) = receive($one, 10000);
like($bytes, qr/\AHTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 OK\r\n/, 'who asks whether to go on may go on');
is(decode_json(body(body($bytes)))->{body}, "\0\xff\r\n", 'echo says what came');
send_request($one, '/ok', method => 'HEAD');
like((receive($one, 10000))[1], qr/${ok}\z/, 'HEAD gets no body');
my ($first, $second) = ($server->requests)[-2, -1];
is($server->count, $before + 2, 'requests are counted');
is_deeply([ @{$first}{qw(port method target path query version body)} ], [ 'second', 'PUT', '/echo?a=b', '/echo', 'a=b', 'HTTP/1.1', "\0\xff\r\n" ], 'and known');
is_deeply($first->{headers}, { host => '127.0.0.1', 'content-length' => 4, 'x-a' => '1, 2', expect => '100-continue' }, 'with their headers');
is_deeply($first->{header_list}[3], [ 'x-a', '2' ], 'as they came');
is($first->{connection}, $second->{connection}, 'a connection has a number');
isnt($first->{connection}, ($server->requests)[-3]{connection}, 'of its own');
cmp_ok(abs($second->{at} - time), '<', 60, 'and requests a time');
$one->close;
my $chunks = connection();
print $chunks "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
$chunks->flush;
is_deeply([ receive($chunks, 1) ], [ OPEN, '' ], 'half a request gets no answer');
print $chunks "2\r\nde\r\n0\r\n\r\n";
$chunks->flush;
like((receive($chunks, 1000))[1], qr/"body":"abcde"/, 'a request may come in chunks');
like((ask('/ok', headers => ['Connection: close']))[1], $ok, 'who wants the connection closed');
is((ask('/ok', headers => ['Connection: close']))[0], CLOSED, 'gets it closed');

# ---- ports ----

is((ask('/ok', port => 'mute'))[0], OPEN, 'mute says nothing');
ok(!connection('deaf', 0.5), 'deaf does not accept');
ok($!{ETIMEDOUT}, 'so that a connection does not come about');
ok(!connection('shut'), 'shut refuses');
ok($!{ECONNREFUSED}, 'at once');
my $rude = connection('rude');
is($rude ? (receive($rude, 1))[0] : $!{ECONNRESET} && RESET, RESET, 'rude resets');
is_deeply([ receive(connection('chatty'), 1000) ], [ OPEN, "220 mail.example ESMTP\r\n" ], 'chatty speaks first');
is($server->url('/ok', 'second'), 'http://127.0.0.1:' . $server->port('second') . '/ok', 'a URL');
like((ask(path_of($server->redirect_url(302, 'ftp://a/'))))[1], qr/\r\nLocation: ftp:\/\/a\/\r\n/, 'of a redirect');
is((ask(path_of($server->raw_url('ab'))))[1], 'ab', 'of bytes');

# ---- many connections ----

my @open = map { connection() } 1 .. 500;
is(scalar @open, 500, 'five hundred connections');
send_request($_, '/hang') for @open;
my $started = time;
like((ask('/ok', limit => 60))[1], qr/\AHTTP\/1\.1 200/, 'another is served beside them');
cmp_ok(time - $started, '<', 1, 'promptly');
cmp_ok($server->open_connections, '>=', 500, 'the server knows how many there are');
$_->close for @open;
@open = ();
my $until = time + 60;
sleep 0.01 while $server->open_connections > 20 && time < $until;
cmp_ok($server->open_connections, '<', 20, 'and how many are left');

# ---- an end ----

my $port = $server->port;
$server->stop;
ok(!connection(), 'a server that has stopped is gone');
$server = JobQueue::HttpServer->start(port => $port);
like((ask('/ok'))[1], $ok, 'another can take its port');
is($server->count, 1, 'and has not seen anything yet');

# ---- TLS ----

SKIP:
{
	my $certificates = JobQueue::Certificates->new or skip 'no openssl', 1;
	my %tls = map { $_ => $certificates->server($_) } grep { $certificates->has($_) } qw(valid expired early wrong_host self_signed no_server chain);
	is(scalar keys %tls, 7, 'certificates of all kinds');
	my $secure = JobQueue::HttpServer->start(tls => { %tls, old => [ @{ $tls{valid} }, @JobQueue::Certificates::old_protocol ] });
	my $say = sub {
		my ($name, @arguments) = @_;
		my $file = PostgreSQL::Test::Utils::tempdir() . '/request';
		append_to_file($file, "POST /echo/$name HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi");
		return qx{(cat '$file'; sleep 0.5) | openssl s_client -connect 127.0.0.1:${\ $secure->port($name)} -CAfile '${\ $certificates->ca}' -verify_hostname localhost @arguments 2>&1};
	};
	my %verified = (valid => qr/0 \(ok\)/, chain => qr/0 \(ok\)/, expired => qr/10 \(/, early => qr/9 \(/, wrong_host => qr/62 \(/, self_signed => qr/18 \(/, no_server => qr/26 \(/);
	for my $name (sort keys %verified)
	{
		my $said = $say->($name);
		like($said, qr/Verif[a-z]* return code: $verified{$name}/, "TLS: $name");
		like($said, qr/HTTP\/1\.1 200 OK\r\nConnection: close\r\n.*"body":"hi"/s, "$name: answers");
	}
	is($secure->count('/echo/valid'), 1, 'requests over TLS are known');
	like($secure->url('/ok', 'valid'), qr/\Ahttps:/, 'and their URL');
	unlike($say->('old'), qr/HTTP\/1\.1 200/, 'an old protocol is not spoken any more');
	like($say->('old', @JobQueue::Certificates::old_protocol), qr/HTTP\/1\.1 200/, 'but where it is wanted');
	is($secure->count('/echo/old'), 1, 'and then works');
	unlike($say->('valid', '-CAfile', $certificates->other_ca), qr/return code: 0 /, 'another authority does not do');
}

# ---- names ----

SKIP:
{
	my $resolver = JobQueue::Resolver->new or skip 'no compiler for the library that looks up names', 1;
	my $look_up = sub {
		my ($name) = @_;
		my $program = q{my ($e, @a) = getaddrinfo($ARGV[0], 80, { socktype => 1 });
			print $e ? "error " . $e : join ",", map { (getnameinfo($_->{addr}, NI_NUMERICHOST | NI_NUMERICSERV))[1] } @a};
		return $resolver->run(sub { qx{$^X '-MSocket=:addrinfo' -e '$program' $name} });
	};
	is($look_up->('a.test'), 'error Name or service not known', 'a name that is not set');
	$resolver->set('a.test', '127.0.0.1');
	is($look_up->('a.test'), '127.0.0.1', 'a name');
	is($look_up->('127.0.0.9'), '127.0.0.9', 'others pass');
	$resolver->set('b.test', '192.0.2.1,127.0.0.1,2001:db8::1');
	is($look_up->('b.test'), '192.0.2.1,127.0.0.1,2001:db8::1', 'several addresses');
	$resolver->set('c.test', '192.0.2.1', '127.0.0.1');
	is(join(' ', map { $look_up->('c.test') } 1 .. 3), '192.0.2.1 127.0.0.1 127.0.0.1', 'another at the second time');
	is($resolver->lookups('c.test'), 3, 'counted');
	$resolver->set('c.test', 'again');
	is($look_up->('c.test'), 'error Temporary failure in name resolution', 'a failure');
	$resolver->set('c.test', 'none');
	is($look_up->('c.test'), 'error Name or service not known', 'no such name');
	$resolver->set('d.test', 'after=300', '127.0.0.1');
	$started = time;
	is($look_up->('d.test'), '127.0.0.1', 'late');
	cmp_ok(time - $started, '>=', 0.3, 'as late as set');
	$resolver->set('e.test', 'hang', '127.0.0.1');
	my $pid = fork // die "could not fork: $!";
	if ($pid == 0)
	{
		require POSIX;
		POSIX::_exit($look_up->('e.test') eq '127.0.0.1' ? 0 : 1);
	}
	$until = time + 60;
	sleep 0.01 while $resolver->lookups('e.test') == 0 && time < $until;
	is($resolver->lookups('e.test'), 1, 'a look-up hangs');
	is(waitpid($pid, POSIX::WNOHANG()), 0, 'without an answer');
	$resolver->set('e.test', '127.0.0.2');
	waitpid $pid, 0;
	is($?, 0, 'until the name is set again');
}
$server->stop;
done_testing();
