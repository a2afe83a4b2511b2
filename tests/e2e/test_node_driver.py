"""The unmodified Node driver: runs tests/node against this module's proxy and against the plaintext server."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

import harness
from harness import ADMIN, ROOT, metric

NODE = ROOT / "tests/node"
COLLECTIONS = {f"patients_{file}": harness.PATIENTS for file in ("crud", "cursors", "transactions")}


@pytest.fixture(scope="module")
def installed():
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("NOT RUN: node and npm are not installed (Node 20 or later)")
    stamp, lock = NODE / "node_modules/.package-lock.json", NODE / "package-lock.json"
    if not stamp.exists() or stamp.stat().st_mtime < lock.stat().st_mtime:
        done = subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=NODE, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"npm ci failed: {done.stderr[-2000:]}"
        stamp.touch()


# Node has zlib itself; its snappy and zstd are packages of their own, whose work the Python driver shows as well.
@pytest.mark.parametrize("compressor", ["", "zlib"])
@pytest.mark.parametrize("file", ["crud", "cursors", "transactions"])
def test_node_driver(installed, proxy, oracle_server, db_name, markers, capsys, file, compressor):
    before = metric(proxy, "fieldveil_compressed_messages_total")
    environment = {
        **os.environ,
        "FIELDVEIL_TEST_PROXY_URI": proxy.uri(options=f"&compressors={compressor}" if compressor else ""),
        "FIELDVEIL_TEST_PLAIN_URI": oracle_server.uri(ADMIN, replica_set=True),
        "FIELDVEIL_TEST_DB": db_name,
        "FIELDVEIL_TEST_MARKER": markers.prefix,
    }
    done = subprocess.run(["node", "--test", f"{file}.test.mjs"], cwd=NODE, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    closing = [line.removeprefix("# ").removeprefix("ℹ ") for line in done.stdout.splitlines() if line[2:].split(" ")[0] in ("pass", "fail", "skipped")]
    with capsys.disabled():
        print(f"\n  node --test {file}.test.mjs: {', '.join(closing)}")
    assert "skipped 0" in closing
    assert (metric(proxy, "fieldveil_compressed_messages_total") > before + 20) == bool(compressor)
