import contextlib
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mien.datasets import load_corpus
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
        (f"0,99999999999999999999 {PIXELS[2:]},Training", "row 3 has a pixel that is not a whole number"),
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
    with pytest.raises(DataError, match="holds no rows"):
        load_corpus("fer2013", write(tmp_path / "empty.csv"))
    with pytest.raises(UnknownNameError, match="did you mean 'fer2013'"):
        load_corpus("fer2031", tmp_path)
    (tmp_path / "f" / "train" / "joyful").mkdir(parents=True)
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
    with pytest.raises(DataError, match="holds no image of the split 'public_test'"):
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


@pytest.mark.skipif(not REAL.is_dir(), reason="the real FER2013 does not lie beside this checkout")
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
