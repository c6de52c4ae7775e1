"""An Apache Kafka cluster of one or more nodes on loopback, each broker and controller at once."""

from __future__ import annotations

import base64
import re
import signal
import subprocess
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

from shared.kafka_jars import Java
from shared.ports import free_ports

__all__ = ["KafkaNodes"]

STARTED = re.compile(rb"\[KafkaRaftServer nodeId=\d+\] Kafka Server started")
START_WITHIN_S = 90


class KafkaNodes:
    """Enter it to start all; `address` is what clients bootstrap from.

    Nodes are numbered from 1. A node that is started again has its port and its files.
    """

    def __init__(
        self,
        java: Java,
        folder: Path,
        nodes: int = 1,
        *,
        heap_mb: int = 256,
        quick: bool = True,
        **settings: str,
    ) -> None:
        """`settings` are broker settings, `_` for `.`; `quick` is not for measuring."""
        self._heap_mb = heap_mb
        self._quick = quick
        self._java = java
        self._folder = folder
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        ports = free_ports(2 * nodes)
        self._broker_ports = dict(enumerate(ports[:nodes], 1))
        self._controller_ports = dict(enumerate(ports[nodes:], 1))
        self._settings = {name.replace("_", "."): each for name, each in settings.items()}
        self.address = ",".join(f"127.0.0.1:{each}" for each in self._broker_ports.values())
        self.ids = list(self._broker_ports)
        self._formatted = False

    def _properties(self, node: int) -> Path:
        """The node's settings in a file."""
        copies = min(3, len(self.ids))
        broker, controller = self._broker_ports[node], self._controller_ports[node]
        voters = ",".join(f"{id_}@127.0.0.1:{at}" for id_, at in self._controller_ports.items())
        settings = {
            "process.roles": "broker,controller",
            "node.id": str(node),
            "listeners": f"PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{broker}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "controller.quorum.voters": voters,
            "log.dirs": str(self._folder / f"node-{node}"),
            "default.replication.factor": str(copies),
            "min.insync.replicas": str(max(1, copies - 1)),
            "offsets.topic.replication.factor": str(copies),
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": str(copies),
            "transaction.state.log.min.isr": str(max(1, copies - 1)),
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": str(copies),
            "share.coordinator.state.topic.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "1",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "500",
            "broker.session.timeout.ms": "6000",
            "broker.heartbeat.interval.ms": "1000",
            "log.cleaner.dedupe.buffer.size": "8388608",
            "log.index.size.max.bytes": "1048576",
            "num.network.threads": "2",
            "num.io.threads": "4",
            "num.recovery.threads.per.data.dir": "1",
            **self._settings,
        }
        path = self._folder / f"node-{node}.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        return path

    def _format(self) -> None:
        # A uuid in base64 that begins with - would be an option to the tool: this begins with A.
        unique = b"\0" + uuid.uuid4().bytes[1:]
        cluster_id = base64.urlsafe_b64encode(unique).rstrip(b"=").decode()
        for node in self.ids:
            arguments = ("format", "-t", cluster_id, "-c", str(self._properties(node)))
            self._java.run("kafka.tools.StorageTool", *arguments)
        self._formatted = True

    def start(self, *nodes: int) -> None:
        """Start these (all, if none is named) and wait until they serve."""
        if not self._formatted:
            self._format()
        chosen = nodes or self.ids
        for node in chosen:
            assert node not in self._running, f"node {node} is running"
            with self._log(node).open("wb") as log:
                self._running[node] = subprocess.Popen(
                    self._java.command(
                        "kafka.Kafka",
                        str(self._folder / f"node-{node}.properties"),
                        heap_mb=self._heap_mb,
                        quick=self._quick,
                        **{"org.slf4j.simpleLogger.log.kafka.server": "info"},
                    ),
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                )
        end = time.monotonic() + START_WITHIN_S
        for node in chosen:
            self._wait(node, end)

    def _log(self, node: int) -> Path:
        return self._folder / f"node-{node}.log"

    def _wait(self, node: int, end: float) -> None:
        process = self._running[node]
        while not STARTED.search(self._log(node).read_bytes()):
            said = self._log(node).read_text()[-3000:]
            assert process.poll() is None, f"node {node} of Apache Kafka ended: {said}"
            assert time.monotonic() < end, f"node {node} of Apache Kafka did not start: {said}"
            time.sleep(0.1)  # its log is looked at again

    def pid(self, node: int) -> int:
        """The process of a node that runs."""
        return self._running[node].pid

    def kill(self, *nodes: int) -> None:
        """SIGKILL: nothing is finished."""
        self._end(signal.SIGKILL, nodes)

    def stop(self, *nodes: int) -> None:
        """A clean stop, of all if none is named."""
        self._end(signal.SIGTERM, nodes or tuple(self._running))

    def _end(self, number: signal.Signals, nodes: tuple[int, ...]) -> None:
        ending = [self._running.pop(node) for node in nodes]
        for process in ending:
            process.send_signal(number)
        for process in ending:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:  # a node without a quorum waits for one
                process.kill()
                process.wait(30)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill(*self._running)
            raise
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.kill(*self._running)
