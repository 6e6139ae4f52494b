#!/bin/bash
# How fast jobs come in: one by one, and many in a call beside COPY of the same
# rows. Sourced by bench/run.
# shellcheck disable=SC2034,SC2154  # variables are shared with the other files

rows_per_call=10000
calls_per_run=20

names+=(
	[limit_insert]='LIMIT: INSERT, primary key only'
	[plpgsql_insert]='PL/pgSQL queue, INSERT'
	[insert]='INSERT INTO jobs_queue'
	[insert_unhinted]='INSERT, trigger hint disabled'
	[enqueue_job]='enqueue_job'
	[copy]='COPY into jobs_queue'
	[enqueue_jobs]='enqueue_jobs'
	[plpgsql_copy]='PL/pgSQL queue, COPY'
)

# An empty queue, after a checkpoint.
describe_enqueue() # system: sets database, queue and script
{
	database=jobqueue queue=jobs_queue script=insert.sql
	case $1 in
		limit_insert) queue=limit_jobs script=limit_insert.sql ;;
		plpgsql_*) database=plpgsql ;;
		enqueue_job) script=enqueue_job.sql ;;
	esac
}

empty_queue() # system
{
	case $1 in
		limit_insert) query "$database" -f "$top/bench/sql/limit_table.sql" ;;
		plpgsql_*) query "$database" -f "$top/bench/sql/plpgsql_queue.sql" ;;
		*) query "$database" -v kept=true -f "$top/bench/sql/jobqueue.sql" ;;
	esac
	[ "$1" != insert_unhinted ] ||
		query "$database" -c 'ALTER TABLE jobs_queue_live DISABLE TRIGGER hint'
	query "$database" -c CHECKPOINT
}

has_hint_trigger()
{
	[ "$(query jobqueue -c "SELECT count(*) FROM pg_trigger
		WHERE tgrelid = 'jobs_queue_live'::regclass AND tgname = 'hint'")" -eq 1 ]
}

must_have_enqueued() # system, rows
{
	must_equal "rows of $1" "$2" "$(query "$database" -c "SELECT count(*) FROM $queue")"
}

enqueue_singly() # system, clients, round
{
	describe_enqueue "$1"
	empty_queue "$1"
	run_script "$database" "$script" "$2" -T "$seconds"
	must_have_run "$1"
	must_have_enqueued "$1" "$scripts"
	compute_figures "$scripts" "$tps"
	record enqueue "$2" '' "$1" "$3" ''
}

# The same rows as a statement and as a file to copy, both sent by the client.
write_bulk()
{
	awk -v rows=$rows_per_call -v calls=$calls_per_run -v directory="$scratch" 'BEGIN {
		for (i = 1; i <= rows; i++) {
			payload = "{\"n\": " i ", \"to\": \"someone@example.com\"}"
			print "bench\t" payload "\t5" >(directory "/bulk.copy")
			gsub(/"/, "\\\"", payload)
			array = array (i > 1 ? "," : "") "\"" payload "\""
		}
		call = "SELECT enqueue_jobs('\''bench'\'', '\''{" array "}'\'', max_attempts => 5);"
		copy = "\\copy jobs_queue (job_type, payload, max_attempts) from '\''" directory "/bulk.copy'\''"
		for (i = 1; i <= calls; i++) {
			print call >(directory "/enqueue_jobs.sql")
			print copy >(directory "/copy.sql")
		}
	}'
}

enqueue_in_bulk() # system, round
{
	describe_enqueue "$1"
	empty_queue "$1"
	run_bulk "$1"
	record bulk 1 '' "$1" "$2" ''
}

# One client; the time is that of the statements, as psql tells it.
run_bulk() # system: sets figures
{
	local count=$((rows_per_call * calls_per_run)) milliseconds

	start_meters
	PGOPTIONS="$PGOPTIONS -c synchronous_commit=$sync" query "$database" -c '\timing on' \
		-f "$scratch/${1#plpgsql_}.sql" >"$scratch/report"
	stop_meters
	must_have_enqueued "$1" $count
	milliseconds=$(sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' "$scratch/report" |
		awk '{ sum += $1 } END { print sum }')
	compute_figures $count "$(awk -v rows=$count -v ms="$milliseconds" 'BEGIN { print rows * 1000 / ms }')"
}

suite_enqueue()
{
	local systems='limit_insert plpgsql_insert insert insert_unhinted enqueue_job'
	local clients round system

	has_hint_trigger || {
		progress 'enqueue: there is no trigger "hint", so nothing to compare it with'
		systems=${systems/insert_unhinted /}
	}
	write_bulk
	for sync in ${sync_list:-off on}; do
		for clients in ${clients_list:-4}; do
			for ((round = 1; round <= rounds; round++)); do
				for system in $systems; do
					enqueue_singly "$system" "$clients" "$round"
				done
			done
		done
		for ((round = 1; round <= rounds; round++)); do
			for system in copy enqueue_jobs plpgsql_copy; do
				enqueue_in_bulk "$system" "$round"
			done
		done
	done
	tabulate_suite enqueue 'Single jobs' \
		"limit_insert=x LIMIT|insert_unhinted=x no hint" -v what=rows
	tabulate_suite bulk "$rows_per_call jobs in a call" 'copy=x COPY' -v what=rows
}
