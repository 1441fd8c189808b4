"""What the sweeps share: start a program on so many ranks and threads, write what it did as one raw row of a csv, again and
again in interleaved repeats, and go on where an interrupt left off. Standard library only.

A sweep is a list of Points. `Sweep.run` does all points once (repeat 1), then all in the opposite order (repeat 2), and so
on, so that a drift of the machine meets every point alike; medians and ratios are formed later, from the raw rows. A row is
written whole when its run has ended, so an interrupted sweep that is started again runs what is missing and nothing twice.
"""
import argparse
import contextlib
import csv
import datetime
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field

import columns
import machine
import table

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@dataclass
class Point:
    """One thing to run. `key` has the columns of columns.KEYS; ranks and threads belong to the key as well."""
    key: dict
    program: str
    flags: list
    ranks: int = 1
    threads: int = 1
    environment: dict = field(default_factory=dict)
    bind: bool = True            # one core a thread where there are enough
    beside: object = None        # a context manager that does something else to the machine meanwhile
    repeats: int | None = None   # None: the sweep's
    result: object = None        # what a run adds to its row: a function of the record and of what was seen from outside
    skip: str = ""               # why it is not run at all: the row says so
    seconds: float = 2.0         # a guess, until it has been measured


class Failed(Exception):
    """A run that did not end with a final record."""


def arguments(description, parser=None):
    """The command line that every sweep has."""
    parser = parser or argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer points, steps and repeats; rows say so")
    parser.add_argument("--repeats", type=int, help="interleaved repeats of every point (default 5, quick 2)")
    parser.add_argument("--fresh", action="store_true", help="drop the csv's rows of this kind (quick or full) first")
    parser.add_argument("--launcher", default="mpirun", metavar="COMMAND",
                        help='what starts ranks: mpirun (the default), "mpirun --hostfile H", "srun"')
    parser.add_argument("--cores", type=int, help="cores that the launcher can give (default: this machine's, or the hostfile's)")
    parser.add_argument("--build", default=os.path.join(ROOT, "build"), metavar="DIR", help="where the programs lie")
    parser.add_argument("--out", metavar="DIR", help="where the csv lies (default: the experiment's folder)")
    parser.add_argument("--plan", action="store_true", help="print how many runs are left and about how many seconds, and leave")
    parser.add_argument("--summary", action="store_true", help="print the csv's summary and leave")
    return parser


def rank_counts(cores, quick):
    """1, 2, 4, ... and the cores; beyond them twice and (full) four times as many, oversubscribed."""
    counts = {1, cores}
    power = 2
    while power < cores:
        counts.add(power)
        power *= 2
    counts.update({2 * cores} if quick else {2 * cores, 4 * cores})
    return sorted(counts)


class Sweep:
    def __init__(self, name, options):
        self.name, self.options = name, options
        self.launcher = shlex.split(options.launcher)
        self.cores = options.cores or machine.launcher_cores(self.launcher) or machine.local_cores()
        self.repeats = options.repeats or (2 if options.quick else 5)
        self.folder = options.out or os.path.join(ROOT, "experiments", name)
        self.path = os.path.join(self.folder, "results.csv")
        self.header = columns.header(name)
        self.keys = columns.KEYS[name] + ("ranks", "threads")
        self.quick = "yes" if options.quick else "no"
        self.cpu = machine.cpu_model()
        self.failures = []
        self.rows = self._load()

    # -- the csv ---------------------------------------------------------------------------------------------------

    def _load(self):
        """The file's rows; a last line that an interrupt cut off is dropped from the file."""
        if not os.path.exists(self.path) or os.path.getsize(self.path) == 0:
            return []
        with open(self.path, encoding="utf-8", newline="") as f:
            text = f.read()
        if not text.endswith("\n"):
            text = text[:text.rfind("\n") + 1]
            self._replace(text)
            if not text:
                return []
        reader = csv.DictReader(io.StringIO(text))
        if list(reader.fieldnames or []) != self.header:
            raise SystemExit(f"{self.name}: {self.path} has other columns than this sweep writes; move it away")
        return list(reader)

    def _replace(self, text):
        with open(self.path + ".new", "w", encoding="utf-8", newline="") as f:
            f.write(text)
        os.replace(self.path + ".new", self.path)

    def _line(self, cells):
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerow(cells)
        return out.getvalue()

    def _append(self, row):
        os.makedirs(self.folder, exist_ok=True)
        fresh = not os.path.exists(self.path) or os.path.getsize(self.path) == 0
        text = (self._line(self.header) if fresh else "") + self._line([row[name] for name in self.header])
        with open(self.path, "a", encoding="utf-8", newline="") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        self.rows.append(row)

    def _prepare(self):
        """Rows of another commit or machine must not mix with this run's."""
        if self.options.fresh:
            self.rows = [row for row in self.rows if row["quick"] != self.quick]
            if os.path.exists(self.path):
                self._replace(self._line(self.header) + "".join(self._line(row.values()) for row in self.rows))
            return
        now = {"commit": self.commit(), "cpu": self.cpu, "cores": str(self.cores)}
        for row in self.rows:
            for name, value in now.items():
                if row["quick"] == self.quick and row[name] != value:
                    raise SystemExit(f"{self.name}: {self.path} has rows of {name} {row[name]}, this is {value}; "
                                     "--fresh drops them")

    # -- runs ------------------------------------------------------------------------------------------------------

    def program(self, name):
        return os.path.join(self.options.build, name)

    def commit(self):
        """The commit that was built."""
        if not hasattr(self, "_commit"):
            try:
                words = subprocess.run([self.program("linear_regression"), "--version"], capture_output=True, text=True,
                                       check=True).stdout
            except (OSError, subprocess.CalledProcessError) as error:
                raise SystemExit(f"{self.name}: {error}; build first: cmake --preset release && cmake --build --preset release")
            self._commit = words.strip().rpartition(" ")[2]
        return self._commit

    def oversubscribed(self, point):
        return point.ranks * point.threads > self.cores

    def command(self, point):
        """The command line, and what it adds to the environment."""
        crowded = self.oversubscribed(point)
        environment = {"OMP_PROC_BIND": "false", "OMP_WAIT_POLICY": "passive"} if crowded else {}
        environment.update(point.environment)
        kind = os.path.basename(self.launcher[0])
        start = list(self.launcher)
        bound = point.bind and not crowded
        if kind in ("mpirun", "mpiexec", "orterun"):
            start += ["-n", str(point.ranks)]
            start += (["--map-by", f"slot:PE={point.threads}", "--bind-to", "core"] if bound
                      else ["--oversubscribe", "--bind-to", "none"])
            for name in environment:
                start += ["-x", name]
        elif kind == "srun":
            start += ["-n", str(point.ranks), "-c", str(point.threads)]
            start += ["--cpu-bind=cores"] if bound else ["--overcommit", "--cpu-bind=none"]
        else:
            start += ["-n", str(point.ranks)]
        if os.geteuid() == 0:
            environment.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        return start + [self.program(point.program)] + point.flags + ["--json"], environment, bound

    def start(self, point, timeout=600):
        """Runs a point; the final record, and what was seen of the run from outside."""
        command, extra, bound = self.command(point)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
        environment.update(extra)
        load = machine.load()
        before, begin = os.times(), time.monotonic()
        with (point.beside() if point.beside else contextlib.nullcontext()):
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
                                       cwd=ROOT, start_new_session=True)
            try:
                out, err = process.communicate(timeout=timeout)
                wall, after = time.monotonic() - begin, os.times()
            except subprocess.TimeoutExpired:
                out, err, wall, after = "", f"no end after {timeout} s", timeout, before
            finally:
                # The job and what it left behind, also after an interrupt.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM if process.poll() is None else signal.SIGKILL)
                if process.poll() is None:
                    process.wait()
        records = [line for line in out.splitlines() if line.startswith('{"event":"final"')]
        if process.returncode != 0 or not records:
            raise Failed(f"{shlex.join(command)} (exit {process.returncode}): {' | '.join(err.strip().splitlines()[-3:])}")
        masks = re.search(r"^placement: .*masks? (.*?), quota", err, re.M)
        seen = {"bound": "yes" if bound else "no", "oversubscribed": "yes" if self.oversubscribed(point) else "no",
                "masks": masks.group(1) if masks else "", "load_before": f"{load:.2f}",
                "wall_seconds": f"{wall:.3f}",
                "cpu_seconds": f"{after[2] + after[3] - before[2] - before[3]:.2f}"}
        return json.loads(records[-1]), seen

    def _row(self, point, repeat):
        row = {name: "" for name in self.header}
        row.update(date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%MZ"), commit=self.commit(),
                   cpu=self.cpu, cores=str(self.cores), quick=self.quick, repeat=str(repeat), ranks=str(point.ranks),
                   threads=str(point.threads), launcher=self.options.launcher, flags=shlex.join(point.flags),
                   environment=" ".join(f"{k}={v}" for k, v in sorted(point.environment.items())))
        row.update({name: str(point.key[name]) for name in columns.KEYS[self.name]})
        if point.skip:
            row["skipped"] = point.skip
            row["load_before"] = f"{machine.load():.2f}"
            row["oversubscribed"] = "yes" if self.oversubscribed(point) else "no"
        else:
            record, seen = self.start(point)
            row.update(seen)
            flat = flatten(record)
            row.update({name: flat[name] for name in columns.RESULTS[self.name] if name in flat and row[name] == ""})
            if point.result:
                row.update({name: text(value) for name, value in point.result(record, seen).items()})
        return row

    def _name(self, cells):
        return tuple(str(cells[name]) for name in self.keys)

    def run(self, points):
        """Everything that is missing; 1 where a run failed."""
        names = [self._name({**p.key, "ranks": p.ranks, "threads": p.threads}) for p in points]
        if len(set(names)) != len(names):
            raise SystemExit(f"{self.name}: two points have the same name: {[n for n in names if names.count(n) > 1][0]}")
        if not self.options.plan or self.rows:
            self._prepare_for(self.options.plan)
        done = {(self._name(row), row["repeat"]) for row in self.rows if row["quick"] == self.quick}
        left = []
        for repeat in range(1, max([self.repeats] + [p.repeats or 0 for p in points]) + 1):
            turn = [p for p in zip(points, names) if repeat <= (p[0].repeats or self.repeats)]
            for point, name in (turn if repeat % 2 else turn[::-1]):
                if (name, str(repeat)) not in done:
                    left.append((point, name, repeat))
        clock = Progress(self.name, left, self._known_seconds())
        if self.options.plan:
            print(f"{self.name}: {len(left)} runs, about {clock.rest():.0f} s")
            return 0
        for i, (point, name, repeat) in enumerate(left):
            begin = time.monotonic()
            try:
                row = self._row(point, repeat)
                self._append(row)
                words = headline(row)
            except Failed as failure:
                self.failures.append(str(failure))
                words = f"FAILED {failure}"
            clock.done(i, time.monotonic() - begin, words)
        for failure in self.failures:
            print(f"{self.name}: failed: {failure}", file=sys.stderr)
        return 1 if self.failures else 0

    def _prepare_for(self, plan):
        if not plan:
            self._prepare()
        elif self.options.fresh:
            self.rows = [row for row in self.rows if row["quick"] != self.quick]

    def _known_seconds(self):
        known = {}
        for row in self.rows:
            if row["quick"] == self.quick and row["wall_seconds"]:
                known.setdefault(self._name(row), []).append(float(row["wall_seconds"]))
        return {name: table.median(seconds) for name, seconds in known.items()}

    def mine(self):
        """This kind's rows (quick or full), as tables read them."""
        return [table.Row(self.path, row) for row in self.rows if row["quick"] == self.quick]


class Progress:
    """One line a run, with the time that is left: of points that have run, what they took; of the others their guess,
    scaled by how wrong the guesses were so far."""

    def __init__(self, name, left, known, out=sys.stderr):
        self.name, self.left, self.known, self.out = name, left, dict(known), out
        self.taken = {}
        self.guessed = self.measured = 0.0
        self.position = 0
        # What `all` will do after this sweep.
        self.after = float(os.environ.get("GRAINGRAD_SWEEP_AFTER", "0"))

    def _guess(self, point, name):
        if point.skip:
            return 0.0
        if name in self.taken:
            return table.median(self.taken[name])
        if name in self.known:
            return self.known[name]
        return point.seconds * (self.measured / self.guessed if self.guessed else 1.0)

    def rest(self):
        return sum(self._guess(point, name) for point, name, _ in self.left[self.position:])

    def done(self, index, seconds, words):
        point, name, repeat = self.left[index]
        if not point.skip:
            self.taken.setdefault(name, []).append(seconds)
            self.guessed += point.seconds
            self.measured += seconds
        self.position = index + 1
        what = " ".join(str(v) for v in list(point.key.values()) if v != "")
        print(f"[{self.position:>4}/{len(self.left)}] {self.name} {repeat}: {what} {point.ranks}x{point.threads}  {words}  "
              f"{seconds:.1f} s, left {duration(self.rest() + self.after)}", file=self.out, flush=True)


def duration(seconds):
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def headline(row):
    """The one number of a row that a watcher wants."""
    if row.get("skipped"):
        return f"skipped: {row['skipped']}"
    if row.get("tokens_per_second.median"):
        return f"{float(row['tokens_per_second.median']):.4g}/s"
    return f"{1e3 * float(row['seconds.median']):.4g} ms" if row.get("seconds.median") else "done"


def flatten(record, prefix=""):
    """{"a": {"b": 1}} as {"a.b": "1"}; lists as numbers between blanks."""
    flat = {}
    for name, value in record.items():
        if isinstance(value, dict):
            flat.update(flatten(value, prefix + name + "."))
        else:
            flat[prefix + name] = text(value)
    return flat


def text(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return " ".join(text(v) for v in value)
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


def main(sweep, points, summary):
    """A sweep's usual end: run what is missing, then print what the csv says."""
    if sweep.options.summary:
        summary(table.best_rows([table.Row(sweep.path, row) for row in sweep.rows]) if sweep.rows else
                table.read(sweep.path))
        return 0
    code = sweep.run(points)
    if not sweep.options.plan:
        summary(sweep.mine())
    return code


def enter(body):
    """Runs a script's body: what is missing is a line and exit 1, an interrupt says how to go on."""
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        sys.exit(body())
    except table.TableError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("interrupted: the same command goes on where this stopped", file=sys.stderr)
        sys.exit(130)
