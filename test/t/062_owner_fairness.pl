# A hundred thousand SQL jobs of one role do not keep another role waiting: its
# jobs run, are cancelled and are refused while the backlog is still long.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $backlog = 100_000;
my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
shared_preload_libraries = 'jobqueue, auto_explain'
jobqueue.allow_superuser_jobs = off
autovacuum = off
CONF

$node->safe_psql('postgres', q{
	SELECT format('CREATE ROLE %I LOGIN', r) FROM unnest('{alice,bob,carol}'::text[]) r \gexec
	SELECT grant_job_role(r, 'producer') FROM unnest('{alice,bob,carol}'::regrole[]) r;
	CREATE TABLE seen (role name);
	GRANT ALL ON seen TO PUBLIC;
});

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sub enqueue_as
{
	my ($role, $command, $arguments) = @_;

	return query("SET SESSION AUTHORIZATION $role; SELECT enqueue_sql(\$cmd\$$command\$cmd\$" . ($arguments // '') . ')');
}

sub set_to
{
	my ($name, $value) = @_;

	query("ALTER SYSTEM SET $name = $value");
	$node->reload;
	wait_for_query($node, "SELECT setting = '$value' FROM pg_settings WHERE name = '$name'");
}

# The queue of alice, which would take minutes; it is growing old from the head.
sub fill
{
	query(qq{
		TRUNCATE jobs_queue;
		INSERT INTO jobs_queue (job_type, payload, owner)
		SELECT 'sql', '{"command": "SELECT pg_sleep(0.002)"}', 'alice' FROM generate_series(1, $backlog)});
	wait_for_query($node, q{SELECT count(*) > 20 FROM jobs_queue_done});
}

# Whether most of that is still there.
sub backlog_is_long
{
	return query("SELECT count(*) > $backlog / 2 FROM jobs_queue_live WHERE owner = 'alice'::regrole AND status = 'queued'");
}

for my $path ('auto', 'sql')
{
	set_to('jobqueue.debug_claim_path', $path);
	for my $executors (1, 2)
	{
		my $with = "path $path, $executors executors";

		set_to('jobqueue.max_executors', $executors);
		fill();

		my $id = enqueue_as('bob', q{INSERT INTO seen VALUES (current_user)});
		wait_for_query($node, "SELECT count(*) FROM jobs_queue_done WHERE id = $id AND status = 'completed'", 1);
		is(backlog_is_long(), 't', "$with: a job of another role runs before most of the backlog");
		is(query('DELETE FROM seen RETURNING role'), 'bob', "$with: as that role");

		# With a worse priority and another stage it stands in other lanes.
		my @ids = map { enqueue_as('bob', 'SELECT 1', ", priority => $_") } 3, 1, 2;
		my $ids = join ',', @ids;
		query("UPDATE jobs_queue SET stage = 'later' WHERE id = $ids[0]") if $executors == 1;
		wait_for_query($node, "SELECT count(*) FROM jobs_queue_done WHERE id IN ($ids)", 3);
		is(backlog_is_long(), 't', "$with: and so do jobs of any priority");

		$id = enqueue_as('carol', 'SELECT pg_sleep(3600)');
		wait_for_query($node, "SELECT status = 'running' FROM jobs_queue WHERE id = $id");
		query("SELECT cancel_job($id)");
		wait_for_query($node, "SELECT status = 'cancelled' FROM jobs_queue WHERE id = $id");
		is(backlog_is_long(), 't', "$with: its running job is cancelled");

		$id = query(q{
			SET session_replication_role = replica;
			INSERT INTO jobs_queue (job_type, payload, max_attempts, owner) VALUES ('sql', '{"command": "SELECT 1"}', 1, 'postgres') RETURNING id});
		wait_for_query($node, "SELECT status = 'failed' FROM jobs_queue WHERE id = $id");
		is(backlog_is_long(), 't', "$with: a job that nobody can run is refused");

		query(q{
			SET session_replication_role = replica;
			INSERT INTO jobs_queue (job_type, payload, max_attempts) VALUES ('sql', '{"command": "SELECT 1"}', 1)});
		wait_for_query($node, q{SELECT count(*) FROM jobs_queue WHERE owner IS NULL AND status = 'failed'}, 1);
		is(backlog_is_long(), 't', "$with: also one that is nobody's");
	}
}

# ---- the plans: nothing reads past the jobs of others ----

query('ANALYZE jobs_queue_live');
my $offset = -s $node->logfile;
query('ALTER SYSTEM SET auto_explain.log_analyze = on');
query('ALTER SYSTEM SET auto_explain.log_min_duration = 0');
$node->reload;
my $id = enqueue_as('bob', 'SELECT 1');
wait_for_query($node, "SELECT count(*) FROM jobs_queue_done WHERE id = $id", 1);
my @plans = grep { /FROM public\.jobs_queue_live.*job_type = 'sql'/ }
  split /(?=Query Text: )/, slurp_file($node->logfile, $offset);
cmp_ok(scalar(@plans), '>=', 3, 'statements about SQL jobs are in the log');
is(scalar(grep { !/Scan using jobs_queue_live_owner/ } @plans), 0, 'each reads the index of owners');
# The probe of a circuit, p, is looked up by its id.
is(scalar(grep { /Seq Scan on|Bitmap|Sort|Scan using jobs_queue_live_(?:ready|pkey)(?! on jobs_queue_live p\b)/ } @plans), 0, 'and no other');

query('TRUNCATE jobs_queue');
$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
