"""Options from the settings are put over those of a declaration."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowstream import IterableProducer, Pipeline, RateLimit
from flowstream.cli.configuration import overrides
from flowstream.cli.configuration.models import pipeline_overrides
from flowstream.cli.configuration.settings import load
from flowstream.errors import ConfigurationError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with an empty environment."""
    import os

    for name in list(os.environ):
        if name.upper().startswith("FLOWSTREAM_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pyproject(folder: Path, text: str) -> None:
    (folder / "pyproject.toml").write_text(text)


def declared(size: int = 10) -> Pipeline:
    pipeline = Pipeline("orders", IterableProducer([]), max_in_flight=100)
    pipeline.batcher(size=size)(lambda batch: None)
    return pipeline


def overriding(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    pyproject(folder, f"[tool.flowstream.pipelines.orders]\n{text}\n")
    loaded = load(folder)
    monkeypatch.setattr(overrides, "settings", lambda: loaded)


def test_options_are_put_over_the_declaration(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overriding(folder, monkeypatch, "max_in_flight = 20\nrate_limit = 5\nrate_limit_bytes = 1000")
    pipeline = declared()
    origins = overrides.override(pipeline)
    assert pipeline.options.max_in_flight == 20
    assert pipeline.options.rate_limit == RateLimit(5.0, bytes=1000.0)
    assert pipeline.options.drain_timeout == 25.0
    assert sorted(origins) == ["max_in_flight", "rate_limit", "rate_limit_bytes"]


def test_options_that_do_not_fit_the_declaration_name_their_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overriding(folder, monkeypatch, "max_in_flight = 5")
    with pytest.raises(ConfigurationError, match="can never fill") as caught:
        overrides.override(declared(size=10))
    assert "[tool.flowstream.pipelines.orders] max_in_flight" in str(caught.value)
    with pytest.raises(ConfigurationError, match="rate_limit=1e-09: expected a number") as caught:
        overriding(folder, monkeypatch, "rate_limit = 1e-9")
    assert "[tool.flowstream.pipelines.orders] rate_limit" in str(caught.value)


def test_overrides_are_options_of_a_pipeline() -> None:
    options = {*declared().options.__dataclass_fields__}
    assert {*pipeline_overrides().model_fields} - options == {"rate_limit_bytes"}
