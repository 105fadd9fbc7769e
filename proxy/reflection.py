"""gRPC server reflection, v1alpha and v1: what services there are and what their messages look like.

v1alpha answers as the reference proxy does, because its users and its TCK rely on it: unknown names get an empty file
response, and each file comes alone. v1 answers as its standard says: NOT_FOUND, and a file comes with all it imports.
"""

from typing import Any, cast

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import DecodeError

from stateside import proto
from stateside._speedups import h2
from stateside.proto.status import Status
from stateside.proxy.spec import ServiceModel

V1ALPHA = "grpc.reflection.v1alpha.ServerReflection"
V1 = "grpc.reflection.v1.ServerReflection"
# Files of our own that clients may ask for, by a service they define.
OWN_SERVICES = (V1ALPHA, V1, "grpc.health.v1.Health")


def handlers(model: ServiceModel) -> dict[bytes, h2.Handler]:
    """Handlers by path, for both versions."""
    catalog = Catalog(model)
    return {
        f"/{V1ALPHA}/ServerReflectionInfo".encode(): ReflectionHandler(Reflection(catalog, V1ALPHA)),
        f"/{V1}/ServerReflectionInfo".encode(): ReflectionHandler(Reflection(catalog, V1)),
    }


class ReflectionHandler(h2.Handler):
    """One answer for each request, in order, until the client has no more questions. A slow reader is not read from."""

    unary = False

    def __init__(self, reflection: "Reflection") -> None:
        self._reflection = reflection

    def on_message(self, call: h2.Call, message: bytes) -> None:
        try:
            answer = self._reflection.answer(message)
        except DecodeError:
            cast(h2.ServerCall, call).fail(Status.INVALID_ARGUMENT, "the message is not a ServerReflectionRequest")
            return
        if not call.send(answer):
            call.pause()

    def on_drain(self, call: h2.Call) -> None:
        call.resume()

    def on_half_close(self, call: h2.ServerCall) -> None:
        call.finish()


class NotFound(Exception):
    """Nothing of that name."""


class Catalog:
    """All files that may be shown: the user function's, then our own."""

    def __init__(self, model: ServiceModel) -> None:
        self.services = model.service_names
        self._pools: tuple[tuple[Any, dict[str, bytes]], ...] = (
            (model.descriptors.pool, model.descriptors.raw),
            (proto.pool(), _own_files()),
        )

    def by_name(self, name: str) -> FileDescriptor:
        for pool, files in self._pools:
            if name in files:
                found: FileDescriptor = pool.FindFileByName(name)
                return found
        raise NotFound(f"no file {name}")

    def by_symbol(self, symbol: str) -> FileDescriptor:
        """Of a message, enum, service, method, field or extension, nested ones too."""
        for pool, files in self._pools:
            found = _defining_file(pool, symbol)
            if found is not None and found.name in files:
                return found
        raise NotFound(f"no symbol {symbol}")

    def by_extension(self, containing_type: str, number: int) -> FileDescriptor:
        for pool, files in self._pools:
            try:
                extension = pool.FindExtensionByNumber(pool.FindMessageTypeByName(containing_type), number)
            except KeyError:
                continue
            if extension.file.name in files:
                found: FileDescriptor = extension.file
                return found
        raise NotFound(f"no extension {number} of {containing_type}")

    def extension_numbers(self, containing_type: str) -> list[int]:
        for pool, _ in self._pools:
            try:
                message = pool.FindMessageTypeByName(containing_type)
            except KeyError:
                continue
            return sorted(extension.number for extension in pool.FindAllExtensions(message))
        raise NotFound(f"no message {containing_type}")

    def raw(self, file: FileDescriptor) -> bytes:
        """A file as it came: what the runtime serializes leaves out what it takes for granted."""
        return next(files[file.name] for pool, files in self._pools if pool is file.pool)


def _own_files() -> dict[str, bytes]:
    files = [proto.pool().FindServiceByName(name).file for name in OWN_SERVICES]
    return {file.name: file.serialized_pb for file in files}


def _defining_file(pool: Any, symbol: str) -> FileDescriptor | None:
    for find in (pool.FindFileContainingSymbol, lambda name: pool.FindMethodByName(name).containing_service.file):
        try:
            found: FileDescriptor = find(symbol)
            return found
        except KeyError:
            continue
    return None


class Reflection:
    """Answers of one version."""

    def __init__(self, catalog: Catalog, service: str) -> None:
        self._catalog = catalog
        self._service = service
        self._alpha = service == V1ALPHA
        self._messages: Any = proto.reflection_v1alpha if self._alpha else proto.reflection

    def answer(self, message: bytes) -> bytes:
        """The serialized response to a serialized request. Raises DecodeError."""
        request = self._messages.ServerReflectionRequest.FromString(message)
        response = self._messages.ServerReflectionResponse(valid_host=request.host, original_request=request)
        try:
            self._fill(request, response)
        except NotFound as missing:
            self._fill_missing(request, response, str(missing))
        serialized: bytes = response.SerializeToString()
        return serialized

    def _fill(self, request: Any, response: Any) -> None:
        asked = request.WhichOneof("message_request")
        if asked == "list_services":
            self._list_services(response)
        elif asked == "file_by_filename":
            self._files(response, self._catalog.by_name(request.file_by_filename))
        elif asked == "file_containing_symbol":
            self._files(response, self._catalog.by_symbol(request.file_containing_symbol))
        elif asked == "file_containing_extension":
            wanted = request.file_containing_extension
            self._files(response, self._catalog.by_extension(wanted.containing_type, wanted.extension_number))
        elif asked == "all_extension_numbers_of_type":
            self._extension_numbers(response, request.all_extension_numbers_of_type)
        else:
            response.error_response.error_code = Status.INVALID_ARGUMENT
            response.error_response.error_message = "the request asks nothing"

    def _list_services(self, response: Any) -> None:
        """Itself and the entity services, nothing besides: other proxies' tests compare the list."""
        for name in (self._service, *self._catalog.services):
            response.list_services_response.service.add(name=name)

    def _files(self, response: Any, file: FileDescriptor) -> None:
        files = [file] if self._alpha else _with_imports(file)
        response.file_descriptor_response.file_descriptor_proto.extend(map(self._catalog.raw, files))

    def _extension_numbers(self, response: Any, name: str) -> None:
        numbers = self._catalog.extension_numbers(name)
        response.all_extension_numbers_response.base_type_name = name
        response.all_extension_numbers_response.extension_number.extend(numbers)

    def _fill_missing(self, request: Any, response: Any, reason: str) -> None:
        if not self._alpha:
            response.error_response.error_code = Status.NOT_FOUND
            response.error_response.error_message = reason
        elif request.WhichOneof("message_request") == "all_extension_numbers_of_type":
            response.all_extension_numbers_response.base_type_name = request.all_extension_numbers_of_type
        else:
            response.file_descriptor_response.SetInParent()


def _with_imports(file: FileDescriptor) -> list[FileDescriptor]:
    """The file, then all files it imports, directly or not, each once."""
    found = {file.name: file}
    queue = [file]
    while queue:
        for dependency in queue.pop().dependencies:
            if dependency.name not in found:
                found[dependency.name] = dependency
                queue.append(dependency)
    return list(found.values())
