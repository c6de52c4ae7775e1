"""Assembles programs: one Python function per way records come into a task.

    source program     the columns of a batch of one topic
    results program    what an async step gave, with the records it was given
    closing program    the keys of one window that closes

All have the same frame: names bound once, a `for` over the rows inside one `try`, which costs a
record nothing. When a record fails, the `for` goes on behind it: its position is what is left in
the iterator, its step the line number in the traceback.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from operator import length_hint
from typing import Any, Final

from millstream.log.record import Record
from millstream.streams.errors import SerdeError
from millstream.streams.nodes import AsyncNode, FinalNode, FoldNode, SourceNode
from millstream.streams.serde import serde_for, windowed_serde
from millstream.streams.topology import changelog_topic

from .code import Code, Program, Site
from .emitter import Binding, Emitter
from .environment import Environment
from .scope import Scope, Slot, WindowSlot

__all__ = ["FusedProgram", "closing_program", "results_program", "source_program"]

_COLUMNS: Final = {
    "k": "batch.keys",
    "v": "batch.values",
    "ts": "batch.timestamps",
    "h": "batch.headers",
    "at": "batch.offsets",
}


@dataclass(frozen=True, slots=True)
class FusedProgram:
    """A compiled program and the names it needs."""

    program: Program
    constants: Mapping[str, Any]
    bindings: Mapping[str, Binding]

    def bind(self, task: Environment) -> Callable[..., Any]:
        """The program's function for one task."""
        names: dict[str, Any] = dict(self.constants)
        names.update((name, binding(task)) for name, binding in self.bindings.items())
        names["failed"] = partial(task.failed, self.program)
        names["length_hint"] = length_hint
        exec(self.program.code, names)
        run: Callable[..., Any] = names["run"]
        return run


def source_program(
    emitter: Emitter, source: SourceNode, windowed: Collection[FoldNode], name: str
) -> FusedProgram:
    """The program for batches of a topic: `run(batch, now) -> now`.

    Args:
        windowed: the windowed folds behind this source. Where there are any, its records move
            stream time; a source that leads to none leaves it alone, so that a table which is
            ahead makes nothing late.
    """
    spec = source.topic
    key = Slot("k", None, spec.key_serde, source)
    value = Slot("v", None, spec.value_serde, source)
    headers = "h" if emitter.with_headers else None
    origin = f"(topic, partition, at, ts, k, v, {headers or '()'})"
    scope = Scope(key, value, "ts", headers, "at", "now", origin)
    if any(fold not in emitter.deferred for fold in windowed):
        emitter.due()
    if spec.timestamp is None:
        emitter.batch_timestamps = "batch.timestamps"
    else:
        scope.timestamp = _extract(emitter, source, scope)
    before, emitter.body = emitter.body, Code(4)
    emitter.emit_children(source, scope)
    if windowed or _uses(emitter, "now"):
        _move_time(emitter, before, scope.timestamp)
    before.extend(emitter.body)
    emitter.body = before
    columns = [each for each in _COLUMNS if _uses(emitter, each)] or ["v"]
    place = _COLUMNS[columns[0]]
    rest = [_COLUMNS[each] for each in columns[1:]]
    emitter.prologue.add("topic = batch.topic; partition = batch.partition")
    emitter.prologue.add(f"place = iter({place})")
    rows = f"zip({', '.join(['place', *rest])})" if rest else "place"
    failed = "batch.record(len(batch) - length_hint(place) - 1)"
    return _assemble(
        emitter, name, "batch, now", f"for {', '.join(columns)} in", rows, failed, "now"
    )


def _extract(emitter: Emitter, source: SourceNode, scope: Scope) -> str:
    """Event time from the value; a null value has none and keeps the record's."""
    value = emitter.object_of(scope.value)
    extract = emitter.constant("extract", source.topic.timestamp)
    milliseconds = emitter.constant("milliseconds", _milliseconds)
    ts = emitter.new("ts")
    site = Site(source, "timestamp")
    emitter.code.add(f"{ts} = {extract}({value}) if {value} is not None else ts", site)
    emitter.code.add(f"if {ts}.__class__ is not int: {ts} = {milliseconds}({ts})", site)
    return ts


def _milliseconds(time: Any) -> int:
    if isinstance(time, datetime):
        return round(time.timestamp() * 1000)
    if isinstance(time, int | float):
        return int(time)
    raise SerdeError(
        f"a timestamp is milliseconds since the epoch or a datetime, the extractor gave {time!r}"
    )


def _move_time(emitter: Emitter, code: Code, timestamp: str) -> None:
    with code.block(f"if {timestamp} > now:"):
        code.add(f"now = {timestamp}")
        if "due" in emitter.state:
            with code.block("if now >= due:"):
                code.add(f"due = {emitter.task()}.close_due(now)")
                for reset in emitter.resets:
                    code.add(reset)


def results_program(emitter: Emitter, node: AsyncNode, name: str) -> FusedProgram:
    """The program behind an async step: `run(rows, results)`.

    Stream time is as it was for each record; windows are closed when all results are through.
    """
    key = Slot("k", None, node.key_serde, node)
    value = Slot(None, "r", serde_for(object), node)
    headers = "h" if emitter.with_headers else None
    scope = Scope(key, value, "ts", headers, "origin[2]", "now", "origin")
    if node.many:
        value.obj = emitter.new("o")
        with emitter.code.block(f"for {value.obj} in r:"):
            _emit_results(emitter, node, scope)
    else:
        _emit_results(emitter, node, scope)
    emitter.prologue.add("place = iter(rows)")
    if _uses(emitter, "topic"):
        emitter.body.lines.insert(0, (" " * 16 + "topic, partition = origin[:2]", None))
    emitter.constants["Record"] = Record
    return _assemble(
        emitter,
        name,
        "rows, results",
        "for (_, k, ts, now, h, origin), r in",
        "zip(place, results)",
        "Record(*rows[len(rows) - length_hint(place) - 1][5])",
        "None",
    )


def _emit_results(emitter: Emitter, node: AsyncNode, scope: Scope) -> None:
    if not node.drop_none:
        emitter.emit_children(node, scope)
        return
    with emitter.code.block(f"if {scope.value.obj} is not None:"):
        inner = scope.nested()
        inner.value.nullable = False
        emitter.emit_children(node, inner)


def closing_program(emitter: Emitter, fold: FoldNode, app_id: str, name: str) -> FusedProgram:
    """The program for a window that closes: `run(start, rows)` with rows of (key, state).

    A final result has the last millisecond of its window as timestamp, and this is stream time for
    the steps behind it: results come in the order of their windows, so none is late there.
    """
    store = fold.store
    inner = Slot("k", None, store.key_serde, fold, nullable=False)
    serde = windowed_serde(store.key_serde, store.window_size_ms)
    key = WindowSlot(inner, "start", "end", serde)
    value = Slot(None, "r", serde_for(object), fold, nullable=False)
    scope = Scope(key, value, "ts", None, "-1", "ts", "window_record(start, (k, r))")
    for final in emitter.children.get(fold, ()):
        if isinstance(final, FinalNode):
            emitter.emit_children(final, scope)
    topic = changelog_topic(app_id, store.name)

    def window_record(partition: int, start: int, row: tuple[bytes, Any]) -> tuple[Any, ...]:
        raw = row[0] + start.to_bytes(8, "big", signed=True)
        data = store.value_serde.serialize(row[1])
        return topic, partition, -1, start + store.window_size_ms - 1, raw, data

    emitter.constants["changelog"] = topic
    emitter.constants["Record"] = Record
    emitter.bindings["window_record"] = lambda task: partial(window_record, task.partition)
    emitter.bindings["task_partition"] = lambda task: task.partition
    emitter.prologue.add(f"end = start + {store.window_size_ms}; ts = end - 1")
    emitter.prologue.add("topic = changelog; partition = task_partition")
    emitter.prologue.add("place = iter(rows)")
    failed = "Record(*window_record(start, rows[len(rows) - length_hint(place) - 1]))"
    return _assemble(emitter, name, "start, rows", "for k, r in", "place", failed, "None")


def _uses(emitter: Emitter, name: str) -> bool:
    word = re.compile(rf"\b{name}\b")
    codes = [emitter.body, *(code for _, code in emitter.functions)]
    return any(word.search(text) for code in codes for text, _ in code.lines)


def _assemble(
    emitter: Emitter, name: str, parameters: str, loop: str, rows: str, failed: str, answer: str
) -> FusedProgram:
    code = Code()
    with code.block(f"def run({parameters}):"):
        code.extend(emitter.prologue)
        _local_functions(emitter, code)
        code.add(f"rows_left = {rows}")
        with code.block("while True:"):
            with code.block("try:"):
                with code.block(f"{loop} rows_left:"):
                    code.extend(emitter.body)
                    if not emitter.body.lines:
                        code.add("pass")
                code.add("break")
            with code.block("except Exception as error:"):
                code.add(f"failed(error, {failed})")
        for counter in ("dropped", "late"):
            if counter in emitter.state:
                code.add(f"{emitter.task()}.counters.{counter} += {counter}")
        for line in emitter.epilogue:
            code.add(line)
        code.add(f"return {answer}")
    return FusedProgram(Program(name, code), emitter.constants, emitter.bindings)


def _local_functions(emitter: Emitter, code: Code) -> None:
    for header, body in emitter.functions:
        with code.block(header):
            if emitter.state:
                code.add(f"nonlocal {', '.join(emitter.state)}")
            code.extend(body)
