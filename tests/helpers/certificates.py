"""Certificates for tests of TLS, in files as an operator would have them."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import trustme

HOST = "127.0.0.1"


class Authority:
    """A certificate authority of its own, with a folder for what it issues."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.folder = folder
        self._authority = trustme.CA()
        self.certificate = folder / f"{name}.pem"
        self._authority.cert_pem.write_to_path(self.certificate)

    def issue(self, name: str, *hosts: str, expired: bool = False) -> Issued:
        """A certificate for `hosts` (127.0.0.1 by default) and its key, in the files name.pem and name.key; older ones
        are replaced."""
        now = datetime.datetime.now(datetime.UTC)
        begin, end = (now - datetime.timedelta(days=9), now - datetime.timedelta(days=1)) if expired else (None, None)
        issued = self._authority.issue_cert(*(hosts or (HOST,)), not_before=begin, not_after=end)
        found = Issued(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        found.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(found.key)
        return found

    def client_context(self, own: Issued | None = None) -> ssl.SSLContext:
        """Of a client that trusts this authority."""
        context = ssl.create_default_context(cafile=self.certificate)
        if own is not None:
            context.load_cert_chain(own.certificate, own.key)
        return context


class Issued:
    """Paths of a certificate and its key."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self.certificate = certificate
        self.key = key

    @property
    def der(self) -> bytes:
        """The certificate as `getpeercert(binary_form=True)` tells it of a peer."""
        end = "-----END CERTIFICATE-----"
        return ssl.PEM_cert_to_DER_cert(self.certificate.read_text().partition(end)[0] + end)
