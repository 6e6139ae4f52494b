# Names for the processes of a server that a test sets: names that end in ".test"
# are looked up here, all others as ever. A look-up can take as long as wanted, and
# each can have another answer.
#
#   my $resolver = JobQueue::Resolver->new or plan skip_all => 'no compiler for the library that looks up names';
#   my $node = $resolver->run(sub { JobQueue::Cluster->new('main') });
#   $resolver->set('a.test', '127.0.0.1');                   # one address
#   $resolver->set('b.test', '192.0.2.1,127.0.0.1');         # two
#   $resolver->set('c.test', '192.0.2.1', '127.0.0.1');      # one at first, then the other
#   $resolver->set('d.test', 'none');                        # no such name; 'again': a server failed
#   $resolver->set('e.test', 'after=4000', '127.0.0.1');     # in milliseconds
#   $resolver->set('f.test', 'hang', '127.0.0.1');           # not before it is set again
#   $resolver->lookups('a.test');                            # how many have begun
#
# Every setting begins anew with the first answer. A name that is not set is 'none'.
package JobQueue::Resolver;

use strict;
use warnings;
use parent 'JobQueue::Preload';

my $source = <<'C';
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

typedef int (*lookup_function) (const char *, const char *, const struct addrinfo *, struct addrinfo **);

/* The line of a name in a file, without the name; or how many lines have it. */
static int
find(const char *variable, const char *name, char *line, size_t size)
{
	const char *file_name = getenv(variable);
	FILE	   *file = file_name ? fopen(file_name, "re") : NULL;
	size_t		length = strlen(name);
	int			count = 0;
	char		buffer[8192];

	if (!file)
		return 0;
	while (fgets(buffer, sizeof(buffer), file))
	{
		if (strncmp(buffer, name, length) != 0 || !strchr(" \n", buffer[length]))
			continue;
		count++;
		buffer[strcspn(buffer, "\n")] = '\0';
		if (line)
			snprintf(line, size, "%s", buffer + length);
	}
	fclose(file);
	return count;
}

static void
pause_ms(long ms)
{
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000};

	nanosleep(&ts, NULL);
}

/* Notes a look-up; returns how many there have been before, of this setting. */
static int
note(const char *setting)
{
	int			log = open(getenv("RESOLVER_LOG"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
	char		line[300];
	int			before;
	ssize_t		written;

	if (log < 0)
		return 0;
	flock(log, LOCK_EX);
	before = find("RESOLVER_LOG", setting, NULL, 0);
	snprintf(line, sizeof(line), "%s\n", setting);
	written = write(log, line, strlen(line));
	(void) written;
	close(log);
	return before;
}

static int
answer(lookup_function lookup, char *addresses, const char *service,
	   const struct addrinfo *hints, struct addrinfo **result)
{
	struct addrinfo numeric = {0};
	struct addrinfo **end = result;
	int			code = EAI_NONAME;
	char	   *rest;

	if (strcmp(addresses, "again") == 0)
		return EAI_AGAIN;
	if (hints)
		numeric = *hints;
	numeric.ai_flags = (numeric.ai_flags | AI_NUMERICHOST) & ~AI_ADDRCONFIG;
	*result = NULL;
	for (char *address = strtok_r(addresses, ",", &rest); address; address = strtok_r(NULL, ",", &rest))
	{
		/* an address of the other family is none */
		if (lookup(address, service, &numeric, end) != 0)
			continue;
		code = 0;
		while (*end)
			end = &(*end)->ai_next;
	}
	return code;
}

int
getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result)
{
	lookup_function lookup = (lookup_function) dlsym(RTLD_NEXT, "getaddrinfo");
	size_t		length = node ? strlen(node) : 0;
	char		line[8192] = "";
	char		setting[300];
	char	   *word;
	char	   *next;
	char	   *rest;
	int			skip;

	if (length < 5 || length > 250 || strcasecmp(node + length - 5, ".test") != 0)
		return lookup(node, service, hints, result);

	/* first word: the number of the setting */
	if (!find("RESOLVER_FILE", node, line, sizeof(line)) || !(word = strtok_r(line, " ", &rest)))
		return EAI_NONAME;
	snprintf(setting, sizeof(setting), "%s#%s", node, word);
	skip = note(setting);
	word = strtok_r(NULL, " ", &rest);
	if (word && strncmp(word, "after=", 6) == 0)
	{
		pause_ms(atol(word + 6));
		word = strtok_r(NULL, " ", &rest);
	}
	else if (word && strcmp(word, "hang") == 0)
	{
		char		now[8192];
		char		number[20];

		snprintf(number, sizeof(number), "%.15s ", strchr(setting, '#') + 1);
		do
			pause_ms(20);
		while (find("RESOLVER_FILE", node, now, sizeof(now)) && strncmp(now + 1, number, strlen(number)) == 0);
		word = strtok_r(NULL, " ", &rest);
	}

	/* the last answer holds on */
	while (word && skip-- > 0 && (next = strtok_r(NULL, " ", &rest)))
		word = next;
	return word ? answer(lookup, word, service, hints, result) : EAI_NONAME;
}
C

# Returns nothing where the library cannot be made.
sub new
{
	my ($class) = @_;

	my $self = $class->SUPER::new('resolver', $source) or return;
	@{$self}{qw(file log)} = map { "$self->{dir}/$_" } qw(names lookups);
	$self->{environment} = { RESOLVER_FILE => $self->{file}, RESOLVER_LOG => $self->{log} };
	return $self;
}

sub set
{
	my ($self, $name, @answers) = @_;

	$self->{names}{$name} = join ' ', $name, ++$self->{serial}, @answers;

	# A look-up finds the old file or the new one.
	open my $out, '>', "$self->{file}.new" or die "could not open $self->{file}.new: $!";
	print $out map { "$_\n" } values %{ $self->{names} };
	close $out or die "could not write $self->{file}.new: $!";
	rename "$self->{file}.new", $self->{file} or die "could not rename $self->{file}.new: $!";
	return;
}

sub lookups
{
	my ($self, $name) = @_;

	open my $in, '<', $self->{log} or return 0;
	return scalar grep { /^\Q$name\E#/ } <$in>;
}

1;
