#!/usr/bin/env python3
"""Runs `sealtide bench …` and writes what it says as tables into bench/RESULTS.md.

  bench/page.py [--sealtide PROGRAM] [--items N] [--large N] [--directory DIR] [--json FILE]

--items   records of the first size of `reconcile` and of `bulk` (1 000 000)
--large   records of the second size of `reconcile`; 0 leaves it out (10 000 000: needs half an hour and 30 GB)
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The most memory of each process, in MiB: ibgib §14, and for ten million records more, since the kernel counts what an allocator holds and
# does not use. The peaks say what was used.
LIMIT_MIB = 256
LARGE_LIMIT_MIB = 384
# Bytes of the directory that `release` packs.
RELEASE_BYTES = 1 << 30


def bench(program, name, *options):
    """The answer of one bench, and the command."""
    command = [program, "bench", name, *map(str, options)]
    shown = " ".join(["sealtide", *command[1:]])
    print(shown, file=sys.stderr)
    done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        return shown, {"failed": done.returncode}
    return shown, json.loads(done.stdout)


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def count(number):
    return f"{number:,}".replace(",", " ") if isinstance(number, int) else number


def reconcile(shown, found):
    if "failed" in found:
        return f"`{shown}` ended with {found['failed']}."
    names = [
        ("equal", "equal sets"),
        ("scattered_items", f"{found['differences']} scattered records"),
        ("scattered_tips", f"{found['differences']} scattered new timelines"),
        ("one_frame", "one new frame"),
    ]
    keys = ["mode", "reconciliation_bytes", "other_bytes", "payload_bytes", "rounds", "round_trips", "seconds"]
    rows = [[text, *(count(found[name][key]) for key in keys)] for name, text in names]
    memory = found["anonymous_mib"]
    return "\n\n".join([
        f"`{shown}`",
        f"{count(found['items'])} records, half of them first frames, in two stores, each in a process of its own.",
        table(["", "mode", "reconciliation B", "other B", "payload B", "rounds", "round trips", "s"], rows),
        table(["fill, s", "open, s", "16 sagas at once, s", "limit of each process, MiB", "peak while filling, MiB",
               "after open, MiB", "peak, MiB"],
              [[found["fill_seconds"], found["open_seconds"], found["sixteen_at_once_seconds"], memory["limit"],
                memory["peak_while_filling"], memory["opened"], memory["peak"]]]),
    ])


def bulk(shown, found):
    if "failed" in found:
        return f"`{shown}` ended with {found['failed']}."
    memory = found["anonymous_mib"]
    return "\n\n".join([
        f"`{shown}`",
        "A new node joins and gets the whole space: two processes on loopback.",
        table(["records", "bytes", "fill, s", "s", "MiB/s", "peak of sender, MiB", "peak of receiver, MiB"],
              [[count(found["records"]), count(found["bytes"]), found["fill_seconds"], found["seconds"],
                found["mib_per_second"], memory["peak_of_sender"], memory["peak_of_receiver"]]]),
    ])


def identity(shown, found):
    if "failed" in found:
        return f"`{shown}` ended with {found['failed']}."
    join, following = found["join"], found["following_sagas"]
    return "\n\n".join([
        f"`{shown}`",
        "Keystone frames of both sides, each counted once.",
        table(["", "frames", "bytes", "ms"], [
            ["join and first saga", join["frames"], count(join["bytes"]), join["ms"]],
            [f"{following['sagas']} following sagas", following["frames"], count(following["bytes"]),
             f"each: p50 {following['ms']['p50']}, p95 {following['ms']['p95']}"],
        ]),
    ])


def flat(value, name=""):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}" if name else key)
    else:
        yield name, value


def plain(shown, found):
    if "failed" in found:
        return f"`{shown}` ended with {found['failed']}."
    rounded = lambda value: round(value, 3) if isinstance(value, float) else value
    rows = [(name, rounded(value)) for name, value in flat(found) if name != "schema"]
    return f"`{shown}`\n\n" + table(["", ""], rows)


def machine():
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
    kib = next((int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines()), 0)
    load = ", ".join(f"{part:.1f}" for part in os.getloadavg())
    return f"{os.cpu_count()} × {model}, {kib // 1024 // 1024} GiB, {platform.system()} {platform.release()}; load {load}"


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    options.add_argument("--sealtide", default=str(target / "release" / "sealtide"))
    options.add_argument("--items", type=int, default=1_000_000)
    options.add_argument("--large", type=int, default=10_000_000)
    options.add_argument("--directory", default=os.environ.get("TMPDIR", "/tmp"))
    options.add_argument("--json", help="write the answers there too")
    given = options.parse_args()
    before = machine()
    where = ["--directory", given.directory]
    parts, answers = [], []

    def part(title, show, *arguments):
        shown, found = bench(given.sealtide, *arguments)
        answers.append({"command": shown, "answer": found})
        parts.append(f"## {title}\n\n{show(shown, found)}")

    part("Identities", identity, "identity")
    part("Reconciliation", reconcile, "reconcile", "--items", given.items, "--memory-mib", LIMIT_MIB, *where)
    if given.large:
        large = ["--items", given.large, "--memory-mib", LARGE_LIMIT_MIB]
        part("Reconciliation, large", reconcile, "reconcile", *large, *where)
    part("Bulk", bulk, "bulk", "--items", given.items, *where)
    part("Link", plain, "link")
    part("Live", plain, "live")
    part("Releases", plain, "release", "--bytes", RELEASE_BYTES, *where)
    today = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    page = "\n\n".join([
        "# Measured",
        "Made by `make page` (`bench/page.py`); do not edit. Ratios count more than figures: other work on the machine moves them.",
        f"{today}; {before}.",
        *parts,
    ])
    (ROOT / "bench" / "RESULTS.md").write_text(page + "\n")
    if given.json:
        Path(given.json).write_text(json.dumps(answers, indent=2))
    failed = [answer["command"] for answer in answers if "failed" in answer["answer"]]
    if failed:
        sys.exit("failed: " + "; ".join(failed))


if __name__ == "__main__":
    main()
