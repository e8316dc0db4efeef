"""Damaged corpora of every kind, and damaged caches of them: each is read, read in part, or refused."""

from __future__ import annotations

import gzip
import io
import os
import random
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from mutate import damaged, serve, try_cases
from PIL import Image

from mien.datasets import load_corpus
from mien.datasets.corpus import Corpus
from mien.errors import DataError

NAMES = [
    "a\x1b[2J.png",
    "é.png",
    "e\u0301.png",
    "\u202egnp.csv",
    "caf\udce9.png",
    "=1+1.csv",
    "x" * 200 + ".png",
    " ",
    "a\nb.png",
]
"""Names that a file may have."""

EXPRESSIONS = ("angry", "happy", "sad")

Files = dict[str, bytes]


def picture(number: int, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((12, 12), 20 * number, np.uint8)).save(stream, kind)
    return stream.getvalue()


def pixel_table(rows: int) -> bytes:
    lines = ["emotion,pixels,Usage"]
    for i in range(rows):
        usage = ("Training", "PublicTest", "PrivateTest")[i % 3]
        lines.append(f"{i % 7},{' '.join(str((i * 50 + k) % 256) for k in range(48 * 48))},{usage}")
    return "\n".join(lines).encode() + b"\n"


def votes(rows: int) -> bytes:
    head = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    usages = ("Training", "PublicTest", "PrivateTest")
    return "\n".join([head, *(f"{usages[i % 3]},fer{i:07}.png,{i % 5},5,0,0,0,0,0,0,0,0" for i in range(rows))]).encode()


def parquet() -> bytes:
    stream = io.BytesIO()
    names = [f"p/{i}.png" for i in range(6)]
    columns = {"path": names, "label": [EXPRESSIONS[i % 3] for i in range(6)], "split": ["train", "test"] * 3, "subject": names}
    pyarrow.parquet.write_table(pyarrow.table(columns), stream)
    return stream.getvalue()


def number(value: float) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array(value))
    return stream.getvalue()


def zipped(files: Files) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


@cache
def kinds() -> list[tuple[str, str, Files]]:
    """The name of a corpus, its source in a folder, and the files of the folder."""
    tree = {f"{split}/{name}/{i}.png": picture(i) for split in ("train", "test") for i, name in enumerate(EXPRESSIONS)}
    rows = "\n".join(["path,label,split", *(f"p/{i}.png,{EXPRESSIONS[i % 3]},{('train', 'test')[i % 2]}" for i in range(6))])
    pictures = {f"p/{i}.png": picture(i) for i in range(6)}
    rafdb = {f"Image/aligned/{part}_0000{i}_aligned.jpg": picture(i, "JPEG") for part in ("train", "test") for i in range(3)}
    labels = "\n".join(f"{part}_0000{i}.jpg {i + 1}" for part in ("train", "test") for i in range(3)).encode()
    affectnet = {f"{part}/images/{i}.jpg": picture(i, "JPEG") for part in ("train_set", "val_set") for i in range(3)}
    for part in ("train_set", "val_set"):
        for i in range(3):
            affectnet |= {
                f"{part}/annotations/{i}_{key}.npy": number(v) for key, v in (("exp", i), ("val", 0.5), ("aro", -0.5))
            }
    ck48 = {f"{name}/S00{i}_00{k}_0000000{k}.png": picture(k) for i, name in enumerate(("anger", "happy")) for k in (1, 2)}
    return [
        ("fer2013", "fer2013.csv", {"fer2013.csv": pixel_table(6)}),
        ("fer2013", "fer2013.csv.gz", {"fer2013.csv.gz": gzip.compress(pixel_table(6), mtime=0)}),
        ("fer2013", "fer2013.zip", {"fer2013.zip": zipped({"fer2013/fer2013.csv": pixel_table(6)})}),
        ("ferplus", "fer2013.csv", {"fer2013.csv": pixel_table(6), "fer2013new.csv": votes(6)}),
        ("ckplus", "ckextended.csv", {"ckextended.csv": pixel_table(6)}),
        ("ckplus", "CK+48", {f"CK+48/{name}": data for name, data in ck48.items()}),
        ("manifest", "m.csv", {"m.csv": rows.encode(), **pictures}),
        ("manifest", "m.parquet", {"m.parquet": parquet(), **pictures}),
        ("folder", "d", {f"d/{name}": data for name, data in tree.items()}),
        ("folder", "d.zip", {"d.zip": zipped(tree)}),
        ("rafdb", "r", {f"r/{name}": data for name, data in {**rafdb, "EmoLabel/list_patition_label.txt": labels}.items()}),
        ("affectnet", "a", {f"a/{name}": data for name, data in affectnet.items()}),
    ]


def write(folder: Path, files: Files) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def check(corpus: Corpus) -> None:
    """Check that a corpus agrees with itself."""
    rows = corpus.rows
    assert len(corpus.images) == len(rows.target) == len(rows.split) > 0
    assert 0 <= rows.target.min() <= rows.target.max() < len(rows.classes)
    assert -1 <= rows.split.min() <= rows.split.max() < len(rows.splits)
    assert int(corpus.images[-1].sum()) >= 0


def in_a_folder(attempt: Callable[[int, Path], None]) -> Callable[[int], None]:
    def run(number: int) -> None:
        outer = Path(tempfile.mkdtemp())
        (folder := outer / "in").mkdir()  # a link to ".." then leads to nothing else
        try:
            attempt(number, folder)
        finally:
            shutil.rmtree(outer)

    return run


def read_damaged(number: int, folder: Path) -> None:
    """Damage a file, or take it away, double it, or give it another name."""
    chance = random.Random(number)
    name, source, files = kinds()[number % len(kinds())]
    write(folder, files)
    victims = [file for file in files if not file.endswith((".png", ".jpg"))] or [*files]
    victim = folder / chance.choice(victims if chance.random() < 0.7 else [*files])
    way = chance.randrange(12)
    if way < 7:
        victim.write_bytes(damaged([victim.read_bytes()], number))
    elif way == 7:
        victim.unlink()
    elif way == 8:
        victim.rename(victim.with_name(chance.choice(NAMES)))
    elif way == 9:
        shutil.copy(victim, victim.with_name(chance.choice(NAMES)))
    elif way == 10:
        victim.unlink()
        victim.symlink_to(chance.choice([victim.name, "..", "/dev/null", "missing"]))
    else:
        victim.unlink()
        victim.mkdir()
    check(load_corpus(name, folder / source, folder / "cache"))


def read_damaged_cache(number: int, folder: Path) -> None:
    """Damage a file of a cache; what is still read must agree with itself."""
    chance = random.Random(number)
    name, source, files = kinds()[number % len(kinds())]
    write(folder, files)
    load_corpus(name, folder / source, folder / "cache")
    victim = chance.choice(sorted((folder / "cache").rglob("*.*")))
    victim = chance.choice(sorted(victim.iterdir())) if victim.is_dir() else victim
    victim.write_bytes(damaged([victim.read_bytes()], number))
    check(load_corpus(name, folder / source, folder / "cache"))


def read_cut_off(number: int, folder: Path) -> None:
    """Cut off an archive or a Parquet file, which say how long they are: it must be refused."""
    packed = [kind for kind in kinds() if kind[1].endswith((".gz", ".zip", ".parquet"))]
    name, source, files = packed[number % len(packed)]
    write(folder, files)
    data = files[source]
    os.truncate(folder / source, len(data) - 1 - number // len(packed) * 7919 % (len(data) - 1))
    load_corpus(name, folder / source, folder / "cache")
    raise AssertionError(f"{(folder / source).stat().st_size} of {len(data)} bytes of {source} were read as the whole")


@pytest.mark.skipif(sys.platform == "win32", reason="this system does not say how much memory a process held")
@pytest.mark.parametrize(("kind", "short"), [("damaged", 240), ("damaged_cache", 60)])
def test_damaged_corpora_are_read_or_refused(kind: str, short: int) -> None:
    outcome = try_cases(__file__, kind, short)
    assert min(outcome.read, outcome.refused) > 0


@pytest.mark.skipif(sys.platform == "win32", reason="as above")
def test_archives_that_are_cut_off_are_refused() -> None:
    assert try_cases(__file__, "cut_off", 60).read == 0


@pytest.mark.parametrize("number", range(len(kinds())), ids=lambda number: "-".join(kinds()[number][:2]))
def test_whole_corpora_are_read(tmp_path: Path, number: int) -> None:
    name, source, files = kinds()[number]
    write(tmp_path, files)
    corpus = load_corpus(name, tmp_path / source, tmp_path / "cache")
    check(corpus)
    assert len(corpus.skipped) == 0


def test_a_corpus_that_is_not_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"\0" * 100)
    for name in ("fer2013", "ferplus", "ckplus", "manifest", "folder", "rafdb", "affectnet"):
        with pytest.raises(DataError):
            load_corpus(name, tmp_path / "x.csv", tmp_path / "cache")


if __name__ == "__main__":
    serve(
        {
            "damaged": in_a_folder(read_damaged),
            "damaged_cache": in_a_folder(read_damaged_cache),
            "cut_off": in_a_folder(read_cut_off),
        }
    )
