"""Every sweep from end to end on a machine that behaves exactly as the extrapolation's model says: all rows are there, all
summaries print, the model finds the machine's parameters and predicts every point that it was not fitted to. And what the
sweeps plan on machines of other sizes."""
import os
import re
import stat
import subprocess
import sys
import tempfile
import unittest

import paths
import columns
import fake_machine as fake
import table

ALL = os.path.join(paths.EXPERIMENTS, "all")
LAUNCHER = '#!/bin/sh\nwhile [ "$1" = -n ]; do FAKE_RANKS=$2; shift 2; done\nexport FAKE_RANKS\nexec "$@"\n'


class WholeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.build = os.path.join(cls.folder.name, "build")
        os.mkdir(cls.build)
        machine = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fake_machine.py")
        for program in ("linear_regression", "gpt_attention", "reduction_bench", "memory_bench"):
            path = os.path.join(cls.build, program)
            with open(path, "w", encoding="utf-8") as f:
                f.write(f'#!/bin/sh\nexec {sys.executable} -SE {machine} {program} "$@"\n')
            os.chmod(path, stat.S_IRWXU)
        cls.launcher = os.path.join(cls.build, "launcher")
        with open(cls.launcher, "w", encoding="utf-8") as f:
            f.write(LAUNCHER)
        os.chmod(cls.launcher, stat.S_IRWXU)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def all(self, out, *flags):
        return subprocess.run([sys.executable, ALL, "--build", self.build, "--launcher", self.launcher, "--no-build", "--no-plots", "--out",
                               os.path.join(self.folder.name, out), *flags], capture_output=True, text=True, check=False)

    def csv(self, out, experiment, name="results.csv", header=None):
        return table.read(os.path.join(self.folder.name, out, experiment, name), header or columns.header(experiment))

    def test_every_sweep_and_its_summary(self):
        ran = self.all("quick", "--quick", "--repeats", "1", "--cores", "2")
        self.assertEqual(ran.returncode, 0, ran.stderr[-2000:])
        planned = {name: int(runs) for name, runs in re.findall(r"^(\w+): (\d+) runs", ran.stderr, re.M)}
        self.assertEqual(len(planned), 9)
        for name, runs in planned.items():
            self.assertEqual(len(self.csv("quick", name)), runs, name)
            self.assertRegex(ran.stdout, rf"(?m)^{name}: {runs} quick rows, commit fake")
        self.assertIn("left 0 s", ran.stderr.strip().splitlines()[-1])
        for words in ("recommended for gpt: mpirun -n", "PREDICTIONS, not measurements", "ms (second seed: 10 ms)"):
            self.assertIn(words, ran.stdout)
        # Nothing is left to do, and the summaries can be had again.
        again = self.all("quick", "--quick", "--repeats", "1", "--cores", "2", "--plan")
        self.assertEqual(set(re.findall(r": (\d+) runs", again.stderr)), {"0"})
        self.assertEqual(self.all("quick", "--summary", "--only", "weak_scaling,openmp").returncode, 0)
        self.check_weights(self.csv("quick", "weak_scaling"))
        self.check_predictions(ran.stdout)
        self.check_other_networks()

    def check_weights(self, rows):
        scaled = table.where(rows, kind="scaled", workload="attention")
        self.assertEqual([(r["ranks"], r["same_bits"]) for r in scaled], [("1", "reference"), ("2", "yes"), ("4", "unchecked")])

    def check_predictions(self, said):
        for kind in ("tree", "allreduce", "gather-broadcast"):
            alpha, beta = map(float, re.search(rf"{kind}: alpha (\S+) us a message, beta (\S+) ns a byte", said).groups())
            self.assertAlmostEqual(alpha * 1e-6 / fake.ALPHA, 1, places=2)
            self.assertAlmostEqual(beta * 1e-9 / fake.BETA, 1, places=2)
        found = self.csv("quick", "extrapolation", "predictions.csv", columns.PREDICTIONS)
        known = [r for r in found if r["kind"] != "network"]
        self.assertEqual({r["kind"] for r in known}, {"held_out", "weak_scaling", "strong_scaling"})
        self.assertEqual({r["oversubscribed"] for r in known}, {"no", "yes"})
        for r in known:
            self.assertLess(abs(r.number("error")), 0.01, dict(r))
        beyond = [r for r in found if r["kind"] == "network"]
        self.assertEqual({int(r["ranks"]) for r in beyond}, {8, 16, 32, 64, 100, 128, 200, 256, 512, 1024})
        for r in beyond:
            self.assertEqual(r["measured_seconds"], "")
            self.assertLess(r.number("efficiency"), 1)

    def check_other_networks(self):
        command = [sys.executable, os.path.join(paths.EXPERIMENTS, "extrapolation", "run"), "--quick", "--repeats", "1", "--cores", "2", "--build",
                   self.build, "--launcher", self.launcher, "--out", os.path.join(self.folder.name, "quick", "extrapolation")]
        ran = subprocess.run([*command, "--alpha", "1e-3", "--beta", "1e-6"], capture_output=True, text=True, check=False)
        self.assertEqual(ran.returncode, 0, ran.stderr[-2000:])
        found = self.csv("quick", "extrapolation", "predictions.csv", columns.PREDICTIONS)
        self.assertEqual({float(r["alpha"]) for r in table.where(found, network="given")}, {1e-3})
        self.assertEqual(subprocess.run([*command, "--alpha", "1"], capture_output=True, check=False).returncode, 2)

    def test_plans_on_machines_of_other_sizes(self):
        for cores in ("2", "48"):
            planned = self.all("none", "--plan", "--cores", cores)
            self.assertEqual(planned.returncode, 0, planned.stderr)
            seconds = dict(re.findall(r"^(\w+): [1-9]\d* runs, about (\d+) s", planned.stderr, re.M))
            self.assertEqual(len(seconds), 9, planned.stderr)
            if cores == "2":
                self.assertLess(sum(map(int, seconds.values())), 3600)
        planned = self.all("none", "--plan", "--cores", "2", "--quick")
        self.assertLess(sum(map(int, re.findall(r"about (\d+) s", planned.stderr))), 600)

    def test_a_sweep_that_nobody_knows(self):
        self.assertEqual(self.all("none", "--only", "nap").returncode, 2)


if __name__ == "__main__":
    unittest.main()
