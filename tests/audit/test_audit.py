import csv
import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mien.audit import Audit, audit, findings, write_audit
from mien.audit.picture import COLUMNS, FACE, GAP, LINE, draw_pairs, draw_twins
from mien.datasets import load_corpus
from mien.datasets.corpus import Corpus, Rows
from mien.errors import OutputError
from mien.labels import label_set

DATA = Path(__file__).parents[3] / "shared" / "data"
FER2013, CK48 = DATA / "fer2013", DATA / "ckplus48" / "CK+48.zip"
CLASSES = ("angry", "happy", "sad")


def face(seed: int) -> NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    total = np.zeros((48, 48))
    for weight, coarse in ((1, 4), (0.5, 8), (0.25, 16)):  # detail at every scale, as in photos
        noise = Image.fromarray(random.integers(0, 256, (coarse, coarse)).astype(np.uint8))
        total += weight * np.asarray(noise.resize((48, 48), Image.Resampling.BICUBIC))
    return (total / 2).clip(0, 255).astype(np.uint8)


def lighter(seed: int) -> NDArray[np.uint8]:
    return (face(seed) // 2 + 100).astype(np.uint8)


@pytest.fixture
def leaking() -> Corpus:
    """Two exact twins of train in test, one of another label; a near, a mirrored, a blank one; a person in both."""
    train = [(face(seed), seed % 3) for seed in range(12)]
    test = [(face(0), 0), (face(1), 2), (lighter(2), 0), (face(3)[:, ::-1], 0), (np.full((48, 48), 9, np.uint8), 1)]
    images, target = (np.array(values) for values in zip(*train, *test, (face(40), 1), strict=True))
    split = np.array([0] * 12 + [1] * 5 + [-1], np.int8)
    people = (*"aabbccddeeff", "f", "g", "", "h", "h", "")
    rows = Rows(CLASSES, target.astype(np.int64), split, ("train", "test"), subjects=people)
    return Corpus("small", images, rows, "0", skipped=("bad.png: is damaged",))


def test_a_leaking_corpus_is_seen_through(leaking: Corpus):
    done = audit(leaking)
    twins = done.report["twins"]
    assert {key: twins["exact"][key] for key in ("groups", "images", "conflicting_groups")} == {
        "groups": 2, "images": 4, "conflicting_groups": 1
    }  # fmt: skip
    assert (twins["near"]["pairs"], twins["near"]["conflicting_pairs"]) == (1, 1)
    assert (twins["mirrored"]["pairs"], twins["mirrored"]["conflicting_pairs"]) == (1, 0)
    assert twins["exact"]["across"] == {"train": {"train": 0, "test": 2}, "test": {"train": 2, "test": 0}}
    assert twins["any"]["across"]["test"]["train"] == 4
    assert done.report["blank"] == {"images": 1, "splits": {"train": 0, "test": 1}, "which": ["row 16"]}
    assert done.report["subjects"] == {"number": 8, "shared": [{"splits": ["train", "test"], "subjects": ["f"]}]}
    assert done.report["statistics"]["counts"] == [[4, 3], [4, 1], [4, 1]]
    assert twins["near"]["same_subject_pairs"] == 0  # a person without a name is nobody


def test_what_is_found_is_said(leaking: Corpus):
    lines = findings(audit(leaking).report)
    assert lines[0] == "1 entry of the source could not be used"
    kinds = "2 (40.0%) byte-identical, 1 (20.0%) nearly the same, 1 (20.0%) mirrored"
    assert lines[1] == f"test: of 5 images, 4 (80.0%) have a twin in train: {kinds}"
    assert "byte-identical: 2 groups of 4 images, 1 with different labels" in lines
    assert "1 image blank, every pixel the same" in lines
    assert "1 person in train and test" in lines
    assert "random 20 % test by image, seed 0" in lines[-1]


def test_a_clean_corpus_is_called_clean():
    images = np.stack([face(seed) for seed in range(12)])
    rows = Rows(("a", "b"), np.arange(12) % 2, np.array([0] * 8 + [1] * 4, np.int8), ("train", "test"))
    lines = findings(audit(Corpus("small", images, rows, "0")).report)
    assert lines[0].startswith("test: of 4 images, 0 (0.0%) have a twin in train")
    assert lines[1:4] == ["byte-identical: none", "nearly the same: none", "mirrored: none"]
    assert "do not say who" in lines[4]


def test_people_are_told_apart_where_there_are_no_splits():
    images = np.stack([face(seed) for seed in range(10)])
    rows = Rows(("a", "b"), np.arange(10) % 2, np.zeros(10, np.int8), ("all",), subjects=tuple("xxxxxyyyyy"))
    report = audit(Corpus("small", images, rows, "0")).report
    assert "2 people, and no official splits: split by subject" in findings(report)
    assert report["random_split"]["images"] == report["random_split"]["subject_in_train"] == 2


def test_a_corpus_too_small_to_split_is_audited():
    rows = Rows(("a", "b"), np.array([0, 1]), np.zeros(2, np.int8), ("all",))
    assert audit(Corpus("small", np.stack([face(1), face(2)]), rows, "0")).report["random_split"] is None


def test_report_and_table_are_written(tmp_path: Path, leaking: Corpus):
    done = audit(leaking)
    report, table = write_audit(tmp_path / "new" / "small.json", done)
    assert json.loads(report.read_text()) == done.report
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["kind"], row["image"], row["twin"]) for row in rows] == [
        ("exact", "row 0", "row 12"),
        ("exact", "row 1", "row 13"),
        ("near", "row 2", "row 14"),
        ("mirrored", "row 3", "row 15"),
    ]
    assert (rows[1]["split"], rows[1]["twin_split"], rows[1]["label"], rows[1]["twin_label"]) == (
        "train",
        "test",
        "happy",
        "sad",
    )
    assert float(rows[0]["distance"]) == 0 < float(rows[2]["distance"]) < 0.4
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_audit(tmp_path / "file" / "small.json", done)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "new"]


def tile(drawn: NDArray[np.uint8], part: int, side: int) -> NDArray[np.uint8]:
    """Return an image of the only pair of a part of a picture whose parts each hold one row."""
    height = 34 + FACE + 3 * LINE + 14
    left = GAP // 2 + side * (FACE + 2)
    return drawn[part * height + 34 : part * height + 34 + FACE, left : left + FACE, 0]


def test_the_picture_shows_each_kind_of_twin(leaking: Corpus):
    drawn = draw_twins(leaking, audit(leaking).twins)
    parts = [(1, 13), (0, 12), (2, 14), (3, 15)]  # labels differ; in two splits; nearly, labels differ; mirrored
    for part, pair in enumerate(parts):
        for side, row in enumerate(pair):
            expected = Image.fromarray(leaking.images[row]).resize((FACE, FACE), Image.Resampling.BICUBIC)
            assert np.abs(tile(drawn, part, side).astype(int) - np.asarray(expected)).max() <= 1
    assert drawn.shape[0] == len(parts) * (34 + FACE + 3 * LINE + 14)


def test_captions_stay_under_their_image(leaking: Corpus):
    long = Corpus("small", leaking.images, leaking.rows, "0", files=tuple(f"{'m' * 300}{i}.png" for i in range(18)))
    drawn = draw_pairs(long, np.array([[0, 12]]), "one")
    text = (drawn[34 + FACE + 2 :].min(axis=(0, 2)) < 200).nonzero()[0]
    assert text.max() < GAP // 2 + 2 * FACE + 2


def test_no_twins_make_a_picture_that_says_so(leaking: Corpus):
    rows = leaking.rows.take(np.arange(6, 12))
    clean = Corpus("small", leaking.images[6:12], rows, "0")
    drawn = draw_twins(clean, audit(clean).twins)
    assert drawn.shape == (34, COLUMNS * (2 * FACE + 2 + GAP) + GAP // 2, 3)
    assert drawn.min() < 50


@pytest.fixture(scope="module")
def real() -> Audit:
    """The audit of the real FER2013, whose images are in contact sheets; reading its CSV file is tested elsewhere."""
    if not FER2013.is_dir():
        pytest.skip("the real FER2013 is not next to this checkout")
    with (FER2013 / "labels.csv").open(newline="") as file:
        labels = list(csv.DictReader(file))
    target = np.array([int(row["emotion"]) for row in labels])
    split = np.array([("Training", "PublicTest", "PrivateTest").index(row["usage"]) for row in labels], np.int8)
    images = np.empty((len(labels), 48, 48), np.uint8)
    for number, name in enumerate(("training", "public_test", "private_test")):
        rows = np.flatnonzero(split == number)
        sheet = np.asarray(Image.open(FER2013 / f"{name}.png")).reshape(-1, 48, 100, 48).swapaxes(1, 2)
        images[rows] = sheet.reshape(-1, 48, 48)[: len(rows)]
    digest = sha256(images)
    for values in (target, split):
        digest.update(values)
    rows = Rows(label_set("fer2013"), target, split, ("train", "public_test", "private_test"))
    return audit(Corpus("fer2013", images, rows, digest.hexdigest()))


@pytest.mark.slow
def test_the_real_fer2013(real: Audit):
    twins = real.report["twins"]
    assert {key: twins["exact"][key] for key in ("groups", "images", "conflicting_groups")} == {
        "groups": 1516, "images": 3369, "conflicting_groups": 57
    }  # fmt: skip
    assert twins["exact"]["across"]["private_test"]["train"] == 288
    assert twins["exact"]["across"]["public_test"]["train"] == 280
    assert real.report["blank"]["images"] == 12
    assert twins["near"]["pairs"] == pytest.approx(2780, abs=5)  # rounding may move a pair over the threshold
    assert twins["mirrored"]["pairs"] == pytest.approx(44, abs=1)
    drawn = real.report["random_split"]
    assert drawn["images"] == 7178
    assert 0.07 < drawn["twin_in_train"]["exact"] / 7178 < 0.09
    for split in ("public_test", "private_test"):
        assert (~real.corpus.twin_free(split)).sum() == twins["exact"]["across"][split]["train"]


@pytest.mark.slow
def test_the_committed_report_is_of_the_real_fer2013(real: Audit):
    committed: dict[str, Any] = json.loads((Path(__file__).parents[2] / "results" / "audit" / "fer2013.json").read_text())
    for key in ("data", "statistics", "blank"):
        assert committed[key] == real.report[key], key
    assert committed["twins"]["exact"] == real.report["twins"]["exact"]


@pytest.mark.skipif(not CK48.is_file(), reason="the real CK+48 is not next to this checkout")
def test_the_real_ck48_is_full_of_twins():
    report = audit(load_corpus("ckplus", CK48)).report
    near = report["twins"]["near"]
    assert near["same_subject_pairs"] > 0.99 * near["pairs"]  # what is nearly the same is the same person
    assert report["subjects"]["number"] == 118
    assert report["random_split"]["twin_in_train"]["near"] > 0.95 * report["random_split"]["images"]


def test_no_cell_is_run_by_a_spreadsheet(tmp_path: Path, leaking: Corpus):
    files = tuple(f"=cmd|'/c calc'!A{i}.png" for i in range(18))
    rows = replace(leaking.rows, classes=tuple(f"@{name}" for name in leaking.classes))
    _, table = write_audit(tmp_path / "small.json", audit(replace(leaking, files=files, rows=rows)))
    cells = [cell for row in csv.reader(table.read_text().splitlines()) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    assert "./=cmd|'/c calc'!A1.png" in cells


def test_names_that_are_no_text_are_written(tmp_path: Path, leaking: Corpus):
    files = tuple(f"caf\udce9-é{i}.png" for i in range(18))
    corpus = replace(leaking, files=files, skipped=("caf\udce9.png: is damaged",))
    done = audit(corpus)
    report, table = write_audit(tmp_path / "small.json", done)
    assert json.loads(report.read_text(encoding="utf-8")) == done.report  # as they were
    assert "caf\\udce9-é12.png" in table.read_text(encoding="utf-8")
    assert draw_twins(corpus, done.twins).shape[0] > 34
