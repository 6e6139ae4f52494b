#!/bin/bash
# Cron tasks: how punctual they are, how many of them there can be, and what
# they cost while none is due. Sourced by bench/run.
# shellcheck disable=SC2034,SC2154  # variables are shared with the other files

cron_burst=1000			# tasks that are due at once
cron_singles=1000		# created by a call each
cron_calls=400000		# of the functions that read schedules
cron_seconds=15			# of a run with few tasks
cron_alone=5			# tasks of pg_cron that are due at once when nothing else is

names+=(
	[begun]='jobqueue: the scheduler has begun to enqueue'
	[enqueued]='jobqueue: the job is enqueued'
	[started]='jobqueue: its body has started'
	[launched]='jobqueue: its body has started, in an executor started for it'
	[pgcron]='pg_cron, 5 tasks of a minute: the body has started'
	[burst_begun]='jobqueue: their transactions begun'
	[burst_enqueued]='jobqueue: enqueued'
	[burst_started]='jobqueue: bodies started'
	[burst_pgcron]='pg_cron: bodies started'
	[burst_pgcron_more]='pg_cron, cron.max_running_jobs 200: bodies started'
	[cron_bulk]='INSERT INTO cron_tasks'
	[cron_one]='schedule_cron_task'
	[one]='1 task each second'
	[all]="$cron_burst tasks each second"
	[held]='the same, a snapshot held'
	[far]='jobqueue'
	[far_pgcron]='pg_cron'
	[cron_valid]='cron_is_valid'
	[cron_next]='cron_next_runs, the next instant'
	[cron_next100]='cron_next_runs, each of the next 100'
)

fresh_cron() # settings
{
	query jobqueue -v kept=true -f "$top/bench/sql/cron.sql"
	restart_cron "$@"
}

# Sets scheduler to the process that enqueues.
restart_cron() # settings
{
	restart_server 'jobqueue.launcher = on' 'track_commit_timestamp = on' \
		"synchronous_commit = $sync" "$@"
	wait_until jobqueue "count(*) = 1 FROM pg_stat_activity
		WHERE backend_type = 'jobqueue scheduler' AND datname = 'jobqueue'" 60
	scheduler=$(query jobqueue -c "SELECT pid FROM pg_stat_activity
		WHERE backend_type = 'jobqueue scheduler' AND datname = 'jobqueue'")
}

# The first whole second that is at least so far away.
instant_after() # seconds
{
	query postgres -c "SELECT date_trunc('second', clock_timestamp()) + interval '1 s' * ($1 + 1)"
}

# Asleep here, not in a session: a statement would hold a snapshot.
sleep_until() # instant, seconds after it
{
	sleep "$(query postgres -c "SELECT greatest(0, extract(epoch FROM
		'$1'::timestamptz + interval '1 s' * $2 - clock_timestamp()))")"
}

# ---- how late a task is ----

# Tasks of each second, all but one with an instant of their own, so that most
# starts are those of a task alone.
add_seconds() # job type, tasks
{
	query jobqueue -c "SELECT add_cron_tasks('$1', 1, '* * * * * *', '$1')" >/dev/null
	query jobqueue -c "SELECT add_cron_tasks('$1' || n, 1, 'every 1 second', '$1'),
		pg_sleep(0.7 / $2) FROM generate_series(2, $2) AS n" >/dev/null
}

note_starts() # case, database, view, start, seconds
{
	query "$2" -F , -v what="$1" -v view="$3" -v start="$4" -v seconds="$5" \
		-f "$top/bench/sql/cron_start.sql" >>"$results/cron_start.csv"
	progress "cron: $(tail -n 1 "$results/cron_start.csv")"
}

measure_starts()
{
	local start

	fresh_cron
	add_seconds tick 8
	add_seconds sql 8
	start=$(instant_after 1)
	sleep_until "$start" $cron_seconds
	wait_for_instants "$start" $cron_seconds
	note_starts begun jobqueue cron_begun "$start" $cron_seconds
	note_starts enqueued jobqueue cron_enqueued "$start" $cron_seconds
	note_starts started jobqueue cron_started "$start" $cron_seconds

	fresh_cron 'jobqueue.executor_idle_timeout = 100'
	query jobqueue -c "SELECT add_cron_tasks('sql', 1, '* * * * * *', 'sql')" >/dev/null
	start=$(instant_after 1)
	sleep_until "$start" $((cron_seconds / 2))
	wait_for_instants "$start" $((cron_seconds / 2))
	note_starts launched jobqueue cron_started "$start" $((cron_seconds / 2))
}

# Until no task has an instant before that one left. Of several that have passed
# only the latest is enqueued.
wait_for_instants() # start, seconds
{
	wait_until jobqueue "NOT EXISTS (SELECT FROM cron_tasks WHERE enabled
		AND next_run_at < '$1'::timestamptz + interval '1 s' * $2)" 60
	wait_until jobqueue "NOT EXISTS (SELECT FROM jobs_queue WHERE job_type = 'sql'
		AND status IN ('queued', 'running')
		AND scheduled_at < '$1'::timestamptz + interval '1 s' * $2)" 60
}

# ---- many at once ----

note_burst() # case, round, database, view, start
{
	printf '%s,%s,%s\n' "$1" "$2" "$(query "$3" -F , -v view="$4" -v start="$5" \
		-f "$top/bench/sql/cron_burst.sql")" >>"$results/cron_burst.csv"
	progress "cron: $(tail -n 1 "$results/cron_burst.csv")"
}

run_burst() # job type, round
{
	local start schedule view=cron_enqueued

	[ "$1" = tick ] || view=cron_started
	start=$(instant_after 1)
	schedule=$(query jobqueue -c "SELECT to_char('$start'::timestamptz AT TIME ZONE 'UTC',
		'FMSS FMMI FMHH24 FMDD FMMM \"*\"')")
	query jobqueue -c "SELECT add_cron_tasks('burst ', $cron_burst, '$schedule', '$1')" >/dev/null
	sleep_until "$start" 0.5
	wait_until jobqueue "count(*) = $cron_burst FROM $view WHERE instant = '$start'" 60
	query jobqueue -c 'DELETE FROM cron_tasks'
	if [ "$1" = tick ]; then
		note_burst burst_begun "$2" jobqueue cron_begun "$start"
		note_burst burst_enqueued "$2" jobqueue cron_enqueued "$start"
	else
		note_burst burst_started "$2" jobqueue cron_started "$start"
	fi
}

measure_bursts()
{
	local round

	fresh_cron
	for ((round = 1; round <= rounds; round++)); do
		run_burst tick "$round"
		run_burst sql "$round"
	done
}

# ---- many that are not due ----

# Both ways in turn; the tasks of the last statement stay.
create_tasks()
{
	local round milliseconds

	for ((round = 1; round <= rounds; round++)); do
		query jobqueue -c 'DELETE FROM cron_tasks' -c 'VACUUM ANALYZE' -c CHECKPOINT
		start_meters
		milliseconds=$(PGOPTIONS="$PGOPTIONS -c synchronous_commit=$sync" query jobqueue \
			-v tasks="$cron_tasks" -c '\timing on' -f "$top/bench/sql/cron_far.sql" |
			sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p')
		stop_meters
		compute_figures "$cron_tasks" \
			"$(awk -v rows="$cron_tasks" -v ms="$milliseconds" 'BEGIN { print rows * 1000 / ms }')"
		record cron_create 1 '' cron_bulk "$round" ''

		run_script jobqueue cron_one.sql 1 -t $cron_singles
		must_have_run cron_one
		compute_figures "$scripts" "$tps"
		record cron_create 1 '' cron_one "$round" ''
	done
	query jobqueue -c "DELETE FROM cron_tasks WHERE name LIKE 'one %'" -c 'VACUUM ANALYZE'
	must_equal 'tasks' "$cron_tasks" "$(query jobqueue -c 'SELECT count(*) FROM cron_tasks')"
}

# Kilobytes that the scheduler shares with nobody.
scheduler_memory()
{
	awk '/^RssAnon:/ { print $2 }' "/proc/$scheduler/status" 2>/dev/null || true
}

# CPU time of the scheduler so far, in milliseconds.
scheduler_ms()
{
	if [ -r "/proc/$scheduler/schedstat" ]; then
		awk '{ printf "%.3f\n", $1 / 1e6 }' "/proc/$scheduler/schedstat"
	else
		awk -v hertz="$(getconf CLK_TCK)" \
			'{ sub(/^.*\) /, ""); print ($12 + $13) * 1000 / hertz }' "/proc/$scheduler/stat"
	fi
}

# So many of the tasks are due in each of so many seconds, the others never.
run_load() # case, tasks, seconds
{
	local start memory cpu_ms

	query jobqueue -c "DELETE FROM cron_tasks WHERE job_type = 'tick' AND name LIKE 'due %'" \
		-c "DELETE FROM jobs_queue" \
		-c "SELECT add_cron_tasks('due ', $2, '* * * * * *', 'tick', false)" >/dev/null
	query jobqueue -c 'VACUUM ANALYZE' -c CHECKPOINT
	[ "$1" != held ] || take_snapshot jobqueue
	memory=$(scheduler_memory)
	query jobqueue -c "UPDATE cron_tasks SET enabled = true WHERE name LIKE 'due %'"
	start=$(instant_after 1)
	sleep_until "$start" 0
	cpu_ms=$(scheduler_ms)
	sleep_until "$start" "$3"
	cpu_ms=$(awk -v before="$cpu_ms" -v after="$(scheduler_ms)" 'BEGIN { print after - before }')
	wait_for_instants "$start" "$3"
	[ "$1" != held ] || release_snapshot
	query jobqueue -c "UPDATE cron_tasks SET enabled = false WHERE name LIKE 'due %'"
	query jobqueue -F , -v what="$1" -v tasks="$2" -v start="$start" -v seconds="$3" \
		-v cpu_ms="$cpu_ms" -v private="$(scheduler_memory)" \
		-v growth=$(($(scheduler_memory) - memory)) \
		-f "$top/bench/sql/cron_load.sql" >>"$results/cron_load.csv"
	progress "cron: $(tail -n 1 "$results/cron_load.csv")"
}

measure_scale()
{
	restart_cron
	measure_idle far $cron_seconds cron_idle.csv
	restart_cron 'autovacuum = on'
	run_load all $cron_burst "$hold"
	run_load held $cron_burst "$hold"
}

# ---- schedules ----

time_schedules() # system, script, calls, instants of a call, round
{
	local milliseconds

	start_meters
	milliseconds=$(query jobqueue -v calls="$3" -v instants="$4" -c '\timing on' \
		-f "$top/bench/sql/$2" | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p')
	stop_meters
	compute_figures "$3" "$(awk -v calls="$3" -v ms="$milliseconds" 'BEGIN { print calls * 1000 / ms }')"
	record cron_schedules 1 '' "$1" "$5" ''
}

measure_schedules()
{
	local round

	query jobqueue -f "$top/bench/sql/cron_expressions.sql"
	must_equal 'valid schedules' 80 "$(query jobqueue -v calls=80 -f "$top/bench/sql/cron_valid.sql")"
	for ((round = 1; round <= rounds; round++)); do
		time_schedules cron_valid cron_valid.sql $cron_calls 1 "$round"
		time_schedules cron_next cron_next.sql $cron_calls 1 "$round"
		time_schedules cron_next100 cron_next.sql $cron_calls 100 "$round"
	done
}

# ---- pg_cron ----

# What does not take much of the machine, or little of its time.
measure_quiet()
{
	measure_schedules
	create_tasks
	run_load one 1 $cron_seconds
}

start_pgcron() # settings
{
	restart_cron "shared_preload_libraries = 'jobqueue, pg_cron'" \
		"cron.database_name = 'cron'" "cron.host = '$scratch'" "$@"
	query cron -f "$top/bench/sql/pg_cron.sql"
}

# So many tasks of the next minute that is not too near. They run again in the
# one after it, so those that were not run by then are not waited for.
run_pgcron() # tasks: sets start
{
	start=$(query postgres -c "SELECT date_trunc('minute', clock_timestamp() + interval '3 s')
		+ interval '1 min'")
	query cron -v start="$start" -v tasks="$1" -f "$top/bench/sql/pg_cron_tasks.sql" >/dev/null
	sleep_until "$start" 0
	wait_until cron "count(*) = $1 OR clock_timestamp() > '$start'::timestamptz + interval '50 s'
		FROM cron_started WHERE instant = '$start'" 60
	query cron -c 'DELETE FROM cron.job'
}

# Whole minutes, so what else there is to do comes between two of them.
measure_pgcron()
{
	local start

	fresh_database cron
	start_pgcron
	if [ -z "$quick" ]; then
		run_pgcron $cron_alone
		note_starts pgcron cron cron_started "$start" 1
	fi
	measure_quiet
	run_pgcron $cron_burst
	note_burst burst_pgcron 1 cron cron_started "$start"
	[ -z "$quick" ] || return 0
	restart_server "shared_preload_libraries = 'pg_cron'" "cron.database_name = 'cron'"
	query cron -v tasks="$cron_tasks" -f "$top/bench/sql/pg_cron_far.sql"
	measure_idle far_pgcron $cron_seconds cron_idle.csv
	start_pgcron 'cron.max_running_jobs = 200'
	run_pgcron $cron_burst
	note_burst burst_pgcron_more 1 cron cron_started "$start"
}

suite_cron()
{
	[ -z "$quick" ] || cron_seconds=6 cron_calls=80000
	sync=${sync_list%% *}
	sync=${sync:-on}
	measure_starts
	measure_bursts
	fresh_cron
	if get_debian_package "postgresql-$major-cron" pg_cron; then
		measure_pgcron
	else
		measure_quiet
	fi
	measure_scale
	restart_server
	query postgres -c 'DROP DATABASE IF EXISTS cron WITH (FORCE)'
	tabulate_cron
}

tabulate_cron()
{
	tabulate 'Cron: from the instant of a task, few of them due' plain.awk cron_start.csv \
		-v titles='what|samples|p50 ms|p99 ms|max ms'
	tabulate "Cron: $cron_burst tasks due in the same second, ms since the instant" plain.awk \
		cron_burst.csv -v titles='what|round|jobs|first|half|last'
	tabulate_suite cron_create "Cron: tasks created, up to $cron_tasks of them" \
		'cron_bulk=x INSERT' -v what=tasks
	tabulate "Cron: until enqueued, among $cron_tasks tasks that are not due" plain.awk \
		cron_load.csv -v titles='due|jobs|instants skipped|p50 ms|p99 ms|max ms|p99 first sixth|p99 last sixth|CPU % of scheduler|its private kB|growth kB'
	tabulate "Cron: $cron_tasks tasks, none of them due" plain.awk cron_idle.csv \
		-v titles='server|seconds|CPU %|transaction ids|WAL bytes'
	tabulate_suite cron_schedules 'Cron: schedules read' '' -v what=calls
}
