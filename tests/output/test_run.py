import csv
import json
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pandas as pd
import pytest

from mien.errors import InputError, OutputError
from mien.output.run import RunWriter, Targets
from mien.structures import Frame, Prediction, Reading
from mien.video.audio import Sound
from mien.video.reader import open_video
from mien.video.sources import MARK, Source, drawn, expand

CLASSES = ("happy", "sad")
IMAGE = np.full((48, 64, 3), 90, np.uint8)


def picture(name: str, number: int, faces: int = 1) -> Reading:
    return Reading(name, Frame(IMAGE), (Prediction(CLASSES, [0.7, 0.3], None, name),) * faces, number=number)


def film(name: str, number: int, frames: int = 4, faces: int = 1) -> list[Reading]:
    readings = []
    for i in range(frames):
        found = (Prediction(CLASSES, [0.7, 0.3], None, name, i, i / 10, 1),) * faces
        readings.append(Reading(name, Frame(IMAGE, i, i / 10), found, number=number))
    return readings


def bad(name: str, number: int) -> Reading:
    return Reading(name, None, error=InputError(f"{name}: is empty"), number=number)


def sources(*names: str) -> list[Source]:
    return [Source(name, "picture" if name.endswith((".jpg", ".png")) else "video", name) for name in names]


def write(
    targets: Targets, named: list[Source], readings: Iterable[Reading | BaseException], resume: bool = False
) -> RunWriter:
    """Write the readings; an exception among them is raised at its place, and Ctrl-C ends the run."""
    run = RunWriter(targets, CLASSES, {}, named, resume=resume)
    try:
        with run:
            for reading in readings:
                if isinstance(reading, BaseException):
                    raise reading
                run.add(reading)
    except KeyboardInterrupt:
        pass
    return run


def rows(path: Path) -> list[str]:
    with path.open() as file:
        return [row["source"] for row in csv.DictReader(file)]


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != MARK)


@pytest.fixture
def real(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources that are files: anything else is never taken for done."""
    monkeypatch.chdir(tmp_path_factory.mktemp("in"))
    for name in ("a.mp4", "b.mp4", "c.mp4", "c.jpg"):
        Path(name).write_bytes(b"here")


@pytest.mark.usefixtures("real")
def test_a_failed_annotation_fails_its_source_only(tmp_path: Path) -> None:
    (tmp_path / "drawn/b.mp4").mkdir(parents=True)  # no file can take that name
    targets = Targets(tmp_path / "t.csv", annotate=tmp_path / "drawn")
    named = sources("a.mp4", "b.mp4", "c.jpg")
    run = write(targets, named, [*film("a.mp4", 0), *film("b.mp4", 1), picture("c.jpg", 2)])
    assert [(name, type(error)) for name, error in run.failures] == [("b.mp4", OutputError)]
    assert rows(tmp_path / "t.csv") == ["a.mp4"] * 4 + ["b.mp4"] * 4 + ["c.jpg"]
    assert [path.name for path in run.written] == ["t.csv", "a.mp4", "c.jpg"]
    assert names(tmp_path) == [".t.csv.journal", "drawn/a.mp4", "drawn/c.jpg", "t.csv"]
    with RunWriter(targets, CLASSES, {}, named, resume=True) as resumed:
        assert [resumed.done(source.name) for source in named] == [True, False, True]


def test_a_failed_timeline_fails_its_source_only(tmp_path: Path) -> None:
    (tmp_path / "lines/a.png").mkdir(parents=True)
    targets = Targets(tmp_path / "t.csv", timeline=tmp_path / "lines")
    run = write(targets, sources("a.mp4", "b.mp4"), [*film("a.mp4", 0), *film("b.mp4", 1)])
    assert [name for name, _ in run.failures] == ["a.mp4"]
    assert rows(tmp_path / "t.csv") == ["a.mp4"] * 4 + ["b.mp4"] * 4
    assert [path.name for path in run.written] == ["t.csv", "b.png"]


def test_a_resumed_run_overwrites_no_drawing(tmp_path: Path) -> None:
    targets = Targets(tmp_path / "t.csv", annotate=tmp_path / "drawn")
    named = sources("one/x.jpg", "two/x.jpg", "three/X.png")
    write(targets, named, [picture("one/x.jpg", 0), picture("two/x.jpg", 1), KeyboardInterrupt()])
    first = (tmp_path / "drawn/x.jpg").stat().st_mtime_ns
    write(targets, named, [picture("two/x.jpg", 0), picture("three/X.png", 1)], resume=True)
    assert names(tmp_path / "drawn") == ["X-3.jpg", "x-2.jpg", "x.jpg"]
    assert (tmp_path / "drawn/x.jpg").stat().st_mtime_ns == first
    assert rows(tmp_path / "t.csv") == ["one/x.jpg", "two/x.jpg", "three/X.png"]


@pytest.mark.usefixtures("real")
def test_a_resumed_runs_summary_counts_each_face_once(tmp_path: Path) -> None:
    targets, named = Targets(tmp_path / "t.csv", tmp_path / "s.json"), sources("a.mp4", "b.mp4")
    a, b = film("a.mp4", 0), film("b.mp4", 1)
    write(targets, named, [*a, *b[:2], KeyboardInterrupt()])
    assert [video["frames"] for video in json.loads((tmp_path / "s.json").read_text())["videos"]] == [4, 2]
    run = write(targets, named, film("b.mp4", 0), resume=True)
    for summary in (json.loads((tmp_path / "s.json").read_text()), run.summary.to_dict()):
        assert [video["frames"] for video in summary["videos"]] == [4, 4]


def test_an_unreadable_only_source_leaves_no_files(tmp_path: Path) -> None:
    targets = Targets(tmp_path / "t.csv", tmp_path / "s.json", tmp_path / "d.mp4", tmp_path / "l.png")
    run = write(targets, sources("a.mp4"), [bad("a.mp4", 0)])
    assert (len(run.failures), run.written, run.resumable) == (1, [], False)
    assert names(tmp_path) == []


@pytest.mark.usefixtures("real")
def test_an_unreadable_source_loses_nothing_of_the_resumed_run(tmp_path: Path) -> None:
    targets = Targets(tmp_path / "t.csv")
    write(targets, sources("a.mp4", "b.mp4"), [*film("a.mp4", 0), *film("b.mp4", 1), KeyboardInterrupt()])
    run = write(targets, sources("b.mp4"), [bad("b.mp4", 0)], resume=True)
    assert rows(tmp_path / "t.csv") == ["a.mp4"] * 4
    assert run.resumable


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InputError("no such thing")])
def test_a_run_stopped_before_its_first_picture_keeps_an_older_table(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "t.csv").write_text("of last week")
    targets = Targets(tmp_path / "t.csv", tmp_path / "s.json", tmp_path / "drawn")
    run = RunWriter(targets, CLASSES, {}, sources("a.mp4", "b.mp4"))
    with pytest.raises(type(error)), run:
        raise error
    assert names(tmp_path) == ["t.csv"]
    assert (tmp_path / "t.csv").read_text() == "of last week"
    assert not run.resumable


def test_ctrl_c_finishes_every_file(tmp_path: Path) -> None:
    targets = Targets(tmp_path / "t.csv", tmp_path / "s.json", tmp_path / "d.mp4", tmp_path / "l.png")
    run = write(targets, sources("a.mp4"), [*film("a.mp4", 0), KeyboardInterrupt()])
    assert rows(tmp_path / "t.csv") == ["a.mp4"] * 4
    with open_video(tmp_path / "d.mp4") as video:
        assert len(list(video)) == 4
    assert {path.name for path in run.written} == {"t.csv", "s.json", "d.mp4", "l.png"}
    assert names(tmp_path) == [".t.csv.journal", "d.mp4", "l.png", "s.json", "t.csv"]
    assert run.resumable


def test_the_table_is_written_even_if_the_summary_cannot_be(tmp_path: Path) -> None:
    run = RunWriter(Targets(tmp_path / "t.csv", tmp_path / "s.json"), CLASSES, {}, sources("a.mp4"))
    (tmp_path / "s.json").mkdir()
    for reading in film("a.mp4", 0):
        run.add(reading)
    with pytest.raises(OutputError, match="is a folder"), run:
        pass
    assert rows(tmp_path / "t.csv") == ["a.mp4"] * 4


def test_videos_without_a_face_are_listed(tmp_path: Path) -> None:
    readings = [*film("a.mp4", 0, faces=0), *film("b.mp4", 1), picture("c.jpg", 2, faces=0), bad("d.mp4", 3)]
    assert write(Targets(), sources("a.mp4", "b.mp4", "c.jpg", "d.mp4"), readings).videos_without_faces == ["a.mp4"]


def test_a_drawing_never_overwrites_a_source(tmp_path: Path) -> None:
    photo, clip = tmp_path / "photo.jpg", tmp_path / "clip.mp4"
    for path in (photo, clip):
        path.write_bytes(b"mine")
    (tmp_path / "link").symlink_to(tmp_path)
    for target in (photo, tmp_path, tmp_path / "link"):
        with pytest.raises(OutputError, match="is read by this run"):
            RunWriter(Targets(annotate=target), CLASSES, {}, sources(str(photo)))
    with pytest.raises(OutputError, match="is read by this run"):
        RunWriter(Targets(annotate=clip), CLASSES, {}, sources(str(clip)))
    (tmp_path / "plot.png").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"plot\.png: is read by this run"):
        RunWriter(Targets(timeline=tmp_path), CLASSES, {}, sources(str(tmp_path / "plot.png"), "plot.mp4"))


def test_targets_that_do_not_fit_the_sources(tmp_path: Path) -> None:
    for targets, words in (
        (Targets(annotate=tmp_path / "a.docx"), "of no known format"),
        (Targets(annotate=tmp_path / "a.png"), r"written as one of \.mp4"),
        (Targets(tmp_path / "a.csv", tmp_path / "a.csv"), "choose two names"),
        (Targets(summary=tmp_path / "a.txt"), r"end in \.json"),
    ):
        with pytest.raises(OutputError, match=words):
            RunWriter(targets, CLASSES, {}, sources("a.mp4"))
    with pytest.raises(OutputError, match="only pictures"):
        RunWriter(Targets(timeline=tmp_path / "a.png"), CLASSES, {}, sources("a.jpg"))
    with pytest.raises(OutputError, match="one file for several sources"):
        RunWriter(Targets(annotate=tmp_path / "a.mp4"), CLASSES, {}, sources("a.mp4", "b.mp4"))
    assert names(tmp_path) == []


def test_a_read_only_folder_is_reported_before_anything_is_read(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if os.access(closed, os.W_OK):
        pytest.skip("this user may write everywhere")
    for targets in (
        Targets(summary=closed / "s.json"),
        Targets(annotate=closed / "new/a.mp4"),
        Targets(timeline=closed / "lines"),
    ):
        with pytest.raises(OutputError, match="choose a folder you may write to"):
            RunWriter(targets, CLASSES, {}, sources("a.mp4"))


def test_a_name_without_an_ending_is_a_folder_even_for_one_source(tmp_path: Path) -> None:
    write(Targets(annotate=tmp_path / "drawn"), sources("a.jpg"), [picture("a.jpg", 0)])
    assert names(tmp_path) == ["drawn/a.jpg"]


def test_a_long_name_and_an_address_can_be_drawn(tmp_path: Path) -> None:
    long, address = "表" * 83 + ".jpg", "http://door:8/a?b=1/c.mp4"
    write(Targets(annotate=tmp_path / "d"), sources(long, address), [picture(long, 0), *film(address, 1)])
    assert names(tmp_path / "d") == ["c.mp4", "表" * 66 + ".jpg"]


def talkie(path: Path) -> Path:
    """Write a video of 0.4 s with sound."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        voice = out.add_stream("aac", rate=16000, layout="mono")
        for i in range(4):
            out.mux(video.encode(av.VideoFrame.from_ndarray(IMAGE, "rgb24")))
            piece = av.AudioFrame.from_ndarray(np.full((1, 1600), 999 * i, np.int16), "s16", "mono")
            piece.rate, piece.pts = 16000, 1600 * i
            out.mux(voice.encode(piece))
        out.mux(video.encode())
        out.mux(voice.encode())
    return path


@pytest.mark.parametrize("pipe", [True, False])
def test_the_sound_of_standard_input_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pipe: bool) -> None:
    """From a pipe and from a redirected file."""
    path = talkie(tmp_path / "a.mp4")
    with path.open("rb") as file:
        stdin = SimpleNamespace(read=file.read, seekable=lambda: False) if pipe else file
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=stdin))
        named = list(expand("-"))
        run = write(Targets(annotate=tmp_path / "d.mp4"), named, film("standard input", 0))
    with av.open(str(tmp_path / "d.mp4")) as drawn:
        assert len(drawn.streams.audio) == 1
    assert run.warnings == []


def test_lost_sound_is_reported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = talkie(tmp_path / "a.mp4")
    named = [*sources(str(path)), Source("rtsp://door/1", "live", "rtsp://door/1"), Source("camera:0", "live", "camera:0")]
    run = RunWriter(Targets(annotate=tmp_path / "d"), CLASSES, {}, named)

    def broken(sound: Sound) -> Iterator[None]:
        sound.problem = "Invalid data"
        yield from ()

    monkeypatch.setattr(Sound, "_read", broken)
    with run:
        for i, source in enumerate(named):
            video = SimpleNamespace(name=source.name, live=source.kind == "live", sound=source.name != "camera:0")
            run.opened(video)  # type: ignore[arg-type]
            for reading in film(source.name, i):
                run.add(reading)
    damaged, live = run.warnings
    assert damaged == f"{path}: its sound is damaged, so that of the annotated video ends early"
    assert live.startswith("rtsp://door/1: is a live stream, whose sound cannot be recorded")


def test_a_folder_that_may_not_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refused)
    monkeypatch.setattr(Path, "is_dir", refused)
    (tmp_path / "s.json").touch()
    with pytest.raises(OutputError, match=r"s\.json"):
        RunWriter(Targets(summary=tmp_path / "s.json"), CLASSES, {}, sources("a.mp4"))


def test_table_and_summary_cannot_be_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="is named for two outputs"):
        RunWriter(Targets(Path("t.csv"), tmp_path / "t.csv"), CLASSES, {}, sources("a.mp4"))


@pytest.mark.usefixtures("real")
@pytest.mark.parametrize("ending", ["json", "csv"])
def test_a_video_without_a_face_is_in_the_summary(tmp_path: Path, ending: str) -> None:
    """Also if it was read by the run that is resumed."""
    targets = Targets(tmp_path / "t.csv", tmp_path / f"s.{ending}")
    named = sources("a.mp4", "b.mp4", "c.mp4")
    write(targets, named, [*film("a.mp4", 0, faces=0), *film("b.mp4", 1), KeyboardInterrupt()])
    run = write(targets, named, film("c.mp4", 0, faces=0), resume=True)
    assert run.resumed == 1  # b.mp4 may not have been at its end
    if ending == "json":
        videos = json.loads((tmp_path / "s.json").read_text())["videos"]
        assert [(video["source"], video["faces"], video["by_person"]) for video in videos if not video["faces"]] == [
            ("a.mp4", 0, []),
            ("c.mp4", 0, []),
        ]
        assert set(videos[0]["share"].values()) == {0.0}
    else:
        with (tmp_path / "s.csv").open() as file:
            lines = [(line["source"], line["track"], line["faces"]) for line in csv.DictReader(file)]
        assert ("a.mp4", "all", "0") in lines
        assert ("c.mp4", "all", "0") in lines


def test_a_picture_is_done_when_it_was_read(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.mp4"):
        (tmp_path / name).write_bytes(b"here")
    photo, clip = str(tmp_path / "a.jpg"), str(tmp_path / "b.mp4")
    targets, named = Targets(tmp_path / "t.csv"), sources(photo, clip)
    write(targets, named, [picture(photo, 0), KeyboardInterrupt()])
    with RunWriter(targets, CLASSES, {}, named, resume=True) as resumed:
        assert (resumed.resumed, resumed.done(photo), resumed.done(clip)) == (1, True, False)


def test_sources_that_are_not_files_are_read_again(tmp_path: Path) -> None:
    targets, named = Targets(tmp_path / "t.csv"), sources("standard input.jpg", "b.mp4")
    write(targets, named, [picture("standard input.jpg", 0), *film("b.mp4", 1), KeyboardInterrupt()])
    with RunWriter(targets, CLASSES, {}, named, resume=True) as resumed:
        assert not resumed.done("standard input.jpg")
        for reading in (picture("standard input.jpg", 0, faces=2), *film("b.mp4", 1)):
            resumed.add(reading)
    assert rows(tmp_path / "t.csv") == ["standard input.jpg"] * 2 + ["b.mp4"] * 4


def test_a_resumed_run_cannot_add_drawings(tmp_path: Path) -> None:
    table, named = tmp_path / "t.csv", sources("a.jpg", "b.mp4")
    write(Targets(table), named, [picture("a.jpg", 0), KeyboardInterrupt()])
    with pytest.raises(OutputError, match=r"other settings \(drawn: nothing, now annotate\).*start over without --resume"):
        RunWriter(Targets(table, annotate=tmp_path / "drawn"), CLASSES, {}, named, resume=True)
    write(Targets(table, annotate=tmp_path / "full"), named, [picture("a.jpg", 0), KeyboardInterrupt()])
    with RunWriter(Targets(table, annotate=tmp_path / "another"), CLASSES, {}, named, resume=True):
        pass


@pytest.mark.parametrize(
    "targets",
    [
        Targets(Path("talk.csv"), events=Path()),
        Targets(summary=Path("out/talk.csv"), events=Path("out")),
        Targets(summary=Path("talk_events.json"), events=Path("talk_events.tsv")),
    ],
)
def test_a_file_named_after_its_source_replaces_no_other_of_the_run(
    targets: Targets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="another file of this run"):
        RunWriter(targets, CLASSES, {}, sources("talk.mp4"))
    assert names(tmp_path) == []


@pytest.mark.parametrize("targets", [Targets(Path("t.csv")), Targets(summary=Path("t.csv"))])
def test_a_folder_is_no_table(targets: Targets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").mkdir()
    with pytest.raises(OutputError, match=r"t\.csv: is a folder; name a file in it, such as t\.csv.table\.csv"):
        RunWriter(targets, CLASSES, {}, sources("talk.mp4"))


def test_ctrl_c_waits_until_the_files_are_finished(tmp_path: Path) -> None:
    """Ctrl-C comes again while the summary is written; tests/cli does the same with a real process."""
    run = RunWriter(Targets(tmp_path / "t.csv", tmp_path / "s.json"), CLASSES, {}, sources("a.mp4"))
    finish = run._write

    def interrupted(complete: bool) -> None:
        signal.raise_signal(signal.SIGINT)
        finish(complete)

    run._write = interrupted  # type: ignore[method-assign]
    for reading in film("a.mp4", 0):
        run.add(reading)
    with pytest.raises(KeyboardInterrupt), run:
        raise KeyboardInterrupt
    assert names(tmp_path) == [".t.csv.journal", "s.json", "t.csv"]
    assert rows(tmp_path / "t.csv") == ["a.mp4"] * 4


@pytest.mark.usefixtures("real")
def test_a_run_that_starts_over_is_resumed_even_if_it_finished_no_source(tmp_path: Path) -> None:
    table, named = tmp_path / "t.csv", sources("a.mp4", "b.mp4")
    write(Targets(table, annotate=tmp_path / "drawn"), named, [*film("a.mp4", 0), *film("b.mp4", 1), KeyboardInterrupt()])
    assert write(Targets(table), named, [*film("a.mp4", 0)[:2], KeyboardInterrupt()]).dropped == 1
    assert rows(table) == ["a.mp4"] * 2
    run = write(Targets(table), named, [*film("a.mp4", 0), *film("b.mp4", 1)], resume=True)
    assert (run.resumed, run.resumable) == (0, False)
    assert rows(table) == ["a.mp4"] * 4 + ["b.mp4"] * 4


def test_the_timeline_of_the_only_video_may_be_a_file(tmp_path: Path) -> None:
    targets = Targets(timeline=tmp_path / "plot.png")
    write(targets, sources("a.jpg", "a.mp4"), [picture("a.jpg", 0), *film("a.mp4", 1)])
    assert names(tmp_path) == ["plot.png"]
    with pytest.raises(OutputError, match="one file for several sources"):
        RunWriter(targets, CLASSES, {}, sources("a.jpg", "a.mp4", "b.mp4"))


def test_only_new_and_empty_folders_are_marked_as_folders_of_drawings(tmp_path: Path) -> None:
    for name in ("photos", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "photos/mine.txt").touch()
    for name in ("photos", "empty", "new"):
        write(Targets(annotate=tmp_path / name), sources("a.jpg"), [picture("a.jpg", 0)])
        assert "a.jpg" in names(tmp_path / name)
    assert [drawn(tmp_path / name) for name in ("photos", "empty", "new", "none")] == [False, True, True, False]


def test_a_file_where_a_folder_is_needed(tmp_path: Path) -> None:
    (tmp_path / "note").write_text("mine")
    for targets in (Targets(annotate=tmp_path / "note"), Targets(timeline=tmp_path / "note")):
        with pytest.raises(OutputError, match="note: is a file, but a folder is needed"):
            RunWriter(targets, CLASSES, {}, sources("a.mp4", "b.mp4"))
    assert (tmp_path / "note").read_text() == "mine"


@pytest.mark.usefixtures("real")
def test_drawings_keep_their_names_if_a_source_of_the_same_name_is_added(tmp_path: Path) -> None:
    targets = Targets(tmp_path / "t.csv", annotate=tmp_path / "drawn")
    missing = Source("1/x.jpg", "error", error=InputError("1/x.jpg: no such file"))
    write(targets, [missing, *sources("2/x.jpg", "a.mp4")], [bad("1/x.jpg", 0), picture("2/x.jpg", 1), KeyboardInterrupt()])
    assert names(tmp_path / "drawn") == ["x-2.jpg"]
    before = (tmp_path / "drawn/x-2.jpg").stat().st_mtime_ns
    now = sources("0/x.jpg", "1/x.jpg", "2/x.jpg", "a.mp4")
    write(targets, now, [picture("0/x.jpg", 0), picture("1/x.jpg", 1), *film("a.mp4", 2)], resume=True)
    assert names(tmp_path / "drawn") == ["a.mp4", "x-2.jpg", "x-3.jpg", "x.jpg"]
    assert (tmp_path / "drawn/x-2.jpg").stat().st_mtime_ns == before


def test_a_stopped_live_stream_is_complete(tmp_path: Path) -> None:
    targets, named = Targets(tmp_path / "t.csv"), [Source("camera:0", "live", "camera:0")]
    run = write(targets, named, [*film("camera:0", 0), KeyboardInterrupt()])
    assert not run.resumable
    assert names(tmp_path) == ["t.csv"]
    assert rows(tmp_path / "t.csv") == ["camera:0"] * 4


@pytest.mark.usefixtures("real")
def test_a_source_that_cannot_be_opened_again_keeps_its_rows(tmp_path: Path) -> None:
    targets, named = Targets(tmp_path / "t.csv"), sources("http://door/1", "a.mp4")
    write(targets, named, [*film("http://door/1", 0), *film("a.mp4", 1), KeyboardInterrupt()])
    run = write(targets, named, [bad("http://door/1", 0), *film("a.mp4", 1)], resume=True)
    assert rows(tmp_path / "t.csv") == ["http://door/1"] * 4 + ["a.mp4"] * 4
    assert [name for name, _ in run.failures] == ["http://door/1"]


@pytest.mark.usefixtures("real")
def test_an_address_without_a_face_is_in_a_resumed_runs_summary(tmp_path: Path) -> None:
    targets, named = Targets(tmp_path / "t.csv", tmp_path / "s.json"), sources("a.mp4", "http://door/1")
    write(targets, named, [*film("a.mp4", 0), *film("http://door/1", 1)[:1], KeyboardInterrupt()])
    write(targets, named, film("http://door/1", 0, faces=0), resume=True)
    videos = json.loads((tmp_path / "s.json").read_text())["videos"]
    assert {video["source"]: video["faces"] for video in videos} == {"a.mp4": 4, "http://door/1": 0}


@pytest.mark.parametrize("one_file", [True, False])
def test_what_a_killed_run_left_of_its_drawings_is_removed(tmp_path: Path, one_file: bool) -> None:
    folder = tmp_path / "drawn"
    folder.mkdir()
    old, new, others = folder / ".a-01234567.jpg", folder / ".a-89abcdef.jpg", folder / ".notes-20240101.jpg"
    for path in (old, new, others):
        path.write_bytes(b"half")
        if path != new:
            os.utime(path, (0, 0))
    target = folder / "a.jpg" if one_file else folder
    write(Targets(annotate=target), sources("a.jpg"), [picture("a.jpg", 0)])
    assert names(folder) == sorted([new.name, others.name, "a.jpg"])


@pytest.mark.usefixtures("real")
@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_all_frames_writes_a_row_for_each_and_counts_them(tmp_path: Path, ending: str) -> None:
    """Also in a run that is resumed, for the videos of the run before."""
    table, summary = tmp_path / f"t.{ending}", tmp_path / "s.json"
    named = sources("a.mp4", "b.mp4")
    a = [*film("a.mp4", 0, 4), *film("a.mp4", 0, 6, faces=0)[4:], *film("a.mp4", 0, 8)[6:]]
    for readings, resume in (([*a, *film("b.mp4", 1)[:1], KeyboardInterrupt()], False), (film("b.mp4", 0), True)):
        run = RunWriter(Targets(table, summary), CLASSES, {}, named, all_frames=True, resume=resume)
        with suppress(KeyboardInterrupt), run:
            for reading in readings:
                if isinstance(reading, BaseException):
                    raise reading
                run.add(reading)
    videos = json.loads(summary.read_text())["videos"]
    assert [(video["frames_read"], video["frames"], video["detection_rate"]) for video in videos] == [(8, 6, 0.75), (4, 4, 1.0)]
    assert videos[0]["longest_gaps"] == [{"start": 0.4, "length": 0.2}]
    found = pd.read_json(table, lines=True) if ending == "jsonl" else getattr(pd, f"read_{ending}")(table)
    assert found["frame"].tolist() == [*range(8), *range(4)]
    assert found["label"].isna().tolist() == [False] * 4 + [True] * 2 + [False] * 6
    assert found.loc[4].dropna().to_dict() == {"source": "a.mp4", "frame": 4, "time": 0.4}


@pytest.mark.usefixtures("real")
def test_without_all_frames_they_are_counted_all_the_same(tmp_path: Path) -> None:
    run = write(
        Targets(tmp_path / "t.csv", tmp_path / "s.csv"), sources("a.mp4"), [*film("a.mp4", 0), *film("a.mp4", 0, 9, 0)[4:]]
    )
    assert rows(tmp_path / "t.csv") == ["a.mp4"] * 4
    (video,) = run.summary.to_dict()["videos"]
    assert (video["frames_read"], video["frames"], video["gaps"]) == (9, 4, 1)
    with (tmp_path / "s.csv").open() as file:
        assert [(row["track"], row["frames_read"]) for row in csv.DictReader(file)] == [("1", ""), ("all", "9")]
