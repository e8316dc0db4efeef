import csv
import io
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien.datasets import Corpus, load_corpus
from mien.datasets.affectnet import read_affectnet, read_number
from mien.errors import DataError, InputError
from mien.labels import label_set

SMALL = {"size": 6}
HEADER = (
    "subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks", "expression",
    "valence", "arousal",
)  # fmt: skip

ROWS = {
    "train": [(0, 0.1, -0.2), (1, 0.9, 0.5), (6, -0.5, 0.8), (7, -0.6, 0.6), (1, 0.7, 0.4)],
    "val": [(3, 0.2, 0.9), (7, -1, 1)],
}
"""Expression, valence and arousal of each picture of the small copies; the red of picture n is 10 n."""


def picture(value: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (6, 6), (value, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def save(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, value)
    return path


def official(root: Path, *, text: bool = True) -> Path:
    """Write the official trees; the official files hold the numbers as text."""
    number = 0
    for split, rows in ROWS.items():
        for expression, valence, arousal in rows:
            write(root / f"{split}_set" / "images" / f"{number}.jpg", picture(10 * number))
            for kind, value in (("exp", expression), ("val", valence), ("aro", arousal), ("lnd", np.zeros(136))):
                annotation = str(value) if text and kind != "lnd" else value
                save(root / f"{split}_set" / "annotations" / f"{number}_{kind}.npy", annotation)
            number += 1
    return root


def older(root: Path, lists: str = "", images: str = "") -> Path:
    """Write the older layout: tables, and pictures in numbered folders."""
    number = 0
    for split, name in (("train", "training.csv"), ("val", "validation.csv")):
        lines = [HEADER]
        for expression, valence, arousal in [*ROWS[split], (8, 0, 0), (9, -2, -2), (10, -2, -2)]:
            lines.append((f"{number % 3}/{number}.png", 1, 2, 3, 4, "1.5;2.5", expression, valence, arousal))
            write(root / images / "Manually_Annotated_Images" / lines[-1][0], picture(10 * number))
            number += 1
        text = io.StringIO()
        csv.writer(text).writerows(lines)
        write(root / lists / name, text.getvalue().encode())
    return root


def load(path: Path, **options: object) -> Corpus:
    return load_corpus("affectnet", path, options={**SMALL, **options})


def reds(corpus: Corpus) -> list[int]:
    return corpus.images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("text", [True, False])
def test_the_official_trees_are_read(tmp_path: Path, text: bool):
    corpus = load(official(tmp_path / "AffectNet", text=text))
    assert corpus.classes == label_set("affectnet8")
    assert reds(corpus) == [0, 10, 20, 30, 40, 50, 60]
    assert [corpus.classes[i] for i in corpus.target] == [
        "neutral",
        "happy",
        "angry",
        "contempt",
        "happy",
        "surprise",
        "contempt",
    ]
    assert corpus.where("train").tolist() == [0, 1, 2, 3, 4]
    assert corpus.where("val").tolist() == [5, 6]
    expected = [row[1:] for rows in ROWS.values() for row in rows]
    assert corpus.rows.valence_arousal is not None
    assert corpus.rows.valence_arousal.dtype == np.float32
    np.testing.assert_allclose(corpus.rows.valence_arousal, expected, rtol=1e-6)
    assert corpus.skipped == ()


@pytest.mark.parametrize(("lists", "images"), [("", ""), ("Manually_Annotated_file_lists", ""), ("", "Manually_Annotated")])
def test_the_older_tables_are_read(tmp_path: Path, lists: str, images: str):
    corpus = load(older(tmp_path / "AffectNet", lists, images))
    assert reds(corpus) == [0, 10, 20, 30, 40, 80, 90]
    assert corpus.target.tolist() == [row[0] for rows in ROWS.values() for row in rows]
    assert corpus.where("val").tolist() == [5, 6]
    np.testing.assert_allclose(corpus.rows.valence_arousal[2], (-0.5, 0.8), rtol=1e-6)
    assert corpus.skipped == ()


def test_seven_classes_leave_contempt_out(tmp_path: Path):
    for corpus in (load(official(tmp_path / "a"), classes=7), load(older(tmp_path / "b"), classes=7)):
        assert corpus.classes == label_set("affectnet7")
        assert corpus.target.tolist() == [0, 1, 6, 1, 3]
        assert len(corpus.rows.valence_arousal) == 5
    with pytest.raises(DataError, match="classes is 6; choose 7 or 8"):
        load(tmp_path / "a", classes=6)


@pytest.mark.parametrize("layout", [official, older])
@pytest.mark.parametrize("around", ["", "AffectNet/"])
def test_an_archive_reads_like_its_folder(tmp_path: Path, layout, around: str):
    root = layout(tmp_path / "root")
    with zipfile.ZipFile(tmp_path / "root.zip", "w") as archive:
        for file in root.rglob("*"):
            archive.write(file, f"{around}{file.relative_to(root)}")
    folder, packed = load(root), load(tmp_path / "root.zip")
    assert packed.fingerprint == folder.fingerprint
    np.testing.assert_array_equal(packed.rows.valence_arousal, folder.rows.valence_arousal)


def test_pictures_are_stored_in_colour_at_224_px(tmp_path: Path):
    assert load_corpus("affectnet", official(tmp_path / "a")).images.shape == (7, 224, 224, 3)


def test_a_copy_without_val_is_read(tmp_path: Path):
    shutil.rmtree(official(tmp_path / "a") / "val_set")
    corpus = load(tmp_path / "a")
    assert len(corpus.where("train")) == 5
    with pytest.raises(DataError, match="has no image in the split 'val'"):
        corpus.where("val")


def test_a_picture_without_good_annotations_is_skipped_and_listed(tmp_path: Path):
    root = official(tmp_path / "a")
    notes = root / "train_set" / "annotations"
    (notes / "0_exp.npy").unlink()
    (notes / "1_val.npy").write_bytes(b"")
    (notes / "2_aro.npy").write_bytes((notes / "2_aro.npy").read_bytes()[:-3])
    (root / "train_set" / "images" / "4.jpg").write_bytes(b"no picture")
    corpus = load(root)
    assert reds(corpus) == [30, 50, 60]
    assert len(corpus.skipped) == 4
    whys = {
        "0_exp.npy": "No such file",
        "1_val.npy": "contains no number",
        "2_aro.npy": "contains no number",
        "4.jpg": "is not a picture",
    }
    for line, (file, why) in zip(corpus.skipped, whys.items(), strict=True):
        assert file in line
        assert why in line


@pytest.mark.parametrize("value", [11, -1, 1.5, "12", float("nan")])
def test_an_expression_out_of_range_is_named(tmp_path: Path, value: object):
    save(official(tmp_path / "a") / "val_set" / "annotations" / "5_exp.npy", value)
    with pytest.raises(DataError, match=r"5_exp\.npy: has the expression .*, not a whole number from 0 to 10"):
        load(tmp_path / "a")


@pytest.mark.parametrize("kind", ["val", "aro"])
@pytest.mark.parametrize("value", [-2, 1.01, "nan"])
def test_an_emotion_out_of_range_is_named(tmp_path: Path, kind: str, value: object):
    save(official(tmp_path / "a") / "val_set" / "annotations" / f"5_{kind}.npy", value)
    with pytest.raises(DataError, match=rf"5_{kind}\.npy: has the value .* from -1 to 1"):
        load(tmp_path / "a")


@pytest.mark.parametrize(("code", "emotion"), [(8, 0), (9, -2), (10, -2)])
def test_pictures_of_no_class_are_left_out(tmp_path: Path, code: int, emotion: int):
    root = official(tmp_path / "a")
    for kind, value in (("exp", code), ("val", emotion), ("aro", emotion)):
        save(root / "val_set" / "annotations" / f"5_{kind}.npy", str(value))
    assert reds(load(root)) == [0, 10, 20, 30, 40, 60]


@pytest.mark.parametrize(
    "value", ["3", b"3", 3, 3.0, [3], [["3"]], np.float32(3), np.int16(3), np.array("3", ">U4"), np.array(3, ">f8")]
)
def test_a_number_is_read_however_it_is_written(tmp_path: Path, value: object):
    assert read_number(save(tmp_path / "x.npy", value)) == 3


class Harm:
    """Leaves a mark if it is ever unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def test_what_is_no_number_is_refused_and_never_unpickled(tmp_path: Path):
    mark = tmp_path / "harm"
    np.save(tmp_path / "object.npy", np.array([Harm(mark)], object), allow_pickle=True)
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps(Harm(mark)))
    save(tmp_path / "two.npy", [1, 2])
    save(tmp_path / "word.npy", "happy")
    save(tmp_path / "none.npy", [])
    save(tmp_path / "long.npy", np.zeros(5000))
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }\n"
    (tmp_path / "huge.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    (tmp_path / "deep.npy").write_bytes(b"\x93NUMPY\x01\x00" + (2000).to_bytes(2, "little") + b"(" * 2000)
    for name in ("object", "pickle", "two", "word", "none", "long", "huge", "deep"):
        with pytest.raises(InputError, match=rf"{name}\.npy: "):
            read_number(tmp_path / f"{name}.npy")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0/9.png,1,2,3,4,,11,0,0", "row 9 has the expression 11"),
        ("0/9.png,1,2,3,4,,1.5,0,0", "row 9 has the expression 1.5"),
        (
            "0/9.png,1,2,3,4,,happy,0,0",
            r"row 9 has an expression, a valence or an arousal that is not a number \(happy, 0, 0\)",
        ),
        ("0/9.png,1,2,3,4,,1,2,0", "row 9 has the value 2"),
        (",1,2,3,4,,1,0,0", "row 9 has an empty subDirectory_filePath"),
        ("0/9.png,1,2", "row 9 has 3 fields, not 9"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: str, message: str):
    path = older(tmp_path / "a") / "training.csv"
    lines = path.read_text().splitlines()[:8]
    path.write_text("\n".join([*lines, row]))
    with pytest.raises(DataError, match=rf"training\.csv: {message}"):
        load(tmp_path / "a")


def test_a_picture_named_again_and_one_that_is_missing_are_skipped_and_listed(tmp_path: Path):
    path = older(tmp_path / "a") / "training.csv"
    again = "0/./0.png,1,2,3,4,,1,0,0"
    path.write_text(path.read_text() + f"{again}\n1/404.png,1,2,3,4,,1,0,0\n")
    corpus = load(tmp_path / "a")
    assert len(corpus.images) == 7
    assert "row 10 names 0/0.png again, after row 2" in corpus.skipped[0]
    assert "404.png: no such file" in corpus.skipped[1]


def test_what_is_no_affectnet_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="contains no AffectNet; expected train_set/images"):
        load(write(tmp_path / "a" / "happy" / "x.png", picture(1)).parents[1])
    path = older(tmp_path / "b") / "training.csv"
    path.write_text(path.read_text().replace("valence", "valense"))
    with pytest.raises(DataError, match=r"training\.csv: has no column 'valence'; did you mean 'valense'"):
        load(tmp_path / "b")
    shutil.rmtree(official(tmp_path / "c") / "train_set" / "annotations")
    shutil.rmtree(tmp_path / "c" / "val_set")
    with pytest.raises(
        DataError, match=r"contains no picture with annotations; the first left out: .*0_exp\.npy: cannot be read"
    ):
        load(tmp_path / "c")


def test_folders_are_listed_once_not_for_every_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A search of the folder for each picture would take hours for 287,401 of them."""
    root = official(tmp_path / "a")
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda *args: (listed.append(args), scandir(*args))[1])
    monkeypatch.setattr(os, "listdir", None)
    listing = read_affectnet(root)
    assert [Path(str(file)).name for file in listing.images] == [f"{i}.jpg" for i in range(7)]
    assert len(listed) == len(set(listed)) == 7


def test_a_picture_in_both_tables_stays_in_the_first_and_is_listed(tmp_path: Path):
    path = older(tmp_path / "a") / "validation.csv"
    path.write_text(path.read_text() + "1/../0/0.png,1,2,3,4,,0,0,0\n")
    corpus = load(tmp_path / "a")
    assert corpus.files.count("Manually_Annotated_Images/0/0.png") == 1
    assert corpus.rows.split.tolist() == [0] * 5 + [1] * 2
    (line,) = corpus.skipped
    assert line == f"{path}: row 7 names 0/0.png again, after {path.with_name('training.csv')}: row 2"


def test_two_copies_of_a_table_are_refused(tmp_path: Path):
    root = older(tmp_path / "a")
    (root / "Manually_Annotated_file_lists").mkdir()
    shutil.copy(root / "training.csv", root / "Manually_Annotated_file_lists")
    with pytest.raises(DataError, match=r"a/training\.csv and .*lists/training\.csv: two copies of one table; remove one"):
        load(root)
