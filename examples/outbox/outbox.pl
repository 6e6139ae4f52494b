# Whether the outbox does what its system is asked for: requirements O1 to O19.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../../test/lib";
use HTTP::Tiny;
use IPC::Run ();
use JobQueue::Example;
use JSON::PP qw(decode_json);
use PostgreSQL::Test::Cluster ();
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;

my $port = PostgreSQL::Test::Cluster::get_free_port();
my $outbox = JobQueue::Example->new('outbox', ids => [ map { "O$_" } 1 .. 19 ],
	variables => { shopify_url => '/ok/shopify', alerts_url => '/ok/alerts' },
	conf => "jobqueue.monitor = 'database=postgres role=outbox_monitor port=$port'\n");
my ($server, $node) = @{$outbox}{qw(server node)};

# The application with a table of its own, and two workers outside.
$outbox->sql('CREATE TABLE products (id bigint PRIMARY KEY, title text NOT NULL); GRANT ALL ON products TO shop');
my $shop = $outbox->session('shop');
my @importer = map { $outbox->session('image_importer') } 1 .. 2;
my @uuid = map { sprintf '00000000-0000-4000-8000-%012d', $_ } 1 .. 2;

sub publish
{
	my ($id, $title, $key, $tenant) = @_;

	return $shop->query("SELECT unnest(publish_event(event_type => 'shopify.sync.product', event_key => '$key', tenant_id => '$tenant',
		payload => jsonb_build_object('id', $id, 'title', '$title')))");
}

# Of importer $n, "ID CLAIM_NO" or nothing.
sub claim { return $importer[ $_[0] ]->query("SELECT id || ' ' || claim_no FROM claim_next_job('$uuid[$_[0]]', 'image-import')") }

sub resolve
{
	my ($n, $claim, $error) = @_;

	my ($id, $claim_no) = split / /, $claim;
	return $importer[$n]->query(sprintf q{SELECT resolve_job(%d, '%s', %s, %s, %d)},
		$id, $uuid[$n], $error ? ('false', "'$error'") : ('true', 'NULL'), $claim_no);
}

# What a probe or a collector sees.
sub page { return HTTP::Tiny->new(timeout => 20)->get("http://127.0.0.1:$port$_[0]") }
sub wait_for_monitor { $outbox->wait_until('the monitor answers', sub { page('/health')->{status} != 599 }); return }

# The lines of the log that are events, of one kind if wanted.
sub log_events
{
	my ($kind) = @_;

	my @events = map { /LOG:  (\{"event":.*\})/ ? decode_json($1) : () } split /\n/, slurp_file($node->logfile);
	return grep { !defined $kind || $_->{event} =~ /\.$kind\z/ } @events;
}

sub wait_until_handled { $outbox->wait_until_done(q{job_type NOT IN ('image-import', 'sql')}); return }

# ---- publish, and who gets it ----

$shop->query('BEGIN; INSERT INTO products VALUES (1, $$Teapot$$)');
publish(1, 'Teapot', 'product-1-v1', 'tenant-a');
$shop->query('ROLLBACK');
is($outbox->sql('SELECT count(*) FROM jobs_queue'), 0, 'O1: an event of a transaction that is rolled back was never there');
$shop->query('BEGIN; INSERT INTO products VALUES (2, $$Blue teapot$$)');
my @jobs = split /\n/, publish(2, 'Blue teapot', 'product-2-v1', 'tenant-a');
is(scalar($server->requests), 0, 'O1: nor is one noticed before the commit');
$shop->query('COMMIT');
is($outbox->sql(q{SELECT string_agg(job_type, ' ' ORDER BY job_type) FROM jobs_queue}), 'image-import search-index shopify-product',
	'O2: it is one job for each subscription');
is($outbox->sql('SELECT DISTINCT correlation_id || $$ $$ || group_key FROM jobs_queue'), 'product-2-v1 tenant-a', 'O1: with its key and its tenant');
wait_until_handled();
my ($request) = $server->requests('/ok/shopify');
my $event = decode_json($request->{body});
is("$event->{type} $event->{data}{title}", 'shopify.sync.product Blue teapot', 'O2: the HTTP handler has been told of it');
is($outbox->sql(q{SELECT product_id FROM outbox.search_index WHERE words @@ 'teapot'}), 2, 'O2: the SQL handler has done its work');
my $claim = claim(0);
is($importer[0]->query("SELECT resolve_job(" . ($claim =~ s/ .*//r) . ", '$uuid[0]', true)"), 't', 'O2: and so has the worker outside');
$shop->query('BEGIN');
is(publish(2, 'Blue teapot', 'product-2-v2', 'tenant-a'), publish(2, 'Blue teapot', 'product-2-v2', 'tenant-a'),
	'O1: the same event key again is the same event');
$shop->query('COMMIT');
resolve(0, claim(0));

is(publish(2, 'Blue teapot', 'product-2-v1', 'tenant-a'), join("\n", @jobs), 'O1: also when it has been handled long ago');
is(claim(0), '', 'O1: and it is not handled again');

# ---- settings, several workers ----

is($outbox->sql('SHOW jobqueue.poll_interval'), '5s', 'O3: the poll interval is a setting');
$importer[0]->send(q{CALL wait_for_jobs('{image-import}', '2 minutes')});
publish(3, 'Cup', 'product-3-v1', 'tenant-a');
is($importer[0]->finish . ' ' . $importer[0]{output}, '00000 t', 'O3: and a worker outside does not poll at all: a commit wakes it');
publish(4, 'Saucer', 'product-4-v1', 'tenant-a');
$_->query('BEGIN') for @importer;
my @claims = map { claim($_) } 0, 1;
ok($claims[0] ne '' && $claims[1] ne '' && $claims[0] ne $claims[1], 'O16: two workers claim at the same time, neither waits, nor gets what the other has');
$_->query('COMMIT') for @importer;
resolve($_, $claims[$_]) for 0, 1;

# One tenant is busy, another one comes later.
publish($_, 'Glass', "product-$_-v1", 'tenant-a') for 21 .. 23;
publish(24, 'Glass', 'product-24-v1', 'tenant-b');
my @turns;
while (my $turn = claim(0))
{
	push @turns, $outbox->sql('SELECT group_key FROM jobs_queue WHERE id = ' . ($turn =~ s/ .*//r));
	resolve(0, $turn);
}
wait_until_handled();
is("@turns[0, 1]", 'tenant-a tenant-b', 'O1: tenants take turns');

# ---- failures, retries, dead letters ----

# Fails the only job that waits as often as it comes; the delays, in seconds.
sub delays
{
	my @delay;
	while (my $failing = claim(0))
	{
		my ($id) = split / /, $failing;
		resolve(0, $failing, 'no image');
		push @delay, $outbox->sql("SELECT round(extract(epoch FROM scheduled_at - updated_at)) FROM jobs_queue_live WHERE id = $id");
		$outbox->sql("UPDATE jobs_queue_live SET scheduled_at = now() WHERE id = $id");
	}
	return join ' ', grep { length } @delay;
}

my ($dead) = grep { $outbox->sql("SELECT job_type FROM jobs_queue WHERE id = $_") eq 'image-import' } split /\n/, publish(5, 'Spoon', 'product-5-v1', 'tenant-b');
is(delays(), '1 2 4 8', 'O5, O7: one second before the second attempt, then always twice as long');
is($outbox->sql("SELECT status || ' ' || attempts || ' ' || last_error FROM jobs_queue WHERE id = $dead"), 'error 5 no image',
	'O4: after five attempts it is a dead letter');
is($outbox->sql("SELECT retry_from_dlq(id) FROM dead_letter_jobs WHERE correlation_id = 'product-5-v1'"), $dead, 'O8: it is retried by its id');
is($outbox->sql("SELECT status || ' ' || attempts FROM jobs_queue WHERE id = $dead"), 'queued 0', 'O8: with all its attempts');
delays();
publish(6, 'Fork', 'product-6-v1', 'tenant-b');
$outbox->sql(q{UPDATE jobs_queue_live SET max_attempts = 9 WHERE job_type = 'image-import'});
is(delays(), '1 2 4 8 16 32 60 60', 'O6: no delay is longer than a minute');

# A handler over HTTP that fails twice.
sub move_shopify { wait_until_handled(); $outbox->sql(sprintf q{UPDATE http_endpoints SET url = '%s' WHERE name = 'shopify'}, $server->url($_[0])); return }
move_shopify('/flaky/2');
publish(7, 'Knife', 'product-7-v1', 'tenant-b');
$outbox->wait_for(q{SELECT attempts FROM jobs_queue WHERE job_type = 'shopify-product' AND correlation_id = 'product-7-v1'}, 1);
for my $attempt (1, 2)
{
	$outbox->wait_for(q{SELECT count(*) FROM job_runs WHERE job_type = 'shopify-product' AND correlation_id = 'product-7-v1'}, $attempt);
	$outbox->sql(q{UPDATE jobs_queue_live SET scheduled_at = now() WHERE job_type = 'shopify-product'});
}
wait_until_handled();
is(join(' ', map { $_->{headers}{'idempotency-key'} eq ($server->requests('/flaky/2'))[0]{headers}{'idempotency-key'} ? 'same' : 'other' } $server->requests('/flaky/2')),
	'same same same', 'O4: a request that is repeated has the same Idempotency-Key');
is($outbox->sql(q{SELECT string_agg(status, ' ' ORDER BY claim_no) FROM job_runs WHERE job_type = 'shopify-product' AND correlation_id = 'product-7-v1'}),
	'failed failed completed', 'O4: and every attempt is on record');
move_shopify('/ok/shopify');
resolve(0, claim(0));

# ---- what the numbers say ----

wait_for_monitor();
my $metrics = decode_json(page('/api/metrics/enhanced')->{content})->{jobqueue}{job_types}{'shopify-product'};
is(join(' ', @{$metrics}{qw(succeeded failed success_rate failure_rate retried)}), '11 2 0.8462 0.1538 2', 'O11: how many attempts were good, failed, and were retries');
ok($metrics->{latency_ms}{avg} > 0 && $metrics->{latency_ms}{p95} >= $metrics->{latency_ms}{p50}, 'O11: and how long an event took');

is($outbox->sql(q{SELECT setting || unit FROM pg_settings WHERE name = 'jobqueue.statistics_interval'}), '60s', 'O10: every minute the log has the numbers');
$outbox->set('jobqueue.statistics_interval', '1s');
$outbox->wait_until('the numbers are in the log', sub { scalar(() = log_events('statistics')) });
my $stats = (log_events('statistics'))[-1];
is(join(' ', map { "$_ $stats->{$_}" } qw(pending processing failed deadLetters)), 'pending 0 processing 0 failed 0 deadLetters 2', 'O10: jobs in every state');
is($stats->{total}, $stats->{completed} + 2, 'O10: and all of them');
is(join(' ', do { my %service = map { $_->{service} => 1 } log_events(); keys %service }), 'calibr-outbox-worker', 'O13: every line of which says whose it is');

# ---- health ----

is(page('/health')->{status}, 200, 'O9: a probe of liveness succeeds');
$outbox->sql(q{INSERT INTO jobs_queue (job_type, payload) SELECT 'image-import', '{}' FROM generate_series(1, 99)});
$outbox->sql(q{UPDATE jobs_queue SET status = 'error', last_error = 'no image' WHERE status = 'queued' AND job_type = 'image-import'});
my $health = page('/health');
is($health->{status}, 503, 'O9: and fails with 101 dead letters');
is(join(' ', map { $_->{check} } grep { $_->{status} eq 'fail' } @{ decode_json($health->{content})->{checks} }), 'dead_letters', 'O9: saying why');
$outbox->sql(q{DELETE FROM jobs_queue WHERE status = 'error' AND correlation_id IS NULL});
is(page('/health')->{status}, 200, 'O9: no longer than that');

# ---- stuck? ----

sub reason { return $outbox->sql(qq{SELECT reason FROM outbox.backlog WHERE job_type = '$_[0]'}) }
publish(8, 'Bowl', 'product-8-v1', 'tenant-a');
wait_until_handled();
is(reason('image-import'), 'no worker has been seen for a minute', 'O15: a handler that nobody runs');
$importer[0]->query(qq{SELECT register_worker('$uuid[0]', 'importer 1', '{"job_types": ["image-import"]}')});
resolve(0, claim(0), 'image of 2 GB');
$outbox->sql(q{UPDATE jobs_queue SET scheduled_at = now() WHERE status = 'queued'});
is(reason('image-import'), 'the handler said last: image of 2 GB', 'O15: a handler that fails');
$outbox->sql(q{SELECT pause_job_type('search-index', 'the index is rebuilt')});
publish(9, 'Jug', 'product-9-v1', 'tenant-a');
is(reason('search-index'), 'paused: the index is rebuilt', 'O15: a handler that is paused');
$outbox->sql(q{SELECT resume_job_type('search-index'), pause_workers('the disk is exchanged')});
like(reason('image-import'), qr/^no work is done: paused/, 'O15: no work at all');
$outbox->sql('SELECT resume_workers()');
wait_until_handled();
while (my $next = claim(0)) { resolve(0, $next) }

# ---- alerts ----

sub wait_until_told { my ($what) = @_; $outbox->wait_until("alert: $what", sub { scalar grep { decode_json($_->{body})->{text} =~ /$what/ } $server->requests('/ok/alerts') }); return 1 }
ok(wait_until_told('image-import: \d+ attempts have failed within 5 minutes'), 'O17: failures are told');
ok(wait_until_told('image-import: \d+ jobs? ha(s|ve) ended without success within'), 'O17: and dead letters, when there are more');

# ---- synthetic events ----

my $operator = $outbox->session('outbox');
is($operator->query(q{BEGIN; SELECT cardinality(publish_event('test.event', '{"data": "test"}', 'test-event-1', 'tenant-a'))}), 1, 'O18: a synthetic event');
is($operator->query('SELECT completed || $$ $$ || failed FROM drain_jobs()'), '1 0', 'O18: is handled in the session of the test');
is($operator->query(q{SELECT message FROM job_logs WHERE data->>'key' = 'test-event-1'}), 'a synthetic event', 'O18: which sees what came of it');
$operator->query('ROLLBACK');
is($outbox->sql(q{SELECT count(*) FROM jobs_queue WHERE correlation_id = 'test-event-1'}), 0, 'O18: and can undo it');
is($operator->query(q{BEGIN; SELECT run_job(id) FROM unnest(publish_event('test.event')) id}), 't', 'O18: or one by one');
$operator->query('ROLLBACK');

# ---- shutdown ----

move_shopify('/gate/stop');
publish(11, 'Tray', 'product-11-v1', 'tenant-a');
$outbox->wait_for_requests('/gate/stop', 1);
my $held = claim(0);
$operator->query("SELECT stop_worker('$uuid[0]', 'a new version')");
publish(12, 'Plate', 'product-12-v1', 'tenant-a');
is(claim(0), '', 'O14: a worker that is to stop gets no more jobs');
is(resolve(0, $held), 't', 'O14: and ends those that it has');
is($importer[0]->query("SELECT heartbeat_worker('$uuid[0]')"), 'f', 'O14: then it ends itself');
is($outbox->sql(q{SELECT enumvals || ' ' || reset_val FROM (SELECT enumvals::text, reset_val FROM pg_settings WHERE name = 'jobqueue.log_level') s}),
	'{debug,info,warning,error} info', 'O12: how much is logged is a setting');
$outbox->sql('ALTER SYSTEM SET jobqueue.log_level = error');
$_->quit for @importer, $shop, $operator;
$outbox->disconnect;
my $stopping = IPC::Run::start([ 'pg_ctl', '-D', $node->data_dir, '-m', 'fast', '-t', '60', 'stop' ], '>', \my $said);
$outbox->wait_until('the server stops', sub { slurp_file($node->logfile) =~ /received fast shutdown request/ });
$server->open_gate('stop');
ok($stopping->finish, 'O14: the server stops');
$node->_update_pid(0);
$node->start;
$outbox->connect;
$outbox->wait_for(q{SELECT count(*) FROM job_workers WHERE kind = 'scheduler'}, 1);
is(scalar(() = slurp_file($node->logfile) =~ /jobqueue launcher started/g), 1, 'O12: after it has started again with "error" it says less');
is($outbox->sql(q{SELECT status || ' ' || attempts FROM jobs_queue WHERE job_type = 'shopify-product' AND correlation_id = 'product-11-v1'}),
	'completed 1', 'O14: and the request that was under way has been answered, and recorded');
my %sent = $server->count_by_key('/gate/stop');
is(scalar(grep { $_ > 1 } values %sent), 0, 'O14: once');

$outbox->conclude;
