# The loop of JobQueue::HttpServer: connections, the requests that come over them,
# and what is to be done about each, which is a list of steps:
#
#   [ send => $bytes ]                   bytes go out
#   [ endless => $bytes ]                the same, again and again, as fast as they are taken
#   [ drip => $bytes, $seconds ]         the same at intervals, for ever
#   [ wait => $seconds ]
#   [ gate => $file ]                    until the file exists
#   [ hang ]                             for ever
#   [ close ], [ reset ]
#
# After the last step, the connection takes the next request.
package JobQueue::HttpLoop;

use strict;
use warnings;
use Errno qw(EAGAIN EINTR EWOULDBLOCK);
use Fcntl qw(F_GETFL F_SETFL O_NONBLOCK);
use IPC::Open3 qw(open3);
use List::Util qw(min);
use POSIX ();
use Socket qw(SOL_SOCKET SO_LINGER);
use Time::HiRes qw(time);

# Fields of a line of the log; all others are of no use to a test.
my @fields = qw(event at connection port method target version head body);

sub new
{
	my ($class, $log, $parent) = @_;

	return bless {
		log => $log,
		parent => $parent,
		listeners => [],
		connections => {},
		serial => 0,
		reading => '',
		writing => '',
		children => [],
	}, $class;
}

# What came is in the log before anything is answered.
sub _log
{
	my ($self, %event) = @_;

	$event{at} = sprintf '%.6f', time;
	my $record = pack '(N/a)*', map { $event{$_} // '' } @fields;
	syswrite $self->{log}, pack 'N/a', $record;
	return;
}

# A record that is still being written is left out.
sub read_log
{
	my ($file) = @_;
	my @events;

	open my $in, '<:raw', $file or die "could not open $file: $!";
	my $log = do { local $/ = undef; <$in> } // '';
	my $at = 0;
	while ($at + 4 <= length $log)
	{
		my $length = unpack 'N', substr $log, $at, 4;
		last if $at + 4 + $length > length $log;
		my %event;
		@event{@fields} = unpack '(N/a)*', substr $log, $at + 4, $length;
		push @events, \%event;
		$at += 4 + $length;
	}
	return @events;
}

# Serves what comes in at a socket: first the steps @first, then each request by
# the steps that $script->($request) returns. Without it, what comes is not read.
sub listen
{
	my ($self, $name, $socket, $script, @first) = @_;

	push @{ $self->{listeners} }, { name => $name, socket => $socket, script => $script, first => \@first };
	vec($self->{reading}, fileno $socket, 1) = 1;
	return;
}

# The same for what openssl's server decrypts: one endless connection, as seen here.
sub run_tls
{
	my ($self, $name, $arguments, $script) = @_;

	my ($address, @arguments) = @$arguments;
	open my $said, '>', '/dev/null' or die "could not open /dev/null: $!";
	my $pid = open3(my $in, my $out, '>&' . fileno $said, 'openssl', 's_server', '-quiet', '-accept', $address, @arguments);
	push @{ $self->{children} }, $pid;
	$self->_add({ in => $out, out => $in, port => $name, script => $script, tls => 1 });
	return;
}

sub run
{
	my ($self) = @_;

	while (getppid == $self->{parent})
	{
		my ($reading, $writing) = @{$self}{qw(reading writing)};
		my $ready = select $reading, $writing, undef, $self->_sleep;
		if ($ready > 0)
		{
			vec($reading, fileno $_->{socket}, 1) and $self->_accept($_) for @{ $self->{listeners} };
			$self->_serve($_, vec($reading, fileno $_->{in}, 1), vec($writing, fileno $_->{out}, 1))
			  for values %{ $self->{connections} };
		}
		my $now = time;
		$self->_go_on($_) for grep { defined $_->{wake} && $_->{wake} <= $now } values %{ $self->{connections} };
	}
	$self->end;
	return;
}

sub end
{
	my ($self) = @_;

	kill 'KILL', @{ $self->{children} } if @{ $self->{children} };
	POSIX::_exit(0);
}

# How long nothing is to be done, as far as is known; not longer than it may
# take to notice that the test has ended.
sub _sleep
{
	my ($self) = @_;

	my $wake = min(grep { defined } map { $_->{wake} } values %{ $self->{connections} });
	return 1 unless defined $wake;
	my $sleep = min($wake - time, 1);
	return $sleep > 0 ? $sleep : 0;
}

sub _accept
{
	my ($self, $listener) = @_;

	while (my $socket = $listener->{socket}->accept)
	{
		my $connection = $self->_add({ in => $socket, out => $socket, port => $listener->{name},
			script => $listener->{script}, steps => [ map { [@$_] } @{ $listener->{first} } ] });
		$self->_log(event => 'open', connection => $connection->{number}, port => $connection->{port});
		$self->_go_on($connection);
	}
	return;
}

sub _add
{
	my ($self, $connection) = @_;

	$connection->{number} = ++$self->{serial};
	$connection->{received} = '';
	$connection->{unsent} = '';
	$connection->{steps} //= [];
	for my $handle (@{$connection}{qw(in out)})
	{
		binmode $handle;
		fcntl($handle, F_SETFL, fcntl($handle, F_GETFL, 0) | O_NONBLOCK) or die "could not set O_NONBLOCK: $!";
	}
	$self->{connections}{ $connection->{number} } = $connection;
	vec($self->{reading}, fileno $connection->{in}, 1) = 1;
	return $connection;
}

sub _drop
{
	my ($self, $connection) = @_;

	delete $self->{connections}{ $connection->{number} } or return;
	vec($self->{reading}, fileno $connection->{in}, 1) = 0;
	vec($self->{writing}, fileno $connection->{out}, 1) = 0;
	$self->_log(event => 'closed', connection => $connection->{number}, port => $connection->{port});
	close $connection->{in};
	close $connection->{out};
	return;
}

# A connection that was dropped a moment ago has no handles any more.
sub _serve
{
	my ($self, $connection, $readable, $writable) = @_;

	return if !$self->{connections}{ $connection->{number} };
	$self->_receive($connection) if $readable;
	$self->_go_on($connection) if $writable && $self->{connections}{ $connection->{number} };
	return;
}

sub _receive
{
	my ($self, $connection) = @_;

	my $length = sysread $connection->{in}, $connection->{received}, 65536, length $connection->{received};
	return if !defined $length && ($!{EAGAIN} || $!{EWOULDBLOCK} || $!{EINTR});
	return $self->_drop($connection) unless $length;
	if (!$connection->{script})
	{
		$connection->{received} = '';
		return;
	}
	$self->_go_on($connection) unless @{ $connection->{steps} } || length $connection->{unsent};
	return;
}

# Takes steps until one of them has to wait.
sub _go_on
{
	my ($self, $connection) = @_;

	delete $connection->{wake};
	while ($self->_send($connection))
	{
		my $step = $connection->{steps}[0];
		if (!$step)
		{
			$self->_next_request($connection) or return;
			next;
		}
		my ($what, $value, $seconds) = @$step;
		if ($what eq 'endless' || $what eq 'drip')
		{
			# one piece at a time, for others want to be served, too
			$connection->{unsent} = $value;
			$connection->{wake} = time + ($seconds // 0);
			$self->_send($connection);
			return;
		}
		return if $what eq 'hang';
		if ($what eq 'gate' && !-e $value)
		{
			$connection->{wake} = time + 0.02;
			return;
		}
		shift @{ $connection->{steps} };
		if ($what eq 'send') { $connection->{unsent} = $value }
		elsif ($what eq 'close') { return $connection->{tls} ? () : $self->_drop($connection) }
		elsif ($what eq 'reset')
		{
			setsockopt $connection->{out}, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
			return $self->_drop($connection);
		}
		elsif ($what eq 'wait')
		{
			$connection->{wake} = time + $value;
			return;
		}
	}
	return;
}

# Sends what is to be sent; false unless all is out and the connection alive.
sub _send
{
	my ($self, $connection) = @_;

	return 0 if !$self->{connections}{ $connection->{number} };
	while (length $connection->{unsent})
	{
		my $length = syswrite $connection->{out}, $connection->{unsent};
		if (!defined $length)
		{
			next if $!{EINTR};
			if ($!{EAGAIN} || $!{EWOULDBLOCK})
			{
				delete $connection->{wake};
				vec($self->{writing}, fileno $connection->{out}, 1) = 1;
			}
			else { $self->_drop($connection) }
			return 0;
		}
		substr $connection->{unsent}, 0, $length, '';
	}
	vec($self->{writing}, fileno $connection->{out}, 1) = 0;
	return 1;
}

# False: it has not arrived yet.
sub _next_request
{
	my ($self, $connection) = @_;

	return 0 unless $connection->{script};
	my $request = _read_head($connection) or return 0;
	if (!_read_body($connection, $request))
	{
		$self->_send($connection);
		return 0;
	}
	delete $connection->{head};
	$request->{number} = ++$connection->{requests};
	$self->_log(event => 'request', %$request, connection => $connection->{number}, port => $connection->{port});
	$connection->{steps} = [ $connection->{script}->($request) ];
	push @{ $connection->{steps} }, ['close'] if $request->{head} =~ /\r\nConnection:[ ]*close\r\n/i;
	if ($connection->{tls})
	{
		$_->[0] eq 'send' and $_->[1] =~ s/\A(HTTP[^\n]*\n)/$1Connection: close\r\n/ for @{ $connection->{steps} };
	}
	return 1;
}

sub _read_head
{
	my ($connection) = @_;

	return $connection->{head} if $connection->{head};
	$connection->{received} =~ s/\A(?:\r\n)*(([^ ]+) ([^ ]+) ([^\r\n]*)\r\n.*?\r\n)\r\n//s or return;
	$connection->{head} = { head => $1, method => $2, target => $3, version => $4, body => '' };

	# The client may wait for it before it sends a body.
	$connection->{unsent} = "HTTP/1.1 100 Continue\r\n\r\n" if $1 =~ /\r\nExpect:[ ]*100-continue\r\n/i;
	return $connection->{head};
}

sub _read_body
{
	my ($connection, $request) = @_;

	if ($request->{head} =~ /\r\nTransfer-Encoding:[ ]*chunked\r\n/i)
	{
		return 0 if $connection->{received} !~ /\A(?:0|.*?\r\n0)\r\n\r\n/s;
		while ($connection->{received} =~ s/\A([0-9a-f]+)\r\n//i && hex $1 > 0)
		{
			$request->{body} .= substr $connection->{received}, 0, hex $1, '';
			substr $connection->{received}, 0, 2, '';
		}
		substr $connection->{received}, 0, 2, '';
		return 1;
	}
	my ($length) = $request->{head} =~ /\r\nContent-Length:[ ]*(\d+)\r\n/i;
	$length //= 0;
	return 0 if length $connection->{received} < $length;
	$request->{body} = substr $connection->{received}, 0, $length, '';
	return 1;
}

1;
