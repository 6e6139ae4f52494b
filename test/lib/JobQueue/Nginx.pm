# An nginx for tests, on 127.0.0.1: HTTP/1.1 on one port, TLS and HTTP/2 on the
# other (test/peers/nginx.conf, which also says what it answers to which path).
#
#   need_peers('nginx');                       # of JobQueue::Peers
#   my $nginx = JobQueue::Nginx->new(certificate => certificate());
#   $nginx->url('/ok'), $nginx->tls_url('/ok')
#   my @requests = $nginx->requests('tls');    # or 'plain': what it has answered so far
#   $nginx->stop;
package JobQueue::Nginx;

use strict;
use warnings;
use JobQueue::Peers qw(peer_file peer_program start_peer stop_peer);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

# The fields of a line of the log, in the order of the configuration.
my @fields = qw(port connection protocol method path status end seconds);

sub new
{
	my ($class, %param) = @_;

	my $directory = $param{certificate}{directory};
	my %words = (
		directory => $directory,
		workers => $param{workers} // 1,
		port => PostgreSQL::Test::Cluster::get_free_port(),
		tls_port => PostgreSQL::Test::Cluster::get_free_port(),
		log => "$directory/access.log line",
		paced => 'x' x 200,
	);
	my $conf = slurp_file(peer_file('nginx.conf'));
	$conf =~ s/\@(\w+)\@/$words{$1}/g;
	append_to_file("$directory/nginx.conf", $conf);
	append_to_file("$directory/access.log", '');

	start_peer([ peer_program('nginx'), '-p', $directory, '-e', "$directory/error.log",
		'-c', "$directory/nginx.conf" ], $words{port});
	return bless \%words, $class;
}

sub url
{
	my ($self, $path) = @_;

	return "http://127.0.0.1:$self->{port}$path";
}

sub tls_url
{
	my ($self, $path) = @_;

	return "https://localhost:$self->{tls_port}$path";
}

# Requests that it has answered on a port, as hashes: connection (a number),
# protocol, method, path, status, begin and end (seconds since 1970).
sub requests
{
	my ($self, $which) = @_;

	my $port = $self->{ $which eq 'tls' ? 'tls_port' : 'port' };
	my @requests;
	foreach my $line (split /\n/, slurp_file("$self->{directory}/access.log"))
	{
		my %request;
		@request{@fields} = split / /, $line;
		$request{begin} = $request{end} - $request{seconds};
		push @requests, \%request if $request{port} == $port;
	}
	return @requests;
}

sub stop
{
	my ($self) = @_;

	stop_peer($self->{port});
	return;
}

1;
