"""Everything the log can raise, in one tree. An error is named after what its reader should do.

    MillstreamError
    └── LogError
        ├── RetriableError                 try again; the log is fine
        │   ├── LogTimeoutError
    │   ├── LogUnavailableError            nobody answers: is it running, is the address right?
        │   ├── CoordinatorLoadError
        │   ├── ConcurrentTransactionsError
        │   ├── RebalanceInProgressError
        │   └── UnstableOffsetCommitError
        ├── ConfigError                    a setting is wrong: change it
        │   ├── InvalidTopicError
        │   ├── InconsistentGroupProtocolError   the group's members share no assignor
        │   ├── InvalidSessionTimeoutError
        │   ├── GroupMaxSizeReachedError
        │   ├── InvalidPartitionsError           a number of partitions no topic can have
        │   ├── InvalidReplicationFactorError    there is one copy of everything
        │   ├── InvalidReplicaAssignmentError    partitions can be on the one node only
        │   ├── InvalidRequestError        a name that must not be empty is
        │   └── InvalidTransactionTimeoutError
        ├── UnknownTopicError              create the topic, or mend the name
        ├── TopicExistsError
        ├── OffsetOutOfRangeError          seek somewhere that exists
        ├── RecordTooLargeError            raise max.message.bytes, or send less
        ├── BufferFullError
        ├── CorruptRecordError             stored or sent bytes are not what they claim
        ├── InvalidRecordError             the topic takes no such record: mend the record
        │   └── InvalidTimestampError
        ├── NotEnoughReplicasError         lower min.insync.replicas: there is one copy
        ├── StorageError                   the disk failed: no writes until it is reopened
        ├── LogLockedError                 another process owns the directory
        ├── LogClosedError
        ├── UnsupportedError               this kind of log cannot do it: use what the message says
        ├── AuthenticationError            mend the security settings: the server knows nobody so
        ├── NotAuthorizedError             the server knows who it is, and refuses
        ├── ProducerFencedError            another producer took over: stop
        │   └── InvalidProducerIdMappingError   it has another one now, or was forgotten
        ├── UnknownTransactionalIdError    mend the name; see log.transactions()
        ├── InvalidProducerEpochError
        ├── OutOfOrderSequenceError
        ├── InvalidTxnStateError
        ├── UnknownMemberError             rejoin the group
        ├── IllegalGenerationError
        ├── MemberIdRequiredError          join again with the id it carries
        ├── FencedInstanceIdError          another member took over the group.instance.id: stop
        ├── UnknownGroupError              mend the name; see log.groups()
        ├── GroupSubscribedToTopicError    unsubscribe the members first
        └── GroupNotEmptyError

`retriable` says whether the same call may succeed later. `kafka_code` is the number that Kafka's
protocol has for the case (Kafka protocol guide, error codes).
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AuthenticationError",
    "BufferFullError",
    "ConcurrentTransactionsError",
    "ConfigError",
    "CoordinatorLoadError",
    "CorruptRecordError",
    "FencedInstanceIdError",
    "GroupMaxSizeReachedError",
    "GroupNotEmptyError",
    "GroupSubscribedToTopicError",
    "IllegalGenerationError",
    "InconsistentGroupProtocolError",
    "InvalidPartitionsError",
    "InvalidProducerEpochError",
    "InvalidProducerIdMappingError",
    "InvalidRecordError",
    "InvalidReplicaAssignmentError",
    "InvalidReplicationFactorError",
    "InvalidRequestError",
    "InvalidSessionTimeoutError",
    "InvalidTimestampError",
    "InvalidTopicError",
    "InvalidTransactionTimeoutError",
    "InvalidTxnStateError",
    "LogClosedError",
    "LogError",
    "LogLockedError",
    "LogTimeoutError",
    "LogUnavailableError",
    "MemberIdRequiredError",
    "MillstreamError",
    "NotAuthorizedError",
    "NotEnoughReplicasError",
    "OffsetOutOfRangeError",
    "OutOfOrderSequenceError",
    "ProducerFencedError",
    "RebalanceInProgressError",
    "RecordTooLargeError",
    "RetriableError",
    "StorageError",
    "TopicExistsError",
    "UnknownGroupError",
    "UnknownMemberError",
    "UnknownTopicError",
    "UnknownTransactionalIdError",
    "UnstableOffsetCommitError",
    "UnsupportedError",
]


class MillstreamError(Exception):
    """The root of every error Millstream raises on purpose."""

    retriable: ClassVar[bool] = False


class LogError(MillstreamError):
    """Something the log refuses or could not do."""

    kafka_code: ClassVar[int] = -1


class RetriableError(LogError):
    """The same call may succeed later; nothing was changed."""

    retriable = True


class LogTimeoutError(RetriableError):
    """The wait ended before the log answered. For a produce: the record may still be written."""

    kafka_code = 7


class LogUnavailableError(RetriableError):
    """Nobody answers at the log's address, or none who leads the partition just now."""

    kafka_code = 8


class CoordinatorLoadError(RetriableError):
    """The coordinator is still reading its topic."""

    kafka_code = 14


class ConcurrentTransactionsError(RetriableError):
    """The previous transaction of this transactional id is still being completed."""

    kafka_code = 51


class RebalanceInProgressError(RetriableError):
    """The group is rebalancing; join it again."""

    kafka_code = 27


class UnstableOffsetCommitError(RetriableError):
    """A committed offset is part of a transaction that has not ended."""

    kafka_code = 88


class ConfigError(LogError):
    """A setting has a value it cannot have, or does not exist."""

    kafka_code = 40


class InvalidTopicError(ConfigError):
    """A topic name breaks Kafka's rules: 1 to 249 characters of [a-zA-Z0-9._-], not "." or ".."."""

    kafka_code = 17


class InvalidPartitionsError(ConfigError):
    """A topic cannot have that many partitions, or not fewer than it has."""

    kafka_code = 37


class InvalidReplicationFactorError(ConfigError):
    """A topic asks for other than the one copy this log has."""

    kafka_code = 38


class InvalidReplicaAssignmentError(ConfigError):
    """Partitions are assigned to nodes that are not there, or not all are assigned."""

    kafka_code = 39


class InvalidRequestError(ConfigError):
    """A field of the request is empty that must not be, such as a transactional id of "", or no
    record can hold it."""

    kafka_code = 42


class InvalidTransactionTimeoutError(ConfigError):
    """transaction.timeout.ms is not between 1 and transaction.max.timeout.ms."""

    kafka_code = 50


class InconsistentGroupProtocolError(ConfigError):
    """A member shares no assignor with the others of its group, or is of another kind."""

    kafka_code = 23


class InvalidSessionTimeoutError(ConfigError):
    """session.timeout.ms lies outside what the log allows."""

    kafka_code = 26


class GroupMaxSizeReachedError(ConfigError):
    """The group has group.max.size members already."""

    kafka_code = 81


class UnknownTopicError(LogError):
    """The topic or the partition does not exist."""

    kafka_code = 3


class TopicExistsError(LogError):
    """A topic of that name exists already."""

    kafka_code = 36


class OffsetOutOfRangeError(LogError):
    """The offset lies before the log start offset or after the end."""

    kafka_code = 1


class RecordTooLargeError(LogError):
    """A record, or the batch made of it, is larger than max.message.bytes."""

    kafka_code = 10


class BufferFullError(LogError):
    """The producer's buffer stayed full for max.block.ms."""

    kafka_code = 7


class CorruptRecordError(LogError):
    """Bytes that should be a record batch are not one: checksum, length or field is wrong."""

    kafka_code = 2


class InvalidRecordError(LogError):
    """A record breaks a rule of its topic (a compacted topic takes none without a key), or one that
    holds for all."""

    kafka_code = 87


class InvalidTimestampError(InvalidRecordError):
    """A record's time lies outside message.timestamp.before.max.ms or .after.max.ms, or outside
    what any record can hold."""

    kafka_code = 32


class NotEnoughReplicasError(LogError):
    """The topic asks for more copies (min.insync.replicas) than the one this log has."""

    kafka_code = 19


class StorageError(LogError):
    """The disk failed. After a failed write or fsync nothing is known about the file, so the
    partition takes no more writes until the log is opened again (recovery finds what is true)."""

    kafka_code = 56


class LogLockedError(LogError):
    """Another process has the directory open. The message says which, and how to share it."""


class LogClosedError(LogError):
    """The log, producer or consumer was closed."""


class UnsupportedError(LogError):
    """This kind of log cannot do what was asked. The message says what to use instead."""

    kafka_code = 35


class AuthenticationError(LogError):
    """The server does not accept who the client says it is, or the connection is not secured as it
    demands."""

    kafka_code = 58


class NotAuthorizedError(LogError):
    """The server knows the client, and does not let it do this."""

    kafka_code = 29


class ProducerFencedError(LogError):
    """A newer producer with the same transactional id took over. This one must stop."""

    kafka_code = 90


class InvalidProducerIdMappingError(ProducerFencedError):
    """The transactional id has another producer id than the one given, or was forgotten after
    transactional.id.expiration.ms."""

    kafka_code = 49


class UnknownTransactionalIdError(LogError):
    """No producer with this transactional id is known."""

    kafka_code = 105


class InvalidProducerEpochError(LogError):
    """A batch carries an older producer epoch than the partition has seen."""

    kafka_code = 47


class OutOfOrderSequenceError(LogError):
    """A batch of an idempotent producer leaves a gap in the sequence."""

    kafka_code = 45


class InvalidTxnStateError(LogError):
    """The call does not fit the state the transaction is in."""

    kafka_code = 48


class UnknownMemberError(LogError):
    """The group coordinator does not know this member (any more); join again."""

    kafka_code = 25


class IllegalGenerationError(LogError):
    """The member speaks for a generation of the group that is over: a zombie."""

    kafka_code = 22


class GroupNotEmptyError(LogError):
    """The group still has members; stop them first."""

    kafka_code = 68


class MemberIdRequiredError(LogError):
    """A new member is told its id, and joins again with it (KIP-394).

    Args:
        member_id: the id to join with.
    """

    kafka_code = 79

    def __init__(self, message: str, member_id: str) -> None:
        super().__init__(message)
        self.member_id = member_id


class FencedInstanceIdError(LogError):
    """Another member joined with the same group.instance.id. This one must stop (KIP-345)."""

    kafka_code = 82


class UnknownGroupError(LogError):
    """There is no group of this name: no members, no committed offsets."""

    kafka_code = 69


class GroupSubscribedToTopicError(LogError):
    """Members of the group read the topic, so its offsets stay (KIP-496)."""

    kafka_code = 86
