# Jobs that came with a dump, with a template or through a subscription are not
# run by the server before somebody says so; outside workers may claim them.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main', init => { allows_streaming => 'logical' },
	conf => "jobqueue.max_executors = 4\nwal_level = logical\n");

# What a database does of its own accord is written into a table beside.
$node->safe_psql('postgres', q{
	CREATE TABLE effects (what text);
	SELECT schedule_sql('tick', 'every 1 second', $$INSERT INTO effects VALUES ('cron')$$);
	INSERT INTO job_types (job_type, keep_completed) VALUES ('old', '1 hour');
	SELECT enqueue_job('outside');
});
wait_for_query($node, q{SELECT count(*) > 0 FROM effects});
is($node->safe_psql('postgres', q{SELECT system_identifier = (pg_control_system()).system_identifier, database = d.oid, paused_at IS NULL
	FROM database_identity, pg_database d WHERE datname = current_database()}), 't|t|t', 'the first worker has signed');
is($node->safe_psql('postgres', 'SELECT is_active, reason IS NULL, has_scheduler FROM queue_status'), 't|t|t', 'and is at work');

# A copy has something to do at once: a due task, a due job, a job to delete.
my $before = $node->safe_psql('postgres', q{SELECT pause_workers('copies are made')});
wait_for_query($node, 'SELECT NOT has_scheduler FROM queue_status');
$node->safe_psql('postgres', q{
	UPDATE cron_tasks SET next_run_at = now();
	SELECT enqueue_sql($$INSERT INTO effects VALUES ('job')$$);
	INSERT INTO jobs_queue (job_type, status, finished_at) VALUES ('old', 'completed', now() - interval '1 day');
	TRUNCATE effects;
});
$node->safe_psql('template1', 'CREATE DATABASE template TEMPLATE postgres');
my %dumps;
foreach my $format (qw(custom plain))
{
	$dumps{$format} = $node->basedir . "/dump.$format";
	$node->command_ok([ 'pg_dump', "--format=$format", '-f', $dumps{$format}, $node->connstr('postgres') ], "pg_dump, $format");
}
$node->safe_psql('postgres', 'SELECT resume_workers()');
wait_for_query($node, q{SELECT count(*) > 1 FROM effects WHERE what = 'cron'});

my $worker = '00000000-0000-4000-8000-000000000001';

sub warnings
{
	my ($database) = @_;
	my $log = slurp_file($node->logfile);
	return scalar(() = $log =~ /WARNING:  jobqueue runs nothing in database "$database"/g);
}

# What the database of the name has done: nothing. $probed says how to know
# that the launcher has looked.
sub is_quiet
{
	my ($database, $reason) = @_;

	$node->poll_query_until($database, "SELECT reason = '$reason' FROM queue_status") or die "never $reason";
	$node->wait_for_log(qr/jobqueue runs nothing in database "$database"/);
	is($node->safe_psql($database, 'SELECT is_active, has_scheduler, reason FROM queue_status'), "f|f|$reason", "$database: is quiet");
	is($node->safe_psql($database, 'SELECT count(*) FROM effects'), '0', "$database: nothing was run");
	is($node->safe_psql($database, q{SELECT count(*) FILTER (WHERE job_type = 'sql' AND status = 'queued' AND claim_no = 0), count(*) FILTER (WHERE job_type = 'old'), count(cron_instant) FILTER (WHERE status <> 'completed') FROM jobs_queue}),
		'1|1|0', "$database: nothing was claimed, enqueued or deleted");
	is($node->safe_psql($database, qq{SELECT job_type FROM claim_next_job('$worker')}), 'outside', "$database: an outside worker claims");
	return;
}

sub becomes_active
{
	my ($database) = @_;

	$node->safe_psql($database, 'SELECT activate_jobs()');
	$node->poll_query_until($database, q{SELECT count(*) FILTER (WHERE what = 'job') = 1 AND count(*) FILTER (WHERE what = 'cron') > 0 FROM effects})
	  or die 'nothing ran';
	$node->poll_query_until($database, q{SELECT count(*) = 0 FROM jobs_queue WHERE job_type = 'old'}) or die 'nothing was deleted';
	is($node->safe_psql($database, 'SELECT is_active, has_scheduler, reason IS NULL FROM queue_status'), 't|t|t', "$database: activated, it works");
	return;
}

# The template was paused, and it is a copy: activate_jobs() ends both.
is($node->safe_psql('template', 'SELECT reason, pause_reason FROM queue_status'), 'paused|copies are made', 'a copy of a paused database is paused');
$node->safe_psql('template', 'SELECT resume_workers()');
is_quiet('template', 'restored copy');
becomes_active('template');

$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('restored'), $dumps{custom} ], 'pg_restore');
is($node->safe_psql('restored', 'SELECT database <> d.oid FROM database_identity, pg_database d WHERE datname = current_database()'), 't', 'it has the name of the original');
$node->safe_psql('restored', 'SELECT resume_workers()');
is_quiet('restored', 'restored copy');
becomes_active('restored');

# Before the row of the original comes, the restoring session has made one.
$node->safe_psql('postgres', 'CREATE DATABASE scripted');
my $script = slurp_file($dumps{plain});
$script =~ s/^(COPY public\.database_identity .*?^\\\.\n)//ms or die 'no identity in the dump';
append_to_file("$dumps{plain}.without", $script);
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', "$dumps{plain}.without", '-d', $node->connstr('scripted') ],
	'a script without the identity');
is_quiet('scripted', 'restored copy');
is($node->safe_psql('scripted', 'SELECT system_identifier, database FROM database_identity'), '0|0', 'scripted: no identity at all');
becomes_active('scripted');

# Said once for each, although it was looked at again at each change.
is(warnings($_), 1, "$_: one warning") foreach qw(template restored scripted);
is(warnings('postgres'), 0, 'none for the original');

# An empty database that has been given the extension is nobody's copy.
$node->safe_psql('postgres', 'CREATE DATABASE fresh');
$node->safe_psql('fresh', 'CREATE EXTENSION jobqueue');
$node->poll_query_until('fresh', 'SELECT is_active AND has_scheduler FROM queue_status') or die 'a fresh database does not work';
# Data that is restored into it makes it one at once, whatever was there.
$node->command_ok([ 'pg_restore', '--exit-on-error', '--data-only', '-t', 'database_identity', '-d', $node->connstr('fresh'), $dumps{custom} ],
	'pg_restore of the data');
$node->poll_query_until('fresh', 'SELECT NOT has_scheduler FROM queue_status') or die 'its scheduler stays';
$node->safe_psql('postgres', 'DROP DATABASE fresh');

# The same server under another life is no copy.
$node->restart;
$node->poll_query_until('restored', 'SELECT is_active AND has_scheduler FROM queue_status') or die 'not after a restart';

# A subscriber leaves the jobs to the publisher, until it is promoted.
$node->safe_psql('postgres', q{
	SELECT unschedule_cron_task('tick');
	CREATE PUBLICATION jobs FOR TABLE jobs_queue;
	CREATE DATABASE subscriber;
});
$node->safe_psql('subscriber', q{
	CREATE EXTENSION jobqueue;
	CREATE TABLE effects (what text);
});
$node->poll_query_until('subscriber', 'SELECT is_active AND has_scheduler FROM queue_status') or die 'subscriber never active';
$node->safe_psql('postgres', q{SELECT pg_create_logical_replication_slot('jobs', 'pgoutput')});
$node->safe_psql('subscriber', sprintf(q{
	CREATE SUBSCRIPTION jobs CONNECTION $c$%s$c$ PUBLICATION jobs WITH (create_slot = false, slot_name = 'jobs', copy_data = false)}, $node->connstr('postgres')));
is($node->safe_psql('subscriber', 'SELECT reason FROM queue_status'), 'subscription', 'a subscriber is quiet');
$node->poll_query_until('subscriber', 'SELECT NOT has_scheduler FROM queue_status') or die 'its scheduler stays';
$node->wait_for_log(qr/jobqueue runs nothing in database "subscriber": its jobs come from a subscription/);
my $id = $node->safe_psql('postgres', q{SELECT enqueue_sql($$INSERT INTO effects VALUES ('replicated')$$, scheduled_at => now() + interval '1 hour')});
$node->poll_query_until('subscriber', "SELECT count(*) = 1 FROM jobs_queue WHERE id = $id") or die 'nothing is replicated';
$node->safe_psql('subscriber', "UPDATE jobs_queue SET scheduled_at = now() WHERE id = $id");
(undef, undef, my $stderr) = $node->psql('subscriber', 'SELECT activate_jobs()');
like($stderr, qr/NOTICE:  the jobs of this database come from a subscription/, 'activate_jobs() says why it does not help');
is($node->safe_psql('subscriber', 'SELECT count(*) FROM effects'), '0', 'nothing was run');
$node->safe_psql('subscriber', 'ALTER SUBSCRIPTION jobs DISABLE');
$node->poll_query_until('subscriber', 'SELECT count(*) = 1 FROM effects') or die 'a promoted subscriber does nothing';
is($node->safe_psql('subscriber', 'SELECT is_active FROM queue_status'), 't', 'after the subscription it works');

$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
