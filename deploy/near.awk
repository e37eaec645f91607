# Says what is wrong with variables that nobody reads: awk -f near.awk KNOWN... -- PREFIX... -- UNKNOWN...
# What begins with one of PREFIX is read by some program, so it is wrong only if it is nearly known.

# Whether so many edits make one of the other: a letter too many, too few, another one, or two that have changed places.
function near(a, b, edits) {
    while (a != "" && substr(a, 1, 1) == substr(b, 1, 1)) { a = substr(a, 2); b = substr(b, 2) }
    if (a == "" || b == "") return length(a) + length(b) <= edits
    if (edits == 0) return 0
    return near(substr(a, 2), b, edits - 1) || near(a, substr(b, 2), edits - 1) || \
        near(substr(a, 2), substr(b, 2), edits - 1) || \
        (substr(a, 1, 1) == substr(b, 2, 1) && substr(a, 2, 1) == substr(b, 1, 1) && \
            near(substr(a, 3), substr(b, 3), edits - 1))
}

# The known name that was meant.
function meant(name, edits, i, shorter) {
    for (edits = 0; edits <= 2; edits++) {
        for (i = 1; i <= known_count; i++) {
            shorter = length(known[i]) < length(name) ? length(known[i]) : length(name)
            if (edits <= (shorter < 5 ? 1 : 2) && near(toupper(name), known[i], edits)) return known[i]
        }
    }
    return ""
}

function is_read(name, i) {
    for (i = 1; i <= prefix_count; i++) if (index(name, prefix[i]) == 1) return 1
    return 0
}

BEGIN {
    for (i = 1; ARGV[i] != "--"; i++) known[++known_count] = ARGV[i]
    for (i++; ARGV[i] != "--"; i++) prefix[++prefix_count] = ARGV[i]
    for (i++; i < ARGC; i++) {
        right = meant(ARGV[i])
        if (right != "") told = told " " ARGV[i] ": there is no such variable; did you mean " right "?"
        else if (!is_read(ARGV[i])) strange = strange " " ARGV[i] ": there is no such variable;"
    }
    if (strange != "") {
        strange = strange " there are"
        for (i = 1; i <= known_count; i++) strange = strange " " known[i]
    }
    print substr(told strange, 2)
}
