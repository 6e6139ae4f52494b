#!/bin/bash
# One run of a system, and the line it leaves in results.csv. Sourced by bench/run.
# shellcheck disable=SC2034,SC2154  # variables are shared with the other files

# Runs a script of bench/sql with the synchronous_commit of $sync. Sets status,
# scripts (how many ran) and tps; ticks and wal_bytes to what the server used.
run_script() # database, script, clients, pgbench options
{
	local threads=$3

	[ "$threads" -le "$(nproc)" ] || threads=$(nproc)
	status=0
	start_meters
	PGOPTIONS="$PGOPTIONS -c synchronous_commit=$sync" "$bin/pgbench" -n -M prepared \
		-h "$scratch" -U postgres -c "$3" -j "$threads" -D known=false "${@:4}" \
		-f "$top/bench/sql/$2" "$1" >"$scratch/report" 2>&1 || status=$?
	stop_meters
	scripts=$(reported 'number of transactions actually processed:')
	tps=$(reported 'tps =')
}

reported() # words before the number in pgbench's report
{
	sed -nE "s/^$1 ([0-9.]+).*/\\1/p" "$scratch/report"
}

must_have_run() # what
{
	[ "$status" -eq 0 ] || give_up "$1: pgbench failed" "$scratch/report"
}

# Ends the program unless the work was done.
must_equal() # what, expected count, count
{
	[ "$2" -eq "$3" ] || give_up "$1: $3 where there must be $2" "$scratch/report"
}

runs_so_far() # database
{
	query "$1" -c 'SELECT count(*) FROM job_runs'
}

# Sets figures: jobs/s, CPU microseconds and WAL bytes of the server per job.
compute_figures() # jobs, jobs per second
{
	figures=$(awk -v jobs="$1" -v speed="$2" -v ticks="$ticks" \
		-v hertz="$(getconf CLK_TCK)" -v wal="$wal_bytes" 'BEGIN {
			printf "%.1f,%s,%s\n", speed,
				ticks == "" || !jobs ? "" : sprintf("%.2f", ticks * 1e6 / hertz / jobs),
				wal == "" || !jobs ? "" : sprintf("%.1f", wal / jobs)
		}')
}

# Notes the figures of a run. Names hold no commas.
record() # suite, clients, case, system, round, drained, CPU us/job of the one process that matters
{
	printf '%s,%s,%s,%s,%s,%s,%s,%s,%s\n' "$1" "$sync" "$2" "$3" "$4" "$5" "$figures" "$6" "${7:-}" \
		>>"$results/results.csv"
	progress "$1, synchronous_commit $sync, $2 clients, round $5: $(printf '%.0f' "${figures%%,*}")" \
		"jobs/s, ${names[$4]:-$4}${3:+, ${names[$3]:-$3}}${6:+ (drained)}"
}

progress() # words
{
	echo "$*" >&2
}
