-- URLs of requests: which are refused, and why. Their hosts, addresses and ports
-- are judged by the settings, here the defaults.
SELECT url, http_check_url(url) AS refused FROM unnest(ARRAY[
	'http://example.com', 'https://example.com/', 'HTTPS://EXAMPLE.com:443/a/b?c=d&e=%20', 'https://example.com.',
	'https://example.com?q', 'http://8.8.8.8/', 'https://[2606:4700:4700::1111]/', 'https://xn--mnchen-3ya.example/', 'https://a_b.example/',
	'https://example.com:0443/', 'https://example.com:/']) WITH ORDINALITY AS u(url, n) ORDER BY n;

-- What is not a URL of a request.
SELECT url, http_check_url(url) AS refused FROM unnest(ARRAY[
	'', 'example.com', '/path', '//example.com', 'http:', 'http:/', 'http://', 'http:///example.com', 'http:///', 'http://?q', 'http://:80',
	'http:example.com', 'http:/example.com', 'http:\\example.com', 'http://example.com\@evil.com/',
	'ftp://example.com', 'file:///etc/passwd', 'gopher://example.com', 'javascript:alert(1)', 'httpss://example.com', ' http://example.com',
	'http://user@example.com', 'http://user:pw@example.com', 'http://@example.com', 'http://:@example.com', 'http://a@b@example.com',
	'http://example.com#', 'http://example.com/#top', 'http://example.com#@evil.com/',
	'http://example.com/a b', E'http://example.com/a\tb', E'http://example.com/\r\nHost: evil', E'http://example.com/\x7f',
	'http://münchen.example/', 'http://example.com/ü', 'http://127。0。0。1/',
	'http://example.com:0', 'http://example.com:65536', 'http://example.com:99999999999', 'http://example.com:-1', 'http://example.com:a',
	'http://example.com:80:80', 'http://exa%6dple.com/', 'http://example.com%00.evil.com/', 'http://%31%32%37.0.0.1/',
	'http://.', 'http://..', 'http://.example.com', 'http://example..com', 'http://example.com..', 'http://exa mple.com', 'http://*/', 'http://a,b/',
	'http://[::1', 'http://[]/', 'http://[1.2.3.4]/', 'http://[fe80::1%25eth0]/', 'http://[::1]x/', 'http://[v1.a]/',
	'http://256.1.1.1/', 'http://1.2.3.4.5/', 'http://0x100000000/', 'http://09.1.1.1/', 'http://127.1.0x/',
	'http://' || repeat('a', 64) || '.example/']) WITH ORDINALITY AS u(url, n) ORDER BY n;
SELECT http_check_url('http://example.com/' || repeat('a', 8192 - 19)) AS longest, http_check_url('http://example.com/' || repeat('a', 8192 - 18)) AS longer,
	http_check_url(repeat('http://', 1000000)) AS seven_megabytes;

-- Every spelling of an address that is not public.
SELECT url, http_check_url(url) = 'The address is not public, and not in "jobqueue.http_allow_cidrs".' AS refused FROM unnest(ARRAY[
	'http://127.0.0.1/', 'http://2130706433/', 'http://0x7f.1/', 'http://0x7f000001/', 'http://0177.0.0.1/', 'http://017700000001/', 'http://127.1/',
	'http://127.0.0.1./', 'http://0/', 'http://0.0.0.0/', 'http://[::1]/', 'http://[::]/', 'http://[0:0:0:0:0:0:0:1]/', 'http://[::ffff:127.0.0.1]/',
	'http://[::ffff:7f00:1]/', 'http://[0:0:0:0:0:ffff:7f00:0001]/', 'http://localhost/', 'http://LOCALHOST./', 'http://a.localhost/',
	'http://10.0.0.1/', 'http://100.64.0.1/', 'http://169.254.169.254/latest/meta-data', 'http://0xa9fea9fe/', 'http://172.31.255.255/', 'http://192.168.1.1/',
	'http://[fd00::1]/', 'http://[fe80::1]/', 'http://[64:ff9b::7f00:1]/', 'http://[2002:7f00:1::]/', 'http://[ff02::1]/']) WITH ORDINALITY AS u(url, n) ORDER BY n;

SELECT http_check_url('http://example.com:8080') AS other_port, http_check_url('https://example.com:80') AS listed_port;
SELECT http_check_url(NULL) IS NULL AS strict, provolatile, proparallel FROM pg_proc WHERE proname = 'http_check_url';
