"""What an operator sees of transactions: all of them, one, and those that hang.

Names of states are Kafka's, as its tools print them.

Source: KIP-664 (list, describe and find hanging transactions), KIP-994 (listing by duration).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from millstream.log.errors import ConfigError, UnknownTransactionalIdError
from millstream.log.record import (
    HangingTransaction,
    TopicPartition,
    TransactionDescription,
    TransactionListing,
)

from .partitions import Partitions
from .transactions import TransactionTable
from .txn_records import TransactionMetadata, TransactionState

__all__ = ["STATE_NAMES", "description", "hanging", "listings"]

STATE_NAMES = {each: each.name.title().replace("_", "") for each in TransactionState}


def listings(
    table: TransactionTable,
    now_ms: int,
    *,
    states: Collection[str] = (),
    producer_ids: Collection[int] = (),
    open_longer_than_ms: int = -1,
) -> list[TransactionListing]:
    """Every transactional id that passes the filters, by name; an empty filter lets all pass.

    Raises:
        ConfigError: a state that does not exist.
    """
    unknown = set(states) - set(STATE_NAMES.values())
    if unknown:
        raise ConfigError(
            f"{', '.join(sorted(unknown))} is no state of a transaction; there are "
            f"{', '.join(STATE_NAMES.values())}."
        )
    return [
        TransactionListing(each.transactional_id, each.producer_id, STATE_NAMES[each.state])
        for each in sorted(table)
        if (not states or STATE_NAMES[each.state] in states)
        and (not producer_ids or each.producer_id in producer_ids)
        and (open_longer_than_ms < 0 or _open_ms(each, now_ms) > open_longer_than_ms)
    ]


def description(table: TransactionTable, transactional_id: str) -> TransactionDescription:
    """Raises UnknownTransactionalIdError."""
    found = table.get(transactional_id)
    if found is None:
        raise unknown_id(transactional_id)
    return TransactionDescription(
        transactional_id,
        STATE_NAMES[found.state],
        found.producer_id,
        found.epoch,
        found.timeout_ms,
        found.start_ms if _is_open(found) else None,
        tuple(sorted(found.partitions)),
    )


def hanging(
    table: TransactionTable,
    partitions: Partitions,
    wanted: Iterable[TopicPartition],
    now_ms: int,
    *,
    open_longer_than_ms: int,
) -> list[HangingTransaction]:
    """Transactions open in these partitions for longer than this, the oldest first.

    How long is told by the coordinator; of a producer it does not know, by the time of its last
    batch there, as Kafka's tool does.

    Raises:
        UnknownTopicError
    """
    by_producer = {each.producer_id: each for each in table if _is_open(each)}
    found = []
    for where in wanted:
        for producer in partitions.partition(where).describe_producers():
            start_offset = producer.current_transaction_start_offset
            if start_offset is None:
                continue
            owner = by_producer.get(producer.producer_id)
            since_ms = owner.start_ms if owner is not None else producer.last_timestamp
            if now_ms - since_ms > open_longer_than_ms:
                found.append(
                    HangingTransaction(
                        where,
                        producer.producer_id,
                        producer.producer_epoch,
                        owner.transactional_id if owner is not None else None,
                        start_offset,
                        now_ms - since_ms,
                    )
                )
    return sorted(found, key=lambda each: (-each.open_ms, each.topic_partition))


def unknown_id(transactional_id: str) -> UnknownTransactionalIdError:
    """What to say of an id nobody used, or not for long."""
    return UnknownTransactionalIdError(
        f"Transactional id {transactional_id!r} is not known: no producer used it within "
        "transactional.id.expiration.ms. log.transactions() and `millstream transactions list` "
        "name those that are."
    )


def _is_open(metadata: TransactionMetadata) -> bool:
    return metadata.state is TransactionState.ONGOING or metadata.is_prepared


def _open_ms(metadata: TransactionMetadata, now_ms: int) -> int:
    return now_ms - metadata.start_ms if _is_open(metadata) else -1
