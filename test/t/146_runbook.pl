# Every statement in docs/operations.md works as it stands there, in blocks of
# SQL and inside of the text: as an operator, or as a superuser where a comment
# says so. What it talks about is there before each block.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
jobqueue.poll_interval = 1s
jobqueue.http_allow_cidrs = '127.0.0.1/32'
jobqueue.http_allow_ports = '*'
CONF

$node->safe_psql('postgres', <<'SQL');
CREATE ROLE op LOGIN;
CREATE ROLE keeper;
CREATE ROLE shop_app;
CREATE ROLE app;
GRANT app TO op;
GRANT pg_read_server_files TO op;
GRANT pg_monitor TO op;
GRANT CREATE ON SCHEMA public TO op;
SELECT grant_job_role('op', r) FROM unnest('{operator,producer,worker}'::text[]) r;
SQL

# Owned by the operator: jobs of the types, endpoints and tasks that are named.
my $state = <<'SQL';
DO $$ BEGIN
	IF EXISTS (SELECT FROM pg_policy WHERE polname = 'own') THEN
		DROP POLICY own ON jobs_queue;
		ALTER TABLE jobs_queue DISABLE ROW LEVEL SECURITY;
	END IF;
END $$;
ALTER SYSTEM RESET ALL;
SELECT resume_workers();
SELECT pg_reload_conf();
TRUNCATE jobs_queue;
DELETE FROM cron_tasks;
DELETE FROM job_circuits;
DELETE FROM worker_stops;
DELETE FROM job_types;
DELETE FROM http_endpoints;
SET SESSION AUTHORIZATION op;
INSERT INTO http_endpoints (name, url, timeout) VALUES ('crm', 'http://127.0.0.1:1/', '1 s');
INSERT INTO job_types (job_type, breaker_threshold) VALUES ('mail', NULL), ('ship', 3), ('sync', NULL), ('report', NULL), ('ended', NULL);
INSERT INTO job_types (job_type, runner, endpoint) VALUES ('crm', 'http', 'crm');
INSERT INTO jobs_queue (id, job_type, correlation_id) VALUES (41, 'mail', 'order-1001'), (42, 'mail', 'order-1001'),
	(43, 'sync', NULL), (44, 'mail', NULL), (45, 'ship', NULL);
UPDATE jobs_queue SET stage = 'label' WHERE id = 45;
SELECT schedule_cron_task('digest', '0 8 * * *', 'mail');
RESET SESSION AUTHORIZATION;
UPDATE jobs_queue SET status = 'error', last_error = 'connection refused', attempts = 5 WHERE id IN (42, 43);
UPDATE jobs_queue SET status = 'failed', last_error = 'connection refused' WHERE id = 44;
SELECT open_circuit('ship', 'label');
SQL

# Blocks, by the line that they begin at; and statements inside of the text.
my ($line, $begin, $sql, $is_super, @blocks) = (0);
open my $in, '<', "$FindBin::RealBin/../../docs/operations.md" or die "cannot read docs/operations.md: $!\n";
while (my $row = <$in>)
{
	$line++;
	if (!defined $sql && $row =~ /^\s*```sql$/)
	{
		($begin, $sql, $is_super) = ($line, "SET SESSION AUTHORIZATION op;\n", 0);
	}
	elsif (defined $sql && $row =~ /^\s*```$/)
	{
		push @blocks, [ $begin, $sql ];
		undef $sql;
	}
	elsif (defined $sql)
	{
		my $for_once = $row =~ /;\s+-- as a superuser\b/ && !$is_super;
		my $for_good = $row =~ /^\s*-- as a superuser\b/;
		$is_super = 1 if $for_good;
		$sql .= "SET SESSION AUTHORIZATION DEFAULT;\n" if $for_once || $for_good;
		$sql .= $row;
		$sql .= "SET SESSION AUTHORIZATION op;\n" if $for_once;
	}
	else
	{
		push @blocks, map { [ $line, "SET SESSION AUTHORIZATION op;\n$_;\n" ] }
		  grep { !m{…|\.\.\.|/etc/} } $row =~ /`((?:SELECT|UPDATE|DELETE|INSERT) [^`]+?);?`/g;
	}
}
cmp_ok(scalar @blocks, '>', 50, 'there are blocks of SQL');
ok(!defined $sql, 'each of them ends');

foreach my $block (@blocks)
{
	my ($number, $text) = @$block;
	my ($out, $err);

	# Of a database that a block renames
	$node->safe_psql('postgres', "DROP DATABASE IF EXISTS store") if $text =~ /RENAME TO store/;
	$node->safe_psql('postgres', "CREATE DATABASE shop") if $text =~ /DATABASE shop/;
	$node->safe_psql('postgres', $state);
	my $code = $node->psql('postgres', $text, stdout => \$out, stderr => \$err);
	is($code, 0, "the SQL at line $number of docs/operations.md") or diag("$text\n$err");
}

# Each check has a section, and so has each kind of alert.
my $manual = slurp_file("$FindBin::RealBin/../../docs/operations.md");
foreach my $check (split /\n/, $node->safe_psql('postgres', 'SELECT "check" FROM job_health()'))
{
	like($manual, qr/^### \Q$check\E\n/m, "the runbook has a section on $check");
}
foreach my $kind (split /\n/, $node->safe_psql('postgres', q{SELECT (regexp_matches(pg_get_constraintdef(oid), $r$'([a-z_]+)'$r$, 'g'))[1]
	FROM pg_constraint WHERE conname = 'alert_rules_kind_check'}))
{
	like($manual, qr/^### \Q$kind\E\n/m, "and one on alerts of kind $kind");
}

$node->stop;
done_testing();
