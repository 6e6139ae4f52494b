# Prometheus and OpenMetrics accept what job_metrics_prometheus() writes, however
# hostile the names are; the alert rules and the dashboard name nothing else.
# Needs promtool (of the Debian package prometheus) and python3-prometheus-client.
use strict;
use warnings;
use Carp qw(croak);
use FindBin;
use IPC::Run qw(run);
use JSON::PP;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Cron qw(need_python);
use PostgreSQL::Test::Utils;
use Test::More;

my $top = "$FindBin::RealBin/../..";
my ($promtool) = grep { -x } map { "$_/promtool" } split(/:/, $ENV{PATH}), ($ENV{JOBQUEUE_TEST_PROMETHEUS} // '/nonexistent') . '/usr/bin';
if (!defined $promtool)
{
	croak 'promtool is missing' if $ENV{JOBQUEUE_TEST_ALL};
	plan skip_all => 'promtool is missing';
}
need_python('prometheus_client');

# Runs a program; returns its exit code and all that it said.
sub try
{
	my ($input, @command) = @_;
	my $output = '';

	run(\@command, '<', \$input, '>&', \$output);
	return ($? >> 8, $output);
}

# ---- what is written ----

my $node = JobQueue::Cluster->new('main', conf => 'jobqueue.max_executors = 1');
$node->safe_psql('postgres', <<'SQL');
INSERT INTO job_types (job_type, max_attempts, backoff, breaker_threshold, max_concurrency, rate_max, rate_window) VALUES
	('mail', 1, '"0s"', 2, 10, 100, '1 minute');
SELECT enqueue_job(t, stage => s) FROM unnest(ARRAY['mail', E'a "quoted" \\ back\u2028slash', 'a{b="c",d="e"} 1', 'Grüße, 世界 🦘', '# EOF', '} 1 # {']) AS t,
	unnest(ARRAY['', '"', '\', '\n', E'\u0085']) AS s;
SELECT fail_job(id, locked_by, 'no') FROM claim_jobs('cccccccc-0000-4000-8000-000000000001', '{mail}', 4);
SELECT enqueue_sql('SELECT 1');
SELECT schedule_cron_task('every "hour" \ é', '@hourly', 'mail');
SELECT schedule_cron_task('each second', 'every 1 second', 'ticked');
INSERT INTO http_endpoints (name, url) VALUES ('api "x" \', 'https://example.com/');
SELECT register_worker('cccccccc-0000-4000-8000-000000000001', 'one');
SQL
wait_for_query($node, q{SELECT count(*) = 0 FROM jobs_queue_live WHERE job_type = 'sql'});
wait_for_query($node, q{SELECT bool_and(last_enqueued_at IS NOT NULL) FROM cron_tasks WHERE name = 'each second'});

my $text = $node->safe_psql('postgres', 'SELECT job_metrics_prometheus()');
my ($status, $said) = try($text, $promtool, 'check', 'metrics');
is("$status$said", '0', 'promtool has nothing to say of the metrics');

my @openmetrics = ('/usr/bin/python3', '-B', "$top/test/monitoring/openmetrics.py");
my $open = $node->safe_psql('postgres', 'SELECT job_metrics_prometheus(openmetrics => true)');
($status, $said) = try($open, @openmetrics);
is($status, 0, 'a strict parser of OpenMetrics reads them') or diag($said);
my %type = map { /^(\S+) (\S+) (\d+)$/ ? ($1 => $2) : () } split /\n/, $said;
is_deeply([ @type{qw(jobqueue_build jobqueue_jobs jobqueue_jobs_enqueued jobqueue_job_wait_seconds)} ],
	[qw(info gauge counter histogram)], 'and knows their types');
my ($broken) = map { my $t = $open; $t =~ s/# EOF\n\z//; $t } 1;
isnt((try($broken, @openmetrics))[0], 0, 'without its end it would not');

# The same samples in both.
my %samples = map { $_ => 1 } $text =~ /^([a-z_]+\{.*\}|[a-z_]+) \S+$/mg;
my @only = grep { !$samples{$_} } $open =~ /^([a-z_]+\{.*\}|[a-z_]+) \S+$/mg;
is("@only", '', 'both formats have the same series');

# Label values arrive as they were.
($status, $said) = try($open, '/usr/bin/python3', '-B', '-c', <<'PY');
import io, sys
from prometheus_client.openmetrics.parser import text_fd_to_metric_families
text = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", newline="\n").read()
found = {(s.labels["job_type"], s.labels["stage"]) for f in text_fd_to_metric_families(io.StringIO(text, newline="\n"))
         if f.name == "jobqueue_jobs_enqueued" for s in f.samples}
types = {"mail", 'a "quoted" \\ back\u2028slash', 'a{b="c",d="e"} 1', "Grüße, 世界 🦘", "# EOF", "} 1 # {"}
stages = {"", '"', "\\", "\\n", "\x85"}
missing = {(t, s) for t in types for s in stages} - found
sys.exit(repr(missing) if missing else 0)
PY
is($said, '', 'names of all kinds come back unharmed');

# ---- metrics of users ----

$node->safe_psql('postgres', <<'SQL');
SELECT job_metric_add(name) FROM unnest(ARRAY['worker_cycles', 'x', 'x_total', 'y_sum', 'y_count', 'y_bucket', 'y_created', 'y_info', 'a-b', 'a.b', 'a_b',
	'jobqueue_jobs', 'up', '1st', 'é', ':', '#', '__name__', 'le', '"q" \ {}']) AS name;
SELECT job_metric_observe(name, 12.5) FROM unnest(ARRAY['cin7_avg_ms', 'x', 'y', 'a b', 'worker_cycles', 'x_total']) AS name;
SELECT job_metric_add('labelled', 1e20, '{"le": "1", "quantile": "a", "__name__": "b", "a-b": "c", "a.b": "d", "é": "\"\\\n", "": "e", "1": true, "job": "f"}');
SELECT job_metric_add('twice', 1, '{"n": 1}'), job_metric_add('twice', 2, '{"n": "1"}');
SQL
($status, $said) = try($node->safe_psql('postgres', 'SELECT job_metrics_prometheus()'), $promtool, 'check', 'metrics');
is($status, 3, 'promtool reads metrics of users') or diag($said);
unlike($said, qr/^jobqueue_/m, 'and minds their names only');
($status, $said) = try($node->safe_psql('postgres', 'SELECT job_metrics_prometheus(true)'), @openmetrics);
is($status, 0, 'so does OpenMetrics') or diag($said);
like($said, qr/^worker_cycles unknown 1$/m, 'under their names');
like($said, qr/^twice unknown 1$/m, 'each series once');

# ---- rules, configuration, dashboard ----

foreach my $check ([ 'rules', 'jobqueue.rules.yml' ], [ 'config', 'prometheus.yml' ])
{
	($status, $said) = try('', $promtool, 'check', $check->[0], "$top/docs/monitoring/$check->[1]");
	is($status, 0, "promtool accepts $check->[1]") or diag($said);
}
($status, $said) = try('', $promtool, 'test', 'rules', "$top/test/monitoring/rules.test.yml");
is($status, 0, 'each alert fires when it should') or diag($said);

my $rules = slurp_file("$top/docs/monitoring/jobqueue.rules.yml");
my $tests = slurp_file("$top/test/monitoring/rules.test.yml");
my $runbook = slurp_file("$top/docs/operations.md");
my @alerts = $rules =~ /^ +- alert: (\w+)$/mg;
cmp_ok(@alerts, '>', 20, 'there are alerts');
is(join(' ', grep { $tests !~ /^  - name: $_$/m } @alerts), '', 'each has a test');
is(join(' ', grep { $runbook !~ /^### $_$/m } @alerts), '', 'each has a section in the runbook');
is(join(' ', $rules =~ /^ +runbook: (.*)$/mg), join(' ', map { 'docs/operations.md#' . lc } @alerts), 'and points to it');

# Names of metrics as expressions have them: of samples, those of histograms with
# their suffixes.
my %known = map { $_ => 1 } $text =~ /^([a-z_]+)(?:\{| )/mg;
my @strange = grep { !$known{$_} } $rules =~ /\b(jobqueue_[a-z_]+)/g;
is("@strange", '', 'rules name metrics that there are');

my $dashboard = decode_json(slurp_file("$top/docs/monitoring/grafana-dashboard.json"));
my @expressions = map { $_->{expr} } map { @{ $_->{targets} // [] } } @{ $dashboard->{panels} };
cmp_ok(@expressions, '>', 30, 'the dashboard asks for much');
@strange = grep { !$known{$_} } map { /\b(jobqueue_[a-z_]+)/g } @expressions, map { $_->{definition} // () } @{ $dashboard->{templating}{list} };
is("@strange", '', 'and names metrics that there are');
my @ids = map { $_->{id} } @{ $dashboard->{panels} };
is(scalar keys %{ { map { $_ => 1 } @ids } }, scalar @ids, 'its panels have ids of their own');

# promtool reads its expressions as those of rules.
my $file = PostgreSQL::Test::Utils::tempdir() . '/dashboard.yml';
append_to_file($file, JSON::PP->new->canonical->encode({ groups => [ { name => 'dashboard', rules => [
	map { my $expr = $expressions[$_]; $expr =~ s/\$__rate_interval/5m/g; { record => "dashboard:$_", expr => $expr } } 0 .. $#expressions ] } ] }));
($status, $said) = try('', $promtool, 'check', 'rules', $file);
is($status, 0, 'its expressions are valid') or diag($said);

$node->stop;

# ---- without preloading ----

my $plain = PostgreSQL::Test::Cluster->new('plain');
$plain->init(extra => [ '--encoding=UTF8', '--no-locale' ]);
$plain->append_conf('postgresql.conf', 'fsync = off');
$plain->start;
$plain->safe_psql('postgres', q{CREATE EXTENSION jobqueue; SELECT enqueue_job('mail')});
$text = $plain->safe_psql('postgres', 'SELECT job_metrics_prometheus()');
($status, $said) = try($text, $promtool, 'check', 'metrics');
is("$status$said", '0', 'without preloading promtool has nothing to say, either');
like($text, qr/^jobqueue_active\{reason="library not preloaded"\} 0$/m, 'and it is told');
like($text, qr/^jobqueue_jobs\{job_type="mail",state="ready"\} 1$/m, 'what there is is there');
is((try($plain->safe_psql('postgres', 'SELECT job_metrics_prometheus(true)'), @openmetrics))[0], 0, 'OpenMetrics is right, too');
is($plain->safe_psql('postgres', q{SELECT job_metrics()#>>'{jobqueue,job_types,mail,jobs,ready}'}), '1', 'so is the JSON');
$plain->stop;
done_testing();
