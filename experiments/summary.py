"""What a sweep prints of its rows. Ratios are formed repeat by repeat, then median and quartiles."""
from table import quartiles


def spread(values, scale=1.0, digits=3):
    """'0.952 (0.941, 0.960)': median and quartiles."""
    m, low, high = quartiles([v * scale for v in values])
    return f"{m:.{digits}g} ({low:.{digits}g}, {high:.{digits}g})"


def heading(name, rows):
    first = rows[0]
    kind = "quick" if first["quick"] == "yes" else "full"
    loads = [float(r["load_before"]) for r in rows if r["load_before"]]
    print(f"{name}: {len(rows)} {kind} rows, commit {first['commit']}, {first['cpu']}, {first['cores']} cores, "
          f"load before {min(loads):.1f} to {max(loads):.1f}" if loads else f"{name}: {len(rows)} rows")


def lines(header, rows):
    """A table, its columns as wide as they need to be."""
    cells = [header] + [[str(c) for c in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    for row in cells:
        print("  " + "  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip())


def mark(row):
    return "oversubscribed" if row["oversubscribed"] == "yes" else ""
