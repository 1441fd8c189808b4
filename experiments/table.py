"""Raw rows of a csv, and the few statistics that summaries, plots and seedcheck share. Standard library only."""
import csv
import os


class TableError(Exception):
    """A csv that is missing, empty, has other columns, or lacks the rows that a question needs."""


def quantile(values, p):
    """Linear interpolation between order statistics (NumPy's default)."""
    ordered = sorted(values)
    if not ordered:
        raise TableError("no values to take a median of")
    h = (len(ordered) - 1) * p
    low = int(h)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (h - low) * (ordered[high] - ordered[low])


def median(values):
    return quantile(values, 0.5)


def quartiles(values):
    """(median, first quartile, third quartile)."""
    return median(values), quantile(values, 0.25), quantile(values, 0.75)


class Row(dict):
    """A row that knows its file: a column that is not there, or a cell that is no number, is an error that names it."""

    def __init__(self, path, cells):
        super().__init__(cells)
        self.path = path

    def __missing__(self, name):
        raise TableError(f"{self.path}: no column '{name}'; it has {', '.join(self)}")

    def number(self, name):
        try:
            return float(self[name])
        except ValueError:
            raise TableError(f"{self.path}: '{self[name]}' in column '{name}' is not a number") from None

    def numbers(self, name):
        """A list in a cell, separated by blanks."""
        return [float(part) for part in self[name].split()]


def read(path, header=None, question="run its sweep first"):
    """All rows. With a header, the file must have exactly those columns."""
    if not os.path.exists(path):
        raise TableError(f"{path} is not there: {question}")
    with open(path, encoding="utf-8", newline="") as f:
        reader = csv.DictReader(f)
        columns = reader.fieldnames or []
        if not columns:
            raise TableError(f"{path} is empty: {question}")
        if header is not None:
            for name in columns:
                if name not in header:
                    raise TableError(f"{path}: unknown column '{name}'; known are {', '.join(header)}")
            for name in header:
                if name not in columns:
                    raise TableError(f"{path}: no column '{name}'; it was written by another version of its sweep")
        rows = []
        for number, cells in enumerate(reader, 2):
            if None in cells or None in cells.values():
                raise TableError(f"{path}: line {number} has another number of cells than the header")
            rows.append(Row(path, cells))
    if not rows:
        raise TableError(f"{path} has a header and no rows: {question}")
    return rows


def best_rows(rows):
    """The full sweep's rows where there are any, else the quick one's."""
    full = [row for row in rows if row["quick"] == "no"]
    return full or rows


def where(rows, **cells):
    """Rows whose columns have these values; numbers are compared as text of a whole number."""
    return [row for row in rows if all(row[name] == str(value) for name, value in cells.items())]


def need(rows, what, path):
    """The rows, or an error that says what is missing."""
    if not rows:
        raise TableError(f"{path}: no rows of {what}: the sweep is not complete")
    return rows


def by_repeat(rows, value):
    """{repeat: value(row)}: what ratios are formed from, repeat by repeat."""
    return {row["repeat"]: value(row) for row in rows}


def ratios(above, below):
    """Ratios of two by_repeat tables, of the repeats that both have."""
    return [above[r] / below[r] for r in above if r in below and below[r] != 0]


def values_of(rows, name):
    """The distinct whole numbers of a column, ascending."""
    return sorted({int(row[name]) for row in rows})
