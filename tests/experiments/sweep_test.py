"""Sweeps: interleaving, resuming after an interrupt, rows of another commit, failing runs, launchers, progress."""
import csv
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
import unittest

import paths
import columns
import machine
import sweep
import table

HERE = os.path.dirname(os.path.abspath(__file__))

# Counts its runs in the file `runs`; leaves with an error, or sleeps, where files say so.
PROGRAM = """#!/bin/sh
if [ "$1" = --version ]; then echo "linear_regression of graingrad 0, commit $(cat {d}/commit)"; exit 0; fi
echo "$*" >> {d}/runs
echo "placement: 1 rank x 1 thread, masks 0, quota none, not oversubscribed" >&2
if [ -e {d}/fail ] && [ "$1" = "--$(cat {d}/fail)" ]; then echo "linear_regression: no data (exit 10)" >&2; exit 10; fi
if [ -e {d}/hang ] && [ "$(wc -l < {d}/runs)" -eq "$(cat {d}/hang)" ]; then touch {d}/hangs; while [ -e {d}/hang ]; do sleep 0.1; done; fi
echo '{{"event":"final","mesh":{{"data":1}},"threads":1,"tokens_per_second":{{"median":5.5,"q1":5,"q3":6}},"hash":"xxh3:1","work_per_thread":[3,4]}}'
"""
LAUNCHER = """#!/bin/sh
while [ "$1" = -n ]; do shift 2; done
exec "$@"
"""


class SweepTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        d = self.folder.name
        for name, body in (("linear_regression", PROGRAM.format(d=d)), ("launcher", LAUNCHER)):
            with open(os.path.join(d, name), "w", encoding="utf-8") as f:
                f.write(body)
            os.chmod(f.name, stat.S_IRWXU)
        self.write("commit", "abc")
        self.csv = os.path.join(d, "results.csv")

    def tearDown(self):
        self.folder.cleanup()

    def write(self, name, text):
        with open(os.path.join(self.folder.name, name), "w", encoding="utf-8") as f:
            f.write(text)

    def command(self, *flags):
        d = self.folder.name
        return [sys.executable, os.path.join(HERE, "fake_sweep.py"), d, d, "--launcher", os.path.join(d, "launcher"), *flags]

    def run_sweep(self, *flags):
        return subprocess.run(self.command(*flags), capture_output=True, text=True, check=False)

    def rows(self):
        with open(self.csv, encoding="utf-8", newline="") as f:
            return list(csv.DictReader(f))

    def names(self):
        return [(r["workload"], r["repeat"]) for r in self.rows()]

    def test_every_point_once_a_repeat_in_turns(self):
        done = self.run_sweep("--repeats", "3")
        self.assertEqual(done.returncode, 0, done.stderr)
        forwards = ["first", "second", "third"]
        self.assertEqual(self.names(), [(n, r) for r, order in (("1", forwards), ("2", forwards[::-1]), ("3", forwards)) for n in order])

    def test_a_row_says_what_was_run_where(self):
        self.run_sweep("--repeats", "1", "--quick")
        row = self.rows()[2]
        self.assertEqual(list(row), columns.header("hybrid"))
        self.assertEqual((row["commit"], row["quick"], row["ranks"], row["cores"], row["oversubscribed"], row["masks"], row["flags"]),
                         ("abc", "yes", "4", "2", "yes", "0", "--third"))
        self.assertEqual((row["tokens_per_second.median"], row["work_per_thread"], row["hash"]), ("5.5", "3 4", "xxh3:1"))
        for name in ("date", "cpu", "load_before", "wall_seconds", "cpu_seconds"):
            self.assertTrue(row[name], name)

    def interrupt(self, with_signal):
        self.write("hang", "4")
        process = subprocess.Popen(self.command("--repeats", "2"), stderr=subprocess.PIPE, text=True)
        for _ in range(200):
            if os.path.exists(os.path.join(self.folder.name, "hangs")):
                break
            time.sleep(0.05)
        process.send_signal(with_signal)
        _, err = process.communicate(timeout=20)
        os.remove(os.path.join(self.folder.name, "hang"))
        return process.returncode, err

    def test_an_interrupted_sweep_goes_on_where_it_stopped(self):
        for with_signal in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            with self.subTest(signal=with_signal.name):
                code, err = self.interrupt(with_signal)
                self.assertEqual(len(self.rows()), 3)
                if with_signal != signal.SIGKILL:
                    self.assertEqual(code, 130)
                    self.assertIn("goes on where this stopped", err)
                again = self.run_sweep("--repeats", "2")
                self.assertEqual(again.returncode, 0, again.stderr)
                self.assertIn("/3]", again.stderr)
                self.assertEqual(sorted(self.names()), sorted((n, r) for n in ("first", "second", "third") for r in "12"))
                self.assertEqual(self.run_sweep("--repeats", "2").stderr, "")
                for name in ("runs", "hangs", "results.csv"):
                    os.remove(os.path.join(self.folder.name, name))

    def test_a_line_that_was_cut_off_is_run_again(self):
        self.run_sweep("--repeats", "1")
        with open(self.csv, encoding="utf-8") as f:
            text = f.read()
        for cut in (len(text) - 1, len(text) - 40):
            with open(self.csv, "w", encoding="utf-8") as f:
                f.write(text[:cut])
            again = self.run_sweep("--repeats", "1")
            self.assertEqual(again.returncode, 0)
            self.assertIn("[   1/1] hybrid 1: third", again.stderr)
            self.assertEqual(self.names(), [("first", "1"), ("second", "1"), ("third", "1")])
            self.assertEqual({r["hash"] for r in self.rows()}, {"xxh3:1"})

    def test_rows_of_another_commit_do_not_mix(self):
        self.run_sweep("--repeats", "1")
        self.run_sweep("--repeats", "1", "--quick")
        self.write("commit", "def")
        refused = self.run_sweep("--repeats", "1")
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("rows of commit abc, this is def; --fresh drops them", refused.stderr)
        self.assertEqual(self.run_sweep("--repeats", "1", "--fresh").returncode, 0)
        self.assertEqual(sorted((r["commit"], r["quick"]) for r in self.rows()), [("abc", "yes")] * 3 + [("def", "no")] * 3)

    def test_other_columns_are_refused(self):
        self.write("results.csv", "a,b\n1,2\n")
        refused = self.run_sweep()
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("other columns", refused.stderr)

    def test_a_failed_run_leaves_no_row_and_an_error_and_is_tried_again(self):
        self.write("fail", "second")
        failed = self.run_sweep("--repeats", "1")
        self.assertEqual(failed.returncode, 1)
        self.assertIn("no data (exit 10)", failed.stderr)
        self.assertEqual([r["workload"] for r in self.rows()], ["first", "third"])
        os.remove(os.path.join(self.folder.name, "fail"))
        self.assertEqual(self.run_sweep("--repeats", "1").returncode, 0)
        self.assertEqual(len(self.rows()), 3)

    def test_progress_counts_and_says_what_is_left(self):
        err = self.run_sweep("--repeats", "2").stderr.splitlines()
        self.assertEqual(len(err), 6)
        self.assertRegex(err[0], r"^\[ +1/6\] hybrid 1: first 1x1  5\.5/s  [\d.]+ s, left \d+ (s|min)$")
        self.assertRegex(err[-1], r"left 0 s$")

    def test_plan_runs_nothing(self):
        planned = self.run_sweep("--repeats", "5", "--plan")
        self.assertRegex(planned.stdout, r"^hybrid: 15 runs, about \d+ s$")
        self.assertFalse(os.path.exists(os.path.join(self.folder.name, "runs")))


class CommandTest(unittest.TestCase):
    def command(self, launcher, ranks, threads, **more):
        options = sweep.arguments("").parse_args(["--launcher", launcher, "--cores", "4", "--build", "/b", "--out", "/nowhere"])
        words, environment, _ = sweep.Sweep("hybrid", options).command(sweep.Point({}, "p", ["--x"], ranks, threads, **more))
        return " ".join(words), environment

    def test_mpirun_binds_one_core_a_thread(self):
        words, environment = self.command("mpirun --hostfile H --cores 4", 2, 2)
        self.assertEqual(words, "mpirun --hostfile H --cores 4 -n 2 --map-by slot:PE=2 --bind-to core /b/p --x --json")
        self.assertNotIn("OMP_PROC_BIND", environment)

    def test_more_threads_than_cores_are_not_bound_and_do_not_spin(self):
        words, environment = self.command("mpirun", 4, 2)
        self.assertIn("--oversubscribe --bind-to none -x OMP_PROC_BIND -x OMP_WAIT_POLICY", words)
        self.assertEqual((environment["OMP_PROC_BIND"], environment["OMP_WAIT_POLICY"]), ("false", "passive"))

    def test_srun(self):
        self.assertTrue(self.command("srun", 2, 2)[0].startswith("srun -n 2 -c 2 --cpu-bind=cores /b/p"))
        self.assertTrue(self.command("srun", 8, 1)[0].startswith("srun -n 8 -c 1 --overcommit --cpu-bind=none /b/p"))

    def test_rank_counts(self):
        self.assertEqual(sweep.rank_counts(1, True), [1, 2])
        self.assertEqual(sweep.rank_counts(2, False), [1, 2, 4, 8])
        self.assertEqual(sweep.rank_counts(6, False), [1, 2, 4, 6, 12, 24])

    def test_slots_of_a_hostfile(self):
        with tempfile.NamedTemporaryFile("w", suffix=".hosts") as f:
            f.write("a slots=16\n# b slots=4\nc slots = 8 max_slots=9\nd\n")
            f.flush()
            self.assertEqual(machine.launcher_cores(["mpirun", "--hostfile", f.name]), 25)

    def test_cpu_lists(self):
        self.assertEqual(machine.parse_cpus("0-2,5"), {0, 1, 2, 5})
        self.assertEqual(machine.parse_cpus("none"), set())


class TableTest(unittest.TestCase):
    def test_quartiles_are_numpys(self):
        self.assertEqual(table.quartiles([4, 1, 3, 2]), (2.5, 1.75, 3.25))
        self.assertEqual(table.quartiles([7]), (7, 7, 7))

    def test_ratios_are_of_one_repeat(self):
        self.assertEqual(table.ratios({"1": 4.0, "2": 9.0, "3": 1.0}, {"1": 2.0, "2": 3.0}), [2.0, 3.0])

    def test_a_column_that_is_not_there_is_named(self):
        with self.assertRaisesRegex(table.TableError, "no column 'speed'"):
            table.Row("x.csv", {"a": "1"})["speed"]  # noqa: B018
        with self.assertRaisesRegex(table.TableError, "'fast' in column 'a' is not a number"):
            table.Row("x.csv", {"a": "fast"}).number("a")


if __name__ == "__main__":
    unittest.main()
