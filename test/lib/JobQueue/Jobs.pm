# SQL jobs for tests of what happens to them: a role whose jobs they are, a
# table in which bodies leave a trace, without any constraint that would hide a
# repeated one, and what must hold of the two in the end.
#
#   prepare_jobs($node);                                  # role alice, table effects
#   my $id = enqueue($node, effect('fast'));              # as alice
#   my $pid = executor_of($node, $id);                    # waits until it runs
#   is(ended($node, $id, 'status'), 'completed', '...');  # waits until it has ended
#   is(effect_problems($node), '', 'effects exactly once');
package JobQueue::Jobs;

use strict;
use warnings;
use Carp qw(croak);
use Exporter qw(import);
use JobQueue::Cluster qw(wait_for_query);
use Time::HiRes qw(sleep time);

our @EXPORT_OK = qw(prepare_jobs enqueue effect executor_of ended effect_problems wait_until_done
  worker_pid kill_and_return is_gone);

sub prepare_jobs
{
	my ($node) = @_;

	$node->safe_psql('postgres', q{
		CREATE ROLE alice LOGIN;
		GRANT ALL ON SCHEMA public TO alice;
		SELECT grant_job_role('alice', r) FROM unnest('{producer,operator}'::text[]) r;
		CREATE TABLE effects (job_id bigint, what text);
		CREATE TABLE gate (a int);
		GRANT ALL ON effects, gate TO alice;
	});
	return;
}

# A command that leaves its trace, then does $more.
sub effect
{
	my ($what, $more) = @_;

	return "INSERT INTO effects VALUES (\$2, '$what')" . ($more ? "; $more" : '');
}

# Enqueues a command, with more arguments of enqueue_sql() and as another role
# if wanted; returns the id of the job.
sub enqueue
{
	my ($node, $command, $arguments, $role) = @_;

	$arguments = defined $arguments ? ", $arguments" : '';
	return $node->safe_psql('postgres', "SELECT enqueue_sql(\$cmd\$$command\$cmd\$$arguments)",
		extra_params => [ '-U', $role // 'alice' ]);
}

# Waits until the job runs; returns the process id of its executor.
sub executor_of
{
	my ($node, $id) = @_;

	wait_for_query($node, "SELECT count(*) FROM _server_workers() WHERE job_id = $id", 1);
	return $node->safe_psql('postgres', "SELECT pid FROM _server_workers() WHERE job_id = $id");
}

# Waits until the job has ended; returns columns of it.
sub ended
{
	my ($node, $id, $columns) = @_;

	wait_for_query($node, "SELECT count(*) FROM jobs_queue_done WHERE id = $id", 1);
	return $node->safe_psql('postgres', "SELECT $columns FROM jobs_queue WHERE id = $id");
}

sub wait_until_done
{
	my ($node, $where) = @_;

	wait_for_query($node, 'SELECT count(*) FROM jobs_queue_live WHERE ' . ($where // 'true'), 0);
	return;
}

# The jobs that leave traces: each completed one has left one, no other has.
# '' when all is well.
sub effect_problems
{
	my ($node) = @_;

	return $node->safe_psql('postgres', q{
		SELECT q.status, count(*) AS jobs, min(q.id), min(n), max(n) FROM jobs_queue q
		CROSS JOIN LATERAL (SELECT count(*) FROM effects e WHERE e.job_id = q.id) e(n)
		WHERE q.payload->>'command' LIKE '%INTO effects VALUES ($2%'
		AND n <> CASE q.status WHEN 'completed' THEN 1 ELSE 0 END GROUP BY 1 ORDER BY 1});
}

# The process id of a launcher, scheduler or any server process, once there is one.
sub worker_pid
{
	my ($node, $backend_type) = @_;

	my $from = "FROM pg_stat_activity WHERE backend_type = '$backend_type' AND pid <> pg_backend_pid()";
	wait_for_query($node, "SELECT count(*) > 0 $from");
	return $node->safe_psql('postgres', "SELECT min(pid) $from");
}

# Kills a process of the server with -9, and waits until the server is back.
sub kill_and_return
{
	my ($node, $pid) = @_;

	kill('KILL', $pid) or croak "could not kill $pid: $!";
	my $until = time + 120;
	while (1)
	{

		# psql may end before it has read the query: then writing it fails.
		my ($code, $out) = eval { $node->psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", timeout => 60) };
		last if defined $code && $code == 0 && $out eq '0' && is_gone($pid);
		croak 'the server did not come back' if time > $until;
		sleep 0.01;
	}
	return;
}

# Whether a process has ended, be it that its parent has not noticed yet.
sub is_gone
{
	my ($pid) = @_;

	open my $stat, '<', "/proc/$pid/stat" or return !kill 0, $pid;
	my $text = <$stat> // return 1;
	return $text =~ /\) Z / ? 1 : 0;
}

1;
