"""`millstream topics`: list, create, describe, alter and delete topics."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from .command import LogGroup, fail, json_option, log_option, pairs, print_json, run

if TYPE_CHECKING:
    from millstream.log.interface import Log
    from millstream.log.record import PartitionDescription, TopicDescription

__all__ = ["topics"]

config_option = click.option(
    "--config",
    "configs",
    metavar="NAME=VALUE",
    multiple=True,
    help="A setting under Kafka's name, such as retention.ms=86400000. Repeatable.",
)
topic_argument = click.argument("topic")


@click.group(cls=LogGroup)
def topics() -> None:
    """List, create, describe, alter and delete topics.

    \b
    millstream topics create orders --partitions 4 --config retention.ms=86400000
    millstream topics list
    """


@topics.command("list")
@click.option("--internal", is_flag=True, help="Also the topics the log keeps its own state in.")
@log_option
@json_option
def list_topics(internal: bool, log_url: str, as_json: bool) -> None:
    """Names of the topics, one a line.

    With --json one object a line: name, partitions, internal.
    """
    for topic in run(log_url, _all):
        if topic.internal and not internal:
            continue
        if as_json:
            print_json(
                {"name": topic.name, "partitions": topic.partitions, "internal": topic.internal}
            )
        else:
            click.echo(topic.name)


@topics.command()
@topic_argument
@click.option("--partitions", type=int, default=1, show_default=True, help="How many.")
@config_option
@click.option("--if-not-exists", is_flag=True, help="Leave a topic that is there as it is.")
@log_option
@json_option
def create(
    topic: str,
    partitions: int,
    configs: Sequence[str],
    if_not_exists: bool,
    log_url: str,
    as_json: bool,
) -> None:
    """Create TOPIC. The log is made if it is not there.

    \b
    millstream topics create orders --partitions 4
    millstream topics create latest --config cleanup.policy=compact
    """
    config = dict(pairs("--config", configs))

    async def work(log: Log) -> tuple[TopicDescription, bool]:
        there = topic in await log.topics()
        if there and not if_not_exists:
            fail(
                f"Topic {topic} exists already. Use it as it is with --if-not-exists, or change it "
                "with `millstream topics alter`."
            )
        return await log.create_topic(
            topic, partitions=partitions, config=config, exist_ok=True
        ), there

    found, there = run(log_url, work, must_exist=False)
    if as_json:
        print_json(_as_json(found))
    else:
        click.echo(f"{found.name}: {'exists' if there else 'created'}, {_count(found)}")


@topics.command()
@click.argument("names", metavar="[TOPIC]...", nargs=-1)
@click.option("--internal", is_flag=True, help="Also the topics the log keeps its own state in.")
@log_option
@json_option
def describe(names: Sequence[str], internal: bool, log_url: str, as_json: bool) -> None:
    """What topics are made of: id, settings, and for each partition offsets, size and segments.

    Without TOPIC all of them. With --json one object a line and topic.
    """

    async def work(log: Log) -> list[tuple[TopicDescription, list[PartitionDescription]]]:
        chosen = [
            topic
            for topic in await _all(log)
            if topic.name in names or (not names and (internal or not topic.internal))
        ]
        missing = set(names) - {topic.name for topic in chosen}
        if missing:
            fail(f"{_no_topic(min(missing))} `millstream topics list` names those there are.")
        return [(topic, await log.describe_partitions(topic.name)) for topic in chosen]

    for topic, partitions in run(log_url, work):
        if as_json:
            print_json(
                _as_json(topic)
                | {
                    "config": dict(topic.config),
                    "partitions": [each._asdict() for each in partitions],
                }
            )
        else:
            _print_description(topic, partitions)


@topics.command()
@topic_argument
@click.option("--partitions", type=int, help="The new total. There can only be more.")
@config_option
@click.option(
    "--delete-config",
    "resets",
    metavar="NAME",
    multiple=True,
    help="A setting to go back to its default. Repeatable.",
)
@log_option
@json_option
def alter(
    topic: str,
    partitions: int | None,
    configs: Sequence[str],
    resets: Sequence[str],
    log_url: str,
    as_json: bool,
) -> None:
    """Change settings of TOPIC, or add partitions.

    With more partitions, records with keys go to other ones from then on.

    \b
    millstream topics alter orders --config retention.ms=3600000 --delete-config segment.ms
    millstream topics alter orders --partitions 8
    """
    config: dict[str, str | None] = {**dict(pairs("--config", configs)), **dict.fromkeys(resets)}
    if not config and partitions is None:
        raise click.UsageError("Nothing to change: give --partitions, --config or --delete-config.")

    async def work(log: Log) -> TopicDescription:
        await _check_is_there(log, topic)
        return await log.alter_topic(topic, config=config or None, partitions=partitions)

    found = run(log_url, work)
    if as_json:
        print_json(_as_json(found))
    else:
        click.echo(f"{found.name}: altered, {_count(found)}")
        for name, value in sorted(found.overrides.items()):
            click.echo(f"  {name}={value}")


@topics.command()
@topic_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--if-exists", is_flag=True, help="A topic that is not there is no error.")
@log_option
@json_option
def delete(topic: str, yes: bool, if_exists: bool, log_url: str, as_json: bool) -> None:
    """Delete TOPIC with all its records, for good."""
    if not yes:
        if sys.stdin is None or not sys.stdin.isatty():
            raise click.UsageError("Deleting is for good: say so with --yes.")
        click.confirm(f"Delete {topic} with all its records?", abort=True, err=True)

    async def work(log: Log) -> bool:
        if topic not in await log.topics() and if_exists:
            return False
        await _check_is_there(log, topic)
        await log.delete_topic(topic)
        return True

    deleted = run(log_url, work)
    if as_json:
        print_json({"name": topic, "deleted": deleted})
    else:
        click.echo(f"{topic}: {'deleted' if deleted else 'is not there'}")


async def _all(log: Log) -> list[TopicDescription]:
    return [await log.describe_topic(name) for name in await log.topics()]


async def _check_is_there(log: Log, topic: str) -> None:
    if topic not in await log.topics():
        fail(f"{_no_topic(topic)} `millstream topics list` names those there are.")


def _no_topic(topic: str) -> str:
    return f"Topic {topic!r} does not exist."


def _count(topic: TopicDescription) -> str:
    return f"{topic.partitions} partition{'s' if topic.partitions > 1 else ''}"


def _as_json(topic: TopicDescription) -> dict[str, Any]:
    return {
        "name": topic.name,
        "topic_id": topic.topic_id,
        "internal": topic.internal,
        "partitions": topic.partitions,
        "overrides": dict(topic.overrides),
    }


def _print_description(topic: TopicDescription, partitions: list[PartitionDescription]) -> None:
    from .tables import print_table, size_text

    overrides = ", ".join(f"{name}={value}" for name, value in sorted(topic.overrides.items()))
    kind = ", internal" if topic.internal else ""
    click.echo(f"{topic.name}: id {topic.topic_id}, {_count(topic)}{kind}")
    click.echo(f"  settings: {overrides or 'all as by default'}")
    print_table(
        ["partition", "log start", "stable", "high watermark", "end", "size", "segments"],
        [
            (
                each.partition,
                each.log_start_offset,
                each.last_stable_offset,
                each.high_watermark,
                each.log_end_offset,
                size_text(each.size_bytes) if each.size_bytes >= 0 else "-",
                each.segments if each.segments >= 0 else "-",
            )
            for each in partitions
        ],
    )
    click.echo()
