"""Any bytes give a result or a documented error: no other error, no hang, no memory to speak of."""

from __future__ import annotations

import platform
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.mutations import damaged
from fuzz.targets import TARGETS, Target, outcome

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
MEMORY_PER_BYTE = 120
"""The smallest record takes 7 bytes in a batch; as objects in columns it takes a few hundred."""
EXAMPLES = 40
LONG_EXAMPLES = 8
LONG = {"folder", "verify", "dump"}
"""They take a whole log each time."""
SLOW_SECONDS = 1


def limited(target: Target, data: bytes) -> object:
    """What the target answers, in bounded memory."""
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    answer = outcome(target, data)
    _, peak = tracemalloc.get_traced_memory()
    allowed = target.memory_bytes + MEMORY_PER_BYTE * len(data)
    assert peak - before <= allowed, f"{len(data)} bytes of input took {peak - before} of memory"
    return answer


@pytest.fixture(autouse=True)
def _traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.timeout(120)
def test_damaged_bytes(name: str) -> None:
    target = TARGETS[name]
    seeds = target.seeds()
    for seed in seeds[:1] if name in LONG else seeds:
        outcome(target, seed)  # imports, caches: not what an input costs

    @settings(
        max_examples=LONG_EXAMPLES if name in LONG else EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(damaged(seeds))
    def no_input_breaks_it(data: bytes) -> None:
        limited(target, data)

    no_input_breaks_it()


@pytest.mark.parametrize("name", sorted(TARGETS.keys() - LONG))
def test_valid_bytes_are_valid(name: str) -> None:
    target = TARGETS[name]
    for data in target.seeds():
        answer = outcome(target, data)
        assert not (isinstance(answer, type) and issubclass(answer, Exception)), data


FOUND = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_inputs_that_were_found(path: Path) -> None:
    """Each of these broke its decoder once."""
    target = TARGETS[path.parent.name]
    outcome(target, path.read_bytes())
    limited(target, path.read_bytes())


@given(st.sampled_from(sorted(TARGETS.keys() - LONG)), st.binary(max_size=300))
@settings(deadline=None, suppress_health_check=list(HealthCheck))
def test_any_bytes(name: str, data: bytes) -> None:
    outcome(TARGETS[name], data)


@pytest.mark.slow
@pytest.mark.skipif(
    (sys.platform, platform.machine(), sys.implementation.name) != ("linux", "x86_64", "cpython")
    or sys.version_info >= (3, 14),
    reason="atheris has wheels for CPython up to 3.13 on Linux x86-64 only, see pyproject.toml",
)
@pytest.mark.parametrize("name", TARGETS)
def test_coverage_guided(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "run.py"), "--target", name]
    done = subprocess.run(
        [*command, "--seconds", str(SLOW_SECONDS), "--found", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Done" in done.stderr
