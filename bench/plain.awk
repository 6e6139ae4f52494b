# Makes a table of a CSV file as it is.
#   -v titles="a|b|c"  titles of the columns, in place of the first line
#   -v names="a=A|b=B" what to call the entries of the first column
#   -v markdown=1      prints markdown

BEGIN {
	n = split(names, pairs, "|")
	for (i = 1; i <= n; i++) {
		at = index(pairs[i], "=")
		name[substr(pairs[i], 1, at - 1)] = substr(pairs[i], at + 1)
	}
	ncolumns = split(titles, column, "|")
	add(column)
}

FNR > 1 {
	split($0, fields, FS)
	if (fields[1] in name)
		fields[1] = name[fields[1]]
	add(fields)
}

function add(fields,    i)
{
	nrows++
	for (i = 1; i <= ncolumns; i++) {
		cell[nrows, i] = fields[i] == "" ? "-" : fields[i]
		if (length(cell[nrows, i]) > width[i])
			width[i] = length(cell[nrows, i])
	}
}

function padded(row, i)
{
	return i == 1 ? sprintf("%-" width[1] "s", cell[row, 1]) : sprintf("  %" width[i] "s", cell[row, i])
}

END {
	for (r = 1; r <= nrows; r++) {
		line = markdown ? "|" : ""
		for (i = 1; i <= ncolumns; i++)
			line = line (markdown ? " " cell[r, i] " |" : padded(r, i))
		print line
		if (markdown && r == 1) {
			line = "|---|"
			for (i = 2; i <= ncolumns; i++)
				line = line "--:|"
			print line
		}
	}
}
