"""`millstream serve`: the log for Kafka clients on the network."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

import click

from .command import pairs, reported_errors, run_until_stopped

__all__ = ["serve"]


@click.command()
@click.option("--data", required=True, metavar="DIR", help="Where the log is; made if not there.")
@click.option(
    "--listen",
    metavar="[PROTOCOL://]HOST:PORT",
    default="127.0.0.1:9092",
    show_default=True,
    help="PROTOCOL is PLAINTEXT (the default), SSL, SASL_PLAINTEXT or SASL_SSL. Several with "
    "commas. Port 0 takes any that is free.",
)
@click.option(
    "--advertised-listener",
    metavar="[PROTOCOL://]HOST:PORT",
    help="By which clients reach it, where that is another address. Port 0 stands for the one that "
    "was taken.",
)
@click.option(
    "--config",
    "configs",
    metavar="NAME=VALUE",
    multiple=True,
    help="A log setting under Kafka's name, such as num.partitions=4. Repeatable.",
)
@click.option(
    "--durability",
    type=click.Choice(["fsync", "os"]),
    default="fsync",
    show_default=True,
    help="What an acknowledged record survives: a power cut, or a killed process only.",
)
@click.option("--metrics", metavar="HOST:PORT", help="Answer /metrics and /healthz over HTTP.")
@click.option(
    "--insecure-no-auth",
    is_flag=True,
    help="Listen where other machines can reach it, though nobody has to say who they are, or says "
    "his password for all to hear.",
)
def serve(
    data: str,
    listen: str,
    advertised_listener: str | None,
    configs: Sequence[str],
    durability: str,
    metrics: str | None,
    insecure_no_auth: bool,
) -> None:
    """Serve the log in DIR to Kafka clients until SIGINT or SIGTERM.

    Prints one line when it is ready: `serving DIR on HOST:PORT`.

    \b
    millstream serve --data ./data
    millstream serve --data ./data --config auto.create.topics.enable=false
    millstream serve --data ./data --listen SASL_SSL://0.0.0.0:9093 \
        --advertised-listener log.example.org:9093 --config super.users=User:anna \
        --config ssl.certificate.location=cert.pem --config ssl.key.location=key.pem
    """
    config = dict(pairs("--config", configs))

    async def main(stop: asyncio.Event) -> None:
        from millstream.log.client.embedded_log import EmbeddedLog
        from millstream.log.open import open_log

        _allow_many_files()
        async with AsyncExitStack() as stack:
            log = open_log(f"file:{data}", durability=durability, config=config)
            assert isinstance(log, EmbeddedLog)
            await stack.enter_async_context(log)
            server = await stack.enter_async_context(
                log.serve(listen, advertised=advertised_listener, insecure=insecure_no_auth)
            )
            if metrics is not None:
                from millstream.log.server.metrics_http import serve_metrics

                await stack.enter_async_context(serve_metrics([log.metrics], metrics))
            secured = any(each.at.protocol.name != "PLAINTEXT" for each in server.listeners)
            several = len(server.listeners) > 1
            at = ",".join(server.addresses) if secured or several else server.address
            click.echo(f"serving {data} on {at}")
            await stop.wait()

    with reported_errors():
        run_until_stopped(main)


def _allow_many_files() -> None:
    """Every connection is an open file, and so are the segments: take as many as are allowed."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
