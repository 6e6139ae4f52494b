#!/bin/bash
# How the speed goes on while another session holds a snapshot, so that nothing
# that was deleted since can be removed. Sourced by bench/run.
# shellcheck disable=SC2034,SC2154  # variables are shared with the other files

slice_clients=4

# Another session with an open transaction that has taken a snapshot.
take_snapshot() # database
{
	coproc holder { query "$1"; }
	children+=("$holder_PID")
	echo 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM jobs_queue;' >&"${holder[1]}"
	read -r _ <&"${holder[0]}" || give_up 'could not take a snapshot'
}

release_snapshot()
{
	local pid=$holder_PID input=${holder[1]}

	echo 'COMMIT;' >&"$input"
	exec {input}>&-
	wait "$pid" || give_up 'the session with the snapshot was lost'
	children=()
}

# Runs a script for six slices; one second more, so that the last one is told.
run_slices() # database, script, snapshot: held or none
{
	[ "$3" = none ] || take_snapshot "$1"
	run_script "$1" "$2" $slice_clients -T $((hold + 1)) -P $((hold / 6))
	[ "$3" = none ] || release_snapshot
}

# The lines of the slices: a share of the scripts found no job.
record_slices() # suite, autovacuum, snapshot, system, round, jobs
{
	awk -v share="$(awk -v jobs="$6" -v scripts="$scripts" 'BEGIN { print jobs / scripts }')" \
		-v line="$1,$2,$3,$4,$5" '
		/^progress:/ && ++n <= 6 { printf "%s,%.0f,%.1f\n", line, $2, $4 * share }' \
		"$scratch/report" >>"$results/slices.csv"
	compute_figures "$6" "$(awk -v tps="$tps" -v jobs="$6" -v scripts="$scripts" \
		'BEGIN { print tps * jobs / scripts }')"
	record "$1" $slice_clients "autovacuum_$2_$3" "$4" "$5" ''
}

names+=(
	[autovacuum_off_held]='autovacuum off'
	[autovacuum_on_held]='autovacuum on'
	[autovacuum_on_none]='autovacuum on, no snapshot'
)

# ---- a backlog ----

# How many jobs last: those of an undisturbed run, and a third more.
backlog_of() # system
{
	fill "$1" $((case_rows))
	run_script "$database" "$script" $slice_clients -T 2
	awk -v tps="$tps" -v hold="$hold" -v least="$case_rows" 'BEGIN {
		jobs = int(tps * (hold + 1) * 1.33)
		print jobs < least ? least : jobs
	}'
}

drain_backlog() # autovacuum, system, round
{
	local backlog jobs

	describe "$2"
	backlog=$(backlog_of "$2")
	while true; do
		fill "$2" "$backlog"
		run_slices "$database" "$script" held
		[ "$status" -ne 0 ] || break
		[ "$(query "$database" -c "SELECT count(*) FROM jobs_queue WHERE status = 'queued'")" \
			-lt $slice_clients ] || must_have_run "$2"
		backlog=$((backlog * 2))
	done
	jobs=$(runs_so_far "$database")
	must_equal "resolved jobs of $2" "$scripts" "$jobs"
	record_slices snapshot "$1" held "$2" "$3" "$jobs"
}

suite_snapshot()
{
	local mode system

	sync=off
	for mode in $autovacuum_list; do
		set_autovacuum "$mode"
		for system in unkept plpgsql; do
			drain_backlog "$mode" "$system" 1
		done
	done
	set_autovacuum "$autovacuum"
	tabulate_slices snapshot "A backlog, a snapshot held for $hold s"
	plot_slices snapshot 'Draining a backlog while a snapshot is held'
}

# ---- a nearly empty queue ----

# Every script enqueues a job and then claims one, so each job is soon resolved;
# a claim may find that another client was quicker.
run_steady() # autovacuum, snapshot, system, round
{
	local jobs left

	describe "$3"
	fill "$3" 100
	run_slices "$database" steady.sql "$2"
	must_have_run "$3"
	jobs=$(runs_so_far "$database")
	left=$(query "$database" -c "SELECT count(*) FROM jobs_queue WHERE status = 'queued'")
	must_equal "resolved and remaining jobs of $3" $((scripts + 100)) $((jobs + left))
	record_slices steady "$1" "$2" "$3" "$4" "$jobs"
}

suite_steady()
{
	local mode system

	sync=off
	for mode in $autovacuum_list; do
		set_autovacuum "$mode"
		for system in unkept plpgsql; do
			run_steady "$mode" held "$system" 1
		done
	done
	for system in unkept plpgsql; do
		run_steady "$mode" none "$system" 1
	done
	set_autovacuum "$autovacuum"
	names[autovacuum_off_none]='autovacuum off, no snapshot'
	tabulate_slices steady "A nearly empty queue, a snapshot held for $hold s"
	plot_slices steady 'A nearly empty queue while a snapshot is held'
}

tabulate_slices() # suite, title
{
	tabulate "$2: jobs/s in each slice" slices.awk slices.csv -v suite="$1"
	tabulate_suite "$1" "$2: the whole run" 'plpgsql=x plpgsql'
}
