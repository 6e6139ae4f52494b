# Makes a table from slices.csv: the speed in each slice of a run, and how much of
# the first slice's was left in the last. Columns:
#   suite, autovacuum, snapshot, system, round, second, jobs/s
#   -v suite=NAME, -v names="a=A|b=B", -v markdown=1 as in table.awk

BEGIN {
	n = split(names, pairs, "|")
	for (i = 1; i <= n; i++) {
		at = index(pairs[i], "=")
		name[substr(pairs[i], 1, at - 1)] = substr(pairs[i], at + 1)
	}
}

$1 == suite {
	run = $2 FS $3 FS $4 FS $5
	if (!(run in count))
		runs[++nruns] = run
	slice = ++count[run]
	speed[run, slice] = $7
	if (slice > nslices) {
		nslices = slice
		until[slice] = $6
	}
}

function add(value, width)
{
	if (markdown)
		line = line (line == "" ? "| " : " | ") value
	else
		line = line (line == "" ? "" : "  ") sprintf("%" width "s", value)
}

function finish()
{
	print line (markdown ? " |" : "")
	line = ""
}

function print_head(    i, rule)
{
	add("autovacuum", -10)
	add("snapshot", -8)
	add("system", -26)
	rule = "|---|---|---|"
	for (i = 1; i <= nslices; i++) {
		add((i > 1 ? until[i - 1] : 0) "-" until[i] " s", 8)
		rule = rule "--:|"
	}
	add("last/first", 10)
	finish()
	if (markdown)
		print rule "--:|"
}

END {
	print_head()
	for (r = 1; r <= nruns; r++) {
		split(runs[r], parts, FS)
		add(parts[1], -10)
		add(parts[2], -8)
		add(parts[3] in name ? name[parts[3]] : parts[3], -26)
		for (i = 1; i <= nslices; i++)
			add(sprintf("%.0f", speed[runs[r], i]), 8)
		add(speed[runs[r], 1] > 0 ? sprintf("%.2f", speed[runs[r], nslices] / speed[runs[r], 1]) : "-", 10)
		finish()
	}
}
