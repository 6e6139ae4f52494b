# What the tests with many clients share: which ways a claim can take, clients
# that are processes of their own, and the questions that a finished storm must
# answer with nothing.
#
#   for my $path (claim_paths($node)) { set_claim_path($node, $path); ... }
#   my $clients = JobQueue::Storm->start(8, sub { my ($number, $go_on) = @_; work() while $go_on->() });
#   is($clients->stop, '', 'no client failed');
#   is(run_problems($node), '', 'one run for each claim');
package JobQueue::Storm;

use strict;
use warnings;
use Carp qw(croak);
use Exporter qw(import);
use POSIX qw(WNOHANG _exit);
use PostgreSQL::Test::Utils;
use Test::More ();
use Time::HiRes qw(sleep time);

our @EXPORT_OK = qw(claim_paths set_claim_path run_problems log_problems storm_seed);

# jobqueue.debug_claim_path chooses how claims find rows. A version without it
# has one way, the default. JOBQUEUE_CLAIM_PATHS=auto,sql,memory asks for others.
sub claim_paths
{
	my ($node, @wanted) = @_;

	@wanted = split /,/, $ENV{JOBQUEUE_CLAIM_PATHS} if $ENV{JOBQUEUE_CLAIM_PATHS};
	@wanted = qw(auto sql) unless @wanted;
	return @wanted if _has_claim_path($node);
	Test::More::note('there is no jobqueue.debug_claim_path: testing the only path there is');
	return 'auto';
}

sub set_claim_path
{
	my ($node, $path) = @_;

	return if !_has_claim_path($node);
	my $context = $node->safe_psql('postgres',
		q{SELECT context FROM pg_settings WHERE name = 'jobqueue.debug_claim_path'});
	$node->safe_psql('postgres', "ALTER SYSTEM SET jobqueue.debug_claim_path = '$path'");
	$context eq 'postmaster' ? $node->restart : $node->reload;
	$node->poll_query_until('postgres', 'SHOW jobqueue.debug_claim_path', $path)
	  or croak "the claim path is not $path";
	return;
}

sub _has_claim_path
{
	my ($node) = @_;

	return $node->safe_psql('postgres',
		q{SELECT count(*) FROM pg_settings WHERE name = 'jobqueue.debug_claim_path'});
}

# A seed for everything that is drawn by lot; JOBQUEUE_TEST_SEED repeats a run.
sub storm_seed
{
	my $seed = $ENV{JOBQUEUE_TEST_SEED} // time * 1000 % 1_000_000_007;
	Test::More::note("JOBQUEUE_TEST_SEED=$seed");
	srand $seed;
	return $seed;
}

# Starts $count processes that run $code->($number, $go_on); $go_on->() is false
# as soon as they are to end.
sub start
{
	my ($class, $count, $code) = @_;

	my $self = bless { flag => PostgreSQL::Test::Utils::tempdir() . '/go', pids => [], parent => $$ }, $class;
	append_to_file($self->{flag}, '');
	for my $number (1 .. $count)
	{
		my $seed = int rand 1_000_000_000;
		my $pid = fork // croak "could not fork: $!";
		if ($pid == 0)
		{
			srand $seed;
			my $go_on = sub { return -e $self->{flag} && getppid() == $self->{parent} };
			my $error = eval { $code->($number, $go_on); 1 } ? '' : ($@ || 'died');
			append_to_file("$self->{flag}.$number", $error) if $error;
			_exit(0);    # no END, no DESTROY: the server is our parent's
		}
		push @{ $self->{pids} }, $pid;
	}
	return $self;
}

# Says what any client has died of, or ''.
sub failures
{
	my ($self) = @_;

	return join "\n", map { slurp_file("$self->{flag}.$_") }
	  grep { -e "$self->{flag}.$_" } 1 .. @{ $self->{pids} };
}

# Lets the clients end, waits for them, and says what any of them died of.
sub stop
{
	my ($self) = @_;

	unlink $self->{flag};
	my $until = time + 170;
	for my $pid (@{ $self->{pids} })
	{
		while (waitpid($pid, WNOHANG) == 0)
		{
			if (time > $until)
			{
				kill 'KILL', $pid;
				append_to_file("$self->{flag}.1", "client $pid did not end\n");
				waitpid $pid, 0;
				last;
			}
			sleep 0.01;
		}
	}
	my $failures = $self->failures;
	$self->{pids} = [];
	return $failures;
}

sub DESTROY
{
	my ($self) = @_;

	local ($?, $!, $@);
	$self->stop if $self->{parent} == $$;
	return;
}

# What is wrong with the jobs and their runs, once no claim is open: one line
# for each kind of problem, with its number and an example.
sub run_problems
{
	my ($node, $dbname) = @_;

	return $node->safe_psql($dbname // 'postgres', q{
		WITH j AS MATERIALIZED (
			SELECT q.id, q.status, q.attempts, q.max_attempts, q.claim_no, q.locked_by, q.crashes,
				   coalesce(runs, 0) AS runs, coalesce(charged, 0) AS charged, coalesce(last, 0) AS last,
				   coalesce(completed, 0) AS completed
			FROM jobs_queue q LEFT JOIN (
				SELECT job_id, count(*) AS runs, count(*) FILTER (WHERE r.charged) AS charged, max(r.claim_no) AS last,
					   count(*) FILTER (WHERE r.status = 'completed') AS completed
				FROM job_runs r GROUP BY 1) r ON r.job_id = q.id),
		p AS (
			SELECT 'claim still open' AS problem, id FROM j WHERE status = 'running'
			UNION ALL SELECT 'runs are not as many as claims', id FROM j WHERE status <> 'running' AND (claim_no <> runs OR claim_no <> last)
			UNION ALL SELECT 'attempts are not the charged runs', id FROM j WHERE status <> 'running' AND attempts <> charged
			UNION ALL SELECT 'not completed by one run', id FROM j WHERE completed <> CASE status WHEN 'completed' THEN 1 ELSE 0 END
			UNION ALL SELECT 'failed with attempts left', id FROM j WHERE status = 'failed' AND attempts <> max_attempts AND crashes = 0
			UNION ALL SELECT 'run without a job', job_id FROM job_runs WHERE job_id NOT IN (SELECT id FROM jobs_queue)
			UNION ALL SELECT 'in both leaves', id FROM jobs_queue GROUP BY id HAVING count(*) > 1)
		SELECT problem, count(*), min(id) FROM p GROUP BY 1 ORDER BY 1});
}

# Lines of the server's log that no test may cause. A kill -9 of our own is not
# among them.
sub log_problems
{
	my ($node, $offset) = @_;

	my %seen;
	return join "\n", grep { !$seen{s/^.*?(?=\w+:  )//r}++ }
	  grep { /\bPANIC:|\bTRAP:|terminated by signal (?!9\b)|\bleak\b/ }
	  split /\n/, slurp_file($node->logfile, $offset // 0);
}

1;
