# Fault points (src/base/fault.h), in a build that has them.
#
#   install_faults($node) or plan skip_all => ...;
#   arm($node, 'in_resolve', 'sigkill', 1);    # the next time; a 5th argument skips some before
#   reached($node, 'in_resolve')               # how often, since the server has begun
#   disarm($node);                             # lets go on what was paused, too
package JobQueue::Faults;

use strict;
use warnings;
use Exporter qw(import);

our @EXPORT_OK = qw(install_faults arm reached disarm);

# False: this build has none.
sub install_faults
{
	my ($node) = @_;

	my ($code) = $node->psql('postgres', q{
		CREATE FUNCTION arm_fault(text, text, int, int) RETURNS void LANGUAGE c STRICT AS '$libdir/jobqueue', 'jobqueue_arm_fault';
		CREATE FUNCTION disarm_faults() RETURNS void LANGUAGE c AS '$libdir/jobqueue', 'jobqueue_disarm_faults';
		CREATE FUNCTION fault_count(text) RETURNS bigint LANGUAGE c STRICT AS '$libdir/jobqueue', 'jobqueue_fault_count';
		CREATE FUNCTION spin(int) RETURNS void LANGUAGE c STRICT AS '$libdir/jobqueue', 'jobqueue_spin'});
	return $code == 0;
}

sub arm
{
	my ($node, $point, $action, $count, $skip) = @_;

	$skip //= 0;
	$node->safe_psql('postgres', "SELECT arm_fault('$point', '$action', $count, $skip)");
	return;
}

sub reached
{
	my ($node, $point) = @_;

	return $node->safe_psql('postgres', "SELECT fault_count('$point')");
}

sub disarm
{
	my ($node) = @_;

	$node->safe_psql('postgres', 'SELECT disarm_faults()');
	return;
}

1;
