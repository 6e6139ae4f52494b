# A server with HTTP jobs, the HTTP server that they go to, and a session that
# stays open: tests that watch jobs from close by would be slow with one psql
# after the other.
#
#   my $http = JobQueue::HttpJobs->new('main', conf => 'jobqueue.lease = 2s');
#   $http->add('hook', '/ok', { timeout => '2 s' }, { batch_size => 10 });    # endpoint, job type
#   my $id = $http->enqueue('hook', '{"a": 1}', 'max_attempts => 1');
#   is($http->ended($id, 'status, result'), 'completed|{"ok": true}', '...'); # waits
#   my $run = $http->last_run($id);                  # job_runs as a hash, JSON decoded
#   $http->wait_for('SELECT count(*) FROM jobs_queue_live', 0);
#   my $pid = $http->dispatcher;                     # waits until there is one
#   $http->{server}->requests('/ok');                # a JobQueue::HttpServer
#   $http->{node}, $http->sql('SELECT 1');
package JobQueue::HttpJobs;

use strict;
use warnings;
use Carp qw(croak);
use JobQueue::Cluster;
use JobQueue::HttpLoop;
use JobQueue::HttpServer;
use JobQueue::Session;
use JSON::PP ();
use List::Util ();
use Test::More ();
use Time::HiRes qw(sleep time);

my $patience = $ENV{PG_TEST_TIMEOUT_DEFAULT} || 180;
my $json = JSON::PP->new->utf8->allow_nonref;

# Parameters are those of JobQueue::Cluster; conf comes after what HTTP needs.
sub new
{
	my ($class, $name, %param) = @_;

	my $server = JobQueue::HttpServer->start;
	my $conf = "jobqueue.http_allow_cidrs = '127.0.0.0/8'\njobqueue.http_allow_ports = '*'\n" . ($param{conf} // '');
	my $node = JobQueue::Cluster->new($name, %param, conf => $conf);
	my $self = bless { server => $server, node => $node }, $class;
	$self->connect;
	return $self;
}

# Also after a restart of the server.
sub connect
{
	my ($self) = @_;

	$self->{session} = JobQueue::Session->new($self->{node});
	return;
}

sub disconnect
{
	my ($self) = @_;

	my $session = delete $self->{session};
	$session->quit if $session;
	return;
}

sub stop
{
	my ($self, @how) = @_;

	$self->disconnect;
	$self->{node}->stop(@how);
	return;
}

sub sql { return $_[0]{session}->query($_[1]) }

sub quoted { return defined $_[0] ? $_[0] =~ /\A-?\d+\z/ ? $_[0] : "'" . $_[0] =~ s/'/''/gr . "'" : 'NULL' }

sub _insert
{
	my ($self, $table, %column) = @_;

	my @names = sort keys %column;
	$self->sql("INSERT INTO $table (" . join(', ', @names) . ') VALUES (' . join(', ', map { quoted($_) } @column{@names}) . ')');
	return;
}

# An endpoint; $path is one of the HTTP server's, or a whole URL.
sub add_endpoint
{
	my ($self, $name, $path, $column) = @_;

	$self->_insert('http_endpoints', name => $name, url => $path =~ m{\A/} ? $self->{server}->url($path) : $path, %{ $column // {} });
	return;
}

# The same and a job type of that name; its attempts follow at once.
sub add
{
	my ($self, $name, $path, $column, $type) = @_;

	$self->add_endpoint($name, $path, $column);
	$self->_insert('job_types', job_type => $name, runner => 'http', endpoint => $name, backoff => '{"delay": "10 ms"}', %{ $type // {} });
	return;
}

sub enqueue
{
	my ($self, $job_type, $payload, $arguments) = @_;

	return $self->sql(sprintf 'SELECT enqueue_job(%s, %s%s)', quoted($job_type), quoted($payload // '{}'), $arguments ? ", $arguments" : '');
}

# $count jobs in one transaction, with {"n": 1} and so on.
sub enqueue_many
{
	my ($self, $job_type, $count, $arguments) = @_;

	$self->sql(sprintf q{SELECT count(enqueue_job(%s, jsonb_build_object('n', n)%s)) FROM generate_series(1, %d) n},
		quoted($job_type), $arguments ? ", $arguments" : '', $count);
	return;
}

# Waits until $sql returns $expected, default 't'. When it never does, shows what
# it returned last and what the server said, and dies.
sub wait_for
{
	my ($self, $sql, $expected) = @_;

	$expected //= 't';
	my $found = $self->_wait(sub { return $self->sql($sql) }, sub { return $_[0] eq $expected });
	return if !defined $found;
	my @log = grep { !/LOG:  statement:/ } split /\n/, PostgreSQL::Test::Utils::slurp_file($self->{node}->logfile);
	Test::More::diag(join "\n", 'the server said:', splice @log, -List::Util::min(30, scalar @log));
	croak "waited in vain for $expected, got $found, from: $sql";
}

# Waits until a condition of the test itself holds.
sub wait_until
{
	my ($self, $what, $condition) = @_;

	croak "waited in vain until $what" if defined $self->_wait($condition, sub { return $_[0] });
	return;
}

# The last value, if none was good.
sub _wait
{
	my ($self, $look, $is_good) = @_;

	my $until = time + $patience;
	while (1)
	{
		my $value = $look->();
		return if $is_good->($value);
		return $value // 'nothing' if time > $until;
		sleep 0.01;
	}
}

# Until so many requests have come to a path.
sub wait_for_requests
{
	my ($self, $path, $count) = @_;

	$self->wait_until("$count requests come to $path", sub { return $self->{server}->count($path) >= $count });
	return;
}

sub wait_until_done
{
	my ($self, $where) = @_;

	$self->wait_for('SELECT count(*) FROM jobs_queue_live' . (defined $where ? " WHERE $where" : ''), 0);
	return;
}

# Waits until the job has ended; returns columns of it.
sub ended
{
	my ($self, $id, $columns) = @_;

	$self->wait_for("SELECT count(*) FROM jobs_queue_done WHERE id = $id", 1);
	return $self->sql("SELECT $columns FROM jobs_queue WHERE id = $id");
}

sub runs
{
	my ($self, $id) = @_;

	return map { $json->decode($_) } split /\n/, $self->sql("SELECT to_jsonb(r) FROM job_runs r WHERE job_id = $id ORDER BY claim_no");
}

sub last_run
{
	my ($self, $id) = @_;

	return ($self->runs($id))[-1];
}

# The process id of the dispatcher of database "postgres", once there is one.
sub dispatcher
{
	my ($self) = @_;

	my $from = q{FROM pg_stat_activity WHERE backend_type = 'jobqueue dispatcher' AND datname = 'postgres'};
	$self->wait_for("SELECT count(*) $from", 1);
	return $self->sql("SELECT pid $from");
}

# What has happened at the HTTP server: requests, connections opened and closed.
sub events { return JobQueue::HttpLoop::read_log("$_[0]{server}{dir}/requests") }

# How many requests to a path have neither been answered nor given up, where
# none is ever answered: their connections are open.
sub hanging
{
	my ($self, $path) = @_;
	my %open;

	for my $event ($self->events)
	{
		$open{ $event->{connection} } = 1 if $event->{event} eq 'request' && index($event->{target}, $path) == 0;
		delete $open{ $event->{connection} } if $event->{event} eq 'closed';
	}
	return scalar keys %open;
}

sub set
{
	my ($self, $name, $value) = @_;

	$self->sql("ALTER SYSTEM SET $name = " . quoted($value));
	$self->{node}->reload;
	$self->wait_for("SELECT current_setting('$name')", $value);
	return;
}

1;
