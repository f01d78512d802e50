"""Dashboards, rules and what wires them: checked as files, and against a real Prometheus."""
