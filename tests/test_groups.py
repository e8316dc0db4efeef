"""Figures by group: each group's are those of its images alone, and a gap is told from chance."""

from pathlib import Path

import numpy as np
import pytest

from mien.datasets import Corpus, Rows, load_corpus
from mien.errors import DataError
from mien.groups import MAX_GROUPS, Groups, group_notes, measure_groups, names_of, read_groups
from mien.metrics import classification_report
from mien.statistics import interval_of_images

CLASSES = ("happy", "sad", "surprise")


def answers(target: np.ndarray, accuracy: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return probabilities that are right with a given chance, with confidences from 0.4 to 1."""
    random = np.random.default_rng(seed)
    label = np.where(random.random(len(target)) < accuracy, target, (target + 1) % 3)
    confidence = random.uniform(0.4, 1, len(target))
    probs = np.repeat((1 - confidence)[:, None] / 2, 3, 1)
    probs[np.arange(len(target)), label] = confidence
    return probs.astype(np.float32)


def measure(groups: dict[str, list[str]], target: np.ndarray, probs: np.ndarray, **photos: object) -> dict:
    return measure_groups(Groups(groups, **photos), next(iter(groups)), np.arange(len(target)), target, probs, CLASSES)


def test_the_figures_of_a_group_are_those_of_its_images():
    target = np.random.default_rng(1).integers(0, 3, 300)
    age = np.random.default_rng(2).choice(["4-19", "20-39", "NA"], 300)
    probs = answers(target, np.full(300, 0.7))
    found = measure({"age": age.tolist()}, target, probs)
    assert list(found["groups"]) == ["4-19", "20-39"]
    assert found["missing"] == (age == "NA").sum()
    for name, group in found["groups"].items():
        alone = classification_report(probs[age == name], target[age == name], CLASSES)
        assert group["images"] == alone["images"]
        for metric in ("accuracy", "uar", "ece"):
            assert group[metric] == pytest.approx(alone[metric], abs=1e-6)
        assert group["recall"] == pytest.approx(alone["recall"])
        images = (target[age == name] == 0).sum()
        wilson = interval_of_images(round(alone["recall"]["happy"] * images), images)
        assert group["recall_interval"]["happy"] == pytest.approx(wilson)
        low, high = group["uar_interval"]
        assert alone["uar"] - 0.11 < low < alone["uar"] < high < alone["uar"] + 0.1
        assert group["overconfidence"] == pytest.approx(probs[age == name].max(1).mean() - alone["accuracy"], abs=1e-6)
        assert group["detection_rate"] is group["faces"] is None
    gap = abs(np.subtract(*(group["ece"] for group in found["groups"].values())))
    assert found["gaps"]["ece"]["largest"] == pytest.approx(gap, abs=1e-6)  # its bins are those of torchmetrics


def test_a_real_gap_is_told_from_chance():
    target = np.arange(600) % 3
    site = np.repeat(["a", "b", "c"], 200)
    found = measure({"site": site.tolist()}, target, answers(target, np.where(site == "b", 0.4, 0.7)))
    gap = found["gaps"]["accuracy"]
    assert gap["between"][1] == "b"
    assert gap["more_than_chance"]
    assert gap["interval"][0] < 0.3 < gap["interval"][1]
    assert sorted(map(tuple, gap["pairs"])) == [("a", "b"), ("c", "b")]
    other = next(pair for pair in gap["pairs"] if pair != gap["between"])
    assert f"accuracy also differs more than by chance between {other[0]} and b" in group_notes("site", found)
    assert found["gaps"]["ece"]["more_than_chance"]  # the confidences are those of the others
    low, high = found["groups"]["b"]["ece_by_chance"]
    assert not low <= found["groups"]["b"]["ece"] <= high
    same = measure({"site": site.tolist()}, target, answers(target, np.full(600, 0.7)))
    assert not any(gap["more_than_chance"] or gap["pairs"] for gap in same["gaps"].values())


def test_a_calibrated_model_has_the_error_of_chance_in_small_groups():
    random = np.random.default_rng(0)
    confidence = random.uniform(0.4, 1, 400)
    probs = np.stack([confidence, (1 - confidence) / 2, (1 - confidence) / 2], 1).astype(np.float32)
    target = np.where(random.random(400) < confidence, 0, 1)
    found = measure({"size": ["few"] * 30 + ["many"] * 370}, target, probs)
    few, many = found["groups"]["few"], found["groups"]["many"]
    assert few["ece"] > 2 * many["ece"]
    for group in (few, many):
        assert group["ece_by_chance"][0] < group["ece"] < group["ece_by_chance"][1]
    assert not found["gaps"]["ece"]["more_than_chance"]


def test_small_groups_are_shown_but_not_compared():
    target = np.array([0] * 20 + [1] * 20 + [0, 1, 2])
    group = ["x"] * 20 + ["y"] * 20 + ["z", "z", ""]
    found = measure({"g": group}, target, answers(target, np.ones(43)))
    assert found["groups"]["z"]["accuracy"] == 1
    assert found["gaps"]["accuracy"]["between"] in (["x", "y"], ["y", "x"])
    assert "uar" not in found["gaps"]  # x has only happy, y only sad
    assert found["groups"]["x"]["recall"] == {"happy": 1, "sad": None, "surprise": None}
    assert group_notes("g", found) == [
        "g is unknown of 1 images, which are in no group",
        "too small to be compared (fewer than 5): z (2)",
        "uar is not compared, because fewer than two groups have images of every class",
    ]
    alone = measure({"g": ["x"] * 43}, target, answers(target, np.ones(43)))
    assert alone["gaps"] == {}
    assert group_notes("g", alone) == ["g has only one group, x, so there is nothing to compare"]


def test_detection_counts_every_marked_face():
    faces, found = ["dark"] * 40 + ["light"] * 100 + [""], np.array([False] * 12 + [True] * 129)
    target = np.zeros(10, np.int64)
    photos = {"faces": {"skin": faces}, "found": found}
    result = measure({"skin": ["light"] * 10}, target, answers(target, np.ones(10)), **photos)
    dark, light = result["groups"]["dark"], result["groups"]["light"]
    assert (dark["images"], dark["accuracy"], dark["ece"]) == (0, None, None)
    assert (dark["faces"], dark["detection_rate"]) == (40, 0.7)
    assert dark["detection_interval"] == pytest.approx(interval_of_images(28, 40))
    assert light["detection_rate"] == 1
    assert result["gaps"].keys() == {"detection_rate"}
    assert result["gaps"]["detection_rate"]["more_than_chance"]
    assert (result["missing"], result["missing_faces"]) == (0, 1)


def test_columns_that_make_no_groups_are_refused():
    rows = np.arange(60)
    Groups({"site": ["a", ""] * 30}).check(rows)
    with pytest.raises(DataError, match="the column 'site' is empty for all 60 images; group by another one"):
        Groups({"site": ["", "NA"] * 30}).check(rows)
    numbers = Groups({"age": [f"{0.5 + i}" for i in range(60)]})
    with pytest.raises(
        DataError, match=rf"'age' has 60 different values, such as '0\.5' and '1\.5', .* {MAX_GROUPS} .* ranges"
    ):
        numbers.check(rows)
    numbers.check(rows[:MAX_GROUPS])


def test_names_with_numbers_are_in_order_and_any_name_is_allowed():
    assert names_of(["70+", "4-19", "0-3", "N/A", "nan"]) == ["0-3", "4-19", "70+"]
    assert names_of(["b", "10", "9", "a1", "none", "²", ""]) == ["9", "10", "a1", "b", "none", "²"]


def pictures(files: tuple[str, ...], name: str = "folder") -> Corpus:
    rows = Rows(CLASSES, np.zeros(3, np.int64), np.zeros(3, np.int8), ("all",))
    return Corpus(name, np.zeros((3, 2, 2), np.uint8), rows, "f", files=files)


def test_a_table_names_images_by_path_or_row(tmp_path: Path):
    (tmp_path / "data").mkdir()
    corpus, table = pictures(("a/1.png", "a/2.png", "b/1.png")), tmp_path / "people.csv"
    for text in (
        "path,Site\nb/1.png,y\n./a/1.png,x\nelse.png,z\n",  # relative to the corpus
        f"path;site\ndata/b/1.png;y\n{tmp_path}/data/a/1.png;x\n",  # relative to the table, and absolute
        "site,row\ny,2\nx,0\nz,99\n",
    ):
        table.write_text(text)
        assert read_groups(corpus, tmp_path / "data", ["site"], table).columns == {"site": ["x", "", "y"]}
    table.write_text("path,row,site\nb/1.png,0,y\n")
    assert read_groups(pictures(()), tmp_path / "fer2013.csv", ["site"], table).columns == {"site": ["y", "", ""]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,site\nc.png,x\n", "names none of the 3 images; give paths such as a/1.png, relative to .*data or to the table"),
        ("row,site\n3,x\n", "names none of the 3 images; give rows from 0 to 2"),
        ("path,site\na/1.png,x\na/1.png,y\n", "rows 2 and 3 are about the same image, a/1.png"),
        ("path,sites\na/1.png,x\n", "has no column 'site'; did you mean 'sites'"),
        ("file,site\na/1.png,x\n", "has no column 'path' or 'row' to say which image a row is about; it has file, site"),
    ],
)
def test_a_table_that_does_not_fit_is_named(tmp_path: Path, text: str, message: str):
    (tmp_path / "data").mkdir()
    (tmp_path / "people.csv").write_text(text)
    with pytest.raises(DataError, match=rf"people\.csv: {message}"):
        read_groups(pictures(("a/1.png", "a/2.png", "b/1.png")), tmp_path / "data", ["site"], tmp_path / "people.csv")


def test_a_corpus_without_columns_asks_for_a_table(fer2013_csv: Path):
    with pytest.raises(DataError, match="fer2013 has no columns to group by; give a table with the columns row and age"):
        read_groups(load_corpus("fer2013", fer2013_csv), fer2013_csv, ["age"])
