# Of bench.sh's notes (CASE SYSTEM SECONDS COUNT P50 P99, and lines that begin with #) a table, or JSON with
# one measured case a line.
function median(list,    n, i, j, t, v) {
	n = split(list, v, " ")
	for (i = 1; i <= n; i++)
		for (j = i + 1; j <= n; j++)
			if (v[j] + 0 < v[i] + 0) { t = v[i]; v[i] = v[j]; v[j] = t }
	return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
}
function quoted(s) {
	gsub(/\\/, "\\\\", s)
	gsub(/"/, "\\\"", s)
	return "\"" s "\""
}
function is_stream(c) { return c ~ /^(stream|read-healthy|read-degraded)/ }
function unit(c) { return is_stream(c) ? "MiB/s" : "ms" }
# Milliseconds an operation, or MiB a second.
function figure(c, s) { return median(all[c, s]) * (is_stream(c) ? 1 : 1000) }
function shown(x) { return x >= 100 ? sprintf("%.0f", x) : x >= 10 ? sprintf("%.1f", x) : sprintf("%.3f", x) }
# How many times as fast as s sopfs is.
function ratio(c, s,    a, b) {
	if (!((c, "sopfs") in all) || !((c, s) in all)) return "-"
	a = figure(c, "sopfs"); b = figure(c, s)
	if (is_stream(c)) return sprintf("%.2f", a / b)
	return a > 0 ? sprintf("%.2f", b / a) : "-"
}
/^#/ {
	key = substr($1, 2)
	text = $0
	sub(/^#[a-z]+ /, "", text)
	if (key == "system") {
		systems[++n_systems] = $2
		sub(/^[a-z]+ /, "", text)
		what[$2] = text
	} else {
		about[key] = text
	}
	next
}
{
	if (!($1 in seen)) { seen[$1] = 1; cases[++n_cases] = $1 }
	all[$1, $2] = all[$1, $2] " " (is_stream($1) ? $4 / $3 : $3 / $4)
	if ($5 > 0) {
		p50[$1, $2] = p50[$1, $2] " " $5
		p99[$1, $2] = p99[$1, $2] " " $6
	}
}
function as_text(    i, j, c, s, line) {
	printf "\n%s; %s\n%s\n\n", about["machine"], about["date"], about["sizes"]
	for (j = 1; j <= n_systems; j++)
		printf "  %-8s %s\n", systems[j], what[systems[j]]
	printf "\n%-20s", "ms each, or MiB/s"
	for (j = 1; j <= n_systems; j++)
		printf " %9s", systems[j]
	printf "   sopfs is so many times as fast as:"
	printf "\n%-20s", ""
	for (j = 1; j <= n_systems; j++)
		printf " %9s", ""
	printf "  "
	for (j = 1; j <= n_systems; j++)
		if (systems[j] != "sopfs")
			printf " %8s", systems[j]
	printf "\n"
	for (i = 1; i <= n_cases; i++) {
		c = cases[i]
		printf "%-20s", c
		for (j = 1; j <= n_systems; j++)
			printf " %9s", ((c, systems[j]) in all ? shown(figure(c, systems[j])) : "-")
		printf "  "
		for (j = 1; j <= n_systems; j++)
			if (systems[j] != "sopfs")
				printf " %8s", ratio(c, systems[j])
		printf "  %s\n", unit(c)
	}
	printf "\nlatency in microseconds, p50 and p99:\n"
	for (i = 1; i <= n_cases; i++) {
		c = cases[i]
		line = ""
		for (j = 1; j <= n_systems; j++)
			if ((c, systems[j]) in p50)
				line = line sprintf("  %s %.0f %.0f", systems[j],
					median(p50[c, systems[j]]), median(p99[c, systems[j]]))
		if (line != "")
			printf "%-20s%s\n", c, line
	}
	if ("journal" in about)
		printf "\nmount-after-crash: a journal of %.1f MiB was replayed\n", about["journal"] / 1048576
}
function as_json(    i, j, c, s, sep) {
	printf "{\n\"date\": %s,\n\"machine\": %s,\n\"sizes\": %s,\n\"systems\": {", quoted(about["date"]),
		quoted(about["machine"]), quoted(about["sizes"])
	for (j = 1; j <= n_systems; j++)
		printf "%s\n  %s: %s", (j > 1 ? "," : ""), quoted(systems[j]), quoted(what[systems[j]])
	printf "\n},\n\"cases\": ["
	for (i = 1; i <= n_cases; i++) {
		c = cases[i]
		printf "%s\n  {\"case\": %s, \"unit\": %s, \"values\": {", (i > 1 ? "," : ""), quoted(c),
			quoted(unit(c))
		sep = ""
		for (j = 1; j <= n_systems; j++) {
			s = systems[j]
			if (!((c, s) in all))
				continue
			printf "%s%s: %.6f", sep, quoted(s), figure(c, s)
			sep = ", "
		}
		printf "}"
		if ((c, "sopfs") in p50)
			printf ", \"p50_us\": %.1f, \"p99_us\": %.1f", median(p50[c, "sopfs"]),
				median(p99[c, "sopfs"])
		printf "}"
	}
	printf "\n]\n}\n"
}
END {
	if (form == "json")
		as_json()
	else
		as_text()
}
