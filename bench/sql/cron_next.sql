-- From another instant each time, or the functions would be called once only.
SELECT count(run)
	FROM generate_series(1, :calls / :instants / 80) AS n, cron_expressions,
		cron_next_runs(schedule, zone,
			timestamptz '2026-02-03 04:05:06+00' + n * interval '1 hour', :instants) AS run;
