"""Coverage-guided fuzzing of one decoder, or of each in turn, with atheris (libFuzzer).

    python tests/fuzz/run.py --target batch --seconds 60

Inputs that break a decoder are written to tests/fuzz/corpus/TARGET, where the default test run
finds them from then on. The interpreted codec is instrumented; the compiled one runs beside it on
the same inputs and must agree.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FunctionType, ModuleType

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

INPUT_BYTES_MAX = 4096
TIMEOUT_S = 20
MEMORY_MB_MAX = 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--target", default="all", help="a name from --list, or all")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--found", type=Path, default=HERE / "corpus", help="where findings go")
    parser.add_argument("--list", action="store_true", help="show the targets and end")
    options = parser.parse_args()
    from fuzz.targets import TARGETS

    if options.list:
        print("\n".join(TARGETS))
        return 0
    if options.target == "all":
        failed = [name for name in TARGETS if run_alone(name, options)]
        print(f"{len(TARGETS)} targets, findings in: {', '.join(failed) or 'none'}")
        return len(failed)
    if options.target not in TARGETS:
        parser.error(f"no target {options.target!r}; there are {', '.join(TARGETS)}")
    fuzz(options.target, options.seconds, options.found / options.target)
    return 0


def run_alone(name: str, options: argparse.Namespace) -> int:
    """libFuzzer ends its process."""
    arguments = ["--target", name, "--seconds", str(options.seconds), "--found", options.found]
    print(f"== {name}", flush=True)
    return subprocess.run([sys.executable, __file__, *map(str, arguments)], check=False).returncode


def fuzz(name: str, seconds: int, found: Path) -> None:
    """Does not return."""
    import atheris

    from fuzz.targets import TARGETS, outcome

    target = TARGETS[name]
    known = [*target.seeds(), *(path.read_bytes() for path in (HERE / "corpus" / name).glob("*"))]
    found.mkdir(parents=True, exist_ok=True)
    instrument(atheris)
    corpus = tempfile.mkdtemp(prefix=f"fuzz-{name}-")
    for number, data in enumerate(known):
        Path(corpus, f"seed-{number}").write_bytes(data)
    arguments = [
        sys.argv[0],
        f"-max_total_time={seconds}",
        f"-max_len={INPUT_BYTES_MAX}",
        f"-timeout={TIMEOUT_S}",
        f"-rss_limit_mb={MEMORY_MB_MAX}",
        f"-artifact_prefix={found}/",
        "-len_control=20",
        "-print_final_stats=1",
        corpus,
    ]
    atheris.Setup(arguments, lambda data: outcome(target, data) and None)
    atheris.Fuzz()


def instrument(atheris: ModuleType) -> None:
    """Count which branches of the log's own Python code an input takes."""
    import fuzz.targets

    twins = vars(fuzz.targets.interpreted).values()
    loaded = [module for name, module in sys.modules.items() if name.startswith("millstream.log")]
    done: set[int] = set()
    for module in [*loaded, *twins]:
        for item in list(vars(module).values()):
            members = list(vars(item).values()) if isinstance(item, type) else [item]
            for member in members:
                function = getattr(member, "__func__", getattr(member, "fget", member))
                if (
                    isinstance(function, FunctionType)
                    and function.__module__.startswith("millstream.log")
                    and id(function) not in done
                ):
                    done.add(id(function))
                    atheris.instrument_func(function)


if __name__ == "__main__":
    sys.exit(main())
