"""The deployment files cannot be run in a test, but what they name can be held against what there is: files, flags,
metrics, fields of the sample."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
NAMES = ROOT / "src/metrics/names.rs"


def binary() -> str:
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    if given := os.environ.get("FIELDVEIL_BIN"):
        return given
    # As the end-to-end tests choose: the newer one.
    built = [p for p in (target / "release/fieldveil", target / "debug/fieldveil") if p.exists()]
    if not built:
        pytest.skip("NOT RUN: no fieldveil binary; run cargo build or set FIELDVEIL_BIN")
    return str(max(built, key=lambda p: p.stat().st_mtime))


def bind_mounts():
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source, target, *_ = volume.split(":")
            if source.startswith("."):
                yield pytest.param(source, target, id=f"{name}: {source}")


def command_lines() -> dict[str, list[str]]:
    """Every place that calls the binary, as a list of its arguments."""
    unit = re.search(r"^ExecStart=/usr/local/bin/fieldveil (.*)$", (DEPLOY / "fieldveil.service").read_text(), re.M).group(1)
    image = re.search(r"^CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), re.M).group(1)
    return {"docker-compose.yml": SERVICES["fieldveil"]["command"], "Dockerfile": json.loads(image), "fieldveil.service": unit.split()}


def expressions():
    for group in yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield pytest.param(rule["expr"], id=f"alert {rule['alert']}")
    for panel in json.loads((DEPLOY / "grafana/dashboards/fieldveil.json").read_text())["panels"]:
        for target in panel.get("targets", []):
            yield pytest.param(target["expr"], id=f"panel {panel['title']} {target['refId']}")


def test_every_service_has_its_networks_and_volumes():
    for name, service in SERVICES.items():
        assert set(service["networks"]) <= set(COMPOSE["networks"]), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source.startswith(".") or source in COMPOSE["volumes"], f"{name}: {source}"
        for other in service.get("depends_on", {}):
            assert other in SERVICES


@pytest.mark.parametrize("source, target", list(bind_mounts()))
def test_mounted_path_exists(source, target):
    if source == "./certs":
        # Filled by `fieldveil init`; the directory itself is in the repository.
        assert (ROOT / "certs").is_dir()
    else:
        assert (ROOT / source).exists()


def test_only_the_proxy_reaches_the_database():
    assert COMPOSE["networks"]["data"]["internal"] is True
    assert "ports" not in SERVICES["mongo"]
    assert {name for name, s in SERVICES.items() if "data" in s["networks"]} == {"mongo", "fieldveil"}


def test_ports_are_published_on_this_machine_only():
    published = [p for s in SERVICES.values() for p in s.get("ports", [])]
    assert published and all(p.startswith("127.0.0.1:") for p in published)


def test_proxy_runs_without_privileges():
    service = SERVICES["fieldveil"]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert "nonroot" in re.findall(r"^FROM (.*)$", (DEPLOY / "Dockerfile").read_text(), re.M)[-1]


def test_image_copies_what_exists_and_is_not_ignored():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in re.findall(r"^COPY (?!--from)(.*)$", (DEPLOY / "Dockerfile").read_text(), re.M):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert source in kept, f"{source} is kept out of the build by .dockerignore"


@pytest.mark.parametrize("where", command_lines())
def test_flags_are_real(where):
    subcommand, *arguments = command_lines()[where]
    help_text = subprocess.run([binary(), subcommand, "--help"], capture_output=True, text=True, timeout=30, check=True).stdout
    for flag in (a for a in arguments if a.startswith("--")):
        assert re.search(rf"(^|\s){re.escape(flag)}\b", help_text), f"{subcommand} has no {flag}"


def test_compose_configuration_has_the_samples_field_map():
    sample, compose = (tomllib.loads((ROOT / p).read_text()) for p in ("config/fieldveil.toml", "deploy/fieldveil.compose.toml"))
    assert compose["collection"] == sample["collection"]


@pytest.mark.parametrize("expression", list(expressions()))
def test_metric_exists(expression):
    text = NAMES.read_text()
    wanted = set(re.findall(r"\b(?:fieldveil|process)_[a-z_]+\b", expression))
    assert wanted or "up{" in expression
    for name in wanted:
        plain = re.sub(r"_(bucket|sum|count)$", "", name)
        assert f'"{plain}"' in text or f'"{name}"' in text, f"no metric {name}"


@pytest.mark.parametrize("expression", list(expressions()))
def test_labels_exist(expression):
    """Labels that a query selects or groups by belong to one of its metrics, or are the scrape's own."""
    text = NAMES.read_text()
    known = {"instance", "job", "le"}
    for name in re.findall(r"\b(?:fieldveil|process)_[a-z_]+\b", expression):
        plain = re.sub(r"_(bucket|sum|count)$", "", name)
        if found := re.search(rf'"{plain}",\s*\w+(?:\(\w+\))?,\s*&\[([^\]]*)\]', text):
            known |= set(re.findall(r'"(\w+)"', found.group(1)))
    used = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
    used |= set(re.findall(r"[{,]\s*(\w+)\s*(?:=|!=|=~|!~)", expression))
    assert used <= known, f"{used - known} are labels of none of its metrics"


def test_dashboards_and_rules_are_where_their_configuration_says():
    prometheus = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    assert all((DEPLOY / rule).exists() for rule in prometheus["rule_files"])
    (target,) = prometheus["scrape_configs"][0]["static_configs"][0]["targets"]
    host, port = target.split(":")
    assert host in SERVICES
    assert tomllib.loads((DEPLOY / "fieldveil.compose.toml").read_text())["admin"]["address"].endswith(":" + port)
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/fieldveil.yml").read_text())["providers"][0]
    assert any(v.split(":")[1] == provider["options"]["path"] for v in SERVICES["grafana"]["volumes"] if ":" in v)


@pytest.mark.parametrize("line", [l for l in (DEPLOY / "fieldveil.service").read_text().splitlines() if l and not l.startswith(("#", "["))])
def test_unit_lines_are_settings(line):
    assert re.match(r"^[A-Z][A-Za-z]+=", line)
