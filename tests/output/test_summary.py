import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mien.errors import OutputError
from mien.output.summary import Seen, Summary, summary_columns, write_summary
from mien.output.table import empty_row, row
from mien.structures import Prediction

CLASSES = ("happy", "sad", "fear")
PROBS = {"happy": [0.75, 0.25, 0], "sad": [0.25, 0.75, 0], "fear": [0.125, 0.25, 0.625]}


def seen(label: str, time: float | None, track: int | None = 1, source: str = "a.mp4", unsure: bool = False) -> Prediction:
    frame = None if time is None else round(time * 10)
    return Prediction(CLASSES, PROBS[label], None, source, frame, time, track, unsure)


def summed(predictions: list[Prediction], **options: float) -> dict[str, Any]:
    summary = Summary(CLASSES, **options)
    summary.extend(predictions)
    return summary.to_dict()


# happy 0-2, sad 2-3, happy 3-3.5, then six seconds out of sight, sad 9.5-10.5 where it ends
ONE = [
    seen("happy", 0),
    seen("happy", 1),
    seen("sad", 2, unsure=True),
    seen("happy", 3),
    seen("happy", 3.5),
    seen("sad", 9.5),
    seen("sad", 10.5),
    seen("fear", 11.5),
]


def test_one_person_by_hand() -> None:
    (video,) = summed(ONE)["videos"]
    (person,) = video["by_person"]
    assert person["track"] == 1
    assert (person["start"], person["end"], person["seconds"], person["faces"]) == (0, 11.5, 5.5, 8)
    assert person["unsure"] == 0.125
    assert person["share_of"] == "time"
    assert person["share"] == {"happy": round(2.5 / 5.5, 6), "sad": round(3 / 5.5, 6), "fear": 0}
    assert person["mean"]["happy"] == pytest.approx((4 * 0.75 + 3 * 0.25 + 0.125) / 8)
    assert person["longest"] == {
        "happy": {"start": 0, "length": 2},
        "sad": {"start": 9.5, "length": 2},
        "fear": {"start": 11.5, "length": 0},
    }
    assert person["transitions"] == {"happy": {"sad": 1}, "sad": {"happy": 1, "fear": 1}}
    assert person["changes"] == 3


def test_max_gap_decides_which_time_counts() -> None:
    (video,) = summed(ONE, max_gap=6)["videos"]
    (person,) = video["by_person"]
    assert person["seconds"] == 11.5
    assert person["longest"]["happy"] == {"start": 3, "length": 6.5}
    assert person["transitions"]["happy"] == {"sad": 2}


def test_uneven_samples_are_weighted_by_time() -> None:
    (video,) = summed([seen("happy", 0), seen("sad", 0.25), seen("sad", 1), seen("sad", 1.25)])["videos"]
    assert video["share"] == {"happy": 0.2, "sad": 0.8, "fear": 0}


def test_a_video_adds_up_its_people() -> None:
    both = [seen("happy", t, 1) for t in (0, 1)] + [seen("sad", t, 2) for t in (1, 2, 3)]
    (video,) = summed(sorted(both, key=lambda p: p.time))["videos"]
    assert (video["source"], video["people"], video["frames"], video["faces"]) == ("a.mp4", 2, 4, 5)
    assert (video["start"], video["end"], video["seconds"]) == (0, 3, 3)
    assert video["share"] == {"happy": round(1 / 3, 6), "sad": round(2 / 3, 6), "fear": 0}
    assert [person["track"] for person in video["by_person"]] == [1, 2]


def test_videos_stay_apart_even_where_they_alternate() -> None:
    mixed = [seen(label, t, 1, name) for t in (0, 1) for name, label in (("a.mp4", "happy"), ("b.mp4", "sad"))]
    first, second = summed(mixed)["videos"]
    assert (first["share"]["happy"], second["share"]["sad"]) == (1, 1)
    assert first["seconds"] == second["seconds"] == 1


def test_a_person_seen_once_counts_by_faces() -> None:
    (video,) = summed([seen("sad", 4)])["videos"]
    assert (video["seconds"], video["share_of"], video["share"]["sad"]) == (0, "faces", 1)
    assert video["by_person"][0]["longest"] == {"happy": None, "sad": {"start": 4, "length": 0}, "fear": None}


def test_faces_that_were_not_followed_have_no_time() -> None:
    (video,) = summed([seen("sad", 0, None), seen("happy", 0, None), seen("happy", 1, None), seen("happy", 1, 3)])["videos"]
    assert video["people"] == 1
    assert [person["track"] for person in video["by_person"]] == [3, None]
    assert video["by_person"][1]["share"] == {"happy": round(2 / 3, 6), "sad": round(1 / 3, 6), "fear": 0}
    assert video["seconds"] == video["by_person"][1]["changes"] == 0


def test_pictures_are_added_up_together() -> None:
    found = summed([seen("sad", None, None, name) for name in ("a.jpg", "a.jpg", "b.jpg")])
    assert found["videos"] == []
    assert (found["pictures"]["pictures"], found["pictures"]["faces"], found["pictures"]["share"]["sad"]) == (2, 3, 1)
    assert summed([]) == {"classes": list(CLASSES), "max_gap": 1.5, "videos": [], "pictures": None}


def test_rows_count_as_predictions_do() -> None:
    summary = Summary(CLASSES)
    summary.extend(row(prediction) for prediction in ONE)
    assert summary.to_dict() == summed(ONE)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 3), st.integers(1, 3), st.sampled_from(CLASSES), st.booleans()),
        min_size=1,
        max_size=30,
    )
)
def test_invariants(moves: list[tuple[float, int, str, bool]]) -> None:
    time, predictions = 0.0, []
    for step, track, label, unsure in moves:
        time += step
        predictions.append(seen(label, time, track, unsure=unsure))
    (video,) = summed(predictions)["videos"]
    people = video["by_person"]
    for entry in (video, *people):
        assert sum(entry["share"].values()) == pytest.approx(1, abs=1e-5)
        assert sum(entry["mean"].values()) == pytest.approx(1, abs=1e-5)
        assert 0 <= entry["unsure"] <= 1
    assert sum(person["seconds"] for person in people) == pytest.approx(video["seconds"], abs=1e-5)
    assert sum(person["faces"] for person in people) == video["faces"] == len(moves)
    for person in people:
        assert person["seconds"] <= person["end"] - person["start"] + 1e-5
        assert person["changes"] < person["faces"]
        for name, run in person["longest"].items():
            assert (run is None) == (name not in {label for _, track, label, _ in moves if track == person["track"]})
            if person["share_of"] == "time" and run:
                assert run["length"] <= person["share"][name] * person["seconds"] + 1e-4


def test_json_reads_back(tmp_path: Path) -> None:
    summary = Summary(CLASSES)
    summary.extend([seen("happy", t, 1, "caf\udce9 ü.mp4") for t in (0, 1)])
    write_summary(tmp_path / "s.json", summary)
    read = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert read == summary.to_dict()
    assert read["videos"][0]["source"] == r"caf\xe9 ü.mp4"


def test_csv_has_one_row_per_person_and_video(tmp_path: Path) -> None:
    summary = Summary(CLASSES)
    summary.extend([*ONE, seen("sad", 11, 2), seen("sad", 12, 2), seen("sad", 0, 1, "=b.mp4")])
    write_summary(tmp_path / "s.csv", summary)
    with (tmp_path / "s.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == summary_columns(CLASSES)
    assert [(line["source"], line["track"]) for line in lines] == [
        *(("a.mp4", track) for track in ("1", "2", "all")),
        *(("./=b.mp4", track) for track in ("1", "all")),
    ]
    assert (lines[0]["seconds"], lines[2]["seconds"], lines[2]["changes"]) == ("5.5", "6.5", "3")
    assert (lines[0]["longest_sad_start"], lines[0]["longest_sad_length"]) == ("9.5", "2.0")
    assert lines[1]["longest_happy_start"] == ""


def test_an_unknown_ending(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"must end in \.json or \.csv"):
        write_summary(tmp_path / "s.txt", Summary(CLASSES))


def test_frames_and_gaps_by_hand() -> None:
    """A hundred frames at 25 per second, of which 10 to 14 and 40 to 74 show nobody, and the last two."""
    counted = Seen()
    for number in range(100):
        counted.add(number / 25, 0 if 10 <= number < 15 or 40 <= number < 75 or number >= 98 else 1, damaged=number == 3)
    assert counted.to_dict() == {
        "frames_read": 100,
        "frames_damaged": 1,
        "detection_rate": 0.58,
        "gaps": 3,
        "gap_seconds": pytest.approx(0.2 + 1.4 + 0.04),
        "longest_gaps": [{"start": 0.4, "length": 0.2}, {"start": 1.6, "length": 1.4}, {"start": 3.92, "length": 0.04}],
    }


def test_only_the_longest_gaps_are_listed() -> None:
    counted = Seen()
    for number in range(1, 200):  # each gap is one frame, which lasts a little longer than the one before
        counted.add(float(number), 1)
        counted.add(number + number / 1000, 0)
    found = counted.to_dict()
    assert found["gaps"] == 199
    assert [gap["start"] for gap in found["longest_gaps"]] == [pytest.approx(n * 1.001) for n in range(1, 21)]


def test_rows_of_frames_without_a_face_add_a_video_and_nobody() -> None:
    summary = Summary(CLASSES)
    summary.extend([empty_row(CLASSES, "a.mp4", 0, 0.0), row(seen("sad", 0.1)), empty_row(CLASSES, "b.mp4", 0, 0.0)])
    assert [(video["source"], video["faces"]) for video in summary.to_dict()["videos"]] == [("a.mp4", 1), ("b.mp4", 0)]
