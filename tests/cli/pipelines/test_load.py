"""Which pipelines a module has, and what is said where a path is given instead: it leads there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.pipelines.load import imported_by, load_module, load_pipelines
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
        ("jobs/my-job.py", "rename the file: a module's name has only letters, digits and _"),
        ("gone.py", "such as pipelines.orders; there is no file with this name"),
        ("/", "rename the file: a module's name has only letters, digits and _"),
        ("", "a module is expected, such as pipelines.orders"),
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


# -- the pipelines of a module

DECLARE = """
from flowstream import Message, Pipeline, StreamProducer

def declare(name):
    pipeline = Pipeline(name, StreamProducer(name))

    @pipeline.processor
    async def handle(message: Message[dict]) -> None: ...

    return pipeline
"""
FILES = {
    "made": DECLARE,
    "several": DECLARE + "a, b = declare('first'), declare('second')\nalso = a\n",
    "listed": DECLARE
    + "eu = declare('eu')\nall = [eu, declare('us')]\nmore = {'x': (declare('asia'),)}\n"
    + "pair = declare('up'), 7\nnamed = {'x': declare('down')}\n",
    "factory": "from made import declare\none, two = declare('one'), declare('two')\n",
    "importing": DECLARE + "from several import a as theirs\nmine = declare('mine')\n",
    "gathering/__init__": "from several import a, b\nfrom importing import mine\n",
    "twice": DECLARE + "a, b = declare('same'), declare('same')\n",
    "clashing": DECLARE + "a = declare('x')\nmore = [declare('a')]\n",
    "wrong": "from wrong_options import declare\npipeline = declare()\n",
    "wrong_options": "from flowstream import StreamProducer\n\n\n"
    "def declare():\n    return StreamProducer('orders', credits=5)\n",
}


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield
    for name in {file.partition("/")[0] for file in FILES} & {*sys.modules}:
        del sys.modules[name]


def loaded(*targets: str) -> dict[str, str]:
    return {target: pipeline.name for target, pipeline in load_pipelines([*targets]).items()}


@pytest.mark.parametrize(
    ("targets", "found"),
    [
        (["several"], {"several:a": "first", "several:b": "second"}),
        (["several:b"], {"several:b": "second"}),
        (["several:second"], {"several:second": "second"}),
        (["several", "several:a"], {"several:a": "first", "several:b": "second"}),
        (
            ["listed"],
            {"listed:eu": "eu", "listed:us": "us", "listed:up": "up", "listed:down": "down"},
        ),
        (["listed:all"], {"listed:eu": "eu", "listed:us": "us"}),
        (["factory"], {"factory:one": "one", "factory:two": "two"}),
        (["importing"], {"importing": "mine"}),
        (["importing:theirs"], {"importing:theirs": "first"}),
        (["importing", "several"],
         {"importing": "mine", "several:a": "first", "several:b": "second"}),
        (["gathering"],
         {"gathering:a": "first", "gathering:b": "second", "gathering:mine": "mine"}),
        (["gathering", "several"],
         {"gathering:a": "first", "gathering:b": "second", "gathering:mine": "mine"}),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("modules")
def test_every_pipeline_that_a_module_declares(targets: list[str], found: dict[str, str]) -> None:
    assert loaded(*targets) == found


@pytest.mark.usefixtures("modules")
def test_what_is_imported_beside_is_named() -> None:
    assert [
        (target, it.name, it.declaration.module) for target, it in imported_by(["importing"])
    ] == [("importing", "first", "several")]
    assert not [*imported_by(["gathering", "several", "importing:mine"])]


@pytest.mark.parametrize(
    ("targets", "code", "says"),
    [
        (["several", "several"], ExitCode.USAGE, "several is given twice"),
        (["twice"], ExitCode.DUPLICATE_NAME, "twice:a and twice:b are both named 'same'"),
        (["clashing"], ExitCode.DUPLICATE_NAME, "clashing:a is ambiguous"),
        (["made"], ExitCode.NO_PIPELINE, "made declares no pipeline"),
        (["several:c"], ExitCode.NO_PIPELINE, "several has no pipeline 'c'; it has a, b"),
        (["made.declare"], ExitCode.MODULE_MISSING,
         "made is a module and no package; for a pipeline in it, write made:declare"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("modules")
def test_what_cannot_be_run(targets: list[str], code: ExitCode, says: str) -> None:
    with pytest.raises(CommandError) as caught:
        load_pipelines(targets)
    assert (caught.value.exit_code, str(caught.value)[: len(says)]) == (code, says)


@pytest.mark.parametrize("command", ["check", "run", "graph"])
@pytest.mark.usefixtures("modules")
def test_a_wrong_option_is_named_with_its_file_and_line(command: str, tmp_path: Path) -> None:
    result = flowstream(command, "wrong", cwd=tmp_path)
    assert "StreamProducer > credits=5: there is no such option" in result.err + result.out
    assert "(wrong_options.py, line 5)" in result.err + result.out
    assert result.code == (ExitCode.CHECK_FAILED if command == "check" else ExitCode.DECLARATION)


@pytest.mark.usefixtures("modules")
def test_commands_take_all_of_them(tmp_path: Path) -> None:
    checked = flowstream("check", "several", "--json", cwd=tmp_path)
    assert {row["about"] for row in checked.json} == {"first", "second"}
    drawn = flowstream("graph", "several", "several:a", cwd=tmp_path)
    assert [line for line in drawn.out.splitlines() if line[0] != " "] == [
        "first", "└─ StreamProducer: stream first from first, offsets as first",
        "second", "└─ StreamProducer: stream second from first, offsets as second",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "mistake",
    ['pipeline.processor("validate")', "Pipeline()", "json.loads('{')", "Retry(attemps=3)"],
)
def test_the_line_of_a_mistake_is_the_one_of_the_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: str
) -> None:
    """And not one of flowstream, or of a library that the module calls."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    name = f"mistaken_{abs(hash(mistake))}"
    Path(f"{name}.py").write_text(
        "import json\nfrom flowstream import Pipeline, Retry, StreamProducer\n"
        f'pipeline = Pipeline("p", StreamProducer("s"))\n{mistake}\n'
    )
    with pytest.raises(CommandError, match=rf"cannot be imported: .* \({name}\.py, line 4\)$"):
        load_module(name)
