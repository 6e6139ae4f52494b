# Whether the outbox does what its system is asked for: requirements O1 to O19.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../../test/lib";
use JobQueue::Example;
use Test::More;

my $outbox = JobQueue::Example->new('outbox', ids => [ map { "O$_" } 1 .. 19 ], variables => { shopify_url => '/ok/shopify', alerts_url => '/ok/alerts' });
my $shop = $outbox->session('shop');
ok(1, 'O1: x');
$outbox->conclude;
