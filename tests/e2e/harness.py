"""Everything the end-to-end tests stand on: certificates, a real mongod, the proxy under test, and the scan that looks
for plaintext in every place the server or the proxy could have left it.

Nothing here is a mock. A `Mongod` is a single-node replica set with TLS and SCRAM whose files are written without
compression, because a compressed block would hide a leak from the scan. A `Proxy` is the `fieldveil` binary with a
configuration generated for one test module.
"""

from __future__ import annotations

import base64
import datetime
import os
import re
import resource
import secrets
import signal
import socket
import ssl
import struct
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import bson
from bson import Timestamp
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient
from pymongo.errors import PyMongoError

ROOT = Path(__file__).resolve().parents[2]

ADMIN = ("admin", "admin-pw")
APP = ("app", "app-pw")
SERVICE = ("fieldveil", "service-pw")


# --- small things -----------------------------------------------------------------------------------------------------


def free_port() -> int:
    """A port that was free a moment ago. Whoever binds it retries on its own terms."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until(what: str, check, seconds: float = 20.0, every: float = 0.05):
    """Polls `check` until it returns something true; the last exception is part of the failure text."""
    deadline = time.monotonic() + seconds
    last: BaseException | None = None
    while time.monotonic() < deadline:
        try:
            if result := check():
                return result
            last = None
        except (OSError, PyMongoError, urllib.error.URLError) as e:
            last = e
        time.sleep(every)
    raise AssertionError(f"{what}: not within {seconds:.0f} s" + (f" (last: {last!r})" if last else ""))


def tail(path: Path, lines: int = 40) -> str:
    if not path.exists():
        return f"({path} does not exist)"
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def fieldveil_binary() -> Path | None:
    """$FIELDVEIL_BIN, else the newer of the release and the debug build in this checkout; None when nothing is built."""
    if given := os.environ.get("FIELDVEIL_BIN"):
        path = Path(given)
        if not os.access(path, os.X_OK):
            raise AssertionError(f"FIELDVEIL_BIN={given} is not an executable file")
        return path
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [p for p in (target / "release/fieldveil", target / "debug/fieldveil") if p.exists()]
    return max(built, key=lambda p: p.stat().st_mtime) if built else None


# --- certificates -----------------------------------------------------------------------------------------------------


class Certs:
    """A development CA and what it signs, made with the openssl command line. Good for one test session."""

    def __init__(self, directory: Path, name: str = "fieldveil test CA"):
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.ca = directory / "ca.pem"
        self.ca_key = directory / "ca.key"
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                      "-subj", f"/CN={name}", "-keyout", str(self.ca_key), "-out", str(self.ca),
                      "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-addext", "basicConstraints=critical,CA:TRUE")

    def issue(self, name: str, *, days: int = 2, san: str = "DNS:localhost,IP:127.0.0.1") -> tuple[Path, Path]:
        """Certificate and key for `name`; a negative `days` makes one that has already expired."""
        key, csr, pem, ext = (self.directory / f"{name}.{suffix}" for suffix in ("key", "csr", "pem", "ext"))
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                      "-keyout", str(key), "-out", str(csr))
        ext.write_text(f"subjectAltName={san}\nextendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:FALSE\n")
        if days > 0:
            self._openssl("x509", "-req", "-in", str(csr), "-CA", str(self.ca), "-CAkey", str(self.ca_key), "-CAcreateserial",
                          "-days", str(days), "-extfile", str(ext), "-out", str(pem))
        else:
            # `x509 -req` knows no past dates before OpenSSL 3.4; `ca` does.
            db = self.directory / f"{name}.db"
            db.mkdir(exist_ok=True)
            (db / "index.txt").write_text("")
            (db / "serial").write_text("01\n")
            (db / "ca.cnf").write_text(
                f"[ca]\ndefault_ca=d\n[d]\ndatabase={db}/index.txt\nserial={db}/serial\nnew_certs_dir={db}\n"
                "default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n")
            self._openssl("ca", "-batch", "-config", str(db / "ca.cnf"), "-cert", str(self.ca), "-keyfile", str(self.ca_key),
                          "-in", str(csr), "-out", str(pem), "-notext", "-extfile", str(ext),
                          "-startdate", "20200101000000Z", "-enddate", "20200102000000Z")
        return pem, key

    def issue_joined(self, name: str, **options) -> Path:
        """Certificate and key in one file, the form in which mongod and drivers want them."""
        pem, key = self.issue(name, **options)
        joined = self.directory / f"{name}-joined.pem"
        joined.write_text(pem.read_text() + key.read_text())
        joined.chmod(0o600)
        return joined

    @staticmethod
    def _openssl(*args: str) -> None:
        done = subprocess.run(["openssl", *args], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"openssl {args[0]} failed:\n{done.stderr}"


# --- mongod -----------------------------------------------------------------------------------------------------------


class Mongod:
    """A single-node replica set: TLS required, SCRAM users, profiler on everything, uncompressed files, loud log."""

    def __init__(self, directory: Path, certs: Certs, *, verbose: bool = True, name: str | None = None, wrap: Sequence[str] = ()):
        """`name` is a further name for its certificate; `wrap` a command line that its own is appended to."""
        self.directory = directory
        self.wrap = wrap
        self.dbpath = directory / "db"
        self.log = directory / "mongod.log"
        self.certs = certs
        self.verbose = verbose
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.dbpath.mkdir(parents=True)
        self.keyfile = directory / "keyfile"
        self.keyfile.write_text(base64.b64encode(secrets.token_bytes(96)).decode())
        self.keyfile.chmod(0o600)
        san = {"san": f"DNS:{name},DNS:localhost,IP:127.0.0.1"} if name else {}
        self.pem = certs.issue_joined(f"mongod-{self.port}", **san)

    def start(self) -> Mongod:
        args = [
            *self.wrap, mongod_binary(), "--dbpath", str(self.dbpath), "--logpath", str(self.log), "--logappend",
            "--port", str(self.port), "--bind_ip", "127.0.0.1", "--unixSocketPrefix", str(self.directory),
            "--replSet", "rs0", "--oplogSize", "200", "--wiredTigerCacheSizeGB", "0.5",
            "--tlsMode", "requireTLS", "--tlsCertificateKeyFile", str(self.pem), "--tlsCAFile", str(self.certs.ca),
            "--tlsAllowConnectionsWithoutCertificates", "--auth", "--keyFile", str(self.keyfile),
            # A leak must be findable in the files: nothing compressed, nothing shortened.
            "--wiredTigerCollectionBlockCompressor", "none", "--wiredTigerJournalCompressor", "none",
            "--wiredTigerIndexPrefixCompression", "false",
            "--setParameter", "maxLogSizeKB=4096", "--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100", "--setParameter", "diagnosticDataCollectionEnabled=false",
            # Transactions that a test leaves behind must not hold up the next one.
            "--setParameter", "transactionLifetimeLimitSeconds=20",
        ]
        if self.verbose:
            args += ["--profile", "2", "--slowms", "0", os.environ.get("FIELDVEIL_MONGOD_VERBOSITY", "-vvv")]
        self.process = subprocess.Popen(args, stdout=(self.directory / "mongod.out").open("ab"), stderr=subprocess.STDOUT)
        wait_until(f"mongod on port {self.port}", self._accepts, 30)
        return self

    def _accepts(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"mongod exited with {self.process.returncode}:\n{tail(self.directory / 'mongod.out')}\n{tail(self.log, 10)}")
        with socket.create_connection(("127.0.0.1", self.port), 1):
            return True

    def initiate(self) -> Mongod:
        """First start only: makes the replica set and the users, through the server's localhost exception."""
        with MongoClient(self.uri(None), directConnection=True) as client:
            config = {"_id": "rs0", "members": [{"_id": 0, "host": f"127.0.0.1:{self.port}"}],
                      "settings": {"electionTimeoutMillis": 500}}
            wait_until("replSetInitiate", lambda: client.admin.command("replSetInitiate", config))
            wait_until("a primary", lambda: client.admin.command("hello")["isWritablePrimary"])
            client.admin.command("createUser", ADMIN[0], pwd=ADMIN[1], roles=["root"])
        with self.client(ADMIN) as client:
            client.admin.command("createUser", APP[0], pwd=APP[1], roles=["readWriteAnyDatabase", "dbAdminAnyDatabase"])
            # What the service needs: its key vault, and the names and options (never the documents) of collections.
            client.admin.command("createRole", "fieldveilCatalogue", roles=[], privileges=[
                {"resource": {"cluster": True}, "actions": ["listDatabases"]},
                {"resource": {"db": "", "collection": ""}, "actions": ["listCollections"]}])
            client.admin.command("createUser", SERVICE[0], pwd=SERVICE[1],
                                 roles=[{"role": "readWrite", "db": "encryption"}, "fieldveilCatalogue"])
        return self

    def uri(self, user: tuple[str, str] | None, *, replica_set: bool = False) -> str:
        who = f"{user[0]}:{user[1]}@" if user else ""
        options = f"tls=true&tlsCAFile={self.certs.ca}"
        if user:
            options += "&authSource=admin"
        options += "&replicaSet=rs0" if replica_set else "&directConnection=true"
        return f"mongodb://{who}127.0.0.1:{self.port}/?{options}"

    def client(self, user: tuple[str, str] = APP, **options) -> MongoClient:
        return MongoClient(self.uri(user), serverSelectionTimeoutMS=10_000, **options)

    def wait_primary(self) -> None:
        with self.client(ADMIN) as client:
            wait_until("the primary again", lambda: client.admin.command("hello")["isWritablePrimary"], 30)

    def tls_socket(self, timeout: float = 10) -> ssl.SSLSocket:
        """A raw TLS connection to the server itself, to compare the proxy with."""
        context = ssl.create_default_context(cafile=self.certs.ca)
        return context.wrap_socket(socket.create_connection(("127.0.0.1", self.port), timeout), server_hostname="localhost")

    def stop(self, how: int = signal.SIGTERM) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)

    def kill9(self) -> None:
        self.stop(signal.SIGKILL)

    def profile_everything(self, db: str) -> None:
        """A profile collection large enough to keep every operation of a test module (the default of 1 MB rolls over)."""
        with self.client(ADMIN) as client:
            client[db].command("profile", 0)
            client[db].drop_collection("system.profile")
            client[db].create_collection("system.profile", capped=True, size=64 << 20)
            client[db].command("profile", 2, slowms=0)

    def raw_documents(self, db: str, collection: str) -> Iterator[bytes]:
        """The stored BSON of a collection, read directly, undecoded."""
        with self.client(ADMIN) as client:
            for batch in client[db][collection].find_raw_batches({}):
                yield batch

    def raw_bytes(self, db: str, collection: str) -> bytes:
        return b"".join(self.raw_documents(db, collection))

    def now(self) -> tuple[int, Timestamp]:
        """Where the log and the oplog stand."""
        with self.client(ADMIN) as client:
            return self.log.stat().st_size, client.admin.command("hello")["lastWrite"]["opTime"]["ts"]

    def checkpoint(self) -> None:
        with self.client(ADMIN) as client:
            client.admin.command("fsync", 1)

    def files(self) -> Iterator[Path]:
        yield from (p for p in self.dbpath.rglob("*") if p.is_file() and p.name not in ("mongod.lock", "WiredTiger.lock"))


def mongod_binary() -> str:
    done = subprocess.run([ROOT / "scripts/find-mongod"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- markers and the scan ---------------------------------------------------------------------------------------------


class Markers:
    """Makes values that occur nowhere else in the world, remembers who asked for them, and recognises them in bytes.

    All strings share one random prefix, all dates lie in one random minute before 1970 and all integers in one random
    range, so that a few searches find any of them, in the bytes BSON stores and in the text that a log would print.
    """

    RANGE = 1 << 16

    def __init__(self):
        self.prefix = "zq" + secrets.token_hex(7)
        # Low sixteen bits zero: every value of the range has the same upper six bytes.
        self.first_date = -(secrets.randbelow(1 << 24) + (1 << 24)) * self.RANGE
        self.first_integer = ((1 << 45) + secrets.randbits(45)) * self.RANGE
        self.made: dict[str | int, str] = {}
        self.owner = "?"
        self.needles = [*self._text_needles(), *self._number_needles(self.first_date), *self._number_needles(self.first_integer)]
        for millis in (self.first_date, self.first_date + self.RANGE // 2, self.first_date + self.RANGE - 1):
            self.needles.append(self._instant(millis).strftime("%Y-%m-%dT%H:%M:").encode())

    def text(self, hint: str = "") -> str:
        key = f"{self.prefix}{len(self.made):05d}"
        self.made[key] = self.owner
        return key + re.sub("[^a-z]", "", hint.lower())

    def date(self) -> datetime.datetime:
        return self._instant(self._next(self.first_date)).replace(tzinfo=None)

    def integer(self) -> int:
        return self._next(self.first_integer)

    def _next(self, first: int) -> int:
        value = first + len(self.made)
        assert value < first + self.RANGE
        self.made[value] = self.owner
        return value

    @staticmethod
    def _instant(millis: int) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(0, datetime.timezone.utc) + datetime.timedelta(milliseconds=millis)

    def _text_needles(self) -> list[bytes]:
        """The prefix as it is, in hex, in UTF-16, and inside base64 at each of the three alignments."""
        raw = self.prefix.encode()
        found = [raw, raw.hex().encode(), raw.hex().upper().encode(), self.prefix.encode("utf-16-le")]
        for shift in range(3):
            encoded = base64.b64encode(b"\0" * shift + raw)
            # Characters that also depend on the neighbours are cut off at both ends.
            found.append(encoded[(shift * 8 + 5) // 6 : (shift + len(raw)) * 8 // 6])
        return found

    def _number_needles(self, first: int) -> list[bytes]:
        """The upper six bytes little-endian, and the leading digits: the last five may differ within the range."""
        digits = {str(n)[:-5].encode() for n in (first, first + self.RANGE // 2, first + self.RANGE - 1)}
        return [struct.pack("<q", first)[2:], *digits]

    def find(self, data: bytes) -> str | None:
        """Who made the first marker found in `data`, and in what surroundings."""
        for needle in self.needles:
            if (at := data.find(needle)) >= 0:
                return f"marker made by {self._owner(data, at, needle)}: …{data[max(0, at - 60) : at + 60]!r}…"
        return None

    def _owner(self, data: bytes, at: int, needle: bytes) -> str:
        key: str | int = data[at : at + len(self.prefix) + 5].decode("ascii", "replace")
        if len(needle) == 6 and at >= 2:
            key = struct.unpack("<q", data[at - 2 : at + 6])[0]
        return self.made.get(key, "a test that the surroundings may tell")


@dataclass
class Scan:
    """Looks for markers wherever the server or the proxy could have put plaintext. Places are named in the result."""

    mongod: Mongod
    databases: list[str]
    proxy_files: list[Path] = field(default_factory=list)
    metrics: str = ""
    # Where the log and the oplog stood before any of the markers existed.
    since: tuple[int, Timestamp] = (0, Timestamp(0, 1))
    extra: dict[str, bytes] = field(default_factory=dict)

    def findings(self, markers: Markers) -> dict[str, str]:
        """place → what was found there; empty when every place is clean. An unreadable place is an error, not a pass."""
        found: dict[str, str] = {}

        def look(place: str, chunks: Iterable[bytes]) -> int:
            size, previous = 0, b""
            for chunk in chunks:
                size += len(chunk)
                if place not in found and (hit := markers.find(previous + chunk)):
                    found[place] = hit
                previous = chunk[-256:]
            return size

        with self.mongod.client(ADMIN) as client:
            for db in self.databases:
                # A view holds no data, and nobody may read the list of views as documents.
                for name in client[db].list_collection_names(filter={"type": {"$ne": "view"}}):
                    if name == "system.views":
                        continue
                    look(f"{'system.profile' if name == 'system.profile' else 'documents'} of {db}.{name}",
                         client[db][name].find_raw_batches({}))
            assert look("oplog.rs", client.local["oplog.rs"].find_raw_batches({"ts": {"$gte": self.since[1]}})) > 0, "the oplog is empty: cannot be"
        self.mongod.checkpoint()
        for path in self.mongod.files():
            kind = "journal" if path.parent.name == "journal" else "data file"
            look(f"{kind} {path.relative_to(self.mongod.dbpath)}", read_chunks(path))
        assert look("mongod log", read_chunks(self.mongod.log, self.since[0])) > 0, "mongod's log is empty: cannot be"
        for path in self.proxy_files:
            look(f"proxy file {path.name}", read_chunks(path))
        look("/metrics", [self.metrics.encode()])
        for place, data in self.extra.items():
            look(place, [data])
        return found

    def assert_clean(self, markers: Markers) -> None:
        found = self.findings(markers)
        assert not found, "protected plaintext was found:\n" + "\n".join(f"  {place}: {what}" for place, what in found.items())


def read_chunks(path: Path, offset: int = 0) -> Iterator[bytes]:
    try:
        with path.open("rb") as f:
            f.seek(offset)
            while chunk := f.read(4 << 20):
                # Journals are preallocated: hundreds of megabytes of nothing. No marker ends in a zero byte.
                yield chunk.rstrip(b"\0")
    except FileNotFoundError:
        return  # WiredTiger removed a file between the listing and here


# --- the proxy --------------------------------------------------------------------------------------------------------

# The collection of the sample configuration, by field: what `config/fieldveil.toml` protects.
PATIENTS = {
    "nhs_number": '{ mode = "deterministic", type = "string", domain = "nhs_number" }',
    "mrn": '{ mode = "deterministic", type = "string" }',
    "postcode": '{ mode = "deterministic", type = "string" }',
    "date_of_birth": '{ mode = "deterministic", type = "date" }',
    "notes": '{ mode = "random" }',
    "contacts.phone": '{ mode = "deterministic", type = "string" }',
    "address.line1": '{ mode = "random", algorithm = "chacha20-poly1305" }',
    "allergies": '{ mode = "random" }',
}


@dataclass
class Collection:
    """One `[[collection]]` of a configuration: namespace, subject, and field → rule in TOML."""

    namespace: str
    fields: dict[str, str]
    subject: str | None = None

    def toml(self) -> str:
        lines = ["[[collection]]", f'namespace = "{self.namespace}"']
        if self.subject:
            lines.append(f'subject = "{self.subject}"')
        lines.append("\n[collection.fields]")
        lines += [f'"{path}" = {rule}' for path, rule in self.fields.items()]
        return "\n".join(lines) + "\n"


class Proxy:
    """`fieldveil serve` with a configuration of its own, its log in a file."""

    def __init__(self, directory: Path, mongod: Mongod, collections: list[Collection], *,
                 vault: str = "encryption.__keyVault", extra_toml: str = "", client_ca: Path | None = None,
                 plaintext_listener: bool = False, audit: bool = True, compression: str | None = None, upstream_options: str = "",
                 master_key: Path | None = None, listen: str | None = None, port: int | None = None,
                 upstream: str | None = None, name: str | None = None, wrap: Sequence[str] = ()):
        """`mongod` may be a replica set. `listen` stands in place of the one `[[listen]]` that there is otherwise; `port` is
        then where clients begin. `upstream` is a connection string in place of the server's own, `name` a further name for
        the certificate, `wrap` a command line that the proxy's own is appended to."""
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.mongod = mongod
        self.port, self.admin_port = port or free_port(), free_port()
        self.config = directory / "fieldveil.toml"
        self.log = directory / "proxy.log"
        self.audit = directory / "audit.jsonl"
        self.master_key = master_key or directory / "master.key"
        self.process: subprocess.Popen[bytes] | None = None
        self.born = mongod.now()
        self.wrap = wrap
        san = {"san": f"DNS:{name},DNS:localhost,IP:127.0.0.1"} if name else {}
        self.certificate, self.private_key = mongod.certs.issue(f"proxy-{self.port}", **san)
        self.collections = collections
        self.options = dict(vault=vault, extra_toml=extra_toml, client_ca=client_ca, plaintext_listener=plaintext_listener, audit=audit,
                            compression=compression, upstream_options=upstream_options, listen=listen, upstream=upstream)
        self.write_config()

    def write_config(self) -> None:
        o = self.options
        upstream = o["upstream"] or self.mongod.uri(SERVICE, replica_set=True)
        parts = [
            f'[upstream]\nuri = "{upstream}{o["upstream_options"]}"\n',
            o["listen"] or f'[[listen]]\naddress = "127.0.0.1:{self.port}"\n' + ("allow_plaintext = true\n" if o["plaintext_listener"] else "")
            + (f'compression = {o["compression"]}\n' if o["compression"] is not None else ""),
        ]
        if not o["plaintext_listener"]:
            tls = f'[tls]\ncertificate = "{self.certificate}"\nprivate_key = "{self.private_key}"\n'
            parts.append(tls + (f'client_ca = "{o["client_ca"]}"\n' if o["client_ca"] else ""))
        parts.append(f'[keys]\nvault = "{o["vault"]}"\nmaster = {{ provider = "file", path = "{self.master_key}" }}\n')
        if o["audit"]:
            parts.append(f'[audit]\npath = "{self.audit}"\non_failure = "refuse"\n')
        parts.append(f'[admin]\naddress = "127.0.0.1:{self.admin_port}"\n')
        parts += [c.toml() for c in self.collections]
        parts.append(o["extra_toml"])
        self.config.write_text("\n".join(parts))

    def start(self, *, ready: bool = True, largest_file: int | None = None) -> Proxy:
        """`largest_file` stands for a full disk: a write beyond so many bytes of one file fails."""
        binary = fieldveil_binary()
        assert binary, "no fieldveil binary: run `cargo build`, or set FIELDVEIL_BIN"

        def limit() -> None:
            # Ignored, so that the write fails instead of ending the process; an ignored signal stays so over exec.
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
        sink = self.log.open("ab")
        # The log itself must not meet the limit: a pipe does not.
        logger = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=sink) if largest_file else None
        self.process = subprocess.Popen([*self.wrap, binary, "serve", "--config", str(self.config), "--log-format", "json"],
                                        stdout=logger.stdin if logger else sink, stderr=subprocess.STDOUT, cwd=self.directory,
                                        preexec_fn=limit if largest_file else None, restore_signals=largest_file is None,
                                        env={**os.environ, "RUST_LOG": os.environ.get("FIELDVEIL_TEST_LOG", "trace")})
        sink.close()
        if logger:
            logger.stdin.close()
        if ready:
            wait_until("the proxy to be ready", self._ready, 20)
        return self

    def _ready(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the proxy exited with {self.process.returncode}:\n{tail(self.log)}\n--- {self.config}\n{self.config.read_text()}")
        return self.http("/readyz")[0] == 200

    def http(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=5) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()

    def metrics(self) -> str:
        status, text = self.http("/metrics")
        assert status == 200
        return text

    def uri(self, user: tuple[str, str] | None = APP, *, replica_set: bool = True, options: str = "") -> str:
        who = f"{user[0]}:{user[1]}@" if user else ""
        text = f"tls=true&tlsCAFile={self.mongod.certs.ca}" if not self.options["plaintext_listener"] else "tls=false"
        if user:
            text += "&authSource=admin"
        # The application keeps its replicaSet option: discovery must lead back to the proxy.
        text += "&replicaSet=rs0" if replica_set else "&directConnection=true"
        return f"mongodb://{who}127.0.0.1:{self.port}/?{text}{options}"

    def client(self, user: tuple[str, str] | None = APP, *, replica_set: bool = True, **options) -> MongoClient:
        options.setdefault("serverSelectionTimeoutMS", 10_000)
        return MongoClient(self.uri(user, replica_set=replica_set), **options)

    def stop(self, how: int = signal.SIGTERM, seconds: float = 20) -> int:
        """Sends the signal and returns the exit status; one that does not stop in time is killed and fails the test."""
        if self.process is None or self.process.poll() is not None:
            return self.process.returncode if self.process else 0
        self.process.send_signal(how)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
            raise AssertionError(f"the proxy did not stop within {seconds} s of signal {how}:\n{tail(self.log)}") from None

    def kill9(self) -> None:
        self.stop(signal.SIGKILL)

    def cli(self, *args: str, check: bool = False, **kwargs) -> subprocess.CompletedProcess[str]:
        """`fieldveil <args> --config <this configuration>`."""
        binary = fieldveil_binary()
        done = subprocess.run([*self.wrap, binary, *args, "--config", str(self.config)], capture_output=True, text=True,
                              cwd=self.directory, timeout=60, **kwargs)
        assert not check or done.returncode == 0, f"fieldveil {' '.join(args)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) * 1024

    def tls_socket(self, timeout: float = 10) -> ssl.SSLSocket:
        """A raw TLS connection to the listener, for what no driver would send."""
        context = ssl.create_default_context(cafile=self.mongod.certs.ca)
        return context.wrap_socket(socket.create_connection(("127.0.0.1", self.port), timeout), server_hostname="localhost")

    def scan(self, databases: list[str]) -> Scan:
        """A scan of everything since this proxy was set up; call it while the proxy runs, for its metrics."""
        return Scan(self.mongod, databases, [self.log, *([self.audit] if self.options["audit"] else [])], self.metrics(), self.born)


def metric(proxy: Proxy, name: str) -> float:
    """The sum of a series over its labels; 0 when it is not there yet."""
    return sum(float(line.rsplit(" ", 1)[1]) for line in proxy.metrics().splitlines() if re.match(rf"{name}[ {{]", line))


# --- raw wire messages ------------------------------------------------------------------------------------------------

OP_MSG, OP_QUERY, OP_COMPRESSED = 2013, 2004, 2012


def op_msg(command: dict, *, request_id: int = 1, flags: int = 0, sections: bytes = b"") -> bytes:
    body = struct.pack("<I", flags) + b"\0" + bson.encode(command) + sections
    return frame(OP_MSG, body, request_id)


def frame(opcode: int, body: bytes, request_id: int = 1, *, length: int | None = None) -> bytes:
    return struct.pack("<iiii", 16 + len(body) if length is None else length, request_id, 0, opcode) + body


def receive(sock: socket.socket) -> tuple[int, dict]:
    """One OP_MSG reply: responseTo and the body. EOF raises ConnectionError."""
    head = exactly(sock, 16)
    length, _, response_to, opcode = struct.unpack("<iiii", head)
    rest = exactly(sock, length - 16)
    assert opcode == OP_MSG, f"opcode {opcode} in a reply"
    return response_to, bson.decode(rest[5:])


def exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = sock.recv(count - len(data))
        if not chunk:
            raise ConnectionError(f"closed after {len(data)} of {count} bytes")
        data += chunk
    return data


def raw_collection(client: MongoClient, db: str, name: str):
    """A collection whose documents come back undecoded, so that a test can look at the bytes."""
    return client[db].get_collection(name, codec_options=bson.CodecOptions(document_class=RawBSONDocument))


def is_envelope(value) -> bool:
    """A value as fieldveil stores it: Binary subtype 0x80, version byte 1, and the 19-byte header."""
    return isinstance(value, bson.Binary) and value.subtype == 0x80 and len(value) >= 19 and value[0] == 1
