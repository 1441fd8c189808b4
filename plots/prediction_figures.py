"""What the model predicts, beside what was measured; and what nobody has measured."""
import columns
import draw
from scaling_figures import LABELS
from table import best_rows, need, quartiles, where

WHAT = {"held_out": "held out", "weak_scaling": "weak scaling", "strong_scaling": "strong scaling"}


def extrapolation(read):
    rows = best_rows(read("extrapolation", "predictions.csv", columns.PREDICTIONS))
    known = need([r for r in rows if r["kind"] in WHAT], "kind held_out", "extrapolation/predictions.csv")
    figure, (scatter, errors) = draw.panels(2, width=6.2, height=3.6)
    ends = [f(r.number(n) for r in known for n in ("measured_seconds", "predicted_seconds")) for f in (min, max)]
    scatter.plot(ends, ends, color="#888888", linewidth=0.8)
    for i, (kind, label) in enumerate(WHAT.items()):
        for crowded in ("no", "yes"):
            mine = where(known, kind=kind, oversubscribed=crowded)
            if mine:
                scatter.plot([r.number("measured_seconds") for r in mine], [r.number("predicted_seconds") for r in mine],
                             linestyle="none", marker=draw.MARKERS[i], markersize=5, color=draw.COLOURS[i],
                             markerfacecolor="white" if crowded == "yes" else draw.COLOURS[i],
                             label=label + (", more ranks than cores" if crowded == "yes" else ""))
    scatter.set_xscale("log")
    scatter.set_yscale("log")
    scatter.set_xlabel("measured seconds")
    scatter.set_ylabel("predicted seconds")
    scatter.set_title("steps and sums")
    draw.legend(scatter)
    groups = [(label, [abs(100 * r.number("error")) for r in where(known, kind=kind, oversubscribed="no")])
              for kind, label in WHAT.items()]
    groups = [(label, values) for label, values in groups if values]
    for i, (label, values) in enumerate(groups):
        ordered = sorted(max(v, 0.1) for v in values)
        errors.step(ordered, [(k + 1) / len(ordered) for k in range(len(ordered))], where="post", color=draw.COLOURS[i],
                    label=f"{label}: median {quartiles(values)[0]:.3g} %")
    errors.axvline(10, color="#888888", linewidth=0.8, linestyle=":")
    errors.axhline(0.5, color="#888888", linewidth=0.8, linestyle=":")
    errors.set_xscale("log")
    errors.set_xlabel("|error|, %")
    errors.set_ylabel("share of points with less")
    errors.set_title("distribution, not oversubscribed")
    draw.legend(errors)
    draw.caption(figure, rows, "a point is the median of its repeats")
    figure.suptitle("The model against measurements that it was not fitted to", fontsize=11)
    return figure


def networks(read):
    rows = best_rows(read("extrapolation", "predictions.csv", columns.PREDICTIONS))
    beyond = need(where(rows, kind="network"), "kind network", "extrapolation/predictions.csv")
    measured = where(rows, kind="weak_scaling", oversubscribed="no")
    names = list(dict.fromkeys(r["network"] for r in beyond))
    present = [w for w in LABELS if where(beyond, workload=w)]
    figure, axes_all = draw.panels(len(names), width=4.8, height=3.6)
    for axes, network in zip(axes_all, names):
        for i, workload in enumerate(present):
            mine = sorted(where(beyond, workload=workload, network=network), key=lambda r: int(r["ranks"]))
            axes.plot([int(r["ranks"]) for r in mine], [r.number("efficiency") for r in mine], linestyle="--", linewidth=1.2,
                      color=draw.COLOURS[i], marker=draw.MARKERS[i], markersize=4, markerfacecolor="white",
                      label=f"{LABELS[workload]}, predicted")
            one = where(measured, workload=workload, ranks=1)
            points = [(int(r["ranks"]), one[0].number("measured_seconds") / r.number("measured_seconds"))
                      for r in where(measured, workload=workload)] if one else []
            if points:
                axes.plot(*zip(*sorted(points)), color=draw.COLOURS[i], marker=draw.MARKERS[i], markersize=5, linewidth=1.3,
                          label="measured on one machine" if i == 0 else None)
        axes.set_xscale("log", base=2)
        ticks = [1, 2, 8, 32, 128, 1024]
        axes.set_xticks(ticks, [str(t) for t in ticks])
        axes.minorticks_off()
        axes.set_ylim(0, 1.1)
        axes.set_xlabel("ranks")
        axes.set_ylabel("efficiency of weak scaling")
        first = where(beyond, network=network)[0]
        axes.set_title(f"{network}: {1e6 * first.number('alpha'):.3g} us, {1e-9 / first.number('beta'):.3g} GB/s")
        axes.text(0.6, 0.5, "PREDICTION", transform=axes.transAxes, ha="center", fontsize=16, color="#E5E5E5", zorder=0)
    draw.legend(axes_all[-1])
    draw.caption(figure, rows, "calibrated there; measured points are medians")
    figure.suptitle("Predicted, not measured: each rank brings its own data, every message crosses the network (dashed, hollow)",
                    fontsize=11)
    return figure
