"""Threads: schedules, who gets the work, memory, and ranks against threads."""
import draw
from scaling_figures import LABELS
from table import best_rows, by_repeat, median, need, quartiles, ratios, values_of, where
from workloads import seconds_per_step

SCHEDULES = ("static", "dynamic", "guided")


def _rate(row):
    return row.number("tokens_per_second.median")


def openmp(read):
    rows = need(where(best_rows(read("openmp")), case="training"), "case training", "openmp")
    base = by_repeat(need(where(rows, threads=1), "threads 1", "openmp"), _rate)
    figure, (speed, effect) = draw.panels(2, width=5.4)
    labels = []
    for threads in values_of(rows, "threads"):
        for binding in ("bound", "unbound"):
            plain = by_repeat(where(rows, threads=threads, binding=binding, schedule="static", chunk=0), _rate)
            mine = where(rows, threads=threads, binding=binding)
            if not mine or threads == 1:
                continue
            crowded = mine[0]["oversubscribed"] == "yes"
            at = len(labels)
            labels.append(f"{threads}\n{binding}" + ("\n(> cores)" if crowded else ""))
            chunks = values_of(mine, "chunk")
            for i, schedule in enumerate(SCHEDULES):
                for j, chunk in enumerate(chunks):
                    point = by_repeat(where(mine, schedule=schedule, chunk=chunk), _rate)
                    x = at + (i - 1) * 0.25 + (j - (len(chunks) - 1) / 2) * 0.07
                    for axes, over in ((speed, base), (effect, plain)):
                        values = ratios(point, over)
                        if not values:
                            continue
                        m, bars = draw.bars_of(values)
                        first = at == 0 and j == 0
                        axes.errorbar(x, m, yerr=bars, marker=draw.MARKERS[i], color=draw.COLOURS[i], capsize=2, markersize=5,
                                      markerfacecolor="white" if crowded else draw.COLOURS[i], linestyle="none",
                                      label=schedule if first else None)
    for axes in (speed, effect):
        axes.set_xticks(range(len(labels)), labels)
        axes.grid(axis="x", visible=False)
        axes.set_xlabel("threads (a colour, left to right: default chunk, larger ones)")
    speed.axhline(1, color="#888888", linewidth=0.8)
    speed.set_ylim(bottom=0)
    speed.set_ylabel("speed-up over one thread")
    speed.set_title("threads, schedule, chunk, binding")
    draw.legend(effect)
    effect.axhline(1, color="#888888", linewidth=0.8)
    effect.set_ylabel("rate / rate of static")
    effect.set_title("effect of the schedule, same threads and binding")
    draw.caption(figure, rows)
    figure.suptitle("A training step (attention layer) on OpenMP threads (hollow: more threads than cores)", fontsize=11)
    return figure


SEED = {1: (300,), 3: (294, 3, 3), 5: (14, 13, 20, 39, 37)}


def openmp_split(read):
    rows = best_rows(read("openmp"))
    dealt = where(rows, case="dealt", chunk=0, work=100, pause_us=0)
    training = where(rows, case="training", chunk=0)
    need(dealt, "case dealt", "openmp")
    shown = [t for t in (3, 5) if where(dealt, threads=t)]
    need(shown, "case dealt with 3 or 5 threads", "openmp")
    figure, axes_all = draw.panels(len(shown) + 1, width=4.6)
    for axes, threads in zip(axes_all, shown):
        groups = [("second\nseed", SEED[threads])]
        for schedule in SCHEDULES:
            for row in where(dealt, threads=threads, schedule=schedule, repeat=1):
                groups.append((schedule, row.numbers("work_per_thread")))
        for row in where(training, threads=threads, schedule="static", repeat=1)[-1:]:
            groups.append(("training\nstep", row.numbers("work_per_thread")))
        for at, (_, work) in enumerate(groups):
            for i, share in enumerate(work):
                axes.bar(at + (i - (len(work) - 1) / 2) * 0.8 / len(work), 100 * share / sum(work), 0.75 / len(work),
                         color=draw.COLOURS[i % len(draw.COLOURS)])
        axes.axhline(100 / threads, color="#888888", linewidth=0.8, linestyle=":")
        axes.set_xticks(range(len(groups)), [name for name, _ in groups])
        axes.grid(axis="x", visible=False)
        axes.set_ylabel("% of the items, thread by thread")
        axes.set_title(f"{threads} threads")
    cause = axes_all[-1]
    late = where(rows, case="dealt", chunk=3)
    for i, pause in enumerate(values_of(need(late, "case dealt with chunk 3", "openmp"), "pause_us")):
        mine = where(late, pause_us=pause)
        points = sorted((median([r.number("item_ns") for r in where(mine, work=w)]),
                         [r.number("max_over_mean") for r in where(mine, work=w)], False) for w in values_of(mine, "work"))
        draw.series(cause, points, i, "loops back to back" if pause == 0 else f"after {pause / 1000:g} ms asleep")
    cause.set_xscale("log")
    cause.set_xlabel("ns an item")
    cause.set_ylabel("most / mean items of a thread")
    cause.set_title(f"dynamic,3 on {late[0]['threads']} threads: why")
    cause.legend(loc="best")
    draw.caption(figure, rows)
    figure.suptitle("Who gets the work: 300 short items, as in the second seed's table (dotted: even)", fontsize=11)
    return figure


def openmp_memory(read):
    rows = best_rows(read("openmp"))
    figure, axes_all = draw.panels(2, width=4.0)
    for axes, cases, title in zip(axes_all, (("scattered", "contiguous"), ("packed", "padded")),
                                  ("a value and its gradient, 10^6 of them", "10^5 additions by each thread into its sum")):
        mine = [r for r in rows if r["case"] in cases]
        need(mine, f"cases {cases}", "openmp")
        for i, case in enumerate(cases):
            points = [(t, [r.number("item_ns") for r in where(mine, case=case, threads=t)], False) for t in values_of(mine, "threads")
                      if where(mine, case=case, threads=t)]
            draw.series(axes, points, i, case)
        draw.rank_axis(axes, set(values_of(mine, "threads")), "threads")
        draw.whole_decades(axes)
        axes.set_ylabel("ns an item")
        axes.set_title(title)
        axes.legend(loc="best")
    draw.caption(figure, rows)
    return figure


def hybrid(read):
    rows = need(best_rows(read("hybrid")), "anything", "hybrid")
    present = [w for w in LABELS if where(rows, workload=w)]
    shapes = sorted({(int(r["ranks"]), int(r["threads"])) for r in rows})
    figure, (axes,) = draw.panels(1, width=6.4)
    for i, workload in enumerate(present):
        mine = where(rows, workload=workload)
        median_of = {s: median([seconds_per_step(r) for r in where(mine, ranks=s[0], threads=s[1])]) for s in shapes
                     if where(mine, ranks=s[0], threads=s[1])}
        best = min(median_of, key=median_of.get)
        top = by_repeat(where(mine, ranks=best[0], threads=best[1]), seconds_per_step)
        for at, shape in enumerate(shapes):
            values = ratios(top, by_repeat(where(mine, ranks=shape[0], threads=shape[1]), seconds_per_step))
            if not values:
                continue
            m, low, high = quartiles(values)
            x = at + (i - (len(present) - 1) / 2) * 0.8 / len(present)
            axes.bar(x, m, 0.7 / len(present), color=draw.COLOURS[i], label=LABELS[workload] if at == 0 else None,
                     yerr=[[m - low], [high - m]], capsize=2.5, error_kw={"linewidth": 1})
            if shape == best:
                axes.annotate("best", (x, max(m, high)), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=7)
    axes.set_xticks(range(len(shapes)), [f"{p} x {t}" for p, t in shapes])
    axes.grid(axis="x", visible=False)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.1)
    axes.set_xlabel("ranks x threads")
    axes.set_ylabel("speed, best = 1")
    draw.legend(axes)
    axes.set_title("The same cores as ranks or as threads")
    draw.caption(figure, rows)
    return figure
