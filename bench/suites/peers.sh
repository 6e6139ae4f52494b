#!/bin/bash
# Other queues, each emptied by a client in Node with its own library, and this
# one by a client in Node too. Sourced by bench/run.
# shellcheck disable=SC2034,SC2154  # variables are shared with the other files

all_peers=(jobqueue_single jobqueue_zero jobqueue_next jobqueue_batch jobqueue_batch500
	plpgsql_single pgq_batch graphile_single graphile_batch pgboss_single pgboss_batch
	bullmq_postgres bullmq_redis)

names+=(
	[jobqueue_single]='jobqueue'
	[jobqueue_zero]='jobqueue, retention zero'
	[jobqueue_next]='jobqueue, resolve_and_claim, retention zero'
	[jobqueue_batch]='jobqueue, batches of 100, retention zero'
	[jobqueue_batch500]='jobqueue, batches of 500, retention zero'
	[plpgsql_single]='PL/pgSQL, SKIP LOCKED'
	[pgq_batch]='PgQ, batches of 500 (one tick)'
	[graphile_single]='graphile-worker'
	[graphile_batch]='graphile-worker, local queue of 500'
	[pgboss_single]='pg-boss, fetch + complete'
	[pgboss_batch]='pg-boss, work, batches of 100'
	[bullmq_postgres]='BullMQ on PostgreSQL'
	[bullmq_redis]='BullMQ on Redis, concurrency 100'
)

# Node and the libraries, in the versions of peers/package.json, into the scratch
# directory.
get_node()
{
	command -v npm >/dev/null || "$top/tools/apt_install" nodejs npm >"$scratch/apt.log" 2>&1 || true
	cp -R "$top/bench/peers" "$scratch/peers"
	(cd "$scratch/peers" && npm install --no-audit --no-fund --no-package-lock) \
		>"$scratch/npm.log" 2>&1 || return 1
	node=$scratch/peers/node_modules/.bin/node
	"$node" --version >/dev/null
}

# The server program; the package that would also start one is not needed, for
# the checker of its files is the same program under another name.
get_redis()
{
	local checker

	redis=$(command -v redis-server) && return 0
	command -v redis-cli >/dev/null ||
		"$top/tools/apt_install" redis-tools >"$scratch/apt.log" 2>&1 || return 1
	checker=$(command -v redis-check-rdb) || return 1
	redis=$scratch/redis-server
	ln -sf "$checker" "$redis"
	"$redis" --version >/dev/null
}

# Whether a system can run here, once what it needs is installed.
get_peer() # system
{
	case $1 in
		pgq_*) get_debian_package "postgresql-$major-pgq3" pgq ;;
		bullmq_redis) get_redis || {
			progress 'left out Redis: it could not be installed'
			return 1
		} ;;
	esac
}

peer() # system, action, jobs
{
	local program=${1%_*} mode=${1#*_}

	[ "$1" != plpgsql_single ] || program=jobqueue
	[ "$1" != jobqueue_zero ] || mode=single
	PGHOST=$scratch PGUSER=postgres PGDATABASE=peers REDIS_SOCKET=$scratch/redis.sock PGOPTIONS='' \
		"$node" "$scratch/peers/$program.mjs" "$2" "$mode" "$3" "$peer_clients" \
		>"$scratch/report" 2>&1 || give_up "$1 could not $2" "$scratch/report"
}

fill_peer() # system, jobs
{
	local kept=false

	[ "$1" != jobqueue_single ] || kept=true
	fresh_database peers
	query peers -c "ALTER DATABASE peers SET synchronous_commit = $sync"
	case $1 in
		jobqueue_*) query peers -v kept=$kept -f "$top/bench/sql/jobqueue.sql" ;;
		plpgsql_*) query peers -f "$top/bench/sql/plpgsql_queue.sql" ;;
	esac
	query peers -c CHECKPOINT
	case $1 in
		jobqueue_* | plpgsql_*)
			query peers -v queue=jobs_queue -v rows="$2" -f "$top/bench/sql/fill.sql"
			;;
		pgq_*) query peers -v queues="$peer_clients" -v rows="$2" -f "$top/bench/sql/pgq_fill.sql" ;;
		*) peer "$1" fill "$2" ;;
	esac
	query peers -c 'VACUUM ANALYZE'
}

# Redis flushes each write where PostgreSQL would flush each commit, and once a
# second where PostgreSQL would not wait.
start_redis()
{
	local when=everysec tries

	[ "$sync" = off ] || when=always
	rm -rf "$scratch/redis"
	mkdir "$scratch/redis"
	"$redis" --port 0 --unixsocket "$scratch/redis.sock" --dir "$scratch/redis" \
		--save '' --appendonly yes --appendfsync "$when" >"$scratch/redis.log" 2>&1 &
	redis_pid=$!
	children+=("$redis_pid")
	for ((tries = 0; tries < 50; tries++)); do
		[ ! -S "$scratch/redis.sock" ] || return 0
		sleep 0.1
	done
	give_up 'could not start Redis' "$scratch/redis.log"
}

stop_redis()
{
	kill "$redis_pid"
	wait "$redis_pid" || true
	children=()
}

redis_ticks()
{
	[ ! -r "/proc/$redis_pid/stat" ] ||
		awk '{ sub(/^.*\) /, ""); print $12 + $13 }' "/proc/$redis_pid/stat"
}

# Redis has no WAL; its CPU time stands in the place of the server's.
drain_redis() # jobs
{
	start_redis
	peer bullmq_redis fill "$1"
	ticks=$(redis_ticks)
	peer bullmq_redis drain "$1"
	[ -z "$ticks" ] || ticks=$(($(redis_ticks) - ticks))
	wal_bytes=
	stop_redis
}

measure_peer() # system, round
{
	local jobs=$peer_jobs

	[ "$1" = "${1%_batch*}" ] || jobs=$((peer_jobs * 10))
	[ "$1" != pgq_batch ] || jobs=$((jobs - jobs % (500 * peer_clients)))
	if [ "$1" = bullmq_redis ]; then
		drain_redis "$jobs"
	else
		fill_peer "$1" "$jobs"
		start_meters
		peer "$1" drain "$jobs"
		stop_meters
	fi
	compute_figures "$jobs" "$(tail -n 1 "$scratch/report")"
	record peers "$peer_clients" '' "$1" "$2" ''
}

suite_peers()
{
	local round system available=()

	get_node || {
		progress 'left out the peers: Node and its packages could not be installed'
		return 0
	}
	for system in ${peers:-${all_peers[*]}}; do
		! get_peer "$system" || available+=("$system")
	done
	for sync in ${sync_list:-off on}; do
		for ((round = 1; round <= rounds; round++)); do
			for system in "${available[@]}"; do
				measure_peer "$system" "$round"
			done
		done
	done
	query postgres -c 'DROP DATABASE IF EXISTS peers WITH (FORCE)'
	tabulate_suite peers 'Other queues, with clients in Node' \
		'jobqueue_single=x jobqueue|jobqueue_batch=x batches'
}
