import contextlib
import csv
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mien.datasets import load_corpus, tables
from mien.errors import DataError, MienError, OutputError, UnknownNameError
from mien.labels import label_set

REAL = Path(__file__).parents[3] / "shared" / "data" / "fer2013"
HEADER = "emotion,pixels,Usage\n"
PIXELS = " ".join(["7"] * 2304)


def write(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.write_text(header + "".join(f"{row}\n" for row in rows))
    return path


def test_csv_is_read_row_for_row(tmp_path: Path, fer2013_csv: Path):
    corpus = load_corpus("fer2013", fer2013_csv)
    with fer2013_csv.open() as file:
        rows = list(csv.DictReader(file))
    assert corpus.images.shape == (160, 48, 48)
    assert corpus.images.dtype == np.uint8
    for i in (0, 17, 159):
        assert corpus.images[i].ravel().tolist() == [int(v) for v in rows[i]["pixels"].split()]
        assert corpus.target[i] == int(rows[i]["emotion"])
    assert [len(corpus.where(split)) for split in ("train", "public_test", "private_test")] == [96, 32, 32]
    assert corpus.classes == label_set("fer2013")


def test_folders_are_read_by_name(tmp_path: Path):
    for part, file, value in (("train", "Training_1.png", 1), ("test", "PublicTest_2.png", 2), ("test", "any.png", 3)):
        folder = tmp_path / "faces" / part / "happy"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((48, 48), value, np.uint8)).save(folder / file)
    corpus = load_corpus("fer2013", tmp_path / "faces")
    for split, value in (("train", 1), ("public_test", 2), ("private_test", 3)):
        assert corpus.images[corpus.where(split)].max() == value
    assert set(corpus.target) == {3}


def put_in_tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def put_in_zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def reorder(table: bytes) -> bytes:
    """A fer2013.csv with the header and the columns of icml_face_data.csv."""
    rows = (line.split(b",") for line in table.splitlines()[1:])
    return b"emotion, Usage, pixels\n" + b"".join(b",".join((row[0], row[2], row[1])) + b"\n" for row in rows)


WRITERS: dict[str, Callable[[Path, bytes], object]] = {
    "icml_face_data.csv": lambda path, table: path.write_bytes(reorder(table)),
    "fer2013.csv.gz": lambda path, table: path.write_bytes(gzip.compress(table, 1)),
    "fer2013.csv.zip": lambda path, table: put_in_zip(path, {"fer2013.csv": table, "__MACOSX/._fer2013.csv": b"x"}),
    "archive.zip": lambda path, table: put_in_zip(path, {"fer2013/fer2013.csv": table}),
    "fer2013.tar.gz": lambda path, table: put_in_tar(
        path, {"fer2013/README": b"x", "fer2013/fer2013.csv": table, "fer2013/fer2013.bib": b"x"}
    ),
    "challenge.zip": lambda path, table: put_in_zip(
        path, {"example_submission.csv": b"x", "icml_face_data.csv": reorder(table), "test.csv": b"x", "train.csv": b"x"}
    ),
    "folder/fer2013.csv": lambda path, table: path.write_bytes(table),
    "folder/icml_face_data.csv.gz": lambda path, table: path.write_bytes(gzip.compress(reorder(table), 1)),
}


@pytest.mark.parametrize("name", list(WRITERS))
def test_the_table_reads_the_same_however_it_is_packed(tmp_path: Path, fer2013_csv: Path, name: str):
    path = tmp_path / "packed" / name
    path.parent.mkdir(parents=True)
    WRITERS[name](path, fer2013_csv.read_bytes())
    corpus = load_corpus("fer2013", path.parent if name.startswith("folder") else path)
    assert corpus.fingerprint == load_corpus("fer2013", fer2013_csv).fingerprint
    assert [file for file in (tmp_path / "packed").rglob("*") if file.is_file()] == [path], "nothing is unpacked beside it"


@pytest.mark.parametrize("above", ["", "fer2013/", "archive/fer2013/"])
def test_zipped_folders_read_as_the_folders_do(tmp_path: Path, above: str):
    files = {}
    for i, name in enumerate(("test/sad/PublicTest_2.png", "test/sad/x.png", "train/angry/a.png", "train/happy/b.PNG")):
        stream = io.BytesIO()
        Image.fromarray(np.full((48, 48), i, np.uint8)).save(stream, "png")
        files[name] = stream.getvalue()
        (tmp_path / "faces" / above / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "faces" / above / name).write_bytes(files[name])
    litter = {"__MACOSX/train/happy/._b.png": b"x", "readme.txt": b"x", above + "train/happy/notes.txt": b"x"}
    put_in_zip(tmp_path / "faces.zip", litter | {above + name: data for name, data in files.items()})
    corpus = load_corpus("fer2013", tmp_path / "faces.zip")
    assert corpus.images[:, 0, 0].tolist() == [2, 3, 0, 1]
    assert corpus.target.tolist() == [0, 3, 4, 4]
    assert corpus.rows.split.tolist() == [0, 0, 1, 2]
    assert not corpus.skipped
    assert load_corpus("fer2013", tmp_path / "faces").fingerprint == corpus.fingerprint


def test_a_link_back_to_the_folder_and_a_broken_picture_do_not_stop_the_reading(tmp_path: Path):
    folder = tmp_path / "faces" / "train" / "happy"
    folder.mkdir(parents=True)
    (folder / "loop").symlink_to(tmp_path / "faces")
    Image.fromarray(np.full((48, 48), 5, np.uint8)).save(folder / "a.png")
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:40])
    corpus = load_corpus("fer2013", tmp_path / "faces")
    assert corpus.files == ("train/happy/a.png",)
    assert len(corpus.skipped) == 2
    assert "loop: links to a folder that is read elsewhere or contains it" in corpus.skipped[0]
    assert "b.png" in corpus.skipped[1]


def test_two_copies_in_one_folder_are_refused(tmp_path: Path):
    for above in ("a", "b"):
        (tmp_path / "two" / above / "train" / "happy").mkdir(parents=True)
        (tmp_path / "two" / above / "train" / "happy" / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"in several places \(a, b\); pass one of them"):
        load_corpus("fer2013", tmp_path / "two")


def test_archives_that_cannot_be_read_are_named(tmp_path: Path, fer2013_csv: Path, monkeypatch: pytest.MonkeyPatch):
    put_in_zip(tmp_path / "several.zip", {"a.csv": b"x", "b.csv": b"x"})
    with pytest.raises(DataError, match=r"should contain one \.csv file, not 2 \(a\.csv, b\.csv\)"):
        load_corpus("fer2013", tmp_path / "several.zip")
    put_in_tar(tmp_path / "none.tar.gz", {"readme": b"x"})
    with pytest.raises(DataError, match=r"should contain one \.csv file, not 0"):
        load_corpus("fer2013", tmp_path / "none.tar.gz")
    put_in_tar(tmp_path / "whole.tar.gz", {"fer2013/fer2013.csv": fer2013_csv.read_bytes()})
    data = (tmp_path / "whole.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"cut\.tar\.gz: cannot be read"):
        load_corpus("fer2013", tmp_path / "cut.tar.gz")
    put_in_zip(tmp_path / "bomb.zip", {"fer2013.csv": HEADER.encode() + b"0" * 100_000})
    monkeypatch.setattr(tables, "MAX_TABLE", 50_000)
    with pytest.raises(DataError, match="unpacks to more than"):
        load_corpus("fer2013", tmp_path / "bomb.zip")


def test_the_cache_is_memory_mapped_and_never_stale(tmp_path: Path, fer2013_csv: Path):
    first = load_corpus("fer2013", fer2013_csv)
    again = load_corpus("fer2013", fer2013_csv)
    assert isinstance(again.images, np.memmap)
    assert again.fingerprint == first.fingerprint
    text = fer2013_csv.read_text()
    fer2013_csv.write_text(text + f"0,{PIXELS},Training\n")
    assert len(load_corpus("fer2013", fer2013_csv).images) == 161


def test_two_layouts_of_the_same_images_share_a_fingerprint(tmp_path: Path):
    first = load_corpus("fer2013", write(tmp_path / "a.csv", f"3,{PIXELS},Training"))
    (tmp_path / "b" / "train" / "happy").mkdir(parents=True)
    Image.fromarray(np.full((48, 48), 7, np.uint8)).save(tmp_path / "b" / "train" / "happy" / "x.png")
    assert load_corpus("fer2013", tmp_path / "b").fingerprint == first.fingerprint


def test_two_processes_may_build_the_cache_at_once(tmp_path: Path, fer2013_csv: Path):
    code = f"from mien.datasets import load_corpus; print(load_corpus('fer2013', {str(fer2013_csv)!r}).fingerprint)"
    environment = os.environ | {"MIEN_CACHE": str(tmp_path / "shared-cache")}
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) for _ in range(3)]
    assert len({run.communicate()[0] for run in runs}) == 1
    assert all(run.returncode == 0 for run in runs)
    assert len(list((tmp_path / "shared-cache").iterdir())) == 1


def test_twins_of_training_images_are_marked(tmp_path: Path):
    other = " ".join(["9"] * 2304)
    path = write(tmp_path / "t.csv", f"0,{PIXELS},Training", f"1,{PIXELS},PrivateTest", f"0,{other},PrivateTest")
    assert load_corpus("fer2013", path).twin_free("private_test").tolist() == [False, True]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"7,{PIXELS},Training", "row 3 has the class '7'"),
        (f"-1,{PIXELS},Training", "row 3 has the class '-1'"),
        (f"x,{PIXELS},Training", "row 3 has the class 'x'"),
        (f"0,{PIXELS[2:]},Training", "row 3 has 2,303 pixels"),
        (f"0,{PIXELS} 1,Training", "row 3 has 2,305 pixels"),
        (f"0,256 {PIXELS[2:]},Training", "row 3 has a pixel outside 0-255"),
        (f"0,-1 {PIXELS[2:]},Training", "row 3 has a pixel outside 0-255"),
        (f"0,a {PIXELS[2:]},Training", "row 3 has a pixel that is not a whole number"),
        (f"0,1.5 {PIXELS[2:]},Training", "row 3 has a pixel that is not a whole number"),
        (f"0,99999999999999999999 {PIXELS[2:]},Training", "row 3 has a pixel outside 0-255"),
        (f"0,{PIXELS},Testing", "row 3 has the Usage 'Testing'"),
        (f"0,{PIXELS}", "row 3 has 2 fields"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: str, message: str):
    path = write(tmp_path / "bad.csv", f"0,{PIXELS},Training", row)
    with pytest.raises(DataError, match=message):
        load_corpus("fer2013", path)
    assert not list((tmp_path / "cache").glob("*"))


def test_other_bad_sources_are_named(tmp_path: Path):
    with pytest.raises(DataError, match="no such file"):
        load_corpus("fer2013", tmp_path / "missing.csv")
    with pytest.raises(DataError, match="is not 'emotion,pixels,Usage'"):
        load_corpus("fer2013", write(tmp_path / "other.csv", "1;2", header="a;b\n"))
    with pytest.raises(DataError, match="contains no rows"):
        load_corpus("fer2013", write(tmp_path / "empty.csv"))
    with pytest.raises(UnknownNameError, match="did you mean 'fer2013'"):
        load_corpus("fer2031", tmp_path)
    (tmp_path / "f" / "train" / "joyful").mkdir(parents=True)
    (tmp_path / "f" / "train" / "joyful" / "x.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="is not a class of fer2013"):
        load_corpus("fer2013", tmp_path / "f")
    (tmp_path / "g" / "train" / "happy").mkdir(parents=True)
    (tmp_path / "g" / "train" / "happy" / "x.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"none of its 1 pictures can be used.*x\.png: is not a picture"):
        load_corpus("fer2013", tmp_path / "g")


def test_an_unwritable_cache_is_named(tmp_path: Path, fer2013_csv: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="MIEN_CACHE"):
        load_corpus("fer2013", fer2013_csv, cache=tmp_path / "file")


def test_an_absent_split_is_named(tmp_path: Path):
    corpus = load_corpus("fer2013", write(tmp_path / "a.csv", f"3,{PIXELS},Training"))
    with pytest.raises(DataError, match="has no image in the split 'public_test'"):
        corpus.where("public_test")
    with pytest.raises(DataError, match="its splits are train, public_test, private_test"):
        corpus.where("test")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes, headed: bool):
    path = tmp_path / "fuzz.csv"
    path.write_bytes((HEADER.encode() if headed else b"") + data)
    with contextlib.suppress(MienError):
        load_corpus("fer2013", path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    label=st.integers(-3, 9),
    count=st.sampled_from([0, 1, 2303, 2304, 2304, 2304, 2305]),
    changes=st.dictionaries(st.integers(0, 2303), st.integers(-5, 300) | st.integers(0, 255), max_size=5),
    usage=st.sampled_from(["Training", "PublicTest", "PrivateTest", "", "training"]),
)
def test_a_row_is_read_exactly_when_it_is_valid(tmp_path: Path, label: int, count: int, changes: dict[int, int], usage: str):
    values = [changes.get(i, i % 256) for i in range(count)]
    path = write(tmp_path / "row.csv", f"{label},{' '.join(map(str, values))},{usage}")
    valid = 0 <= label < 7 and len(values) == 2304 and all(0 <= v < 256 for v in values)
    valid = valid and usage in ("Training", "PublicTest", "PrivateTest")
    try:
        corpus = load_corpus("fer2013", path)
    except DataError:
        assert not valid
    else:
        assert valid
        assert corpus.images[0].ravel().tolist() == values


@pytest.mark.skipif(not REAL.is_dir(), reason="the real FER2013 is not next to this checkout")
def test_the_real_fer2013(tmp_path: Path):
    subprocess.run([sys.executable, REAL / "unpack.py", "csv", tmp_path], check=True)
    corpus = load_corpus("fer2013", tmp_path / "fer2013.csv")
    (tmp_path / "fer2013.csv").unlink()
    counts = {split: np.bincount(corpus.target[corpus.where(split)]).tolist() for split in corpus.splits}
    assert [sum(c) for c in counts.values()] == [28709, 3589, 3589]
    assert counts["private_test"] == [491, 55, 528, 879, 594, 416, 626]
    assert (~corpus.twin_free("private_test")).sum() == 288
    assert (~corpus.twin_free("public_test")).sum() == 280
    meta = json.loads(next((tmp_path / "cache").glob("*/meta.json")).read_text())
    assert meta["fingerprint"] == corpus.fingerprint


def put_faces(root: Path, *names: str) -> Path:
    """Write faces; the first digit in a name is its grey."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        grey = int(next(c for c in name if c.isdigit()))
        Image.fromarray(np.full((48, 48), grey, np.uint8)).save(root / name)
    return root


@pytest.mark.parametrize("val", ["val", "valid", "Validation", "PublicTest"])
def test_a_validation_folder_is_the_public_test(tmp_path: Path, val: str):
    root = put_faces(
        tmp_path / "faces", "train/happy/1.png", f"{val}/sad/2.png", "test/fear/3.png", f"{val}/sad/Training_4.png"
    )
    corpus = load_corpus("fer2013", root)
    assert {name: corpus.images[corpus.where(name), 0, 0].tolist() for name in corpus.splits} == {
        "train": [1, 4], "public_test": [2], "private_test": [3]
    }  # fmt: skip
    assert corpus.skipped == ()


def test_folders_of_every_split_may_be_spelt_in_full(tmp_path: Path):
    root = put_faces(tmp_path / "faces", "Training/happy/1.png", "PublicTest/sad/2.png", "PrivateTest/fear/3.png")
    assert load_corpus("fer2013", root).rows.split.tolist() == [0, 1, 2]


def test_a_folder_of_classes_that_is_no_split_is_refused(tmp_path: Path):
    root = put_faces(tmp_path / "faces", "data/train/happy/1.png", "data/extra/sad/2.png")
    with pytest.raises(
        DataError, match=r"data/extra contains folders of classes, but is not named like a split; rename it to train, val"
    ):
        load_corpus("fer2013", root)


def test_a_table_in_a_folder_in_the_folder_is_found(tmp_path: Path, fer2013_csv: Path):
    """`fer2013.tar.gz` unpacks to `fer2013/fer2013.csv`."""
    first = load_corpus("fer2013", fer2013_csv).fingerprint
    inner = tmp_path / "download" / "fer2013"
    inner.mkdir(parents=True)
    shutil.copy(fer2013_csv, inner / "fer2013.csv")
    (tmp_path / "download" / "notes").mkdir()
    assert load_corpus("fer2013", tmp_path / "download").fingerprint == first
    shutil.copytree(inner, tmp_path / "download" / "copy")
    with pytest.raises(DataError, match=r"contains copy/fer2013\.csv, fer2013/fer2013\.csv; pass one of them"):
        load_corpus("fer2013", tmp_path / "download")


def test_public_and_private_test_in_one_folder_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = ("train/happy/1.png", "test/sad/im2.png", "test/fear/im3.png")
    assert len(load_corpus("fer2013", put_faces(tmp_path / "faces", *names)).where("private_test")) == 2
    monkeypatch.setattr("mien.datasets.fer2013.PRIVATE_TEST", 1)
    with pytest.raises(DataError, match="has 2 pictures in private_test, but FER2013 has 1; those of PublicTest"):
        load_corpus("fer2013", put_faces(tmp_path / "more", *names, "test/fear/PublicTest_4.png"))


def test_pictures_that_lie_elsewhere_are_listed(tmp_path: Path):
    root = put_faces(tmp_path / "faces", "train/happy/1.png", "train/2.png", "train/sad/more/3.png", "notes/4.png", "5.png")
    corpus = load_corpus("fer2013", root)
    assert corpus.files == ("train/happy/1.png",)
    assert corpus.skipped == tuple(
        f"{name}: is not in a folder such as train/happy"
        for name in ("5.png", "notes/4.png", "train/2.png", "train/sad/more/3.png")
    )
