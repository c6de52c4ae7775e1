"""Build steps that pyproject.toml cannot say: the compiled codec, and where the packages lie.

The codec is one pure-Python source. When a C compiler is there it is compiled by Cython; when not,
the same source runs interpreted, slower, and everything else is the same.
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

# The loops over records and keys. Optional: without a compiler the installation goes on without.
kernels = [
    Extension(
        f"millstream.log.format.{name}",
        [f"log/millstream/log/format/{name}.py"],
        optional=True,
    )
    for name in ("partitioner", "record_reader", "record_writer")
]

setup(
    packages=packages,
    package_dir=package_dir,
    package_data={
        "millstream.examples.flights": ["*.csv", "*.csv.gz", "*.toml", "*.md"],
        **{package: ["py.typed"] for package in packages if package.count(".") == 1},
    },
    ext_modules=cythonize(kernels, build_dir="build/cython"),
)
