# Transactions that end unseen or late: prepared ones, subtransactions, claims
# that are cancelled or killed, rows that somebody else has locked, snapshots
# that are older than the claim; and two databases that know nothing of each
# other. What comes back is claimed by the next claim where somebody could have
# told, and within ten seconds where nobody can.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Session;
use JobQueue::Storm qw(claim_paths set_claim_path run_problems log_problems storm_seed);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
max_prepared_transactions = 20
max_connections = 60
log_statement = none
shared_buffers = 64MB
CONF
my $seed = storm_seed();
my ($worker, $rival) = map { "00000000-0000-4000-8000-00000000000$_" } 1, 2;
my ($one, $two, $op, $label);

$node->safe_psql('postgres', q{
	INSERT INTO job_types (job_type, backoff, max_attempts) VALUES ('p', '{"delay": 0}', 9);
	-- claims in a block that fails
	CREATE FUNCTION claim_and_fail(uuid, text) RETURNS bigint LANGUAGE plpgsql AS $$
	DECLARE claimed bigint;
	BEGIN
		SELECT id INTO claimed FROM claim_next_job($1, $2);
		PERFORM 1 / 0;
		RETURN NULL;
	EXCEPTION WHEN division_by_zero THEN
		RETURN claimed;
	END $$;
	-- the same some levels deep, each with a claim of its own
	CREATE FUNCTION claim_deep(uuid, text, integer) RETURNS bigint[] LANGUAGE plpgsql AS $$
	DECLARE claimed bigint[];
	BEGIN
		SELECT array_agg(id) INTO claimed FROM claim_next_job($1, $2);
		IF $3 > 1 THEN
			claimed := claimed || claim_deep($1, $2, $3 - 1);
		END IF;
		IF $3 % 2 = 0 THEN
			RAISE division_by_zero;
		END IF;
		RETURN claimed;
	EXCEPTION WHEN division_by_zero THEN
		RETURN claimed;
	END $$;
});

sub enqueue
{
	my ($type, $n, $more) = @_;

	my $ids = $op->query(sprintf q{WITH i AS (INSERT INTO jobs_queue (job_type, scheduled_at) SELECT '%s', now() - interval '1 hour' + i * interval '1 ms' FROM generate_series(1, %d) i RETURNING id) SELECT min(id), max(id) FROM i}, $type, $n);
	my ($first, $last) = split /\|/, $ids;
	return $first .. $last;
}

sub claim
{
	my ($session, $type, $n) = @_;

	return $session->query('SELECT id FROM ' . (defined $n ? "claim_jobs('$worker', '{$type}', $n)" : "claim_next_job('$worker', '$type')")) =~ s/\n/ /gr;
}

# Claims until these have come, in any order and with others in between. Ten seconds: nobody announces them, the queue has to look again.
sub comes_within_10_s
{
	my ($session, $type, $name, @ids) = @_;

	my %missing = map { $_ => 1 } @ids;
	my $until = time + 10;
	while (%missing && time < $until)
	{
		my @got = split / /, claim($session, $type, 10);
		delete @missing{@got};
		sleep 0.05 if !@got;
	}
	my @left = sort { $a <=> $b } keys %missing;
	is(scalar(@left), 0, "$label: $name")
	  or diag(scalar(@left) . " of @{[ scalar @ids ]} jobs did not come, the first:\n"
		  . $op->query("SELECT id, status, priority, scheduled_at <= now() AS due FROM jobs_queue WHERE id IN (" . join(', ', @left) . ') ORDER BY id LIMIT 5'));
	return;
}

sub drain
{
	my ($type) = @_;

	$op->query("SELECT count(resolve_job(id, locked_by, true)) FROM jobs_queue WHERE job_type = '$type' AND status = 'running'");
	$op->query("UPDATE jobs_queue SET status = 'cancelled' WHERE job_type = '$type' AND status = 'queued'");
	return;
}

# ---- prepared transactions ----

sub prepared
{
	my ($how) = @_;    # COMMIT or ROLLBACK
	my $committed = $how eq 'COMMIT';
	my @old = enqueue('p', 700);

	is(claim($one, 'p', 3), "@old[0 .. 2]", "$label: a lane is warm");
	my ($held, $failing, $done) = splice @old, 0, 3;
	my $t = "$how";

	my $new = $one->query(q{BEGIN; SELECT enqueue_job('p', priority => 1)});
	my $many = $one->query(q{SELECT min(id) || ' ' || max(id) FROM enqueue_jobs('p', array_fill('{}'::jsonb, ARRAY[300])) id});
	my ($from, $to) = split / /, $many;
	$one->query("PREPARE TRANSACTION 'enqueue'");
	$one->query('BEGIN');
	my @claimed = split / /, claim($one, 'p', 2);
	is("@claimed", "@old[0, 1]", "$label: a claim that will be prepared");
	$one->query("SAVEPOINT s");
	is(claim($one, 'p'), $old[2], "$label: another one, rolled back to a savepoint");
	$one->query("ROLLBACK TO s; PREPARE TRANSACTION 'claim'");
	is($one->query("BEGIN; SELECT resolve_job($done, '$worker', true)"), 't', "$label: a completion");
	$one->query("PREPARE TRANSACTION 'complete'");
	is($one->query("BEGIN; SELECT resolve_job($failing, '$worker', false, 'no')"), 't', "$label: a failure");
	$one->query("PREPARE TRANSACTION 'fail'");
	is($one->query("BEGIN; SELECT release_job($held, '$worker')"), 't', "$label: a release");
	$one->query("PREPARE TRANSACTION 'release'");
	my $moved = $old[600];
	$one->query("BEGIN; UPDATE jobs_queue SET priority = -5 WHERE id = $moved; PREPARE TRANSACTION 'update'");
	my $gone = $old[4];
	$one->query("BEGIN; DELETE FROM jobs_queue WHERE id = $gone; PREPARE TRANSACTION 'delete'");
	my $own = $one->query(q{BEGIN; SELECT enqueue_job('p', priority => -7)});
	is(claim($one, 'p'), $own, "$label: a job enqueued and claimed");
	$one->query("PREPARE TRANSACTION 'own'");

	# Meanwhile the others go on, past the places of all of them
	is(claim($two, 'p'), $old[2], "$label: others take the next job");
	is(claim($two, 'p'), $old[3], "$label: and the next");
	is(claim($two, 'p'), $old[5], "$label: but not one whose deletion is prepared");
	my @middle = grep { $_ != $moved } @old[6 .. 603];
	is(claim($two, 'p', 598), "@middle[0 .. 596] $old[604]", "$label: many claims meanwhile");
	enqueue('p', 5);

	$op->query("$how PREPARED '$_'") for qw(enqueue claim complete fail release update delete own);
	if ($committed)
	{
		comes_within_10_s($two, 'p', "$t: what was enqueued, released, moved and has failed", $new, $from .. $to, $held, $failing, $moved);
		is($op->query("SELECT string_agg(status, ' ' ORDER BY id) FROM jobs_queue WHERE id IN (" . join(', ', $done, @claimed, $own) . ')'),
			'completed running running running', "$label: $t: the rest is as it was prepared");
		is($op->query("SELECT count(*) FROM jobs_queue WHERE id = $gone"), '0', "$label: $t: what was deleted is gone");
		is($op->query("SELECT resolve_job($claimed[0], '$worker', true), resolve_job($own, '$worker', true)"), 't|t', "$label: $t: a prepared claim is resolved");
	}
	else
	{
		comes_within_10_s($two, 'p', "$t: what was claimed, moved and deleted", @claimed, $moved, $gone);
		is($op->query("SELECT count(*) FROM jobs_queue WHERE id IN ($own, $new) OR id BETWEEN $from AND $to"), '0', "$label: $t: what was enqueued never was");
		is($op->query("SELECT string_agg(attempts || ' ' || claim_no, ', ') FROM jobs_queue WHERE id IN (" . join(', ', @claimed) . ')'), '1 1, 1 1', "$label: $t: the claims that were not cost nothing");
		is($op->query("SELECT resolve_job($done, '$worker', true), resolve_job($failing, '$worker', true), resolve_job($held, '$worker', true)"), 't|t|t', "$label: $t: the holder still holds");
	}
	drain('p');
	return;
}

# Prepared transactions that outlive the server, and the trigger that is not fired
sub prepared_and_restarted
{
	my ($mode) = @_;

	my @ids = enqueue('p', 20);
	my $new = $one->query(q{BEGIN; SELECT enqueue_job('p', priority => -1)});
	$one->query("PREPARE TRANSACTION 'enqueue'");
	is($one->query('BEGIN; SELECT id FROM claim_next_job(' . "'$worker', 'p')"), $ids[0], "$label: a claim");
	$one->query("PREPARE TRANSACTION 'claim'");
	$_->quit for $one, $two, $op;
	$node->stop($mode);
	$node->start;
	$_->connect for $one, $two, $op;
	is(claim($two, 'p', 2), "@ids[1, 2]", "$label: after a restart ($mode) the prepared claim stands");
	$op->query(q{COMMIT PREPARED 'enqueue'; ROLLBACK PREPARED 'claim'});
	my $silent = $op->query(q{BEGIN; SET LOCAL session_replication_role = replica;
		INSERT INTO jobs_queue (job_type, priority, max_attempts) VALUES ('p', -2, 5) RETURNING id; COMMIT});
	comes_within_10_s($two, 'p', 'what was prepared before a restart, and what no trigger saw', $new, $ids[0], $silent);
	drain('p');
	return;
}

# ---- subtransactions, errors, cancellations ----

sub undone
{
	my @ids = enqueue('u', 60);
	is(claim($one, 'u'), shift @ids, "$label: a lane is warm");
	is($one->query("SELECT claim_and_fail('$worker', 'u') FROM generate_series(1, 20)"), join("\n", ($ids[0]) x 20), "$label: a block that fails gives its claim back, each time");
	is(claim($two, 'u'), shift @ids, "$label: also to others");
	$one->query('BEGIN');
	$one->query("SELECT claim_deep('$worker', 'u', 5)");
	my $held = $one->query("SELECT array_agg(id ORDER BY id) FROM jobs_queue WHERE job_type = 'u' AND status = 'running' AND id >= $ids[0]");
	is($held, "{$ids[0]}", "$label: of nested blocks only the outermost, which did not fail, keeps its claim");
	is(claim($two, 'u'), $ids[1], "$label: what the inner ones gave back is others' at once");
	$one->query('ROLLBACK');
	is(claim($two, 'u', 2), "$ids[0] $ids[2]", "$label: and all are when it ends");
	splice @ids, 0, 3;

	is($one->try("SELECT id / 0 FROM claim_next_job('$worker', 'u')"), '22012', "$label: a statement fails after its claim");
	is(claim($two, 'u'), shift @ids, "$label: the job is the next one's");
	is($one->try("SET statement_timeout = '50ms'; SELECT pg_sleep(100) FROM claim_jobs('$worker', '{u}', 5)"), '57014', "$label: a statement is cancelled after its claim");
	$one->query('RESET statement_timeout');
	is(claim($two, 'u'), shift @ids, "$label: so is the first of them");
	my $five = join "\n", splice @ids, 0, 5;
	is($one->query("SELECT c.id FROM generate_series(1, 5) g, LATERAL claim_next_job('$worker', left('u', g)) c"), $five, "$label: five claims in one statement");
	is($one->query("BEGIN; DECLARE c CURSOR FOR SELECT id FROM claim_jobs('$worker', '{u}', 3); FETCH 1 FROM c; CLOSE c; COMMIT"), $ids[0], "$label: a cursor that is closed after its first row");
	is(claim($two, 'u'), $ids[3], "$label: has claimed them all");
	splice @ids, 0, 4;

	# a session that ends in the middle of its transaction
	for my $how ('pg_cancel_backend', 'pg_terminate_backend')
	{
		$one->query('BEGIN');
		is(claim($one, 'u', 4), "@ids[0 .. 3]", "$label: claims in an open transaction");
		is(claim($two, 'u'), $ids[4], "$label: are not others'");
		$one->send("SELECT pg_sleep(100)");
		wait_for_query($node, "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = $one->{pid}");
		my $pid = $one->{pid};
		$op->query("SELECT $how($pid)");
		$one->finish;
		$one->connected ? $one->query('ROLLBACK') : $one->connect;
		wait_for_query($node, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND xact_start IS NOT NULL", 0);
		is(claim($two, 'u', 3), "@ids[0 .. 2]", "$label: until $how");
		is(claim($two, 'u'), $ids[3], "$label: all of them");
		splice @ids, 0, 5;
	}

	# a job of the same transaction
	$one->query('BEGIN');
	my $own = $one->query(q{SELECT enqueue_job('u', priority => -1)});
	is(claim($two, 'u'), shift @ids, "$label: an uncommitted job is nobody's");
	is(claim($one, 'u'), $own, "$label: but of who enqueued it");
	is($one->query("SELECT resolve_job($own, '$worker', true)"), 't', "$label: who can complete it");
	$one->query('COMMIT');
	is($op->query("SELECT q.status, r.status FROM jobs_queue q JOIN job_runs r ON r.job_id = q.id WHERE q.id = $own"), 'completed|completed', "$label: at once");
	$one->query('BEGIN');
	$own = $one->query(q{SELECT enqueue_job('u', priority => -1)});
	is(claim($one, 'u', 2), "$own $ids[0]", "$label: with others'");
	$one->query('ROLLBACK');
	is(claim($two, 'u', 2), "@ids[0, 1]", "$label: which come back without it");
	splice @ids, 0, 2;
	drain('u');
	return;
}

# ---- rows that others have locked ----

sub locked
{
	my @ids = enqueue('l', 600);
	is(claim($one, 'l'), shift @ids, "$label: a lane is warm");
	# What waits fails, instead of hanging
	$one->query(q{SET lock_timeout = '2s'; SET statement_timeout = '60s'});
	for my $mode ('FOR UPDATE', 'FOR NO KEY UPDATE', 'FOR SHARE')
	{
		for my $end ('COMMIT', 'ROLLBACK')
		{
			$two->query("BEGIN; SELECT FROM jobs_queue WHERE id IN ($ids[0], $ids[2]) $mode");
			is(claim($one, 'l'), $ids[1], "$label: a job that is locked $mode is passed over");
			is(claim($one, 'l', 2), "@ids[3, 4]", "$label: in a batch, too");
			$two->query($end);
			is(claim($one, 'l'), $ids[0], "$label: after $end it is the next");
			is(claim($one, 'l'), $ids[2], "$label: and so is the other");
			splice @ids, 0, 5;
		}
	}
	# all of a lane: nothing comes, nobody waits, and then the first
	$two->query(q{BEGIN; SELECT FROM jobs_queue WHERE job_type = 'l' FOR UPDATE});
	is(claim($one, 'l', 10), '', "$label: every job is locked: nothing comes") for 1 .. 3;
	my $free = $op->query(q{SELECT enqueue_job('l', priority => 5)});
	is(claim($one, 'l'), $free, "$label: but the one that is not");
	$two->query('ROLLBACK');
	is(claim($one, 'l', 10), "@ids[0 .. 9]", "$label: then all come, in order");
	splice @ids, 0, 10;

	# an UPDATE under way
	$two->query("BEGIN; UPDATE jobs_queue SET priority = -5 WHERE id = $ids[0]");
	is(claim($one, 'l', 20), "@ids[1 .. 20]", "$label: others are not held up by an UPDATE");
	$two->query('COMMIT');
	is(claim($one, 'l'), $ids[0], "$label: which is honoured as soon as it is committed");
	splice @ids, 0, 21;
	my @stuck = @ids[0, 1, 2];
	$two->query("BEGIN; UPDATE jobs_queue SET priority = -5 WHERE id = $stuck[0]");
	$two->query("UPDATE jobs_queue SET scheduled_at = now() + interval '1 day' WHERE id = $stuck[1]");
	$two->query("UPDATE jobs_queue SET status = 'cancelled' WHERE id = $stuck[2]");
	is(claim($one, 'l', 400), "@ids[3 .. 402]", "$label: many others");
	$two->query('ROLLBACK');
	comes_within_10_s($one, 'l', 'after its rollback', @stuck);
	drain('l');
	@ids = enqueue('l', 30);
	$two->query("BEGIN; UPDATE jobs_queue SET priority = -5 WHERE id = $ids[0]; SAVEPOINT s; UPDATE jobs_queue SET priority = -6 WHERE id = $ids[1]");
	is(claim($one, 'l', 10), "@ids[2 .. 11]", "$label: two UPDATEs, one in a savepoint");
	$two->query('ROLLBACK TO s');
	comes_within_10_s($one, 'l', 'after the rollback to a savepoint', $ids[1]);
	kill 'TERM', $two->{pid};
	wait_for_query($node, "SELECT count(*) FROM pg_stat_activity WHERE pid = $two->{pid}", 0);
	$two->connect;
	comes_within_10_s($one, 'l', 'after the end of the session', $ids[0]);
	drain('l');
	$one->query(q{RESET lock_timeout; RESET statement_timeout});
	return;
}

# ---- older snapshots ----

sub snapshots
{
	my @ids = enqueue('s', 30);
	is(claim($two, 's'), shift @ids, "$label: a lane is warm");
	for my $level ('REPEATABLE READ', 'SERIALIZABLE')
	{
		$one->query("BEGIN ISOLATION LEVEL $level; SELECT count(*) FROM jobs_queue");
		my $early = $op->query(q{SELECT enqueue_job('s', priority => -1)});
		is(claim($one, 's'), shift @ids, "$label: $level: a job that is newer than the snapshot is not claimed");
		$one->query('COMMIT');
		is(claim($two, 's'), $early, "$label: but by others, and is the first");
		$one->query("BEGIN ISOLATION LEVEL $level; SELECT count(*) FROM jobs_queue");
		is(claim($two, 's'), shift @ids, "$label: another claims");
		is($one->try("SELECT id FROM claim_next_job('$worker', 's')"), '40001', "$label: $level: the head has changed since");
		$one->query('ROLLBACK');
		is(claim($one, 's'), shift @ids, "$label: the next one is unharmed");
		$one->query("BEGIN ISOLATION LEVEL $level");
		is(claim($one, 's', 3), "@ids[0 .. 2]", "$label: $level: a claim with a snapshot of its own");
		is(claim($two, 's'), $ids[3], "$label: is respected");
		$one->query('ROLLBACK');
		is(claim($two, 's', 3), "@ids[0 .. 2]", "$label: and rolled back");
		splice @ids, 0, 4;
	}
	drain('s');

	# many at once: 40001 is tried again, by pgbench
	$node->safe_psql('postgres', q{
		DROP TABLE IF EXISTS taken;
		CREATE TABLE taken (job_id bigint, claim_no integer, level text);
		INSERT INTO jobs_queue (job_type, priority, stage) SELECT 'many', i % 2, 's' || i % 3 FROM generate_series(1, 1500) i});
	my %scripts;
	for ([ 'READ COMMITTED', 4 ], [ 'REPEATABLE READ', 2 ], [ 'SERIALIZABLE', 1 ])
	{
		my ($level, $weight) = @$_;
		my $name = lc $level =~ s/ .*//r;
		$scripts{"$label-$name\@$weight" =~ s/ /-/gr} = <<"SCRIPT";
\\set lot random(1, 100)
BEGIN ISOLATION LEVEL $level;
WITH c AS MATERIALIZED (SELECT id, claim_no FROM claim_next_job('$worker', 'many')), t AS (INSERT INTO taken SELECT id, claim_no, '$level' FROM c) SELECT coalesce(max(id), 0) AS id FROM c \\gset
\\if :id > 0 and :lot <= 80
SELECT resolve_job(:id, '$worker', :lot > 5);
\\elif :id > 0
SELECT release_job(:id, '$worker');
\\endif
\\if :lot % 4 = 0
ROLLBACK;
\\else
COMMIT;
\\endif
SCRIPT
	}
	$node->safe_psql('postgres', q{INSERT INTO job_types (job_type, backoff, max_attempts) VALUES ('many', '{"delay": 0}', 3) ON CONFLICT DO NOTHING});
	$node->pgbench("-n -c 12 -j 2 -t 100 --max-tries=10000 --random-seed=$seed", 0, [qr{processed: 1200/1200}, qr{failed transactions: 0 }], [qr{}], "$label: isolation levels side by side", \%scripts);
	note('claims that stayed: ' . join ', ', split /\n/, $op->query('SELECT level, count(*) FROM taken GROUP BY 1'));
	my $left = 0;
	while (my $n = $op->query(q{WITH c AS MATERIALIZED (SELECT * FROM claim_jobs('00000000-0000-4000-8000-000000000001', '{many}', 1000)), t AS (INSERT INTO taken SELECT id, claim_no FROM c) SELECT count(*) FROM c}))
	{
		$left += $n;
		$op->query(qq{SELECT count(resolve_job(id, locked_by, true)) FROM jobs_queue WHERE status = 'running'});
	}
	is($op->query(q{SELECT count(*), count(DISTINCT (job_id, claim_no)) = count(*) FROM taken}),
		$op->query(q{SELECT count(*), true FROM job_runs WHERE job_type = 'many'}), "$label: each claim was made once, and has its run");
	is($op->query(q{SELECT count(*) FROM jobs_queue WHERE job_type = 'many' AND status NOT IN ('completed', 'failed')}), '0', "$label: nothing is left over");
	return;
}

# ---- two databases ----

sub databases
{
	$node->safe_psql('postgres', 'CREATE DATABASE second');
	$node->safe_psql('second', 'CREATE EXTENSION jobqueue');
	my %in = (first => $op, second => JobQueue::Session->new($node, dbname => 'second'));

	# The ids and the lanes of both are the same, payloads tell them apart
	my $fill = sub {
		my ($db, $n) = @_;
		return $in{$db}->query(qq{INSERT INTO jobs_queue (id, job_type, priority, payload, scheduled_at)
			SELECT 9000000 + i, 'same', i % 3, '"$db"', now() - interval '1 hour' + i * interval '1 ms' FROM generate_series(1, $n) i});
	};
	my $take = sub {
		my ($db, $n) = @_;
		return $in{$db}->query("SELECT payload #>> '{}', count(*), min(id), max(id) FROM claim_jobs('$worker', '{same}', $n) GROUP BY 1 ORDER BY 1");
	};
	$in{$_}->query('TRUNCATE jobs_queue') for keys %in;
	$fill->('first', 900);
	is($take->('second', 10), '', "$label: jobs of one database are not in the other");
	$fill->('second', 300);
	is($take->('second', 60), 'second|60|9000003|9000180', "$label: each has its own, under the same numbers");
	is($take->('first', 60), 'first|60|9000003|9000180', "$label: and its own position");
	is($take->('second', 240), 'second|240|9000001|9000300', "$label: one is empty");
	is($take->('second', 10), '', "$label: quite empty");
	is($take->('first', 240), 'first|240|9000183|9000900', "$label: the other is not");
	$in{second}->query('TRUNCATE jobs_queue');
	is($take->('first', 10), 'first|10|9000001|9000028', "$label: it does not mind TRUNCATE next door");
	$in{second}->query(q{DROP EXTENSION jobqueue; CREATE EXTENSION jobqueue});
	is($take->('first', 10), 'first|10|9000031|9000058', "$label: nor a new extension");
	is($take->('second', 10), '', "$label: which is empty");
	$fill->('second', 30);
	is($take->('second', 10), 'second|10|9000003|9000030', "$label: and works");
	$in{second}->query(q{BEGIN});
	is($take->('second', 5), 'second|5|9000001|9000013', "$label: a claim there is rolled back");
	$in{second}->query(q{ROLLBACK});
	is($take->('first', 10), 'first|10|9000061|9000088', "$label: and comes back");
	is($take->('second', 5), 'second|5|9000001|9000013', "$label: there");

	# Both at once
	$in{$_}->query('TRUNCATE jobs_queue') for keys %in;
	$fill->($_, 1200) for keys %in;
	my $clients = JobQueue::Storm->start(8, sub {
		my ($number) = @_;
		my $db = $number % 2 ? 'first' : 'second';
		my $me = sprintf '00000000-0000-4000-8000-%012d', $number;
		my $s = JobQueue::Session->new($node, dbname => $db eq 'first' ? 'postgres' : 'second');
		while (1)
		{
			my $got = $s->query("SELECT id, payload #>> '{}' FROM claim_next_job('$me', 'same')");
			last if $got eq '';
			my ($id, $whose) = split /\|/, $got;
			die "claimed a job of $whose in $db" if $whose ne $db;
			die "lost job $id in $db" if $s->query("SELECT resolve_job($id, '$me', true)") ne 't';
		}
		$s->quit;
	});
	is($clients->stop, '', "$label: workers in both at once get their own");
	is($in{$_}->query(q{SELECT count(*), count(DISTINCT id) FROM jobs_queue WHERE status = 'completed'}), '1200|1200', "$label: all of $_")
	  for sort keys %in;

	# A database of the same name again, and a copy of one
	$in{second}->quit;
	$node->safe_psql('postgres', 'DROP DATABASE second WITH (FORCE)');
	$node->safe_psql('postgres', 'CREATE DATABASE second');
	$in{second}->connect;
	$in{second}->query('CREATE EXTENSION jobqueue');
	$fill->($_, 30) for 'second';
	is($take->('second', 20), 'second|20|9000001|9000030', "$label: a database of the same name is another one");
	if ($label =~ /alone/)
	{
		$in{second}->quit;
		wait_for_query($node, q{SELECT count(*) FROM pg_stat_activity WHERE datname = 'second'}, 0);
		$node->safe_psql('postgres', 'CREATE DATABASE third TEMPLATE second');
		$in{$_} = JobQueue::Session->new($node, dbname => $_) for 'second', 'third';
		is($take->($_, 4), 'second|4|9000002|9000011', "$label: a copy and its original have the same jobs left ($_)") for 'third', 'second';
		is($take->($_, 4), 'second|4|9000014|9000023', "$label: until each has taken them itself ($_)") for 'second';
		is($in{third}->query(q{SELECT count(*) FROM jobs_queue WHERE status = 'queued'}), '6', "$label: the copy keeps the rest");
		$in{third}->quit;
		$node->safe_psql('postgres', 'DROP DATABASE third WITH (FORCE)');
	}
	$in{second}->quit;
	$node->safe_psql('postgres', 'DROP DATABASE second WITH (FORCE)');
	return;
}

# With the server's workers beside the claims, and with nobody but the claims
sub run_all
{
	my ($path, $launcher) = @_;

	$label = "$path, " . ($launcher eq 'on' ? 'with workers' : 'alone');
	if ($node->safe_psql('postgres', 'SHOW jobqueue.launcher') ne $launcher)
	{
		$node->append_conf('postgresql.conf', "jobqueue.launcher = $launcher");
		$node->restart;
	}
	set_claim_path($node, $path);
	($one, $two, $op) = map { JobQueue::Session->new($node) } 1 .. 3;
	$op->query('TRUNCATE jobs_queue');
	my $started = time;
	for my $part ([ \&prepared, 'COMMIT' ], [ \&prepared, 'ROLLBACK' ], [ \&prepared_and_restarted, $launcher eq 'on' ? 'immediate' : 'fast' ],
		[ \&undone ], [ \&locked ], [ \&snapshots ])
	{
		my ($code, @arguments) = @$part;
		$code->(@arguments);
	}
	is(run_problems($node), '', "$label: one run for each claim");
	databases();
	note(sprintf '%s: %.1f s', $label, time - $started);
	$_->quit for $one, $two, $op;
	return;
}

my @paths = claim_paths($node);
run_all($_, 'on') for @paths;
run_all($paths[0], 'off');

$node->stop;
is(log_problems($node), '', 'nothing crashed or leaked');
done_testing();
