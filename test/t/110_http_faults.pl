# Whatever a server does, an HTTP job ends within its timeout, with an outcome of
# the right class, and the dispatcher stays as it is.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Http qw(http_conf add_http_type send_job runs_of outcome_of dispatcher memory_of);
use JobQueue::HttpServer;
use List::Util qw(max);
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

# Seconds: what a request may take, and how much later its job is over at the latest.
use constant { TIMEOUT => 2, MARGIN => 1 };

# What becomes of a job: it completes, is tried again, or fails for good.
use constant { OK => 'completed', RETRY => 'tried again', FINAL => 'failed for good' };

# kB that the dispatcher may grow by.
use constant GROWTH => 16 * 1024;

my $server = JobQueue::HttpServer->start;
my $node = JobQueue::Cluster->new('main', conf => http_conf(q{jobqueue.http_connect_timeout = '1s'}));

my $no_answer = qr/^the request failed: timed out while waiting for the answer$/;
my $half_an_answer = qr/^the request failed: timed out while receiving the answer$/;
my $too_large = qr/^the request failed: the headers of the answer are too large$/;
my $broken = qr/^the request failed: the connection broke$/;
my $too_long = qr/^the request failed: (?:the headers of the answer are too large|the connection broke)$/;
my $no_http = qr/^the request failed: the answer is not valid HTTP$/;
my $short = qr/^the request failed: the answer is shorter than announced$/;
my $closed = qr/^the request failed: the server closed the connection without an answer$/;
my $redirect = qr/^HTTP status 30\d, a redirect that is not followed/;

sub body { my ($expected) = @_; return sub { ($_[0]{response}{body} // '') eq $expected } }
sub in_base64 { my ($expected) = @_; return sub { ($_[0]{response}{body_base64} // '') eq $expected && !exists $_[0]{response}{body} } }
sub header { my ($name, $expected) = @_; return sub { ($_[0]{response}{headers}{$name} // '') eq $expected } }
sub without_result { my ($body) = @_; return sub { !defined $_[0]{result} && ($_[0]{response}{body} // '') eq $body } }
sub is_cut { return $_[0]{response}{truncated} && $_[0]{response}{bytes} == 262144 && $_[0]{response}{status} == 200 }

# Behaviour => arguments, class, error (a pattern) or what must hold of the run.
my %expected = (
	ok => [ '', OK, sub { $_[0]{result}{ok} && $_[0]{response}{status} == 200 } ],
	text => [ '', OK, body('fine') ],
	empty => [ '', OK, sub { $_[0]{response}{bytes} == 0 } ],
	no_content => [ '', OK, sub { $_[0]{response}{status} == 204 } ],
	status => [ '/404', FINAL, qr/^HTTP status 404: status 404$/ ],
	echo => [ '', OK, sub { $_[0]{result}{method} eq 'POST' } ],
	gate => [ '/never', RETRY, $no_answer ],
	late => [ '/500', OK, sub { $_[0]{response}{timings}{first_byte_ms} >= 500 } ],
	text_size => [ '/262144', OK, sub { $_[0]{response}{bytes} == 262144 && !$_[0]{response}{truncated} } ],
	json_size => [ '/262145', OK, sub { is_cut(@_) && !defined $_[0]{result} } ],
	flaky => [ '/1', OK, sub { $_[0]{result}{ok} }, 2 ],
	retry_after => [ '/429/1/0', OK, sub { $_[0]{result}{ok} }, 2 ],

	hang => [ '', RETRY, $no_answer ],
	hang_header => [ '', RETRY, $half_an_answer ],
	hang_body => [ '', RETRY, $half_an_answer ],
	slow_header => [ '', RETRY, $half_an_answer ],
	slow_body => [ '', RETRY, $half_an_answer ],
	endless_body => [ '', OK, \&is_cut ],
	endless_chunks => [ '', OK, \&is_cut ],
	endless_headers => [ '', RETRY, $too_large ],
	endless_header_line => [ '', RETRY, $too_long ],
	endless_status_line => [ '', RETRY, $too_long ],
	endless_continue => [ '', RETRY, $too_large ],
	endless_early_hints => [ '', RETRY, $too_large ],
	endless_trailer => [ '', RETRY, $too_large ],
	endless_extension => [ '', RETRY, qr/^the request failed: / ],

	header_size => [ '/100000', RETRY, $too_large ],
	many_headers => [ '/1000', OK, sub { my %h = %{ $_[0]{response}{headers} }; keys %h <= 100 && $h{'x-header-1'} eq 'value' } ],
	early_hints => [ '', OK, sub { $_[0]{result}{ok} && !exists $_[0]{response}{headers}{link} } ],
	nul_header => [ '', RETRY, $no_http ],
	bare_cr_header => [ '', OK, sub { !exists $_[0]{response}{headers}{'x-second'} } ],
	bare_lf => [ '', OK, body('ok') ],
	folded_header => [ '', OK, sub { ($_[0]{response}{headers}{'x-folded'} // '') =~ /^a(?: +b)?$/ } ],
	no_colon_header => [ '', RETRY, $no_http ],
	binary_header => [ '', OK, header('x-binary', '???') ],
	repeated_header => [ '', OK, header('x-repeated', '1, 2, 3') ],
	conflicting_length => [ '', RETRY, qr/^the request failed: / ],
	length_and_chunked => [ '', OK, body('ok') ],
	negative_length => [ '', RETRY, $no_http ],
	huge_length => [ '', OK, body('ok') ],
	bad_length => [ '', RETRY, $no_http ],
	bad_type => [ '', OK, sub { $_[0]{response}{body} eq 'ok' } ],
	authenticate => [ '', FINAL, qr/^HTTP status 401/ ],
	cookie => [ '', OK, body('ok') ],
	upgrade => [ '', RETRY, qr/./ ],

	http09 => [ '', RETRY, $no_http ],
	bad_status_line => [ '', RETRY, $no_http ],
	# Newer versions of libcurl let it pass.
	bad_status => [ '', RETRY, qr/^(?:the request failed: the answer is not valid HTTP|HTTP status 999.*)$/ ],
	bad_version => [ '', RETRY, $no_http ],
	http2_bytes => [ '', RETRY, $no_http ],
	garbage => [ '', RETRY, $no_http ],

	no_content_with_body => [ '', OK, sub { $_[0]{response}{status} == 204 && $_[0]{response}{bytes} == 0 } ],
	not_modified => [ '', FINAL, qr/^HTTP status 304/ ],
	short_body => [ '', RETRY, $short ],
	long_body => [ '', OK, body('ok') ],
	bad_chunk_size => [ '', RETRY, $broken ],
	negative_chunk => [ '', RETRY, $broken ],
	chunk_overflow => [ '', RETRY, $broken ],
	short_chunk => [ '', RETRY, $short ],
	chunk_hang => [ '', RETRY, $half_an_answer ],
	no_last_chunk => [ '', RETRY, $short ],
	trailer => [ '', OK, body('ok') ],
	gzip => [ '', OK, sub { $_[0]{result}{ok} } ],
	gzip_bomb => [ '', OK, \&is_cut ],
	bad_gzip => [ '', RETRY, qr/^the request failed: the answer is not compressed as announced$/ ],
	many_encodings => [ '', RETRY, qr/^the request failed: the answer is not compressed as announced$/ ],
	unknown_encoding => [ '', RETRY, qr/^the request failed: the answer is not compressed as announced$/ ],
	nul_bytes => [ '', OK, in_base64('YQBi') ],
	invalid_utf8 => [ '', OK, in_base64('Yf/+YsM=') ],
	latin1 => [ '', OK, in_base64('Y2Fm6Q==') ],
	utf16 => [ '', OK, in_base64('//5vAGsA') ],
	bad_charset => [ '', OK, body('ok') ],
	deep_json => [ '/10000', OK, without_result('[' x 10000 . ']' x 10000) ],
	json_nul => [ '', OK, without_result('{"a":"b\u0000c"}') ],
	json_surrogate => [ '', OK, without_result('{"a":"\ud800"}') ],
	json_number => [ '', OK, without_result('{"a":1e999999}') ],
	json_invalid_utf8 => [ '', OK, sub { !defined $_[0]{result} && exists $_[0]{response}{body_base64} } ],
	json_broken => [ '', OK, without_result('{"a":') ],
	json_html => [ '', OK, without_result('<html>503 but with status 200</html>') ],
	json_scalar => [ '', OK, sub { $_[0]{result} == 17 } ],
	json_empty => [ '', OK, without_result('') ],
	json_twice => [ '', OK, sub { $_[0]{result}{a} == 2 } ],

	reset => [ '', RETRY, $broken ],
	reset_header => [ '', RETRY, $broken ],
	reset_body => [ '', RETRY, $broken ],
	close => [ '', RETRY, $closed ],
	close_header => [ '', RETRY, $short ],
	close_after => [ '', OK, sub { $_[0]{result}{ok} } ],
	close_at_second => [ '', OK, sub { $_[0]{result}{ok} } ],
	talk_after => [ '', OK, sub { $_[0]{result}{ok} } ],

	redirect => [ '/302/aHR0cDovL2Ev', FINAL, $redirect ],
	redirect_loop => [ '', FINAL, $redirect ],
	redirect_chain => [ '/3', FINAL, $redirect ],
	redirect_nowhere => [ '', FINAL, $redirect ],
	redirect_garbage => [ '', FINAL, $redirect ],
);

is_deeply([ sort 'raw', keys %expected ], [ JobQueue::HttpBehaviours::names() ], 'every behaviour is tested');

# The same at the level of TCP, by port.
my %port = (
	mute => [ RETRY, $no_answer ],
	deaf => [ RETRY, qr/^the request failed: timed out while connecting$/ ],
	shut => [ RETRY, qr/^the request failed: could not connect$/ ],
	rude => [ RETRY, qr/^the request failed: (?:could not connect|the connection broke)$/ ],
	chatty => [ RETRY, $no_http ],
);

# Asserts what became of a job.
sub is_outcome
{
	my ($name, $id, $class, $what, $count) = @_;

	my @runs = runs_of($node, $id);
	my $job = outcome_of($node, $id);
	$count //= $class eq RETRY ? 2 : 1;
	is(scalar @runs, $count, "$name: $class");
	is($job->{status}, $class eq OK ? 'completed' : 'failed', "$name: $job->{status}");
	my $last = $runs[-1];
	my $good = ref $what eq 'CODE' ? eval { $what->($last) } : ($last->{error} // '') =~ $what;
	ok($good, "$name: as expected") or diag(explain($last));
	cmp_ok(max(map { $_->{seconds} } @runs), '<', TIMEOUT + MARGIN, "$name: in time");
	return;
}

add_http_type($node, $_, $server->url("/$_$expected{$_}[0]"), timeout => TIMEOUT . ' s') for sort keys %expected;
add_http_type($node, "port $_", $server->url('/ok', $_), timeout => TIMEOUT . ' s') for sort keys %port;

# What the dispatcher needs for any job is there before.
runs_of($node, send_job($node, 'ok'));
my $pid = dispatcher($node);
my $before = memory_of($pid);

# A process that looks often notes how large the dispatcher becomes.
my $sizes = PostgreSQL::Test::Utils::tempdir() . '/sizes';
append_to_file($sizes, "$before\n");
my $watcher = fork // die "could not fork: $!";
if ($watcher == 0)
{
	open my $out, '>>', $sizes or POSIX::_exit(1);
	my ($largest, $parent) = ($before, getppid);
	while (getppid == $parent && defined(my $size = memory_of($pid)))
	{
		syswrite $out, "$size\n" if $size > $largest;
		$largest = max($largest, $size);
		sleep 0.003;
	}
	POSIX::_exit(0);
}

sub largest { return max(split /\n/, slurp_file($sizes)) }

# ---- all behaviours at once ----

my %id = map { $_ => send_job($node, $_) } sort keys %expected;
$id{"port $_"} = send_job($node, "port $_") for sort keys %port;
is_outcome($_, $id{$_}, @{ $expected{$_} }[ 1 .. 3 ]) for sort keys %expected;
is_outcome("port $_", $id{"port $_"}, @{ $port{$_} }) for sort keys %port;

is(dispatcher($node), $pid, 'the dispatcher is the same');
cmp_ok(largest() - $before, '<', GROWTH, 'and was never much larger');
note("from $before kB to ", memory_of($pid), ', at most ', largest());

# ---- the same again and again: nothing is left of them ----

my @after;
for my $round (1 .. 4)
{
	$node->safe_psql('postgres', q{SELECT enqueue_jobs(e.name, array_fill('{}'::jsonb, '{5}'), max_attempts => 1) FROM http_endpoints e});
	wait_for_query($node, 'SELECT count(*) FROM jobs_queue_live', 0);
	push @after, memory_of($pid);
}
is(dispatcher($node), $pid, 'the dispatcher is the same after twenty times all of them');
cmp_ok(largest() - $before, '<', GROWTH, 'and was never much larger');
note("from $before kB to @after, at most ", largest());
is($node->safe_psql('postgres', q{SELECT max((response->'timings'->>'total_ms')::numeric) < 1000 * } . (TIMEOUT + MARGIN) . ' FROM job_runs'), 't', 'every transfer was in time');

# ---- by status ----

my %class = (
	(map { $_ => OK } 200, 201, 202, 203, 206, 207, 226, 299),
	(map { $_ => FINAL } 300, 301, 302, 303, 304, 305, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 409, 410, 411, 413, 415, 417, 418, 422, 423, 424, 426, 428, 431, 451, 499),
	(map { $_ => RETRY } 408, 425, 429, 500, 501, 502, 503, 504, 505, 507, 511, 520, 599));
add_http_type($node, "status $_", $server->url("/status/$_"), timeout => TIMEOUT . ' s') for sort keys %class;
%id = map { $_ => send_job($node, "status $_") } sort keys %class;
wait_for_query($node, 'SELECT count(*) FROM jobs_queue_live', 0);
my %found = map { split /\|/ } split /\n/, $node->safe_psql('postgres', q{
	SELECT substr(q.job_type, 8), CASE WHEN q.status = 'completed' THEN 'completed' WHEN count(*) = 2 THEN 'tried again' ELSE 'failed for good' END
	FROM jobs_queue q JOIN job_runs r ON r.job_id = q.id WHERE q.job_type LIKE 'status %' GROUP BY q.id, q.job_type, q.status});
is($found{$_}, $class{$_}, "status $_: $class{$_}") for sort keys %class;

# ---- slower than it may be ----

add_http_type($node, 'too slow', $server->url('/slow_body'), timeout => '60 s', low_speed_limit => 1000, low_speed_time => '1 s', max_attempts => 1);
my ($run) = runs_of($node, send_job($node, 'too slow'));
like($run->{error}, qr/^the request failed: /, 'a low speed ends a request: ' . ($run->{error} // ''));
cmp_ok($run->{seconds}, '<', 5, 'long before its timeout');

# ---- log ----

is(dispatcher($node), $pid, 'the dispatcher is the same to the end');
kill 'TERM', $watcher;
waitpid $watcher, 0;
my $log = slurp_file($node->logfile);
unlike($log, qr/\b(?:PANIC|TRAP|signal 11|invalid byte sequence|terminated by signal)\b/, 'nothing crashed');
is(join("\n", grep { /(?:ERROR|FATAL):/ } split /\n/, $log), '', 'and nothing raised an error');
$node->stop;
$server->stop;
done_testing();
