"""Peers that take nothing of what waits for them: they are cut off, others never notice, and a drain does not wait for them."""

from __future__ import annotations

import socket
import ssl
import time

from harness import Proxy, metric, op_msg, receive, wait_until
from samples import patient

PROXY = {"extra_toml": "[limits]\nstall_seconds = 2\n"}


def deaf(proxy: Proxy) -> ssl.SSLSocket:
    """A connection that asks until nothing more is taken of it for a while, or until it is cut off, and never reads."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.settimeout(30)
    plain.connect(("127.0.0.1", proxy.port))
    s = ssl.create_default_context(cafile=proxy.mongod.certs.ca).wrap_socket(plain, server_hostname="localhost")
    # However slow the machine is: what is taken within this time is asked, and what is asked is answered.
    s.settimeout(5)
    asking = op_msg({"hello": 1, "$db": "admin"}) * 50
    try:
        for _ in range(10_000):
            s.sendall(asking)
    except OSError:  # nothing more is taken, or it has been cut off already
        return s
    raise AssertionError("whatever is asked is taken: there is no back-pressure")


def test_a_client_that_never_reads_gives_its_connection_back(proxy, app, markers):
    app.patients.insert_one(patient(markers, "before"))
    before = metric(proxy, "fieldveil_connections")
    sockets = [deaf(proxy) for _ in range(3)]
    assert app.patients.count_documents({}) == 1, "another client is kept waiting"
    wait_until("the deaf to be cut off", lambda: 'fieldveil_connections_total{outcome="timed_out"} 3' in proxy.metrics(), 60)
    # The driver may have opened one for its monitor meanwhile.
    wait_until("their connections", lambda: metric(proxy, "fieldveil_connections") <= before + 1)
    for s in sockets:
        s.close()


def test_a_client_that_reads_late_gets_everything_in_order(proxy):
    """More than may wait at the proxy at a time."""
    with proxy.tls_socket(60) as s:
        count = 2000
        s.sendall(b"".join(op_msg({"hello": 1, "$db": "admin"}, request_id=n) for n in range(1, count + 1)))
        time.sleep(1)
        assert [receive(s)[0] for _ in range(count)] == list(range(1, count + 1))


def test_a_drain_does_not_wait_for_a_client_that_never_reads(session_dir, server, proxy):
    """Neither for as long as it could go on not reading, nor for as long as a drain may take."""
    patient_one = Proxy(session_dir / "t_stalls_drain", server, proxy.collections, vault="encryption.t_stalls_drain",
                        extra_toml="[proxy]\ndrain_seconds = 120\n[limits]\nstall_seconds = 600\n")
    patient_one.start()
    try:
        s = deaf(patient_one)
        assert metric(patient_one, "fieldveil_connections") == 1, "it was cut off before the drain"
        begun = time.monotonic()
        assert patient_one.stop(seconds=100) == 0
        assert time.monotonic() - begun < 60, "the drain waited for a client that does not read"
        s.close()
    finally:
        patient_one.kill9()
