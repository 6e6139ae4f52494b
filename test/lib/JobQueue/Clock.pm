# A clock for the processes of a server that a test sets: what they learn from
# clock_gettime(CLOCK_REALTIME), gettimeofday() and time() is moved by an offset.
# Timers and the monotonic clock are left alone, as by a jump of the machine's
# clock; pg_sleep() goes by the moved one.
#
#   my $clock = JobQueue::Clock->new or plan skip_all => 'no compiler for the library that moves the clock';
#   my $node = $clock->run(sub { JobQueue::Cluster->new('main') });
#   $clock->set_offset(-3600.000001);      # seconds ahead of the machine's clock
#   $clock->set_time(1774745999.5);        # the server believes it is then, and time goes on
#   $clock->time;                          # what the server believes
#
# libfaketime would not do: it takes the place of select() and epoll_wait(), too,
# in which the server's processes wait, and once its version 0.9.10 has moved the
# clock, no job is run any more.
package JobQueue::Clock;

use strict;
use warnings;
use parent 'JobQueue::Preload';
use Time::HiRes ();

my $source = <<'C';
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* microseconds, in a file that the test writes */
static volatile const int64_t *offset;
static int (*real_clock) (clockid_t, struct timespec *);

__attribute__((constructor)) static void
start(void)
{
	const char *name = getenv("CLOCK_OFFSET_FILE");
	int			file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
	void	   *memory = MAP_FAILED;

	real_clock = (int (*) (clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
	if (file >= 0)
	{
		memory = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
		close(file);
	}
	offset = memory == MAP_FAILED ? NULL : memory;
}

int
clock_gettime(clockid_t id, struct timespec *ts)
{
	int			result;

	if (!real_clock)
		start();
	result = real_clock(id, ts);
	if (id == CLOCK_REALTIME && offset)
	{
		int64_t		us = *offset;

		ts->tv_sec += us / 1000000;
		ts->tv_nsec += us % 1000000 * 1000;
		if (ts->tv_nsec < 0)
		{
			ts->tv_sec--;
			ts->tv_nsec += 1000000000;
		}
		else if (ts->tv_nsec >= 1000000000)
		{
			ts->tv_sec++;
			ts->tv_nsec -= 1000000000;
		}
	}
	return result;
}

int
gettimeofday(struct timeval *tv, void *tz)
{
	struct timespec ts;

	(void) tz;
	clock_gettime(CLOCK_REALTIME, &ts);
	tv->tv_sec = ts.tv_sec;
	tv->tv_usec = ts.tv_nsec / 1000;
	return 0;
}

time_t
time(time_t *t)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (t)
		*t = ts.tv_sec;
	return ts.tv_sec;
}
C

# Returns nothing where the library cannot be made. The clock is right at first.
sub new
{
	my ($class) = @_;

	my $self = $class->SUPER::new('clock', $source) or return;
	$self->{file} = "$self->{dir}/offset";
	$self->{environment} = { CLOCK_OFFSET_FILE => $self->{file} };
	$self->set_offset(0);
	return $self;
}

# How far the server's clock is ahead of the machine's, in seconds, to the
# microsecond; behind it where negative. Holds at once, in every process.
sub set_offset
{
	my ($self, $seconds) = @_;

	# The file is mapped: it is written in place.
	open my $out, -e $self->{file} ? '+<' : '>', $self->{file} or die "could not open $self->{file}: $!";
	syswrite($out, pack 'q', sprintf '%.0f', $seconds * 1_000_000) == 8 or die "could not write $self->{file}: $!";
	close $out;
	$self->{offset} = $seconds;
	return;
}

sub offset { return $_[0]->{offset} }

# Seconds since 1970 that the server's clock shows now; from then on it goes on.
sub set_time
{
	my ($self, $epoch) = @_;

	$self->set_offset($epoch - Time::HiRes::time());
	return;
}

sub time { return Time::HiRes::time() + $_[0]->{offset} }

1;
