"""Draws every figure, or the ones that are named; see plots/README.md. Exit 1 where one could not be drawn."""
import argparse
import os
import sys

import draw

sys.path.insert(0, os.path.join(draw.ROOT, "experiments"))
import columns
import memory_figures
import prediction_figures
import result_figures
import scaling_figures
import split_figures
import sum_figures
import table
import tensor_figures
import thread_figures

# Name of the figure, and what draws it from which experiment.
FIGURES = {
    "weak_scaling": (scaling_figures.weak_scaling, "weak_scaling"),
    "strong_scaling": (scaling_figures.strong_scaling, "strong_scaling"),
    "time_split": (split_figures.time_split, "time_split"),
    "stragglers": (split_figures.stragglers, "time_split"),
    "reduction": (sum_figures.reduction, "reduction"),
    "openmp": (thread_figures.openmp, "openmp"),
    "openmp_split": (thread_figures.openmp_split, "openmp"),
    "openmp_memory": (thread_figures.openmp_memory, "openmp"),
    "hybrid": (thread_figures.hybrid, "hybrid"),
    "memory": (memory_figures.memory, "memory"),
    "tensor": (tensor_figures.tensor, "tensor"),
    "extrapolation": (prediction_figures.extrapolation, "extrapolation"),
    "networks": (prediction_figures.networks, "extrapolation"),
    "correctness": (result_figures.correctness, "correctness"),
    "attention": (result_figures.attention, "attention"),
    "data_parallel": (result_figures.data_parallel, "data_parallel"),
}


def reader(folder):
    def read(experiment, name="results.csv", header=None):
        return table.read(os.path.join(folder, experiment, name), header or columns.header(experiment),
                          f"experiments/{experiment}/run writes it")
    return read


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help="one or more of: " + ", ".join(FIGURES))
    parser.add_argument("--experiments", default=os.path.join(draw.ROOT, "experiments"), metavar="DIR")
    parser.add_argument("--out", default=os.path.join(draw.ROOT, "plots", "figures"), metavar="DIR")
    options = parser.parse_args()
    for name in options.figures:
        if name not in FIGURES:
            parser.error(f"no figure named '{name}'; there are {', '.join(FIGURES)}")
    failed = 0
    for name in options.figures or FIGURES:
        function, _ = FIGURES[name]
        try:
            draw.save(function(reader(options.experiments)), options.out, name)
            print(f"{name}: drawn")
        except table.TableError as error:
            draw.plt.close("all")  # what was begun
            print(f"{name}: not drawn: {error}", file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
