# A server for a TAP test: a PostgreSQL::Test::Cluster that preloads jobqueue,
# runs its workers briskly, for superusers, too, and has the extension in database
# "postgres".
#
#   use lib 'test/lib';
#   use JobQueue::Cluster qw(wait_for_query);
#
#   my $node = JobQueue::Cluster->new('main', conf => "jobqueue.lease = 2s");
#   wait_for_query($node, q{SELECT count(*) FROM jobs_queue_live}, '0');
#   $node->stop;
#
# Parameters of new(), all optional:
#   conf       lines for postgresql.conf; they win over those below
#   init       parameters of PostgreSQL::Test::Cluster's init(), as a hash
#   extension  0 leaves CREATE EXTENSION to the test
package JobQueue::Cluster;

use strict;
use warnings;
use Carp qw(croak);
use Exporter qw(import);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More ();

our @EXPORT_OK = qw(wait_for_query);

sub new
{
	my ($class, $name, %param) = @_;

	my $node = PostgreSQL::Test::Cluster->new($name);

	# A machine without locales would give it SQL_ASCII.
	my %init = %{ $param{init} // {} };
	$node->init(%init,
		extra => [ '--encoding=UTF8', '--no-locale', @{ $init{extra} // [] } ]);

	# A crash is followed by a restart, as on a user's server: what happens
	# then is what many of these tests are about.
	$node->append_conf('postgresql.conf', <<~'CONF');
		shared_preload_libraries = 'jobqueue'
		restart_after_crash = on
		fsync = off
		max_worker_processes = 32
		jobqueue.poll_interval = 100ms
		jobqueue.allow_superuser_jobs = on
		CONF
	$node->append_conf('postgresql.conf', $param{conf}) if defined $param{conf};
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION jobqueue')
	  if $param{extension} // 1;
	return $node;
}

# Waits until $sql, in database "postgres", returns $expected (default: 't'), in
# the format of psql -At. When it never does, the end of the server's log is
# shown and the script dies: what would follow could only mislead.
sub wait_for_query
{
	my ($node, $sql, $expected) = @_;
	my $found;

	# A psql that a restarting server turns away does not read its query.
	while (!defined($found = eval { $node->poll_query_until('postgres', $sql, $expected // 't') }))
	{
		die $@ unless $@ =~ /Broken pipe/;
	}
	return if $found;

	my @log = grep { !/LOG:  statement:/ } split /\n/, slurp_file($node->logfile);
	splice @log, 0, -30 if @log > 30;
	Test::More::diag(join "\n", 'the server said:', @log);
	croak 'waited in vain for ' . ($expected // 't') . " from: $sql";
}

1;
