"""The first seed's table of memory, TorchShard's minGPT on 8 cards (SEEDS S1, MiB a card), and the same table from the rows of
experiments/memory: peaks, ratios, verdicts, and the time that a step would take. Shared by the sweep, the figure and seedcheck."""
from dataclasses import dataclass

import table
from table import median, where

CARD_MIB = 12196  # TITAN XP
RANKS = 8
SEQUENCE, VOCAB = 1023, 512  # 32 x 32 pixels, of which the first has nothing in front of it; a codebook of 512
MICRO_BATCH, GLOBAL_BATCH = 2, 16


@dataclass(frozen=True)
class Size:
    layers: int
    heads: int
    width: int
    parameters: int
    ddp: int | None          # None: out of memory
    amp: int | None
    zero_printed: int | None
    zero: int | None         # the column one row up, as the seed's own figure has it (error E1.1)
    torchshard: int
    torchshard_amp: int

    def name(self):
        return f"{self.layers}L/{self.heads}H/{self.width}"

    def flags(self):
        """Of the model."""
        return ["--layers", str(self.layers), "--heads", str(self.heads), "--width", str(self.width)]

    def of(self, rows):
        return where(rows, layers=self.layers, heads=self.heads, width=self.width)

    def ratio(self):
        """The seed's DDP / TorchShard."""
        return self.ddp / self.torchshard if self.ddp else None


SIZES = (
    Size(12, 8, 256, 10001664, 3297, 3143, 3253, 3253, 1315, 1281),
    Size(24, 8, 256, 19478784, 5451, 5213, 3253, 5293, 1733, 1649),
    Size(32, 8, 256, 25796864, 6835, 6629, 5293, 6677, 2007, 1897),
    Size(32, 8, 512, 101925376, 9445, 8995, 6677, 8787, 2603, 2345),
    Size(48, 8, 512, 152363520, None, None, None, None, 3475, 3071),
    Size(64, 8, 512, 202801664, None, None, None, None, 4339, 3805),
    Size(64, 32, 1024, 808256512, None, None, None, None, 10501, 9523),
)

# How a step's work is laid out: name -> (mode, micro-batch, global batch, what it is). The seed compares the first with the
# second, which does an eighth of its work (error E1.2).
BATCHES = {
    "ddp": ("ddp", MICRO_BATCH, GLOBAL_BATCH, "8 data ranks, a micro-batch of 2 each"),
    "same_micro": ("tensor", MICRO_BATCH, MICRO_BATCH, "8 tensor ranks, one micro-batch of 2"),
    "same_global": ("tensor", MICRO_BATCH, GLOBAL_BATCH, "8 tensor ranks, 8 micro-batches of 2"),
    "at_once": ("tensor", GLOBAL_BATCH, GLOBAL_BATCH, "8 tensor ranks, one micro-batch of 16"),
}


def flags(size, sequence, attention, micro_batch, global_batch, *more):
    """gpt_attention's, for the seed's model: a codebook as vocabulary, a head of its own without bias."""
    return ["--model", "gpt", "--vocab", str(VOCAB), "--untie", "--threads", "1", *size.flags(), "--sequence", str(sequence), "--attention",
            attention, "--micro-batch", str(micro_batch), "--global-batch", str(global_batch), *more]


def plan_flags(size, batch, attention="composed", zero=0):
    """Those of a plan row."""
    mode, micro_batch, global_batch, _ = BATCHES[batch]
    more = ["--dry-run", "--world", str(RANKS)] + (["--tensor", str(RANKS)] if mode == "tensor" else ["--zero", str(zero)])
    return flags(size, SEQUENCE, attention, micro_batch, global_batch, *more)


def mib(row):
    return row.number("plan_bytes.peak") / 2**20


def planned(rows, size, batch, attention="composed", zero=0):
    """The plan row of this point; None where there is none."""
    found = where(size.of(where(rows, kind="plan", batch=batch, attention=attention, zero=zero)))
    return found[0] if found else None


def need_plan(rows, size, batch, attention="composed", zero=0):
    row = planned(rows, size, batch, attention, zero)
    if row is None:
        raise table.TableError(f"memory: no plan row of {size.name()}, {batch}, attention {attention}, zero {zero}: the sweep is not "
                               "complete")
    return row


def verdict(peak_mib):
    return "fits" if peak_mib <= CARD_MIB else "OOM"


def measured(rows, attention=None):
    """Measured rows by tensor ranks, those with one data rank."""
    found = where(rows, kind="measured", batch="same_micro")
    return where(found, attention=attention) if attention else found


def flops_a_second(rows, attention):
    """Of one rank on a core of its own, at the first size: median over the repeats. None where nothing was measured."""
    alone = where(measured(rows, attention), ranks=1)
    return median([r.number("flops_per_step") * r.number("tokens_per_second.median") / tokens(r) for r in alone]) if alone else None


def tokens(row):
    """Tokens of a step."""
    return row.number("global_batch") * row.number("sequence")


def step_seconds(row, rows):
    """(seconds of a step, "measured" | "predicted"), or (None, why there is none). Predicted: a rank's share of the step's
    flops at the measured rate of one rank, as if every rank had a core like this one and sums between them were free."""
    if row["kind"] == "measured":
        return tokens(row) / row.number("tokens_per_second.median"), "measured"
    rate = flops_a_second(rows, row["attention"])
    if rate is None:
        return None, "nothing measured to predict from"
    return row.number("flops_per_step") / row.number("ranks") / rate, "predicted"


def time_words(row, rows):
    """("0.91", "2250") with "~" in front of predictions; ("-", "-") without."""
    seconds, how = step_seconds(row, rows)
    if seconds is None:
        return "-", "-"
    mark = "~" if how == "predicted" else ""
    return f"{mark}{seconds:.3g}", f"{mark}{tokens(row) / seconds:.0f}"
