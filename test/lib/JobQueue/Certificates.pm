# Certificates for tests of TLS, good and bad, made with openssl.
#
#   my $certificates = JobQueue::Certificates->new or plan skip_all => 'no openssl';
#   JobQueue::HttpServer->start(tls => { valid => $certificates->server('valid'),
#       old => [ @{ $certificates->server('valid') }, @JobQueue::Certificates::old_protocol ] });
#   $certificates->ca;             # the file of the authority that signed them
#   $certificates->other_ca;       # of one that signed none of them
#   $certificates->files('client') # certificate and key
#
# Names: valid, expired, early (not valid yet), wrong_host, self_signed, weak (a
# key of 512 bits), no_server (made for clients only), chain (by an authority of
# the authority, sent along), client.
# They are for localhost, 127.0.0.1 and *.test unless said otherwise.
package JobQueue::Certificates;

use strict;
use warnings;
use PostgreSQL::Test::Utils ();
use Test::More ();

# Nothing later than TLS 1.1, which openssl no more does by itself.
our @old_protocol = ('-tls1_1', '-cipher', 'DEFAULT@SECLEVEL=0');

my $names = 'DNS:localhost,DNS:*.test,IP:127.0.0.1';

# Name => what differs from a good one.
my %kind = (
	valid => {},
	expired => { start => '20200101000000Z', end => '20200201000000Z' },
	early => { start => '20980101000000Z', end => '20990101000000Z' },
	wrong_host => { names => 'DNS:elsewhere.example,IP:192.0.2.1' },
	weak => { bits => 512 },
	no_server => { usage => 'clientAuth' },
	client => { usage => 'clientAuth', names => 'DNS:client.example' },
	chain => { ca => 'between' },
);

# Returns nothing where there is no openssl.
sub new
{
	my ($class) = @_;

	my $self = bless { dir => PostgreSQL::Test::Utils::tempdir() }, $class;
	return unless $self->_try('version');
	$self->_make_authority($_) for qw(ca other_ca);
	$self->_request('between', 2048);
	$self->_sign('between', { section => 'authority' });
	for my $name (sort keys %kind)
	{
		$self->_request($name, $kind{$name}{bits} // 2048) or next;
		$self->_sign($name, $kind{$name});
	}
	$self->_openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', 30, '-subj', '/CN=localhost',
		'-addext', "subjectAltName=$names", '-keyout', $self->_file('self_signed.key'), '-out', $self->_file('self_signed.pem'));
	return $self;
}

sub ca { return $_[0]->_file('ca.pem') }
sub other_ca { return $_[0]->_file('other_ca.pem') }

sub files
{
	my ($self, $name) = @_;

	return ($self->_file("$name.pem"), $self->_file("$name.key"));
}

# Whether there is one: openssl may refuse to make what is bad.
sub has { return -s $_[0]->_file("$_[1].pem") }

# Arguments of openssl s_server.
sub server
{
	my ($self, $name) = @_;

	my ($certificate, $key) = $self->files($name);
	return [ '-cert', $certificate, '-key', $key, '-cert_chain', $self->_file('between.pem') ] if $name eq 'chain';
	# the least level of security, or it would not start with a bad one
	return [ '-cert', $certificate, '-key', $key, $name eq 'weak' ? ('-cipher', 'DEFAULT@SECLEVEL=0') : () ];
}

sub _file { return "$_[0]{dir}/$_[1]" }

sub _try
{
	my ($self, @arguments) = @_;

	return system("openssl @{[ map { quotemeta } @arguments ]} </dev/null >>'$self->{dir}/log' 2>&1") == 0;
}

sub _openssl
{
	my ($self, @arguments) = @_;

	return if $self->_try(@arguments);
	Test::More::diag(PostgreSQL::Test::Utils::slurp_file("$self->{dir}/log"));
	die "openssl @arguments: status $?";
}

sub _make_authority
{
	my ($self, $name) = @_;

	$self->_openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', 30, '-subj', "/CN=$name of a test",
		'-addext', 'keyUsage=critical,keyCertSign,cRLSign',
		'-keyout', $self->_file("$name.key"), '-out', $self->_file("$name.pem"));
	return;
}

sub _request
{
	my ($self, $name, $bits) = @_;

	return $self->_try('req', '-newkey', "rsa:$bits", '-nodes', '-subj', "/CN=$name", '-keyout', $self->_file("$name.key"), '-out', $self->_file("$name.csr"));
}

# "openssl ca" is the command that takes dates.
sub _sign
{
	my ($self, $name, $kind) = @_;

	my $ca = $kind->{ca} // 'ca';
	my $conf = $self->_file("$name.conf");
	my $extensions = ($kind->{section} // '') eq 'authority'
	  ? "basicConstraints = critical, CA:true\nkeyUsage = critical, keyCertSign\n"
	  : "basicConstraints = critical, CA:false\nsubjectAltName = " . ($kind->{names} // $names) . "\nextendedKeyUsage = " . ($kind->{usage} // 'serverAuth') . "\n";
	PostgreSQL::Test::Utils::append_to_file($self->_file("$name.index"), '');
	PostgreSQL::Test::Utils::append_to_file($conf, <<"CONF");
[ca]
default_ca = it
[it]
database = $self->{dir}/$name.index
new_certs_dir = $self->{dir}
rand_serial = yes
default_md = sha256
policy = any
x509_extensions = extensions
[any]
commonName = supplied
[extensions]
$extensions
CONF
	$self->_openssl('ca', '-batch', '-notext', '-config', $conf, '-cert', $self->_file("$ca.pem"), '-keyfile', $self->_file("$ca.key"),
		'-startdate', $kind->{start} // '20200101000000Z', '-enddate', $kind->{end} // '20980101000000Z',
		'-in', $self->_file("$name.csr"), '-out', $self->_file("$name.pem"));
	return;
}

1;
