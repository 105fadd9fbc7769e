"""Discovery: what this process tells a proxy about itself (cloudstate.EntityDiscovery), and what the proxy reports
back.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError

from stateside._speedups.h2 import Handler
from stateside.proto import Empty, FileDescriptorSet, cloudstate
from stateside.proto.status import Status

from .entity import Declaration
from .errors import RegistrationError
from .hooks import Hooks

LIBRARY_NAME = "stateside-python-support"
PROTOCOL_MAJOR, PROTOCOL_MINOR = 0, 2

DISCOVER_PATH = b"/cloudstate.EntityDiscovery/discover"
REPORT_ERROR_PATH = b"/cloudstate.EntityDiscovery/reportError"


def entity_spec(declarations: Sequence[Declaration], name: str, service_version: str) -> bytes:
    """Serialized cloudstate.EntitySpec of the registered entities. name, service_version: of the application; may be
    empty.
    """
    spec = cloudstate.EntitySpec(
        proto=descriptor_set(declaration.service for declaration in declarations),
        service_info=cloudstate.ServiceInfo(
            service_name=name,
            service_version=service_version,
            service_runtime=f"{platform.python_implementation()} {platform.python_version()}",
            support_library_name=LIBRARY_NAME,
            support_library_version=distribution_version("stateside"),
            protocol_major_version=PROTOCOL_MAJOR,
            protocol_minor_version=PROTOCOL_MINOR,
        ),
    )
    for declaration in declarations:
        entity = spec.entities.add(
            entity_type=declaration.entity_type,
            service_name=declaration.service.full_name,
            persistence_id=declaration.persistence_id,
        )
        if declaration.passivate_after is not None:
            entity.passivation_strategy.timeout.timeout = declaration.passivate_after // timedelta(milliseconds=1)
    return bytes(spec.SerializeToString())


def descriptor_set(services: Iterable[ServiceDescriptor]) -> bytes:
    """Serialized FileDescriptorSet of the services' files and everything they import: each file once, imports first."""
    files: dict[str, bytes] = {}
    for service in services:
        _collect(service.file, files)
    result = FileDescriptorSet()
    for data in files.values():
        result.file.add().MergeFromString(data)
    return bytes(result.SerializeToString())


def _collect(file: FileDescriptor, files: dict[str, bytes]) -> None:
    if file.name in files:
        if files[file.name] != file.serialized_pb:
            raise RegistrationError(f"Two different files are called {file.name}; give one of them another path")
        return
    for imported in file.dependencies:
        _collect(imported, files)
    files[file.name] = file.serialized_pb


def distribution_version(name: str) -> str:
    """Version of an installed distribution; empty if it is none."""
    try:
        return version(name) if name else ""
    except PackageNotFoundError:
        return ""


class DiscoverHandler(Handler):
    """Answers `discover`, as often as any proxy asks."""

    unary = True

    def __init__(self, spec: bytes, entity_types: Iterable[str], hooks: Hooks) -> None:
        self._spec = spec
        self._entity_types = frozenset(entity_types)
        self._hooks = hooks

    def on_request(self, call: Any, message: bytes) -> None:
        try:
            info = cloudstate.ProxyInfo.FromString(message)
        except DecodeError as error:
            call.fail(Status.INVALID_ARGUMENT, f"Malformed ProxyInfo: {error}")
            return
        unsupported = sorted(self._entity_types - set(info.supported_entity_types))
        self._hooks.discovered(info.proxy_name, info.proxy_version, unsupported)
        call.reply(self._spec)


class ReportErrorHandler(Handler):
    """Takes `reportError`: faults of this user function that the proxy found."""

    unary = True

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks

    def on_request(self, call: Any, message: bytes) -> None:
        try:
            error = cloudstate.UserFunctionError.FromString(message)
        except DecodeError as malformed:
            call.fail(Status.INVALID_ARGUMENT, f"Malformed UserFunctionError: {malformed}")
            return
        self._hooks.error_reported(error.message)
        call.reply(Empty().SerializeToString())
