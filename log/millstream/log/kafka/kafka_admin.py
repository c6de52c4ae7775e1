"""Topics, records and groups of a cluster: what an administrator asks, over librdkafka."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from confluent_kafka import OFFSET_INVALID, IsolationLevel, KafkaError
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from millstream.log.errors import (
    LogError,
    LogUnavailableError,
    RetriableError,
    TopicExistsError,
    UnknownTopicError,
)
from millstream.log.interface import Isolation
from millstream.log.record import TopicDescription, TopicPartition
from millstream.log.settings import SettingValue

from .errors import error_of, raised_as_ours
from .own_thread import OwnThread
from .recent_topics import RecentTopics
from .retrying import asked_again, patiently

__all__ = ["KafkaAdmin", "answered"]

logger = logging.getLogger("millstream.log")
_LIBRDKAFKA = logging.getLogger("millstream.log.librdkafka")

T = TypeVar("T")

_ANSWER_S = 30.0
_TRY_S = 3.0
_LEADER_ANSWERS_S = 10.0
"""After which it is looked for again: it may be another server by then."""
_SEEN_WITHIN_S = 15.0
"""How long a broker may take to know of a topic that another has created or deleted."""
_ASK_AGAIN_S = 0.02
_ISOLATION = {
    "read_committed": IsolationLevel.READ_COMMITTED,
    "read_uncommitted": IsolationLevel.READ_UNCOMMITTED,
}


class KafkaAdmin:
    """One admin client. Its blocking calls are made in a thread of their own."""

    def __init__(self, settings: Mapping[str, Any], url: str) -> None:
        self._url = url
        self._thread = OwnThread("millstream-kafka-admin")
        self._refused: LogError | None = None
        self.recent = RecentTopics()
        with raised_as_ours(url):
            own = {"logger": _LIBRDKAFKA, "error_cb": self._failed}
            self.client = AdminClient({**settings, **own})

    async def reach(self, within_s: float) -> None:
        """Raises LogUnavailableError, LogTimeoutError when nobody answers, AuthenticationError when
        the servers do not let this user in."""
        ask = partial(self._names, _TRY_S)
        await self._thread.run(partial(patiently, ask, within_s))

    async def names(self) -> list[str]:
        """All topics, internal ones too, sorted."""
        ask = partial(self._names, _ANSWER_S)
        return await self._thread.run(partial(patiently, ask))

    def _names(self, timeout_s: float) -> list[str]:
        try:
            with raised_as_ours(self._url):
                found = sorted(self.client.list_topics(timeout=timeout_s).topics)
        except RetriableError as error:
            # librdkafka goes on trying, in vain, and tells elsewhere why.
            self._hear()
            if self._refused is not None:
                raise self._refused from error
            raise
        self._refused = None
        return found

    def _hear(self) -> None:
        """Take what librdkafka has to tell since the last time; it calls back from here only."""
        while self.client.poll(0):
            pass

    def _failed(self, error: KafkaError) -> None:
        if error.code() in {KafkaError._AUTHENTICATION, KafkaError._SSL}:
            self._refused = error_of(error, self._url)

    async def create(
        self, name: str, partitions: int, config: Mapping[str, SettingValue] | None
    ) -> None:
        """Raises TopicExistsError, InvalidTopicError, ConfigError."""
        texts = {key: setting_text(value) for key, value in (config or {}).items()}
        topic = NewTopic(name, num_partitions=partitions, replication_factor=-1, config=texts)

        @asked_again
        async def create() -> None:
            try:
                await answered(self.client.create_topics([topic])[name], f"Topic {name}")
            except TopicExistsError:
                self.recent.add(name)
                if not tries:
                    raise  # else it is the one that was asked for before
            except RetriableError:
                tries.append(None)
                raise

        tries: list[None] = []
        await create()
        self.recent.add(name)
        await self._seen(name, is_there=True)

    async def delete(self, name: str) -> None:
        """Raises UnknownTopicError."""

        @asked_again
        async def delete() -> None:
            try:
                await answered(self.client.delete_topics([name])[name], f"Topic {name}")
            except UnknownTopicError:
                if not tries:
                    raise  # else it went when that was asked for before
            except RetriableError:
                tries.append(None)
                raise

        tries: list[None] = []
        await delete()
        self.recent.discard(name)
        await self._seen(name, is_there=False)

    @asked_again
    async def add_partitions(self, name: str, total: int) -> None:
        """Raises UnknownTopicError, InvalidPartitionsError."""
        added = self.client.create_partitions([NewPartitions(name, total)])
        await answered(added[name], f"Topic {name}")

    @asked_again
    async def alter_config(self, name: str, config: Mapping[str, SettingValue | None]) -> None:
        """Set these, all or none; None resets one to its default."""
        entries = [
            ConfigEntry(
                key,
                None if value is None else setting_text(value),
                incremental_operation=(
                    AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET
                ),
            )
            for key, value in config.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
        altered = self.client.incremental_alter_configs([resource])
        await answered(next(iter(altered.values())), f"Topic {name}")

    @asked_again
    async def describe(self, name: str) -> TopicDescription:
        """Raises UnknownTopicError."""
        from confluent_kafka import TopicCollection

        what = f"Topic {name}"
        with raised_as_ours(what):
            asked = self.client.describe_topics(TopicCollection([name]))[name]
        resource = ConfigResource(ResourceType.TOPIC, name)
        with self.recent.known(name):
            topic = await answered(asked, what)
            entries = await answered(self.client.describe_configs([resource])[resource], what)
        config = {key: entry.value or "" for key, entry in entries.items()}
        return TopicDescription(
            name,
            str(topic.topic_id),
            len(topic.partitions),
            dict(sorted(config.items())),
            bool(topic.is_internal),
            {key: config[key] for key, entry in sorted(entries.items()) if _is_own(entry)},
        )

    @asked_again
    async def partitions_of(self, name: str) -> list[TopicPartition]:
        """Every partition of a topic. Raises UnknownTopicError."""
        from confluent_kafka import TopicCollection

        asked = self.client.describe_topics(TopicCollection([name]))[name]
        with self.recent.known(name):
            topic = await answered(asked, f"Topic {name}")
        return [TopicPartition(name, each) for each in range(len(topic.partitions))]

    @asked_again
    async def offsets(
        self,
        wanted: Mapping[TopicPartition, OffsetSpec],
        isolation: Isolation = "read_uncommitted",
    ) -> dict[TopicPartition, Any]:
        """Kafka's ListOffsets: offset (-1 for none) and timestamp of each."""
        if not wanted:
            return {}
        self._hear()
        asked = self.client.list_offsets(
            {Place(tp.topic, tp.partition): spec for tp, spec in wanted.items()},
            isolation_level=_ISOLATION[isolation],
            request_timeout=_LEADER_ANSWERS_S,
        )
        found = {TopicPartition(at.topic, at.partition): each for at, each in asked.items()}
        answers: dict[TopicPartition, Any] = {}
        async with self._asks_leaders():
            for tp in wanted:
                with self.recent.known(tp.topic):
                    answers[tp] = await answered(found[tp], f"Partition {tp}")
                if answers[tp].offset == OFFSET_INVALID:
                    raise LogUnavailableError(f"Partition {tp}: its leader does not answer.")
        return answers

    @asked_again
    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Raise the log start offsets."""
        if not before:
            return
        asked = self.client.delete_records(
            [Place(tp.topic, tp.partition, offset) for tp, offset in before.items()]
        )
        async with self._asks_leaders():
            for at, each in asked.items():
                with self.recent.known(at.topic):
                    await answered(each, f"Partition {at.topic}-{at.partition}")

    @asynccontextmanager
    async def _asks_leaders(self) -> AsyncIterator[None]:
        """librdkafka remembers which servers lead, and asks them again although they do not."""
        try:
            yield
        except LogUnavailableError:
            with suppress(LogError):
                await self._thread.run(partial(self._names, _TRY_S))
            raise

    async def close(self) -> None:
        """End the thread. The client goes with its last reference."""
        await self._thread.stop()
        del self.client

    async def _seen(self, name: str, *, is_there: bool) -> None:
        """Wait until the brokers know, so that what comes next finds it as it is."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _SEEN_WITHIN_S
        while loop.time() < end:
            try:
                await self.partitions_of(name)
                seen = True
            except UnknownTopicError:
                seen = False
            if seen is is_there:
                return
            await asyncio.sleep(_ASK_AGAIN_S)
        logger.warning("Topic %s: the cluster takes long to make its change known.", name)


async def answered(asked: Future[T], what: str) -> T:
    """What librdkafka answers, or its error as ours."""
    with raised_as_ours(what):
        return await asyncio.wrap_future(asked)


def setting_text(value: SettingValue) -> str:
    """As Kafka's tools write it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_own(entry: Any) -> bool:
    """Whether it was set for this topic (Kafka's DYNAMIC_TOPIC_CONFIG)."""
    return bool(entry.source == 1)
