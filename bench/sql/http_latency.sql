-- A job that knows when it was asked for, in microseconds since 1970.
SELECT enqueue_job('hook', jsonb_build_object('at',
	(1000000 * extract(epoch FROM clock_timestamp()))::bigint));
