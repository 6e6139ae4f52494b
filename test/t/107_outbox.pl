# Events that are published in the transaction of the business, and go to HTTP
# endpoints: the whole way, from one role's table to another role's server.
use strict;
use warnings;
use Digest::SHA qw(hmac_sha256_base64);
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster;
use JobQueue::HttpJobs;
use JobQueue::Session;
use JSON::PP qw(decode_json);
use MIME::Base64 qw(encode_base64);
use PostgreSQL::Test::Utils;
use Test::More;

my $http = JobQueue::HttpJobs->new('main');
my $server = $http->{server};
my $key = encode_base64('s' x 32, '');
$http->sql(q{
	CREATE ROLE sales;
	CREATE ROLE shop;
	SELECT grant_job_role('sales', 'operator'), grant_job_role('shop', 'producer');
	CREATE TABLE orders (id int PRIMARY KEY, total numeric);
	GRANT ALL ON orders TO shop});

# The data of what came to a path, in order.
sub data_at
{
	my ($path) = @_;

	return join ' ', map { decode_json($_->{body})->{data}{id} } $server->requests($path);
}

# The subscribers: endpoints and a secret that are theirs.
my %url = map { $_ => JobQueue::HttpJobs::quoted($server->url("/ok/$_")) } qw(crm audit bulk);
$http->sql(qq{
	SET ROLE sales;
	SELECT set_secret('signing', 'whsec_$key');
	INSERT INTO http_endpoints (name, url, signing_secret, max_concurrency) VALUES ('crm', $url{crm}, 'signing', 1);
	INSERT INTO http_endpoints (name, url, max_concurrency) VALUES ('audit', $url{audit}, 1);
	SELECT subscribe_event('order.paid', endpoint => 'crm'), subscribe_event('order.*', endpoint => 'audit');
	RESET ROLE});

# The business, which knows none of that.
my $shop = JobQueue::Session->new($http->{node});
$shop->query('SET SESSION AUTHORIZATION shop');
is($shop->try('SELECT * FROM http_endpoints'), '42501', 'who publishes cannot see where it goes');
$shop->query(q{BEGIN; INSERT INTO orders VALUES (1, 10); SELECT publish_event('order.paid', '{"id": 1}', 'order-1', 'tenant-7'); ROLLBACK});
$shop->query(q{BEGIN; INSERT INTO orders VALUES (2, 20); SELECT publish_event('order.paid', '{"id": 2}', 'order-2', 'tenant-7')});
is($http->sql('SELECT count(*) FROM jobs_queue'), 0, 'nothing is there before the commit');
$shop->query('COMMIT');
$http->wait_until_done;
is(data_at('/ok/crm') . '|' . data_at('/ok/audit'), '2|2', 'both subscribers get what was committed, and nothing else');
is($http->sql('SELECT string_agg(id::text, $$ $$) FROM orders'), '2', 'as it is in the table');

my ($at_crm) = $server->requests('/ok/crm');
my ($at_audit) = $server->requests('/ok/audit');
my $event = decode_json($at_crm->{body});
is(join('|', @{$event}{qw(type key tenant_id)}), 'order.paid|order-2|tenant-7', 'the event with its type, key and tenant');
like($event->{timestamp}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00$/, 'and its time');
isnt($at_crm->{headers}{'idempotency-key'}, $at_audit->{headers}{'idempotency-key'}, 'each subscriber has a key of its own');
my $signature = hmac_sha256_base64(join('.', @{ $at_crm->{headers} }{qw(webhook-id webhook-timestamp)}, $at_crm->{body}), 's' x 32);
$signature .= '=' while length($signature) % 4;
is($at_crm->{headers}{'webhook-signature'}, "v1,$signature", 'what goes to the endpoint with a secret is signed');
ok(!exists $at_audit->{headers}{'webhook-signature'}, 'the other is not');
is($http->sql(q{SELECT string_agg(DISTINCT job_type || ' ' || owner, ', ') FROM jobs_queue}), 'webhook:audit sales, webhook:crm sales', 'the jobs are the subscriber\'s');

# Patterns.
$shop->query(qq{SELECT publish_event('$_->[0]', '{"id": $_->[1]}')}) for [ 'order.refunded', 3 ], [ 'orders.paid', 4 ], [ 'order', 5 ], [ 'order.paid.late', 6 ], [ 'order.paid', 7 ], [ 'invoice.paid', 8 ];
$http->wait_until_done;
is(data_at('/ok/crm') . '|' . data_at('/ok/audit'), '2 7|2 3 6 7', 'an exact pattern and a prefix');

# A subscriber that fails has its event again, as it was; the other has it once.
$http->sql(sprintf q{UPDATE http_endpoints SET url = %s WHERE name = 'crm'}, JobQueue::HttpJobs::quoted($server->url('/flaky/2')));
$http->sql(q{UPDATE job_types SET backoff = '{"delay": "10 ms"}'});
$shop->query(q{SELECT publish_event('order.paid', '{"id": 9}', 'order-9')});
$http->wait_until_done;
my @tried = $server->requests('/flaky/2');
is(scalar(@tried), 3, 'a subscriber that fails is asked again');
is(scalar(keys %{ { map { $_->{body} => 1 } @tried } }), 1, 'with the same event');
is(scalar(keys %{ { map { $_->{headers}{'webhook-id'} => 1 } @tried } }), 1, 'and the same id');
is(data_at('/ok/audit'), '2 3 6 7 9', 'the other has it once');

# The same key while the first has not been delivered: one event.
$http->sql(sprintf q{UPDATE http_endpoints SET url = %s WHERE name = 'crm'}, JobQueue::HttpJobs::quoted($server->url('/gate/crm')));
$shop->query(q{SELECT publish_event('order.paid', '{"id": 10}', 'order-10')});
$http->wait_for_requests('/gate/crm', 1);
$shop->query(q{SELECT publish_event('order.paid', '{"id": 10}', 'order-10')});
$server->open_gate('crm');
$http->wait_until_done;
is(data_at('/gate/crm'), '10', 'an event with the same key is the same event while it is on its way');

# A trigger as an outbox; many events in one transaction, and in few requests.
$http->sql(qq{
	CREATE FUNCTION outbox() RETURNS trigger LANGUAGE plpgsql AS \$\$
	BEGIN
		PERFORM publish_event('order.' || lower(TG_OP), to_jsonb(NEW));
		RETURN NULL;
	END \$\$;
	CREATE TRIGGER outbox AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION outbox();
	SET ROLE sales;
	INSERT INTO http_endpoints (name, url) VALUES ('bulk', $url{bulk});
	INSERT INTO job_types (job_type, runner, endpoint, batch_size, max_linger) VALUES ('order_feed', 'http', 'bulk', 50, '1 hour');
	SELECT unsubscribe_event('order.*', endpoint => 'audit'), subscribe_event('order.insert', 'order_feed'), subscribe_event('order.update', endpoint => 'audit');
	RESET ROLE});
$shop->query('BEGIN; INSERT INTO orders SELECT n, n FROM generate_series(1001, 1100) n; SAVEPOINT s; INSERT INTO orders VALUES (2000, 1); ROLLBACK TO s; UPDATE orders SET total = 0 WHERE id = 1050; COMMIT');
$http->wait_until_done;
# Both may be on their way at once.
is(join('|', sort map { join ' ', map { $_->{data}{id} } @{ decode_json($_->{body}) } } $server->requests('/ok/bulk')),
	join(' ', 1001 .. 1050) . '|' . join(' ', 1051 .. 1100), 'a hundred rows are two requests, each in order');
like(data_at('/ok/audit'), qr/ 1050$/, 'and a change of one is one');

# Who leaves gets nothing any more.
$http->sql(q{SET ROLE sales; SELECT unsubscribe_event('order.paid', endpoint => 'crm'), unsubscribe_event('order.insert', 'order_feed'); RESET ROLE});
my $count = $server->count;
is($shop->query(q{SELECT publish_event('order.paid', '{"id": 11}')}), '{}', 'nobody listens any more');
$shop->query('UPDATE orders SET total = 1 WHERE id = 1051');
$http->wait_until_done;
is($server->count, $count + 1, 'but whoever has stayed');

is($http->sql(q{SELECT count(*) FROM jobs_queue WHERE status <> 'completed'}), 0, 'all were delivered');
$shop->quit;
$http->stop;
done_testing();
