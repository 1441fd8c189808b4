"""Memory: the first seed's bars, planned at its sizes, and its first size measured."""
import draw
import memory_table as seed
from table import best_rows, median, quartiles, values_of, where

# What of the plan rows is a bar: label, batch, attention, zero.
BARS = (("DDP", "ddp", "composed", 0), ("DDP, ZeRO-1", "ddp", "composed", 1), ("8 tensor ranks", "same_micro", "composed", 0),
        ("the same, 16 images a step", "same_global", "composed", 0), ("8 tensor ranks, blocked attention", "same_micro", "blocked", 0))
# Of the seed's own figure, above our bar of the same kind.
SEEDS = {"ddp": lambda size: size.ddp, "same_micro": lambda size: size.torchshard}


def memory(read):
    rows = best_rows(read("memory"))
    measured = where(rows, kind="measured")
    figure, panels = draw.panels(2 if measured else 1, width=10, height=3.6, columns=1)
    _planned(panels[0], rows)
    if measured:
        _measured(panels[1], rows, measured)
    draw.caption(figure, measured or rows, ("above: plans, nothing was run; below: medians with quartiles" if measured else "plans, nothing was run"))
    return figure


def _planned(axes, rows):
    wide = 0.8 / len(BARS)
    for i, (label, batch, attention, zero) in enumerate(BARS):
        at = [k + (i - (len(BARS) - 1) / 2) * wide for k in range(len(seed.SIZES))]
        found = [seed.need_plan(rows, size, batch, attention, zero) for size in seed.SIZES]
        axes.bar(at, [seed.mib(r) for r in found], 0.9 * wide, color=draw.COLOURS[i], label=label)
        for x, row in zip(at, found):
            seconds, rate = seed.time_words(row, rows)
            axes.annotate(f"{seconds} s, {rate} tokens/s" if seconds != "-" else "", (x, seed.mib(row)), xytext=(0, 3),
                          textcoords="offset points", ha="center", fontsize=5, rotation=90)
        points = [(x, SEEDS[batch](size)) for x, size in zip(at, seed.SIZES) if attention == "composed" and zero == 0 and batch in SEEDS]
        points = [p for p in points if p[1]]
        if points:
            axes.plot(*zip(*points), linestyle="none", marker="_", markersize=9, markeredgewidth=2, color=draw.BLACK,
                      label="the seed's DDP and TorchShard" if batch == "ddp" else None)
    axes.axhline(seed.CARD_MIB, color="#888888", linewidth=0.8, linestyle=":")
    axes.annotate("the seed's card", (len(seed.SIZES) - 0.5, seed.CARD_MIB), xytext=(0, 2), textcoords="offset points", ha="right", fontsize=7)
    axes.set_xticks(range(len(seed.SIZES)), [f"{s.layers} x {s.width}\n{s.parameters / 1e6:.1f} M" for s in seed.SIZES])
    axes.grid(axis="x", visible=False)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(low, 5 * high)
    axes.set_xlabel("layers x width, parameters")
    axes.set_ylabel("MiB of the fullest of 8 ranks, planned")
    axes.set_title("The first seed's sizes (~: predicted seconds a step, tokens/s)")
    draw.legend(axes)


def _measured(axes, rows, measured):
    names = [("same_micro", 0, ranks) for ranks in values_of(where(measured, batch="same_micro"), "ranks")]
    names += [("ddp", zero, ranks) for zero in values_of(where(measured, batch="ddp"), "zero")
              for ranks in values_of(where(measured, batch="ddp"), "ranks")]
    for i, attention in enumerate(("composed", "blocked")):
        for at, (batch, zero, ranks) in enumerate(names):
            mine = where(measured, attention=attention, batch=batch, zero=zero, ranks=ranks)
            if not mine:
                continue
            x = at + (i - 0.5) * 0.4
            crowded = mine[0]["oversubscribed"] == "yes"
            axes.bar(x, seed.mib(mine[0]), 0.36, color="white" if crowded else draw.COLOURS[i], edgecolor=draw.COLOURS[i],
                     hatch="///" if crowded else None, label=f"{attention}: planned = used" if at == 0 else None)
            m, low, high = quartiles([(r.number("rss_bytes") - r.number("base_rss_bytes")) / 2**20 for r in mine])
            axes.errorbar(x, m, yerr=[[m - low], [high - m]], marker="_", markersize=9, color=draw.BLACK, capsize=2, linestyle="none",
                          label="resident above an empty rank" if at == 0 and i == 0 else None)
            seconds = median([seed.step_seconds(r, rows)[0] for r in mine])
            rate = median([r.number("tokens_per_second.median") for r in mine])
            axes.annotate(f"{seconds:.3g} s\n{rate:.0f}/s", (x, max(m, seed.mib(mine[0]))), xytext=(0, 4), textcoords="offset points",
                          ha="center", fontsize=6)
    axes.set_xticks(range(len(names)), [f"{ranks} tensor" if batch == "same_micro" else f"{ranks} data\nzero {zero}" for batch, zero, ranks in names])
    axes.grid(axis="x", visible=False)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.15)
    axes.set_xlabel("ranks (hatched: more than cores)")
    axes.set_ylabel("MiB of a rank")
    axes.set_title(f"{seed.SIZES[0].name()}, T = {measured[0]['sequence']}: s a step, tokens/s")
    draw.legend(axes)
