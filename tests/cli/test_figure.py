"""`mien figure` on the committed results."""

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from mien.cli import app
from mien.errors import DataError, MienError, OutputError

RESULTS = Path(__file__).parents[2] / "results/fer2013"
SMALL = sorted(RESULTS.glob("dlib_resnet/distilled-seed0/private_test-onnx*.json"))
BENCHMARK = max((Path(__file__).parents[2] / "benchmarks/runs").glob("*-inference.json"))


def figure(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["figure", *map(str, arguments)], catch_exceptions=False)


def words(path: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["confusion", SMALL[0]], "row-normalised, %"),
        (["confusion", SMALL[0], "--show", "counts"], "counts"),
        (["rates", *SMALL], "false positive rate, %"),
        (["reliability", *SMALL], "confidence, %"),
        (["risk-coverage", *SMALL], "risk: error rate of these, %"),
        (["curves", RESULTS / "sa_csp_ca"], "(selection split)"),
        (["cost", *SMALL, "--latency", BENCHMARK, "--twin-free"], "parameters, millions"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_each_kind_is_one_command(tmp_path: Path, arguments: list[object], word: str) -> None:
    done = figure(*arguments, "--out", tmp_path / "new/f.svg")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"wrote {tmp_path / 'new/f.svg'}\n"
    assert word in words(tmp_path / "new/f.svg")


def copy_run(folder: Path, lr: float, results: bool = True) -> None:
    """Copy a committed run, with another learning rate."""
    folder.mkdir()
    source = RESULTS / "stn_resnet50/small-seed0"
    recipe = (source / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(recipe.replace("  lr: 0.01\n", f"  lr: {lr}\n"))
    if results:
        for name in ("history.csv", "public_test.json"):
            shutil.copy(source / name, folder)


def test_a_sweep_finds_its_field_and_lists_what_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, lr in (("a", 0.01), ("b", 0.3)):
        copy_run(tmp_path / name, lr)
    assert figure("sweep", tmp_path, "--out", tmp_path / "f.svg").exit_code == 0
    assert {"optim.lr", "0.01", "0.3"} <= set(words(tmp_path / "f.svg"))
    copy_run(tmp_path / "c", 0.02, results=False)
    for arguments, reason in (
        (
            ["sweep", tmp_path, "--out", tmp_path / "f.svg", "--field", "optim.lr", "--split", "public_test"],
            "no public_test.json",
        ),
        (["curves", tmp_path, "--out", tmp_path / "f.png"], "no finished epoch"),
    ):
        with pytest.raises(SystemExit, match="3"):  # not by CliRunner, which mixes the two streams with click below 8.2
            app(["figure", *map(str, arguments)])
        assert f"left out: {tmp_path / 'c'} ({reason})" in capsys.readouterr().err


def test_networks_are_timed_here_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mien.report.cost.MEASURED_SECONDS", 0)
    assert figure("cost", RESULTS / "sa_csp_ca/votes-seed0/public_test.json", "--out", tmp_path / "f.svg").exit_code == 0
    assert any(word.startswith("(torch, float32, 1 thread, ") for word in words(tmp_path / "f.svg"))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["confusion", "missing.json", "--out", "f.pdf"], OutputError, r"must end in \.png or \.svg"),  # before it reads
        (["confusion", "missing.json", "--out", "f.png"], DataError, r"missing\.json"),
        (["confusion", *SMALL, "--out", "f.png"], DataError, "are not the folds of one run"),
        (["curves", ".", "--out", "f.png"], DataError, "has no run in it"),
    ],
)
def test_bad_input_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], error: type[MienError], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        figure(*arguments)
    assert not list(tmp_path.iterdir())


def test_an_edited_result_is_refused(tmp_path: Path) -> None:
    values = json.loads(SMALL[0].read_text())
    values["standard"]["accuracy"] = 0.99
    (tmp_path / "r.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match="edited"):
        figure("confusion", tmp_path / "r.json", "--out", tmp_path / "f.png")


def test_the_kinds_are_listed() -> None:
    done = figure("--help")
    assert all(kind in done.stdout for kind in ("confusion", "curves", "sweep", "rates", "cost"))
