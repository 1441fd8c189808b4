"""The rows of the seeds that have a check: what the seed says, and a function that runs something and judges it.

A check takes a Checker and returns a Verdict. Measured rows are judged on the csv of their sweep, whose commit they say;
what a test holds is run as that test; everything else starts the program."""
import columns
import scaling
import seedrows_memory
import seedrows_tensor
import table
from summary import spread
from table import by_repeat, median, need, ratios, where
from verdict import Verdict, fail, judged, plan, skipped
from workloads import WORKLOADS, seconds_per_step

SEED_RANKS = (1, 2, 3, 4, 5, 7, 8, 16, 30)


def scalar_engine(c):
    ran = c.gtest("tests/value/value_test", "Micrograd.*:Gradcheck.*:*OpTest.*:Scalar.*")
    return judged(ran.ok, f"{ran.words}: micrograd's numbers, gradient checks in f64")


def attention_block(c):
    ran = c.gtest("tests/value/value_test", "Scalar.AnAttentionLayerEqualsTheTensorOne")
    oracle = c.gtest("tests/nn/nn_test", "CausalSelfAttention.EqualsScalarValues")
    record = c.run("gpt_attention", ["--steps", "4", "--threads", "1"])
    falls = record["loss"] < record["loss_first"]
    return judged(ran.ok and oracle.ok and falls, f"attention = the scalar engine's: {ran.words}, {oracle.words}; "
                  f"4 steps: loss {record['loss_first']:.4f} to {record['loss']:.4f}")


def default_experiment(c):
    record = c.run("linear_regression", ["--epochs", "1", "--threads", "1"])
    return judged(record["global_batch"] == 10000 and record["parameters"] == 5,
                  f"N = {record['global_batch']}, W = {record['parameters']}")


def chunk_average(c):
    ran = c.ctest("chunk_weights_test")
    return judged(ran.ok, f"{ran.words}: chunks weighted by their size, 10,000 over 3 and 7")


def default_epochs(c):
    record = c.run("linear_regression", ["--threads", "1"])
    return judged(record["steps"] == 300, f"{record['steps']} updates by default")


def gather_broadcast(c):
    sent = c.run("reduction_bench", ["--dry-run", "--world", "2", "--count", "5", "--reduce", "gather-broadcast"], mpi=False)
    rows = [r for r in c.csv("reduction") if not r["skipped"] and r["ranks"] != "1"]
    rows = [r for r in rows if r["oversubscribed"] == "no"] or rows
    rows = [r for r in rows if r["ranks"] == rows[0]["ranks"]]
    most = table.values_of(need(rows, "more than one rank", "reduction"), "count")[-1]
    seconds = {k: by_repeat(where(rows, reduce=k, count=most), lambda r: r.number("seconds.median"))
               for k in ("tree", "allreduce", "gather-broadcast")}
    gains = {k: ratios(seconds["gather-broadcast"], seconds[k]) for k in ("tree", "allreduce")}
    need([g for g in gains.values() if g], f"{most} elements, all three ways", "reduction")
    fits = sent["communication"]["bytes"] == 5 * 4
    # Our all-reduce is the tree; MPI's stands beside it.
    return judged(fits and median(gains["tree"]) > 1,
                  f"5 parameters: {sent['communication']['bytes'] // 4} floats a rank and step; at {most:.0e}: gather + broadcast takes "
                  f"{spread(gains['allreduce'])} x MPI_Allreduce, {spread(gains['tree'])} x the tree ({c.source(rows)})")


def fit_error(c):
    noisy = c.run("linear_regression", ["--threads", "1"])
    exact = c.run("linear_regression", ["--threads", "1", "--noise", "0", "--epochs", "1500"])
    return judged(noisy["max_error"] <= 5.15e-3 and exact["max_error"] <= 1e-12,
                  f"largest error {noisy['max_error']:.2e}; without noise {exact['max_error']:.1e}")


def same_bits(c):
    shapes = [(p, 1) for p in SEED_RANKS] + [(1, 2), (1, 3), (2, 2), (3, 2)]
    hashes = {s: c.run("linear_regression", ["--epochs", "20", "--threads", str(s[1])], *s)["hash"] for s in shapes}
    other = [f"{p}x{t}" for (p, t), h in hashes.items() if h != hashes[1, 1]]
    return judged(not other, f"one hash on {len(shapes)} layouts of up to 30 ranks" if not other else f"other bits on {', '.join(other)}")


def loss_falls(c):
    record = c.run("linear_regression", ["--engine", "scalar", "--threads", "1"])
    return judged(record["monotone"], f"monotone over {record['steps']} epochs: {record['loss_first']:.4g} to {record['loss']:.4g}")


def weak(c):
    rows = c.csv("weak_scaling")
    cores = int(rows[0]["cores"])
    if cores == 1:
        return skipped("one core: there is no second rank's efficiency")
    found = {w: {e[0]: e for e in scaling.efficiencies(rows, w, True)} for w in WORKLOADS if where(rows, workload=w)}
    need(cores in found.get("regression_scalar", {}), f"workload regression_scalar on {cores} ranks", "weak_scaling")
    wall = {w: f[cores][2] for w, f in found.items() if cores in f}
    words = ", ".join(f"{w} {spread(v)}" for w, v in wall.items())
    return judged(median(wall["regression_scalar"]) >= 0.95, f"{cores} ranks, by wall: {words}; judged: the scalar regression ({c.source(rows)})")


def thousand_samples(c):
    record = c.run("linear_regression", ["--engine", "scalar", "--threads", "1"])
    seconds = sum(record["phase_seconds"][p]["median"] for p in ("forward", "backward", "update"))
    ms = 1e3 * seconds / record["steps"] * 1000 / record["global_batch"]
    return judged(ms <= 10, f"{ms:.3g} ms on one core")


def split(c):
    rows = where(c.csv("time_split"), neighbour="none", barrier="yes", workload="regression_scalar")
    words = []
    for ranks in table.values_of(need(rows, "regression_scalar", "time_split"), "ranks"):
        mine = where(rows, ranks=ranks)
        parts = {p: median([r.number(f"phase_seconds.{p}.median") for r in mine]) for p in columns.PHASES}
        words.append(f"{ranks} rank(s) " + "/".join(f"{100 * v / sum(parts.values()):.0f}" for v in parts.values()))
    return judged(len(words) > 1, f"% {'/'.join(columns.PHASES)}: {'; '.join(words)} ({c.source(rows)})")


def _slowed(c):
    rows = where(c.csv("time_split"), neighbour="busy")
    return need(rows, "neighbour busy", "time_split") if int(c.csv("time_split")[0]["cores"]) > 1 else []


def waiting(c):
    slow = _slowed(c)
    if not slow:
        return skipped("one core: nobody waits")
    workload, ranks = slow[0]["workload"], slow[0]["ranks"]
    free = where(c.csv("time_split"), neighbour="none", barrier="yes", workload=workload, ranks=ranks)
    wait = [median([r.number("phase_seconds.wait.max") / r.number("steps") for r in rows])
            for rows in (need(free, "neighbour none", "time_split"), where(slow, workload=workload))]
    return judged(wait[1] > wait[0], f"longest wait a step, apart from transfer: {1e3 * wait[0]:.3g} ms, with one slowed rank "
                  f"{1e3 * wait[1]:.3g} ms ({c.source(slow)})")


def straggler(c):
    slow = [r for r in _slowed(c) if r["slowed_rank"]]
    if not slow:
        return skipped("no rank could be slowed: one core, or masks that do not tell ranks apart")
    found = sum(r["phase_seconds.backward.slowest_rank"] == r["slowed_rank"] for r in slow)
    return judged(found >= 0.8 * len(slow), f"the slowed rank was named in {found} of {len(slow)} runs ({c.source(slow)})")


def trends(c):
    rows = where(c.csv("time_split"), neighbour="none", barrier="yes", workload="regression_scalar", oversubscribed="no")
    ranks = table.values_of(need(rows, "regression_scalar", "time_split"), "ranks")
    if len(ranks) < 2:
        return skipped("one core: no trend over ranks")

    def share(p, phase):
        return median([r.number(f"phase_seconds.{phase}.median") / sum(r.number(f"phase_seconds.{q}.median") for q in columns.PHASES)
                       for r in where(rows, ranks=p)])
    first, last = ranks[0], ranks[-1]
    figures = {p: (share(first, p), share(last, p)) for p in ("forward", "backward", "update")}
    return judged(figures["backward"][1] < figures["backward"][0] and figures["update"][1] > figures["update"][0],
                  ", ".join(f"{p} {100 * a:.3g} to {100 * b:.3g} %" for p, (a, b) in figures.items()) +
                  f" from {first} to {last} ranks ({c.source(rows)})")


def _threads(c):
    """(rows of one thread, rows of the most threads that have a core each), static, default chunk."""
    rows = where(c.csv("openmp"), case="training", schedule="static", chunk=0, oversubscribed="no")
    most = table.values_of(need(rows, "case training", "openmp"), "threads")[-1]
    mine = where(rows, threads=most, binding="bound") or where(rows, threads=most)
    return where(rows, threads=1, binding=mine[0]["binding"]), mine, most


def threads_speed(c):
    one, many, most = _threads(c)
    if most == 1:
        return skipped("one core")
    ran = c.gtest("tests/value/kernel_test.portable", "*TilesAndThreads*")
    gain = ratios(by_repeat(many, lambda r: r.number("tokens_per_second.median")), by_repeat(one, lambda r: r.number("tokens_per_second.median")))
    return judged(ran.ok and median(gain) > 1.2, f"a step is {spread(gain)} x as fast on {most} threads ({c.source(many)}); same bits: {ran.words}")


def backward_speed(c):
    one, many, most = _threads(c)
    if most == 1:
        return skipped("one core")
    gain = ratios(*(by_repeat(rows, lambda r: r.number("phase_seconds.backward.median") / r.number("steps")) for rows in (one, many)))
    return judged(median(gain) > 1.2, f"backward is {spread(gain)} x as fast on {most} threads ({c.source(many)})")


def static_graph(c):
    ran = c.ctest("allocation_test")
    return judged(ran.ok, f"{ran.words}: no allocation after step 1")


def even_split(c):
    rows = c.csv("openmp")
    dealt = where(rows, case="dealt", chunk=0, work=100, pause_us=0, schedule="static")
    seeds = [(t, where(dealt, threads=t)[0]) for t in (1, 3, 5) if where(dealt, threads=t)]
    need(seeds, "case dealt", "openmp")
    _, many, most = _threads(c)
    training = median([r.number("max_over_mean") for r in many])
    worst = max([r.number("max_over_mean") for _, r in seeds] + [training])
    beyond = [f"{t}: {median([r.number('max_over_mean') for r in where(rows, case='training', schedule='static', chunk=0, threads=t)]):.2f}"
              for t in (3, 5) if where(rows, case="training", schedule="static", chunk=0, threads=t)]
    return judged(worst <= 1.05, "static: " + "; ".join(f"{t} -> {r['work_per_thread'].replace(' ', ', ')}" for t, r in seeds) +
                  f"; a step's tiles on {most} threads: max/mean {training:.3f} (by threads, not judged, {', '.join(beyond)}) ({c.source(rows)})")


def memory(c):
    rows = [r for r in c.csv("openmp") if r["case"] in ("packed", "padded", "scattered", "contiguous")]
    most = table.values_of(need(rows, "memory cases", "openmp"), "threads")[-1]

    def gain(bad, good):
        return ratios(*(by_repeat(where(rows, case=case, threads=most), lambda r: r.number("item_ns")) for case in (bad, good)))
    lines, sums = gain("scattered", "contiguous"), gain("packed", "padded")
    return judged(median(lines) > 1 and (most == 1 or median(sums) > 1), f"on {most} threads: scattered / contiguous {spread(lines)}, "
                  f"packed / padded sums {spread(sums)} ({c.source(rows)})")


def schedules(c):
    rows = where(c.csv("openmp"), case="training", chunk=0, oversubscribed="no")
    most = table.values_of(need(rows, "case training", "openmp"), "threads")[-1]
    if most == 1:
        return skipped("one core")
    rows = where(rows, threads=most, binding="bound") or where(rows, threads=most)
    rate = {s: by_repeat(where(rows, schedule=s), lambda r: r.number("tokens_per_second.median")) for s in ("static", "dynamic", "guided")}
    effects = {s: ratios(rate[s], rate["static"]) for s in ("dynamic", "guided")}
    return judged(all(effects.values()), f"{most} threads, over static: " + ", ".join(f"{s} {spread(e)}" for s, e in effects.items()) +
                  f" ({c.source(rows)})")


def contiguous(c):
    ran = c.gtest("tests/value/value_test", "ParameterStore.*")
    return judged(ran.ok, f"one block each for values, gradients, state: {ran.words}")


def hybrid(c):
    rows = where(c.csv("hybrid"), workload="attention")
    shapes = sorted({(int(r["ranks"]), int(r["threads"])) for r in need(rows, "attention", "hybrid")})
    time_of = {s: median([seconds_per_step(r) for r in where(rows, ranks=s[0], threads=s[1])]) for s in shapes}
    p, t = min(time_of, key=time_of.get)
    return judged(len(shapes) > 1 or int(rows[0]["cores"]) == 1, f"best of {len(shapes)} shapes for attention: mpirun -n {p} --map-by slot:PE={t} "
                  f"--bind-to core ... --threads {t} ({c.source(rows)})")


def hundred(c):
    rows = [r for r in c.csv("extrapolation", "predictions.csv", columns.PREDICTIONS) if r["kind"] == "network" and r["ranks"] == "100"]
    need(rows, "100 ranks", "extrapolation/predictions.csv")
    words = ", ".join(f"{r['workload']} over {r['network']} {r.number('efficiency'):.2f}" for r in rows
                      if r["workload"] in ("regression_scalar", "gpt"))
    return plan(f"predicted efficiency of 100 x the data on 100 ranks: {words} ({c.source(rows)})")


def published_sizes(c):
    wanted = {"gpt2": 124439808, "gpt2-medium": 354823168, "gpt2-large": 774030080, "gpt2-xl": 1557611200}
    found = {size: c.words("gpt_attention", ["--size", size, "--dry-run", "--threads", "1"]) for size in wanted}
    return judged(all(f" {count} parameters" in found[size] for size, count in wanted.items()),
                  "dry runs print " + ", ".join(f"{s} {n:,}" for s, n in wanted.items()))


# Id, the seed's figure, check. Ids are SEEDS.md's; a letter splits a row that has two halves.
ROWS = (
    ("S2-01", "+ - * / and derivatives", scalar_engine),
    ("S2-02", "one attention block", attention_block),
    ("S2-03", "N = 10,000, W = 5", default_experiment),
    ("S2-04", "dL/dw = (dA/dw + dB/dw) / 2", chunk_average),
    ("S2-05", "300 updates", default_epochs),
    ("S2-06", "gather, then broadcast", gather_broadcast),
    ("S2-07", "largest error 5.15e-3", fit_error),
    ("S2-08", "output independent of ranks", same_bits),
    ("S2-09", "loss decreases continuously", loss_falls),
    ("S2-10", "weak scaling around 95 %", weak),
    ("S2-11", "10 ms for 1,000 samples", thousand_samples),
    ("S2-12", "percentage splits", split),
    ("S2-13", "0.7 s of 1.4 s waiting", waiting),
    ("S2-14", "slowest processor limits", straggler),
    ("S2-15", "backward O(N/d), update sync", trends),
    ("S2-16", "OpenMP in products, exp", threads_speed),
    ("S2-17", "backward not parallel", backward_speed),
    ("S2-18", "static graph, fixed memory", static_graph),
    ("S2-19", "294, 3, 3; 14, 13, 20, 39, 37", even_split),
    ("S2-20", "scattered memory, cache lines", memory),
    ("S2-21", "no schedule had huge impact", schedules),
    ("S2-22a", "contiguous memory", contiguous),
    ("S2-22b", "CUDA and NCCL", lambda _: skipped("no CUDA module")),
    ("S2-23", "MPI with OpenMP", hybrid),
    ("S2-24", "100 x data on 100 processors", hundred),
    ("S3-02", "GPT-2 small, 124,439,808", published_sizes),
    ("S5-12", "GPT-2's four sizes", published_sizes),
) + seedrows_tensor.ROWS + seedrows_memory.ROWS
# Rows that must have a check: without one, a row is a fail.
REQUIRED = (tuple(f"S2-{n:02}" for n in range(1, 25)) +
            tuple(f"S1-{n:02}" for n in (*range(4, 13), *range(14, 19))) +
            tuple(f"S3-{n:02}" for n in (1, 4, *range(6, 13), 15, 16)) +
            tuple(f"S4-{n:02}" for n in (*range(4, 10), 13, 15)))
