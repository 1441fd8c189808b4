"""A sweep of a program that computes nothing, for sweep_test: fake_sweep.py BUILD OUT [FLAG...]. Three points."""
import sys

import paths  # noqa: F401
from sweep import Point, Sweep, arguments, enter


def body():
    build, out, *flags = sys.argv[1:]
    sweep = Sweep("hybrid", arguments("").parse_args(["--build", build, "--out", out, "--cores", "2", *flags]))
    points = [Point({"workload": name}, "linear_regression", [f"--{name}"], ranks, seconds=0.1)
              for name, ranks in (("first", 1), ("second", 2), ("third", 4))]
    return sweep.run(points)


enter(body)
