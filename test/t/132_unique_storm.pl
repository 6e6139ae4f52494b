# Eight sessions enqueue the same few keys at once: in every scope and mode, one
# by one, in bulk and in one statement, with rollbacks between, while workers
# complete jobs and operators delete and requeue them. At no time do two live
# jobs have a key; of what is kept there is one job in all; of a period there is
# one; nobody waits for ever, and a bulk call never for another one's.
#
# JOBQUEUE_TEST_SEED repeats the lots.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Session;
use JobQueue::Storm qw(storm_seed run_problems);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $sessions = 8;
my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
max_connections = 40
log_statement = none
deadlock_timeout = 200ms
jobqueue.max_executors = 0
CONF
storm_seed();

# What calls that were committed returned.
$node->safe_psql('postgres', 'CREATE TABLE answers (job_type text, key text, id bigint)');

# Runs the sessions, each with a statement of its lot at a time; returns the
# SQLSTATEs of errors.
sub storm
{
	my ($seconds, $statement, @others) = @_;

	my $clients = JobQueue::Storm->start(
		$sessions + @others,
		sub {
			my ($number, $go_on) = @_;
			my $s = JobQueue::Session->new($node);
			my $until = time + $seconds;
			my $next = $number <= $sessions ? $statement : $others[ $number - $sessions - 1 ];

			while ($go_on->() && time < $until)
			{
				my @sql = $next->($number);
				$s->query($_) for @sql;
			}
			return;
		});
	sleep $seconds;
	return $clients->stop;
}

# A whole number below.
sub lot { return int rand $_[0] }
sub pick { return $_[ lot(scalar @_) ] }
sub ending { return pick('COMMIT', 'COMMIT', 'ROLLBACK') }
# ---- kept: of each key one job, whatever happens to it ----

my $errors = storm(4, sub {
	my $key = 'k' . lot(20);
	my $mode = pick(qw(skip replace keep_schedule));
	my $call = pick(
		"enqueue_job('kept', unique_key => '$key', unique_scope => 'kept', unique_mode => '$mode')",
		"enqueue_jobs('kept', '{1,2}', unique_keys => '{$key,$key}', unique_scope => 'kept', unique_mode => '$mode')",
		"x FROM (SELECT enqueue_job('kept', unique_key => '$key', unique_scope => 'kept') AS x FROM generate_series(1, 3)) AS s",
		"x FROM enqueue_job_batch('[{\"job_type\": \"kept\", \"unique_key\": \"$key\", \"unique_scope\": \"kept\"}]') AS x");
	return ('BEGIN', "INSERT INTO answers SELECT 'kept', '$key', $call", ending());
},
	sub {
		my $w = '11111111-0000-4000-8000-00000000000' . (1 + lot(9));
		return "SELECT resolve_job(id, '$w', " . pick('true', 'false') . ") FROM claim_jobs('$w', '{kept}', 3)";
	},
	sub { return pick("SELECT requeue_jobs('kept', '{completed,failed,cancelled}', max_jobs => 2)", 'SELECT cancel_job(id) FROM (SELECT id FROM jobs_queue WHERE status = \'queued\' ORDER BY random() LIMIT 1) AS q') });
is($errors, '', 'kept: no call fails');
is($node->safe_psql('postgres', q{SELECT count(*) FROM answers WHERE job_type = 'kept'}) > 100, 1, 'kept: many calls');
is($node->safe_psql('postgres', q{SELECT key, count(DISTINCT id) FROM answers WHERE job_type = 'kept' GROUP BY 1 HAVING count(DISTINCT id) <> 1}), '', 'kept: all calls with a key have the same id');
is($node->safe_psql('postgres', q{SELECT unique_key, count(*) FROM jobs_queue WHERE job_type = 'kept' GROUP BY 1 HAVING count(*) <> 1}), '', 'kept: one job for each key');
is($node->safe_psql('postgres', q{SELECT count(*) FROM answers a WHERE job_type = 'kept' AND NOT EXISTS (SELECT FROM jobs_queue q WHERE q.id = a.id AND q.unique_key = a.key)}), '0', 'kept: the id is that of the job');
is($node->safe_psql('postgres', q{SELECT count(*) FROM job_keys k FULL JOIN jobs_queue q ON q.id = k.job_id AND q.unique_key = k.unique_key WHERE q.id IS NULL OR k.job_id IS NULL}), '0', 'kept: keys and jobs agree');

# ---- live: all modes; the second of a running job has the key ----

$node->safe_psql('postgres', 'TRUNCATE answers; TRUNCATE jobs_queue');
$errors = storm(4, sub {
	my @keys = map { 'k' . lot(12) } 1 .. 6;
	my $mode = pick(qw(skip replace keep_schedule debounce));
	my $keys = join ',', @keys;
	my $at = $mode eq 'debounce' ? ", now() + interval '@{[ lot(30) ]} ms'" : '';
	return ('BEGIN', pick(
		"SELECT enqueue_jobs('live', '{1,2,3,4,5,6}'$at, unique_keys => '{$keys}', unique_mode => '$mode')",
		"SELECT enqueue_job('live', '1'$at, unique_key => '$keys[0]', unique_mode => '$mode')"), ending());
},
	sub {
		my $w = '22222222-0000-4000-8000-00000000000' . (1 + lot(9));
		return "SELECT resolve_job(id, '$w', " . pick('true', 'true', 'false') . ") FROM claim_jobs('$w', '{live}', 3)";
	},
	# one at a time: who ends several jobs at once may wait crosswise for a bulk call
	sub { return ('SELECT id FROM claim_jobs(\'33333333-0000-4000-8000-000000000001\', \'{live}\', 2)', 'SELECT resolve_job(id, locked_by, true) FROM jobs_queue WHERE locked_by = \'33333333-0000-4000-8000-000000000001\' LIMIT 1') });
is($errors, '', 'live: no call fails, and no two wait for each other');
is($node->safe_psql('postgres', q{SELECT unique_key, count(*) FROM jobs_queue_live WHERE unique_key IS NOT NULL GROUP BY 1 HAVING count(*) > 1}), '', 'live: one live job for each key');
is($node->safe_psql('postgres', q{SELECT count(*) > 100 FROM jobs_queue WHERE status = 'completed'}), 't', 'live: jobs came and went');
$node->safe_psql('postgres', q{SELECT resolve_job(id, locked_by, true) FROM jobs_queue WHERE status = 'running'});
is(run_problems($node), '', 'live: one run for each claim');

# ---- period: one job in each ----

$node->safe_psql('postgres', 'TRUNCATE jobs_queue; TRUNCATE answers');
$errors = storm(4, sub {
	my $key = 'k' . lot(5);
	return ('BEGIN', "SELECT enqueue_job('period', unique_key => '$key', unique_scope => 'period', unique_period => '1 second')", ending());
},
	sub {
		my $w = '22222222-0000-4000-8000-00000000000' . (1 + lot(9));
		return "SELECT resolve_job(id, '$w', true) FROM claim_jobs('$w', '{period}', 3)";
	});
is($errors, '', 'period: no call fails');
# created_at is the start of the transaction, which may have waited for another.
is($node->safe_psql('postgres', q{SELECT unique_key FROM jobs_queue GROUP BY 1 HAVING count(*) > 6}), '', 'period: no more jobs than periods');
is($node->safe_psql('postgres', q{SELECT count(DISTINCT unique_key) FROM jobs_queue}), '5', 'period: jobs of every key');

# ---- opposite orders: sorted, so that none is a victim of a deadlock ----

$node->safe_psql('postgres', 'TRUNCATE jobs_queue; TRUNCATE job_keys');
my @keys = map { "o$_" } 1 .. 30;
$errors = storm(3, sub {
	my ($number) = @_;
	my $keys = join ',', $number % 2 ? @keys : reverse @keys;
	my $scope = pick(q{'live'}, q{'kept'});
	return ('BEGIN', "SELECT enqueue_jobs('order', (SELECT array_agg('{}'::jsonb) FROM generate_series(1, 30)), unique_keys => '{$keys}', unique_scope => $scope, unique_mode => '@{[ pick('skip', 'replace') ]}')", ending());
});
is($errors, '', 'opposite orders: no deadlock');
is($node->safe_psql('postgres', q{SELECT count(*), count(DISTINCT unique_key) FROM jobs_queue}), '30|30', 'opposite orders: one job for each key');

# ---- what is left over goes ----

$node->safe_psql('postgres', q{
	SELECT enqueue_job('gone', unique_key => n::text, unique_scope => 'kept') FROM generate_series(1, 2500) n;
	SELECT enqueue_job('over', unique_key => n::text, unique_scope => 'period', unique_period => '1 ms') FROM generate_series(1, 1500) n;
	SELECT enqueue_job('stays', unique_key => 'k', unique_scope => 'kept');
	SELECT enqueue_job('stays', unique_key => 'l', unique_scope => 'period', unique_period => '1 day');
	SET session_replication_role = replica;
	DELETE FROM jobs_queue WHERE job_type = 'gone'});
$node->restart;
wait_for_query($node, q{SELECT count(*) = 0 FROM job_keys WHERE job_type IN ('gone', 'over')});
is($node->safe_psql('postgres', q{SELECT job_type, count(*) FROM job_keys GROUP BY 1 ORDER BY 1}), "order|30\nstays|2", 'keys that hold no more are deleted, and no others');

$node->stop;
done_testing();
