"""What the figures share: colours that colour-blind readers can tell apart, medians with quartile bars, oversubscribed points
that no line joins, and files that are the same bytes for the same csv."""
import math
import os
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "experiments"))
from table import quartiles

# Okabe and Ito's palette, https://jfly.uni-koeln.de/color/; yellow, too pale for lines, is left out.
BLUE, ORANGE, GREEN, PINK, SKY, RED, BLACK = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000"
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, RED, BLACK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

plt.rcParams.update({
    "svg.hashsalt": "graingrad", "svg.fonttype": "path", "font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 10,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#DDDDDD", "grid.linewidth": 0.6,
    "axes.axisbelow": True, "legend.frameon": False, "legend.fontsize": 8, "figure.dpi": 110, "hatch.linewidth": 0.6,
    "figure.constrained_layout.use": True,
})


def panels(count, width=4.2, height=3.2, columns=None):
    """A figure and its axes, as a flat list."""
    columns = columns or count
    rows = -(-count // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False)
    flat = [a for row in axes for a in row]
    for a in flat[count:]:
        a.remove()
    return figure, flat[:count]


def bars_of(values):
    """(median, [[down], [up]]) of raw values, for errorbar."""
    m, low, high = quartiles(values)
    return m, [[m - low], [high - m]]


def series(axes, points, index, label):
    """Points (x, values of the repeats, oversubscribed) of one colour: medians joined by a line, quartiles as bars;
    oversubscribed ones hollow and joined to nothing."""
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    joined = [(x, quartiles(v)[0]) for x, v, crowded in points if not crowded]
    if joined:
        axes.plot(*zip(*joined), color=colour, linewidth=1.3, zorder=2)
    for i, (x, values, crowded) in enumerate(points):
        m, bars = bars_of(values)
        axes.errorbar(x, m, yerr=bars, color=colour, marker=marker, markersize=5, capsize=2.5, linestyle="none", linewidth=1,
                      markerfacecolor="white" if crowded else colour, zorder=3, label=label if i == 0 else None)


def rank_axis(axes, ranks, label="ranks"):
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(ranks), [str(r) for r in sorted(ranks)])
    axes.minorticks_off()
    axes.set_xlabel(label)


def shade_crowded(axes, cores, largest):
    """Hatches where ranks share cores."""
    if largest > cores:
        left, right = cores * 1.25, largest * 1.3
        axes.axvspan(left, right, facecolor="none", edgecolor="#BBBBBB", hatch="///", linewidth=0, zorder=0)
        axes.set_xlim(right=right)


def legend(axes):
    """Right of its axes, where no point can lie under it."""
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def whole_decades(axes):
    """A log y axis from one power of ten to another, so that it always has numbers to read."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high)))


def caption(figure, rows, how="medians with quartile bars"):
    """What was measured where, under the figure: an unlabelled figure travels badly."""
    first, repeats = rows[0], len({r["repeat"] for r in rows if "repeat" in r})
    words = (f"{first['cpu']}, {first['cores']} cores, commit {first['commit']}"
             f"{f', {repeats} repeat(s)' if repeats else ''}{', QUICK RUN' if first['quick'] == 'yes' else ''}; "
             f"{how}")
    figure.supxlabel(words, fontsize=7, color="#555555")


def save(figure, folder, name):
    """NAME.svg and NAME.png, without dates or versions."""
    os.makedirs(folder, exist_ok=True)
    figure.savefig(os.path.join(folder, name + ".svg"), metadata={"Date": None, "Creator": None})
    figure.set_layout_engine("none")  # it stays where it was laid out
    figure.savefig(os.path.join(folder, name + ".png"), metadata={"Software": None})
    plt.close(figure)
