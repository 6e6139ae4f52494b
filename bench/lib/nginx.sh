#!/bin/bash
# An nginx of our own. Sourced by bench/run.
# shellcheck disable=SC2034,SC2154  # variables are shared with the other files

# Sets nginx to the program. The package would also start a server; unpacked
# only, it does not, and the libraries that it needs are those of PostgreSQL.
get_nginx()
{
	nginx=$(PATH=$PATH:/usr/sbin command -v nginx) && return 0
	nginx=$scratch/packages/usr/sbin/nginx
	[ -x "$nginx" ] || "$top/tools/apt_unpack" "$scratch/packages" nginx >"$scratch/apt.log" 2>&1 ||
		return 1
	"$nginx" -v >"$scratch/nginx.log" 2>&1
}

# Starts it as the user of the server, on two free ports: sets nginx_url,
# nginx_tls_url and nginx_ca.
start_nginx() # worker processes
{
	local directory=$scratch/nginx port tries

	nginx_ca=$directory/ca.pem
	if [ ! -e "$nginx_ca" ]; then
		"${as_user[@]}" mkdir "$directory"
		"${as_user[@]}" "$top/test/peers/make_certificate" "$directory" >"$scratch/openssl.log" 2>&1 ||
			give_up 'could not make a certificate' "$scratch/openssl.log"
	fi
	for ((tries = 0; tries < 20; tries++)); do
		port=$((20000 + RANDOM % 10000))
		sed -e "s|@directory@|$directory|; s|@workers@|$1|; s|@log@|off|; s|@paced@||" \
			-e "s|@port@|$port|; s|@tls_port@|$((port + 1))|" \
			"$top/test/peers/nginx.conf" >"$scratch/nginx.conf"
		"${as_user[@]}" "$nginx" -p "$directory" -e "$directory/error.log" \
			-c "$scratch/nginx.conf" >"$scratch/nginx.log" 2>&1 &
		nginx_job=$!
		if listens $nginx_job "$port"; then
			nginx_url=http://127.0.0.1:$port nginx_tls_url=https://127.0.0.1:$((port + 1))
			nginx_pid=$(cat "$directory/nginx.pid")
			children+=("$nginx_pid")
			return 0
		fi
	done
	give_up 'could not start nginx' "$directory/error.log"
}

# Whether the process has begun to listen there; false: it has ended.
listens() # process, port
{
	while kill -0 "$1" 2>/dev/null; do
		! (: >"/dev/tcp/127.0.0.1/$2") 2>/dev/null || return 0
		sleep 0.05
	done
	return 1
}

stop_nginx()
{
	kill "$nginx_pid"
	wait "$nginx_job" || true
	children=()
}

# CPU time of its worker processes so far, in ticks.
nginx_ticks()
{
	{ cat /proc/[0-9]*/stat 2>/dev/null || true; } | awk -v master="$nginx_pid" '
		{ sub(/^.*\) /, "") }
		$2 == master { ticks += $12 + $13 }
		END { print ticks + 0 }'
}
