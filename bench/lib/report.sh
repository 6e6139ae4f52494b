#!/bin/bash
# Tables and plots of a suite. Sourced by bench/run.
# shellcheck disable=SC2034,SC2154  # variables are shared with the other files

start_results()
{
	mkdir -p "$results"
	echo 'suite,synchronous_commit,clients,case,system,round,jobs_per_s,cpu_us_per_job,wal_bytes_per_job,drained,own_cpu_us_per_job' \
		>"$results/results.csv"
	echo 'suite,autovacuum,snapshot,system,round,second,jobs_per_s' >"$results/slices.csv"
	echo 'what,synchronous_commit,jobs,p50_ms,p99_ms' >"$results/latency.csv"
	echo 'server,seconds,cpu_percent,transaction_ids,wal_bytes' >"$results/idle.csv"
	echo 'what,samples,p50_ms,p99_ms,max_ms' >"$results/cron_start.csv"
	echo 'what,round,jobs,first_ms,half_ms,last_ms' >"$results/cron_burst.csv"
	echo 'due,jobs,skipped,p50_ms,p99_ms,max_ms,p99_first_ms,p99_last_ms,cpu_percent,private_kb,growth_kb' \
		>"$results/cron_load.csv"
	echo 'server,seconds,cpu_percent,transaction_ids,wal_bytes' >"$results/cron_idle.csv"
	echo 'at_once,synchronous_commit,requests,least_s,s,open_at_once,cpu_us_per_request' >"$results/http_slow.csv"
	echo 'requests,private_kb,pss_kb' >"$results/http_memory.csv"
	echo 'what,synchronous_commit,jobs,p50_ms,p99_ms' >"$results/http_latency.csv"
	echo 'what,database,calls,p50_ms,max_ms' >"$results/observe_reads.csv"
	{
		echo '# Results'
		echo
		echo "$(machine); $seconds s per run, median of $rounds"
		echo
		settings
	} >"$results/results.md"
}

# Prints a table and appends it, as markdown, to results.md. An awk program of
# bench/ makes it from a CSV file; "markdown" tells it which form to print.
tabulate() # title, awk program, CSV file, awk options
{
	local program=$top/bench/$2 file=$results/$3

	shift_title "$1"
	awk -F, -v markdown=1 -v names="$(joined_names)" "${@:4}" -f "$program" "$file" \
		>"$scratch/table.md"
	cat "$scratch/table.md" >>"$results/results.md"
	[ -z "$markdown" ] || cat "$scratch/table.md"
	[ -n "$markdown" ] ||
		awk -F, -v names="$(joined_names)" "${@:4}" -f "$program" "$file"
}

shift_title() # title
{
	printf '\n## %s\n\n' "$1" >>"$results/results.md"
	printf '\n%s\n\n' "$1"
}

# The names of systems and cases as awk gets them: "a=A|b=B".
joined_names()
{
	local key

	for key in "${!names[@]}"; do
		printf '%s=%s|' "$key" "${names[$key]}"
	done
}

# The ordinary table of a suite; bases are the systems that others are compared with.
tabulate_suite() # suite, title, bases, awk options
{
	tabulate "$2" table.awk results.csv -v suite="$1" -v bases="$3" "${@:4}"
}

drop_empty_results()
{
	local file

	for file in "$results"/*.csv; do
		[ "$(wc -l <"$file")" -gt 1 ] || rm "$file"
	done
}

# ---- plots ----

draw() # file, plot options; points on standard input
{
	"$top/bench/plot" "${@:2}" >"$results/$1"
	printf '\n![](%s)\n' "$1" >>"$results/results.md"
}

# Jobs/s and CPU over depth.
plot_depth()
{
	awk -F, '$1 == "depth" { sub(/^depth_/, "", $4); print $5 "," $4 "," $7 "," $8 }' \
		"$results/results.csv" | name_series |
		draw depth.svg --log-x --title 'Claim + resolve at different depths of the queue' \
			--x 'ready jobs in the queue' --y 'jobs/s' --z 'CPU microseconds per job'
}

plot_slices() # suite, title
{
	awk -F, -v suite="$1" -v slice=$((hold / 6)) '$1 == suite && $3 == "held" {
		print $4 ($2 == "on" ? "_autovacuum" : "") "," $6 - slice / 2 "," $7
	}' "$results/slices.csv" | name_series |
		draw "$1.svg" --title "$2" --x 'seconds since the snapshot was taken' \
			--y 'jobs/s' --share 'percent of the first slice'
}

# What plots call the systems, and how they draw them: the word before the name.
name_series()
{
	sed -e 's/^unkept_autovacuum,/main-dashed jobqueue (autovacuum on),/' \
		-e 's/^plpgsql_autovacuum,/other-dashed PL\/pgSQL queue (autovacuum on),/' \
		-e 's/^unkept,/main jobqueue,/' -e 's/^plpgsql,/other PL\/pgSQL queue,/'
}
