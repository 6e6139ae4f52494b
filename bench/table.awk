# Makes the table of bench/run. Input, tab-separated, one line per run:
#   synchronous_commit, clients, system, round, jobs/s, CPU us/job, WAL bytes/job, drained
# The figures of a line are medians over rounds; a ratio is the median of the
# ratios inside each round. -v markdown=1 prints markdown, -v labels="a=A|b=B"
# gives the systems their names.

BEGIN {
	FS = "\t"
	nlabels = split(labels, pairs, "|")
	for (i = 1; i <= nlabels; i++) {
		at = index(pairs[i], "=")
		label[substr(pairs[i], 1, at - 1)] = substr(pairs[i], at + 1)
	}
}

{
	cell = $1 "\t" $2
	if (!(cell in seen_cell)) {
		seen_cell[cell]
		cells[++ncells] = cell
	}
	if (!($3 in seen_system)) {
		seen_system[$3]
		systems[++nsystems] = $3
	}
	if (!($4 in seen_round)) {
		seen_round[$4]
		rounds[++nrounds] = $4
	}
	speed[cell, $3, $4] = $5
	cpu[cell, $3, $4] = $6
	wal[cell, $3, $4] = $7
	if ($8)
		drained[cell, $3] = 1
}

# Median of values[1..n]; "" when there is none.
function median(values, n,    i, j, value)
{
	for (i = 2; i <= n; i++) {
		value = values[i]
		for (j = i - 1; j > 0 && values[j] > value; j--)
			values[j + 1] = values[j]
		values[j + 1] = value
	}
	if (n == 0)
		return ""
	if (n % 2)
		return values[(n + 1) / 2]
	return (values[n / 2] + values[n / 2 + 1]) / 2
}

# Median over the rounds of one figure of a system.
function typical(figure, cell, who,    i, n, values)
{
	for (i = 1; i <= nrounds; i++)
		if (figure[cell, who, rounds[i]] != "")
			values[++n] = figure[cell, who, rounds[i]] + 0
	return median(values, n + 0)
}

# Difference between the fastest and the slowest round, in percent of the median.
function spread(cell, who,    i, value, low, high)
{
	for (i = 1; i <= nrounds; i++) {
		value = speed[cell, who, rounds[i]] + 0
		if (i == 1 || value < low)
			low = value
		if (i == 1 || value > high)
			high = value
	}
	return nrounds < 2 || high == 0 ? "" : 100 * (high - low) / typical(speed, cell, who)
}

# Median over the rounds of the speed of a system as a multiple of another's.
function multiple(cell, who, base,    i, n, values)
{
	for (i = 1; i <= nrounds; i++)
		if (speed[cell, base, rounds[i]] > 0 && speed[cell, who, rounds[i]] > 0)
			values[++n] = speed[cell, who, rounds[i]] / speed[cell, base, rounds[i]]
	return median(values, n + 0)
}

function shown(format, value)
{
	return value == "" ? "-" : sprintf(format, value)
}

function print_row(sync, clients, name, jobs, noise, of_limit, of_plpgsql, micros, bytes)
{
	if (markdown)
		printf "| %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", sync, clients, name,
			jobs, noise, of_limit, of_plpgsql, micros, bytes
	else
		printf "%-4s %7s  %-34s %9s %7s %8s %10s %11s %10s\n", sync, clients, name,
			jobs, noise, of_limit, of_plpgsql, micros, bytes
}

END {
	print_row("sync", "clients", "system", "jobs/s", "spread",
		"x LIMIT", "x plpgsql", "CPU us/job", "WAL B/job")
	if (markdown)
		print "|---|--:|---|--:|--:|--:|--:|--:|--:|"
	for (c = 1; c <= ncells; c++) {
		cell = cells[c]
		split(cell, parts, "\t")
		if (c > 1 && !markdown)
			print ""
		for (s = 1; s <= nsystems; s++) {
			who = systems[s]
			mark = ""
			if ((cell, who) in drained) {
				mark = "*"
				ndrained++
			}
			print_row(parts[1], parts[2], label[who],
				shown("%.0f", typical(speed, cell, who)) mark,
				shown("%.0f %%", spread(cell, who)),
				shown("%.2f", multiple(cell, who, "limit")),
				shown("%.2f", multiple(cell, who, "plpgsql")),
				shown("%.0f", typical(cpu, cell, who)),
				shown("%.0f", typical(wal, cell, who)))
		}
	}
	if (ndrained)
		printf "\n* drained: the queue was empty before the time was up (%d of %d figures); use more --rows\n",
			ndrained, ncells * nsystems
}
