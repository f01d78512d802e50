"""docker-compose.yml, as far as it can be checked without an engine: what it says fits together."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from flowstream.cli.app import app
from tests.grafana.queries import GRAFANA, ROOT

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def mounts(service: str) -> dict[str, str]:
    """Where what is mounted, by source."""
    return {
        source: target.partition(":")[0]
        for source, _, target in (mount.partition(":") for mount in SERVICES[service]["volumes"])
    }


def variables(service: str) -> dict[str, str]:
    return dict(SERVICES[service].get("environment", {}))


def test_everything_is_there() -> None:
    assert set(COMPOSE) == {"name", "services", "volumes"}
    assert set(SERVICES) == {"rabbitmq", "orders", "postgres", "prometheus", "grafana"}


def test_images_are_pinned() -> None:
    images = [service["image"] for service in SERVICES.values() if "image" in service]
    images += re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(images) == len(SERVICES)
    for image in images:
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+(\.\d+)?(-[a-z]+)?", image), image


def test_ports_are_on_the_loopback_and_none_is_taken_twice() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    taken = [re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port) for port in ports]
    assert all(taken), ports
    assert len({found[1] for found in taken if found}) == len(ports)


def test_volumes_are_declared_or_files_that_exist() -> None:
    used = set()
    for name in SERVICES:
        for source in mounts(name):
            if source.startswith("."):
                assert (ROOT / source).is_dir(), source
            else:
                used.add(source)
    assert used == set(COMPOSE["volumes"])


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_says_when_it_is_healthy(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    for other in SERVICES[name].get("depends_on", ()):
        assert other in SERVICES


def test_the_command_of_the_pipeline_is_one() -> None:
    """The words are taken by the command line as they stand, and name what the image has."""
    service = SERVICES["orders"]
    entry = re.findall(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.MULTILINE)
    assert [json.loads(each) for each in entry] == [["flowstream"]]
    command, *arguments = service["command"]
    context = get_command(app).get_command(None, command).make_context(command, arguments)  # type: ignore[attr-defined]
    assert context.params["targets"] == ["pipelines.orders"]
    assert context.params["create"]
    assert context.params["http"] == ("0.0.0.0", 9464)
    file, rate = context.params["feed"]
    assert (ROOT / file).is_file()
    assert rate > 0
    assert variables("orders")["FLOWSTREAM_URL"].endswith("@localhost:5552/%2f")


def test_the_pipeline_reaches_the_advertised_host() -> None:
    """The broker advertises localhost, so its clients share its network."""
    arguments = variables("rabbitmq")["RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"]
    assert 'advertised_host "localhost"' in arguments
    assert SERVICES["orders"]["network_mode"] == "service:rabbitmq"
    assert "ports" not in SERVICES["orders"]
    assert "127.0.0.1:9464:9464" in SERVICES["rabbitmq"]["ports"]


def test_prometheus_scrapes_the_pipeline_and_grafana_asks_prometheus() -> None:
    assert mounts("prometheus")["./grafana/prometheus"] == "/etc/prometheus"
    assert "--config.file=/etc/prometheus/prometheus.yml" in SERVICES["prometheus"]["command"]
    scraped = yaml.safe_load((GRAFANA / "prometheus/prometheus.yml").read_text())
    assert (GRAFANA / "prometheus" / scraped["rule_files"][0]).is_file()
    assert scraped["scrape_configs"][0]["static_configs"] == [{"targets": ["rabbitmq:9464"]}]
    source = yaml.safe_load((GRAFANA / "provisioning/datasources/flowstream.yml").read_text())
    assert source["datasources"][0]["url"] == "http://prometheus:9090"


def test_grafana_finds_its_dashboards() -> None:
    place = mounts("grafana")
    assert place["./grafana/provisioning"] == "/etc/grafana/provisioning"
    provider = yaml.safe_load((GRAFANA / "provisioning/dashboards/flowstream.yml").read_text())
    folder = provider["providers"][0]["options"]["path"]
    assert place["./grafana/dashboards"] == folder
    home = Path(variables("grafana")["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == folder
    assert (GRAFANA / "dashboards" / home.name).is_file()


def test_the_image_has_what_it_copies_and_nothing_else() -> None:
    copied = {
        source
        for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    }
    allowed = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert copied == allowed
    for source in copied:
        assert (ROOT / source).exists()


def test_a_stop_leaves_the_drain_its_time() -> None:
    from pipelines.orders import pipeline

    grace = SERVICES["orders"]["stop_grace_period"]
    assert float(grace.removesuffix("s")) > pipeline.options.drain_timeout
