# An HTTP server on 127.0.0.1 that does whatever a test asks for, above all what
# no server should do. The path of a request says what: "/NAME/ARGUMENT/..." with
# the names of JobQueue::HttpBehaviours. Core Perl only; one process serves all
# connections, hundreds at once.
#
#   my $server = JobQueue::HttpServer->start;
#   my $url = $server->url('/status/503');        # '/hang', '/gzip_bomb', '/gate/NAME', ...
#   my $url = $server->url('/ok', 'second');      # at another of its ports, see below
#   my $url = $server->redirect_url(302, $url);   # '/redirect/302/...'
#   my $url = $server->raw_url("HTTP/1.1 2");     # answers with these bytes, then closes
#   $server->open_gate('NAME');                   # lets '/gate/NAME' answer, now and later
#   my @requests = $server->requests('/status');  # those whose path begins so; all without
#   my $count = $server->count('/status');
#   my %count = $server->count_by_key('/status'); # Idempotency-Key => how many requests
#   my $count = $server->open_connections;        # to all ports that accept
#   $server->stop;
#
# A request is known here before it is answered. It is a hash: at (seconds since
# 1970), connection (its number), port (its name), method, target, path, query,
# version, head (as it came), headers (name in lower case => values joined by
# ", "), header_list (pairs of name and value, in order), body.
#
# Ports: 'main', 'second' (the same at another port), 'mute' (accepts, then
# nothing), 'deaf' (listens, but its queue is full), 'shut' (refuses), 'rude'
# (resets each connection at once), 'chatty' (speaks before it is asked).
#
# Parameters of start(): port (of 'main'), host (an address instead of 127.0.0.1),
# tls => { NAME => [ arguments of openssl s_server ] }: more ports, that speak TLS.
# Such a port serves one connection at a time, always says "Connection: close" and
# cannot reset. JobQueue::Certificates makes certificates for it.
package JobQueue::HttpServer;

use strict;
use warnings;
use Carp qw(croak);
use IO::Socket::INET;
use JobQueue::HttpBehaviours;
use JobQueue::HttpLoop;
use MIME::Base64 qw(encode_base64url);
use POSIX ();
use PostgreSQL::Test::Utils ();
use Socket qw(SOCK_STREAM);
use Time::HiRes qw(sleep time);

my @listening = qw(main second mute rude chatty);

sub start
{
	my ($class, %param) = @_;

	my $self = bless {
		host => $param{host} // '127.0.0.1',
		dir => PostgreSQL::Test::Utils::tempdir(),
		owner => $$,
		tls => $param{tls} // {},
	}, $class;
	my %listener = map { $_ => $self->_listen($_ eq 'main' ? $param{port} : 0, 1024) } @listening;
	$self->{port}{$_} = $listener{$_}->sockport for keys %listener;

	# Bound, so that nobody else gets it, but not listening.
	socket(my $shut, Socket::PF_INET, SOCK_STREAM, 0) or croak "could not make a socket: $!";
	bind($shut, Socket::pack_sockaddr_in(0, Socket::inet_aton($self->{host}))) or croak "could not bind: $!";
	$self->{port}{shut} = (Socket::unpack_sockaddr_in(getsockname $shut))[0];
	my $deaf = $self->_listen(0, 0);
	$self->{port}{deaf} = $deaf->sockport;

	# Connections that nobody accepts fill the queue; what comes then is dropped.
	my @queue = map { IO::Socket::INET->new(PeerAddr => $self->{host}, PeerPort => $self->{port}{deaf}, Blocking => 0) } 1 .. 4;
	$self->{port}{$_} = _free_port($self->{host}) for keys %{ $self->{tls} };
	open my $log, '>>', "$self->{dir}/requests" or croak "could not open a log: $!";

	$self->{pid} = fork // croak "could not fork: $!";
	if ($self->{pid} == 0)
	{
		# From version 17 on, Cluster.pm dies of them, and stops its servers.
		$SIG{$_} = 'DEFAULT' for qw(TERM INT);
		eval { $self->_serve(\%listener, $log); 1 } or warn "HTTP server: $@";
		POSIX::_exit(1);
	}
	$self->_wait_until_ready;
	return $self;
}

sub _listen
{
	my ($self, $port, $queue) = @_;

	my $socket = IO::Socket::INET->new(LocalAddr => $self->{host}, LocalPort => $port // 0, Proto => 'tcp', ReuseAddr => 1)
	  // croak "could not bind: $!";
	listen($socket, $queue) or croak "could not listen: $!";
	$socket->blocking(0);
	return $socket;
}

sub _free_port
{
	my ($host) = @_;

	return IO::Socket::INET->new(LocalAddr => $host, Proto => 'tcp', Listen => 1, ReuseAddr => 1)->sockport;
}

sub _serve
{
	my ($self, $listener, $log) = @_;

	$SIG{INT} = 'IGNORE';
	$SIG{PIPE} = 'IGNORE';
	my $loop = JobQueue::HttpLoop->new($log, $self->{owner});
	$SIG{TERM} = sub { $loop->end };
	my $behaviours = JobQueue::HttpBehaviours->new($self->{dir});
	my $script = sub { $behaviours->script(@_) };
	$loop->listen($_, $listener->{$_}, $script) for qw(main second);
	$loop->listen('mute', $listener->{mute}, undef, ['hang']);
	$loop->listen('rude', $listener->{rude}, undef, ['reset']);
	$loop->listen('chatty', $listener->{chatty}, undef, [ send => "220 mail.example ESMTP\r\n" ], ['hang']);
	$loop->run_tls($_, [ "$self->{host}:$self->{port}{$_}", @{ $self->{tls}{$_} } ], $script) for keys %{ $self->{tls} };

	$loop->run;
	return;
}

# The loop accepts once all else is there; openssl takes a moment.
sub _wait_until_ready
{
	my ($self) = @_;

	my $until = time + 60;
	for my $name ('main', keys %{ $self->{tls} })
	{
		until (IO::Socket::INET->new(PeerAddr => $self->{host}, PeerPort => $self->{port}{$name}, Timeout => 5))
		{
			croak "port $name does not accept" if time > $until;
			sleep 0.01;
		}
	}
	return;
}

sub stop
{
	my ($self) = @_;

	my $pid = delete $self->{pid} or return;
	kill 'TERM', $pid;
	waitpid $pid, 0;
	return;
}

# Children of fork() leave the server of their parent alone.
sub DESTROY
{
	my ($self) = @_;

	local ($?, $!, $@);
	$self->stop if $self->{owner} == $$;
	return;
}

sub port
{
	my ($self, $name) = @_;

	return $self->{port}{ $name // 'main' } // croak "there is no port $name";
}

sub url
{
	my ($self, $path, $port) = @_;

	my $scheme = defined $port && $self->{tls}{$port} ? 'https' : 'http';
	return "$scheme://$self->{host}:" . $self->port($port) . ($path // '/ok');
}

sub redirect_url
{
	my ($self, $status, $location) = @_;

	return $self->url("/redirect/$status/" . encode_base64url($location));
}

sub raw_url
{
	my ($self, $bytes) = @_;

	return $self->url('/raw/' . encode_base64url($bytes));
}

sub open_gate
{
	my ($self, $name) = @_;

	open my $gate, '>', "$self->{dir}/gate-$name" or croak "could not open a gate: $!";
	return;
}

sub requests
{
	my ($self, $beginning) = @_;

	return map { _parse($_) } $self->_requests($beginning);
}

sub count
{
	my ($self, $beginning) = @_;

	return scalar(() = $self->_requests($beginning));
}

sub count_by_key
{
	my ($self, $beginning) = @_;
	my %count;

	$count{ $_->{headers}{'idempotency-key'} // '' }++ for $self->requests($beginning);
	return %count;
}

sub open_connections
{
	my ($self) = @_;
	my $count = 0;

	$count += { open => 1, closed => -1 }->{ $_->{event} } // 0 for JobQueue::HttpLoop::read_log("$self->{dir}/requests");
	return $count;
}

sub _requests
{
	my ($self, $beginning) = @_;

	return grep { $_->{event} eq 'request' && (!defined $beginning || index($_->{target}, $beginning) == 0) }
	  JobQueue::HttpLoop::read_log("$self->{dir}/requests");
}

sub _parse
{
	my ($request) = @_;

	@{$request}{qw(path query)} = split /\?/, $request->{target}, 2;
	$request->{header_list} = [ map { [ split /:[ \t]*/, $_, 2 ] } grep { length } split /\r\n/, $request->{head} =~ s/\A.*?\r\n//sr ];
	for (@{ $request->{header_list} })
	{
		my ($name, $value) = (lc $_->[0], $_->[1]);
		$request->{headers}{$name} = defined $request->{headers}{$name} ? "$request->{headers}{$name}, $value" : $value;
	}
	return $request;
}

1;
