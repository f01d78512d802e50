"""What the files of deploy/ say: units, manifests and services, read without their tools."""

from __future__ import annotations

import shlex
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
UNITS = ("flowstream.service", "flowstream@.service")
INSTANCE = "3"
"""What `%i` stands for in the template."""

AFTER_DRAIN = 20.0
"""Seconds that a stop may take after the drain: the commit, lifespans, producers, connections."""


def unit(name: str) -> dict[str, dict[str, list[str]]]:
    """A unit of systemd: section -> key -> its values, in order."""
    sections: dict[str, dict[str, list[str]]] = {}
    keys: defaultdict[str, list[str]] = defaultdict(list)
    for line in (DEPLOY / "systemd" / name).read_text().splitlines():
        if line.startswith("["):
            keys = sections[line.strip("[]")] = defaultdict(list)
        elif line and not line.startswith(("#", ";")):
            key, _, value = line.partition("=")
            keys[key].append(value)
    return sections


def service(name: str) -> dict[str, str]:
    """The last value of each key in the section [Service]."""
    return {key: values[-1] for key, values in unit(name)["Service"].items()}


def exec_start(name: str) -> list[str]:
    """The words of ExecStart, for instance INSTANCE of a template."""
    return shlex.split(service(name)["ExecStart"].replace("%i", INSTANCE))


def variables(file: Path) -> dict[str, str]:
    """The variables of an EnvironmentFile."""
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def manifest(name: str) -> Any:
    """A manifest of Kubernetes."""
    return yaml.safe_load((DEPLOY / "kubernetes" / f"{name}.yaml").read_text())


def pod() -> Any:
    """The specification of the pods of the Deployment."""
    return manifest("deployment")["spec"]["template"]["spec"]


def container() -> Any:
    (found,) = pod()["containers"]
    return found


def compose() -> Any:
    """The compose file with workers."""
    return yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())


def seconds(text: str) -> float:
    """A time as compose and systemd write it: 60 or 60s."""
    return float(text.removesuffix("s"))
