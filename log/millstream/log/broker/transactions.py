"""The transaction coordinator's state machine: what may follow what, and with which epoch.

    EMPTY --add--> ONGOING --end--> PREPARE_COMMIT --markers written--> COMPLETE_COMMIT --add--> ...
                      |             PREPARE_ABORT  --markers written--> COMPLETE_ABORT
                      +--fence, time-out--> PREPARE_EPOCH_FENCE --> PREPARE_ABORT

Synchronous and without I/O: every step takes what is known and the time, and returns the metadata
to be logged. The step counts once `put` was called with it, which the caller does when it is
written.

Epochs. Ending a transaction raises the producer's epoch, the markers carry the raised epoch, and
the next transaction is written under it (the idea of KIP-890). So a produce or an EndTxn that was
delayed from an earlier transaction carries a lower epoch than the partition and the coordinator
have seen, and is refused; it can never land in the next transaction. When the epochs of a producer
id are used up, the next transaction gets a new producer id.

Producers on the network that do not speak KIP-890 (Kafka's transaction version 1) keep their epoch
until they ask for another: an end leaves it, the markers carry it. Which kind a producer is, shows
in what it begins a transaction with. What an old one writes must be in a transaction that it
announced before, so what is late cannot begin one; only a time-out, a termination or another
producer raises its epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from millstream.log.errors import (
    ConcurrentTransactionsError,
    InvalidProducerIdMappingError,
    InvalidRequestError,
    InvalidTransactionTimeoutError,
    InvalidTxnStateError,
    ProducerFencedError,
)
from millstream.log.record import TopicPartition

from .txn_records import (
    BY_COORDINATOR,
    BY_OLD_PRODUCER,
    BY_PRODUCER,
    NO_PRODUCER_ID,
    TransactionMetadata,
    TransactionState,
)

__all__ = ["EPOCH_MAX", "LEGAL_PREVIOUS", "TransactionTable", "still_ending"]

EPOCH_MAX = 32_767
"""int16; the last epoch is only ever used by markers, so the last to write with is one less."""

S = TransactionState

LEGAL_PREVIOUS: dict[TransactionState, frozenset[TransactionState]] = {
    S.EMPTY: frozenset({S.EMPTY, S.COMPLETE_COMMIT, S.COMPLETE_ABORT}),
    S.ONGOING: frozenset({S.ONGOING, S.EMPTY, S.COMPLETE_COMMIT, S.COMPLETE_ABORT}),
    S.PREPARE_COMMIT: frozenset({S.ONGOING}),
    S.PREPARE_ABORT: frozenset(
        {S.ONGOING, S.PREPARE_EPOCH_FENCE, S.EMPTY, S.COMPLETE_COMMIT, S.COMPLETE_ABORT}
    ),
    S.COMPLETE_COMMIT: frozenset({S.PREPARE_COMMIT}),
    S.COMPLETE_ABORT: frozenset({S.PREPARE_ABORT}),
    S.DEAD: frozenset({S.EMPTY, S.COMPLETE_COMMIT, S.COMPLETE_ABORT}),
    S.PREPARE_EPOCH_FENCE: frozenset({S.ONGOING}),
}
"""Kafka's table of legal previous states (TransactionMetadata, transaction version 2)."""

_COMMITS = frozenset({S.PREPARE_COMMIT, S.COMPLETE_COMMIT})
_ENDED = _COMMITS | {S.PREPARE_ABORT, S.COMPLETE_ABORT}


class TransactionTable:
    """All transactional ids of a log."""

    def __init__(self, *, timeout_ms_max: int) -> None:
        self._timeout_ms_max = timeout_ms_max
        self._by_id: dict[str, TransactionMetadata] = {}

    def __iter__(self) -> Iterator[TransactionMetadata]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, transactional_id: str) -> TransactionMetadata | None:
        """What is known of this id."""
        return self._by_id.get(transactional_id)

    def restore(self, metadata: TransactionMetadata) -> None:
        """As read from the log."""
        self._by_id[metadata.transactional_id] = metadata

    def put(self, metadata: TransactionMetadata) -> None:
        """This step was written."""
        before = self._by_id.get(metadata.transactional_id)
        if before is not None:
            assert before.state in LEGAL_PREVIOUS[metadata.state], (before, metadata)
        self._by_id[metadata.transactional_id] = metadata

    def init(
        self,
        transactional_id: str,
        timeout_ms: int,
        now_ms: int,
        new_producer_id: Callable[[], int],
        *,
        version: int = BY_PRODUCER,
        current: tuple[int, int] | None = None,
    ) -> TransactionMetadata:
        """A producer starts: give it an epoch that fences every earlier one.

        Args:
            version: BY_PRODUCER, or BY_OLD_PRODUCER for one that keeps its epoch.
            current: the producer id and epoch of one that asks for its next epoch (KIP-360).

        Returns:
            EMPTY with the producer's id and epoch; or, while a transaction is open,
            PREPARE_EPOCH_FENCE: abort that first, then call again.

        Raises:
            InvalidRequestError: the id is empty.
            InvalidTransactionTimeoutError: the time-out is none Kafka would take.
            ConcurrentTransactionsError: the last transaction is just being completed.
            ProducerFencedError: `current` is not in force.
        """
        if not transactional_id:
            raise InvalidRequestError("transactional_id is empty; leave it out, or give it a name.")
        if not 0 < timeout_ms <= self._timeout_ms_max:
            raise InvalidTransactionTimeoutError(
                f"transaction.timeout.ms is {timeout_ms}; it can be 1 to "
                f"transaction.max.timeout.ms={self._timeout_ms_max}."
            )
        known = self._by_id.get(transactional_id)
        if known is None:
            started = TransactionMetadata(
                transactional_id, new_producer_id(), 0, timeout_ms, S.EMPTY, frozenset(), now_ms
            )
            return started._replace(client_version=version)
        if current is not None and current != (known.producer_id, known.epoch):
            if self._was_given_next(known, *current):
                return known
            raise self._not_in_force(transactional_id, *current)
        if known.state is S.ONGOING:
            return self.fence(known, now_ms)
        self._check_not_prepared(known)
        started = known._replace(
            state=S.EMPTY,
            timeout_ms=timeout_ms,
            last_update_ms=now_ms,
            start_ms=-1,
            client_version=version,
            last_epoch=-1 if current is None else known.epoch,
        )
        if known.epoch >= EPOCH_MAX - 1:
            return started._replace(
                producer_id=new_producer_id(),
                epoch=0,
                previous_producer_id=known.producer_id,
            )
        return started._replace(epoch=known.epoch + 1)

    def add_partitions(
        self,
        transactional_id: str,
        producer_id: int,
        epoch: int,
        partitions: Iterable[TopicPartition],
        now_ms: int,
        *,
        announced: bool = False,
        version: int | None = None,
    ) -> TransactionMetadata | None:
        """These partitions are about to be written to; the first begins the transaction.

        Args:
            announced: the producer says so beforehand; else it is writing to them just now.
            version: BY_PRODUCER or BY_OLD_PRODUCER, as its request shows; None for as it started.

        Returns:
            ONGOING with them, or None when all were added before.

        Raises:
            ProducerFencedError, ConcurrentTransactionsError: as `check`.
            InvalidTxnStateError: the producer had to announce them, and did not.
        """
        known = self.check(transactional_id, producer_id, epoch)
        if known.state is S.ONGOING and known.partitions.issuperset(partitions):
            return None
        if version is not None and known.state is not S.ONGOING:
            known = known._replace(client_version=version)
        if not announced and BY_OLD_PRODUCER in (known.client_version, version):
            raise InvalidTxnStateError(
                f"Transactional id {transactional_id!r}: a write to a partition that is not in the "
                f"transaction of epoch {epoch}, which is {known.state.name}. It came late, or was "
                "not announced with AddPartitionsToTxn: abort the transaction."
            )
        if known.state is S.ONGOING:
            added = known.partitions.union(partitions)
            return known._replace(partitions=added, last_update_ms=now_ms)
        return known._replace(
            state=S.ONGOING,
            partitions=frozenset(partitions),
            start_ms=now_ms,
            last_update_ms=now_ms,
            previous_producer_id=NO_PRODUCER_ID,
        )

    def prepare_end(
        self,
        transactional_id: str,
        producer_id: int,
        epoch: int,
        *,
        commit: bool,
        now_ms: int,
        new_producer_id: Callable[[], int],
        version: int | None = None,
    ) -> TransactionMetadata | None:
        """The producer ends its transaction; `version` as in `add_partitions`.

        Returns:
            PREPARE_COMMIT or PREPARE_ABORT; None when this very transaction was ended this way
            before: the call is a repetition, and the answer is what is known now.

        Raises:
            As `check_end`.
        """
        if self.check_end(transactional_id, producer_id, epoch, commit=commit, version=version):
            return None
        known = self._by_id[transactional_id]
        if version is not None:
            known = known._replace(client_version=version)
        prepared = S.PREPARE_COMMIT if commit else S.PREPARE_ABORT
        if known.keeps_epoch:
            return known._replace(state=prepared, last_update_ms=now_ms)
        next_id = new_producer_id() if known.epoch >= EPOCH_MAX - 1 else NO_PRODUCER_ID
        return known._replace(
            state=prepared,
            epoch=known.epoch + 1,
            next_producer_id=next_id,
            last_update_ms=now_ms,
            client_version=BY_PRODUCER,
        )

    def check_end(
        self,
        transactional_id: str,
        producer_id: int,
        epoch: int,
        *,
        commit: bool,
        version: int | None = None,
    ) -> bool:
        """Whether an EndTxn asks for what was done already; False when it is to be done now.

        Aborting where there is no transaction is legal: its producer cannot always know whether it
        wrote (KIP-890). Not so for one that announces what it writes to.

        Raises:
            ProducerFencedError: the producer is not the one in force.
            ConcurrentTransactionsError: what it asks for is just being done.
            InvalidTxnStateError: there is no transaction to end, or it ended the other way.
        """
        known = self._by_id.get(transactional_id)
        is_repetition = known is not None and self._is_repetition(known, producer_id, epoch)
        if known is None or not (
            is_repetition or (known.producer_id == producer_id and known.epoch == epoch)
        ):
            raise self._not_in_force(transactional_id, producer_id, epoch)
        if is_repetition:
            if commit is not (known.state in _COMMITS):
                raise InvalidTxnStateError(
                    f"Transactional id {transactional_id!r}: the transaction of epoch {epoch} was "
                    f"ended the other way; it is {known.state.name}."
                )
            self._check_not_prepared(known)
            return True
        if known.is_prepared:  # no client was told this epoch yet
            raise self._not_in_force(transactional_id, producer_id, epoch)
        keeps_epoch = known.keeps_epoch if version is None else version == BY_OLD_PRODUCER
        if known.state is not S.ONGOING and (commit or keeps_epoch):
            raise InvalidTxnStateError(
                f"Transactional id {transactional_id!r}: there is no transaction to end; it is "
                f"{known.state.name}."
            )
        return False

    def fence(self, known: TransactionMetadata, now_ms: int) -> TransactionMetadata:
        """Raise the epoch of an open transaction, so that its producer can do no more in it."""
        assert known.state is S.ONGOING
        return known._replace(
            state=S.PREPARE_EPOCH_FENCE, epoch=known.epoch + 1, last_update_ms=now_ms
        )

    def prepare_abort(
        self, known: TransactionMetadata, now_ms: int, new_producer_id: Callable[[], int]
    ) -> TransactionMetadata:
        """Abort a fenced transaction; the markers carry the epoch the fence raised it to."""
        next_id = new_producer_id() if known.epoch >= EPOCH_MAX else NO_PRODUCER_ID
        return known._replace(
            state=S.PREPARE_ABORT,
            next_producer_id=next_id,
            last_update_ms=now_ms,
            client_version=BY_COORDINATOR,
        )

    def complete(self, known: TransactionMetadata, now_ms: int) -> TransactionMetadata:
        """Every marker is written: the transaction is over, the next epoch or id is in force."""
        commit = known.state is S.PREPARE_COMMIT
        ended = known._replace(
            state=S.COMPLETE_COMMIT if commit else S.COMPLETE_ABORT,
            partitions=frozenset(),
            last_update_ms=now_ms,
        )
        if known.next_producer_id == NO_PRODUCER_ID:
            return ended
        return ended._replace(
            producer_id=known.next_producer_id,
            epoch=0,
            previous_producer_id=known.producer_id,
            next_producer_id=NO_PRODUCER_ID,
        )

    def check(self, transactional_id: str, producer_id: int, epoch: int) -> TransactionMetadata:
        """The metadata, if this producer is the one in force.

        Raises:
            ProducerFencedError: it is not. (InvalidProducerIdMappingError: another producer id is
                in force, or none.)
            ConcurrentTransactionsError: it is, and its last transaction is being completed.
        """
        known = self._by_id.get(transactional_id)
        if known is None or known.producer_id != producer_id or known.epoch != epoch:
            raise self._not_in_force(transactional_id, producer_id, epoch)
        self._check_not_prepared(known)
        return known

    def idle_since(self, before_ms: int) -> list[TransactionMetadata]:
        """Ids without a transaction whose last one ended, or who started, before this time."""
        return [
            each
            for each in self._by_id.values()
            if each.state in LEGAL_PREVIOUS[S.DEAD] and each.last_update_ms <= before_ms
        ]

    def forget(self, transactional_id: str) -> None:
        """The id was idle for long: its tombstone was written."""
        gone = self._by_id.pop(transactional_id)
        assert gone.state in LEGAL_PREVIOUS[S.DEAD], gone

    def _not_in_force(
        self, transactional_id: str, producer_id: int, epoch: int
    ) -> ProducerFencedError:
        known = self._by_id.get(transactional_id)
        kind = ProducerFencedError
        if known is None or known.producer_id != producer_id:
            kind = InvalidProducerIdMappingError
        in_force = "the id is not known, or was forgotten after transactional.id.expiration.ms"
        if known is not None:
            in_force = f"{known.producer_id} with {known.epoch} is"
        return kind(
            f"Transactional id {transactional_id!r}: producer id {producer_id} with epoch "
            f"{epoch} is not in force ({in_force}). Its transaction timed out or was terminated, "
            "or another producer with this id took over. Close this one; start again with a new "
            "one if no other is running."
        )

    @staticmethod
    def _check_not_prepared(known: TransactionMetadata) -> None:
        if known.is_prepared:
            raise still_ending(known.transactional_id)

    @staticmethod
    def _was_given_next(known: TransactionMetadata, producer_id: int, epoch: int) -> bool:
        """A producer asked for its next epoch, and asks again because the answer was lost."""
        if known.state is not S.EMPTY or known.last_epoch != epoch:
            return False
        rotated = known.epoch == 0 and known.previous_producer_id == producer_id
        return rotated or (known.producer_id == producer_id and known.epoch == epoch + 1)

    @staticmethod
    def _is_repetition(known: TransactionMetadata, producer_id: int, epoch: int) -> bool:
        """An EndTxn that was answered, but whose answer was lost, comes once more; or it comes
        again while it is being done."""
        if known.state not in _ENDED or known.client_version == BY_COORDINATOR:
            return False
        if known.keeps_epoch:
            return known.producer_id == producer_id and known.epoch == epoch
        if known.previous_producer_id == producer_id and known.epoch == 0:
            return epoch >= EPOCH_MAX - 1
        return known.producer_id == producer_id and known.epoch == epoch + 1


def still_ending(transactional_id: str) -> ConcurrentTransactionsError:
    """What to say to who comes before the end of the last transaction is over."""
    return ConcurrentTransactionsError(
        f"Transactional id {transactional_id!r}: the last transaction is still being completed; "
        "try again."
    )
