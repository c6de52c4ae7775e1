"""A process that is killed while it writes (tests/crash/test_log_kill.py).

Each transaction writes its number to both partitions of `out` and commits `number + 1` as the
group's offset of `in`. It begins where the group stands, so whatever was committed before is not
done again. Every fifth transaction is aborted first. What is acknowledged is printed.
"""

from __future__ import annotations

import asyncio
import sys

from millstream.log import TopicPartition, open_log

IN = TopicPartition("in", 0)
GROUP = "copier"


async def main(url: str) -> None:
    async with open_log(url) as log:
        await log.create_topic("in", exist_ok=True)
        await log.create_topic("out", partitions=2, exist_ok=True)
        committed = (await log.group_offsets(GROUP)).get(IN)
        number = committed.offset if committed is not None else 0
        plain = log.producer(config={"linger.ms": 0})
        async with log.producer(transactional_id="copier") as producer:
            while True:
                if number % 5 == 0:
                    await producer.begin_transaction()
                    await producer.send_batch("out", [b"aborted"] * 3, partition=number % 2)
                    await producer.abort_transaction()
                async with producer.transaction():
                    for partition in (0, 1):
                        values = [b"%d" % number, b"." * (number % 7 * 100)]
                        await producer.send_batch("out", values, partition=partition)
                    await producer.send_offsets({IN: number + 1}, group=GROUP)
                metadata = await plain.send("in", b"%d" % number)
                print(f"committed {number} {metadata.offset}", flush=True)
                number += 1


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
