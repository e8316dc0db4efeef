import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien.datasets import Corpus, load_corpus
from mien.datasets.rafdb import read_attributes
from mien.errors import DataError
from mien.labels import label_set

LIST = "train_00001.jpg 5\ntrain_00002.jpg 1\ntrain_00003.jpg 7\ntest_0001.jpg 4\n"
"""In the official words: sad, surprise, neutral; happy."""


def draw(path: Path, value: int = 0, size: tuple[int, int] = (100, 100)) -> None:
    """Write a picture whose red tells it, and whose green and blue tell whether colour is kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = value, 255
    Image.fromarray(pixels).save(path, quality=100, subsampling=0)


def official(root: Path, text: str = LIST) -> Path:
    (root / "EmoLabel").mkdir(parents=True)
    (root / "EmoLabel" / "list_patition_label.txt").write_text(text)
    for i, line in enumerate(LIST.split("\n")[:-1]):
        draw(root / "Image" / "aligned" / f"{line.split('.')[0]}_aligned.jpg", 50 * i)
    return root


def kaggle(root: Path) -> Path:
    for i, line in enumerate(LIST.split("\n")[:-1]):
        name, label = line.split()
        draw(root / "DATASET" / name.split("_")[0] / label / f"{name.split('.')[0]}_aligned.jpg", 50 * i)
    (root / "train_labels.csv").write_text("image,label\ntrain_00001_aligned.jpg,5\n")
    return root


def zipped(folder: Path) -> Path:
    path = folder.with_name("archive.zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
        archive.writestr("__MACOSX/DATASET/train/5/._train_00001_aligned.jpg", b"resource fork")
    return path


def assert_all_four(corpus: Corpus) -> None:
    assert corpus.classes == label_set("rafdb")
    assert corpus.splits == ("train", "test")
    assert corpus.images.shape == (4, 100, 100, 3)
    assert [corpus.classes[t] for t in corpus.target] == ["sad", "surprise", "neutral", "happy"]
    assert corpus.rows.split.tolist() == [0, 0, 0, 1]
    assert np.abs(corpus.images[:, 50, 50].astype(int) - [[50 * i, 255, 0] for i in range(4)]).max() <= 2
    assert corpus.skipped == ()


def test_the_official_tree(tmp_path: Path):
    corpus = load_corpus("rafdb", official(tmp_path / "basic"))
    assert_all_four(corpus)
    assert corpus.origin(3) == "Image/aligned/test_0001_aligned.jpg"


def test_the_official_tree_beside_the_compound_part_and_litter(tmp_path: Path):
    root = tmp_path / "RAF-DB"
    official(root / "basic")
    official(root / "compound", "train_0001.jpg 11\n")
    (root / "basic" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (root / "basic" / "Image" / "aligned" / "Thumbs.db").write_bytes(b"\xd0\xcf")
    corpus = load_corpus("rafdb", root)
    assert_all_four(corpus)
    assert corpus.origin(0).startswith("basic/")


def test_the_kaggle_tree(tmp_path: Path):
    root = kaggle(tmp_path / "raf")
    (root / "DATASET" / "train" / ".DS_Store").write_bytes(b"x")
    (root / "DATASET" / "train" / "5" / "Thumbs.db").write_bytes(b"x")
    for source in (root, root / "DATASET"):
        corpus = load_corpus("rafdb", source)
        assert sorted(corpus.images[:, 50, 50, 0].tolist()) == pytest.approx([0, 50, 100, 150], abs=2)
        assert [corpus.classes[t] for t in corpus.target] == ["surprise", "sad", "neutral", "happy"]
        assert corpus.rows.split.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("layout", [official, kaggle])
def test_a_zip_is_read_as_its_folder(tmp_path: Path, layout):
    folder = layout(tmp_path / "raf")
    assert load_corpus("rafdb", zipped(folder)).fingerprint == load_corpus("rafdb", folder).fingerprint


def test_the_list_may_come_from_windows_and_be_spelt_rightly(tmp_path: Path):
    root = official(tmp_path / "raf")
    labels = root / "EmoLabel" / "list_patition_label.txt"
    labels.write_bytes(b"\xef\xbb\xbf" + LIST.replace("\n", " \r\n").encode() + b"\r\n")
    labels.rename(labels.with_name("list_partition_label.txt"))
    assert_all_four(load_corpus("rafdb", root))


def test_missing_and_broken_pictures_are_left_out_and_noted(tmp_path: Path):
    root = official(tmp_path / "raf")
    aligned = root / "Image" / "aligned"
    (aligned / "train_00002_aligned.jpg").unlink()
    whole = (aligned / "train_00003_aligned.jpg").read_bytes()
    (aligned / "train_00003_aligned.jpg").write_bytes(whole[: len(whole) // 2])
    for source in (root, zipped(root)):
        corpus = load_corpus("rafdb", source)
        assert [corpus.classes[t] for t in corpus.target] == ["sad", "happy"]
        missing, broken = corpus.skipped
        assert missing.endswith("list_patition_label.txt: row 2: Image/aligned/train_00002_aligned.jpg is missing")
        assert "train_00003_aligned.jpg: is corrupt" in broken


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("train_00009.jpg 0", "row 5 has the class '0', not a number from 1 to 7"),
        ("train_00009.jpg 8", "row 5 has the class '8'"),
        ("train_00009.jpg -1", "row 5 has the class '-1'"),
        ("train_00009.jpg 5.0", "row 5 has the class '5.0'"),
        ("train_00009.jpg ٣", "row 5 has the class '٣'"),
        ("train_00009.jpg happy", "row 5 has the class 'happy'"),
        ("train_00009.jpg", "row 5 has 1 fields"),
        ("train_00009.jpg 1 2", "row 5 has 3 fields"),
        ("val_00009.jpg 1", "row 5 names 'val_00009.jpg'"),
        ("train_../../../secret.jpg 1", "row 5 names"),
        ("train_00002.jpg 1", r"list_patition_label\.txt: rows 2 and 5 both name train_00002\.jpg"),
        ("train_00002.jpg 6", "rows 2 and 5 both name"),
    ],
)
def test_a_bad_row_of_the_list_is_named(tmp_path: Path, row: str, message: str):
    with pytest.raises(DataError, match=message):
        load_corpus("rafdb", official(tmp_path / "raf", f"{LIST}{row}\n"))


def test_other_bad_sources_are_named(tmp_path: Path):
    root = official(tmp_path / "raf")
    (root / "Image" / "aligned").rename(root / "Image" / "original")
    with pytest.raises(DataError, match=r"none of the 4 pictures .* is in Image/aligned; unpack aligned\.zip there"):
        load_corpus("rafdb", root)
    (root / "EmoLabel" / "list_patition_label.txt").write_text("\n")
    with pytest.raises(DataError, match=r"list_patition_label\.txt: contains no rows"):
        load_corpus("rafdb", root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="contains no RAF-DB; expected EmoLabel/"):
        load_corpus("rafdb", tmp_path / "empty")
    (tmp_path / "raf.zip").write_bytes(b"PK no archive")
    with pytest.raises(DataError, match=r"raf\.zip: is neither a folder nor a zip archive"):
        load_corpus("rafdb", tmp_path / "raf.zip")


def test_an_unknown_folder_is_named(tmp_path: Path):
    root = kaggle(tmp_path / "raf")
    draw(root / "DATASET" / "test" / "8" / "x.jpg")
    with pytest.raises(DataError, match=r"DATASET/test/8: is not a class of RAF-DB; its folders are named 1 to 7"):
        load_corpus("rafdb", root)


def test_two_copies_are_not_read_as_one(tmp_path: Path):
    kaggle(tmp_path / "raf" / "a")
    kaggle(tmp_path / "raf" / "b")
    with pytest.raises(DataError, match=r"contains several copies \(a/DATASET, b/DATASET\)"):
        load_corpus("rafdb", tmp_path / "raf")
    official(tmp_path / "two" / "a")
    official(tmp_path / "two" / "b")
    with pytest.raises(DataError, match="contains several lists of labels"):
        load_corpus("rafdb", tmp_path / "two")


def test_a_damaged_list_in_an_archive_is_named(tmp_path: Path):
    path = zipped(official(tmp_path / "raf"))
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("EmoLabel/list_patition_label.txt")
    data = bytearray(path.read_bytes())
    data[info.header_offset + 30 + len(info.filename)] ^= 0xFF  # its checksum no longer holds
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"list_patition_label\.txt: cannot be read \(Bad CRC-32"):
        load_corpus("rafdb", path)


@pytest.mark.parametrize("layout", [official, kaggle])
def test_a_link_that_is_not_followed_is_listed(tmp_path: Path, layout):
    root = layout(tmp_path / "raf")
    (root / "again").symlink_to(root)
    (root / "lost").symlink_to(tmp_path / "nowhere")
    corpus = load_corpus("rafdb", root)
    assert len(corpus.images) == 4
    assert [line.removeprefix(f"{root}/") for line in corpus.skipped] == [
        "again: links to a folder that is read elsewhere or contains it; not followed",
        "lost: is a broken link",
    ]


def test_pictures_in_no_split_are_listed(tmp_path: Path):
    root = kaggle(tmp_path / "raf")
    draw(root / "DATASET" / "val" / "3" / "x.jpg")
    draw(root / "cover.png")
    corpus = load_corpus("rafdb", root)
    assert len(corpus.images) == 4
    assert corpus.skipped == (
        "DATASET/val/3/x.jpg: is not in a folder such as train/1 or test/1",
        "cover.png: is not in a folder such as train/1 or test/1",
    )


LANDMARKS = "36.5\t45.2\n66.1\t44.8\n51.0\t60.3\n38.9\t77.5\n63.2\t78.0\n"


def annotate(root: Path, names: list[str], text: str) -> None:
    """Write files of `Annotation/manual` as manual.zip contains them."""
    (root / "Annotation" / "manual").mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / "Annotation" / "manual" / f"{name}_manu_attri.txt").write_text(text)


@pytest.mark.parametrize("layout", [official, kaggle])
def test_gender_race_and_age_are_read(tmp_path: Path, layout):
    root = layout(tmp_path / "raf")
    annotate(root, ["train_00001", "test_0001"], f"{LANDMARKS}0\n1\n4\n")
    annotate(root, ["train_00002"], f"{LANDMARKS}2\r\n0\r\n1\r\n")  # and none of train_00003
    annotate(root / "compound", ["train_00003"], f"{LANDMARKS}1\n1\n1\n")
    for source in (root, zipped(root)):
        files = load_corpus("rafdb", root).files
        found = read_attributes(source, files, ["age", "gender", "race"])
        people = dict(zip(files, zip(found["gender"], found["race"], found["age"], strict=True), strict=True))
        by_name = {Path(file).stem.removesuffix("_aligned"): person for file, person in people.items()}
        assert by_name == {
            "train_00001": ("male", "African-American", "70+"),
            "train_00002": ("unsure", "Caucasian", "4-19"),
            "train_00003": ("", "", ""),
            "test_0001": ("male", "African-American", "70+"),
        }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{LANDMARKS}0\n3\n1\n", "has the race '3', not a number from 0 to 2"),
        (f"{LANDMARKS}0\n1\n5\n", "has the age '5', not a number from 0 to 4"),
        (f"{LANDMARKS}0\n1\n", r"has 7 lines, not 8 \(five landmarks, then gender, race and age\)"),
    ],
)
def test_bad_annotations_are_named(tmp_path: Path, text: str, message: str):
    root = official(tmp_path / "raf")
    files = load_corpus("rafdb", root).files
    with pytest.raises(DataError, match=r"contains no Annotation/manual; unpack RAF-DB's manual\.zip there to group by age"):
        read_attributes(root, files, ["age"])
    with pytest.raises(DataError, match="rafdb has no column 'agee'; did you mean 'age'"):
        read_attributes(root, files, ["agee"])
    annotate(root, ["train_00001"], text)
    with pytest.raises(DataError, match=rf"train_00001_manu_attri\.txt: {message}"):
        read_attributes(root, files, ["age"])
