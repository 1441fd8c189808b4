"""What a sum over ranks costs."""
import draw
from table import best_rows, by_repeat, need, quartiles, ratios, values_of, where

KINDS = ("tree", "allreduce", "gather-broadcast")


def reduction(read):
    rows = [r for r in best_rows(read("reduction")) if not r["skipped"]]
    all_ranks = [r for r in values_of(need(rows, "anything that was not skipped", "reduction"), "ranks") if r > 1]
    need(all_ranks, "more than one rank", "reduction")
    shown = all_ranks[:3]
    figure, axes_all = draw.panels(len(shown) + 1, width=3.9)
    for axes, ranks in zip(axes_all, shown):
        for i, kind in enumerate(KINDS):
            mine = where(rows, reduce=kind, ranks=ranks)
            points = [(count, [r.number("seconds.median") * 1e3 for r in where(mine, count=count)],
                       where(mine, count=count)[0]["oversubscribed"] == "yes") for count in values_of(mine, "count")]
            draw.series(axes, points, i, kind)
        crowded = where(rows, ranks=ranks)[0]["oversubscribed"] == "yes"
        axes.set_yscale("log")
        axes.set_ylabel("ms a sum")
        axes.set_title(f"{ranks} ranks" + (", more than cores" if crowded else ""))
        if crowded:
            axes.set_facecolor("#F7F7F7")
    last = axes_all[-1]
    for i, ranks in enumerate(shown):
        points = []
        for count in values_of(rows, "count"):
            seconds = [by_repeat(where(rows, reduce=k, ranks=ranks, count=count), lambda r: r.number("seconds.median"))
                       for k in ("allreduce", "tree")]
            values = ratios(*seconds)
            if values:
                points.append((count, values, where(rows, ranks=ranks)[0]["oversubscribed"] == "yes"))
        draw.series(last, points, i + 3, f"{ranks} ranks")
    last.axhline(1, color="#888888", linewidth=0.8)
    draw.whole_decades(last)
    last.set_ylabel("MPI_Allreduce / tree, time")
    last.set_title("above 1: the tree is faster")
    for axes in axes_all:
        axes.set_xscale("log")
        axes.set_xlabel("f32 elements")
    axes_all[0].legend(loc="upper left")
    draw.legend(last)
    draw.caption(figure, rows)
    figure.suptitle("A sum over ranks (hollow: more ranks than cores)", fontsize=11)
    return figure
