# Events in the server log: one line for each, under stable keys, for what is
# committed and for nothing else. Read as people and machines read it: from
# stderr and from jsonlog.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::HttpJobs;
use JobQueue::Session;
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $worker = '00000000-0000-4000-8000-000000000001';
my $json = JSON::PP->new->utf8->allow_nonref;

my $http = JobQueue::HttpJobs->new('main', conf => <<'CONF');
log_destination = 'stderr,jsonlog'
logging_collector = on
log_directory = 'events'
log_filename = 'server.log'
log_min_error_statement = error
log_statement = none
max_prepared_transactions = 2
jobqueue.log_events = all
jobqueue.log_format = json
jobqueue.service_name = 'calibr-outbox-worker'
jobqueue.statistics_interval = 0
jobqueue.max_executors = 1
CONF
my $node = $http->{node};
my $directory = $node->data_dir . '/events';
my @keys = qw(event level service jobId jobType stage correlationId workerId);

# ---- reading ----

# The messages of the log, each a line of jsonlog, since the last call.
my $read_to = 0;

sub messages
{
	open my $in, '<:raw', "$directory/server.json" or die "cannot read the log: $!";
	seek $in, $read_to, 0;
	my @lines = do { local $/; split /(?<=\n)/, <$in> // '' };
	pop @lines if @lines && $lines[-1] !~ /\n\z/;
	$read_to += length for @lines;
	return map { $json->decode($_) } @lines;
}

sub as_events { return map { decode_event($_->{message}) } grep { $_->{message} =~ /\A\{"event"/ } @_ }

# The JSON of a message, and the message itself as "line".
sub decode_event
{
	my ($message) = @_;

	utf8::encode(my $bytes = $message);
	my $event = $json->decode($bytes);
	$event->{line} = $message;
	return $event;
}

# The events since the last call but those of workers that come and go. The
# logging collector takes a moment: a mark in the log shows where we are.
my $marks = 0;

sub events
{
	my $mark = 'mark ' . ++$marks;
	my @found;

	$http->sql("DO \$\$BEGIN RAISE LOG '$mark'; END\$\$");
	$http->wait_until("$mark is in the log", sub {
		my @new = messages();
		push @found, as_events(@new);
		return grep { $_->{message} eq $mark } @new;
	});
	return grep { $_->{event} !~ /\.worker\.(started|stopped)\z/ } @found;
}

# What became of one job, in short.
sub story
{
	my ($id, @events) = @_;

	return join ' ', map { $_->{event} =~ s/\A\w+\.(worker\.)?//r } grep { ($_->{jobId} // 0) == $id } @events;
}

# Waits until an event of this name is there; returns all until then.
sub events_until
{
	my ($name, $count) = @_;
	my @found;

	$http->wait_until("$name is logged", sub {
		push @found, events();
		return (grep { $_->{event} eq $name } @found) >= ($count // 1);
	});
	return @found;
}

sub set
{
	my (%settings) = @_;

	$http->sql("ALTER SYSTEM SET jobqueue.$_ = '$settings{$_}'") for sort keys %settings;
	$http->sql('SELECT pg_reload_conf()');
	$http->wait_for("SELECT current_setting('jobqueue.$_')", $settings{$_}) for sort keys %settings;
	return;
}

sub claim { return $http->sql("SELECT count(*) FROM claim_jobs('$worker', '{$_[0]}', 100)") }

# ---- a job of an outside worker ----

$http->sql(q{INSERT INTO job_types (job_type, event_prefix, event_messages, dead_letter, backoff, max_attempts) VALUES
	('activate', 'giftcard', '{"start": "Starting activation", "completed": "Activation completed", "dead_letter": "Call somebody"}', true, '"0 s"', 2)});
my $id = $http->sql(q{SELECT enqueue_job('activate', '{"card": "4111-1111"}', stage => 'issue', correlation_id => 'order-7')});
claim('activate');
$http->sql("SELECT resolve_job($id, '$worker', true)");
my @events = events();
is_deeply([ map { $_->{event} } @events ], [qw(giftcard.job.enqueued giftcard.worker.job.start giftcard.worker.job.completed)], 'a job is enqueued, started and completed, under the prefix of its type');
for my $event (@events)
{
	my @order = $event->{line} =~ /"(\w+)":/g;
	is_deeply([ @order[ 0 .. $#keys ] ], \@keys, "$event->{event} has its keys in order");
	is_deeply([ @{$event}{qw(service jobId jobType stage correlationId)} ], [ 'calibr-outbox-worker', $id, 'activate', 'issue', 'order-7' ], 'and says whom it is about');
}
is_deeply([ map { $_->{workerId} } @events ], [ undef, $worker, $worker ], 'its worker, when it has one');
is_deeply([ map { $_->{attempt} } @events ], [ undef, 1, 1 ], 'which attempt it is');
like($events[2]{durationMs}, qr/\A\d+(\.\d+)?\z/, 'how long it took');
is_deeply([ map { $_->{message} } @events ], [ undef, 'Starting activation', 'Activation completed' ], 'and what the job type has to say');
unlike(slurp_file("$directory/server.log"), qr/4111-1111/, 'the payload stays out of it, and so does the statement');

$id = $http->sql(q{SELECT enqueue_job('activate', stage => 'issue')});
for my $n (1, 2)
{
	claim('activate');
	$http->sql("SELECT resolve_job($id, '$worker', false, E'card refused\nTraceback: secret things')");
}
@events = events();
is(story($id, @events), 'job.enqueued job.start job.failed job.start job.failed job.dead_letter', 'two failures make a dead letter');
my @failed = grep { $_->{event} =~ /failed/ } @events;
is_deeply([ map { $_->{level} } @failed ], [ 'warn', 'error' ], 'the last one is the worse');
is_deeply([ map { !!$_->{willRetry} } @failed ], [ !!1, !!0 ], 'each tells whether it goes on');
is($failed[0]{error}, 'card refused', 'and what went wrong, but the first line only');
is($events[-1]{message}, 'Call somebody', 'a dead letter has its text');

# Everything else that can become of a claim, and of a job without one.
my %id = map { $_ => $http->sql("SELECT enqueue_job('other', stage => '$_')") } qw(release skip lease cancel held dml);
claim('other');
$http->sql("SELECT release_job($id{release}, '$worker')");
$http->sql("SELECT skip_job($id{skip}, '$worker', 'not today')");
$http->sql("UPDATE jobs_queue SET lease_expires_at = now() WHERE id = $id{lease}");
$http->sql("SELECT cancel_job($id{held}); SELECT release_job($id{held}, '$worker')");
$http->sql("UPDATE jobs_queue SET status = 'failed' WHERE id = $id{dml}");
$http->sql("SELECT release_job($id{cancel}, '$worker')");
$http->sql("SELECT cancel_job($id{cancel}, 'nobody wants it')");
@events = events_until('jobqueue.worker.job.expired');
is(story($id{release}, @events), 'job.enqueued job.start job.released', 'a job is released');
is(story($id{skip}, @events), 'job.enqueued job.start job.skipped', 'skipped');
is(story($id{lease}, @events), 'job.enqueued job.start job.expired', 'taken from a silent worker');
is(story($id{held}, @events), 'job.enqueued job.start job.cancelled', 'cancelled while it ran');
is(story($id{cancel}, @events), 'job.enqueued job.start job.released job.cancelled', 'and while it waited');
is(story($id{dml}, @events), 'job.enqueued job.start job.failed', 'ended by an UPDATE');
$http->sql("SELECT requeue_job($id{dml}); UPDATE jobs_queue SET status = 'error' WHERE id = $id{dml}; UPDATE jobs_queue SET status = 'queued' WHERE id = $id{dml}");
is(story($id{dml}, events()), 'job.requeued job.failed job.dead_letter job.requeued', 'and told to start over, by a function and by plain DML');
$http->sql('DELETE FROM jobs_queue');

# ---- what is rolled back ----

events();
$http->sql(q{BEGIN; SELECT enqueue_job('other'); ROLLBACK});
is(scalar(events()), 0, 'what is rolled back is not logged');
$http->sql(q{BEGIN; SELECT enqueue_job('other', stage => 'a'); SAVEPOINT s; SELECT enqueue_job('other', stage => 'b'); SAVEPOINT t; SELECT enqueue_job('other', stage => 'c');
	RELEASE t; SELECT enqueue_job('other', stage => 'd'); ROLLBACK TO s; SELECT enqueue_job('other', stage => 'e'); SAVEPOINT u; SELECT enqueue_job('other', stage => 'f'); RELEASE u; COMMIT});
is(join(' ', map { $_->{stage} } events()), 'a e f', 'nor is what subtransactions took back with them');
$http->sql(q{DO $$
	BEGIN
		FOR i IN 1 .. 50 LOOP
			BEGIN
				PERFORM enqueue_job('other', stage => 'loop ' || i);
				IF i % 2 = 0 THEN RAISE EXCEPTION 'x'; END IF;
			EXCEPTION WHEN raise_exception THEN NULL;
			END;
		END LOOP;
	END$$});
is(scalar(events()), 25, 'in a loop, either');
is($http->{session}->try(q{INSERT INTO jobs_queue (job_type) SELECT 'other' FROM generate_series(1, 3); SELECT 1 / 0}) , '22012', 'an error');
is(scalar(events()), 3, 'takes its own statement with it, and no other one');
$http->sql('DELETE FROM jobs_queue');

# A serialization failure is found after all callbacks that come before the commit.
my @sessions = map { JobQueue::Session->new($node) } 1, 2;
$http->sql('CREATE TABLE skew (n integer); INSERT INTO skew VALUES (1)');
events();
$_->query('BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM skew') for @sessions;
$sessions[$_]->query("INSERT INTO skew VALUES ($_); SELECT enqueue_job('other', stage => 'skew $_')") for 0, 1;
my @states = map { $_->try('COMMIT') } @sessions;
is_deeply(\@states, [ '00000', '40001' ], 'two transactions cannot both commit');
is(join(' ', map { $_->{stage} } events()), 'skew 0', 'and one of them is logged');
$_->quit for @sessions;
$http->sql('DELETE FROM jobs_queue');

# What is prepared may be rolled back by anybody, at any time.
$http->sql(q{BEGIN; SELECT enqueue_job('other'); PREPARE TRANSACTION 'p'; SELECT enqueue_job('other', stage => 'next'); COMMIT PREPARED 'p'});
is(join(' ', map { $_->{stage} } events()), 'next', 'what is prepared is not logged, and keeps nothing else from it');
$http->sql('DELETE FROM jobs_queue');

# ---- a transaction with very many ----

$http->sql(q{SELECT count(*) FROM (SELECT enqueue_job('many') FROM generate_series(1, 10050)) j});
$http->sql("DO \$\$BEGIN RAISE LOG 'after many'; END\$\$");
my ($lines, $rest) = (0, '');
$http->wait_until('the end of them is in the log', sub {
	for my $entry (messages())
	{
		$lines++ if $entry->{message} =~ /\A\{"event":"jobqueue\.job\.enqueued"/;
		$rest = $entry->{message} if $entry->{message} =~ /did not log/;
		return 1 if $entry->{message} eq 'after many';
	}
	return 0;
});
is($lines, 10000, 'of very many events the first are logged');
is($rest, 'jobqueue did not log 50 more events of this transaction', 'and how many there are besides');
is($http->sql(q{SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'jobqueue event log' AND total_bytes > 100000}), 0, 'they leave no memory behind');
$http->sql('DELETE FROM jobs_queue');
events();

# ---- jobs of the server ----

$http->sql(q{INSERT INTO job_types (job_type, runner, command, max_attempts) VALUES
	('greet', 'sql', 'SELECT job_log(''hello'', data => ''{"card": "4222"}''), job_log(''quietly'', ''debug''), job_log(''loud'', ''error'')', 1),
	('break', 'sql', 'INSERT INTO skew VALUES (($1->>''n'')::integer)', 1)});
$http->sql('CREATE UNIQUE INDEX skew_key ON skew (n)');
my ($greet, $break) = map { $http->sql("SELECT enqueue_job('$_', '{\"n\": 1}', correlation_id => 'sql')") } qw(greet break);
$http->wait_for('SELECT count(*) FROM jobs_queue_live', 0);
@events = events_until('jobqueue.worker.job.failed');
is(story($greet, @events), 'job.enqueued job.start job.log job.log job.completed', 'a SQL job is logged with what it says');
is_deeply([ map { "$_->{level} $_->{message}" } grep { $_->{event} =~ /log\z/ } @events ], [ 'info hello', 'error loud' ], 'at its levels, and no lower');
is(story($break, @events), 'job.enqueued job.start job.failed', 'one that fails, too');
my ($failure) = grep { $_->{event} =~ /failed/ } @events;
is($failure->{error}, 'duplicate key value violates unique constraint "skew_key" (23505)', 'without the values that its error tells of');
like($failure->{workerId}, qr/\A[0-9a-f-]{36}\z/, 'with the executor that ran it');

$http->add('hook', '/ok');
$http->add('gone', '/status/503?secret=1', {}, { max_attempts => 1 });
my ($hook, $gone) = map { $http->enqueue($_) } qw(hook gone);
$http->wait_for('SELECT count(*) FROM jobs_queue_live', 0);
@events = events_until('jobqueue.worker.job.failed');
is(story($hook, @events), 'job.enqueued job.start job.completed', 'an HTTP job is logged');
is(story($gone, @events), 'job.enqueued job.start job.failed', 'one that fails, too');
is_deeply([ map { "$_->{endpoint} $_->{status}" } sort { $a->{status} <=> $b->{status} } grep { exists $_->{endpoint} } @events ], [ 'hook 200', 'gone 503' ], 'with endpoint and status');
unlike(join('', map { $_->{line} } @events), qr/secret=1/, 'and no URL');
is($http->sql("SELECT error FROM job_runs WHERE job_id = $gone"), 'HTTP status 503: status 503', 'what a server says is in job_runs');
is((grep { $_->{event} =~ /failed/ } @events)[0]{error}, 'HTTP status 503', 'but not in the log');

# ---- circuits ----

$http->sql(q{INSERT INTO job_types (job_type, event_prefix, breaker_threshold, breaker_cooldown, backoff, max_attempts, event_messages) VALUES ('card', 'giftcard', 3, '1 hour', '"0 s"', 100, '{"circuit_open": "Cards are down"}')});
$http->sql(q{SELECT count(enqueue_job('card', stage => 'issue')) FROM generate_series(1, 20)});
events();
claim('card');
$http->sql(qq{SELECT count(resolve_job(id, '$worker', false, 'down')) FROM jobs_queue WHERE job_type = 'card' AND status = 'running'});
$http->wait_for(q{SELECT state FROM job_circuits WHERE job_type = 'card'}, 'open');
claim('card') for 1 .. 5;
@events = grep { $_->{event} =~ /circuit/ } events_until('giftcard.worker.circuit_open');
is(scalar(@events), 1, 'a circuit that opens is logged once, however many jobs it keeps');
is_deeply([ @{ $events[0] }{qw(event stage cause failures cooldownMs message)} ], [ 'giftcard.worker.circuit_open', 'issue', 'failures', 3, 3600000, 'Cards are down' ], 'with its stage, cause and cooldown');
my $probe;
for my $success ('false', 'true')
{
	$http->sql(q{UPDATE job_circuits SET retry_at = now() WHERE job_type = 'card'});
	$probe = $http->sql("SELECT id FROM claim_next_job('$worker', 'card')");
	$http->sql("SELECT resolve_job($probe, '$worker', $success, NULL)");
}
$http->sql(q{SELECT open_circuit('card', 'issue'); SELECT close_circuit('card')});
is(join(' ', map { ($_->{event} =~ s/.*circuit_//r) . "/$_->{cause}" } grep { $_->{event} =~ /circuit/ } events()), 'half_open/probe open/probe half_open/probe closed/probe open/operator closed/operator', 'so is everything that becomes of it');
$http->sql('DELETE FROM jobs_queue');

# ---- workers ----

$http->disconnect;
$node->restart;
$http->connect;
my @workers;
$http->wait_until('the scheduler is started', sub { push @workers, as_events(messages()); return grep { $_->{event} =~ /started/ && $_->{worker} eq 'scheduler' } @workers });
is_deeply([ map { $_->{worker} } grep { $_->{event} eq 'jobqueue.worker.started' } @workers ], [ 'launcher', 'scheduler' ], 'workers say that they have started');
cmp_ok(scalar(grep { $_->{event} eq 'jobqueue.worker.stopped' } @workers), '>=', 2, 'and stopped');
ok(!(grep { $_->{event} =~ /loop_error/ } @workers), 'without an error');

# Faults of the workers themselves are no failures of jobs.
$http->sql('ALTER TABLE job_types RENAME COLUMN notify TO hidden');
@events = events_until('jobqueue.worker.loop_error');
$http->sql('ALTER TABLE job_types RENAME COLUMN hidden TO notify');
my ($fault) = grep { $_->{event} =~ /loop_error/ } @events;
is_deeply([ @{$fault}{qw(level worker sqlstate jobId)} ], [ 'error', 'scheduler', '42703', undef ], 'an error of the scheduler is one of its loop');
like($fault->{error}, qr/notify/, 'and says what it is');

# A job that takes the server down.
$http->sql(q{SELECT enqueue_sql('SELECT pg_sleep(1000)', max_attempts => 1)});
$http->wait_for(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}, 1);
my $pid = $http->sql(q{SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'});
set(crash_limit => 1);
$http->disconnect;
kill 'KILL', $pid;
$http->wait_until('the server is up again', sub { return eval { $http->connect; 1 } });
@events = events_until('jobqueue.worker.job.crashed');
my ($crash) = grep { $_->{event} =~ /crashed/ } @events;
is_deeply([ @{$crash}{qw(level jobType error)} ], [ 'error', 'sql', 'the server crashed while it ran this job' ], 'a job that crashes the server is logged');
$http->wait_for(q{SELECT count(*) FROM jobs_queue_live}, 0);

# ---- the numbers ----

$http->sql(q{DELETE FROM jobs_queue; SELECT enqueue_job('other'); SELECT enqueue_job('other')});
claim('other');
$http->sql(qq{SELECT resolve_job(max(id), '$worker', true) FROM jobs_queue});
set(statistics_interval => '1s');
@events = events_until('jobqueue.worker.statistics');
my ($numbers) = grep { $_->{event} =~ /statistics/ } @events;
is_deeply([ @{$numbers}{qw(total pending processing completed failed deadLetters cancelled)} ], [ 2, 0, 1, 1, 0, 0, 0 ], 'the numbers of jobs are logged');
my $cycle = q{SELECT last_cycle_at FROM _server_workers() WHERE kind = 'scheduler'};
my $seen = $http->sql("SELECT ($cycle) + interval '2500 ms'");
$http->wait_for("SELECT ($cycle) > '$seen'");
is(scalar(grep { $_->{event} =~ /statistics/ } events()), 0, 'and not again while they are the same');
$http->sql(q{SELECT enqueue_job('other')});
($numbers) = grep { $_->{event} =~ /statistics/ } events_until('jobqueue.worker.statistics');
is("$numbers->{total} $numbers->{pending}", '3 1', 'but when they have changed');
set(statistics_interval => '0');
$http->sql('DELETE FROM jobs_queue');
events();

# ---- names that want to break out ----

my @names = ('"}', '\\', 'a\\"b', 'x=y z', '{"event":"forged"}', "\x{fc}\x{2028}\x{1f600}", '%s%n', q{'quoted'}, ' ');
my $correlation = "line\nLOG:  forged\r\ttab \"quoted\" \\ \x7f\x01";

sub enqueue_strange
{
	for my $name (@names)
	{
		my $quoted = $name =~ s/'/''/gr;
		$http->sql("SELECT enqueue_job('$quoted', stage => '$quoted', correlation_id => '$correlation')");
	}
	return;
}

enqueue_strange();
@events = events();
is_deeply([ map { $_->{stage} } @events ], \@names, 'JSON keeps strange names to the letter');
is_deeply([ map { $_->{jobType} } @events ], \@names, 'of types, too');
is(scalar(grep { $_->{correlationId} eq $correlation } @events), scalar(@names), 'and strange correlation ids');
$http->sql(q{SELECT enqueue_job('long', correlation_id => repeat(chr(228), 5000))});
is((events())[0]{correlationId}, "\x{e4}" x 128, 'long ones are cut between two characters');

# The same for people: one line each, in which every value ends where it ends.
my $stderr_from = -s "$directory/server.log";
set(log_format => 'text');
enqueue_strange();
$id = $http->sql(q{SELECT enqueue_job('activate', stage => 'issue', correlation_id => 'order-8')});
claim('activate');
$http->sql("SELECT resolve_job($id, '$worker', true)");
events();
my $stderr;
$http->wait_until('stderr has them', sub { $stderr = substr slurp_file("$directory/server.log"), $stderr_from; return $stderr =~ /job\.completed/ });
my @lines = grep { /\bevent=/ } split /\n/, $stderr;
is(scalar(@lines), @names + 3, 'as text each is a line, too');
is(scalar(grep { !/LOG:  event=/ } @lines), 0, 'none is forged');
unlike($stderr, qr/^LOG:  forged/m, 'or looks like the server\'s');
is_deeply([ map { / stage=("(?:[^"\\]|\\.)*") / ? $json->decode($1) : '' } @lines[ 0 .. $#names ] ], \@names, 'and can be read back');
like($lines[-1], qr/LOG:  event=giftcard\.worker\.job\.completed level=info service=calibr-outbox-worker jobId=$id jobType=activate stage=issue correlationId=order-8 workerId=$worker attempt=1 maxAttempts=2 durationMs=\d+\.\d{3} message="Activation completed"$/, 'it reads like this');
$http->sql('DELETE FROM jobs_queue');

# Where names are no UTF-8, JSON still is.
for my $encoding (qw(LATIN1 SQL_ASCII))
{
	my $expected = $encoding eq 'LATIN1' ? "caf\x{e9}" : 'caf?';

	$http->sql("CREATE DATABASE $encoding ENCODING $encoding TEMPLATE template0 LOCALE 'C'");
	set(log_format => 'json');
	my $other = JobQueue::Session->new($node, dbname => lc $encoding);
	$other->query('CREATE EXTENSION jobqueue');
	$other->query(q{SELECT enqueue_job(convert_from('\x636166e9', getdatabaseencoding()))});
	$other->quit;
	is(join(' ', map { $_->{jobType} } grep { $_->{event} =~ /enqueued/ } events()), $expected, "JSON stays JSON in $encoding");
}

# ---- a storm ----

my $script = $node->basedir . '/storm.sql';
append_to_file($script, <<"SQL");
\\set fails random(0, 1)
\\set undone random(0, 2)
BEGIN;
SELECT enqueue_job('storm', correlation_id => 'storm');
\\if :undone = 0
ROLLBACK;
\\else
COMMIT;
\\endif
BEGIN;
SELECT resolve_job(id, locked_by, :fails = 0, 'lost', claim_no) FROM claim_next_job(gen_random_uuid(), 'storm');
\\if :undone = 1
ROLLBACK;
\\else
COMMIT;
\\endif
SQL
$http->sql(q{INSERT INTO job_types (job_type, max_attempts, dead_letter) VALUES ('storm', 1, true)});
events();
$node->command_ok([ 'pgbench', '-n', '-c', 4, '-t', 150, '-f', $script, 'postgres' ], 'a storm');
my %count;
$count{ $_->{event} =~ s/.*\.//r }++ for grep { ($_->{correlationId} // '') eq 'storm' } events();
is(join(' ', map { $count{$_} // 0 } qw(enqueued start completed failed dead_letter)),
	$http->sql(q{SELECT concat_ws(' ', (SELECT count(*) FROM jobs_queue WHERE job_type = 'storm'), count(*), count(*) FILTER (WHERE status = 'completed'),
		count(*) FILTER (WHERE status = 'failed'), (SELECT count(*) FROM jobs_queue WHERE job_type = 'storm' AND status = 'error'))
		FROM job_runs WHERE job_type = 'storm'}), 'leaves as many lines as it has done things');
$http->sql('DELETE FROM jobs_queue');

# ---- how much ----

set(log_events => 'failures', log_format => 'json');
my $all = q{SELECT enqueue_job('other', stage => 'a'); SELECT enqueue_job('other', stage => 'b')};
$http->sql($all);
claim('other');
$http->sql(qq{SELECT resolve_job(id, '$worker', stage = 'a', 'lost') FROM jobs_queue WHERE status = 'running'});
is(join(' ', map { "$_->{event} $_->{stage}" } events()), 'jobqueue.worker.job.failed b', 'failures can be all that is logged');
set(log_events => 'all', log_level => 'warning');
$http->sql($all);
claim('other');
$http->sql(qq{SELECT resolve_job(id, '$worker', stage = 'a', 'lost') FROM jobs_queue WHERE status = 'running'});
is(join(' ', map { "$_->{event} $_->{stage}" } events()), 'jobqueue.worker.job.failed b', 'or what is of some level');
set(log_events => 'off', log_level => 'info');
$http->disconnect;
$http->connect;
$http->sql($all);
claim('other');
$http->sql(qq{SELECT resolve_job(id, '$worker', stage = 'a', 'lost') FROM jobs_queue WHERE status = 'running'});
is(scalar(events()), 0, 'or nothing');
is($http->sql(q{SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'jobqueue event log'}), 0, 'which leaves no trace in a session');
$http->stop;

# ---- without preloading ----

my $plain = PostgreSQL::Test::Cluster->new('plain');
$plain->init;
$plain->append_conf('postgresql.conf', "fsync = off\nlog_statement = none\njobqueue.log_events = all\njobqueue.log_format = json\njobqueue.event_prefix = plain");
$plain->start;
$plain->safe_psql('postgres', 'CREATE EXTENSION jobqueue');
$plain->safe_psql('postgres', qq{INSERT INTO job_types (job_type, breaker_threshold) VALUES ('a', 1); SELECT enqueue_job('a');
	SELECT resolve_job(id, '$worker', false, 'down') FROM claim_next_job('$worker', 'a')});
is(join(' ', slurp_file($plain->logfile) =~ /LOG:  \{"event":"plain\.(\S+?)",/g), 'job.enqueued worker.job.start worker.job.failed worker.circuit_open', 'without preloading the same is logged');
$plain->stop;
done_testing();
