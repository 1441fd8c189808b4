"""What is trained in the sweeps: the regression check on both engines, attention layers, and a small GPT."""
from dataclasses import dataclass


@dataclass
class Workload:
    name: str
    program: str
    fixed: list      # flags that do not depend on the size of the global batch
    size: str        # the flag that sets it
    share: int       # samples or sequences that one rank has in weak scaling
    unit: int        # samples or sequences of a micro-batch
    steps: str       # the flag that sets the steps
    epochs: int
    quick_epochs: int
    seconds: float   # about how long a full run on one rank takes, and a quick one
    quick_seconds: float

    def guess(self, quick):
        return self.quick_seconds if quick else self.seconds

    def flags(self, total, threads, quick, *more, ranks=1, steps=None):
        """The command line for a global batch of `total` samples or sequences that up to `ranks` ranks train on."""
        steps = steps or (self.quick_epochs if quick else self.epochs)
        # The default is 128 grains at most, and a rank needs one.
        grains = ["--grains", str(ranks)] if ranks > 128 else []
        return [*self.fixed, self.size, str(total), self.steps, str(steps), "--threads", str(threads), *grains, *more]

    def fitting(self, ranks_all, total):
        """The rank counts that have a micro-batch each."""
        return [ranks for ranks in ranks_all if ranks <= total // self.unit]

    def batch(self, shares):
        return shares * self.share

    def fixed_batch(self, ranks):
        """A global batch for strong scaling that every one of these rank counts can cut."""
        return self.share if self.program == "linear_regression" else self.unit * max(12, *ranks)


def _regression(engine):
    return Workload(f"regression_{engine}", "linear_regression", ["--engine", engine], "--samples", 10000, 100,
                    "--epochs", 300, 100, 0.6, 0.5)


WORKLOADS = {w.name: w for w in (
    _regression("scalar"),
    _regression("vector"),
    Workload("attention", "gpt_attention", [], "--global-batch", 6, 1, "--steps", 10, 4, 3, 1.7),
    Workload("gpt", "gpt_attention", "--model gpt --layers 2 --width 128 --heads 4 --sequence 64 --micro-batch 4".split(),
             "--global-batch", 24, 4, "--steps", 20, 6, 2, 1.1),
)}


def seconds_per_step(row):
    """Wall time of a step, from a row's median rate: samples or tokens of a step over those a second."""
    units = row.number("global_batch")
    if row["workload"] in ("attention", "gpt"):
        units *= 256 if row["workload"] == "attention" else 64
    return units / row.number("tokens_per_second.median")


def compute_seconds(row):
    """Seconds of forward, backward and update in a step, of the median rank."""
    return sum(row.number(f"phase_seconds.{p}.median") for p in ("forward", "backward", "update")) / row.number("steps")
