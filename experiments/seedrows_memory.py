"""The rows of the first and fourth seed about memory: the first seed's table planned and measured, and what a lecture on tensor
parallelism shows of matrix products and of a block. Plans and products run here; measured rows are judged on the csv."""
import re

import memory_table as seed
import seedrows_tensor
from summary import spread
from table import by_repeat, median, need, ratios, where
from verdict import Verdict, judged, skipped


def plan_mib(c, size, batch, attention="composed", zero=0):
    """MiB of the fullest of 8 ranks, by a dry run."""
    record = c.run("gpt_attention", seed.plan_flags(size, batch, attention, zero), seed.RANKS, mpi=False)
    return record["plan_bytes"]["peak"] / 2**20


def planned_ratios(c):
    words, good = [], True
    for size in seed.SIZES:
        ddp, tensor = plan_mib(c, size, "ddp"), plan_mib(c, size, "same_micro")
        good = good and seed.verdict(tensor) == "fits" and (size.ddp is None or (ddp / tensor >= size.ratio() and seed.verdict(ddp) == "fits"))
        better = " (the seed's is OOM)" if size.ddp is None and seed.verdict(ddp) == "fits" else ""
        words.append(f"{size.name()} {ddp:.0f} {seed.verdict(ddp)}{better} / {tensor:.0f} = {ddp / tensor:.2f}" +
                     (f" (seed {size.ratio():.2f})" if size.ddp else ""))
    return Verdict("plan" if good else "fail", "MiB, attention composed: " + "; ".join(words))


def measured_peaks(c):
    rows = where(need(where(c.csv("memory"), kind="measured", batch="same_micro"), "kind measured", "memory"), attention="composed")
    peaks = {}
    for ranks in (1, 2, 4, 8):
        mine = need(where(rows, ranks=ranks), f"{ranks} tensor ranks", "memory")
        if any(r["used_bytes"] != r["plan_bytes.peak"] for r in mine):
            return judged(False, f"{ranks} tensor ranks used other bytes than planned")
        peaks[ranks] = seed.mib(mine[0])
    falls = all(peaks[a] > peaks[b] for a, b in ((1, 2), (2, 4), (4, 8)))
    return judged(falls, f"T = {rows[0]['sequence']}, planned = used, MiB by tensor ranks: " +
                  ", ".join(f"{r}: {m:.0f}" for r, m in peaks.items()) + f" ({c.source(rows)})")


def zero_column(c):
    words, good = [], True
    for size in seed.SIZES[:4]:
        ratio = plan_mib(c, size, "ddp") / plan_mib(c, size, "ddp", zero=1)
        good = good and ratio >= size.ddp / size.zero
        words.append(f"{size.name()} {ratio:.3f} (seed, its column put right: {size.ddp / size.zero:.3f})")
    return Verdict("plan" if good else "fail", "DDP / ZeRO-1: " + ", ".join(words))


def times(c):
    rows = c.csv("memory")
    composed = seed.measured(rows, "composed")
    one = by_repeat(need(where(composed, ranks=1), "1 rank, attention composed", "memory"), lambda r: r.number("tokens_per_second.median"))
    words, good = [], True
    for ranks in (2, 4, 8):
        mine = need(where(composed, ranks=ranks), f"{ranks} tensor ranks", "memory")
        gain = ratios(by_repeat(mine, lambda r: r.number("tokens_per_second.median")), one)
        seconds = median([seed.step_seconds(r, rows)[0] for r in mine])
        good = good and median(gain) > 0.1
        words.append(f"{ranks} ranks {seconds:.3g} s a step, {spread(gain)} x one rank's tokens/s" +
                     (", oversubscribed" if mine[0]["oversubscribed"] == "yes" else ""))
    predicted = [r for r in where(rows, kind="plan") if seed.step_seconds(r, rows)[1] == "predicted"]
    return judged(good and len(predicted) == len(where(rows, kind="plan")),
                  "; ".join(words) + f"; {len(predicted)} plan rows have predictions, so called ({c.source(rows)})")


def four_products(c):
    words, good = [], True
    for ranks in (2, 3, 4):
        splits = c.run("distributed_matmul", ["--grains", "4"], ranks)["splits"]
        good = good and len(splits) == 4 and all(s["max_difference"] == 0 for s in splits)
        words.append(f"{ranks} ranks: " + ", ".join(f"{s['split']} {s['bytes_sent']} bytes" for s in splits))
    return judged(good, "equal bits to the whole product; " + "; ".join(words))


def block(c, *flags):
    """The rows of the lecture's table, by what is left of them: "Q = x W^Q" -> (operands, result)."""
    words = c.words("gpt_attention", "--model gpt --layers 1 --width 1024 --heads 16 --sequence 1024 --micro-batch 4 --global-batch 4 --vocab 512 "
                    "--dry-run --threads 1".split() + list(flags))
    rows = re.findall(r"^  (\S.*?)  +(\S.*?)  +(\S.*)$", words[words.index("in a lecture's rows"):].split("\nexchange")[0], re.M)
    return {what: (operands, result) for what, operands, result in rows}


def expected(ranks, activation):
    """The lecture's rows with its own shapes: B = 4, L = 1024, D = 1024, n_H = 16."""
    heads, d, f = 16 // ranks, 1024 // ranks, 4096 // ranks
    rows = {}
    for y in "QKV":
        rows[f"{y} = x W^{y}"] = (f"x [4, 1024, 1024], W^{y} [1024, {d}]", f"{y} [4, 1024, {d}]")
        rows[f"[{y}_1 ... {y}_{heads}] = Partition_-1({y})"] = (f"{y} [4, 1024, {d}]", f"{y}_i [4, 1024, 64], i = 1 ... {heads}")
    rows["Score_i = softmax(Q_i K_i^T / sqrt(H))"] = ("Q_i, K_i [4, 1024, 64]", "Score_i [4, 1024, 1024]")
    rows["Z_i = Score_i V_i"] = ("Score_i [4, 1024, 1024], V_i [4, 1024, 64]", "Z_i [4, 1024, 64]")
    rows[f"Z = Merge_-1([Z_1 ... Z_{heads}])"] = (f"Z_i [4, 1024, 64], i = 1 ... {heads}", f"Z [4, 1024, {d}]")
    rows["Out = Z W^O"] = (f"Z [4, 1024, {d}], W^O [{d}, 1024]", "Out [4, 1024, 1024]")
    rows["A = Out W^1"] = (f"Out [4, 1024, 1024], W^1 [1024, {f}]", f"A [4, 1024, {f}]")
    rows[f"A' = {activation}(A)"] = (f"A [4, 1024, {f}]", f"A' [4, 1024, {f}]")
    rows["x' = A' W^2"] = (f"A' [4, 1024, {f}], W^2 [{f}, 1024]", "x' [4, 1024, 1024]")
    if ranks > 1:
        rows["AllReduce(Out)"] = ("Out [4, 1024, 1024]",) * 2
        rows["AllReduce(x')"] = ("x' [4, 1024, 1024]",) * 2
    return rows


def lectures_block(*all_ranks):
    def check(c):
        wrong, count = [], 0
        for ranks in all_ranks:
            for activation in ("relu", "gelu"):
                cut = ("--world", str(ranks), "--tensor", str(ranks)) if ranks > 1 else ()
                found = block(c, "--activation", activation, "--attention", "composed", *cut)
                wanted = expected(ranks, activation)
                count += len(wanted)
                wrong += [f"{ranks} ranks, {activation}: {what}" for what in wanted if found.get(what) != wanted[what]]
                wrong += [f"{ranks} ranks, {activation}: {what} is not the lecture's" for what in found if what not in wanted]
        return judged(not wrong, f"{count} rows, relu and gelu, on {', '.join(map(str, all_ranks))} rank(s), shapes as in the lecture" if not wrong else
                      "; ".join(wrong[:3]))
    return check


def local_block(c):
    shapes = lectures_block(2, 4, 8)(c)
    forward, backward = seedrows_tensor.a_layer(c, "megatron")
    return judged(shapes.status == "pass" and (forward, backward) == (2, 2),
                  f"{shapes.ours}; all-reduces of B L D elements a layer: {forward} forward, {backward} backward")


ROWS = (
    ("S1-15", "DDP/TP 2.51, 3.15, 3.41, 3.63", planned_ratios),
    ("S1-16", "bars by tensor ranks", measured_peaks),
    ("S1-17a", "ZeRO column", zero_column),
    ("S1-17b", "AMP saves 2.6 to 12.3 %", lambda _: skipped("no bf16 and no ZeRO-2 and 3 yet; their columns are empty")),
    ("S1-18", "no times at all", times),
    ("S4-04", "a block's rows", lectures_block(1)),
    ("S4-05", "four distributed products", four_products),
    ("S4-08", "a block's local rows", local_block),
)
