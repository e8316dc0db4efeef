import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien.audit.statistics import Statistics, picture_files, statistics
from mien.datasets import load_corpus
from mien.datasets.corpus import Corpus, Rows

REAL = Path(__file__).parents[3] / "shared" / "data" / "ckplus48" / "CK+48.zip"


def corpus(channels: int = 1) -> Corpus:
    shape = (7, 4, 6) if channels == 1 else (7, 4, 6, channels)
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    target, split = np.array([0, 1, 1, 0, 1, 1, 1]), np.array([0, 0, 0, 1, 1, -1, -1], np.int8)
    return Corpus("small", images, Rows(("sad", "happy"), target, split, ("train", "test", "spare")), "")


@pytest.mark.parametrize("channels", [1, 3])
def test_counts_and_pixels_of_each_split(channels: int):
    small = corpus(channels)
    found = statistics(small)
    assert found.counts == ((1, 1, 0), (2, 1, 0))  # rows in no split count nowhere
    assert (found.width, found.height, found.channels, found.images) == (6, 4, channels, 5)
    for index, rows in enumerate((slice(0, 3), slice(3, 5))):
        pixels = small.images[rows].reshape(-1, channels) / 255
        assert found.mean[index] == pytest.approx(pixels.mean(axis=0), abs=1e-6)
        assert found.std[index] == pytest.approx(pixels.std(axis=0), abs=1e-6)
    assert (found.mean[2], found.std[2]) == ((), ())


def test_large_pictures_are_counted_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch):
    whole = statistics(corpus(3))
    monkeypatch.setattr("mien.audit.statistics.BLOCK", 100)  # one picture has 72 bytes
    assert statistics(corpus(3)) == whole


def test_the_tables_papers_print():
    found = statistics(corpus())
    assert found.table() == [
        ["class", "train", "test", "spare", "together", "share"],
        ["sad", "1", "1", "0", "2", "40.0 %"],
        ["happy", "2", "1", "0", "3", "60.0 %"],
        ["together", "3", "2", "0", "5", "100.0 %"],
    ]
    assert dict(found.characteristics())["size as stored, px"] == "6 x 4"
    assert found.brightness()[3] == ["spare", "-", "-"]


def test_one_split_is_not_summed_twice():
    small = corpus()
    rows = Rows(small.classes, small.target, np.zeros(7, np.int8), ("all",))
    assert statistics(Corpus("small", small.images, rows, "")).table()[0] == ["class", "all", "share"]


def test_statistics_survive_json():
    found = statistics(corpus(3))
    assert Statistics.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def write_folder(path: Path) -> Path:
    for name, mode, size in (("a", "L", (40, 48)), ("b", "RGB", (60, 90)), ("c", "RGB", (80, 70))):
        (path / "train" / "happy").mkdir(parents=True, exist_ok=True)
        Image.new(mode, size, 9).save(path / "train" / "happy" / f"{name}.png")
    return path


def test_sizes_and_colour_of_picture_files(tmp_path: Path):
    folder = write_folder(tmp_path / "faces")
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder))
    expected = {"files": 3, "grey": 1, "sizes": 3, "smallest": [40, 48], "median": [60, 70], "largest": [80, 90]}
    for source in (folder, tmp_path / "faces.zip"):
        assert picture_files(source, load_corpus("fer2013", source).files) == expected
    assert picture_files(folder, ["train/happy/a.png", "train/happy/gone.png"])["files"] == 1
    assert picture_files(folder, []) is None


@pytest.mark.skipif(not REAL.is_file(), reason="the real CK+48 is not next to this checkout")
def test_the_real_ck48():
    found = statistics(loaded := load_corpus("ckplus", REAL))
    assert dict(zip(found.classes, [row[0] for row in found.counts], strict=True)) == {
        "angry": 135, "contempt": 54, "disgust": 177, "fear": 75, "happy": 207, "sad": 84, "surprise": 249
    }  # fmt: skip
    assert picture_files(REAL, loaded.files)["largest"] == [48, 48]
