"""What cutting tensors costs: tensor grains, and two ranks that cut every tensor."""
import draw
from table import best_rows, by_repeat, need, ratios, where


def rate(row):
    return row.number("tokens_per_second.median")


def tensor(read):
    rows = need(best_rows(read("tensor")), "anything", "tensor")
    pairs = []  # what it says, the case, what it is compared with
    for shape, words in (("4x64", "4 x 64"), ("1x1024", "1 x 1024")):
        alone = where(rows, shape=shape, tensor=1)
        eight = where(alone, tensor_grains=8)
        pairs.append((f"8 grains / 1,\n{words}", eight, need(where(alone, tensor_grains=1), f"{shape} with 1 grain", "tensor")))
        for layout in sorted({r["layout"] for r in where(rows, shape=shape, tensor=2)}):
            short = layout.replace(" --sequence-parallel", ",\nsequence parallel")
            pairs.append((f"2 ranks / 1,\n{words}, {short}", where(rows, shape=shape, tensor=2, layout=layout), eight))
    figure, (axes,) = draw.panels(1, width=6.4)
    for at, (_, above, below) in enumerate(pairs):
        values = list(ratios(by_repeat(need(above, pairs[at][0], "tensor"), rate), by_repeat(below, rate)))
        axes.plot([at] * len(values), values, linestyle="none", marker=".", color="#999999")
        m, bars = draw.bars_of(values)
        axes.errorbar(at, m, yerr=bars, marker="o", color=draw.BLUE, capsize=4)
    axes.axhline(1, color="#888888", linewidth=0.8)
    axes.set_xticks(range(len(pairs)), [words for words, _, _ in pairs], fontsize=7)
    axes.set_xlim(-0.5, len(pairs) - 0.5)
    axes.set_ylim(min(0.8, axes.get_ylim()[0]), max(1.1, axes.get_ylim()[1]))
    axes.set_ylabel("tokens/s, ratio within a repeat")
    axes.set_title("GPT-2 124M: what cutting tensors costs")
    draw.caption(figure, rows)
    return figure
