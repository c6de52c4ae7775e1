"""Apache Kafka as published on Maven Central: fetched once, kept between runs, and run by class."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from shared.downloads import digest, download, kept

__all__ = ["Java", "java_or_skip"]

POM = Path(__file__).with_name("kafka") / "pom.xml"
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
QUICK = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""For processes that live for seconds."""
QUIET = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-Djava.awt.headless=true")


def _jars() -> Path:
    """The folder of jars, downloaded if need be. Maven compares checksums (-C)."""

    def fill(folder: Path) -> None:
        copy = ["mvn", "-q", "-B", "-C", "-Dstyle.color=never", "-f", POM, COPY]
        download("Apache Kafka", [*copy, f"-DoutputDirectory={folder}"])

    return kept(f"apache-kafka-{digest(POM)}", fill)


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

        def fill(folder: Path) -> None:
            options = ["-nowarn", "-Xlint:none", "-cp", f"{self.jars}/*", "-d", folder]
            subprocess.run(["javac", *options, *sources], check=True, timeout=300)

        of = digest(*sources, self.jars.name)
        return str(kept(f"java-{sources[0].stem}-{of}", fill))


def java_or_skip() -> Java:
    """Java with Kafka's jars; skips the test, saying why, where they cannot be had."""
    for tool in ("java", "javac"):
        if shutil.which(tool) is None:
            pytest.skip(f"a JDK is not installed ({tool} is missing)")
    return Java(_jars())
