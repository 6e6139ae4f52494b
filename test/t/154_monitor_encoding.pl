# Monitors of databases in other encodings than UTF-8, and what clients send.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster;
use JobQueue::Http qw(set_and_reload);
use JobQueue::Monitor qw(free_port wait_for_monitor ask);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main', extension => 0);
my %port = (sql_ascii => free_port());
do { $port{latin1} = free_port() } while $port{latin1} == $port{sql_ascii};

$node->safe_psql('postgres', 'CREATE ROLE watcher LOGIN');
for my $database (sort keys %port)
{
	$node->safe_psql('postgres', "CREATE DATABASE $database TEMPLATE template0 ENCODING '$database' LC_COLLATE 'C' LC_CTYPE 'C'");
	$node->safe_psql($database, q{CREATE EXTENSION jobqueue; SELECT grant_job_role('watcher', 'observer')});
}
set_and_reload($node, 'jobqueue.monitor', join ', ', map { "database=$_ role=watcher port=$port{$_}" } sort keys %port);

sub get { return ask($port{ $_[0] }, GET => $_[1]) // { status => 'none' } }

sub pids
{
	return $node->safe_psql('postgres', q{SELECT string_agg(datname || ' ' || pid, ', ' ORDER BY datname) FROM pg_stat_activity WHERE backend_type = 'jobqueue monitor'});
}

wait_for_monitor($_) for values %port;
my $pids = pids();

# ---- what goes wrong is told, and does not end the process ----

my $answer = get('latin1', '/api/session?%C3%A4=1');
is($answer->{status}, 400, 'LATIN1: an unrecognized parameter');
is($answer->{json}{error}, qq{unrecognized parameter "\x{e4}"}, 'is named in UTF-8');
$answer = get('latin1', '/api/session?%E2%82%AC=1');
is($answer->{status}, 400, 'a character that the encoding lacks');
is($answer->{json}{code}, '22P05', 'is an error of the request');
is(get('latin1', '/api/session?%ff=1')->{status}, 400, 'bytes that are none');
is(get('latin1', '/api/session')->{status}, 200, 'the next request');

my $half = ('a' x 99) . '%C3%A4';
$answer = get('sql_ascii', "/api/session?$half=1");
is($answer->{status}, 400, 'SQL_ASCII: a message that ends within a character');
is($answer->{json}{error}, 'the request could not be answered', 'is not repeated');
is($answer->{json}{code}, '22023', 'but its code is');
$answer = get('sql_ascii', '/api/session?%C3%A4=1');
is($answer->{json}{error}, qq{unrecognized parameter "\x{e4}"}, 'others are');
is(get('sql_ascii', '/api/session')->{status}, 200, 'the next request');

is(pids(), $pids, 'all by the same processes');
$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|ERROR|leak)\b/, 'nothing crashed or leaked, and nothing was logged');

done_testing();
