"""Figures: every csv in the repository, and a made-up one of every sweep, is drawn without a warning, small and the same bytes
twice; columns that nobody knows are refused; what a csv lacks is said."""
import contextlib
import gc
import io
import os
import shutil
import sys
import tempfile
import unittest
import warnings

import paths
import made_up

with warnings.catch_warnings():
    # The libraries' own, while they are imported: under -W error pyparsing also has words about the grammar that
    # matplotlib makes for the numbers on its log axes.
    warnings.simplefilter("ignore")
    import figures
    import matplotlib.pyplot as plt
    from matplotlib.mathtext import MathTextParser

    MathTextParser("path").parse("$10^{2}$")
    gc.collect()

# Sweeps that print tables and have no figure.
WITHOUT_FIGURES = ("pytorch",)
# Figures of csv files that are not made up here: those are in the repository.
OLDER = ("attention", "data_parallel")


def draw(names, experiments, out):
    """plots/all, in this process: (exit code, what it said)."""
    words, argv = io.StringIO(), sys.argv
    sys.argv = ["figures.py", *names, "--experiments", experiments, "--out", out]
    try:
        with contextlib.redirect_stdout(words), contextlib.redirect_stderr(words):
            return figures.main(), words.getvalue()
    finally:
        sys.argv = argv


class FiguresTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.made_up = os.path.join(cls.folder.name, "made_up")
        made_up.write_all(cls.made_up)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def setUp(self):
        warnings.simplefilter("error")
        self.out = tempfile.mkdtemp(dir=self.folder.name)
        self.experiments = tempfile.mkdtemp(dir=self.folder.name)

    def tearDown(self):
        self.assertEqual(plt.get_fignums(), [])

    def path(self, *parts):
        return os.path.join(self.experiments, *parts)

    def copy(self, experiment):
        shutil.copytree(os.path.join(self.made_up, experiment), self.path(experiment))

    def edit(self, experiment, change, name="results.csv"):
        self.copy(experiment)
        with open(self.path(experiment, name), encoding="utf-8") as f:
            text = f.read()
        with open(self.path(experiment, name), "w", encoding="utf-8") as f:
            f.write(change(text))

    def test_every_figure_is_drawn_small_and_without_a_date(self):
        names = [n for n in figures.FIGURES if n not in OLDER]
        code, words = draw(names, self.made_up, self.out)
        self.assertEqual(code, 0, words)
        for name in names:
            for kind in (".svg", ".png"):
                self.assertTrue(1000 < os.path.getsize(os.path.join(self.out, name + kind)) < 300000, name + kind)
            with open(os.path.join(self.out, name + ".svg"), encoding="utf-8") as f:
                self.assertNotIn("<dc:date>", f.read())

    def test_every_csv_of_the_repository_is_drawn(self):
        found = [e for e in sorted(os.listdir(paths.EXPERIMENTS)) if e not in WITHOUT_FIGURES
                 and any(os.path.exists(os.path.join(paths.EXPERIMENTS, e, n)) for n in ("results.csv", "predictions.csv"))]
        names = [n for n, (_, e) in figures.FIGURES.items() if e in found]
        self.assertEqual(set(found) - {e for _, e in figures.FIGURES.values()}, set(), "results without a figure")
        self.assertTrue(names)
        code, words = draw(names, paths.EXPERIMENTS, self.out)
        self.assertEqual(code, 0, words)

    def test_the_same_csv_gives_the_same_bytes(self):
        other = tempfile.mkdtemp(dir=self.folder.name)
        for out in (self.out, other):
            self.assertEqual(draw(["hybrid"], self.made_up, out)[0], 0)
        for kind in (".svg", ".png"):
            with open(os.path.join(self.out, "hybrid" + kind), "rb") as a, open(os.path.join(other, "hybrid" + kind), "rb") as b:
                self.assertEqual(a.read(), b.read())

    def refused(self, name, *words):
        code, said = draw([name], self.experiments, self.out)
        self.assertEqual(code, 1)
        for word in words:
            self.assertIn(word, said)
        self.assertEqual(os.listdir(self.out), [])

    def test_an_unknown_column_is_named(self):
        self.edit("hybrid", lambda text: text.replace("workload", "colour,workload", 1))
        self.refused("hybrid", "unknown column 'colour'")

    def test_a_missing_column_is_named(self):
        self.edit("weak_scaling", lambda text: text.replace(",same_bits", "", 1))
        self.refused("weak_scaling", "no column 'same_bits'")

    def test_no_csv(self):
        self.refused("reduction", "results.csv is not there", "experiments/reduction/run writes it")

    def test_an_empty_csv(self):
        self.edit("reduction", lambda _: "")
        self.refused("reduction", "is empty")

    def test_a_header_alone(self):
        self.edit("reduction", lambda text: text.splitlines()[0] + "\n")
        self.refused("reduction", "has a header and no rows")

    def test_a_row_that_is_cut_off(self):
        self.edit("reduction", lambda text: text[:-30])
        self.refused("reduction", "another number of cells")

    def without(self, experiment, unwanted, name="results.csv"):
        self.edit(experiment, lambda text: "".join(line for line in text.splitlines(True) if not unwanted(line)), name)

    def test_partial_csvs_say_what_is_missing(self):
        self.without("weak_scaling", lambda line: ",scaled,1,1," in line)
        self.refused("weak_scaling", "no rows of workload regression_scalar with ranks 1")
        self.without("time_split", lambda line: ",busy," in line)
        self.refused("stragglers", "no rows of neighbour busy")
        self.without("openmp", lambda line: ",training," in line)
        self.refused("openmp", "no rows of case training")
        self.without("memory", lambda line: ",plan,same_micro,32,8,512," in line)
        self.refused("memory", "no plan row of 32L/8H/512, same_micro")
        self.without("tensor", lambda line: ",4x64,1,1," in line)
        self.refused("tensor", "no rows of 4x64 with 1 grain")
        self.without("correctness", lambda line: ",vector," in line, "losses.csv")
        self.refused("correctness", "no rows of engine vector")
        self.without("extrapolation", lambda line: ",no,network," in line, "predictions.csv")
        self.refused("networks", "no rows of kind network")

    def test_memory_without_measurements_is_its_plans(self):
        self.without("memory", lambda line: ",measured," in line)
        self.assertEqual(draw(["memory"], self.experiments, self.out), (0, "memory: drawn\n"))

    def test_a_partial_sweep_draws_the_figures_that_it_can(self):
        self.without("time_split", lambda line: ",busy," in line)
        code, words = draw(["time_split", "stragglers"], self.experiments, self.out)
        self.assertEqual(code, 1)
        self.assertIn("time_split: drawn", words)
        self.assertIn("stragglers: not drawn", words)

    def test_full_rows_win_over_quick_ones(self):
        self.edit("hybrid", lambda text: text + "".join(line.replace(",no,", ",yes,", 1) for line in text.splitlines(True)[1:]))
        rows = figures.table.best_rows(figures.reader(self.experiments)("hybrid"))
        self.assertEqual({r["quick"] for r in rows}, {"no"})

    def test_a_figure_that_nobody_knows(self):
        with self.assertRaises(SystemExit), contextlib.redirect_stderr(io.StringIO()) as said:
            draw(["pie"], self.experiments, self.out)
        del said


if __name__ == "__main__":
    unittest.main()
