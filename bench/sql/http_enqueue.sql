-- Jobs whose body is as long as that of bench/http/bare.c.
SELECT enqueue_jobs('hook', (SELECT array_agg(jsonb_build_object(
		'to', 'someone@example.com', 'text', repeat('x', 159)))
	FROM generate_series(1, :rows)));
