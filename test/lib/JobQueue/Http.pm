# HTTP jobs in tests: job types, each with an endpoint of its own, and what has
# become of their jobs.
#
#   my $node = JobQueue::Cluster->new('main', conf => http_conf());
#   add_http_type($node, 'hook', $server->url('/ok'), method => 'PUT', timeout => '2 s');
#   my $id = send_job($node, 'hook');                # or with a payload, as JSON
#   my @runs = runs_of($node, $id);                  # waits until the job has ended
#   $runs[0]{status}, {error}, {seconds}, {response}{status}, {result}
#   my $job = outcome_of($node, $id);                # waits, too
#   $job->{status}, {attempts}
#   my $pid = dispatcher($node);                     # waits until there is one
package JobQueue::Http;

use strict;
use warnings;
use Exporter qw(import);
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Jobs qw(worker_pid);
use JSON::PP ();

our @EXPORT_OK = qw(http_conf add_http_type send_job runs_of outcome_of dispatcher memory_of threads_of set_and_reload);

my $json = JSON::PP->new->allow_nonref;

# A test's server is on this machine, at any port; its dispatcher stays.
sub http_conf
{
	my (@more) = @_;

	return join "\n", q{jobqueue.http_allow_cidrs = '127.0.0.0/8'}, q{jobqueue.http_allow_ports = '*'},
	  q{jobqueue.dispatcher_idle_timeout = '10min'}, @more, '';
}

sub _quote { return $_[0] =~ /\A-?\d+\z/ ? $_[0] : "'" . $_[0] =~ s/'/''/gr . "'" }

# Columns of the endpoint by name; attempts of its jobs follow at once.
sub add_http_type
{
	my ($node, $name, $url, %column) = @_;

	my $max_attempts = delete $column{max_attempts} // 2;
	my @names = sort keys %column;
	$node->safe_psql('postgres', 'INSERT INTO http_endpoints (name, url' . join('', map { ", $_" } @names) . ') VALUES ('
		  . join(', ', map { _quote($_) } $name, $url, @column{@names}) . ');'
		  . 'INSERT INTO job_types (job_type, runner, endpoint, max_attempts, backoff) VALUES ('
		  . join(', ', map { _quote($_) } $name, 'http', $name, $max_attempts, '{"delay": "10 ms"}') . ')');
	return;
}

sub send_job
{
	my ($node, $name, $payload) = @_;

	return $node->safe_psql('postgres', sprintf 'SELECT enqueue_job(%s, %s)', _quote($name), _quote($payload // '{}'));
}

sub runs_of
{
	my ($node, $id) = @_;

	wait_for_query($node, "SELECT count(*) FROM jobs_queue_done WHERE id = $id", 1);
	return map { $json->decode($_) } split /\n/, $node->safe_psql('postgres', qq{
		SELECT jsonb_build_object('status', status, 'error', error, 'result', result, 'response', response,
			'seconds', extract(epoch FROM finished_at - started_at))
		FROM job_runs WHERE job_id = $id ORDER BY claim_no});
}

sub outcome_of
{
	my ($node, $id) = @_;

	wait_for_query($node, "SELECT count(*) FROM jobs_queue_done WHERE id = $id", 1);
	return $json->decode($node->safe_psql('postgres', "SELECT to_jsonb(q) FROM jobs_queue q WHERE id = $id"));
}

sub dispatcher { return worker_pid($_[0], 'jobqueue dispatcher') }

# Of a process: kB of memory that it shares with no other.
sub memory_of { return _status_of($_[0], 'RssAnon') }

sub threads_of { return _status_of($_[0], 'Threads') }

sub _status_of
{
	my ($pid, $what) = @_;

	open my $in, '<', "/proc/$pid/status" or return;
	my ($value) = map { /^\Q$what\E:\s+(\d+)/ ? $1 : () } <$in>;
	return $value;
}

# Changes a setting, and waits until sessions, hence all processes that look,
# have it.
sub set_and_reload
{
	my ($node, $name, $value) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET $name = " . _quote($value));
	$node->reload;
	wait_for_query($node, "SELECT current_setting('$name') = " . _quote($value));
	return;
}

1;
