# What there is too little of: connections, locks, files, disk, memory. Jobs wait
# or fail for the reason given, nothing spins, and the queue moves again within
# seconds. (010_worker_slots.pl has the worker slots.)
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster qw(wait_for_query);
use JobQueue::Jobs qw(prepare_jobs enqueue effect executor_of ended effect_problems wait_until_done worker_pid);
use JobQueue::Session;
use JobQueue::Storm qw(run_problems log_problems);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# A full disk: tables cannot grow, what is there can be overwritten.
my $dir = PostgreSQL::Test::Utils::tempdir();
append_to_file("$dir/full.c", <<'C');
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static volatile const char *full;

__attribute__((constructor)) static void
start(void)
{
	const char *name = getenv("DISK_FULL_FILE");
	int			file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
	void	   *memory = MAP_FAILED;

	if (file >= 0)
	{
		memory = mmap(NULL, 1, PROT_READ, MAP_SHARED, file, 0);
		close(file);
	}
	full = memory == MAP_FAILED ? NULL : memory;
}

static int
fails(int file, off_t offset)
{
	char		link[64];
	char		path[1024];
	ssize_t		length;
	struct stat st;

	if (!full || *full != '1' || fstat(file, &st) != 0 || offset < st.st_size)
		return 0;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", file);
	length = readlink(link, path, sizeof(path) - 1);
	if (length < 0)
		return 0;
	path[length] = 0;
	if (!strstr(path, "/base/"))
		return 0;
	errno = ENOSPC;
	return 1;
}

#define NEXT(type, name, ...) ((type (*) (__VA_ARGS__)) dlsym(RTLD_NEXT, name))
#define PWRITE(name) ssize_t name(int f, const void *b, size_t n, off_t o) { \
	return fails(f, o) ? -1 : NEXT(ssize_t, #name, int, const void *, size_t, off_t)(f, b, n, o); }
#define PWRITEV(name) ssize_t name(int f, const struct iovec *v, int n, off_t o) { \
	return fails(f, o) ? -1 : NEXT(ssize_t, #name, int, const struct iovec *, int, off_t)(f, v, n, o); }
#define FALLOCATE(name) int name(int f, off_t o, off_t n) { \
	return fails(f, o) ? ENOSPC : NEXT(int, #name, int, off_t, off_t)(f, o, n); }
PWRITE(pwrite)
PWRITE(pwrite64)
PWRITEV(pwritev)
PWRITEV(pwritev64)
FALLOCATE(posix_fallocate)
FALLOCATE(posix_fallocate64)
C
my $has_disk_shim = $^O eq 'linux' && system("cc -shared -fPIC -o '$dir/full.so' '$dir/full.c' -ldl 2>'$dir/full.log'") == 0;
note(slurp_file("$dir/full.log")) if !$has_disk_shim;

# The file is mapped: it is written in place.
sub set_disk_full
{
	my ($is_full) = @_;

	open my $out, -e "$dir/full" ? '+<' : '>', "$dir/full" or die "could not open: $!";
	syswrite $out, $is_full;
	close $out;
	return;
}

set_disk_full(0);
$ENV{LD_PRELOAD} = "$dir/full.so" if $has_disk_shim;
$ENV{DISK_FULL_FILE} = "$dir/full";
my $node = JobQueue::Cluster->new('main', conf => <<'CONF');
jobqueue.max_executors = 2
jobqueue.retry_delay = 0
jobqueue.executor_idle_timeout = 1s
log_statement = none
max_connections = 8
superuser_reserved_connections = 1
max_wal_senders = 0
max_locks_per_transaction = 10
max_files_per_process = 64
CONF
delete $ENV{LD_PRELOAD};
prepare_jobs($node);
$node->safe_psql('postgres', q{CREATE TABLE filled (a text); ALTER TABLE filled ALTER a SET STORAGE EXTERNAL; GRANT ALL ON filled TO alice});
my $scheduler = worker_pid($node, 'jobqueue scheduler');

# Connections: workers need none
my @sessions;
my $s = JobQueue::Session->new($node);
my $id;
{
	local $ENV{PGUSER} = 'alice';
	push @sessions, JobQueue::Session->new($node) for 1 .. 6;
}
$sessions[0]->query('SELECT enqueue_sql($cmd$' . effect('crowded') . '$cmd$) FROM generate_series(1, 20)');
my $until = time + 30;
1 while $s->query('SELECT count(*) FROM jobs_queue_live') > 0 && time < $until;
is($s->query(q{SELECT count(*) FROM effects WHERE what = 'crowded'}), '20', 'jobs are run while no client can connect');
$_->quit for @sessions;
$s->quit;

# Locks: a job that takes too many fails for it; ours are there
$node->safe_psql('postgres', q{
	DO $$ BEGIN FOR i IN 1..400 LOOP EXECUTE format('CREATE TABLE public.many_%s (a int)', i);
		IF i % 10 = 0 THEN COMMIT; END IF; END LOOP; END $$;
	GRANT SELECT ON ALL TABLES IN SCHEMA public TO alice;
});
my $all = effect('locks', q{DO $$ DECLARE t text; BEGIN FOR t IN SELECT relname FROM pg_class WHERE relname LIKE 'many_%' LOOP
	EXECUTE format('LOCK TABLE public.%I IN ACCESS SHARE MODE', t); END LOOP; PERFORM pg_sleep(1); END $$});
$id = enqueue($node, $all, 'max_attempts => 1');
like(ended($node, $id, 'status, last_error'), qr/^(?:failed\|out of shared memory \(53200\)|completed)/, 'a job that needs more locks than there are fails with 53200');

# Somebody else has them all: jobs wait, and go on when they are free
my $holder = JobQueue::Session->new($node);
my $state = $holder->try('BEGIN; ' . join '; ', map { "LOCK TABLE public.many_$_ IN ACCESS SHARE MODE" } 1 .. 400);
if ($state eq '53200')
{
	# as many as there are
	$holder->try('ROLLBACK');
	my ($low, $high) = (0, 400);
	while ($high - $low > 1)
	{
		my $middle = int(($low + $high) / 2);
		$state = $holder->try('BEGIN; ' . join '; ', map { "LOCK TABLE public.many_$_ IN ACCESS SHARE MODE" } 1 .. $middle);
		$holder->try('ROLLBACK');
		$state eq '00000' ? ($low = $middle) : ($high = $middle);
	}
	$state = $holder->try('BEGIN; ' . join '; ', map { "LOCK TABLE public.many_$_ IN ACCESS SHARE MODE" } 1 .. $low);
	note("$low tables are locked: $state");
}
my $offset = -s $node->logfile;
(undef, my $out, my $err) = $node->psql('postgres', 'SELECT enqueue_sql($cmd$' . effect('no locks') . '$cmd$)', extra_params => [ '-U', 'alice' ]);
$node->psql('postgres', 'SELECT pg_sleep(1.5)');
my $lines = () = slurp_file($node->logfile, $offset) =~ /\n/g;
cmp_ok($lines, '<', 60, 'without locks nothing spins') or diag(slurp_file($node->logfile, $offset));
$holder->try('ROLLBACK');
$holder->quit;
my $started = time;
$id = enqueue($node, effect('locks again'));
is(ended($node, $id, 'status'), 'completed', 'with locks jobs are run');
cmp_ok(time - $started, '<', 5, 'soon');
wait_until_done($node);

# Files: more tables than files may be open
$id = enqueue($node, effect('files', q{DO $$ DECLARE t text; n bigint; BEGIN FOR t IN SELECT relname FROM pg_class WHERE relname LIKE 'many_%' LIMIT 90 LOOP
	EXECUTE format('SELECT count(*) FROM public.%I', t) INTO n; END LOOP; END $$}), 'max_attempts => 1');
like(ended($node, $id, 'status, last_error'), qr/^completed\||53200/, 'a job may open more files than max_files_per_process');
is(ended($node, enqueue($node, effect('after files')), 'status'), 'completed', 'the next one is run');

# Memory: an error as any other, and the process goes on
$id = enqueue($node, effect('memory', q{SELECT length(repeat('x', 2000000000))}), 'max_attempts => 2');
like(ended($node, $id, 'status, attempts, last_error'), qr/^failed\|2\|.*\((?:54000|XX000|53200)\)/, 'a job that wants too much memory fails');
is(ended($node, enqueue($node, effect('after memory')), 'status'), 'completed', 'the next one is run');

# Temporary files: a limit of the role
$node->safe_psql('postgres', q{ALTER ROLE alice SET temp_file_limit = '64kB'; ALTER ROLE alice SET work_mem = '64kB'; SELECT pg_terminate_backend(pid) FROM _server_workers() WHERE kind = 'executor'});
$id = enqueue($node, effect('temp', 'SELECT count(*) FROM (SELECT i, repeat(i::text, 10) FROM generate_series(1, 200000) i ORDER BY 2) x'), 'max_attempts => 1');
like(ended($node, $id, 'status, last_error'), qr/^failed\|temporary file size exceeds temp_file_limit \(64kB\) \(53400\)$/, 'a job that fills the disk with temporary files fails');
$node->safe_psql('postgres', q{ALTER ROLE alice RESET ALL; SELECT pg_terminate_backend(pid) FROM _server_workers() WHERE kind = 'executor'});

# Disk: no table can grow
SKIP:
{
	skip 'no compiler for the library that fills the disk', 5 if !$has_disk_shim;
	# Enqueued while there is room; what comes of it may need room as well
	my $gate = JobQueue::Session->new($node);
	$gate->query('SELECT pg_advisory_lock(1)');
	$id = enqueue($node, effect('disk', q{SELECT pg_advisory_xact_lock_shared(1); INSERT INTO filled SELECT repeat('x', 8000) FROM generate_series(1, 1000)}), 'max_attempts => 1');
	executor_of($node, $id);
	set_disk_full(1);
	$gate->query('SELECT pg_advisory_unlock(1)');
	$gate->quit;
	$node->wait_for_log(qr/could not extend file/);

	# The queue itself: first what is there is run as far as it goes, then
	# nothing can be enqueued, or nothing completed; when there is room, all is
	my $offset = -s $node->logfile;
	my $enqueued = 0;
	for (1 .. 20)
	{
		my ($code) = $node->psql('postgres', 'SELECT count(enqueue_sql($cmd$' . effect('full') . '$cmd$, max_attempts => 1000)) FROM generate_series(1, 20)', extra_params => [ '-U', 'alice' ]);
		$enqueued += 20 if $code == 0;
	}
	my $cycle = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
	wait_for_query($node, "SELECT bool_and(last_cycle_at > timestamptz '$cycle' + interval '1 s') FROM _server_workers() WHERE kind = 'scheduler'");
	my $lines = () = slurp_file($node->logfile, $offset) =~ /^.* (?:WARNING|ERROR|LOG):  /mg;
	note("$enqueued enqueued, $lines lines logged");
	cmp_ok($lines, '<', 500, 'a full disk is not filled with log');
	set_disk_full(0);
	my $started = time;
	wait_until_done($node);
	cmp_ok(time - $started, '<', 10, 'a queue on a full disk goes on when there is room');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM effects WHERE what = 'full'}), $enqueued, 'with all that was enqueued');
	is(ended($node, enqueue($node, effect('after disk')), 'status'), 'completed', 'and what is new');
	like(ended($node, $id, 'status, attempts, last_error'), qr/^failed\|1\|(?:could not extend file .* \(53100\)|the process that ran this job was terminated \(57P01\))/s,
		'the job that found the disk full has failed');
}

is(worker_pid($node, 'jobqueue scheduler'), $scheduler, 'the scheduler has outlived it all');
is(effect_problems($node), '', 'every effect once');
is(run_problems($node), '', 'one run for each claim');
$node->stop;
is(log_problems($node), '', 'nothing has crashed');
done_testing();
