# The value of a secret is nowhere but in its table: not in the log of a server
# that logs all it can, not in any view or statistics, not in a dump, not within
# reach of a role that may read everything, and not in what is kept of an answer
# that repeats the request.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Session;
use Digest::SHA qw(hmac_sha256_base64);
use IO::Socket::INET;
use MIME::Base64 qw(encode_base64);
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my @libraries = qw(pg_stat_statements auto_explain);
my $libdir = `pg_config --pkglibdir`;
chomp $libdir;
plan skip_all => 'contrib is not installed' if grep { !-e "$libdir/$_.so" } @libraries;

my $node = JobQueue::Cluster->new('main', conf => <<~'CONF');
	shared_preload_libraries = 'jobqueue, pg_stat_statements, auto_explain'
	log_min_messages = debug5
	log_statement = all
	log_min_duration_statement = 0
	log_error_verbosity = verbose
	log_lock_waits = on
	deadlock_timeout = 10ms
	log_line_prefix = '%m %p %u '
	auto_explain.log_min_duration = 0
	auto_explain.log_nested_statements = on
	auto_explain.log_analyze = on
	auto_explain.log_verbose = on
	auto_explain.log_triggers = on
	pg_stat_statements.track = all
	track_activity_query_size = 16kB
	jobqueue.log_level = debug
	jobqueue.http_allow_cidrs = '127.0.0.0/8'
	jobqueue.http_allow_ports = '*'
	jobqueue.retry_delay = 1s
	CONF

# What operations.md recommends for whoever sets secrets.
my $quiet = join '', map { "ALTER ROLE keeper SET $_;" } 'log_statement = none', 'log_min_duration_statement = -1', 'auto_explain.log_min_duration = -1';
my @roles = qw(boss producer worker operator observer reader);
$node->safe_psql('postgres', qq{
	CREATE EXTENSION pg_stat_statements;
	CREATE ROLE keeper LOGIN;
	$quiet
	CREATE ROLE boss SUPERUSER LOGIN;
	CREATE ROLE producer LOGIN; CREATE ROLE worker LOGIN; CREATE ROLE operator LOGIN; CREATE ROLE observer LOGIN;
	CREATE ROLE reader LOGIN IN ROLE pg_read_all_data, pg_write_all_data, pg_monitor;
	SELECT grant_job_role(r, r::text) FROM unnest('{producer,worker,operator,observer}'::regrole[]) r;
	SELECT grant_job_role('keeper', 'operator');
	GRANT pg_read_server_files TO keeper;
	CREATE FUNCTION wrapped(text, text, text) RETURNS void LANGUAGE plpgsql AS \$\$ BEGIN EXECUTE format('SELECT set_secret(%L, %L, %L)', \$1, \$2, \$3); END \$\$});

# No two alike, and all found by one pattern.
my $planted = 0;
sub canary { return 'canary_' . ++$planted . '_bird' }
my $bird = qr/canary_\d+_bird|63616e6172795f|Y2FuYXJ5X|NhbmFyeV|jYW5hcnlf/;	# also as bytea and base64 show it

sub session_of
{
	my ($role) = @_;
	local $ENV{PGUSER} = $role;
	return JobQueue::Session->new($node);
}

# A server that repeats what it is sent, in all the ways that an answer has; it
# writes each request down first. It starts before any session of psql is open,
# whose end it would keep from ending.
my $received = $node->basedir . '/received';
my $server = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 50) or die "no server: $!";
my $url = 'http://127.0.0.1:' . $server->sockport;
my $serving = fork() // die "cannot fork: $!";
if ($serving == 0)
{
	local $SIG{CHLD} = 'IGNORE';
	local $SIG{PIPE} = 'IGNORE';
	close $_ foreach *STDIN, *STDOUT, *STDERR;	# whoever reads them need not wait for us
	while (my $client = $server->accept)
	{
		next if fork();
		my ($head, $body) = ('', '');
		while ($head !~ /\r\n\r\n/) { sysread $client, $head, 1, length $head or POSIX::_exit(0) }
		my ($length) = $head =~ /^Content-Length: (\d+)/mi;
		while (length $body < ($length // 0)) { sysread $client, $body, 65536, length $body or last }
		append_to_file($received, "$head$body\n");
		my ($path) = $head =~ m{^\S+ /(\w*)};
		my ($token) = $head =~ /^X-Token: (\S+)/mi;
		my $json = join ', ', map { my $line = $_; $line =~ s/(["\\])/\\$1/g; "\"$line\"" } split /\r\n/, $head;
		my %answer = (
			echo => [ '200 OK', 'text/plain', "$head$body" ],
			json => [ '200 OK', 'application/json', qq({"seen": [$json], "progress": "$token"}) ],
			fails => [ '500 Oh ' . $token, 'text/plain', "$head$body" ],
			permanent => [ '422 Wrong', 'application/json', qq({"error": "bad token $token"}) ],
			binary => [ '200 OK', 'application/octet-stream', "\0\xff$head" ],
			redirect => [ "302 Found\r\nLocation: $url/echo?token=$token", 'text/plain', '' ],
			broken => [ "200 OK\r\nX-Long: $token", 'text/plain', undef ]);
		sysread $client, $body, 1 if $path eq 'hangs';	# until the client has had enough
		POSIX::_exit(0) if $path =~ /^(hangs|resets)$/;
		my ($status, $type, $text) = @{ $answer{$path} // $answer{echo} };
		print $client "HTTP/1.1 $status\r\nX-Echo: $token\r\nSet-Cookie: token=$token\r\nContent-Type: $type\r\nContent-Length: ", length($text // '') + (defined $text ? 0 : 100), "\r\nConnection: close\r\n\r\n", $text // $token;
		POSIX::_exit(0);
	}
	POSIX::_exit(0);
}
close $server;

# The log is too long to be shown when a test fails.
sub is_logged { return slurp_file($node->logfile) =~ $_[0] }

# ---- planting ----

my $keeper = session_of('keeper');
# what does not compress would go to a TOAST table, if that were allowed
my @letters = ('0' .. '9', 'a' .. 'z', 'A' .. 'Z');
my $long = join '', map { canary() . join '', map { $letters[ rand @letters ] } 1 .. 400 } 1 .. 18;

$keeper->query("SELECT set_secret('token', '" . canary() . "')");
$keeper->query("SELECT set_secret('token', '" . canary() . "')");
$keeper->query("SELECT set_secret('pem', '$long')");
$keeper->query("PREPARE p AS SELECT set_secret(\$1, \$2); EXECUTE p('prepared', '" . canary() . "')");
$keeper->query("BEGIN; SELECT set_secret('in-block', '" . canary() . "'); COMMIT");
$keeper->query("SELECT set_secret('dropped', '" . canary() . "')");
$keeper->query("SELECT drop_secret('dropped')");

my $script = $node->basedir . '/set.sql';
append_to_file($script, "SELECT set_secret('bound', :value);\n");
$node->command_ok([ 'pgbench', '-n', '-t', '1', '-M', 'extended', '-D', 'value=' . canary(), '-f', $script, $node->connstr('postgres') . " user=keeper" ], 'a value as a parameter');

my $file = $node->basedir . '/secret';
append_to_file($file, canary() . "\n" . canary() . "\n");
chmod 0600, $file;
$keeper->query("SELECT set_secret_file('of-file', '$file')");

# Errors: ours, the server's, and of what comes after the call.
is($keeper->try("SELECT set_secret('a', '" . canary() . ('x' x 9000) . "')"), '54000', 'too long');
is($keeper->try("SELECT set_secret('" . canary() . " as a name', 'x')"), '22023', 'arguments in the wrong order');
is($keeper->try("SELECT set_secret('a', '" . canary() . "', '-1 day')"), '22023', 'bad interval');
is($keeper->try("SELECT set_secret('token', '" . canary() . "'), 1 / (extract(epoch FROM now())::int * 0)"), '22012', 'a later error in the statement');
is($keeper->try("BEGIN READ ONLY; SELECT set_secret('a', '" . canary() . "')"), '25006', 'read only');
$keeper->query('ROLLBACK');
is($keeper->try("SELECT wrapped('token', '" . canary() . "', '-1 day')"), '22023', 'and below a function that builds the statement');
my $boss = session_of('boss');
$boss->query("SET log_statement = none; SET log_min_duration_statement = -1; SET auto_explain.log_min_duration = -1; SELECT set_secret('of-boss', 'x')");
is($keeper->try("SELECT set_secret('of-boss', '" . canary() . "')"), '42501', "somebody else's");

# What others see of a call that waits, and what the log says of that.
$boss->query("BEGIN; SELECT FROM http_secrets WHERE name = 'token' FOR UPDATE");
$keeper->send("SELECT set_secret('token', '" . canary() . "')");
$keeper->wait_until_blocked;
is($node->safe_psql('postgres', "SELECT query FROM pg_stat_activity WHERE pid = $keeper->{pid}"), 'SELECT set_secret(...)', 'the activity of a call');
$node->poll_query_until('postgres', "SELECT pg_sleep(0.1) IS NOT NULL AND pg_read_file(pg_current_logfile()) IS NULL") if 0;
$boss->query('ROLLBACK');
is($keeper->finish, '00000', 'it goes on');
is($node->safe_psql('postgres', "SELECT query FROM pg_stat_activity WHERE pid = $keeper->{pid}"), 'SELECT set_secret(...)', 'and when it is over');
$boss->query("BEGIN; SELECT FROM http_secrets WHERE name = 'token' FOR UPDATE");
$keeper->query("SET lock_timeout = '50ms'");
is($keeper->try("SELECT set_secret('token', '" . canary() . "')"), '55P03', 'lock timeout');
$keeper->query('RESET lock_timeout; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
$boss->query("UPDATE http_secrets SET previous_until = now() WHERE name = 'token'; COMMIT");
is($keeper->try("SELECT set_secret('token', '" . canary() . "')"), '40001', 'serialization failure');
$keeper->query("ROLLBACK; SELECT set_secret('token', '" . canary() . "', '1 hour')");
ok(is_logged(qr/process $keeper->{pid} still waiting for/), 'the log tells of lock waits');

# ---- sending ----

# Before, so that one of the two values is the previous one.
my $key = 'whsec_' . encode_base64('signing_' . canary(), '');
my $old_key = 'whsec_' . encode_base64('signing_' . canary(), '');
my $sent = canary();
$keeper->query("SELECT set_secret('sent', '$sent'), set_secret('url', '$url/echo?whole=" . canary() . "'), set_secret('key', '$old_key'), set_secret('key', '$key')");
$keeper->query("SELECT set_secret('quoted', 'a\"b/" . canary() . "\\c')");
my @paths = qw(echo json fails permanent binary redirect broken resets hangs);
my $headers = '{"X-Token": "{{secret.sent}}", "Authorization": "Bearer {{secret.of-file}}", "X-Quoted": "{{secret.quoted}}", "X-Both": "{{secret.token}}-{{payload.n}}"}';
$keeper->query("INSERT INTO http_endpoints (name, url, headers, signing_secret, timeout) VALUES ('$_', '$url/$_?key={{secret.prepared}}', '$headers', 'key', '"
	  . ($_ eq 'hangs' ? '2s' : '30s') . "'); INSERT INTO job_types (job_type, runner, endpoint, max_attempts) VALUES ('to_$_', 'http', '$_', 2)") foreach @paths;
$keeper->query("INSERT INTO http_endpoints (name, url) VALUES ('all-secret', '{{secret.url}}'); INSERT INTO job_types (job_type, runner, endpoint, max_attempts) VALUES ('to_all-secret', 'http', 'all-secret', 2)");
$keeper->query("INSERT INTO http_endpoints (name, url, headers) VALUES ('unknown', '$url/echo', '{\"A\": \"{{secret.token}} {{secret.unknown}}\"}'); INSERT INTO job_types (job_type, runner, endpoint) VALUES ('to_unknown', 'http', 'unknown')");
$keeper->query("SELECT subscribe_event('canary.sings', endpoint => 'echo')");
$node->safe_psql('postgres', q{SELECT publish_event('canary.sings', '{"n": 1}')}, extra_params => [ '-U', 'producer' ]);
$node->safe_psql('postgres', "SELECT enqueue_job('to_$_', '{\"n\": 1}')", extra_params => [ '-U', 'producer' ]) foreach @paths, 'all-secret', 'unknown';

# What others see while a request is under way
wait_for_query($node, "SELECT count(*) FROM jobs_queue WHERE job_type = 'to_hangs' AND status = 'running'", 1);
my $activity = $node->safe_psql('postgres', q{SELECT string_agg(a::text, E'\n') FROM pg_stat_activity a WHERE backend_type LIKE 'jobqueue%'});
like($activity, qr/dispatcher/, 'a request is under way');
unlike($activity, $bird, 'and nobody sees its secrets');
# they change meanwhile, and a file goes
$keeper->query("SELECT set_secret('sent', '" . canary() . "')");
wait_for_query($node, q{SELECT count(*) FROM jobs_queue_live}, 0);
is($node->safe_psql('postgres', q{SELECT string_agg(format('%s %s', job_type, status), ', ' ORDER BY job_type) FROM jobs_queue}),
	'to_all-secret completed, to_binary completed, to_broken failed, to_echo completed, to_fails failed, to_hangs failed, to_json completed, to_permanent failed, to_redirect failed, to_resets failed, to_unknown failed, webhook:echo completed',
	'what became of them');
is($node->safe_psql('postgres', q{SELECT last_error ~ 'secret "unknown" does not exist' FROM jobs_queue WHERE job_type = 'to_unknown'}), 't', 'an error names a secret');
my $requests = slurp_file($received);
like($requests, qr/^X-Token: \Q$sent\E\r$/m, 'the server was told');
like($requests, qr/^Authorization: Bearer canary_\d+_bird\r$/m, 'also what is in a file');
my ($id, $at, $signatures) = map { $requests =~ /^$_: (.*?)\r$/mi } qw(webhook-id webhook-timestamp webhook-signature);
my ($signed) = $requests =~ /^webhook-id: \Q$id\E\r\n.*?\r\n\r\n(.*?)\n(?:POST|\z)/ms;
my @signatures = map { 'v1,' . pad(hmac_sha256_base64("$id.$at.$signed", $_)) } map { MIME::Base64::decode_base64(substr $_, 6) } $key, $old_key;
is($signatures, "@signatures", 'both keys sign');

sub pad { my ($base64) = @_; return $base64 . '=' x (-length($base64) % 4) }

# ---- searching ----

sub log_is_clean
{
	my ($name) = @_;
	my @hits = slurp_file($node->logfile) =~ /^.*$bird.*$/mg;
	is(scalar @hits, 0, $name) or diag(join "\n", map { substr $_, 0, 300 } @hits[0 .. ($#hits > 4 ? 4 : $#hits)]);
	return;
}

log_is_clean('the log');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_statements WHERE query ~ 'canary'}), 0, 'pg_stat_statements');
cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_statements WHERE query ~ 'set_secret'}), '>=', 1, 'which has seen the calls');

# All that has rows, as everybody; only the superuser's own table has a hit.
my @relations = split /\n/, $node->safe_psql('postgres', q{
	SELECT c.oid::regclass FROM pg_class c WHERE c.relkind IN ('r', 'v', 'm', 'p', 't')
	AND c.oid::regclass::text NOT IN ('pg_stat_lru', 'http_secret_values') ORDER BY 1});
my @functions = split /\n/, $node->safe_psql('postgres', q{
	SELECT p.oid::regproc FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
	JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'jobqueue'
	WHERE p.pronargs = 0 AND p.prorettype <> 'trigger'::regtype AND (p.proname LIKE '\\_%' OR p.proname = 'current_job') ORDER BY 1});
cmp_ok(@functions, '>=', 5, 'functions behind views, too');
cmp_ok(@relations, '>', 200, 'there is something to search');
for my $role (@roles)
{
	my $session = session_of($role);
	my ($found, $read) = (0, 0);
	for my $query ((map { "SELECT t::text FROM $_ t" } @relations, 'http_secret_values'), (map { "SELECT t::text FROM $_() t" } @functions),
		'SELECT t::text FROM secret_names t', q{SELECT secret_problem('token')}, q{SELECT secret_problem('of-file')}, q{SELECT secret_problem('pem')})
	{
		next if $role eq 'boss' && $query =~ /http_secret_values/;
		$session->try("SET row_security = on; $query");
		$read++ if $session->{message} eq '';
		next unless ($session->{output} // '') =~ $bird;
		$found++;
		diag("$role: $query: $1") while $session->{output} =~ /(.{0,80}$bird.{0,20})/g;
	}
	is($found, 0, "nothing in what $role can read ($read of them)");
}
my $reader = session_of('reader');
is($reader->query('SELECT count(*) FROM http_secret_values'), 0, 'whoever may read everything sees no row');
is($boss->query(q{SELECT string_agg(value, '' ORDER BY part) ~ '^canary' FROM http_secret_values WHERE name = 'pem'}), 't', 'the search would have found them');
my $toast = $boss->query(q{SELECT reltoastrelid::regclass FROM pg_class WHERE relname = 'http_secret_values'});
is($reader->query("SELECT count(*) FROM $toast"), 0, 'a table without row security has none of them') if $toast ne '-';
$boss->query('ANALYZE');
is($boss->query(q{SELECT count(*) FROM pg_statistic s WHERE s::text ~ 'canary'}), 0, 'nor have statistics');

# A dump of everything, and of what somebody thinks he wants.
for my $options ([], [ '-t', 'http_secret*' ], [ '--inserts', '-n', 'public' ], [ '-U', 'reader' ])
{
	my ($stdout, $stderr) = run_command([ 'pg_dump', @$options, $node->connstr('postgres') ]);
	unlike($stdout . $stderr, $bird, "pg_dump @$options");
}
my ($dump) = run_command([ 'pg_dumpall', '-h', $node->host, '-p', $node->port ]);
unlike($dump, $bird, 'pg_dumpall');

# ---- who is told that it cannot be hidden ----

my $told = '';
$node->psql('postgres', "SELECT set_secret('logged', '" . 'seen_' . "bird')", stderr => \$told, extra_params => [ '-U', 'boss' ]);
like($told, qr/WARNING:  the value of secret "logged" may be in the server's log\nDETAIL:  Setting "log_statement"/, 'a session whose statements are logged is told so');
ok(is_logged(qr/seen_bird/), 'and rightly');

# ---- previous values do not stay for ever ----

$boss->query("SET log_statement = none; UPDATE http_secrets SET previous_until = now() WHERE name = 'token'");
is($boss->query("SELECT count(*) FROM http_secret_values WHERE name = 'token' AND is_previous"), 1, 'an expired value is there');
$keeper->quit;
$_->quit foreach $reader, $boss;
$node->restart;		# a scheduler looks when it starts, and then each minute
wait_for_query($node, "SELECT NOT EXISTS (SELECT FROM http_secret_values WHERE name = 'token' AND is_previous)");
is($node->safe_psql('postgres', "SELECT previous_until IS NULL FROM http_secrets WHERE name = 'token'"), 't', 'until the scheduler has seen it');

# ---- a crash ----

# The postmaster logs what the process that crashed was doing.
($keeper, $boss) = map { session_of($_) } qw(keeper boss);
$boss->query("BEGIN; SELECT FROM http_secrets WHERE name = 'token' FOR UPDATE");
$keeper->send("SELECT set_secret('token', '" . canary() . "')");
$keeper->wait_until_blocked;
kill 'KILL', $keeper->{pid};
$keeper->finish;
wait_for_query($node, 'SELECT true');
ok(is_logged(qr/Failed process was running: SELECT set_secret\(\.\.\.\)/), 'the crash was logged');
log_is_clean('and without the value');
$_->quit foreach $keeper, $boss;
kill 'TERM', $serving;
waitpid $serving, 0;

$node->stop;
done_testing();
