"""Millstream beside the bare Python loop, whole process against whole process, in the same run.

    python bench/run.py [--records 1000000] [--rounds 5] [--workloads W1,W2,W3,W4]

For each round and workload: a fresh copy of the prepared log, then `millstream run APP --until-end`
(exactly once, fsync on, state and changelogs included) and the bare loop of bench/bare.py, in turn.
The ratio is bare time / Millstream time, pair by pair; the median is the figure to quote. The
results of both are compared once before anything is timed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

BENCH = Path(__file__).parent
TARGETS = {"W1": 0.80, "W2": 0.70, "W3": 0.60, "W4": 0.60}


@dataclass(frozen=True)
class Run:
    """One finished process: wall-clock seconds, CPU seconds, largest resident size in MB."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


def measure(command: list[str], directory: Path) -> Run:
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def run_script(name: str, *arguments: str) -> None:
    """Run another script here, in a process of its own.

    A process that grew large would pass its size on: Linux counts the memory of a child from its
    fork on, before it becomes another program.
    """
    subprocess.run([sys.executable, str(BENCH / name), *arguments], check=True)


def millstream_command(workload: str, log: Path) -> list[str]:
    command = Path(sys.executable).parent / "millstream"
    app = BENCH / "workloads" / f"{workload.lower()}.py"
    return [str(command), "run", str(app), "--log", f"file:{log}", "--until-end"]


def bare_command(workload: str, directory: Path) -> list[str]:
    return [
        sys.executable,
        str(BENCH / "bare.py"),
        workload,
        str(directory / "events.jsonl"),
        str(directory / f"{workload}.out"),
    ]


def one_round(workload: str, directory: Path) -> tuple[Run, Run]:
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        log = Path(scratch) / "log"
        shutil.copytree(directory / "log", log)
        os.sync()
        ours = measure(millstream_command(workload, log), Path(scratch))
        if not (directory / f"{workload}.checked").exists():
            bare = measure(bare_command(workload, directory), directory)
            run_script("check.py", workload, str(log), str(directory / f"{workload}.out"))
            (directory / f"{workload}.checked").touch()
        bare = measure(bare_command(workload, directory), directory)
    return ours, bare


def row(workload: str, rounds: list[tuple[Run, Run]], records: int) -> str:
    ratios = [bare.seconds / ours.seconds for ours, bare in rounds]
    ours = statistics.median(run.seconds for run, _ in rounds)
    bare = statistics.median(run.seconds for _, run in rounds)
    cpu = statistics.median(run.cpu_seconds for run, _ in rounds)
    peaks = [max(run[side].peak_mb for run in rounds) for side in (0, 1)]
    return (
        f"| {workload} | {records / ours:,.0f} | {records / bare:,.0f} "
        f"| **{statistics.median(ratios):.2f}** [{min(ratios):.2f}..{max(ratios):.2f}] "
        f"| {TARGETS[workload]:.2f} | {cpu:.2f} | {peaks[0]:.0f} | {peaks[1]:.0f} |"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--records", type=int, default=1_000_000)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--workloads", default="W1,W2,W3,W4")
    options = arguments.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        run_script("prepare.py", str(directory), str(options.records))
        print(
            "| | Millstream records/s | bare loop records/s | ratio, median [min..max] | target "
            "| CPU s | peak MB | bare peak MB |"
        )
        print("|---|---|---|---|---|---|---|---|")
        for workload in options.workloads.split(","):
            one_round(workload, directory)
            rounds = [one_round(workload, directory) for _ in range(options.rounds)]
            print(row(workload, rounds, options.records), flush=True)


if __name__ == "__main__":
    main()
