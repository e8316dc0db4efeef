"""`mien evaluate` by group: a manifest, a table next to the data, photos."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mien.cli import app
from mien.errors import MienError
from mien.results import read_results

ASTRONAUT = Path(__file__).parents[2] / "docs/assets/astronaut.jpg"


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def refused(*arguments: object) -> str:
    with pytest.raises(MienError) as caught:
        CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    return str(caught.value)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Twenty-four random faces, of two sites and of twenty-four ages, one unknown."""
    random, lines = np.random.default_rng(0), ["path,label,site,[age]"]
    for i in range(24):
        Image.fromarray(random.integers(0, 256, (48, 48)).astype(np.uint8)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{('happy', 'sad')[i % 2]},{'' if i == 0 else ('Bonn', 'Kyoto')[i % 3 == 0]},{20 + i}")
    (tmp_path / "faces.csv").write_text("\n".join(lines))
    return tmp_path / "faces.csv"


def test_a_column_of_a_manifest_and_of_a_table(
    tmp_path: Path, tiny_onnx: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch
):
    out, measure = tmp_path / "r.json", ("evaluate", tiny_onnx, "--data", manifest, "--corpus", "manifest")
    shown = run(*measure, "--option", "size=48", "--group-by", "site", "--group-by", "[age]", "--out", out)
    results = read_results(out)
    assert results["groups"]["site"]["groups"].keys() == {"Bonn", "Kyoto"}
    assert sum(group["images"] for group in results["groups"]["site"]["groups"].values()) == 23
    assert results["groups"]["site"]["missing"] == 1
    assert results["detection"] is None
    for words in ("largest gap by site", "recall by [age]", "site is unknown of 1 images", "too small to be compared"):
        assert words in shown
    table = tmp_path / "sites.csv"
    table.write_text("row,site\n" + "\n".join(f"{i},{'Bonn' if i < 12 else 'Kyoto'}" for i in range(24)))
    run(*measure, "--option", "size=48", "--group-by", "site", "--groups", table, "--out", out)
    assert [group["images"] for group in read_results(out)["groups"]["site"]["groups"].values()] == [12, 12]
    assert "holds" in run("verify", out, "--data", manifest)
    assert "has no column 'sit'; did you mean 'site'" in refused(*measure, "--group-by", "sit", "--out", out)
    assert "say by which of its columns, with --group-by" in refused(*measure, "--groups", table)
    table = table.rename(tmp_path / "sites.json")
    assert "sites.json" in refused(*measure, "--group-by", "site", "--groups", table, "--out", table)
    assert table.read_text().startswith("row,site")
    run(*measure, "--out", out)
    assert read_results(out)["groups"] is None
    monkeypatch.setitem(sys.modules, "fairlearn", None)
    assert "pip install 'mien[analyse]'" in refused(*measure, "--group-by", "site")


def test_photos(tmp_path: Path, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with Image.open(ASTRONAUT) as image:
        image.crop((96, 16, 352, 272)).save(tmp_path / "one.png")
        image.crop((90, 10, 360, 280)).save(tmp_path / "two.png")
    Image.new("RGB", (80, 80)).save(tmp_path / "none.png")
    (tmp_path / "faces.csv").write_text("path,label,light\none.png,happy,day\ntwo.png,sad,day\nnone.png,happy,night\n")
    shown = run("evaluate", tiny_onnx, "--data", "faces.csv", "--detect", "--group-by", "light")
    assert "2 of 3" in shown
    assert "1 of 3 marked faces were not found; the other figures are about those found" in shown
    results = json.loads((tmp_path / "tiny-faces-all.json").read_text())
    assert results["data"]["options"] == {"detector": "centerface"}
    assert results["detection"]["rate"] == pytest.approx(2 / 3)
    night = results["groups"]["light"]["groups"]["night"]
    assert (night["images"], night["faces"], night["detection_rate"]) == (0, 1, 0)
    assert "holds: " in run("verify", "tiny-faces-all.json", "--data", "faces.csv")
    (tmp_path / "faces.csv").write_text("path,label,light\none.png,happy,day\ntwo.png,happy,day\nnone.png,happy,night\n")
    assert "is other data" in run_failing("verify", "tiny-faces-all.json", "--data", "faces.csv")
    measure = ("evaluate", tiny_onnx, "--data", "faces.csv", "--detect")
    assert "leave out --corpus and --groups" in refused(*measure, "--corpus", "manifest")
    assert "has no column 'lihgt'; did you mean 'light'" in refused(*measure, "--group-by", "lihgt")


def run_failing(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code != 0
    return " ".join((result.output + str(result.exception)).split())
