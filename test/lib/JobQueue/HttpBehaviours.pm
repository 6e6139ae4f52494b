# What JobQueue::HttpServer does at which path. names() lists all, add() adds to
# them; the arguments that a path may have behind the name are in the comments.
package JobQueue::HttpBehaviours;

use strict;
use warnings;
use Compress::Zlib ();
use JSON::PP ();
use MIME::Base64 qw(decode_base64url);
use POSIX qw(strftime);

my %reason = (200 => 'OK', 302 => 'Found', 404 => 'Not Found', 429 => 'Too Many Requests', 503 => 'Service Unavailable');
my $begin = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n";
my $chunked = "${begin}Transfer-Encoding: chunked\r\n\r\n";
my $json = JSON::PP->new->ascii->canonical;

# An answer with a body of the right length, as one string of bytes.
sub _answer
{
	my ($status, $body, @header) = @_;

	$body //= '';
	my $reason = $reason{$status} // 'Whatever';
	return join '', "HTTP/1.1 $status $reason\r\n", (map { "$_\r\n" } @header),
	  'Content-Length: ' . length($body) . "\r\n\r\n", $body;
}

sub _text { return _answer(200, $_[0], 'Content-Type: text/plain' . ($_[1] // '')) }
sub _json { return _answer(200, $_[0], 'Content-Type: application/json') }

# For those that add() brings.
sub answer_json { return _json($json->encode($_[0])) }

# Bytes that end with the connection.
sub _closing { return ([ send => $_[0] ], ['close']) }

# A billion zeros and more, 2 ** 30 of them, in a megabyte: blocks of a stream of
# deflate that end on a byte can be repeated.
sub _gzip_bomb
{
	my ($deflate) = Compress::Zlib::deflateInit(-WindowBits => -Compress::Zlib::MAX_WBITS());
	my $flush = sub { my ($out) = $deflate->flush($_[0]); return $out };
	my ($first) = $deflate->deflate("\0" x 2**20);
	$first .= $flush->(Compress::Zlib::Z_FULL_FLUSH());
	my ($block) = $deflate->deflate("\0" x 2**20);
	$block .= $flush->(Compress::Zlib::Z_FULL_FLUSH());
	my $end = $flush->(Compress::Zlib::Z_FINISH());
	return "\x1f\x8b\x08\0\0\0\0\0\0\x03" . $first . $block x 1023 . $end . pack('VV', 0x5b64c2b0, 2**30);
}

# Name => code that gets the server, the request and the arguments, and returns
# the steps of JobQueue::HttpLoop.
my %behaviour = (

	# ---- as it should be ----

	ok => sub { [ send => _json('{"ok":true}') ] },
	text => sub { [ send => _text('fine') ] },
	empty => sub { [ send => _answer(200) ] },
	no_content => sub { [ send => "HTTP/1.1 204 No Content\r\n\r\n" ] },

	# STATUS
	status => sub { [ send => _answer($_[2], "status $_[2]", 'Content-Type: text/plain') ] },

	# what came, as JSON
	echo => sub {
		my $r = $_[1];
		my @header = map { [ split /:[ ]?/, $_, 2 ] } grep { length } split /\r\n/, $r->{head} =~ s/\A.*?\r\n//sr;
		return [ send => _json($json->encode({ method => $r->{method}, target => $r->{target}, headers => \@header, body => $r->{body} })) ];
	},

	# BASE64URL: these bytes
	raw => sub { _closing(decode_base64url($_[2])) },

	# NAME: when the test opens it
	gate => sub { ([ gate => "$_[0]{dir}/gate-$_[2]" ], [ send => _json('{"ok":true}') ]) },

	# MILLISECONDS
	late => sub { ([ wait => $_[2] / 1000 ], [ send => _json('{"ok":true}') ]) },

	# BYTES of text, of JSON
	text_size => sub { [ send => _text('a' x $_[2]) ] },
	json_size => sub { [ send => _json('"' . 'a' x ($_[2] - 2) . '"') ] },

	# TIMES, [STATUS]: fails as often for each Idempotency-Key, or path
	flaky => sub {
		my ($server, $request, $times, $status) = @_;
		return [ send => _answer($status // 503, 'not yet') ] if $server->_asked($request) <= $times;
		return [ send => _json('{"ok":true}') ];
	},

	# STATUS, TIMES, VALUE: with a Retry-After; VALUE "+N" is a date in N seconds
	retry_after => sub {
		my ($server, $request, $status, $times, $value) = @_;
		return [ send => _json('{"ok":true}') ] if $server->_asked($request) > $times;
		$value = strftime('%a, %d %b %Y %H:%M:%S GMT', gmtime(time + $1)) if $value =~ /\A\+(\d+)\z/;
		return [ send => _answer($status, 'later', "Retry-After: $value") ];
	},

	# ---- slow, or never ----

	hang => sub { ['hang'] },
	hang_header => sub { ([ send => "${begin}X-Some" ], ['hang']) },
	hang_body => sub { ([ send => "${begin}Content-Length: 100\r\n\r\nbegin" ], ['hang']) },
	slow_header => sub { ([ send => "${begin}X-Slow: " ], [ drip => 'a', 0.05 ]) },
	slow_body => sub { ([ send => "${begin}Content-Length: 1000000\r\n\r\n" ], [ drip => 'a', 0.05 ]) },
	endless_body => sub { ([ send => "${begin}\r\n" ], [ endless => 'a' x 65536 ]) },
	endless_chunks => sub { ([ send => $chunked ], [ endless => "4000\r\n" . 'a' x 0x4000 . "\r\n" ]) },
	endless_headers => sub { ([ send => $begin ], [ endless => "X-Endless: header\r\n" x 1000 ]) },
	endless_header_line => sub { ([ send => "${begin}X-Endless: " ], [ endless => 'a' x 65536 ]) },
	endless_status_line => sub { ([ send => 'HTTP/1.1 200 ' ], [ endless => 'a' x 65536 ]) },
	endless_continue => sub { [ endless => "HTTP/1.1 100 Continue\r\n\r\n" x 1000 ] },
	endless_early_hints => sub { [ endless => "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n" x 1000 ] },
	endless_trailer => sub { ([ send => "${chunked}2\r\nok\r\n0\r\n" ], [ endless => "X-Endless: trailer\r\n" x 1000 ]) },
	endless_extension => sub { ([ send => "${chunked}2;" ], [ endless => 'a' x 65536 ]) },

	# ---- headers ----

	# BYTES of one header's value; NUMBER of headers
	header_size => sub { [ send => _answer(200, 'ok', 'X-Large: ' . 'a' x $_[2]) ] },
	many_headers => sub { [ send => _answer(200, 'ok', map { "X-Header-$_: value" } 1 .. $_[2]) ] },
	early_hints => sub { [ send => "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" x 3 . _json('{"ok":true}') ] },
	nul_header => sub { [ send => _answer(200, 'ok', "X-Nul: a\0b") ] },
	bare_cr_header => sub { [ send => _answer(200, 'ok', "X-Return: a\rX-Second: b") ] },
	bare_lf => sub { _closing("HTTP/1.1 200 OK\nX-Feed: a\nContent-Length: 2\n\nok") },
	folded_header => sub { [ send => _answer(200, 'ok', "X-Folded: a\r\n  b") ] },
	no_colon_header => sub { [ send => _answer(200, 'ok', 'X-Nothing') ] },
	binary_header => sub { [ send => _answer(200, 'ok', "X-Binary: \xff\xfe\x80") ] },
	repeated_header => sub { [ send => _answer(200, 'ok', map { "X-Repeated: $_" } 1 .. 3) ] },
	conflicting_length => sub { _closing("${begin}Content-Length: 2\r\nContent-Length: 20\r\n\r\nok") },
	length_and_chunked => sub { [ send => "${begin}Content-Length: 200\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" ] },
	negative_length => sub { _closing("${begin}Content-Length: -5\r\n\r\nok") },
	huge_length => sub { _closing("${begin}Content-Length: 99999999999999999999999\r\n\r\nok") },
	bad_length => sub { _closing("${begin}Content-Length: two\r\n\r\nok") },
	bad_type => sub { [ send => _answer(200, 'ok', "Content-Type: \xff;;=,\x01") ] },
	authenticate => sub { [ send => _answer($_[2] // 401, 'who?', 'WWW-Authenticate: Negotiate', 'WWW-Authenticate: NTLM', 'WWW-Authenticate: Digest realm="x", nonce="y"', 'Proxy-Authenticate: Basic realm="x"') ] },
	cookie => sub { [ send => _answer(200, 'ok', 'Set-Cookie: a=b; Path=/', 'Alt-Svc: h2="127.0.0.1:1"; ma=86400', 'Strict-Transport-Security: max-age=86400') ] },
	upgrade => sub { ([ send => "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x02hi" ], ['hang']) },

	# ---- what is no HTTP ----

	http09 => sub { _closing("<html>hello</html>\n") },
	bad_status_line => sub { _closing("HTTP/1.1 two hundred\r\n\r\nok") },
	bad_status => sub { _closing("HTTP/1.1 99999 OK\r\n\r\nok") },
	bad_version => sub { _closing("HTTP/7.3 200 OK\r\nContent-Length: 2\r\n\r\nok") },
	http2_bytes => sub { _closing("\0\0\x12\x04\0\0\0\0\0" . "\0" x 18) },
	garbage => sub { _closing(join '', map { chr } 0 .. 255) },

	# ---- bodies ----

	no_content_with_body => sub { [ send => "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nbody" ] },
	not_modified => sub { [ send => "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n" ] },
	short_body => sub { _closing("${begin}Content-Length: 100\r\n\r\nonly some") },
	long_body => sub { [ send => "${begin}Content-Length: 2\r\n\r\nokHTTP/1.1 500 Smuggled\r\nContent-Length: 0\r\n\r\n" ] },
	bad_chunk_size => sub { _closing("${chunked}zz\r\nok\r\n0\r\n\r\n") },
	negative_chunk => sub { _closing("${chunked}-2\r\nok\r\n0\r\n\r\n") },
	chunk_overflow => sub { _closing("${chunked}fffffffffffffffff\r\nok\r\n0\r\n\r\n") },
	short_chunk => sub { _closing("${chunked}64\r\nonly some") },
	chunk_hang => sub { ([ send => "${chunked}64\r\nonly some" ], ['hang']) },
	no_last_chunk => sub { _closing("${chunked}2\r\nok\r\n") },
	trailer => sub { [ send => "${chunked}2\r\nok\r\n0\r\nX-Trailer: yes\r\n\r\n" ] },
	gzip => sub { [ send => _answer(200, Compress::Zlib::memGzip('{"ok":true}'), 'Content-Type: application/json', 'Content-Encoding: gzip') ] },
	gzip_bomb => sub { [ send => _answer(200, $_[0]->_bomb, 'Content-Type: text/plain', 'Content-Encoding: gzip') ] },
	bad_gzip => sub { [ send => _answer(200, 'no gzip at all', 'Content-Encoding: gzip') ] },
	many_encodings => sub { [ send => _answer(200, 'ok', 'Content-Encoding: ' . join ', ', ('gzip') x 1000) ] },
	unknown_encoding => sub { [ send => _answer(200, 'bx', 'Content-Encoding: rot13') ] },
	nul_bytes => sub { [ send => _text("a\0b") ] },
	invalid_utf8 => sub { [ send => _text("a\xff\xfeb\xc3", '; charset=utf-8') ] },
	latin1 => sub { [ send => _text("caf\xe9", '; charset=iso-8859-1') ] },
	utf16 => sub { [ send => _text("\xff\xfeo\0k\0", '; charset=utf-16') ] },
	bad_charset => sub { [ send => _text('ok', "; charset=\xff'\"\\") ] },

	# LEVELS
	deep_json => sub { [ send => _json('[' x $_[2] . ']' x $_[2]) ] },
	json_nul => sub { [ send => _json('{"a":"b\u0000c"}') ] },
	json_surrogate => sub { [ send => _json('{"a":"\ud800"}') ] },
	json_number => sub { [ send => _json('{"a":1e999999}') ] },
	json_invalid_utf8 => sub { [ send => _json("{\"a\":\"\xff\"}") ] },
	json_broken => sub { [ send => _json('{"a":') ] },
	json_html => sub { [ send => _json('<html>503 but with status 200</html>') ] },
	json_scalar => sub { [ send => _json('17') ] },
	json_empty => sub { [ send => _json('') ] },
	json_twice => sub { [ send => _json('{"a":1,"a":2}') ] },

	# ---- connections ----

	reset => sub { ['reset'] },
	reset_header => sub { ([ send => "${begin}X-Some" ], [ wait => 0.05 ], ['reset']) },
	reset_body => sub { ([ send => "${begin}Content-Length: 100\r\n\r\nonly some" ], [ wait => 0.05 ], ['reset']) },
	close => sub { ['close'] },
	close_header => sub { _closing("${begin}X-Some") },

	# promises to stay, but does not
	close_after => sub { _closing(_json('{"ok":true}')) },

	# answers the first request of a connection, and closes at the next
	close_at_second => sub { $_[1]{number} == 1 ? [ send => _json('{"ok":true}') ] : ['close'] },

	# speaks on when nothing was asked
	talk_after => sub { [ send => _json('{"ok":true}') . "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n" ] },

	# ---- redirects ----

	# STATUS, LOCATION as base64url: see redirect_url() of the server
	redirect => sub { [ send => _answer($_[2], '', 'Location: ' . decode_base64url($_[3])) ] },
	redirect_loop => sub { [ send => _answer(302, '', 'Location: /redirect_loop') ] },

	# HOPS
	redirect_chain => sub { [ send => _answer(302, '', 'Location: ' . ($_[2] > 1 ? '/redirect_chain/' . ($_[2] - 1) : '/echo')) ] },
	redirect_nowhere => sub { [ send => _answer(302) ] },
	redirect_garbage => sub { [ send => _answer(302, '', "Location: http://\x01 [::/\xff") ] },
);

sub new
{
	my ($class, $dir) = @_;

	return bless { dir => $dir, asked => {} }, $class;
}

# More of them, of a test's own: name => code, as above. For servers that start later.
sub add
{
	my (%more) = @_;

	@behaviour{ keys %more } = values %more;
	return;
}

sub names { my @names = sort keys %behaviour; return @names }

sub script
{
	my ($self, $request) = @_;

	my (undef, $name, @arguments) = split m{/}, $request->{target} =~ s/\?.*//sr;
	my $behaviour = $behaviour{ $name // '' } or return [ send => _answer(404, "there is no \"$request->{target}\"\n") ];
	my @steps = $behaviour->($self, $request, @arguments);
	if ($request->{method} eq 'HEAD')
	{
		$_->[0] eq 'send' and $_->[1] =~ s/\r\n\r\n\K.*//s for @steps;
	}
	return @steps;
}

# How often the request has come, this time included.
sub _asked
{
	my ($self, $request) = @_;

	my ($key) = $request->{head} =~ /\r\nIdempotency-Key:[ ]*([^\r\n]*)\r\n/i;
	return ++$self->{asked}{ $request->{target} . ' ' . ($key // '') };
}

# Made when it is wanted first.
sub _bomb
{
	my ($self) = @_;

	return $self->{bomb} //= _gzip_bomb();
}

1;
