-- A job that knows when it was asked for.
SELECT enqueue_job('latency', jsonb_build_object('at', clock_timestamp()));
