#!/bin/bash
# What counting, logging and a monitor cost, and how long it takes to read what
# was counted. The settings need restarts, so each run has a server of its own;
# the settings take turns inside each round. Sourced by bench/run.
# shellcheck disable=SC2034,SC2154  # variables are shared with the other files

names+=(
	[watch_off]='nothing'
	[watch_defaults]='the defaults'
	[watch_log]='and every event logged, as JSON'
	[watch_monitor]='and a monitor, asked each second'
	[observed_single]='claim + resolve'
	[observed_next]='resolve_and_claim'
	[observed_batch]='claim_jobs + resolve_jobs of 100'
	[observed_bulk]='enqueue_jobs of 10,000'
	[observed_server]='no-op SQL job in the server'
)

# The settings of a case, one a line.
watch_settings() # case
{
	cat <<-CONF
		jobqueue.launcher = on
		jobqueue.max_executors = 1
		synchronous_commit = $sync
	CONF
	case $1 in
		watch_off)
			cat <<-CONF
				jobqueue.max_stage_stats = 0
				jobqueue.max_failure_counts = 0
				jobqueue.alerts_enabled = off
				jobqueue.keep_history = 0
				jobqueue.log_events = off
				jobqueue.statistics_interval = 0
			CONF
			;;
		watch_log)
			cat <<-CONF
				jobqueue.log_events = all
				jobqueue.log_format = json
				logging_collector = on
				log_directory = '$scratch/events'
				log_rotation_size = 0
				log_rotation_age = 0
			CONF
			;;
		watch_monitor)
			echo "jobqueue.monitor = 'database=jobqueue role=watcher port=$monitor_port'"
			;;
	esac
}

# ---- a monitor, and who asks it ----

make_watcher()
{
	monitor_port=$((20000 + RANDOM % 10000))
	query postgres -c 'CREATE ROLE watcher LOGIN'
}

# Prints the status of the answer.
ask_monitor() # path
{
	local status

	{ exec 3<>"/dev/tcp/127.0.0.1/$monitor_port"; } 2>/dev/null || return 1
	printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&3
	read -r _ status _ <&3
	cat <&3 >/dev/null
	exec 3>&-
	echo "$status"
}

# As Prometheus, a load balancer and a browser that shows the first page do: each
# second, or when all have been answered.
keep_asking()
{
	local path

	while true; do
		sleep 1 &
		for path in /metrics /health /api/overview /api/history?range=15m; do
			echo "$path $(ask_monitor "$path" || echo none)"
		done
		wait $!
	done
}

# The extension is new, and with it the rights of the role.
begin_asking()
{
	local tries

	query jobqueue -c "SELECT grant_job_role('watcher', 'observer')" >/dev/null
	for ((tries = 0; tries < 600; tries++)); do
		[ "$(ask_monitor /metrics || true)" != 200 ] || break
		sleep 0.1
	done
	keep_asking >"$scratch/answers" 2>/dev/null &
	children+=($!)
}

# Ends the program unless there were answers, and all were good; a server that is
# switched off to be filled is not healthy.
end_asking() # seconds
{
	kill "${children[@]}"
	wait "${children[@]}" 2>/dev/null || true
	children=()
	! grep -Ev ' 200$|^/health 503$' "$scratch/answers" >&2 || give_up 'the monitor did not answer' "$scratch/server.log"
	[ "$(grep -c '^/metrics' "$scratch/answers")" -ge $(($1 / 4 + 1)) ] ||
		give_up 'the monitor answered too seldom' "$scratch/answers"
}

# ---- a run ----

describe_observed() # system: sets what the other suites call it
{
	clients=4
	case $1 in
		observed_single) observed=unkept ;;
		observed_next) observed=unkept_next ;;
		observed_batch) observed=batch100 ;;
		*) clients=1 ;;
	esac
}

fill_observed() # system
{
	case $1 in
		observed_bulk)
			describe_enqueue enqueue_jobs
			empty_queue enqueue_jobs
			;;
		observed_server)
			switch_jobs off
			fill_server_jobs unkept
			;;
		*)
			describe "$observed"
			fill "$observed" "$ready"
			;;
	esac
}

run_observed() # system
{
	drained=
	case $1 in
		observed_bulk) run_bulk enqueue_jobs ;;
		observed_server) run_server_jobs ;;
		*) work_off "$observed" "$clients" "$ready" ;;
	esac
}

# As measure_undrained(): with more jobs until they last.
measure_observed() # case, system, round
{
	local clients observed ready=${rows:-${enough_rows[$2]:-$((60000 * seconds))}} started

	describe_observed "$2"
	rm -rf "$scratch/events"
	mapfile -t settings < <(watch_settings "$1")
	restart_server "${settings[@]}"
	while true; do
		fill_observed "$2"
		[ "$1" != watch_monitor ] || begin_asking
		started=$SECONDS
		run_observed "$2"
		[ "$1" != watch_monitor ] || end_asking $((SECONDS - started))
		[ -n "$drained" ] || break
		[ -z "$rows" ] || break
		ready=$((ready * 2))
		enough_rows[$2]=$ready
	done
	[ "$1" != watch_log ] || must_have_logged "$2"
	[ "$2" != observed_server ] || query postgres -c 'ALTER SYSTEM RESET jobqueue.enabled'
	record observe "$clients" "$1" "$2" "$3" "$drained"
}

# That there are lines; the tests count them.
must_have_logged() # system
{
	local event=worker.job.completed

	[ "$1" != observed_bulk ] || event=job.enqueued
	[ "$(cat "$scratch"/events/* | grep -c "$event")" -ge 1000 ] ||
		give_up "$1: events were not logged" "$scratch/server.log"
}

compare_watched()
{
	local round system case cases

	for sync in ${sync_list:-off}; do
		for ((round = 1; round <= rounds; round++)); do
			cases='watch_off watch_defaults watch_log watch_monitor'
			[ $((round % 2)) -eq 1 ] || cases='watch_monitor watch_log watch_defaults watch_off'
			for system in observed_single observed_next observed_batch observed_bulk observed_server; do
				for case in $cases; do
					measure_observed "$case" "$system" "$round"
				done
			done
		done
	done
}

# ---- reading ----

# Of 20 calls in one session, after two that are not counted.
measure_read() # what, database, statement
{
	local calls=20 call

	{
		echo 'SET ROLE watcher;'
		for ((call = 0; call < calls + 2; call++)); do
			[ $call -ne 2 ] || printf '\\timing on\n'
			echo "$3;"
		done
	} >"$scratch/read.sql"
	query jobqueue -f "$scratch/read.sql" >"$scratch/report"
	sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' "$scratch/report" | sort -n |
		awk -v what="$1" -v database="$2" '{ ms[NR] = $1 }
			END { printf "%s,%s,%d,%.1f,%.1f\n", what, database, NR, (ms[int((NR + 1) / 2)] + ms[int(NR / 2) + 1]) / 2, ms[NR] }' \
			>>"$results/observe_reads.csv"
	progress "observe: $(tail -n 1 "$results/observe_reads.csv")"
}

# Whether the number of jobs is known without a look at them.
counts_are_known()
{
	[ "$(query jobqueue -c BEGIN -c 'SELECT count(*) FROM job_counts' -c "SELECT seq_scan + idx_scan
		FROM pg_stat_xact_user_tables WHERE relname = 'jobs_queue_live'" -c COMMIT | tail -n 1)" = 0 ]
}

measure_reads() # database
{
	local tries

	query jobqueue -c "SELECT grant_job_role('watcher', 'observer')" >/dev/null
	query jobqueue -c 'VACUUM ANALYZE'
	restart_server 'jobqueue.launcher = on'
	for ((tries = 0; tries < 600; tries++)); do
		! counts_are_known || break
		sleep 0.1
	done
	measure_read 'job_metrics_prometheus()' "$1" 'SELECT job_metrics_prometheus()'
	measure_read 'job_health()' "$1" 'SELECT * FROM job_health()'
	measure_read 'overview of the dashboard' "$1" "SELECT * FROM monitor_get('/api/overview')"
}

read_metrics()
{
	query jobqueue -v kept=true -f "$top/bench/sql/jobqueue.sql"
	query jobqueue -f "$top/bench/sql/observe_types.sql" >/dev/null
	measure_reads '100 job types x 5 stages'
	query jobqueue -v kept=true -f "$top/bench/sql/jobqueue.sql"
	query jobqueue -v queue=jobs_queue -v rows="$ahead" -f "$top/bench/sql/fill.sql"
	measure_reads "$ahead live jobs"
}

suite_observe()
{
	local monitor_port settings

	[ -z "$quick" ] || server_jobs=10000
	write_bulk
	make_watcher
	compare_watched
	read_metrics
	restart_server
	tabulate_suite observe 'Counting, logging and a monitor' '' -v first_case='x nothing' -v in_detail=1 -v what=jobs
	tabulate 'Reading what was counted' plain.awk observe_reads.csv \
		-v titles='what|database|calls|p50 ms|max ms'
}
