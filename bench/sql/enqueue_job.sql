-- One job, by the function.
SELECT enqueue_job('bench', '{"to": "someone@example.com"}', max_attempts => 5);
