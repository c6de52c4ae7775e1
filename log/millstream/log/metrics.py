"""The metrics of a log in Prometheus's text format, and what each means.

Collected when somebody asks: nothing here runs while records flow. docs/reference/metrics.md has
the same table; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from .broker.broker import Broker
from .broker.counting import FLUSH_BUCKETS_S
from .broker.txn_admin import STATE_NAMES
from .metrics_text import Family, Sample, histogram_text, metric_text
from .stats import ConsumerStats, ProducerStats
from .storage.files import open_descriptors
from .storage.partition import Partition

__all__ = ["FAMILIES", "log_metrics"]

_PARTITION = ("topic", "partition")
_OFFSET = ("group", "topic", "partition")

START = Family("millstream_log_start_offset", "gauge", "First offset that is kept.", _PARTITION)
HIGH_WATERMARK = Family(
    "millstream_log_high_watermark", "gauge", "Offset below which all is acknowledged.", _PARTITION
)
STABLE = Family(
    "millstream_log_last_stable_offset",
    "gauge",
    "Offset below which no transaction is open; read_committed readers stop here.",
    _PARTITION,
)
END = Family("millstream_log_end_offset", "gauge", "Offset of the next record.", _PARTITION)
SIZE = Family("millstream_log_size_bytes", "gauge", "Bytes of the segments' records.", _PARTITION)
SEGMENTS = Family("millstream_log_segments", "gauge", "Segments of the partition.", _PARTITION)
APPENDED_BATCHES = Family(
    "millstream_log_appended_batches_total", "counter", "Batches appended.", _PARTITION
)
APPENDED_RECORDS = Family(
    "millstream_log_appended_records_total", "counter", "Records appended.", _PARTITION
)
APPENDED_BYTES = Family(
    "millstream_log_appended_bytes_total", "counter", "Bytes of batches appended.", _PARTITION
)
FETCHED_BYTES = Family(
    "millstream_log_fetched_bytes_total", "counter", "Bytes of batches handed out.", _PARTITION
)
FAILED = Family(
    "millstream_log_failed_partitions",
    "gauge",
    "Partitions that take no more writes until the log is opened again, because the disk failed.",
)
UNFLUSHED = Family(
    "millstream_log_unflushed_partitions", "gauge", "Partitions with something to flush."
)
WAITING_FETCHES = Family(
    "millstream_log_waiting_fetches", "gauge", "Fetches that wait for something to read."
)
FLUSH_SECONDS = Family(
    "millstream_log_flush_seconds", "histogram", "Seconds a flush of one partition took."
)
FLUSH_FAILURES = Family(
    "millstream_log_flush_failures_total", "counter", "Flushes that failed: the disk failed."
)
TRANSACTIONS = Family(
    "millstream_transactions", "gauge", "Transactional ids by the state they are in.", ("state",)
)
STUCK = Family(
    "millstream_transactions_stuck",
    "gauge",
    "Transactions that are decided and that a full disk keeps from ending, or until the log is "
    "opened again a failed one.",
)
COMMITTED = Family("millstream_transactions_committed_total", "counter", "Transactions committed.")
ABORTED = Family("millstream_transactions_aborted_total", "counter", "Transactions aborted.")
TIMED_OUT = Family(
    "millstream_transactions_timed_out_total", "counter", "Transactions aborted by time-out."
)
FENCED = Family(
    "millstream_transactions_fenced_total",
    "counter",
    "Transactions aborted because another producer took over, or by force.",
)
EXPIRED = Family(
    "millstream_transactional_ids_expired_total", "counter", "Transactional ids forgotten."
)
GROUPS = Family("millstream_groups", "gauge", "Consumer groups by state.", ("state",))
MEMBERS = Family("millstream_group_members", "gauge", "Members of a group.", ("group",))
REBALANCES = Family("millstream_group_rebalances_total", "counter", "Rebalances that ended.")
COMMITTED_OFFSET = Family(
    "millstream_group_committed_offset", "gauge", "Offset a group committed.", _OFFSET
)
LAG = Family(
    "millstream_group_lag_records",
    "gauge",
    "Offsets between what a group committed and the last stable offset.",
    _OFFSET,
)
RETENTION_DELETED = Family(
    "millstream_retention_deleted_segments_total", "counter", "Segments retention deleted."
)
CLEANER_RUNS = Family("millstream_cleaner_runs_total", "counter", "Compactions that ended well.")
CLEANER_BYTES = Family("millstream_cleaner_read_bytes_total", "counter", "Bytes compaction read.")
CLEANER_WRITTEN = Family(
    "millstream_cleaner_written_bytes_total", "counter", "Bytes compaction wrote."
)
CLEANER_REMOVED = Family(
    "millstream_cleaner_removed_records_total", "counter", "Records compaction removed."
)
CLEANER_FAILURES = Family(
    "millstream_cleaner_failures_total", "counter", "Rounds of retention or compaction that failed."
)
PRODUCERS = Family("millstream_producers", "gauge", "Open producers of this process.")
BUFFERED = Family(
    "millstream_producer_buffered_bytes",
    "gauge",
    "Bytes handed to this process's producers and not acknowledged.",
)
SENT = Family(
    "millstream_producer_sent_records_total",
    "counter",
    "Records sent by the producers of this process that are open, or were.",
)
CONSUMERS = Family("millstream_consumers", "gauge", "Open consumers of this process.")
RETURNED = Family(
    "millstream_consumer_returned_records_total",
    "counter",
    "Records returned by the consumers of this process that are open, or were.",
)
CONNECTIONS = Family("millstream_server_connections", "gauge", "Clients that are connected.")
CONNECTIONS_REFUSED = Family(
    "millstream_server_refused_connections_total",
    "counter",
    "Connections that were not taken, or cut off. Counted by servers that are there.",
)
REQUEST_BYTES = Family(
    "millstream_server_request_bytes",
    "gauge",
    "Bytes of requests that were read, in whole or in part, and not answered.",
)
REQUESTS_WAITING = Family(
    "millstream_server_waiting_requests",
    "gauge",
    "Connections that are not read from until there is room for a request.",
)
RESPONSE_BYTES = Family(
    "millstream_server_response_bytes", "gauge", "Bytes of answers that clients have not taken."
)
RESPONSES_WAITING = Family(
    "millstream_server_waiting_responses",
    "gauge",
    "Requests that wait until there is room for an answer.",
)
DESCRIPTORS = Family("process_open_fds", "gauge", "Open file descriptors of this process.")

FAMILIES = tuple(each for each in list(vars().values()) if isinstance(each, Family))


def log_metrics(
    broker: Broker,
    producers: Sequence[ProducerStats],
    consumers: Sequence[ConsumerStats],
    *,
    sent_records: int,
    returned_records: int,
) -> str:
    """All metrics of an open log and its clients.

    Args:
        producers: of this process, those that are open.
        consumers: the same.
        sent_records: what closed producers had sent.
        returned_records: what closed consumers had returned.
    """
    partitions = list(broker.partitions)
    lines = [
        *_partition_lines(broker, partitions),
        *_broker_lines(broker),
        *_group_lines(broker),
        *_single(PRODUCERS, len(producers)),
        *_single(BUFFERED, sum(each.buffered_bytes for each in producers)),
        *_single(SENT, sent_records + sum(each.records_sent for each in producers)),
        *_single(CONSUMERS, len(consumers)),
        *_single(RETURNED, returned_records + sum(each.records_returned for each in consumers)),
    ]
    return "\n".join(lines) + "\n"


def _partition_lines(broker: Broker, partitions: list[Partition]) -> Iterator[str]:
    labels = [
        (each.topic_partition.topic, str(each.topic_partition.partition)) for each in partitions
    ]
    traffic = [broker.partitions.traffic(each.topic_partition) for each in partitions]
    columns: list[tuple[Family, Iterable[float]]] = [
        (START, (each.log_start_offset for each in partitions)),
        (HIGH_WATERMARK, (each.high_watermark for each in partitions)),
        (STABLE, (each.last_stable_offset for each in partitions)),
        (END, (each.log_end_offset for each in partitions)),
        (SIZE, (each.size_bytes for each in partitions)),
        (SEGMENTS, (each.segment_count for each in partitions)),
        (APPENDED_BATCHES, (each.appended_batches for each in traffic)),
        (APPENDED_RECORDS, (each.appended_records for each in traffic)),
        (APPENDED_BYTES, (each.appended_bytes for each in traffic)),
        (FETCHED_BYTES, (each.fetched_bytes for each in traffic)),
    ]
    for family, values in columns:
        yield from metric_text(family, zip(labels, values, strict=True))


def _broker_lines(broker: Broker) -> Iterator[str]:
    partitions, flusher = broker.partitions.stats(), broker.partitions.flusher.stats()
    transactions, cleaner = broker.transactions.stats(), broker.cleaner.stats()
    states: list[Sample] = [((name,), 0) for name in STATE_NAMES.values()]
    states += [((STATE_NAMES[each.state],), 1) for each in broker.transactions.table]
    yield from histogram_text(FLUSH_SECONDS, FLUSH_BUCKETS_S, flusher.buckets, flusher.seconds)
    yield from metric_text(TRANSACTIONS, states)
    for family, value in (
        (FAILED, partitions.failed),
        (UNFLUSHED, partitions.unflushed),
        (WAITING_FETCHES, partitions.waiting_fetches),
        (FLUSH_FAILURES, flusher.failed),
        (STUCK, transactions.stuck),
        (COMMITTED, transactions.committed),
        (ABORTED, transactions.aborted),
        (TIMED_OUT, transactions.timed_out),
        (FENCED, transactions.fenced),
        (EXPIRED, transactions.expired),
        (RETENTION_DELETED, cleaner.segments_deleted),
        (CLEANER_RUNS, cleaner.compactions),
        (CLEANER_BYTES, cleaner.bytes_read),
        (CLEANER_WRITTEN, cleaner.bytes_written),
        (CLEANER_REMOVED, cleaner.records_removed),
        (CLEANER_FAILURES, cleaner.failures),
    ):
        yield from _single(family, value)
    servers = [each.stats() for each in broker.servers]
    for family, value in (
        (CONNECTIONS, sum(each.connections for each in servers)),
        (CONNECTIONS_REFUSED, sum(each.refused for each in servers)),
        (REQUEST_BYTES, sum(each.request_bytes for each in servers)),
        (REQUESTS_WAITING, sum(each.waiting_requests for each in servers)),
        (RESPONSE_BYTES, sum(each.response_bytes for each in servers)),
        (RESPONSES_WAITING, sum(each.waiting_responses for each in servers)),
    ):
        yield from _single(family, value)
    descriptors = open_descriptors()
    if descriptors is not None:
        yield from _single(DESCRIPTORS, descriptors)


def _group_lines(broker: Broker) -> Iterator[str]:
    groups = broker.groups.stats()
    yield from metric_text(GROUPS, [((state,), count) for state, count in groups.by_state.items()])
    members = [((each.name,), len(each.members)) for each in broker.groups]
    members += [((each.name,), len(each.members)) for each in broker.groups.modern]
    yield from metric_text(MEMBERS, members)
    yield from _single(REBALANCES, groups.rebalances)
    stable = {each.topic_partition: each.last_stable_offset for each in broker.partitions}
    offsets: list[Sample] = []
    lags: list[Sample] = []
    for key, value in broker.offsets.rows():
        topic, partition = key.topic_partition
        labels = (key.group, topic, str(partition))
        offsets.append((labels, value.offset))
        if key.topic_partition in stable:
            lags.append((labels, max(stable[key.topic_partition] - value.offset, 0)))
    yield from metric_text(COMMITTED_OFFSET, offsets)
    yield from metric_text(LAG, lags)


def _single(family: Family, value: float) -> list[str]:
    return metric_text(family, [((), value)])
