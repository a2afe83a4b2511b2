"""Both legs: who may connect, with which protocol, and what happens when a certificate is wrong or changes."""

from __future__ import annotations

import re
import signal
import socket
import ssl
import urllib.error

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError, ServerSelectionTimeoutError

from harness import APP, Certs, Proxy, frame, op_msg, receive, wait_until


def handshake(proxy: Proxy, context: ssl.SSLContext, timeout: float = 5) -> ssl.SSLSocket:
    return context.wrap_socket(socket.create_connection(("127.0.0.1", proxy.port), timeout), server_hostname="localhost")


def trusting(proxy: Proxy) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=proxy.mongod.certs.ca)


def serial(proxy: Proxy) -> str:
    with handshake(proxy, trusting(proxy)) as s:
        return s.getpeercert()["serialNumber"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_accepts_modern_tls(proxy, version):
    context = trusting(proxy)
    context.minimum_version = context.maximum_version = version
    with handshake(proxy, context) as s:
        s.sendall(op_msg({"hello": 1, "$db": "admin"}))
        assert receive(s)[1]["ok"] == 1


def test_rejects_tls_1_1(proxy):
    context = trusting(proxy)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(proxy, context)


@pytest.mark.parametrize("ciphers", ["AES128-SHA", "AES256-GCM-SHA384", "ECDHE+AESCCM"])
def test_rejects_weak_ciphers(proxy, ciphers):
    context = trusting(proxy)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers + ":@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(proxy, context)


def test_answers_no_plaintext(proxy):
    with socket.create_connection(("127.0.0.1", proxy.port), 5) as s:
        s.sendall(op_msg({"hello": 1, "$db": "admin"}))
        s.settimeout(10)
        try:
            answer = s.recv(4096)
        except ConnectionError:
            answer = b""
    # A TLS alert record (21) may precede the close; a wire message may not.
    assert answer == b"" or answer[0] == 21


def test_client_with_another_ca_does_not_connect(proxy, session_dir):
    other = Certs(session_dir / "other-ca", "another CA")
    with MongoClient(f"mongodb://127.0.0.1:{proxy.port}/?tls=true&tlsCAFile={other.ca}&directConnection=true", serverSelectionTimeoutMS=1500) as client:
        with pytest.raises(ServerSelectionTimeoutError, match="certificate verify failed"):
            client.admin.command("ping")


def test_wrong_password_fails_as_it_does_on_the_server(proxy):
    from pymongo.errors import OperationFailure
    with proxy.client((APP[0], "wrong")) as client, pytest.raises(OperationFailure) as caught:
        client.admin.command("ping")
    assert caught.value.code == 18


def test_says_when_the_certificates_of_both_legs_expire(proxy):
    for leg in ("client", "upstream"):
        wait_until(f"the {leg}'s certificate", lambda leg=leg: re.search(rf'^fieldveil_certificate_expiry_seconds{{leg="{leg}"}} [1-9]', proxy.metrics(), re.M))


def test_sighup_takes_a_new_certificate_and_keeps_connections(proxy, app, markers):
    before = serial(proxy)
    with handshake(proxy, trusting(proxy)) as old:
        certificate, key = proxy.mongod.certs.issue("renewed")
        proxy.certificate.write_text(certificate.read_text())
        proxy.private_key.write_text(key.read_text())
        proxy.process.send_signal(signal.SIGHUP)
        wait_until("the new certificate", lambda: serial(proxy) != before)
        old.sendall(op_msg({"hello": 1, "$db": "admin"}))
        assert receive(old)[1]["ok"] == 1, "a connection made before the renewal must live on"


def test_sighup_with_a_broken_certificate_keeps_the_old_one(proxy, app):
    before, good = serial(proxy), proxy.certificate.read_text()
    size = proxy.log.stat().st_size
    try:
        proxy.certificate.write_text("not a certificate\n")
        proxy.process.send_signal(signal.SIGHUP)
        wait_until("the log to say so", lambda: str(proxy.certificate) in proxy.log.read_text()[size:])
        assert serial(proxy) == before
        assert app.command("ping")["ok"] == 1
    finally:
        proxy.certificate.write_text(good)


@pytest.fixture
def another(request, session_dir, mongod):
    """Makes further proxies, stopped at the end."""
    made = []

    def make(name: str, **options) -> Proxy:
        made.append(Proxy(session_dir / f"tls-{name}", mongod, [], vault=f"encryption.tls_{abs(hash(name))}", **options))
        return made[-1]
    yield make
    for p in made:
        p.kill9()


def test_mutual_tls(another, certs, session_dir):
    proxy = another("mutual", client_ca=certs.ca).start()
    stranger = Certs(session_dir / "stranger-ca", "stranger").issue_joined("stranger")
    for options, allowed in (("", False), (f"&tlsCertificateKeyFile={stranger}", False), (f"&tlsCertificateKeyFile={certs.issue_joined('ward-app')}", True)):
        with MongoClient(proxy.uri(options=options, replica_set=False), serverSelectionTimeoutMS=1500) as client:
            if allowed:
                assert client.admin.command("ping")["ok"] == 1
            else:
                with pytest.raises(ServerSelectionTimeoutError):
                    client.admin.command("ping")


def test_plaintext_listener_only_when_said_aloud(another):
    loud = another("plain", plaintext_listener=True).start()
    with loud.client() as client:
        assert client.admin.command("ping")["ok"] == 1
    quiet = another("quiet", plaintext_listener=True)
    quiet.config.write_text(quiet.config.read_text().replace("allow_plaintext = true\n", ""))
    quiet.start(ready=False)
    assert quiet.process.wait(10) == 2
    assert "allow_plaintext" in quiet.log.read_text()


@pytest.mark.parametrize("what", ["another CA", "expired certificate"])
def test_upstream_that_cannot_be_trusted_is_not_used(another, session_dir, what):
    proxy = another("upstream-" + what[:7].strip())
    if what == "another CA":
        other = Certs(session_dir / "upstream-ca", "not mongod's CA")
        proxy.config.write_text(proxy.config.read_text().replace(str(proxy.mongod.certs.ca), str(other.ca)))
    else:
        # A TLS server with an expired certificate from the right CA in mongod's place.
        pem, key = proxy.mongod.certs.issue("expired", days=-1)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem, key)
        listener = socket.create_server(("127.0.0.1", 0))
        proxy.config.write_text(proxy.config.read_text().replace(f"127.0.0.1:{proxy.mongod.port}", f"127.0.0.1:{listener.getsockname()[1]}"))
    proxy.start(ready=False)
    if what != "another CA":
        listener.settimeout(15)
        try:
            connection, _ = listener.accept()
            connection.settimeout(5)
            with pytest.raises(ssl.SSLError, match="(?i)certificate.expired"):
                with context.wrap_socket(connection, server_side=True) as s:
                    assert s.recv(100) == b"", "the proxy sent data to a server with an expired certificate"
        finally:
            listener.close()

    if what == "another CA":
        wait_until("the proxy to say why", lambda: "invalid peer certificate" in proxy.log.read_text(), 25)
    with MongoClient(proxy.uri(replica_set=False), serverSelectionTimeoutMS=1500) as client, pytest.raises(PyMongoError):
        client.admin.command("ping")
    # It waits for a vault that it trusts, and nobody may take it for ready: it has no admin address yet, or says so there.
    assert proxy.process.poll() != 0
    try:
        assert proxy.http("/readyz")[0] == 503
    except urllib.error.URLError as e:
        assert isinstance(e.reason, ConnectionRefusedError)


def test_oversized_first_frame_closes_before_authentication(proxy):
    """Nobody who has not logged in gets memory for a 48 MB message."""
    with proxy.tls_socket() as s:
        s.sendall(frame(2013, b"\0" * 64, length=47_000_000))
        s.settimeout(5)
        try:
            assert s.recv(1) == b""
        except ConnectionError:
            pass
