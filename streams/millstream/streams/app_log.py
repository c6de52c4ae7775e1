"""The log an app runs on, opened for as long as it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from millstream.log import open_log
from millstream.log.errors import ConfigError
from millstream.log.interface import Log

from .app import App

__all__ = ["open_app_log"]


@asynccontextmanager
async def open_app_log(app: App) -> AsyncIterator[Log]:
    """`app.log_url`, and Kafka clients can reach it on `app.listen` meanwhile.

    Raises:
        TopologyError: the app cannot run; nothing was opened.
        ConfigError: there is no such log, or it cannot be served there.
        LogLockedError: another process has it open.
    """
    app.topology()  # what is wrong with the app should not cost opening the log
    async with open_log(app.log_url) as log:
        if app.listen is None:
            yield log
            return
        from millstream.log.client.embedded_log import EmbeddedLog

        if not isinstance(log, EmbeddedLog):
            raise ConfigError(
                f"app {app.id!r}: listen={app.listen!r}, but {log.url} has a server of its own. "
                "Give its address to clients, and leave out listen."
            )
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(log.serve(app.listen))
            except ConfigError as error:
                raise ConfigError(
                    f"app {app.id!r}: listen={app.listen!r}: {error} An app's listen has no other "
                    "options or settings. To give some, open the log (open_log), serve it "
                    "(log.serve), and run the app on it (run_app(app, log=log))."
                ) from error
            yield log
