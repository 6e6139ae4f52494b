# Makes the table of a suite from results.csv, whose columns are
#   suite, synchronous_commit, clients, case, system, round,
#   jobs/s, CPU us/job, WAL bytes/job, drained, CPU us/job of one process
# The figures of a line are medians over rounds; a ratio is the median of the
# ratios inside each round.
#   -v suite=NAME          whose lines
#   -v bases="a=x A|b=x B" systems that the others are compared with, with titles
#   -v first_case=TITLE    a column that compares with the first case of the system
#   -v in_detail=1         and two more: the lowest and highest of these ratios, and
#                          that of the CPU time
#   -v own=TITLE           a column for the CPU of the one process
#   -v what=jobs           what is counted
#   -v names="a=A|b=B"     how systems and cases are called
#   -v markdown=1          prints markdown

BEGIN {
	if (what == "")
		what = "jobs"
	parse(names, name, ignored)
	nbases = parse(bases, base_title, base)
}

$1 == suite {
	cell = $2 "\t" $3 "\t" $4
	where = cell "\t" $5
	if (!(cell in seen)) {
		seen[cell]
		cells[++ncells] = cell
	}
	if (!($5 in seen_system)) {
		seen_system[$5]
		systems[++nsystems] = $5
	}
	if (!(where in seen_where)) {
		seen_where[where]
		if (!(($2, $3, $5) in first))
			first[$2, $3, $5] = cell
	}
	if (!($6 in seen_round)) {
		seen_round[$6]
		rounds[++nrounds] = $6
	}
	speed[cell, $5, $6] = $7
	cpu[cell, $5, $6] = $8
	wal[cell, $5, $6] = $9
	own_cpu[cell, $5, $6] = $11
	if ($10 != "")
		drained[cell, $5]
	if ($4 != "")
		has_cases = 1
}

# Reads "a=A|b=B" into value["a"] = "A" and key[1] = "a"; returns how many.
function parse(text, value, key,    i, n, at, pairs)
{
	n = split(text, pairs, "|")
	for (i = 1; i <= n; i++) {
		at = index(pairs[i], "=")
		key[i] = substr(pairs[i], 1, at - 1)
		value[key[i]] = substr(pairs[i], at + 1)
	}
	return n
}

function called(key)
{
	return key in name ? name[key] : key
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
function spread(cell, who,    i, n, value, low, high)
{
	for (i = 1; i <= nrounds; i++) {
		if (speed[cell, who, rounds[i]] == "")
			continue
		value = speed[cell, who, rounds[i]] + 0
		if (++n == 1 || value < low)
			low = value
		if (n == 1 || value > high)
			high = value
	}
	return n < 2 || high == 0 ? "" : 100 * (high - low) / typical(speed, cell, who)
}

# A figure of a system as a multiple of another's, in each round that has both;
# returns in how many.
function compare(figure, cell, who, base_cell, base, values,    i, n)
{
	for (i = 1; i <= nrounds; i++)
		if (figure[base_cell, base, rounds[i]] > 0 && figure[cell, who, rounds[i]] > 0)
			values[++n] = figure[cell, who, rounds[i]] / figure[base_cell, base, rounds[i]]
	return n + 0
}

# Median of these.
function multiple(figure, cell, who, base_cell, base,    n, values)
{
	n = compare(figure, cell, who, base_cell, base, values)
	return median(values, n)
}

# The lowest and the highest of those of the speed.
function multiples(cell, who, base_cell, base,    n, values)
{
	n = compare(speed, cell, who, base_cell, base, values)
	median(values, n)			# sorts them
	return n < 2 ? "-" : sprintf("%.2f-%.2f", values[1], values[n])
}

function shown(format, value)
{
	return value == "" ? "-" : sprintf(format, value)
}

# One more column of the line under construction.
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

function print_head(    i)
{
	add("sync", -4)
	add("clients", 7)
	if (has_cases)
		add("case", -widest_case)
	add("system", -widest_system)
	add(what "/s", 9)
	add("spread", 7)
	if (first_case != "")
		add(first_case, length(first_case))
	if (in_detail) {
		add("of rounds", 9)
		add("CPU " first_case, length(first_case) + 4)
	}
	for (i = 1; i <= nbases; i++)
		add(base_title[base[i]], 10)
	if (own != "")
		add(own, 10)
	add("CPU us/" substr(what, 1, length(what) - 1), 10)
	add("WAL B/" substr(what, 1, length(what) - 1), 9)
	finish()
	if (markdown)
		print "|---|--:|" (has_cases ? "---|" : "") "---|--:|--:|" (first_case != "" ? "--:|" : "") \
			(in_detail ? "--:|--:|" : "") \
			substr("--:|--:|--:|--:|--:|--:|", 1, 4 * nbases) (own != "" ? "--:|" : "") "--:|--:|"
}

function print_row(cell, who,    i, parts, mark, base_cell)
{
	if ((cell, who) in drained) {
		mark = "*"
		ndrained++
	}
	split(cell, parts, "\t")
	base_cell = first[parts[1], parts[2], who]
	add(parts[1], -4)
	add(parts[2], 7)
	if (has_cases)
		add(called(parts[3]), -widest_case)
	add(called(who), -widest_system)
	add(shown("%.0f", typical(speed, cell, who)) mark, 9)
	add(shown("%.0f %%", spread(cell, who)), 7)
	if (first_case != "")
		add(shown("%.2f", multiple(speed, cell, who, base_cell, who)), length(first_case))
	if (in_detail) {
		add(multiples(cell, who, base_cell, who), 9)
		add(shown("%.2f", multiple(cpu, cell, who, base_cell, who)), length(first_case) + 4)
	}
	for (i = 1; i <= nbases; i++)
		add(shown("%.2f", multiple(speed, cell, who, cell, base[i])), 10)
	if (own != "")
		add(shown("%.1f", typical(own_cpu, cell, who)), 10)
	add(shown("%.1f", typical(cpu, cell, who)), 10)
	add(shown("%.0f", typical(wal, cell, who)), 9)
	finish()
}

function measure_widths(    i, parts)
{
	widest_system = widest_case = 6
	for (i = 1; i <= nsystems; i++)
		if (length(called(systems[i])) > widest_system)
			widest_system = length(called(systems[i]))
	for (i = 1; i <= ncells; i++) {
		split(cells[i], parts, "\t")
		if (length(called(parts[3])) > widest_case)
			widest_case = length(called(parts[3]))
	}
}

# Leaves out the bases that were not measured.
function drop_bases(    i, n)
{
	for (i = 1; i <= nbases; i++)
		if (base[i] in seen_system)
			base[++n] = base[i]
	nbases = n + 0
}

END {
	drop_bases()
	measure_widths()
	print_head()
	for (c = 1; c <= ncells; c++) {
		if (c > 1 && !markdown && nsystems > 1 && !has_cases)
			print ""
		for (s = 1; s <= nsystems; s++)
			if ((cells[c] "\t" systems[s]) in seen_where)
				print_row(cells[c], systems[s])
	}
	if (ndrained)
		printf "\n* drained: the queue was empty before the time was up (%d figures); use more --rows\n",
			ndrained
}
