# The dashboard in a real browser: every page in light, dark and on a phone, every
# action, the keyboard alone, and what names and errors must not become.
# test/browser/dashboard.mjs looks, this script prepares what there is to see.
use strict;
use warnings;
use Cwd qw(abs_path);
use FindBin;
use lib "$FindBin::RealBin/../lib";
use IPC::Run qw();
use JobQueue::Cluster qw(wait_for_query);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $libraries = $ENV{JOBQUEUE_TEST_BROWSER} // '/nonexistent';
my ($chromium) = grep { -x } map { "$_/chromium" } split /:/, $ENV{PATH};
if (!$chromium || !-d "$libraries/node_modules/playwright-core")
{
	die "chromium or playwright-core is missing: see test/browser/get\n" if $ENV{JOBQUEUE_TEST_ALL};
	plan skip_all => 'needs what test/browser/get gets';
}

my $token = 'the-token-of-this-test';
my $token_file = PostgreSQL::Test::Utils::tempdir() . '/token';
append_to_file($token_file, "$token\n");
chmod 0600, $token_file;

my ($operator_port, $observer_port) = map { PostgreSQL::Test::Cluster::get_free_port() } 1 .. 2;
my $node = JobQueue::Cluster->new('main', conf => <<"CONF");
jobqueue.monitor_token_file = '$token_file'
jobqueue.http_allow_cidrs = '127.0.0.0/8'
jobqueue.http_allow_ports = '*'
CONF

# Ids that the walk names: 1 to 4 dead letters, 5 to 9 scheduled, 10 full of
# markup, 11 with a correlation id.
$node->safe_psql('postgres', <<'SQL');
	CREATE ROLE monitor_operator LOGIN;
	CREATE ROLE monitor_observer LOGIN;
	SELECT grant_job_role('monitor_operator', 'operator'), grant_job_role('monitor_observer', 'observer');
	CREATE FUNCTION fail_all(types text[], reason text) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
		worker CONSTANT uuid := '00000000-0000-4000-8000-00000000000a';
		job record;
	BEGIN
		FOR n IN 1 .. 40
		LOOP
			FOR job IN SELECT * FROM claim_jobs(worker, types, 100)
			LOOP
				PERFORM job_log('looked at <b onclick="pwned=1">it</b>', job_id => job.id, worker_id => worker);
				PERFORM fail_job(job.id, worker, reason, permanent => true);
			END LOOP;
			EXIT WHEN NOT FOUND;
		END LOOP;
	END
	$$;
	INSERT INTO job_types (job_type, dead_letter) VALUES ('mail', true), ('push', false);
	SET ROLE monitor_operator;
	INSERT INTO http_endpoints (name, url) VALUES ('receiver', 'http://127.0.0.1:9/');
	RESET ROLE;
	SELECT enqueue_job('mail', '{"password": "hush-hush"}') FROM generate_series(1, 4);
	SELECT enqueue_job('mail', scheduled_at => now() + interval '1 day') FROM generate_series(5, 9);
	SELECT enqueue_job('<script>pwned=1</script>', '{"</pre><script>pwned=1</script>": "<img src=x onerror=pwned=1>"}',
		stage => '<img src=x onerror=pwned=1>', correlation_id => '"><svg onload=pwned=1>', tags => '{<script>pwned=1</script>}',
		unique_key => '<b onmouseover=pwned=1>', metadata => '{"x": "</script><script>pwned=1</script>"}');
	SELECT enqueue_job('push', correlation_id => 'order-7');
	SELECT enqueue_jobs('noise', array_fill('{}'::jsonb, '{30}'));
	SELECT enqueue_jobs('bulk', array_fill('{}'::jsonb, '{1200}'), max_attempts => 1);
	SELECT fail_all('{noise}', 'too much noise'), fail_all('{bulk}', 'a bad day');
	SELECT fail_all('{mail}', 'mailbox full'), fail_all('{<script>pwned=1</script>}', '<script>pwned=1</script><img src=x onerror=pwned=1>');
	SELECT pause_job_type('<script>pwned=1</script>', '<img src=x onerror=pwned=1>'), open_circuit('<script>pwned=1</script>', '<i>', reason => '<script>pwned=1</script>');
	SELECT register_worker('00000000-0000-4000-8000-000000000001', 'first worker'), register_worker('00000000-0000-4000-8000-000000000002', 'second worker'),
		register_worker('00000000-0000-4000-8000-000000000003', '<script>pwned=1</script>'), stop_worker('00000000-0000-4000-8000-000000000003', '<img src=x onerror=pwned=1>');
	SELECT schedule_cron_task('nightly', '30 2 * * *', 'push', timezone => 'Europe/Berlin'), schedule_cron_task('hourly', '@hourly', 'push'),
		schedule_cron_task('<img src=x onerror=pwned=1>', '0 0 1 1 *', '<script>pwned=1</script>', description => '<script>pwned=1</script>');
	SELECT pause_cron_task('<img src=x onerror=pwned=1>', '<script>pwned=1</script>');
	INSERT INTO http_endpoints (name, url, description) VALUES ('<script>pwned=1</script>', 'http://127.0.0.1:9/', '<img src=x onerror=pwned=1>');
	SELECT _dashboard_act('<script>pwned=1</script>', '{"items": ["<img src=x onerror=pwned=1>"]}', '<img src=x onerror=pwned=1>');
SQL
$node->append_conf('postgresql.conf', "jobqueue.monitor = 'database=postgres role=monitor_operator port=$operator_port, "
	  . "database=postgres role=monitor_observer port=$observer_port'");
$node->reload;
wait_for_query($node, q{SELECT count(*) = 2 FROM pg_stat_activity WHERE usename LIKE 'monitor\_%'});
wait_for_query($node, q{SELECT count(*) > 0 FROM job_history WHERE job_type = 'bulk'});

my ($said, $errors);
my $ended = IPC::Run::run(
	[ 'node', abs_path("$FindBin::RealBin/../browser/dashboard.mjs"), $libraries,
		"http://127.0.0.1:$operator_port/", "http://127.0.0.1:$observer_port/", $token, $ENV{JOBQUEUE_TEST_SCREENSHOTS} // () ],
	'>', \$said, '2>', \$errors, IPC::Run::timer(240));
my $checks = 0;
foreach my $line (split /\n/, $said)
{
	if ($line =~ /^(not )?ok (.*)/)
	{
		ok(!$1, $2);
		$checks++;
	}
	else
	{
		diag($line);
	}
}
ok($ended, 'the walk came to its end') or diag($errors);
cmp_ok($checks, '>', 50, 'it has looked at everything');

# The page is what was tried, and the audit has all of it.
is($node->safe_psql('postgres', q{SELECT count(*) FROM monitor_actions WHERE role = 'monitor_operator' AND client LIKE '127.0.0.1%'}) > 30,
	1, 'actions are written down');
is($node->safe_psql('postgres', q{SELECT bool_or(arguments::text || coalesce(result::text, '') ~ 'hush-hush') FROM monitor_actions}), 'f', 'without payloads');

# They are kept for as long as the setting says.
$node->safe_psql('postgres', q{UPDATE monitor_actions SET happened_at = now() - interval '2 years' WHERE action = 'pause_workers'});
$node->restart;
wait_for_query($node, q{SELECT count(*) = 0 AND (SELECT count(*) > 30 FROM monitor_actions) FROM monitor_actions WHERE action = 'pause_workers'});
pass('old ones are deleted');
$node->stop;
done_testing();
