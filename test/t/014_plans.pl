# On the reference path, a claim reads the first rows of a lane by index, planned
# once and never compiled, whatever the planner thinks of a table that fills and
# empties.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
jobqueue.launcher = off
autovacuum = off
jit = on
jit_above_cost = 0
CONF
my $worker = '00000000-0000-4000-8000-000000000001';

# The first claim plans on an empty table, the others find it full.
my $offset = -s $node->logfile;
$node->safe_psql('postgres', qq{
	LOAD 'auto_explain';
	SET jobqueue.debug_claim_path = 'sql';
	SET auto_explain.log_min_duration = 0;
	SET auto_explain.log_nested_statements = on;
	SELECT FROM claim_next_job('$worker', 'bulk');
	SELECT count(*) FROM enqueue_jobs('bulk', array_fill('{}'::jsonb, ARRAY[20000]));
	ANALYZE jobs_queue_live;
	SELECT FROM claim_next_job('$worker', 'bulk');
	SELECT FROM claim_jobs('$worker', '{bulk}', 20);
	SELECT FROM claim_next_job('$worker');
});

my @plans = grep { /FROM public\.jobs_queue_live/ && !/Insert on/ }
  split /(?=Query Text: )/, slurp_file($node->logfile, $offset);
cmp_ok(scalar(@plans), '>=', 7, 'the statements of the claims are in the log');
is(scalar(grep { /Index (?:Only )?Scan using jobs_queue_live_(?:ready|owner)/ } @plans), scalar(@plans), 'each reads a ready index');
is(scalar(grep { /Seq Scan on jobs_queue_live|Bitmap|Sort/ } @plans), 0, 'none reads or sorts the table');
is(scalar(grep { /JIT:/ } @plans), 0, 'none is compiled');
is(scalar(grep { /Index Cond: .*'bulk'/ } @plans), 0, 'none is planned for a value');

$node->stop;
done_testing();
