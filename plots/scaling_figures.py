"""Weak and strong scaling."""
import draw
import scaling
from table import best_rows, need, quartiles, where
from workloads import WORKLOADS

LABELS = {"regression_scalar": "regression, scalar engine", "regression_vector": "regression, vector engine",
          "attention": "attention layer", "gpt": "small GPT"}


def _present(rows):
    return [w for w in WORKLOADS if where(rows, workload=w, kind="scaled")]


def _panel(axes, rows, weak, which):
    """One point a workload and rank count. `which`: 2 wall, 3 core efficiency, 4 seconds of the result of efficiencies()."""
    largest, ranks_all = 1, set()
    for i, workload in enumerate(_present(rows)):
        found = scaling.efficiencies(rows, workload, weak)
        points = [(e[0], e[which], e[1]) for e in found]
        draw.series(axes, points, i, LABELS[workload])
        ranks_all |= {p[0] for p in points}
    largest = max(ranks_all)
    draw.rank_axis(axes, ranks_all)
    draw.shade_crowded(axes, int(rows[0]["cores"]), largest)


def weak_scaling(read):
    rows = need(best_rows(read("weak_scaling")), "anything", "weak_scaling")
    figure, (wall, core, seconds) = draw.panels(3)
    for axes, which, title in ((wall, 2, "one rank's time / this time"), (core, 3, "the same, by cores instead of ranks")):
        _panel(axes, rows, True, which)
        axes.axhline(1, color="#888888", linewidth=0.8)
        axes.axhline(0.95, color="#888888", linewidth=0.8, linestyle=":")
        axes.set_ylabel("efficiency (dotted: 0.95)")
        axes.set_ylim(bottom=0)
        axes.set_title(title)
    _panel(seconds, rows, True, 4)
    draw.whole_decades(seconds)
    seconds.set_ylabel("seconds a step")
    seconds.set_title("the same work a rank: time of a step")
    draw.legend(seconds)
    draw.caption(figure, rows)
    figure.suptitle("Weak scaling (hatched and hollow: more ranks than cores)", fontsize=11)
    return figure


def strong_scaling(read):
    rows = need(best_rows(read("strong_scaling")), "anything", "strong_scaling")
    figure, (speed, thousand, efficiency) = draw.panels(3)
    ranks_all = set()
    for i, workload in enumerate(_present(rows)):
        found = scaling.efficiencies(rows, workload, False)
        draw.series(speed, [(e[0], [v * e[0] for v in e[2]], e[1]) for e in found], i, LABELS[workload])
        draw.series(efficiency, [(e[0], e[2], e[1]) for e in found], i, LABELS[workload])
        if workload.startswith("regression"):
            draw.series(thousand, [(e[0], [v * 1e6 / 10000 for v in e[4]], e[1]) for e in found], i, LABELS[workload])
        ranks_all |= {e[0] for e in found}
    cores = int(rows[0]["cores"])
    for axes in (speed, efficiency, thousand):
        draw.rank_axis(axes, ranks_all)
        draw.shade_crowded(axes, cores, max(ranks_all))
    ideal = sorted(r for r in ranks_all if r <= cores)
    speed.plot(ideal, ideal, color="#888888", linewidth=0.8, label="ideal")
    speed.set_ylabel("speed-up over one rank")
    speed.set_ylim(bottom=0)
    efficiency.axhline(1, color="#888888", linewidth=0.8)
    efficiency.set_ylabel("speed-up / ranks")
    efficiency.set_ylim(bottom=0)
    thousand.axhline(10, color="#888888", linewidth=0.8, linestyle=":")
    thousand.annotate("second seed: 10 ms", (1, 10), xytext=(2, -9), textcoords="offset points", fontsize=7, color="#666666")
    draw.whole_decades(thousand)
    thousand.set_ylabel("ms a step and 1,000 samples")
    for axes, title in ((speed, "speed-up"), (efficiency, "efficiency"), (thousand, "time of 1,000 samples")):
        axes.set_title(title)
    draw.legend(efficiency)
    draw.caption(figure, rows)
    figure.suptitle("Strong scaling: a fixed global batch (hatched and hollow: more ranks than cores)", fontsize=11)
    return figure
