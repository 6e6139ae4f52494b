# One claimer gets exactly the job that is first at that moment, whatever came,
# went, was changed, locked or rolled back before, and by whom. The jobs are in
# 27 lanes and more; what the queue may remember of them is out of date at once.
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

my $node = JobQueue::Cluster->new('main', conf => "log_statement = none\nshared_buffers = 64MB");
storm_seed();
my $worker = '00000000-0000-4000-8000-000000000001';

# The claimer, an operator, and somebody who keeps transactions open.
my ($claimer, $operator, $other);
my $path;

# The first $n jobs that are ready now, as the documentation defines the order.
sub wanted
{
	my ($types, $n) = @_;

	my $filter = @$types ? "AND job_type IN ('" . join("', '", @$types) . "')" : '';
	return "SELECT array_agg(id) FROM (SELECT id FROM jobs_queue WHERE status = 'queued' AND scheduled_at <= now() $filter "
	  . "ORDER BY priority, scheduled_at, id LIMIT $n) q";
}

sub claim_call
{
	my ($types, $n) = @_;

	return 'SELECT array_agg(id) FROM ' . ($n == 1 && @$types < 2
		? "claim_next_job('$worker'" . (@$types ? ", '$types->[0]'" : '') . ')'
		: "claim_jobs('$worker', " . (@$types ? "'{" . join(',', @$types) . "}'" : 'NULL') . ", $n)");
}

# ---- one change at a time, to a lane of 1000 jobs that claims have begun ----

my $far = q{now() + interval '1 day'};
my $first_id;

sub warm_lane
{
	$operator->query('DELETE FROM jobs_queue');
	$first_id = $operator->query(q{
		WITH i AS (INSERT INTO jobs_queue (job_type, scheduled_at)
			SELECT 'warm', now() - interval '1 hour' + i * interval '1 ms' FROM generate_series(1, 1000) i RETURNING id)
		SELECT min(id) FROM i});
	is($claimer->query(claim_call(['warm'], 20)), '{' . join(',', $first_id .. $first_id + 19) . '}', "$path: a lane is warm");
	is($claimer->query(claim_call([], 1)), '{' . ($first_id + 20) . '}', "$path: for any type, too");
	return $first_id + 21;
}

# Claims with and without a type, from both sessions: each is of the lane that
# the other has left.
my $turn = 0;

sub next_is
{
	my ($id, $name) = @_;

	my $session = ++$turn % 2 ? $claimer : $other;
	my $types = $turn % 3 ? ['warm'] : [];
	is($session->query(claim_call($types, 1)), ref $id ? '' : "{$id}", "$path: $name");
	return;
}

sub one_by_one
{
	my $n = warm_lane();
	next_is($n++, 'the next one is next');

	# by scheduled_at
	$operator->query("UPDATE jobs_queue SET scheduled_at = $far WHERE id = $n");
	next_is($n + 1, 'a due job that is pushed to the future is not claimed');
	$operator->query("UPDATE jobs_queue SET scheduled_at = now() - interval '1 day' WHERE id = $n");
	next_is($n, 'and made due again it is');
	$n += 2;
	my $future = $operator->query("INSERT INTO jobs_queue (job_type, scheduled_at) VALUES ('warm', $far) RETURNING id");
	next_is($n++, 'a job of the future is not claimed');
	$operator->query("UPDATE jobs_queue SET scheduled_at = now() - interval '1 day' WHERE id = $future");
	next_is($future, 'once it is made due, it is claimed at once');
	my $last = $first_id + 999;
	$operator->query("UPDATE jobs_queue SET scheduled_at = now() - interval '1 day' WHERE id = $last");
	next_is($last--, 'the last job of a lane is moved to its head');
	$operator->query("UPDATE jobs_queue SET scheduled_at = (SELECT scheduled_at FROM jobs_queue WHERE id = $n + 1) + interval '500 us' WHERE id = $n");
	next_is($n + 1, 'the head of a lane is moved behind the next one');
	next_is($n, 'and comes after it');
	$n += 2;
	$operator->query("UPDATE jobs_queue SET scheduled_at = (SELECT scheduled_at FROM jobs_queue WHERE id = $n + 1) WHERE id = $n + 2");
	next_is($n++, 'before two of the same instant');
	next_is($n++, 'of which the smaller id is first');
	next_is($n++, 'and then the other');

	# by priority
	$operator->query("UPDATE jobs_queue SET priority = -1 WHERE id = $last");
	next_is($last--, 'a priority that is raised is honoured at once');
	$operator->query("UPDATE jobs_queue SET priority = -1, scheduled_at = $far WHERE id = $last");
	next_is($n++, 'but not before the job is due');
	$operator->query("UPDATE jobs_queue SET scheduled_at = now() - interval '1 s' WHERE id = $last");
	next_is($last--, 'then it is');
	$operator->query("UPDATE jobs_queue SET priority = 1 WHERE id = $n");
	next_is($n + 1, 'a priority that is lowered is honoured at once');
	$operator->query("UPDATE jobs_queue SET priority = 0 WHERE id = $n");
	next_is($n, 'and in the other direction');
	$n += 2;
	$operator->query("BEGIN; UPDATE jobs_queue SET priority = -9 WHERE id = $last; ROLLBACK");
	next_is($n++, 'a change that is rolled back changes nothing');
	$operator->query("BEGIN; SAVEPOINT s; UPDATE jobs_queue SET priority = -9 WHERE id = $last; ROLLBACK TO s; UPDATE jobs_queue SET priority = -8 WHERE id = $last - 1; COMMIT");
	next_is($last - 1, 'a savepoint that is rolled back does not, what is committed with it does');
	$operator->query("UPDATE jobs_queue SET scheduled_at = $far WHERE id = $last");
	$last -= 2;

	# by stage and type
	$operator->query("UPDATE jobs_queue SET stage = 'x', scheduled_at = now() - interval '1 day' WHERE id = $last");
	next_is($last--, 'a job in another stage');
	$operator->query("UPDATE jobs_queue SET stage = 'y' WHERE id IN ($n, $n + 1)");
	next_is($n++, 'the stage of the next jobs is changed: they are still next');
	next_is($n++, 'both');
	$operator->query("UPDATE jobs_queue SET job_type = 'cold' WHERE id = $n");
	is($claimer->query(claim_call(['warm'], 1)), '{' . ($n + 1) . '}', "$path: a job that changed its type is not of the old one");
	is($claimer->query(claim_call(['cold'], 1)), "{$n}", "$path: but of the new one");
	$n += 2;
	$operator->query(q{INSERT INTO jobs_queue (job_type, scheduled_at) VALUES ('cold', now() - interval '1 day')});
	my $immigrant = $operator->query(q{UPDATE jobs_queue SET job_type = 'warm' WHERE job_type = 'cold' AND status = 'queued' RETURNING id});
	next_is($immigrant, 'a job that came from another type');
	$operator->query(q{INSERT INTO job_types (job_type, enabled) VALUES ('warm', false)});
	next_is([], 'nothing of a type that is disabled');
	$operator->query(q{DELETE FROM job_types WHERE job_type = 'warm'});
	next_is($n++, 'until it is enabled');

	# jobs that go
	$operator->query("DELETE FROM jobs_queue WHERE id BETWEEN $n AND $n + 2");
	next_is($n + 3, 'deleted jobs are not claimed');
	$n += 4;
	$operator->query("SELECT cancel_job($n)");
	next_is($n + 1, 'nor are cancelled ones');
	$operator->query("SELECT requeue_job($n); UPDATE jobs_queue SET scheduled_at = now() - interval '1 day' WHERE id = $n");
	next_is($n, 'until they are requeued');
	$n += 2;
	$operator->query("UPDATE jobs_queue SET status = 'completed' WHERE id = $n");
	next_is($n + 1, 'a job that was completed by hand');
	$operator->query("UPDATE jobs_queue SET status = 'queued', scheduled_at = now() - interval '1 day' WHERE id = $n");
	next_is($n, 'and put back by hand');
	$n += 2;

	# jobs that come back
	is($claimer->query("SELECT release_job(" . ($n - 1) . ", '$worker')"), 't', "$path: a job is released");
	next_is($n - 1, 'and has its place again');
	is($claimer->query("SELECT fail_job(" . ($n - 1) . ", '$worker', 'no', now() - interval '1 day')"), 't', "$path: a job has failed, its retry is due");
	next_is($n - 1, 'and comes at once');
	is($claimer->query("SELECT snooze_job(" . ($n - 1) . ", '$worker', '1 hour')"), 't', "$path: a job is snoozed");
	next_is($n++, 'and does not come');
	$operator->query("UPDATE jobs_queue SET status = 'queued' WHERE id = $n - 1");
	next_is($n - 1, 'a job that an operator takes from its worker');
	my $parent = $operator->query(qq{SELECT enqueue_job('parent', scheduled_at => $far)});
	my $child = $operator->query(qq{SELECT enqueue_job('warm', depends_on => ARRAY[$parent], priority => -3)});
	next_is($n++, 'a blocked job is not claimed');
	$operator->query("SELECT complete_job($parent)");
	next_is($child, 'until its parent completes');
	$operator->query(qq{SELECT enqueue_job('warm', unique_key => 'k', scheduled_at => $far)});
	next_is($n++, 'a job with a key');
	my $keyed = $operator->query(q{SELECT enqueue_job('warm', unique_key => 'k', unique_mode => 'replace', scheduled_at => now() - interval '1 day')});
	next_is($keyed, 'that is replaced and made due');

	# claims that are rolled back
	for my $how ('ROLLBACK', 'ROLLBACK TO s; COMMIT', 'RELEASE s; ROLLBACK')
	{
		is($claimer->query('BEGIN; SAVEPOINT s; ' . claim_call(['warm'], 3) . ";$how"), '{' . join(',', $n .. $n + 2) . '}', "$path: a claim, then $how");
		next_is($n, 'the first of them is first again');
		next_is($n + 1, 'and the second is second');
		$n += 2;
	}
	is($claimer->query('BEGIN; ' . claim_call(['warm'], 700) . '; ROLLBACK') =~ tr/,//, 699, "$path: a large claim is rolled back");
	next_is($n++, 'and nothing has changed');

	# in numbers
	my $many = $operator->query(q{
		WITH i AS (INSERT INTO jobs_queue (job_type, scheduled_at)
			SELECT 'warm', now() - interval '2 days' + i * interval '1 us' FROM generate_series(3000, 1, -1) i RETURNING id)
		SELECT max(id) FROM i});
	next_is($many--, 'the first of many that were enqueued at once, before the head') for 1 .. 3;
	$operator->query("COPY jobs_queue (job_type, priority) FROM STDIN;\nwarm\t-5\nwarm\t-6\nwarm\t-5\n\\.\n");
	my $copied = $operator->query('SELECT max(id) FROM jobs_queue');
	next_is($copied - 1, 'the first of what was copied');
	next_is($copied - 2, 'the second');
	next_is($copied, 'the third');
	$operator->query(q{UPDATE jobs_queue SET scheduled_at = now() - interval '3 days' - id % 7919 * interval '1 s' WHERE job_type = 'warm' AND status = 'queued'});
	my $wanted = $operator->query(wanted([], 50));
	is($claimer->query(claim_call([], 50)), $wanted, "$path: all are moved at once");
	$operator->query(q{UPDATE jobs_queue SET priority = id % 200 - 100 WHERE job_type = 'warm' AND status = 'queued'});
	$wanted = $operator->query(wanted([], 50));
	is($claimer->query(claim_call([], 50)), $wanted, "$path: into 200 lanes");
	$operator->query(q{DELETE FROM jobs_queue WHERE priority < 90});
	$wanted = $operator->query(wanted([], 200));
	is($claimer->query(claim_call([], 200)), $wanted, "$path: most of them are deleted");
	$operator->query(q{DELETE FROM jobs_queue});
	next_is([], 'and then all');
	my $id = $operator->query(q{SELECT enqueue_job('warm')});
	next_is($id, 'a job in an empty queue');
	next_is([], 'which is empty again');

	# what becomes due in time
	for my $others (0, 1)
	{
		$operator->query('DELETE FROM jobs_queue');
		$operator->query(q{INSERT INTO jobs_queue (job_type, scheduled_at) SELECT 'warm', now() - interval '1 hour' FROM generate_series(1, 50)}) if $others;
		$wanted = $operator->query(wanted([], 3));
		is($claimer->query(claim_call([], 3)), $wanted, "$path: the lanes have been read");
		$id = $operator->query(qq{SELECT enqueue_job('warm', priority => -1, scheduled_at => now() + interval '400 ms')});
		$operator->query(qq{SELECT pg_sleep(greatest(0, extract(epoch FROM scheduled_at - clock_timestamp()) + 0.001)) FROM jobs_queue WHERE id = $id});
		next_is($id, 'a job is claimed as soon as it is due');
	}
	return;
}

# ---- at random ----

my @types = qw(a b c);
my @stages = ('', 'one', 'two');
my (%wrong, %done);

sub pick { return $_[ rand @_ ] }

sub compare
{
	my ($what, $types, $n, $before, $after) = @_;

	my $session = pick($claimer, $claimer, $other);
	$done{$what}++;
	my ($wanted, $got) = split /\n/, $session->query(($before // '') . wanted($types, $n) . ";\n" . claim_call($types, $n) . ';' . ($after // '')), -1;
	push @{ $wrong{$what} }, "wanted $wanted, got $got" if $wanted ne $got;
	return $got;
}

sub some_types { return pick([], [], [], [ pick(@types) ], [ 'a', 'c' ]) }

sub random_row
{
	my ($when) = @_;

	$when //= 'now() - ' . (rand(1) < 0.15 ? -86400 : int rand 90_000) . " * interval '1 s'";
	return sprintf q{('%s', '%s', %d, %s)}, pick(@types), pick(@stages), pick(-1, 0, 1), $when;
}
my $insert = 'INSERT INTO jobs_queue (job_type, stage, priority, scheduled_at) VALUES';
my $ready_first = q{(SELECT id FROM jobs_queue WHERE status = 'queued' AND scheduled_at <= now() ORDER BY priority, scheduled_at, id LIMIT 1)};
my $any_queued = q{(SELECT id FROM jobs_queue WHERE status = 'queued' ORDER BY md5(id::text || %d) LIMIT 1)};

# What can happen between two claims; its weight, and what is done.
my @happenings = (
	[ 900, sub { compare('one of any type', [], 1) } ],
	[ 150, sub { compare('one of a type', [ pick(@types) ], 1) } ],
	[ 60, sub { compare('a batch', some_types(), 1 + int rand 20) } ],
	[ 40, sub {
		my ($types, $n) = (some_types(), 1 + int rand 8);
		my $got = compare('rolled back', $types, $n, 'BEGIN;', 'ROLLBACK');
		my $again = compare('after that', $types, $n);
		push @{ $wrong{'after that'} }, "rolled back $got, then got $again" if $got ne $again;
	} ],
	[ 40, sub {
		compare('in a savepoint', some_types(), 1 + int rand 8, 'BEGIN; SAVEPOINT s;', pick('ROLLBACK TO s; COMMIT', 'RELEASE s; COMMIT', 'RELEASE s; ROLLBACK'));
		compare('after that', [], 1);
	} ],
	[ 60, sub {
		my $row = random_row(q{now() - interval '30 hours'});
		compare('own job, uncommitted', [], 1, "BEGIN; $insert $row;", pick('COMMIT', 'ROLLBACK'));
	} ],
	[ 80, sub { $operator->query("$insert " . random_row(q{now() - interval '25 hours' - random() * interval '1 hour'})) } ],
	[ 80, sub { $operator->query("$insert " . join(', ', map { random_row() } 1 .. 1 + rand 4)) } ],
	[ 20, sub { $operator->query("BEGIN; $insert " . random_row(q{now() - interval '1 year'}) . '; ' . pick('ROLLBACK', "SAVEPOINT s; $insert " . random_row(q{now() - interval '2 years'}) . '; ROLLBACK TO s; COMMIT')) } ],
	[ 40, sub { $operator->query(sprintf "UPDATE jobs_queue SET priority = %d WHERE id = $any_queued", pick(-1, 0, 1), rand 1e6) } ],
	[ 40, sub { $operator->query(sprintf "UPDATE jobs_queue SET scheduled_at = now() - %d * interval '1 s' WHERE id = $any_queued", pick(-90_000, rand 90_000, rand 90_000), rand 1e6) } ],
	[ 20, sub { $operator->query(sprintf "UPDATE jobs_queue SET stage = '%s', job_type = '%s' WHERE id = $any_queued", pick(@stages), pick(@types), rand 1e6) } ],
	[ 30, sub { $operator->query('UPDATE jobs_queue SET ' . pick(q{scheduled_at = now() + interval '1 day'}, 'priority = 1', q{scheduled_at = scheduled_at - interval '1 ms'}, q{stage = 'two'}, q{payload = '1'}) . " WHERE id = $ready_first") } ],
	[ 15, sub { $operator->query("DELETE FROM jobs_queue WHERE id = $ready_first") } ],
	[ 15, sub { $operator->query("SELECT cancel_job(id) FROM jobs_queue WHERE id = $ready_first") } ],
	[ 15, sub { $operator->query("UPDATE jobs_queue SET status = 'queued', attempts = 0 WHERE id = (SELECT min(id) FROM jobs_queue WHERE status = '" . pick('running', 'cancelled', 'completed') . "')") } ],
	[ 40, sub { $claimer->query(pick('SELECT resolve_job(id, locked_by, true)', 'SELECT release_job(id, locked_by)', 'SELECT snooze_job(id, locked_by, \'0\')',
			q{SELECT fail_job(id, locked_by, 'no', now() - interval '26 hours')}) . q{ FROM jobs_queue WHERE id = (SELECT max(id) FROM jobs_queue WHERE status = 'running')}) } ],
	# somebody has the head: the claim takes the next one, and later the head
	[ 25, sub {
		my $head = $other->query('BEGIN; SELECT id FROM jobs_queue WHERE id = ' . $ready_first . ' FOR ' . pick('UPDATE', 'NO KEY UPDATE', 'SHARE', 'KEY SHARE'));
		my $wanted = $claimer->query(wanted([], 2)) =~ s/^\{\d+,?//r =~ s/\}$//r;
		my $got = $claimer->query(claim_call([], 1)) =~ tr/{}//dr;
		# FOR KEY SHARE does not conflict with an UPDATE; a claim may take the job or pass over it
		push @{ $wrong{'locked head'} }, "locked $head, wanted $wanted, got $got" if $got ne $wanted && $got ne $head;
		$done{'locked head'}++;
		$other->query(pick('COMMIT', 'ROLLBACK'));
		compare('after the lock', [], 1);
	} ]);
my $weights = 0;
$weights += $_->[0] for @happenings;

sub at_random
{
	$operator->query('TRUNCATE jobs_queue');
	$operator->query(q{INSERT INTO jobs_queue (job_type, stage, priority, scheduled_at)
		SELECT (ARRAY['a', 'b', 'c'])[1 + i % 3], (ARRAY['', 'one', 'two'])[1 + i / 3 % 3], i / 9 % 3 - 1,
			   now() - 3600 * interval '1 s' * (random() * 24)::integer FROM generate_series(1, 2000) i});
	%wrong = %done = ();
	my $rounds = 0;
	while ($rounds++ < 2000)
	{
		my $lot = rand $weights;
		my ($happening) = grep { ($lot -= $_->[0]) < 0 } @happenings;
		$happening->[1]->();
		$operator->query("$insert " . join(', ', map { random_row() } 1 .. 200)) if $rounds % 100 == 0;
	}
	is(join("\n", map { scalar(@{ $wrong{$_} }) . " of $done{$_} claims ($_), the first: $wrong{$_}[0]" } sort keys %wrong), '',
		"$path: every claim takes the first job of its moment");
	note(join ', ', map { "$_: $done{$_}" } sort keys %done);

	# to the end, one by one and in batches
	my ($claims, $bad, $got) = (0, '');
	do
	{
		(my $wanted, $got) = split /\n/, $claimer->query(wanted([], 7) . ";\n" . claim_call([], 7)), -1;
		$bad ||= "wanted $wanted, got $got" if $wanted ne $got;
		$claims++;
	} while $got ne '';
	is($bad, '', "$path: and so it is to the end");
	$operator->query('SELECT count(resolve_job(id, locked_by, true)) FROM jobs_queue WHERE locked_by IS NOT NULL');
	is($operator->query(q{SELECT count(*) FROM jobs_queue_live WHERE status = 'running' OR scheduled_at <= now()}), '0', "$path: nothing is left");
	is($operator->query(q{SELECT count(*) FROM jobs_queue q WHERE claim_no <> (SELECT count(*) FROM job_runs r WHERE r.job_id = q.id)}), '0', "$path: with one run for each claim");
	return;
}

for (claim_paths($node))
{
	$path = $_;
	set_claim_path($node, $path);
	($claimer, $operator, $other) = map { JobQueue::Session->new($node) } 1 .. 3;
	one_by_one();
	at_random();
	$_->quit for $claimer, $operator, $other;
}

$node->stop;
is(log_problems($node), '', 'nothing crashed or leaked');
done_testing();
