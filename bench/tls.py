"""What TLS costs: the relay of works.py, its clients on TLS and on plaintext in the same rounds.

The certificate is made for the occasion. Load generator and proxy both pay for TLS, and share the machine; so the
proxy's CPU time a call tells more than the throughput.
"""

from __future__ import annotations

from pathlib import Path

from stateside.bench.processes import Stage
from stateside.bench.works import Figures, Setting, check_echo, load, start_echo, start_proxy


async def relay_tls(setting: Setting, stage: Stage) -> Figures:
    """Read-only commands of clients that speak TLS, through the proxy to the compiled echo."""
    certificate, key = make_certificate(stage.folder.resolve())
    echo, port = await start_echo(stage)
    files = {"STATESIDE_TLS_CERTIFICATE": str(certificate), "STATESIDE_TLS_KEY": str(key)}
    proxy, proxy_port = await start_proxy(stage, port, "memory:", files)
    result = await load(stage, proxy_port, "read", setting, ca=certificate, proxy=proxy, user_function=echo)
    await check_echo(echo)
    return result


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, which a client trusts as its own authority, and its key (both P-256)."""
    import trustme  # of the development packages, and slow to import

    certificate, key = folder / "certificate.pem", folder / "key.pem"
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(key)
    for blob in (*issued.cert_chain_pems, authority.cert_pem):
        blob.write_to_path(certificate, append=True)
    return certificate, key
