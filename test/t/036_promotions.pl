# Failover after failover: each new primary runs what the old one has left, the
# old one comes back as a standby, and runs nothing. And a commit that waits for
# a standby that is gone can be interrupted. (009_standby.pl has one failover.)
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Jobs qw(prepare_jobs enqueue effect executor_of ended effect_problems wait_until_done);
use JobQueue::Storm qw(run_problems log_problems);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $one = JobQueue::Cluster->new('one', init => { allows_streaming => 1 }, conf => <<'CONF');
jobqueue.max_executors = 2
jobqueue.crash_limit = 100
jobqueue.shutdown_timeout = 0
wal_log_hints = on
log_statement = none
CONF
prepare_jobs($one);
$one->backup('base');
my $two = PostgreSQL::Test::Cluster->new('two');
$two->init_from_backup($one, 'base', has_streaming => 1);
$two->start;

my ($primary, $standby) = ($one, $two);
my $cycles = 3;
my @seconds;
for my $cycle (1 .. $cycles)
{
	# A job that runs as long as there is a gate, and others behind it
	$primary->safe_psql('postgres', 'INSERT INTO gate VALUES (1)');
	my $running = enqueue($primary, effect('running', 'DO $$ BEGIN WHILE EXISTS (SELECT FROM gate) LOOP PERFORM pg_sleep(0.02); END LOOP; END $$'));
	executor_of($primary, $running);
	$primary->safe_psql('postgres', 'SELECT enqueue_sql($cmd$' . effect('short') . '$cmd$) FROM generate_series(1, 20)', extra_params => [ '-U', 'alice' ]);
	$primary->wait_for_catchup($standby, 'replay');

	for my $sql (q{SELECT enqueue_job('a')}, q{SELECT enqueue_sql('SELECT 1')}, q{SELECT FROM claim_next_job(gen_random_uuid(), 'a')},
		q{SELECT resolve_job(1, gen_random_uuid(), true)}, q{SELECT enqueue_cron_tasks()}, q{SELECT cancel_job(1)})
	{
		my (undef, undef, $err) = $standby->psql('postgres', "\\set VERBOSITY verbose\n$sql");
		like($err, qr/ERROR:  25006/, "cycle $cycle: a standby refuses: $sql") if $cycle == 1;
	}
	is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'jobqueue%'}), '0', "cycle $cycle: a standby runs nothing");

	# Dead or in order, in turn
	$primary->stop($cycle % 2 ? 'immediate' : 'fast');
	my $promoted = time;
	$standby->promote;
	my $first = enqueue($standby, effect('first'));
	is(ended($standby, $first, 'status'), 'completed', "cycle $cycle: the new primary runs jobs");
	push @seconds, time - $promoted;
	$standby->safe_psql('postgres', 'DELETE FROM gate');
	is(ended($standby, $running, 'status, attempts'), 'completed|1', "cycle $cycle: what ran on the old one is run again");
	wait_until_done($standby);
	is(effect_problems($standby), '', "cycle $cycle: effects once");

	# The old primary follows, from a fresh copy
	last if $cycle == $cycles;
	my $next = PostgreSQL::Test::Cluster->new("standby_$cycle");
	$standby->backup("base_$cycle");
	$next->init_from_backup($standby, "base_$cycle", has_streaming => 1);
	$next->start;
	($primary, $standby) = ($standby, $next);
}
note(join ' ', 'seconds from promote to the first job:', map { sprintf '%.2f', $_ } @seconds);
cmp_ok((sort { $a <=> $b } @seconds)[-1], '<', 5, 'the first job ends within 5 s of the promotion');
is(run_problems($standby), '', 'one run for each claim');

# A synchronous standby that does not exist: commits wait, ours too; they can be
# interrupted, and nothing of ours stands in the way of a shutdown
my $node = $standby;
$node->append_conf('postgresql.conf', "synchronous_standby_names = 'nobody'");
$node->reload;
wait_for_query($node, 'SHOW synchronous_standby_names', 'nobody');
my $id = $node->safe_psql('postgres', q{SET synchronous_commit = local; SELECT enqueue_sql($cmd$} . effect('waits') . q{$cmd$)}, extra_params => [ '-U', 'alice' ]);
wait_for_query($node, q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type LIKE 'jobqueue%' AND wait_event = 'SyncRep'});
pass('without its standby, the claim waits for it');
my $started = time;
$node->stop('fast');
cmp_ok(time - $started, '<', 10, 'a shutdown does not');
$node->append_conf('postgresql.conf', "synchronous_standby_names = ''");
$node->start;
is(ended($node, $id, 'status'), 'completed', 'and the job is run when nobody waits any more');

# The same, and the standby is given up while they wait
$node->append_conf('postgresql.conf', "synchronous_standby_names = 'nobody'");
$node->reload;
wait_for_query($node, 'SHOW synchronous_standby_names', 'nobody');
$id = $node->safe_psql('postgres', q{SET synchronous_commit = local; SELECT enqueue_sql($cmd$} . effect('waits') . q{$cmd$)}, extra_params => [ '-U', 'alice' ]);
wait_for_query($node, q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type LIKE 'jobqueue%' AND wait_event = 'SyncRep'});
$node->append_conf('postgresql.conf', "synchronous_standby_names = ''");
$node->reload;
is(ended($node, $id, 'status, attempts'), 'completed|1', 'giving the standby up lets it go on');
is(effect_problems($node), '', 'effects once');
is(run_problems($node), '', 'one run for each claim');
$node->stop;
is(log_problems($node), '', 'nothing has crashed');
done_testing();
