# The files of time zones change while the server runs, as by an update of the
# machine's tzdata. After a reload of the configuration, plans and all sessions
# go by the new rules, also in zones that the postmaster had read before. The
# server's zone directory belongs to the machine: a library made here shows the
# server a copy in its place.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use File::Copy qw(copy);
use File::Path qw(remove_tree);
use JobQueue::Clock;
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Jobs qw(worker_pid kill_and_return);
use JobQueue::Preload;
use JobQueue::Session;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::Local qw(timegm);

my $source = <<'C';
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* A path below ZONES_FROM becomes one below ZONES_TO. */
static const char *
redirect(const char *path, char *buffer)
{
	const char *from = getenv("ZONES_FROM");
	const char *to = getenv("ZONES_TO");
	size_t		length = from ? strlen(from) : 0;

	if (!from || !to || strncmp(path, from, length) != 0 ||
		(path[length] != '\0' && path[length] != '/'))
		return path;
	snprintf(buffer, 4096, "%s%s", to, path + length);
	return buffer;
}

#define REAL(name, type) \
	static __typeof__(type) real; \
	char buffer[4096]; \
	if (!real) real = (type) dlsym(RTLD_NEXT, name); \
	path = redirect(path, buffer)

#define OPEN(name) \
int name(const char *path, int flags, ...) \
{ \
	va_list args; \
	int mode; \
	REAL(#name, int (*) (const char *, int, ...)); \
	va_start(args, flags); \
	mode = va_arg(args, int); \
	va_end(args); \
	return real(path, flags, mode); \
}

#define STAT(name, type) \
int name(const char *path, struct type *result) \
{ \
	REAL(#name, int (*) (const char *, struct type *)); \
	return real(path, result); \
}

OPEN(open)
OPEN(open64)
STAT(stat, stat)
STAT(lstat, stat)
STAT(stat64, stat64)
STAT(lstat64, stat64)

DIR *
opendir(const char *path)
{
	REAL("opendir", DIR *(*) (const char *));
	return real(path);
}
C

# Where the server looks for zones was decided when it was built.
my ($stdout) = run_command([ 'pg_config', '--configure' ]);
my ($directory) = $stdout =~ /'--with-system-tzdata=([^']+)'/;
($stdout) = run_command([ 'pg_config', '--sharedir' ]);
$directory //= "$stdout/timezone";
my $zones = PostgreSQL::Test::Utils::tempdir() . '/zones';
plan skip_all => "cannot copy $directory"
  if system("cp -RL '$directory' '$zones' 2>/dev/null") != 0 && !-f "$zones/Europe/Berlin";
remove_tree("$zones/posix", "$zones/right");

my $preload = JobQueue::Preload->new('zones', $source, ZONES_FROM => $directory, ZONES_TO => $zones)
  or plan skip_all => 'no compiler for the library that shows other zones';
my $clock = JobQueue::Clock->new;
# a time of day far from any noon, on a day when no clock changes
$clock->set_time(timegm(0, 0, 3, 20, 0, 2027));

# As a package manager does it: nobody finds half a file.
sub set_zone
{
	my ($name, $rules) = @_;

	copy("$directory/$rules", "$zones/$name.new") or die "could not copy: $!";
	rename "$zones/$name.new", "$zones/$name" or die "could not rename: $!";
	return;
}

my $node = $preload->run(sub { $clock->run(sub { JobQueue::Cluster->new('main', conf => <<'CONF') }) });
timezone = 'Europe/Berlin'
log_timezone = 'UTC'
log_statement = none
jobqueue.poll_interval = 1h
CONF
# Waits for the end of its first cycle: then it knows the files.
sub scheduler_pid
{
	wait_for_query($node, "SELECT count(*) FROM job_workers WHERE kind = 'scheduler' AND last_seen_at IS NOT NULL", 1);
	return worker_pid($node, 'jobqueue scheduler');
}

my $scheduler = scheduler_pid();

# Reloads, and waits until the scheduler has logged this.
sub reload_until
{
	my ($message) = @_;

	my $from = -s $node->logfile;
	$node->reload;
	$node->wait_for_log(qr/$message/, $from);
	return;
}

# The next time that a clock there shows twelve.
sub noon
{
	my ($session, $zone) = @_;

	return $session->query("SELECT extract(epoch FROM cron_next_runs('0 12 * * *', '$zone', n => 1))::bigint");
}

sub plans { return $node->safe_psql('postgres', "SELECT name, extract(epoch FROM next_run_at)::bigint FROM cron_tasks $_[0] ORDER BY name") }

$node->safe_psql('postgres', q{
	SELECT schedule_cron_task('berlin', '0 12 * * *', 'outside', timezone => 'Europe/Berlin');
	SELECT schedule_cron_task('paris', '0 12 * * *', 'outside', timezone => 'Europe/Paris');
	SELECT schedule_cron_task('lisbon', '0 12 * * *', 'outside', timezone => 'Europe/Lisbon');
	SELECT schedule_cron_task('off', '0 12 * * *', 'outside', timezone => 'Europe/Berlin');
	UPDATE cron_tasks SET enabled = false WHERE name = 'off';
	SELECT schedule_cron_task('interval', 'every 5 hours', 'outside', timezone => 'Europe/Berlin');
	SELECT schedule_cron_task('half past', '30 * * * *', 'outside', timezone => 'Europe/Berlin');
	SELECT schedule_cron_task('later', '30 * * * *', 'outside', timezone => 'Europe/Berlin');
	UPDATE cron_tasks SET next_run_at = next_run_at + interval '10 days' WHERE name = 'later';
	SELECT schedule_cron_task('by hand', '0 12 * * *', 'outside', timezone => 'Europe/Paris');
	UPDATE cron_tasks SET next_run_at = now() + interval '100 minutes' WHERE name = 'by hand';
});
my $old = JobQueue::Session->new($node);
my $before = noon($old, 'Europe/Berlin');
my $paris = noon($old, 'Europe/Paris');
isnt($before, noon($old, 'Asia/Tokyo'), 'noon in Berlin is not noon in Tokyo');
is(plans("WHERE name = 'berlin'"), "berlin|$before", 'a plan by the rules at first');
my $by_hand = plans("WHERE name IN ('later', 'by hand')");
my $others = plans("WHERE name <> 'berlin'");

# Europe/Berlin has the rules of Asia/Tokyo from now on
set_zone('Europe/Berlin', 'Asia/Tokyo');
is(noon($old, 'Europe/Berlin'), $before, 'nothing changes before a reload');
reload_until('time zone "Europe/Berlin" has new rules');
wait_for_query($node, "SELECT extract(epoch FROM next_run_at)::bigint FROM cron_tasks WHERE name = 'berlin'",
	noon($old, 'Asia/Tokyo'));
pass('the plan has moved');
is(plans("WHERE name <> 'berlin'"), $others, 'other plans stay');
is(noon($old, 'Europe/Berlin'), noon($old, 'Asia/Tokyo'), 'an old session goes by the new rules');
is(noon($old, 'europe/berlin'), noon($old, 'Asia/Tokyo'), 'and so it does for another spelling');
is(noon($old, 'Europe/Paris'), $paris, 'an unchanged zone is as it was');
my $new = JobQueue::Session->new($node);
is(noon($new, 'Europe/Berlin'), noon($old, 'Asia/Tokyo'), 'a new session goes by the new rules');
is(noon($new, 'Europe/Paris'), $paris, 'and by those of an unchanged zone');
$node->safe_psql('postgres', q{SELECT schedule_cron_task('new', '0 12 * * *', 'outside', timezone => 'Europe/Berlin')});
is(plans("WHERE name = 'new'"), 'new|' . noon($old, 'Asia/Tokyo'), 'a new task is planned by the new rules');

# Nothing is said or done where nothing has changed
reload_until('reloading configuration files');
set_zone('Europe/Paris', 'Asia/Dubai');
reload_until('time zone "Europe/Paris" has new rules');
is(() = slurp_file($node->logfile) =~ /time zone "Europe\/Berlin" has new rules/g, 1, 'a change is logged once');
is(noon($new, 'Europe/Paris'), noon($old, 'Asia/Dubai'), 'the second change is noticed, too');

# Many changes
sub memory_of_scheduler
{
	my $from = -s $node->logfile;

	$node->safe_psql('postgres', "SELECT pg_log_backend_memory_contexts($scheduler)");
	$node->wait_for_log(qr/\[$scheduler\] .*Grand total: \d+ bytes/, $from);
	my ($bytes) = slurp_file($node->logfile, $from) =~ /\[$scheduler\] .*Grand total: (\d+) bytes/;
	return $bytes;
}
sub memory_of_session { return $_[0]->query('SELECT sum(total_bytes) FROM pg_backend_memory_contexts') }

my ($scheduler_bytes, $session_bytes);
for my $turn (1 .. 20)
{
	my $rules = (qw(Asia/Dubai Asia/Tokyo America/New_York))[ $turn % 3 ];
	set_zone('Europe/Berlin', $rules);
	set_zone('Europe/Paris', $rules);
	reload_until('time zone "Europe/Paris" has new rules');
	noon($old, 'Europe/Berlin') eq noon($old, $rules) or fail("change $turn");
	memory_of_session($old);
	($scheduler_bytes, $session_bytes) = (memory_of_scheduler(), memory_of_session($old)) if $turn == 5;
}
cmp_ok(memory_of_scheduler() - $scheduler_bytes, '<=', 16384, 'the scheduler needs no more memory');
cmp_ok(memory_of_session($old) - $session_bytes, '<=', 16384, 'a session needs no more memory');

# Something is wrong with the directory: zones are used as they are
symlink 'nowhere', "$zones/Broken" or die "could not link: $!";
set_zone('Europe/Berlin', 'Asia/Tokyo');
reload_until('could not stat');
is(noon($old, 'Europe/Berlin'), noon($old, 'America/New_York'), 'what cannot be read changes nothing');
is(JobQueue::Session->new($node)->try(q{SELECT cron_next_runs('@daily', 'Europe/Berlin')}), '00000',
	'a session in want of new rules does without');
unlink "$zones/Broken";
reload_until('time zone "Europe/Berlin" has new rules');
is(noon($old, 'Europe/Berlin'), noon($old, 'Asia/Tokyo'), 'it can be read again');

# A restart does as well as a reload
set_zone('Europe/Berlin', 'Asia/Dubai');
$preload->run(sub { $clock->run(sub { $node->restart }) });
$old->connect;
wait_for_query($node, "SELECT extract(epoch FROM next_run_at)::bigint FROM cron_tasks WHERE name = 'berlin'",
	noon($old, 'Asia/Dubai'));
pass('the plan has moved after a restart');
is(plans("WHERE name IN ('later', 'by hand')"), $by_hand, 'plans set by hand stay');

# A crash gives shared memory back, but not what the postmaster has read
scheduler_pid();
set_zone('Europe/Berlin', 'Asia/Tokyo');
reload_until('time zone "Europe/Berlin" has new rules');
$new->connect;
kill_and_return($node, $new->{pid});
$old->connect;
is(noon($old, 'Europe/Berlin'), noon($old, 'Asia/Tokyo'), 'the new rules hold after a crash');

# A zone goes, another one comes
scheduler_pid();
is($old->try(q{SELECT cron_next_runs('@daily', 'Europe/Atlantis')}), '22023', 'a zone that does not exist');
unlink "$zones/Europe/Lisbon" or die "could not unlink: $!";
set_zone('Europe/Atlantis', 'Asia/Tokyo');
reload_until('time zone "Europe/Lisbon" has gone');
is(noon($old, 'Europe/Atlantis'), noon($old, 'Asia/Tokyo'), 'a zone comes');
is($old->try(q{SELECT cron_next_runs('@daily', 'Europe/Lisbon')}), '22023', 'a zone has gone');
is($node->safe_psql('postgres', q{SELECT count(*) FROM cron_tasks WHERE disabled_reason IS NOT NULL}), 0,
	'its task waits until it is due');
$clock->set_time($clock->time + 2 * 86400);
$node->safe_psql('postgres', q{SELECT schedule_cron_task('wakes', '@yearly', 'outside')});
wait_for_query($node, q{SELECT count(*) FROM cron_tasks WHERE NOT enabled AND name <> 'off'}, 1);
is($node->safe_psql('postgres', q{SELECT name, disabled_reason FROM cron_tasks WHERE NOT enabled AND name <> 'off'}),
	'lisbon|time zone "Europe/Lisbon" not recognized', 'it is disabled then');
wait_for_query($node, q{SELECT count(*) FROM cron_tasks WHERE enabled AND next_run_at <= now()}, 0);
is($node->safe_psql('postgres', q{SELECT string_agg(DISTINCT name, ',') FROM cron_tasks JOIN jobs_queue q ON q.cron_task_id = cron_tasks.id}),
	'berlin,by hand,half past,interval,new,paris', 'the others go on');
set_zone('Europe/Lisbon', 'Europe/Lisbon');
reload_until('time zone "Europe/Lisbon" has new rules');
$node->safe_psql('postgres', q{UPDATE cron_tasks SET enabled = true WHERE name = 'lisbon'});
is(plans("WHERE name = 'lisbon'"), 'lisbon|' . noon($old, 'Europe/Lisbon'), 'it is back, and its task as well');

$old->quit;
$node->stop('fast');
unlike(slurp_file($node->logfile), qr/\b(?:PANIC|TRAP|signal 11|leak|could not copy)\b/, 'nothing crashed or leaked');
done_testing();
