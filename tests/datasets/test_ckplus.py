import re
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien.datasets import load_corpus
from mien.errors import DataError
from mien.labels import label_set

REAL = Path(__file__).parents[3] / "shared" / "data" / "ckplus48" / "CK+48.zip"

SEQUENCES = {("S005", "001", 11): 3, ("S010", "002", 5): 5, ("S010", "004", 6): 2, ("S999", "001", 4): 7}
"""Subject, sequence and frames of each labelled sequence: disgust, happy, contempt, surprise."""

WHOLE = {"faces": False, "size": 8}
"""Pictures are stored as they are, because these show no faces."""


def draw(path: Path, value: int, size: tuple[int, int] = (48, 48)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, value, np.uint8)).save(path)


def official(root: Path) -> Path:
    """Write the official tree; a frame's grey is its number."""
    for (subject, sequence, frames), label in {**SEQUENCES, ("S010", "003", 3): 0}.items():
        stem = f"{subject}_{sequence}"
        for number in range(1, frames + 1):
            draw(root / "cohn-kanade-images" / subject / sequence / f"{stem}_{number:08}.png", number, (49, 64))
        folder = root / "Emotion" / subject / sequence
        folder.mkdir(parents=True)  # an unlabelled sequence has an empty one
        if label:
            (folder / f"{stem}_{frames:08}_emotion.txt").write_text(f"   {label:.7e}\n")
    return root


def ck48(root: Path) -> Path:
    """Write the folder CK+48; a frame's grey is its number."""
    names = {3: "disgust", 5: "happy", 2: "contempt", 7: "surprise"}
    for (subject, sequence, frames), label in SEQUENCES.items():
        for number in range(frames - 2, frames + 1):
            draw(root / "CK+48" / names[label] / f"{subject}_{sequence}_{number:08}.png", number)
    return root


def ckextended(path: Path) -> Path:
    """Write a table with a row of each class in each split, its pixels all the class number."""
    usages = ("Training", "PublicTest", "PrivateTest")
    rows = [f"{label},{' '.join([str(label)] * 2304)},{usage}\n" for usage in usages for label in range(8)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("emotion,pixels,Usage\n" + "".join(rows))
    return path


def zipped(folder: Path) -> Path:
    path = folder.with_name("archive.zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
        archive.writestr("__MACOSX/CK+48/anger/._S010_004_00000017.png", b"resource fork")
        archive.writestr("__MACOSX/CK+48/anger/S010_004_00000017.png", b"another")
    return path


def litter(root: Path) -> None:
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
        (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
        (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
        (folder / "._S010_002_00000001.png").write_bytes(b"\0\5\x16\7")


def test_the_official_tree_gives_the_last_three_frames_of_each_labelled_sequence(tmp_path: Path):
    root = official(tmp_path / "CK+")
    litter(root)
    corpus = load_corpus("ckplus", root, options=WHOLE)
    assert corpus.classes == label_set("ckplus")
    assert corpus.splits == ("all",)
    assert corpus.images[:, 0, 0].tolist() == [9, 10, 11, 3, 4, 5, 4, 5, 6, 2, 3, 4]
    assert [corpus.classes[t] for t in corpus.target[::3]] == ["disgust", "happy", "contempt", "surprise"]
    assert corpus.rows.subjects == ("S005",) * 3 + ("S010",) * 6 + ("S999",) * 3
    assert corpus.rows.sequences[::3] == ("S005_001", "S010_002", "S010_004", "S999_001")
    assert corpus.origin(0) == "cohn-kanade-images/S005/001/S005_001_00000009.png"
    assert corpus.skipped == ()


def test_frames_and_neutral_choose_among_the_frames_of_a_sequence(tmp_path: Path):
    root = official(tmp_path / "CK+")
    corpus = load_corpus("ckplus", root, options=WHOLE | {"frames": 1})
    assert corpus.images[:, 0, 0].tolist() == [11, 5, 6, 4]
    corpus = load_corpus("ckplus", root, options=WHOLE | {"neutral": True})
    assert corpus.classes == (*label_set("ckplus"), "neutral")
    assert corpus.images[:, 0, 0].tolist() == [1, 9, 10, 11, 1, 3, 4, 5, 1, 4, 5, 6, 1, 2, 3, 4]
    assert [corpus.classes[t] for t in corpus.target[:5]] == ["neutral", "disgust", "disgust", "disgust", "neutral"]
    corpus = load_corpus("ckplus", root, options=WHOLE | {"neutral": True, "frames": 100})
    counts = Counter(zip(corpus.rows.sequences, corpus.images[:, 0, 0].tolist(), strict=True))
    assert len(counts) == 11 + 5 + 6 + 4
    assert set(counts.values()) == {1}  # no frame is neutral and expressive
    corpus = load_corpus("ckplus", root, options=WHOLE | {"neutral": True, "contempt": False})
    assert corpus.classes == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    assert "S010_004" not in corpus.rows.sequences


def test_a_sequence_of_one_frame_is_its_expression(tmp_path: Path):
    root = official(tmp_path / "CK+")
    for frame in (1, 2, 3):
        (root / "cohn-kanade-images" / "S999" / "001" / f"S999_001_{frame:08}.png").unlink()
    corpus = load_corpus("ckplus", root, options=WHOLE | {"neutral": True})
    assert corpus.classes[corpus.target[-1]] == "surprise"
    assert corpus.rows.subjects.count("S999") == 1


def test_faces_are_cut_out_of_the_official_pictures(tmp_path: Path):
    data = pytest.importorskip("skimage.data")
    root = official(tmp_path / "CK+")
    photo = Image.fromarray(data.astronaut())
    for number in (9, 10):
        photo.save(root / "cohn-kanade-images" / "S005" / "001" / f"S005_001_{number:08}.png")
    corpus = load_corpus("ckplus", root)
    assert corpus.images.shape == (2, 224, 224)
    assert corpus.rows.subjects == ("S005", "S005")
    assert len(corpus.skipped) == 10
    assert corpus.skipped[0].endswith("S005_001_00000011.png: no face was found in it")
    whole = np.asarray(photo.convert("L").resize((224, 224)), float)
    assert np.abs(corpus.images[0] - whole).mean() > 20  # it is a part of the photo


@pytest.mark.parametrize("layout", [official, ck48])
def test_a_zip_is_read_as_its_folder(tmp_path: Path, layout):
    folder = layout(tmp_path / "data")
    first, second = (load_corpus("ckplus", source, options=WHOLE) for source in (folder, zipped(folder)))
    assert len(first.images) == 12
    assert second.fingerprint == first.fingerprint
    assert (second.rows.subjects, second.rows.sequences) == (first.rows.subjects, first.rows.sequences)
    assert second.skipped == ()


def test_ck48_is_read_from_the_folder_and_from_above_it(tmp_path: Path):
    root = ck48(tmp_path / "data")
    litter(root)
    for source in (root, root / "CK+48"):
        corpus = load_corpus("ckplus", source)
        assert corpus.images.shape == (12, 48, 48)
        assert corpus.images[:, 0, 0].tolist() == [9, 10, 11, 3, 4, 5, 4, 5, 6, 2, 3, 4]
        assert [corpus.classes[t] for t in corpus.target[::3]] == ["disgust", "happy", "contempt", "surprise"]
        assert corpus.rows.sequences[::3] == ("S005_001", "S010_002", "S010_004", "S999_001")
    corpus = load_corpus("ckplus", root, options={"contempt": False, "frames": 2})
    assert corpus.classes == ("angry", "disgust", "fear", "happy", "sad", "surprise")
    assert corpus.images[:, 0, 0].tolist() == [10, 11, 4, 5, 3, 4]
    assert [corpus.classes[t] for t in corpus.target[::2]] == ["disgust", "happy", "surprise"]


def test_the_widths_of_numbers_do_not_make_two_subjects(tmp_path: Path):
    root = official(tmp_path / "CK+")
    for file in (root / "Emotion" / "S005" / "001").iterdir():
        file.rename(file.with_name("s5_1_11_emotion.txt"))
    for file in (root / "cohn-kanade-images" / "S005" / "001").iterdir():
        file.rename(file.with_name(f"S5_1_{int(file.stem[-8:])}.png"))  # by name, 9 stands after 10
    corpus = load_corpus("ckplus", root, options=WHOLE)
    assert corpus.rows.subjects[:4] == ("S005", "S005", "S005", "S010")
    assert corpus.rows.sequences[0] == "S005_001"
    assert corpus.images[:3, 0, 0].tolist() == [9, 10, 11]
    root = ck48(tmp_path / "data")
    draw(root / "CK+48" / "anger" / "S5_03_7.png", 7)
    corpus = load_corpus("ckplus", root)
    assert set(corpus.rows.subjects) == {"S005", "S010", "S999"}
    assert corpus.rows.sequences[3] == "S005_003"


def test_ckextended_has_its_own_order_of_classes(tmp_path: Path):
    path = ckextended(tmp_path / "ckextended.csv")
    written = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral", "contempt")
    for contempt in (True, False):
        for neutral in (True, False):
            asked = {"contempt": contempt, "neutral": neutral}
            kept = [name for name in written if asked.get(name, True)]
            corpus = load_corpus("ckplus", path, options=asked)
            assert sorted(corpus.classes) == sorted(kept)
            assert [corpus.classes[t] for t in corpus.target] == kept * 3
            assert corpus.images[:, 47, 47].tolist() == [written.index(name) for name in kept] * 3
            assert [len(corpus.where(split)) for split in ("train", "public_test", "private_test")] == [len(kept)] * 3
            assert corpus.rows.subjects == corpus.rows.sequences == ()
    assert load_corpus("ckplus", path).classes == label_set("ckplus")


def test_rows_of_ckextended_keep_their_numbers(tmp_path: Path):
    corpus = load_corpus("ckplus", ckextended(tmp_path / "ckextended.csv"), options={"contempt": False})
    numbers = [int(corpus.origin(row).removeprefix("row ")) for row in range(len(corpus.target))]
    assert numbers == [row for row in range(24) if row % 8 < 6]  # written in the table's own order, neutral and contempt last


def test_ckextended_may_lie_in_a_folder_or_an_archive(tmp_path: Path):
    path = ckextended(tmp_path / "data" / "ckextended.csv")
    first = load_corpus("ckplus", path)
    assert load_corpus("ckplus", tmp_path / "data").fingerprint == first.fingerprint
    assert load_corpus("ckplus", tmp_path).fingerprint == first.fingerprint  # one folder further down
    assert load_corpus("ckplus", zipped(tmp_path / "data")).fingerprint == first.fingerprint


def test_a_bad_row_of_ckextended_is_named(tmp_path: Path):
    path = ckextended(tmp_path / "ckextended.csv")
    path.write_text(path.read_text() + f"8,{' '.join(['0'] * 2304)},Training\n")
    with pytest.raises(DataError, match=r"ckextended\.csv: row 26 has the class '8'"):
        load_corpus("ckplus", path)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", "''"), ("happy", "'happy'"), ("3,0", "'3,0'"), ("nan", "'nan'"), ("inf", "'inf'"), ("0.0", "'0.0'"),
        ("8.0000000e+00", "'8.0000000e+00'"), ("3.5", "'3.5'"), ("-1", "'-1'"), ("3\n4", "'3\\n4'"),
    ],
)  # fmt: skip
def test_a_bad_label_file_is_named(tmp_path: Path, text: str, shown: str):
    root = official(tmp_path / "CK+")
    (root / "Emotion" / "S005" / "001" / "S005_001_00000011_emotion.txt").write_text(text)
    message = f"S005_001_00000011_emotion.txt: contains {shown}, not the number of an expression, 1 to 7"
    with pytest.raises(DataError, match=re.escape(message)):
        load_corpus("ckplus", root, options=WHOLE)
    assert not list((tmp_path / "cache").glob("*"))


def test_label_files_that_contradict_or_are_misnamed_are_named(tmp_path: Path):
    root = official(tmp_path / "CK+")
    extra = root / "Emotion" / "S005" / "001" / "S005_001_00000010_emotion.txt"
    extra.write_text("1.0")
    with pytest.raises(DataError, match=r"00000010_emotion\.txt and .*00000011_emotion\.txt both label the sequence S005_001"):
        load_corpus("ckplus", root)
    extra.rename(extra.with_name("copy_emotion.txt"))
    with pytest.raises(DataError, match=r"copy_emotion\.txt: is not named like"):
        load_corpus("ckplus", root)


def test_missing_sequences_and_broken_pictures_are_left_out_and_noted(tmp_path: Path):
    root = official(tmp_path / "CK+")
    images = root / "cohn-kanade-images"
    shutil.rmtree(images / "S010" / "002")
    (images / "S005" / "001" / "S005_001_00000010.png").write_bytes(b"")
    (images / "S005" / "001" / "notes.png").write_bytes(b"")
    for source in (root, zipped(root)):
        corpus = load_corpus("ckplus", source, options=WHOLE)
        assert corpus.images[:, 0, 0].tolist() == [9, 11, 4, 5, 6, 2, 3, 4]
        assert corpus.rows.sequences[:3] == ("S005_001", "S005_001", "S010_004")
        misnamed, missing, broken = corpus.skipped
        assert "notes.png: is not named like S005_001_00000011.png" in misnamed
        assert missing.endswith("S010_002_00000005_emotion.txt: the pictures of its sequence S010_002 are missing")
        assert "S005_001_00000010.png: is empty (0 bytes)" in broken


def test_a_tree_without_pictures_or_without_labels_is_named(tmp_path: Path):
    root = official(tmp_path / "CK+")
    with pytest.raises(DataError, match="none of its 4 labelled sequences has pictures; expected cohn-kanade-images/"):
        load_corpus("ckplus", root / "Emotion")
    with pytest.raises(DataError, match=r"001: is not a class of CK\+ .*expected .* with Emotion/S005/001/"):
        load_corpus("ckplus", root / "cohn-kanade-images")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: contains no CK\+; expected"):
        load_corpus("ckplus", tmp_path / "empty")
    draw(tmp_path / "other" / "anger" / "me.png", 1)
    with pytest.raises(DataError, match=r"contains no CK\+ \(1 entries are something else; the first: .*me\.png"):
        load_corpus("ckplus", tmp_path / "other")
    (tmp_path / "ck.zip").write_bytes(b"PK no archive")
    with pytest.raises(DataError, match=r"ck\.zip: is neither a folder nor a zip archive"):
        load_corpus("ckplus", tmp_path / "ck.zip")


def test_bad_folders_of_ck48_are_named(tmp_path: Path):
    root = ck48(tmp_path / "data")
    draw(root / "CK+48" / "joy" / "S011_001_00000001.png", 1)
    with pytest.raises(DataError, match=r"CK\+48/joy: is not a class of CK\+ \(angry, contempt"):
        load_corpus("ckplus", root)
    (root / "CK+48" / "joy").rename(root / "CK+48" / "fear")
    draw(root / "CK+48" / "fear" / "S005_001_00000008.png", 8)
    with pytest.raises(DataError, match=r"fear/S005_001_00000008\.png and .*give one sequence two expressions"):
        load_corpus("ckplus", root)
    (root / "CK+48" / "fear" / "S005_001_00000008.png").rename(root / "CK+48" / "fear" / "S005_001_00000009.png")
    with pytest.raises(DataError, match=r"S005_001_00000009\.png are the same frame; remove one"):
        load_corpus("ckplus", root)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 0}, "frames is 0"),
        ({"frames": "3"}, "frames is '3'"),
        ({"frames": True}, "frames is True"),
        ({"contempt": "no"}, "contempt is 'no'; give true or false"),
        ({"neutral": 1}, "neutral is 1"),
        ({"neutral": True}, "has no neutral frames"),
        ({"contemt": False}, "ckplus has no option 'contemt'"),
    ],
)
def test_bad_options_are_named(tmp_path: Path, options, message: str):
    with pytest.raises(DataError, match=message):
        load_corpus("ckplus", ck48(tmp_path / "data"), options=options)


def test_frames_of_a_table_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="does not name sequences"):
        load_corpus("ckplus", ckextended(tmp_path / "ckextended.csv"), options={"frames": 1})


@pytest.mark.skipif(not REAL.is_file(), reason="the real CK+48 is not next to this checkout")
def test_the_real_ck48():
    corpus = load_corpus("ckplus", REAL)
    assert corpus.images.shape == (981, 48, 48)
    counts = {"angry": 135, "contempt": 54, "disgust": 177, "fear": 75, "happy": 207, "sad": 84, "surprise": 249}
    assert dict(zip(corpus.classes, np.bincount(corpus.target).tolist(), strict=True)) == counts
    assert len(set(corpus.rows.subjects)) == 118
    assert set(Counter(corpus.rows.sequences).values()) == {3}
    assert len(set(corpus.rows.sequences)) == 327
    assert corpus.skipped == ()
    without = load_corpus("ckplus", REAL, options={"contempt": False})
    assert len(without.images) == 981 - 54
    assert "contempt" not in without.classes


@pytest.mark.parametrize(("layout", "above"), [(official, "cohn-kanade-images"), (ck48, "CK+48")])
def test_a_link_that_is_not_followed_is_listed(tmp_path: Path, layout, above: str):
    root = layout(tmp_path / "ck")
    (root / above / "again").symlink_to(root)
    corpus = load_corpus("ckplus", root, options=WHOLE)
    assert [line.split(": ")[0] for line in corpus.skipped] == [str(root / above / "again")]
