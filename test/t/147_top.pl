# jobqueue-top: what it shows, plainly and on a terminal, and how it ends.
use strict;
use warnings;
use FindBin;
use IPC::Run qw(run start);
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use PostgreSQL::Test::Utils;
use Test::More;

my $top = "$FindBin::RealBin/../../bin/jobqueue-top";
my $node = JobQueue::Cluster->new('main');
local %ENV = (%ENV, $node->_get_env, TERM => 'xterm', PGDATABASE => 'postgres', LC_ALL => 'C.UTF-8');
delete $ENV{NO_COLOR};
# What runs in the background of a script has it ignored, and its children, too.
$SIG{INT} = 'DEFAULT';

# Its exit code, and what it said on either output.
sub top
{
	my ($out, $err) = ('', '');

	run([ $top, @_ ], '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return ($? >> 8, $out, $err);
}

# ---- one look, as text ----

$node->safe_psql('postgres', <<'SQL');
INSERT INTO job_types (job_type, max_attempts, backoff, breaker_threshold) VALUES ('mail', 1, '"0s"', 2);
SELECT enqueue_job('mail', stage => 'send') FROM generate_series(1, 4);
SELECT enqueue_job(E'evil \u202e\u009b31m name, 世界');
SELECT enqueue_job('later', scheduled_at => now() + interval '1 day');
SELECT pause_job_type('later');
SELECT fail_job(id, locked_by, 'no') FROM claim_jobs('cccccccc-0000-4000-8000-000000000001', '{mail}', 2);
CREATE ROLE watcher LOGIN;
SELECT grant_job_role('watcher', 'observer');
CREATE DATABASE without;
SQL

my ($status, $out, $err) = top('--once');
is($status, 0, 'it can look once') or diag($err);
is($err, '', 'and says nothing besides');
like($out, qr/^jobqueue in postgres /, 'it names the database');
like($out, qr/^jobs     3 ready, 0 running, 1 scheduled, 0 blocked, 2 dead;/m, 'it counts jobs');
like($out, qr/^workers  .*1 launcher running, 1 scheduler running/m, 'and workers');
like($out, qr/^mail +2 +0 +\S+ +- +- +- +2 +0 +0 .*circuit open at send$/m, 'it has a line for a type, with its circuit');
like($out, qr/^later .* 1 +0 +- +-  paused$/m, 'one with a pause');
like($out, qr/^evil \?\?31m name, 世界 +1 /m, 'and one whose name shows, and does nothing');
unlike($out, qr/[\x00-\x09\x0b-\x1f\x7f]/, 'nothing in it steers a terminal');

is_deeply([ (top('--once', '-U', 'watcher', '-d', 'postgres'))[0, 2] ], [ 0, '' ], 'an observer may use it');
($status, $out, $err) = top('--once', 'without');
is($status, 1, 'a database without the extension');
like($err, qr/this database does not have the extension/, 'is told so');
($status, $out, $err) = top('--once', '--port=1', '-h', '127.0.0.1');
is($status, 1, 'no server');
like($err, qr/^jobqueue-top: .*connection to server at "127\.0\.0\.1", port 1 failed/, 'is told in the words of psql');
foreach my $case ([ 2, '--nonsense' ], [ 1, '-n', '0' ], [ 1, '-n', 'x' ], [ 1, '-p' ])
{
	my ($expected, @arguments) = @$case;
	($status, $out, $err) = top(@arguments);
	is($status, $expected, "arguments that are wrong: @arguments");
	like($err, qr/\S/, 'and why');
}
like((top('--help'))[1], qr/--interval SECONDS/, 'it explains itself');

# ---- on a terminal ----

# Starts it, and waits until what it writes matches.
my ($keys, $screen);
sub start_top
{
	($keys, $screen) = ('', '');
	my $process = start([ $top, '-n', '0.2', @_ ], '<pty<', \$keys, '>pty>', \$screen, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return $process;
}

sub wait_for_screen
{
	my ($process, $pattern) = @_;

	pump $process until $screen =~ $pattern;
	return;
}

my $process = start_top();
wait_for_screen($process, qr/per second \d/);
like($screen, qr/^\e\[\?1049h\e\[\?25l/, 'it takes the screen, and hides the cursor');
unlike($screen, qr/\e\[2J/, 'it writes over the last look, and does not clear the screen');
my $query = q{SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE application_name = 'jobqueue-top'};
my $connection = $node->safe_psql('postgres', $query);
like($connection, qr/^\d+$/, 'it has one connection');
$node->safe_psql('postgres', q{SELECT enqueue_job('news') FROM generate_series(1, 100)});
wait_for_screen($process, qr/news +100 +0 +\S+ +(?!0\.0)[0-9.]+ +0\.0 +0\.0/);
pass('it shows what comes in, per second');
is($node->safe_psql('postgres', $query), $connection, 'and keeps the connection');

$node->restart;
wait_for_query($node, 'SELECT has_scheduler FROM queue_status');
$screen = '';
wait_for_screen($process, qr/news +100/);
pass('after a restart of the server it goes on');

$keys = 'q';
$process->finish;
is($process->result(0), 0, 'q ends it');
like($screen, qr/\e\[\?25h\e\[\?1049l\z/, 'and the screen is as it was');
my $gone = q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'jobqueue-top'};
wait_for_query($node, $gone);

$process = start_top();
wait_for_screen($process, qr/news +100/);
$keys = "\cC";
$process->finish;
is($process->result(0), 130, 'so does Ctrl-C');
like($screen, qr/\e\[\?25h\e\[\?1049l\z/, 'in the same way');
wait_for_query($node, $gone);

$node->stop;
done_testing();
