import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from mien.datasets import Corpus, load_corpus
from mien.datasets.files import SPLIT_NAMES
from mien.errors import DataError, LabelError
from mien.labels import label_set
from mien.prepare.photos import find_photos

SMALL = {"size": 6, "colour": False}


def draw(root: Path, *names: str) -> Path:
    """Write pictures; the first digit in a name is its grey in tens."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        grey = 10 * int(next(c for c in name if c.isdigit()))
        Image.fromarray(np.full((6, 6), grey, np.uint8)).save(root / name)
    return root


def load(path: Path, **options: object) -> Corpus:
    return load_corpus("folder", path, options={**SMALL, **options})


def greys(corpus: Corpus) -> list[int]:
    return corpus.images[:, 0, 0].tolist()


def pack(root: Path) -> Path:
    with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
        for file in sorted(root.rglob("*"), reverse=True):
            archive.write(file, file.relative_to(root))
    return root.with_suffix(".zip")


def test_classes_are_folders_in_alphabetical_order(tmp_path: Path):
    corpus = load(draw(tmp_path / "faces", "Surprised/1.png", "happiness/2.png", "happiness/3.png", "ANGER/4.png"))
    assert corpus.classes == ("angry", "happy", "surprise")
    assert corpus.splits == ("all",)
    assert greys(corpus) == [40, 10, 20, 30]
    assert corpus.target.tolist() == [0, 2, 1, 1]
    assert corpus.files == ("ANGER/4.png", "Surprised/1.png", "happiness/2.png", "happiness/3.png")
    assert corpus.skipped == ()


def test_two_spellings_of_an_accent_are_one_class(tmp_path: Path):
    """macOS writes the decomposed form, so train and test may come from two machines."""
    corpus = load(draw(tmp_path / "faces", "train/d\u00e9go\u00fbt/1.png", "test/de\u0301gou\u0302t/2.png", "test/joie/3.png"))
    assert corpus.classes == ("d\u00e9go\u00fbt", "joie")
    assert corpus.target.tolist() == [0, 0, 1]


def test_a_label_set_gives_the_order(tmp_path: Path):
    corpus = load(draw(tmp_path / "faces", "happy/1.png", "fear/2.png"), label_set="rafdb")
    assert corpus.classes == label_set("rafdb")
    assert [corpus.classes[i] for i in corpus.target] == ["fear", "happy"]


@pytest.mark.parametrize("val", ["val", "valid", "validation", "eval", "Val"])
def test_split_folders_are_splits_training_first(tmp_path: Path, val: str):
    names = ("test/sad/1.png", f"{val}/happy/2.png", "train/sad/3.png", "train/happy/4.png")
    corpus = load(draw(tmp_path / "faces", *names))
    assert corpus.splits == ("train", "val", "test")
    assert {split: greys(corpus)[corpus.where(split)[0]] for split in corpus.splits} == {"train": 40, "val": 20, "test": 10}
    assert corpus.classes == ("happy", "sad")


def test_deeper_folders_of_a_class_count_and_one_around_everything_does_not(tmp_path: Path):
    draw(tmp_path / "faces" / "data" / "v2", "happy/a/b/1.png", "happy/2.png", "sad/x/3.png")
    (tmp_path / "faces" / "data" / "v2" / "empty").mkdir()
    corpus = load(tmp_path / "faces")
    assert corpus.classes == ("happy", "sad")
    assert greys(corpus) == [20, 10, 30]
    assert [line.split("v2/")[1] for line in corpus.skipped] == ["empty: contains no picture"]


def test_the_only_class_is_no_folder_around_everything(tmp_path: Path):
    assert load(draw(tmp_path / "a", "happy/deep/1.png")).classes == ("happy",)
    assert load(draw(tmp_path / "b", "curious/1.png")).classes == ("curious",)
    assert load(draw(tmp_path / "c", "train/happy/1.png")).splits == ("train",)


def test_an_archive_reads_like_its_folder(tmp_path: Path):
    root = draw(tmp_path / "faces", "train/happy/1.png", "train/happy/b/2.png", "train/sad/3.png", "test/sad/4.png")
    folder, archive = load(root), load(pack(root))
    assert archive.fingerprint == folder.fingerprint
    assert archive.files == folder.files
    assert archive.classes == folder.classes


def test_pictures_are_stored_large_and_in_colour_unless_told(tmp_path: Path):
    root = draw(tmp_path / "faces", "happy/1.png")
    Image.new("RGB", (50, 30), (200, 10, 10)).save(root / "happy" / "2.png")
    corpus = load_corpus("folder", root)
    assert corpus.images.shape == (2, 224, 224, 3)
    assert corpus.images[1, 100, 100].tolist() == [200, 10, 10]
    assert load_corpus("folder", root, options={"size": [20, 30], "colour": False}).images.shape == (2, 20, 30)


def test_pictures_have_the_endings_that_recognition_knows(tmp_path: Path):
    pillow_heif.register_heif_opener()
    root = draw(tmp_path / "faces", "happy/1.jfif", "happy/2.png", "sad/3.JPE")
    Image.new("L", (30, 30), 40).save(root / "sad" / "4.heic", "HEIF", quality=100)
    assert load(root).files == ("happy/1.jfif", "happy/2.png", "sad/3.JPE", "sad/4.heic")


def test_a_picture_whose_plugin_is_missing_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pillow_heif.register_heif_opener()
    root = draw(tmp_path / "faces", "happy/1.png", "sad/2.png")
    Image.new("L", (30, 30), 40).save(root / "sad" / "4.jpg", "HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    corpus = load(root)
    assert corpus.files == ("happy/1.png", "sad/2.png")
    (line,) = corpus.skipped
    assert "sad/4.jpg: is HEIC; " in line


def test_what_is_left_out_is_listed(tmp_path: Path):
    root = draw(tmp_path / "faces", "happy/1.png", "sad/2.png", "loose3.png")
    (root / "happy" / "text.jpg").write_text("no picture")
    (root / "happy" / "empty.png").write_bytes(b"")
    (root / "happy" / "gone.png").symlink_to(root / "missing.png")
    (root / "happy" / "back").symlink_to(root)
    (root / "happy" / "notes.txt").write_text("not looked at")
    Image.effect_noise((64, 64), 50).save(root / "sad" / "cut.jpg")
    (root / "sad" / "cut.jpg").write_bytes((root / "sad" / "cut.jpg").read_bytes()[:-500])
    corpus = load(root)
    assert greys(corpus) == [10, 20]
    assert corpus.files == ("happy/1.png", "sad/2.png")
    expected = {
        "loose3.png": "is not in the folder of a class",
        "happy/back": "links to a folder that is read elsewhere",
        "happy/text.jpg": "is not a picture",
        "happy/empty.png": "is empty",
        "happy/gone.png": "no such file",
        "sad/cut.jpg": "corrupt or truncated",
    }
    found = {line.removeprefix(f"{root}/").split(": ", 1)[0]: line.split(": ", 1)[1] for line in corpus.skipped}
    assert found.keys() == expected.keys()
    for name, why in expected.items():
        assert why in found[name]


def test_a_class_may_be_a_link_out_of_the_folder_but_not_into_it(tmp_path: Path):
    root = draw(tmp_path / "faces", "happy/1.png", "sad/2.png")
    draw(tmp_path / "elsewhere", "3.png")
    (root / "fear").symlink_to(tmp_path / "elsewhere")
    (root / "angry").symlink_to(root / "happy")
    corpus = load(root)
    assert corpus.classes == ("fear", "happy", "sad")
    assert len(corpus.skipped) == 1


def test_a_name_that_is_no_text_is_read(tmp_path: Path):
    root = draw(tmp_path / "faces", "happy/1.png")
    try:
        shutil.copy(root / "happy" / "1.png", root / "happy" / "caf\udce9.png")  # Latin-1 on a disk of UTF-8
    except (OSError, UnicodeError):
        pytest.skip("this file system takes UTF-8 only")
    assert len(load(root).images) == 2


def test_bad_folders_are_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"hapy: is not a class of rafdb; did you mean 'happy'\?"):
        load(draw(tmp_path / "a", "hapy/1.png"), label_set="rafdb")
    with pytest.raises(LabelError, match="unknown label set 'rafd'; did you mean 'rafdb'"):
        load(tmp_path / "a", label_set="rafd")
    with pytest.raises(DataError, match="has the split folder 'train' next to 'happy'"):
        load(draw(tmp_path / "b", "train/happy/1.png", "happy/2.png"))
    for name in ("loose1.png", "happy/notes1.txt"):
        root = tmp_path / f"c{name[0]}"
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(b"x")
        with pytest.raises(DataError, match="contains no pictures under <class>"):
            load(root)
    with pytest.raises(DataError, match="neither a folder nor a zip archive"):
        load(draw(tmp_path / "d", "happy/1.png") / "happy" / "1.png")
    with pytest.raises(DataError, match="folder has no option 'labels'"):
        load(tmp_path / "a", labels="rafdb")


def test_every_spelling_of_a_split_is_known_to_the_reader_and_to_prepare(tmp_path: Path):
    for number, (word, split) in enumerate(SPLIT_NAMES.items()):
        root = draw(tmp_path / str(number), f"{word.title()}/happy/1.png", "Train/sad/2.png")
        assert split in load(root).splits
        assert {photo.split for photo in find_photos(root, [])} == {split, "train"}
