# Whether the sale discovery does what its system is asked for: requirements S1 to
# S26. Cin7, Stripe and Slack are one server of the test's own.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../../test/lib";
use HTTP::Tiny;
use IPC::Run ();
use JobQueue::Example;
use JobQueue::HttpBehaviours;
use JSON::PP qw(decode_json);
use PostgreSQL::Test::Cluster ();
use PostgreSQL::Test::Utils qw(append_to_file slurp_file);
use Test::More;

# ---------------------------------------------------------------------------
# Cin7 has sales from 1 on, as many as it is asked for, up to what the file "sales" says;
# without the key it answers nobody. Stripe makes links
# ---------------------------------------------------------------------------

sub json_answer { return [ send => JobQueue::HttpBehaviours::answer_json($_[0]) ] }

JobQueue::HttpBehaviours::add(
	cin7 => sub {
		my ($self, $request, $what) = @_;

		return $self->script({ %$request, target => '/status/401' }) if $request->{head} !~ /^Authorization: Bearer key-of-cin7\r$/mi;
		return $self->script({ %$request, target => '/status/503' }) if -e "$self->{dir}/gate-no-$what";
		return $self->script({ %$request, target => "/gate/$what" }) if -e "$self->{dir}/gate-hold-$what";
		return json_answer({ posted => JSON::PP::true }) if $what eq 'sale-payments';
		my ($limit, $after) = $request->{target} =~ /limit=(\d+)&after=(\d+)/;
		my $last = -e "$self->{dir}/sales" ? slurp_file("$self->{dir}/sales") : 0;
		my @number = grep { $_ <= $last } $after + 1 .. $after + $limit;
		return json_answer({ sales => [ map { { number => $_, amount_cents => 100 * $_ } } @number ] });
	},
	stripe => sub {
		my ($self, $request) = @_;

		my $sale = JSON::PP::decode_json($request->{body})->{sale};
		return json_answer({ url => "https://pay.example.com/$sale" });
	});

my $monitor_port = PostgreSQL::Test::Cluster::get_free_port();
my $sales = JobQueue::Example->new('sale-discovery', ids => [ map { "S$_" } 1 .. 26 ],
	variables => { cin7_url => '/cin7', stripe_url => '/stripe', stripe_api_key => 'key-of-stripe', slack_url => '/ok/slack' },
	conf => "jobqueue.monitor = 'database=postgres role=sales_monitor port=$monitor_port'\n",
	init => { allows_streaming => 1 });
my ($server, $node) = @{$sales}{qw(server node)};
my $owner = $sales->session('sales');
$owner->query('SET search_path = sales, public');
my $app = $sales->session('sales_app');

sub set_sales { append_to_file("$server->{dir}/sales.new", $_[0]); rename "$server->{dir}/sales.new", "$server->{dir}/sales" or die "rename: $!"; return }
sub break { $server->open_gate("no-$_[0]"); return }
sub mend { unlink "$server->{dir}/gate-no-$_[0]" or die "unlink: $!"; return }
sub settle { $sales->wait_until_done; return }
sub cycle { settle(); $owner->query(q{SELECT run_cron_task('sale-discovery')}); settle(); return }
sub last_status { return $sales->sql("SELECT status || coalesce(' ' || error, '') FROM job_runs WHERE job_type = '$_[0]' ORDER BY finished_at DESC LIMIT 1") }

# What one would see with a browser, or a collector.
my $browser = HTTP::Tiny->new(timeout => 20);
sub page { my ($path) = @_; return $browser->get("http://127.0.0.1:$monitor_port$path") }
sub wait_for_monitor { $sales->wait_until('the monitor answers', sub { page('/health')->{status} != 599 }); return }
sub metrics { my $answer = page('/api/metrics'); return decode_json($answer->{content}) }
sub log_events { return map { /(\{.*\})/ ? eval { decode_json($1) } // () : () } grep { /"event"/ } split /\n/, slurp_file($node->logfile) }
sub messages { my %n; $n{ $_->{message} // '' }++ for log_events(); return \%n }

# ---- it starts ----

is($sales->sql('SELECT is_active AND has_scheduler FROM queue_status'), 't', 'S1: it has started with the server, and with what is in the script');
is($owner->query(q{SELECT schedule, enabled, run_on_start FROM cron_tasks}), 'every 60 seconds|t|t', 'S1, S4, S26: a cycle begins every minute, and nobody outside is needed for it');
$owner->query(q{UPDATE cron_tasks SET next_run_at = now() + interval '1 day'});    # it comes when the test wants it
cycle();
is(last_status('sale-discovery'), 'skipped there is no API key of Cin7', 'S21: without the key of Cin7 a cycle is skipped');
is($sales->sql(q{SELECT count(*) FROM jobs_queue WHERE status = 'failed'}) . $server->count('/cin7'), '00', 'S21: which is no failure, and asks nobody');
$owner->query(q{SELECT set_secret('cin7_api_key', 'key-of-cin7')});

# ---- cycles ----

set_sales(25);
cycle();
is($owner->query('SELECT count(*), max(number), count(payment_url) FROM sales'), '10|10|10', 'S5: a cycle takes ten sales');
like(($server->requests('/cin7/sales'))[0]{target}, qr/limit=10&after=0/, 'S5: and asks for no more');
$owner->query('UPDATE settings SET batch_size = 20');
cycle();
is($owner->query('SELECT count(*), max(number) FROM sales'), '25|25', 'S5: more, where the settings say so');
is($sales->sql(q{SELECT count(*) FROM job_runs WHERE job_type = 'sale-discovery' AND status = 'completed'}), 2, 'S6: each cycle is a run');
cycle();
is($owner->query('SELECT count(*), count(DISTINCT payment_url) FROM sales'), '25|25', 'S18: a sale is found once');
$owner->query('UPDATE settings SET last_sale = 0');
cycle();
is($owner->query('SELECT count(*) FROM sales') . ' ' . $server->count('/stripe'), '25 25', 'S18: also when Cin7 tells of it again, for its number is a key');
my $ids = join "\n", map { $app->query(q{SELECT sales.receive_webhook('{"id": "evt_1", "sale": 1}')}) } 1, 2;
like($ids, qr/\A(\d+)\n\1\z/, 'S18: and an event of Stripe that is delivered twice is one job');
settle();

# ---- payments ----

is($owner->query('SELECT paid_at IS NOT NULL, posted_at IS NOT NULL FROM sales WHERE number = 1'), 't|t', 'S9: what is paid is posted to Cin7');
is(decode_json(($server->requests('/cin7/sale-payments'))[0]{body})->{sale}, 1, 'S9: with its number');
$owner->query(q{SELECT drop_secret('cin7_api_key')});
$app->query(q{SELECT sales.receive_webhook('{"id": "evt_2", "sale": 2}')});
settle();
is(last_status('payment'), 'skipped there is no API key of Cin7', 'S21: without the key nothing is posted');
$owner->query(q{SELECT set_secret('cin7_api_key', 'key-of-cin7')});
cycle();
is($owner->query('SELECT count(*) FROM sales WHERE posted_at IS NOT NULL'), 2, 'S21: and when there is one the next cycle makes up for it');
$app->query(q{SELECT sales.receive_webhook('{"id": "evt_3", "sale": 999}')});
$sales->wait_for(q{SELECT count(*) FROM job_runs WHERE job_type = 'stripe-webhook' AND status = 'failed'}, 1);
$sales->sql(q{SELECT cancel_job(id) FROM jobs_queue_live WHERE job_type = 'stripe-webhook'});

# ---- numbers ----

my %want = (worker_cycles => 6, worker_errors => 0, cin7_api_calls => 7, cin7_api_errors => 0, payments_created => 25,
	webhooks_received => 4, webhooks_failed => 1, webhooks_processed => 2, payments_posted => 2, payments_failed => 0, database_errors => 0);
wait_for_monitor();
my $json = metrics();
is_deeply({ map { $_ => $json->{$_} } keys %want }, \%want, 'S9, S10: counters, under the names that the dashboards know');
is_deeply({ map { $_ => [ sort keys %{ $json->{$_} } ] } grep { /_avg_ms/ } keys %{$json} },
	{ map { ("${_}_avg_ms" => [qw(avg count sum)]) } qw(cin7 stripe webhook) }, 'S10: and timers');
is($json->{cin7_avg_ms}{count} . ' ' . $json->{stripe_avg_ms}{count} . ' ' . $json->{webhook_avg_ms}{count}, '7 25 2', 'S10: each of so many');
cmp_ok(abs($json->{stripe_avg_ms}{avg} - $json->{stripe_avg_ms}{sum} / 25), '<', 0.1, 'S10: with their average');
my $text = page('/metrics');
like($text->{headers}{'content-type'}, qr{\Atext/plain; version=0\.0\.4}, 'S8: the same for Prometheus');
is_deeply({ map { $_ => $text->{content} =~ /^\Q$_\E(?:_total)?(?:\{\})? (\d+)$/m ? $1 : undef } keys %want }, \%want, 'S8, S9: as text, one line for each counter');
cmp_ok($json->{worker_cycles}, '>', 0, 'S23: worker_cycles says whether it has started');
is($sales->sql(q{SELECT last_seen_at > now() - interval '1 minute' FROM job_workers WHERE kind = 'scheduler'}), 't', 'S23: and the workers of the server say when they were last at work');

# ---- health ----

my $health = page('/health');
my $body = decode_json($health->{content});
is("$health->{status} $body->{status}", '200 ok', 'S7: GET /health, for liveness and for readiness') or diag($health->{content});
like($body->{timestamp}, qr/\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/, 'S7: with a timestamp');
cmp_ok($body->{uptime_ms}, '>', 0, 'S7: and how long it has been up');
is(page('/ready')->{status}, 200, 'S7: GET /ready is for readiness alone');

# ---- what the log says ----

my $said = messages();
is("$said->{'Starting sale discovery cycle'} $said->{'Sale discovery cycle completed'}", '6 5', 'S6, S11: a cycle begins and ends in the log, in the old words');
is("$said->{'Webhook processing complete'} $said->{'Payment posted to Cin7 SalePayments'}", '2 2', 'S11: as do webhooks and payments');
is(join(' ', do { my %service = map { $_->{service} => 1 } log_events(); sort keys %service }), 'cin7-stripe-integration', 'S11: each with the name of the service');

# ---- failures, and who hears of them ----

# What Slack was told, by rule; waits until it was told that.
sub told { my ($rule) = @_; return grep { $_->{text} =~ /\Q$rule\E/ } map { decode_json($_->{body}) } $server->requests('/ok/slack') }
sub wait_until_told { my ($rule, $count) = @_; $sales->wait_until("Slack hears: $rule", sub { (() = told($rule)) >= ($count // 1) }); return (told($rule))[-1] }
my $cycle_rule = q{SELECT count(*) FROM alerts WHERE rule = 'cycles fail'};

break('sales');
cycle() for 1, 2;
like(last_status('cin7-sales'), qr/\Afailed .*503/, 'S11: Cin7 cannot be reached');
is(messages()->{'Failed to fetch sales from Cin7'}, 2, 'S11: which the log says');
is(metrics()->{cin7_api_errors} . ' ' . metrics()->{worker_errors}, '2 2', 'S9: and the counters');
$sales->sql('SELECT _evaluate_alerts()');
is($sales->sql($cycle_rule), 0, 'S13: two failures in a row are no alert');
cycle();
my $critical = wait_until_told('cin7-sales: 3 attempts in a row have failed');
is($critical->{channel}, '#payments-alerts', 'S13, S15: three are: in the channel of Slack');
like(wait_until_told('endpoint cin7-sales')->{text}, qr/critical/i, 'S16: it hears that Cin7 is away');
cycle() for 1, 2;
like(wait_until_told('cin7-sales: 5 attempts in a row have failed')->{text}, qr/warning/i, 'S14: five failures are a warning, by a number of their own');
is($sales->sql($cycle_rule), 1, 'S13: while the first alert holds');
mend('sales');
cycle();
$sales->sql(q{SELECT _evaluate_alerts(now() + n * interval '1 minute') FROM generate_series(1, 2) n});
is($sales->sql(q{SELECT count(*) FROM alerts WHERE resolved_at IS NULL}), 0, 'S13: and the next cycle that succeeds ends it');
like(wait_until_told('cin7-sales', 4)->{text}, qr/resolved/i, 'S15: which Slack hears, too');

break('sale-payments');
$app->query(q{SELECT sales.receive_webhook('{"id": "evt_4", "sale": 4}')});
like(wait_until_told('cin7-payments')->{text}, qr/critical/i, 'S16: it hears of a payment that could not be posted');
mend('sale-payments');
$sales->sql(q{UPDATE jobs_queue SET scheduled_at = now() WHERE job_type = 'cin7-payments' AND status = 'queued'});
settle();
$owner->query('ALTER TABLE sales ADD CONSTRAINT no_space_left CHECK (number < 26)');
set_sales(26);
cycle();
like(wait_until_told('sales-found')->{text}, qr/critical/i, 'S16: and of what the database would not write');
is(metrics()->{database_errors}, 1, 'S9: which is counted');
is(messages()->{'Error in worker interval'}, 1, 'S11: and in the log');
$owner->query('ALTER TABLE sales DROP CONSTRAINT no_space_left');

sub write_again { return $sales->ended($owner->query(q{SELECT enqueue_sql('INSERT INTO sales.sales VALUES (1, 100)', max_attempts => 1)}), 'status') }
$sales->set('jobqueue.alerts_enabled', 'off');
is(write_again() . $sales->{session}->try('SELECT _evaluate_alerts()'), 'failed55000', 'S12: switched off, nobody looks');
$sales->set('jobqueue.alerts_enabled', 'on');
write_again();
like(wait_until_told('sql: ')->{text}, qr/sql: 1 attempt has failed/, 'S12: and switched on, at what fails from then on');
settle();

# ---- on and off ----

sub reload_with { my ($value) = @_; $sales->set('jobqueue.enabled', $value); return }
reload_with('off');
my $cycles = $sales->sql(q{SELECT count(*) FROM job_runs WHERE job_type = 'sale-discovery'});
$owner->query(q{SELECT run_cron_task('sale-discovery')});
$sales->wait_for(q{SELECT reason FROM queue_status}, 'jobqueue.enabled is off');
is($sales->sql(q{SELECT count(*) || ' ' || (SELECT count(*) FROM jobs_queue_live) FROM job_runs WHERE job_type = 'sale-discovery'}), "$cycles 1", 'S3: switched off by a reload it does nothing, and keeps what there is to do');
reload_with('on');
settle();
is($sales->sql(q{SELECT count(*) FROM job_runs WHERE job_type = 'sale-discovery'}), $cycles + 1, 'S3: until it is switched on again');
$owner->query(q{SELECT pause_job_type('cin7-sales', 'Cin7 is being moved')});
$owner->query(q{SELECT run_cron_task('sale-discovery')});
$sales->wait_for(q{SELECT count(*) FROM jobs_queue_live}, 2);
is($sales->sql(q{SELECT string_agg(job_type || ' ' || status, ', ' ORDER BY id) FROM jobs_queue_live}), 'cin7-sales queued, sales-found blocked', 'S3: so can be a part of it');
$owner->query(q{SELECT resume_job_type('cin7-sales')});
settle();
$owner->query(q{UPDATE cron_tasks SET schedule = 'every 1 second'});
$sales->wait_for("SELECT count(*) >= $cycles + 4 FROM job_runs WHERE job_type = 'sale-discovery'");
$owner->query(q{UPDATE cron_tasks SET schedule = 'every 30 seconds'});
is($owner->query(q{SELECT next_run_at <= now() + interval '30 seconds' FROM cron_tasks}), 't', 'S4: how often is a column, and changes at once');
settle();

# ---- one is at work ----

$node->backup('base');
my $replica = PostgreSQL::Test::Cluster->new('replica');
$replica->init_from_backup($node, 'base', has_streaming => 1);
$replica->append_conf('postgresql.conf', "jobqueue.monitor = ''\n");
$replica->start;
is($replica->safe_psql('postgres', q{SELECT is_active, reason FROM queue_status}) . ' ' . $replica->safe_psql('postgres', q{SELECT count(*) FROM _server_workers()}), 'f|standby 0', 'S17: a replica has the tables, and does nothing');
$replica->stop;
my $scheduler = $sales->sql(q{SELECT pid FROM job_workers WHERE kind = 'scheduler'});
is($sales->sql(q{SELECT count(*), (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'jobqueue launcher') FROM job_workers WHERE kind = 'scheduler'}), '1|1', 'S17: in the primary, one scheduler does all');
$sales->sql("SELECT pg_terminate_backend($scheduler)");
$sales->wait_for(qq{SELECT count(*) FROM job_workers WHERE kind = 'scheduler' AND pid <> $scheduler}, 1);
is($sales->sql(q{SELECT setting || unit FROM pg_settings WHERE name = 'jobqueue.executor_max_memory'}), '512000kB', 'S19: a worker that ends is started again, and one that grows gives way to another');

# ---- the end, and the next beginning ----

sub stop_by
{
	my ($signal, $meanwhile) = @_;

	$sales->disconnect;
	$_->quit for $owner, $app;
	kill $signal, (slurp_file($node->data_dir . '/postmaster.pid') =~ /\A(\d+)/)[0];
	$meanwhile->() if $meanwhile;
	$sales->wait_until('the server has stopped', sub { !-e $node->data_dir . '/postmaster.pid' });
	$node->_update_pid(0);
	return;
}

sub start_again
{
	$node->start;
	$sales->connect;
	$sales->wait_for(q{SELECT count(*) FROM job_workers WHERE kind = 'scheduler'}, 1);
	($owner, $app) = map { $sales->session($_) } qw(sales sales_app);
	$owner->query('SET search_path = sales, public');
	return;
}

my $rows = q{SELECT count(*), count(paid_at), count(posted_at) FROM sales};
my $before = $owner->query($rows);
$server->open_gate('hold-sales');
my $asked = $server->count('/cin7/sales');
$owner->query(q{SELECT run_cron_task('sale-discovery')});
$sales->wait_for_requests('/cin7/sales', $asked + 1);
my $under_way = $owner->query(q{SELECT id FROM jobs_queue WHERE job_type = 'cin7-sales' AND status = 'running'});
stop_by('TERM', sub { $sales->wait_until('the server stops', sub { slurp_file($node->logfile) =~ /received smart shutdown request/ }); $server->open_gate('sales') });
start_again();
is($sales->sql("SELECT string_agg(status, ' ') FROM job_runs WHERE job_id = $under_way"), 'completed', 'S2: on SIGTERM what is under way ends first');
is($owner->query($rows), $before, 'S20: all that there was is there after a restart');
$sales->wait_for(q{SELECT count(*) FROM cron_runs WHERE kind = 'start'}, 1);
settle();
is($sales->sql(q{SELECT r.status FROM cron_runs c JOIN job_runs r USING (job_id) WHERE c.kind = 'start'}), 'completed', 'S1: and a cycle begins at once');
stop_by('INT');
start_again();
is($sales->sql(q{SELECT is_active AND has_scheduler FROM queue_status}), 't', 'S2: SIGINT ends it, too');

$sales->conclude;
