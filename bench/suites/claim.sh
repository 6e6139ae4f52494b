#!/bin/bash
# The table of bench/run: a claim and a resolve beside the least that they can
# cost, and batches. Sourced by bench/run.
# shellcheck disable=SC2034,SC2154  # variables are shared with the other files

names+=(
	[limit]='LIMIT: two UPDATEs by key'
	[plpgsql]='PL/pgSQL, SKIP LOCKED'
	[kept]='jobqueue'
	[unkept]='jobqueue, retention zero'
	[kept_next]='resolve_and_claim'
	[unkept_next]='resolve_and_claim, retention zero'
	[batch10]='batches of 10, retention zero'
	[batch100]='batches of 100, retention zero'
)

# What there is to say about each system.
describe() # system: sets database, script, kept and batch
{
	database=jobqueue script=claim_resolve.sql kept=true batch=1
	case $1 in
		limit) script=limit.sql ;;
		plpgsql) database=plpgsql ;;
		kept) ;;
		unkept) kept=false ;;
		kept_next) script=resolve_and_claim.sql ;;
		unkept_next) script=resolve_and_claim.sql kept=false ;;
		batch10 | batch100) batch=${1#batch} script=batch.sql kept=false ;;
		*) usage 2 >&2 ;;
	esac
}

# A fresh table with $2 jobs. The checkpoint comes before the jobs, so that every
# page a run touches is newer than it.
fill() # system, rows
{
	local queue=jobs_queue

	case $1 in
		limit)
			queue=limit_jobs
			query "$database" -f "$top/bench/sql/limit_table.sql"
			;;
		plpgsql) query "$database" -f "$top/bench/sql/plpgsql_queue.sql" ;;
		*) query "$database" -v kept="$kept" -f "$top/bench/sql/jobqueue.sql" ;;
	esac
	query "$database" -c CHECKPOINT
	query "$database" -v queue="$queue" -v rows="$2" -f "$top/bench/sql/fill.sql"
	query "$database" -c 'VACUUM ANALYZE'
}

# Runs a system once.
measure() # system, clients, rows
{
	fill "$1" "$3"
	work_off "$@"
}

# Sets figures, and drained (1 when the jobs did not last, else empty). A run
# that failed otherwise, or that resolved another number of jobs than it counted,
# ends the program.
work_off() # system, clients, rows
{
	local left jobs

	run_script "$database" "$script" "$2" -T "$seconds" -D rows="$3" -D batch="$batch"
	drained=
	jobs=$scripts
	if [ "$1" != limit ]; then
		left=$(query "$database" -c "SELECT count(*) FROM jobs_queue WHERE status = 'queued'")
		jobs=$(runs_so_far "$database")
		[ "$left" -ge $((batch * $2)) ] || drained=1
	fi
	if [ -z "$drained" ]; then
		must_have_run "$1"
		[ "$batch" -gt 1 ] || must_equal "resolved jobs of $1" "$scripts" "$jobs"
	fi
	compute_figures "$jobs" "$(awk -v jobs="$jobs" -v scripts="$scripts" -v tps="$tps" \
		'BEGIN { print scripts ? tps * jobs / scripts : 0 }')"
}

# Measures a system; where the number of jobs is ours to choose, again with
# twice as many until they last. The jobs of its later runs are as many.
declare -A enough_rows=()
measure_undrained() # suite, system, clients, round
{
	local ready=${rows:-${enough_rows[$2]:-$((60000 * seconds))}}

	describe "$2"
	measure "$2" "$3" "$ready"
	while [ -n "$drained" ] && [ -z "$rows" ]; do
		ready=$((ready * 2))
		enough_rows[$2]=$ready
		measure "$2" "$3" "$ready"
	done
	record "$1" "$3" '' "$2" "$4" "$drained"
}

compare_claims() # suite, clients, systems
{
	local clients round system

	for sync in ${sync_list:-off on}; do
		for clients in $2; do
			for ((round = 1; round <= rounds; round++)); do
				for system in $3; do
					measure_undrained "$1" "$system" "$clients" "$round"
				done
			done
		done
	done
}

suite_claim()
{
	compare_claims claim "${clients_list:-1 4 8 16}" "$systems"
	tabulate_suite claim 'Claim and resolve' 'limit=x LIMIT|plpgsql=x plpgsql'
}

suite_batch()
{
	compare_claims batch "${clients_list:-4 16}" 'limit plpgsql batch10 batch100'
	tabulate_suite batch 'Batches' 'limit=x LIMIT|plpgsql=x plpgsql'
}
