# Jobs that kill their process again and again: each takes the server down as
# often as crash_limit says, whatever runs beside it, and nobody else pays.
# (003_crash.pl has the simple cases.)
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Jobs qw(prepare_jobs enqueue effect ended effect_problems wait_until_done);
use JobQueue::Storm qw(run_problems log_problems);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
jobqueue.max_executors = 4
jobqueue.retry_delay = 0
log_statement = none
CONF
prepare_jobs($node);
$node->safe_psql('postgres', q{
	CREATE ROLE bob LOGIN;
	SELECT grant_job_role('bob', 'producer');
	GRANT USAGE ON SCHEMA public TO bob;
	GRANT ALL ON effects TO bob;
	GRANT pg_execute_server_program TO alice, bob;
	INSERT INTO job_types (job_type, runner, dead_letter, command) VALUES
		('venom', 'sql', true, 'INSERT INTO effects VALUES ($2, ''venom''); COPY (SELECT 1) TO PROGRAM ''kill -9 $PPID''');
	UPDATE job_types SET owner = 'bob' WHERE job_type = 'venom';
});
my $poison = effect('poison', q{COPY (SELECT 1) TO PROGRAM 'kill -9 $PPID'});

sub restarts
{
	my $count = () = slurp_file($node->logfile) =~ /all server processes terminated; reinitializing/g;
	return $count;
}

# Enqueues in one transaction, which the poison may not let end in peace.
sub enqueue_all
{
	my (@parts) = @_;

	$node->psql('postgres', join "\n", 'BEGIN;', @parts, 'COMMIT;');
	return;
}

sub as
{
	my ($role, $command, $count, $arguments) = @_;

	return "SET SESSION AUTHORIZATION $role; SELECT enqueue_sql(\$cmd\$$command\$cmd\$" . ($arguments ? ", $arguments" : '')
	  . ") FROM generate_series(1, $count); RESET SESSION AUTHORIZATION;";
}

# Two roles, a poison job each, one of them by a job type, and innocents before,
# between and behind
enqueue_all(as('alice', effect('innocent'), 30), as('bob', effect('innocent'), 20), as('alice', $poison, 1),
	as('alice', effect('innocent'), 30), q{SELECT enqueue_job('venom');}, as('bob', effect('innocent'), 20));
wait_until_done($node);
is($node->safe_psql('postgres', q{SELECT job_type, status, crashes, attempts FROM jobs_queue WHERE crashes > 1 ORDER BY 1}),
	"sql|failed|2|0\nvenom|error|2|0", 'both stop at crash_limit, one as a dead letter');
my $restarts = restarts();
cmp_ok($restarts, '<=', 4, 'after two restarts each at most');
is($node->safe_psql('postgres', q{SELECT status, attempts, count(*) FROM jobs_queue q JOIN effects e ON e.job_id = q.id GROUP BY 1, 2}),
	'completed|1|100', 'the innocent have run once, and were charged once');
is($node->safe_psql('postgres', q{SELECT max(crashes) < 2 FROM jobs_queue WHERE status = 'completed'}), 't', 'and none was near its end');

# An operator who queues it again grants it as many crashes again
my $id = $node->safe_psql('postgres', q{SELECT id FROM jobs_queue WHERE job_type = 'sql' AND status = 'failed'});
$node->psql('postgres', "SELECT requeue_job($id)", extra_params => [ '-U', 'alice' ]);
wait_until_done($node);
is($node->safe_psql('postgres', "SELECT status, crashes, attempts FROM jobs_queue WHERE id = $id"), 'failed|2|0', 'requeued, it is stopped again');
is(restarts(), $restarts + 2, 'after two more restarts');
is($node->safe_psql('postgres', "SELECT status, charged, count(*) FROM job_runs WHERE job_id = $id GROUP BY 1, 2"), 'crashed|f|4', 'each crash has its run');

# The limit is a setting
$node->append_conf('postgresql.conf', 'jobqueue.crash_limit = 1');
$node->reload;
wait_for_query($node, q{SELECT current_setting('jobqueue.crash_limit')}, '1');
enqueue_all(as('alice', $poison, 1), as('alice', effect('innocent'), 5));
wait_until_done($node);
is(restarts(), $restarts + 3, 'crash_limit = 1: one crash is enough');

is(effect_problems($node), '', 'every effect once');
is(run_problems($node), '', 'one run for each claim');
$node->stop;
is(log_problems($node), '', 'nothing but the poison has crashed');
done_testing();
