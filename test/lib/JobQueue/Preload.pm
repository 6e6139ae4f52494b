# A C library, made here, that the processes of a server load before all others:
# it takes the place of functions of the C library, and does so for the server
# alone. The base of JobQueue::Clock.
#
#   my $library = JobQueue::Preload->new('name', $source, NAME => 'value')
#     or plan skip_all => 'no compiler for ...';
#   my $node = $library->run(sub { JobQueue::Cluster->new('main') });
#   $library->run(sub { $node->restart });
#
# The rest of the parameters of new() are environment variables that the library
# reads. What starts the server has to run inside run(), also to start it again.
# One call inside another loads both libraries.
package JobQueue::Preload;

use strict;
use warnings;
use PostgreSQL::Test::Utils;

# Returns nothing where such a library cannot be made.
sub new
{
	my ($class, $name, $source, %environment) = @_;

	my $dir = PostgreSQL::Test::Utils::tempdir();
	PostgreSQL::Test::Utils::append_to_file("$dir/$name.c", $source);
	return if $^O ne 'linux';
	return if system("cc -shared -fPIC -O -o '$dir/$name.so' '$dir/$name.c' -ldl 2>'$dir/$name.log'") != 0;
	return bless { dir => $dir, library => "$dir/$name.so", environment => \%environment }, $class;
}

# Calls $code with the library in the environment; what it starts loads it.
sub run
{
	my ($self, $code) = @_;

	local %ENV = (%ENV, %{ $self->{environment} });
	# One that is there already wants to be first, like a sanitizer's.
	$ENV{LD_PRELOAD} = join ':', grep { defined && length } $ENV{LD_PRELOAD}, $self->{library};
	return $code->();
}

1;
