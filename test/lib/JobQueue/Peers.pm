# Programs of others that the tests talk to. test/peers/get gets them, and for the
# example guide-validator its own script get; JOBQUEUE_TEST_PEERS is the directory
# where these have put what is not installed.
#
#   need_peers('nginx', 'webhooks');                   # or skip the script
#   my $tls = certificate();                           # paths and texts, see there
#   my $port = start_peer([ 'nghttpd', ... ], $port);  # waits until it listens
#
# What was started ends with the script.
package JobQueue::Peers;

use strict;
use warnings;
use Carp qw(croak);
use Cwd qw(abs_path);
use Exporter qw(import);
use FindBin;
use IO::Socket::INET;
use IPC::Run qw();
use PostgreSQL::Test::Utils;
use Test::More ();
use Time::HiRes qw(sleep time);

our @EXPORT_OK = qw(need_peers peer_program peer_file peers_directory certificate start_peer stop_peer);

my %started;    # by port

# What each peer needs besides: a program, or a library of Node.
my %needs = (
	nginx => sub { peer_program('nginx') && peer_program('openssl') },
	nghttpd => sub { peer_program('nghttpd') && peer_program('openssl') },
	webhooks => sub { peer_program('node') && -d peers_directory() . '/node_modules/standardwebhooks' },
	pgbouncer => sub { peer_program('pgbouncer') },
	'node-postgres' => sub { peer_program('node') && -d peers_directory() . '/guide-validator/node_modules/pg' },
	psycopg2 => sub { system(q{/usr/bin/python3 -c 'import psycopg2' 2>/dev/null}) == 0 },
);

sub peers_directory
{
	return $ENV{JOBQUEUE_TEST_PEERS} // '/nonexistent';
}

# The path of a program; undef when there is none.
sub peer_program
{
	my ($name) = @_;

	my @directories = (split(/:/, $ENV{PATH}), '/usr/sbin', map { peers_directory() . "$_/usr/sbin" } '', '/guide-validator');
	my ($path) = grep { -x $_ } map { "$_/$name" } @directories;
	return $path;
}

# A file of test/peers.
sub peer_file
{
	my ($name) = @_;

	return abs_path("$FindBin::RealBin/../peers/$name");
}

# Ends the script if one of these cannot be had. It is skipped, or it fails under
# test/run, which should have got them.
sub need_peers
{
	my @missing = grep { !$needs{$_}->() } @_;

	return unless @missing;
	my $reason = "not installed (test/run setup does it): @missing";
	croak($reason) if $ENV{JOBQUEUE_TEST_ALL};
	Test::More::plan(skip_all => $reason);
	return;
}

# A certificate of 127.0.0.1 and localhost, signed by an authority of its own:
# { directory, certificate, key, ca (paths), ca_text }.
sub certificate
{
	my $directory = abs_path(PostgreSQL::Test::Utils::tempdir('tls'));
	my $output = `'${\ peer_file('make_certificate')}' '$directory' 2>&1`;

	croak "could not make a certificate: $output" if $?;
	return {
		directory => $directory,
		certificate => "$directory/server.pem",
		key => "$directory/server.key",
		ca => "$directory/ca.pem",
		ca_text => slurp_file("$directory/ca.pem"),
	};
}

# Starts a program that will listen on a port of 127.0.0.1.
sub start_peer
{
	my ($command, $port) = @_;

	my $output = '';
	my $process = IPC::Run::start($command, '<', \undef, '>&', \$output);
	$started{$port} = $process;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	until (IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port))
	{
		$process->pump_nb;
		croak "could not start @$command: $output" if !$process->pumpable || time > $deadline;
		sleep 0.05;
	}
	return $port;
}

sub stop_peer
{
	my ($port) = @_;

	my $process = delete $started{$port} or return;
	$process->signal('TERM');
	$process->finish;
	return;
}

END
{
	local $?;
	stop_peer($_) foreach keys %started;
}

1;
