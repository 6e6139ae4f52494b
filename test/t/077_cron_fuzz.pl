# Whatever text is taken for a schedule, the server answers: it is refused with
# 22023 or it fires at rising instants, and nothing undefined happens, which in
# the build of test/run would kill the backend.
#
# JOBQUEUE_FUZZ=n tries more texts, JOBQUEUE_TEST_SEED repeats.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Storm qw(storm_seed);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $texts = $ENV{JOBQUEUE_FUZZ} // 200_000;
my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
jobqueue.launcher = off
log_statement = none
CONF

# ---- texts ----

storm_seed();

my @valid = (
	'* * * * *', '*/15 9-17 * * mon-fri', '30 2 29 feb *', '0 0 31 1,3,5 ?', '0,30 1-4/2 LW * *', '5/7 * 15W,L * *',
	'0 12 ? jan-Dec/3 5L', '59 23 13 * 2#1,fri#5,7', '*/20 30 2 * * 0', '0 0 1 1 * *', '@daily', '@Yearly', '@reboot',
	'every 30 seconds', 'every day', '@every 1d2h3m4s', '@every 366d', "\t0  0\t1W 12 sat-sun ");
my @words = ('*', '?', 'L', 'LW', 'W', '#', '/', '-', ',', '@', 'every', '@every', '@hourly', 'second', 'minutes', 'Hours',
	'days', 'jan', 'DEC', 'sun', 'sAT', ' ', "\t", "\n", 0, 1, 5, 12, 23, 24, 29, 31, 32, 59, 60, 61, 63, 64, 65, 2147483647, 2147483648,
	9223372036854775807, 18446744073709551616, '-1', '1.5', "\xd9\xa3", "\xef\xbc\x8a", '%s%n');

sub any { return $_[ rand @_ ] }
sub any_byte { return chr(1 + int rand 255) }
sub any_words { return join '', map { any(@words) } 1 .. 1 + rand 12 }

# Each changes a text in one way, at a place drawn by lot.
my @mutations = (
	sub { substr($_[0], rand length $_[0], 1 + rand 3) = ''; },
	sub { substr($_[0], rand length $_[0], 0) = any(@words); },
	sub { substr($_[0], rand length $_[0], 1) = any(@words); },
	sub { substr($_[0], rand length $_[0], 1) = any_byte(); },
	sub { my $piece = substr($_[0], rand length $_[0], 1 + rand 9); substr($_[0], rand length $_[0], 0) = $piece x (1 + rand 9); },
	sub { my $skip = int rand 4; $_[0] =~ s/(\d+)/$skip-- ? $1 : int(rand 70)/ge; },
	sub { my @fields = split / /, $_[0]; $_[0] = join ' ', map { any(@fields) } @fields if @fields; },
	sub { my $other = any(@valid); $_[0] = substr($_[0], 0, rand length $_[0]) . substr($other, rand length $other); });

sub any_text
{
	my $chance = rand;

	return join '', map { any_byte() } 1 .. rand 300 if $chance < 0.05;
	return any_words() if $chance < 0.2;
	return join ' ', map { any_words() } 1 .. any(5, 6) if $chance < 0.25;

	my $text = any(@valid);
	for (1 .. any(0, 1, 1, 1, 2, 3, 5))
	{
		any(@mutations)->($text) if length $text;
	}
	return $text;
}

my $file = "$PostgreSQL::Test::Utils::tmp_check/cron_fuzz.copy";
open(my $out, '>', $file) or die "could not open $file: $!";
for my $id (1 .. $texts)
{
	# all that timestamptz has, but mostly our time
	my $after = rand() < 0.2 ? int(-2.1e11 + rand 9.4e12) : int(-1e9 + rand 5e9);
	printf $out "%d\t\\\\x%s\t%d\n", $id, unpack('H*', any_text()), $after;
}
close $out;

# ---- answers ----

$node->safe_psql('postgres', qq{
	CREATE TABLE texts (id integer PRIMARY KEY, bytes bytea, after float8);
	COPY texts FROM '$file';
	CREATE TABLE zones (id integer GENERATED ALWAYS AS IDENTITY (START 0 MINVALUE 0), name text);
	INSERT INTO zones (name) SELECT name FROM pg_timezone_names
		WHERE name !~ '^(posix|right)/' AND (name !~ '[0-9]' OR name ~ '[a-z]') ORDER BY name;
});
$node->safe_psql('postgres', <<'SQL');
	-- Does a statement with the text answer, true, or refuse it with 22023, false?
	CREATE FUNCTION answers(statement text, schedule text, zone text, after timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN
		EXECUTE statement USING schedule, zone, after;
		RETURN true;
	EXCEPTION WHEN invalid_parameter_value THEN
		RETURN false;
	END $$;

	-- What is wrong with the answers to these texts.
	CREATE FUNCTION problems(first integer, last integer) RETURNS TABLE (id integer, problem text) LANGUAGE plpgsql AS $$
	DECLARE
		case_ record;
		is_valid boolean;
		is_described boolean := to_regprocedure('cron_describe(text)') IS NOT NULL;
		latest timestamptz;
		run timestamptz;
	BEGIN
		FOR case_ IN SELECT t.id, convert_from(bytes, 'LATIN1') AS schedule, name AS zone, to_timestamp(after) AS after
			FROM texts AS t JOIN zones AS z ON z.id = t.id % (SELECT count(*) FROM zones) WHERE t.id BETWEEN first AND last
		LOOP
			id := case_.id;
			is_valid := cron_is_valid(case_.schedule);
			IF is_valid THEN
				latest := case_.after;
				FOR run IN SELECT cron_next_runs(case_.schedule, case_.zone, case_.after, 3) LOOP
					IF run <= latest THEN
						problem := run || ' is not after ' || latest;
						RETURN NEXT;
					END IF;
					latest := run;
				END LOOP;
			ELSIF answers('SELECT cron_next_runs($1, $2, $3, 3)', case_.schedule, case_.zone, case_.after) THEN
				problem := 'is not valid, and has runs';
				RETURN NEXT;
			END IF;
			IF is_described AND is_valid <> answers('SELECT cron_describe($1)', case_.schedule, '', now()) THEN
				problem := 'is valid or has a description, not both';
				RETURN NEXT;
			END IF;
		END LOOP;
	END $$;
SQL

# Problems of the texts with these numbers. A server that dies is one, for which
# the text that kills it is looked for.
sub problems
{
	my ($first, $last) = @_;
	my ($said, $error);

	return $said if $node->psql('postgres', "SELECT * FROM problems($first, $last)", stdout => \$said, stderr => \$error) == 0;
	wait_for_query($node, 'SELECT true');
	if ($first == $last)
	{
		my $bytes = $node->safe_psql('postgres', "SELECT encode(bytes, 'escape') FROM texts WHERE id = $first");
		return "$first: $bytes: $error";
	}
	my $middle = int(($first + $last) / 2);
	return problems($first, $middle) || problems($middle + 1, $last) || $error;
}

is(problems(1, $texts), '', "$texts texts: refused or not, and nothing undefined");

wait_for_query($node, 'SELECT true');    # it may have been killed
my $valid = $node->safe_psql('postgres', q{SELECT count(*) FROM texts WHERE cron_is_valid(convert_from(bytes, 'LATIN1'))});
note("$valid are valid");
cmp_ok($valid, '>', $texts / 10, 'many texts are schedules');
cmp_ok($valid, '<', $texts / 2, 'and more are not');

$node->stop;
done_testing();
