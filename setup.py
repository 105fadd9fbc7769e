"""Build of the compiled part.

The folders of the project stand at its top and install below the namespace package ``stateside``. Cython finds
``from stateside._speedups.x cimport Y`` through ``build/include/stateside``, a folder of links made here.
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup

ROOT = Path(__file__).parent
INCLUDE = ROOT / "build" / "include" / "stateside"
PACKAGES = ["proxy", "_speedups", "journal", "support", "proto", "bench"]

# extension -> system libraries it links
EXTENSIONS = {
    "_speedups.wire": [],
    "_speedups.histogram": [],
    "_speedups.accesslog": [],
    "_speedups.h2": ["nghttp2"],
    "_speedups.logwriter": ["lmdb"],
    "_speedups.logreader": ["lmdb"],
    "_speedups.log": ["lmdb"],
    "_speedups.copyrows": [],
    "_speedups.ring": [],
    "_speedups.crdt": [],
    "bench.native": [],
    "bench.generator": [],
}


def link_packages() -> None:
    """Make build/include/stateside/ with a link per package, for cimports and for mypy."""
    INCLUDE.mkdir(parents=True, exist_ok=True)
    (INCLUDE / "__init__.py").touch()
    for name in PACKAGES:
        link = INCLUDE / name
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(ROOT / name, INCLUDE))
    examples = INCLUDE.parent / "examples"
    if not examples.is_symlink():
        examples.symlink_to(os.path.relpath(ROOT / "examples", INCLUDE.parent))


def extensions() -> list[Extension]:
    found = []
    for name, libraries in EXTENSIONS.items():
        source = Path(*name.split(".")).with_suffix(".pyx")
        if not (ROOT / source).exists():
            continue
        found.append(
            Extension(
                f"stateside.{name}",
                [str(source)],
                libraries=libraries,
                extra_compile_args=["-O3", "-Wall", "-Werror", "-Wno-unreachable-code", "-fno-strict-aliasing"],
            )
        )
    return found


Options.warning_errors = True
link_packages()
debug = os.environ.get("STATESIDE_BUILD_DEBUG") == "1"
setup(
    packages=[f"stateside.{name}" for name in PACKAGES] + ["cloudstate"],
    package_dir={f"stateside.{name}": name for name in PACKAGES} | {"cloudstate": "proto/cloudstate"},
    package_data={
        **{f"stateside.{name}": ["*.pyi", "*.pxd", "py.typed", "*.binpb"] for name in PACKAGES},
        "cloudstate": ["*.proto", "*.pyi"],
    },
    ext_modules=cythonize(
        extensions(),
        include_path=["build/include"],
        build_dir="build/cython",
        nthreads=0 if sys.platform == "win32" else 2,
        language_level=3,
        annotate=debug,
        compiler_directives={
            "boundscheck": debug,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": debug,
            "embedsignature": True,
            "warn.undeclared": False,
            "warn.unreachable": True,
        },
    ),
)
