"""What a seed row's check says, and the table of verdicts."""
from dataclasses import dataclass


@dataclass
class Verdict:
    status: str  # pass, fail, plan (a prediction, nothing was measured), skipped
    ours: str


def judged(good, ours):
    return Verdict("pass" if good else "fail", ours)


def fail(reason):
    return Verdict("fail", reason)


def plan(ours):
    return Verdict("plan", ours)


def skipped(reason):
    return Verdict("skipped", reason)


def chosen(rows, required, patterns):
    """The rows whose id is, or begins with, one of the patterns (all rows without patterns), and for each required row
    without a check, and each pattern that matches nothing, a row that fails. "S2-2" is a prefix; "S2-22" also means its halves."""
    ids = [row[0] for row in rows]
    missing = [r for r in required if not any(i == r or i[:-1] == r for i in ids)]
    found = [row for row in rows if not patterns or any(row[0].startswith(p) for p in patterns)]
    for name in missing + [p for p in patterns if not any(i.startswith(p) for i in ids) and p not in missing]:
        if not patterns or any(name.startswith(p) for p in patterns):
            found.append((name, "", lambda _: fail("no command checks this row")))
    return sorted(found, key=lambda row: row[0])


def report(rows, checker, expected, say=print):
    """Runs the checks, prints a line each, and returns the exit code: 1 where one failed. `expected` are the exceptions
    that mean "this row cannot be judged" and fail it with their words."""
    failed = 0
    say(f"{'row':<7} {'verdict':<8} {'seed':<32} ours")
    for name, seed, check in rows:
        try:
            verdict = check(checker)
        except expected as error:
            verdict = fail(str(error))
        failed += verdict.status == "fail"
        ours = f"({verdict.ours})" if verdict.status == "skipped" else verdict.ours
        say(f"{name:<7} {verdict.status:<8} {seed:<32} {ours}")
    say(f"{len(rows)} rows, {failed} failed")
    return 1 if failed else 0
