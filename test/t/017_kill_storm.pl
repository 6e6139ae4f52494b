# Sixty times something dies while clients enqueue, claim, fail and complete and
# executors run SQL jobs: a backend, an executor, the scheduler, the launcher, the
# checkpointer by kill -9, the postmaster too, or the server by an immediate stop.
# Sixty times it starts anew with empty shared memory. What was acknowledged is
# compared with what is there: each client keeps a list of its own, in a file, of
# what it was told; the effects of SQL jobs are rows of a table.
#
# JOBQUEUE_KILLS=n kills more often, JOBQUEUE_TEST_SEED repeats (test/storm).
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

my $cycles = $ENV{JOBQUEUE_KILLS} // 60;
my $clients_wanted = 8;
my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
max_connections = 60
log_statement = none
shared_buffers = 64MB
jobqueue.retry_delay = 0
jobqueue.max_attempts = 1000
jobqueue.crash_limit = 100
jobqueue.max_executors = 3
jobqueue.allow_superuser_jobs = on
CONF
storm_seed();
$node->safe_psql('postgres', q{
	CREATE TABLE effects (job_id bigint, claim_no integer, client integer);
	CREATE VIEW tagged AS SELECT id, coalesce(payload->'payload'->>'tag', payload #>> '{}') AS tag FROM jobs_queue});

my $files = PostgreSQL::Test::Utils::tempdir();

# What a client does until it is told to end. A claim whose answer is lost comes
# back when its lease is over; a completion whose answer is lost is tried again,
# and then true or false are both right, but not two effects.
sub client
{
	my ($number, $go_on) = @_;

	my $me = sprintf '00000000-0000-4000-8000-%012d', $number;
	my $s = JobQueue::Session->new($node);
	open my $list, '>>', "$files/$number" or die "could not open: $!";
	$list->autoflush(1);
	my $say = sub { print $list "@_\n" };
	my (@held, $serial);

	# SQL of one transaction or statement; undef when the connection is lost
	my $ask = sub {
		my ($sql) = @_;
		my $state = $s->try($sql);
		return $s->{output} if $state eq '00000';
		if ($state ne JobQueue::Session::LOST)
		{
			# the end of the server, as seen by a session that could still read it
			die "$state $s->{message} in: $sql" if $state !~ /^57P0[123]$/;
			$s->quit;
		}
		return undef;
	};
	while ($go_on->())
	{
		if (!$s->connected)
		{
			if (!$s->connect)
			{
				$s->quit;
				sleep 0.02;
			}
			next;
		}
		my $lot = rand 1;
		if (@held)
		{
			my ($id, $no) = @{ $held[0] };
			my $answer;
			if ($lot < 0.8)
			{
				$answer = $ask->("BEGIN; INSERT INTO effects VALUES ($id, $no, $number); SELECT resolve_job($id, '$me', true, NULL, $no)") // next;
				$answer eq 't' ? $ask->('COMMIT') // next : $ask->('ROLLBACK') // next;
				$say->("completed $id $no") if $answer eq 't';
			}
			elsif ($lot < 0.9)
			{
				$answer = $ask->("SELECT resolve_job($id, '$me', false, 'no', $no)") // next;
			}
			elsif ($lot < 0.95)
			{
				$answer = $ask->("SELECT release_job($id, '$me', $no)") // next;
			}
			else
			{
				$answer = $ask->("BEGIN; SELECT release_job($id, '$me', $no); ROLLBACK") // next;
				next if $answer eq 't';
			}
			shift @held;
		}
		elsif ($lot < 0.12)
		{
			# SQL jobs, most of them short, some that fail a few times
			my @tags = map { "$number-" . ++$serial } 1 .. 1 + int rand 3;
			$say->("intends $_") for @tags;
			my $more = rand 1;
			$more = $more < 0.1 ? '; SELECT pg_sleep(0.05)' : $more < 0.2 ? '; SELECT 1 / (random() * 2)::int' : '';
			my $ids = $ask->("SELECT enqueue_sql('INSERT INTO effects SELECT id, claim_no, -1 FROM jobs_queue WHERE id = \$2$more',"
				. " jsonb_build_object('tag', t)) FROM unnest('{" . join(',', @tags) . "}'::text[]) t") // next;
			my @ids = split /\n/, $ids;
			$say->("enqueued $tags[$_] $ids[$_]") for 0 .. $#tags;
		}
		elsif ($lot < 0.35)
		{
			my @tags = map { "$number-" . ++$serial } 1 .. 1 + int rand 3;
			$say->("intends $_") for @tags;
			my $payloads = join ', ', map { qq{'"$_"'} } @tags;
			my $priority = int(rand 3) - 1;
			my $how = rand 1;
			my $ids = $ask->($how < 0.4 ? "SELECT enqueue_jobs('k', ARRAY[$payloads]::jsonb[], priority => $priority)"
				: $how < 0.7 ? "INSERT INTO jobs_queue (job_type, stage, payload) SELECT 'k', 's', p FROM unnest(ARRAY[$payloads]::jsonb[]) p RETURNING id"
				: 'BEGIN; ' . join('; ', map { qq{SELECT enqueue_job('k', '"$_"')} } @tags) . '; COMMIT') // next;
			my @ids = split /\n/, $ids;
			$say->("enqueued $tags[$_] $ids[$_]") for 0 .. $#tags;
		}
		else
		{
			# some claims need not survive a crash: then they were not
			my $n = 1 + int rand 3;
			my $claim = "SELECT id, claim_no FROM claim_jobs('$me', '{k}', $n, '2 seconds')";
			$claim = "BEGIN; SET LOCAL synchronous_commit = off; $claim; COMMIT" if $lot > 0.8;
			my $jobs = $ask->($claim) // next;
			@held = map { [ split /\|/ ] } split /\n/, $jobs;
			sleep 0.01 if !@held;
		}
	}
	$s->quit;
	return;
}

sub acknowledged
{
	my $sum = 0;
	$sum += -s $_ for glob "$files/*";
	return $sum;
}

my $problems = q{
	WITH p AS (
		SELECT 'lost' AS problem, id FROM told WHERE what = 'enqueued' AND NOT EXISTS (SELECT FROM tagged q WHERE q.id = told.id AND q.tag = told.tag)
		UNION ALL SELECT 'there, and nobody wanted it', id FROM tagged WHERE tag NOT IN (SELECT tag FROM told WHERE what = 'intends')
		UNION ALL SELECT 'there twice', min(id) FROM tagged GROUP BY tag HAVING count(*) > 1
		UNION ALL SELECT 'not completed', id FROM jobs_queue WHERE status <> 'completed'
		UNION ALL SELECT 'completion lost', id FROM told WHERE what = 'completed'
			AND NOT EXISTS (SELECT FROM job_runs r WHERE (r.job_id, r.claim_no, r.status) = (told.id, told.claim_no, 'completed'))
		UNION ALL SELECT 'told twice to be complete', id FROM told WHERE what = 'completed' GROUP BY id HAVING count(*) > 1
		UNION ALL SELECT 'completed, not one effect', q.id FROM jobs_queue q LEFT JOIN effects e ON e.job_id = q.id WHERE status = 'completed' GROUP BY 2 HAVING count(e.job_id) <> 1
		UNION ALL SELECT 'a crash was charged', job_id FROM job_runs WHERE status = 'crashed' AND charged
		UNION ALL SELECT 'effect of another claim', e.job_id FROM effects e
			WHERE NOT EXISTS (SELECT FROM job_runs r WHERE (r.job_id, r.claim_no, r.status) = (e.job_id, e.claim_no, 'completed')))
	SELECT problem, count(*), min(id) FROM p GROUP BY 1 ORDER BY 1};

my @paths = claim_paths($node, 'auto');
for my $path (@paths)
{
	set_claim_path($node, $path);
	$node->safe_psql('postgres', 'TRUNCATE jobs_queue, effects');
	unlink glob "$files/*";
	my $log_offset = -s $node->logfile;
	my $watch = JobQueue::Session->new($node);
	my $clients = JobQueue::Storm->start($clients_wanted, \&client);
	my $started = time;
	my ($kills, $stops, $stuck) = (0, 0, '');
	my %deaths;

	while ($kills < $cycles && $stuck eq '')
	{
		# work is done again: some hundred events, whoever reports them
		my $enough = acknowledged() + 3000 + int rand 15_000;
		my $until = time + 30;
		sleep 0.01 while acknowledged() < $enough && time < $until;
		$stuck = 'no progress' if acknowledged() < $enough;
		$stuck ||= $clients->failures;
		my $type = choose_victim();
		if ($type eq 'postmaster' || $type eq 'immediate stop')
		{
			$watch->quit;
			$type eq 'postmaster' ? $node->kill9 : $node->stop('immediate');
			start_again();
			$stops++;
		}
		else
		{
			my $victim = $watch->query(qq{SELECT pid FROM pg_stat_activity WHERE backend_type = '$type' AND pid <> pg_backend_pid()
				ORDER BY state = 'active' DESC, random() LIMIT 1});
			next if $victim eq '' || !kill 'KILL', $victim;
		}
		$kills++;
		$deaths{$type}++;

		# everybody is thrown out, then the server is back
		$until = time + 60;
		sleep 0.005 while $watch->connected && ($watch->try('SELECT 1'), 1) && time < $until;
		$watch->quit;
		sleep 0.01 until $watch->connect || time > $until;
		$stuck ||= 'the server did not come back' if !$watch->connected;
	}
	is($stuck, '', "$path: after each crash the clients go on");
	is($clients->stop, '', "$path: the clients end");
	note(sprintf '%s: %d kills in %.1f s', $path, $kills, time - $started);
	my $restarts = () = slurp_file($node->logfile, $log_offset) =~ /all server processes terminated; reinitializing/g;
	is($restarts, $kills - $stops, "$path: " . ($kills - $stops) . ' crashes, and as many restarts');
	note(join ', ', map { "$_ $deaths{$_}" } sort keys %deaths);

	# What is left: queued jobs, and claims of which nobody knows, until their leases end
	my $drain = '00000000-0000-4000-8000-0000000000ff';
	my $until = time + 60;
	while ($watch->query('SELECT count(*) FROM jobs_queue_live') > 0 && time < $until)
	{
		my $n = $watch->query(qq{BEGIN;
			WITH c AS MATERIALIZED (SELECT id, claim_no FROM claim_jobs('$drain', '{k}', 1000)) INSERT INTO effects SELECT id, claim_no, 0 FROM c;
			SELECT count(resolve_job(id, '$drain', true, NULL, claim_no)) FROM jobs_queue WHERE locked_by = '$drain';
			COMMIT});
		sleep 0.1 if $n == 0;
	}

	$watch->query('DROP TABLE IF EXISTS told; CREATE TABLE told (what text, tag text, id bigint, claim_no integer)');
	my %rows;
	for my $file (glob "$files/*")
	{
		my @lines = split /\n/, slurp_file($file);
		for (@lines)
		{
			my ($what, $a, $b) = split / /;
			$rows{$what}++;
			$_ = join "\t", $what, $what eq 'completed' ? ('\N', $a, $b) : ($a, $b // '\N', '\N');
		}
		$watch->query(join "\n", 'COPY told FROM STDIN;', @lines, "\\.\n") if @lines;
	}
	note("$path: " . join ', ', map { "$_ $rows{$_}" } sort keys %rows);
	$watch->query('ANALYZE');
	note("$path: " . join ', ', split /\n/, $watch->query('SELECT status, count(*) FROM job_runs GROUP BY 1 ORDER BY 1'));
	cmp_ok($rows{enqueued} // 0, '>', $cycles * 5, "$path: much was enqueued");
	cmp_ok($rows{completed} // 0, '>', $cycles * 5, "$path: and completed");
	is($watch->query($problems), '', "$path: what was acknowledged is there, once");
	is(run_problems($node), '', "$path: one run for each claim");
	is($watch->query(q{SELECT sum(crashes) FROM jobs_queue WHERE job_type = 'k'}), '0', "$path: no job of an outside worker is blamed for a crash");
	cmp_ok($watch->query(q{SELECT count(*) FROM jobs_queue WHERE job_type = 'sql' AND status = 'completed'}), '>', $cycles * 2, "$path: SQL jobs were completed");
	$watch->quit;
	is(log_problems($node, $log_offset), '', "$path: nothing but our kills has crashed");
}

$node->stop;
done_testing();

sub choose_victim
{
	my $lot = rand 1;
	return
		$lot < 0.40 ? 'client backend'
	  : $lot < 0.65 ? 'jobqueue executor'
	  : $lot < 0.73 ? 'jobqueue scheduler'
	  : $lot < 0.81 ? 'jobqueue launcher'
	  : $lot < 0.87 ? 'checkpointer'
	  : $lot < 0.94 ? 'postmaster'
	  : 'immediate stop';
}

# The dead server's memory may be in use for a moment.
sub start_again
{
	my $until = time + 60;
	while (1)
	{
		$node->{_pid} = undef;    # a failure takes what is left of the old one for the new
		return if $node->start(fail_ok => 1);
		die 'the server does not start' if time > $until;
		sleep 0.1;
	}
}
