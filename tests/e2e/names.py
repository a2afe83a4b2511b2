"""Names of a domain that exists in one test only: a DNS server on an address of the loopback network, and processes that
ask it and nobody else, because they have an /etc/resolv.conf of their own.

Drivers in the test's own process ask it as well, while `Names` is entered.
"""

from __future__ import annotations

import random
import shlex
import socket
import subprocess
import threading
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.rrset
import pytest

DOMAIN = "fieldveil.test"

# Files that decide how a process resolves names, with what they hold for ours.
FILES = {"/etc/resolv.conf": "nameserver {address}\noptions timeout:1 attempts:2\n", "/etc/nsswitch.conf": "hosts: files dns\n"}


class Names:
    """Every name below `DOMAIN` that no record says otherwise of is 127.0.0.1. Records can be changed at any time and
    have a time to live of zero."""

    def __init__(self, directory: Path):
        directory.mkdir(parents=True, exist_ok=True)
        self.records: dict[tuple[str, str], list[str]] = {}
        self.asked: list[tuple[str, str]] = []
        self.socket, self.address = self._bind()
        self.socket.settimeout(0.2)
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        for path, content in FILES.items():
            (directory / Path(path).name).write_text(content.format(address=self.address))
        mounts = " && ".join(f"mount --bind {shlex.quote(str(directory / Path(path).name))} {path}" for path in FILES if Path(path).exists())
        # A mount namespace of its own: nobody else on this machine sees the files.
        self.wrap = ["unshare", "-m", "sh", "-ec", f'{mounts}; exec "$@"', "sh"]
        try:
            tried = subprocess.run([*self.wrap, "true"], capture_output=True, text=True, timeout=10)
        except OSError as e:
            pytest.skip(f"NOT RUN: no unshare ({e})")
        if tried.returncode != 0:
            pytest.skip(f"NOT RUN: no mount namespace of one's own may be made here: {tried.stderr.strip()}")

    @staticmethod
    def _bind() -> tuple[socket.socket, str]:
        """Port 53 cannot be chosen in resolv.conf, but the address can: one that nobody else uses."""
        for _ in range(20):
            address = f"127.{random.randint(64, 250)}.{random.randint(1, 250)}.{random.randint(2, 250)}"
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                sock.bind((address, 53))
                return sock, address
            except PermissionError:
                pytest.skip("NOT RUN: port 53 may not be bound here")
            except OSError:
                sock.close()
        raise AssertionError("no address on the loopback network is free on port 53")

    def srv(self, host: str, *targets: str, service: str = "mongodb") -> None:
        """Lets `mongodb+srv://host` lead to these `name:port`."""
        self.records[f"_{service}._tcp.{host}", "SRV"] = [f"0 0 {port} {name}." for name, port in (t.split(":") for t in targets)]

    def txt(self, host: str, *texts: str) -> None:
        self.records[host, "TXT"] = [f'"{text}"' for text in texts]

    def __enter__(self) -> Names:
        self.thread.start()
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers = [self.address]
        resolver.lifetime = 5
        dns.resolver.override_system_resolver(resolver)
        dns.resolver.default_resolver = resolver
        return self

    def __exit__(self, *_) -> None:
        dns.resolver.restore_system_resolver()
        dns.resolver.default_resolver = None
        self.over.set()
        self.thread.join(5)
        self.socket.close()

    def _serve(self) -> None:
        while not self.over.is_set():
            try:
                data, client = self.socket.recvfrom(4096)
            except TimeoutError:
                continue
            try:
                self.socket.sendto(self._answer(dns.message.from_wire(data)), client)
            except (dns.exception.DNSException, OSError):
                continue

    def _answer(self, query: dns.message.Message) -> bytes:
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.AA | dns.flags.RA
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        records = self.records.get((name, kind))
        if records is None and kind == "A" and name.endswith(f".{DOMAIN}"):
            records = ["127.0.0.1"]
        if records:
            reply.answer.append(dns.rrset.from_text(question.name, 0, "IN", kind, *records))
        elif not name.endswith(DOMAIN):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply.to_wire()
