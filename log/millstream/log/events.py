"""One log line for one event, in a form that machines can read too.

    segment rolled partition=orders-0 base_offset=1204

What happened first, in words that never change; then `key=value`, a value in quotes where it holds
a space. The record also carries `event` and `fields`, from which `log_format.py` makes JSON. All
lines go to the logger "millstream.log".
"""

from __future__ import annotations

import logging

__all__ = ["event"]

logger = logging.getLogger("millstream.log")


def event(what: str, level: int = logging.INFO, /, **fields: object) -> None:
    """Log that `what` happened. Not for what happens with every record or batch."""
    if logger.isEnabledFor(level):
        text = " ".join((what, *(f"{name}={_shown(value)}" for name, value in fields.items())))
        logger.log(level, "%s", text, extra={"event": what, "fields": fields}, stacklevel=2)


def _shown(value: object) -> str:
    """What a client calls itself is its own choice: nothing in it may act on a terminal."""
    text = str(value)
    if text and text.isprintable() and not any(each in text for each in ' "='):
        return text
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text) + '"'
