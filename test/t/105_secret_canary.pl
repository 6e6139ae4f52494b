# The value of a secret is nowhere but in its table: not in the log of a server
# that logs all it can, not in any view or statistics, not in a dump, not within
# reach of a role that may read everything.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Session;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my @libraries = qw(pg_stat_statements auto_explain);
my $libdir = `pg_config --pkglibdir`;
chomp $libdir;
plan skip_all => 'contrib is not installed' if grep { !-e "$libdir/$_.so" } @libraries;

my $node = JobQueue::Cluster->new('main', conf => <<~'CONF');
	shared_preload_libraries = 'jobqueue, pg_stat_statements, auto_explain'
	log_min_messages = debug5
	log_statement = all
	log_min_duration_statement = 0
	log_error_verbosity = verbose
	log_lock_waits = on
	deadlock_timeout = 10ms
	log_line_prefix = '%p %u '
	auto_explain.log_min_duration = 0
	auto_explain.log_nested_statements = on
	auto_explain.log_analyze = on
	auto_explain.log_verbose = on
	auto_explain.log_triggers = on
	pg_stat_statements.track = all
	track_activity_query_size = 16kB
	CONF

# What operations.md recommends for whoever sets secrets.
my $quiet = join '', map { "ALTER ROLE keeper SET $_;" } 'log_statement = none', 'log_min_duration_statement = -1', 'auto_explain.log_min_duration = -1';
my @roles = qw(boss producer worker operator observer reader);
$node->safe_psql('postgres', qq{
	CREATE EXTENSION pg_stat_statements;
	CREATE ROLE keeper LOGIN;
	$quiet
	CREATE ROLE boss SUPERUSER LOGIN;
	CREATE ROLE producer LOGIN; CREATE ROLE worker LOGIN; CREATE ROLE operator LOGIN; CREATE ROLE observer LOGIN;
	CREATE ROLE reader LOGIN IN ROLE pg_read_all_data, pg_write_all_data, pg_monitor;
	SELECT grant_job_role(r, r::text) FROM unnest('{producer,worker,operator,observer}'::regrole[]) r;
	SELECT grant_job_role('keeper', 'operator');
	GRANT pg_read_server_files TO keeper;
	CREATE FUNCTION wrapped(text, text, text) RETURNS void LANGUAGE plpgsql AS \$\$ BEGIN EXECUTE format('SELECT set_secret(%L, %L, %L)', \$1, \$2, \$3); END \$\$});

# No two alike, and all found by one pattern.
my $planted = 0;
sub canary { return 'canary_' . ++$planted . '_bird' }
my $bird = qr/canary_\d+_bird|63616e6172795f/;	# the second is how bytea shows it

sub session_of
{
	my ($role) = @_;
	local $ENV{PGUSER} = $role;
	return JobQueue::Session->new($node);
}

# The log is too long to be shown when a test fails.
sub is_logged { return slurp_file($node->logfile) =~ $_[0] }

# ---- planting ----

my $keeper = session_of('keeper');
# what does not compress would go to a TOAST table, if that were allowed
my @letters = ('0' .. '9', 'a' .. 'z', 'A' .. 'Z');
my $long = join '', map { canary() . join '', map { $letters[ rand @letters ] } 1 .. 400 } 1 .. 18;

$keeper->query("SELECT set_secret('token', '" . canary() . "')");
$keeper->query("SELECT set_secret('token', '" . canary() . "')");
$keeper->query("SELECT set_secret('pem', '$long')");
$keeper->query("PREPARE p AS SELECT set_secret(\$1, \$2); EXECUTE p('prepared', '" . canary() . "')");
$keeper->query("BEGIN; SELECT set_secret('in-block', '" . canary() . "'); COMMIT");
$keeper->query("SELECT set_secret('dropped', '" . canary() . "')");
$keeper->query("SELECT drop_secret('dropped')");

my $script = $node->basedir . '/set.sql';
append_to_file($script, "SELECT set_secret('bound', :value);\n");
$node->command_ok([ 'pgbench', '-n', '-t', '1', '-M', 'extended', '-D', 'value=' . canary(), '-f', $script, $node->connstr('postgres') . " user=keeper" ], 'a value as a parameter');

my $file = $node->basedir . '/secret';
append_to_file($file, canary() . "\n" . canary() . "\n");
chmod 0600, $file;
$keeper->query("SELECT set_secret_file('of-file', '$file')");

# Errors: ours, the server's, and of what comes after the call.
is($keeper->try("SELECT set_secret('a', '" . canary() . ('x' x 9000) . "')"), '54000', 'too long');
is($keeper->try("SELECT set_secret('" . canary() . " as a name', 'x')"), '22023', 'arguments in the wrong order');
is($keeper->try("SELECT set_secret('a', '" . canary() . "', '-1 day')"), '22023', 'bad interval');
is($keeper->try("SELECT set_secret('token', '" . canary() . "'), 1 / (extract(epoch FROM now())::int * 0)"), '22012', 'a later error in the statement');
is($keeper->try("BEGIN READ ONLY; SELECT set_secret('a', '" . canary() . "')"), '25006', 'read only');
$keeper->query('ROLLBACK');
is($keeper->try("SELECT wrapped('token', '" . canary() . "', '-1 day')"), '22023', 'and below a function that builds the statement');
my $boss = session_of('boss');
$boss->query("SET log_statement = none; SET log_min_duration_statement = -1; SET auto_explain.log_min_duration = -1; SELECT set_secret('of-boss', 'x')");
is($keeper->try("SELECT set_secret('of-boss', '" . canary() . "')"), '42501', "somebody else's");

# What others see of a call that waits, and what the log says of that.
$boss->query("BEGIN; SELECT FROM http_secrets WHERE name = 'token' FOR UPDATE");
$keeper->send("SELECT set_secret('token', '" . canary() . "')");
$keeper->wait_until_blocked;
is($node->safe_psql('postgres', "SELECT query FROM pg_stat_activity WHERE pid = $keeper->{pid}"), 'SELECT set_secret(...)', 'the activity of a call');
$node->poll_query_until('postgres', "SELECT pg_sleep(0.1) IS NOT NULL AND pg_read_file(pg_current_logfile()) IS NULL") if 0;
$boss->query('ROLLBACK');
is($keeper->finish, '00000', 'it goes on');
is($node->safe_psql('postgres', "SELECT query FROM pg_stat_activity WHERE pid = $keeper->{pid}"), 'SELECT set_secret(...)', 'and when it is over');
$boss->query("BEGIN; SELECT FROM http_secrets WHERE name = 'token' FOR UPDATE");
$keeper->query("SET lock_timeout = '50ms'");
is($keeper->try("SELECT set_secret('token', '" . canary() . "')"), '55P03', 'lock timeout');
$keeper->query('RESET lock_timeout; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
$boss->query("UPDATE http_secrets SET previous_until = now() WHERE name = 'token'; COMMIT");
is($keeper->try("SELECT set_secret('token', '" . canary() . "')"), '40001', 'serialization failure');
$keeper->query("ROLLBACK; SELECT set_secret('token', '" . canary() . "', '1 hour')");
ok(is_logged(qr/process $keeper->{pid} still waiting for/), 'the log tells of lock waits');

# ---- searching ----

sub log_is_clean
{
	my ($name) = @_;
	my @hits = slurp_file($node->logfile) =~ /^.*$bird.*$/mg;
	is(scalar @hits, 0, $name) or diag(join "\n", map { substr $_, 0, 300 } @hits[0 .. ($#hits > 4 ? 4 : $#hits)]);
	return;
}

log_is_clean('the log');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_statements WHERE query ~ 'canary'}), 0, 'pg_stat_statements');
cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_statements WHERE query ~ 'set_secret'}), '>=', 1, 'which has seen the calls');

# All that has rows, as everybody; only the superuser's own table has a hit.
my @relations = split /\n/, $node->safe_psql('postgres', q{
	SELECT c.oid::regclass FROM pg_class c WHERE c.relkind IN ('r', 'v', 'm', 'p', 't')
	AND c.oid::regclass::text NOT IN ('pg_stat_lru', 'http_secret_values') ORDER BY 1});
my @functions = split /\n/, $node->safe_psql('postgres', q{
	SELECT p.oid::regproc FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
	JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'jobqueue'
	WHERE p.pronargs = p.pronargdefaults AND p.prokind = 'f' AND p.prorettype <> 'trigger'::regtype ORDER BY 1});
cmp_ok(@relations, '>', 200, 'there is something to search');
for my $role (@roles)
{
	my $session = session_of($role);
	my ($found, $read) = (0, 0);
	for my $query ((map { "SELECT t::text FROM $_ t" } @relations, 'http_secret_values'), (map { "SELECT t::text FROM $_() t" } grep { !/pause|resume|drain|enqueue_cron|activate/ } @functions),
		'SELECT t::text FROM secret_names t', q{SELECT secret_problem('token')}, q{SELECT secret_problem('of-file')}, q{SELECT secret_problem('pem')})
	{
		next if $role eq 'boss' && $query =~ /http_secret_values/;
		$session->try("SET row_security = on; $query");
		$read++ if $session->{message} eq '';
		next unless ($session->{output} // '') =~ $bird;
		$found++;
		diag("$role: $query");
	}
	is($found, 0, "nothing in what $role can read ($read of them)");
}
my $reader = session_of('reader');
is($reader->query('SELECT count(*) FROM http_secret_values'), 0, 'whoever may read everything sees no row');
is($boss->query(q{SELECT string_agg(value, '' ORDER BY part) ~ '^canary' FROM http_secret_values WHERE name = 'pem'}), 't', 'the search would have found them');
my $toast = $boss->query(q{SELECT reltoastrelid::regclass FROM pg_class WHERE relname = 'http_secret_values'});
is($reader->query("SELECT count(*) FROM $toast"), 0, 'a table without row security has none of them') if $toast ne '-';
$boss->query('ANALYZE');
is($boss->query(q{SELECT count(*) FROM pg_statistic s WHERE s::text ~ 'canary'}), 0, 'nor have statistics');

# A dump of everything, and of what somebody thinks he wants.
for my $options ([], [ '-t', 'http_secret*' ], [ '--inserts', '-n', 'public' ], [ '-U', 'reader' ])
{
	my ($stdout, $stderr) = run_command([ 'pg_dump', @$options, $node->connstr('postgres') ]);
	unlike($stdout . $stderr, $bird, "pg_dump @$options");
}
my ($dump) = run_command([ 'pg_dumpall', '-h', $node->host, '-p', $node->port ]);
unlike($dump, $bird, 'pg_dumpall');

# ---- who is told that it cannot be hidden ----

my $told = '';
$node->psql('postgres', "SELECT set_secret('logged', '" . 'seen_' . "bird')", stderr => \$told, extra_params => [ '-U', 'boss' ]);
like($told, qr/WARNING:  the value of secret "logged" may be in the server's log\nDETAIL:  Setting "log_statement"/, 'a session whose statements are logged is told so');
ok(is_logged(qr/seen_bird/), 'and rightly');

# ---- previous values do not stay for ever ----

$boss->query("SET log_statement = none; UPDATE http_secrets SET previous_until = now() WHERE name = 'token'");
is($boss->query("SELECT count(*) FROM http_secret_values WHERE name = 'token' AND is_previous"), 1, 'an expired value is there');
$keeper->quit;
$_->quit foreach $reader, $boss;
$node->restart;		# a scheduler looks when it starts, and then each minute
wait_for_query($node, "SELECT NOT EXISTS (SELECT FROM http_secret_values WHERE name = 'token' AND is_previous)");
is($node->safe_psql('postgres', "SELECT previous_until IS NULL FROM http_secrets WHERE name = 'token'"), 't', 'until the scheduler has seen it');

# ---- a crash ----

# The postmaster logs what the process that crashed was doing.
($keeper, $boss) = map { session_of($_) } qw(keeper boss);
$boss->query("BEGIN; SELECT FROM http_secrets WHERE name = 'token' FOR UPDATE");
$keeper->send("SELECT set_secret('token', '" . canary() . "')");
$keeper->wait_until_blocked;
kill 'KILL', $keeper->{pid};
$keeper->finish;
wait_for_query($node, 'SELECT true');
ok(is_logged(qr/Failed process was running: SELECT set_secret\(\.\.\.\)/), 'the crash was logged');
log_is_clean('and without the value');
$_->quit foreach $keeper, $boss;

$node->stop;
done_testing();
