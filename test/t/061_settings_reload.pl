# Every setting, with every kind of value, through ALTER SYSTEM and through the
# file: nothing but the value changes, and the workers go on as they are.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Session;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = JobQueue::Cluster->new('main');
my $pids = q{SELECT string_agg(kind || ' ' || pid, ', ' ORDER BY kind) FROM _server_workers() WHERE kind IN ('launcher', 'scheduler')};
wait_for_query($node, q{SELECT count(*) FROM _server_workers() WHERE kind IN ('launcher', 'scheduler')}, 2);
my $started = $node->safe_psql('postgres', $pids);
my $s = JobQueue::Session->new($node);

# Reloads, and waits until both have gone round with what they read. A cycle
# that had begun before may end after the reload: so it is two of them.
sub reload
{
	for (1 .. 2)
	{
		my $now = $s->query('SELECT clock_timestamp()');
		my $until = time + ($ENV{PG_TEST_TIMEOUT_DEFAULT} || 180);

		$node->reload;
		while ($s->query("SELECT count(*) FROM _server_workers() WHERE kind = 'scheduler' AND last_cycle_at > '$now'") == 0)
		{
			die 'the scheduler goes no more rounds' if time > $until;
			sleep 0.01;    # why: between two looks
		}
	}
	return;
}

# What a setting may be besides its default, which a RESET brings, and what not.
sub values_of
{
	my ($name, $type, $min, $max, $options, $default) = @_;

	return ([ $min, $max ], [ $min - 1, $max + 1, 'banana', '', '99999999999999999999', 'NaN', '-1 d' ]) if $type eq 'integer';
	return ([ $default, 'on', 'off', 'true', '0' ], [ 'perhaps', '', '2' ]) if $type eq 'bool';
	return ([ $default, $options =~ /[\w]+/g ], [ 'banana', '', '0' ]) if $type eq 'enum';
	return ([ $default, '*', 'a.example.com, *.example.com, 10.0.0.1' ], [ 'a,,b', 'a b', ',', '*a', '127.1' ]) if $name eq 'jobqueue.http_allow_hosts';
	return ([ $default, '10.0.0.0/8, fd00::/8' ], [ '10.0.0.1/8', '10.0.0.0/33', 'a', ',' ]) if $name eq 'jobqueue.http_allow_cidrs';
	return ([ $default, '*', '443,8000-8100' ], [ '', '0', '65536', '90-80', 'a', ',' ]) if $name eq 'jobqueue.http_allow_ports';
	return ([ $default, '/etc/ssl/cert.pem' ], [ 'cert.pem', '/a' x 1000 ]) if $name eq 'jobqueue.http_ca_file';
	return ([ $default, 'http://proxy:3128' ], [ 'proxy', 'socks5://a', 'http://', 'http://u:p@a', 'http://a/b' ]) if $name eq 'jobqueue.http_proxy';
	return ([ $default, 'giftcard', 'sale-discovery.v2' ], [ '', 'a b', 'a.', '.a', 'a..b', 'a' x 64 ]) if $name eq 'jobqueue.event_prefix';
	return ([ $default, 'calibr-outbox-worker', 'a {"b": 1}' ], [ '', 'a' x 256 ]) if $name eq 'jobqueue.service_name';
	return ([ $default, 'database=nowhere role=nobody port=9187' ], [ 'a,,b', 'database=a', 'port=9187', 'banana' ]) if $name eq 'jobqueue.monitor';
	return ([ $default, '/etc/jobqueue/token' ], [ 'token', '/a' x 1000 ]) if $name eq 'jobqueue.monitor_token_file';
	return ([ $default, '*', 'postgres', '"postgres", postgres', 'postgres,sql' ], [ 'a,,b', '"', 'a b', ',' ]);
}

my $rows = $node->safe_psql('postgres', q{
	SELECT name, vartype, coalesce(min_val, ''), coalesce(max_val, ''), coalesce(array_to_string(enumvals, ' '), ''), boot_val, context
	FROM pg_settings WHERE name LIKE 'jobqueue.%' ORDER BY name});
my $conf = $node->data_dir . '/postgresql.conf';
my $before = slurp_file($conf);
my $count = 0;
my (@in_file, %round);

for my $row (split /\n/, $rows)
{
	my ($name, $type, $min, $max, $options, $default, $context) = split /\|/, $row, -1;
	my ($good, $bad) = values_of($name, $type, $min, $max, $options, $default);
	my $original = $node->safe_psql('postgres', "SHOW $name");
	my @wrong;

	for my $value (@$good)
	{
		my $sqlstate = $s->try("ALTER SYSTEM SET $name = '$value'");
		push @wrong, "'$value' was refused: $s->{message}" if $sqlstate ne '00000';
		reload();
		push @wrong, "'$value' ended a worker" if $s->query($pids) ne $started;
	}
	$s->query("ALTER SYSTEM RESET $name");
	reload();
	push @wrong, 'the setting has not come back' if $node->safe_psql('postgres', "SHOW $name") ne $original;

	for my $value (@$bad)
	{
		push @wrong, "'$value' was accepted" if $s->try("ALTER SYSTEM SET $name = '$value'") eq '00000';
	}
	push @in_file, map { { name => $name, value => $_, round => $round{$name}++ } } @$bad;
	is(join("\n", @wrong), '', "$name: " . @$good . ' values are taken, ' . @$bad . ' are not');
	$count++;
}
cmp_ok($count, '>=', 19, "$count settings");

# The file cannot be refused: what it says is not done. One wrong value of each
# setting at a time.
my $all = q{SELECT string_agg(name || '=' || setting, E'\n' ORDER BY name) FROM pg_settings WHERE name LIKE 'jobqueue.%'};
my $originals = $node->safe_psql('postgres', $all);
for (my $round = 0; my @values = grep { $_->{round} == $round } @in_file; $round++)
{
	append_to_file($conf, join '', map { "$_->{name} = '$_->{value}'\n" } @values);
	my $offset = -s $node->logfile;
	$node->reload;
	$node->wait_for_log(qr/configuration file .* contains errors/, $offset);
	is($node->safe_psql('postgres', $all), $originals, @values . ' wrong values in the file take no effect');
	$s->query(q{SELECT enqueue_job('go on')});
	open(my $file, '>', $conf) or die "could not write $conf: $!";
	print $file $before;
	close $file;
	reload();
}
is($node->safe_psql('postgres', $pids), $started, 'launcher and scheduler are those from the start');

# And they work.
$node->safe_psql('postgres', q{CREATE ROLE alice LOGIN});
my $id = $node->safe_psql('postgres', q{SELECT enqueue_sql('SELECT 1', run_as => 'alice')});
wait_for_query($node, "SELECT status FROM jobs_queue WHERE id = $id", 'completed');
pass('a job is run');

$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
