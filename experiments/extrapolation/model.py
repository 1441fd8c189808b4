"""The model behind the predictions: seconds of a step on P ranks are compute + exchange + waiting for the slowest.

compute    slope * micro-batches of the fullest rank + a constant, both fitted to one-rank runs of two sizes; times the
           slowdown that a rank sees while all cores compute. More ranks than cores take turns.
exchange   alpha * messages + beta * bytes, fitted to sums of known sizes (relative least squares, neither below 0). Over a
           network its alpha and beta are added to the local ones: what a rank copies and adds locally it still does.
straggler  sigma * the expected largest of P normal deviates (Blom), sigma from the measured wait of one job.
What it leaves out: contention of a network, topology, overlap of exchange and backward, jitter with a long tail.
"""
import math
from dataclasses import dataclass
from statistics import NormalDist

# Name, alpha (s a message), beta (s a byte), and where they are from.
NETWORKS = (
    ("10 GbE", 25e-6, 1 / 1.19e9,
     "25 us: small messages of MPICH over kernel TCP, https://gist.github.com/jfgrimm/3af692a5475bdd4ed836b5a18197a209 (there over "
     "slower Ethernet: the time is the software's); 1.19 GB/s: 10 Gbit/s less Ethernet, IP and TCP headers at 1,500 bytes"),
    ("100 Gb InfiniBand", 1e-6, 1 / 11e9,
     "0.9 us small messages and 10.3 GB/s at 32 KiB, still rising: Open MPI over InfiniBand, same measurements; 11 GB/s is 88 % "
     "of the 12.5 GB/s line"),
)


def fit_alpha_beta(points):
    """(alpha, beta) from (messages, bytes, seconds): least squares of the relative error, neither below 0."""
    rows = [(m / t, b / t) for m, b, t in points]
    aa, ab, bb = (sum(f(m, b) for m, b in rows) for f in (lambda m, b: m * m, lambda m, b: m * b, lambda m, b: b * b))
    a1, b1 = sum(m for m, _ in rows), sum(b for _, b in rows)
    determinant = aa * bb - ab * ab
    if determinant > 1e-12 * aa * bb:
        alpha, beta = (a1 * bb - b1 * ab) / determinant, (b1 * aa - a1 * ab) / determinant
        if alpha >= 0 and beta >= 0:
            return alpha, beta
        if alpha < 0:
            return 0.0, b1 / bb
    return (a1 / aa, 0.0) if aa else (0.0, b1 / bb if bb else 0.0)


def fit_line(points):
    """(slope, constant) from (x, seconds) of two or more sizes, relative least squares, constant not below 0."""
    slope, constant = fit_alpha_beta([(x, 1.0, t) for x, t in points])
    return slope, constant


def blom(ranks):
    """The expected largest of so many standard normal deviates (Blom, 1958); 0 for one."""
    return 0.0 if ranks < 2 else NormalDist().inv_cdf((ranks - 0.375) / (ranks + 0.25))


def cost(kind, ranks, count, plan):
    """(messages, bytes) that the slowest rank has one after another; `plan` is the bench's dry run for the tree."""
    if ranks == 1:
        return 0, 0
    rounds = math.ceil(math.log2(ranks))
    if kind == "allreduce":
        return 2 * rounds, 2 * 4 * count * (ranks - 1) / ranks
    if kind == "gather-broadcast":
        return plan["communication"]["calls"] - 1 + ranks - 1 + rounds, 2 * 4 * count * (ranks - 1)
    small = plan["communication"]["calls"] == 1
    return rounds if small else plan["messages"], plan["communication"]["bytes"]


@dataclass
class Compute:
    """A workload's compute, calibrated."""
    slope: float      # s a micro-batch on an otherwise idle machine
    constant: float   # s a step: update, checks
    crowded: float    # slowdown while every core computes
    sigma: float      # s of spread of one rank's compute, at `sigma_at` micro-batches
    sigma_at: int


def step_seconds(compute, exchange, micro_batches, ranks, cores):
    """(compute, exchange, straggler) seconds of a step; `exchange` = (alpha, beta, messages, bytes). `cores` are those of the
    machine that was calibrated; ranks beyond them take turns, unless cores is None (as many nodes as are needed)."""
    share = -(-micro_batches // ranks)
    busy = 1 + (compute.crowded - 1) * (1.0 if cores is None or cores == 1 else min(1.0, (min(ranks, cores) - 1) / (cores - 1)))
    turns = 1.0 if cores is None else max(1.0, ranks / cores)
    alone = busy * (compute.slope * share + compute.constant)
    alpha, beta, messages, size = exchange
    straggler = compute.sigma * blom(ranks) * math.sqrt(share / compute.sigma_at) if turns == 1 else 0.0
    return turns * alone, turns * (alpha * messages + beta * size) if ranks > 1 else 0.0, straggler
