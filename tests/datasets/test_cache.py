import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien.datasets import CORPORA, Corpus, cache, load_corpus
from mien.errors import DataError, LabelError, OutputError

SMALL = {"size": 16, "colour": False}

BUILD = """
import sys, time
from mien.datasets import load_corpus
def step(done, total):
    print(done, total, flush=True)
    time.sleep(float(sys.argv[2]))
corpus = load_corpus("folder", sys.argv[1], options={"size": 16, "colour": False}, on_step=step)
print(corpus.fingerprint, flush=True)
"""
"""Builds a cache in a process of its own, which waits a little after each chunk."""


def draw(root: Path, count: int, seed: int = 0) -> Path:
    """Write random pictures in two classes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 16, 16), dtype=np.uint8)
    for name in ("happy", "sad"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(root / ("happy" if i % 2 else "sad") / f"{i:05}.png", compress_level=0)
    return root


def load(path: Path, **arguments: object) -> Corpus:
    options = {**SMALL, **arguments.pop("options", {})}
    return load_corpus("folder", path, options=options, **arguments)


def start(root: Path, folder: Path, wait: float) -> subprocess.Popen[str]:
    environment = os.environ | {"MIEN_CACHE": str(folder)}
    return subprocess.Popen([sys.executable, "-c", BUILD, root, str(wait)], env=environment, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the pictures that this process decodes."""
    names, read = list[str](), cache.open_picture
    monkeypatch.setattr(cache, "open_picture", lambda file: (names.append(file.name), read(file))[1])
    return names


def test_a_killed_build_goes_on_and_comes_to_the_same(tmp_path: Path, decoded: list[str]):
    root = draw(tmp_path / "faces", 1500)
    (root / "happy" / "00101.png").write_bytes(b"no picture")
    (root / "happy" / "01499.png").write_bytes(b"no picture")
    killed = start(root, tmp_path / "killed", 0.2)
    assert killed.stdout is not None
    steps = [int(killed.stdout.readline().split()[0]) for _ in range(2)]
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert steps == [256, 512]
    (part,) = (tmp_path / "killed").glob("*.building")
    assert not (part / "meta.json").exists()

    seen: list[tuple[int, int]] = []
    resumed = load(root, cache=tmp_path / "killed", on_step=lambda *step: seen.append(step))
    assert seen == [(done, 1500) for done in (*range(512, 1500, 256), 1500)]
    assert len(decoded) == len(set(decoded)) == 1500 - 512
    whole = load(root, cache=tmp_path / "whole")
    assert resumed.fingerprint == whole.fingerprint
    assert resumed.files == whole.files
    assert resumed.skipped == whole.skipped
    assert len(whole.skipped) == 2
    np.testing.assert_array_equal(resumed.target, whole.target)
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == [
        path.name for path in (tmp_path / "whole").iterdir()
    ]


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.15])
def test_a_build_killed_at_any_moment_goes_on(tmp_path: Path, seconds: float):
    root = draw(tmp_path / "faces", 700)
    killed = start(root, tmp_path / "killed", 0)
    try:
        killed.wait(timeout=1.2 + seconds)
    except subprocess.TimeoutExpired:
        killed.kill()
    killed.communicate()
    assert load(root, cache=tmp_path / "killed").fingerprint == load(root, cache=tmp_path / "whole").fingerprint


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The half cache of a build that was stopped after two chunks of 64, each with bad pictures at its ends."""
    monkeypatch.setattr(cache, "CHUNK", 64)
    steps: list[int] = []

    def stop(done: int, total: int) -> None:
        steps.append(done)
        if len(steps) == 2:
            raise KeyboardInterrupt

    root = draw(tmp_path / "faces", 300)
    for row in (0, 1, 63, 64, 127, 128):
        sorted((root / "happy").iterdir())[row].write_bytes(b"no picture")
    with pytest.raises(KeyboardInterrupt):
        load(root, on_step=stop)
    (building,) = (tmp_path / "cache").glob("*.building")
    return building


@pytest.mark.parametrize(
    ("harm", "rest"),
    [
        ("nothing", 300 - 128),
        ("half a chunk more", 300 - 128),
        ("bad rows without their chunk", 300 - 128),
        ("bad rows that were not finished", 300 - 128),
        ("a lost picture", 300 - 64),
        ("a lost chunk and more", 300 - 64),
        ("lost pictures", 300),
    ],
)
def test_whatever_a_stop_leaves_the_build_goes_on(tmp_path: Path, stopped: Path, decoded: list[str], harm: str, rest: int):
    images = stopped / "images.bin"
    match harm:
        case "half a chunk more":
            images.write_bytes(images.read_bytes() + bytes(31 * 256 + 17))
        case "bad rows without their chunk":
            (stopped / "bad" / "128.json").write_text('{"128": "is not a picture", "150": "is no longer one"}')
        case "bad rows that were not finished":
            (stopped / "bad" / ".128-0123abcd.json").write_text('{"1')
        case "a lost picture":
            images.write_bytes(images.read_bytes()[:-1])
        case "a lost chunk and more":
            images.write_bytes(images.read_bytes()[: 62 * 256])
        case "lost pictures":
            images.unlink()
    with pytest.raises(KeyboardInterrupt):  # stopped once more, so that what was left over counts again
        load(tmp_path / "faces", on_step=lambda done, total: (_ for _ in ()).throw(KeyboardInterrupt) if done > 192 else None)
    resumed = load(tmp_path / "faces")
    assert len(decoded) == rest
    whole = load(tmp_path / "faces", cache=tmp_path / "whole")
    assert (resumed.fingerprint, resumed.files, resumed.skipped) == (whole.fingerprint, whole.files, whole.skipped)
    assert len(resumed.skipped) == 6
    assert len(list((tmp_path / "cache").iterdir())) == 1
    folders = (next((tmp_path / place).iterdir()) for place in ("cache", "whole"))
    assert len({tuple(sorted(file.name for file in folder.iterdir())) for folder in folders}) == 1


def test_a_build_that_was_stopped_by_bad_pictures_alone_goes_on(tmp_path: Path, decoded: list[str], monkeypatch):
    monkeypatch.setattr(cache, "CHUNK", 4)
    root = draw(tmp_path / "faces", 12)
    for file in (root / "happy").iterdir():
        file.write_bytes(b"")
    with pytest.raises(KeyboardInterrupt):
        load(root, on_step=lambda done, total: (_ for _ in ()).throw(KeyboardInterrupt))
    corpus = load(root)
    assert len(decoded) == 12
    assert len(corpus.images) == len(corpus.skipped) == 6
    assert {corpus.classes[i] for i in corpus.target} == {"sad"}


def test_progress_is_told_to_the_end(tmp_path: Path, fer2013_csv: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cache, "CHUNK", 8)
    seen: list[tuple[int, int]] = []
    root = draw(tmp_path / "faces", 20)
    load(root, on_step=lambda *step: seen.append(step))
    assert seen == [(8, 20), (16, 20), (20, 20)]
    load(root, on_step=lambda *step: seen.append(step))
    assert len(seen) == 3  # nothing was built
    load_corpus("fer2013", fer2013_csv, on_step=lambda *step: seen.append(step))
    assert seen[3:] == [(160, 160)]


def test_of_two_processes_one_builds_and_the_other_waits(tmp_path: Path):
    root = draw(tmp_path / "faces", 1000)
    outputs = [run.communicate()[0].splitlines() for run in [start(root, tmp_path / "both", 0.2) for _ in range(3)]]
    assert sorted(len(lines) for lines in outputs) == [1, 1, 5]
    assert len({lines[-1] for lines in outputs}) == 1
    assert len(list((tmp_path / "both").iterdir())) == 1


def test_a_process_takes_over_from_one_that_is_killed_while_it_waits(tmp_path: Path):
    root = draw(tmp_path / "faces", 1000)
    first = start(root, tmp_path / "both", 0.3)
    assert first.stdout is not None
    first.stdout.readline()
    second = start(root, tmp_path / "both", 0)
    first.stdout.readline()
    first.kill()
    first.communicate()
    lines = second.communicate()[0].splitlines()
    assert lines[-1] == load(root, cache=tmp_path / "whole").fingerprint
    assert second.returncode == 0


def rename_class(root: Path) -> None:
    (root / "sad").rename(root / "surprise")


def move(root: Path) -> None:
    last = sorted((root / "happy").iterdir())[-1]
    (root / "sad" / "00000.png").unlink()
    last.rename(root / "sad" / last.name)


def swap(root: Path) -> None:
    a, b = root / "happy" / "00001.png", root / "sad" / "00000.png"
    for old, new in ((a, root / "x"), (b, a), (root / "x", b)):
        old.rename(new)


def overwrite_with_the_same_size_and_time(root: Path) -> None:
    file = root / "happy" / "00001.png"
    stat = file.stat()
    other = (root / "sad" / "00000.png").read_bytes()
    assert len(other) == stat.st_size
    file.write_bytes(other)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


CHANGES = {
    "rewritten": lambda root: draw(root, 1, seed=5),
    "overwritten, same size and time": overwrite_with_the_same_size_and_time,
    "added": lambda root: shutil.copy(root / "sad" / "00000.png", root / "happy" / "zzz.png"),
    "added deeper": lambda root: shutil.copytree(root / "sad", root / "happy" / "more"),
    "removed": lambda root: (root / "sad" / "00000.png").unlink(),
    "renamed": lambda root: (root / "happy" / "00001.png").rename(root / "happy" / "zzz.png"),
    "class renamed": rename_class,
    "moved to another class": move,
    "swapped": swap,
    "broken": lambda root: (root / "sad" / "00000.png").write_bytes(b""),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_source_is_decoded_again(tmp_path: Path, change: str):
    """No two files of the corpus tell themselves apart by their size, so a key that looks at less than it must is found out."""
    root = draw(tmp_path / "faces", 8)
    before = load(root)
    CHANGES[change](root)
    after, fresh = load(root), load(root, cache=tmp_path / "fresh")
    assert after.fingerprint == fresh.fingerprint
    assert (after.files, after.classes, after.skipped) == (fresh.files, fresh.classes, fresh.skipped)
    assert (before.fingerprint, before.files, before.classes) != (after.fingerprint, after.files, after.classes)


def test_the_key_sees_a_changed_picture_behind_a_link_and_in_an_archive(tmp_path: Path):
    root = draw(tmp_path / "faces", 8)
    draw(tmp_path / "outside", 4, seed=1)
    (root / "fear").symlink_to(tmp_path / "outside" / "happy")
    (root / "happy" / "link.png").symlink_to(tmp_path / "outside" / "sad" / "00000.png")
    prints = [load(root).fingerprint]
    for name in ("happy/00001.png", "sad/00000.png"):
        shutil.copy(root / "happy" / "00003.png", tmp_path / "outside" / name)
        prints.append(load(root).fingerprint)
    assert len(set(prints)) == 3
    for name in ("00001.png", "00003.png"):
        with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
            archive.write(root / "happy" / name, "happy/x.png")
        prints.append(load(tmp_path / "faces.zip").fingerprint)
    assert len(set(prints)) == 5


def test_what_no_reader_looks_at_changes_nothing(tmp_path: Path, decoded: list[str]):
    root = draw(tmp_path / "faces", 8)
    load(root)
    (root / ".DS_Store").write_bytes(b"x")
    (root / "happy" / ".thumbs").mkdir()
    load(root)
    load_corpus("folder", os.path.relpath(root), options=SMALL)
    assert len(decoded) == 8


def test_other_options_have_another_cache(tmp_path: Path):
    root = draw(tmp_path / "faces", 4)
    shapes = [
        load(root, options=options).images.shape for options in ({}, {"size": [8, 4]}, {"colour": True}, {"label_set": "rafdb"})
    ]
    assert shapes == [(4, 16, 16), (4, 8, 4), (4, 16, 16, 3), (4, 16, 16)]
    assert len(list((tmp_path / "cache").iterdir())) == 4
    with pytest.raises(DataError, match="folder has no option 'colur'; did you mean 'colour'"):
        load(root, options={"colur": True})


def test_padded_pictures_repeat_their_edge(tmp_path: Path):
    root = draw(tmp_path / "faces", 2)
    for colour in (False, True):
        as_given, padded = (load(root, options={"colour": colour, "pad": pad}).images for pad in (0, 3))
        assert padded.shape == (2, 22, 22, *as_given.shape[3:])
        assert np.array_equal(padded[:, 3:-3, 3:-3], as_given)
        assert np.array_equal(padded[:, 0, 3:-3], as_given[:, 0])


def test_files_beside_the_source_and_files_that_options_name_belong_to_the_key(tmp_path: Path):
    root = draw(tmp_path / "faces", 2)
    votes, table = root / "fer2013new.csv", root / "fer2013.csv"
    table.write_text("")
    keys = []
    for text in ("a", "bb"):
        votes.write_text(text)
        for name, options in (("ferplus", {}), ("folder", {"votes": str(votes)})):
            keys.append((name, cache.source_key(table, {}, cache.files_outside(CORPORA.get(name), table, options))))
    assert len(set(keys)) == 4


def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path: Path):
    root = draw(tmp_path / "faces", 8)
    with pytest.raises(DataError, match="faces: changed while it was read"):
        load(root, on_step=lambda done, total: (root / "sad" / "00000.png").write_bytes(b"x"))
    assert len(load(root).skipped) == 1


def test_the_cache_may_lie_in_the_source(tmp_path: Path, decoded: list[str]):
    root = draw(tmp_path / "faces", 8)
    for _ in range(2):
        assert len(load(root, cache=root / "cache").images) == 8
    assert len(decoded) == 8


def test_large_pictures_are_decoded_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cache, "CHUNK_BYTES", 3 * 16 * 16)
    seen: list[int] = []
    load(draw(tmp_path / "faces", 8), on_step=lambda done, total: seen.append(done))
    assert seen == [3, 6, 8]


LIMITED = """
import resource, signal, sys
from mien.datasets import load_corpus
from mien.errors import OutputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    load_corpus("folder", sys.argv[1], options={"size": 16, "colour": False})
except OutputError as error:
    print(error)
"""
"""Builds a cache where no file may grow beyond some bytes, which is how a full disk looks from inside."""


@pytest.mark.parametrize("limit", [10, 20_000, 70_000])
def test_a_disk_that_is_full_is_named_and_the_build_goes_on_when_it_is_not(tmp_path: Path, limit: int):
    root = draw(tmp_path / "faces", 500)
    environment = os.environ | {"MIEN_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", LIMITED, root, str(limit)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "cannot write the cache (File too large); set MIEN_CACHE to a folder with free space" in run.stdout
    assert "Traceback" not in run.stderr
    assert load(root).fingerprint == load(root, cache=tmp_path / "whole").fingerprint


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path):
    root = draw(tmp_path / "faces", 4)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write the cache \(Not a directory\); set MIEN_CACHE"):
        load(root, cache=tmp_path / "file" / "cache")


@pytest.mark.skipif(getattr(os, "geteuid", int)() == 0, reason="root, and Windows, may write everywhere")
def test_a_read_only_cache_is_named(tmp_path: Path):
    (tmp_path / "cache").mkdir(mode=0o500)
    with pytest.raises(OutputError, match=r"cannot write the cache \(Permission denied\); set MIEN_CACHE"):
        load(draw(tmp_path / "faces", 4))


@pytest.mark.parametrize("file", ["meta.json", "images.bin", "target.npy"])
@pytest.mark.parametrize("harm", [b"", b"x", None])
def test_a_damaged_cache_is_named(tmp_path: Path, file: str, harm: bytes | None):
    root = draw(tmp_path / "faces", 4)
    load(root)
    (path,) = (tmp_path / "cache").glob(f"*/{file}")
    path.unlink() if harm is None else path.write_bytes(harm)
    if file == "meta.json" and harm is None:
        assert len(load(root).images) == 4  # nothing says that it was finished
        return
    with pytest.raises(DataError, match=r"folder-\w+: this cache is damaged \(.*\); delete the folder and run it again"):
        load(root)


@pytest.mark.parametrize(("file", "values"), [("split", [0, 0, 0, -128]), ("target", [0, 0, -1, 1]), ("split", [0, 0, 0])])
def test_a_cache_whose_rows_cannot_be_is_named(tmp_path: Path, file: str, values: list[int]):
    """A bit of one split was changed: the fuzzer's case damaged_cache 103052."""
    root = draw(tmp_path / "faces", 4)
    load(root)
    (path,) = (tmp_path / "cache").glob(f"*/{file}.npy")
    np.save(path, np.array(values, np.load(path).dtype))
    with pytest.raises(DataError, match="its files do not belong together"):
        load(root)


@pytest.mark.parametrize("name", ["missing", "x" * 300, "nul\0", "fifo"])
def test_a_source_that_is_no_file_is_named(tmp_path: Path, name: str):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DataError, match="pass the folder file or folder with --data"):
        load(tmp_path / name)


def test_options_of_another_kind_are_refused(tmp_path: Path):
    root = draw(tmp_path / "faces", 4)
    for value in (Path("rafdb"), 7, ["rafdb"]):
        with pytest.raises(DataError, match=r"folder: label_set is .*; give text"):
            load(root, options={"label_set": value})
    for name in ("label set\0", "x" * 300):
        with pytest.raises(LabelError, match="unknown label set"):
            load(root, options={"label_set": name})


def test_a_corpus_of_broken_pictures_only_is_refused_and_leaves_nothing_to_read(tmp_path: Path):
    root = tmp_path / "faces"
    (root / "happy").mkdir(parents=True)
    (root / "happy" / "x.jpg").write_text("no picture")
    for _ in range(2):
        with pytest.raises(DataError, match=r"none of its 1 pictures can be used; the first: .*x\.jpg: is not a picture"):
            load(root)
    assert not list((tmp_path / "cache").glob("*/*"))


def test_broken_pictures_of_a_damaged_an_encrypted_and_an_overfull_archive_are_listed(tmp_path: Path, monkeypatch):
    root = draw(tmp_path / "faces", 3)
    path = tmp_path / "faces.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("*.png")):
            archive.write(file, file.relative_to(root))
        archive.writestr("sad/bomb.png", bytes(5_000_000))
        archive.writestr("sad/damaged.png", (root / "sad" / "00000.png").read_bytes() * 3)
        archive.writestr("sad/secret.png", (root / "sad" / "00000.png").read_bytes())
    data = bytearray(path.read_bytes())
    at = data.index(b"sad/damaged.png") + len("sad/damaged.png")
    data[at : at + 60] = bytes(60)
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.rindex(mark) + flags] |= 1
    path.write_bytes(data)
    monkeypatch.setattr("mien.datasets.files.MAX_PICTURE", 1_000_000)
    corpus = load(path)
    assert corpus.files == ("happy/00001.png", "sad/00000.png", "sad/00002.png")
    assert len(corpus.skipped) == 3
    for line, name, why in zip(
        corpus.skipped, ("bomb", "damaged", "secret"), ("larger than", "cannot be read", "encrypted"), strict=True
    ):
        assert f"faces.zip/sad/{name}.png: " in line
        assert why in line


def test_the_note_of_what_was_skipped_outlives_the_build(tmp_path: Path):
    root = draw(tmp_path / "faces", 4)
    (root / "happy" / "x.jpg").write_text("no picture")
    first, again = load(root), load(root)
    assert first.skipped == again.skipped
    assert len(again.skipped) == 1
    (meta,) = (tmp_path / "cache").glob("*/meta.json")
    assert json.loads(meta.read_text())["skipped"] == list(first.skipped)


@pytest.mark.parametrize("size", ["x", "48", 0, 4097, 1.5, [48], [48, 48, 48], [48, True], {}])
def test_a_size_that_is_none_is_refused(tmp_path: Path, size: object):
    (tmp_path / "faces" / "happy").mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "faces" / "happy" / "a.png")
    with pytest.raises(DataError, match=r"size is .*; give the side, or height and width"):
        load_corpus("folder", tmp_path / "faces", options={"size": size})
