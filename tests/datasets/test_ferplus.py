import contextlib
import io
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mien.datasets import Corpus, load_corpus
from mien.datasets.ferplus import label_rows, read_ferplus
from mien.datasets.votes import COLUMNS, distribution, majority, read_votes
from mien.errors import DataError
from mien.labels import label_set

REAL = Path(__file__).parents[3] / "shared" / "data" / "fer2013" / "fer2013new.csv"
FOLDERS = {"Training": "FER2013Train", "PublicTest": "FER2013Valid", "PrivateTest": "FER2013Test"}
HEADER = f"Usage,Image name,{','.join(COLUMNS)}\n"

ROWS: list[tuple[str, str, list[int]]] = [
    ("Training", "fer0000000.png", [8, 0, 0, 1, 1, 0, 0, 0, 0, 0]),  # neutral
    ("Training", "fer0000001.png", [4, 4, 0, 0, 0, 0, 0, 0, 2, 0]),  # no majority
    ("Training", "", [0, 0, 0, 0, 0, 0, 0, 0, 0, 10]),  # no face
    ("Training", "fer0000003.png", [0, 5, 1, 1, 1, 1, 1, 0, 0, 0]),  # happy, once the single votes are gone
    ("PublicTest", "fer0000004.png", [0, 0, 0, 0, 0, 0, 0, 3, 7, 0]),  # unknown
    ("PublicTest", "fer0000005.png", [0, 0, 0, 0, 0, 2, 0, 8, 0, 0]),  # contempt
    ("PrivateTest", "fer0000006.png", [1, 0, 0, 0, 6, 3, 0, 0, 0, 0]),  # angry
    ("PrivateTest", "fer0000007.png", [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),  # nothing left
]
"""Rows of FER+; the face of row i is of grey 20 i."""


def face_table(usages: Sequence[str] = tuple(row[0] for row in ROWS)) -> str:
    pixels = (" ".join([str(20 * i)] * 2304) for i in range(len(usages)))
    rows = (f"3,{face},{usage}\n" for face, usage in zip(pixels, usages, strict=True))
    return "emotion,pixels,Usage\n" + "".join(rows)


def vote_table(rows: Sequence[tuple[str, str, list[int]]] = ROWS) -> str:
    return HEADER + "".join(f"{usage},{name},{','.join(map(str, votes))}\n" for usage, name, votes in rows)


def microsoft_files(boxed: bool) -> dict[str, bytes]:
    """The files that generate_training_data.py writes; faces without a name are not among them."""
    files: dict[str, bytes] = {}
    for i, (usage, name, votes) in enumerate(ROWS):
        if name:
            stream = io.BytesIO()
            Image.fromarray(np.full((48, 48), 20 * i, np.uint8)).save(stream, "png")
            files[f"{FOLDERS[usage]}/{name}"] = stream.getvalue()
            box = '"(0, 0, 48, 48)",' if boxed else ""
            line = f"{name},{box}{','.join(map(str, votes))}\r\n"
            labels = f"{FOLDERS[usage]}/label.csv"
            files[labels] = files.get(labels, b"") + line.encode()
    return files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with fer2013.csv and fer2013new.csv."""
    (tmp_path / "fer").mkdir()
    (tmp_path / "fer" / "fer2013.csv").write_text(face_table())
    (tmp_path / "fer" / "fer2013new.csv").write_text(vote_table())
    return tmp_path / "fer"


def faces(corpus: Corpus) -> list[int]:
    """The rows of `ROWS` a corpus holds."""
    return (corpus.images[:, 0, 0] // 20).tolist()


def test_eight_classes_keep_the_faces_with_a_majority(folder: Path):
    corpus = load_corpus("ferplus", folder)
    assert corpus.classes == label_set("ferplus")
    assert corpus.splits == ("train", "public_test", "private_test")
    assert faces(corpus) == [0, 3, 5, 6]
    assert [corpus.classes[i] for i in corpus.target] == ["neutral", "happy", "contempt", "angry"]
    assert corpus.rows.split.tolist() == [0, 0, 1, 2]
    assert corpus.rows.votes is None


def test_a_row_that_is_kept_says_where_it_came_from(folder: Path):
    corpus = load_corpus("ferplus", folder)
    for row in range(len(corpus.target)):
        number = int(corpus.origin(row).removeprefix("row "))
        assert (corpus.images[row] == 20 * number).all()
    assert corpus.origin(1) == "row 3"


def test_ten_classes_keep_every_row(folder: Path):
    corpus = load_corpus("ferplus", folder, options={"classes": 10})
    assert corpus.classes == label_set("ferplus10")
    assert faces(corpus) == list(range(8))
    names = ["neutral", "unknown", "not a face", "happy", "unknown", "contempt", "angry", "unknown"]
    assert [corpus.classes[i] for i in corpus.target] == names


def test_distributions_are_soft_targets_of_sum_one(folder: Path):
    corpus = load_corpus("ferplus", folder, options={"targets": "distribution"})
    assert faces(corpus) == [0, 1, 3, 5, 6]
    votes = corpus.rows.votes
    assert votes is not None
    assert votes.dtype == np.float32
    expected = np.zeros((5, 8))
    expected[0, 0] = expected[2, 1] = 1
    expected[1, :2] = 0.5
    expected[3, 7] = 1  # 8 of 10 are three quarters already
    expected[4, [4, 5]] = 6 / 9, 3 / 9
    np.testing.assert_allclose(votes, expected, rtol=1e-6)
    assert corpus.target.tolist() == votes.argmax(axis=1).tolist()
    ten = load_corpus("ferplus", folder, options={"targets": "distribution", "classes": 10}).rows.votes
    assert ten is not None
    assert ten.shape == (8, 10)
    np.testing.assert_allclose(ten.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(("share", "kept"), [(0.5, [0, 3, 5, 6]), (0.6, [0, 5, 6]), (0.8, [0, 5]), (0.81, []), (1, [])])
def test_agreement_counts_all_votes(folder: Path, share: float, kept: list[int]):
    listing = read_ferplus(folder, min_agreement=share)
    assert isinstance(listing.images, np.ndarray)
    assert (listing.images[:, 0, 0] // 20).tolist() == kept


@pytest.mark.parametrize(
    ("votes", "most", "shares"),
    [
        ([10, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, {0: 1}),
        ([5, 5, 0, 0, 0, 0, 0, 0, 0, 0], 8, {0: 0.5, 1: 0.5}),
        ([4, 3, 2, 1, 0, 0, 0, 0, 0, 0], 8, {0: 4 / 7, 1: 3 / 7}),  # 7 of the 9 votes left are three quarters of them
        ([4, 2, 2, 2, 0, 0, 0, 0, 0, 0], 8, {8: 1}),  # three equal ones make four
        ([2, 2, 2, 0, 0, 0, 0, 7, 0, 0], 7, {8: 1}),  # also where the first has a majority
        ([0, 0, 0, 3, 0, 0, 0, 0, 6, 1], 8, {8: 1}),  # unknown comes first
        ([0, 0, 0, 4, 0, 0, 0, 0, 4, 2], 8, {8: 1}),  # equal to unknown, and no more than half is left
        ([0, 0, 0, 6, 0, 0, 0, 0, 2, 2], 3, {3: 1}),  # unknown ends it, what came before stays
        ([0, 0, 0, 0, 0, 0, 0, 0, 4, 6], 9, {9: 1}),
        ([0, 0, 0, 0, 0, 0, 0, 0, 5, 5], 8, {8: 1}),
        ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], 8, {8: 1}),
        ([0, 0, 2, 1, 1, 1, 1, 1, 1, 1], 2, {2: 1}),
    ],
)
def test_the_published_rules_on_rows_worked_by_hand(votes: list[int], most: int, shares: dict[int, float]):
    assert majority(np.array([votes])).tolist() == np.eye(10)[[most]].tolist()
    np.testing.assert_allclose(distribution(np.array([votes]))[0], [shares.get(i, 0) for i in range(10)])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 10), min_size=10, max_size=10), min_size=1, max_size=8))
def test_every_rule_gives_shares_and_rows_do_not_depend_on_each_other(votes: list[list[int]]):
    counts = np.array(votes)
    for rule in (majority, distribution):
        shares = rule(counts)
        np.testing.assert_allclose(shares.sum(axis=1), 1)
        assert ((shares > 0).sum(axis=1) <= 3).all()
        assert all((rule(counts[i : i + 1])[0] == shares[i]).all() for i in range(len(counts)))
    clear = majority(counts).argmax(axis=1)
    same = distribution(counts).argmax(axis=1)
    agree = (same == clear) | (same == 8)  # unknown also if more than three classes would count
    assert agree[clear != 8].all(), "what has a majority has it in the distribution, or is unknown"


def test_the_votes_may_lie_beside_the_table_or_elsewhere_or_in_the_archive(tmp_path: Path, folder: Path):
    first = load_corpus("ferplus", folder).fingerprint
    assert load_corpus("ferplus", folder / "fer2013.csv").fingerprint == first
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as archive:
        for name in ("fer2013.csv", "fer2013new.csv"):
            archive.write(folder / name, f"data/{name}")
    assert load_corpus("ferplus", tmp_path / "both.zip").fingerprint == first
    shutil.copytree(folder, tmp_path / "above" / "data")
    assert load_corpus("ferplus", tmp_path / "above").fingerprint == first
    (folder / "fer2013new.csv").rename(tmp_path / "votes.csv")
    options = {"votes": str(tmp_path / "votes.csv")}
    assert load_corpus("ferplus", folder, options=options).fingerprint == first
    with pytest.raises(DataError, match=r"fer2013new\.csv: no such file; get FER\+'s votes from github"):
        load_corpus("ferplus", folder)


@pytest.mark.parametrize("boxed", [True, False])
@pytest.mark.parametrize("above", ["", "FERPlus-master/data/"])
def test_microsofts_folders_hold_the_same_as_the_tables(tmp_path: Path, folder: Path, boxed: bool, above: str):
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        for name, data in microsoft_files(boxed).items():
            archive.writestr(above + name, data)
            (tmp_path / "m" / above / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "m" / above / name).write_bytes(data)
    for options in ({}, {"targets": "distribution"}):
        expected = load_corpus("ferplus", folder, options=options)
        for source in (tmp_path / "m", tmp_path / "m.zip"):
            corpus = load_corpus("ferplus", source, options=options)
            assert corpus.fingerprint == expected.fingerprint
            assert corpus.files[0] == f"{above}FER2013Train/fer0000000.png"
            if expected.rows.votes is not None:
                np.testing.assert_array_equal(corpus.rows.votes, expected.rows.votes)


def test_pictures_that_are_missing_are_listed(tmp_path: Path):
    for name, data in microsoft_files(True).items():
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / name).write_bytes(data)
    (tmp_path / "m" / "FER2013Train" / "fer0000003.png").unlink()
    corpus = load_corpus("ferplus", tmp_path / "m")
    assert faces(corpus) == [0, 5, 6]
    assert corpus.skipped == ("FER2013Train/fer0000003.png: is named in FER2013Train/label.csv but does not exist",)
    for picture in (tmp_path / "m").rglob("*.png"):
        picture.unlink()
    with pytest.raises(DataError, match="nor pictures named in FER2013Train"):
        load_corpus("ferplus", tmp_path / "m")


def test_labels_that_leave_their_folder_are_not_followed(tmp_path: Path):
    (tmp_path / "m" / "FER2013Train").mkdir(parents=True)
    Image.fromarray(np.zeros((48, 48), np.uint8)).save(tmp_path / "secret.png")
    (tmp_path / "m" / "FER2013Train" / "label.csv").write_text("../../secret.png,9,0,0,0,0,0,0,0,0,1\n")
    with pytest.raises(DataError, match="nor pictures named"):
        load_corpus("ferplus", tmp_path / "m")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a.png,1,2\n", r"row 1 has 3 fields, not an image name, its box and 10 votes"),
        ("a.png" + ",1" * 10 + "\na.png" + ",1" * 10 + "\n", "row 2 names 'a.png' again, as row 1 does"),
        ("a.png" + ",0" * 10 + "\n", "row 1 has no votes"),
        ("\na.png" + ",1" * 9 + ",x\n", "row 2 has the vote 'x', not a whole number"),
    ],
)
def test_a_bad_row_of_microsofts_labels_is_named(tmp_path: Path, lines: str, message: str):
    (tmp_path / "m" / "FER2013Train").mkdir(parents=True)
    (tmp_path / "m" / "FER2013Train" / "label.csv").write_text(lines)
    with pytest.raises(DataError, match=rf"label\.csv: {message}"):
        load_corpus("ferplus", tmp_path / "m")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Usage,Image", "Usage;Image", "its first line is not 'Usage,Image name,neutral"),
        ("fer0000001.png,4,4", "fer0000001.png,4,4,4", "row 3 has 13 fields, not 12"),
        ("fer0000001.png,4,4", "fer0000001.png,4,-4", "row 3 has the vote '-4', not a whole number"),
        ("fer0000001.png,4,4", "fer0000001.png,4,²", "row 3 has the vote '²', not a whole number"),
        ("fer0000001.png,4,4,0,0,0,0,0,0,2", "fer0000001.png,0,0,0,0,0,0,0,0,0", "row 3 has no votes"),
        ("Training,fer0000001", "Test,fer0000001", "row 3 has the Usage 'Test', not one of Training"),
        ("Training,fer0000003", "PublicTest,fer0000003", r"fer2013new\.csv puts face 4 in PublicTest, the table does not"),
        (vote_table().splitlines(keepends=True)[-1], "", r"has 8 faces, but fer2013new\.csv has 7 rows; are both complete\?"),
        (vote_table(), "", "contains no rows"),
        (vote_table(), '"' + "x" * 200_000, "cannot be read from row 1 on"),
    ],
)
def test_votes_that_do_not_fit_are_explained(folder: Path, old: str, new: str, message: str):
    text = (folder / "fer2013new.csv").read_text()
    assert old in text
    (folder / "fer2013new.csv").write_text(text.replace(old, new))
    with pytest.raises(DataError, match=message):
        load_corpus("ferplus", folder)


def test_votes_in_utf16_are_refused(folder: Path):
    (folder / "fer2013new.csv").write_text(vote_table(), encoding="utf-16")
    with pytest.raises(DataError, match=r"fer2013new\.csv: is UTF-16"):
        load_corpus("ferplus", folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 7}, "classes is 7; choose 8, or 10"),
        ({"targets": "most"}, "targets is 'most'; choose majority or distribution"),
        ({"min_agreement": 80}, "min_agreement is 80; give a share"),
        ({"min_agreement": "high"}, "min_agreement is 'high'"),
        ({"agreement": 1}, "has no option 'agreement'"),
    ],
)
def test_bad_options_are_explained(folder: Path, options: dict[str, object], message: str):
    with pytest.raises(DataError, match=message):
        load_corpus("ferplus", folder, options=options)


FUZZ = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(st.binary(max_size=200) | st.text('01,"\n\rferTaing.p', max_size=80).map(str.encode), st.booleans())
def test_any_votes_are_read_or_refused(folder: Path, data: bytes, headed: bool):
    (folder / "fer2013new.csv").write_bytes((HEADER.encode() if headed else b"") + data)
    with pytest.raises(DataError):
        read_ferplus(folder)


@FUZZ
@given(st.binary(max_size=200) | st.text('01,"\n\ra.png', max_size=80).map(str.encode))
def test_any_labels_are_read_or_refused(tmp_path: Path, data: bytes):
    labels = tmp_path / "m" / "FER2013Train" / "label.csv"
    labels.parent.mkdir(parents=True, exist_ok=True)
    labels.write_bytes(data)
    with contextlib.suppress(DataError):
        read_ferplus(tmp_path / "m")


@pytest.mark.skipif(not REAL.is_file(), reason="the real FER+ votes are not next to this checkout")
def test_the_real_votes():
    votes = read_votes(REAL)
    split = np.array([list(FOLDERS).index(usage) for usage in votes.usage], np.int8)
    assert votes.counts.shape == (35887, 10)
    rows, _ = label_rows(votes, split, 8, "majority", 0)
    assert [np.bincount(rows.target[rows.split == i]).tolist() for i in range(3)] == [
        [8740, 7287, 3149, 3014, 2100, 119, 532, 119],
        [1182, 865, 415, 351, 287, 24, 62, 13],
        [1090, 893, 396, 384, 273, 18, 83, 16],
    ]
    rows, _ = label_rows(votes, split, 10, "majority", 0)
    assert [np.bincount(rows.target[rows.split == i])[8:].tolist() for i in range(3)] == [[3499, 150], [380, 10], [420, 16]]
    rows, _ = label_rows(votes, split, 8, "distribution", 0)
    assert [int((rows.split == i).sum()) for i in range(3)] == [27956, 3505, 3505]


@pytest.mark.parametrize("name", ["missing.csv", "x" * 5000, "nul\0"])
def test_votes_that_are_no_file_are_named(folder: Path, name: str):
    with pytest.raises(DataError, match="no such file; get FER"):
        load_corpus("ferplus", folder, options={"votes": name})


def test_a_link_that_is_not_followed_is_listed(tmp_path: Path):
    for name, data in microsoft_files(boxed=False).items():
        (tmp_path / "fer" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fer" / name).write_bytes(data)
    (tmp_path / "fer" / "FER2013Train" / "loop").symlink_to(tmp_path / "fer")
    corpus = load_corpus("ferplus", tmp_path / "fer")
    assert [line.split(": ")[0] for line in corpus.skipped] == [str(tmp_path / "fer" / "FER2013Train" / "loop")]
