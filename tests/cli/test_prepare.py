from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two training photos and a test photo."""
    data = pytest.importorskip("skimage.data")
    picture = Image.fromarray(data.astronaut()).resize((256, 256))
    for name in ("train/happy/a.png", "train/sad/b.png", "test/happy/c.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / "photos" / name)
    return tmp_path / "photos"


@pytest.fixture
def mien(command: Command) -> Command:
    """Run `mien prepare`."""
    return partial(command, "prepare")


def one_line_error(result: tuple[int, str, str], *words: str) -> None:
    status, out, err = result
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert all(word in err for word in words), err


def test_as_the_paper_does(mien, photos: Path, tmp_path: Path) -> None:
    status, out, err = mien(photos, "--out", tmp_path / "out")
    assert (status, err) == (0, "")
    assert out == f"wrote 31 pictures of 3 faces from 3 photos to {tmp_path / 'out'}\n"
    with (tmp_path / "out" / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 31
    for row in rows:
        with Image.open(tmp_path / "out" / row["path"]) as picture:
            assert (picture.size, picture.mode) == ((224, 224), "RGB")


def test_every_option_reaches_the_settings(mien, photos: Path, tmp_path: Path) -> None:
    options = ["--size", "40", "--augment", "5", "--all-faces", "--grey", "--jpeg", "--min-face", "24", "--jobs", "1"]
    assert mien(photos, "--out", tmp_path / "out", *options)[0] == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["settings"] == {
        "size": 40, "augment": 5, "all_faces": True, "grey": True, "jpeg": True, "min_face": 24.0,
    }  # fmt: skip
    with Image.open(tmp_path / "out" / "train" / "sad" / "b~n-05.jpg") as picture:
        assert (picture.size, picture.mode) == ((40, 40), "L")


def test_photos_without_a_face_are_named_and_the_status_says_so(mien, photos: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((90, 90), np.uint8)).save(photos / "train" / "sad" / "blank.png")
    (photos / "test" / "happy" / "empty.jpg").touch()
    for i in range(10):
        (photos / "test" / "sad" / f"{i}.jpg").parent.mkdir(exist_ok=True)
        (photos / "test" / "sad" / f"{i}.jpg").write_text("no picture")
    for _ in range(2):  # the second time nothing but the unreadable is tried again
        status, out, err = mien(photos, "--out", tmp_path / "out", "--size", 32)
        lines = err.splitlines()
        assert status == 3
        assert out.startswith("wrote 31 pictures of 3 faces from 15 photos")
        assert lines[0] == "skipped: train/sad/blank.png: no face was found in it"
        assert lines[1].startswith("skipped: test/happy/empty.jpg: is empty (0 bytes)")
        assert len(lines) == 11
        assert lines[-1].startswith("1 photo without a face, 11 unreadable, 0 left out; all are listed in ")


def test_errors_are_one_line(mien, photos: Path, tmp_path: Path) -> None:
    one_line_error(mien(tmp_path / "none", "--out", tmp_path / "out"), "none: is not a folder of photos")
    one_line_error(mien(photos, "--out", tmp_path / "out", "--augment", 7), "1, 5, 10, 15 views, not 7")
    one_line_error(mien(photos, "--out", photos / "out"), "is inside the folder of photos")
    one_line_error(mien(photos, "--out", tmp_path / "out", "--min-face", 3), "min_face")
    assert not (tmp_path / "out").exists()
    assert mien(photos, "--out", tmp_path / "out", "--size", 32)[0] == 0
    one_line_error(mien(photos, "--out", tmp_path / "out", "--size", 48), "was made with size 32, not 48")


def test_a_terminal_shows_a_bar(photos: Path, tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "mien", "prepare", photos, "--out", tmp_path / "out", "--size", "32"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environment) as run:
        os.close(theirs)
        shown = b""
        try:
            while block := os.read(ours, 4096):
                shown += block
        except OSError:  # how Linux says that the other end is closed
            pass
        os.close(ours)
        assert run.wait(60) == 0
    assert b"photos" in shown
    assert b"3/3" in shown


def test_it_needs_no_torch(photos: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from mien.prepare import prepare\n"
        f"prepare({str(photos)!r}, {str(tmp_path / 'out')!r}); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr
