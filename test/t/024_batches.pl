# How SQL jobs run: in company, alone, or in transactions of their own.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster;
use JobQueue::SqlJobs;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# One executor, which stays: what was claimed together runs together.
my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
jobqueue.max_executors = 1
jobqueue.retry_delay = 0
jobqueue.executor_idle_timeout = 1min
autovacuum = off
CONF
my $jobs = JobQueue::SqlJobs->new($node);

my $note = q{INSERT INTO effects VALUES ($2, 'done')};

# What became of jobs, one a line.
sub ends
{
	my ($columns, @ids) = @_;

	return $jobs->query("SELECT $columns FROM jobs_queue WHERE id IN (" . join(',', @ids) . ') ORDER BY id');
}

sub runs
{
	my ($id) = @_;

	return $jobs->query("SELECT claim_no, status, charged FROM job_runs WHERE job_id = $id ORDER BY 1");
}

sub effects
{
	my ($id) = @_;

	return $jobs->query("SELECT count(*) FROM effects WHERE job_id = $id");
}

# Short jobs share transactions
$jobs->warm_up;
my @ids = $jobs->enqueue_together(($note) x 200);
$jobs->wait_until_gone(@ids);
is($jobs->query("SELECT count(*), count(DISTINCT job_id) FROM effects WHERE job_id BETWEEN $ids[0] AND $ids[-1]"), '200|200', 'each job has its effect');
cmp_ok($jobs->query("SELECT count(DISTINCT xmin::text) FROM job_runs WHERE job_id BETWEEN $ids[0] AND $ids[-1]"), '<', 100, '200 short jobs need few transactions');
@ids = $jobs->in_company(('SELECT pg_current_xact_id() AS x, now() AS t') x 3);
is($jobs->query("SELECT count(DISTINCT result) FROM jobs_queue WHERE id BETWEEN $ids[0] AND $ids[-1]"), '1', 'bodies in company see one transaction id and one now()');

# An error costs its own job only
@ids = $jobs->in_company($note, "$note; SELECT 1/0", $note);
is(ends('status, attempts, last_error', @ids), "completed|1|\nfailed|1|division by zero (22012)\ncompleted|1|", 'an error fails its own job only');
is(join(' ', map { effects($_) } @ids), '1 0 1', 'and rolls back its effects only');
is(runs($ids[1]), '1|failed|t', 'the attempt is charged');

# A job that is too long for the company
$jobs->query(q{
	CREATE FUNCTION wait_for_test(key bigint) RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_xact_lock_shared(key)';
	CREATE SEQUENCE tries;
	GRANT ALL ON tries TO alice;
});
$jobs->configure('jobqueue.max_executors' => 2);
my $long = "INSERT INTO effects VALUES (\$2, 'long'); SELECT wait_for_test((\$1->>'lock')::bigint)";
$jobs->query('SELECT pg_advisory_lock(1)');
@ids = ();
for (1 .. 10)
{
	$jobs->warm_up;
	@ids = $jobs->enqueue_together($note, [ $long, q{payload => '{"lock": 1}'} ], $note);
	$jobs->wait_until_gone(@ids[ 0, 2 ]);
	last if runs($ids[2]) =~ /released/;

	# another executor had claimed what should have been behind it
	$jobs->query('SELECT pg_advisory_unlock(1)');
	$jobs->wait_until_gone($ids[1]);
	$jobs->query('SELECT pg_advisory_lock(1)');
}
is(ends('status, attempts', @ids), "completed|1\nrunning|1\ncompleted|1", 'while a long job waits, those before and behind it end');
is(runs($ids[2]), "1|released|f\n2|completed|t", 'what waited behind it was given back, uncharged');
is(effects($ids[1]), '0', 'the long one has its own transaction');
$jobs->query('SELECT pg_advisory_unlock(1)');
is($jobs->ended($ids[1], 'status, attempts, claim_no'), 'completed|1|1', 'it ends under the same claim');
is(runs($ids[1]), '1|completed|t', 'with one run');
is(effects($ids[1]), '1', 'and its effects are there once');
$jobs->configure('jobqueue.max_executors' => 1);

# It is remembered, until it is short again
my $slow = q{INSERT INTO effects VALUES ($2, 'slow'); SELECT pg_sleep(($1->>'s')::float8)};
@ids = $jobs->behind($note, $note, [ $slow, q{payload => '{"s": 0.3}'} ]);
is(ends('status, attempts', @ids), "completed|1\ncompleted|1\ncompleted|1", 'a job that is too long at the end of a batch');
isnt($jobs->recorded_by($ids[2]), $jobs->recorded_by($ids[1]), 'leaves it');
@ids = $jobs->enqueue_together($note, [ $slow, q{payload => '{"s": 0}'} ], $note);
$jobs->wait_until_gone(@ids);
is($jobs->query("SELECT count(DISTINCT xmin::text) FROM job_runs WHERE job_id BETWEEN $ids[0] AND $ids[2]"), '3', 'the next one of that command begins alone');
my $shares = 0;
for (1 .. 20)
{
	$jobs->warm_up;
	@ids = $jobs->enqueue_together(([ $slow, q{payload => '{"s": 0}'} ]) x 20);
	$jobs->wait_until_gone(@ids);
	$shares = $jobs->recorded_by($ids[18]) == $jobs->recorded_by($ids[19]);
	last if $shares;
}
ok($shares, 'after some short runs it is in company again');

# A body must not notice that it was cut off for the sake of the others
$jobs->query(q{
	CREATE FUNCTION feels(id bigint, seconds float8, how text) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM pg_sleep(seconds);
		INSERT INTO effects VALUES (id, 'undisturbed');
	EXCEPTION WHEN query_canceled THEN
		IF how = 'raise' THEN RAISE EXCEPTION 'disturbed'; END IF;
		INSERT INTO effects VALUES (id, 'disturbed');
	END $$});
for my $how (qw(catch raise))
{
	@ids = $jobs->behind($note, $note, "SELECT feels(\$2, 0.3, '$how')");
	is(ends('status, last_error', $ids[2]) . ' ' . $jobs->query("SELECT what FROM effects WHERE job_id = $ids[2]"),
		'completed| undisturbed', "a body that handles cancellations ($how) meets none of ours");
}

$jobs->query(q{
	CREATE FUNCTION insists(id bigint, seconds float8) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
		cuts integer := 0;
	BEGIN
		WHILE clock_timestamp() < statement_timestamp() + seconds * interval '1 s' LOOP
			BEGIN
				PERFORM pg_sleep(0.05);
			EXCEPTION WHEN query_canceled THEN
				cuts := cuts + 1;
			END;
		END LOOP;
		INSERT INTO effects VALUES (id, cuts);
	END $$});
$jobs->configure('jobqueue.cancel_grace' => '200ms');
@ids = $jobs->behind($note, $note, 'SELECT insists($2, 0.8)');
is(ends('status, attempts', @ids), "completed|1\ncompleted|1\ncompleted|1", 'a body that goes on all the same is not ended');
is($jobs->query("SELECT what FROM effects WHERE job_id = $ids[2]"), '0', 'and runs again alone');
is(join(' ', map { runs($_) } @ids), '1|completed|t 1|completed|t 1|completed|t', 'under the same claim');
$jobs->configure('jobqueue.cancel_grace' => '3s');

# Snapshots of others get slow when a transaction has many subtransactions
$jobs->query(q{
	CREATE FUNCTION many_blocks(id bigint, blocks integer) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		FOR i IN 1 .. blocks LOOP
			BEGIN
				INSERT INTO effects VALUES (id, i);
			EXCEPTION WHEN division_by_zero THEN NULL;
			END;
		END LOOP;
	END $$});
@ids = $jobs->behind($note, $note, 'SELECT many_blocks($2, 60)');
is(ends('status, attempts', $ids[2]), 'completed|1', 'a body with many EXCEPTION blocks');
is(effects($ids[2]), '60', 'has its effects once');
isnt($jobs->recorded_by($ids[2]), $jobs->recorded_by($ids[1]), 'in a transaction of its own');
@ids = $jobs->in_company($note, 'SELECT many_blocks($2, 10)', $note);
is($jobs->recorded_by($ids[1]), $jobs->recorded_by($ids[0]), 'a few of them are no reason to leave');

# Collisions are nobody's fault: another try, alone and uncharged
$jobs->query(q{
	CREATE FUNCTION collide(id bigint, state text, times integer) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO effects VALUES (id, 'collided');
		IF nextval('tries') <= times THEN
			RAISE EXCEPTION 'collision' USING ERRCODE = state;
		END IF;
	END $$});
for (qw(40001 40P01 55P03 53200))
{
	$jobs->query(q{SELECT setval('tries', 1, false)});
	@ids = $jobs->enqueue_together($note, "SELECT collide(\$2, '$_', 1)");
	$jobs->wait_until_gone(@ids);
	is(ends('status, attempts', @ids) . ' ' . effects($ids[1]), "completed|1\ncompleted|1 1", "$_: the job runs again, uncharged") if $_ ne '55P03';
	next if $_ ne '55P03';
	for (1 .. 10)
	{
		$jobs->query(q{SELECT setval('tries', 1, false)});
		@ids = $jobs->behind($note, $note, "SELECT collide(\$2, '55P03', 1)");
		last if ends('status', $ids[2]) eq 'completed';
	}
	is(ends('status, attempts', $ids[2]) . ' ' . effects($ids[2]), "completed|1 1", 'a lock that was not available to a batch is tried for alone');
}
$jobs->query(q{SELECT setval('tries', 1, false)});
@ids = $jobs->behind($note, $note, [ q{SELECT collide($2, '40001', 1000)}, 'max_attempts => 2' ]);
is(ends('status, attempts, last_error', $ids[2]), 'failed|2|collision (40001)', 'a collision that lasts is charged in the end');
is(join(' ', map { effects($_) } @ids), '1 1 0', 'and costs the company nothing');

# The shared transaction fails when one of the completions does
@ids = $jobs->enqueue_together($note, "$note; DELETE FROM jobs_queue WHERE id = \$2", $note);
$jobs->wait_until_gone(@ids);
is(ends('status, attempts, last_error', @ids), "completed|1|\nfailed|1|job $ids[1] is not held any more (55000)\ncompleted|1|", 'a job that deletes its own row fails alone');
is(join(' ', map { effects($_) } @ids), '1 0 1', 'the innocent are run again, and have their effects once');
is(join(' ', map { runs($_) } @ids[ 0, 2 ]), '1|completed|t 1|completed|t', 'in the same claim');

$jobs->query(q{
	CREATE FUNCTION wait_until_gone(gone bigint) RETURNS void LANGUAGE plpgsql AS
		'BEGIN WHILE EXISTS (SELECT FROM jobs_queue WHERE id = gone) LOOP NULL; END LOOP; END'});
for (1 .. 10)
{
	# unless the batch is over before: then the first is out of reach
	$jobs->warm_up;
	@ids = $jobs->enqueue_together($note, "$note; SELECT wait_until_gone(\$2 - 1)", $note);
	$jobs->wait_for("SELECT $ids[1] = ANY (SELECT job_id FROM _server_workers())");
	last if $jobs->query("DELETE FROM jobs_queue_live WHERE id = $ids[0] RETURNING id");
	$jobs->query("DELETE FROM jobs_queue_done WHERE id = $ids[0]");
	$jobs->wait_until_gone(@ids);
}
$jobs->wait_until_gone(@ids);
is(ends('status, attempts', @ids), "completed|1\ncompleted|1", 'jobs of a batch whose first one was taken away');
is(join(' ', map { effects($_) } @ids), '0 1 1', 'only the effects of that one are missing');
is(join(' ', map { runs($_) } $ids[1]), '1|completed|t', 'the others have one run');

$jobs->query(q{
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF NEW.payload->>'command' LIKE '%refuse me%' AND NEW.status = 'completed' THEN
			RAISE EXCEPTION 'refused';
		END IF;
		RETURN NULL;
	END $$;
	CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON jobs_queue_done DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse();
});
@ids = $jobs->enqueue_together($note, "$note; SELECT 'refuse me'", $note);
$jobs->wait_until_gone(@ids);
is(ends('status, attempts, last_error', @ids), "completed|1|\nfailed|1|refused (P0001)\ncompleted|1|", 'a deferred trigger on the completion finds its job');
is(join(' ', map { effects($_) } @ids), '1 0 1', 'and nobody else');
$jobs->query('DROP TRIGGER refuse ON jobs_queue_done');

# Declared modes
$jobs->as_alice(qq{INSERT INTO job_types (job_type, runner, command, mode) VALUES
	('lonely', 'sql', '$note', 'alone'), ('free', 'sql', '$note; $note', 'autonomous')} =~ s/'done'/''done''/gr);
sub in_mode { my ($command, $mode) = @_; return \"enqueue_job('sql', jsonb_build_object('command', \$cmd\$$command\$cmd\$, 'mode', '$mode'), max_attempts => 1)" }
my $transactions = q{SELECT count(*), count(DISTINCT e.xmin::text), count(DISTINCT r.xmin::text), bool_or(e.xmin = r.xmin) FROM effects e JOIN job_runs r USING (job_id) WHERE job_id };
@ids = $jobs->enqueue_together((\"enqueue_job('lonely')") x 3);
$jobs->wait_until_gone(@ids);
is($jobs->query("SELECT count(DISTINCT xmin::text), count(*) FROM job_runs WHERE job_id BETWEEN $ids[0] AND $ids[2]"), '3|3', 'jobs of a type in mode alone');
@ids = $jobs->enqueue_together(($note, in_mode($note, 'alone')) x 3);
$jobs->wait_until_gone(@ids);
is($jobs->query("SELECT count(DISTINCT xmin::text), count(*) FROM job_runs WHERE job_id BETWEEN $ids[0] AND $ids[5]"), '6|6', 'a single job in mode alone');
my $id = $jobs->enqueue(\"enqueue_job('free')");
is($jobs->ended($id, 'status'), 'completed', 'a job of a type in mode autonomous');
is($jobs->query("$transactions = $id"), '2|2|1|f', 'has a transaction for each statement, and for its completion');
$id = $jobs->enqueue(in_mode("$note; $note", 'autonomous'));
is($jobs->ended($id, 'status'), 'completed', 'a single job in mode autonomous');
is($jobs->query("$transactions = $id"), '2|2|1|f', 'has them, too');
for my $mode (qw(batched alone autonomous))
{
	$id = $jobs->enqueue(\"enqueue_job('sql', jsonb_build_object('mode', '$mode', 'payload', '[1, 2]'::jsonb, 'command',
		'INSERT INTO effects SELECT \$2, x FROM jsonb_array_elements_text(\$1) x RETURNING what, \$2 = job_id AS mine'))");
	is($jobs->ended($id, 'status, result'), 'completed|{"mine": true, "what": "1"}', "$mode: parameters and result");
	is($jobs->query("SELECT command_tag, result FROM job_runs WHERE job_id = $id"), 'INSERT 0 2|{"mine": true, "what": "1"}', "$mode: the run has the tag, too");
	for ([ 'SELECT 1 WHERE false', 'SELECT 0' ], [ 'CREATE TABLE t_' . $mode . '()', 'CREATE TABLE' ], [ 'SELECT 1; UPDATE effects SET what = what WHERE false', 'UPDATE 0' ])
	{
		$id = $jobs->enqueue(in_mode($_->[0], $mode));
		like($jobs->ended($id, 'status, result'), qr/^completed\|/, "$mode: $_->[0]");
		is($jobs->query("SELECT command_tag FROM job_runs WHERE job_id = $id"), $_->[1], "$mode: its tag");
	}
}

# Commands that manage transactions are recognised
$jobs->query(q{
	CREATE PROCEDURE steps(id bigint, fails boolean = false) LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO effects VALUES (id, 'one');
		COMMIT;
		INSERT INTO effects VALUES (id, 'two');
		IF fails THEN PERFORM 1 / 0; END IF;
	END $$;
	CREATE TABLE plain (a int);
	ALTER TABLE plain OWNER TO alice;
});
my @autonomous = (
	[ 'VACUUM plain', 'completed||VACUUM' ],
	[ 'VACUUM plain; VACUUM (ANALYZE) plain; VACUUM plain', 'completed||VACUUM' ],
	[ 'CREATE INDEX CONCURRENTLY plain_a ON plain (a)', 'completed||CREATE INDEX' ],
	[ 'REINDEX INDEX CONCURRENTLY plain_a', 'completed||REINDEX' ],
	[ 'CALL steps($2)', 'completed||CALL', 'one two' ],
	[ 'CALL steps($2); SELECT 7 AS n', 'completed|{"n": 7}|SELECT 1', 'one two' ],
	[ 'CALL steps($2, true)', 'failed|division by zero (22012)|', 'one' ],
	[ q{DO 'BEGIN INSERT INTO plain VALUES (1); COMMIT; INSERT INTO plain VALUES (2); END'}, 'completed||DO' ],
	[ q{BEGIN; INSERT INTO effects VALUES ($2, 'a'); SELECT $2 > 0 AS b; COMMIT}, 'completed|{"b": true}|COMMIT', 'a' ],
	[ q{BEGIN; INSERT INTO effects VALUES ($2, 'a'); ROLLBACK; INSERT INTO effects VALUES ($2, 'b')}, 'completed||INSERT 0 1', 'b' ],
	[ q{INSERT INTO effects VALUES ($2, 'a'); COMMIT; SELECT 1 AS after}, 'completed|{"after": 1}|SELECT 1', 'a' ],
	[ q{BEGIN; INSERT INTO effects VALUES ($2, 'a'); COMMIT; INSERT INTO effects VALUES ($2, 'b'); SELECT 1 / 0}, 'failed|division by zero (22012)|', 'a b' ],
	[ q{BEGIN; INSERT INTO effects VALUES ($2, 'a'); SELECT 1 / 0; COMMIT}, 'failed|division by zero (22012)|' ],
	[ q{BEGIN; INSERT INTO effects VALUES ($2, 'a'); SAVEPOINT s; INSERT INTO effects VALUES ($2, 'b'); ROLLBACK TO s; COMMIT}, 'completed||COMMIT', 'a' ],
	[ q{BEGIN; INSERT INTO effects VALUES ($2, 'a')}, 'failed|command left a transaction open (25000)' . "\nHINT:  End it with COMMIT.|" ],
	[ q{COMMIT AND CHAIN}, 'failed|COMMIT AND CHAIN can only be used in transaction blocks (25P01)|' ],
	[ q{BEGIN; COMMIT AND CHAIN}, 'failed|command left a transaction open (25000)' . "\nHINT:  End it with COMMIT.|" ],
	[ q{BEGIN; VACUUM plain; COMMIT}, 'failed|VACUUM cannot run inside a transaction block (25001)|' ],
	[ q{BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT current_setting('transaction_isolation') AS i; COMMIT}, 'completed|{"i": "serializable"}|COMMIT' ],
	[ q{DISCARD ALL}, 'completed||DISCARD ALL' ],
);
for (@autonomous)
{
	my ($command, $end, $effects) = @$_;
	$id = $jobs->enqueue($command);
	is($jobs->ended($id, q{status, coalesce(last_error, result::text)}) . '|' . $jobs->query("SELECT command_tag FROM job_runs WHERE job_id = $id"), $end, "autonomous: $command");
	is($jobs->query("SELECT string_agg(what, ' ' ORDER BY what) FROM effects WHERE job_id = $id"), $effects // '', 'its effects');
	is(runs($id), '1|' . ($end =~ /^(\w+)/)[0] . '|t', 'its run');
}
@ids = $jobs->enqueue_together($note, 'VACUUM plain', $note);
$jobs->wait_until_gone(@ids);
is(ends('status, attempts', @ids), "completed|1\ncompleted|1\ncompleted|1", 'an autonomous command between others');

# What no job can do
$jobs->query(q{
	CREATE FUNCTION tries(command text) RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE command; END';
	CREATE FUNCTION copies() RETURNS void LANGUAGE sql AS 'COPY plain FROM STDIN';
});
for ([ 'COPY plain FROM STDIN', '0A000' ], [ 'SELECT 1; COPY plain TO STDOUT', '0A000' ],
	[ q{PREPARE TRANSACTION 'x'}, '0A000' ], [ q{BEGIN; COMMIT PREPARED 'x'}, '0A000' ],
	[ 'SET TRANSACTION READ ONLY; SELECT 1', '0A000' ], [ "-- nothing\n", '22023' ], [ 'SELEC', '42601' ])
{
	my ($command, $state) = @$_;
	is($jobs->{alice}->try("SELECT enqueue_sql(\$cmd\$$command\$cmd\$)"), $state, "refused when it is enqueued: $command");
}
for ([ q{SELECT tries('COPY plain FROM STDIN')}, qr/\(0A000\)/ ], [ 'SELECT copies()', qr/\(0A000\)/ ], [ q{SELECT tries('COPY plain TO STDOUT')}, qr/\(0A000\)/ ],
	[ q{SELECT tries('COMMIT')}, qr/\(0A000\)/ ], [ q{SELECT tries('VACUUM')}, qr/\(25001\)/ ], [ q{SELECT tries('PREPARE TRANSACTION ''x''')}, qr/\(0A000\)/ ])
{
	my ($command, $error) = @$_;
	@ids = $jobs->enqueue_together($note, $command, $note);
	$jobs->wait_until_gone(@ids);
	like(ends('last_error', $ids[1]), $error, "fails: $command");
	is(ends('status', @ids), "completed\nfailed\ncompleted", 'by itself');
}
$id = $jobs->enqueue(q{BEGIN; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SELECT current_setting('transaction_isolation') AS i; COMMIT});
is($jobs->ended($id, 'status, result, last_error'), 'completed|{"i": "serializable"}|', 'SET TRANSACTION in a transaction of its own');

# The role decides how durable effects are; claims always are
$jobs->query('ALTER ROLE alice SET synchronous_commit = off');
$jobs->configure('wal_writer_delay' => '10s');
$id = $jobs->enqueue(q{SELECT current_setting('synchronous_commit') AS c});
is($jobs->ended($id, 'status, result'), 'completed|{"c": "off"}', 'the synchronous_commit of the role is that of its jobs');

# Jobs that were claimed when the server crashed run alone, each of them
for (1 .. 10)
{
	$jobs->warm_up;
	$jobs->query('SELECT pg_advisory_lock(1)');
	@ids = $jobs->enqueue_together([ $long, q{payload => '{"lock": 1}'} ], $note, $note);
	$jobs->wait_for("SELECT count(*) FROM _server_workers() WHERE job_id = $ids[0]", 1);
	my $pid = $jobs->query("SELECT pid FROM _server_workers() WHERE job_id = $ids[0]");
	my $offset = -s $node->logfile;
	kill 'KILL', $pid;
	$node->wait_for_log(qr/database system is ready to accept connections/, $offset);
	$jobs->connect;
	$jobs->wait_until_gone(@ids);
	last if ends('crashes', @ids) eq "1\n1\n1";
}
is(ends('status, attempts, crashes', @ids), join("\n", ('completed|1|1') x 3), 'a crash is known to the jobs that were claimed, not charged');
is(runs($ids[0]), "1|crashed|f\n2|completed|t", 'also when the role does not flush its commits');
is($jobs->query('SELECT count(DISTINCT xmin::text) FROM job_runs WHERE job_id IN (' . join(',', @ids) . q{) AND status = 'completed'}), '3', 'each of them runs alone then');
is(join(' ', map { effects($_) } @ids), '1 1 1', 'and has its effects once');

$jobs->disconnect;
$node->stop('fast');
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
