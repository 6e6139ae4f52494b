# What has been kept for long enough is deleted: jobs by status, age and count,
# runs and their logs by age; dead letters never; and nobody has to wait for it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Session;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main', conf => "autovacuum = off\njobqueue.max_executors = 0");
my $worker = '00000000-0000-4000-8000-000000000001';

# Ended jobs, some hours old, in a copy of how workers leave them.
sub add_jobs
{
	my ($job_type, $status, $count, $age, $step) = @_;

	$step //= '1 second';
	$node->safe_psql('postgres', qq{
		INSERT INTO jobs_queue (job_type, status, attempts, max_attempts, claim_no, finished_at, updated_at, owner)
		SELECT '$job_type', '$status', 1, 1, 1, now() - interval '$age' - i * interval '$step', now(), current_user::regrole
		FROM generate_series(1, $count) i});
}

sub jobs
{
	my ($job_type) = @_;

	return $node->safe_psql('postgres',
		"SELECT status, count(*) FROM jobs_queue_done WHERE job_type = '$job_type' GROUP BY 1 ORDER BY 1");
}

# The scheduler looks at everything after a reload. The condition is about what
# comes last: one batch of each job type and status, in the order of names, and
# more of those that have more.
sub prune_until
{
	my ($sql, $expected) = @_;

	$node->reload;
	wait_for_query($node, $sql, $expected);
}

# Ages, of each status by itself; the defaults; a type without a row
$node->safe_psql('postgres', q{
	INSERT INTO job_types (job_type, keep_completed, keep_failed, keep_cancelled)
	VALUES ('ages', '1 hour', '24 hours', '12 hours')});
add_jobs('ages', $_, 3, '2 hours') for qw(completed failed cancelled error);
add_jobs('ages', $_, 4, '13 hours') for qw(completed failed cancelled error);
add_jobs('ages', $_, 5, '25 hours') for qw(completed failed cancelled error);
add_jobs('plain', $_, 2, '6 days') for qw(completed failed cancelled error);
add_jobs('plain', $_, 3, '8 days') for qw(completed failed cancelled error);
add_jobs('plain', $_, 4, '31 days') for qw(completed failed cancelled error);
add_jobs('zzz', 'completed', 1, '8 days');
prune_until(q{SELECT count(*) FROM jobs_queue_done WHERE job_type = 'zzz'}, 0);
is(jobs('ages'), "cancelled|3\nerror|12\nfailed|7", 'each status of a job type has its age; dead letters have none');
is(jobs('plain'), "cancelled|2\ncompleted|2\nerror|9\nfailed|5", 'without a row the settings say it');

# Counts: the newest stay, also of those that ended in the same instant
$node->safe_psql('postgres', q{
	INSERT INTO job_types (job_type, keep_completed_count, keep_failed_count) VALUES ('counts', 100, 0), ('few', 7, 7)});
add_jobs('counts', $_, 2500, '1 hour') for qw(completed failed cancelled);
add_jobs('few', 'completed', 20, '1 hour', '0');
add_jobs('few', 'failed', 5, '1 hour');
add_jobs('zzz', 'completed', 1, '8 days');
my $newest = $node->safe_psql('postgres', q{
	SELECT md5(string_agg(id::text, ' ' ORDER BY id)) FROM (
		SELECT id FROM jobs_queue_done WHERE job_type = 'counts' AND status = 'completed' ORDER BY finished_at DESC LIMIT 100) n});
my $last = $node->safe_psql('postgres', q{SELECT max(id) FROM jobs_queue_done WHERE job_type = 'few' AND status = 'completed'});
prune_until(q{SELECT count(*) FROM jobs_queue_done WHERE job_type = 'counts' AND status <> 'cancelled'}, 100);
wait_for_query($node, q{SELECT count(*) FROM jobs_queue_done WHERE job_type = 'zzz'}, 0);
is(jobs('counts'), "cancelled|2500\ncompleted|100", 'only so many are kept, and none of those that have no place');
is($node->safe_psql('postgres', q{SELECT md5(string_agg(id::text, ' ' ORDER BY id)) FROM jobs_queue_done WHERE job_type = 'counts' AND status = 'completed'}),
	$newest, 'the newest');
is(jobs('few'), "completed|7\nfailed|5", 'to the job, also where the instants are the same');
is($node->safe_psql('postgres', qq{SELECT min(id) > $last - 7 FROM jobs_queue_done WHERE job_type = 'few' AND status = 'completed'}), 't', 'then the last ones');

# Not in the way of anybody, and nobody in its way
$node->safe_psql('postgres', q{
	INSERT INTO job_types (job_type, keep_completed, keep_failed) VALUES ('busy', '1 hour', '1 hour');
	DELETE FROM jobs_queue WHERE job_type = 'few'});
add_jobs('busy', $_, 1500, '2 hours') for qw(completed failed);
my $parent = $node->safe_psql('postgres', q{SELECT max(id) FROM jobs_queue_done WHERE job_type = 'busy' AND status = 'failed'});
my $child = $node->safe_psql('postgres', "SELECT enqueue_job('child', depends_on => ARRAY[$parent])");
my $holder = JobQueue::Session->new($node);
$holder->query(q{BEGIN});
my $held = $holder->query(q{
	SELECT id FROM jobs_queue_done WHERE job_type = 'busy' AND status = 'completed' ORDER BY finished_at LIMIT 1 FOR UPDATE});
prune_until(q{SELECT count(*) FROM jobs_queue_done WHERE job_type = 'busy'}, 2);
is($node->safe_psql('postgres', q{SELECT string_agg(id::text, ' ' ORDER BY status) FROM jobs_queue_done WHERE job_type = 'busy'}), "$held $parent",
	'what somebody has locked is passed over, and so is what another job waits for');
is($node->safe_psql('postgres', "SELECT retry_from_dlq($parent)"), $parent, 'it can be redriven');
$node->safe_psql('postgres', qq{SELECT resolve_job(id, '$worker', true) FROM claim_jobs('$worker', '{busy}')});
is($node->safe_psql('postgres', "SELECT status FROM jobs_queue WHERE id = $child"), 'queued', 'and lets the other one go on');
$holder->query('ROLLBACK');
prune_until(q{SELECT count(*) FROM jobs_queue_done WHERE job_type = 'busy' AND finished_at < now() - interval '1 hour'}, 0);
pass('once it is let go it is deleted, too');

# A type whose rows cannot be deleted keeps the others from nothing
$node->safe_psql('postgres', q{
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this one' USING ERRCODE = '23001'; END $$;
	CREATE TRIGGER refuse BEFORE DELETE ON jobs_queue_done FOR EACH ROW WHEN (OLD.job_type = 'aaa') EXECUTE FUNCTION refuse()});
add_jobs($_, 'completed', 2, '8 days') for qw(aaa zzz);
my $offset = -s $node->logfile;
prune_until(q{SELECT count(*) FROM jobs_queue_done WHERE job_type = 'zzz'}, 0);
is(jobs('aaa'), 'completed|2', 'a job type whose jobs cannot be deleted');
my @warnings = slurp_file($node->logfile, $offset) =~ /(WARNING:  could not delete old jobs of type .*)/g;
is(join("\n", @warnings), 'WARNING:  could not delete old jobs of type "aaa": not this one', 'is named, and the next one goes on');
$node->safe_psql('postgres', q{DROP TRIGGER refuse ON jobs_queue_done; DELETE FROM jobs_queue WHERE job_type = 'aaa'});

# For ever, or not at all
$node->append_conf('postgresql.conf', "jobqueue.keep_completed = -1\njobqueue.keep_failed = -1\njobqueue.keep_runs = -1");
$node->reload;
$node->safe_psql('postgres', q{INSERT INTO job_types (job_type, keep_completed) VALUES ('zzz', '1 hour')});
add_jobs('eternal', $_, 2, '3000 days') for qw(completed failed cancelled);
add_jobs('zzz', 'completed', 1, '8 days');
prune_until(q{SELECT count(*) FROM jobs_queue_done WHERE job_type = 'zzz'}, 0);
is(jobs('eternal'), "completed|2\nfailed|2", '-1 is for ever');
$node->append_conf('postgresql.conf', 'jobqueue.keep_completed = 0');
$node->reload;
wait_for_query($node, q{SELECT current_setting('jobqueue.keep_completed')}, 0);
$node->safe_psql('postgres', qq{SELECT enqueue_job('fleeting'); SELECT resolve_job(id, '$worker', true) FROM claim_jobs('$worker', '{fleeting}')});
is(jobs('fleeting'), '', '0 is not at all');
is($node->safe_psql('postgres', q{SELECT status FROM job_runs WHERE job_type = 'fleeting'}), 'completed', 'but for the run');
$node->append_conf('postgresql.conf', "jobqueue.keep_completed = 7d\njobqueue.keep_failed = 30d\njobqueue.keep_runs = 30d");
$node->reload;

# Runs and logs: by age, unless the job is live or a dead letter
$node->safe_psql('postgres', q{
	TRUNCATE jobs_queue;
	INSERT INTO job_types (job_type, keep_runs) VALUES ('brief', '1 hour'), ('lasting', '300 days');
	INSERT INTO jobs_queue (id, job_type, status, attempts, max_attempts, claim_no, finished_at, owner) VALUES
		(100001, 'r', 'queued', 0, 1, 1, NULL, current_user::regrole),
		(100002, 'r', 'error', 1, 1, 1, now() - interval '100 days', current_user::regrole),
		(100003, 'r', 'completed', 1, 1, 1, now(), current_user::regrole);
	INSERT INTO job_runs (job_id, claim_no, attempt, job_type, stage, status, charged, finished_at)
		SELECT i, 1, 1, t, '', 'completed', true, now() - a
		FROM (VALUES (100001, 'r', interval '31 days'), (100002, 'r', '31 days'), (100003, 'r', '31 days'), (100004, 'r', '31 days'),
			(100005, 'r', '29 days'), (100006, 'brief', '2 hours'), (100007, 'brief', '1 minute'), (100008, 'lasting', '200 days')) v (i, t, a);
	INSERT INTO job_logs (job_id, claim_no, message) SELECT job_id, c, 'hello' FROM job_runs, generate_series(1, 2) c;
});
prune_until(q{SELECT string_agg(job_id::text, ' ' ORDER BY job_id) FROM job_runs}, '100001 100002 100005 100007 100008');
pass('runs go by their age, but for those of live jobs and dead letters');
is($node->safe_psql('postgres', q{SELECT string_agg(job_id::text, ' ' ORDER BY job_id) FROM job_logs WHERE claim_no = 1}), '100001 100002 100005 100007 100008', 'their logs with them');
is($node->safe_psql('postgres', q{SELECT count(*) FROM job_logs WHERE claim_no = 2}), '8', 'and no others');

# A long table: the hand comes to its end, wherever it began
$node->safe_psql('postgres', q{
	TRUNCATE jobs_queue;
	INSERT INTO job_runs (job_id, claim_no, attempt, job_type, stage, status, charged, finished_at)
	SELECT i, 1, 1, 'r', '', 'completed', true, now() - interval '31 days' FROM generate_series(1, 3000) i});
prune_until(q{SELECT count(*) < 3000 FROM job_runs}, 't');
cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM job_runs}), '>', 0, 'a step takes some pages, not all');
my $steps = 1;
while ($node->safe_psql('postgres', q{SELECT count(*) FROM job_runs}) > 0 && $steps++ < 20)
{
	my $now = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
	prune_until("SELECT count(*) FROM _server_workers() WHERE kind = 'scheduler' AND last_cycle_at > timestamptz '$now' + interval '250 ms'", 1);
}
is($node->safe_psql('postgres', q{SELECT count(*) FROM job_runs}), '0', 'in the end there is none left') or diag("$steps steps");

# Old rows of cron_runs and queue_events, in the first cycle of a scheduler
$node->safe_psql('postgres', q{
	INSERT INTO cron_runs (task_id, instant, kind, decided_at)
	SELECT 1, now() - a, 'schedule', now() - a FROM unnest('{4 days,2 days}'::interval[]) a;
	INSERT INTO queue_events (event, happened_at) SELECT 'circuit_open', now() - a FROM unnest('{31 days,29 days}'::interval[]) a;
	SELECT pg_terminate_backend(pid) FROM _server_workers() WHERE kind = 'scheduler'});
wait_for_query($node, q{SELECT count(*) FROM cron_runs}, 1);
is($node->safe_psql('postgres', q{SELECT instant > now() - interval '3 days' FROM cron_runs}), 't', 'cron_runs forgets what is old');
wait_for_query($node, q{SELECT count(*) FROM queue_events}, 1);
is($node->safe_psql('postgres', q{SELECT happened_at > now() - interval '30 days' FROM queue_events}), 't', 'and so does queue_events');

# What the watchdog does is to be seen
$offset = -s $node->logfile;
$node->safe_psql('postgres', qq{SELECT enqueue_jobs('silent', '{1,2,3}'); SELECT FROM claim_jobs('$worker', '{silent}', lease => '1 millisecond')});
wait_for_query($node, q{SELECT count(*) FROM job_runs WHERE status = 'expired' AND error = 'lease expired'}, 3);
my ($taken) = slurp_file($node->logfile, $offset) =~ /LOG:  took back (\d) lost jobs?/;
ok($taken, 'the watchdog says in the log that it took back lost jobs');

$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
