import csv
import itertools
import json
import sys
import tracemalloc
import xml.etree.ElementTree as ET
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pympi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from praatio import textgrid

from mien.errors import InputError, MissingExtraError, OutputError, UnknownNameError
from mien.output.event_files import Segment, Video, write_events
from mien.output.events import EventOptions, Events, EventWriter, first_gap_of
from mien.output.run import RunWriter, Targets
from mien.output.summary import MAX_SAMPLE_GAP
from mien.output.table import empty_row, row
from mien.structures import Frame, Prediction, Reading
from mien.video.sources import Source

CLASSES = ("happy", "sad", "fear")


def face(label: str, time: float, track: int = 1, source: str = "a.mp4", sure: float = 0.75) -> Prediction:
    probs = [sure if name == label else (1 - sure) / 2 for name in CLASSES]
    return Prediction(CLASSES, probs, None, source, round(time * 10), time, track)


def segments(faces: list[Prediction], **options: float) -> list[tuple[str, float, float]]:
    events = Events(CLASSES, EventOptions(**options))
    events.extend(map(row, faces))
    return [(each.expression, each.start, each.end) for video in events.finish() for each in video.segments]


def spoken(text: str, step: float = 0.1) -> list[Prediction]:
    """Return one face per letter, `step` seconds apart: h, s, f, and a dot for a frame without a face."""
    names = {name[0]: name for name in CLASSES}
    return [face(names[letter], round(i * step, 3)) for i, letter in enumerate(text) if letter != "."]


def test_a_short_expression_between_two_of_one_kind_belongs_to_them() -> None:
    assert segments(spoken("hhhhsshhhhssss")) == [("happy", 0, 1.0), ("sad", 1.0, 1.3)]
    assert segments(spoken("hhhhsshhhhssss"), merge_gap=0, min_seconds=0) == [
        ("happy", 0, 0.4),
        ("sad", 0.4, 0.6),
        ("happy", 0.6, 1.0),
        ("sad", 1.0, 1.3),
    ]


def test_an_interruption_longer_than_the_expression_is_not_closed() -> None:
    assert segments(spoken("hsshhhhhh"), min_seconds=0) == [("happy", 0, 0.1), ("sad", 0.1, 0.3), ("happy", 0.3, 0.8)]


def test_nothing_is_said_of_the_time_out_of_sight() -> None:
    assert segments(spoken("hhhhhh......hhhhhh")) == [("happy", 0, 0.5), ("happy", 1.2, 1.7)]
    assert segments(spoken("hhhhhh..hhhhhh")) == [("happy", 0, 1.3)], "a gap of 0.3 s is closed"
    assert segments(spoken("hhhhh", step=2)) == [("happy", 2, 8)], "frames may be sparse, once the step is known"


def test_the_first_step_may_be_as_long_as_the_frames_that_are_read() -> None:
    rows = list(map(row, spoken("hhhhh", step=2)))
    assert (first_gap_of(rows), first_gap_of(rows[:2]), first_gap_of([])) == (5, MAX_SAMPLE_GAP, MAX_SAMPLE_GAP)
    events = Events(CLASSES, first_gap=first_gap_of(rows))
    events.extend(rows)
    assert [(each.start, each.end) for each in events.finish()[0].segments] == [(0, 8)]


def test_people_and_videos_are_apart_and_pictures_are_no_events() -> None:
    faces = [face("happy" if track == 1 else "sad", i / 10, track, name) for name in "xy" for i in range(9) for track in (1, 2)]
    events = Events(CLASSES)
    events.extend(map(row, [*faces, Prediction(CLASSES, [1, 0, 0], source="photo.jpg")]))
    found = {(each.source, each.person, each.expression) for video in events.finish() for each in video.segments}
    assert found == {("x", 1, "happy"), ("x", 2, "sad"), ("y", 1, "happy"), ("y", 2, "sad")}


def test_probability_is_the_mean_over_all_frames_of_a_segment() -> None:
    events = Events(CLASSES)
    events.extend(
        map(row, [*(face("happy", i / 10, sure=0.9) for i in range(6)), *(face("happy", i / 10, sure=0.6) for i in (6, 7))])
    )
    (segment,) = events.finish()[0].segments
    assert segment == Segment("a.mp4", 1, 0, 0.7, "happy", pytest.approx((6 * 0.9 + 2 * 0.6) / 8), 8)


@settings(max_examples=60, deadline=None)
@given(st.text("hsf.", max_size=60), st.sampled_from((0, 0.1, 0.3, 1)), st.sampled_from((0, 0.1, 0.3, 1)))
def test_segments_of_a_person_are_in_order_long_enough_and_apart(text: str, shortest: float, gap: float) -> None:
    found = segments(spoken(text), min_seconds=shortest, merge_gap=gap)
    assert all(end - start >= max(shortest, 1e-3) - 1e-6 for _, start, end in found)
    for (name, _, end), (following, start, _) in itertools.pairwise(found):
        assert end <= start + 1e-9
        assert name != following or start - end > 0
    if not shortest and not gap:  # then each frame that lasts is in the segment of its expression
        for each, after in itertools.pairwise(spoken(text)):
            if after.time - each.time < 0.15:
                assert [name for name, start, end in found if start <= each.time < end] == [each.label]


def test_memory_does_not_grow_with_the_frames() -> None:
    events = Events(CLASSES)
    entry = row(face("happy", 0))
    events.add(entry)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    events.extend(entry | {"time": i / 10, "frame": i} for i in range(1, 10_000))
    assert tracemalloc.get_traced_memory()[0] - before < 20_000
    tracemalloc.stop()
    assert events.finish()[0].segments[0].frames == 10_000


@pytest.fixture
def video(tmp_path: Path) -> Video:
    """Two people; the second is away for a second."""
    path = tmp_path / "films/a film.mp4"
    path.parent.mkdir()
    path.write_bytes(b"not read")
    name = str(path)
    found = [Segment(name, 1, 0.0, 1.5, "happy", 0.9, 15), Segment(name, 1, 1.5, 4.04, "sad", 0.5, 26)]
    found += [Segment(name, 2, 0.5, 1.0, "fear", 0.654321, 5), Segment(name, 2, 2.0, 3.0, "fear", 0.7, 10)]
    return Video(name, 4.2, found)


def test_praat_reads_the_textgrid(tmp_path: Path, video: Video) -> None:
    write_events(tmp_path / "x.TextGrid", [video], CLASSES)
    grid = textgrid.openTextgrid(str(tmp_path / "x.TextGrid"), includeEmptyIntervals=True, reportingMode="error")
    assert grid.tierNames == ("person 1", "person 1 probability", "person 2", "person 2 probability")
    assert (grid.minTimestamp, grid.maxTimestamp) == (0, 4.2)
    assert [tuple(each) for each in grid.getTier("person 1").entries] == [
        (0, 1.5, "happy"),
        (1.5, 4.04, "sad"),
        (4.04, 4.2, ""),
    ]
    texts = [each.label for each in grid.getTier("person 2 probability").entries]
    assert texts == ["", "0.654", "", "0.700", ""]


def test_elan_reads_the_eaf(tmp_path: Path, video: Video) -> None:
    path = tmp_path / "out/x.eaf"
    write_events(path, [video], CLASSES)
    root = ET.parse(path).getroot()
    media = root.find("HEADER/MEDIA_DESCRIPTOR")
    assert media is not None
    assert media.get("MEDIA_URL") == f"file://{video.name}"
    assert media.attrib["RELATIVE_MEDIA_URL"] == "../films/a film.mp4"
    assert (path.parent / media.attrib["RELATIVE_MEDIA_URL"]).samefile(video.name)
    assert media.get("MIME_TYPE") == "video/mp4"
    slots = {slot.get("TIME_SLOT_ID"): int(slot.attrib["TIME_VALUE"]) for slot in root.iter("TIME_SLOT")}
    kinds = {kind.get("LINGUISTIC_TYPE_ID"): kind.get("CONSTRAINTS") for kind in root.iter("LINGUISTIC_TYPE")}
    tiers = {tier.get("TIER_ID"): tier for tier in root.iter("TIER")}
    assert list(tiers) == ["person 1", "person 1 probability", "person 2", "person 2 probability"]
    parts = [
        (slots[each.get("TIME_SLOT_REF1")], slots[each.get("TIME_SLOT_REF2")], each.findtext("ANNOTATION_VALUE"))
        for each in tiers["person 1"].iter("ALIGNABLE_ANNOTATION")
    ]
    assert parts == [(0, 1500, "happy"), (1500, 4040, "sad")]
    child = tiers["person 2 probability"]
    assert child.get("PARENT_REF") == "person 2"
    assert kinds[child.get("LINGUISTIC_TYPE_REF")] == "Symbolic_Association"
    parents = [each.get("ANNOTATION_ID") for each in tiers["person 2"].iter("ALIGNABLE_ANNOTATION")]
    assert [each.get("ANNOTATION_REF") for each in child.iter("REF_ANNOTATION")] == parents
    assert [each.findtext("ANNOTATION_VALUE") for each in child.iter("REF_ANNOTATION")] == ["0.654", "0.700"]
    assert pympi.Eaf(path).get_annotation_data_for_tier("person 2") == [(500, 1000, "fear"), (2000, 3000, "fear")]


def test_boris_finds_each_state_begun_and_ended(tmp_path: Path, video: Video) -> None:
    write_events(tmp_path / "x.boris", [video, Video("other/a film.mp4", 1.0)], CLASSES)
    project = json.loads((tmp_path / "x.boris").read_text())
    assert [each["code"] for each in project["behaviors_conf"].values()] == [*CLASSES]
    assert {each["type"] for each in project["behaviors_conf"].values()} == {"State event"}
    assert [each["name"] for each in project["subjects_conf"].values()] == ["person 1", "person 2"]
    assert list(project["observations"]) == ["a film.mp4", "a film.mp4 (2)"]
    observation = project["observations"]["a film.mp4"]
    (media,) = observation["file"]["1"]
    assert (tmp_path / media).samefile(video.name)
    events = observation["events"]
    assert events == sorted(events)
    states: dict[tuple[str, str], list[float]] = {}
    for time, subject, code, *_ in events:
        states.setdefault((subject, code), []).append(time)
    expected = {("person 1", "happy"): [0, 1.5], ("person 1", "sad"): [1.5, 4.04], ("person 2", "fear"): [0.5, 1, 2, 3]}
    assert states == expected


def test_bids_describes_each_column(tmp_path: Path, video: Video) -> None:
    path = tmp_path / "sub-01_task-film_events.tsv"
    assert write_events(path, [video], CLASSES) == [path, path.with_suffix(".json")]
    table = pd.read_csv(path, sep="\t", keep_default_na=False)
    assert [*table.columns[:3]] == ["onset", "duration", "trial_type"]
    assert table["onset"].tolist() == [0, 1.5, 0.5, 2.0]
    assert table["duration"].tolist() == [1.5, 2.54, 0.5, 1.0]
    described = json.loads(path.with_suffix(".json").read_text())
    assert described.pop("TaskName") == "film"
    assert [*described] == [*table.columns]
    assert all(each["Description"] for each in described.values())
    assert [*described["trial_type"]["Levels"]] == [*CLASSES]


def test_a_video_without_events_still_has_its_files(tmp_path: Path) -> None:
    for name in ("x.csv", "x.eaf", "x.TextGrid", "x.boris", "x_events.tsv"):
        assert write_events(tmp_path / name, [Video("a.mp4")], CLASSES)
    assert pympi.Eaf(tmp_path / "x.eaf").get_tier_names()
    assert textgrid.openTextgrid(str(tmp_path / "x.TextGrid"), True).tierNames == ("nobody",)


def sources(*names: str) -> list[Source]:
    return [Source(name, "picture" if name.endswith(".jpg") else "video", name) for name in names]


def test_several_videos_go_into_one_csv_or_into_a_folder(tmp_path: Path) -> None:
    named = sources("a.mp4", "b/a.mp4", "c.jpg")
    for target, options in ((tmp_path / "all.csv", None), (tmp_path / "all", EventOptions(kind="bids"))):
        writer = EventWriter(target, CLASSES, options, named)
        writer.events.extend(row(face("happy", i / 10, source=name)) for name in ("a.mp4", "b/a.mp4") for i in range(9))
        writer.write()
    with (tmp_path / "all.csv").open() as file:
        assert [(line["source"], line["person"]) for line in csv.DictReader(file)] == [("a.mp4", "1"), ("b/a.mp4", "1")]
    written = sorted(path.name for path in (tmp_path / "all").glob("[!.]*"))
    assert written == ["a-2_events.json", "a-2_events.tsv", "a_events.json", "a_events.tsv"]


@pytest.mark.parametrize(
    ("name", "named", "message"),
    [
        ("x.eaf", ("a.mp4", "b.mp4"), "one file for several sources"),
        ("x.tsv", ("a.mp4",), "_events.tsv"),
        ("x.txt", ("a.mp4",), r"must end in .csv, .eaf, .textgrid, .boris or .tsv"),
        ("x.csv", ("a.jpg",), "needs a video"),
        ("x.boris", ("a.jpg",), "needs a video"),
    ],
)
def test_wrong_targets(tmp_path: Path, name: str, named: tuple[str, ...], message: str) -> None:
    with pytest.raises(OutputError, match=message):
        EventWriter(tmp_path / name, CLASSES, None, sources(*named))


def test_the_description_for_bids_replaces_no_input(tmp_path: Path) -> None:
    (tmp_path / "a_events.json").write_text("{}")
    with pytest.raises(OutputError, match="is read by this run"):
        EventWriter(tmp_path / "a_events.tsv", CLASSES, None, sources(str(tmp_path / "a_events.json")))


def test_wrong_options_and_a_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="0 seconds or more"):
        EventOptions(min_seconds=-1)
    with pytest.raises(UnknownNameError, match="csv, eaf, textgrid, boris, bids"):
        EventOptions(kind="xls")
    monkeypatch.setitem(sys.modules, "pympi", None)
    with pytest.raises(MissingExtraError, match=r"mien\[events\]"):
        EventWriter(tmp_path / "x.eaf", CLASSES, None, sources("a.mp4"))


def films(names: tuple[str, ...], frames: int) -> list[Reading]:
    """Return the readings of videos with a face in their first seven frames, and create their files."""
    readings = []
    for number, name in enumerate(names):
        Path(name).write_bytes(b"here")
        for i in range(frames):
            found = (face("happy", i / 10, source=name),) if i < 7 else ()
            readings.append(Reading(name, Frame(None, i, i / 10), found, number=number))  # type: ignore[arg-type]
    return readings


def test_a_resumed_run_writes_the_events_of_all_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("a.mp4", "b.mp4")
    readings = films(names, frames=9)
    targets = Targets(table=Path("t.csv"), events=Path("e.csv"))
    with suppress(KeyboardInterrupt), RunWriter(targets, CLASSES, {}, sources(*names)) as run:
        for reading in readings[:12]:
            run.add(reading)
        raise KeyboardInterrupt
    partly = Path("e.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in partly[1:]] == ["a.mp4"]  # what b.mp4 showed so far is too short
    with RunWriter(targets, CLASSES, {}, sources(*names), resume=True) as run:
        for reading in readings[9:]:
            run.add(reading)
    whole = Events(CLASSES)
    whole.extend(row(each) for reading in readings for each in reading.predictions)
    with Path("e.csv").open() as file:
        lines = [(line["source"], float(line["end"])) for line in csv.DictReader(file)]
    assert lines == [(each.source, each.end) for video in whole.finish() for each in video.segments]
    assert len(lines) == 2


def test_a_resumed_run_knows_how_long_each_video_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("a.mp4", "b.mp4")
    readings = films(names, frames=30)
    targets = Targets(table=Path("t.csv"), events=Path("e"))
    options = EventOptions(kind="textgrid")
    with suppress(KeyboardInterrupt), RunWriter(targets, CLASSES, {}, sources(*names), event_options=options) as run:
        for reading in readings[:40]:
            run.add(reading)
        raise KeyboardInterrupt
    with RunWriter(targets, CLASSES, {}, sources(*names), resume=True, event_options=options) as run:
        for reading in readings[30:]:
            run.add(reading)
    for name in ("a", "b"):
        assert textgrid.openTextgrid(f"e/{name}.TextGrid", True).maxTimestamp == 2.9


def test_frames_without_a_face_tell_how_long_the_video_is() -> None:
    events = Events(CLASSES)
    events.extend([*map(row, spoken("hhhhh")), empty_row(CLASSES, "a.mp4", 30, 3.0)])
    assert events.finish()[0].end == 3.0
