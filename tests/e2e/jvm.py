"""What a test in Java needs: the jars of a pom, compiled classes, and a trust store, kept in .cache."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness import ROOT

CACHE = ROOT / ".cache/jvm"
# What the plugin is called is pinned too: Maven would otherwise take the newest.
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


def need(*tools: str) -> None:
    """Skips the test, loudly, without a JVM, Maven and these."""
    missing = [tool for tool in ("java", "keytool", "mvn", *tools) if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"NOT RUN: {' and '.join(missing)} not installed (Java test)")


def run(*command: str | Path) -> None:
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def jars(pom: Path) -> Path:
    """A folder with the jars of this pom and no others: those of an older one would be on the path as well."""
    home = CACHE / f"{pom.parent.name}-{hashlib.sha256(pom.read_bytes()).hexdigest()[:12]}"
    if not (home / ".complete").exists():
        shutil.rmtree(home, ignore_errors=True)
        run("mvn", "-q", "-B", "-f", pom, COPY, f"-DoutputDirectory={home}")
        (home / ".complete").touch()
    return home


def compile(source: Path, jars: Path) -> Path:
    """A folder with the classes of one source file."""
    classes = jars.with_name(f"{jars.name}-classes")
    shutil.rmtree(classes, ignore_errors=True)
    # Frameworks that map by reflection find parameters by their names.
    run("javac", "-parameters", "-d", classes, "-cp", f"{jars}/*", source)
    return classes


def command(certs, classpath: str) -> list[str]:
    """`java` with a class path, trusting the tests' authority: this driver takes authorities from the JVM and knows no tlsCAFile."""
    trust = certs.directory / "trust.p12"
    if not trust.exists():
        run("keytool", "-importcert", "-noprompt", "-alias", "ca", "-file", certs.ca, "-keystore", trust, "-storetype", "PKCS12", "-storepass", "changeit")
    return ["java", f"-Djavax.net.ssl.trustStore={trust}", "-Djavax.net.ssl.trustStorePassword=changeit", "-XX:TieredStopAtLevel=1", "-cp", classpath]


def uri(text: str) -> str:
    """A connection string without the option that this driver does not know."""
    return re.sub(r"&?tlsCAFile=[^&]*", "", text)
