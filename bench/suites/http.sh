#!/bin/bash
# HTTP jobs beside a bare loop of libcurl; many slow ones at once; memory; latency.
# Sourced by bench/run.
# shellcheck disable=SC2034,SC2154  # variables are shared with the other files

http_requests=20000
http_concurrency='1 10 50 100 300 1000'
http_slow_requests=10000
http_slow_ms=1000
http_memory_step=50000	# requests between two looks at the memory, of which there are 10
http_latency_jobs=300

names+=(
	[http_bare]='LIMIT: libcurl multi loop, C'
	[http_unkept]='HTTP jobs, retention zero'
	[http_kept]='HTTP jobs, kept'
	[http_two]='HTTP jobs, retention zero, 2 dispatchers'
	[http_tls_bare]='LIMIT: libcurl multi loop, C'
	[http_tls_kept]='HTTP jobs, kept'
	[http_latency]='the server has the request'
)

# The programs in C and nginx; false where one cannot be had.
get_http_peers()
{
	local program

	"$top/tools/apt_install" gcc libcurl4-openssl-dev openssl >"$scratch/apt.log" 2>&1 || return 1
	for program in bare slow; do
		gcc -O2 -o "$scratch/$program" "$top/bench/http/$program.c" -lcurl \
			>"$scratch/build.log" 2>&1 || return 1
	done
	get_nginx
}

# ---- HTTP jobs ----

# A server that sends nothing yet; what may be sent at the same time.
restart_http() # concurrency, settings
{
	restart_server "jobqueue.launcher = on" "jobqueue.enabled = off" \
		"jobqueue.http_allow_cidrs = '127.0.0.0/8'" "jobqueue.http_allow_ports = '*'" \
		"jobqueue.http_max_connections = $1" "jobqueue.http_host_connections = $1" "${@:2}"
}

set_dispatchers() # how many there may be
{
	query postgres -c "ALTER SYSTEM SET jobqueue.max_dispatchers = $1" \
		-c 'SELECT pg_reload_conf()' >/dev/null
}

aim_at() # URL, concurrency, whether kept, CA
{
	query jobqueue -v kept=true -f "$top/bench/sql/jobqueue.sql"
	query jobqueue -v url="$1" -v concurrency="$2" -v kept="$3" -v ca="${4:-}" \
		-f "$top/bench/sql/http.sql"
}

enqueue_http() # jobs
{
	query jobqueue -v rows="$1" -f "$top/bench/sql/http_enqueue.sql" >/dev/null
}

# Sends what is queued: sets http_speed, and dispatcher_us to the CPU time of the
# dispatcher, which ends afterwards.
send_http() # jobs
{
	local after before

	after=$(query jobqueue -c 'SELECT coalesce(max(job_id), 0) FROM job_runs')
	start_meters
	before=$(dispatcher_us)
	switch_jobs on
	wait_until jobqueue 'NOT EXISTS (SELECT FROM jobs_queue_live)' 1200
	dispatcher_us=$(($(dispatcher_us) - before))
	stop_meters
	switch_jobs off
	must_equal 'requests' "$1" "$(query jobqueue -c \
		"SELECT count(*) FROM job_runs WHERE status = 'completed' AND job_id > $after")"
	http_speed=$(query jobqueue -v after="$after" -f "$top/bench/sql/http_speed.sql")
}

dispatcher_pids()
{
	query postgres -c "SELECT pid FROM pg_stat_activity WHERE backend_type ~ 'dispatcher'"
}

# CPU time of the dispatchers so far, in microseconds; 0 before there is one.
dispatcher_us()
{
	local pid

	for pid in $(dispatcher_pids); do
		cat "/proc/$pid/schedstat" 2>/dev/null || true
	done | awk '{ us += $1 / 1000 } END { printf "%d\n", us }'
}

# Kilobytes of the dispatcher: its own, and with its share of the programs and
# libraries, but without the server's shared memory, which it gets to know bit by bit.
dispatcher_memory()
{
	local pid

	pid=$(dispatcher_pids)
	awk '/^RssAnon:/ { own = $2 } /^Pss:/ { share += $2 } /^Pss_Shmem:/ { share -= $2 } END { print own + 0 "," share + 0 }' \
		"/proc/$pid/status" "/proc/$pid/smaps_rollup" 2>/dev/null || true
}

# ---- speed ----

run_bare() # suite, concurrency, round, URL, CA
{
	local line fields

	line=$("$scratch/bare" "$4" "$http_requests" "$2" ${5:+"$5"} 2>"$scratch/report") ||
		give_up 'the bare loop failed' "$scratch/report"
	IFS=, read -r -a fields <<<"$line"
	figures=${fields[0]},${fields[2]},
	record "$1" "$2" '' "${1}_bare" "$3" '' "${fields[2]}"
}

run_http() # suite, concurrency, round, what, URL, CA
{
	local kept=true

	[ "$4" = kept ] || kept=false
	if [ "$4" = two ]; then
		set_dispatchers 2
	else
		set_dispatchers 1
	fi
	aim_at "$5" "$2" $kept "${6:-}"
	enqueue_http "$http_requests"
	query jobqueue -c 'VACUUM ANALYZE' -c CHECKPOINT
	send_http "$http_requests"
	compute_figures "$http_requests" "$http_speed"
	record "$1" "$2" '' "${1}_$4" "$3" '' \
		"$(awk -v us="$dispatcher_us" -v n="$http_requests" 'BEGIN { printf "%.2f", us / n }')"
}

# The bare loop before the jobs of the same round.
measure_http_speed()
{
	local concurrency round

	start_nginx 1
	for sync in ${sync_list:-off on}; do
		for ((round = 1; round <= rounds; round++)); do
			for concurrency in $http_concurrency; do
				restart_http "$concurrency" "synchronous_commit = $sync"
				run_bare http "$concurrency" "$round" "$nginx_url/ok"
				run_http http "$concurrency" "$round" unkept "$nginx_url/ok"
				run_http http "$concurrency" "$round" kept "$nginx_url/ok"
				run_http http "$concurrency" "$round" two "$nginx_url/ok"
			done
			restart_http 100 "synchronous_commit = $sync"
			run_bare http_tls 100 "$round" "$nginx_tls_url/ok" "$nginx_ca"
			run_http http_tls 100 "$round" kept "$nginx_tls_url/ok" "$(cat "$nginx_ca")"
		done
	done
}

# ---- slow answers ----

start_slow() # milliseconds, log: sets slow_pid, slow_url
{
	local tries

	rm -f "$scratch/slow.out"
	"$scratch/slow" "$@" >"$scratch/slow.out" 2>&1 &
	slow_pid=$!
	children+=("$slow_pid")
	for ((tries = 0; tries < 50; tries++)); do
		[ ! -s "$scratch/slow.out" ] || break
		sleep 0.1
	done
	slow_url=http://127.0.0.1:$(head -n 1 "$scratch/slow.out")/
}

stop_slow() # sets slow_most: how many requests were open at the same time
{
	kill "$slow_pid"
	wait "$slow_pid" || true
	unset 'children[-1]'
	slow_most=$(sed -n '2s/.*,//p' "$scratch/slow.out")
}

measure_slow()
{
	local concurrency

	for concurrency in 1000 300; do
		start_slow "$http_slow_ms"
		restart_http "$concurrency" "synchronous_commit = $sync"
		aim_at "$slow_url" "$concurrency" true
		enqueue_http "$http_slow_requests"
		query jobqueue -c 'VACUUM ANALYZE' -c CHECKPOINT
		send_http "$http_slow_requests"
		stop_slow
		awk -v n="$http_slow_requests" -v at_once="$concurrency" -v ms="$http_slow_ms" -v sync="$sync" \
			-v speed="$http_speed" -v most="$slow_most" -v us="$dispatcher_us" 'BEGIN {
				batches = int((n + at_once - 1) / at_once)
				printf "%d,%s,%d,%.1f,%.2f,%d,%.1f\n", at_once, sync, n, batches * ms / 1000,
					n / speed, most, us / n
			}' >>"$results/http_slow.csv"
		progress "http: slow, $(tail -n 1 "$results/http_slow.csv")"
	done
}

# ---- memory ----

measure_http_memory()
{
	local step

	restart_http 100 "synchronous_commit = off"
	set_dispatchers 1
	aim_at "$nginx_url/ok" 100 false
	switch_jobs on
	for ((step = 1; step <= 10; step++)); do
		enqueue_http "$http_memory_step"
		wait_until jobqueue 'NOT EXISTS (SELECT FROM jobs_queue_live)' 600
		printf '%s,%s\n' $((step * http_memory_step)) "$(dispatcher_memory)" >>"$results/http_memory.csv"
		progress "http: memory, $(tail -n 1 "$results/http_memory.csv")"
	done
	switch_jobs off
	must_equal 'requests' $((10 * http_memory_step)) "$(query jobqueue -c \
		"SELECT count(*) FROM job_runs WHERE status = 'completed'")"
}

# ---- latency ----

# From just before the enqueueing statement, so with its commit and that of the
# claim, until the server has read the request.
measure_http_latency()
{
	start_slow 0 "$scratch/slow.log"
	restart_http 100 "synchronous_commit = $sync"
	aim_at "$slow_url" 100 false
	switch_jobs on
	client_script http_latency.sql -t 3 >"$scratch/report" 2>&1	# starts the dispatcher
	wait_until jobqueue 'NOT EXISTS (SELECT FROM jobs_queue_live)' 30
	client_script http_latency.sql -t "$http_latency_jobs" -R 30 >"$scratch/report" 2>&1 ||
		give_up 'pgbench failed' "$scratch/report"
	wait_until jobqueue 'NOT EXISTS (SELECT FROM jobs_queue_live)' 30
	switch_jobs off
	stop_slow
	must_equal 'requests' $((http_latency_jobs + 3)) "$(wc -l <"$scratch/slow.log")"
	tail -n +4 "$scratch/slow.log" | sed 's/{"at": *\([0-9]*\).*/\1/' |
		awk '{ printf "%.3f\n", ($1 - $2) / 1000 }' | sort -n |
		awk -v sync="$sync" '{ ms[NR] = $1 }
			END { printf "http_latency,%s,%d,%s,%s\n", sync, NR, ms[int((NR + 1) / 2)], ms[int(NR * 0.99)] }' \
			>>"$results/http_latency.csv"
	progress "http: latency, $(tail -n 1 "$results/http_latency.csv")"
}

suite_http()
{
	if [ -n "$quick" ]; then
		http_requests=5000 http_concurrency='1 100 1000' http_slow_requests=2000
		http_memory_step=2000 http_latency_jobs=60
	fi
	get_http_peers || {
		progress 'left out http: nginx, gcc or libcurl could not be had'
		return 0
	}
	measure_http_speed
	measure_http_memory
	for sync in ${sync_list:-off on}; do
		measure_slow
		measure_http_latency
	done
	stop_nginx
	query postgres -c 'ALTER SYSTEM RESET jobqueue.enabled' \
		-c 'ALTER SYSTEM RESET jobqueue.max_dispatchers'
	restart_server
	tabulate_http
}

tabulate_http()
{
	tabulate_suite http "HTTP: $http_requests POSTs to nginx, HTTP/1.1" 'http_bare=x LIMIT' \
		-v what=requests -v own='own CPU us'
	tabulate_suite http_tls "HTTP: $http_requests POSTs to nginx, TLS and HTTP/2" \
		'http_tls_bare=x LIMIT' -v what=requests -v own='own CPU us'
	tabulate "HTTP: $http_slow_requests requests to a server that answers after $http_slow_ms ms" plain.awk \
		http_slow.csv -v titles='at once|sync|requests|least s|s|open at once|CPU us/request'
	tabulate 'HTTP: memory of the dispatcher, 100 requests at once' plain.awk http_memory.csv \
		-v titles='requests|private kB|PSS kB without shared memory'
	tabulate 'HTTP: from enqueue to the request' plain.awk http_latency.csv \
		-v titles='what|sync|jobs|p50 ms|p99 ms'
}
