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
    "proxy.action": [],
    "proxy.activation": [],
    "proxy.eventsourced": [],
    "proxy.userfunction": [],
    "proxy.service_metrics": [],
    "proxy.valueentity": [],
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


def source_of(name: str) -> Path:
    """Its Cython source; or a Python module, which has its shape in a .pxd beside it."""
    source = Path(*name.split(".")).with_suffix(".pyx")
    return source if (ROOT / source).exists() else source.with_suffix(".py")


def extensions() -> list[Extension]:
    found = []
    for name, libraries in EXTENSIONS.items():
        source = source_of(name)
        found.append(
            Extension(
                f"stateside.{name}",
                [str(source)],
                libraries=libraries,
                extra_compile_args=["-O3", "-g0", "-Wall", "-Werror", "-Wno-unreachable-code", "-fno-strict-aliasing"],
            )
        )
    return found


def compiled(modules: list[Extension], **directives: bool) -> list[Extension]:
    return cythonize(
        modules,
        include_path=["build/include"],
        build_dir="build/cython",
        nthreads=0 if sys.platform == "win32" else 2,
        language_level=3,
        annotate=debug,
        compiler_directives={"embedsignature": True, "warn.undeclared": False, "warn.unreachable": True} | directives,
    )


Options.warning_errors = True
link_packages()
debug = os.environ.get("STATESIDE_BUILD_DEBUG") == "1"
found = extensions()
# What is written in Python keeps the meaning that it has there.
python = [each for each in found if each.sources[0].endswith(".py")]
cython = [each for each in found if each not in python]
setup(
    options={"build_ext": {"parallel": 2}},
    packages=[f"stateside.{name}" for name in PACKAGES] + ["cloudstate"],
    package_dir={f"stateside.{name}": name for name in PACKAGES} | {"cloudstate": "proto/cloudstate"},
    package_data={
        **{f"stateside.{name}": ["*.pyi", "*.pxd", "py.typed", "*.binpb"] for name in PACKAGES},
        "cloudstate": ["*.proto", "*.pyi"],
    },
    ext_modules=[
        *compiled(cython, boundscheck=debug, wraparound=False, cdivision=True, initializedcheck=debug),
        *compiled(python, annotation_typing=False),
    ],
)
