from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from mien.errors import InputError
from mien.image import read_image
from mien.video.reader import open_video
from mien.video.sources import MARK, Source, expand

PICTURE = io.BytesIO()
Image.new("RGB", (8, 6), "red").save(PICTURE, "PNG")
PNG = PICTURE.getvalue()


def film() -> bytes:
    stream = io.BytesIO()
    with av.open(stream, "w", format="avi") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height = 32, 16
        for _ in range(3):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((16, 32, 3), np.uint8), format="rgb24")))
        container.mux(video.encode())
    return stream.getvalue()


AVI = film()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: pictures, videos and other things in it and in folders of it."""
    for name in (
        "a10.png",
        "a2.png",
        "b.JPG",
        ".hidden.png",
        "notes.txt",
        "talk.mp4",
        "in/c.webp",
        "in/deep/d.mkv",
        ".git/e.png",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG)
    (tmp_path / "nothing").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed(inputs: Any, **options: Any) -> list[str]:
    """The names of the sources, each with the first letter of its kind; none may be an error."""
    sources = list(expand(inputs, **options))
    assert [str(source.error) for source in sources if source.error] == []
    return [f"{source.kind[0]} {Path(source.name).as_posix()}" for source in sources]


def refused(inputs: Any) -> str:
    """The error of the only source."""
    (source,) = expand(inputs)
    assert source.kind == "error"
    assert source.value is None
    assert isinstance(source.error, InputError)
    text = str(source.error)
    assert text.startswith(source.name)
    assert "\n" not in text
    return text


def test_a_file_by_its_ending(folder: Path) -> None:
    assert listed("b.JPG") == ["p b.JPG"]
    assert listed(Path("talk.mp4")) == ["v talk.mp4"]
    (source,) = expand("b.JPG")
    assert source == Source("b.JPG", "picture", "b.JPG")


def test_a_file_by_its_content(folder: Path) -> None:
    (folder / "photo").write_bytes(PNG)
    (folder / "film.dat").write_bytes(AVI)
    (folder / "scan.xyz").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50))
    assert listed(["photo", "film.dat", "scan.xyz"]) == ["p photo", "v film.dat", "p scan.xyz"]
    (folder / "letter.txt").write_text("dear reader\n" * 50)
    assert "letter.txt is neither a picture nor a video" in refused("letter.txt")


def test_a_folder_in_natural_order_without_hidden_files(folder: Path) -> None:
    expected = ["p a2.png", "p a10.png", "p b.JPG", "v talk.mp4", "p in/c.webp", "v in/deep/d.mkv"]
    assert listed(".") == expected
    assert listed(folder) == [f"{entry[0]} {folder.as_posix()}/{entry[2:]}" for entry in expected]


@pytest.mark.parametrize("name", [".", "**/*.*", "*", "*/*.*"])
def test_a_folder_of_drawings_is_skipped_unless_it_is_named(folder: Path, name: str) -> None:
    (folder / "nothing").rmdir()
    before = listed(name)
    (folder / "drawn").mkdir()
    (folder / "drawn/a.jpg").write_bytes(b"")
    assert listed(name) != before
    (folder / "drawn" / MARK).touch()
    assert listed(name) == before
    assert listed("drawn") == listed("drawn/*.jpg") == listed("drawn/*") == ["p drawn/a.jpg"]  # it was asked for


def test_a_folder_named_twice_is_read_again_with_repeats(folder: Path) -> None:
    once = listed(".")
    assert listed([".", folder]) == once
    assert len(listed([".", folder], repeats=True)) == 2 * len(once)


def test_an_empty_name() -> None:
    assert "is not a name" in refused("")


def test_an_empty_folder(folder: Path) -> None:
    assert "nothing: no picture or video" in refused("nothing")
    (folder / "nothing/deeper").mkdir()
    (folder / "nothing/letter.txt").touch()
    assert "nothing: no picture or video" in refused("nothing")


def test_photos_in_a_folder_that_cannot_be_read_are_named(folder: Path) -> None:
    (folder / "raw").mkdir()
    for name in ("a.CR2", "a.jpg", "b.nef", "c.jp2", "notes.txt"):
        (folder / "raw" / name).write_bytes(PNG if name == "a.jpg" else b"raw")
    picture, *others = expand("raw")
    assert (picture.name, [source.name for source in others]) == ("raw/a.jpg", ["raw/b.nef", "raw/c.jp2"])
    assert all("neither a picture nor a video mien can read" in str(source.error) for source in others)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", ["p a2.png", "p a10.png"]),
        ("a?.png", ["p a2.png"]),
        ("[ab]*.*", ["p a2.png", "p a10.png", "p b.JPG"]),
        ("**/*.mkv", ["v in/deep/d.mkv"]),
        ("**", ["p a2.png", "p a10.png", "p b.JPG", "p in/c.webp", "v in/deep/d.mkv", "v talk.mp4"]),
        ("i*", ["p in/c.webp", "v in/deep/d.mkv"]),
        ("*", ["p a2.png", "p a10.png", "p b.JPG", "p in/c.webp", "v in/deep/d.mkv", "v talk.mp4"]),
        ("*.txt", ["p notes.txt"]),  # its ending is given, so its content counts
    ],
)
def test_patterns(folder: Path, pattern: str, expected: list[str]) -> None:
    (folder / "nothing").rmdir()
    assert listed(pattern) == expected


def test_a_pattern_that_nothing_matches(folder: Path) -> None:
    assert refused("*.tiff").startswith("*.tiff: no picture or video matches")
    assert refused("none/**/*.png").startswith("none/**/*.png: no picture")


def test_a_file_whose_name_looks_like_a_pattern_or_a_list(folder: Path) -> None:
    for name in ("a[1].png", "@home.png"):
        (folder / name).write_bytes(PNG)
        assert listed(name) == [f"p {name}"]


def test_a_thing_named_twice_comes_once(folder: Path) -> None:
    (folder / "link.png").symlink_to("a2.png")
    once = ["p a2.png", "p a10.png", "p b.JPG", "v talk.mp4", "p in/c.webp", "v in/deep/d.mkv"]
    assert listed(["a2.png", ".", "./in", "*.png", folder / "b.JPG", "in/../a10.png", "link.png"]) == once
    assert listed(["camera:0", "rtsp://door/1", "camera:0", "rtsp://door/1"]) == ["l camera:0", "l rtsp:/door/1"]


def test_a_circle_of_links_ends(folder: Path) -> None:
    (folder / "in/round").symlink_to(folder / "in", target_is_directory=True)
    assert listed("in") == ["p in/c.webp", "v in/deep/d.mkv"]


def test_links_to_folders_are_followed_once_and_only_out_of_the_folder(folder: Path) -> None:
    for link, target in {
        "in/above": ".", "in/also": "in/deep", "in/away": "nothing", "in/deep/away": "nothing", "in/store": "in/.store"
    }.items():  # fmt: skip
        (folder / link).symlink_to(folder / target, target_is_directory=True)
    (folder / "in/.store").mkdir()
    for name in ("in/.store/e.png", "nothing/f.png"):
        (folder / name).write_bytes(PNG)
    expected = ["p in/c.webp", "p in/away/f.png", "v in/deep/d.mkv", "p in/store/e.png"]
    assert listed("in") == expected
    assert listed(["in", "in/also", "nothing"]) == expected
    assert listed("in/also") == ["v in/also/d.mkv", "p in/also/away/f.png"]


def test_lists_of_lists_are_read_as_they_are_asked_for(folder: Path) -> None:
    def endless() -> Iterator[Any]:
        yield "a2.png"
        yield [Path("talk.mp4"), ("b.JPG",)]
        pytest.fail("read ahead")

    sources = expand(iter([endless()]))
    assert [next(sources).name for _ in range(3)] == ["a2.png", "talk.mp4", "b.JPG"]


def test_a_file_of_names(folder: Path) -> None:
    odd = os.fsdecode(b"caf\xe9.png")
    (folder / odd).write_bytes(PNG)
    lines = b"\xef\xbb\xbfa2.png\r\n\n# a remark\n  \nin\n*.JPG\ncaf\xe9.png\ncamera:1\nmissing.png\n@other.txt"
    (folder / "names.txt").write_bytes(lines)
    *good, missing, nested = expand("@names.txt")
    assert [source.name for source in good] == ["a2.png", "in/c.webp", "in/deep/d.mkv", "b.JPG", odd, "camera:1"]
    assert "missing.png: no such file" in str(missing.error)
    assert "@other.txt: no such file" in str(nested.error)  # a list in a list is not read
    assert "@none.txt: the list of names cannot be read" in refused("@none.txt")
    (folder / "windows.txt").write_bytes("a2.png\r\n".encode("utf-16"))
    assert "is UTF-16 text; save it as UTF-8" in refused("@windows.txt")
    (folder / "empty.txt").write_bytes(b"\n# only a remark\n")
    assert "@empty.txt: there is no name in the list" in refused("@empty.txt")


class Input:
    """Standard input that holds bytes and, like a pipe, cannot go back."""

    def __init__(self, data: bytes) -> None:
        read, write = os.pipe()
        with open(write, "wb") as end:  # noqa: PTH123 -- the data fit into the pipe
            end.write(data)
        self.buffer = open(read, "rb")  # noqa: PTH123, SIM115


@pytest.fixture
def standard_input(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    opened = []

    def give(data: bytes) -> None:
        opened.append(Input(data))
        monkeypatch.setattr(sys, "stdin", opened[-1])

    yield give
    for each in opened:
        each.buffer.close()


def test_standard_input(standard_input: Any) -> None:
    standard_input(PNG)
    (source,) = expand("-")
    assert (source.name, source.kind) == ("standard input", "picture")
    assert read_image(source.value).shape == (6, 8, 3)
    standard_input(AVI)
    (source,) = expand("-")
    assert source.kind == "video"
    with open_video(source.value) as video:
        assert len(list(video)) == 3
    standard_input(b"")
    assert "is empty" in refused("-")


def test_names_on_standard_input(folder: Path, standard_input: Any) -> None:
    standard_input(b"a2.png\ntalk.mp4\n")
    assert listed("@-") == ["p a2.png", "v talk.mp4"]
    assert sys.stdin.buffer.read() == b""  # still open


def test_cameras_and_addresses() -> None:
    names = ["camera:0", "camera:/dev/video2", "rtsp://door:554/1", "http://door/film.mp4", "https://door/live.m3u8"]
    assert [source.kind for source in expand(names)] == ["live", "live", "live", "video", "video"]
    assert [source.value for source in expand(names)] == names
    for scheme in ("gopher", "srt"):
        assert f"mien does not read {scheme}:// URLs" in refused(f"{scheme}://x/y")


def test_a_camera_by_its_device(folder: Path) -> None:
    assert listed("/dev/video77") == ["l camera:/dev/video77"]


def test_things_in_memory(tmp_path: Path) -> None:
    image, array = Image.new("RGB", (4, 4)), np.zeros((4, 4, 3), np.uint8)
    sources = list(expand([PNG, bytearray(AVI), image, array, memoryview(PNG), io.BytesIO(AVI), io.BytesIO(PNG), b""]))
    assert "".join(source.kind[0] for source in sources) == "pvpppvpp"
    assert [source.name for source in sources[:4]] == ["picture 1", "video 2", "picture 3", "picture 4"]
    assert sources[2].value is image
    assert sources[3].value is array
    for source in sources[:-1]:
        if source.kind == "picture":
            assert read_image(source.value).dtype == np.uint8
        else:
            with open_video(source.value) as video:
                assert len(list(video)) == 3


def test_what_cannot_be_read_stops_nothing(folder: Path) -> None:
    sources = list(expand([3, "missing.png", "a2.png", None, io.StringIO("text"), "a\0b", {}, "in", b"", "nothing"]))
    errors = [str(source.error) for source in sources if source.error]
    assert [source.name for source in sources if not source.error] == ["a2.png", "in/c.webp", "in/deep/d.mkv", "picture 9"]
    assert len(errors) == 7
    for text, words in zip(
        errors,
        ("of type int", "missing.png: no such", "of type NoneType", "cannot be read", r"a\x00b", "of type dict", "nothing"),
        strict=True,
    ):
        assert words in text


def test_a_folder_without_permission(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.scandir

    def scandir(path: Any) -> Any:
        if Path(path).name in ("deep", "deep2"):
            raise PermissionError(13, "Permission denied", path)  # a mode would not stop root
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    (folder / "in/deep2").mkdir()
    sources = list(expand(["in", "a2.png"]))
    assert [source.name for source in sources] == ["in/c.webp", "in/deep", "in/deep2", "a2.png"]
    assert "Permission denied" in str(sources[1].error)


def test_a_source_passes() -> None:
    source = Source("x", "picture", PNG)
    assert list(expand([source])) == [source]


def test_nothing_gives_nothing() -> None:
    assert list(expand([])) == []


def test_standard_input_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    for name in ("-", "@-"):
        [source] = expand(name)
        assert "is closed" in str(source.error)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://me:s3cret@door/1", "rtsp://door/1"),
        ("rtsp://token@door:554/1", "rtsp://door:554/1"),
        ("rtsp://me:se@cret@host/1?mail=a@b", "rtsp://host/1"),
        ("http://h/a.mp4?session=s&sid=s&jwt=s&code=s&X-Amz-Signature=s", "http://h/a.mp4"),
        ("http://h/a.mp4#access_token=s", "http://h/a.mp4"),
        ("http://h?code=s", "http://h"),
        ("rtsp://h/cam/user=me_password=s_channel=1.sdp", "rtsp://h/cam/"),  # as some cameras write it
        ("http://h/list;jsessionid=s/a.mp4", "http://h/"),
        ("rtsp://me:se/cret@host/1", "rtsp://..."),  # signs that should have been encoded
        ("rtsp://me:se?cr#et@host/1", "rtsp://..."),
        ("http://host:80/@me/a:b.mp4", "http://host:80/@me/a:b.mp4"),
        ("http://[::1]:80/a@b", "http://[::1]:80/a@b"),
    ],
)
def test_only_scheme_host_and_path_of_a_url_are_shown(url: str, shown: str) -> None:
    [source] = expand(url)
    assert (source.name, source.value) == (shown, url)


def test_urls_that_are_shown_alike_are_different_sources() -> None:
    one, two = "http://h/get?file=a.mp4", "http://h/get?file=b.mp4"
    named = [(source.name, source.value) for source in expand([one, two, one])]
    assert named == [("http://h/get", one), ("http://h/get (2)", two)]
    assert [source.name for source in expand([one, two, one], repeats=True)] == [
        "http://h/get",
        "http://h/get (2)",
        "http://h/get",
    ]
    with pytest.raises(InputError, match=r"^gopher://h/1 \(2\): mien does not read"):
        open_video("gopher://h/1", name="gopher://h/1 (2)")
