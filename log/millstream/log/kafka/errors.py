"""What librdkafka reports, as errors of our tree.

Positive codes are Kafka's and mean the same everywhere; negative ones are librdkafka's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaError, KafkaException

from millstream.log import errors
from millstream.log.errors import LogError

__all__ = ["error_of", "raised_as_ours"]

_OWN_CODES: dict[int, type[LogError]] = {
    KafkaError._TIMED_OUT: errors.LogTimeoutError,
    KafkaError._TIMED_OUT_QUEUE: errors.LogTimeoutError,
    KafkaError._MSG_TIMED_OUT: errors.LogTimeoutError,
    KafkaError._QUEUE_FULL: errors.BufferFullError,
    KafkaError._UNKNOWN_TOPIC: errors.UnknownTopicError,
    KafkaError._UNKNOWN_PARTITION: errors.UnknownTopicError,
    KafkaError._UNKNOWN_GROUP: errors.UnknownGroupError,
    KafkaError._INVALID_ARG: errors.ConfigError,
    KafkaError._BAD_MSG: errors.CorruptRecordError,
    KafkaError._BAD_COMPRESSION: errors.CorruptRecordError,
    KafkaError._AUTO_OFFSET_RESET: errors.OffsetOutOfRangeError,
    KafkaError._STATE: errors.InvalidTxnStateError,
    KafkaError._FENCED: errors.ProducerFencedError,
    KafkaError._ASSIGNMENT_LOST: errors.UnknownMemberError,
    KafkaError._TRANSPORT: errors.LogUnavailableError,
    KafkaError._ALL_BROKERS_DOWN: errors.LogUnavailableError,
    KafkaError._RESOLVE: errors.LogUnavailableError,
    KafkaError._NOENT: errors.LogUnavailableError,  # "no leaders found"
    KafkaError._WAIT_COORD: errors.LogUnavailableError,
    KafkaError._NODE_UPDATE: errors.LogUnavailableError,
    KafkaError._AUTHENTICATION: errors.AuthenticationError,
    KafkaError._SSL: errors.AuthenticationError,
    # What was not sent yet when its transaction was given up.
    KafkaError._PURGE_QUEUE: errors.RetriableError,
    KafkaError._PURGE_INFLIGHT: errors.RetriableError,
    KafkaError._UNSUPPORTED_FEATURE: errors.UnsupportedError,
}
_KAFKA_CODES: dict[int, type[LogError]] = {
    KafkaError.LEADER_NOT_AVAILABLE: errors.LogUnavailableError,
    KafkaError.NOT_LEADER_FOR_PARTITION: errors.LogUnavailableError,
    KafkaError.BROKER_NOT_AVAILABLE: errors.LogUnavailableError,
    KafkaError.REPLICA_NOT_AVAILABLE: errors.LogUnavailableError,
    KafkaError.NETWORK_EXCEPTION: errors.LogUnavailableError,
    KafkaError.COORDINATOR_NOT_AVAILABLE: errors.LogUnavailableError,
    KafkaError.NOT_COORDINATOR: errors.LogUnavailableError,
    KafkaError.NOT_CONTROLLER: errors.LogUnavailableError,
    # A partition has a new leader, of which not all know yet, or which does not know all yet.
    KafkaError.FENCED_LEADER_EPOCH: errors.LogUnavailableError,
    KafkaError.UNKNOWN_LEADER_EPOCH: errors.LogUnavailableError,
    KafkaError.OFFSET_NOT_AVAILABLE: errors.LogUnavailableError,
    KafkaError.LISTENER_NOT_FOUND: errors.LogUnavailableError,
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND: errors.NotEnoughReplicasError,
    KafkaError.TOPIC_AUTHORIZATION_FAILED: errors.NotAuthorizedError,
    KafkaError.GROUP_AUTHORIZATION_FAILED: errors.NotAuthorizedError,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: errors.NotAuthorizedError,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: errors.NotAuthorizedError,
    KafkaError.UNSUPPORTED_SASL_MECHANISM: errors.AuthenticationError,
    KafkaError.ILLEGAL_SASL_STATE: errors.AuthenticationError,
    KafkaError.SASL_AUTHENTICATION_FAILED: errors.AuthenticationError,
    KafkaError.INVALID_CONFIG: errors.ConfigError,
    KafkaError.UNKNOWN_TOPIC_ID: errors.UnknownTopicError,
    KafkaError.POLICY_VIOLATION: errors.ConfigError,
    KafkaError.INVALID_GROUP_ID: errors.ConfigError,
    # An older epoch of the same transactional id: another producer has taken it over.
    KafkaError.INVALID_PRODUCER_EPOCH: errors.ProducerFencedError,
}


def _by_code() -> dict[int, type[LogError]]:
    ours: dict[int, type[LogError]] = {}
    for name in errors.__all__:
        kind = getattr(errors, name)
        if issubclass(kind, LogError) and kind.kafka_code > 0:
            ours.setdefault(kind.kafka_code, kind)
    ours[errors.LogTimeoutError.kafka_code] = errors.LogTimeoutError  # not BufferFullError
    del ours[errors.MemberIdRequiredError.kafka_code]  # librdkafka deals with it
    return {**ours, **_KAFKA_CODES, **_OWN_CODES}


_ERRORS = _by_code()


def _cause_of(error: KafkaError) -> int:
    """A consumer that is past help says why in words only, which are those of the cause."""
    words = error.str()
    causes = (code for code in _ERRORS if code > 0 and KafkaError(code).str() in words)
    return next(causes, error.code())


def error_of(error: KafkaError, what: str) -> LogError:
    """Our error for librdkafka's.

    Args:
        what: what was tried, to begin the message with: "Topic orders".
    """
    code = error.code()
    if code == KafkaError._FATAL:
        code = _cause_of(error)
    kind = _ERRORS.get(code)
    if kind is None or (kind in _MENDED_BY_ABORTING and error.txn_requires_abort()):
        may_succeed = error.retriable() or error.txn_requires_abort()
        kind = errors.RetriableError if may_succeed else LogError
    return kind(f"{what}: {error.str()} ({error.name()}).{_advice(kind)}")


_MENDED_BY_ABORTING = {errors.InvalidTxnStateError, errors.OutOfOrderSequenceError}
"""Where librdkafka says that aborting the transaction is enough: the next one may succeed."""
_ADVICE: dict[type[LogError], str] = {
    errors.LogUnavailableError: " Is it running, and is the address right?",
    errors.UnknownTopicError: " Create the topic, or mend the name.",
    errors.RecordTooLargeError: " Raise the topic's max.message.bytes, or send less.",
    errors.ProducerFencedError: " Another producer has this transactional id; stop this one.",
    errors.AuthenticationError: " Check security.protocol, sasl.* and ssl.* of the URL.",
    errors.NotAuthorizedError: " Have whoever runs the cluster allow it to this user.",
    errors.LogTimeoutError: " Try again.",
    errors.FencedInstanceIdError: " Another member has this group.instance.id; stop this one.",
}


def _advice(kind: type[LogError]) -> str:
    return _ADVICE.get(kind, "")


@contextmanager
def raised_as_ours(what: str) -> Iterator[None]:
    """Raise what librdkafka raises in the body as errors of our tree."""
    try:
        yield
    except KafkaException as raised:
        error = raised.args[0] if raised.args else None
        if not isinstance(error, KafkaError):
            raise LogError(f"{what}: {raised}.") from raised
        raise error_of(error, what) from raised
