"""What runs the proxy elsewhere: Kubernetes' own schemas, systemd's and HAProxy's own checkers, and what the files say
held against each other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from test_compose import binary

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
OBJECTS = list(yaml.safe_load_all((DEPLOY / "kubernetes/fieldveil.yaml").read_text()))
KUBERNETES = ["1.30", "1.33", "1.36"]


def the(kind: str, name: str = "fieldveil") -> dict:
    (found,) = [o for o in OBJECTS if o["kind"] == kind and o["metadata"]["name"] == name]
    return found


CONFIG = tomllib.loads(the("ConfigMap")["data"]["fieldveil.toml"])
POD = the("StatefulSet")["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]
UNIT = (DEPLOY / "fieldveil.service").read_text()


def tool(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        pytest.skip(f"NOT RUN: no {name}; scripts/install-deps installs it")
    return found


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("thing", OBJECTS, ids=lambda o: f"{o['kind']} {o['metadata']['name']}")
def test_manifest_has_kubernetes_own_form(thing, version):
    kubernetes_validate.validate(thing, version, strict=True)


def test_a_mistake_in_a_manifest_would_be_found():
    broken = {**the("Service"), "spec": {**the("Service")["spec"], "prots": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES[0], strict=True)


def test_all_are_in_one_namespace_and_select_the_pods():
    labels = POD["metadata"]["labels"].items()
    for thing in OBJECTS:
        assert thing["metadata"]["namespace"] == "fieldveil"
    for kind, where in [("Service", "selector"), ("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector"), ("StatefulSet", "selector")]:
        selector = the(kind)["spec"][where]
        assert selector.get("matchLabels", selector).items() <= labels, kind
    target = the("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert the(target["kind"], target["name"])["apiVersion"] == target["apiVersion"]
    assert the("Service", the("StatefulSet")["spec"]["serviceName"])["spec"]["clusterIP"] == "None"


def test_ports_and_probes_are_the_configurations():
    ports = {p["name"]: p["containerPort"] for p in CONTAINER["ports"]}
    assert CONFIG["listen"][0]["address"].endswith(f":{ports['mongodb']}")
    assert CONFIG["admin"]["address"].endswith(f":{ports['admin']}")
    service = the("Service")
    (port,) = service["spec"]["ports"]
    assert CONFIG["listen"][0]["advertise"] == f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc:{port['port']}"
    assert CONTAINER["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "admin"}
    assert CONTAINER["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "admin"}
    routes = (ROOT / "src/admin/routes.rs").read_text()
    assert '"/readyz"' in routes and '"/livez"' in routes


def test_a_pod_has_the_time_to_drain():
    pause = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    # Closing the audit log may take five seconds more.
    assert POD["spec"]["terminationGracePeriodSeconds"] >= pause + CONFIG["proxy"]["drain_seconds"] + 5
    # By then the Service knows: a probe fails at once.
    assert CONTAINER["readinessProbe"]["periodSeconds"] * CONTAINER["readinessProbe"]["failureThreshold"] < pause + 1


def test_files_variables_and_metrics_exist():
    mounts = [m["mountPath"] for m in CONTAINER["volumeMounts"]]
    volumes = {v["name"] for v in POD["spec"]["volumes"]} | {v["metadata"]["name"] for v in the("StatefulSet")["spec"]["volumeClaimTemplates"]}
    assert {m["name"] for m in CONTAINER["volumeMounts"]} == volumes
    for path in (CONFIG["tls"]["certificate"], CONFIG["tls"]["private_key"], CONFIG["audit"]["path"], CONTAINER["args"][2]):
        assert any(path.startswith(mount + "/") for mount in mounts), path
    names = {e["name"] for e in CONTAINER["env"]}
    assert names == {CONFIG["upstream"]["uri_env"], CONFIG["keys"]["master"]["variable"]}
    (metric,) = the("HorizontalPodAutoscaler")["spec"]["metrics"]
    assert f'"{metric["pods"]["metric"]["name"]}"' in (ROOT / "src/metrics/names.rs").read_text()


def test_pod_runs_without_privileges():
    assert POD["spec"]["securityContext"]["runAsNonRoot"] is True
    assert CONTAINER["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert POD["spec"]["automountServiceAccountToken"] is False


def test_proxy_takes_the_configuration(tmp_path):
    """Exit code 2 would mean a mistake in it; that nothing answers is expected here."""
    file = tmp_path / "fieldveil.toml"
    file.write_text(the("ConfigMap")["data"]["fieldveil.toml"])
    env = {**os.environ, "MONGODB_URI": "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200", "FIELDVEIL_MASTER_KEY": "00" * 32}
    done = subprocess.run([binary(), "check", "--config", str(file)], capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 1, done.stdout + done.stderr
    file.write_text(file.read_text().replace("[keys]", "[kyes]"))
    assert subprocess.run([binary(), "check", "--config", str(file)], capture_output=True, env=env, timeout=60).returncode == 2


def unit_with_a_binary(tmp_path: Path) -> Path:
    unit = tmp_path / "fieldveil.service"
    unit.write_text(UNIT.replace("/usr/local/bin/fieldveil", "/bin/true"))
    return unit


def test_systemd_takes_the_unit(tmp_path):
    done = subprocess.run([tool("systemd-analyze"), "verify", "--man=no", str(unit_with_a_binary(tmp_path))], capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if "fieldveil.service" in line]
    assert done.returncode == 0 and not complaints, done.stderr


def test_unit_is_as_closed_as_systemd_can_tell(tmp_path):
    """Exposure from 0 to 10 by systemd's own reckoning."""
    done = subprocess.run([tool("systemd-analyze"), "security", "--offline=true", "--no-pager", str(unit_with_a_binary(tmp_path))],
                          capture_output=True, text=True)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found and float(found.group(1)) <= 2.0, done.stdout[-400:] + done.stderr


def test_unit_leaves_time_to_drain():
    sample = tomllib.loads((ROOT / "config/fieldveil.toml").read_text())
    drain = sample.get("proxy", {}).get("drain_seconds", 25)
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", UNIT, re.M).group(1)) >= drain + 5


def test_haproxy_takes_its_configuration(tmp_path):
    done = subprocess.run([tool("haproxy"), "-c", "-f", str(DEPLOY / "haproxy.cfg")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
