from __future__ import annotations

import contextlib
import csv
import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mien.datasets import apply_protocol, load_corpus
from mien.datasets.crops import UPRIGHT, View, face_views, largest_face, views
from mien.errors import DataError, OutputError
from mien.faces import create_detector
from mien.faces.crop import crop_face
from mien.prepare import Report, Settings, prepare
from mien.prepare.journal import Journal, Outcome
from mien.prepare.photos import _names, find_photos
from mien.prepare.run import PREPARE_FORMAT
from mien.structures import Face

ASTRONAUT = skimage.data.astronaut()  # NASA, public domain, 512 x 512
SMALL = Image.fromarray(ASTRONAUT).resize((256, 256))
FACE = Face([181, 65, 270, 178], 1.0)


def put(path: Path, picture: Image.Image = SMALL) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def content(folder: Path) -> dict[str, bytes]:
    """Every file in a folder, hidden ones too, and every folder; of the journal its rows."""
    found = {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"folder" for path in folder.rglob("*")}
    if ".prepare/journal.db" in found:
        rows = [sorted(query(folder, f"SELECT * FROM {table}")) for table in ("settings", "photos")]
        found[".prepare/journal.db"] = json.dumps(rows).encode()
    return found


def query(out: Path, command: str, *values: object) -> list[Any]:
    """Return the rows of a query of a folder's journal, or change the journal."""
    with contextlib.closing(sqlite3.connect(out / ".prepare" / "journal.db")) as journal, journal:
        return journal.execute(command, values).fetchall()


def pixels(picture: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(picture)


# The views


def test_the_paper_says_fifteen() -> None:
    assert set(views(15)) == {View(flip, angle) for flip in "nhv" for angle in (-10, -5, 0, 5, 10)}
    assert [len(views(number)) for number in (1, 5, 10, 15)] == [1, 5, 10, 15]
    assert all(views(number)[0] == UPRIGHT for number in (1, 5, 10, 15))
    with pytest.raises(DataError, match="1, 5, 10, 15 views, not 7"):
        views(7)


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("size", [40, 224])
def test_the_upright_view_is_the_crop_resized(size: int, grey: bool) -> None:
    crop = Image.fromarray(largest_face(ASTRONAUT)).convert("L" if grey else "RGB")
    (box,) = create_detector().detect(ASTRONAUT)
    for number in (1, 15):
        view = next(iter(face_views(ASTRONAUT, box, size, views(number), grey=grey)))
        assert np.array_equal(pixels(view), pixels(crop.resize((size, size), Image.Resampling.BILINEAR)))


def test_a_flip_of_a_flip_is_the_view_itself() -> None:
    shown = dict(zip(views(15), map(pixels, face_views(ASTRONAUT, FACE, 224, views(15))), strict=True))
    for angle in (-10, -5, 0, 5, 10):
        assert np.array_equal(shown[View("h", angle)][:, ::-1], shown[View("n", angle)])
        assert np.array_equal(shown[View("v", angle)][::-1], shown[View("n", angle)])
    assert len({picture.tobytes() for picture in shown.values()}) == 15


@pytest.mark.parametrize(("direction", "side"), [(0, 89), (60, 89), (135, 600)])
def test_views_are_turned_by_the_stated_angle(direction: float, side: int) -> None:
    """A ramp's slope has a direction and a length: turned, the one changes by the angle and the other stays."""
    y, x = np.mgrid[:800, :800] - 399.5
    c, s = np.cos(np.radians(direction)), np.sin(np.radians(direction))
    ramp = np.round(127.5 + (120 / 800) * (c * x + s * y)).astype(np.uint8)
    face = Face([400 - side / 2, 400 - side / 2, 400 + side / 2, 400 + side / 2], 1.0)
    slopes = {}
    for view, picture in zip(views(5), face_views(np.stack([ramp] * 3, axis=2), face, 224, views(5), grey=True), strict=True):
        down, right = np.mgrid[:224, :224] - 111.5
        plane = np.stack([right.ravel(), down.ravel(), np.ones(224 * 224)], axis=1)
        slopes[view.degrees] = np.linalg.lstsq(plane, pixels(picture).ravel().astype(float))[0]
    for angle, (across, down, middle) in slopes.items():
        turned = np.degrees(np.arctan2(-down, across)) - np.degrees(np.arctan2(-slopes[0][1], slopes[0][0]))
        assert (turned + 180) % 360 - 180 == pytest.approx(angle, abs=0.15)  # counter-clockwise, as one looks at it
        assert np.hypot(across, down) == pytest.approx(np.hypot(*slopes[0][:2]), rel=0.01)
        assert middle == pytest.approx(slopes[0][2], abs=0.3)


@pytest.mark.parametrize("box", [(181, 65, 270, 178), (-20, -30, 60, 70), (440, 450, 530, 560), (0, 0, 512, 512)])
def test_no_view_has_empty_corners(box: tuple[int, int, int, int]) -> None:
    bright = np.maximum(ASTRONAUT, 100)
    shown = list(face_views(bright, Face(box, 1.0), 224, views(15)))
    assert min(pixels(picture).min() for picture in shown) >= 100
    assert pixels(shown[0].rotate(10)).min() == 0  # what turning the finished picture leaves


@settings(max_examples=60, deadline=None)
@given(
    left=st.floats(-40, 500), top=st.floats(-40, 500), width=st.floats(9, 300), height=st.floats(9, 300)
)  # fmt: skip
def test_turned_views_have_the_upright_ones_frame(left: float, top: float, width: float, height: float) -> None:
    """A whole turn goes the way of the turned views and must change nothing, where one px of the photo is one of the view."""
    face = Face([left, top, left + width, top + height], 1.0)
    crop = crop_face(ASTRONAUT, face, 0.95)
    (whole,) = face_views(ASTRONAUT, face, len(crop), [View("n", 360)])
    assert np.array_equal(pixels(whole), crop)


# The names


NAMES = st.tuples(
    st.sampled_from(["", "x/", "X/"]),
    st.text("aA~2h+05.é", min_size=1, max_size=7).filter(lambda name: name[0] != "."),
    st.sampled_from([".jpg", ".png", ".JPG"]),
)


@settings(max_examples=100, deadline=None)
@given(st.sets(NAMES.map("".join)))
def test_no_two_pictures_share_a_name(found: set[str]) -> None:
    paths = [PurePosixPath(name) for name in sorted(found)]
    faces = ((0.0, 0.0, 9.0, 9.0, 1.0),) * 2
    names = [name for target in _names(paths) for name in Outcome("", "", target, 15, faces).picture_names(".png")]
    assert len({name.casefold() for name in names}) == 30 * len(paths)
    assert all(PurePosixPath(name).parent in {path.parent for path in paths} for name in names)


def test_photos_of_one_name_keep_their_suffix(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "b.jpg", "a.jpg.png", "c~h+05.png", "d~2.png", "e.f.png", "sub/a.png", f"{'long' * 60}.png"):
        put(tmp_path / "photos" / "happy" / name)
    prepare(tmp_path / "photos", tmp_path / "out", Settings(size=32, min_face=20))
    found = sorted(path.name for path in (tmp_path / "out" / "happy").iterdir())
    (long,) = [name for name in found if name.startswith("long")]
    assert len(long) < 60
    expected = ["a.jpg.png", "a.jpg.png.png", "a.png.png", "b.png", "c~h+05.png.png", "d~2.png.png", "e.f.png", "sub", long]
    assert found == sorted(expected)
    assert (tmp_path / "out" / "happy" / "sub" / "a.png").exists()
    assert {row["source"]: row["path"] for row in rows(tmp_path / "out")}["happy/a.png"] == "happy/a.png.png"


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    put(tmp_path / "photos" / "happy" / "a.png")
    os.rename(tmp_path / "photos" / "happy" / "a.png", os.fsencode(tmp_path / "photos" / "happy") + b"/caf\xe9.png")  # noqa: PTH104
    put(tmp_path / "photos" / "happy" / 'quo"te,\n.png')
    report = prepare(tmp_path / "photos", tmp_path / "out", Settings(size=32, min_face=20))
    assert report.complete
    assert [(row["path"], row["source"]) for row in rows(tmp_path / "out")] == [
        ("happy/caf\ufffd.png", "happy/caf\\udce9.png"), ('happy/quo"te,\n.png', 'happy/quo"te,\n.png'),
    ]  # fmt: skip
    assert all((tmp_path / "out" / row["path"]).is_file() for row in rows(tmp_path / "out"))


# The folder


def test_only_training_photos_are_augmented(tmp_path: Path) -> None:
    for name in ("train/happy/a.png", "train/happy/deep/b.png", "val/sad/c.png", "test/happy/a.png", "test/sad/d.png"):
        put(tmp_path / "photos" / name)
    report = prepare(tmp_path / "photos", tmp_path / "out", Settings(min_face=20))
    assert report.complete
    assert (report.photos, report.faces, report.pictures) == (5, 5, 33)
    assert report.by_class == {"test": {"happy": 1, "sad": 1}, "train": {"happy": 30}, "val": {"sad": 1}}
    listed = rows(tmp_path / "out")
    copies = [row for row in listed if "~" in row["path"]]
    assert len(copies) == 28
    assert {row["split"] for row in copies} == {"train"}
    assert {row["path"].split("/")[0] for row in copies} == {"train"}
    for row in listed:
        assert Path(row["path"]).parts[:2] == Path(row["source"]).parts[:2] == (row["split"], row["label"])
        with Image.open(tmp_path / "out" / row["path"]) as picture:
            assert (picture.size, picture.mode, picture.format) == ((224, 224), "RGB", "PNG")
    assert json.loads((tmp_path / "out" / "report.json").read_text())["by_class"] == report.by_class


def test_the_manifest_says_where_the_face_was(tmp_path: Path) -> None:
    put(tmp_path / "photos" / "happy" / "a.png", Image.fromarray(ASTRONAUT))
    prepare(tmp_path / "photos", tmp_path / "out")
    (row,) = rows(tmp_path / "out")
    assert list(row) == ["path", "label", "split", "sequence", "source", "box", "score"]
    box = [float(edge) for edge in row["box"].split()]
    assert np.abs(np.array(box) - [181, 65, 270, 178]).max() < 8
    assert 0.5 < float(row["score"]) <= 1
    assert (row["path"], row["label"], row["split"], row["source"]) == ("happy/a.png", "happy", "all", "happy/a.png")


def test_a_name_that_is_a_formula_is_not_one_in_the_manifest(tmp_path: Path) -> None:
    put(tmp_path / "photos" / "=happy" / "@a.png", Image.fromarray(ASTRONAUT))
    prepare(tmp_path / "photos", tmp_path / "out")
    (row,) = rows(tmp_path / "out")
    assert (row["path"], row["label"], row["source"]) == ("./=happy/@a.png", "./=happy", "./=happy/@a.png")
    assert (tmp_path / "out" / row["path"]).is_file()


def test_the_folder_is_a_corpus_whose_folds_keep_copies_together(tmp_path: Path) -> None:
    pytest.importorskip("filelock", reason="corpora need the extra train")
    for i, expression in enumerate(("happy", "sad") * 3):
        put(tmp_path / "photos" / expression / f"{i}.png")
    prepare(tmp_path / "photos", tmp_path / "out", Settings(size=48, min_face=20, augment=10))
    corpus = load_corpus("manifest", tmp_path / "out" / "manifest.csv", options={"size": 48})
    assert (corpus.images.shape, corpus.splits, corpus.classes) == ((60, 48, 48, 3), ("train",), ("happy", "sad"))
    with Image.open(tmp_path / "out" / corpus.origin(17)) as picture:
        assert np.array_equal(pixels(picture), corpus.images[17])
    folds = [apply_protocol(corpus, {"name": "kfold", "folds": 3, "fold": fold, "by": "sequence"}) for fold in range(3)]
    for fold in folds:
        sides = [{corpus.rows.sequences[row] for row in fold.where(split)} for split in fold.splits]
        assert not set.intersection(*sides)


def test_without_split_folders_copies_are_asked_for_and_are_training(tmp_path: Path) -> None:
    put(tmp_path / "photos" / "happy" / "a.png")
    put(tmp_path / "photos" / "sad" / "a.png")
    report = prepare(tmp_path / "photos", tmp_path / "plain", Settings(min_face=20))
    assert report.by_class == {"all": {"happy": 1, "sad": 1}}
    report = prepare(tmp_path / "photos", tmp_path / "more", Settings(min_face=20, augment=5))
    assert report.by_class == {"train": {"happy": 5, "sad": 5}}
    assert sorted(row["path"] for row in rows(tmp_path / "more"))[:3] == [
        "train/happy/a.png", "train/happy/a~n+05.png", "train/happy/a~n+10.png",
    ]  # fmt: skip
    assert {row["split"] for row in rows(tmp_path / "more")} == {"train"}


def test_loose_photos_have_no_label(tmp_path: Path) -> None:
    put(tmp_path / "photos" / "a.png")
    prepare(tmp_path / "photos", tmp_path / "out", Settings(min_face=20, grey=True, jpeg=True, size=48))
    (row,) = rows(tmp_path / "out")
    assert (row["path"], row["label"], row["split"]) == ("a.jpg", "", "all")
    with Image.open(tmp_path / "out" / "a.jpg") as picture:
        assert (picture.size, picture.mode, picture.format) == ((48, 48), "L", "JPEG")


def montage() -> Image.Image:
    """Two astronauts, the right one larger, on grey."""
    sheet = Image.new("RGB", (900, 520), "grey")
    sheet.paste(Image.fromarray(ASTRONAUT).resize((340, 340)), (10, 100))
    sheet.paste(Image.fromarray(ASTRONAUT), (380, 4))
    return sheet


def test_all_faces_or_the_largest(tmp_path: Path) -> None:
    put(tmp_path / "photos" / "train" / "happy" / "both.png", montage())
    one = prepare(tmp_path / "photos", tmp_path / "one", Settings(augment=1))
    two = prepare(tmp_path / "photos", tmp_path / "two", Settings(augment=5, all_faces=True))
    assert (one.pictures, two.pictures) == (1, 10)
    (largest,) = rows(tmp_path / "one")
    assert float(largest["box"].split()[0]) > 380
    paths = [row["path"] for row in rows(tmp_path / "two")]
    assert (paths[0], paths[5], paths[6]) == ("train/happy/both.png", "train/happy/both~2.png", "train/happy/both~2~n-10.png")
    assert float(rows(tmp_path / "two")[5]["box"].split()[0]) < 340
    assert (tmp_path / "one" / paths[0]).read_bytes() == (tmp_path / "two" / paths[0]).read_bytes()


def test_turned_and_small_faces(tmp_path: Path) -> None:
    turned = Image.fromarray(ASTRONAUT).rotate(20, Image.Resampling.BICUBIC, center=(225, 120))
    put(tmp_path / "photos" / "turned.png", turned)
    put(tmp_path / "photos" / "small.png", SMALL.resize((96, 96)))  # its face is 21 px high
    assert prepare(tmp_path / "photos", tmp_path / "out").no_face == ("small.png",)
    assert prepare(tmp_path / "photos", tmp_path / "fine", Settings(min_face=20)).complete


def bad_photos(folder: Path) -> None:
    put(folder / "good.png")
    put(folder / "cmyk.jpg", SMALL.convert("CMYK"))
    put(folder / "sixteen.png", Image.fromarray(pixels(SMALL.convert("L")).astype(np.uint16) * 257))
    put(folder / "blank.png", Image.new("RGB", (200, 200)))
    put(folder / "tiny.png", Image.new("RGB", (1, 1)))
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("no picture")
    whole = put(folder / "whole.jpg").read_bytes()
    (folder / "whole.jpg").unlink()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("not a photo")


def test_photos_without_a_face_and_broken_ones_are_named(tmp_path: Path) -> None:
    bad_photos(tmp_path / "photos" / "happy")
    (tmp_path / "photos" / "happy" / "loop").symlink_to(tmp_path / "photos")
    put(tmp_path / "photos" / "loose.png")
    report = prepare(tmp_path / "photos", tmp_path / "out", Settings(min_face=20), jobs=2)
    assert [row["source"] for row in rows(tmp_path / "out")] == ["happy/cmyk.jpg", "happy/good.png", "happy/sixteen.png"]
    assert report.no_face == ("happy/blank.png", "happy/tiny.png")
    assert list(report.unreadable) == ["happy/cut.jpg", "happy/empty.jpg", "happy/text.jpg"]
    assert report.unreadable["happy/empty.jpg"].startswith("is empty (0 bytes)")
    assert [line.split(":")[0] for line in report.skipped] == ["happy/loop", "loose.png"]
    assert not report.complete
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert written["unreadable"] == report.unreadable
    assert written["no_face"] == list(report.no_face)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "contains no photos"),
        (["train/happy/a.png", "happy/a.png"], "has the split folder 'train' next to 'happy'"),
        (["faces/train/happy/a.png"], r"faces: has the split folder 'train'; pass the folder"),
        (["faces/happy/a.png", "faces/sad/a.png"], r"its only folder, 'faces', contains folders and no photos; pass .*faces"),
    ],
)
def test_an_unknown_layout_is_named(tmp_path: Path, names: list[str], message: str) -> None:
    (tmp_path / "photos").mkdir()
    for name in names:
        put(tmp_path / "photos" / name)
    with pytest.raises(DataError, match=message):
        prepare(tmp_path / "photos", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_split_folders_go_by_other_names_too(tmp_path: Path) -> None:
    for name in ("Training/happy/a.png", "validation/happy/a.png", "PublicTest/happy/a.png", "test/a.png", "a.png"):
        put(tmp_path / name)
    skipped: list[str] = []
    found = {photo.name: (photo.split, photo.label) for photo in find_photos(tmp_path, skipped)}
    assert found == {
        "Training/happy/a.png": ("train", "happy"),
        "validation/happy/a.png": ("val", "happy"),
        "PublicTest/happy/a.png": ("public_test", "happy"),
    }
    assert skipped == [
        "a.png: is outside the folders that give the split",
        "test/a.png: is outside the folders that give the class",
    ]


# Running again


def photos(folder: Path, number: int = 4) -> Path:
    for i in range(number):
        put(folder / "train" / "happy" / f"{i}.png", SMALL.rotate(2 * i, center=(112, 60)))
    put(folder / "train" / "sad" / "blank.png", Image.new("RGB", (99, 99)))
    (folder / "train" / "sad" / "broken.png").write_text("no picture")
    put(folder / "test" / "happy" / "a.png", montage())
    return folder


QUICK = Settings(size=32, min_face=20, all_faces=True)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photos`, which no test changes, and `out`, what becomes of them."""
    folder = tmp_path_factory.mktemp("prepared")
    steps: list[tuple[int, int]] = []
    prepare(photos(folder / "photos"), folder / "out", QUICK, on_step=lambda *step: steps.append(step))
    assert steps == [(i, 7) for i in range(1, 8)]
    return folder


def test_two_jobs_write_what_one_does(tmp_path: Path, prepared: Path) -> None:
    prepare(prepared / "photos", tmp_path / "two", QUICK, jobs=2)
    assert content(prepared / "out") == content(tmp_path / "two")


def test_nothing_is_done_twice(tmp_path: Path, prepared: Path) -> None:
    source, out = prepared / "photos", Path(shutil.copytree(prepared / "out", tmp_path / "out"))
    first = prepare(source, out, QUICK)
    assert first.pictures == 62
    before, pictures = content(out), list(out.rglob("*.png"))
    stamps = [path.stat().st_mtime_ns for path in pictures]
    assert prepare(source, out, QUICK) == first
    assert content(out) == before
    assert [path.stat().st_mtime_ns for path in pictures] == stamps


@pytest.mark.parametrize("end", ["begun", "nothing", "lost picture", "no lists"])
def test_a_run_that_was_stopped_ends_in_the_same_folder(tmp_path: Path, prepared: Path, end: str) -> None:
    source, out = prepared / "photos", Path(shutil.copytree(prepared / "out", tmp_path / "out"))
    before = content(out)
    if end == "begun":  # photo 3 was being written: some pictures are there, one under the name it has while it is written
        key = json.dumps("train/happy/3.png")
        ((value,),) = query(out, "SELECT outcome FROM photos WHERE name = ?", key)
        begun = json.dumps(json.loads(value) | {"faces": [], "done": False})
        query(out, "UPDATE photos SET outcome = ? WHERE name = ?", begun, key)
        query(out, "DELETE FROM photos WHERE name > ?", key)
        (out / "train/happy/3~h+00.png").rename(out / "train/happy/.3~h+00-0a1b2c3d.png")
        (out / "report.json").rename(out / ".report-0a1b2c3d.json")
    elif end == "nothing":
        query(out, "DELETE FROM photos")
    elif end == "lost picture":
        (out / "train/happy/2~v-05.png").unlink()
    else:
        (out / "manifest.csv").unlink()
    prepare(source, out, QUICK)
    assert content(out) == before


@pytest.mark.parametrize("change", ["removed", "added", "changed", "mended", "moved"])
def test_a_folder_that_changed_is_followed(tmp_path: Path, change: str) -> None:
    source, out = photos(tmp_path / "photos"), tmp_path / "out"
    prepare(source, out, QUICK)
    kept = (out / "train/happy/3.png").stat().st_mtime_ns
    first = source / "train/happy/0.png"
    if change == "removed":
        shutil.rmtree(source / "test")
    elif change == "added":
        put(source / "train/happy/0.jpg", montage())  # now both keep their suffix
    elif change == "changed":
        put(first, montage())
    elif change == "mended":
        put(source / "train/sad/broken.png", montage())
    else:
        (source / "train/fear").mkdir()
        first.rename(source / "train/fear/0.png")
    prepare(source, out, QUICK)
    prepare(source, tmp_path / "fresh", QUICK)
    assert content(out) == content(tmp_path / "fresh")
    assert (out / "train/happy/3.png").stat().st_mtime_ns == kept


def finished(out: Path) -> list[Outcome]:
    """The photos that a preparation has finished; while it runs, its journal is locked."""
    found = [json.loads(value) for (value,) in query(out, "SELECT outcome FROM photos")]
    return [Outcome(**values | {"faces": tuple(map(tuple, values["faces"]))}) for values in found if values["done"]]


def children(parent: int) -> list[int]:
    """The running processes a process started, but not the one that only watches over what they share."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, above = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(above) == parent and state != "Z" and b"spawn_main" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def gone(process: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def until(condition: Callable[[], bool]) -> bool:
    ends = time.monotonic() + 120
    while not condition() and time.monotonic() < ends:
        time.sleep(0.01)
    return condition()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system does not show processes in /proc")
def test_killed_interrupted_and_run_again(tmp_path: Path) -> None:
    source, out = photos(tmp_path / "photos", 26), tmp_path / "out"
    options = ["--min-face", "20", "--jobs", "2", "--augment", "10"]
    command = [sys.executable, "-m", "mien", "prepare", source, "--out", out, *options]
    for number, (least, status) in enumerate([(2, -signal.SIGKILL), (5, 130), (8, 2)]):
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        # The turn before may have written as many, so the workers are waited for as well.
        pictures = 10 * (least + 4)  # two photos are in progress, and two may not be noted yet
        assert until(lambda: sum(1 for _ in out.rglob("[!.]*.png")) >= pictures and len(children(run.pid)) == 2)  # noqa: B023 (called before the next turn)
        workers = children(run.pid)
        assert len(workers) == 2
        if number == 0:
            run.kill()
        elif number == 1:
            os.killpg(run.pid, signal.SIGINT)  # what Ctrl-C does
        else:
            os.kill(workers[0], signal.SIGKILL)  # what a system without memory does
        shown = run.communicate(timeout=120)[1].decode()
        assert run.returncode == status, shown
        assert "Traceback" not in shown
        assert until(lambda: all(map(gone, workers)))  # noqa: B023
        assert not (out / "manifest.csv").exists()
    assert shown.startswith("error: a process was killed")
    done = finished(out)
    assert least <= len(done) < 29
    names = [name for outcome in done for name in outcome.picture_names(".png")]
    stamps = [(out / name).stat().st_mtime_ns for name in names]
    for picture in out.rglob("[!.]*.png"):
        with Image.open(picture) as whole:
            whole.load()
    prepare(source, out, Settings(augment=10, min_face=20))
    prepare(source, tmp_path / "fresh", Settings(augment=10, min_face=20))
    assert [(out / name).stat().st_mtime_ns for name in names] == stamps
    assert content(out) == content(tmp_path / "fresh")


# What is refused


def test_other_settings_or_photos_are_refused(tmp_path: Path) -> None:
    source, out = tmp_path / "photos", tmp_path / "out"
    put(source / "happy" / "a.png")
    put(tmp_path / "other" / "happy" / "a.png")
    prepare(source, out, QUICK)
    before = content(out)
    for changed, words in (
        (Settings(size=48, min_face=20, all_faces=True), "size 32, not 48"),
        (Settings(size=32, min_face=20, all_faces=True, augment=15), "augment 1, not 15"),
        (Settings(size=32, min_face=20), "all_faces True, not False"),
        (Settings(size=32, min_face=30, all_faces=True), "min_face 20.0, not 30.0"),
    ):
        with pytest.raises(OutputError, match=f"was made with {words}; name a new folder"):
            prepare(source, out, changed)
    with pytest.raises(OutputError, match="from another folder of photos"):
        prepare(tmp_path / "other", out, QUICK)
    assert content(out) == before
    (out / ".prepare" / "journal.db").write_bytes(b"not a database")
    with pytest.raises(OutputError, match=r"journal\.db is damaged; name a new folder"):
        prepare(source, out, QUICK)


def test_a_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    source, out = tmp_path / "photos", tmp_path / "out"
    put(source / "happy" / "a.png")
    put(out / "mine.png")
    before = content(out)
    with pytest.raises(OutputError, match="contains files that this version of mien prepare did not write"):
        prepare(source, out, QUICK)
    assert content(out) == before
    with pytest.raises(DataError, match="is inside the folder of photos"):
        prepare(source, source / "happy" / "out", QUICK)
    with pytest.raises(OutputError, match="choose another folder"):
        prepare(source, out / "mine.png", QUICK)
    with pytest.raises(DataError, match="is not a folder of photos"):
        prepare(out / "mine.png", tmp_path / "new", QUICK)


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "photos" / "happy" / "a.png")
    prepare(tmp_path / "photos", tmp_path / "out", QUICK)
    ((value,),) = query(tmp_path / "out", "SELECT value FROM settings WHERE name = 'photos'")
    settings = asdict(replace(QUICK, augment=1)) | {"photos": json.loads(value), "format": PREPARE_FORMAT}
    with (
        Journal(tmp_path / "out", settings),
        pytest.raises(OutputError, match="another mien prepare is writing to it"),
    ):
        prepare(tmp_path / "photos", tmp_path / "out", QUICK)
    assert isinstance(prepare(tmp_path / "photos", tmp_path / "out", QUICK), Report)


def test_a_picture_that_cannot_be_written_stops_the_run_which_can_resume(tmp_path: Path, prepared: Path) -> None:
    source, out = prepared / "photos", tmp_path / "out"
    shutil.copytree(prepared / "out" / ".prepare", out / ".prepare")
    query(out, "DELETE FROM photos")
    (out / "train" / "happy" / "3~h+05.png").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"3~h\+05\.png: is a folder"):
        prepare(source, out, QUICK, jobs=2)
    assert not (out / "manifest.csv").exists()
    (out / "train" / "happy" / "3~h+05.png").rmdir()
    prepare(source, out, QUICK, jobs=2)
    assert content(out) == content(prepared / "out")


@pytest.mark.parametrize(
    ("values", "message"),
    [({"size": 4}, "8 to 2,048"), ({"size": 5000}, "8 to 2,048"), ({"augment": 3}, "1, 5, 10, 15 views, not 3")],
)
def test_settings_that_are_not_possible(values: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Settings(**values)  # type: ignore[arg-type]


def test_no_jobs(tmp_path: Path) -> None:
    put(tmp_path / "photos" / "a.png")
    with pytest.raises(DataError, match="jobs is 0"):
        prepare(tmp_path / "photos", tmp_path / "out", jobs=0)


def test_marks_can_be_told_apart() -> None:
    marks = [f"{face}{view.mark}" for face, view in itertools.product(("", "~2"), views(15))]
    assert len(set(marks)) == 30
    assert View("v", -10).mark == "~v-10"
