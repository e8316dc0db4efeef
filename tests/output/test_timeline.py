import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from mien.errors import InputError, MissingExtraError, OutputError
from mien.output import lanes, timeline
from mien.output.annotate import COLOURS
from mien.output.table import row
from mien.output.timeline import Timeline, check_timeline, draw_timeline
from mien.structures import Prediction

CLASSES = ("happy", "sad", "surprise")


def seen(
    label: str, time: float | None, track: int | None = 1, source: str = "in/talk.mp4", unsure: bool = False
) -> Prediction:
    probs = [0.7 if name == label else 0.15 for name in CLASSES]
    return Prediction(CLASSES, probs, None, source, None, time, track, unsure)


def talk(people: int = 1, end: float = 10, step: float = 0.2) -> Iterator[Prediction]:
    """Person 1 is happy, then sad from half way; every other person is surprised."""
    for time in np.arange(0, end, step).tolist():
        yield seen("happy" if time < end / 2 else "sad", time)
        yield from (seen("surprise", time, track) for track in range(2, people + 1))


def coloured(path: Path, expression: str) -> tuple[float, float]:
    """Return from where to where the first lane's band has the colour of an expression, shares of the picture's width."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    band = pixels[round(0.35 * timeline.DPI) : round(0.45 * timeline.DPI)]
    columns = np.nonzero((np.abs(band - COLOURS[expression]).max(axis=2) <= 2).all(axis=0))[0]
    return columns[0] / pixels.shape[1], columns[-1] / pixels.shape[1]


def words(path: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))


def test_colours_stand_where_the_expression_was(tmp_path: Path) -> None:
    draw_timeline(tmp_path / "t.png", talk(), CLASSES)
    (start, middle), (next_start, end) = (coloured(tmp_path / "t.png", name) for name in ("happy", "sad"))
    assert start < 0.1
    assert end > 0.95
    assert middle == pytest.approx((start + end) / 2, abs=0.01)
    assert next_start == pytest.approx(middle, abs=0.003)


def test_text_stays_text(tmp_path: Path) -> None:
    draw_timeline(tmp_path / "t.svg", talk(2), CLASSES)
    found = words(tmp_path / "t.svg")
    assert {"talk.mp4", "person 1", "person 2", "time, s", *CLASSES} <= set(found)
    assert not any("unsure" in word for word in found)


def test_the_same_faces_give_the_same_bytes(tmp_path: Path) -> None:
    for ending in timeline.FORMATS:
        for name in ("a", "b"):
            draw_timeline(tmp_path / f"{name}{ending}", map(row, talk()) if name == "b" else talk(), CLASSES)
        assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


def test_matplotlib_is_left_as_it_was_and_does_not_change_the_picture(tmp_path: Path) -> None:
    draw_timeline(tmp_path / "a.svg", talk(), CLASSES)
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30, "svg.fonttype": "path"}):
        before = dict(matplotlib.rcParams)
        draw_timeline(tmp_path / "b.svg", talk(), CLASSES)
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_an_hour_is_binned_without_losing_anyone() -> None:
    gathered = Timeline(CLASSES)
    gathered.extend(talk(2, 3600, 1))
    assert all(len(lane) <= timeline.BINS for lane in gathered._lanes.values())
    for track, lane in gathered._lanes.items():
        assert sum(cell.frames for cell in lane.values()) == 3600
        mean = sum(cell.probs for cell in lane.values()) / 3600
        np.testing.assert_allclose(mean, [0.425, 0.425, 0.15] if track == 1 else [0.15, 0.15, 0.7], atol=1e-6)
        starts = [cell.start for _, cell in sorted(lane.items())]
        assert starts == sorted(starts)
        assert starts[0] == 0


@pytest.mark.parametrize(
    ("start", "end", "first", "last", "name"),
    [(0, 3, "0", "3", "time, s"), (0, 300, "0:00", "5:00", "time, m:ss"), (3000, 4000, "50:00", "1:06:40", "time, h:mm:ss")],
)
def test_times_are_written_as_people_read_them(
    tmp_path: Path, start: float, end: float, first: str, last: str, name: str
) -> None:
    times = np.linspace(start, end, 31).tolist()
    draw_timeline(tmp_path / "t.svg", [seen("happy", time) for time in times], CLASSES, max_gap=40)
    found = words(tmp_path / "t.svg")
    assert first in found
    assert last in found or last == "1:06:40"
    assert name in found


def test_a_person_out_of_sight_leaves_a_gap() -> None:
    gathered = Timeline(CLASSES, max_gap=1)
    gathered.extend(seen("happy", time) for time in (0, 0.5, 1, 5, 5.5))
    strip = gathered._strips(8)[1]
    np.testing.assert_allclose(strip.starts, [0, 0.5, 1, 5, 5.5])
    np.testing.assert_allclose(strip.ends, [0.5, 1, 1.5, 5.5, 6])
    assert lanes._runs(strip) == {(0, False): [(0, 1.5), (5, 1)]}
    edges, probs = lanes._outlined(strip)
    assert edges.tolist() == [0, 0.5, 1, 1.5, 1.5, 5, 5.5, 6, 6]
    assert np.isnan(probs).all(axis=1).tolist() == [False] * 4 + [True] + [False] * 3 + [True]


def test_doubt_is_shown_and_explained(tmp_path: Path) -> None:
    faces = [seen("happy", time, unsure=time >= 5) for time in range(10)]
    draw_timeline(tmp_path / "t.svg", faces, CLASSES)
    assert any("half as high where unsure" in word for word in words(tmp_path / "t.svg"))
    gathered = Timeline(CLASSES)
    gathered.extend(faces)
    assert lanes._runs(gathered._strips(8)[1]) == {(0, False): [(0, 5)], (0, True): [(5, 5)]}


def test_many_people_become_those_seen_longest(tmp_path: Path) -> None:
    faces = [seen("sad", time / 2, track) for time in range(10) for track in range(1, 12) if time < track]
    draw_timeline(tmp_path / "t.svg", faces, CLASSES, people=3)
    found = words(tmp_path / "t.svg")
    assert [word for word in found if word.startswith("person")] == ["person 9", "person 10", "person 11"]
    assert any("3 of 11 people" in word for word in found)


@pytest.mark.parametrize("faces", [[], [seen("sad", None, None)]], ids=["none", "pictures"])
def test_nobody_is_a_picture_too(tmp_path: Path, faces: list[Prediction]) -> None:
    draw_timeline(tmp_path / "t.svg", faces, CLASSES)
    assert "no face was seen" in words(tmp_path / "t.svg")


def test_a_single_frame_is_seen(tmp_path: Path) -> None:
    draw_timeline(tmp_path / "t.png", [seen("happy", 4)], CLASSES)
    start, end = coloured(tmp_path / "t.png", "happy")
    assert end > start


def test_one_video_a_picture(tmp_path: Path) -> None:
    both = [seen("happy", 0), seen("sad", 0, source="in/other.mp4")]
    with pytest.raises(InputError, match=r"several videos \(in/talk.mp4, in/other.mp4\); name the one"):
        draw_timeline(tmp_path / "t.svg", both, CLASSES)
    assert list(tmp_path.iterdir()) == []
    draw_timeline(tmp_path / "t.svg", both, CLASSES, source="in/other.mp4")
    assert "other.mp4" in words(tmp_path / "t.svg")


@pytest.mark.parametrize("name", ["$x$_{1}.mp4", "caf\udce9.mp4", "東京.mp4", "n" * 300])
def test_any_name_is_a_title(tmp_path: Path, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_timeline(tmp_path / "t.png", [seen("happy", 0, source=name)], CLASSES)
        draw_timeline(tmp_path / "t.svg", [seen("happy", 0, source=name)], CLASSES)
    shown = name.replace("\udce9", r"\xe9")
    assert any(word[:40] == shown[:40] for word in words(tmp_path / "t.svg"))


def test_unknown_classes_differ_in_colour(tmp_path: Path) -> None:
    classes = ("bored", "keen", "$shy$", "happy")
    probs = [0.4, 0.3, 0.2, 0.1]
    draw_timeline(tmp_path / "t.svg", [Prediction(classes, probs, None, "a.mp4", 0, 0.0, 1)], classes)
    assert set(classes) <= set(words(tmp_path / "t.svg"))
    assert len(set(lanes.palette(classes))) == 4


def test_what_cannot_be_drawn_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match=r"must end in \.png or \.svg"):
        draw_timeline(tmp_path / "t.pdf", talk(), CLASSES)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="part of the path is a file"):
        draw_timeline(tmp_path / "file/t.png", talk(), CLASSES)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mien\[tables\]'"):
        check_timeline("t.png")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
