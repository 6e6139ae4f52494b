# HTTP jobs in states that a dispatcher is easily left in: counters that are reset
# under it, locks of others, answers that are meant to hurt, neighbours that wait.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::HttpServer;
use JobQueue::Session;
use IO::Socket::INET;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

my $server = JobQueue::HttpServer->start;
my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
jobqueue.http_allow_cidrs = '127.0.0.0/8'
jobqueue.http_allow_ports = '*'
jobqueue.dispatcher_idle_timeout = 1s
CONF

my (@servers, $owner);
$owner = $$;
END { kill 'KILL', @servers if @servers && $$ == $owner }
my %only = map { $_ => 1 } split /,/, $ENV{ONLY} // '';
my $is_live = q{SELECT count(*) FROM jobs_queue_live};

sub part
{
	my ($name, $code) = @_;

	return if %only && !$only{$name};
	subtest $name => $code;
	return;
}

sub sql { return $node->safe_psql('postgres', $_[0]) }

# An endpoint and a job type of the same name.
sub endpoint
{
	my ($name, $url, %column) = @_;
	my %type = map { $_ => delete $column{$_} } grep { exists $column{$_} } qw(batch_size max_linger max_attempts);

	sql(sprintf "INSERT INTO http_endpoints (%s) VALUES (%s)", join(', ', 'name', 'url', sort keys %column),
		join ', ', map { "'$_'" } $name, $url, @column{ sort keys %column });
	%type = (runner => 'http', endpoint => $name, max_attempts => 1, %type);
	sql(sprintf "INSERT INTO job_types (%s) VALUES (%s)", join(', ', 'job_type', sort keys %type),
		join ', ', map { "'$_'" } $name, @type{ sort keys %type });
	return;
}

# A server that answers every request with the same bytes, of any length.
sub serve
{
	my ($bytes) = @_;
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 100, Proto => 'tcp');
	my $pid = fork // die "could not fork: $!";

	if ($pid == 0)
	{
		while (my $client = $listener->accept)
		{
			my ($head, $part) = ('', '');
			$head .= $part while $head !~ /\r\n\r\n/ && sysread $client, $part, 65536;
			my ($left) = $head =~ /Content-Length: (\d+)/i;
			$left = ($left // 0) - length $head =~ s/\A.*?\r\n\r\n//sr;
			$left -= sysread($client, $part, 65536) || last while $left > 0;
			print $client $bytes;
			close $client;
		}
		POSIX::_exit(0);
	}
	push @servers, $pid;
	return 'http://127.0.0.1:' . $listener->sockport . '/';
}

sub enqueue { return sql("SELECT count(enqueue_job('$_[0]')) FROM generate_series(1, $_[1])") }
sub wait_until
{
	my ($code, $patience) = @_;
	my $until = time + ($patience // 30);

	until ($code->()) { return 0 if time > $until; sleep 0.02 }
	return 1;
}

part reset => sub {
	endpoint('reset', $server->url('/gate/reset'), max_concurrency => 2, timeout => '30 s');
	enqueue('reset', 2);
	wait_until(sub { $server->count('/gate/reset') == 2 });
	sql(q{SELECT reset_endpoint_stats('reset')});
	$server->open_gate('reset');
	wait_for_query($node, $is_live, '0');
	is(sql(q{SELECT in_flight FROM endpoint_status WHERE name = 'reset'}), '0', 'nothing is in flight after counters were reset under requests');
	enqueue('reset', 3);
	ok(wait_until(sub { sql($is_live) eq '0' }, 10), 'and others are sent');
};

part linger => sub {
	endpoint('long', $server->url('/ok/linger'), batch_size => 10, max_linger => '1 hour');
	sql(q{INSERT INTO job_types (job_type, runner, endpoint, batch_size, max_linger) VALUES ('short', 'http', 'long', 10, '100 ms')});
	sql(q{ALTER SYSTEM SET jobqueue.poll_interval = '20s'; SELECT pg_reload_conf()});
	enqueue('long', 1);
	wait_until(sub { sql(q{SELECT count(*) FROM jobs_queue_live WHERE status = 'running'}) eq '1' });
	my $begin = time;
	enqueue('short', 1);
	ok(wait_until(sub { sql(q{SELECT count(*) FROM jobs_queue_live WHERE job_type = 'short'}) eq '0' }, 25), 'a job of another type is sent');
	cmp_ok(time - $begin, '<', 3, 'when it has waited long enough, not the one before it');
	sql(q{ALTER SYSTEM RESET jobqueue.poll_interval; SELECT pg_reload_conf(); SELECT cancel_job(id) FROM jobs_queue_live});
	wait_for_query($node, $is_live, '0');
};

part waiting => sub {
	endpoint('patient', $server->url('/ok/patient'), batch_size => 100, max_linger => '1 hour');
	enqueue('patient', 80);
	wait_until(sub { sql(q{SELECT count(*) FROM jobs_queue_live WHERE status = 'running'}) eq '80' });
	my $id = sql(sprintf q{SELECT enqueue_http('%s', '{}')}, $server->url('/ok/url'));
	ok(wait_until(sub { sql("SELECT status FROM jobs_queue WHERE id = $id") eq 'completed' }, 10), 'jobs that wait for others to share a request keep no URL from being claimed');
	enqueue('patient', 20);
	wait_for_query($node, $is_live, '0');
	is($server->count('/ok/patient'), 1, 'and are sent with as many as there may be');
};

part slow_host => sub {
	sql(sprintf q{SELECT count(enqueue_http('%s', '{}', timeout => '1 min')) FROM generate_series(1, 300)}, $server->url('/gate/slow_host'));
	wait_until(sub { $server->count('/gate/slow_host') == 20 });
	sql(sprintf q{SELECT count(enqueue_http('%s', '{}', correlation_id => 'other host')) FROM generate_series(1, 100)}, $server->url('/ok/other_host', 'second'));
	ok(wait_until(sub { sql(q{SELECT count(*) FROM jobs_queue_live WHERE correlation_id = 'other host'}) eq '0' }, 15), 'a slow host keeps no job from going to another');
	is($server->count('/gate/slow_host'), 20, 'which has as many as it may');
	$server->open_gate('slow_host');
	wait_for_query($node, $is_live, '0');
};

part starving => sub {
	endpoint('bulk', $server->url('/gate/bulk'), batch_size => 100, max_concurrency => 6, timeout => '60 s');
	endpoint('small', $server->url('/ok/small'));
	enqueue('bulk', 3000);
	wait_until(sub { $server->count('/gate/bulk') == 6 });
	enqueue('small', 5);
	ok(wait_until(sub { sql(q{SELECT count(*) FROM jobs_queue_live WHERE job_type = 'small'}) eq '0' }, 10), 'a slow endpoint with large requests keeps no other');
	$server->open_gate('bulk');
	wait_for_query($node, $is_live, '0');
};

part items => sub {
	my $count = 700;
	my $answer = '[' . join(',', '{"status":1e300}', ('{"status":500,"error":"' . 'x' x 100 . '"}') x ($count - 1)) . ']';
	endpoint('items', serve("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n$answer"), batch_size => $count, max_linger => '3 s', max_concurrency => 1);
	sql("BEGIN; SELECT count(enqueue_job('items')) FROM generate_series(1, $count); COMMIT");
	wait_for_query($node, $is_live, '0');
	is(sql(q{SELECT status, count(*) FROM jobs_queue WHERE job_type = 'items' GROUP BY 1}), "failed|$count", 'an outcome that is no status makes no success of the others');
	is(sql(q{SELECT count(*) FROM job_runs WHERE job_type = 'items' AND response->>'status' = '200'}), $count, 'and each response is whole');
};

part headers => sub {
	my $answer = "HTTP/1.1 200 OK\r\n" . "a:\n" x 20000 . "\r\n";
	endpoint('headers', serve($answer), max_concurrency => 10);
	my $peak = sub {
		my $pid = sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'jobqueue dispatcher'}) or return 0;
		return slurp_file("/proc/$pid/status") =~ /VmHWM:\s+(\d+)/ ? $1 : 0;
	};
	endpoint('headers0', $server->url('/ok'));
	enqueue('headers0', 1);
	wait_for_query($node, $is_live, '0');
	my $before = $peak->();
	enqueue('headers', 5);
	wait_until(sub { sql($is_live) eq '0' }, 60);
	my $after = $peak->();
	cmp_ok($after - $before, '<', 32 * 1024, 'many headers of one name take little memory');
};

part cut => sub {
	my $secret = 'canary-' . 'c4n4ry' x 5;
	sql("SELECT set_secret('cut', '$secret')");
	for my $kept (length($secret) - 1, 20, 5)
	{
		endpoint("cut $kept", serve("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nYou sent $secret"),
			headers => '{"Authorization": "{{secret.cut}}"}', max_response_size => 9 + $kept);
		enqueue("cut $kept", 1);
	}
	wait_for_query($node, $is_live, '0');
	is(sql(q{SELECT count(*) FROM job_runs WHERE response->>'body' LIKE 'You sent *%' AND response->>'truncated' = 'true'}), '3', 'a body that is cut inside of a secret');
	is(sql(q{SELECT count(*) FROM job_runs WHERE response::text LIKE '%sent cana%'}), '0', 'does not tell the beginning of it');
};

part lock => sub {
	endpoint('held', $server->url('/gate/held'), timeout => '60 s');
	endpoint('neighbour', $server->url('/ok/neighbour'));
	sql(q{UPDATE job_types SET lease = '2 s' WHERE job_type = 'held'});
	enqueue('held', 5);
	wait_until(sub { $server->count('/gate/held') == 5 });
	my $session = JobQueue::Session->new($node);
	$session->query(q{BEGIN});
	$session->query(q{SELECT count(cancel_job(id)) FROM jobs_queue_live WHERE job_type = 'held'});
	my $slowest = 0;
	my $until = time + 8;
	while (time < $until)
	{
		my $begin = time;
		enqueue('neighbour', 1);
		wait_until(sub { sql(q{SELECT count(*) FROM jobs_queue_live WHERE job_type = 'neighbour'}) eq '0' });
		$slowest = time - $begin if time - $begin > $slowest;
	}
	cmp_ok($slowest, '<', 0.9, 'a transaction that holds a job keeps no others');
	$server->open_gate('held');
	sleep 0.5;
	$slowest = 0;
	$until = time + 8;
	while (time < $until)
	{
		my $begin = time;
		enqueue('neighbour', 1);
		wait_until(sub { sql(q{SELECT count(*) FROM jobs_queue_live WHERE job_type = 'neighbour'}) eq '0' });
		$slowest = time - $begin if time - $begin > $slowest;
	}
	cmp_ok($slowest, '<', 3, 'nor once its requests have ended');
	$session->query('ROLLBACK');
	wait_for_query($node, $is_live, '0');
};

part again => sub {
	endpoint('again', $server->url('/gate/again'), timeout => '30 s');
	enqueue('again', 1);
	wait_until(sub { $server->count('/gate/again') == 1 });
	my $id = sql('SELECT id FROM jobs_queue_live');
	$node->psql('postgres', 'BEGIN; DROP EXTENSION jobqueue CASCADE; CREATE EXTENSION jobqueue; COMMIT');
	endpoint('again', $server->url('/gate/second'), timeout => '30 s', max_attempts => 1);
	sql("SELECT setval('jobs_queue_id_seq', $id, false)");
	my $new = sql("SELECT enqueue_job('again')");
	is($new, $id, 'a job of the new extension has the id of an old one');
	wait_until(sub { $server->count('/gate/second') == 1 }, 20);
	is($server->count('/gate/second'), 1, 'and is sent');
	$server->open_gate('again');
	sleep 1;
	is(sql("SELECT status FROM jobs_queue WHERE id = $new"), 'running', 'and does not end with the old one');
	$server->open_gate('second');
	wait_for_query($node, $is_live, '0');
};

part enabled => sub {
	endpoint('kept', $server->url('/gate/kept'), timeout => '60 s');
	endpoint('other', $server->url('/ok/other'));
	enqueue('kept', 1);
	wait_until(sub { $server->count('/gate/kept') == 1 });
	sql(q{ALTER SYSTEM SET jobqueue.enabled = off});
	sql(q{SELECT pg_reload_conf()});
	sleep 0.5;
	sql(q{ALTER SYSTEM RESET jobqueue.enabled});
	sql(q{SELECT pg_reload_conf()});
	sleep 0.5;
	enqueue('other', 1);
	ok(wait_until(sub { sql(q{SELECT count(*) FROM jobs_queue_live WHERE job_type = 'other'}) eq '0' }, 8), 'a dispatcher that drains keeps no jobs from being sent');
	$server->open_gate('kept');
	wait_for_query($node, $is_live, '0');
};

part exact => sub {
	sql(q{ALTER SYSTEM SET jobqueue.max_dispatchers = 6});
	sql(q{SELECT pg_reload_conf()});
	endpoint('exact', $server->url('/late/60'), max_concurrency => 5);
	endpoint('also', $server->url('/late/61'), max_concurrency => 3, batch_size => 3);
	enqueue($_, 600) for qw(exact also);
	my $dispatchers = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'jobqueue dispatcher' ORDER BY random() LIMIT 1};
	my $most = 0;
	my $kills = 0;
	wait_until(sub {
		my $now = sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'jobqueue dispatcher'});
		$most = $now if $now > $most;
		$kills++ if $now > 1 && kill 'TERM', sql($dispatchers) || $$ + 1_000_000;
		sql($is_live) eq '0';
	}, 60);
	is(sql(q{SELECT count(*), count(*) FILTER (WHERE status = 'completed'), max(claim_no) > 0 FROM jobs_queue WHERE job_type IN ('exact', 'also')}), '1200|1200|t', 'all jobs are sent while dispatchers come and go');
	for ([ '/late/60', 5 ], [ '/late/61', 3 ])
	{
		my ($path, $limit) = @$_;
		my @at = sort { $a <=> $b } map { $_->{at} } $server->requests($path);
		my ($from, $max) = (0, 0);
		for my $i (0 .. $#at)
		{
			$from++ while $at[$from] < $at[$i] - 0.055;
			$max = $i - $from + 1 if $i - $from + 1 > $max;
		}
		cmp_ok($max, '<=', $limit, "never more than $limit at once");
	}
	my %count = $server->count_by_key('/late/60');
	cmp_ok((sort { $b <=> $a } values %count)[0], '<=', 1, 'each one once: what is on its way ends before its dispatcher');
	sql(q{ALTER SYSTEM RESET jobqueue.max_dispatchers; });
	sql(q{SELECT pg_reload_conf()});
};

part idle => sub {
	endpoint('full', $server->url('/gate/full'), max_concurrency => 2, timeout => '120 s');
	endpoint('lingers', $server->url('/ok/lingers'), batch_size => 100, max_linger => '1 hour');
	endpoint('disabled', $server->url('/ok/disabled'));
	my $sample = sub {
		my ($what) = @_;
		my %before = map { $_ => (split ' ', slurp_file("/proc/$_/stat"))[13] + (split ' ', slurp_file("/proc/$_/stat"))[14] }
		  split /\n/, sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'jobqueue dispatcher'});
		sleep 3;
		my $ticks = 0;
		$ticks += (split ' ', slurp_file("/proc/$_/stat"))[13] + (split ' ', slurp_file("/proc/$_/stat"))[14] - $before{$_}
		  for grep { -e "/proc/$_/stat" } keys %before;
			cmp_ok($ticks / 3, '<', 8, "$what takes no time");
	};
	sql(q{ALTER SYSTEM SET jobqueue.max_dispatchers = 3});
	sql(q{SELECT pg_reload_conf()});
	enqueue('full', 500);
	sleep 1;
	$sample->('a full endpoint');
	enqueue('lingers', 30);
	sleep 0.5;
	$sample->('bulk that lingers');
	sql(q{UPDATE http_endpoints SET enabled = false WHERE name = 'disabled'});
	enqueue('disabled', 300);
	sql(q{SELECT count(enqueue_http('disabled', '{}')) FROM generate_series(1, 300)});
	sleep 1;
	$sample->('a disabled endpoint');
	my $session = JobQueue::Session->new($node);
	$session->query('BEGIN');
	$session->query('LOCK TABLE jobs_queue_live IN SHARE ROW EXCLUSIVE MODE');
	$sample->('a locked table');
	$session->query('ROLLBACK');
	sql(q{ALTER SYSTEM SET jobqueue.enabled = off});
	sql(q{SELECT pg_reload_conf()});
	sleep 1;
	$sample->('draining');
	sql(q{ALTER SYSTEM RESET jobqueue.enabled});
	sql(q{ALTER SYSTEM RESET jobqueue.max_dispatchers});
	sql(q{SELECT pg_reload_conf()});
	$server->open_gate('full');
	sql(q{SELECT cancel_job(id) FROM jobs_queue_live});
	wait_for_query($node, $is_live, '0');
};

part memory => sub {
	my $count = $ENV{REQUESTS} // return pass('is measured where REQUESTS says with how many');
	my %url = (shut => $server->url('/ok', 'shut'), rude => $server->url('/ok', 'rude'), missing => $server->url('/status/404'),
		garbage => $server->url('/garbage'), deep => $server->url('/deep_json/500'), nul => $server->url('/json_nul'), late => $server->url('/hang'));
	endpoint($_, $url{$_}, timeout => $_ eq 'late' ? '50 ms' : '10 s', max_concurrency => 20) for sort keys %url;
	my $rss = sub { slurp_file('/proc/' . sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'jobqueue dispatcher'}) . '/status') =~ /RssAnon:\s+(\d+)/ ? $1 : 0 };
	my @rss;
	for my $round (1 .. $ENV{ROUNDS} // 4)
	{
		enqueue($_, $count) for sort keys %url;
		sql("SELECT count(enqueue_http('http://nowhere.invalid./' || n, max_attempts => 1)) FROM generate_series(1, 200) n");
		sql("SELECT count(enqueue_http('http://127.0.0.1:' || 20000 + n || '/', max_attempts => 1)) FROM generate_series(1, $count) n");
		wait_until(sub { sql($is_live) eq '0' }, 200);
		push @rss, $rss->();
	}
	cmp_ok($rss[-1] - $rss[0], '<', 4096, 'memory does not grow');
};

part numbers => sub {
	sql(q{ALTER SYSTEM SET jobqueue.max_endpoint_stats = 0});
	sql(q{ALTER SYSTEM SET jobqueue.max_dispatchers = 4});
	$node->restart;
	endpoint('counted', $server->url('/late/20'), max_concurrency => 5);
	enqueue('counted', 1000);
	ok(wait_until(sub { sql($is_live) eq '0' }, 40), 'without counters, each dispatcher sends or leaves jobs alone');
	sql(q{ALTER SYSTEM SET jobqueue.max_endpoint_stats = 1});
	$node->restart;
	endpoint('counted2', $server->url('/late/20'), max_concurrency => 5);
	enqueue($_, 1000) for qw(counted counted2);
	ok(wait_until(sub { sql($is_live) eq '0' }, 40), 'the same where counters have room for one endpoint');
};

$node->stop;
done_testing;
