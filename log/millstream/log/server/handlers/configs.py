"""DescribeConfigs, AlterConfigs, IncrementalAlterConfigs (KIP-133, KIP-339).

Resources are topics and the one broker. Settings of a topic can be altered; those of the log are
given when it is opened, and can be read.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from millstream.log.broker.topics import Topic, TopicChange
from millstream.log.config import TopicConfig
from millstream.log.errors import ConfigError, InvalidRequestError, LogError
from millstream.log.server.config_entries import (
    ConfigEntry,
    broker_entries,
    described_configs,
    topic_entries,
)
from millstream.log.server.handler import NODE_ID, Context, Fields, Handler
from millstream.log.settings import declared

__all__ = ["HANDLERS"]

_TOPIC = 2
_BROKER = 4
_SET, _DELETE, _APPEND, _SUBTRACT = range(4)


# DescribeConfigs


async def _describe_configs(request: Any, context: Context) -> Fields:
    """A resource is described once however often it is named: its description is long."""
    answers = []
    wanted = {(each.resource_type, each.resource_name): each for each in request.resources}
    for resource in wanted.values():
        await asyncio.sleep(0)  # a request for all topics takes long: others are served meanwhile
        try:
            configs = described_configs(
                _entries(resource, context),
                resource.configuration_keys,
                synonyms=request.include_synonyms,
                documentation=request.include_documentation,
            )
            answers.append({**_resource(resource), "configs": configs})
        except LogError as error:
            answers.append({**_failed_resource(resource, error), "configs": []})
    return {"results": answers}


def _entries(resource: Any, context: Context) -> list[ConfigEntry]:
    if resource.resource_type == _TOPIC:
        topic = context.broker.partitions.topic(resource.resource_name)
        return topic_entries(topic.config.to_strings(), topic.overrides)
    _check_broker(resource)
    if resource.resource_name == "":  # what was set for all brokers of a cluster: nothing can be
        return []
    return broker_entries(context.broker.config)


def _check_broker(resource: Any) -> None:
    if resource.resource_type != _BROKER:
        raise InvalidRequestError(
            f"Resource type {resource.resource_type} has no settings here; topics (2) and the "
            "broker (4) have."
        )
    if resource.resource_name not in ("", str(NODE_ID)):
        raise InvalidRequestError(
            f"There is no broker {resource.resource_name!r}; the only one is {NODE_ID}."
        )


def _resource(resource: Any) -> dict[str, Any]:
    return {
        "resource_type": resource.resource_type,
        "resource_name": resource.resource_name,
    }


def _failed_resource(resource: Any, error: LogError) -> dict[str, Any]:
    found = _resource(resource)
    return {**found, "error_code": error.kafka_code, "error_message": str(error)}


def _describe_failed(request: Any, code: int) -> Fields:
    failed = [{**_resource(each), "error_code": code} for each in request.resources]
    return {"results": failed}


# AlterConfigs, IncrementalAlterConfigs


async def _alter_configs(request: Any, context: Context) -> Fields:
    return await _alter(request, context, _replaced)


async def _incremental_alter_configs(request: Any, context: Context) -> Fields:
    return await _alter(request, context, _changed)


async def _alter(
    request: Any, context: Context, change: Callable[[Topic, Any], TopicChange]
) -> Fields:
    times = Counter((each.resource_type, each.resource_name) for each in request.resources)
    answers = []
    for resource in request.resources:
        try:
            if times[resource.resource_type, resource.resource_name] > 1:
                raise InvalidRequestError(f"{resource.resource_name} is named more than once.")
            await _alter_one(resource, context, change, request.validate_only)
            answers.append(_resource(resource))
        except LogError as error:
            answers.append(_failed_resource(resource, error))
    return {"responses": answers}


def _alter_one(
    resource: Any,
    context: Context,
    change: Callable[[Topic, Any], TopicChange],
    validate_only: bool,
) -> Awaitable[object]:
    if resource.resource_type != _TOPIC:
        _check_broker(resource)
        raise InvalidRequestError(
            "Settings of the log cannot be altered while it is open: give them when it is opened."
        )
    times = Counter(each.name for each in resource.configs)
    for name, count in times.items():
        if count > 1:
            raise InvalidRequestError(f"{name} is altered {count} times; alter it once.")
    topic = context.broker.partitions.topic(resource.resource_name)

    def config(current: Topic) -> TopicChange:
        return change(current, resource.configs)

    topic.altered(config(topic), None)
    return _nothing() if validate_only else context.broker.alter_topic(topic.name, config)


async def _nothing() -> None:
    """A change that is only validated."""


def _replaced(topic: Topic, configs: Any) -> TopicChange:
    """AlterConfigs: what it does not name has its default again."""
    defaults: dict[str, str | None] = dict.fromkeys(topic.overrides)
    return defaults | {each.name: _given(topic, each) for each in configs}


def _changed(topic: Topic, configs: Any) -> TopicChange:
    """IncrementalAlterConfigs: what it does not name stays."""
    return {
        each.name: None if each.config_operation == _DELETE else _operated(topic, each)
        for each in configs
    }


def _operated(topic: Topic, entry: Any) -> str:
    value = _given(topic, entry)
    if entry.config_operation == _SET:
        return value
    if entry.config_operation not in (_APPEND, _SUBTRACT):
        raise InvalidRequestError(f"{entry.name}: there is no operation {entry.config_operation}.")
    lists = {each.name for each in declared(TopicConfig) if each.type == "list"}
    if entry.name not in lists:
        raise ConfigError(
            f"Topic {topic.name}: {entry.name} is no list, so nothing can be appended or "
            f"subtracted; these are: {', '.join(sorted(lists))}."
        )
    before = [each for each in topic.config.to_strings()[entry.name].split(",") if each]
    items = [each.strip() for each in value.split(",")]
    if entry.config_operation == _APPEND:
        return ",".join(dict.fromkeys([*before, *items]))
    return ",".join(each for each in before if each not in items)


def _given(topic: Topic, entry: Any) -> str:
    if entry.value is None:
        raise InvalidRequestError(f"Topic {topic.name}: {entry.name} is null; delete it instead.")
    return str(entry.value)


def _alter_failed(request: Any, code: int) -> Fields:
    failed = [{**_resource(each), "error_code": code} for each in request.resources]
    return {"responses": failed}


HANDLERS = {
    32: Handler(range(1, 5), _describe_configs, failed=_describe_failed),
    33: Handler(range(3), _alter_configs, failed=_alter_failed),
    44: Handler(range(2), _incremental_alter_configs, failed=_alter_failed),
}
