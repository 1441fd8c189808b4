"""seedcheck: which rows are chosen, what fails, what does not, and the exit code."""
import io
import contextlib
import os
import tempfile
import unittest

import paths
import seedrows
import table
import verdict
from verdict import Verdict, chosen, fail, judged, plan, report, skipped

GOOD = ("S2-01", "x", lambda _: judged(True, "1"))
BAD = ("S2-02", "x", lambda _: judged(False, "2"))


def run(rows):
    lines = []
    code = report(rows, None, (table.TableError,), lines.append)
    return code, lines


def missing(_):
    raise table.TableError("experiments/x/results.csv is not there")


class ReportTest(unittest.TestCase):
    def test_all_pass(self):
        code, lines = run([GOOD])
        self.assertEqual(code, 0)
        self.assertIn("S2-01   pass", lines[1])
        self.assertEqual(lines[-1], "1 rows, 0 failed")

    def test_a_failing_row_is_exit_1(self):
        code, lines = run([GOOD, BAD])
        self.assertEqual(code, 1)
        self.assertIn("S2-02   fail", lines[2])

    def test_skipped_and_plan_are_not_failures(self):
        code, lines = run([("S2-22b", "x", lambda _: skipped("no CUDA module")), ("S2-24", "x", lambda _: plan("0.9"))])
        self.assertEqual(code, 0)
        self.assertIn("skipped", lines[1])
        self.assertIn("(no CUDA module)", lines[1])
        self.assertIn("plan", lines[2])

    def test_a_missing_csv_fails_and_names_it(self):
        code, lines = run([("S2-10", "x", missing)])
        self.assertEqual(code, 1)
        self.assertIn("fail", lines[1])
        self.assertIn("results.csv is not there", lines[1])

    def test_other_exceptions_are_bugs(self):
        with self.assertRaises(ZeroDivisionError):
            run([("S2-10", "x", lambda _: 1 / 0)])


class ChosenTest(unittest.TestCase):
    def ids(self, *patterns, rows=(GOOD, BAD), required=()):
        return [row[0] for row in chosen(rows, required, list(patterns))]

    def test_ids_and_prefixes(self):
        self.assertEqual(self.ids(), ["S2-01", "S2-02"])
        self.assertEqual(self.ids("S2"), ["S2-01", "S2-02"])
        self.assertEqual(self.ids("S2-02"), ["S2-02"])

    def test_a_row_without_a_command_fails(self):
        for patterns, required in (((), ("S2-01", "S2-03")), (("S2-03",), ("S2-03",)), (("S4-01",), ()), (("S2",), ("S2-03",))):
            code, lines = run(chosen((GOOD,), required, list(patterns)))
            self.assertEqual(code, 1, patterns)
            self.assertTrue(any("no command checks this row" in line for line in lines), patterns)

    def test_halves_cover_their_row(self):
        self.assertEqual(self.ids("S2-22", rows=(("S2-22a", "", None), ("S2-22b", "", None)), required=("S2-22",)), ["S2-22a", "S2-22b"])


class RowsTest(unittest.TestCase):
    def test_every_required_row_has_a_check(self):
        self.assertEqual([r for r in chosen(seedrows.ROWS, seedrows.REQUIRED, []) if r not in seedrows.ROWS], [])
        count = {s: sum(r.startswith(s) for r in seedrows.REQUIRED) for s in ("S1", "S2", "S3", "S4")}
        self.assertEqual(count, {"S1": 14, "S2": 24, "S3": 11, "S4": 8})

    def test_the_script_leaves_with_1_where_measurements_are_missing(self):
        script = paths.script("experiments/seedcheck", "seedcheck")
        with tempfile.TemporaryDirectory() as empty:
            argv, script.sys.argv = script.sys.argv, ["seedcheck", "S2-10", "S2-22b", "--experiments", empty, "--build", empty]
            out = io.StringIO()
            try:
                with contextlib.redirect_stdout(out):
                    code = script.main()
            finally:
                script.sys.argv = argv
        self.assertEqual(code, 1)
        self.assertRegex(out.getvalue(), r"S2-10 +fail .*weak_scaling/run writes it")
        self.assertRegex(out.getvalue(), r"S2-22b +skipped .*\(no CUDA module\)")


class JudgeTest(unittest.TestCase):
    """One measured row through the real judge: efficiencies above and below the target."""

    class Checker:
        def __init__(self, slow):
            self.slow = slow

        def csv(self, name):
            import columns
            blank = dict.fromkeys(columns.header(name), "0")
            rows = []
            for ranks, rate in (("1", 1000.0), ("2", 2000.0 / self.slow)):
                rows.append(table.Row("x", {**blank, "workload": "regression_scalar", "kind": "scaled", "ranks": ranks, "cores": "2",
                                            "repeat": "1", "global_batch": str(10000 * int(ranks)), "oversubscribed": "no",
                                            "tokens_per_second.median": str(rate), "quick": "no", "commit": "abc"}))
            return rows

        def source(self, rows):
            return rows[0]["commit"]

    def test_weak_scaling(self):
        self.assertEqual(seedrows.weak(self.Checker(1.02)).status, "pass")
        self.assertEqual(seedrows.weak(self.Checker(1.10)).status, "fail")
        self.assertIn("0.909", seedrows.weak(self.Checker(1.10)).ours)


if __name__ == "__main__":
    unittest.main()
