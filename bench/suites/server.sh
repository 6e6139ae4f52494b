#!/bin/bash
# The server's own workers: SQL jobs, latency, and what an idle server costs.
# Sourced by bench/run.
# shellcheck disable=SC2034,SC2154  # variables are shared with the other files

server_jobs=200000

names+=(
	[server_1_unkept]='no-op SQL job, 1 executor, retention zero'
	[server_1_kept]='the same, kept'
	[server_2_unkept]='no-op SQL job, 2 executors, retention zero'
	[server_2_kept]='the same, kept'
	[start_server]='SQL job in the server'
	[start_wait]='client in wait_for_jobs, then claim_next_job'
	[bare]='no library'
	[launcher]='jobqueue with its launcher'
	[cron]='pg_cron, one dormant task'
)

wait_until() # database, condition, seconds
{
	local tries

	for ((tries = 0; tries < $3 * 10; tries++)); do
		[ "$(query "$1" -c "SELECT $2")" != t ] || return 0
		sleep 0.1
	done
	give_up "waited $3 s in vain for: $2" "$scratch/server.log"
}

# ---- SQL jobs ----

# No-op jobs, enqueued while the server does not run them.
fill_server_jobs() # kept or unkept
{
	query jobqueue -v kept=true -f "$top/bench/sql/jobqueue.sql"
	query jobqueue -v rows=$server_jobs -v what="$1" -f "$top/bench/sql/server_jobs.sql"
	query jobqueue -c 'VACUUM ANALYZE' -c CHECKPOINT
}

# Sets figures. The time is that from the first claim to the last end, as job_runs
# has it.
run_server_jobs()
{
	local speed

	start_meters
	switch_jobs on
	wait_until jobqueue 'NOT EXISTS (SELECT FROM jobs_queue_live)' 600
	stop_meters
	switch_jobs off
	must_equal 'jobs that the server ran' $server_jobs "$(query jobqueue -c \
		"SELECT count(*) FROM job_runs WHERE status = 'completed'")"
	speed=$(query jobqueue -c 'SELECT count(*) / extract(epoch FROM
		max(finished_at) - min(started_at)) FROM job_runs')
	compute_figures $server_jobs "$speed"
}

switch_jobs() # on or off
{
	query postgres -c "ALTER SYSTEM SET jobqueue.enabled = $1" -c 'SELECT pg_reload_conf()' >/dev/null
}

suite_server()
{
	local executors round what

	[ -z "$quick" ] || server_jobs=10000
	for sync in ${sync_list:-off on}; do
		for ((round = 1; round <= rounds; round++)); do
			for executors in 1 2; do
				restart_server "jobqueue.launcher = on" "jobqueue.enabled = off" \
					"jobqueue.max_executors = $executors" "synchronous_commit = $sync"
				for what in unkept kept; do
					fill_server_jobs "$what"
					run_server_jobs
					record server "$executors" '' "server_${executors}_$what" "$round" ''
				done
			done
		done
	done
	query postgres -c 'ALTER SYSTEM RESET jobqueue.enabled'
	restart_server
	tabulate_suite server 'No-op SQL jobs, run by the server' '' -v what=jobs
}

# ---- latency ----

latency_jobs=300

# From before the enqueueing statement (so with its commit) to the start of the
# work: in the server the body's first look at the clock, outside a look at the
# clock by the client that got the job.
measure_start() # case: start_server or start_wait
{
	query jobqueue -v kept=false -f "$top/bench/sql/jobqueue.sql"
	query jobqueue -v runner="${1#start_}" -f "$top/bench/sql/latency.sql"
	if [ "$1" = start_wait ]; then
		client_script latency_wait.sql -T 600 >"$scratch/waiter" 2>&1 &
		sleep 0.5
	fi
	client_script latency_enqueue.sql -t $latency_jobs -R 30 >"$scratch/report" 2>&1 ||
		give_up 'pgbench failed' "$scratch/report"
	wait_until jobqueue "count(*) >= $latency_jobs FROM latency" 30
	query jobqueue -c "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE application_name = 'pgbench'" >/dev/null
	wait
	query jobqueue -F , -v what="$1" -v sync="$sync" -f "$top/bench/sql/latency_result.sql" \
		>>"$results/latency.csv"
	progress "latency, synchronous_commit $sync: $(tail -n 1 "$results/latency.csv")"
}

client_script() # script, pgbench options
{
	PGOPTIONS="$PGOPTIONS -c synchronous_commit=$sync" "$bin/pgbench" -n -M prepared \
		-h "$scratch" -U postgres -D known=false "${@:2}" -f "$top/bench/sql/$1" jobqueue
}

can_wait()
{
	[ "$(query jobqueue -c "SELECT count(*) FROM pg_proc WHERE proname = 'wait_for_jobs'")" -gt 0 ]
}

suite_latency()
{
	[ -z "$quick" ] || latency_jobs=60
	for sync in ${sync_list:-off on}; do
		restart_server "jobqueue.launcher = on" "synchronous_commit = $sync"
		measure_start start_server
		if can_wait; then
			measure_start start_wait
		else
			progress 'latency: there is no wait_for_jobs, so no client can sleep in it'
		fi
	done
	restart_server
	tabulate 'Enqueue to start on an idle server' plain.awk latency.csv \
		-v titles='what|sync|jobs|p50 ms|p99 ms'
}

# ---- idle ----

next_transaction_id()
{
	query postgres -c 'SELECT pg_snapshot_xmax(pg_current_snapshot())'
}

measure_idle() # server, seconds, CSV file
{
	local ids

	query postgres -c CHECKPOINT
	sleep 3
	ids=$(next_transaction_id)
	start_meters
	sleep "$2"
	stop_meters
	ids=$(($(next_transaction_id) - ids))
	awk -v server="$1" -v seconds="$2" -v ticks="$ticks" -v hertz="$(getconf CLK_TCK)" \
		-v ids="$ids" -v wal="$wal_bytes" 'BEGIN {
			printf "%s,%d,%s,%d,%d\n", server, seconds,
				ticks == "" ? "" : sprintf("%.3f", 100 * ticks / hertz / seconds), ids, wal
		}' >>"$results/$3"
	progress "idle: $(tail -n 1 "$results/$3")"
}

idle_with_cron()
{
	restart_server "shared_preload_libraries = 'pg_cron'" "cron.database_name = 'plpgsql'"
	query plpgsql -c 'CREATE EXTENSION pg_cron' \
		-c "SELECT cron.schedule('0 0 1 1 *', 'SELECT 1')" >/dev/null
	measure_idle cron "$idle" idle.csv
	query plpgsql -c 'DROP EXTENSION pg_cron'
}

suite_idle()
{
	restart_server "shared_preload_libraries = ''"
	measure_idle bare "$idle" idle.csv
	restart_server 'jobqueue.launcher = on'
	query jobqueue -v kept=true -f "$top/bench/sql/jobqueue.sql"
	measure_idle launcher "$idle" idle.csv
	get_debian_package "postgresql-$major-cron" pg_cron && idle_with_cron
	restart_server
	tabulate "An idle server, $idle s" plain.awk idle.csv \
		-v titles='server|seconds|CPU %|transaction ids|WAL bytes'
}
