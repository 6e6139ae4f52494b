# SQL jobs of a role "alice", for tests of the executor: jobs are enqueued by
# her, and looked at by a superuser, through two sessions that stay open.
#
#   my $jobs = JobQueue::SqlJobs->new($node);
#   my $id = $jobs->enqueue('SELECT 1', 'max_attempts => 1');
#   is($jobs->ended($id, 'status, result'), 'completed|{"?column?": 1}');
#   my @ids = $jobs->in_company('SELECT 1', 'SELECT 2');    # one transaction
#
# There is a table effects (job_id bigint, what text) that alice may write to.
package JobQueue::SqlJobs;

use strict;
use warnings;
use Carp qw(croak);
use JobQueue::Session;
use PostgreSQL::Test::Utils;
use Test::More ();
use Time::HiRes qw(sleep time);

my $patience = $ENV{PG_TEST_TIMEOUT_DEFAULT} || 180;

sub new
{
	my ($class, $node) = @_;

	$node->safe_psql('postgres', q{
		CREATE ROLE alice LOGIN;
		GRANT ALL ON SCHEMA public TO alice;
		SELECT grant_job_role('alice', r) FROM unnest('{producer,operator}'::text[]) r;
		CREATE TABLE effects (job_id bigint, what text);
		GRANT ALL ON effects TO alice;
	});
	my $self = bless { node => $node }, $class;
	$self->connect;
	return $self;
}

# Also after a restart of the server.
sub connect
{
	my ($self) = @_;

	$self->{admin} = JobQueue::Session->new($self->{node});
	$self->{alice} = JobQueue::Session->new($self->{node});
	$self->{alice}->query('SET SESSION AUTHORIZATION alice');
	return;
}

# Before the server is stopped.
sub disconnect
{
	my ($self) = @_;

	$_->quit for grep { defined } delete @{$self}{qw(admin alice)};
	return;
}

# As a superuser; dies of an error.
sub query { return $_[0]{admin}->query($_[1]) }

# As alice.
sub as_alice { return $_[0]{alice}->query($_[1]) }

# Waits until a query returns what is expected, by default 't'.
sub wait_for
{
	my ($self, $sql, $expected) = @_;
	my $until = time + $patience;

	$expected //= 't';
	while ((my $got = $self->query($sql)) ne $expected)
	{
		if (time > $until)
		{
			my @log = grep { !/LOG:  statement:|^\s*;$/ } split /\n/, slurp_file($self->{node}->logfile);
			splice @log, 0, -30 if @log > 30;
			Test::More::diag(join "\n", 'the server said:', @log);
			croak "waited in vain for $expected, got $got from: $sql";
		}
		sleep 0.01;
	}
	return;
}

# Lets executors begin anew, with the settings of the server and of the role.
sub restart_executors
{
	my ($self) = @_;

	$self->query(q{SELECT pg_terminate_backend(pid) FROM _server_workers() WHERE kind = 'executor'});
	$self->wait_for(q{SELECT count(*) FROM _server_workers() WHERE kind = 'executor'}, 0);
	return;
}

# Changes settings, which the workers that are started from now on have.
sub configure
{
	my ($self, %settings) = @_;
	my $offset = -s $self->{node}->logfile;

	$self->{node}->append_conf('postgresql.conf', "$_ = '$settings{$_}'") for sort keys %settings;
	$self->{node}->reload;
	$self->{node}->wait_for_log(qr/received SIGHUP, reloading configuration files/, $offset);
	$self->restart_executors;
	return;
}

# What VALUES needs to enqueue a command; an array has arguments after it.
sub _call
{
	my ($command) = @_;
	my @arguments;

	($command, @arguments) = @$command if ref $command eq 'ARRAY';
	return $$command if ref $command eq 'SCALAR';    # a call of its own
	push @arguments, 'max_attempts => 1' unless grep { /max_attempts/ } @arguments;
	return "enqueue_sql(\$cmd\$$command\$cmd\$" . join('', map { ", $_" } @arguments) . ')';
}

# Enqueues a command and returns the id of the job. Without max_attempts it has one.
sub enqueue
{
	my ($self, $command, @arguments) = @_;

	return $self->as_alice('SELECT ' . _call(@arguments ? [ $command, @arguments ] : $command));
}

# Enqueues commands in one transaction. Each is a string, an array of a string
# and further arguments of enqueue_sql(), or a reference to a whole call.
sub enqueue_together
{
	my ($self, @commands) = @_;

	return split /\n/, $self->as_alice('VALUES ' . join ', ', map { '(' . _call($_) . ')' } @commands);
}

# The columns of a job once it has ended.
sub ended
{
	my ($self, $id, $columns) = @_;

	$self->wait_for("SELECT count(*) FROM jobs_queue_done WHERE id = $id", 1);
	return $self->query("SELECT $columns FROM jobs_queue WHERE id = $id");
}

# Waits until none of these jobs is queued or running.
sub wait_until_gone
{
	my ($self, @ids) = @_;

	$self->wait_for('SELECT count(*) FROM jobs_queue_live WHERE id IN (' . join(',', @ids) . ')', 0);
	return;
}

# Lets the executor get used to short jobs, so that its next claim is large.
sub warm_up
{
	my ($self) = @_;

	for (1 .. 20)
	{
		my @ids = split /\n/, $self->as_alice(q{SELECT enqueue_sql('SELECT') FROM generate_series(1, 100)});
		$self->wait_until_gone(@ids);
		return if $self->query("SELECT count(DISTINCT started_at) FROM job_runs WHERE job_id BETWEEN $ids[70] AND $ids[-1]") == 1;
	}
	croak 'the executor does not claim many jobs at once';
}

# The transaction in which the last run of a job was recorded: that of its
# effects, too, unless it is autonomous.
sub recorded_by
{
	my ($self, $id) = @_;

	return $self->query("SELECT xmin FROM job_runs WHERE job_id = $id ORDER BY claim_no DESC LIMIT 1");
}

# Runs commands one behind the other until the first and the last of them have
# shared a transaction, which a slow machine can prevent; returns the ids of the
# jobs. Those between may leave the transaction.
sub in_company
{
	my ($self, @commands) = @_;

	for (1 .. 10)
	{
		$self->warm_up;
		my @ids = $self->enqueue_together(@commands);
		$self->wait_until_gone(@ids);
		return @ids if $self->recorded_by($ids[0]) == $self->recorded_by($ids[-1]);
	}
	croak 'jobs never shared a transaction';
}

# The same for the first two, where what follows leaves.
sub behind
{
	my ($self, @commands) = @_;

	for (1 .. 10)
	{
		$self->warm_up;
		my @ids = $self->enqueue_together(@commands);
		$self->wait_until_gone(@ids);
		return @ids if $self->recorded_by($ids[0]) == $self->recorded_by($ids[1]);
	}
	croak 'jobs never shared a transaction';
}

1;
