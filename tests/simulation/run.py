"""Runs seeds of the simulation: `python tests/simulation/run.py --seeds 10000 --jobs 2`.

It stops at the first seed that fails and prints the one line that replays it.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # this folder is a package of it

from simulation.simulation import Simulation, simulate  # noqa: E402


def _one(seed: int) -> tuple[int, Counter[str], str]:
    logging.disable()
    try:
        return seed, simulate(seed), ""
    except BaseException:  # noqa: BLE001 - whatever it is, it is reported with the seed
        return seed, Counter(), traceback.format_exc()


def _replay(seed: int, *, trace: bool) -> int:
    logging.disable()
    simulation = Simulation(seed, trace=trace)
    try:
        count = simulation.run()
    except BaseException:  # noqa: BLE001
        print("\n".join(simulation.world.trace or ()))
        traceback.print_exc()
        return 1
    print("\n".join(simulation.world.trace or ()))
    _table(count, 1)
    if trace:
        print(f"digest {simulation.digest()}")
    return 0


def _table(count: Counter[str], seeds: int) -> None:
    print(f"\n{'what happened':40} {'times':>10} {'a seed':>8}")
    for what, times in sorted(count.items()):
        print(f"{what:40} {times:10} {times / seeds:8.2f}")


def _many(first: int, seeds: int, jobs: int) -> int:
    began = time.monotonic()
    total: Counter[str] = Counter()
    with multiprocessing.Pool(jobs) as pool:
        for done, (seed, count, failure) in enumerate(
            pool.imap_unordered(_one, range(first, first + seeds), chunksize=8), 1
        ):
            if failure:
                pool.terminate()
                print(f"\n{failure}\nseed {seed} failed; this replays it:")
                print(f"python tests/simulation/run.py --seed {seed}")
                return 1
            total += count
            if done % 100 == 0 or done == seeds:
                rate = done / (time.monotonic() - began)
                print(f"\r{done} of {seeds} seeds, {rate:.0f} a second", end="", flush=True)
    _table(total, seeds)
    print(f"\n{seeds} seeds from {first} are green, {time.monotonic() - began:.0f} s")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--trace", action="store_true", help="print all that happens")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return _replay(arguments.seed, trace=arguments.trace)
    return _many(arguments.first, arguments.seeds, arguments.jobs)


if __name__ == "__main__":
    sys.exit(main())
