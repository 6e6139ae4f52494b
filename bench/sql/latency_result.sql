-- A line of latency.csv.
SELECT :'what', :'sync', count(*),
	round(percentile_cont(0.5) WITHIN GROUP (ORDER BY ms)::numeric, 3),
	round(percentile_cont(0.99) WITHIN GROUP (ORDER BY ms)::numeric, 3)
FROM latency;
