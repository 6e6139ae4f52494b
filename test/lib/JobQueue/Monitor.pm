# Monitors in tests: a client that says what it is told to, byte by byte.
#
#   my $port = free_port();
#   my $node = JobQueue::Cluster->new('main', conf => monitor_conf($port));
#   wait_for_monitor($port);
#   my $answer = ask($port, GET => '/api/x', headers => { Host => 'a' }, body => '');
#   $answer->{status}, {body}, {header}{'content-type'}; undef without an answer
#   my $socket = knock($port);              # a connection
#   print $socket "GET / HTTP/1.1\r\n";
#   my $answer = hear($socket);             # the next answer on it
#   my $bytes = hear_all($socket, 6);       # until it is closed, or undef
package JobQueue::Monitor;

use strict;
use warnings;
use Exporter qw(import);
use IO::Select;
use IO::Socket::INET;
use JobQueue::Cluster qw(wait_for_query);
use JSON::PP qw(decode_json);
use Time::HiRes qw(sleep time);

our @EXPORT_OK = qw(free_port monitor_conf wait_for_monitor ask knock hear hear_all);

# Nobody listens there now.
sub free_port
{
	my $socket = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', ReuseAddr => 1) or die "could not listen: $!";
	return $socket->sockport;
}

sub monitor_conf
{
	my ($port, %param) = @_;

	my $role = $param{role} // 'watcher';
	my $more = $param{more} // '';
	return "jobqueue.monitor = 'database=postgres role=$role port=$port $more'\n";
}

sub knock
{
	my ($port) = @_;

	return IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 10);
}

sub wait_for_monitor
{
	my ($port) = @_;

	for (1 .. 1200)
	{
		return if knock($port);
		sleep 0.05;
	}
	die "no monitor listens on port $port";
}

sub ask
{
	my ($port, $method, $target, %param) = @_;

	my $socket = $param{socket} // knock($port) or return;
	my %header = (Host => "127.0.0.1:$port", %{ $param{headers} // {} });
	$header{'Content-Length'} = length $param{body} if defined $param{body};
	$header{Connection} //= 'close' unless $param{socket};
	local $SIG{PIPE} = 'IGNORE';
	print $socket join "\r\n", "$method $target HTTP/1.1",
	  (map { defined $header{$_} ? "$_: $header{$_}" : () } sort keys %header), '', $param{body} // '';
	$socket->flush;
	return hear($socket, $method eq 'HEAD', $param{wait});
}

# Reads the next answer; what has come behind it stays for the one after.
sub hear
{
	my ($socket, $is_head, $wait) = @_;

	my $until = time + ($wait // 30);
	my $left = \(${*$socket}{jobqueue_left} //= '');
	_read($socket, $left, $until) or return until $$left =~ s/\A(.*?\r\n\r\n)//s;
	my $head = $1;
	my ($status) = $head =~ /\AHTTP\/1\.1 (\d+)/ or return;
	my %header = map { /\A([^:]+): (.*)\z/ ? (lc $1 => $2) : () } split /\r\n/, $head;
	my $length = $is_head ? 0 : $header{'content-length'} // 0;
	_read($socket, $left, $until) or return until length $$left >= $length;
	my $body = substr $$left, 0, $length, '';
	my $json = ($header{'content-type'} // '') =~ /json/ ? eval { decode_json($body) } : undef;
	return { status => $status, header => \%header, body => $body, json => $json };
}

# Everything up to the end of the connection; undef when it does not end.
sub hear_all
{
	my ($socket, $seconds) = @_;

	my $until = time + $seconds;
	my $all = '';
	while (1)
	{
		return unless IO::Select->new($socket)->can_read($until - time > 0 ? $until - time : 0);
		my $length = sysread $socket, my ($bytes), 65536;
		return $all unless $length;
		$all .= $bytes;
	}
}

sub _read
{
	my ($socket, $left, $until) = @_;

	return unless IO::Select->new($socket)->can_read($until - time > 0 ? $until - time : 0);
	return sysread $socket, $$left, 65536, length $$left;
}

1;
