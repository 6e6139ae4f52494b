-- One such task, by the function that applications call.
\set n random(1, 1000000000)
SELECT schedule_cron_task('one ' || :n, format('%s %s 29 2 *', :n % 60, :n / 60 % 24), 'tick');
