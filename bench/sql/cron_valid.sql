SELECT count(*) FILTER (WHERE cron_is_valid(schedule))
	FROM generate_series(1, :calls / 80), cron_expressions;
