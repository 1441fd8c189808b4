"""The race: graingrad, PyTorch eager and torch.compile, in turns; the floor beside them. See README.md.

Every contender is one process for a whole shape. While the others have their turn it is stopped (SIGSTOP), so that it
takes no CPU; what it took nevertheless is written to results.csv.
"""

import argparse
import csv
import ctypes
import datetime
import importlib.metadata
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.join(ROOT, "build")
LR = 3e-4
# Layers, heads, width, vocabulary, tokens of a sequence, sequences a step; steps discarded and timed in a block.
SHAPES = {
    "gpt2_4x64": (12, 12, 768, 50257, 64, 4, 1, 5),
    "gpt2_1x1024": (12, 12, 768, 50257, 1024, 1, 1, 3),
    "small_12x64": (4, 4, 128, 65, 64, 12, 5, 50),
}
# What graingrad is asked beside: where activations outweigh all else, gelu's results and what goes into the product before
# it are made again in backward.
MORE_FLAGS = {"gpt2_1x1024": " --recompute h.*.mlp.act,h.*.ln_2"}
# Where kernels are short, each of our threads takes its own part of the batch, a data grain, and they meet once a step.
OWN_GRAINS = ("small_12x64",)
CONTENDERS = ("graingrad", "eager", "compiled")


def quartiles(values):
    """Median and quartiles, linearly interpolated."""
    v = sorted(values)

    def at(p):
        low = int(p * (len(v) - 1))
        return v[low] + (p * (len(v) - 1) - low) * (v[min(low + 1, len(v) - 1)] - v[low])

    return at(0.5), at(0.25), at(0.75)


def processes_of(group):
    """The lines of /proc/*/stat behind the name, split, of all processes of a group."""
    lines = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as f:
                fields = f.read().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group:
            lines.append(fields)
    return lines


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Contender:
    """A process in a group of its own, stopped except in its turns."""

    def __init__(self, name, command, environment, work, talk):
        self.name = name
        self.log = os.path.join(work, name + ".log")
        self.idle_since = None
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command, stdin=talk, stdout=talk, stderr=log, cwd=ROOT, text=True,
                env={**os.environ, **environment}, start_new_session=True, preexec_fn=die_with_parent)

    def fail(self):
        with open(self.log) as log:
            sys.exit(f"{self.name} ended too early:\n{log.read()[-3000:]}")

    def cpu_seconds(self):
        ticks = sum(int(f[11]) + int(f[12]) for f in processes_of(self.process.pid))
        return ticks / os.sysconf("SC_CLK_TCK")

    def pause(self):
        os.killpg(self.process.pid, signal.SIGSTOP)
        while any(f[0] not in "TZ" for f in processes_of(self.process.pid)):
            time.sleep(0.001)
        self.idle_since = self.cpu_seconds()

    def resume(self):
        """Returns the CPU seconds taken since pause()."""
        took = self.cpu_seconds() - self.idle_since
        os.killpg(self.process.pid, signal.SIGCONT)
        return took

    def peak_bytes(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

    def end(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


class Torch(Contender):
    def __init__(self, name, shape, threads, corpus, work):
        layers, heads, width, vocab, sequence, batch, warmup, _ = SHAPES[shape]
        options = dict(layers=layers, heads=heads, width=width, vocab=vocab, sequence=sequence, batch=batch,
                       threads=threads, warmup=max(3, warmup), lr=LR, data=corpus)
        command = [sys.executable, os.path.join(HERE, "gpt2.py")]
        for flag, value in options.items():
            command += ["--" + flag, str(value)]
        if name == "compiled":
            command.append("--compile")
        super().__init__(name, command, {"OMP_NUM_THREADS": str(threads),
                                         "TORCHINDUCTOR_CACHE_DIR": os.path.join(BUILD, "torch-cache")},
                         work, subprocess.PIPE)
        self.ready = self.answer()
        self.base_bytes = self.ready["base_rss_bytes"]
        self.pause()

    def answer(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else self.fail()

    def turn(self, discarded, steps):
        """Seconds of `steps` steps after `discarded` others, the last loss, the share of the wall they cover."""
        self.process.stdin.write(f"{discarded + steps}\n")
        self.process.stdin.flush()
        answer = self.answer()
        return answer["seconds"][discarded:], answer["loss"], 1.0


class Graingrad(Contender):
    """Trains without end; step records come through a pipe."""

    def __init__(self, shape, threads, corpus, work, base_bytes):
        layers, heads, width, vocab, sequence, batch, _, _ = SHAPES[shape]
        path = os.path.join(work, "metrics")
        os.mkfifo(path)
        # Writable too, so that it never reports an end.
        self.records = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self.buffer = b""
        self.base_bytes = base_bytes
        grains = threads if shape in OWN_GRAINS and threads > 1 and batch % threads == 0 else 1
        self.flags = (f"--model gpt --layers {layers} --heads {heads} --width {width} --vocab {vocab} --sequence "
                      f"{sequence} --micro-batch {batch // grains} --global-batch {batch} --grains {grains} --optimizer "
                      f"adamw --lr {LR} --threads {threads}" + (" --threads-take grains" if grains > 1 else "") +
                      MORE_FLAGS.get(shape, ""))
        super().__init__("graingrad", [os.path.join(BUILD, "gpt_attention"), *self.flags.split(), "--data", corpus,
                                       "--steps", "100000000", "--metrics", path], {}, work,
                         subprocess.DEVNULL)
        self.step_seconds()
        self.pause()

    def end(self):
        super().end()
        os.close(self.records)

    def record(self):
        while b"\n" not in self.buffer:
            if select.select([self.records], [], [], 1)[0]:
                self.buffer += os.read(self.records, 1 << 16)
            elif self.process.poll() is not None:
                self.fail()
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def step_seconds(self):
        """The next step record: its seconds and its loss."""
        while (record := self.record())["event"] != "step":
            pass
        return sum(record["seconds"].values()), record["loss"]

    def turn(self, discarded, steps):
        # One more than Torch discards: the step that pause() cut in two.
        for _ in range(discarded + 1):
            self.step_seconds()
        start, seconds, loss = time.perf_counter(), [], 0
        for _ in range(steps):
            took, loss = self.step_seconds()
            seconds.append(took)
        return seconds, loss, sum(seconds) / (time.perf_counter() - start)


def output_of(command):
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True).stdout


def number_before(text, word):
    return int(text.split(word)[0].split()[-1])


def floor_rates(threads):
    """GFLOP/s of the micro-kernel from L1 and GB/s of a copy, by build/bench; zeros where it was not built."""
    bench = os.path.join(BUILD, "bench")
    if not os.access(bench, os.X_OK):
        return 0.0, 0.0
    runs = json.loads(output_of([bench, f"--benchmark_filter=^(micro_kernel_l1|copy)/threads:{threads}/",
                                 "--benchmark_min_time=0.3", "--benchmark_format=json"]))["benchmarks"]
    rate = {run["name"].split("/")[0]: run for run in runs}
    return rate["micro_kernel_l1"]["GFLOP/s"], rate["copy"]["GB/s"]


def cpu_model():
    with open("/proc/cpuinfo") as f:
        return next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), "unknown")


def race(shape, blocks, steps, facts, write):
    layers, _, _, _, sequence, batch, discarded, usual_steps = SHAPES[shape]
    steps = steps or usual_steps
    threads = facts["cores"]
    program = os.path.join(BUILD, "gpt_attention")
    with tempfile.TemporaryDirectory() as work:
        tiny = json.loads(output_of([program, "--model", "gpt", "--width", "8", "--sequence", "8", "--steps", "1",
                                     "--threads", str(threads), "--json"]))
        corpus = tiny["data"]["path"]
        contenders = []
        try:
            print(f"{shape}: starting graingrad", file=sys.stderr)
            contenders.append(Graingrad(shape, threads, corpus, work, tiny["base_rss_bytes"]))
            for name in CONTENDERS[1:]:
                print(f"{shape}: starting {name}", file=sys.stderr)
                contenders.append(Torch(name, shape, threads, corpus, work))
                print(f"{shape}: {name} is warm after {contenders[-1].ready['warmup_seconds']:.0f} s", file=sys.stderr)
            plan = output_of([program, *contenders[0].flags.split(), "--dry-run"])
            parameters = number_before(plan, " parameters")
            if contenders[1].ready["parameters"] != parameters:
                sys.exit(f"{shape}: {parameters} parameters here, {contenders[1].ready['parameters']} in PyTorch")
            for block in range(1, blocks + 1):
                gflops, gbytes = floor_rates(threads)
                for contender in contenders:
                    idle = contender.resume()
                    seconds, loss, covered = contender.turn(discarded, steps)
                    contender.pause()
                    median, q1, q3 = quartiles(batch * sequence / s for s in seconds)
                    write({**facts, "shape": shape, "contender": contender.name, "block": block, "steps": steps,
                           "tokens_per_step": batch * sequence, "tokens_per_second.median": round(median, 2),
                           "tokens_per_second.q1": round(q1, 2), "tokens_per_second.q3": round(q3, 2),
                           "peak_rss_bytes": contender.peak_bytes(), "base_rss_bytes": contender.base_bytes,
                           "parameters": parameters, "flops_per_step": number_before(plan, " flops a step"),
                           "micro_kernel_gflops": round(gflops, 2), "copy_gb_per_second": round(gbytes, 2),
                           "idle_cpu_seconds": round(idle, 3), "wall_covered": round(covered, 4),
                           "loss": round(loss, 4)})
                    print(f"{shape} block {block} {contender.name}: {median:.0f} tokens/s, loss {loss:.3f}",
                          file=sys.stderr)
        finally:
            for contender in contenders:
                contender.end()


def table(rows):
    """Markdown: one table a shape."""
    for shape in dict.fromkeys(r["shape"] for r in rows):
        mine = {c: sorted((r for r in rows if r["shape"] == shape and r["contender"] == c),
                          key=lambda r: int(r["block"])) for c in CONTENDERS}
        rate = {c: [float(r["tokens_per_second.median"]) for r in mine[c]] for c in CONTENDERS}
        one = mine["graingrad"][-1]
        parameters, tokens = int(one["parameters"]), int(one["tokens_per_step"])
        extra = {c: max(int(r["peak_rss_bytes"]) for r in mine[c]) - 16 * parameters for c in CONTENDERS}
        print(f"\n{shape}: {parameters} parameters, {tokens} tokens a step, {len(rate['eager'])} blocks\n")
        print("| contender | tokens/s | x eager | x compiled | peak MiB | less 16 B a parameter | x eager | x compiled | "
              "and less what was loaded before the model |")
        print("|---|---|---|---|---|---|---|---|---|")
        for c in CONTENDERS:
            cells = ["%.0f (%.0f-%.0f)" % quartiles(rate[c])]
            cells += ["%.3f (%.3f-%.3f)" % quartiles(a / b for a, b in zip(rate[c], rate[other]))
                      for other in CONTENDERS[1:]]
            cells += ["%.0f" % ((extra[c] + 16 * parameters) / 2**20), "%.0f" % (extra[c] / 2**20)]
            cells += ["%.3f" % (extra[c] / extra[other]) for other in CONTENDERS[1:]]
            cells.append("%.0f" % ((extra[c] - int(mine[c][0]["base_rss_bytes"])) / 2**20))
            print(f"| {c} | " + " | ".join(cells) + " |")
        print("\nCPU seconds taken while paused, at most: %.2f; share of the wall in graingrad's step records, at least: "
              "%.4f" % (max(float(r["idle_cpu_seconds"]) for c in CONTENDERS for r in mine[c]),
                        min(float(r["wall_covered"]) for r in mine["graingrad"])))
        if not float(one["micro_kernel_gflops"]):
            print("no floor: build/bench is not built")
            continue
        floors = [float(r["flops_per_step"]) / float(r["micro_kernel_gflops"]) * 1e-9 +
                  28e-9 * parameters / float(r["copy_gb_per_second"]) for r in mine["graingrad"]]
        print("floor: %.4g ms a step (micro-kernel %.1f GFLOP/s, copy %.1f GB/s: medians); graingrad's share of it: " %
              (1e3 * statistics.median(floors),
               statistics.median(float(r["micro_kernel_gflops"]) for r in mine["graingrad"]),
               statistics.median(float(r["copy_gb_per_second"]) for r in mine["graingrad"])) +
              "%.3f (%.3f-%.3f)" % quartiles(f * r / tokens for f, r in zip(floors, rate["graingrad"])))


def main():
    parser = argparse.ArgumentParser(prog="experiments/pytorch/run", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("blocks", type=int, nargs="?", default=7, help="turns of each contender (default 7)")
    parser.add_argument("--shapes", default=",".join(SHAPES), help="comma-separated (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=0, help="timed steps of a turn (default: by shape)")
    parser.add_argument("--out", default=os.path.join(HERE, "results.csv"), help="csv to write")
    parser.add_argument("--table", action="store_true", help="race nothing: print the table of the csv")
    o = parser.parse_args()
    for shape in o.shapes.split(","):
        if shape not in SHAPES:
            parser.error(f"no shape '{shape}'; there are {', '.join(SHAPES)}")
    if not o.table:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        facts = {"date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%MZ"),
                 "commit": output_of([os.path.join(BUILD, "gpt_attention"), "--version"]).split()[-1],
                 "cpu": cpu_model(), "cores": len(os.sched_getaffinity(0)),
                 "affinity": " ".join(map(str, sorted(os.sched_getaffinity(0)))), "torch": importlib.metadata.version("torch"),
                 "load_at_start": os.getloadavg()[0]}
        with open(o.out, "w", newline="") as f:
            writer = None

            def write(row):
                nonlocal writer
                if writer is None:
                    writer = csv.DictWriter(f, list(row), lineterminator="\n")
                    writer.writeheader()
                writer.writerow(row)
                f.flush()

            for shape in o.shapes.split(","):
                race(shape, o.blocks, o.steps, facts, write)
    with open(o.out, newline="") as f:
        rows = list(csv.DictReader(f))
    print(f"{rows[0]['cpu']}, {rows[0]['cores']} cores, torch {rows[0]['torch']}, commit {rows[0]['commit']}, "
          f"load {float(rows[0]['load_at_start']):.2f} at the start; medians (quartiles), ratios block by block")
    table(rows)


if __name__ == "__main__":
    main()
