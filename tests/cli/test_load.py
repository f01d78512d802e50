"""What is said where a path is given instead of a module: it leads there."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowstream.cli.exits import CommandError, ExitCode
from flowstream.cli.load import load_module
from tests.cli.command import flowstream


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("shop.py", "write shop"),
        ("./shop.py", "write shop"),
        ("jobs/orders.py", "write jobs.orders"),
        ("jobs/orders", "write jobs.orders"),
        ("jobs/", "write jobs"),
        ("jobs/__init__.py", "write jobs"),
        ("../here/shop.py", "write shop"),
        ("{here}/jobs/orders.py", "write jobs.orders"),
        ("../other/audit.py", "run in {top}/other and write audit"),
        ("{top}/other/audit.py", "run in {top}/other and write audit"),
        ("jobs/my-job.py", "rename it: a module's name has letters, digits and _ only"),
        ("gone.py", "such as pipelines.orders; there is no file of that name"),
        ("/", "rename it: a module's name has letters, digits and _ only"),
        ("", "a module is wanted, such as pipelines.orders"),
    ],
)
def test_a_path_leads_to_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, says: str
) -> None:
    here = tmp_path / "here"
    for file in ("shop.py", "jobs/__init__.py", "jobs/orders.py", "jobs/my-job.py"):
        (here / file).parent.mkdir(parents=True, exist_ok=True)
        (here / file).touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "audit.py").touch()
    monkeypatch.chdir(here)
    with pytest.raises(CommandError) as caught:
        load_module(name.format(here=here, top=tmp_path))
    assert str(caught.value).endswith(says.format(top=tmp_path))
    assert caught.value.exit_code is ExitCode.MODULE_MISSING


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e300"])
@pytest.mark.parametrize(
    "line",
    ["run shop --until-idle={}", "publish orders x.ndjson --rate {}", "lag s --fail-above={}",
     "bench --seconds {}", "offsets reset a s --to first --watch {}", "top --interval {}"],
)  # fmt: skip
def test_numbers_of_options_are_finite(line: str, value: str) -> None:
    result = flowstream(*line.format(value).split())
    assert result.code == 2, result.err
    assert "Invalid value for" in result.err
