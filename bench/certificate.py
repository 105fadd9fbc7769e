"""A certificate for the measurements of TLS: of no worth to anybody else, and gone with the stage."""

from __future__ import annotations

from pathlib import Path


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 in a file with the authority that issued it, and its key (both P-256)."""
    import trustme  # of the development packages, and slow to import

    certificate, key = folder / "certificate.pem", folder / "key.pem"
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(key)
    for blob in (*issued.cert_chain_pems, authority.cert_pem):
        blob.write_to_path(certificate, append=True)
    return certificate, key
