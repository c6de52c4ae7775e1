"""Apache Kafka as published on Maven Central: fetched once, kept between runs, and run by class."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["Java", "cache_folder", "java_or_skip", "locked"]

POM = Path(__file__).with_name("kafka") / "pom.xml"
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
QUICK = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""For processes that live for seconds."""
QUIET = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-Djava.awt.headless=true")


def cache_folder() -> Path:
    """Where what was downloaded stays: MILLSTREAM_TEST_CACHE, or a folder in ~/.cache."""
    named = os.environ.get("MILLSTREAM_TEST_CACHE")
    folder = Path(named) if named else Path.home() / ".cache" / "millstream-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(name: str) -> Iterator[Path]:
    """A folder of this name in the cache, for one process at a time to fill."""
    folder = cache_folder() / name
    folder.mkdir(exist_ok=True)
    with (cache_folder() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _jars() -> Path:
    """The folder of jars, downloaded if need be."""
    digest = hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    with locked(f"kafka-{digest}") as folder:
        done = folder / "complete"
        if not done.exists():
            if shutil.which("mvn") is None:
                pytest.skip("Maven (mvn) is not installed, so Apache Kafka cannot be downloaded")
            got = subprocess.run(
                ["mvn", "-q", "-B", "-f", str(POM), COPY, f"-DoutputDirectory={folder}"],
                capture_output=True,
                text=True,
                timeout=500,
            )
            if got.returncode:
                pytest.skip(f"Maven cannot download Apache Kafka: {got.stdout.strip()[-300:]}")
            done.touch()
    return folder


class Java:
    """Runs classes of Apache Kafka, and programs compiled against it."""

    def __init__(self, jars: Path) -> None:
        self.jars = jars

    def command(
        self,
        main: str,
        *arguments: str,
        heap_mb: int = 128,
        quick: bool = True,
        **options: str,
    ) -> list[str]:
        """The command line. `quick` is for what ends soon; `options` are system properties, `_` for
        `.`; `classes` a folder."""
        classes = options.pop("classes", None)
        path = f"{classes}:{self.jars}/*" if classes else f"{self.jars}/*"
        properties = [f"-D{name.replace('_', '.')}={value}" for name, value in options.items()]
        return [
            *("java", f"-Xmx{heap_mb}m", *(QUICK if quick else ()), *QUIET, *properties),
            *("-cp", path, main, *arguments),
        ]

    def run(
        self, main: str, *arguments: str, text: str = "", timeout_s: float = 90, ok: bool = True
    ) -> str:
        """Run a class to its end, `text` on its stdin; answers what it wrote.

        `ok` is whether it has to succeed; else it has to fail.
        """
        ran = subprocess.run(
            self.command(main, *arguments),
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        assert (ran.returncode == 0) is ok, (main, arguments, ran.stdout, ran.stderr)
        return ran.stdout if ok else ran.stdout + ran.stderr

    def compiled(self, *sources: Path) -> str:
        """A folder with the classes of these sources, compiled when they changed."""
        text = b"".join(each.read_bytes() for each in sources)
        digest = hashlib.sha256(text + self.jars.name.encode()).hexdigest()[:12]
        with locked(f"java-{sources[0].stem}-{digest}") as folder:
            if not (folder / "complete").exists():
                subprocess.run(
                    [
                        "javac",
                        "-nowarn",
                        "-Xlint:none",
                        "-cp",
                        f"{self.jars}/*",
                        "-d",
                        str(folder),
                        *sources,
                    ],
                    check=True,
                    timeout=300,
                )
                (folder / "complete").touch()
        return str(folder)


def java_or_skip() -> Java:
    """Java with Kafka's jars; skips the test, saying why, where they cannot be had."""
    for tool in ("java", "javac"):
        if shutil.which(tool) is None:
            pytest.skip(f"a JDK is not installed ({tool} is missing)")
    return Java(_jars())
