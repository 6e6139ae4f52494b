# Sessions publish while subscriptions come and replay what was before: of each
# event each job type has one job, none is lost, none comes twice. Old events
# go; by default none is kept.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Http qw(set_and_reload);
use JobQueue::Session;
use JobQueue::Storm;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
max_connections = 40
log_statement = none
jobqueue.max_executors = 0
CONF

$node->safe_psql('postgres', q{SELECT subscribe_event('a', 'x'); SELECT publish_event('a', '1', 'key')});
is($node->safe_psql('postgres', 'SELECT count(*) FROM published_events'), '0', 'by default no event is kept');
my ($status, $out, $err) = $node->psql('postgres', q{SELECT replay_events(job_type => 'x')});
is($out, '0', 'there is nothing to replay');
like($err, qr/NOTICE:  events are not kept\nHINT:  Set jobqueue.keep_events/, 'and it is said');
$node->safe_psql('postgres', 'TRUNCATE jobs_queue; DELETE FROM event_subscriptions');

set_and_reload($node, 'jobqueue.keep_events', '1d');
my $publishers = 5;
my $clients = JobQueue::Storm->start(
	$publishers,
	sub {
		my ($number, $go_on) = @_;
		my $s = JobQueue::Session->new($node);
		my $n = 0;

		while ($go_on->())
		{
			$n++;
			my $key = $n % 2 ? 'NULL' : "'$number-$n'";
			$s->query('BEGIN');
			$s->query("SELECT publish_event('order.paid', '\"$number-$n\"', $key)");
			$s->query("SELECT publish_event('order.late', '\"$number-$n-b\"')") if $n % 3 == 0;
			sleep rand 0.1;
			$s->query($n % 7 == 0 ? 'ROLLBACK' : 'COMMIT');
		}
		return;
	});
# Half of them subscribe and replay in one transaction.
my $subscribers = 30;
for my $n (1 .. $subscribers)
{
	sleep 0.05;
	my $sql = "SELECT subscribe_event('order.*', 's$n'); SELECT replay_events(job_type => 's$n')";
	$node->safe_psql('postgres', $n % 2 ? "BEGIN; $sql; COMMIT" : $sql);
}
sleep 0.3;
is($clients->stop, '', 'nobody failed');
my $events = $node->safe_psql('postgres', 'SELECT count(*) FROM published_events');
cmp_ok($events, '>', 200, 'there were many events');
is($node->safe_psql('postgres', q{
	SELECT payload, job_type, q.n
	FROM (SELECT e.payload, s.job_type FROM published_events e CROSS JOIN event_subscriptions s) x
		FULL JOIN (SELECT payload->'data' AS payload, job_type, count(*) AS n FROM jobs_queue GROUP BY 1, 2) q
			USING (payload, job_type)
	WHERE x.payload IS NULL OR q.n IS DISTINCT FROM 1 LIMIT 10}), '', 'each event once for each subscription');
is($node->safe_psql('postgres', q{SELECT count(*) FROM jobs_queue}), $events * $subscribers, 'and nothing else');
is($node->safe_psql('postgres', q{SELECT sum(replay_events(job_type => 's' || n)) FROM generate_series(1, 30) n}), '0', 'nothing is left to replay');

# Two at once replay the same.
$node->safe_psql('postgres', q{TRUNCATE jobs_queue; SELECT subscribe_event('order.*', 'twice')});
$clients = JobQueue::Storm->start(4, sub {
	my ($number, $go_on) = @_;
	my $s = JobQueue::Session->new($node);
	$s->query(q{SELECT replay_events(job_type => 'twice', max_events => 50)}) for 1 .. 40;
	return;
});
wait_for_query($node, "SELECT count(*) >= $events FROM jobs_queue");
is($clients->stop, '', 'nobody failed');
is($node->safe_psql('postgres', q{SELECT count(*), count(DISTINCT payload->'data') FROM jobs_queue WHERE job_type = 'twice'}), "$events|$events", 'four replays at once bring each event once');

# What is old goes.
$node->safe_psql('postgres', q{UPDATE published_events SET published_at = now() - interval '2 days' WHERE id % 2 = 0});
$node->restart;
wait_for_query($node, q{SELECT count(*) = 0 FROM published_events WHERE published_at < now() - interval '1 day'});
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM published_events'), '>', 100, 'and what is not stays');

$node->stop;
done_testing();
