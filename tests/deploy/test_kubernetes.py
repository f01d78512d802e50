"""The manifests of Kubernetes: valid, consistent, and scaled by a query that has an answer."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

import flowstream
from flowstream.cli.app import app
from flowstream.metrics import CATALOGUE
from pipelines.sales import pipeline
from tests.deploy.files import AFTER_DRAIN, DEPLOY, compose, container, manifest, pod
from tests.grafana.prometheus import promtool

KUBERNETES = DEPLOY / "kubernetes"
BUILT_IN = ("deployment", "disruption-budget", "secret.example")
"""Kinds of Kubernetes itself. KEDA and the Prometheus operator bring those of the others."""
VERSIONS = ("1.28", "1.37")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", BUILT_IN)
def test_the_schemas_of_kubernetes_accept_it(name: str, version: str) -> None:
    schemas = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is not installed: make setup"
    )
    schemas.validate(manifest(name), version, strict=True)


def test_kustomize_puts_it_together() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(
        [kubectl, "kustomize", KUBERNETES], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    kinds = {each["kind"] for each in yaml.safe_load_all(done.stdout)}
    assert kinds == {"Deployment", "PodDisruptionBudget"}


def test_every_file_is_applied_or_says_how() -> None:
    applied = {*manifest("kustomization")["resources"], "kustomization.yaml"}
    text = (KUBERNETES / "kustomization.yaml").read_text()
    for file in KUBERNETES.iterdir():
        assert file.name in applied or file.name in text


def test_everything_selects_the_pods_of_the_deployment() -> None:
    deployment = manifest("deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"].items()
    spread = pod()["topologySpreadConstraints"][0]["labelSelector"]
    budget = manifest("disruption-budget")["spec"]["selector"]
    monitor = manifest("pod-monitor")["spec"]["selector"]
    for selector in (deployment["selector"], spread, budget, monitor):
        assert selector["matchLabels"].items() <= labels
    target = manifest("autoscaling")["spec"]["scaleTargetRef"]["name"]
    assert target == manifest("deployment")["metadata"]["name"]


def test_the_arguments_are_a_command_that_the_probes_can_reach() -> None:
    command, *arguments = container()["args"]
    context = get_command(app).get_command(None, command).make_context(command, arguments)  # type: ignore[attr-defined]
    host, port = context.params["http"]
    assert host == "0.0.0.0"
    assert container()["ports"] == [{"name": "http", "containerPort": port}]
    annotations = manifest("deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port)
    assert manifest("pod-monitor")["spec"]["podMetricsEndpoints"][0]["port"] == "http"


def test_a_pod_has_time_to_drain() -> None:
    grace = pod()["terminationGracePeriodSeconds"]
    assert grace > pipeline.options.drain_timeout + AFTER_DRAIN


def test_probes_are_patient_enough_for_what_the_program_does() -> None:
    """A broker that is away for minutes must not restart pods, so /readyz is no liveness probe."""
    liveness, startup = container()["livenessProbe"], container()["startupProbe"]
    assert liveness["httpGet"]["path"] == "/livez"
    assert container()["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert startup["httpGet"]["path"] == "/startupz"
    assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 60
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 120


def test_a_pod_may_do_nothing_but_its_work() -> None:
    assert pod()["securityContext"]["runAsNonRoot"]
    assert pod()["securityContext"]["runAsUser"] > 1000
    assert not pod()["automountServiceAccountToken"]
    context = container()["securityContext"]
    assert context == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_address_comes_from_the_secret() -> None:
    (variable,) = container()["env"]
    reference = variable["valueFrom"]["secretKeyRef"]
    secret = manifest("secret.example")
    assert reference == {"name": secret["metadata"]["name"], "key": "url"}
    assert "USER:PASSWORD" in secret["stringData"]["url"]
    assert "rabbitmq-stream" not in (KUBERNETES / "deployment.yaml").read_text()


def test_the_image_is_of_this_version() -> None:
    name, _, tag = container()["image"].partition(":")
    (image,) = manifest("kustomization")["images"]
    assert (image["name"], image["newTag"]) == (name, tag) == ("flowstream", flowstream.__version__)


# -- scaling -------------------------------------------------------------------------


def scaling() -> Any:
    return manifest("autoscaling")["spec"]


def query() -> str:
    (trigger,) = scaling()["triggers"]
    assert trigger["type"] == "prometheus"
    text: str = trigger["metadata"]["query"]
    return text


def test_there_are_never_more_workers_than_partitions() -> None:
    """The compose file creates the partitions; the manifest says that its number is the same."""
    command = compose()["services"]["partitions"]["command"]
    (partitions,) = (
        int(word.partition("=")[2]) for word in command if word.startswith("--partitions=")
    )
    assert scaling()["maxReplicaCount"] == partitions
    assert scaling()["minReplicaCount"] <= scaling()["fallback"]["replicas"] <= partitions


def test_the_query_asks_for_metrics_and_labels_that_exist() -> None:
    metrics = {f"flowstream_{metric.name}": metric for metric in CATALOGUE}
    (name,) = re.findall(r"flowstream_\w+", query())
    labels = {*re.findall(r"(\w+)=", query()), *re.findall(r"by \((\w+)\)", query())}
    assert labels <= {*metrics[name].labels}
    assert f'pipeline="{pipeline.name}"' in query()


def test_the_query_counts_the_lag_of_each_partition_once(tmp_path: Path) -> None:
    """All workers report all partitions, and a worker that has just left an old value."""
    series = {
        'flowstream_lag_messages{pipeline="sales",stream="sales-0",instance="a"}': "40000",
        'flowstream_lag_messages{pipeline="sales",stream="sales-0",instance="b"}': "39000",
        'flowstream_lag_messages{pipeline="sales",stream="sales-1",instance="a"}': "90000",
        'flowstream_lag_messages{pipeline="sales",stream="sales-1",instance="b"}': "90000",
        'flowstream_lag_messages{pipeline="other",stream="sales-1",instance="c"}': "500000",
    }
    test = {
        "interval": "15s",
        "input_series": [{"series": name, "values": value} for name, value in series.items()],
        "promql_expr_test": [
            {
                "expr": query(),
                "eval_time": "0s",
                "exp_samples": [{"labels": "{}", "value": 130_000}],
            }
        ],
    }
    file = tmp_path / "query.yml"
    file.write_text(yaml.safe_dump({"rule_files": [], "tests": [test]}))
    promtool("test", "rules", file)
    (trigger,) = scaling()["triggers"]
    assert -(-130_000 // float(trigger["metadata"]["threshold"])) == 3
