-- Events in :queues queues, with a tick after every 500.
CREATE EXTENSION pgq;
SELECT pgq.create_queue('bench_' || q), pgq.register_consumer('bench_' || q, 'bench')
FROM generate_series(0, :queues - 1) AS q \g /dev/null
SELECT set_config('bench.queues', :'queues', false), set_config('bench.events', :'rows', false) \g /dev/null
DO $$
DECLARE
	queues integer := current_setting('bench.queues');
	events integer := current_setting('bench.events');
	queue text;
BEGIN
	FOR portion IN 0 .. events / queues / 500 - 1 LOOP
		FOR q IN 0 .. queues - 1 LOOP
			queue := 'bench_' || q;
			PERFORM pgq.insert_event(queue, 'bench',
					jsonb_build_object('n', n, 'to', 'someone@example.com')::text)
				FROM generate_series(1, 500) AS n;
			COMMIT;
			PERFORM pgq.ticker(queue);
			COMMIT;
		END LOOP;
	END LOOP;
END
$$;
