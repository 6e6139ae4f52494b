# Error rules, backoff functions and skipped jobs in the workers of the server.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::HttpJobs;
use PostgreSQL::Test::Utils;
use Test::More;

my $http = JobQueue::HttpJobs->new('main', conf => <<'CONF');
jobqueue.allow_superuser_jobs = off
jobqueue.retry_delay = 1h
jobqueue.cancel_grace = 500ms
CONF
my $node = $http->{node};
my $server = $http->{server};

$http->sql($_) for split /\n/, <<'SQL';
CREATE ROLE alice LOGIN
GRANT ALL ON SCHEMA public TO alice
SELECT grant_job_role('alice', r) FROM unnest('{producer,operator}'::text[]) r
CREATE TABLE effects (job_id bigint, what text)
GRANT ALL ON effects TO alice
CREATE SCHEMA own AUTHORIZATION alice
SQL

sub as_alice { return $node->safe_psql('postgres', $_[0], extra_params => [ '-U', 'alice' ]) }

# What became of a job: its status and attempts, how long it waits, its last run.
sub fate
{
	my ($id) = @_;

	$http->wait_for("SELECT count(*) > 0 FROM job_runs WHERE job_id = $id");
	return $http->sql(<<~"SQL");
		SELECT concat_ws(' ', j.status, attempts, CASE j.status WHEN 'queued' THEN (scheduled_at - j.updated_at)::text END, '/', r.status, charged)
		FROM jobs_queue j JOIN LATERAL (SELECT * FROM job_runs r WHERE job_id = j.id ORDER BY claim_no DESC LIMIT 1) r ON true WHERE j.id = $id
		SQL
}

sub error_of { return $http->sql("SELECT error FROM job_runs WHERE job_id = $_[0] ORDER BY claim_no DESC LIMIT 1") }

# ---- SQL jobs ----

for my $mode (qw(batched alone autonomous))
{
	as_alice(<<~"SQL");
		INSERT INTO job_types (job_type, runner, command, mode, backoff, error_rules) VALUES ('rules $mode', 'sql',
			\$\$INSERT INTO effects VALUES (\$2, \$1->>'what'); SELECT 1 / (\$1->>'n')::int\$\$, '$mode', '["40 s", "50 s"]', '[
			{"sqlstate": "22P02", "then": "fail"}, {"sqlstate": "220*", "error_like": "division%", "then": "release", "delay": "30 s"}, {"sqlstate": "22003", "then": "skip"}]')
		SQL
	as_alice("SELECT enqueue_jobs('rules $mode', '{\"{\\\"n\\\": 0}\",\"{\\\"n\\\": \\\"x\\\"}\",\"{\\\"n\\\": 99999999999}\",\"{\\\"n\\\": 1}\",\"{\\\"n\\\": 1, \\\"what\\\": 0}\"}')");
	my %id = map { reverse split /\|/ } split /\n/, $http->sql("SELECT id, payload->>'n' FROM jobs_queue WHERE job_type = 'rules $mode' AND NOT payload ? 'what'");
	is(fate($id{0}), 'queued 0 00:00:30 / released f', "$mode: released without charge");
	is(fate($id{x}), 'failed 1 / failed t', "$mode: no further attempt");
	is(fate($id{99999999999}), 'completed 1 / skipped t', "$mode: skipped");
	is(fate($id{1}), 'completed 1 / completed t', "$mode: and the one that succeeds");
	like(error_of($id{99999999999}), qr/ \(22003\)$/, "$mode: the reason");

	my $id = as_alice("SELECT enqueue_sql(\$\$INSERT INTO effects VALUES (\$2, 'kept'); SELECT skip_current_job('nothing to do'), 1 AS one\$\$, mode => '$mode')");
	is(fate($id), 'completed 1 / skipped t', "$mode: a body that calls itself skipped");
	is(error_of($id), 'nothing to do', "$mode: why");
	is($http->sql("SELECT what FROM effects WHERE job_id = $id"), 'kept', "$mode: what it did is done");
	is($http->sql("SELECT result IS NULL FROM jobs_queue WHERE id = $id"), 't', "$mode: without a result");
	$id = as_alice("SELECT enqueue_sql(\$\$SELECT skip_current_job('in vain'); SELECT 1/0\$\$, mode => '$mode', max_attempts => 1)");
	is(fate($id), 'failed 1 / failed t', "$mode: unless it fails");
	$id = as_alice("SELECT enqueue_sql('SELECT 1', mode => '$mode')");
	is(fate($id), 'completed 1 / completed t', "$mode: the next one is not skipped");
}

# A dependent job does not care.
as_alice(q{SELECT enqueue_sql('SELECT skip_current_job()', scheduled_at => now() + interval '1 second')}) =~ /(\d+)/;
my $parent = $1;
my $child = as_alice("SELECT enqueue_job('rules batched', '{\"n\": 1}', depends_on => ARRAY[$parent])");
is(fate($child), 'completed 1 / completed t', 'a skipped job releases those that wait for it');

# ---- backoff functions of SQL jobs ----

as_alice(<<'SQL');
CREATE FUNCTION own.answer(attempt integer, error text) RETURNS interval LANGUAGE plpgsql AS $$
BEGIN
	ASSERT current_user = 'alice' AND current_setting('search_path') = 'pg_catalog, pg_temp' AND current_setting('transaction_read_only') = 'on';
	RETURN CASE WHEN error LIKE 'division%' THEN attempt * interval '7 s' END;
END $$;
CREATE FUNCTION own.become(attempt integer, error text) RETURNS interval LANGUAGE plpgsql AS $$
BEGIN
	RESET ROLE;
	RETURN '7 s';
END $$;
CREATE FUNCTION own.sleep(attempt integer, error text) RETURNS interval LANGUAGE sql AS $$ SELECT interval '7 s' FROM pg_catalog.pg_sleep(1000) $$;
CREATE FUNCTION own.deaf(attempt integer, error text) RETURNS interval LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		BEGIN
			PERFORM pg_sleep(1000);
		EXCEPTION WHEN query_canceled THEN NULL;
		END;
	END LOOP;
END $$;
INSERT INTO job_types (job_type, runner, command, backoff)
SELECT f, 'sql', 'SELECT 1 / ($1->>''n'')::int', jsonb_build_object('strategy', 'function', 'function', 'own.' || f) FROM unnest('{answer,become,sleep,deaf}'::text[]) f;
SQL
my %id = map { split /\|/ } split /\n/, as_alice(q{SELECT f, enqueue_job(f, '{"n": 0}') FROM unnest('{answer,become,sleep}'::text[]) f});
is(fate($id{answer}), 'queued 1 00:00:07 / failed t', 'the function says how long');
is(fate($id{become}), 'queued 1 01:00:00 / failed t', 'one that would be somebody else gives no delay');
is(fate($id{sleep}), 'queued 1 01:00:00 / failed t', 'nor one that takes too long');
like(slurp_file($node->logfile), qr/WARNING:  the backoff function of job type "become" gave no delay \(42501\)/, 'the log says why');
like(slurp_file($node->logfile), qr/WARNING:  the backoff function of job type "sleep" gave no delay \(57014\)/, 'in both cases');
my $null = as_alice(q{SELECT enqueue_job('answer', '{"n": "x"}')});
is(fate($null), 'queued 1 01:00:00 / failed t', 'nor does null');

# The end of the job is recorded by somebody else, who asks nobody.
my $deaf = as_alice(q{SELECT enqueue_job('deaf', '{"n": 0}')});
is(fate($deaf), 'queued 1 01:00:00 / failed t', 'one that does not listen costs the process');
like(error_of($deaf), qr/terminated \(57P01\)/, 'which is what the run says');

# Rules hold there, too.
as_alice(q{UPDATE job_types SET error_rules = '[{"sqlstate": "57P01", "then": "skip"}]' WHERE job_type = 'deaf'});
$deaf = as_alice(q{SELECT enqueue_job('deaf', '{"n": 0}', scheduled_at => now() + interval '500 ms')});
$child = as_alice("SELECT enqueue_job('rules batched', '{\"n\": 1}', depends_on => ARRAY[$deaf])");
is(fate($deaf), 'completed 1 / skipped t', 'a rule for a process that was terminated');
is(fate($child), 'completed 1 / completed t', 'releases those that wait, too');

# In somebody's session it is the session.
$http->sql(q{INSERT INTO job_types (job_type, owner, backoff) VALUES ('outside', 'alice', '{"strategy": "function", "function": "own.deaf"}')});
$http->sql(q{SELECT enqueue_job('outside')});
my ($code, $out, $err) = $node->psql('postgres', q{SELECT fail_job((claim_next_job('aaaaaaaa-0000-4000-8000-000000000001', 'outside')).id, 'aaaaaaaa-0000-4000-8000-000000000001')});
like($err, qr/terminating connection/, 'a session is ended by it, too');
is($http->sql(q{SELECT status FROM jobs_queue WHERE job_type = 'outside'}), 'queued', 'and nothing has happened');

# Superusers are refused where their SQL jobs are, also when they come to be ones.
($code, $out, $err) = $node->psql('postgres', q{INSERT INTO job_types (job_type, backoff) VALUES ('super', '{"strategy": "function", "function": "own.answer"}')});
like($err, qr/a backoff function cannot run as superuser/, 'superusers have no backoff functions');
$http->sql(q{INSERT INTO job_types (job_type, owner, backoff) VALUES ('become outside', 'alice', '{"strategy": "function", "function": "own.answer"}')});
$http->sql('ALTER ROLE alice SUPERUSER');
$http->sql(q{SELECT enqueue_job('become outside')});
($code, $out, $err) = $node->psql('postgres', q{SELECT fail_job((claim_next_job('aaaaaaaa-0000-4000-8000-000000000001', 'become outside')).id, 'aaaaaaaa-0000-4000-8000-000000000001')});
like($err, qr/WARNING:  the backoff function of job type "become outside" gave no delay \(42501\)/, 'not even those who have become one');
$http->sql('ALTER ROLE alice NOSUPERUSER');

# A dump has the rights to functions behind the rows that name them.
$http->sql($_) for split /\n/, <<'SQL';
CREATE FUNCTION own.lent(attempt integer, error text) RETURNS interval LANGUAGE sql AS $$ SELECT interval '6 s' $$
REVOKE EXECUTE ON FUNCTION own.lent FROM PUBLIC
GRANT EXECUTE ON FUNCTION own.lent TO alice
INSERT INTO job_types (job_type, owner, backoff) VALUES ('lent', 'alice', '{"strategy": "function", "function": "own.lent"}')
CREATE DATABASE copy
SQL
my $dump = PostgreSQL::Test::Utils::tempdir . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, 'postgres' ], 'a database with a backoff function is dumped');
$node->command_ok([ 'pg_restore', '-e', '-d', 'copy', $dump ], 'and restored');
is($node->safe_psql('copy', q{
	SELECT enqueue_job('lent') \gset id_
	SELECT fail_job((claim_next_job('aaaaaaaa-0000-4000-8000-000000000001', 'lent')).id, 'aaaaaaaa-0000-4000-8000-000000000001');
	SELECT scheduled_at - updated_at FROM jobs_queue WHERE job_type = 'lent'}), "t\n00:00:06", 'and works there');

# ---- HTTP jobs ----

my $rules = <<'JSON';
[{"http_status": 404, "then": "skip"}, {"http_status": [410, 418], "then": "retry", "delay": "20 s"},
{"http_status": 400, "error_like": "%rate%", "then": "release", "delay": "40 s"}, {"http_status": "5xx", "then": "fail"},
{"http_status": 429, "then": "release"}, {"error_like": "the request failed: %connect%", "then": "release", "delay": "50 s"}]
JSON
sub answer
{
	my ($status, $body, $headers) = @_;

	$body //= '';
	return $server->raw_url("HTTP/1.1 $status X\r\n" . ($headers // '') . "Content-Type: text/plain\r\nContent-Length: " . length($body) . "\r\n\r\n$body");
}
my %url = (404 => answer(404), 410 => answer(410), 400 => answer(400, 'bad rate'), 'other 400' => answer(400, 'bad'), 503 => answer(503),
	429 => answer(429), 'later 429' => answer(429, '', "Retry-After: 500\r\n"), refused => 'http://127.0.0.1:1/', 200 => answer(200));
$http->add("answer $_", $url{$_}, {}, { backoff => '"9 s"', error_rules => $rules, max_attempts => 2 }) for keys %url;
my %job = map { $_ => $http->enqueue("answer $_") } sort keys %url;
is(fate($job{404}), 'completed 1 / skipped t', '404 is skipped');
is(fate($job{410}), 'queued 1 00:00:20 / failed t', '410 is tried again, where it would have failed for good');
is(fate($job{400}), 'queued 0 00:00:40 / released f', '400 with a certain text does not count');
is(fate($job{'other 400'}), 'failed 1 / failed t', '400 without it fails as always');
is(fate($job{503}), 'failed 1 / failed t', '503 fails at once');
is(fate($job{429}), 'queued 0 00:00:09 / released f', '429 does not count');
like(fate($job{'later 429'}), qr{^queued 0 00:08:\S+ / released f$}, 'and heeds Retry-After');
is(fate($job{refused}), 'queued 0 00:00:50 / released f', 'a server that cannot be reached');
is(fate($job{200}), 'completed 1 / completed t', 'success is success');
is($http->sql("SELECT (response->>'status')::int FROM job_runs WHERE job_id = $job{404}"), 404, 'the answer of a skipped one is kept');
is(error_of($job{404}), 'HTTP status 404', 'with the reason');
is($http->sql("SELECT result IS NULL FROM jobs_queue WHERE id = $job{404}"), 't', 'and no result');

# What is refused is refused: nobody's rule sends it.
$http->add('forbidden', 'http://10.1.2.3/', {}, { backoff => '"9 s"', error_rules => '[{"then": "retry"}]', max_attempts => 2 });
is(fate($http->enqueue('forbidden')), 'failed 1 / failed t', 'a rule does not bring a refused request back');

# A dispatcher runs nobody's code, whatever the job type has become meanwhile.
$http->add('changing', '/gate/changing', { owner => 'alice' }, { owner => 'alice', backoff => '"9 s"', max_attempts => 2 });
($code, $out, $err) = $node->psql('postgres', q{UPDATE job_types SET backoff = '{"strategy": "function", "function": "own.answer"}' WHERE job_type = 'changing'});
like($err, qr/a backoff function is not for runner "http"/, 'HTTP jobs have no backoff functions');
my $changing = $http->enqueue('changing');
$http->wait_for_requests('/gate/changing', 1);
$http->sql(q{UPDATE job_types SET runner = 'external', endpoint = NULL, backoff = '{"strategy": "function", "function": "own.lent"}' WHERE job_type = 'changing'});
$server->stop;
is(fate($changing), 'queued 1 01:00:00 / failed t', 'not even by a change while one is under way');

$http->stop;
done_testing();
