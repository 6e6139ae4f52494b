# One of the systems in examples/: a server with the example's settings and its
# script installed twice, an HTTP server in the place of all others, and the
# ledger of requirements. A JobQueue::HttpJobs with a little more.
#
#   my $example = JobQueue::Example->new('outbox', ids => [ map { "O$_" } 1 .. 19 ],
#       variables => { alerts_url => '/ok/alerts' },     # psql variables; paths become URLs of the HTTP server
#       conf => 'jobqueue.lease = 1s',                   # lines that win over those of its postgresql.conf
#       init => { allows_streaming => 1 });              # as of JobQueue::Cluster
#   my $shop = $example->session('shop');                # a JobQueue::Session of that role
#   is($shop->query('...'), '...', 'O1: what is met');   # the ids that an assertion is about come first
#   ok($example->sql('...') eq 't', 'O5, O6: ...');      # as superuser
#   $example->conclude;                                  # instead of done_testing
#
# conclude() compares the names of the assertions with the rows "| ID | how |" of
# examples/README.md and fails unless each id is in both. A row that begins with
# "text:" is met by that text and one with "not yet:" waits: neither may have an
# assertion. One that has "; not yet:" further on is met in part, and has some.
package JobQueue::Example;

use strict;
use warnings;
use parent 'JobQueue::HttpJobs';
use Carp qw(croak);
use Cwd ();
use File::Basename qw(dirname);
use JobQueue::Session;
use PostgreSQL::Test::Utils ();
use Test::More ();

my $directory = Cwd::realpath(dirname(__FILE__) . '/../../../examples');

# What is only so in the test: everybody else's server is on this machine, and
# the log does not repeat what the test does.
my $conf_of_test = <<'CONF';
log_statement = none
jobqueue.allow_superuser_jobs = off
jobqueue.http_allow_hosts = '*'
jobqueue.http_allow_cidrs = '127.0.0.0/8'
jobqueue.http_allow_ports = '*'
CONF

sub new
{
	my ($class, $name, %param) = @_;

	my $conf = PostgreSQL::Test::Utils::slurp_file("$directory/$name/postgresql.conf");
	my $self = $class->SUPER::new($name, conf => join("\n", $conf, $conf_of_test, $param{conf} // ''), init => $param{init} // {}, extension => 0);
	@{$self}{qw(name ids)} = ($name, $param{ids});
	my %variable = %{ $param{variables} // {} };
	$_ = m{\A/} ? $self->{server}->url($_) : $_ for values %variable;
	$self->{variables} = [ map { ('-v', "$_=$variable{$_}") } sort keys %variable ];
	$self->install($_) for 'can be installed', 'can be installed once more';
	return $self;
}

sub install
{
	my ($self, $what) = @_;

	Test::More::ok(PostgreSQL::Test::Utils::run_log([ 'psql', '-X', '-q', '-o', '/dev/null', '-v', 'ON_ERROR_STOP=1', @{ $self->{variables} },
		'-d', $self->{node}->connstr('postgres'), '-f', "$directory/$self->{name}/$self->{name}.sql" ]), "$self->{name}.sql $what")
	  or croak "$self->{name}.sql failed";
	return;
}

sub session
{
	my ($self, $role) = @_;

	my $session = JobQueue::Session->new($self->{node});
	$session->query(qq{SET SESSION AUTHORIZATION "$role"});
	return $session;
}

# Id => what the README says of it, for the ids with our letter.
sub _readme
{
	my ($self) = @_;

	my ($letter) = $self->{ids}[0] =~ /\A(\D+)/;
	return map { /\A\| (\Q$letter\E\d+) \| (.*) \|\s*\z/ ? ($1 => $2) : () } split /^/, PostgreSQL::Test::Utils::slurp_file("$directory/README.md");
}

sub conclude
{
	my ($self) = @_;

	my %asserted;
	for my $name (map { $_->{name} } Test::More->builder->details)
	{
		my ($ids) = $name =~ /\A([A-Z]\d+(?:, [A-Z]\d+)*): / or next;
		$asserted{$_}++ for split /, /, $ids;
	}
	my %said = $self->_readme;
	my %known = map { $_ => 1 } @{ $self->{ids} };
	my (%group, @problem);
	for my $id (@{ $self->{ids} })
	{
		my $said = $said{$id} // '';
		my $group = $said =~ /\Atext: / ? 'by text' : $said =~ /\Anot yet: / ? 'not yet' : $said =~ /; not yet: / ? 'in part' : 'met';
		if ($said eq '')
		{
			push @problem, "$id is not in the README";
			next;
		}
		push @{ $group{$group} }, $id;
		push @problem, "$id has no assertion" if !$asserted{$id} && $group =~ /met|in part/;
		push @problem, "$id has an assertion, but is $group in the README" if $asserted{$id} && $group =~ /by text|not yet/;
	}
	push @problem, map { "$_ is not a requirement of this system" } grep { !$known{$_} } sort(keys %said), sort keys %asserted;
	Test::More::is(join("\n", @problem), '', 'assertions and README agree on every requirement');
	Test::More::diag("$self->{name}: " . join '; ', map { $group{$_} ? @{ $group{$_} } . " $_" . ($_ eq 'met' ? '' : " (@{ $group{$_} })") : () } 'met', 'by text', 'in part', 'not yet');
	$self->stop;
	Test::More::done_testing();
	return;
}

1;
