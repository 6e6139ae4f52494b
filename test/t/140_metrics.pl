# Counts in shared memory agree with the tables: after a storm of everything that
# can happen to a job, rollbacks and subtransactions included; after prepared
# transactions, TRUNCATE and crashes, once somebody has looked. What happened is
# written down by intervals, and it adds up. Where there is no room for all job
# types, the tables are counted.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Session;
use JobQueue::Storm qw(storm_seed);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
max_connections = 40
max_prepared_transactions = 10
log_statement = none
jobqueue.max_executors = 2
jobqueue.max_user_metrics = 10
CONF
storm_seed();

my $differences = q{
	SELECT coalesce(c.job_type, q.job_type) AS job_type, c.*, q.*
	FROM job_counts c
		FULL JOIN (SELECT job_type, count(*) FILTER (WHERE status = 'queued') AS queued,
				count(*) FILTER (WHERE status = 'running') AS running,
				count(*) FILTER (WHERE status = 'blocked') AS blocked,
				count(*) FILTER (WHERE status = 'completed') AS completed,
				count(*) FILTER (WHERE status = 'failed') AS failed,
				count(*) FILTER (WHERE status = 'error') AS error,
				count(*) FILTER (WHERE status = 'cancelled') AS cancelled
			FROM jobs_queue GROUP BY job_type) q ON q.job_type = c.job_type
	WHERE (c.queued, c.running, c.blocked, c.completed, c.failed, c.dead_letters, c.cancelled)
		IS DISTINCT FROM (q.queued, q.running, q.blocked, q.completed, q.failed, q.error, q.cancelled)};
sub differences { return $node->safe_psql('postgres', $differences) }

# Whether counts come from memory shows in the plan of nothing: a table that is
# locked cannot be counted.
sub come_from_memory
{
	my $locker = JobQueue::Session->new($node);
	$locker->query('BEGIN; LOCK jobs_queue IN ACCESS EXCLUSIVE MODE');
	my ($status) = $node->psql('postgres', q{SET lock_timeout = '200ms'; SELECT count(*) FROM job_counts});
	$locker->query('ROLLBACK');
	return $status == 0;
}

sub wait_for_memory
{
	for (1 .. 300)
	{
		return 1 if come_from_memory();
		sleep 0.1;    # why: the scheduler looks when it gets to it
	}
	return 0;
}

ok(wait_for_memory(), 'the scheduler looks at the tables, and from then on nobody needs to');

# ---- a storm ----

$node->safe_psql('postgres', q{
	INSERT INTO job_types (job_type, dead_letter, max_attempts, backoff, keep_completed) VALUES
		('a', false, 2, '"0s"', NULL), ('b', true, 1, '"0s"', NULL), ('c', false, 3, '"1h"', '0')});
sub lot { return int rand $_[0] }
sub pick { return $_[ lot(scalar @_) ] }
# Looks that find differences would hide them: while polls are rare, so are looks.
sub storm
{
	$node->append_conf('postgresql.conf', "jobqueue.poll_interval = 10s\n");
	$node->reload;
	my $storm = JobQueue::Storm->start(
		6,
		sub {
			my ($number, $go_on) = @_;
			my $s = JobQueue::Session->new($node);
			my $worker = sprintf '00000000-0000-0000-0000-%012d', $number;
			my @do = (
				sub { sprintf q{SELECT enqueue_job('%s', stage => '%s', scheduled_at => now() + interval '%d s') FROM generate_series(1, %d)},
					  pick(qw(a b c)), pick('', 'x'), pick(0, 0, 1, 3600), 1 + lot(5) },
				sub { sprintf q{SELECT count(*) FROM claim_jobs('%s', '{%s}', %d)}, $worker, pick(qw(a b c)), 1 + lot(5) },
				sub { sprintf q{SELECT %s FROM jobs_queue WHERE status = 'running' AND locked_by = '%s' LIMIT %d},
					  pick('complete_job(id, locked_by)', q{fail_job(id, locked_by, 'no')}, 'release_job(id, locked_by)',
						q{resolve_job(id, locked_by, true)}, q{skip_job(id, locked_by)}, q{set_job_stage(id, locked_by, 'y')}), $worker, 1 + lot(4) },
				sub { sprintf q{SELECT count(*) FROM (SELECT claim_next_job('%s', '%s')) x}, $worker, pick(qw(a b c)) },
				sub { sprintf q{SELECT cancel_job(id) FROM jobs_queue WHERE status = 'queued' AND id %% 17 = %d LIMIT 2}, lot(17) },
				sub { sprintf q{UPDATE jobs_queue SET status = '%s' WHERE id IN (SELECT id FROM jobs_queue WHERE status IN ('%s') LIMIT 2)},
					  pick([ 'completed', q{queued} ], [ 'queued', q{failed','cancelled','error} ], [ 'cancelled', 'queued' ])->@* },
				sub { sprintf q{DELETE FROM jobs_queue WHERE id IN (SELECT id FROM jobs_queue WHERE id %% 31 = %d LIMIT 2)}, lot(31) },
				sub { q{SELECT enqueue_job('a', depends_on => ARRAY[(SELECT max(id) FROM jobs_queue WHERE status = 'queued')])} },
				sub { sprintf q{SELECT requeue_jobs('%s', statuses => '{failed,error,cancelled}', max_jobs => 3)}, pick(qw(a b c)) },
				sub { sprintf q{SELECT purge_jobs('%s', statuses => '{completed}', max_jobs => 3)}, pick(qw(a b c)) },
				sub { q{SELECT enqueue_sql('SELECT 1/(random() < 0.9)::int', max_attempts => 1) FROM generate_series(1, 5)} });
			while ($go_on->())
			{
				my $fate = lot(10);
				if ($fate < 7)
				{
					$s->query($do[ lot(scalar @do) ]->());
					next;
				}
				$s->query('BEGIN');
				for (1 .. 1 + lot(3))
				{
					$s->query('SAVEPOINT s');
					$s->query($do[ lot(scalar @do) ]->());
					$s->query(pick('RELEASE s', 'ROLLBACK TO s'));
				}
				$s->query($fate == 7 ? 'ROLLBACK' : 'COMMIT');
			}
			return;
		});
	# A slow machine takes longer to do as much.
	my $before = $node->safe_psql('postgres', 'SELECT coalesce(sum(started), 0) FROM _job_metrics()');
	sleep 3;    # why: for as long as the storm is to last at least
	wait_for_query($node, "SELECT sum(started) > $before + 500 FROM _job_metrics()");
	$storm->stop;
	return;
}

sub check_counts
{
	my ($when) = @_;

	wait_for_query($node, q{
		SELECT coalesce(string_agg(id || ' ' || status || ' ' || attempts, ', '), '') FROM jobs_queue
		WHERE job_type = 'sql' AND (status = 'running' OR status = 'queued' AND scheduled_at <= now())}, '');
	ok(come_from_memory(), "$when: counts come from memory");
	is(differences(), '', "$when: after a storm, counts are those of the tables");
	cmp_ok($node->safe_psql('postgres', 'SELECT sum(started) FROM _job_metrics()'), '>', 500, "$when: it was one");
	is( $node->safe_psql('postgres', q{
			SELECT m.job_type, m.succeeded, m.failed, m.released, m.skipped, r.*
			FROM (SELECT job_type, sum(succeeded) AS succeeded, sum(failed) AS failed, sum(released) AS released, sum(skipped) AS skipped
				FROM _job_metrics() GROUP BY job_type) m
			FULL JOIN (SELECT job_type, count(*) FILTER (WHERE status = 'completed') AS completed, count(*) FILTER (WHERE status = 'failed') AS failed,
				count(*) FILTER (WHERE status = 'released') AS released, count(*) FILTER (WHERE status = 'skipped') AS skipped
				FROM job_runs GROUP BY job_type) r ON r.job_type = m.job_type
			WHERE (m.succeeded, m.failed, m.released, m.skipped) IS DISTINCT FROM (coalesce(r.completed, 0), coalesce(r.failed, 0), coalesce(r.released, 0), coalesce(r.skipped, 0))}),
		'', "$when: and so are the ends of claims, those of job_runs");
	$node->append_conf('postgresql.conf', "jobqueue.poll_interval = 100ms\n");
	$node->reload;
	# The server deletes them: a look at that moment would see what memory does not know yet.
	wait_for_query($node, q{SELECT count(*) FROM jobs_queue WHERE job_type = 'c' AND status = 'completed'}, 0);
	return;
}

storm();
check_counts('rows written directly');
$node->safe_psql('postgres', q{
	CREATE TABLE written (leaf text, what text);
	CREATE FUNCTION note_write() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.written VALUES (TG_TABLE_NAME, TG_OP); RETURN NULL; END $$;
	CREATE TRIGGER note_write AFTER INSERT OR UPDATE OR DELETE ON jobs_queue FOR EACH ROW EXECUTE FUNCTION note_write()});
storm();
check_counts('rows that fire a trigger');
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM written'), '>', 500, 'which fired');

# At once, before anybody has looked.
sub write_each_way
{
	return $node->safe_psql('postgres', qq{
		DO \$\$
		DECLARE
			parent bigint := enqueue_job('chain');
		BEGIN
			PERFORM enqueue_job('chain', depends_on => ARRAY[parent]), enqueue_job('chain');
			PERFORM FROM claim_jobs('00000000-0000-0000-0000-000000000001', '{chain}', 1);
			UPDATE jobs_queue SET job_type = 'a' WHERE job_type = 'chain' AND status = 'blocked';
			PERFORM complete_job(parent);
			PERFORM FROM claim_jobs('00000000-0000-0000-0000-000000000001', '{chain,a}', 1);
		END \$\$;
		$differences});
}
is(write_each_way(), '', 'what triggers tell counts at once');
$node->safe_psql('postgres', 'DROP TRIGGER note_write ON jobs_queue');
is(write_each_way(), '', 'and so does what they need not tell');

# ---- what no callback sees ----

$node->safe_psql('postgres', q{BEGIN; SELECT enqueue_job('prepared') FROM generate_series(1, 7); PREPARE TRANSACTION 'p'});
$node->safe_psql('postgres', q{COMMIT PREPARED 'p'});
$node->safe_psql('postgres', q{SELECT enqueue_job('prepared')});
wait_for_query($node, q{SELECT queued FROM job_counts WHERE job_type = 'prepared'}, 8);
pass('a look finds what a prepared transaction did');

$node->safe_psql('postgres', 'TRUNCATE jobs_queue CASCADE');
wait_for_query($node, "SELECT NOT EXISTS ($differences)");
is($node->safe_psql('postgres', 'SELECT count(*) FROM job_counts'), 0, 'a TRUNCATE leaves none');

$node->safe_psql('postgres', q{SELECT enqueue_job('late', scheduled_at => clock_timestamp() + interval '1 s') FROM generate_series(1, 3)});
is($node->safe_psql('postgres', q{SELECT ready, scheduled FROM job_counts WHERE job_type = 'late'}), '0|3', 'jobs that are not due are scheduled');
wait_for_query($node, q{SELECT ready || '|' || scheduled FROM job_counts WHERE job_type = 'late'}, '3|0');
pass('and ready when a look finds that they have become due');

# ---- the history ----

wait_for_query($node, q{
	SELECT queued || '|' || ready || '|' || scheduled FROM job_history
	WHERE job_type = 'late' AND resolution = '10s' ORDER BY at DESC LIMIT 1}, '3|3|0');
pass('the history has what happened');
is($node->safe_psql('postgres', q{
	SELECT h.*, m.* FROM (SELECT job_type, sum(enqueued) AS enqueued, sum(started) AS started, sum(succeeded) AS succeeded, sum(failed) AS failed, sum(dead) AS dead
			FROM job_history WHERE resolution = '10s' GROUP BY 1) h
		FULL JOIN (SELECT job_type, sum(enqueued) AS enqueued, sum(started) AS started, sum(succeeded) AS succeeded, sum(failed) AS failed, sum(dead) AS dead
			FROM _job_metrics() GROUP BY 1) m ON m.job_type = h.job_type
	WHERE (h.enqueued, h.started, h.succeeded, h.failed, h.dead) IS DISTINCT FROM (m.enqueued, m.started, m.succeeded, m.failed, m.dead)}),
	'', 'and it adds up');

# ---- crash ----

$node->safe_psql('postgres', q{SELECT enqueue_job('kept') FROM generate_series(1, 5)});
$node->stop('immediate');
$node->start;
ok(wait_for_memory(), 'after a crash the tables are looked at again');
is(differences(), '', 'and counts are right');

# ---- another life of the extension ----

$node->safe_psql('postgres', q{INSERT INTO jobs_queue (job_type, status) SELECT 'dead', 'error' FROM generate_series(1, 150)});
$node->safe_psql('postgres', 'DROP EXTENSION jobqueue CASCADE; CREATE EXTENSION jobqueue');
is($node->safe_psql('postgres', 'SELECT count(*) FROM job_counts'), 0, 'jobs of an extension that was dropped do not count');
ok(wait_for_memory(), 'the new tables are looked at');
is($node->safe_psql('postgres', 'SELECT count(*) FROM job_counts'), 0, 'and nothing is left of the old ones');

# ---- metrics of users ----

my $warnings = '';
$node->psql('postgres', q{
	DO $$ BEGIN FOR i IN 1..50 LOOP PERFORM job_metric_add('many', 1, jsonb_build_object('i', i)); END LOOP; END $$;
	SELECT job_metric_add('many', 1, '{"i": 1}')}, stderr => \$warnings);
is(() = $warnings =~ /WARNING:  metric "many" is not counted/g, 1, 'too many metrics are told of once in a session');
is($node->safe_psql('postgres', q{SELECT count(*), max(sum) FROM _user_metrics()}), '10|2', 'those there are count on');

# ---- little room ----

$node->append_conf('postgresql.conf', "jobqueue.max_stage_stats = 2\n");
$node->restart;
$node->safe_psql('postgres', q{SELECT enqueue_job('t' || i) FROM generate_series(1, 5) i});
is(differences(), '', 'without room for all types the tables are counted');
$node->append_conf('postgresql.conf', "jobqueue.max_stage_stats = 0\n");
$node->restart;
$node->safe_psql('postgres', q{SELECT enqueue_job('t' || i) FROM generate_series(1, 5) i});
is(differences(), '', 'and so they are where nothing is');
is($node->safe_psql('postgres', 'SELECT count(*) FROM _job_metrics()'), 0, 'nothing is counted then');

$node->stop;
done_testing();
