# SQL jobs that share a transaction: what one does must not show in another.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
jobqueue.max_executors = 1
jobqueue.retry_delay = 0
jobqueue.executor_idle_timeout = 1h
wal_level = logical
CONF

$node->safe_psql('postgres', q{
	CREATE ROLE alice LOGIN REPLICATION;
	GRANT ALL ON SCHEMA public TO alice;
	SELECT grant_job_role('alice', r) FROM unnest('{producer,operator}'::text[]) r;
	CREATE TABLE effects (what text);
	CREATE TABLE parents (id int PRIMARY KEY);
	CREATE TABLE children (parent int REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
	GRANT ALL ON effects, parents, children TO alice;
	CREATE SEQUENCE turns;
	GRANT ALL ON turns TO public;
});

# Switches the server's work off or on, and waits until no executor is left.
sub work
{
	my ($on) = @_;

	$node->safe_psql('postgres', 'ALTER SYSTEM SET jobqueue.enabled = ' . ($on ? 'on' : 'off'));
	$node->reload;
	return if $on;
	wait_for_query($node, 'SHOW jobqueue.enabled', 'off');
	$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM _server_workers() WHERE kind = 'executor'});
	wait_for_query($node, q{SELECT count(*) FROM _server_workers() WHERE kind = 'executor'}, 0);
	return;
}

# Enqueues commands for alice, which one claim takes together: an executor
# claims one job, then two, then four, then eight.  Returns their ids.
sub enqueue_together
{
	my @commands = @_;

	work(0);
	my @ids = split /\n/, $node->safe_psql('postgres',
		join("\n", (q{SELECT enqueue_sql('SELECT', priority => -1);}) x 7,
			map { "SELECT enqueue_sql(\$cmd\$$_\$cmd\$, max_attempts => 1);" } @commands),
		extra_params => [ '-U', 'alice' ]);
	work(1);
	return splice @ids, 7;
}

# The columns of a job once it has ended.
sub ended
{
	my ($id, $columns) = @_;

	wait_for_query($node, "SELECT count(*) FROM jobs_queue_done WHERE id = $id", 1);
	return $node->safe_psql('postgres', "SELECT $columns FROM jobs_queue WHERE id = $id");
}

# What holds for a transaction
my @ids = enqueue_together('DO $$BEGIN SET CONSTRAINTS ALL IMMEDIATE; END$$',
	'INSERT INTO children VALUES (1); INSERT INTO parents VALUES (1)');
is(ended($ids[1], 'status, last_error'), 'completed|', 'SET CONSTRAINTS of a function ends with its job');
$node->safe_psql('postgres', q{CREATE TYPE mood AS ENUM ('fine'); ALTER TYPE mood OWNER TO alice});
@ids = enqueue_together(q{ALTER TYPE mood ADD VALUE 'bad'}, q{SELECT 'bad'::mood});
is(ended($ids[1], 'status, last_error'), 'completed|', 'a new enum value can be used by the next job');

# The cancellation that ends a batch is not the job's
@ids = enqueue_together('SELECT', q{DO $$
	DECLARE outcome text := 'done';
	BEGIN
		BEGIN
			PERFORM pg_sleep(0.5);
		EXCEPTION WHEN query_canceled THEN
			outcome := 'given up';
		END;
		INSERT INTO effects VALUES (outcome);
	END$$});
is(ended($ids[1], 'status'), 'completed', 'a job that handles a cancellation');
is($node->safe_psql('postgres', 'SELECT what FROM effects'), 'done', 'but meets none');

# A batch gives back what waits, and then cannot commit
$node->safe_psql('postgres', q{
	CREATE FUNCTION object_once() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF EXISTS (SELECT FROM public.jobs_queue WHERE id = NEW.job_id AND payload->>'command' LIKE '%objected%') THEN
			IF nextval('public.turns') = 1 THEN
				RAISE EXCEPTION 'not yet';
			END IF;
		END IF;
		RETURN NULL;
	END$$ SECURITY DEFINER;
	CREATE CONSTRAINT TRIGGER object_once AFTER INSERT ON job_runs
		DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION object_once()});
@ids = enqueue_together('SELECT /* objected to */', 'SELECT pg_sleep(0.5)', 'CREATE TEMP TABLE t (a int)', ('SELECT') x 3);
wait_for_query($node, 'SELECT count(*) FROM jobs_queue_live', 0);
is($node->safe_psql('postgres', 'SELECT string_agg(DISTINCT status, \',\') FROM jobs_queue WHERE id IN (' . join(',', @ids) . ')'),
	'completed', 'none of them is forgotten');
$node->safe_psql('postgres', 'DROP TRIGGER object_once ON job_runs; ALTER SEQUENCE turns RESTART');

# A job that runs again, after those behind it were taken away
@ids = enqueue_together(q{DO $$
	BEGIN
		IF nextval('turns') = 1 THEN
			PERFORM pg_sleep(2);
			RAISE EXCEPTION USING ERRCODE = 'serialization_failure';
		END IF;
		PERFORM pg_sleep(120);
	END$$}, 'SELECT');
wait_for_query($node, 'SELECT last_value FROM turns', 2);
$node->safe_psql('postgres', "SELECT cancel_job($ids[0])");
is(ended($ids[0], 'status'), 'cancelled', 'a job that runs again can be cancelled');

# What an error leaves behind, and no transaction undoes
$node->safe_psql('postgres', q{
	CREATE PROCEDURE commits_in_loop() LANGUAGE plpgsql AS $$
	DECLARE
		r record;
	BEGIN
		FOR r IN SELECT 1 AS a LOOP
			COMMIT;
			RAISE EXCEPTION 'in a loop';
		END LOOP;
	END$$});
@ids = enqueue_together('CALL commits_in_loop()', 'SELECT');
is(ended($ids[0], 'last_error'), 'in a loop (P0001)', 'a procedure that fails in a loop');
is(ended($ids[1], 'status'), 'completed', 'the next one completes');
unlike(slurp_file($node->logfile), qr/cannot drop pinned portal/, 'and the executor goes on');
$node->safe_psql('postgres', q{SELECT pg_create_logical_replication_slot('changes', 'test_decoding')});
@ids = enqueue_together(q{SELECT pg_logical_slot_get_changes('changes', NULL, NULL, 'nonsense', 'x')});
like(ended($ids[0], 'last_error'), qr/option "nonsense" = "x" is unknown/, 'a job that fails to read a slot');
wait_for_query($node, 'SELECT NOT active FROM pg_replication_slots');
pass('does not keep it');
$node->safe_psql('postgres', q{SELECT pg_drop_replication_slot('changes')});

# A job is run in pieces only where it must
$node->safe_psql('postgres', q{CREATE FUNCTION commits() RETURNS void LANGUAGE plpgsql AS 'BEGIN COMMIT; END'; TRUNCATE effects});
@ids = enqueue_together(q{INSERT INTO effects VALUES ('half'); SELECT commits()},
	q{INSERT INTO effects VALUES ('half'); DO $$BEGIN RAISE EXCEPTION 'busy' USING ERRCODE = '25001'; END$$},
	q{SELECT pg_create_logical_replication_slot('mine', 'test_decoding') IS NOT NULL AS made});
like(ended($ids[0], 'last_error'), qr/\(2D000\)/, 'a function that commits');
is(ended($ids[1], 'last_error'), 'busy (25001)', 'an error that looks as if it had to run on its own');
is($node->safe_psql('postgres', 'SELECT count(*) FROM effects'), '0', 'nothing of a failed job is left');
is(ended($ids[2], 'status, result'), 'completed|{"made": true}', 'what must come first in its transaction does');

$node->stop;
done_testing();
