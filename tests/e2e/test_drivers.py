"""The unmodified Rust, Go and Java drivers: one program each (tests/drivers), run against this module's proxy and against the
plaintext server. The program compares; this file builds it, and says NOT RUN where a toolchain is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import harness
import jvm
from harness import ADMIN, ROOT

DRIVERS = ROOT / "tests/drivers"
CACHE = ROOT / ".cache/drivers"
COLLECTIONS = {f"patients_{language}": harness.PATIENTS for language in ("rust", "go", "java")}

# A first build fetches and compiles.
pytestmark = pytest.mark.timeout(900)


def need(*tools: str) -> None:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"NOT RUN: {' and '.join(missing)} not installed (driver test)")


def build(*command: str | Path, cwd: Path, **environment: str) -> None:
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def rust(certs) -> list[str]:
    need("cargo")
    build("cargo", "build", "--locked", "--quiet", "--example", "rust-driver", cwd=ROOT)
    return [str(Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug/examples/rust-driver")]


def go(certs) -> list[str]:
    need("go")
    CACHE.mkdir(parents=True, exist_ok=True)
    build("go", "build", "-mod=readonly", "-o", CACHE / "go-driver", ".", cwd=DRIVERS / "go")
    return [str(CACHE / "go-driver")]


def java(certs) -> list[str]:
    jvm.need()
    jars = jvm.jars(DRIVERS / "java/pom.xml")
    return [*jvm.command(certs, f"{jars}/*"), str(DRIVERS / "java/Driver.java")]


@pytest.mark.parametrize("language", [rust, go, java], ids=lambda prepare: prepare.__name__)
def test_driver(language, certs, proxy, oracle_server, db_name, markers, capsys):
    command = language(certs)
    proxied, plain = proxy.uri(), oracle_server.uri(ADMIN, replica_set=True)
    if language is java:
        proxied, plain = map(jvm.uri, (proxied, plain))
    environment = {
        **os.environ,
        "FIELDVEIL_TEST_PROXY_URI": proxied,
        "FIELDVEIL_TEST_PLAIN_URI": plain,
        "FIELDVEIL_TEST_DB": db_name,
        "FIELDVEIL_TEST_MARKER": markers.prefix,
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    steps, failed = map(int, re.search(r"^(\d+) steps, (\d+) failed$", done.stdout, re.M).groups())
    with capsys.disabled():
        print(f"\n  {language.__name__} driver: {steps} steps, {failed} failed")
    # A program that ended early would also have failed nothing.
    assert steps >= 30 and not failed


@pytest.mark.no_proxy
def test_the_page_names_every_test_that_cannot_pass():
    """docs/APPLICATIONS.md against tests/suites/expected.toml, which scripts/driver-suites goes by."""
    page = (ROOT / "docs/APPLICATIONS.md").read_text()
    with (ROOT / "tests/suites/expected.toml").open("rb") as file:
        entries = tomllib.load(file)["difference"]
    for entry in entries:
        # The Python driver's are named by function, the Node driver's by the part of a title that tells.
        name = re.search(r"::(test_\w+)|\$currentOp|forbidden aggregation pipeline stage", entry["test"].replace("\\", "")).group().removeprefix("::")
        assert f"`{name}" in " ".join(page.split()), f"docs/APPLICATIONS.md does not name {name}"
