"""What the flights tests share: an independent computation, made months, and the command."""

from __future__ import annotations

import csv
import gzip
import random
import sqlite3
import subprocess
import sys
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLIGHTS = ROOT / "examples" / "flights"
JANUARY = FLIGHTS / "flights-2013-01.csv.gz"
MILLSTREAM = str(Path(sys.executable).parent / "millstream")
COLUMNS = "carrier, name, day, flights, cancelled, late, delay_minutes"

Row = tuple[str, str | None, str, int, int, int, int]


def expected_table(flights: Path, late_after: int = 15) -> list[Row]:
    """The table the demo must end with, computed with nothing but the csv module and a dict."""
    with (FLIGHTS / "airlines.csv").open(newline="") as lines:
        names = {row["carrier"]: row["name"] for row in csv.DictReader(lines)}
    days: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    with gzip.open(flights, "rt") if flights.suffix == ".gz" else flights.open() as lines:
        for row in csv.DictReader(lines):
            day = days[row["carrier"], row["time_hour"][:10]]
            delay = 0 if row["dep_delay"] == "NA" else int(row["dep_delay"])
            day[0] += 1
            day[1] += row["dep_time"] == "NA"
            day[2] += delay > late_after
            day[3] += max(delay, 0)
    return sorted(
        (carrier, names.get(carrier), day, *figures) for (carrier, day), figures in days.items()
    )


def stored_table(database: Path) -> list[Row]:
    connection = sqlite3.connect(database)
    try:
        return sorted(connection.execute(f"SELECT {COLUMNS} FROM carrier_daily"))
    finally:
        connection.close()


def make_month(path: Path, seed: int, flights_per_day: int = 60) -> None:
    """A month of the same format that nobody has seen: other carriers, other delays, ordered as the
    real file is, by day and then by actual departure with the cancelled ones last."""
    rng = random.Random(seed)
    with gzip.open(JANUARY, "rt") as lines:
        header = next(csv.reader(lines))
    carriers = ["AA", "B6", "DL", "UA", "WN", "ZZ"]
    first = datetime(2013, 1 + seed % 12, 1, tzinfo=UTC)
    with path.open("w", newline="") as out:
        writer = csv.DictWriter(out, header, restval="1")
        writer.writeheader()
        for number in range(28):
            rows = [
                one_flight(rng, rng.choice(carriers), first + timedelta(days=number))
                for _ in range(flights_per_day)
            ]
            writer.writerows(
                sorted(rows, key=lambda row: (row["dep_time"] == "NA", row["dep_time"]))
            )


def one_flight(rng: random.Random, carrier: str, day: datetime) -> dict[str, object]:
    minute = rng.randrange(5 * 60, 24 * 60)
    cancelled = rng.random() < 0.05
    delay = "NA" if cancelled else rng.randint(-20, 200)
    departure = "NA" if cancelled else (minute + int(delay)) % (24 * 60)
    scheduled = day + timedelta(minutes=minute - minute % 60) + timedelta(hours=5)
    return {
        "year": day.year,
        "month": day.month,
        "day": day.day,
        "dep_time": departure,
        "sched_dep_time": minute,
        "dep_delay": delay,
        "carrier": carrier,
        "tailnum": 'N1, "quoted"',
        "origin": "EWR",
        "dest": "LAX",
        "time_hour": scheduled.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def demo(directory: Path, *options: str) -> list[str]:
    return [MILLSTREAM, "demo", "--dir", str(directory), *options]


def run_demo(directory: Path, *options: str) -> str:
    result = subprocess.run(
        demo(directory, *options), capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
