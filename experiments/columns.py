"""The header of every experiment's results.csv: written by sweep.py, required by plots/.

A name with dots is a member of the program's final record ("phase_seconds.wait.median"); the others are the sweep's.
"""

PHASES = ("forward", "backward", "communicate", "wait", "update")

# What was run where, the same in every csv.
RUN = ("date", "commit", "cpu", "cores", "quick", "repeat")
PLACE = ("ranks", "threads", "launcher", "bound", "oversubscribed", "masks", "load_before", "flags", "environment",
         "wall_seconds", "cpu_seconds")

RATE = ("tokens_per_second.median", "tokens_per_second.q1", "tokens_per_second.q3")
TRAINING = (("steps", "micro_batch", "global_batch", "grains", "parameters", "loss_first", "loss") + RATE +
            tuple(f"phase_seconds.{phase}.{part}" for phase in PHASES for part in ("min", "median", "max", "slowest_rank")) +
            ("communication.calls", "communication.bytes", "flops_per_step", "gflops", "work_per_thread", "used_bytes",
             "rss_bytes", "isa", "hash"))
SECONDS = ("seconds.median", "seconds.q1", "seconds.q3")

PLAN = tuple(f"plan_bytes.{part}" for part in ("parameters", "gradients", "state", "activations", "communication", "peak"))

# By experiment: the columns that name a point, and those that its runs fill.
KEYS = {
    "weak_scaling": ("workload", "kind"),
    "strong_scaling": ("workload", "kind"),
    "time_split": ("workload", "barrier", "neighbour"),
    "reduction": ("reduce", "count"),
    "openmp": ("case", "schedule", "chunk", "binding", "items", "work", "pause_us"),
    "hybrid": ("workload",),
    "extrapolation": ("role", "workload", "reduce", "count"),
    "correctness": ("case", "engine", "reduce"),
    "tensor": ("shape", "tensor_grains", "tensor", "layout"),
    "memory": ("kind", "batch", "layers", "heads", "width", "sequence", "attention", "zero"),
}
RESULTS = {
    "weak_scaling": TRAINING + ("same_bits",),
    "strong_scaling": TRAINING + ("same_bits",),
    "time_split": TRAINING + ("slowed_rank",),
    "reduction": ("grains", "parameters", "communication.calls", "communication.bytes", "messages", "pieces", "repeats") +
                 SECONDS + ("wait.median", "hash", "skipped"),
    "openmp": TRAINING + ("item_ns", "max_over_mean", "max_over_mean_worst", "start_us",
                          "work_first", "start_us_first") + SECONDS,
    "hybrid": TRAINING,
    "extrapolation": TRAINING + ("grains_flag", "messages", "pieces") + SECONDS,
    "correctness": TRAINING + ("max_error", "monotone", "w", "w_hat"),
    "tensor": TRAINING,
    # The columns of bf16 are empty until there is one.
    "memory": ("mesh.data", "mesh.tensor", "steps", "micro_batch", "global_batch", "grains", "tensor_grains", "layout", "parameters", "nodes",
               "flops_per_step", "fullest_rank") + PLAN + ("used_bytes", "rss_bytes", "base_rss_bytes") + RATE +
              ("communication.calls", "communication.bytes", "gflops", "isa", "hash", "bf16.plan_bytes.peak", "bf16.tokens_per_second.median"),
}
PREDICTIONS = ("date", "commit", "cpu", "cores", "quick", "kind", "workload", "reduce", "network", "alpha", "beta", "ranks",
               "global_batch", "oversubscribed", "measured_seconds", "predicted_seconds", "compute_seconds",
               "exchange_seconds", "straggler_seconds", "efficiency", "error")
LOSSES = ("commit", "quick", "engine", "epoch", "loss")


def header(experiment):
    """The columns of an experiment's results.csv, in order."""
    columns = list(RUN) + list(KEYS[experiment])
    for name in PLACE + RESULTS[experiment]:
        if name not in columns:
            columns.append(name)
    return columns
