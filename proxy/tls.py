"""TLS of the main port and towards the user function: certificates from files, read again when they change.

A `LiveContext` stands where the event loop wants an SSL context and hands each new connection to the one that was made
last, so that certificate, key and authorities change together, connections that are open keep what they began with, and
files that do not fit each other change nothing. `Watch` looks at the files at intervals and at SIGHUP.
"""

from __future__ import annotations

import ssl
import sys
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stateside.proxy import logs
from stateside.proxy.config import ConfigError, Settings

if TYPE_CHECKING:
    import asyncio

ALPN_SERVER = ["h2", "http/1.1"]
ALPN_CLIENT = ["h2"]
# Not those of OpenSSL's default that neither forward secrecy nor HTTP/2 (RFC 9113, 9.2.2) has room for.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
# Connections beyond max_connections that may be at their handshakes, or on their way to be refused.
HANDSHAKES = 1000

log = logs.get(__name__)


class TlsError(ConfigError):
    """A certificate, key or authority cannot be used. The text names the setting, its file and why."""


def server_context(settings: Settings) -> ssl.SSLContext:
    """Of the main port, as its files are now. Raises TlsError."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, ALPN_SERVER)
    _load_certificate(context, "tls", settings.tls_certificate, settings.tls_key)
    if settings.tls_client_ca:
        _load_authorities(context, "tls_client_ca", settings.tls_client_ca)
        required = settings.tls_client_auth == "required"
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    return context


def client_context(settings: Settings) -> ssl.SSLContext:
    """Towards the user function, as its files are now. Raises TlsError."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, ALPN_CLIENT)
    if settings.user_function_tls_ca:
        _load_authorities(context, "user_function_tls_ca", settings.user_function_tls_ca)
    else:
        context.load_default_certs()
    if settings.user_function_tls_certificate:
        certificate, key = settings.user_function_tls_certificate, settings.user_function_tls_key
        _load_certificate(context, "user_function_tls", certificate, key)
    return context


class Contexts:
    """The contexts of one proxy, each None where TLS is off, and what keeps them up to date."""

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        """Raises TlsError."""
        self.clients: LiveContext | None = None
        self.user_function: LiveContext | None = None
        self.watch = Watch(loop, settings.tls_check_interval)
        if settings.tls_certificate:
            most = settings.max_connections + HANDSHAKES
            self.clients = LiveContext.of(partial(server_context, settings), most)
            files = (settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
            self.watch.add("TLS of the main port", self.clients, files)
        if settings.user_function_tls:
            self.user_function = LiveContext.of(partial(client_context, settings))
            own = (settings.user_function_tls_certificate, settings.user_function_tls_key)
            self.watch.add("TLS to the user function", self.user_function, (settings.user_function_tls_ca, *own))


def _context(protocol: int, alpn: list[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(alpn)
    context.sslobject_class = _End
    return context


def _load_certificate(context: ssl.SSLContext, prefix: str, certificate: str, key: str) -> None:
    """`prefix` of the two settings' names."""
    _check_readable(f"{prefix}_certificate", certificate)
    if key:
        _check_readable(f"{prefix}_key", key)
    try:
        context.load_cert_chain(certificate, key or None, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        place = f"{prefix}_certificate = {certificate!r}" + (f", {prefix}_key = {key!r}" if key else "")
        raise TlsError(f"{place}: {_why(error)}") from error


def _load_authorities(context: ssl.SSLContext, name: str, path: str) -> None:
    _check_readable(name, path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise TlsError(f"{name} = {path!r}: {_why(error)}") from error


def _check_readable(name: str, path: str) -> None:
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise TlsError(f"{name} = {path!r}: cannot be read: {error.strerror}") from error


def _no_password() -> str:
    """In place of asking on the terminal."""
    raise ValueError("the private key is encrypted; it has to be stored without a password")


def _why(error: Exception) -> str:
    """OpenSSL's reasons in plain words, as far as operators meet them."""
    reason = getattr(error, "reason", None) or ""
    if reason == "KEY_VALUES_MISMATCH":
        return "the private key does not belong to the certificate"
    if reason in ("NO_START_LINE", "") and isinstance(error, ssl.SSLError):
        return "a certificate or private key in PEM format is missing"
    if reason == "NO_CERTIFICATE_OR_CRL_FOUND":
        return "there is no certificate in PEM format in it"
    return reason.replace("_", " ").lower() or str(error)


class LiveContext(ssl.SSLContext):
    """An SSL context that can be replaced while it is in use, and bounds how many connections use it. The transport
    counts a connection once its handshake is done; here those are counted too that never get so far."""

    failures: int
    """Handshakes that failed."""
    _current: ssl.SSLContext
    _make: Callable[[], ssl.SSLContext]
    _most: int
    _open: weakref.WeakSet[ssl.SSLObject]

    @classmethod
    def of(cls, make: Callable[[], ssl.SSLContext], most: int = sys.maxsize) -> LiveContext:
        """`make` makes the context, now and at each `renew`. Raises what it raises."""
        current = make()
        live = cls(current.protocol)
        live._current = current
        live._make = make
        live._most = most
        live.failures = 0
        live._open = weakref.WeakSet()
        return live

    def renew(self) -> None:
        """Connections from now on get a new context. Raises what `make` raises, and then nothing has changed."""
        self._current = self._make()

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """For a new connection. Raises SSLError, upon which it is closed, when there are too many."""
        if len(self._open) >= self._most:
            self.failures += 1
            raise ssl.SSLError(f"{self._most} connections speak TLS or are about to")
        made = self._current.wrap_bio(*args, **kwargs)
        assert isinstance(made, _End)
        made.live = self
        self._open.add(made)
        return made


class _End(ssl.SSLObject):
    """One end of a connection. When it goes away without having shaken hands, that has failed: refused, given up by the
    client, or not done in time. The transport only closes then."""

    live: LiveContext | None = None
    is_open = False

    def do_handshake(self) -> None:
        try:
            ssl.SSLObject.do_handshake(self)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            log.debug("a TLS handshake failed", reason=str(error))
            raise
        self.is_open = True

    def __del__(self) -> None:
        if self.live is not None and not self.is_open:
            self.live.failures += 1


class Watch:
    """Looks after the files of contexts in use. A context is tried anew once for each change of its files; while they
    do not make a valid one, the last that did stays, and the log says why."""

    def __init__(self, loop: asyncio.AbstractEventLoop, interval: float) -> None:
        """interval: seconds between two looks; 0.0 = none."""
        self._loop = loop
        self._interval = interval
        self._watched: list[_Watched] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, name: str, context: LiveContext, files: Iterable[str]) -> None:
        """`name` for the log; empty ones of `files` are no files."""
        self._watched.append(_Watched(name, context, [Path(file) for file in files if file]))

    def __bool__(self) -> bool:
        return bool(self._watched)

    def start(self) -> None:
        if self._watched and self._interval:
            self._timer = self._loop.call_later(self._interval, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def renew(self) -> None:
        """Read all files now, whether they have changed or not: for SIGHUP."""
        for watched in self._watched:
            watched.renew()

    def _look(self) -> None:
        for watched in self._watched:
            if watched.has_changed():
                watched.renew()
        self.start()


class _Watched:
    """One context and its files, as they were when they were last read."""

    def __init__(self, name: str, context: LiveContext, files: list[Path]) -> None:
        self._name = name
        self._context = context
        self._files = files
        self._seen = self._state()

    def has_changed(self) -> bool:
        return self._state() != self._seen

    def renew(self) -> None:
        self._seen = self._state()
        try:
            self._context.renew()
        except TlsError as error:
            log.error(f"{self._name} goes on with what it has: the new files cannot be used", reason=str(error))
        else:
            log.info(f"{self._name} uses new files", files=[str(file) for file in self._files])

    def _state(self) -> list[tuple[int, int, int] | None]:
        return [_fingerprint(file) for file in self._files]


def _fingerprint(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
