# What holds for every schedule, zone and instant: runs come after the instant, in
# order, the same however they are asked for; they are those that a walk over the
# minutes of the local clock finds, and a schedule is refused only if it never fires.
#
# JOBQUEUE_TEST_SEED repeats.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster;
use JobQueue::Cron qw(need_python python);
use JobQueue::Storm qw(storm_seed);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

need_python();

my $dir = $PostgreSQL::Test::Utils::tmp_check;
my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
jobqueue.launcher = off
timezone = UTC
CONF
my $seed = storm_seed();
python('cases.py', $seed, 20000, '>', "$dir/cron_cases");

# Half of the instants get a fraction of a second.
$node->safe_psql('postgres', qq{
	CREATE TABLE cases (id integer, schedule text, zone text, second bigint);
	COPY cases FROM '$dir/cron_cases';
	INSERT INTO cases SELECT id + 100000, 'every ' || 1 + id * 37 % 31622400 || ' seconds', zone, second FROM cases WHERE id < 500;
	CREATE TABLE answers AS
		SELECT *, ARRAY(SELECT cron_next_runs(schedule, zone, after, 5)) AS runs
		FROM cases, LATERAL (SELECT to_timestamp(second) + id % 2 * id * interval '1 microsecond' AS after) AS a
		WHERE cron_is_valid(schedule);
	CREATE FUNCTION next_run(schedule text, zone text, after timestamptz) RETURNS timestamptz
		LANGUAGE sql AS 'SELECT cron_next_runs(schedule, zone, after, 1)';
	-- an instant between two, by lot
	CREATE FUNCTION any_between(low timestamptz, high timestamptz) RETURNS timestamptz
		LANGUAGE sql AS 'SELECT low + random() * (high - low)';
});

# The first answers for which a condition does not hold.
sub no_answer
{
	my ($condition, $name) = @_;

	is($node->safe_psql('postgres', "SET seed = 0.$seed; SELECT id, schedule, zone, after, runs FROM answers WHERE $condition LIMIT 5"),
		'', $name);
	return;
}

no_answer('cardinality(runs) <> 5', 'a valid schedule fires, again and again');
no_answer('runs[1] <= after', 'the first run comes after the instant');
no_answer('EXISTS (SELECT FROM generate_series(1, 4) AS n WHERE runs[n] >= runs[n + 1])', 'runs come in order');
no_answer('EXISTS (SELECT FROM generate_series(1, 4) AS n WHERE next_run(schedule, zone, runs[n]) <> runs[n + 1])',
	'the n-th run is the next after the one before');

# An interval is counted from the instant that is asked about.
no_answer(q{schedule !~ 'every' AND next_run(schedule, zone, runs[1] - interval '1 microsecond') <> runs[1]},
	'a run is the next right before it');
no_answer(q{schedule !~ 'every' AND next_run(schedule, zone, any_between(after, runs[1] - interval '1 microsecond')) <> runs[1]},
	'and from anywhere since the instant');
no_answer(q{schedule !~ 'every' AND next_run(schedule, zone, any_between(after - interval '40 days', after)) > runs[1]},
	'an earlier instant has no later run');
no_answer(q{schedule ~ 'every' AND runs[5] - after <> 5 * substring(schedule, '\d+')::integer * interval '1 second'},
	'an interval is even');

$node->safe_psql('postgres', qq{
	COPY (
		SELECT id, schedule, zone, second, coalesce(string_agg(extract(epoch FROM run)::bigint::text, ',' ORDER BY run), 'None')
		FROM cases LEFT JOIN (SELECT id, unnest(runs[:3]) AS run FROM answers) AS a USING (id)
		WHERE id < 2500 GROUP BY 1, 2, 3, 4
	) TO '$dir/cron_runs'
});
python('oracle.py', '<', "$dir/cron_runs", '>', "$dir/cron_problems");
is(slurp_file("$dir/cron_problems"), '', 'the walk finds the same runs, and none of what is refused');

$node->stop;
done_testing();
