"""What TLS costs: the relay of works.py, its clients on TLS and on plaintext in the same rounds.

The certificate is made for the occasion. Load generator and proxy both pay for TLS, and share the machine; so the
proxy's CPU time a call tells more than the throughput.
"""

from __future__ import annotations

from pathlib import Path

from stateside.bench.processes import Stage
from stateside.bench.works import Figures, Setting, check_echo, load, start_echo, start_proxy

VALID_DAYS = 2


async def relay_tls(setting: Setting, stage: Stage) -> Figures:
    """Read-only commands of clients that speak TLS, through the proxy to the compiled echo."""
    certificate, key = await make_certificate(stage)
    echo, port = await start_echo(stage)
    files = {"STATESIDE_TLS_CERTIFICATE": str(certificate), "STATESIDE_TLS_KEY": str(key)}
    proxy, proxy_port = await start_proxy(stage, port, "memory:", files)
    result = await load(stage, proxy_port, "read", setting, ca=certificate, proxy=proxy, user_function=echo)
    await check_echo(echo)
    return result


async def make_certificate(stage: Stage) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority, and its key (P-256)."""
    folder = stage.folder.resolve()
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"]
    subject = ["-subj", "/CN=stateside", "-addext", "subjectAltName=IP:127.0.0.1", "-days", str(VALID_DAYS)]
    files = ["-keyout", str(key), "-out", str(certificate)]
    openssl = await stage.start("openssl", ["openssl", "req", "-x509", *kind, *subject, *files])
    await openssl.stopped()
    return certificate, key
