#!/bin/bash
# The extension and the temporary server of a run. Sourced by bench/run.
# shellcheck disable=SC2034,SC2154  # variables are shared with the other files

# ---- the extension ----

has_tools()
{
	command -v make >/dev/null && command -v gcc >/dev/null &&
		command -v "$pg_config" >/dev/null && [ -e "$("$pg_config" --pgxs)" ] &&
		[ -x "$("$pg_config" --bindir)/pgbench" ]
}

build()
{
	"${as_user[@]}" mkdir "$scratch/tree"
	tar -C "$top" --exclude=./.git --exclude='*.o' --exclude='*.so' \
		--exclude='./tmp_check*' --exclude=./results -cf - . |
		"${as_user[@]}" tar -C "$scratch/tree" -xf -
	# Without the directory's name in it, equal sources make equal libraries.
	"${as_user[@]}" HOME="$scratch" make -s -C "$scratch/tree" -j "$(nproc)" \
		with_llvm=no PG_CONFIG="$pg_config" \
		PG_CFLAGS="-ffile-prefix-map=$scratch/tree=."
}

is_installed()
{
	local script extension

	extension=$("$pg_config" --sharedir)/extension
	cmp -s "$scratch/tree/jobqueue.so" "$("$pg_config" --pkglibdir)/jobqueue.so" &&
		cmp -s "$top/jobqueue.control" "$extension/jobqueue.control" || return 1
	for script in "$top"/sql/jobqueue--*.sql; do
		cmp -s "$script" "$extension/${script##*/}" || return 1
	done
}

install_extension()
{
	has_tools || "$top/test/run" setup >&2
	has_tools || give_up "$pg_config: no server with pgbench and its development files"
	build >"$scratch/build.log" 2>&1 || give_up 'could not build' "$scratch/build.log"
	is_installed ||
		"${as_root[@]}" make -s -C "$scratch/tree" install with_llvm=no \
			PG_CONFIG="$pg_config" >"$scratch/build.log" 2>&1 ||
		give_up 'could not install' "$scratch/build.log"
}

# Installs a package with an extension for this server, if it can.
get_debian_package() # package, extension
{
	local control

	control=$("$pg_config" --sharedir)/extension/$2.control
	[ -e "$control" ] || "$top/tools/apt_install" "$1" >"$scratch/apt.log" 2>&1 || true
	[ -e "$control" ] || progress "left out $2: the server has no such extension"
	[ -e "$control" ]
}

# ---- the server ----

megabytes_of_memory()
{
	local pages

	pages=$(getconf _PHYS_PAGES)
	echo $((pages * ($(getconf PAGE_SIZE) / 1024) / 1024))
}

# All data of the ordinary runs fits into memory, no checkpoint falls into one.
# A suite's own settings come last.
write_settings()
{
	local shared_buffers=$(($(megabytes_of_memory) / 4))

	[ "$shared_buffers" -le 3072 ] || shared_buffers=3072
	cat <<-CONF
		listen_addresses = ''
		unix_socket_directories = '$scratch'
		max_connections = 300
		jobqueue.allow_superuser_jobs = on
		shared_buffers = ${shared_buffers}MB
		wal_buffers = 64MB
		min_wal_size = 1GB
		max_wal_size = 24GB
		checkpoint_timeout = 60min
		autovacuum = $autovacuum
		autovacuum_naptime = 5s
		shared_preload_libraries = 'jobqueue'
		jobqueue.launcher = off
		jobqueue.max_lanes = 4096
		include_if_exists = 'suite.conf'
	CONF
}

create_server()
{
	"${as_user[@]}" "$bin/initdb" -D "$scratch/data" -U postgres --auth=trust \
		--no-locale --encoding=UTF8 --no-sync >"$scratch/initdb.log" 2>&1 ||
		give_up 'could not initialize a server' "$scratch/initdb.log"
	write_settings | "${as_user[@]}" tee -a "$scratch/data/postgresql.conf" >/dev/null
	start_server
}

start_server()
{
	"${as_user[@]}" "$bin/pg_ctl" -D "$scratch/data" -l "$scratch/server.log" -t 600 \
		-w start >/dev/null || give_up 'could not start a server' "$scratch/server.log"
	postmaster=$(head -n 1 "$scratch/data/postmaster.pid")
}

stop_server() # mode: fast, or immediate when its data are not needed again
{
	"${as_user[@]}" "$bin/pg_ctl" -D "$scratch/data" -m "$1" -t 600 -w stop >/dev/null || true
}

restart_server() # settings of a suite, one a line; none: the ordinary ones
{
	stop_server fast
	printf '%s\n' "$@" | "${as_user[@]}" tee "$scratch/data/suite.conf" >/dev/null
	start_server
}

set_autovacuum() # on or off
{
	query postgres -c "ALTER SYSTEM SET autovacuum = $1" -c 'SELECT pg_reload_conf()' >/dev/null
}

query() # database, psql options
{
	"$bin/psql" -XqAt -v ON_ERROR_STOP=1 -h "$scratch" -U postgres -d "$@"
}

fresh_database() # name
{
	query postgres -c "DROP DATABASE IF EXISTS $1 WITH (FORCE)" -c "CREATE DATABASE $1"
}

# ---- meters ----

# CPU time of the server's processes so far, ended ones included, in ticks;
# nothing where the system does not tell.
server_ticks()
{
	[ -r "/proc/$postmaster/stat" ] || return 0
	{ cat /proc/[0-9]*/stat 2>/dev/null || true; } | awk -v postmaster="$postmaster" '
		{ pid = $1; sub(/^.*\) /, "") }
		pid == postmaster || $2 == postmaster { ticks += $12 + $13 + $14 + $15 }
		END { print ticks + 0 }'
}

wal_position()
{
	query postgres -c "SELECT pg_current_wal_insert_lsn() - '0/0'"
}

# The clock of CPU time starts last and stops first: looking costs some, too.
start_meters()
{
	wal_bytes=$(wal_position)
	ticks=$(server_ticks)
}

stop_meters() # sets ticks (empty where unknown) and wal_bytes to what was used
{
	[ -z "$ticks" ] || ticks=$(($(server_ticks) - ticks))
	wal_bytes=$(($(wal_position) - wal_bytes))
}

# One line about what the figures were measured on.
machine()
{
	local processor

	processor=$(sed -n '/^model name/{s/^[^:]*: //p;q}' /proc/cpuinfo 2>/dev/null || true)
	echo "$("$pg_config" --version)," \
		"$(nproc) x ${processor:-processor}, $(($(megabytes_of_memory) / 1024)) GB," \
		"$(df --output=fstype "$scratch" 2>/dev/null | tail -n 1), $(uname -sr)"
}

# The settings that are not the server's defaults, as one line.
settings()
{
	query postgres -c "SELECT string_agg(name || ' ' || current_setting(name), ', ' ORDER BY name)
		FROM pg_settings
		WHERE name IN ('autovacuum', 'checkpoint_timeout', 'fsync', 'full_page_writes',
			'max_wal_size', 'shared_buffers', 'shared_preload_libraries', 'wal_buffers')
			OR name IN ('jobqueue.launcher', 'jobqueue.max_lanes')"
}
