"""What weak and strong scaling share: points with their one-rank references, and efficiencies from raw rows."""
import table
from sweep import Point
from summary import heading, lines, mark, spread
from table import by_repeat, ratios, where
from workloads import WORKLOADS, seconds_per_step


def points(sweep, ranks_of, batch_of):
    """Points of every workload: `ranks_of(workload)` ranks on `batch_of(workload, ranks)` samples or sequences. Each has
    a reference, the same batch on one rank, whose hash it must end with; --quick checks the two smallest jobs only."""
    quick, found = sweep.options.quick, []
    for w in WORKLOADS.values():
        ranks_all = ranks_of(w)
        batches = {ranks: batch_of(w, ranks_all, ranks) for ranks in ranks_all}
        one = batches[min(ranks_all)]
        checked = ranks_all[:2] if quick else ranks_all
        # The reference's key tells the batch by the rank count whose batch it is.
        for ranks in checked:
            if ranks > 1 and batches[ranks] != one:
                found.append(Point({"workload": w.name, "kind": f"reference_{ranks}"}, w.program,
                                   w.flags(batches[ranks], 1, quick, ranks=ranks), repeats=1, seconds=w.guess(quick) * min(ranks, 4)))
        for ranks in ranks_all:
            reference = f"reference_{ranks}" if batches[ranks] != one else "scaled"
            found.append(Point({"workload": w.name, "kind": "scaled"}, w.program, w.flags(batches[ranks], 1, quick, ranks=ranks if batches[ranks] != one else max(ranks_all)),
                               ranks,
                               seconds=w.guess(quick) * max(1, batches[ranks] / one / min(ranks, sweep.cores)),
                               result=_same_bits(sweep, w.name, reference if ranks in checked else "")))
    return found


def _same_bits(sweep, workload, reference):
    def result(record, _):
        hashes = [row["hash"] for row in where(sweep.mine(), workload=workload, kind=reference, ranks=1)]
        own = record["mesh"]["data"] == 1
        return {"same_bits": "reference" if own else not hashes and "unchecked" or record["hash"] == hashes[0]}
    return result


def efficiencies(rows, workload, weak):
    """[(ranks, oversubscribed, wall, core, seconds)] of a workload: lists of one number a repeat. Wall efficiency is
    against `ranks` times one rank; core efficiency against the cores that the ranks had: min(ranks, cores)."""
    rows = where(rows, workload=workload, kind="scaled")
    path = rows[0].path if rows else "results.csv"
    ones = table.need(where(rows, ranks=1), f"workload {workload} with ranks 1", path)
    one = by_repeat(ones, seconds_per_step)
    result = []
    for ranks in table.values_of(rows, "ranks"):
        mine = where(rows, ranks=ranks)
        seconds = by_repeat(mine, seconds_per_step)
        speed_up = [r * (ranks if weak else 1) for r in ratios(one, seconds)]
        cores = min(ranks, int(mine[0]["cores"]))
        result.append((ranks, mine[0]["oversubscribed"] == "yes", [s / ranks for s in speed_up],
                       [s / cores for s in speed_up], list(seconds.values())))
    return result


def summary(name, weak):
    def say(rows):
        table.need(rows, "anything", name)
        heading(name, rows)
        out = []
        for workload in WORKLOADS:
            if not where(rows, workload=workload):
                continue
            for ranks, _, wall, core, seconds in efficiencies(rows, workload, weak):
                mine = where(rows, workload=workload, kind="scaled", ranks=ranks)
                out.append((workload, ranks, spread(seconds, 1e3), spread(wall), spread(core),
                            " ".join(sorted({r["same_bits"] for r in mine})), mark(mine[0])))
        lines(["workload", "ranks", "ms a step", "efficiency by wall", "by core time", "same bits", ""], out)
        different = [r for r in rows if r["same_bits"] == "no"]
        if different:
            raise table.TableError(f"{name}: {len(different)} run(s) ended with other weights than one rank does")
    return say
