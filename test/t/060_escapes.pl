# Nothing that a job does, or that somebody with rights on the queue does, gives
# the rights of another role: not to a job, not to whoever works beside it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# One executor at a time, so that roles take turns and jobs follow one another.
my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
jobqueue.max_executors = 1
jobqueue.retry_delay = 0
jobqueue.allow_superuser_jobs = off
CONF

# Everybody may write down who he is; "attempt" tries a statement before.
$node->safe_psql('postgres', q{
	CREATE ROLE alice LOGIN;
	CREATE ROLE bob LOGIN;
	CREATE ROLE friend;
	GRANT friend TO alice;
	CREATE ROLE ops LOGIN;
	CREATE ROLE watcher LOGIN;
	CREATE ROLE nobody LOGIN;
	CREATE SCHEMA alice AUTHORIZATION alice;
	CREATE SCHEMA evil AUTHORIZATION alice;
	CREATE SCHEMA ops AUTHORIZATION ops;
	GRANT USAGE ON SCHEMA evil, alice TO PUBLIC;
	GRANT CREATE, TEMP ON DATABASE postgres TO alice;
	SELECT grant_job_role(r::regrole, 'producer') FROM unnest('{alice,bob,ops}'::text[]) AS r;
	SELECT grant_job_role('ops', 'operator'), grant_job_role('watcher', 'observer');

	CREATE TABLE witness (what text, session_name name DEFAULT session_user, user_name name DEFAULT current_user,
		is_superuser text DEFAULT current_setting('is_superuser'), outcome text);
	GRANT INSERT ON witness TO PUBLIC;
	CREATE FUNCTION note(what text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN
		INSERT INTO public.witness (what) VALUES (note.what);
		RETURN true;
	END
	$$;
	ALTER FUNCTION note(text) VOLATILE;
	CREATE FUNCTION note_once(what text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN
		PERFORM public.note(what);
		RETURN true;
	END
	$$;
	CREATE FUNCTION attempt(what text, statement text) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
		outcome text := 'ok';
	BEGIN
		BEGIN
			EXECUTE statement;
		EXCEPTION WHEN OTHERS THEN
			outcome := sqlstate;
		END;
		INSERT INTO public.witness (what, outcome) VALUES (what, outcome);
	END
	$$;
	CREATE FUNCTION note_row() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM public.note(TG_ARGV[0]);
		RETURN coalesce(NEW, OLD);
	END
	$$;
});

# psql as somebody; the SQLSTATE of its first error, or its output.
sub as
{
	my ($role, $sql, $database) = @_;
	my ($stdout, $stderr);

	my $status = $node->psql($database // 'postgres', "\\set VERBOSITY sqlstate\n$sql", stdout => \$stdout, stderr => \$stderr,
		extra_params => [ '-U', $role ]);
	return $stderr =~ /(?:ERROR|FATAL):  (\w{5})/ ? $1 : $status == 0 ? $stdout : "status $status: $stderr";
}

# Enqueues a command and waits for its end: its status, or the SQLSTATE.
sub run_as
{
	my ($role, $command) = @_;

	my $id = as($role, "SELECT enqueue_sql(\$cmd\$$command\$cmd\$, max_attempts => 1)");
	wait_for_query($node, "SELECT count(*) FROM jobs_queue_done WHERE id = $id", 1);
	my $end = $node->safe_psql('postgres', "SELECT status, last_error FROM jobs_queue WHERE id = $id");
	return $end =~ /\((\w{5})\)(?:\n|$)/ ? $1 : $end =~ /^completed/ ? 'completed' : $end;
}

# ---- statements that a job tries ----

my @attempts = (
	[ 'reset role', 'RESET ROLE', 'ok' ],
	[ 'set role none', 'SET ROLE none', 'ok' ],
	[ 'set role', 'SET ROLE postgres', '42501' ],
	[ 'set role of another job', 'SET ROLE bob', '42501' ],
	[ 'set local role', 'SET LOCAL ROLE postgres', '42501' ],
	[ 'set session authorization', 'SET SESSION AUTHORIZATION postgres', '42501' ],
	[ 'session authorization by oid', q{SELECT set_config('session_authorization', '10', false)}, '22023' ],
	[ 'reset session authorization', 'RESET SESSION AUTHORIZATION', 'ok' ],
	[ 'session authorization default', 'SET SESSION AUTHORIZATION DEFAULT', 'ok' ],
	[ 'set_config role', q{SELECT set_config('role', 'postgres', false)}, '42501' ],
	[ 'set_config session_authorization', q{SELECT set_config('session_authorization', 'postgres', false)}, '42501' ],
	[ 'set_config is_superuser', q{SELECT set_config('is_superuser', 'on', false)}, '55P02' ],
	[ 'update of pg_settings', q{UPDATE pg_settings SET setting = 'postgres' WHERE name = 'role'}, 'ok' ],
	[ 'reset all', 'RESET ALL', 'ok' ],
	[ 'discard all', 'DISCARD ALL', '25001' ],
	[ 'discard plans', 'DISCARD PLANS', 'ok' ],
	[ 'discard temp', 'DISCARD TEMP', 'ok' ],
	[ 'alter role', 'ALTER ROLE alice SUPERUSER', '42501' ],
	[ 'grant role', 'GRANT postgres TO alice', '42501' ],
	[ 'catalog', q{UPDATE pg_authid SET rolsuper = true WHERE rolname = 'alice'}, '42501' ],
	[ 'catalog of procs', q{UPDATE pg_proc SET prosecdef = true}, '42501' ],
	[ 'function that sets role', q{CREATE FUNCTION alice.climb() RETURNS boolean LANGUAGE sql SET role = 'postgres' AS 'SELECT public.note(''climb'')'; SELECT alice.climb()}, '42501' ],
	[ 'event trigger', 'CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION note_row()', '42501' ],
	[ 'program', q{COPY (SELECT 1) TO PROGRAM 'true'}, '42501' ],
	[ 'file', q{SELECT pg_read_file('postgresql.conf')}, '42501' ],
	[ 'large object file', q{SELECT lo_import('/etc/passwd')}, '42501' ],
	[ 'alter system', q{ALTER SYSTEM SET jobqueue.enabled = off}, '25001' ],
	[ 'load', q{LOAD 'jobqueue.so'}, '42501' ],
	[ 'replication role', 'SET session_replication_role = replica', '42501' ],
	[ 'language', q{CREATE FUNCTION alice.c() RETURNS int LANGUAGE c AS 'jobqueue', 'jobqueue_enqueue_job'}, '42501' ],
	[ 'terminate scheduler', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'}, '42501' ],
	[ 'job of another role', q{SELECT enqueue_sql('SELECT public.note(''as bob'')', run_as => 'bob')}, '42501' ],
	[ 'job of a superuser', q{SELECT enqueue_sql('SELECT public.note(''as postgres'')', run_as => 'postgres')}, '42501' ],
	[ 'forged owner', q{INSERT INTO jobs_queue (job_type, payload, owner) VALUES ('sql', '{"command": "SELECT public.note(''forged'')"}', 'bob')}, '42501' ],
	[ 'forged owner by number', q{INSERT INTO jobs_queue (job_type, payload, owner) VALUES ('sql', '{"command": "SELECT public.note(''forged'')"}', 10)}, '42501' ],
	[ 'own job', q{UPDATE jobs_queue SET owner = 'bob'}, '42501' ],
	[ 'job type', q{INSERT INTO job_types (job_type, owner, runner, command) VALUES ('x', 'bob', 'sql', 'SELECT public.note(''x'')')}, '42501' ],
	[ 'internal function', 'SELECT _server_workers()', '42501' ],
	[ 'grant', q{SELECT grant_job_role('alice', 'operator')}, '42501' ],
	[ 'what a restricted operation forbids', 'CREATE TEMP TABLE t (a int); CREATE INDEX ON t (a); PREPARE p AS SELECT 1; EXECUTE p; NOTIFY c', 'ok' ],
	[ 'listen', 'LISTEN jobqueue', '0A000' ]);

for my $try (@attempts)
{
	my ($what, $statement, $expected) = @$try;

	my $end = run_as('alice', "SELECT attempt('$what', \$s\$$statement\$s\$)");
	my $outcome = $node->safe_psql('postgres', "SELECT outcome FROM witness WHERE what = '$what'");
	is("$end $outcome", "completed $expected", "a job tries: $what");
}

# ---- code that runs later than the statement that asks for it ----

my %bodies = (
	'deferred trigger' => q{
		CREATE TABLE alice.d1 (a int);
		CREATE CONSTRAINT TRIGGER t AFTER INSERT ON alice.d1 DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note_row('deferred trigger');
		INSERT INTO alice.d1 VALUES (1)},
	# The first firing, before the completion is recorded, asks for another at
	# the commit, after it.
	'deferred trigger at commit' => q{
		CREATE TABLE alice.d2 (a int);
		CREATE FUNCTION alice.again() RETURNS trigger LANGUAGE plpgsql AS $f$
		BEGIN
			IF NEW.a = 1 THEN
				SET CONSTRAINTS ALL DEFERRED;
				INSERT INTO alice.d2 VALUES (2);
			ELSE
				PERFORM note('deferred trigger at commit');
			END IF;
			RETURN NULL;
		END $f$;
		CREATE CONSTRAINT TRIGGER t AFTER INSERT ON alice.d2 DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION alice.again();
		INSERT INTO alice.d2 VALUES (1)},
	'deferred trigger as friend' => q{
		CREATE TABLE alice.d3 (a int);
		GRANT INSERT ON alice.d3 TO friend; GRANT USAGE ON SCHEMA alice TO friend;
		CREATE CONSTRAINT TRIGGER t AFTER INSERT ON alice.d3 DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note_row('deferred trigger as friend');
		SET ROLE friend;
		INSERT INTO alice.d3 VALUES (1)},
	'foreign key action' => q{
		CREATE TABLE alice.parent (a int PRIMARY KEY);
		CREATE TABLE alice.child (a int REFERENCES alice.parent ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED);
		CREATE TRIGGER t BEFORE DELETE ON alice.child FOR EACH ROW EXECUTE FUNCTION note_row('foreign key action');
		INSERT INTO alice.child VALUES (1); INSERT INTO alice.parent VALUES (1);
		DELETE FROM alice.parent},
	'held cursor' => q{DO $d$ BEGIN
		EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT note(''held cursor'')'; PERFORM note('held cursor'); END $d$},
	'temp table on commit' => q{
		CREATE TEMP TABLE gone (a int) ON COMMIT DROP;
		CREATE TEMP TABLE emptied (a int) ON COMMIT DELETE ROWS;
		CREATE TRIGGER t AFTER INSERT OR TRUNCATE ON emptied FOR EACH STATEMENT EXECUTE FUNCTION note_row('temp table on commit');
		CREATE CONSTRAINT TRIGGER c AFTER INSERT ON gone DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note_row('temp table on commit');
		INSERT INTO gone VALUES (1); INSERT INTO emptied VALUES (1)},
	'policy' => q{
		CREATE TABLE alice.p (a int);
		ALTER TABLE alice.p ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
		CREATE POLICY p ON alice.p USING (note('policy')) WITH CHECK (note('policy'));
		INSERT INTO alice.p VALUES (1);
		SELECT * FROM alice.p},
	'index expression' => q{
		CREATE TABLE alice.i (a text);
		CREATE INDEX ON alice.i (note_once(a));
		INSERT INTO alice.i VALUES ('index expression');
		ANALYZE alice.i;
		REINDEX TABLE alice.i},
	'index predicate' => q{
		CREATE TABLE alice.ip (a text);
		CREATE INDEX ON alice.ip (a) WHERE note_once(a);
		INSERT INTO alice.ip VALUES ('index predicate')},
	'column default' => q{CREATE TABLE alice.cd (a boolean DEFAULT note('column default')); INSERT INTO alice.cd DEFAULT VALUES},
	'generated column' => q{
		CREATE TABLE alice.g (a text, b boolean GENERATED ALWAYS AS (note_once(a)) STORED);
		INSERT INTO alice.g VALUES ('generated column')},
	'check' => q{CREATE TABLE alice.c (a text CHECK (note(a))); INSERT INTO alice.c VALUES ('check')},
	'domain check' => q{CREATE DOMAIN alice.dom AS text CHECK (note(VALUE)); SELECT 'domain check'::alice.dom},
	'view' => q{CREATE VIEW alice.v AS SELECT note('view') AS n; SELECT * FROM alice.v},
	'materialized view' => q{CREATE MATERIALIZED VIEW alice.mv AS SELECT 1 AS a; SELECT note('materialized view'); REFRESH MATERIALIZED VIEW alice.mv},
	'rule' => q{CREATE TABLE alice.r (a int); CREATE RULE r AS ON INSERT TO alice.r DO ALSO SELECT note('rule'); INSERT INTO alice.r VALUES (1)},
	'operator and cast' => q{
		CREATE TYPE alice.pair AS (a int);
		CREATE FUNCTION alice.to_text(alice.pair) RETURNS text LANGUAGE sql AS $f$ SELECT note('operator and cast')::text $f$;
		CREATE CAST (alice.pair AS text) WITH FUNCTION alice.to_text(alice.pair) AS IMPLICIT;
		SELECT length(row(1)::alice.pair::text)},
	'exception block' => q{DO $d$ BEGIN
		BEGIN SET ROLE friend; RAISE 'x'; EXCEPTION WHEN OTHERS THEN NULL; END;
		BEGIN SET LOCAL ROLE postgres; EXCEPTION WHEN OTHERS THEN PERFORM note('exception block'); END;
		PERFORM note('exception block'); END $d$},
	'prepared statement' => q{PREPARE q AS SELECT note('prepared statement'); EXECUTE q},
	'nested job' => q{SELECT enqueue_sql('SELECT note(''nested job'')')},
	'security definer' => q{
		CREATE FUNCTION alice.definer() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $f$ SELECT note('security definer'); SELECT enqueue_sql('SELECT note(''security definer'')') $f$;
		SET ROLE friend;
		SELECT alice.definer()},
	'notify and lock' => q{NOTIFY jobqueue; SELECT pg_advisory_lock(4711); SELECT note('notify and lock')});

# What of ours a job calls, with everything that it may name in the way.
my @shadowed_tables = qw(jobs_queue jobs_queue_live jobs_queue_done job_runs job_types cron_tasks job_dependencies pg_class pg_proc pg_authid);
$bodies{'temp tables'} = join ';', (map { "CREATE TEMP TABLE $_ (id bigint)" } @shadowed_tables),
  (map { "CREATE TRIGGER t BEFORE INSERT OR UPDATE OR DELETE ON pg_temp.$_ FOR EACH ROW EXECUTE FUNCTION public.note_row('temp tables')" } @shadowed_tables),
  q{SELECT public.enqueue_job('mail', unique_key => 'k')}, q{SELECT public.enqueue_sql('SELECT 1')}, q{SELECT public.note('temp tables')};

for my $what (sort keys %bodies)
{
	my $end = run_as('alice', $bodies{$what});
	is($end, 'completed', "a job with: $what");
	# Whatever it enqueued has to end, too.
	wait_for_query($node, q{SELECT count(*) FROM jobs_queue_live WHERE job_type = 'sql'}, 0);
	cmp_ok($node->safe_psql('postgres', "SELECT count(*) FROM witness WHERE what = '$what'"), '>=', 1, "and it runs: $what");
}

# Jobs with transactions of their own
my %autonomous = (
	'procedure' => q{CREATE PROCEDURE alice.commits() LANGUAGE plpgsql AS $p$ BEGIN COMMIT; PERFORM note('procedure'); END $p$; CALL alice.commits()},
	'rollback' => q{DO $d$ BEGIN SET LOCAL ROLE friend; ROLLBACK; PERFORM note('rollback'); END $d$},
	'local role' => q{BEGIN; SET LOCAL ROLE friend; COMMIT; SELECT note('local role')},
	'role over a commit' => q{BEGIN; SET ROLE friend; COMMIT; SELECT note('role over a commit')},
	'authorization' => q{BEGIN; SELECT attempt('authorization', 'SET SESSION AUTHORIZATION postgres'); COMMIT; RESET SESSION AUTHORIZATION; SELECT note('authorization')},
	'discard all' => q{DISCARD ALL; SELECT note('discard all')},
	'held cursor over a commit' => q{BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT note('held cursor over a commit'); COMMIT; FETCH c});
for my $what (sort keys %autonomous)
{
	is(run_as('alice', $autonomous{$what}), 'completed', "a job with transactions of its own: $what");
	cmp_ok($node->safe_psql('postgres', "SELECT count(*) FROM witness WHERE what = '$what'"), '>=', 1, "and it runs: $what");
}

# ---- one job after another ----

# After a rollback, and after a job that was somebody else until its end
is(run_as('alice', q{SET ROLE friend; SET search_path = evil; SELECT 1/0}), '22012', 'a job fails as friend');
is(run_as('alice', q{SELECT note('after an error')}), 'completed', 'the next one goes on');
is(run_as('alice', q{SET ROLE friend; PREPARE left_over AS SELECT 1; CREATE TEMP TABLE left_over (a int)}), 'completed', 'a job ends as friend');
is(run_as('alice', q{SELECT note('after a role'); SELECT attempt('left over', 'EXECUTE left_over'); SELECT attempt('left over', 'TABLE left_over')}), 'completed', 'the next one goes on');
is($node->safe_psql('postgres', q{SELECT string_agg(DISTINCT user_name, ',') FROM witness WHERE what IN ('after an error', 'after a role')}), 'alice', 'as itself');
is($node->safe_psql('postgres', q{SELECT string_agg(outcome, ',' ORDER BY outcome) FROM witness WHERE what = 'left over'}), '26000,42P01', 'and finds nothing');

# After a job of another role, and before one
is(run_as('bob', q{CREATE FUNCTION pg_temp.trap() RETURNS boolean LANGUAGE sql SECURITY DEFINER AS 'SELECT public.note(''bob was here'')';
	PREPARE of_bob AS SELECT 1; SET work_mem = '1234kB'; SELECT pg_advisory_lock(4712)}), 'completed', 'a job of bob');
is(run_as('alice', q{SELECT attempt('after bob', 'SELECT pg_temp.trap()'); SELECT attempt('after bob', 'EXECUTE of_bob'); SELECT attempt('after bob', 'SELECT pg_advisory_xact_lock(4712)');
	SELECT attempt('after bob', 'SELECT 1/(current_setting(''work_mem'') = ''1234kB'')::int'); SELECT attempt('before bob', 'TABLE bob.t')}), 'completed', 'then one of alice');
is($node->safe_psql('postgres', q{SELECT string_agg(outcome, ',' ORDER BY outcome) FROM witness WHERE what = 'after bob'}), '22012,26000,3F000,ok', 'which finds nothing of bob');

# ---- who it was, every time ----

is($node->safe_psql('postgres', q{SELECT count(DISTINCT what) >= 65 FROM witness}), 't', 'there were many ways');
is($node->safe_psql('postgres', q{SELECT DISTINCT session_name, user_name, is_superuser FROM witness ORDER BY user_name}),
	"alice|alice|off\nalice|friend|off", 'every job was alice, or the role that she is a member of, and no superuser');
is($node->safe_psql('postgres', q{SELECT string_agg(DISTINCT what, ', ' ORDER BY what) FROM witness WHERE user_name = 'friend'}),
	'deferred trigger as friend, role over a commit', 'the latter where she asked for it');
is($node->safe_psql('postgres', q{SELECT count(*) FROM witness WHERE what IN ('forged', 'climb', 'as bob', 'as postgres', 'x', 'bob was here')}),
	'0', 'nothing ran that was refused');

# ---- names that stand in the way ----

# First in the path, and hit when an unqualified name of ours finds them.
my @types = ([ 'int', 'int4' ], [ 'bigint', 'int8' ], [ 'text', 'text' ], [ 'timestamptz', 'timestamptz' ], [ 'name', 'name' ], [ 'oid', 'oid' ], [ 'smallint', 'int2' ], [ 'uuid', 'uuid' ]);
my $shadows = 0;
my $trap = 'CREATE TABLE evil.hits (what text, who name DEFAULT current_user); GRANT INSERT ON evil.hits TO PUBLIC;';
for my $type (@types)
{
	for my $operator ('=', '<>', '<', '<=', '>', '>=')
	{
		my $name = "op$shadows";
		$trap .= "CREATE FUNCTION evil.$name($type->[0], $type->[0]) RETURNS boolean LANGUAGE plpgsql AS \$f\$ BEGIN INSERT INTO evil.hits VALUES ('$operator $type->[0]'); RETURN true; END \$f\$;"
		  . "CREATE OPERATOR evil.$operator (LEFTARG = $type->[0], RIGHTARG = $type->[0], FUNCTION = evil.$name);";
		$shadows++;
	}
}
for my $function ([ 'now()', 'timestamptz' ], [ 'clock_timestamp()', 'timestamptz' ], [ 'current_database()', 'name' ], [ 'gen_random_uuid()', 'uuid' ],
	[ 'nextval(regclass)', 'bigint' ], [ 'count(int)', 'bigint' ], [ 'count()', 'bigint' ], [ 'max(timestamptz)', 'timestamptz' ], [ 'min(timestamptz)', 'timestamptz' ],
	[ 'unnest(anyarray)', 'SETOF text' ], [ 'unnest(jsonb[])', 'SETOF jsonb' ], [ 'format(text, text)', 'text' ], [ 'lower(text)', 'text' ], [ 'array_agg(bigint)', 'bigint[]' ],
	[ 'textlike(text, text)', 'boolean' ], [ 'int4(bigint)', 'int' ], [ 'int2(int)', 'smallint' ], [ 'text(regrole)', 'text' ], [ 'row_to_json(record)', 'json' ],
	[ 'job_state(public.jobs_queue)', 'text' ], [ 'enqueue_job(text)', 'bigint' ], [ '_server_workers()', 'SETOF record' ], [ 'pg_extension_config_dump(regclass, text)', 'void' ])
{
	my ($signature, $result) = @$function;
	$trap .= "CREATE FUNCTION evil.$signature RETURNS $result LANGUAGE plpgsql AS \$f\$ BEGIN INSERT INTO evil.hits VALUES (\$w\$$signature\$w\$); RETURN"
	  . ($result =~ /^(?:SETOF|void)/ ? '' : ' NULL') . "; END \$f\$;";
	$shadows++;
}
for my $table (@shadowed_tables, qw(registered_workers http_endpoints http_secrets http_secret_values event_subscriptions job_stats running_jobs))
{
	$trap .= "CREATE TABLE evil.$table (id bigint); GRANT ALL ON evil.$table TO PUBLIC;";
	$shadows++;
}
$node->safe_psql('postgres', $trap, extra_params => [ '-U', 'alice' ]);
cmp_ok($shadows, '>=', 30, "$shadows shadows");

# They work: the same names, in a query of the victim's own
my $hostile = 'evil, pg_catalog, public';
$node->safe_psql('postgres', "SET search_path = $hostile; SELECT now() FROM public.witness WHERE user_name = 'x'::name LIMIT 1; SELECT 1 = 1");
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM evil.hits'), '>=', 1, 'they catch who does not look');
$node->safe_psql('postgres', 'TRUNCATE evil.hits');

# Each of our functions and views, called by a superuser with that path
my $worker = '11111111-0000-4000-8000-000000000001';
my $calls = <<"SQL";
SELECT public.enqueue_job('shop'), public.enqueue_job('shop', '{"a": 1}', unique_key => 'a'), public.enqueue_job('shop', '{"a": 2}', unique_key => 'a', unique_mode => 'replace'),
	public.enqueue_job('shop', group_key => 'g', stage => 's', tags => '{a,b}', metadata => '{}', timeout => '1 s');
SELECT public.enqueue_jobs('shop', '{"{}","{}"}', unique_keys => '{b,c}');
SELECT public.enqueue_jobs('shop', '{"{}","{}","{}"}');
SELECT public.enqueue_job_batch('[{"job_type": "shop", "depends_on": [], "scheduled_at": "2026-01-01 00:00:00+00", "timeout": "1 s"}]');
SELECT public.enqueue_sql('SELECT public.note(''hostile path'')', run_as => 'alice');
INSERT INTO public.jobs_queue (job_type) VALUES ('shop') RETURNING id AS parent \\gset
SELECT public.enqueue_job('child', depends_on => ARRAY[:parent]);
UPDATE public.jobs_queue SET priority = 1, payload = '{}' WHERE job_type OPERATOR(pg_catalog.<>) 'sql';
CALL public.wait_for_jobs('{shop}', '1 ms');
SELECT public.register_worker('$worker', 'me');
SELECT id FROM public.claim_next_job('$worker', 'shop') \\gset
SELECT public.heartbeat_job(:id, '$worker'), public.set_job_stage(:id, '$worker', 't'), public.resolve_job(:id, '$worker', false, 'no');
SELECT id FROM public.claim_next_job('$worker', 'shop') \\gset
SELECT public.release_job(:id, '$worker');
SELECT id FROM public.claim_next_job('$worker', 'shop') \\gset
SELECT public.snooze_job(:id, '$worker', '1 s');
SELECT id FROM public.claim_next_job('$worker', 'shop') \\gset
SELECT id FROM public.resolve_and_claim(:id, '$worker', true, job_type => 'shop') \\gset
SELECT public.complete_job(:id, '$worker', '{}');
SELECT id FROM public.claim_next_job('$worker', 'shop') \\gset
SELECT public.fail_job(:id, '$worker', 'no', permanent => true);
SELECT public.requeue_job(:id), public.cancel_job(:id);
SELECT public.requeue_jobs('shop', '{cancelled}', error_like => '%', finished_after => '2020-01-01');
SELECT public.claim_jobs('$worker', '{shop}', 5);
SELECT public.resolve_jobs('$worker', ARRAY[:parent], '{true}');
SELECT public.complete_job(:parent);
INSERT INTO public.job_types (job_type, notify, keep_completed) VALUES ('shop', true, '0');
UPDATE public.job_types SET batch_size = 5;
SELECT public.schedule_cron_task('t', '\@hourly', 'shop'), public.schedule_sql('s', '\@hourly', 'SELECT 1', run_as => 'alice');
UPDATE public.cron_tasks SET next_run_at = '2026-01-01';
SELECT public.enqueue_cron_tasks();
SELECT public.unschedule_cron_task('t'), public.unschedule_cron_task('s');
SELECT public.cron_next_runs('\@hourly'), public.cron_is_valid('\@hourly');
SELECT public.grant_job_role('nobody', 'worker');
SELECT public.job_state(q) FROM public.jobs_queue q;
TABLE public.job_stats; TABLE public.running_jobs; TABLE public.dead_letter_jobs; TABLE public.cron_overview; TABLE public.job_workers; TABLE public.job_lanes; TABLE public.job_claim_stats;
DELETE FROM public.jobs_queue WHERE id OPERATOR(pg_catalog.=) :parent;
TRUNCATE public.jobs_queue;
DELETE FROM public.job_types; DELETE FROM public.cron_tasks;
SQL
for my $path ('auto', 'sql')
{
	is($node->psql('postgres', "SET search_path = $hostile; SET jobqueue.debug_claim_path = $path;\n$calls", on_error_stop => 1), 0, "every function on that path, claims by $path");
	is($node->safe_psql('postgres', 'SELECT string_agg(DISTINCT what, $$; $$) FROM evil.hits'), '', 'no shadow is hit');
}

# In the workers: a database and a role that have it as their default
$node->safe_psql('postgres', qq{
	ALTER DATABASE postgres SET search_path = $hostile;
	ALTER ROLE alice SET search_path = $hostile;
	ALTER ROLE postgres SET search_path = $hostile});
$node->restart;
my $clean = 'SET search_path = pg_catalog, public;';
$node->safe_psql('postgres', "$clean TRUNCATE witness; INSERT INTO job_types (job_type, notify, keep_completed) VALUES ('shop', true, '0')");
my $id = $node->safe_psql('postgres', qq{$clean
	SELECT enqueue_job('shop');
	SELECT schedule_sql('tick', 'every 1 minute', 'SELECT public.note(''ticked'')', run_as => 'alice');
	UPDATE cron_tasks SET next_run_at = pg_catalog.now();
	SELECT enqueue_sql('SELECT 1/0', max_attempts => 2, run_as => 'alice')});
wait_for_query($node, q{SELECT pg_catalog.count(*) OPERATOR(pg_catalog.=) 1 FROM public.witness});
wait_for_query($node, q{SELECT pg_catalog.count(*) OPERATOR(pg_catalog.=) 2 FROM public.jobs_queue_done WHERE job_type OPERATOR(pg_catalog.=) 'sql'});
is($node->safe_psql('postgres', "$clean SELECT string_agg(DISTINCT what, '; ') FROM evil.hits"), '', 'nor in the workers, with the path of their database and role');
$node->safe_psql('postgres', "$clean ALTER DATABASE postgres RESET search_path; ALTER ROLE alice RESET search_path; ALTER ROLE postgres RESET search_path; DELETE FROM cron_tasks; DELETE FROM job_types");
$node->restart;

# ---- definitions put on our tables ----

my @ddl = (
	'CREATE TRIGGER t BEFORE INSERT ON jobs_queue FOR EACH ROW EXECUTE FUNCTION note_row()',
	'CREATE TRIGGER t AFTER UPDATE ON jobs_queue_live FOR EACH ROW EXECUTE FUNCTION note_row()',
	'CREATE CONSTRAINT TRIGGER t AFTER INSERT ON job_runs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note_row()',
	'CREATE RULE r AS ON INSERT TO jobs_queue DO ALSO SELECT 1',
	'CREATE RULE r AS ON INSERT TO job_types DO INSTEAD NOTHING',
	'CREATE POLICY p ON jobs_queue USING (note($$p$$))',
	'ALTER TABLE jobs_queue ADD COLUMN c boolean DEFAULT note($$c$$)',
	'ALTER TABLE jobs_queue_live ADD CHECK (note($$c$$))',
	'ALTER TABLE cron_tasks ALTER name SET DEFAULT note($$c$$)::text',
	'CREATE INDEX ON jobs_queue_live (note_once(job_type))',
	'CREATE STATISTICS s ON (note_once(job_type)), status FROM jobs_queue_live',
	'ALTER TABLE jobs_queue_live DISABLE TRIGGER hint',
	'ALTER TABLE jobs_queue DISABLE TRIGGER guard',
	'ALTER TABLE jobs_queue ENABLE ROW LEVEL SECURITY',
	'ALTER TABLE jobs_queue OWNER TO ops',
	'ALTER TABLE jobs_queue_live SET (fillfactor = 100)',
	q{CREATE TABLE ops_part PARTITION OF jobs_queue FOR VALUES IN ('mine')},
	'CREATE TEMP TABLE heir () INHERITS (job_runs)',
	'CREATE TABLE refers (id bigint REFERENCES public.jobs_queue_live)',
	'CREATE OR REPLACE FUNCTION public._guard_job() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$',
	'ALTER FUNCTION _guard_job() OWNER TO ops',
	'CREATE OR REPLACE VIEW public.job_stats AS SELECT 1',
	'ALTER EXTENSION jobqueue ADD FUNCTION note(text)',
	'ALTER EXTENSION jobqueue UPDATE',
	'DROP EXTENSION jobqueue',
	'DROP TABLE jobs_queue',
	'TRUNCATE jobs_queue',
	'BEGIN; LOCK TABLE job_runs IN EXCLUSIVE MODE',
	'CLUSTER jobs_queue_live USING jobs_queue_live_pkey',
	q{SELECT setval('jobs_queue_id_seq', 1)},
	'SELECT * FROM job_dependencies FOR UPDATE');
for my $role ('alice', 'ops')
{
	my %states = map { as($role, $_) => $_ } @ddl;
	is(join(' ', sort keys %states), '42501', scalar(@ddl) . " ways to put something on our tables are refused to $role")
	  or diag(join "\n", map { "$_: $states{$_}" } keys %states);
}

# ---- reading what belongs to others ----

$node->safe_psql('postgres', q{
	TRUNCATE jobs_queue;
	CREATE TABLE leaked (what text);
	GRANT INSERT ON leaked TO PUBLIC;
	CREATE FUNCTION leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$ BEGIN INSERT INTO leaked VALUES ($1); RETURN true; END $$;
	CREATE FUNCTION leak_both(text, text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$ BEGIN INSERT INTO leaked VALUES ($1); RETURN true; END $$;
	CREATE OPERATOR <<< (FUNCTION = leak_both, LEFTARG = text, RIGHTARG = text);
	SET SESSION AUTHORIZATION bob;
	SELECT enqueue_job('mail', '{"key": "canary"}', unique_key => 'canary key', correlation_id => 'canary correlation', metadata => '{"m": "canary"}', tags => '{canary}'),
		enqueue_job('mail', '{"key": "canary"}', correlation_id => 'canary of a waiting job');
	RESET SESSION AUTHORIZATION;
	SELECT fail_job(id, '11111111-0000-4000-8000-000000000001', 'canary error', permanent => true) FROM claim_next_job('11111111-0000-4000-8000-000000000001', 'mail');
	SELECT enqueue_sql('SELECT ''canary''', scheduled_at => now() + interval '1 hour', run_as => 'bob');
	SELECT schedule_sql('bobs', '@yearly', 'SELECT ''canary''', run_as => 'bob');
	ANALYZE jobs_queue_live, jobs_queue_done, job_runs, cron_tasks});
my @reads = (
	'SELECT payload FROM %s', 'SELECT * FROM %s', 'TABLE %s', 'SELECT q FROM %s q', 'SELECT q::text FROM %s q', 'SELECT to_jsonb(q) FROM %s q', 'SELECT row_to_json(q) FROM %s q',
	'SELECT metadata FROM %s', 'SELECT last_error FROM %s', 'SELECT error FROM %s', 'SELECT correlation_id FROM %s WHERE payload IS NOT NULL', 'SELECT max(payload::text) FROM %s',
	'COPY %s TO STDOUT', 'COPY (SELECT payload FROM %s) TO STDOUT', 'SELECT id FROM %s WHERE leak(payload::text)', q{SELECT id FROM %s WHERE payload::text <<< ''},
	'SELECT id FROM %s ORDER BY payload', 'SELECT id FROM %s TABLESAMPLE SYSTEM (100) WHERE leak(payload::text)', 'CREATE TEMP TABLE copy AS SELECT payload FROM %s',
	'CREATE TEMP VIEW v AS SELECT payload FROM %s; TABLE v', 'DECLARE c CURSOR FOR SELECT payload FROM %s; FETCH c', 'EXPLAIN ANALYZE SELECT id FROM %s WHERE leak(payload::text)',
	'SELECT job_state(q) FROM %s q', 'UPDATE %s SET id = id RETURNING payload', 'DELETE FROM %s RETURNING payload', 'SELECT 1 FROM %s FOR UPDATE', 'MERGE INTO %s USING (VALUES (1)) v ON leak(payload::text) WHEN MATCHED THEN DO NOTHING',
	'SELECT query_to_xml($$SELECT payload FROM %s$$, true, true, $$$$)', q{SELECT table_to_xml('%s', true, true, '')});
my $leaks = 0;
for my $role ('alice', 'watcher', 'nobody')
{
	for my $relation (qw(jobs_queue jobs_queue_live jobs_queue_done job_runs cron_tasks job_types dead_letter_jobs job_dependencies))
	{
		for my $read (@reads)
		{
			my $answer = as($role, sprintf($read, $relation) =~ s/(DECLARE)/BEGIN; $1/r);
			next if $answer =~ /^(?:42\w{3}|0A000|25\w{3}|)$/;
			$leaks++;
			diag("$role, " . sprintf($read, $relation) . ": $answer");
		}
	}
}
is($leaks, 0, 'no way to read the tables without a right to');
$leaks = '';
for my $read (
	"SELECT * FROM pg_stats WHERE schemaname = 'public'", 'SELECT * FROM pg_statistic', 'SELECT * FROM pg_stats_ext_exprs',
	"SELECT * FROM running_jobs WHERE leak(correlation_id)", q{SELECT * FROM running_jobs WHERE correlation_id <<< ''}, 'SELECT * FROM running_jobs WHERE leak(job_type)', 'SELECT * FROM job_stats WHERE leak(job_type)',
	'SELECT * FROM cron_overview WHERE leak(name)', 'SELECT * FROM job_workers WHERE leak(name)', 'SELECT * FROM job_lanes WHERE leak(stage)',
	"SELECT enqueue_job('mail', unique_key => 'canary key', unique_mode => 'replace')", "SELECT enqueue_job('mail', unique_key => 'canary key')",
	"INSERT INTO jobs_queue (job_type, unique_key) VALUES ('mail', 'canary key')", "INSERT INTO jobs_queue (job_type, unique_key) VALUES ('mail', 'canary key') ON CONFLICT DO NOTHING RETURNING payload",
	"INSERT INTO jobs_queue_live (job_type, unique_key) VALUES ('mail', 'canary key') ON CONFLICT (job_type, unique_key) WHERE unique_key IS NOT NULL DO UPDATE SET payload = jobs_queue_live.payload RETURNING payload",
	'SELECT query FROM pg_stat_activity', 'SELECT * FROM pg_prepared_statements', 'SELECT * FROM pg_cursors', 'SELECT id FROM jobs_queue', 'EXPLAIN (VERBOSE) SELECT id FROM jobs_queue WHERE id = 1',
	"SELECT lo_get(1)", "SELECT pg_read_binary_file(pg_relation_filepath('jobs_queue_live'))")
{
	for my $role ('alice', 'watcher', 'nobody')
	{
		my ($stdout, $stderr);
		$node->psql('postgres', "\\set VERBOSITY verbose\n\\set ECHO none\n$read", stdout => \$stdout, stderr => \$stderr, extra_params => [ '-U', $role ]);
		s/^LINE \d+:.*$|^QUERY.*$|Key \(job_type, unique_key\)=\(mail, canary key\)//mg for $stderr;
		$leaks .= "$role, $read: $stdout$stderr\n" if "$stdout$stderr" =~ /canary/;
	}
}
is($leaks, '', 'nor through views, statistics, functions and errors');
is($node->safe_psql('postgres', q{SELECT string_agg(DISTINCT what, ', ') FROM leaked WHERE what LIKE '%canary%'}), '', 'and no leaky function saw it');
is(as('ops', q{SELECT count(*) FROM jobs_queue WHERE payload::text LIKE '%canary%'}), '3', 'operators may read jobs');

# ---- without rights ----

my @work = ("claim_next_job('$worker')", "claim_jobs('$worker')", "resolve_job(1, '$worker', true)", "resolve_jobs('$worker', '{1}', '{true}')", "resolve_and_claim(1, '$worker', true)", "complete_job(1)",
	"fail_job(1, '$worker')", "skip_job(1, '$worker')", "release_job(1, '$worker')", "snooze_job(1, '$worker', '1 s')", "heartbeat_job(1, '$worker')", "set_job_stage(1, '$worker', 'x')", "register_worker('$worker')",
	'requeue_job(1)', 'requeue_jobs()', 'cancel_job(1)', q{schedule_sql('x', '@hourly', 'SELECT 1')}, 'enqueue_cron_tasks()', q{grant_job_role('alice', 'worker')}, '_lanes()', '_claim_counts()');
my %answers = map { as('alice', "SELECT $_") => $_ } @work;
is(join(' ', sort keys %answers), '42501', 'a producer can neither work nor operate') or diag(explain(\%answers));
%answers = map { as('watcher', "SELECT $_") => $_ } grep { !/^_/ } @work;
is(join(' ', sort keys %answers), '42501', 'nor can an observer') or diag(explain(\%answers));

# Guessing: the answer is the same whatever is wrong
$node->safe_psql('postgres', q{REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM nobody; SELECT grant_job_role('nobody', 'worker')});
my $held = $node->safe_psql('postgres', q{SELECT enqueue_job('guess')});
$node->safe_psql('postgres', "SELECT FROM claim_next_job('$worker', 'guess')");
my $other = '22222222-0000-4000-8000-000000000002';
for my $call ("resolve_job(%s, %s, true)", "complete_job(%s, %s)", "fail_job(%s, %s)", "skip_job(%s, %s)", "release_job(%s, %s)", "snooze_job(%s, %s, '1 s')", "heartbeat_job(%s, %s)", "set_job_stage(%s, %s, 'x')",
	"(resolve_jobs(%2\$s, ARRAY[%1\$s], '{true}'))[1]")
{
	my @got = map { as('nobody', 'SELECT ' . sprintf($call, @$_)) } [ $held, "'$other'" ], [ $held, 'gen_random_uuid()' ], [ $held, "'" . ('f' x 8) . "-0000-4000-8000-000000000001'" ],
	  [ 999999, "'$worker'" ], [ 999999, "'$other'" ];
	is(join('', @got), 'fffff', "$call: the same answer for a wrong worker, a wrong job, and both");
}
is($node->safe_psql('postgres', "SELECT status, locked_by, claim_no FROM jobs_queue WHERE id = $held"), "running|$worker|1", 'and nothing has changed');

# ---- forged owners ----

for my $role ('alice', 'ops')
{
	my %forged = map { as($role, $_) => $_ }
	  q{INSERT INTO jobs_queue (job_type, owner) VALUES ('mail', 'bob')}, q{INSERT INTO jobs_queue_live (job_type, owner, max_attempts) VALUES ('mail', 'bob', 1)},
	  q{INSERT INTO jobs_queue (job_type, payload, owner) VALUES ('sql', '{"command": "SELECT 1"}', 'postgres')},
	  "COPY jobs_queue (job_type, owner) FROM STDIN;\nmail\tbob\n\\.\n", qq{COPY jobs_queue (job_type, payload, owner) FROM STDIN;\nsql\t{"command": "SELECT 1"}\t10\n\\.\n},
	  q{UPDATE jobs_queue SET owner = current_user::regrole WHERE owner = 'bob'::regrole}, q{UPDATE jobs_queue SET owner = 'bob'}, q{UPDATE jobs_queue SET payload = '{}' WHERE owner = 'bob'::regrole},
	  q{UPDATE cron_tasks SET owner = 'postgres', payload = '{}'}, q{UPDATE cron_tasks SET payload = '{"command": "SELECT 1"}'},
	  q{INSERT INTO cron_tasks (name, owner, schedule, job_type) VALUES ('f', 'bob', '@hourly', 'sql')}, q{INSERT INTO job_types (job_type, owner, runner, command) VALUES ('f', 'bob', 'sql', 'SELECT 1')};
	is(join(' ', sort keys %forged), '42501', "$role cannot forge an owner") or diag(explain(\%forged));
}

# ---- roles that are gone ----

# Nothing keeps the number of a dropped role: who gets it later gets nothing else.
$node->safe_psql('postgres', q{
	CREATE ROLE gone LOGIN;
	SELECT grant_job_role('gone', 'producer'), grant_job_role('gone', 'operator');
	SET SESSION AUTHORIZATION gone;
	SELECT enqueue_sql('SELECT public.note(''gone'')', scheduled_at => now() + interval '2 hours'), enqueue_job('mail'), enqueue_job('old');
	INSERT INTO job_types (job_type, runner, command) VALUES ('of_gone', 'sql', 'SELECT public.note(''gone'')');
	SELECT schedule_sql('of gone', '@yearly', 'SELECT public.note(''gone'')');
	INSERT INTO http_endpoints (name, url) VALUES ('of gone', 'https://example.org');
	INSERT INTO event_subscriptions (event_type, job_type) VALUES ('gone', 'of_gone');
	SELECT set_secret('of_gone', 'x');
	RESET SESSION AUTHORIZATION;
	SELECT complete_job(id) FROM jobs_queue WHERE job_type = 'old'});
my $oid = $node->safe_psql('postgres', q{SELECT oid FROM pg_roles WHERE rolname = 'gone'});
$node->safe_psql('postgres', 'DROP OWNED BY gone; DROP ROLE gone');
$node->restart;		# a scheduler looks when it starts, and then each minute
my $of_gone = join ' UNION ALL ', map { "SELECT 1 FROM $_ WHERE owner::oid = $oid" } qw(jobs_queue job_types cron_tasks http_endpoints event_subscriptions http_secrets);
wait_for_query($node, "SELECT NOT EXISTS ($of_gone)");
$node->stop;
$node->command_ok([ 'pg_resetwal', '-f', '-o', $oid, $node->data_dir ], 'oids begin anew');
$node->start;
$node->safe_psql('postgres', 'CREATE ROLE heir LOGIN');
is($node->safe_psql('postgres', q{SELECT oid FROM pg_roles WHERE rolname = 'heir'}), $oid, 'a new role has the number of an old one');
$node->safe_psql('postgres', q{
	SELECT enqueue_job('of_gone');
	UPDATE cron_tasks SET enabled = true, next_run_at = now() WHERE name = 'of gone'});
wait_for_query($node, q{SELECT NOT enabled FROM cron_tasks WHERE name = 'of gone'});
wait_for_query($node, q{SELECT count(*) FROM jobs_queue_live WHERE job_type = 'of_gone'}, 0);
is($node->safe_psql('postgres', q{SELECT last_error FROM jobs_queue WHERE job_type = 'of_gone'}), 'role of the owner does not exist (42704)', 'and none of its definitions');
is($node->safe_psql('postgres', q{SELECT name, owner, disabled_reason FROM cron_tasks WHERE name = 'of gone'}), 'of gone||the owner of the task no longer exists', 'nor its tasks');
is($node->safe_psql('postgres', q{SELECT count(*) FROM witness WHERE what = 'gone'}), '0', 'nothing of them runs');
is(as('ops', q{UPDATE job_types SET command = 'SELECT 1' WHERE job_type = 'of_gone'}), '42501', 'nobody takes them over');
is(as('ops', q{UPDATE job_types SET owner = 'ops' WHERE job_type = 'of_gone'}), '42501', 'by giving them an owner');
is(as('ops', q{SELECT schedule_sql('of gone', '@hourly', 'SELECT 1')}), '42501', 'or by replacing them');
is(as('ops', q{UPDATE cron_tasks SET enabled = false WHERE name = 'of gone' RETURNING owner IS NULL}), 't', 'or by changing what anybody may');

# A dump keeps that so: who restores does not become the owner.
my $dump = $node->basedir . '/gone.sql';
$node->safe_psql('postgres', 'DROP SCHEMA alice, evil CASCADE');
$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'a dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', $dump ], 'is restored');
is($node->safe_psql('restored', q{SELECT count(*) FROM job_types WHERE job_type = 'of_gone' AND owner IS NULL}), '1', 'a job type of nobody stays so');
is($node->safe_psql('restored', q{SELECT count(*) FROM cron_tasks WHERE name = 'of gone' AND owner IS NULL}), '1', 'and a cron task');

$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11)\b/, 'nothing crashed or leaked');
done_testing();
