"""TLS: what is offered and refused, what the operator is told of unusable files, and files that change."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from stateside.proxy.config import ConfigError, Settings, load
from stateside.proxy.tls import LiveContext, TlsError, Watch, client_context, server_context
from tests.helpers.certificates import HOST, Authority, Issued


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def issued(authority: Authority) -> Issued:
    return authority.issue("server")


def settings_of(issued: Issued, **more: Any) -> Settings:
    return Settings(tls_certificate=str(issued.certificate), tls_key=str(issued.key), **more)


def shake_hands(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str = HOST
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends after a handshake in memory. Raises the SSLError of the end that refused."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return ends


# --- what is offered -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["h2", "http/1.1"], "h2"), (["http/1.1", "h2"], "h2"), (["http/1.1"], "http/1.1"), (["spdy/3"], None)],
)
def test_http2_is_preferred_and_http1_served(
    authority: Authority, issued: Issued, offered: list[str], chosen: str | None
) -> None:
    client = authority.client_context()
    client.set_alpn_protocols(offered)
    ends = shake_hands(server_context(settings_of(issued)), client)
    assert [end.selected_alpn_protocol() for end in ends] == [chosen, chosen]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2])
def test_tls_1_2_and_1_3_are_spoken(authority: Authority, issued: Issued, version: ssl.TLSVersion) -> None:
    client = authority.client_context()
    client.minimum_version = client.maximum_version = version
    end, _ = shake_hands(server_context(settings_of(issued)), client)
    assert end.version() == version.name.replace("_", ".")
    cipher = end.cipher()
    assert cipher is not None and ("GCM" in cipher[0] or "CHACHA20" in cipher[0])


def test_nothing_older_than_tls_1_2_is_spoken(issued: Issued) -> None:
    assert server_context(settings_of(issued)).minimum_version == ssl.TLSVersion.TLSv1_2
    assert client_context(Settings(user_function_tls=True)).minimum_version == ssl.TLSVersion.TLSv1_2


def test_the_key_may_be_in_the_file_of_the_certificate(authority: Authority, issued: Issued, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(issued.key.read_bytes() + issued.certificate.read_bytes())
    end, _ = shake_hands(server_context(Settings(tls_certificate=str(both))), authority.client_context())
    assert end.getpeercert(binary_form=True) == issued.der


def test_clients_refuse_an_expired_certificate(authority: Authority) -> None:
    expired = authority.issue("expired", expired=True)
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate has expired"):
        shake_hands(server_context(settings_of(expired)), authority.client_context())


# --- clients' certificates -------------------------------------------------------------------------------------------


def test_a_client_certificate_is_required_where_there_is_an_authority_for_it(
    authority: Authority, issued: Issued
) -> None:
    server = server_context(settings_of(issued, tls_client_ca=str(authority.certificate)))
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        shake_hands(server, authority.client_context())
    _, end = shake_hands(server, authority.client_context(authority.issue("client", "someone")))
    assert end.getpeercert() is not None


def test_a_client_certificate_may_be_optional_but_not_wrong(
    authority: Authority, issued: Issued, tmp_path: Path
) -> None:
    server = server_context(settings_of(issued, tls_client_ca=str(authority.certificate), tls_client_auth="optional"))
    _, end = shake_hands(server, authority.client_context())
    assert end.getpeercert() is None
    stranger = Authority(tmp_path).issue("client", "someone")
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer certificate|self.signed"):
        shake_hands(server, authority.client_context(stranger))


def test_an_expired_client_certificate_is_refused(authority: Authority, issued: Issued) -> None:
    server = server_context(settings_of(issued, tls_client_ca=str(authority.certificate)))
    expired = authority.issue("client", "someone", expired=True)
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate has expired"):
        shake_hands(server, authority.client_context(expired))


# --- towards the user function ---------------------------------------------------------------------------------------


def user_function(authority: Authority, **more: Any) -> ssl.SSLContext:
    return client_context(Settings(user_function_tls=True, user_function_tls_ca=str(authority.certificate), **more))


def test_the_user_function_has_to_prove_its_name(authority: Authority, issued: Issued) -> None:
    server = server_context(settings_of(issued))
    _, end = shake_hands(server, user_function(authority))
    assert end.selected_alpn_protocol() == "h2"
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(server, user_function(authority), "another.example")


def test_a_user_function_of_another_authority_is_refused(issued: Issued, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer certificate|self.signed"):
        shake_hands(server_context(settings_of(issued)), user_function(Authority(tmp_path)))


def test_the_proxy_shows_the_user_function_its_certificate(authority: Authority, issued: Issued) -> None:
    own = authority.issue("proxy", "proxy")
    client = user_function(
        authority, user_function_tls_certificate=str(own.certificate), user_function_tls_key=str(own.key)
    )
    server = server_context(settings_of(issued, tls_client_ca=str(authority.certificate)))
    _, end = shake_hands(server, client)
    assert end.getpeercert(binary_form=True) == own.der


# --- what the operator is told ---------------------------------------------------------------------------------------


def test_a_missing_file_is_named_with_its_setting(issued: Issued, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.pem")
    for make, settings in (
        (server_context, Settings(tls_certificate=missing)),
        (server_context, Settings(tls_certificate=str(issued.certificate), tls_key=missing)),
        (server_context, settings_of(issued, tls_client_ca=missing)),
        (client_context, Settings(user_function_tls=True, user_function_tls_ca=missing)),
    ):
        with pytest.raises(TlsError, match=f"^\\w+ = '{missing}': cannot be read: No such file or directory$"):
            make(settings)


def test_a_key_of_another_certificate_is_refused(authority: Authority, issued: Issued) -> None:
    other = authority.issue("other")
    settings = Settings(tls_certificate=str(issued.certificate), tls_key=str(other.key))
    with pytest.raises(TlsError, match=r"other\.key': the private key does not belong to the certificate$"):
        server_context(settings)


@pytest.mark.parametrize(
    "content", [b"", b"not PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_file_that_is_no_certificate_is_refused(issued: Issued, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file.pem"
    file.write_bytes(content)
    for settings in (
        Settings(tls_certificate=str(file)),
        Settings(tls_certificate=str(issued.certificate), tls_key=str(file)),
        settings_of(issued, tls_client_ca=str(file)),
    ):
        with pytest.raises(TlsError, match=r"file\.pem': \w+"):
            server_context(settings)


def test_an_encrypted_key_is_refused_without_a_question(issued: Issued, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as form

    key = form.load_pem_private_key(issued.key.read_bytes(), None)
    secret = form.BestAvailableEncryption(b"secret")
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, secret))
    with pytest.raises(TlsError, match="the private key is encrypted"):
        server_context(Settings(tls_certificate=str(issued.certificate), tls_key=str(encrypted)))


@pytest.mark.parametrize(
    "settings",
    [
        {"tls_key": "key.pem"},
        {"tls_client_ca": "ca.pem"},
        {"user_function_tls_ca": "ca.pem"},
        {"user_function_tls_certificate": "own.pem"},
        {"user_function_tls_server_name": "name"},
    ],
)
def test_a_setting_that_would_have_no_effect_is_refused(settings: dict[str, str]) -> None:
    ((key, value),) = settings.items()
    with pytest.raises(ConfigError, match=f"^{key} = '{value}': has no effect without "):
        load(settings)


def test_tls_does_not_go_over_a_unix_socket() -> None:
    with pytest.raises(ConfigError, match="user_function_tls = true: must not be with user_function_socket"):
        load({"user_function_tls": "true", "user_function_socket": "/run/socket"})


def test_connections_are_bounded_also_those_that_never_finish_their_handshake(issued: Issued) -> None:
    context = LiveContext.of(lambda: server_context(settings_of(issued)), most=2)

    def connect() -> ssl.SSLObject:
        return context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)

    one, two = connect(), connect()
    with pytest.raises(ssl.SSLError, match="2 connections"):
        connect()
    del one
    three = connect()
    assert three is not two


# --- files that change -----------------------------------------------------------------------------------------------


def watched(settings: Settings, interval: float, scenario: Callable[[LiveContext, Watch], Any]) -> None:
    """Run a scenario with a server's context whose files are watched."""

    async def run() -> None:
        context = LiveContext.of(lambda: server_context(settings))
        watch = Watch(asyncio.get_running_loop(), interval)
        watch.add("TLS", context, [settings.tls_certificate, settings.tls_key, settings.tls_client_ca])
        watch.start()
        try:
            async with asyncio.timeout(10):
                await scenario(context, watch)
        finally:
            watch.stop()

    uvloop.run(run())


def shown(context: ssl.SSLContext, authority: Authority) -> bytes | None:
    """The certificate that a new client sees."""
    return shake_hands(context, authority.client_context())[0].getpeercert(binary_form=True)


def test_new_files_are_used_by_new_connections(authority: Authority, issued: Issued) -> None:
    before = issued.der

    async def scenario(context: LiveContext, watch: Watch) -> None:
        assert shown(context, authority) == before
        after = authority.issue("server").der
        while (now := shown(context, authority)) == before:
            await asyncio.sleep(0.01)
        assert now == after != before

    watched(settings_of(issued), 0.02, scenario)


def test_authorities_that_are_gone_are_not_trusted_any_more(
    authority: Authority, issued: Issued, tmp_path: Path
) -> None:
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(authority.certificate.read_bytes())
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    client = authority.client_context(authority.issue("client", "someone"))

    async def scenario(context: LiveContext, watch: Watch) -> None:
        shake_hands(context, client)
        trusted.write_bytes(other.certificate.read_bytes())
        watch.renew()
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(context, client)
        shake_hands(context, authority.client_context(other.issue("client", "someone")))

    watched(settings_of(issued, tls_client_ca=str(trusted)), 0.0, scenario)


def test_files_that_do_not_fit_change_nothing_are_logged_once_and_tried_again_when_they_change(
    authority: Authority, issued: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, str]] = []

    class Log:
        def error(self, text: str, reason: str) -> None:
            said.append(("error", reason))

        def info(self, text: str, files: list[str]) -> None:
            said.append(("info", text))

    monkeypatch.setattr("stateside.proxy.tls.log", Log())
    before, good_key = issued.der, issued.key.read_bytes()

    async def scenario(context: LiveContext, watch: Watch) -> None:
        issued.key.write_bytes(b"broken")
        while not said:
            await asyncio.sleep(0.01)
        assert shown(context, authority) == before
        await asyncio.sleep(0.1)
        assert [kind for kind, _ in said] == ["error"]
        assert str(issued.key) in said[0][1]
        issued.key.unlink()
        while len(said) < 2:
            await asyncio.sleep(0.01)
        issued.key.write_bytes(good_key)
        while len(said) < 3:
            await asyncio.sleep(0.01)
        assert [kind for kind, _ in said] == ["error", "error", "info"]
        assert shown(context, authority) == before

    watched(settings_of(issued), 0.02, scenario)


def test_a_link_that_points_elsewhere_is_a_change(authority: Authority, tmp_path: Path) -> None:
    """As orchestrators replace secrets."""
    one, two, link = tmp_path / "one", tmp_path / "two", tmp_path / "now"
    for folder in (one, two):
        folder.mkdir()
        issued = authority.issue("linked")
        for file in (issued.certificate, issued.key):
            file.rename(folder / file.name)
    link.symlink_to(one)
    settings = Settings(tls_certificate=str(link / "linked.pem"), tls_key=str(link / "linked.key"))

    async def scenario(context: LiveContext, watch: Watch) -> None:
        before = shown(context, authority)
        (tmp_path / "next").symlink_to(two)
        os.replace(tmp_path / "next", link)
        while shown(context, authority) == before:
            await asyncio.sleep(0.01)

    watched(settings, 0.02, scenario)
