# Secrets in files: which files are taken, which are refused and why, and that a
# change is noticed at the next use.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use JobQueue::Cluster;
use JobQueue::Session;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = JobQueue::Cluster->new('main', conf => 'jobqueue.launcher = off');
my $dir = $node->basedir . '/secrets';
my $file = "$dir/token";
mkdir $dir or die "no directory: $!";

sub write_file
{
	my ($content, $mode) = @_;

	unlink $file;
	open my $out, '>:raw', $file or die "cannot write $file: $!";
	print $out $content;
	close $out;
	chmod $mode // 0600, $file;
	return;
}

write_file("first\n");
my $session = JobQueue::Session->new($node);
$session->query("SELECT set_secret_file('token', '$file')");
is($session->query('SELECT name, is_file, has_previous, previous_until FROM secret_names'), 'token|t||', 'the view shows that there is a file');
is($session->query('SELECT count(*) FROM http_secret_values'), 0, 'nothing of it is stored');

# One session for all of it: what it remembers must not outlive a change.
sub problem { return $session->query(q{SELECT coalesce(secret_problem('token'), 'fine')}) }

my @cases = (
	[ 'a value', "value", 'fine' ],
	[ 'a value and the end of the line', "value\n", 'fine' ],
	[ 'as other systems end it', "value\r\n", 'fine' ],
	[ 'two values', "value\nprevious\n", 'fine' ],
	[ 'not readable by others, nor writable by us', "value\n", 'fine', 0400 ],
	[ 'the longest', 'x' x 8192, 'fine' ],
	[ 'a certificate', "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n", 'fine' ],
	[ 'UTF-8', "\xc3\xa4\n", 'fine' ],
	[ 'nothing', '', 'is empty, or one of its lines is' ],
	[ 'an empty line', "\n", 'is empty, or one of its lines is' ],
	[ 'an empty second line', "value\n\n", 'is empty, or one of its lines is' ],
	[ 'an empty first line', "\nvalue\n", 'is empty, or one of its lines is' ],
	[ 'three lines', "a\nb\nc\n", 'has more than two lines' ],
	[ 'a NUL', "a\0b\n", 'is not text in the encoding of the database' ],
	[ 'wrong UTF-8', "a\xff\n", 'is not text in the encoding of the database' ],
	[ 'too much', 'x' x 8193, 'is longer than 8192 bytes' ],
	[ 'readable by the group', "value\n", 'can be used by others than its owner', 0640 ],
	[ 'writable by others', "value\n", 'can be used by others than its owner', 0602 ]);
for my $case (@cases)
{
	my ($name, $content, $expected, $mode) = @$case;
	write_file($content, $mode);
	is(problem(), $expected eq 'fine' ? 'fine' : "the file of secret \"token\" $expected", $name);
	is(problem(), $expected eq 'fine' ? 'fine' : "the file of secret \"token\" $expected", "$name, once more");
	is($session->try("SELECT set_secret_file('again', '$file')"), $expected eq 'fine' ? '00000' : '55000', "$name, when it is set");
}

# What has become of a good one
write_file("value\n");
is(problem(), 'fine', 'a file');
chmod 0644, $file;
is(problem(), 'the file of secret "token" can be used by others than its owner', 'that others were allowed to read');
chmod 0600, $file;
is(problem(), 'fine', 'and no more');
unlink $file;
is(problem(), 'the file of secret "token" cannot be opened: No such file or directory', 'that was deleted');
symlink "$dir/other", $file;
append_to_file("$dir/other", "value\n");
chmod 0600, "$dir/other";
is(problem(), 'the file of secret "token" is a symbolic link', 'a symbolic link');
unlink $file;
mkdir $file;
is(problem(), 'the file of secret "token" is not a regular file', 'a directory');
rmdir $file;
POSIX::mkfifo($file, 0600);
is(problem(), 'the file of secret "token" is not a regular file', 'a pipe, which nobody writes to');
unlink $file;
is($session->try("SELECT set_secret_file('token', '/proc/1/environ')"), '55000', 'a file of somebody else');
write_file("value\n");
is(problem(), 'fine', 'the file is back');

# A stored value takes its place, and the other way round.
$session->query("SELECT set_secret('token', 'stored')");
unlink $file;
is(problem(), 'fine', 'a stored value needs no file');
is($session->query('SELECT has_previous FROM secret_names WHERE name = $$token$$'), 'f', 'and knows of no other');
write_file("value\n");
$session->query("SELECT set_secret_file('token', '$file')");
is($session->query('SELECT count(*) FROM http_secret_values WHERE name = $$token$$'), 0, 'a file leaves nothing stored');

$session->quit;
$node->stop;
done_testing();
