# Whether Guide Validator does what its system is asked for: requirements C1 to C19.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../../test/lib";
use IPC::Run ();
use JobQueue::Example;
use JobQueue::Peers qw(need_peers peer_program peers_directory start_peer);
use JSON::PP qw(decode_json);
use PostgreSQL::Test::Cluster ();
use PostgreSQL::Test::Utils qw(append_to_file slurp_file);
use Test::More;

need_peers('pgbouncer', 'node-postgres', 'psycopg2');

my $guide = JobQueue::Example->new('guide-validator', ids => [ map { "C$_" } 1 .. 19 ],
	variables => { sentry_url => '/ok/sentry' });
my ($server, $node) = @{$guide}{qw(server node)};
my $owner = $guide->session('guide');
my $app = $guide->session('guide_app');
my $user = $guide->session('guide_user');
$user->query(q{SET request.jwt.claim.sub = 'ann'});

sub column { my ($id, $columns) = @_; return $guide->sql("SELECT $columns FROM jobs_queue WHERE id = $id") }
sub upload { return $user->query(sprintf q{SELECT guide.upload_document('%s')}, $server->url($_[0])) }
sub make_due { $guide->sql(q{UPDATE jobs_queue SET scheduled_at = now() WHERE status = 'queued'}); return }

# A worker that the test plays, for what is about single claims.
my $service = $guide->session('guide_service');
my @uuid = map { sprintf '00000000-0000-4000-8000-%012d', $_ } 1 .. 2;
sub claim { my ($uuid, $job_type) = @_; return $service->query("SELECT id FROM claim_next_job('$uuid', '$job_type')") }

# ---- the pooler: in front of a server that wants to see keys, too ----

my $pooler = PostgreSQL::Test::Utils::tempdir('pooler');
my $port = PostgreSQL::Test::Cluster::get_free_port();
append_to_file("$pooler/pgbouncer.ini", <<"INI");
[databases]
* = host=${\ $node->host} port=${\ $node->port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $port
unix_socket_dir =
%include $FindBin::RealBin/pgbouncer.ini
query_wait_timeout = 1
INI
my $hba = slurp_file($node->data_dir . '/pg_hba.conf');
unlink $node->data_dir . '/pg_hba.conf';
$node->append_conf('pg_hba.conf', "local all +guide_service,guide_cron scram-sha-256\n$hba");
$node->reload;
start_peer([ peer_program('pgbouncer'), '-q', "$pooler/pgbouncer.ini" ], $port);

my %key = map { $_ => $guide->sql("SELECT guide.create_service_key('$_')") } 'key_1', 'key_2';
$guide->sql(q{ALTER ROLE guide_cron PASSWORD 'minute'});
$key{guide_cron} = 'minute';
sub url { my ($role) = @_; return "postgresql://$role:$key{$role}\@127.0.0.1:$port/postgres" }

# The workers that are shipped: their processes, and the lines that they printed.
sub start_worker
{
	my ($program, $job_types, $key, @argument) = @_;

	local $ENV{NODE_PATH} = peers_directory() . '/guide-validator/node_modules';
	local $ENV{DATABASE_URL} = url($key);
	local $ENV{WORKER_JOB_TYPES} = $job_types;
	local $ENV{WORKER_POLL_MS} = 50;
	local $ENV{OCR_API_KEY} = 'of-this-test';
	my $worker = { said => '', log => '' };
	my $interpreter = $program =~ /js\z/ ? 'node' : '/usr/bin/python3';
	$worker->{run} = IPC::Run::start([ $interpreter, "$FindBin::RealBin/$program", @argument ], '>', \$worker->{said}, '2>', \$worker->{log});
	return $worker;
}

sub lines { my ($worker) = @_; $worker->{run}->pump_nb if $worker->{run}->pumpable; return map { decode_json($_) } grep { /\A\{.*\}\z/ } split /\n/, $worker->{said} }
sub said { my ($worker, $event) = @_; return scalar grep { $_->{event} eq $event } lines($worker) }
sub end_worker { my ($worker, $signal) = @_; $worker->{run}->signal($signal) if $signal; $worker->{run}->finish; return $worker->{run}->full_result(0) }

# ---- migrations ----

is($guide->sql(q{SELECT extversion FROM pg_extension WHERE extname = 'jobqueue'}), '1.0', 'C17: the migration names the version that it has installed');
is($owner->try(q{RESET SESSION AUTHORIZATION; ALTER EXTENSION jobqueue UPDATE TO '9.9'}), '22023', 'C17: and one that nobody has cannot be named');
$owner->query('SET SESSION AUTHORIZATION guide');

# ---- jobs ----

$user->query('BEGIN');
upload('/text/0');
$user->query('ROLLBACK');
is($guide->sql('SELECT count(*) FROM jobs_queue'), 0, 'C2: an upload that is rolled back leaves no job');
my $first = upload('/text/1');
is(column($first, q{job_type || ' ' || status || ' ' || (payload->>'document')}), 'ocr queued ' . $user->query('SELECT max(id) FROM guide.documents'), 'C1, C2: an upload and its job commit together');
my $comment = $app->query(q{SELECT guide.post_comment('Nice')});
is(column($comment, 'job_type'), 'moderation', 'C1, C2: as do a comment and its job');
$app->query(q{INSERT INTO jobs_queue (job_type) SELECT 'thumbnail' FROM generate_series(1, 3)});
is($guide->sql(q{SELECT status, attempts, max_attempts, payload, count(*) FROM jobs_queue WHERE job_type = 'thumbnail' GROUP BY 1, 2, 3, 4}), 'queued|0|5|{}|3',
	'C2: a seed is an INSERT; every column but one has a default');
isnt(claim($uuid[0], 'thumbnail'), '', 'C1, C19: a new job type needs nothing at all');
is($owner->query(q{SELECT string_agg(job_type, ' ' ORDER BY job_type) FROM guide.runbook WHERE description IS NOT NULL AND job_type NOT LIKE 'alert:%'}), 'license-renewal moderation ocr', 'C19: the runbook has a line for each');
$owner->query(q{INSERT INTO job_types (job_type, description) VALUES ('thumbnail', 'Makes small images')});
is($owner->query(q{SELECT description, queued FROM guide.runbook WHERE job_type = 'thumbnail'}), 'Makes small images|2', 'C19: and grows by a row');
$guide->sql(q{DELETE FROM jobs_queue WHERE job_type = 'thumbnail'});

# ---- the contract ----

is($service->query("SELECT id, payload->>'url' FROM claim_next_job(worker_id => '$uuid[0]', job_type => 'ocr')"), "$first|" . $server->url('/text/1'), 'C3, C6: claimed by name, with its payload');
is(column($first, q{status || ' ' || locked_by}), "running $uuid[0]", 'C5: by the uuid of this worker');
is(claim($uuid[1], 'ocr'), '', 'C3: nothing left is no row');
is($service->query("SELECT resolve_job(job_id => $first, worker_id => '$uuid[1]', success => true, error => NULL)"), 'f', 'C4: another worker cannot resolve it');
is($service->query("SELECT resolve_job(job_id => $first, worker_id => '$uuid[0]', success => true, error => NULL)"), 't', 'C4: its own can');
is($service->query("SELECT resolve_job($first, '$uuid[0]', false, 'late')") . ' ' . column($first, 'status'), 'f completed', 'C4, C7: once');
is($service->query("SELECT id FROM claim_next_job('$uuid[0]')"), $comment, 'C3: without a job type any job is claimed');
is($service->query("SELECT resolve_job($comment, '$uuid[0]', false, 'model is not available')"), 't', 'C4, C7: a failure, by position, with its error');
is(column($comment, q{status || ' ' || attempts || ' ' || max_attempts || ' ' || last_error}), 'queued 1 5 model is not available', 'C7, C8: queued again, for there are attempts left');
is(column($comment, 'extract(epoch FROM scheduled_at - updated_at)::int'), 300, 'C9: in five minutes');
is(claim($uuid[0], 'moderation'), '', 'C9: not before');
for (2 .. 5) { make_due(); $service->query("SELECT resolve_job(" . claim($uuid[0], 'moderation') . ", '$uuid[0]', false, 'model is still not available')") }
is(column($comment, q{status || ' ' || attempts || ' ' || last_error}), 'failed 5 model is still not available', 'C8: after the last attempt it has failed');
is($owner->query("SELECT string_agg(attempt || ' ' || status, ', ' ORDER BY attempt) FROM guide.audit WHERE job_id = $comment AND error LIKE 'model is%'"), join(', ', map { "$_ failed" } 1 .. 5), 'C7, C15: and each attempt has a row');
$guide->sql("DELETE FROM jobs_queue WHERE id = $comment");
is($owner->query("SELECT count(*) FROM guide.audit WHERE job_id = $comment"), 5, 'C15: which is there when the job is not');

# ---- alerts ----

# What Sentry was told of jobs of a type.
sub wait_until_told
{
	my ($job_type, $what) = @_;
	my @told;

	$guide->wait_until("Sentry hears of $job_type", sub { @told = grep { /$job_type.*$what/ } map { $_->{body} } $server->requests('/ok/sentry') });
	return $told[0];
}
my $lost = $app->query(q{SELECT enqueue_job('moderation', max_attempts => 1)});
$service->query("SELECT resolve_job(" . claim($uuid[0], 'moderation') . ", '$uuid[0]', false, 'model is gone')");
is($owner->query(q{SELECT job_type || ' ' || count(*) FROM jobs_queue WHERE status = 'failed' GROUP BY job_type}), 'moderation 1', 'C13: a job that has failed is a row with that status');
like(wait_until_told('moderation', 'ended without success'), qr/critical/, 'C13: of which Sentry is told');
$guide->sql(q{SELECT _evaluate_alerts(now() + interval '9 minutes')});
is($guide->sql(q{SELECT count(*) FROM alerts WHERE kind = 'failed_older_than'}), 0, 'C14: for ten minutes somebody may look after it');
$guide->sql(q{SELECT _evaluate_alerts(now() + interval '11 minutes')});
like(wait_until_told('moderation', 'nobody has looked after'), qr/warning/, 'C14: then Sentry is told again');
$guide->sql("DELETE FROM jobs_queue WHERE id = $lost OR job_type LIKE 'alert:%'");

# ---- who may do what ----

is($service->try('SELECT FROM jobs_queue') . ' ' . $service->try('SELECT FROM guide.documents'), '42501 42501', 'C16: the service role reads no table');
is($guide->sql(q{SELECT string_agg(c.oid::regclass::text, ' ') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE n.nspname IN ('public', 'guide') AND c.relkind IN ('r', 'p', 'v') AND has_table_privilege('guide_service', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER, REFERENCES')}), '', 'C16: nor has any other right to one');
is($service->try(q{SELECT enqueue_job('ocr')}) . ' ' . $service->try(q{SELECT guide.create_service_key('mine')}), '42501 42501', 'C16: it works, and that is all');
is($app->try("SELECT claim_next_job('$uuid[0]')") . ' ' . $user->try("SELECT claim_next_job('$uuid[0]')"), '42501 42501', 'C16: nobody else claims');
is($user->try(q{SELECT enqueue_job('ocr')}) . ' ' . $user->try('SELECT FROM jobs_queue'), '42501 42501', 'C16: who logs in to the site does not see the queue');
is($user->query('SELECT count(*) FROM guide.documents') . ' ' . $user->query(q{SET request.jwt.claim.sub = 'bob'; SELECT count(*) FROM guide.documents}), '1 0', 'C16: and the function that uploads leaves row security as it is');

# ---- workers, through the pooler ----

$owner->query(q{INSERT INTO guide.licenses (holder, expires_on) VALUES ('Ann', current_date + 10), ('Bob', current_date + 100)});
my @worker = ((map { start_worker('worker.js', 'ocr,moderation', 'key_1') } 1 .. 3), map { start_worker('worker.py', 'ocr,license-renewal', 'key_1') } 1, 2);
my @held = map { upload("/gate/together/$_") } 1 .. 5;
$guide->wait_for_requests('/gate/together', 5);
is($guide->sql(q{SELECT count(*) || ' ' || count(DISTINCT locked_by) FROM jobs_queue WHERE status = 'running'}), '5 5', 'C3, C5: five workers have a job each');
is(join(' ', map { $_->{headers}{authorization} } ($server->requests('/gate/together'))[0]), 'Bearer of-this-test', 'C18: each with the secrets of its environment');
my $backends = q{SELECT count(*), count(*) FILTER (WHERE state LIKE 'idle in transaction%') FROM pg_stat_activity WHERE usename = 'key_1'};
like($guide->sql($backends), qr/\A[12]\|0\z/, 'C18: and two connections for all of them, none in a transaction');
$server->open_gate('together');
upload("/text/$_") for 1 .. 40;
$app->query(qq{SELECT guide.post_comment('$_')}) for ('Lovely', 'A lottery for all', 'Thanks') x 5;
$owner->query(q{SELECT run_cron_task('license-renewal')});
$guide->wait_until_done;
is($owner->query(q{SELECT count(*), min(times_read), max(times_read) FROM guide.documents WHERE content IS NOT NULL}), '45|1|1', 'C3, C4: every document has been read, once');
is($owner->query(q{SELECT count(*) FILTER (WHERE verdict = 'fine'), count(*) FILTER (WHERE verdict = 'spam') FROM guide.comments WHERE verdict IS NOT NULL}), '10|5', 'C1: and every comment');
is($owner->query(q{SELECT count(*) FROM guide.renewals}), 1, 'C1, C10: and the licence that expires soon is renewed');
is($guide->sql(q{SELECT count(*) FROM jobs_queue q JOIN job_runs r ON r.job_id = q.id WHERE q.job_type IN ('ocr', 'moderation', 'license-renewal') AND r.status <> 'completed'}), 0, 'C4: without one attempt that was in vain');
is($guide->sql(q{SELECT count(*) FROM pg_stat_activity WHERE usename = 'key_1' AND query ~* 'listen|advisory|prepare|set session'}) . ' ' . $guide->sql('SELECT count(*) FROM pg_listening_channels()'), '0 0', 'C18: all that by single statements and short transactions');

my $failing = upload('/status/503');
$guide->wait_for("SELECT attempts FROM jobs_queue WHERE id = $failing AND status = 'queued'", 1);
like(column($failing, 'last_error'), qr/503/, 'C7: what a worker could not do it says');
is(column($failing, 'extract(epoch FROM scheduled_at - updated_at)::int'), 300, 'C9: and leaves it to the database when to try again');
$guide->sql("SELECT cancel_job($failing)");

# ---- workers that die, or fall silent ----

sub holder_of { my ($id) = @_; my $uuid = column($id, 'locked_by'); return (grep { grep { $_->{worker} eq $uuid } lines($_) } @worker)[0] }
sub runs { return $owner->query("SELECT string_agg(status, ' ' ORDER BY started_at) FROM guide.audit WHERE job_id = $_[0]") }
sub times_read { return $owner->query("SELECT times_read FROM guide.documents WHERE id = " . column($_[0], q{payload->>'document'})) }
my $expire = q{UPDATE jobs_queue SET lease_expires_at = now() WHERE id = };

my $orphan = upload('/gate/orphan');
$guide->wait_for_requests('/gate/orphan', 1);
$guide->wait_until('its worker has said so', sub { holder_of($orphan) });
my $victim = holder_of($orphan);
end_worker($victim, 'KILL');
@worker = grep { $_ != $victim } @worker;
is(column($orphan, 'status'), 'running', 'C4: a worker that is killed leaves its job');
$guide->sql("$expire $orphan");
$guide->wait_for_requests('/gate/orphan', 2);
$server->open_gate('orphan');
$guide->wait_for("SELECT status FROM jobs_queue WHERE id = $orphan", 'completed');
is(runs($orphan) . ' ' . times_read($orphan), 'expired completed 1', 'C4, C15: another one gets it when the lease is over, and both attempts are on record');

my $slow = upload('/gate/slow');
$guide->wait_for_requests('/gate/slow', 1);
$guide->wait_until('its worker has said so', sub { holder_of($slow) });
my $silent = holder_of($slow);
$silent->{run}->signal('STOP');
$guide->sql("$expire $slow");
$guide->wait_for_requests('/gate/slow', 2);
$server->open_gate('slow');
$guide->wait_for("SELECT status FROM jobs_queue WHERE id = $slow", 'completed');
$silent->{run}->signal('CONT');
$guide->wait_until('it notices', sub { said($silent, 'lost') });
is(runs($slow) . ' ' . times_read($slow), 'expired completed 1', 'C4: a worker that comes back too late has lost its job, and what it wrote with it');

# ---- the end of a worker ----

my $last = upload('/gate/last');
$guide->wait_for_requests('/gate/last', 1);
$guide->wait_until('its worker has said so', sub { holder_of($last) });
my $ending = holder_of($last);
$ending->{run}->signal('TERM');
$server->open_gate('last');
is(end_worker($ending) . ' ' . column($last, 'status'), '0 completed', 'C18: a worker that is told to stop ends its job first');
@worker = grep { $_ != $ending } @worker;
is(join(' ', map { end_worker($_, 'TERM') } @worker), join(' ', (0) x @worker), 'C18: and one that has none ends at once');
upload('/text/50') for 1 .. 3;
my @function = map { start_worker($_, 'ocr', 'key_1', 'once') } 'worker.js', 'worker.py';
is(join(' ', map { end_worker($_) } @function), '0 0', 'C18: a function that is called now and then works off what is there');
is($guide->sql(q{SELECT count(*) FROM jobs_queue_live}), 0, 'C18: so that nothing is left');

# ---- cron ----

is($owner->query(q{SELECT schedule, timezone, job_type, next_run_at > now() FROM cron_tasks}), '0 6 * * *|Europe/Berlin|license-renewal|t', 'C10: a cron task is a row');
$owner->query(q{UPDATE cron_tasks SET schedule = '0 18 * * *' WHERE name = 'license-renewal'});
is($owner->query(q{SELECT extract(hour FROM next_run_at AT TIME ZONE timezone) FROM cron_tasks}), 18, 'C10: which is changed by UPDATE');
$owner->query(q{INSERT INTO cron_tasks (name, schedule, job_type) SELECT 'sweep ' || n, '0 0 1 1 *', 'sweep' FROM generate_series(1, 20) n});
sub outside { my ($statement) = @_; my $run = { said => '' }; $run->{run} = IPC::Run::start([ 'psql', '-XAtq', '-d', url('guide_cron'), '-c', $statement ], '>', \$run->{said}, '2>', \$run->{log}); return $run }
my $before = $guide->sql('SELECT now()');
my @outside = map { outside(q{SELECT enqueue_cron_tasks() FROM generate_series(1, 200)}) } 1 .. 3;
$owner->query(q{UPDATE cron_tasks SET next_run_at = now() WHERE name LIKE 'sweep%'});
end_worker($_) for @outside;
$guide->wait_for(q{SELECT count(*) FROM cron_tasks WHERE next_run_at <= now()}, 0);
is($guide->sql(q{SELECT count(*), count(DISTINCT cron_task_id) FROM jobs_queue WHERE job_type = 'sweep'}), '20|20', 'C11, C12: whoever calls, the server and three schedulers outside at once, each task is enqueued once');
is($guide->sql("SELECT count(*) FROM cron_tasks WHERE name LIKE 'sweep%' AND last_enqueued_at > '$before'"), 20, 'C12: and its row says when');
my $again = outside('SELECT enqueue_cron_tasks()');
is(end_worker($again) . " $again->{said}", "0 0\n", 'C11, C12: in the same minute there is nothing more to enqueue');
$guide->sql('ALTER SYSTEM SET jobqueue.launcher = off');
$_->quit for $owner, $app, $user, $service;
$guide->disconnect;
$node->restart;
$guide->connect;
($owner, $app, $user, $service) = map { $guide->session($_) } qw(guide guide_app guide_user guide_service);
$user->query(q{SET request.jwt.claim.sub = 'ann'});
$owner->query(q{UPDATE cron_tasks SET next_run_at = now() WHERE name LIKE 'sweep%'});
my $alone = outside('SELECT enqueue_cron_tasks()');
is(end_worker($alone) . " $alone->{said}", "0 20\n", 'C11: where the server has no workers, the scheduler outside does it all');
like(outside_error('SELECT FROM cron_tasks'), qr/permission denied/, 'C11, C16: which is all that it may do');
sub outside_error { my $run = outside($_[0]); end_worker($run); return $run->{log} }
$guide->sql(q{DELETE FROM jobs_queue WHERE job_type = 'sweep'});

# ---- a key leaks ----

my $old = start_worker('worker.js', 'ocr', 'key_1');
my $job = upload('/text/60');
$guide->wait_for("SELECT status FROM jobs_queue WHERE id = $job", 'completed');
my $new = start_worker('worker.py', 'ocr', 'key_2');
$job = upload('/text/61');
$guide->wait_for("SELECT status FROM jobs_queue WHERE id = $job", 'completed');
$guide->sql(q{SELECT guide.revoke_service_key('key_1')});
$guide->wait_until('the old key is refused', sub { said($old, 'loop_error') });
like((grep { $_->{event} eq 'loop_error' } lines($old))[0]{error}, qr/./, 'C16: a key that has leaked is revoked, and who has it is thrown out');
@function = start_worker('worker.py', 'ocr', 'key_1', 'once');
isnt(end_worker($function[0]), 0, 'C16: nor does it let anybody in');
$job = upload('/text/62');
$guide->wait_for("SELECT status FROM jobs_queue WHERE id = $job", 'completed');
is($guide->sql("SELECT worker_id = '" . (lines($new))[0]{worker} . "' FROM job_runs WHERE job_id = $job"), 't', 'C16: workers with the new key go on');
end_worker($_, 'TERM') for $old, $new;
unlike(slurp_file($node->logfile) . join('', map { $_->{said} . $_->{log} } $old, $new), qr/\Q$key{key_2}\E/, 'C16: no key is in any log');

$guide->conclude;
