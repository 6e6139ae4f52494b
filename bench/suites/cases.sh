#!/bin/bash
# The same claim and resolve on queues of different shapes. Each shape (a case)
# has a database per system, filled once. A run is a fixed number of jobs, and
# after it as many are put in again: so every run meets the same queue, and the
# cases and systems can take turns. Sourced by bench/run.
# shellcheck disable=SC2034,SC2154  # variables are shared with the other files

jobs_per_run=7500
case_clients=4

case_systems='unkept plpgsql'

# What there is to say about each case.
describe_case() # case, system: sets its shape (see case_fill.sql) and the script
{
	ready=$case_rows job_type="'bench'" priority=0 payload="'{\"to\": \"someone@example.com\"}'"
	ahead_rows=0 ahead_priority=0 script=claim_resolve.sql types=$((case_rows / 150))
	filling=case_fill.sql group_key=NULL
	case $1 in
		policy_*) describe_policy "$1" "$2" ;;
		blocked_*) describe_blocked "$1" "$2" ;;
		depth_*) ready=${1#depth_} names[$1]="${1#depth_} ready" ;;
		future_none) names[$1]="$ready ready" ;;
		future_later) ahead_rows=$ahead names[$1]="and $ahead later" ;;
		future_better)
			ahead_rows=$ahead ahead_priority=-1
			names[$1]="and $ahead later of better priority"
			;;
		types_one) names[$1]='1 job type' ;;
		types_random)
			job_type="'bench_' || n % $types" script=claim_random_type.sql
			names[$1]="$types job types, one asked for"
			;;
		types_any)
			job_type="'bench_' || n % $types" script=claim_any_type.sql
			names[$1]="$types job types, any"
			;;
		priorities_one) names[$1]='1 priority' ;;
		priorities_hundred) priority='n % 100' names[$1]='100 priorities' ;;
		payload_*)
			ready=$((case_rows < 20000 ? case_rows : 20000)) script=claim_payload.sql
			payload=$(payload_of "${1#payload_}") names[$1]="${1#payload_} B"
			;;
	esac
}

# An expression for a payload of so many bytes that hardly compresses.
payload_of() # bytes
{
	echo "jsonb_build_object('n', n, 'text', (SELECT substr(string_agg(md5(i::text), ''), 1, $1 - 24)
		FROM generate_series(0, $1 / 32) AS i))"
}

has_case() # case, system: the PL/pgSQL queue cannot claim a job of any type
{
	case $1 in
		types_any) [ "$2" != plpgsql ] ;;
		policy_* | blocked_*) has_policy "$1" "$2" ;;
	esac
}

fill_case() # database, ready rows, rows ahead
{
	query "$1" -v ready="$2" -v job_type="$job_type" -v priority="$priority" \
		-v payload="$payload" -v ahead="$3" -v ahead_priority="$ahead_priority" \
		-v group_key="$group_key" -f "$top/bench/sql/$filling"
}

create_case() # suite, case, system
{
	local database=${2}_$3

	fresh_database "$database"
	case $3 in
		plpgsql) query "$database" -f "$top/bench/sql/plpgsql_queue.sql" ;;
		*) query "$database" -v kept=false -f "$top/bench/sql/jobqueue.sql" ;;
	esac
}

open_case() # suite, case, system
{
	local database=${2}_$3

	describe_case "$2" "$3"
	progress "$1, filling: ${names[$2]}, ${names[$3]}"
	[[ $2 != policy_* && $2 != blocked_* ]] || prepare_policy "$database" "$2"
	fill_case "$database" "$ready" "$ahead_rows"
	[ "$3" = plpgsql ] || query "$database" -f "$top/bench/sql/keep_nothing.sql"
	query "$database" -c 'VACUUM ANALYZE'
	[[ $2 != policy_* && $2 != blocked_* ]] || begin_counting "$database"
	calibrate "$2" "$3"
}

drop_case() # suite, case, system
{
	[[ $2 != blocked_* ]] || must_be_blocked "${2}_$3" "$2"
	query postgres -c "DROP DATABASE ${2}_$3 WITH (FORCE)"
}

# How many jobs each client does in a run: as many as make jobs_per_run, or fewer
# if these would take longer than a run. A short run, of which nothing else is
# noted, tells.
declare -A jobs_per_client=()
calibrate() # case, system
{
	run_script "${1}_$2" "$script" $case_clients -t 25 -D types="$types"
	must_have_run "$2"
	fill_case "${1}_$2" $((25 * case_clients)) 0
	jobs_per_client[$1 $2]=$(awk -v tps="$tps" -v seconds="$seconds" -v clients=$case_clients \
		-v most=$jobs_per_run 'BEGIN {
			jobs = tps * seconds
			if (jobs > most)
				jobs = most
			jobs = int(jobs / clients)
			print jobs < 25 ? 25 : jobs
		}')
}

measure_case() # suite, case, system, round
{
	local database=${2}_$3 count=${jobs_per_client[$2 $3]} before

	describe_case "$2" "$3"
	query "$database" -c VACUUM
	before=$(runs_so_far "$database")
	run_script "$database" "$script" $case_clients -t "$count" -D types="$types"
	must_have_run "$3"
	must_equal "resolved jobs of $3, ${names[$2]}" $((count * case_clients)) \
		$(($(runs_so_far "$database") - before))
	compute_figures "$scripts" "$tps"
	record "$1" $case_clients "$2" "$3" "$4" ''
	fill_case "$database" "$scripts" 0
}

# Every second round goes backwards, for a place in a round may have its price.
for_each_case() # command, suite, cases, round
{
	local case system order=cat

	[ $((${4:-1} % 2)) -eq 1 ] || order=tac
	for case in $(tr -s '[:space:]' '\n' <<<"$3" | sed '/^$/d' | $order); do
		for system in $case_systems; do
			! has_case "$case" "$system" || "$1" "$2" "$case" "$system" "$4"
		done
	done
}

# Runs are short, so there are three times as many. The only checkpoint is before
# all jobs, so that every page a run touches is newer than it.
compare_cases() # suite, cases
{
	local round

	for sync in ${sync_list:-off}; do
		for_each_case create_case "$1" "$2" ''
		query postgres -c CHECKPOINT
		for_each_case open_case "$1" "$2" ''
		for ((round = 1; round <= 3 * rounds; round++)); do
			for_each_case measure_case "$1" "$2" "$round"
		done
		for_each_case drop_case "$1" "$2" ''
	done
}

tabulate_cases() # suite, title, title of the column that compares with the first case
{
	tabulate_suite "$1" "$2" 'plpgsql=x plpgsql' -v first_case="$3"
}

suite_depth()
{
	local depth cases=

	for depth in $depths; do
		cases+="depth_$depth "
	done
	compare_cases depth "$cases"
	tabulate_cases depth 'Depth of the queue' 'x first'
	plot_depth
}

suite_future()
{
	compare_cases future 'future_none future_later future_better'
	tabulate_cases future 'Jobs planned for later' 'x without'
}

suite_types()
{
	compare_cases types 'types_one types_random types_any'
	tabulate_cases types 'Job types' 'x one type'
}

suite_priorities()
{
	compare_cases priorities 'priorities_one priorities_hundred'
	tabulate_cases priorities 'Priorities' 'x one'
}

suite_payload()
{
	compare_cases payload 'payload_64 payload_1024 payload_32768'
	tabulate_cases payload 'Payload, which the claim returns' 'x 64 B'
}
