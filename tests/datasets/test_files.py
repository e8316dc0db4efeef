import contextlib
import io
import os
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mien.datasets import files
from mien.datasets.files import Tree, file_names, is_picture, open_picture, open_tree, read_bytes, tree_order, walk
from mien.datasets.tables import _open_table
from mien.errors import DataError, InputError


def picture(value: int = 7, kind: str = "PNG", mode: str = "L") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (12, 12), value if mode == "L" else (value,) * len(mode)).save(stream, kind)
    return stream.getvalue()


def write(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture())
    return root


def pack(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def read_picture(file: Tree) -> np.ndarray:
    with open_picture(file) as pixels:
        return pixels


def names_in(path: Path, skipped: list[str] | None = None) -> list[str]:
    """The pictures of a folder or archive, those of a folder before its folders."""
    return sorted(filter(is_picture, walk(open_tree(path), [] if skipped is None else skipped)), key=tree_order)


def pictures_in(path: Path) -> list[Tree]:
    tree = open_tree(path)
    return [tree / name for name in names_in(path)]


NAMES = ("b/2.png", "b/10.JPG", "a.x/z.png", "a/y.png", "a/deep/er/x.gif", "top.png", "a/notes.txt")
LITTER = ("b/.hidden.png", ".git/x.png", "__MACOSX/b/2.png")


def test_a_folder_and_its_archive_are_gone_through_alike(tmp_path: Path):
    root = write(tmp_path / "root", *NAMES, *LITTER)
    archive = pack(tmp_path / "root.zip", {name: picture() for name in reversed((*NAMES, *LITTER))})
    expected = ["top.png", "a/y.png", "a/deep/er/x.gif", "a.x/z.png", "b/10.JPG", "b/2.png"]
    for path in (root, archive):
        assert names_in(path) == expected
        assert file_names(path, [])[1] == sorted([*expected, "a/notes.txt"])
        assert {name for name in walk(open_tree(path), []) if name.endswith("/")} == {
            "a/",
            "a/deep/",
            "a/deep/er/",
            "a.x/",
            "b/",
        }
        assert all(read_picture(file).shape == (12, 12, 3) for file in pictures_in(path))


def test_links_lead_out_once_and_never_round(tmp_path: Path):
    root, skipped = write(tmp_path / "root", "a/1.png", "b/2.png"), list[str]()
    outside = write(tmp_path / "outside", "3.png")
    for link, target in {
        "a/up": root, "a/above": tmp_path, "a/self": root / "a", "a/b": root / "b", "a/loop": Path("loop"),
        "a/gone": tmp_path / "missing", "a/out": outside, "b/again": outside,
    }.items():  # fmt: skip
        (root / link).symlink_to(target)
    (outside / "back").symlink_to(tmp_path)
    assert names_in(root, skipped) == ["a/1.png", "a/out/3.png", "b/2.png"]
    for link in ("a/up", "a/above", "a/self", "a/b", "a/out/back", "b/again"):
        assert any(line.startswith(f"{root / link}: links to") and "not followed" in line for line in skipped), link
    for link in ("a/loop", "a/gone"):
        assert f"{root / link}: is a broken link" in skipped
    assert len(skipped) == 8


def test_a_link_to_a_hidden_folder_is_followed(tmp_path: Path):
    write(tmp_path, ".store/1.png")
    (tmp_path / "a").symlink_to(tmp_path / ".store")
    assert names_in(tmp_path) == ["a/1.png"]


def test_a_dead_link_to_a_picture_is_met_and_refused(tmp_path: Path):
    (tmp_path / "x.png").symlink_to(tmp_path / "missing.png")
    (tmp_path / "y.png").symlink_to("y.png")
    found = pictures_in(tmp_path)
    assert [file.name for file in found] == ["x.png", "y.png"]
    for file in found:
        with pytest.raises(InputError, match=file.name):
            read_picture(file)


def test_an_excluded_folder_is_not_entered(tmp_path: Path):
    root, skipped = write(tmp_path, "a/1.png", "cache/2.png"), list[str]()
    assert set(walk(root, skipped, root / "cache")) == {"a/", "a/1.png"}
    assert skipped == []


def test_folders_may_lie_deeper_than_pythons_stack(tmp_path: Path):
    made = [f"{tmp_path}/{'d/' * depth}" for depth in range(1, 1100)]
    try:
        for folder in made:
            os.mkdir(folder)  # noqa: PTH102 (a Path's parents are read by recursion)
        assert len(list(walk(tmp_path, []))) == 1099
    finally:
        for folder in reversed(made):  # pytest removes by recursion, too
            os.rmdir(folder)  # noqa: PTH106


@pytest.mark.skipif(getattr(os, "geteuid", int)() == 0, reason="root, and Windows, may read every folder")
def test_a_folder_without_permission_is_named(tmp_path: Path):
    (tmp_path / "shut").mkdir(mode=0)
    with pytest.raises(DataError, match=r"shut: cannot be read \(Permission denied\)"):
        list(walk(tmp_path, []))


def test_a_folder_that_went_away_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"gone: cannot be read \(No such file or directory\)"):
        list(walk(tmp_path / "gone", []))


def test_an_archive_of_many_folders_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`zipfile.Path.iterdir` makes a path of every name in the archive, for each folder again."""
    archive = pack(tmp_path / "many.zip", {f"{i}/{j}.png": b"" for i in range(100) for j in range(5)})
    made, make = [], zipfile.Path.__init__
    monkeypatch.setattr(zipfile.Path, "__init__", lambda self, *args: (made.append(args), make(self, *args))[1])
    assert len(list(walk(open_tree(archive), []))) == 600
    assert len(made) == 1


@pytest.mark.parametrize("name", ["a//b.png", "//b.png", "d/" * 80 + "x.png"])
def test_names_made_to_hang_are_refused(tmp_path: Path, name: str):
    with pytest.raises(DataError, match="which no corpus has"):
        open_tree(pack(tmp_path / "odd.zip", {name: b"x"}))


def test_an_archive_with_odd_names_is_gone_through(tmp_path: Path):
    archive = pack(tmp_path / "odd.zip", {"/": b"", "/abs/x.png": b"", "../up.png": b"", "a/y.png": b""})
    assert names_in(archive) == ["/abs/x.png", "a/y.png"]


def test_names_as_windows_writes_them_are_gone_through(tmp_path: Path):
    """Compress-Archive of Windows PowerShell separates by backslashes; bsdtar may begin names with a dot."""
    plain = pack(tmp_path / "plain.zip", {"train/happy/x.png": picture(), "train/sad/y.png": picture(9)})
    odd = pack(tmp_path / "odd.zip", {"train|happy|x.png": picture(), "./train/sad/y.png": picture(9)})
    odd.write_bytes(odd.read_bytes().replace(b"train|happy|x.png", b"train\\happy\\x.png"))
    seen = [[(file.at, read_picture(file)[0, 0, 0]) for file in pictures_in(path)] for path in (plain, odd)]
    assert seen[0] == seen[1] == [("train/happy/x.png", 7), ("train/sad/y.png", 9)]
    table = pack(tmp_path / "table.zip", {"a|fer2013.csv": b"the table", "a|other.csv": b""})
    table.write_bytes(table.read_bytes().replace(b"a|", b"a\\"))
    with _open_table(table, ["fer2013.csv"]) as file:
        assert file.read() == b"the table"


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"no archive", b"PK\x05\x06" + b"\xff" * 18])
def test_what_is_no_archive_is_named(tmp_path: Path, data: bytes):
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"x\.zip: is neither a folder nor a zip archive"):
        open_tree(tmp_path / "x.zip")


def encrypt(archive: Path) -> Path:
    """Mark every member as encrypted, as `zip --encrypt` does."""
    data = bytearray(archive.read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := data.find(mark, at + 1)) >= 0:
            data[at + flags] |= 1
    archive.write_bytes(data)
    return archive


def test_an_encrypted_member_is_named(tmp_path: Path):
    (member,) = pictures_in(encrypt(pack(tmp_path / "secret.zip", {"x.png": picture()})))
    with pytest.raises(InputError, match=r"x\.png: cannot be read \(.*encrypted"):
        read_picture(member)


def test_a_member_that_says_it_is_too_large_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    archive = pack(tmp_path / "bomb.zip", {"x.png": b"\0" * 3_000_000})
    assert archive.stat().st_size < 10_000
    monkeypatch.setattr(files, "MAX_PICTURE", 2_000_000)
    (member,) = pictures_in(archive)
    with pytest.raises(InputError, match=r"x\.png: is larger than 2,000,000 bytes"):
        read_picture(member)


def test_a_member_that_lies_about_its_size_is_not_unpacked_further(tmp_path: Path):
    archive = pack(tmp_path / "lie.zip", {"x.png": b"\0" * 3_000_000})
    data = archive.read_bytes()
    archive.write_bytes(data.replace((3_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    (member,) = pictures_in(archive)
    with pytest.raises(InputError, match=r"x\.png: cannot be read \(Bad CRC-32"):
        read_picture(member)


def test_a_member_that_is_missing_is_named(tmp_path: Path):
    tree = open_tree(pack(tmp_path / "x.zip", {"x.png": picture()}))
    with pytest.raises(InputError, match=r"y\.png: is not in the archive"):
        read_picture(tree / "y.png")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_archive_is_read_or_refused(tmp_path: Path, method: int):
    rng = random.Random(method)
    noise = bytes(rng.randrange(256) for _ in range(400))
    whole = pack(tmp_path / "whole.zip", {"a/x.png": picture(), "a/y.jpg": picture(kind="JPEG") + noise}, method).read_bytes()
    refused = []
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path = tmp_path / "damaged.zip"
        path.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        try:
            for member in pictures_in(path):
                read_picture(member)
        except (DataError, InputError) as error:
            refused.append(str(error))
    assert len(refused) > 50
    assert all("damaged.zip" in message and "\n" not in message for message in refused)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60), st.binary(max_size=40), st.binary(max_size=60))
def test_any_bytes_in_an_archives_directory_are_read_or_refused(tmp_path: Path, head: bytes, inner: bytes, tail: bytes):
    path = tmp_path / "fuzz.zip"
    path.write_bytes(head + b"PK\x01\x02" + inner + b"PK\x05\x06" + tail)
    with contextlib.suppress(DataError):
        list(walk(open_tree(path), []))


def test_a_small_file_is_read_up_to_its_limit(tmp_path: Path):
    (tmp_path / "x.txt").write_bytes(b"12345")
    assert read_bytes(tmp_path / "x.txt", 5) == b"12345"
    with pytest.raises(InputError, match=r"x\.txt: is larger than 4 bytes"):
        read_bytes(tmp_path / "x.txt", 4)
    with pytest.raises(InputError, match=r"y\.txt: cannot be read \(No such file"):
        read_bytes(tmp_path / "y.txt", 4)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty.jpg", b"", "is empty"),
        ("text.jpg", b"this is text\n", "is not a picture"),
        ("cut.jpg", picture(kind="JPEG")[:-200], "corrupt or truncated"),
    ],
)
def test_a_broken_picture_is_named_wherever_it_lies(tmp_path: Path, name: str, data: bytes, message: str):
    (tmp_path / name).write_bytes(data)
    for tree in (tmp_path, pack(tmp_path / "all.zip", {name: data})):
        (file,) = pictures_in(tree)
        with pytest.raises(InputError, match=f"{name}: .*{message}"):
            read_picture(file)


def test_odd_pictures_are_read(tmp_path: Path):
    steps = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(steps).save(tmp_path / "deep.png")
    Image.new("CMYK", (9, 9), (0, 255, 255, 0)).save(tmp_path / "print.jpg")
    frames = [Image.new("RGB", (5, 5), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    deep, moving, printed = (read_picture(file) for file in pictures_in(tmp_path))
    assert np.abs(deep[..., 0].astype(int) - steps // 257).max() <= 1
    assert moving[2, 2].tolist() == [255, 0, 0]
    assert printed[4, 4, 0] > 200
    assert printed[4, 4, 1:].max() < 60
