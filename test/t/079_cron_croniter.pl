# Another implementation of cron, croniter, finds the same next runs, or differs in
# a way that is known: each class of differences is described and decided in
# test/cron/compare.py. Where they differ, a walk over the minutes is on our side.
#
# The cases are the same every time, so that a corner of croniter that nobody has
# seen yet does not fail somebody's change; JOBQUEUE_TEST_SEED=n gives others, and
# JOBQUEUE_CASES=n more.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster;
use JobQueue::Cron qw(need_python python);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

need_python('croniter');

my $count = $ENV{JOBQUEUE_CASES} // 100_000;
my $dir = $PostgreSQL::Test::Utils::tmp_check;
my $node = JobQueue::Cluster->new('main', conf => 'jobqueue.launcher = off');
python('compare.py', 'answers', $ENV{JOBQUEUE_TEST_SEED} // 1, $count, '>', "$dir/croniter");

# A schedule that is refused, because it never fires, has no answer.
my $differ = $node->safe_psql('postgres', qq{
	CREATE TABLE cases (id integer, schedule text, zone text, after bigint, croniter bigint);
	COPY cases FROM '$dir/croniter';
	CREATE FUNCTION answer(schedule text, zone text, after bigint) RETURNS bigint LANGUAGE sql AS \$\$
		SELECT CASE WHEN cron_is_valid(schedule)
			THEN (SELECT extract(epoch FROM run) FROM cron_next_runs(schedule, zone, to_timestamp(after), 1) AS run) END
	\$\$;
	CREATE TABLE differences AS
		SELECT * FROM (SELECT *, answer(schedule, zone, after) AS server FROM cases) AS c
		WHERE server IS DISTINCT FROM croniter;
	COPY differences TO '$dir/cron_differences';
	SELECT count(*) FROM differences;
});
note("$differ of $count differ");
cmp_ok($differ, '<', $count / 4, 'most answers are the same');

python('compare.py', 'explain', '<', "$dir/cron_differences", '>', "$dir/cron_explained");
my @lines = split /\n/, slurp_file("$dir/cron_explained");
note($_) foreach grep { !/^problem/ } @lines;
is(join("\n", grep { /^problem/ } @lines), '', 'each difference is explained');

$node->stop;
done_testing();
