"""The rows of the first, third and fourth seed about cutting a model over ranks. Each runs the program on small models, reads
a dry run, or runs the test that holds the row."""
import glob
import os
import re
import tempfile

import memory_table as seed
import sweep
from verdict import judged

# Two layers with dropout, clipping and accumulation, and the sums' grains fixed.
SMALL = ("--model gpt --layers 2 --width 32 --heads 4 --vocab 127 --sequence 24 --micro-batch 2 --global-batch 12 --grains 3 "
         "--tensor-grains 4 --steps 4 --threads 1 --dropout 0.1 --clip-grad 0.5").split()


def small(c, *flags, ranks=1):
    return c.run("gpt_attention", [*SMALL, *flags], ranks)


def same(c, cases, what):
    """Every case (flags, ranks) ends with the weights of one rank."""
    serial = small(c)["hash"]
    other = [f"{' '.join(flags) or 'data'} on {ranks}" for flags, ranks in cases if small(c, *flags, ranks=ranks)["hash"] != serial]
    return judged(not other, f"{what}: one hash on {len(cases) + 1} layouts" if not other else f"other bits: {'; '.join(other)}")


def held(name, what):
    def check(c):
        ran = c.ctest(name)
        return judged(ran.ok, f"{what}: {ran.words}")
    return check


def counts(c, layers, *flags):
    """Collectives of a micro-batch by layout, (forward, backward) and bytes sent, from a dry run's table."""
    words = c.words("gpt_attention", ["--model", "gpt", "--layers", str(layers), "--width", "64", "--heads", "4", "--sequence", "32",
                                      "--global-batch", "2", "--dry-run", "--world", "2", "--tensor", "2", "--threads", "1", *flags])
    rows = re.findall(r"^  ([a-z+-]+) +(\d+) +(\d+) +(\d+) +\d+$", words, re.M)
    return {name: (int(forward) // 2, int(backward) // 2, int(sent)) for name, forward, backward, sent in rows}


def a_layer(c, layout, *flags):
    one, two = counts(c, 1, *flags)[layout], counts(c, 2, *flags)[layout]
    return two[0] - one[0], two[1] - one[1]


def messages_of_a_layer(c):
    forward, backward = a_layer(c, "torchshard")
    return judged((forward, backward) == (2, 2), f"{forward} forward and {backward} backward a layer, one each for attention and MLP")


def no_full_logits(c):
    words = c.words("gpt_attention", "--size gpt2 --sequence 64 --dry-run --world 4 --tensor 4 --threads 1 --plan".split())
    return judged("50257]" not in words and "125" in words, "no buffer of GPT-2's plan on 4 tensor ranks is 50,257 wide")


def orthogonal_groups(c):
    record = small(c, "--tensor", "2", ranks=4)
    mesh = record["mesh"]
    tests = c.gtest("tests/parallel/summation_test", "Mesh.*")
    return judged(mesh["data"] == 2 and mesh["tensor"] == 2 and tests.ok, f"4 ranks run as {mesh['data']} x {mesh['tensor']}; {tests.words}")


def eight_of_one_group(c):
    flags = ["--model", "gpt", "--layers", "1", "--width", "64", "--heads", "8", "--vocab", "64", "--sequence", "16", "--global-batch", "2",
             "--tensor-grains", "8", "--steps", "3", "--threads", "1"]
    eight = c.run("gpt_attention", [*flags, "--tensor", "8"], 8)["hash"]
    tests = c.ctest("replicas_test")
    return judged(eight == c.run("gpt_attention", flags)["hash"] and tests.ok, f"1 x 8 has one rank's bits; other data on a rank is found: {tests.words}")


def published_counts(c):
    found = [c.run("gpt_attention", seed.plan_flags(size, "ddp"), seed.RANKS, mpi=False)["parameters"] for size in seed.SIZES]
    return judged(found == [size.parameters for size in seed.SIZES], "dry runs say " + ", ".join(f"{n:,}" for n in found))


def model_unchanged(c):
    sources = glob.glob(os.path.join(sweep.ROOT, "nn", "*.cpp")) + glob.glob(os.path.join(sweep.ROOT, "nn", "*.h"))
    knows = [os.path.basename(path) for path in sources if "parallel/" in open(path, encoding="utf-8").read()]
    linked = c.ctest("nn_alone")
    return judged(sources and not knows and linked.ok, f"{len(knows)} of {len(sources)} files of nn/ include parallel/; it links without it: {linked.words}")


def drawn(c):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "graph.dot")
        c.words("gpt_attention", ["--model", "gpt", "--dry-run", "--world", "2", "--tensor", "2", "--draw", path, "--fold", "0", "--threads", "1"])
        text = open(path, encoding="utf-8").read()
    marks = text.count("of heads") + text.count("of out") + text.count("of vocab")
    return judged('label="serial"' in text and marks > 0 and text.count("all_reduce") > 0,
                  f"both graphs in one file; {marks} parts and {text.count('all_reduce tensor')} all_reduces marked")


def only_the_shard(c):
    whole, part = (small(c, *flags, ranks=ranks)["plan_bytes"] for flags, ranks in (((), 1), (("--tensor", "4"), 4)))
    used = small(c, "--tensor", "4", ranks=4)["used_bytes"]
    return judged(part["parameters"] < 0.4 * whole["parameters"] and used == part["peak"],
                  f"parameters {whole['parameters']} bytes on one rank, {part['parameters']} on each of 4, planned = used")


def degrees(c):
    record = small(c, "--tensor", "4", ranks=4)
    return judged(record["mesh"]["data"] == 1, f"--tensor 4 on 4 ranks: data {record['mesh']['data']}, derived")


def side_by_side(c):
    table = counts(c, 2, "--layout", "colotensor")
    ours, theirs = table["megatron"], table["colotensor"]
    return judged(ours[2] < theirs[2], f"forward, backward, bytes a step: colotensor {theirs[0]}, {theirs[1]}, {theirs[2]}; megatron {ours[0]}, "
                  f"{ours[1]}, {ours[2]}")


def uneven_heads(c):
    flags = ["--model", "gpt", "--layers", "1", "--width", "40", "--heads", "5", "--vocab", "17", "--sequence", "16", "--global-batch", "2", "--tensor-grains",
             "8", "--steps", "3", "--threads", "1"]
    three = c.run("gpt_attention", [*flags, "--tensor", "3"], 3)["hash"]
    refused = c.gtest("tests/apps/programs/tensor_test", "Tensor.RefusesWhatDoesNotFit")
    return judged(three == c.run("gpt_attention", flags)["hash"] and refused.ok, "5 heads on 3 ranks: one rank's bits; more ranks than heads are refused")


ROWS = (
    ("S1-04", "both embedding manners", lambda c: same(c, [(("--tensor", "2", "--layout", l), 2) for l in ("torchshard", "torchshard-column")], "rows and columns")),
    ("S1-05", "one all-reduce each way", messages_of_a_layer),
    ("S1-06", "MLP: column, then row", messages_of_a_layer),
    ("S1-07", "parallel cross entropy", no_full_logits),
    ("S1-08", "mixed key-query-value", held("layouts_test", "fused and three layers")),
    ("S1-09", "slice, scatter, gather, ...", held("conversions_test", "verbs and adjoints")),
    ("S1-10", "orthogonal groups", orthogonal_groups),
    ("S1-11", "1 x 8, same input data", eight_of_one_group),
    ("S1-12", "dropout under tensor ranks", lambda c: same(c, [(("--tensor", "2"), 2), (("--tensor", "4"), 4)], "dropout 0.1")),
    ("S1-14", "seven parameter counts", published_counts),
    ("S3-01", "least edition to serial code", model_unchanged),
    ("S3-04", "a DAG, and the modified one", drawn),
    ("S3-06", "only the shard is allocated", only_the_shard),
    ("S3-07", "tp_degree, dp derived", degrees),
    ("S3-08", "ShardSpec, row and column", held("conversions_test", "verbs and adjoints")),
    ("S3-09", "names to placements", lambda c: same(c, [(("--tensor", "3", "--layout", "colotensor"), 3)], "the tutorial's mapping trains")),
    ("S3-10", "set_output_replicate(False)", held("layouts_test", ":out rows")),
    ("S3-11", "patterns of all operators", held("property_test", "1,000 random graphs of ops")),
    ("S3-12", "the last dimension is cut", held("layouts_test", "each table cuts what its seed cuts")),
    ("S3-15", "the same command on one", lambda c: same(c, [(("--tensor", "4"), 4)], "-n 1 and -n 4")),
    ("S3-16", "collectives side by side", side_by_side),
    ("S4-06", "one collective", messages_of_a_layer),
    ("S4-07", "f and g", held("conversions_test", "adjointness of every conversion")),
    ("S4-09", "d_tp <= n_H", uneven_heads),
    ("S4-13", "--sequence-parallel", lambda c: same(c, [(("--tensor", "2", "--sequence-parallel"), 2), (("--tensor", "2", "--sequence-parallel"), 4)], "rows cut")),
    ("S4-15", "--clip-grad", lambda c: same(c, [(("--tensor", "2"), 4), (("--tensor", "3"), 3)], "clipped at 0.5")),
)
