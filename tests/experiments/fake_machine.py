"""All four programs of a machine of two cores that behaves exactly as the extrapolation's model says:
fake_machine.py PROGRAM FLAG...; FAKE_RANKS has the launcher's ranks."""
import json
import os
import sys

ALPHA, BETA, CROWDED, CORES = 2e-6, 0.5e-9, 1.1, 2
SLOPE, CONSTANT = {"linear_regression": 3e-6, "gpt_attention": 2e-2}, {"linear_regression": 5e-5, "gpt_attention": 1e-3}


def plan(ranks, count):
    return {"communication": {"calls": 2 if ranks > 1 else 0, "bytes": 2 * 4 * count * (ranks - 1) // ranks}, "messages": 2 * (ranks - 1),
            "pieces": 1, "work_bytes": 4 * count}


def cost(kind, ranks, count, planned):
    """Messages and bytes of a sum, as model.cost has them; again here, since importing the model takes longer than this runs."""
    if ranks == 1:
        return 0, 0
    rounds = (ranks - 1).bit_length()
    if kind == "allreduce":
        return 2 * rounds, 2 * 4 * count * (ranks - 1) / ranks
    if kind == "gather-broadcast":
        return 1 + ranks - 1 + rounds, 2 * 4 * count * (ranks - 1)
    return planned["messages"], planned["communication"]["bytes"]


def main():
    program, flags = sys.argv[1], sys.argv[2:]
    if "--version" in flags:
        return print(f"{program} of graingrad 0, commit fake")

    given = {f: v for f, v in zip(flags, flags[1:] + [""]) if f.startswith("--")}

    def number(flag, default):
        return int(given.get(flag, default))
    ranks = number("--world", 1) if "--dry-run" in given else int(os.environ.get("FAKE_RANKS", "1"))
    threads = number("--threads", 1)
    record = {"event": "final", "program": program, "commit": "fake", "mesh": {"data": ranks}, "threads": threads,
              "work_per_thread": [60] * threads, "hash": "xxh3:" + " ".join(given.get(f, "") for f in ("--samples", "--global-batch", "--engine"))}
    print("placement: " + f"{ranks} rank x {threads} thread, masks " + " | ".join(str(r) for r in range(ranks)) + ", quota none, not oversubscribed", file=sys.stderr)
    turns = max(1.0, ranks / CORES)
    if program == "reduction_bench":
        count, kind = number("--count", 5), given.get("--reduce", "tree")
        messages, size = cost(kind, ranks, count, plan(ranks, count))
        seconds = turns * (ALPHA * messages + BETA * size)
        record.update(plan(ranks, count), parameters=count, seconds={"median": seconds, "q1": seconds, "q3": seconds}, wait={"median": 0.0})
    elif program == "memory_bench":
        record.update(item_ns=10.0 + len(given["--case"]), max_over_mean=1.0, max_over_mean_worst=1.0, start_us=[1.0] * threads,
                      work_first=[60] * threads, start_us_first=[1.0] * threads, seconds={"median": 1e-4, "q1": 1e-4, "q3": 1e-4})
    else:
        regression = program == "linear_regression"
        batch = number("--samples", 10000) if regression else number("--global-batch", 12)
        micro_batch, sequence = (100, 1) if regression else (number("--micro-batch", 1), number("--sequence", 256))
        steps = number("--epochs", 300) if regression else number("--steps", 20)
        share = -(-(batch // micro_batch) // ranks)
        compute = turns * (CROWDED if ranks > 1 else 1) * (SLOPE[program] * share + CONSTANT[program]) / min(threads, CORES)
        count = 2 * 6 if regression else 1001
        messages, size = cost("tree", ranks, count, plan(ranks, count))
        exchange = turns * (ALPHA * messages + BETA * size)
        rate = batch * sequence / (compute + exchange)
        parts = {"forward": 0.3 * compute, "backward": 0.6 * compute, "communicate": exchange, "wait": 0.0, "update": 0.1 * compute}
        record.update(steps=steps, micro_batch=micro_batch, global_batch=batch, parameters=5 if regression else 1000, loss_first=2.0, loss=1.0,
                      tokens_per_second={"median": rate, "q1": rate, "q3": rate},
                      phase_seconds={p: {"min": v * steps, "median": v * steps, "max": v * steps, "slowest_rank": ranks - 1} for p, v in parts.items()},
                      communication={"calls": 2, "bytes": 48}, w=[1.0] * 5, w_hat=[1.001] * 5, max_error=1e-3, monotone=True)
        peak = 10**9 // (number("--tensor", 1) * max(1, ranks // 2))
        record.update(flops_per_step=10**9, plan_bytes={"peak": peak}, used_bytes=peak, rss_bytes=peak + 3 * 10**7, base_rss_bytes=2 * 10**7)
        if "--dry-run" in given:
            record["event"] = "plan"
        if "--metrics" in given:
            with open(given["--metrics"], "w", encoding="utf-8") as f:
                for step in range(1, 4):
                    f.write(json.dumps({"event": "step", "step": step, "loss": 1 / step}) + "\n")
    print(json.dumps(record, separators=(",", ":")))
    return None


if __name__ == "__main__":
    main()
