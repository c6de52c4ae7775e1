"""The modules of the format package from their sources, interpreted, beside the compiled ones."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from millstream.log.format import codec, compression, header

# In the order they import each other. The others hold no compiled code, and stay shared, so that
# both codecs raise the same errors and return the same types.
KERNELS = ("partitioner", "record_reader", "record_writer")
TWINS = (*KERNELS, "codec", "control")
SHARED = ("checksum", "compression", "cython_shim", "header")
TWIN_PACKAGE = "millstream.log.format_interpreted"


def interpreted_twin() -> SimpleNamespace:
    """The modules of the format package from their sources, where Cython does not exist."""
    folder = Path(codec.__file__).parent
    modules: dict[str, ModuleType] = {TWIN_PACKAGE: ModuleType(TWIN_PACKAGE)}
    for name in SHARED:
        modules[f"{TWIN_PACKAGE}.{name}"] = import_module(f"millstream.log.format.{name}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cython", None)
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        for name in TWINS:
            spec = spec_from_file_location(f"{TWIN_PACKAGE}.{name}", folder / f"{name}.py")
            assert spec is not None
            assert spec.loader is not None
            module = module_from_spec(spec)
            patch.setitem(sys.modules, spec.name, module)
            setattr(modules[TWIN_PACKAGE], name, module)
            spec.loader.exec_module(module)
            modules[name] = module
    twins = {name: modules[name] for name in TWINS}
    return SimpleNamespace(**twins, header=header, compression=compression)
