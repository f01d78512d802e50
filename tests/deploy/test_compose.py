"""The compose file with workers, as far as it can be checked without an engine."""

from __future__ import annotations

import re

import yaml
from typer.main import get_command

from flowstream.cli.app import app
from pipelines.sales import pipeline
from tests.deploy.files import AFTER_DRAIN, DEPLOY, ROOT, compose, seconds

SERVICES = compose()["services"]


def test_the_worker_can_be_scaled() -> None:
    """Nothing that only one of them can have: a name, a port of the host, a network of another."""
    worker = SERVICES["worker"]
    assert not {"container_name", "ports", "network_mode", "hostname", "volumes"} & worker.keys()
    assert "--scale worker=4" in (DEPLOY / "compose" / "compose.yaml").read_text()


def test_the_worker_runs_the_pipeline_and_shows_it() -> None:
    command, *arguments = SERVICES["worker"]["command"]
    context = get_command(app).get_command(None, command).make_context(command, arguments)  # type: ignore[attr-defined]
    assert context.params["targets"] == ["pipelines.sales"]
    assert context.params["http"] == ("0.0.0.0", 9464)
    assert SERVICES["worker"]["expose"] == ["9464"]


def test_everything_waits_for_what_it_needs() -> None:
    assert SERVICES["partitions"]["depends_on"] == {"rabbitmq": {"condition": "service_healthy"}}
    needed = {"partitions": {"condition": "service_completed_successfully"}}
    assert SERVICES["worker"]["depends_on"] == needed
    assert SERVICES["rabbitmq"]["healthcheck"]["test"][0] == "CMD"


def test_the_worker_reaches_the_host_that_the_broker_advertises() -> None:
    host = SERVICES["rabbitmq"]["hostname"]
    assert host in SERVICES
    arguments = SERVICES["rabbitmq"]["environment"]["RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"]
    assert f'advertised_host "{host}"' in arguments
    url = SERVICES["worker"]["environment"]["FLOWSTREAM_URL"]
    assert url.endswith(f"@{host}:5552/%2f")


def test_a_stop_leaves_the_drain_its_time() -> None:
    grace = seconds(SERVICES["worker"]["stop_grace_period"])
    assert grace > pipeline.options.drain_timeout + AFTER_DRAIN


def test_prometheus_finds_every_worker() -> None:
    (scraped,) = yaml.safe_load(compose()["configs"]["prometheus"]["content"])["scrape_configs"]
    (found,) = scraped["dns_sd_configs"]
    assert found == {"names": ["worker"], "type": "A", "port": 9464}


def test_images_are_pinned_and_those_of_the_other_compose_file() -> None:
    others = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for name in ("rabbitmq", "prometheus"):
        assert SERVICES[name]["image"] == others[name]["image"]
        assert re.search(r":v?\d+\.\d+\.\d+", SERVICES[name]["image"])
    assert (DEPLOY / "compose" / SERVICES["worker"]["build"]).resolve() == ROOT
