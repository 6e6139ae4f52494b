# What HTTP requests are made with, function by function: lists of hosts and
# addresses, URLs, headers, placeholders, signatures, forms, Retry-After. The
# functions are called through test/http/units.c, which finds them in the library
# that the server has loaded.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($include) = run_command([ 'pg_config', '--includedir-server' ]);
my $dir = PostgreSQL::Test::Utils::tempdir();
my $top = "$FindBin::RealBin/../..";
plan skip_all => 'no compiler for the functions that call the library'
  if system("cc -shared -fPIC -O -I '$include' -I '$top/src' -o '$dir/units.so' '$top/test/http/units.c' 2>'$dir/units.log'") != 0;

my $node = JobQueue::Cluster->new('main', conf => 'jobqueue.launcher = off');
my $seed = $ENV{TEST_SEED} // time;
note "TEST_SEED=$seed";
my $functions = '';
for (
	'address_is_allowed(text, text) RETURNS boolean', 'address_list_flaw(text) RETURNS text',
	'host_list_has(text, text) RETURNS boolean', 'port_list_has(text, integer) RETURNS boolean',
	'url_parts(text) RETURNS text', 'header_flaw(text, text) RETURNS text', 'headers_check(jsonb) RETURNS void', 'method_check(text) RETURNS void',
	'sign(text, text, text, bigint, bytea) RETURNS text', 'secret_flaw(text) RETURNS text',
	'template_check(text, integer) RETURNS void', 'template_check_jsonb(jsonb, integer) RETURNS void', 'template_check_url(text) RETURNS void',
	'template_has(jsonb, integer) RETURNS boolean', 'retry_after(text, timestamptz) RETURNS timestamptz',
	'percent_encode(text) RETURNS text', 'form_encode(jsonb) RETURNS text', 'base64_decode(text) RETURNS text')
{
	my ($name) = /^(\w+)/;
	$functions .= "CREATE FUNCTION units.$_ STRICT LANGUAGE c AS '$dir/units', '$name';\n";
}
for ('template_fill(text, boolean, jsonb, jsonb) RETURNS text', 'template_fill_jsonb(jsonb, jsonb, jsonb) RETURNS text')
{
	my ($name) = /^(\w+)/;
	$functions .= "CREATE FUNCTION units.$_ LANGUAGE c AS '$dir/units', '$name';\n";
}
$node->safe_psql('postgres', "CREATE SCHEMA units; $functions");
$node->safe_psql('postgres', q{
	ALTER DATABASE postgres SET search_path = units, public;
	ALTER DATABASE postgres SET TimeZone = 'UTC';
	-- What a call says: null when nothing is wrong, else the error.
	CREATE FUNCTION units.outcome(call text) RETURNS text LANGUAGE plpgsql AS $$
	DECLARE
		detail text;
	BEGIN
		EXECUTE 'SELECT ' || call;
		RETURN NULL;
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
		RETURN concat_ws(' | ', SQLSTATE, SQLERRM, nullif(detail, ''));
	END $$;
});

sub sql { return $node->safe_psql('postgres', $_[0]) }

sub quote
{
	my ($value) = @_;

	return 'NULL' if !defined $value;
	$value =~ s/'/''/g;
	return "'$value'";
}

# Calls a function with each row of arguments; the last of each is what it says.
# Booleans are "t" and "f", null is the empty string.
sub table
{
	my ($function, $name, @rows) = @_;
	my (@calls, $expected);

	for my $row (@rows)
	{
		my @arguments = @$row;
		my $result = pop @arguments;
		my $arguments = join ', ', map { quote($_) } @arguments;
		push @calls, "SELECT concat($function($arguments), '.')";
		$expected .= "$arguments -> $result\n";
	}
	my @results = split /\n/, sql(join(";\n", @calls)), -1;
	my $got = '';
	for my $row (@rows)
	{
		my @arguments = @$row;
		pop @arguments;
		$got .= join(', ', map { quote($_) } @arguments) . ' -> ' . ((shift(@results) // '(nothing).') =~ s/\.$//r) . "\n";
	}
	is($got, $expected, $name);
	return;
}

# The same of calls that raise errors.
sub outcomes
{
	my ($name, @rows) = @_;

	table('outcome', $name, @rows);
	return;
}

# ---- lists ----

table('host_list_has', 'hosts',
	[ '', 'example.com', 't' ], [ '*', 'example.com', 't' ], [ 'a, *', 'example.com', 't' ], [ 'example.com', 'example.com', 't' ],
	[ 'example.com', 'EXAMPLE.com.', 't' ], [ 'Example.COM', 'example.com', 't' ], [ 'example.com', 'example.com..', 'f' ],
	[ 'example.com', 'www.example.com', 'f' ], [ 'example.com', 'example.com.evil.com', 'f' ], [ 'example.com', 'badexample.com', 'f' ],
	[ '*.example.com', 'www.example.com', 't' ], [ '*.example.com', 'a.b.example.COM.', 't' ], [ '*.example.com', 'example.com', 'f' ],
	[ '*.example.com', '.example.com', 'f' ], [ '*.example.com', 'badexample.com', 'f' ], [ '*.example.com', 'www.example.com.evil.com', 'f' ],
	[ 'a,b , c', 'c', 't' ], [ 'a,b', '', 'f' ], [ '127.0.0.1', '127.0.0.1', 't' ], [ '127.0.0.1', '127.0.0.1.', 't' ],
	[ '::1', '0:0:0:0:0:0:0:1', 't' ], [ '127.0.0.1', '127.0.0.2', 'f' ], [ '127.0.0.1', '::ffff:127.0.0.1', 'f' ], [ 'a', '127.0.0.1', 'f' ], [ 'a@b', 'b', 'f' ]);
table('port_list_has', 'ports',
	[ '80,443', 80, 't' ], [ '80,443', 443, 't' ], [ '80,443', 81, 'f' ], [ '*', 1, 't' ], [ '*', 65535, 't' ], [ '8000-8100 , 1', 8000, 't' ],
	[ '8000-8100', 8100, 't' ], [ '8000-8100', 8101, 'f' ], [ '8000-8100', 7999, 'f' ], [ '00080', 80, 't' ], [ '', 80, 'f' ]);

my @closed = qw(0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.0 100.127.255.255 127.0.0.1 127.255.255.255 169.254.169.254 172.16.0.1 172.31.255.255
  192.0.0.1 192.0.2.1 192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255
  :: ::1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:10.1.2.3 ::ffff:169.254.169.254 64:ff9b::8.8.8.8 64:ff9b:1::1 2002:7f00:1:: 2002:808:808:: 2001::1 2001:1ff::1
  2001:db8::1 3fff::1 100::1 fc00::1 fdff::1 fe80::1 fec0::1 ff02::1 4000::1 unix);
my @open = qw(1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.0.1 169.255.0.1 172.15.255.255 172.32.0.0
  192.0.1.1 192.167.1.1 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255 ::ffff:8.8.8.8 2001:200::1 2001:4860:4860::8888 2606:4700:4700::1111 2003::1 3ffe::1);
table('address_is_allowed', 'addresses', (map { [ '', $_, 'f' ] } @closed), (map { [ '', $_, 't' ] } @open),
	[ '127.0.0.0/8', '127.9.9.9', 't' ], [ '127.0.0.0/8', '10.0.0.1', 'f' ], [ '127.0.0.0/8', '::ffff:127.0.0.1', 't' ], [ '127.0.0.1', '127.0.0.1', 't' ],
	[ '127.0.0.1', '127.0.0.2', 'f' ], [ '127.0.0.0/8', '::1', 'f' ], [ '10.0.0.0/8, ::1', '::1', 't' ], [ '::/0', '::1', 't' ], [ '::/0', '127.0.0.1', 'f' ],
	[ '0.0.0.0/0', '127.0.0.1', 't' ], [ '0.0.0.0/0', '::1', 'f' ], [ '64:ff9b::/96', '64:ff9b::8.8.8.8', 't' ], [ '::/0, 0.0.0.0/0', 'unix', 'f' ],
	[ 'fd00::/9', 'fd7f::1', 't' ], [ 'fd00::/9', 'fd80::1', 'f' ], [ '10.0.0.0/8, nonsense', '10.0.0.1', 'f' ]);

# Against PostgreSQL's own type for networks.
is(sql(qq{
	SELECT setseed($seed / 4294967296.0);
	WITH byte AS MATERIALIZED (
		SELECT n, array_agg((random() * 256)::int % 256) AS b FROM generate_series(1, 20000) n, generate_series(1, 4) GROUP BY n),
	address AS (SELECT array_to_string(CASE WHEN n % 2 = 0 THEN ARRAY[(ARRAY[0,10,100,127,169,172,192,198,203])[1 + n % 9]] || b[2:4] ELSE b END, '.') AS a FROM byte)
	SELECT count(*), count(*) FILTER (WHERE address_is_allowed('', a) AND address_is_allowed('', '::ffff:' || a)) BETWEEN 100 AND 19900,
		string_agg(a, ' ') FILTER (WHERE address_is_allowed('', a) = EXISTS (SELECT FROM unnest(
			'{0/8,10/8,100.64/10,127/8,169.254/16,172.16/12,192.0.0/24,192.0.2/24,192.168/16,198.18/15,198.51.100/24,203.0.113/24,224/3}'::cidr[]) c WHERE c >>= a::inet)
			OR address_is_allowed('', a) <> address_is_allowed('', '::ffff:' || a))
	FROM address}) =~ s/^\n//r, "20000|t|", '20,000 addresses are judged as by the list of closed networks');
is(sql(qq{
	SELECT setseed($seed / 4294967296.0);
	WITH network AS MATERIALIZED (
		SELECT n, network(set_masklen(CASE WHEN n % 2 = 0 THEN '10.0.0.0'::inet + (random() * 16777215)::bigint ELSE 'fd00::'::inet + (random() * 1e15)::bigint END,
			CASE WHEN n % 2 = 0 THEN 8 + (random() * 24)::int ELSE 8 + (random() * 120)::int END)) AS c, (random() * 8)::int AS around
		FROM generate_series(1, 5000) n),
	address AS (SELECT c, a FROM network, LATERAL (VALUES (c::inet), (broadcast(c)), (c::inet - (1 + around)), (broadcast(c) + (1 + around))) v(a)
		WHERE a <<= '10/8' OR a <<= 'fd00::/8')
	SELECT count(*) > 15000, count(*) FILTER (WHERE a <<= c) > 9000,
		string_agg(c::text || '?' || host(a), ' ') FILTER (WHERE address_is_allowed(c::text, host(a)) <> (a <<= c) OR address_list_flaw(c::text) IS NOT NULL)
	FROM address}) =~ s/^\n//r, 't|t|', 'and listed networks end where they should');

# ---- URLs ----

table('url_parts', 'URLs',
	[ 'http://Example.COM', 'http example.com 80 http://example.com:80' ], [ 'HTTPS://example.com./a?b', 'https example.com 443 https://example.com:443' ],
	[ 'https://example.com:80/', 'https example.com 80 https://example.com:80' ], [ 'http://[2606:4700::0001]:8080', 'http 2606:4700::1 8080 http://[2606:4700::1]:8080 address' ],
	[ 'http://0x7f.1', 'http 127.0.0.1 80 http://127.0.0.1:80 address' ], [ 'http://2130706433:00080/', 'http 127.0.0.1 80 http://127.0.0.1:80 address' ],
	[ 'http://0177.0.0.1', 'http 127.0.0.1 80 http://127.0.0.1:80 address' ], [ 'http://0', 'http 0.0.0.0 80 http://0.0.0.0:80 address' ],
	[ 'http://127.0.0.1./', 'http 127.0.0.1 80 http://127.0.0.1:80 address' ], [ 'http://example.com?@evil.com', 'http example.com 80 http://example.com:80' ],
	[ 'http://example.com/@evil.com:81', 'http example.com 80 http://example.com:80' ], [ 'http://a@b', 'The URL has a user name or password: use a header with a secret.' ]);

# What the settings say.
sub with_settings
{
	my ($settings, @rows) = @_;

	$node->append_conf('postgresql.conf', $settings);
	$node->reload;
	my ($name, $value) = $settings =~ /^(\S+) = '(.*)'$/m;
	$node->poll_query_until('postgres', "SELECT current_setting('$name') = '$value'") or die 'no reload';
	table('http_check_url', $settings =~ s/\n/; /gr, @rows);
	return;
}
my $host = 'The host is not in "jobqueue.http_allow_hosts".';
my $port = 'The port is not in "jobqueue.http_allow_ports".';
my $address = 'The address is not public, and not in "jobqueue.http_allow_cidrs".';
with_settings("jobqueue.http_allow_hosts = '*.example.com, 127.0.0.1'\njobqueue.http_allow_ports = '8000-8100'\njobqueue.http_allow_cidrs = '127.0.0.0/8'",
	[ 'http://a.example.com:8000/', '' ], [ 'http://A.EXAMPLE.COM.:8100/', '' ], [ 'http://a.example.com/', $port ], [ 'http://example.com:8000/', $host ],
	[ 'http://a.example.com.evil.com:8000/', $host ], [ 'http://127.1:8000/', '' ], [ 'http://127.0.0.2:8000/', $host ], [ 'http://localhost:8000/', $host ]);
with_settings("jobqueue.http_allow_hosts = ''\njobqueue.http_allow_ports = '*'",
	[ 'http://127.0.0.2:1/', '' ], [ 'http://[::ffff:127.0.0.1]:1/', '' ], [ 'http://[::1]:1/', $address ], [ 'http://10.0.0.1/', $address ], [ 'http://localhost:65535/', '' ]);
with_settings("jobqueue.http_allow_cidrs = ''", [ 'http://localhost', $address ], [ 'http://127.0.0.1', $address ], [ 'http://8.8.8.8:81', '' ]);

# ---- headers ----

my $reserved = 'This header is set by jobqueue, or belongs to the connection.';
my $control = 'The value of a header must not have control characters.';
my $token = 'The name of a header must be letters, digits and "-", or others of the characters that HTTP allows there.';
table('header_flaw', 'headers',
	[ 'Accept', 'text/plain', '' ], [ 'X-a_b!', 'ü', '' ], [ 'Accept', '', '' ], [ '', 'x', 'A header must have a name.' ], [ 'a b', 'x', $token ], [ 'a:', 'x', $token ],
	[ "a\r", 'x', $token ], [ 'ü', 'x', $token ], [ 'a', "b\r\nHost: evil", $control ], [ 'a', "b\n", $control ], [ 'a', "\tb", $control ], [ 'a', "\x7f", $control ],
	(map { [ $_, 'x', $reserved ] } qw(Host HOST content-length Transfer-Encoding connection Upgrade expect TE trailer keep-alive proxy-authorization Proxy-Connection webhook-id webhook-)),
	[ 'proxy', 'x', '' ], [ 'Idempotency-Key', 'x', '' ]);
outcomes('objects of headers',
	[ q{headers_check('{"Accept": "a", "Authorization": "Bearer {{secret.token}}"}')}, '' ], [ q{headers_check('{}')}, '' ],
	[ q{headers_check('[]')}, '22023 | headers must be a JSON object' ], [ q{headers_check('"a"')}, '22023 | headers must be a JSON object' ],
	[ q{headers_check('{"a": 1}')}, '22023 | invalid header "a" in headers | The value of a header must be a JSON string.' ],
	[ q{headers_check('{"a": ["s3cr3t"]}')}, '22023 | invalid header "a" in headers | The value of a header must be a JSON string.' ],
	[ q{headers_check('{"a": "s3cr3t\n"}')}, "22023 | invalid header \"a\" in headers | $control" ], [ q{headers_check('{"host": "a"}')}, "22023 | invalid header \"host\" in headers | $reserved" ],
	[ q{headers_check('{"a": "1", "A": "2"}')}, '22023 | header "a" is given twice in headers' ],
	[ q{headers_check((SELECT jsonb_object_agg('h' || n, 'v') FROM generate_series(1, 64) n))}, '' ],
	[ q{headers_check((SELECT jsonb_object_agg('h' || n + 10, 'v') FROM generate_series(1, 65) n))}, '22023 | invalid header "h75" in headers | A request must not have more than 64 headers.' ],
	[ q{headers_check(jsonb_build_object('a', repeat('v', 16379)))}, '' ],
	[ q{headers_check(jsonb_build_object('a', repeat('v', 16380)))}, '22023 | invalid header "a" in headers | The headers of a request must not be larger than 16 kB.' ],
	[ q{headers_check(jsonb_build_object(repeat('ä', 1000), 'v'))}, '22023 | invalid header "' . 'ä' x 32 . "\" in headers | $token" ],
	[ q{method_check('GET'), method_check('HEAD'), method_check('POST'), method_check('PUT'), method_check('PATCH'), method_check('DELETE'), method_check('OPTIONS')}, '' ],
	map { [ "method_check('$_')", "22023 | invalid HTTP method \"$_\" in method" ] } 'get', 'CONNECT', 'TRACE', '', 'GET /', 'BREW');
is(sql(qq{
	SELECT setseed($seed / 4294967296.0);
	WITH letter AS MATERIALIZED (
		SELECT n, part, string_agg(CASE WHEN random() < 0.9 THEN chr(97 + (random() * 25)::int) ELSE chr(1 + (random() * 300)::int) END, '' ORDER BY i) AS s
		FROM generate_series(1, 10000) n, generate_series(1, 2) part, generate_series(1, 12) i GROUP BY n, part),
	header AS (SELECT a.s AS name, b.s AS value FROM letter a JOIN letter b USING (n) WHERE a.part = 1 AND b.part = 2)
	SELECT count(*), count(*) FILTER (WHERE header_flaw(name, value) IS NULL) BETWEEN 100 AND 9900,
		string_agg(format('%L: %L', name, value), ' ') FILTER (WHERE (header_flaw(name, value) IS NULL) <>
			(name ~ '^[-!#\$%&''*+.^_`|~0-9A-Za-z]+\$' AND value !~ '[\\x01-\\x1f\\x7f]'))
	FROM header}) =~ s/^\n//r, "10000|t|", '10,000 random headers are judged as by their grammar');

# ---- signatures ----

my $secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
my $raw = '1f2e3d4c5b6a79880123456789abcdef';
my @message = ('msg_p5jXN8AQM9LWM0D4loKWxJek', 1614265330, '{"test": 2432232314}');
my $signature = 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=';

# HMAC-SHA256 by Perl, which comes with it.
require Digest::SHA;
my $raw_signature = 'v1,' . Digest::SHA::hmac_sha256_base64(join('.', @message), $raw) . '=';
table('sign', 'signatures',
	[ $secret, '', @message, $signature ], [ $raw, '', @message, $raw_signature ], [ $secret, $raw, @message, "$signature $raw_signature" ],
	[ $secret, $secret, @message, "$signature $signature" ], [ 'whsec_****', '', @message, 'The secret is not base64 after "whsec_".' ],
	[ $secret, 'whsec_', @message, 'The secret is empty.' ], [ $raw, '', 'a', -1, '', 'v1,' . Digest::SHA::hmac_sha256_base64('a.-1.', $raw) . '=' ],
	[ 'x' x 1025, '', @message, 'The secret is longer than 1024 bytes.' ],
	[ 'x' x 1024, '', @message, 'v1,' . Digest::SHA::hmac_sha256_base64(join('.', @message), 'x' x 1024) . '=' ]);
table('secret_flaw', 'secrets', [ $secret, '' ], [ 'a', '' ], [ '', 'The secret is empty.' ], [ 'whsec_a', 'The secret is not base64 after "whsec_".' ]);

# ---- placeholders ----

my ($PAYLOAD, $JOB, $SECRET, $ITEMS, $ALL) = (1, 2, 4, 8, 15);
outcomes('checks of placeholders',
	(map { [ "template_check('$_', $ALL)", '' ] } '', 'a { } }} {b}', '{{payload}}', '{{payload.a}}', '{{payload.a b.0.ü}}', '{{items}}', '{{secret.a-b.c}}',
		map { "{{job.$_}}" } qw(id type stage attempt claim_no idempotency_key correlation_id created_at scheduled_at group_key)),
	(map { [ "template_check('a $_ b', $ALL)", "22023 | unknown placeholder \"$_\" in template" ] }
		'{{}}', '{{ payload }}', '{{Payload}}', '{{payload.}}', '{{payload..a}}', '{{payload.a.}}', '{{payloads}}', '{{job}}', '{{job.}}', '{{job.owner}}', '{{job.id.x}}',
		'{{secret}}', '{{secret.}}', '{{items.0}}', '{{cron.date}}', '{{{payload}}', '{{pay{load}}'),
	[ "template_check('a {{Bearer s3cr3t', $ALL)", '22023 | unknown placeholder "{{" in template' ], [ "template_check('{{', $ALL)", '22023 | unknown placeholder "{{" in template' ],
	[ "template_check('{{payload}}{{secret.a}}', 3)", '22023 | placeholder "{{secret.a}}" cannot be used in template' ],
	[ "template_check('{{items}}', 7)", '22023 | placeholder "{{items}}" cannot be used in template' ], [ "template_check('{{payload.a}}', 14)", '22023 | placeholder "{{payload.a}}" cannot be used in template' ],
	[ "template_check('{{job.id}}', 13)", '22023 | placeholder "{{job.id}}" cannot be used in template' ],
	[ q{template_check_jsonb('{"a": ["{{payload}}", {"{{key}}": 1}], "b": "{{items}}"}', 9)}, '' ],
	[ q{template_check_jsonb('{"a": ["x", {"b": "{{nothing}}"}]}', 15)}, '22023 | unknown placeholder "{{nothing}}" in template' ], [ q{template_check_jsonb('"{{items}}"', 1)}, '22023 | placeholder "{{items}}" cannot be used in template' ]);
my $place = 'Placeholders must stand in the path or the query, or the whole URL must be one {{secret.name}}.';
outcomes('URLs of endpoints',
	(map { [ "template_check_url('$_')", '' ] } 'https://example.com', '{{secret.url}}', 'https://example.com/{{payload.a}}/{{job.id}}?x={{payload.b}}&y={{secret.token}}',
		'https://example.com?{{payload.a}}', 'https://example.com/a.b/..c/%2e%2e%2e', 'https://example.com/{{payload.a b/c}}', 'https://example.com/?a=/../'),
	(map { [ "template_check_url('$_')", "22023 | invalid URL in url | $place" ] } '{{payload.url}}', '{{secret.url}}/path', 'x{{secret.url}}', '{{secret.scheme}}://example.com/', 'https://{{payload.host}}/',
		'https://{{payload.a/b}}/', 'https://example.com{{payload.a}}', 'https://example.com:{{payload.port}}/', 'https://{{secret.user}}@example.com/'),
	[ "template_check_url('https://example.com/{{items}}')", '22023 | placeholder "{{items}}" cannot be used in url' ],
	[ "template_check_url('https://example.com/{{x}}')", '22023 | unknown placeholder "{{x}}" in url' ],
	[ "template_check_url('https://user:s3cr3t\@example.com/{{payload.a}}')", '22023 | invalid URL in url | The URL has a user name or password: use a header with a secret.' ],
	[ "template_check_url('https://example.com/{{payload.a}}#x')", '22023 | invalid URL in url | The URL has a fragment, which is not sent, or a "#" that must be percent-encoded.' ],
	(map { [ "template_check_url('https://example.com/$_')", '22023 | invalid URL in url | The path must not have "." or ".." between its slashes.' ] } '.', '..', 'a/../b', 'a/%2E./?x', './{{payload.a}}'));

my $payload = '{"a": "x/y z&{{job.id}}ü", "n": 12.50, "t": true, "null": null, "o": {"k": [10, {"d": "."}]}, "dots": "..", "0": "zero"}';
my @values = ($payload, '[{"b": 1}]');
table('template_fill', 'texts',
	[ 'plain', 'f', @values, 'plain' ], [ '<{{payload.a}}>', 'f', @values, '<x/y z&{{job.id}}ü>' ], [ '{{payload.n}} {{payload.t}} {{payload.null}}|{{payload.no}}|{{payload.a.b}}', 'f', @values, '12.50 true ||' ],
	[ '{{payload.o}}', 'f', @values, '{"k": [10, {"d": "."}]}' ], [ '{{payload.o.k.0}}{{payload.o.k.1.d}}{{payload.o.k.9}}{{payload.0}}', 'f', @values, '10.zero' ],
	[ '{{job.id}} {{job.type}} {{job.group_key}}|{{job.stage}}', 'f', @values, '42 mail "x" |' ], [ 'Bearer {{secret.token}}', 'f', @values, 'Bearer s3cr3t' ],
	[ '{{secret.template}}', 'f', @values, '{{payload}}' ], [ 'x{{items}}', 'f', @values, 'x[{"b": 1}]' ], [ '{{payload}}', 'f', '"text"', undef, 'text' ], [ '{{payload}}', 'f', 'null', undef, '' ],
	[ '{{payload}}{{payload.a}}{{items}}.', 'f', undef, undef, '.' ], [ '{{nothing}} {{', 'f', @values, '{{nothing}} {{' ], [ '{{secret.none}} {{secret.token}}', 'f', @values, 'There is no secret "none".' ],
	[ '{"a":{"b":{{payload.n}}}}', 'f', @values, '{"a":{"b":12.50}}' ]);
my $dots = 'A value makes "." or ".." stand between two slashes of the path.';
table('template_fill', 'URLs filled in',
	[ 'https://h/{{payload.a}}?q={{payload.a}}', 't', @values, 'https://h/x%2Fy%20z%26%7B%7Bjob.id%7D%7D%C3%BC?q=x%2Fy%20z%26%7B%7Bjob.id%7D%7D%C3%BC' ], [ 'https://h/{{secret.slash}}/x', 't', @values, 'https://h/a%2Fb%20c/x' ],
	[ '{{secret.url}}', 't', @values, 'https://hooks.example.com/x?y' ], [ '{{secret.none}}', 't', @values, 'There is no secret "none".' ], [ 'https://h/{{payload.dots}}/x', 't', @values, $dots ],
	[ 'https://h/{{payload.o.k.1.d}}', 't', @values, $dots ], [ 'https://h/.{{payload.o.k.1.d}}?', 't', @values, $dots ], [ 'https://h/a{{payload.dots}}', 't', @values, 'https://h/a..' ],
	[ 'https://h/?x=/{{payload.dots}}', 't', @values, 'https://h/?x=/..' ], [ 'https://h/{{payload.null}}', 't', @values, 'https://h/' ]);
table('template_fill_jsonb', 'documents',
	[ '{"a": "{{payload.n}}", "b": ["{{payload.o}}", "{{payload.null}}", "{{payload.no}}", "x{{payload.no}}"], "c": 1}', @values, '{"a": 12.50, "b": [{"k": [10, {"d": "."}]}, null, null, "x"], "c": 1}' ],
	[ '{"id": "{{job.id}}", "text": "{{job.id}}.", "type": "{{job.type}}", "group": "{{job.group_key}}", "s": "{{secret.token}}"}', @values, '{"s": "s3cr3t", "id": 42, "text": "42.", "type": "mail \"x\"", "group": null}' ],
	[ '{"list": "{{items}}", "{{payload}}": "{{payload.a}}"}', @values, '{"list": [{"b": 1}], "{{payload}}": "x/y z&{{job.id}}ü"}' ], [ '"{{payload.o}}"', @values, '{"k": [10, {"d": "."}]}' ],
	[ '"{{payload.t}}"', @values, 'true' ], [ '"x"', @values, '"x"' ], [ '7', @values, '7' ], [ '[]', @values, '[]' ], [ '{}', @values, '{}' ], [ '[[], {}, "{{payload}}"]', '[1]', undef, '[[], {}, [1]]' ], [ '["{{payload}}"]', 'null', undef, '[null]' ],
	[ '["{{payload}}", "{{items}}"]', undef, undef, '[null, null]' ], [ '["{{secret.template}}", "{{secret.none}}"]', @values, 'There is no secret "none".' ], [ '"{{secret.template}} "', @values, '"{{payload}} "' ]);
table('template_has', 'what has placeholders', [ '{"a": ["{{payload}}"]}', $ALL, 't' ], [ '{"a": "x {{secret.a}}"}', $SECRET, 't' ], [ '{"a": "{{payload}}"}', $SECRET, 'f' ], [ '{"{{payload}}": "{{x}}"}', $ALL, 'f' ]);

# ---- bodies and answers ----

table('form_encode', 'forms',
	[ '{}', '' ], [ '{"a": "b"}', 'a=b' ], [ '{"a b": "c d&e=f+ü"}', 'a+b=c+d%26e%3Df%2B%C3%BC' ], [ '{"a": null, "b": 1.50, "c": false}', 'b=1.50&c=false' ], [ '{"a": ["x", 1, null, true]}', 'a=x&a=1&a=true' ],
	[ '{"a": []}', '' ], [ '{"a": ""}', 'a=' ], [ '{"a": "  "}', 'a=++' ], [ '{"": "x"}', '=x' ], [ '{"a": {}}', 'Field "a" of the form is neither a scalar nor an array of scalars.' ],
	[ '{"a": [["s3cr3t"]]}', 'Field "a" of the form is neither a scalar nor an array of scalars.' ], [ '[1]', 'The fields of a form must be a JSON object.' ], [ '1', 'The fields of a form must be a JSON object.' ]);
table('percent_encode', 'percent', [ 'AZaz09-._~', 'AZaz09-._~' ], [ "!*'()/?#[]\@:+% \x01", '%21%2A%27%28%29%2F%3F%23%5B%5D%40%3A%2B%25%20%01' ], [ '', '' ]);
table('base64_decode', 'base64', [ 'AP8=', '00ff' ], [ '', '' ], [ " A P\n8= ", '00ff' ], [ 'AP8', 'The body is not base64.' ], [ 'A-8=', 'The body is not base64.' ], [ 'AP8==', 'The body is not base64.' ]);
my $now = '2026-03-01 12:00:00+00';
table('retry_after', 'Retry-After',
	[ '0', $now, $now ], [ '120', $now, '2026-03-01 12:02:00+00' ], [ ' 5 ', $now, '2026-03-01 12:00:05+00' ], [ '99999999999999999999', $now, '2094-03-19 15:14:07+00' ],
	(map { [ $_, $now, '' ] } '', ' ', '-1', '+1', '1.5', '1 s', 'soon', '1' x 64, '0x10', 'Sun, 32 Nov 2026 08:49:37 GMT', 'Sun, 29 Feb 2026 08:49:37 GMT', 'Sun, 06 Xyz 2026 08:49:37 GMT', 'Sun, 06 Nov 2026 24:00:00 GMT',
		'Sun, 06 Nov 2026 08:60:37 GMT', 'Sun, 06 Nov 2026 08:49:61 GMT', 'Sun, 06 Nov 2026 08:49:37', 'Sun, 06 Nov 2026 08:49:37 CET', 'Sun, 06 Nov 2026 08:49:37 GMT x', 'Sun, 06 Nov 26 08:49:37 GMT', 'Sun, -6 Nov 2026 08:49:37 GMT', '2026-11-06T08:49:37Z'),
	[ 'Fri, 06 Nov 2026 08:49:37 GMT', $now, '2026-11-06 08:49:37+00' ], [ 'Friday, 06-Nov-26 08:49:37 GMT', $now, '2026-11-06 08:49:37+00' ], [ 'Fri Nov  6 08:49:37 2026', $now, '2026-11-06 08:49:37+00' ],
	[ 'Sun, 06 Nov 1994 08:49:37 GMT', $now, $now ], [ 'Sunday, 06-Nov-94 08:49:37 GMT', $now, $now ], [ 'Sun Nov  6 08:49:37 1994', $now, $now ], [ 'Sat, 29 Feb 2028 23:59:60 GMT', $now, '2028-03-01 00:00:00+00' ]);

$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11)\b|(?:ERROR|DETAIL|HINT): .*s3cr3t/, 'nothing crashed, no secret is told');
done_testing();
