# A session of psql that stays open, for tests that need several at once: its
# statements can be sent now and waited for later, an error is a value, and so
# is the loss of the connection.
#
#   my $s = JobQueue::Session->new($node);
#   my $id = $s->query(q{SELECT enqueue_job('a')});    # dies of an error
#   $s->try('LOCK TABLE x NOWAIT') eq '55P03' or ...   # SQLSTATE, '00000' is success
#   $s->send('SELECT ...'); ...; $s->finish;           # SQLSTATE again
#   $s->{output}                                       # what the last statements printed, as psql -At
#   $s->{message}                                      # text of their first error
package JobQueue::Session;

use strict;
use warnings;
use Carp qw(croak);
use IPC::Open3 qw(open3);
use POSIX qw(WNOHANG);
use Time::HiRes qw(sleep time);

# What try() returns when the connection is lost.
use constant LOST => '08006';

# Longer than anything that is waited for in these tests.
my $patience = $ENV{PG_TEST_TIMEOUT_DEFAULT} || 180;

sub new
{
	my ($class, $node, %param) = @_;

	my $self = bless {
		node => $node,
		dbname => $param{dbname} // 'postgres',
		settings => $param{settings} // '',
		owner => $$,
		serial => 0
	}, $class;
	$self->connect or croak "could not connect: $self->{message}";
	return $self;
}

# Returns false when the server does not let us in; can be called again.
sub connect
{
	my ($self) = @_;

	$self->_forget;
	local $ENV{PGOPTIONS} = "-c client_min_messages=error $self->{settings}";
	$self->{psql} = open3(my $in, my $out, undef, 'psql', '-XAtq',
		'-v', 'VERBOSITY=verbose', '-d', $self->{node}->connstr($self->{dbname}));
	binmode $in, ':utf8';
	$in->autoflush(1);
	@{$self}{qw(in out buffer)} = ($in, $out, '');
	return 0 if $self->try('SELECT pg_backend_pid()') ne '00000';
	$self->{pid} = $self->{output};
	return 1;
}

sub connected { return defined $_[0]->{psql} }

# Sends statements, which need no semicolon at the end, and does not wait.
sub send
{
	my ($self, $sql) = @_;

	croak 'a statement is under way' if $self->{sent};
	$self->{sent} = 1;
	$self->{serial}++;
	return unless $self->connected;
	local $SIG{PIPE} = 'IGNORE';
	# data of COPY ends with a line that takes no semicolon
	$sql .= "\n;" unless $sql =~ /^\\\.\n?\z/m;
	print { $self->{in} } "$sql\n\\echo end-of $self->{serial}\n";
	return;
}

# Waits for what was sent; returns the SQLSTATE of the first error.
sub finish
{
	my ($self) = @_;

	croak 'no statement is under way' unless $self->{sent};
	my $mark = "end-of $self->{serial}\n";
	my $until = time + $patience;
	my $lost = !$self->connected;
	while (!$lost && $self->{buffer} !~ /^\Q$mark\E\z/m)
	{
		my $left = $until - time;
		croak "no answer within $patience s" if $left <= 0;
		my $ready = '';
		vec($ready, fileno $self->{out}, 1) = 1;
		next if select($ready, undef, undef, $left) <= 0;
		$lost = !sysread $self->{out}, $self->{buffer}, 65536, length $self->{buffer};
	}
	my $text = $self->{buffer};
	$self->{buffer} = '';
	$self->{sent} = 0;
	$text =~ s/^\Q$mark\E\z//m;
	$text =~ s/\n\z//;
	$self->{output} = $text;
	$self->{message} = $text =~ /^(?:psql:[^\n]*?)?((?:ERROR|FATAL|PANIC):  [^\n]*)/m ? $1 : '';
	if ($lost)
	{
		$self->{message} ||= $text;
		$self->_forget;
		return LOST;
	}
	return $self->{message} =~ /:  (\w{5}):/ ? $1 : '00000';
}

sub try
{
	my ($self, $sql) = @_;

	$self->send($sql);
	return $self->finish;
}

sub query
{
	my ($self, $sql) = @_;

	my $state = $self->try($sql);
	croak "$self->{message}\n(SQLSTATE $state) in: $sql" if $state ne '00000';
	return $self->{output};
}

# Waits until the statement that was sent waits for a lock.
sub wait_until_blocked
{
	my ($self) = @_;

	$self->{node}->poll_query_until('postgres',
		"SELECT coalesce(wait_event_type = 'Lock', false) FROM pg_stat_activity WHERE pid = $self->{pid}")
	  or croak 'the statement does not wait for a lock';
	return;
}

sub quit
{
	my ($self) = @_;

	$self->_forget;
	return;
}

# The end of psql's input is its end.
sub _forget
{
	my ($self) = @_;

	close $self->{in} if $self->{in};
	close $self->{out} if $self->{out};
	if (defined $self->{psql})
	{
		my $until = time + 10;
		while (waitpid($self->{psql}, WNOHANG) == 0)
		{
			kill 'KILL', $self->{psql} if time > $until;
			sleep 0.005;
		}
	}
	delete @{$self}{qw(psql in out)};
	$self->{sent} = 0;
	return;
}

# Children of fork() leave the sessions of their parent alone.
sub DESTROY
{
	my ($self) = @_;

	local ($?, $!, $@);
	$self->_forget if $self->{owner} == $$;
	return;
}

1;
