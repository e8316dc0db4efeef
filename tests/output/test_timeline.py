import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from mien.errors import InputError, MissingExtraError, OutputError
from mien.output import timeline
from mien.output.annotate import COLOURS
from mien.output.table import Row, row
from mien.output.timeline import Timeline
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


def draw(
    path: Path, faces: Iterable[Prediction | Row], *, source: str | None = None, max_gap: float = 1.5, people: int = 8
) -> None:
    lanes = Timeline(CLASSES, source, max_gap)
    lanes.extend(faces)
    lanes.draw(path, people)


def coloured(path: Path, expression: str) -> tuple[float, float]:
    """Return from where to where the first lane's band has the colour of an expression, shares of the picture's width."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    band = pixels[round(0.35 * timeline.DPI) : round(0.45 * timeline.DPI)]
    columns = np.nonzero((np.abs(band - COLOURS[expression]).max(axis=2) <= 2).all(axis=0))[0]
    return columns[0] / pixels.shape[1], columns[-1] / pixels.shape[1]


def words(path: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))


def test_colours_appear_at_the_time_of_the_expression(tmp_path: Path) -> None:
    draw(tmp_path / "t.png", talk())
    (start, middle), (next_start, end) = (coloured(tmp_path / "t.png", name) for name in ("happy", "sad"))
    assert start < 0.1
    assert end > 0.95
    assert middle == pytest.approx((start + end) / 2, abs=0.01)
    assert next_start == pytest.approx(middle, abs=0.003)


def test_text_stays_text(tmp_path: Path) -> None:
    draw(tmp_path / "t.svg", talk(2))
    found = words(tmp_path / "t.svg")
    assert {"talk.mp4", "person 1", "person 2", "time, s", *CLASSES} <= set(found)
    assert not any("unsure" in word for word in found)


def test_the_same_faces_give_the_same_bytes_whatever_matplotlibs_settings_are(tmp_path: Path) -> None:
    for ending in timeline.FORMATS:
        draw(tmp_path / f"a{ending}", talk())
        with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30, "svg.fonttype": "path"}):
            before = dict(matplotlib.rcParams)
            draw(tmp_path / f"b{ending}", map(row, talk()))
            assert dict(matplotlib.rcParams) == before
        assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


def test_an_hour_is_binned_without_losing_anyone() -> None:
    gathered = Timeline(CLASSES)
    gathered.extend(talk(2, 3600, 2))
    assert all(len(bins) <= timeline.BINS for bins in gathered._bins.values())
    for track, bins in gathered._bins.items():
        assert sum(each.frames for each in bins.values()) == 1800
        mean = sum(each.probs for each in bins.values()) / 1800
        np.testing.assert_allclose(mean, [0.425, 0.425, 0.15] if track == 1 else [0.15, 0.15, 0.7], atol=1e-6)
        starts = [each.start for _, each in sorted(bins.items())]
        assert starts == sorted(starts)
        assert starts[0] == 0


@pytest.mark.parametrize(
    ("start", "end", "first", "last", "name"),
    [(0, 3, "0", "3", "time, s"), (0, 300, "0:00", "5:00", "time, m:ss"), (3000, 4000, "50:00", "1:06:40", "time, h:mm:ss")],
)
def test_the_time_axis_has_readable_units(tmp_path: Path, start: float, end: float, first: str, last: str, name: str) -> None:
    times = np.linspace(start, end, 31).tolist()
    draw(tmp_path / "t.svg", [seen("happy", time) for time in times], max_gap=40)
    found = words(tmp_path / "t.svg")
    assert first in found
    assert last in found or last == "1:06:40"
    assert name in found


def test_a_person_out_of_sight_leaves_a_gap() -> None:
    gathered = Timeline(CLASSES, max_gap=1)
    gathered.extend(seen("happy", time) for time in (0, 0.5, 1, 5, 5.5))
    lane = gathered._lanes(8)[1]
    np.testing.assert_allclose(lane.starts, [0, 0.5, 1, 5, 5.5])
    np.testing.assert_allclose(lane.ends, [0.5, 1, 1.5, 5.5, 6])
    assert timeline._runs(lane) == {(0, False): [(0, 1.5), (5, 1)]}
    edges, probs = timeline._step_edges(lane)
    assert edges.tolist() == [0, 0.5, 1, 1.5, 1.5, 5, 5.5, 6, 6]
    assert np.isnan(probs).all(axis=1).tolist() == [False] * 4 + [True] + [False] * 3 + [True]


def test_unsure_is_shown_and_explained(tmp_path: Path) -> None:
    faces = [seen("happy", time, unsure=time >= 5) for time in range(10)]
    draw(tmp_path / "t.svg", faces)
    assert any("half as high where unsure" in word for word in words(tmp_path / "t.svg"))
    gathered = Timeline(CLASSES)
    gathered.extend(faces)
    assert timeline._runs(gathered._lanes(8)[1]) == {(0, False): [(0, 5)], (0, True): [(5, 5)]}


def test_of_many_people_those_seen_longest_are_drawn(tmp_path: Path) -> None:
    faces = [seen("sad", time / 2, track) for time in range(10) for track in range(1, 12) if time < track]
    draw(tmp_path / "t.svg", faces, people=3)
    found = words(tmp_path / "t.svg")
    assert [word for word in found if word.startswith("person")] == ["person 9", "person 10", "person 11"]
    assert any("3 of 11 people" in word for word in found)


@pytest.mark.parametrize("faces", [[], [seen("sad", None, None)]], ids=["none", "pictures"])
def test_a_timeline_without_faces(tmp_path: Path, faces: list[Prediction]) -> None:
    draw(tmp_path / "t.svg", faces)
    assert "no face was seen" in words(tmp_path / "t.svg")


def test_a_single_frame_is_visible(tmp_path: Path) -> None:
    draw(tmp_path / "t.png", [seen("happy", 4)])
    start, end = coloured(tmp_path / "t.png", "happy")
    assert end > start


def test_one_timeline_is_of_one_video(tmp_path: Path) -> None:
    both = [seen("happy", 0), seen("sad", 0, source="in/other.mp4")]
    with pytest.raises(InputError, match=r"several videos \(in/talk.mp4, in/other.mp4\); choose one"):
        draw(tmp_path / "t.svg", both)
    assert list(tmp_path.iterdir()) == []
    draw(tmp_path / "t.svg", both, source="in/other.mp4")
    assert "other.mp4" in words(tmp_path / "t.svg")


@pytest.mark.parametrize("name", ["$x$_{1}.mp4", "caf\udce9.mp4", "東京.mp4", "n" * 300])
def test_any_file_name_can_be_the_title(tmp_path: Path, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(tmp_path / "t.svg", [seen("happy", 0, source=name)])
    shown = name.replace("\udce9", r"\xe9")
    assert any(word[:40] == shown[:40] for word in words(tmp_path / "t.svg"))


def test_unknown_classes_have_different_colours(tmp_path: Path) -> None:
    classes = ("bored", "keen", "$shy$", "happy")
    probs = [0.4, 0.3, 0.2, 0.1]
    lanes = Timeline(classes)
    lanes.add(Prediction(classes, probs, None, "a.mp4", 0, 0.0, 1))
    lanes.draw(tmp_path / "t.svg")
    assert set(classes) <= set(words(tmp_path / "t.svg"))
    assert len(set(timeline.class_colours(classes))) == 4


def test_errors_of_timelines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match=r"must end in \.png or \.svg"):
        draw(tmp_path / "t.pdf", talk())
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="part of the path is a file"):
        draw(tmp_path / "file/t.png", talk())
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mien\[tables\]'"):
        draw(tmp_path / "t.png", talk())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
