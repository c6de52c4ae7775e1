"""How far each partition is delivered, kept in the database itself: what makes the sink exactly
once.

One row for each connector and partition: `next_offset` (the first offset not delivered), `epoch`,
and the id of the topic. It changes in the transaction that writes the rows, so the two never
differ.

Whoever takes a partition over raises its epoch, in a transaction of its own. Every later change
says which epoch it believes in and changes nothing when that is over: a sink that was paused, or
cut off, and comes back finds itself fenced, and its transaction is rolled back.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    insert,
    select,
    update,
)

from millstream.connect import ConnectorFencedError, FatalConnectError, PartitionState
from millstream.log import TopicPartition

__all__ = ["Delivered"]


class Delivered:
    """The offsets table, as one sink task sees it."""

    def __init__(self, connector: str, table: str) -> None:
        schema, _, name = table.rpartition(".")
        self._connector = connector
        self._table = Table(
            name,
            MetaData(),
            Column("connector", String(255), primary_key=True),
            Column("topic", String(249), primary_key=True),
            Column("partition", Integer, primary_key=True, autoincrement=False),
            Column("next_offset", BigInteger, nullable=False),
            Column("epoch", BigInteger, nullable=False),
            Column("topic_id", String(64), nullable=False),
            schema=schema or None,
        )
        self._epochs: dict[TopicPartition, int] = {}

    def create(self, connection: Connection) -> None:
        """Create the table when it is not there."""
        self._table.create(connection, checkfirst=True)

    def take_over(
        self, connection: Connection, partitions: Mapping[TopicPartition, PartitionState]
    ) -> dict[TopicPartition, int]:
        """Raise the epochs and answer where to go on. The caller commits.

        Raises:
            FatalConnectError: the database tells of another log than this one.
        """
        positions = {}
        for partition, state in partitions.items():
            columns = self._table.c
            raised = update(self._table).where(*self._is(partition))
            changed = connection.execute(raised.values(epoch=columns.epoch + 1))
            if changed.rowcount == 0:
                connection.execute(
                    insert(self._table).values(
                        connector=self._connector,
                        topic=partition.topic,
                        partition=partition.partition,
                        next_offset=state.start_offset,
                        epoch=1,
                        topic_id=state.topic_id,
                    )
                )
            next_offset, epoch, topic_id = connection.execute(
                select(columns.next_offset, columns.epoch, columns.topic_id).where(
                    *self._is(partition)
                )
            ).one()
            self._check_same_log(partition, state, next_offset, topic_id)
            self._epochs[partition] = epoch
            positions[partition] = next_offset
        return positions

    def _is(self, partition: TopicPartition) -> tuple[ColumnElement[bool], ...]:
        columns = self._table.c
        return (
            columns.connector == self._connector,
            columns.topic == partition.topic,
            columns.partition == partition.partition,
        )

    def _check_same_log(
        self, partition: TopicPartition, state: PartitionState, next_offset: int, topic_id: str
    ) -> None:
        if topic_id == state.topic_id and next_offset <= state.end_offset:
            return
        if topic_id == state.topic_id:
            what = f"but the partition ends at offset {state.end_offset} in this log"
        else:
            what = "but of another topic of this name: the topic, or the whole log, is a new one"
        raise FatalConnectError(
            f"connector {self._connector!r}: the database says that {partition} is delivered up to "
            f"offset {next_offset}, {what}. Go back to the old log, or give the connector another "
            f"name, or, to deliver this topic from its beginning, DELETE FROM {self._table.name} "
            f"WHERE connector = '{self._connector}' AND topic = '{partition.topic}'."
        )

    def advance(self, connection: Connection, partition: TopicPartition, next_offset: int) -> None:
        """Say that everything before `next_offset` is delivered, in the open transaction.

        Raises:
            ConnectorFencedError: another sink of this name has taken the partition over.
        """
        mine = self._table.c.epoch == self._epochs[partition]
        changed = connection.execute(
            update(self._table).where(*self._is(partition), mine).values(next_offset=next_offset)
        )
        if changed.rowcount != 1:
            raise ConnectorFencedError(
                f"connector {self._connector!r} was taken over by another sink of this name: the "
                f"epoch of {partition} is no longer {self._epochs[partition]}. Stop one of the "
                "two, or rename it. This one wrote nothing since."
            )
