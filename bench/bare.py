"""The bare Python loops the workloads are held against: orjson and a dict, no durability.

    python bench/bare.py W1 events.jsonl output

Each calls the same user function as its workload in the plainest loop there is, reads its records
from a file of JSON lines and writes its results to a file.
"""

from __future__ import annotations

import sys

import orjson

from workloads.user_functions import amount, count, large, words


def w1(source: str, target: str) -> None:
    loads, dumps = orjson.loads, orjson.dumps
    with open(source, "rb") as lines, open(target, "wb") as out:
        for line in lines:
            event = large(loads(line))
            if event is not None:
                out.write(dumps(event) + b"\n")


def w2(source: str, target: str) -> None:
    loads = orjson.loads
    totals: dict[str, int] = {}
    with open(source, "rb") as lines, open(target, "wb") as out:
        for line in lines:
            event = loads(line)
            user = event["user"]
            total = totals[user] = count(totals.get(user, 0), event)
            out.write(b"%s\t%d\n" % (user.encode(), total))


def w3(source: str, target: str) -> None:
    loads, dumps = orjson.loads, orjson.dumps
    windows: dict[tuple[int, str], float] = {}
    with open(source, "rb") as lines, open(target, "wb") as out:
        for line in lines:
            event = loads(line)
            timestamp = event["ts"]
            key = timestamp - timestamp % 60_000, event["user"]
            windows[key] = amount(windows.get(key, 0.0), event)
        out.writelines(
            dumps([start, user, total]) + b"\n" for (start, user), total in sorted(windows.items())
        )


def w4(source: str, target: str) -> None:
    loads = orjson.loads
    counts: dict[str, int] = {}
    with open(source, "rb") as lines, open(target, "wb") as out:
        for line in lines:
            for word in words(loads(line)):
                counts[word] = counts.get(word, 0) + 1
        for word, total in counts.items():
            out.write(b"%s\t%d\n" % (word.encode(), total))


if __name__ == "__main__":
    workload, source_path, target_path = sys.argv[1:]
    {"W1": w1, "W2": w2, "W3": w3, "W4": w4}[workload](source_path, target_path)
