"""Which dashboard panels show a metric, and which alerts watch it, by the metric's short name."""

from __future__ import annotations

PANELS: dict[str, tuple[str, ...]] = {}
"""Panels as "dashboard / panel"."""

ALERTS: dict[str, tuple[str, ...]] = {}
