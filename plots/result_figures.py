"""Correctness, and the two older sweeps of training on two cores."""
import columns
import draw
from matplotlib.colors import ListedColormap
from table import best_rows, median, need, quartiles, values_of, where

SEED_FIT = (0.504076, -0.0755702, 1.1745, -1.45666, -0.63025)


def correctness(read):
    rows = best_rows(read("correctness"))
    fit = need(where(rows, case="noisy", engine="scalar"), "case noisy, engine scalar", "correctness")[0]
    losses = best_rows(read("correctness", "losses.csv", columns.LOSSES))
    figure, (weights, curve, hashes) = draw.panels(3, width=4.4)
    w, ours = fit.numbers("w"), fit.numbers("w_hat")
    for i, (values, label) in enumerate(((ours, "ours"), (SEED_FIT, "second seed"))):
        weights.bar([k + (i - 0.5) * 0.38 for k in range(len(w))], [max(abs(a - b), 1e-7) for a, b in zip(values, w)], 0.36,
                    color=draw.COLOURS[i], label=label)
    weights.set_xticks(range(len(w)), [f"w{k + 1}\n{v:.4g}" for k, v in enumerate(w)])
    draw.whole_decades(weights)
    weights.set_ylabel("|W - fit|")
    weights.set_title("300 epochs on noisy data")
    weights.legend(loc="upper right", framealpha=1, frameon=True, edgecolor="white")
    for i, engine in enumerate(("scalar", "vector")):
        mine = need(where(losses, engine=engine), f"engine {engine}", "correctness/losses.csv")
        curve.plot([int(r["epoch"]) for r in mine], [r.number("loss") for r in mine], color=draw.COLOURS[i],
                   linestyle="-" if i == 0 else "--", label=f"{engine} engine")
    curve.set_yscale("log")
    curve.set_xlabel("epoch")
    curve.set_ylabel("mean squared error")
    curve.set_title("loss")
    curve.legend(loc="best")
    _matrix(hashes, where(rows, case="matrix"))
    draw.caption(figure, rows)
    return figure


def _matrix(axes, cells):
    need(cells, "case matrix", "correctness")
    columns_ = sorted({(int(r["ranks"]), int(r["threads"])) for r in cells})
    names = [(e, k) for e in ("vector", "scalar", "attention") for k in ("tree", "allreduce", "gather-broadcast")
             if where(cells, engine=e, reduce=k)]
    grid = []
    for engine, kind in names:
        one = need(where(cells, engine=engine, reduce="tree", ranks=1, threads=1), f"{engine} on 1 x 1", "correctness")[0]["hash"]
        grid.append([])
        for ranks, threads in columns_:
            found = where(cells, engine=engine, reduce=kind, ranks=ranks, threads=threads)
            grid[-1].append(0 if not found else 1 if found[0]["hash"] == one else 2)
    axes.imshow(grid, cmap=ListedColormap(["#FFFFFF", draw.SKY, draw.ORANGE]), vmin=0, vmax=2, aspect="auto")
    for y, line in enumerate(grid):
        for x, value in enumerate(line):
            if value:
                axes.text(x, y, "=" if value == 1 else "\u2260", ha="center", va="center", fontsize=8)
    axes.set_xticks(range(len(columns_)), [f"{p}x{t}" for p, t in columns_], rotation=90, fontsize=7)
    axes.set_yticks(range(len(names)), [f"{e}, {k}" for e, k in names], fontsize=7)
    axes.grid(False)
    axes.set_xlabel("ranks x threads")
    axes.set_title("bits of the weights: those of 1 x 1 (=) or not (\u2260)")


def attention(read):
    """experiments/attention: two ranks against one, tree against MPI_Allreduce."""
    header = ("case,repeat,ranks,threads,global_batch,reduce,tokens_per_second,gflops,gemm_gflops,hash,commit,cpu,load_before,"
              "flags").split(",")
    rows = read("attention", "results.csv", header)
    rate = {c: {r["repeat"]: r.number("tokens_per_second") for r in where(rows, case=c)} for c in
            ("one_rank", "two_ranks_tree", "two_ranks_allreduce")}
    need(rate["one_rank"], "case one_rank", "attention")
    figure, (axes,) = draw.panels(1, width=5)
    pairs = (("weak scaling,\ntree", "two_ranks_tree", "one_rank", 2), ("weak scaling,\nMPI_Allreduce", "two_ranks_allreduce", "one_rank", 2),
             ("tree /\nMPI_Allreduce", "two_ranks_tree", "two_ranks_allreduce", 1))
    for at, (_, above, below, scale) in enumerate(pairs):
        values = [rate[above][r] / rate[below][r] / scale for r in rate[above] if r in rate[below]]
        axes.plot([at] * len(values), values, linestyle="none", marker=".", color="#999999")
        m, bars = draw.bars_of(values)
        axes.errorbar(at, m, yerr=bars, marker="o", color=draw.BLUE, capsize=4)
    axes.axhline(1, color="#888888", linewidth=0.8)
    axes.set_xticks(range(len(pairs)), [p[0] for p in pairs])
    axes.set_xlim(-0.5, len(pairs) - 0.5)
    axes.set_ylabel("ratio within a repeat")
    axes.set_title("An attention layer on two ranks")
    draw.caption(figure, [{**rows[0], "cores": 2, "quick": "no", "repeat": r["repeat"]} for r in rows])
    return figure


def data_parallel(read):
    """experiments/data_parallel: two ranks against two threads, GPT-2 124M."""
    header = ("date,commit,cpu,cores,case,pair,ranks,threads,tokens_per_step,tokens_per_second.median,tokens_per_second.q1,"
              "tokens_per_second.q3,phase_seconds.communicate,phase_seconds.wait,rss_bytes,hash,load_before,flags").split(",")
    rows = read("data_parallel", "results.csv", header)
    cases = (("1x2", "1 rank x 2 threads"), ("2x1", "2 ranks x 1 thread"))
    figure, (axes,) = draw.panels(1, width=4.4)
    for at, (case, _) in enumerate(cases):
        values = [r.number("tokens_per_second.median") for r in need(where(rows, case=case), f"case {case}", "data_parallel")]
        axes.plot([at] * len(values), values, linestyle="none", marker=".", color="#999999")
        m, bars = draw.bars_of(values)
        axes.errorbar(at, m, yerr=bars, marker="o", color=draw.COLOURS[at], capsize=4)
    axes.set_xticks(range(len(cases)), [label for _, label in cases])
    axes.set_xlim(-0.5, len(cases) - 0.5)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.08)
    axes.set_ylabel("tokens/s")
    axes.set_title("GPT-2 124M on two cores")
    draw.caption(figure, [{**r, "quick": "no", "repeat": r["pair"]} for r in rows])
    return figure
