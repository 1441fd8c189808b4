"""Where the time goes, and who is late."""
import columns
import draw
from scaling_figures import LABELS
from table import best_rows, median, need, quartiles, values_of, where

PHASE_COLOURS = dict(zip(columns.PHASES, (draw.SKY, draw.BLUE, draw.ORANGE, draw.RED, draw.GREEN)))


def _seconds(row, phase):
    return row.number(f"phase_seconds.{phase}.median") / row.number("steps")


def time_split(read):
    rows = need(best_rows(read("time_split")), "anything", "time_split")
    present = [w for w in LABELS if where(rows, workload=w, neighbour="none")]
    figure, axes_all = draw.panels(len(present), width=4.4)
    for axes, workload in zip(axes_all, present):
        labels = []
        for ranks in values_of(rows, "ranks"):
            for barrier in ("yes", "no"):
                mine = where(rows, workload=workload, neighbour="none", ranks=ranks, barrier=barrier)
                if not mine:
                    continue
                at, bottom = len(labels), 0.0
                crowded = mine[0]["oversubscribed"] == "yes"
                for phase in columns.PHASES:
                    height = 1e3 * median([_seconds(r, phase) for r in mine])
                    axes.bar(at, height, 0.75, bottom=bottom, color=PHASE_COLOURS[phase], hatch="////" if crowded else None,
                             edgecolor="white", linewidth=0.4, label=phase if at == 0 else None)
                    bottom += height
                total = [1e3 * sum(_seconds(r, p) for p in columns.PHASES) for r in mine]
                m, low, high = quartiles(total)
                axes.errorbar(at, bottom, yerr=[[max(0, m - low)], [max(0, high - m)]], color="black", capsize=2.5, linewidth=1)
                labels.append(f"{ranks}" + ("" if barrier == "yes" else "*"))
        axes.set_xticks(range(len(labels)), labels)
        axes.grid(axis="x", visible=False)
        axes.set_xlabel("ranks (*: without the barrier)")
        axes.set_ylabel("ms a step, median rank")
        axes.set_title(LABELS[workload])
    draw.legend(axes_all[-1])
    draw.caption(figure, rows)
    figure.suptitle("Where a step's time goes (*: waiting counts as communicating; hatched: more ranks than cores)",
                    fontsize=11)
    return figure


def stragglers(read):
    rows = need(best_rows(read("time_split")), "anything", "time_split")
    slowed = need(where(rows, neighbour="busy"), "neighbour busy (it needs two cores)", "time_split")
    present = [w for w in LABELS if where(slowed, workload=w)]
    figure, axes_all = draw.panels(len(present), width=4.6)
    for axes, workload in zip(axes_all, present):
        ranks = slowed[0]["ranks"]
        for at, neighbour in enumerate(("none", "busy")):
            mine = where(rows, workload=workload, neighbour=neighbour, barrier="yes", ranks=ranks)
            need(mine, f"{workload} with neighbour {neighbour}", "time_split")
            for part, marker in (("min", "v"), ("median", "o"), ("max", "^")):
                values = [1e3 * sum(r.number(f"phase_seconds.{p}.{part}") for p in ("forward", "backward")) / r.number("steps")
                          for r in mine]
                m, bars = draw.bars_of(values)
                axes.errorbar(at, m, yerr=bars, marker=marker, color=draw.RED if part == "max" else draw.BLUE, capsize=2.5,
                              linestyle="none", label=f"{part} over ranks" if at == 0 else None)
            wait = [1e3 * r.number("phase_seconds.wait.max") / r.number("steps") for r in mine]
            m, bars = draw.bars_of(wait)
            axes.errorbar(at + 0.12, m, yerr=bars, marker="s", color=draw.ORANGE, capsize=2.5, linestyle="none",
                          label="longest wait" if at == 0 else None)
        found = [r for r in where(slowed, workload=workload) if r["slowed_rank"]]
        right = sum(r["phase_seconds.backward.slowest_rank"] == r["slowed_rank"] for r in found)
        axes.set_xticks((0, 1), ("undisturbed", f"busy neighbour\n(its rank named\nin {right} of {len(found)} runs)"))
        axes.set_xlim(-0.5, 1.5)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("forward + backward, ms a step")
        axes.set_title(f"{LABELS[workload]}, {ranks} ranks")
    draw.legend(axes_all[-1])
    draw.caption(figure, rows)
    figure.suptitle("One slowed rank: the others wait for it", fontsize=11)
    return figure
