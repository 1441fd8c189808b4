"""Made-up csv files of every sweep, for the figures' test: the columns and points of a full sweep on two cores, numbers of no
machine."""
import csv
import os

import paths  # noqa: F401
import columns
import memory_table

WORKLOADS = ("regression_scalar", "regression_vector", "attention", "gpt")


def row(experiment, repeat, ranks, threads=1, **cells):
    """A row of `experiment`; every number that is not given is plausible and differs a little by repeat."""
    wobble = 1 + 0.02 * (repeat - 2)
    found = dict.fromkeys(columns.header(experiment), "")
    found.update(date="2026-01-01T00:00Z", commit="0123456789ab", cpu="a CPU", cores="2", quick="no", repeat=repeat, ranks=ranks,
                 threads=threads, oversubscribed="yes" if ranks * threads > 2 else "no", load_before="0.1", masks="0 | 1")
    for name in columns.TRAINING + columns.SECONDS:
        if name in found:
            found[name] = "0" if name.endswith("slowest_rank") else repr(0.01 * wobble)
    if "steps" in found:
        speed = min(ranks * threads, 2) * 1000 * wobble
        numbers = {"steps": 10, "global_batch": 10000, "tokens_per_second.median": speed, "hash": "xxh3:1",
                   "work_per_thread": " ".join(["10"] * threads)}
        found.update({name: number for name, number in numbers.items() if name in found})
    found.update(cells)
    return found


def scaling(experiment):
    for repeat in (1, 2, 3):
        for workload in WORKLOADS:
            for ranks in (1, 2, 4):
                yield row(experiment, repeat, ranks, workload=workload, kind="scaled", same_bits="yes")


def time_split(experiment):
    for repeat in (1, 2, 3):
        for workload in WORKLOADS[:3]:
            for ranks in (1, 2, 4):
                for barrier in ("yes", "no") if ranks > 1 else ("yes",):
                    yield row(experiment, repeat, ranks, workload=workload, barrier=barrier, neighbour="none")
            yield row(experiment, repeat, 2, workload=workload, barrier="yes", neighbour="busy", slowed_rank="1")


def reduction(experiment):
    for repeat in (1, 2, 3):
        for kind in ("tree", "allreduce", "gather-broadcast"):
            for ranks in (1, 2, 3, 4):
                for count in (5, 10000, 10**8):
                    yield row(experiment, repeat, ranks, reduce=kind, count=count, skipped="needs memory" if count * ranks > 3e8 else "")


def openmp(experiment):
    for repeat in (1, 2, 3):
        for threads in (1, 2, 3, 5):
            for binding in ("bound", "unbound") if threads < 3 else ("unbound",):
                for schedule in ("static", "dynamic", "guided"):
                    for chunk in (0, 1, 8):
                        yield row(experiment, repeat, 1, threads, case="training", schedule=schedule, chunk=chunk, binding=binding,
                                  max_over_mean="1.01")
            for schedule in ("static", "dynamic", "guided"):
                yield row(experiment, repeat, 1, threads, case="dealt", schedule=schedule, chunk=0, binding="unbound", items=300,
                          work=100, pause_us=0, max_over_mean="1.5", item_ns="150")
        for pause in (0, 2000):
            for work in (1, 100, 10000):
                yield row(experiment, repeat, 1, 2, case="dealt", schedule="dynamic", chunk=3, binding="unbound", items=300, work=work,
                          pause_us=pause, item_ns=1.5 * work, max_over_mean=repr(2 - work / 20000))
        for threads in (1, 2):
            for case in ("scattered", "contiguous", "packed", "padded"):
                yield row(experiment, repeat, 1, threads, case=case, schedule="static", chunk=0, binding="bound", items=1000,
                          item_ns=repr(3 + repeat + len(case)))


def hybrid(experiment):
    for repeat in (1, 2, 3):
        for workload in WORKLOADS:
            for ranks in (1, 2):
                yield row(experiment, repeat, ranks, 2 // ranks, workload=workload)


def correctness(experiment):
    w = "0.500593 -0.0807231 1.17474 -1.45482 -0.629856"
    for engine in ("scalar", "vector"):
        yield row(experiment, 1, 1, case="noisy", engine=engine, reduce="tree", w=w, w_hat=w.replace("0.5", "0.501"), monotone="yes",
                  max_error="0.0004")
    for engine in ("vector", "scalar", "attention"):
        for ranks in (1, 2, 3):
            for kind in ("tree", "allreduce"):
                yield row(experiment, 1, ranks, case="matrix", engine=engine, reduce=kind, hash="b" if kind != "tree" and ranks == 3 else "a")


def memory(experiment):
    for size in memory_table.SIZES:
        for attention in ("composed", "blocked"):
            for batch, (mode, micro_batch, global_batch, _) in memory_table.BATCHES.items():
                for zero in (0, 1) if mode == "ddp" else (0,):
                    yield row(experiment, 1, 8, kind="plan", batch=batch, layers=size.layers, heads=size.heads, width=size.width, sequence=1023,
                              attention=attention, zero=zero, micro_batch=micro_batch, global_batch=global_batch, flops_per_step=size.parameters * 6e4,
                              **{"plan_bytes.peak": size.parameters * (300 if mode == "ddp" else 90), "tokens_per_second.median": ""})
    for repeat in (1, 2, 3):
        for attention in ("composed", "blocked"):
            for batch, zero, ranks in [("same_micro", 0, ranks) for ranks in (1, 2, 4, 8)] + [("ddp", 0, 2), ("ddp", 1, 2)]:
                yield row(experiment, repeat, ranks, kind="measured", batch=batch, layers=12, heads=8, width=256, sequence=1023, attention=attention,
                          zero=zero, micro_batch=2, global_batch=2, flops_per_step=10**12, used_bytes=10**9 // ranks, base_rss_bytes=2 * 10**7,
                          rss_bytes=10**9 // ranks + 3 * 10**7, **{"plan_bytes.peak": 10**9 // ranks})


def tensor(experiment):
    for repeat in (1, 2, 3):
        for shape in ("4x64", "1x1024"):
            for grains, ranks, layout in ((1, 1, ""), (8, 1, ""), (8, 2, "megatron"), (8, 2, "megatron --sequence-parallel")):
                yield row(experiment, repeat, ranks, 2 // ranks, shape=shape, tensor_grains=grains, tensor=ranks, layout=layout)


def predictions():
    for kind in ("held_out", "weak_scaling", "strong_scaling", "network"):
        for network in ("10 GbE", "100 Gb InfiniBand") if kind == "network" else ("",):
            for workload in WORKLOADS:
                for ranks in (8, 100, 1024) if kind == "network" else (1, 2, 4):
                    found = dict.fromkeys(columns.PREDICTIONS, "")
                    found.update(commit="0123456789ab", cpu="a CPU", cores="2", quick="no", kind=kind, workload=workload, ranks=ranks,
                                 network=network, alpha="1e-6", beta="1e-9", oversubscribed="yes" if ranks == 4 else "no",
                                 predicted_seconds="0.011", efficiency="0.9")
                    if kind != "network":
                        found.update(measured_seconds="0.01", error="0.1")
                    yield found


def losses():
    for engine in ("scalar", "vector"):
        for epoch in range(1, 30):
            yield {"commit": "0123456789ab", "quick": "no", "engine": engine, "epoch": epoch, "loss": 4 / epoch}


SWEEPS = {"weak_scaling": scaling, "strong_scaling": scaling, "time_split": time_split, "reduction": reduction, "openmp": openmp,
          "hybrid": hybrid, "correctness": correctness, "memory": memory, "tensor": tensor}


def write(path, rows):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    rows = list(rows)
    with open(path, "w", encoding="utf-8", newline="") as f:
        writer = csv.DictWriter(f, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_all(folder):
    for name, make in SWEEPS.items():
        write(os.path.join(folder, name, "results.csv"), make(name))
    write(os.path.join(folder, "extrapolation", "predictions.csv"), predictions())
    write(os.path.join(folder, "correctness", "losses.csv"), losses())
