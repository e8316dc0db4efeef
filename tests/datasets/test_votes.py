"""FER2013's labels, softened by FER+'s votes."""

import csv
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mien.datasets import Corpus, load_corpus
from mien.datasets.fer2013 import read_fer2013
from mien.datasets.votes import COLUMNS, expected_labels, read_votes
from mien.errors import DataError

REAL = Path(__file__).parents[3] / "shared" / "data" / "fer2013"
VOTED = (4, 5, 6, 1, 3, 2, 0)
"""Which of `COLUMNS` people vote for when FER2013 says angry, disgust and so on."""

ROWS = {"Training": 70, "PublicTest": 14, "PrivateTest": 14}
VOTES = {"votes": "fer2013new.csv"}


def write(folder: Path, labels: dict[str, list[int]] | None = None) -> Path:
    """Write a fer2013.csv and votes beside it: row i is of class i % 7, with votes for the next; the last seven are of that."""
    folder.mkdir(exist_ok=True)
    with (folder / "fer2013.csv").open("w", newline="") as file, (folder / "fer2013new.csv").open("w", newline="") as beside:
        table, votes = csv.writer(file), csv.writer(beside)
        table.writerow(["emotion", "pixels", "Usage"])
        votes.writerow(["Usage", "Image name", *COLUMNS])
        for usage, count in ROWS.items():
            for i in range(count):
                label = (i + (i >= 63)) % 7 if labels is None or usage not in labels else labels[usage][i]
                table.writerow([label, " ".join([str(i)] * 2304), usage])
                counts = np.zeros(10, np.int64)
                counts[VOTED[i % 7]], counts[VOTED[(i + 1) % 7]] = 10 - i // 7 % 5, i // 7 % 5
                votes.writerow([usage, f"fer{i:07}.png", *counts])
    return folder / "fer2013.csv"


def softened(corpus: Corpus) -> np.ndarray:
    assert corpus.rows.votes is not None
    return corpus.rows.votes


def test_the_label_keeps_its_half_and_votes_share_the_other(tmp_path: Path):
    table = write(tmp_path / "fer")
    plain, corpus = load_corpus("fer2013", table), load_corpus("fer2013", table, options=VOTES)
    shares = softened(corpus)
    assert shares.shape == (98, 7)
    assert shares.dtype == np.float32
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
    assert (shares[np.arange(98), corpus.target] >= 0.5).all()
    second = shares.argsort(axis=1)[:, -2]  # of rows whose votes are as divided as those of the last seven of training
    assert second[28:35].tolist() == [1, 2, 3, 4, 5, 6, 0]
    assert second[63:70].tolist() == [0, 1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(corpus.target, plain.target)
    assert plain.rows.votes is None
    assert corpus.fingerprint == plain.fingerprint
    assert corpus.split_fingerprint == plain.split_fingerprint


def test_the_expected_labels_have_the_mean_of_the_labels(tmp_path: Path):
    corpus = load_corpus(
        "fer2013", write(tmp_path / "fer", {"Training": [i % 7 if i % 3 else 3 for i in range(70)]}), options=VOTES
    )
    train = corpus.where("train")
    mean = softened(corpus)[train].mean(axis=0)
    np.testing.assert_allclose(mean, np.bincount(corpus.target[train], minlength=7) / len(train), atol=1e-3)


def test_labels_of_tests_teach_nothing(tmp_path: Path):
    other = {usage: [(i + 3) % 7 for i in range(14)] for usage in ("PublicTest", "PrivateTest")}
    expected = []
    for name, labels in (("one", None), ("two", other), ("three", {"Training": [(i + 3) % 7 for i in range(70)]})):
        corpus = load_corpus("fer2013", write(tmp_path / name, labels), options=VOTES)
        expected.append(2 * softened(corpus) - np.eye(7)[corpus.target])
    np.testing.assert_allclose(expected[0], expected[1], atol=1e-6)
    assert abs(expected[0] - expected[2]).max() > 0.5


def test_a_class_that_training_lacks_is_never_expected():
    counts, target = np.eye(10, dtype=np.int64)[[0, 1, 0, 1, 2]] * 10, np.array([0, 2, 0, 2, 1])
    expected = expected_labels(counts, target, np.array([True, True, True, True, False]), 3)
    assert expected[:, 1].tolist() == [0] * 5
    np.testing.assert_allclose(expected.sum(axis=1), 1)
    assert expected[0, 0] > 0.9
    assert expected[1, 2] > 0.9


def test_the_votes_may_lie_beside_the_table_in_its_folder_in_the_archive_or_elsewhere(tmp_path: Path):
    table = write(tmp_path / "fer")
    wanted = softened(load_corpus("fer2013", table, options=VOTES))
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as archive:
        for name in ("fer2013.csv", "fer2013new.csv"):
            archive.write(table.parent / name, f"data/{name}")
    np.testing.assert_array_equal(softened(load_corpus("fer2013", tmp_path / "both.zip", options=VOTES)), wanted)
    np.testing.assert_array_equal(softened(load_corpus("fer2013", table.parent, options=VOTES)), wanted)
    (tmp_path / "alone").mkdir()
    alone = table.rename(tmp_path / "alone" / "fer2013.csv")
    elsewhere = {"votes": str(tmp_path / "fer" / "fer2013new.csv")}
    np.testing.assert_array_equal(softened(load_corpus("fer2013", alone, options=elsewhere)), wanted)


@pytest.mark.parametrize("name", ["fer", "fer/fer2013.csv"])
def test_votes_that_changed_are_read_again(tmp_path: Path, name: str):
    votes = write(tmp_path / "fer").with_name("fer2013new.csv")
    before = softened(load_corpus("fer2013", tmp_path / name, options=VOTES))
    text = votes.read_text().splitlines(keepends=True)
    text[1] = "Training,fer0000000.png,0,0,0,0,0,0,0,0,0,10\n"
    votes.write_text("".join(text))
    assert abs(softened(load_corpus("fer2013", tmp_path / name, options=VOTES)) - before).max() > 0.01
    votes.unlink()
    with pytest.raises(DataError, match=r"fer2013new\.csv: no such file; get FER\+'s votes from github"):
        load_corpus("fer2013", tmp_path / name, options=VOTES)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("PublicTest,fer0000000", "Training,fer0000000", r"fer2013new\.csv puts face 71 in Training, the table does not"),
        ("Training,fer0000069.png,", "Training,", "row 71 has 11 fields"),
        ("Usage,Image", "usage,image", "its first line is not"),
    ],
)
def test_votes_that_do_not_fit_are_explained(tmp_path: Path, old: str, new: str, message: str):
    votes = write(tmp_path / "fer").with_name("fer2013new.csv")
    votes.write_text(votes.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        read_fer2013(tmp_path / "fer", votes="fer2013new.csv")


def test_votes_of_pictures_and_of_a_single_class_are_refused(tmp_path: Path):
    (tmp_path / "faces" / "train" / "happy").mkdir(parents=True)
    (tmp_path / "faces" / "train" / "happy" / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"contains pictures, but votes need the rows of the table; pass fer2013\.csv"):
        read_fer2013(tmp_path / "faces", votes="fer2013new.csv")
    with pytest.raises(DataError, match="fewer than two classes"):
        read_fer2013(write(tmp_path / "fer", {"Training": [3] * 70}), votes="fer2013new.csv")


def test_a_model_is_measured_without_the_votes(tmp_path: Path):
    table = write(tmp_path / "fer")
    table.with_name("fer2013new.csv").unlink()
    assert load_corpus("fer2013", table, options=VOTES, soft_labels=False).rows.votes is None
    with pytest.raises(DataError, match="no such file"):
        load_corpus("fer2013", table, options=VOTES)


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the real FER2013 is not next to this checkout")
def test_the_real_votes_meet_two_thirds_of_the_real_labels():
    with (REAL / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    target = np.array([int(row["emotion"]) for row in rows])
    usage = np.array([row["usage"] for row in rows])
    votes = read_votes(REAL / "fer2013new.csv")
    assert votes.usage == tuple(usage)
    train, test = usage == "Training", usage == "PublicTest"
    met = expected_labels(votes.counts, target, train, 7).argmax(axis=1) == target
    assert met[test].mean() == pytest.approx(0.672, abs=0.005)
