# Runs the programs in test/cron for the tests that compare the server's answers
# about schedules with those of somebody else.
#
#   need_python('croniter');
#   python('cases.py', $seed, 1000, '>', "$dir/cases");
package JobQueue::Cron;

use strict;
use warnings;
use Carp qw(croak);
use Exporter qw(import);
use FindBin;
use Test::More ();

our @EXPORT_OK = qw(need_python python);

# The Python that Debian's packages are for.
my $python = -x '/usr/bin/python3' ? '/usr/bin/python3' : 'python3';

# Ends the script if these modules are missing. It is skipped, or it fails under
# test/run, which should have installed them.
sub need_python
{
	my @modules = @_;

	return if system($python, '-c', join('; ', map { "import $_" } 'zoneinfo', @modules)) == 0;
	my $missing = "$python lacks one of: " . join(', ', 'zoneinfo', @modules);
	croak($missing) if $ENV{JOBQUEUE_TEST_ALL};
	Test::More::plan(skip_all => $missing);
	return;
}

# Runs a program. Arguments after "<" and ">" are files for its input and output.
sub python
{
	my ($program, @arguments) = @_;

	my $command = join ' ', map { /^[<>]$/ ? $_ : "'$_'" } $python, '-B', "$FindBin::RealBin/../cron/$program", @arguments;
	system($command) == 0 or croak "could not run $command";
	return;
}

1;
