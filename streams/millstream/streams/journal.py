"""What a worker writes to the log with: its producer, and the transaction that is open, if any.

Opening the producer ends what a previous one under the same transactional id left: a commit that
was on its way is completed, all else aborted. So a journal is opened before offsets are read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from millstream.log.errors import LogError, UnknownMemberError
from millstream.log.interface import Consumer, Log, Producer
from millstream.log.record import ConsumerGroupMetadata

__all__ = ["Journal"]

logger = logging.getLogger(__name__)


class Journal:
    """The producer of one worker. `transactional_id` None: at least once.

    `is_shared` says whether workers elsewhere may write to the log, too.
    """

    def __init__(
        self,
        log: Log,
        consumer: Consumer,
        transactional_id: str | None,
        config: Mapping[str, str | int],
        *,
        is_shared: bool = False,
    ) -> None:
        self.log = log
        self.is_shared = is_shared
        self.consumer = consumer
        self.is_transactional = transactional_id is not None
        self._new_producer: Callable[[], Producer] = lambda: log.producer(
            transactional_id=transactional_id, config=config
        )
        self.producer = self._new_producer()
        self._in_transaction = False

    async def __aenter__(self) -> Self:
        await self.producer.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.producer.close()

    async def begin(self) -> None:
        """Have a transaction open, if there are to be any."""
        if self.is_transactional and not self._in_transaction:
            await self.producer.begin_transaction()
            self._in_transaction = True

    def member(self) -> ConsumerGroupMetadata:
        """Who commits.

        Raises:
            UnknownMemberError: nobody, whom the group would not check; others may have the work.
        """
        member = self.consumer.group_metadata()
        if self.is_shared and member.generation < 0:
            raise UnknownMemberError(f"Group {member.group}: this worker is no member of it yet.")
        return member

    def ended(self) -> None:
        """The transaction was committed."""
        self._in_transaction = False

    async def reset(self) -> None:
        """Nothing since the last commit happened, or the log has decided what did."""
        self._in_transaction = False
        try:
            await self.producer.close()
        except LogError as error:
            logger.warning("a producer could not end what it began; its successor does: %s", error)
        self.producer = self._new_producer()
        await self.producer.__aenter__()
