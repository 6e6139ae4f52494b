# An idle server costs nothing: no snapshot, no transaction id and no WAL while
# the workers wait, whether they have had jobs before or not.
use strict;
use warnings;
use lib 'test/lib';
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Session;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $node = JobQueue::Cluster->new('main', conf => <<~'CONF');
	autovacuum = off
	checkpoint_timeout = 1h
	jobqueue.executor_idle_timeout = 10min
	# What happened is written down at the end of a minute, and of an hour.
	jobqueue.keep_history = 0
	jobqueue.max_executors = 1
	CONF
$node->safe_psql('postgres', q{
	INSERT INTO job_types (job_type, notify) VALUES ('outside', true);
	SELECT schedule_cron_task('yearly', '0 0 1 1 *', 'outside');
	SELECT enqueue_job('outside', scheduled_at => now() + interval '1 day');
	SELECT enqueue_sql('SELECT 1') FROM generate_series(1, 100)});
wait_for_query($node, q{SELECT count(*) FROM jobs_queue_done}, 100);
wait_for_query($node, q{SELECT bool_and(state = 'idle') FROM _server_workers() WHERE kind = 'executor'});

# The last of what is to be done may still be under way; afterwards, nothing.
sub position
{
	return $node->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn(), pg_snapshot_xmax(pg_current_snapshot())');
}
# What the installation has left dead there would be pruned by any session that
# looks, this test's own too.
$node->safe_psql('postgres', 'VACUUM pg_proc');
# The next sweep of the lanes, which prunes dead rows, comes within 5 s.
# CREATE EXTENSION has left dead rows in catalogs, which any reader may prune.
$node->safe_psql('postgres', 'VACUUM pg_proc; CHECKPOINT');
my $before = position();
my $still = 0;
for (my $tries = 0; $still < 60 && $tries < 1000; $tries++)
{
	my $now = position();
	$still = $now eq $before ? $still + 1 : 0;
	$before = $now;
	sleep 0.1;    # why: to see whether it stands still
}

# The samples of ten polls.
my $seen = 0;
my @open;
for (1 .. 30)
{
	my $workers = $node->safe_psql('postgres', q{
		SELECT count(*), count(*) FILTER (WHERE backend_xmin IS NOT NULL OR backend_xid IS NOT NULL
			OR xact_start < now() - interval '50 ms'),
			string_agg(DISTINCT backend_type, ' ' ORDER BY backend_type)
		FROM pg_stat_activity WHERE backend_type LIKE 'jobqueue %'});
	my ($count, $busy, $types) = split /\|/, $workers;
	$seen++ if $types eq 'jobqueue executor jobqueue launcher jobqueue scheduler';
	push @open, $workers if $busy > 0;
	sleep 0.1;    # why: samples, ten a second
}
is($seen, 30, 'launcher, scheduler and executor were there all the time');

# A poll may be met while it reads; none may last into the next sample.
cmp_ok(scalar @open, '<', 10, 'they hold no snapshot while they wait') or diag join "\n", @open;
my $after = position();
my ($lsn_before, $xid_before) = split /\|/, $before;
my ($lsn_after, $xid_after) = split /\|/, $after;
is($xid_after, $xid_before, 'no transaction id was used');
# A running-xacts record of the server itself is all that may come.
cmp_ok($node->safe_psql('postgres', "SELECT '$lsn_after'::pg_lsn - '$lsn_before'::pg_lsn"), '<=', 200, 'and no WAL written');

# What they say of themselves, waiting and at work
is($node->safe_psql('postgres', q{
	SELECT DISTINCT backend_type, application_name = backend_type, state, wait_event_type
	FROM pg_stat_activity WHERE backend_type IN ('jobqueue executor', 'jobqueue scheduler') AND wait_event IS NOT NULL ORDER BY 1}),
	"jobqueue executor|t|idle|Extension\njobqueue scheduler|t|idle|Extension", 'pg_stat_activity tells who waits');
my $holder = JobQueue::Session->new($node);
$holder->query('SELECT pg_advisory_lock(7)');
my $id = $node->safe_psql('postgres', q{SELECT enqueue_sql('SELECT pg_advisory_lock(7)')});
wait_for_query($node, q{SELECT query, state, wait_event_type FROM pg_stat_activity WHERE backend_type = 'jobqueue executor'},
	"job $id (sql)|active|Lock");
is($node->safe_psql('postgres', q{SELECT job_id, state FROM _server_workers() WHERE kind = 'executor'}), "$id|running",
	'and who works on what');
$holder->query('SELECT pg_advisory_unlock(7)');
wait_for_query($node, q{SELECT state FROM pg_stat_activity WHERE backend_type = 'jobqueue executor'}, 'idle');

$node->stop;
done_testing();
