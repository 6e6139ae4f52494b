# The monitor among clients that are slow, broken or many, and through changes
# of the settings, the server and the database.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use IO::Socket::INET;
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Http qw(memory_of set_and_reload);
use JobQueue::Monitor qw(free_port monitor_conf wait_for_monitor ask knock hear hear_all);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $port = free_port();
my $node = JobQueue::Cluster->new('main', extension => 0, conf => "autovacuum = off\nmax_connections = 20\n" . monitor_conf($port));
my $log = $node->logfile;

sub sql { return $node->safe_psql('postgres', $_[0]) }
sub status { my ($answer) = @_; return defined $answer ? $answer->{status} : 'none' }
sub pid { return sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'jobqueue monitor'}) }
sub descriptors { my @fds = glob "/proc/$_[0]/fd/*"; return scalar @fds }

sub wait_for
{
	my ($condition) = @_;

	for (1 .. 1200)
	{
		return 1 if $condition->();
		sleep 0.05;    # why: between two looks
	}
	return 0;
}

my $stub = q{
	SELECT grant_job_role('watcher', 'observer');
	CREATE OR REPLACE FUNCTION monitor_get(path text, query jsonb DEFAULT '{}', accept text DEFAULT '',
			OUT status integer, OUT content_type text, OUT body text)
		LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
	BEGIN
		status := 200;
		content_type := 'text/plain';
		IF path = '/api/large' THEN body := repeat('x', 20000000); RETURN; END IF;
		IF path = '/api/sleep' THEN PERFORM pg_sleep(60); END IF;
		body := path;
	END $$;
};

# ---- a database that is not ready ----

sql('CREATE ROLE watcher LOGIN');
wait_for_monitor($port);
my $answer = ask($port, GET => '/api/x');
is(status($answer), 503, 'without the extension it answers');
like($answer->{json}{error}, qr/does not have the extension/, 'and says so');
is(status(ask($port, GET => '/')), 200, 'the page is there');
sql("CREATE EXTENSION jobqueue; $stub");
is(status(ask($port, GET => '/api/x')), 200, 'with it the next request is answered');
sql("DROP EXTENSION jobqueue; CREATE EXTENSION jobqueue; $stub");
is(status(ask($port, GET => '/api/x')), 200, 'also with another one');
sql("DROP EXTENSION jobqueue; CREATE SCHEMA odd; CREATE EXTENSION jobqueue SCHEMA odd; SET search_path = odd, public; $stub");
is(status(ask($port, GET => '/api/x')), 200, 'and in another schema');
sql("DROP EXTENSION jobqueue; CREATE EXTENSION jobqueue; $stub");

# ---- clients that read and write slowly; looked at again further below ----

my $reader = knock($port);
$reader->sockopt(SO_RCVBUF, 4096);
print $reader "GET /api/large HTTP/1.1\r\nHost: localhost\r\n\r\n";
my $reading_since = time;

# ---- all places taken ----

sql(q{CREATE ROLE runner LOGIN; CREATE TABLE done (a integer); GRANT ALL ON SCHEMA public TO runner; GRANT INSERT ON done TO runner;
	SELECT grant_job_role('runner', 'producer')});
my $pid = pid();
my @crowd;
for (1 .. 160)
{
	my $socket = knock($port) or last;
	print $socket "GET /api/x HTTP/1.1\r\nHost: loc";
	push @crowd, $socket;
}
cmp_ok(scalar @crowd, '>', 100, 'a crowd that says little has come in');
sql(q{SET SESSION AUTHORIZATION runner; SELECT enqueue_sql('INSERT INTO done SELECT 1')});
wait_for_query($node, 'SELECT count(*) FROM done', 1);
pass('jobs run');
my $since = time;
is(status(ask($port, GET => '/api/x')), 200, 'an honest client gets its answer');
cmp_ok(time - $since, '<', 5, 'within the deadline of the others');
is(pid(), $pid, 'it is the same process');
@crowd = ();

# One that sends a byte now and then is no better than one that sends nothing.
my $dripping = knock($port);
print $dripping "GET /";
$since = time;
{
	local $SIG{PIPE} = 'IGNORE';
	while (time - $since < 20)
	{
		my $end = hear_all($dripping, 0.3);
		last if defined $end;
		$dripping->syswrite('x');
	}
}
cmp_ok(time - $since, '>', 4, 'a request may take a while');
cmp_ok(time - $since, '<', 20, 'but not for ever, however busy it looks');

# ---- garbage ----

srand 20251;
my @pieces = ("GET / HTTP/1.1\r\n", "POST /api/actions/x HTTP/1.1\r\n", "Host: localhost\r\n", "\r\n", "\n", "\r", "\0", ' ', ':', '%', "Content-Length: 5\r\n",
	"Content-Length: -1\r\n", "Content-Length: 99999999999999999999\r\n", "Transfer-Encoding: chunked\r\n", "5\r\nabcde\r\n", "0\r\n\r\n", "ffffffffffffffff\r\n",
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01", "Connection: close\r\n", "Expect: 100-continue\r\n", "Authorization: Bearer x\r\n",
	"Cookie: a=b; =; \"\r\n", "X: \xff\xfe\r\n", " folded\r\n", 'a' x 3000, "GET http://evil/ HTTP/1.1\r\n", "GET /?&&==&%00 HTTP/1.0\r\n", "Upgrade: h2c\r\n");
my $fuzzed = 0;
{
	local $SIG{PIPE} = 'IGNORE';
	for my $round (1 .. 600)
	{
		my $bytes = join '', map { $pieces[ rand @pieces ] } 1 .. 1 + rand 12;
		substr($bytes, rand length $bytes, 1) = chr rand 256 for 1 .. rand 4;
		my $socket = knock($port) or next;
		print $socket $bytes;
		$socket->flush;
		shutdown $socket, 1 if rand() < 0.5;
		hear_all($socket, 0.002) if rand() < 0.3;
		$fuzzed++;
	}
}
is($fuzzed, 600, 'six hundred connections full of garbage');
is(status(ask($port, GET => '/api/x', wait => 20)), 200, 'the next request is answered');
is(pid(), $pid, 'by the same process');

# ---- no leaks ----

sub ask_often
{
	my ($times) = @_;

	my $failed = 0;
	my $socket;
	for my $n (1 .. $times)
	{
		$socket = undef if $n % 10 == 0;
		$socket //= knock($port);
		my $heard = ask($port, ($n % 7 ? 'GET' : 'HEAD') => "/api/x?n=$n", socket => $socket);
		$failed++ unless status($heard) eq '200';
	}
	return $failed;
}

ok(wait_for(sub { time - $reading_since > 10.5 }), 'time goes by');
ok(wait_for(sub { descriptors($pid) < 40 }), 'the crowd has gone');
is(ask_often(1000), 0, 'a thousand requests');
my ($memory, $descriptors) = (memory_of($pid), descriptors($pid));
is(ask_often(5000), 0, 'five thousand more');
cmp_ok(memory_of($pid) - $memory, '<', 1024, 'memory stays as it is');
ok(wait_for(sub { descriptors($pid) <= $descriptors + 2 }), 'so do descriptors');

# Somebody else may have needed one meanwhile.
my ($first_xid, $last_xid) = (0, 1);
for (my $tries = 0; $first_xid != $last_xid && $tries < 20; $tries++)
{
	$first_xid = sql('SELECT pg_snapshot_xmax(pg_current_snapshot())');
	ask_often(100);
	$last_xid = sql('SELECT pg_snapshot_xmax(pg_current_snapshot())');
}
is($last_xid, $first_xid, 'no transaction id is used');

# The one that does not read what it asked for has been left.
my $rest = hear_all($reader, 20);
ok(defined $rest && length $rest < 20_000_000, 'who does not take an answer is left');

# ---- nobody asks ----

my $idle = q{SELECT state || ' ' || state_change || ' ' || coalesce(xact_start::text, 'no transaction') FROM pg_stat_activity WHERE backend_type = 'jobqueue monitor'};
my $before = sql($idle);
my $cycle = sql(q{SELECT last_cycle_at FROM _server_workers() WHERE kind = 'monitor'});
wait_for_query($node, qq{SELECT last_cycle_at > '$cycle' FROM _server_workers() WHERE kind = 'monitor'});
is(sql($idle), $before, 'while nobody asks nothing is executed');
like($before, qr/\Aidle .*no transaction\z/, 'nor open');

# ---- interrupted ----

my $sleeping = knock($port);
print $sleeping "GET /api/sleep HTTP/1.1\r\nHost: localhost\r\n\r\n";
wait_for_query($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'jobqueue monitor' AND wait_event = 'PgSleep'}, 1);
sql("SELECT pg_cancel_backend($pid)");
is(status(hear($sleeping)), 503, 'a cancelled request is answered');
print $sleeping "GET /api/sleep HTTP/1.1\r\nHost: localhost\r\n\r\n";
my $waiting = knock($port);
print $waiting "GET /api/x HTTP/1.1\r\nHost: localhost\r\n\r\n";
is(status(hear($sleeping)), 503, 'a slow one after five seconds');
is(status(hear($waiting)), 200, 'and then the next');

print $sleeping "GET /api/sleep HTTP/1.1\r\nHost: localhost\r\n\r\n";
wait_for_query($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'jobqueue monitor' AND wait_event = 'PgSleep'}, 1);
my $timeout = qr/canceling statement due to statement timeout/;
my $timeouts = () = slurp_file($log) =~ /$timeout/g;
sql("SELECT pg_terminate_backend($pid)");
ok(wait_for(sub { !-e "/proc/$pid" }), 'SIGTERM ends it');
is(() = slurp_file($log) =~ /$timeout/g, $timeouts, 'before its statement has timed out');
wait_for_monitor($port);
isnt(pid(), $pid, 'another one takes its place');

$pid = pid();
kill KILL => $pid;
ok(wait_for(sub { !-e "/proc/$pid" }), 'it is killed');
wait_for_query($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'jobqueue monitor'}, 1);
wait_for_monitor($port);
is(status(ask($port, GET => '/api/x')), 200, 'and is back after the restart of the server');

# ---- changes of the setting ----

my ($second, $third) = (free_port(), free_port());
while ($third == $second) { $third = free_port() }
my $taker = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', LocalPort => $third, ReuseAddr => 1) or die "could not listen: $!";
$pid = pid();
set_and_reload($node, 'jobqueue.monitor',
	"database=postgres role=watcher port=$port, database=postgres role=watcher port=$second, database=postgres role=watcher port=$third");
wait_for_monitor($second);
is(status(ask($second, GET => '/api/x')), 200, 'a new entry gets its monitor');
ok(wait_for(sub { slurp_file($log) =~ /cannot listen on address "127\.0\.0\.1", port $third yet: Address already in use/ }), 'one whose port is taken says so');
my $health = q{SELECT status || ': ' || detail FROM job_health() WHERE "check" = 'monitors'};
ok(wait_for(sub { sql($health) =~ /^warn: a monitor cannot start, or cannot listen, for / }), 'so does job_health()');
is(sql(q{SELECT data FROM job_health() WHERE "check" = 'monitors'}) =~ /"database": "postgres"/, 1, 'it names the database');
$taker->close;
ok(wait_for(sub { status(ask($third, GET => '/api/x')) eq '200' }), 'and listens as soon as it can');
ok(wait_for(sub { sql($health) =~ /^ok: / }), 'then all is well');
set_and_reload($node, 'jobqueue.monitor', "database=postgres role=watcher port=$port, database=postgres role=runner port=$second");
ok(wait_for(sub { !knock($third) }), 'an entry that goes takes its monitor along');
ok(wait_for(sub { status(ask($second, GET => '/api/x')) eq '403' }), 'one that changes gets another: this role has no rights');
like(sql(q{SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE backend_type = 'jobqueue monitor'}), qr/\b$pid\b/, 'the others stay');

sql('ALTER ROLE runner SUPERUSER');
is(status(ask($second, GET => '/api/x')), 503, 'a role that has become a superuser is not used');
ok(wait_for(sub { !knock($second) }), 'its monitor ends');
ok(wait_for(sub { slurp_file($log) =~ /cannot start the monitor for port $second: its role is a superuser/ }), 'the log says why');
ok(wait_for(sub { sql($health) =~ /^warn: / }), 'and job_health() that it cannot start');
set_and_reload($node, 'jobqueue.monitor', '');
ok(wait_for(sub { !knock($port) }), 'without entries there is no monitor');
set_and_reload($node, 'jobqueue.monitor', "database=postgres role=watcher port=$port, database=other role=watcher port=$second");
wait_for_monitor($port);

# ---- its database goes ----

ok(wait_for(sub { slurp_file($log) =~ /port $second: its database does not exist/ }), 'a database that is not there is said');
sql(q{CREATE DATABASE other ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0});
wait_for_monitor($second);
is(status(ask($second, GET => '/api/x')), 503, 'it is served when it is');

# This one speaks another encoding than its clients.
$node->safe_psql('other', qq{CREATE EXTENSION jobqueue; $stub});
$node->safe_psql('other', q{
	CREATE OR REPLACE FUNCTION monitor_get(path text, query jsonb DEFAULT '{}', accept text DEFAULT '',
			OUT status integer, OUT content_type text, OUT body text)
		LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
	BEGIN
		IF path = '/api/fault' THEN RAISE EXCEPTION 'no %', chr(228) USING ERRCODE = '22023'; END IF;
		status := 200;
		content_type := 'text/plain';
		body := path || ascii(right(path, 1));
	END $$;
});
is(ask($second, GET => '/api/%C3%A4')->{body}, "/api/\xc3\xa4228", 'texts are converted');
is(ask($second, GET => '/api/fault')->{json}{error}, "no \x{e4}", 'so are errors');
is(status(ask($second, GET => '/api/%E2%82%AC')), 400, 'what that encoding lacks cannot be asked for');
sql('DROP DATABASE other WITH (FORCE)');
ok(wait_for(sub { !knock($second) }), 'DROP DATABASE WITH (FORCE) ends it');

# ---- a restart ----

my $open = knock($port);
print $open "GET /";
$since = time;
$node->restart;
cmp_ok(time - $since, '<', 30, 'connections do not hold up a restart');
wait_for_monitor($port);
is(status(ask($port, GET => '/api/x')), 200, 'and the port is free again at once');

$node->append_conf('postgresql.conf', 'jobqueue.launcher = off');
$node->restart;
is(knock($port), undef, 'without the launcher there is no monitor');

$node->stop;
unlike(slurp_file($log), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
