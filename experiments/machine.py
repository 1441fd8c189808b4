"""What a csv row says about the machine, and how many cores a launcher has to give. Linux; standard library only."""
import os
import re


def cpu_model():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            for line in f:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return os.uname().machine


def cpus():
    """The CPUs of this process's affinity mask (nproc would print OMP_NUM_THREADS)."""
    return sorted(os.sched_getaffinity(0))


def quota():
    """CPUs' worth of time that the control group leaves, rounded down, at least 1; None where there is no limit."""
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="utf-8") as f:
            limit, period = f.read().split()
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(1, int(limit) // int(period))


def local_cores():
    """Physical cores in the mask, at most the quota: what mpirun --bind-to core can give."""
    cores = set()
    for cpu in cpus():
        try:
            with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", encoding="utf-8") as f:
                cores.add(f.read().strip())
        except OSError:
            cores.add(str(cpu))
    limit = quota()
    return min(len(cores), limit) if limit else len(cores)


def launcher_cores(launcher):
    """Cores that a launcher's own words promise: slots of a hostfile, or Slurm's; None where they say nothing."""
    if "--hostfile" in launcher[:-1]:
        with open(launcher[launcher.index("--hostfile") + 1], encoding="utf-8") as f:
            lines = [line.split("#")[0].strip() for line in f]
        slots = [re.search(r"slots\s*=\s*(\d+)", line) for line in lines if line]
        return sum(int(s.group(1)) if s else 1 for s in slots)
    if os.path.basename(launcher[0]) == "srun" and "SLURM_JOB_CPUS_PER_NODE" in os.environ:
        parts = re.findall(r"(\d+)(?:\(x(\d+)\))?", os.environ["SLURM_JOB_CPUS_PER_NODE"])
        return sum(int(count) * int(times or 1) for count, times in parts)
    return None


def load():
    return os.getloadavg()[0]


def free_bytes():
    try:
        with open("/proc/meminfo", encoding="utf-8") as f:
            for line in f:
                if line.startswith("MemAvailable"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def parse_cpus(text):
    """"0-2,5" as {0, 1, 2, 5}; empty for anything else."""
    found = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if not match:
            return set()
        found.update(range(int(match.group(1)), int(match.group(2) or match.group(1)) + 1))
    return found
