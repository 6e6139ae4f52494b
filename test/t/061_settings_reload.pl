# Every setting, with every kind of value, through ALTER SYSTEM and through the
# file: nothing but the value changes, and the workers go on as they are.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main');
my $pids = q{SELECT string_agg(kind || ' ' || pid, ', ' ORDER BY kind) FROM _server_workers() WHERE kind IN ('launcher', 'scheduler')};
wait_for_query($node, q{SELECT count(*) FROM _server_workers() WHERE kind IN ('launcher', 'scheduler')}, 2);
my $started = $node->safe_psql('postgres', $pids);

# Reloads, and waits until both have gone round with what they read. A cycle
# that had begun before may end after the reload: so it is two of them.
sub reload
{
	for (1 .. 2)
	{
		my $now = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
		$node->reload;
		wait_for_query($node, "SELECT count(*) = 1 FROM _server_workers() WHERE kind = 'scheduler' AND last_cycle_at > '$now'");
	}
}

# What a setting may be, and what it may not.
sub values_of
{
	my ($name, $type, $min, $max, $options, $default) = @_;

	return ([ $default, $min, $max ], [ $min - 1, $max + 1, 'banana', '', '99999999999999999999', 'NaN', '-1 d' ]) if $type eq 'integer';
	return ([ $default, 'on', 'off', 'true', '0' ], [ 'perhaps', '', '2' ]) if $type eq 'bool';
	return ([ $default, $options =~ /[\w]+/g ], [ 'banana', '', '0' ]) if $type eq 'enum';
	return ([ $default, '*', 'a.example.com, *.example.com, 10.0.0.1' ], [ 'a,,b', 'a b', ',', '*a', '127.1' ]) if $name eq 'jobqueue.http_allow_hosts';
	return ([ $default, '10.0.0.0/8, fd00::/8' ], [ '10.0.0.1/8', '10.0.0.0/33', 'a', ',' ]) if $name eq 'jobqueue.http_allow_cidrs';
	return ([ $default, '*', '443,8000-8100' ], [ '', '0', '65536', '90-80', 'a', ',' ]) if $name eq 'jobqueue.http_allow_ports';
	return ([ $default, '/etc/ssl/cert.pem' ], [ 'cert.pem', '/a' x 1000 ]) if $name eq 'jobqueue.http_ca_file';
	return ([ $default, 'http://proxy:3128' ], [ 'proxy', 'socks5://a', 'http://', 'http://u:p@a', 'http://a/b' ]) if $name eq 'jobqueue.http_proxy';
	return ([ $default, '*', 'postgres', '"postgres", postgres', 'postgres,sql' ], [ 'a,,b', '"', 'a b', ',' ]);
}

my $rows = $node->safe_psql('postgres', q{
	SELECT name, vartype, coalesce(min_val, ''), coalesce(max_val, ''), coalesce(array_to_string(enumvals, ' '), ''), boot_val, context
	FROM pg_settings WHERE name LIKE 'jobqueue.%' ORDER BY name});
my $conf = $node->data_dir . '/postgresql.conf';
my $before = slurp_file($conf);
my $count = 0;

for my $row (split /\n/, $rows)
{
	my ($name, $type, $min, $max, $options, $default, $context) = split /\|/, $row, -1;
	my ($good, $bad) = values_of($name, $type, $min, $max, $options, $default);
	my $original = $node->safe_psql('postgres', "SHOW $name");
	my @wrong;

	for my $value (@$good)
	{
		my $status = $node->psql('postgres', "ALTER SYSTEM SET $name = '$value'", stderr => \my $stderr);
		push @wrong, "'$value' was refused: $stderr" if $status != 0;
		reload();
		push @wrong, "'$value' ended a worker" if $node->safe_psql('postgres', $pids) ne $started;
	}
	$node->safe_psql('postgres', "ALTER SYSTEM RESET $name");
	reload();
	push @wrong, 'the setting has not come back' if $node->safe_psql('postgres', "SHOW $name") ne $original;

	for my $value (@$bad)
	{
		my $status = $node->psql('postgres', "ALTER SYSTEM SET $name = '$value'", stderr => \my $stderr);
		push @wrong, "'$value' was accepted" if $status == 0;
	}
	# The file cannot be refused: what it says is not done.
	for my $value (@$bad)
	{
		append_to_file($conf, "$name = '$value'\n");
		my $offset = -s $node->logfile;
		$node->reload;
		$node->wait_for_log(qr/configuration file .* contains errors/, $offset);
		push @wrong, "'$value' in the file took effect" if $node->safe_psql('postgres', "SHOW $name") ne $original;
		$node->safe_psql('postgres', q{SELECT enqueue_job('go on')});
		open(my $file, '>', $conf) or die "could not write $conf: $!";
		print $file $before;
		close $file;
	}
	reload();
	push @wrong, 'a wrong value ended a worker' if $node->safe_psql('postgres', $pids) ne $started;
	is(join("\n", @wrong), '', "$name: " . @$good . ' values are taken, ' . @$bad . ' are not');
	$count++;
}
cmp_ok($count, '>=', 19, "$count settings");
is($node->safe_psql('postgres', $pids), $started, 'launcher and scheduler are those from the start');

# And they work.
$node->safe_psql('postgres', q{CREATE ROLE alice LOGIN});
my $id = $node->safe_psql('postgres', q{SELECT enqueue_sql('SELECT 1', run_as => 'alice')});
wait_for_query($node, "SELECT status FROM jobs_queue WHERE id = $id", 'completed');
pass('a job is run');

$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
