# Sessions that begin while our tables are invalidated again and again: what they
# look at to know who else has triggers there must not be freed meanwhile. Once
# that crashed about one session in a thousand, hence the number of them.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use IPC::Run qw(start finish);
use JobQueue::Cluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main', conf => "jobqueue.launcher = off\nlog_statement = none");
$node->safe_psql('postgres', q{
	INSERT INTO job_types (job_type) VALUES ('x');
	SELECT activate_jobs();
	SELECT schedule_cron_task('x', '@yearly', 'x')});
my $dir = PostgreSQL::Test::Utils::tempdir();
append_to_file("$dir/look", "SELECT * FROM queue_status\n");
append_to_file("$dir/change", <<'SQL');
UPDATE database_identity SET pause_reason = pause_reason;
UPDATE cron_tasks SET description = description;
UPDATE job_types SET description = description
SQL

my @pgbench = ('pgbench', '-n');
my $database = $node->connstr('postgres');
my $changes = start([ @pgbench, '-T', '60', '-c', '2', '-f', "$dir/change", $database ], '<', \undef, '>', "$dir/log", '2>', "$dir/log2");
$node->command_ok([ @pgbench, '-C', '-t', '500', '-c', '6', '-f', "$dir/look", $database ], 'three thousand sessions look at changing tables');
$changes->signal('INT');
finish $changes;
is($node->safe_psql('postgres', 'SELECT count(*) FROM job_types'), '1', 'the server is still there');
$node->stop;
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak)\b/, 'nothing crashed or leaked');
done_testing();
