"""`millstream groups`: consumer groups, their members, offsets and lag."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from millstream.log.record import TopicPartition

from .command import LogGroup, fail, json_option, log_option, print_json, run
from .when import NUMBER, Start, parse_start

if TYPE_CHECKING:
    from millstream.log.interface import Log
    from millstream.log.offset_reset import ResetPlan, ResetTo
    from millstream.log.record import GroupDescription, GroupListing

__all__ = ["groups"]

group_argument = click.argument("group")
topic_option = click.option(
    "--topic",
    "topics",
    metavar="TOPIC[:PARTITION,...]",
    multiple=True,
    help="Only this topic, or these partitions of it. Repeatable.",
)


class GroupOffset(NamedTuple):
    """Where a group stands in one partition; None for what is not known."""

    topic_partition: TopicPartition
    committed: int | None
    end: int | None
    member: str | None

    @property
    def lag(self) -> int | None:
        if self.committed is None or self.end is None:
            return None
        return max(self.end - self.committed, 0)


@click.group(cls=LogGroup)
def groups() -> None:
    """List, describe, reset and delete consumer groups.

    \b
    millstream groups describe billing
    millstream groups reset billing --to '2h ago' --topic orders --execute
    """


@groups.command("list")
@log_option
@json_option
def list_groups(log_url: str, as_json: bool) -> None:
    """Every group and its state."""
    from .tables import print_table

    async def work(log: Log) -> list[GroupListing]:
        return await log.groups()

    found = run(log_url, work)
    if as_json:
        for each in found:
            print_json(each._asdict())
    else:
        print_table(["group", "state", "type"], [(*each[:2], each.protocol_type) for each in found])


@groups.command()
@group_argument
@log_option
@json_option
def describe(group: str, log_url: str, as_json: bool) -> None:
    """Members of GROUP, and for each partition what it has committed, the end, and the lag."""

    async def work(log: Log) -> tuple[GroupDescription, list[GroupOffset]]:
        return await log.describe_group(group), await _offsets(log, group)

    found, offsets = run(log_url, work)
    if as_json:
        print_json(_as_json(found, offsets))
    else:
        _print_description(found, offsets)


@groups.command()
@group_argument
@click.option(
    "--to",
    metavar="WHERE",
    help="beginning, end, current, an offset, or a time: ISO 8601, @MILLISECONDS or 2h ago.",
)
@click.option("--shift-by", type=int, metavar="N", help="So many records forward, or back if < 0.")
@topic_option
@click.option("--execute", is_flag=True, help="Do it. Without it the plan is printed only.")
@click.option("--dry-run", is_flag=True, help="Print the plan only, which is the default.")
@log_option
@json_option
def reset(
    group: str,
    to: str | None,
    shift_by: int | None,
    topics: Sequence[str],
    execute: bool,
    dry_run: bool,
    log_url: str,
    as_json: bool,
) -> None:
    """Move the committed offsets of GROUP, which must have no members.

    Without --topic, of every partition it has committed for. New offsets lie within what there is.

    \b
    millstream groups reset billing --to beginning
    millstream groups reset billing --shift-by -100 --topic orders:0,1 --execute
    """
    if (to is None) == (shift_by is None):
        raise click.UsageError("Say where to: one of --to and --shift-by.")
    if execute and dry_run:
        raise click.UsageError("--execute and --dry-run exclude each other.")
    wanted = [_parse_topic(text) for text in topics]
    start = None if to is None or to == "current" else parse_start(to)

    async def work(log: Log) -> dict[TopicPartition, ResetPlan]:
        from millstream.log.offset_reset import plan_offset_reset

        partitions = await _partitions(log, group, wanted)
        plan = await plan_offset_reset(log, group, partitions, _reset_to(start, shift_by))
        if execute:
            new = {each: step.new for each, step in plan.items()}
            await log.alter_group_offsets(group, new)
        return plan

    _print_plan(group, run(log_url, work), execute, as_json)


@groups.command()
@group_argument
@log_option
@json_option
def delete(group: str, log_url: str, as_json: bool) -> None:
    """Delete GROUP and its committed offsets. It must have no members."""

    async def work(log: Log) -> None:
        await log.describe_group(group)
        await log.delete_group(group)

    run(log_url, work)
    if as_json:
        print_json({"group": group, "deleted": True})
    else:
        click.echo(f"{group}: deleted")


@groups.command("delete-offsets")
@group_argument
@topic_option
@log_option
@json_option
def delete_offsets(group: str, topics: Sequence[str], log_url: str, as_json: bool) -> None:
    """Delete what GROUP has committed for topics, or for partitions of them.

    Refused while a member of the group is subscribed to the topic.
    """
    wanted = [_parse_topic(text) for text in topics]
    if not wanted:
        raise click.UsageError("Say of which: --topic TOPIC or --topic TOPIC:PARTITION.")

    async def work(log: Log) -> list[TopicPartition]:
        partitions = await _partitions(log, group, wanted)
        committed = await log.group_offsets(group)
        found = [each for each in partitions if each in committed]
        await log.delete_group_offsets(group, found)
        return found

    deleted = run(log_url, work)
    if as_json:
        print_json({"group": group, "deleted": list(map(str, deleted))})
    else:
        click.echo(f"{group}: deleted the offsets of {', '.join(map(str, deleted)) or 'nothing'}")


async def _offsets(log: Log, group: str) -> list[GroupOffset]:
    """Committed, or assigned to a member, in order."""
    description = await log.describe_group(group)
    committed = await log.group_offsets(group)
    member_of = {
        each: member.member_id for member in description.members for each in member.assignment
    }
    partitions = sorted(committed.keys() | member_of.keys())
    there = set(await log.topics())
    known = [each for each in partitions if each.topic in there]
    ends = await log.end_offsets(known, "read_uncommitted")
    return [
        GroupOffset(
            each,
            committed[each].offset if each in committed else None,
            ends.get(each),
            member_of.get(each),
        )
        for each in partitions
    ]


def _parse_topic(text: str) -> tuple[str, list[int]]:
    """`TOPIC`, `TOPIC:0` or `TOPIC:0,2`; no numbers mean all partitions."""
    topic, colon, numbers = text.partition(":")
    parts = numbers.split(",") if colon else []
    if not topic or not all(map(NUMBER.fullmatch, parts)):
        raise click.UsageError(f"--topic {text!r}: write TOPIC, TOPIC:0 or TOPIC:0,2.")
    return topic, [int(part) for part in parts]


async def _partitions(
    log: Log, group: str, wanted: Sequence[tuple[str, list[int]]]
) -> list[TopicPartition]:
    """Those that were named; when none were, those the group has committed for."""
    if not wanted:
        committed = sorted(await log.group_offsets(group))
        if not committed:
            fail(f"Group {group} has committed nothing. Say for which topic: --topic TOPIC.")
        return committed
    found: list[TopicPartition] = []
    for topic, numbers in wanted:
        if topic not in await log.topics():
            fail(f"Topic {topic!r} does not exist. `millstream topics list` names those there are.")
        count = (await log.describe_topic(topic)).partitions
        found += [TopicPartition(topic, number) for number in numbers or range(count)]
    return found


def _reset_to(start: Start | None, shift_by: int | None) -> ResetTo:
    from millstream.log.offset_reset import ResetTo

    if shift_by is not None:
        return ResetTo.shift(shift_by)
    return ResetTo.current() if start is None else ResetTo(start.kind, start.value)


def _print_plan(
    group: str, plan: dict[TopicPartition, ResetPlan], executed: bool, as_json: bool
) -> None:
    if as_json:
        for each, step in plan.items():
            print_json(
                {
                    "group": group,
                    "topic": each.topic,
                    "partition": each.partition,
                    "current": step.current,
                    "new": step.new,
                    "executed": executed,
                }
            )
        return
    from .tables import print_table

    print_table(
        ["partition", "current", "new"],
        [(str(each), step.current, step.new) for each, step in plan.items()],
    )
    done = f"{group}: moved" if executed else f"{group}: nothing was changed; --execute does it"
    click.echo(done, err=True)


def _as_json(found: GroupDescription, offsets: list[GroupOffset]) -> dict[str, Any]:
    return {
        **found._asdict(),
        "members": [
            member._asdict() | {"assignment": list(map(str, member.assignment))}
            for member in found.members
        ],
        "offsets": [
            {
                "topic": each.topic_partition.topic,
                "partition": each.topic_partition.partition,
                "committed": each.committed,
                "end": each.end,
                "lag": each.lag,
                "member_id": each.member,
            }
            for each in offsets
        ],
    }


def _print_description(found: GroupDescription, offsets: list[GroupOffset]) -> None:
    from .tables import print_table

    click.echo(f"{found.group}: {found.state}, {len(found.members)} members")
    if found.protocol:
        click.echo(f"  generation {found.generation}, assignor {found.protocol}")
    for member in found.members:
        instance = f" ({member.group_instance_id})" if member.group_instance_id else ""
        click.echo(f"  member {member.member_id}{instance}, client {member.client_id}")
    print_table(
        ["partition", "committed", "end", "lag", "member"],
        [
            (str(each.topic_partition), each.committed, each.end, each.lag, each.member)
            for each in offsets
        ],
    )
