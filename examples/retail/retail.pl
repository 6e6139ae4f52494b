# Whether the retail back end does what its system is asked for: requirements B1 to
# B22. The SMS gateway is one of the test's own.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../../test/lib";
use JobQueue::Example;
use JobQueue::HttpBehaviours;
use JSON::PP ();
use List::Util qw(max);
use Test::More;

# ---------------------------------------------------------------------------
# The gateway: /sms/messages, /sms/status, /sms/reports. It takes a batch once,
# however often it comes; numbers that end in 9 it rejects, and of those that end
# in 7 it says nothing until it is asked
# ---------------------------------------------------------------------------

my (%answer_to, @reports);

sub take_messages
{
	my ($request) = @_;

	my ($key) = $request->{head} =~ /^Idempotency-Key: batch-(\d+)\r$/mi or return { error => 'no key' };
	return $answer_to{$key} //= { messages => [ map { take_message($_) } @{ JSON::PP::decode_json($request->{body})->{messages} } ] };
}

sub take_message
{
	my ($message) = @_;

	return { id => $message->{id}, status => 'rejected', error => 'number is not in use' } if $message->{to} =~ /9\z/;
	push @reports, { gateway_id => "gw-$message->{id}", status => 'delivered' } if $message->{to} !~ /7\z/;
	return { id => $message->{id}, status => 'accepted', gateway_id => "gw-$message->{id}" };
}

JobQueue::HttpBehaviours::add(sms => sub {
	my ($self, $request, $what) = @_;
	my $answer = sub { [ send => JobQueue::HttpBehaviours::answer_json($_[0]) ] };

	return $self->script({ %$request, target => '/status/401' }) if $request->{head} !~ /^Authorization: Bearer key-of-the-test\r$/mi;
	return $self->script({ %$request, target => '/status/503' }) if $request->{body} =~ /"outage/ || -e "$self->{dir}/gate-down-$what";
	return $answer->({ messages => [ map { { gateway_id => $_, status => 'delivered' } } @{ JSON::PP::decode_json($request->{body})->{gateway_ids} } ] })
	  if $what eq 'status';
	if ($what =~ /\Areports/)
	{
		my ($after) = $request->{target} =~ /after=(\d+)/;
		return $answer->({ messages => [ @reports[ $after .. $#reports ] ], next => scalar @reports });
	}
	my @held = $request->{body} =~ /"held/ ? [ gate => "$self->{dir}/gate-held" ] : ();
	return (@held, $answer->(take_messages($request)));
});

my $retail = JobQueue::Example->new('retail', ids => [ map { "B$_" } 1 .. 22 ],
	variables => { gateway => '/sms', gateway_key => 'key-of-the-test' });
my $app = $retail->session('retail_app');
$app->query('SET search_path = retail, public');

# ---- what several of the checks below need ----

# A shop with so many contacts, whose numbers end in two digits that count on.
sub add_shop
{
	my ($contacts) = @_;

	my $shop = $app->query(q{INSERT INTO shops (name, credits) VALUES ('Corner shop', 5000) RETURNING id});
	$app->query(qq{
		INSERT INTO contacts (shop_id, phone, name)
		SELECT $shop, '+3069' || to_char($shop, 'FM0000') || to_char(n, 'FM0000'), 'Customer ' || n FROM generate_series(1, $contacts) n});
	return $shop;
}

sub add_campaign
{
	my ($shop, $text) = @_;

	return $app->query("INSERT INTO campaigns (shop_id, text) VALUES ($shop, '$text') RETURNING id");
}

sub send_campaign
{
	my ($shop, $text) = @_;

	my $campaign = add_campaign($shop, $text);
	$app->query("SELECT schedule_campaign($campaign, now())");
	return $campaign;
}

sub sms_jobs_of
{
	my ($campaign) = @_;

	return "SELECT id FROM jobs_queue WHERE job_type = 'sms'
		AND payload->>'batch' IN (SELECT batch_id::text FROM retail.messages WHERE campaign_id = $campaign)";
}

sub messages_of
{
	my ($campaign) = @_;

	return $app->query("SELECT string_agg(concat_ws(' ', n, status, error), ', ' ORDER BY status, error)
		FROM (SELECT status, error, count(*) AS n FROM messages WHERE campaign_id = $campaign GROUP BY 1, 2) s");
}

# How long a failed job waits for its next attempt, in ms.
sub wait_after_failure
{
	my ($job) = @_;

	return $retail->sql("SELECT round(1000 * extract(epoch FROM q.scheduled_at - r.finished_at))
		FROM jobs_queue q, LATERAL (SELECT * FROM job_runs WHERE job_id = q.id ORDER BY claim_no DESC LIMIT 1) r WHERE q.id = $job");
}

sub run_now
{
	my ($task) = @_;

	return $app->query("SELECT run_cron_task('$task')");
}

# Waits until a claim of the job has ended; its status.
sub outcome
{
	my ($job, $claim) = @_;

	$claim //= 1;
	$retail->wait_for("SELECT count(*) FROM job_runs WHERE job_id = $job AND claim_no = $claim", 1);
	return $retail->sql("SELECT status FROM job_runs WHERE job_id = $job AND claim_no = $claim");
}

# The largest number of runs, of those that began while one was under way.
my $most_at_once = q{SELECT max((SELECT count(*) FROM job_runs o WHERE o.job_type = r.job_type
	AND o.started_at <= r.started_at AND o.finished_at > r.started_at)) FROM job_runs r WHERE r.job_type = };

# The largest number of batches that began in any 1000 ms.
my $most_in_a_window = q{SELECT max((SELECT count(*) FROM job_runs o WHERE o.job_type = 'sms'
	AND o.started_at >= r.started_at AND o.started_at < r.started_at + interval '1000 ms')) FROM job_runs r WHERE r.job_type = 'sms'};

# ---- campaigns ----

sub check_scheduler
{
	my $shop = add_shop(10);
	my $campaign = add_campaign($shop, 'Dear {name}');
	my $job = $app->query("SELECT schedule_campaign($campaign, now() + interval '1 hour')");
	is($retail->sql("SELECT job_state(q) FROM jobs_queue q WHERE id = $job"), 'scheduled', 'B2: a campaign waits for its time');
	is($app->query("SELECT schedule_campaign($campaign, now())"), $job, 'B2: another time moves the job that is there');
	is(outcome($job), 'completed', 'B2: a campaign starts at its time');
	is($retail->sql("SELECT count(*) FROM jobs_queue WHERE id = $job"), 0, 'B2, B14: a completed job of the scheduler is removed');
	$retail->wait_for("SELECT status FROM retail.campaigns WHERE id = $campaign", 'sent');
	is(messages_of($campaign), '1 failed number is not in use, 9 sent', 'B1: the result of each message of a batch is recorded');
	is($app->query("SELECT credits FROM shops WHERE id = $shop"), 4991, 'what was not sent is not paid for');

	is($app->try(sprintf q{SELECT schedule_campaign(%d, now())}, add_campaign(add_shop(5001), 'Too dear')), 'P0001', 'a campaign that nobody can pay for is refused');

	my $bad = $app->query(q{SELECT enqueue_job('scheduler', '{"campaign": "none"}')});
	is($retail->ended($bad, 'status, attempts'), 'failed|1', 'B2: the scheduler tries once');

	# All of them wait for the same row.
	my @campaigns = map { add_campaign($shop, 'Together') } 1 .. 4;
	my $lock = $retail->session('retail_app');
	$lock->query('BEGIN; LOCK retail.campaigns IN SHARE MODE');
	my $jobs = join ',', map { $retail->sql("SELECT enqueue_job('scheduler', '{\"campaign\": $_}')") } @campaigns;
	$retail->wait_for("SELECT string_agg(status, ' ' ORDER BY id) FROM jobs_queue WHERE id IN ($jobs)", 'running running queued queued');
	$lock->query('COMMIT');
	$retail->wait_for("SELECT count(*) FROM jobs_queue WHERE id IN ($jobs)", 0);
	$lock->quit;
	is($retail->sql("$most_at_once 'scheduler'"), 2, 'B2: two campaigns start at once, never more');
	return;
}

sub check_sms
{
	$app->query('UPDATE settings SET batch_size = 5');
	my $shop = add_shop(40);
	my $held = send_campaign($shop, 'held');
	$retail->wait_for('SELECT count(*) FROM (' . sms_jobs_of($held) . ') s', 8);
	$retail->wait_until('five requests wait', sub { return $retail->hanging('/sms/messages') >= 5 });
	is($retail->sql("SELECT string_agg(status, ' ' ORDER BY status) FROM jobs_queue WHERE id IN (" . sms_jobs_of($held) . ')'),
		'queued queued queued running running running running running', 'B1: five batches are sent at once, the others are queued');
	$retail->{server}->open_gate('held');
	$retail->wait_for("SELECT status FROM retail.campaigns WHERE id = $held", 'sent');

	# Eighty batches of one.
	$app->query('UPDATE settings SET batch_size = 1');
	my $fast = send_campaign(add_shop(80), 'fast');
	$retail->wait_for("SELECT status FROM retail.campaigns WHERE id = $fast", 'sent');
	is($retail->sql($most_in_a_window), 20, 'B12: no window of 1000 ms has more than 20 batches, and one has 20');
	is($retail->sql(q{SELECT max(attempts), max(claim_no) FROM jobs_queue WHERE job_type = 'sms'}), '1|1', 'B12: those that wait for their turn are not charged for it');
	is($retail->sql("$most_at_once 'sms'"), 5, 'B1: there were never more than five at once');
	$app->query('UPDATE settings SET batch_size = 100');
	return;
}

# Two workers outside, as fast as they can.
sub check_limits_of_all_workers
{
	$app->query(q{UPDATE job_types SET runner = 'external', endpoint = NULL WHERE job_type = 'sms'});
	$app->query(q{SELECT count(*) FROM enqueue_jobs('sms', array_fill('{}'::jsonb, '{45}'))});
	my @workers = map { { session => $retail->session('retail_app'), id => "00000000-0000-4000-8000-00000000000$_" } } 1, 2;
	my ($done, $most) = (0, 0);
	$retail->wait_until('all jobs are done', sub {
		my @held = map { [ split /\n/, $_->{session}->query("SELECT id FROM claim_jobs('$_->{id}', '{sms}', 3)") ] } @workers;
		$most = max($most, scalar(map { @$_ } @held));
		for my $n (0, 1)
		{
			$workers[$n]{session}->query("SELECT resolve_job($_, '$workers[$n]{id}', true)"), $done++ for @{ $held[$n] };
		}
		return $done == 45;
	});
	is($most, 5, 'B1: all workers together hold five batches');
	is($retail->sql(q{SELECT count(DISTINCT worker_id) FROM job_runs WHERE worker_id::text LIKE '00000000-0000-4000-8000-%'}), 2, 'both of them got some');
	is($retail->sql($most_in_a_window), 20, 'B12: and begin 20 in 1000 ms');
	$_->{session}->quit for @workers;
	$app->query(q{UPDATE job_types SET runner = 'http', endpoint = 'sms_messages' WHERE job_type = 'sms'});
	return;
}

sub check_outage
{
	my $lost = send_campaign(add_shop(3), 'outage');
	$retail->wait_for("SELECT status FROM retail.campaigns WHERE id = $lost", 'sent');
	is($retail->sql('SELECT string_agg(status || attempts, \' \') FROM jobs_queue WHERE id IN (' . sms_jobs_of($lost) . ')'), 'failed1', 'B10: a batch is tried once');
	like(messages_of($lost), qr/\A3 failed HTTP status 503/, 'B1: the messages of a batch that failed say why');

	$app->query(q{SELECT pause_job_type('sms')});
	my $unwanted = send_campaign(add_shop(3), 'Unwanted');
	$retail->wait_for('SELECT count(*) FROM (' . sms_jobs_of($unwanted) . ') s', 1);
	$app->query("SELECT cancel_job(id, 'too early') FROM (" . sms_jobs_of($unwanted) . ') s');
	$retail->wait_for("SELECT status FROM retail.campaigns WHERE id = $unwanted", 'sent');
	is(messages_of($unwanted), '3 failed cancelled', 'B1: and those of one that was cancelled');
	$app->query(q{SELECT resume_job_type('sms')});
	return;
}

# ---- contacts ----

sub csv { return join '', map { sprintf "+3021%08d,\"Customer, No. %d\",%s\r\n", $_, $_, $_ % 2 ? '' : '2000-02-29' } @_ }

# Uploads a file; the import and its job.
sub upload
{
	my ($shop, $csv) = @_;

	my $import = $app->query("SELECT upload_contacts($shop, '$csv')");
	return ($import, $app->query("SELECT job_id FROM imports WHERE id = $import"));
}

sub check_import
{
	my $shop = add_shop(0);

	# The second part waits for somebody who adds the same contact.
	my $lock = $retail->session('retail_app');
	$lock->query("BEGIN; INSERT INTO retail.contacts (shop_id, phone) VALUES ($shop, '+302100000700')");
	my ($import, $job) = upload($shop, csv(1 .. 1000) . "12345,Too short,\n+302100001001,No date,2001-02-30\n");
	$retail->wait_for("SELECT progress FROM jobs_queue WHERE id = $job", '{"done": 500, "lines": 1002}');
	is($retail->sql("SELECT status FROM jobs_queue WHERE id = $job"), 'running', 'B3: a long import tells its progress while it runs');
	my (undef, $other) = upload($shop, csv(2000));
	is(outcome($app->query(q{SELECT enqueue_job('birthday', '{"day": "2001-01-01"}')})), 'completed', 'others pass');
	is($retail->sql("SELECT status FROM jobs_queue WHERE id = $other"), 'queued', 'B3: one import at a time');
	$lock->query('COMMIT');
	$lock->quit;
	is($retail->ended($job, 'status, progress'), 'completed|{"done": 1002, "lines": 1002}', 'B3: and it comes to its end');
	is($app->query("SELECT count(*), count(birthday) FROM contacts WHERE shop_id = $shop AND name LIKE 'Customer, No. %' AND phone < '+302100002000'"), '1000|500',
		'B3: contacts are made of the lines that are right');
	is($app->query(q{SELECT csv_fields('+30,"A ""B"", C",,x')}), '{+30,"A \\"B\\", C","",x}', 'B3: quotes are read as CSV has them');
	is($app->query("SELECT string_agg(error, ', ' ORDER BY line_no) FROM import_lines WHERE import_id = $import AND error IS NOT NULL"),
		'phone number is not international, birthday is no date', 'B3: the others say what is wrong with them');
	is($retail->ended($other, 'status'), 'completed', 'B3: then comes the next import');
	return ($job, $other);
}

# The same queue with a worker of its own, outside the server.
sub check_outside_worker
{
	my $shop = add_shop(0);
	my $command = $app->query(q{SELECT command FROM job_types WHERE job_type = 'contact_import'});
	$app->query(q{UPDATE job_types SET runner = 'external', command = NULL, mode = 'batched' WHERE job_type = 'contact_import'});
	is($app->query(q{SELECT current_setting('jobqueue.lease')}), '5min', 'B19: a worker may be silent for five minutes');
	$app->query(q{UPDATE job_types SET lease = '1 second' WHERE job_type = 'contact_import'});
	my ($import) = upload($shop, csv(1 .. 3));
	my ($first, $second) = map { $app->query('SELECT gen_random_uuid()') } 1, 2;

	my $job = $app->query("SELECT id FROM claim_next_job('$first', 'contact_import')");
	ok($job, 'B16, B17: a queue can have a worker outside the server');
	is($app->query("SELECT import_lines($import, 2)"), 't', 'the worker does a part');
	is($app->query(qq{SELECT heartbeat_job($job, '$first', extend => '1 hour', progress => '{"done": 2}')}), 't', 'B3, B19: a heartbeat extends the lease, with the progress');
	is($retail->sql("SELECT progress, lease_expires_at > now() + interval '50 minutes' FROM jobs_queue WHERE id = $job"), '{"done": 2}|t',
		'B3, B19: both are there to see');
	$app->query("SELECT heartbeat_job($job, '$first')");
	is(outcome($job), 'expired', 'B19: a worker that falls silent loses the job after its lease');

	$app->query("UPDATE jobs_queue SET scheduled_at = now() WHERE id = $job AND status = 'queued'");
	$retail->wait_for("SELECT id FROM claim_next_job('$second', 'contact_import')", $job);
	is($app->query("SELECT resolve_job($job, '$first', true)"), 'f', 'B19: and cannot end it any more');
	is($app->query("SELECT import_lines($import)"), 'f', 'the second worker does the rest');
	is($app->query("SELECT resolve_job($job, '$second', true)"), 't', 'B19: another worker can');
	is($app->query("SELECT done || ' ' || (SELECT count(*) FROM contacts WHERE shop_id = $shop) FROM imports WHERE id = $import"), '3 3', 'B21: and repeats nothing');
	$app->query(qq{UPDATE job_types SET runner = 'sql', command = \$command\$$command\$command\$, mode = 'autonomous', lease = NULL WHERE job_type = 'contact_import'});
	return;
}

# ---- schedules ----

sub check_birthday
{
	my $shop = add_shop(4);
	$app->query("UPDATE shops SET birthday_text = 'Happy birthday, {name}!' WHERE id = $shop");
	$app->query("UPDATE contacts SET birthday = '1990-02-28'::date + (id % 2)::integer WHERE shop_id = $shop");
	$app->query("UPDATE contacts SET birthday = '1988-02-29' WHERE id = (SELECT max(id) FROM contacts WHERE shop_id = $shop)");

	my $at = q{SELECT to_char(next_run_at AT TIME ZONE 'UTC', 'HH24:MI'), next_run_at < now() + interval '24 hours' FROM cron_tasks WHERE name = 'birthday'};
	is($app->query($at), '00:00|t', 'B4: birthdays are at midnight, UTC, daily');
	$app->query(q{UPDATE cron_tasks SET timezone = 'Asia/Kolkata' WHERE name = 'birthday'});
	is($app->query($at), '18:30|t', 'B4: or at that of another zone');
	$app->query(q{UPDATE cron_tasks SET timezone = 'UTC' WHERE name = 'birthday'});

	my $sent = q{SELECT string_agg(birthday_on || ' ' || text || ' ' || status, ', ' ORDER BY id) FROM retail.messages WHERE birthday_on IS NOT NULL};
	is(outcome($app->query(q{SELECT run_cron_task('birthday', '2026-02-28 00:00+00')})), 'completed', 'B4: the birthdays of a day are greeted');
	$retail->wait_for(qq{SELECT coalesce(bool_and(status <> 'queued'), false) FROM retail.messages WHERE birthday_on = '2026-02-28'});
	my $greeted = $retail->sql($sent);
	like($greeted, qr/\A2026-02-28 Happy birthday, Customer \d! sent(, 2026-02-28 Happy birthday, Customer \d! sent){1,2}\z/, 'B4: with a message that is recorded');
	is(outcome($app->query(q{SELECT enqueue_job('birthday', '{"day": "2026-02-28"}')})), 'completed', 'once more');
	is($retail->sql($sent), $greeted, 'B21: a second run greets nobody again');
	is($retail->sql(q{SELECT max_concurrency FROM job_types WHERE job_type = 'birthday'}), 1, 'B4: one at a time');
	return;
}

sub check_statuses
{
	my $campaign = send_campaign(add_shop(9), 'Status');
	$retail->wait_for("SELECT status FROM retail.campaigns WHERE id = $campaign", 'sent');

	is(outcome(run_now('delivery-status-poller')), 'completed', 'the poller is due');
	$retail->wait_for("SELECT count(*) FROM retail.messages WHERE campaign_id = $campaign AND status = 'delivered'", 7);
	is(messages_of($campaign), '7 delivered, 1 failed number is not in use, 1 sent', 'B7: delivery reports come in bulk');

	is($app->query(q{SELECT 1000 * extract(epoch FROM max(run) - min(run))::integer
		FROM cron_tasks t, cron_next_runs(t.schedule, n => 2) run WHERE t.name = 'status-refresh'}), 600_000, 'B6: statuses are refreshed every 600000 ms');
	$app->query(q{UPDATE settings SET refresh_after = '0'; UPDATE cron_tasks SET schedule = 'every 1 second' WHERE name IN ('status-refresh', 'watchdog')});
	$retail->wait_for("SELECT count(*) FROM retail.messages WHERE campaign_id = $campaign AND status = 'delivered'", 8);
	pass('B6, B20: the gateway is asked for what is missing, as often as the schedule says');
	$retail->wait_for(q{SELECT count(*) > 0 FROM job_runs WHERE job_type = 'status_refresh'});
	is($retail->sql(q{SELECT count(*) FROM jobs_queue WHERE job_type = 'status_refresh' AND status = 'completed'}), 0, 'B14: a completed refresh is removed');
	is($retail->sql(q{SELECT max_concurrency FROM job_types WHERE job_type = 'status_refresh'}), 1, 'B6: one at a time');

	is($app->query(q{SELECT pause_cron_task('status-refresh', 'STATUS_REFRESH_ENABLED=0')}), 't', 'refreshing is switched off');
	my ($runs, $others) = map { $retail->sql("SELECT run_count FROM cron_tasks WHERE name = '$_'") } qw(status-refresh watchdog);
	$retail->wait_for("SELECT run_count >= $others + 2 FROM cron_tasks WHERE name = 'watchdog'");
	is($retail->sql(q{SELECT run_count FROM cron_tasks WHERE name = 'status-refresh'}), $runs, 'B6: and stays off while others go on');
	$app->query(q{SELECT resume_cron_task('status-refresh');
		UPDATE cron_tasks SET schedule = 'every 10 minutes' WHERE name = 'status-refresh';
		UPDATE cron_tasks SET schedule = 'every 5 minutes' WHERE name = 'watchdog';
		UPDATE settings SET refresh_after = '10 minutes'});
	return;
}

# Three attempts, five seconds and then ten between them; nobody waits for that here.
sub check_attempts
{
	my ($job, $id) = @_;

	is(outcome($job, 1), 'failed', "$id: the first attempt fails");
	is(wait_after_failure($job), 5000, "$id: the second one is 5000 ms later");
	$app->query("UPDATE jobs_queue SET scheduled_at = now() WHERE id = $job");
	is(outcome($job, 2), 'failed', "$id: the second attempt fails");
	is(wait_after_failure($job), 10_000, "$id: the third one is twice as much later");
	$app->query("UPDATE jobs_queue SET scheduled_at = now() WHERE id = $job");
	is($retail->ended($job, 'status, attempts'), 'failed|3', "$id: that is the last");
	return;
}

# More than are kept.
sub complete_many
{
	my ($job_type, $payload, $id) = @_;

	$retail->sql("SELECT count(*) FROM enqueue_jobs('$job_type', array_fill('$payload'::jsonb, '{110}'))");
	$retail->wait_for("SELECT count(*) FROM jobs_queue_live WHERE job_type = '$job_type'", 0);
	is($retail->sql("$most_at_once '$job_type'"), 1, "$id: there was never more than one at once");
	return;
}

sub check_poller
{
	$retail->{server}->open_gate('down-reports');
	run_now('delivery-status-poller');
	$retail->wait_for(q{SELECT count(*) FROM jobs_queue_live WHERE job_type = 'delivery_status_poller'}, 1);
	my $job = $retail->sql(q{SELECT id FROM jobs_queue_live WHERE job_type = 'delivery_status_poller'});
	check_attempts($job, 'B7');
	unlink "$retail->{server}{dir}/gate-down-reports";
	complete_many('delivery_status_poller', '{"after": 0}', 'B7');
	return;
}

sub check_watchdog
{
	my $shop = add_shop(2);

	# A batch whose job got lost, an end that nobody noticed, credits that nobody needs.
	$app->query(q{SELECT pause_job_type('sms')});
	my $campaign = send_campaign($shop, 'Lost');
	$retail->wait_for('SELECT count(*) FROM (' . sms_jobs_of($campaign) . ') s', 1);
	$app->query('DELETE FROM jobs_queue WHERE id IN (' . sms_jobs_of($campaign) . ')');
	$retail->wait_for(q{SELECT count(*) FROM jobs_queue_live WHERE job_type = 'gateway_response'}, 0);
	my $unnoticed = add_campaign($shop, 'Unnoticed');
	$app->query("UPDATE campaigns SET status = 'sending', sending_since = now() - interval '1 hour' WHERE id = $unnoticed");
	my $cancelled = add_campaign($shop, 'Cancelled');
	my $start = $app->query("SELECT schedule_campaign($cancelled, now() + interval '1 hour')");
	$app->query("SELECT cancel_campaign($cancelled)");
	is($retail->ended($start, 'status'), 'cancelled', 'B2: a campaign can be cancelled');
	my $late = add_campaign($shop, 'Late');
	$app->query("SELECT schedule_campaign($late, now() + interval '1 hour')");
	$app->query("UPDATE reservations SET expires_at = now() WHERE campaign_id IN ($cancelled, $late)");
	my $credits = $app->query("SELECT credits FROM shops WHERE id = $shop");

	my $mended = sub { return $retail->ended(run_now('watchdog'), q{result->'mend'->>'missing_batches', result->'mend'->>'expired_reservations'}) };
	is($mended->(), "[]|[$cancelled, $late]", 'B9: reservations expire');
	is($app->query("SELECT credits FROM shops WHERE id = $shop"), $credits + 4, 'B9: and their credits go back');
	is($app->query("SELECT status FROM campaigns WHERE id = $late"), 'draft', 'B9: a campaign that has not begun is a draft again');
	is($app->query("SELECT status FROM campaigns WHERE id = $unnoticed"), 'sent', 'B18: what has been sending for longer than ten minutes is looked at');
	is(messages_of($campaign), '2 queued', 'B18: not what has just begun');

	$app->query("UPDATE settings SET stuck_sending = '0'");
	my $batch = $app->query("SELECT DISTINCT batch_id FROM messages WHERE campaign_id = $campaign");
	is($mended->(), "[$batch]|[]", 'B9, B18: a batch that is missing is enqueued again');
	is($mended->(), '[]|[]', 'B21: once');
	$app->query(q{UPDATE settings SET stuck_sending = '10 minutes'; SELECT resume_job_type('sms')});
	$retail->wait_for("SELECT status FROM retail.campaigns WHERE id = $campaign", 'sent');
	is(messages_of($campaign), '2 sent', 'B9: and sent');

	# What a batch brought got lost: it is sent once more.
	my $before = $app->query("SELECT string_agg(gateway_id, ' ' ORDER BY id) FROM messages WHERE batch_id = $batch");
	$app->query("UPDATE messages SET status = 'queued', gateway_id = NULL WHERE batch_id = $batch; UPDATE settings SET stuck_sending = '0'");
	run_now('watchdog');
	$retail->wait_for("SELECT string_agg(status, ' ') FROM retail.messages WHERE batch_id = $batch", 'sent sent');
	$app->query("UPDATE settings SET stuck_sending = '10 minutes'");
	is(scalar(grep { $_->{headers}{'idempotency-key'} eq "batch-$batch" } $retail->{server}->requests('/sms/messages')), 2, 'B21: with the key that it had');
	is($app->query("SELECT string_agg(gateway_id, ' ' ORDER BY id) FROM messages WHERE batch_id = $batch"), $before, 'B21: by which the gateway knows that it has it');

	$app->query('ALTER TABLE reservations RENAME TO reservations_hidden');
	my $job = run_now('watchdog');
	check_attempts($job, 'B9');
	$app->query('ALTER TABLE reservations_hidden RENAME TO reservations');
	complete_many('watchdog', '{}', 'B9');
	return;
}

sub check_personal_data
{
	my $shop = add_shop(2);
	$app->query("UPDATE contacts SET seen_at = now() - interval '3 years' WHERE id = (SELECT min(id) FROM contacts WHERE shop_id = $shop)");
	my $job = run_now('pii-retention');
	is(outcome($job), 'completed', 'B8: personal data is looked through');
	is($app->query("SELECT string_agg(concat_ws(' ', phone IS NULL, name IS NULL, action), ', ' ORDER BY id)
		FROM contacts LEFT JOIN retention_actions ON id = contact_id WHERE shop_id = $shop"),
		't t anonymized, f f', 'B8: who has not been seen for two years is forgotten, which is recorded');
	is($app->query(q{SELECT job_type, schedule, overlap FROM cron_tasks WHERE name = 'pii-retention'}), 'sql|30 3 * * *|skip', 'B8: daily, one at a time, without a queue');
	$app->query(q{UPDATE cron_tasks SET schedule = '30 3 * * sun' WHERE name = 'pii-retention'});
	is($app->query(q{SELECT to_char(next_run_at AT TIME ZONE 'UTC', 'FMDay HH24:MI') FROM cron_tasks WHERE name = 'pii-retention'}), 'Sunday 03:30', 'B8: or weekly');
	return;
}

# ---- settings ----

sub check_defaults
{
	my $job = $app->query(q{SELECT enqueue_job('gateway_response', '{"call": "none"}')});
	is(outcome($job), 'failed', 'a job fails');
	is($retail->sql("SELECT max_attempts FROM jobs_queue WHERE id = $job"), 5, 'B10: five attempts, the first one included');
	is(wait_after_failure($job), 3000, 'B11: the next one is 3000 ms later');
	$app->query(qq{UPDATE jobs_queue SET backoff = '{"delay": "1234 ms"}', scheduled_at = now() WHERE id = $job});
	is(outcome($job, 2), 'failed', 'it fails again');
	is(wait_after_failure($job), 1234, 'B11: milliseconds count');
	$app->query("SELECT cancel_job($job)");
	return;
}

sub check_switches
{
	$retail->set('jobqueue.enabled', 'off');
	$retail->wait_for('SELECT reason FROM queue_status', 'jobqueue.enabled is off');
	my @jobs = map { $app->query("SELECT enqueue_job('$_')") } qw(watchdog gateway_response);
	is($retail->sql("SELECT string_agg(status, ' ') FROM jobs_queue WHERE id IN ($jobs[0], $jobs[1])"), 'queued queued', 'B15: switched off, jobs can be enqueued');
	is($app->query(q{SELECT count(*) FROM claim_next_job(gen_random_uuid())}), 0, 'B15: and nothing is claimed');

	$retail->set('jobqueue.run_job_types', 'watchdog');
	$retail->set('jobqueue.enabled', 'on');
	is($retail->ended($jobs[0], 'status'), 'completed', 'B17: one queue can run alone');
	is($retail->sql("SELECT status, claim_no FROM jobs_queue WHERE id = $jobs[1]"), 'queued|0', 'B15, B16, B17: a queue that this server does not run waits, and did while all was off');
	$retail->set('jobqueue.run_job_types', '');
	is(outcome($jobs[1]), 'completed', 'B16: until the server runs it');
	return;
}

# Retention goes round once a minute, and when the server has started.
sub check_retention_and_start
{
	my ($old, $young) = @_;

	is($retail->sql(q{SELECT keep_completed, keep_failed FROM job_types WHERE job_type = 'contact_import'}), '01:00:00|24:00:00', 'B13: imports are kept for an hour, failed ones for a day');
	my @failed = map { $app->query(qq{SELECT enqueue_job('contact_import', '{"import": "$_"}', max_attempts => 1)}) } qw(x y);
	$retail->ended($_, 'status') for @failed;
	$retail->sql("UPDATE jobs_queue SET finished_at = now() - interval '61 minutes' WHERE id IN ($old, $failed[0])");
	$retail->sql("UPDATE jobs_queue SET finished_at = now() - interval '1441 minutes' WHERE id = $failed[1]");
	$app->query(q{UPDATE cron_tasks SET run_on_start = true WHERE name IN ('birthday', 'pii-retention')});
	is($retail->sql(q{SELECT count(*) FROM cron_runs WHERE kind = 'start'}), 0, 'B5: without the flag nothing runs because the server starts');

	$app->quit;
	$retail->disconnect;
	$retail->{node}->restart;
	$retail->connect;

	$retail->wait_for(q{SELECT string_agg(t.name || ' ' || r.status, ', ' ORDER BY t.name)
		FROM cron_runs c JOIN cron_tasks t ON t.id = c.task_id JOIN job_runs r USING (job_id) WHERE c.kind = 'start'},
		'birthday completed, pii-retention completed');
	pass('B5: with it birthdays and personal data are looked at when the server starts');
	$retail->wait_for("SELECT string_agg(id::text, ' ' ORDER BY id) FROM jobs_queue WHERE id IN ($old, $young, $failed[0], $failed[1])", "$young $failed[0]");
	pass('B13: older ones have gone, others not');
	for (['B7', 'delivery_status_poller'], ['B9', 'watchdog'])
	{
		my ($id, $job_type) = @$_;
		$retail->wait_for("SELECT count(*) FROM jobs_queue WHERE job_type = '$job_type' AND status = 'completed'", 100);
		pass("$id: the last 100 completed jobs are kept");
	}
	return;
}

check_scheduler();
check_sms();
check_limits_of_all_workers();
check_outage();
my @imports = check_import();
check_outside_worker();
check_birthday();
check_statuses();
check_poller();
check_watchdog();
check_personal_data();
check_defaults();
check_switches();
check_retention_and_start(@imports);
$retail->conclude;
