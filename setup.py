"""Build steps that pyproject.toml cannot say: the compiled codec, and where the packages lie.

The codec is pure Python source. When a C compiler is there its loops are compiled by Cython; when
not, the same source runs interpreted, slower, and everything else is the same.
"""

from Cython.Build import cythonize
from setuptools import Extension, find_namespace_packages, setup

SOURCE_ROOTS = ["log", "streams", "connect", "connectors", "cli"]

packages = []
package_dir = {}
for root in SOURCE_ROOTS:
    for package in find_namespace_packages(root, include=["millstream.*"]):
        packages.append(package)
        package_dir[package] = f"{root}/{package.replace('.', '/')}"

packages += ["millstream.examples", "millstream.examples.flights"]
package_dir["millstream.examples"] = "examples"
package_dir["millstream.examples.flights"] = "examples/flights"

# The loops over records and keys.
kernels = cythonize(
    [
        Extension(
            f"millstream.log.format.{name}",
            [f"log/millstream/log/format/{name}.py"],
        )
        for name in ("partitioner", "record_reader", "record_writer")
    ],
    build_dir="build/cython",
)
for kernel in kernels:
    kernel.optional = True  # without a compiler a warning; cythonize would drop it if set before

setup(
    packages=packages,
    package_dir=package_dir,
    package_data={
        "millstream.examples.flights": ["*.csv", "*.csv.gz", "*.toml", "*.md"],
        **{package: ["py.typed"] for package in packages if package.count(".") == 1},
    },
    ext_modules=kernels,
)
