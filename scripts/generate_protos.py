"""Rebuilds what is committed next to the .proto files; `make proto` runs it.

The protocol itself becomes one descriptor set, proto/descriptors.binpb, which stateside.proto loads into a pool of its
own; the service of the measurements becomes another, bench/echo.binpb, which the echo user function offers. Files that
applications import from their own protos, and the protos of example and tests, become ordinary modules of the default
pool. With --check nothing is written: the exit status tells whether the committed files are what this script would
write.
"""

import argparse
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent

DESCRIPTORS = Path("proto/descriptors.binpb")
PROTOCOL = [
    "cloudstate/entity.proto",
    "cloudstate/event_sourced.proto",
    "cloudstate/value_entity.proto",
    "cloudstate/action.proto",
    "cloudstate/crdt.proto",
    "cloudstate/entity_key.proto",
    "cloudstate/legacy_entity_key.proto",
    "cloudstate/eventing.proto",
    "google/api/annotations.proto",
    "google/api/httpbody.proto",
    "grpc/health/v1/health.proto",
    "grpc/reflection/v1/reflection.proto",
    "grpc/reflection/v1alpha/reflection.proto",
]

ECHO_DESCRIPTORS = Path("bench/echo.binpb")
ECHO = ["bench/echo.proto"]

# folder of the .proto files and of the modules -> files that become modules
MODULES = {
    "proto": ["cloudstate/entity_key.proto", "cloudstate/legacy_entity_key.proto", "cloudstate/eventing.proto"],
    "examples/shopping_cart/protos": ["shoppingcart/shoppingcart.proto", "shoppingcart/persistence/domain.proto"],
    "examples/value_cart/protos": ["valuecart/shoppingcart.proto", "valuecart/domain.proto"],
    "examples/ping_pong/protos": ["pingpong/pingpong.proto"],
    "examples/fraud_scoring/protos": ["fraud/fraud.proto"],
    "examples/transfer/protos": ["transfer/transfer.proto"],
    "examples/chat/protos": ["chat/chat.proto"],
    "examples/voting/protos": ["voting/voting.proto"],
    "examples/shared_counter/protos": ["counter/counter.proto"],
    "examples/todo/protos": ["todo/todo.proto"],
    "tests/protos": [
        "tck/action.proto",
        "tck/crdt.proto",
        "tck/eventlogeventing.proto",
        "tck/eventsourced.proto",
        "tck/valueentity.proto",
    ],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args().check
    stale = {path: content for path, content in generate().items() if not is_current(path, content)}
    for path, content in stale.items():
        print(f"{'stale' if check else 'written'}: {path}")
        if not check:
            (ROOT / path).write_bytes(content)
    return 1 if check and stale else 0


def generate() -> dict[Path, bytes]:
    """Content of every generated file, by path from the root of the project."""
    with tempfile.TemporaryDirectory() as folder:
        generated = {
            DESCRIPTORS: descriptor_set("proto", PROTOCOL, folder),
            ECHO_DESCRIPTORS: descriptor_set("bench/protos", ECHO, folder),
        }
        for base, files in MODULES.items():
            out = Path(folder) / base
            out.mkdir(parents=True)
            compile_protos(base, files, f"--python_out={out}", f"--pyi_out={out}")
            for path in sorted(out.rglob("*_pb2.py*")):
                generated[Path(base) / path.relative_to(out)] = path.read_bytes()
    return generated


def descriptor_set(base: str, files: list[str], folder: str) -> bytes:
    """Serialized FileDescriptorSet of `files` below `base`, with their imports. `folder` is for scratch."""
    out = Path(folder) / "descriptors.binpb"
    compile_protos(base, files, "--include_imports", f"--descriptor_set_out={out}")
    return out.read_bytes()


def is_current(path: Path, content: bytes) -> bool:
    committed = ROOT / path
    return committed.exists() and committed.read_bytes() == content


def compile_protos(base: str, files: list[str], *outputs: str) -> None:
    google = [package_folder("google.api", levels_up=2), package_folder("grpc_tools") / "_proto"]
    includes = [ROOT / base, ROOT / "proto", *google]
    arguments = ["protoc", *(f"-I{folder}" for folder in includes), *outputs, *files]
    if protoc.main(arguments) != 0:
        raise SystemExit(f"protoc failed: {' '.join(arguments)}")


def package_folder(package: str, levels_up: int = 0) -> Path:
    """Folder of an installed package, or that many levels above it."""
    folder = Path(next(iter(import_module(package).__path__)))
    for _ in range(levels_up):
        folder = folder.parent
    return folder


if __name__ == "__main__":
    sys.exit(main())
