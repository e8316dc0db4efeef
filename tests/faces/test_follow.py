"""`MTCNN.follow` and `VideoFaces` on films of the photographed face; tolerances in px of 320 x 240 frames, the face 43 x 55."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mien.errors import InputError
from mien.faces import Follower
from mien.faces.mtcnn import MTCNN
from mien.faces.track import VideoFaces
from mien.structures import Face, Frame

Array = NDArray[np.float64]
Picture = NDArray[np.uint8]
Found = list[list[tuple[int, Face]]]

MIDDLE = (160.0, 120.0)
COVER = (100, 50, 220, 190)
"""A board that hides a face in the middle."""


class Counting(MTCNN):
    """The detector, and how often it was asked to detect."""

    asked = 0

    def detect(self, image: Picture) -> list[Face]:
        self.asked += 1
        return super().detect(image)


class Unable:
    """A detector that cannot follow."""

    def __init__(self, detector: MTCNN) -> None:
        self.detect = detector.detect


def play(video: VideoFaces, frames: Sequence[Picture], rate: float = 30, start: float = 0.0) -> Found:
    return [video.step(Frame(image, k, start + k / rate)) for k, image in enumerate(frames)]


def numbers(found: Found) -> list[list[int]]:
    return [[number for number, _ in faces] for faces in found]


def errors(found: Found, truth: Callable[..., Array], poses: Sequence[Any]) -> Array:
    """How far each edge of the only face's box is from the truth, (frames, 4) px."""
    return np.array([faces[0][1].box_xyxy - truth(pose) for faces, pose in zip(found, poses, strict=True)])


def test_following_stays_on_a_still_face(studio: Any, detector: MTCNN) -> None:
    """A hundred frames fed by nothing but the box before: no drift, no shrinking."""
    image = studio.film.frame(studio.pose(*MIDDLE))
    face: Face | None = detector.detect(image)[0]
    boxes = []
    for _ in range(100):
        assert face is not None
        (face,) = detector.follow(image, [face])
        assert face is not None
        boxes.append(face.box_xyxy.astype(float))
    assert np.ptp(boxes[5:], axis=0).max() < 2
    assert np.abs(np.mean(boxes[-30:], axis=0) - np.mean(boxes[5:35], axis=0)).max() < 0.5
    assert np.abs(boxes[-1] - detector.detect(image)[0].box_xyxy).max() < 3


def test_following_stays_on_a_slowly_moving_face(studio: Any, detector: MTCNN) -> None:
    poses = [studio.pose(60 + 200 * k / 300, 120) for k in range(0, 300, 3)]
    face: Face | None = detector.detect(studio.film.frame(poses[0]))[0]
    found: Found = []
    for pose in poses:
        assert face is not None
        (face,) = detector.follow(studio.film.frame(pose), [face])
        assert face is not None
        found.append([(1, face)])
    error = errors(found, studio.truth, poses)
    assert np.abs(error).max() < 3
    assert np.abs(error[-17:].mean(axis=0) - error[:17].mean(axis=0)).max() < 0.7


@pytest.mark.parametrize("distance", [0.2, 0.35])
def test_following_reaches_a_face_that_jumped(studio: Any, detector: MTCNN, distance: float) -> None:
    (face,) = detector.detect(studio.film.frame(studio.pose(*MIDDLE)))
    size = float(face.box_xyxy[3] - face.box_xyxy[1])
    for angle in np.arange(8) * np.pi / 4:
        pose = studio.pose(160 + distance * size * np.cos(angle), 120 + distance * size * np.sin(angle))
        (there,) = detector.follow(studio.film.frame(pose), [face])
        assert there is not None
        assert np.abs(there.box_xyxy - studio.truth(pose)).max() < 0.08 * size


def test_what_is_gone_is_lost_and_others_are_kept(studio: Any, detector: MTCNN) -> None:
    one, other = studio.pose(80, 120), studio.pose(240, 120)
    faces = detector.detect(studio.couple.frame(one, other))
    assert len(faces) == 2
    image = studio.couple.frame(one, other, cover=(190, 50, 290, 190))
    found = detector.follow(image, faces)
    assert [face is not None for face in found] == [float(face.box_xyxy[0]) < 160 for face in faces]
    assert detector.follow(image, []) == []
    assert detector.follow(np.full((240, 320, 3), 90, np.uint8), faces) == [None, None]


def test_following_faces_at_and_outside_the_edge(detector: MTCNN, studio: Any) -> None:
    image = studio.film.frame(studio.pose(*MIDDLE))
    assert detector.follow(image, [Face([-500, -500, -440, -440], 1.0), Face([310, 230, 400, 330], 1.0)]) == [None, None]
    assert detector.follow(np.zeros((1, 1, 3), np.uint8), [Face([0, 0, 50, 50], 1.0)]) == [None]
    for pose in (studio.pose(18, 120), studio.pose(160, 22)):  # part of the face is cut off
        (face,) = detector.follow(studio.film.frame(pose), [Face(studio.truth(pose), 1.0)])
        assert face is not None
        assert np.abs(face.box_xyxy - studio.truth(pose)).max() < 8


def test_large_faces_are_followed_as_well(detector: MTCNN, studio: Any) -> None:
    photo = studio.photo.resize((3072, 3072), Image.Resampling.BICUBIC)  # the face is 500 x 650 px
    box = np.array([181, 65, 270, 178]) * 6.0
    (face,) = detector.follow(np.asarray(photo), [Face(box + 40, 1.0)])
    assert face is not None
    assert np.abs(face.box_xyxy - box).max() < 0.1 * (box[3] - box[1])
    assert face.landmarks is not None
    assert np.abs(face.landmarks[2] / 6 - [225.2, 126.8]).max() < 5


def test_following_refuses_what_detecting_refuses(detector: MTCNN) -> None:
    assert isinstance(detector, Follower)
    with pytest.raises(InputError, match=r"RGB uint8 of shape \(H, W, 3\)"):
        detector.follow(np.zeros((20, 20), np.uint8), [Face([0, 0, 9, 9], 1.0)])


MOTIONS: dict[str, tuple[Callable[[float], tuple[float, ...]], int, float]] = {
    "moved": (lambda t: (60 + 200 * t, 120 + 40 * np.sin(2 * np.pi * t)), 40, 3.5),
    "moved fast": (lambda t: (60 + 200 * t, 120), 14, 3.5),
    "scaled": (lambda t: (160, 120, 0.7 + 0.9 * t), 40, 2.5),
    "rotated": (lambda t: (160, 120, 1, 25 * np.sin(2 * np.pi * t)), 40, 5.5),
    "all at once": (lambda t: (80 + 160 * t, 130 - 30 * t, 0.8 + 0.5 * t, 40 * t - 20), 40, 5.5),
}
"""Path over t from 0 to 1, frames at 30 a second, tolerance of every edge of every box in px."""


@pytest.mark.parametrize("name", MOTIONS)
def test_a_known_path_is_one_track_and_boxes_are_right(studio: Any, detector: MTCNN, name: str) -> None:
    path, count, tolerance = MOTIONS[name]
    poses = [studio.pose(*path(t)) for t in np.linspace(0, 1, count)]
    found = play(VideoFaces(detector), [studio.film.frame(pose) for pose in poses])
    assert numbers(found) == [[1]] * count
    error = np.abs(errors(found, studio.truth, poses))
    assert error.max() < tolerance
    assert np.median(error) < 1.5


def test_without_follow_every_frame_is_detected(studio: Any, detector: MTCNN) -> None:
    poses = [studio.pose(60 + 10 * k, 120) for k in range(20)]
    found = play(VideoFaces(Unable(detector)), [studio.film.frame(pose) for pose in poses])
    assert numbers(found) == [[1]] * 20
    assert np.abs(errors(found, studio.truth, poses)).max() < 4


@pytest.mark.parametrize("speed", [0.0, 50.0])
def test_an_occlusion_of_a_second_keeps_the_number(studio: Any, detector: MTCNN, speed: float) -> None:
    """Hidden for a second, standing still or walking on behind the board."""
    frames = []
    for k in range(22):  # at 10 a second
        frames.append(studio.film.frame(studio.pose(90 + speed * k / 10, 120), cover=(0, 0, 320, 240) if 5 <= k < 15 else None))
    found = numbers(play(VideoFaces(detector), frames, rate=10))
    assert found[:15] == [[1]] * 5 + [[]] * 10
    assert found[17:] == [[1]] * 5  # detected every third frame


@pytest.mark.parametrize("rate", [5, 30])
def test_a_second_is_a_second_whenever_it_begins(studio: Any, detector: MTCNN, rate: int) -> None:
    shown, hidden = studio.film.frame(studio.pose(*MIDDLE)), studio.film.frame(studio.pose(*MIDDLE), cover=COVER)
    for before in (5, 7, 8):  # detections fall on other frames of the second
        found = play(VideoFaces(detector), [shown] * before + [hidden] * rate + [shown] * 6, rate=rate)
        assert numbers(found)[before : before + rate] == [[]] * rate
        assert numbers(found)[-1] == [1]


def test_hidden_by_a_board_and_seen_again(studio: Any, detector: MTCNN) -> None:
    frames = [studio.film.frame(studio.pose(*MIDDLE), cover=COVER if 10 <= k < 34 else None) for k in range(45)]
    found = numbers(play(VideoFaces(detector), frames))
    assert found[:10] == [[1]] * 10
    assert found[10:34] == [[]] * 24
    assert found[38:] == [[1]] * 7  # found again by the next detection, at most five frames later


@pytest.mark.parametrize(("seconds", "number"), [(2, 1), (4, 2)])
def test_an_occlusion_of_over_three_seconds_gives_a_new_number(studio: Any, detector: MTCNN, seconds: int, number: int) -> None:
    last = 5 + 10 * seconds
    frames = [studio.film.frame(studio.pose(*MIDDLE), cover=COVER if 5 <= k < last else None) for k in range(last + 5)]
    found = numbers(play(VideoFaces(detector), frames, rate=10))
    assert found[:5] == [[1]] * 5
    assert found[5:last] == [[]] * 10 * seconds
    assert found[last + 2 :] == [[number]] * 3


@pytest.mark.parametrize("empty", [4, 12])
def test_two_people_who_change_seats_unseen_are_not_exchanged(studio: Any, detector: MTCNN, empty: int) -> None:
    """The right numbers, or new ones."""
    left, right, away = studio.pose(100, 120), studio.pose(220, 120), studio.pose(-200, 120)
    poses = [(left, right)] * 12 + [(away, away)] * empty + [(right, left)] * 12
    found = play(VideoFaces(detector), [studio.couple.frame(*pair) for pair in poses], rate=25)
    seats = [{number: int(face.box_xyxy[0] > 140) for number, face in faces} for faces in (found[11], found[-1])]
    assert sorted(seats[0]) == [1, 2]
    assert all(seats[1].get(number, 1 - seat) == 1 - seat for number, seat in seats[0].items())
    assert len(seats[1]) == 2


def test_people_who_cross_keep_their_numbers(studio: Any, detector: MTCNN) -> None:
    """The second walks past in front of the first and hides them; both are who they were wherever they are seen."""
    poses = [(studio.pose(80 + 160 * t, 120), studio.pose(240 - 160 * t, 124)) for t in np.linspace(0, 1, 50)]
    found = play(VideoFaces(detector), [studio.couple.frame(*pair) for pair in poses])
    who = {number: int(face.box_xyxy[0] > 160) for number, face in found[0]}
    assert sorted(who.values()) == [0, 1]
    for faces, pair in zip(found, poses, strict=True):
        assert {number for number, _ in faces} <= set(who)
        for number, face in faces:
            middle = (face.box_xyxy[0] + face.box_xyxy[2]) / 2
            assert abs(middle - pair[who[number]].x) < 10
    assert [len(faces) for faces in found[:14] + found[-14:]] == [2] * 28


def test_a_scene_cut_ends_tracks(studio: Any, detector: MTCNN) -> None:
    """From one person in one place to another in another, where the first sat, and back."""
    first, second = studio.place("coffee"), studio.place("rocket", 1)
    video = VideoFaces(detector)
    assert numbers(play(video, [first.frame(studio.pose(*MIDDLE))] * 8)) == [[1]] * 8
    assert numbers(play(video, [second.frame(studio.pose(155, 123, 1.2))] * 8, start=8 / 30)) == [[2]] * 8
    assert numbers(play(video, [first.frame(studio.pose(*MIDDLE))] * 8, start=16 / 30)) == [[3]] * 8


@pytest.mark.parametrize("strength", [(1.6, 20.0), (2.5, 100.0), (1.0, 255.0)])
def test_a_flash_does_not_end_tracks(studio: Any, detector: MTCNN, strength: tuple[float, float]) -> None:
    image = studio.place("coffee").frame(studio.pose(*MIDDLE))
    flash = np.clip(image * strength[0] + strength[1], 0, 255).astype(np.uint8)
    found = numbers(play(VideoFaces(detector), [image] * 8 + [flash] * 2 + [image] * 8))
    assert {number for frame in found for number in frame} == {1}
    assert found[-5:] == [[1]] * 5


def test_no_frames_and_no_faces(detector: MTCNN) -> None:
    video = VideoFaces(detector)
    assert play(video, []) == []
    assert play(video, [np.full((240, 320, 3), 90, np.uint8)] * 3) == [[], [], []]


def test_detection_is_rare_while_all_is_well_and_at_once_when_a_face_is_lost(studio: Any) -> None:
    detector = Counting(min_face=28, threads=1)
    video = VideoFaces(detector, detect_every=5)
    shown = studio.film.frame(studio.pose(*MIDDLE))
    hidden = studio.film.frame(studio.pose(*MIDDLE), cover=COVER)
    asked = []
    for k, image in enumerate([shown] * 13 + [hidden] * 7):
        video.step(Frame(image, k, k / 30))
        asked.append(detector.asked)
    assert np.nonzero(np.diff([0, *asked]))[0].tolist() == [0, 5, 10, 13, 18]


def test_a_slow_video_is_detected_in_after_a_quarter_of_a_second(studio: Any) -> None:
    detector = Counting(min_face=28, threads=1)
    play(VideoFaces(detector, detect_every=100), [studio.film.frame(studio.pose(*MIDDLE))] * 9, rate=8)
    assert detector.asked == 5  # every other frame


def test_a_false_find_is_not_shown(studio: Any) -> None:
    """The wall is no face at a second look."""

    class Deceived(MTCNN):
        def detect(self, image: Picture) -> list[Face]:
            return [*super().detect(image), Face([20, 20, 70, 80], 0.95)]

    found = play(VideoFaces(Deceived(min_face=28, threads=1)), [studio.film.frame(studio.pose(*MIDDLE))] * 7)
    assert numbers(found) == [[1]] * 7


def test_a_followed_face_that_is_never_detected_again_is_let_go(studio: Any) -> None:
    class Once(Counting):
        def detect(self, image: Picture) -> list[Face]:
            found = super().detect(image)
            return found if self.asked == 1 else []

    found = play(VideoFaces(Once(min_face=28, threads=1)), [studio.film.frame(studio.pose(*MIDDLE))] * 30, rate=20)
    assert numbers(found) == [[1]] * 21 + [[]] * 9


def test_time_that_runs_back_begins_a_new_video(studio: Any, detector: MTCNN) -> None:
    video, frames = VideoFaces(detector), [studio.film.frame(studio.pose(*MIDDLE))] * 2
    assert numbers(play(video, frames, start=5.0) + play(video, frames)) == [[1], [1], [2], [2]]


@pytest.mark.parametrize("arguments", [{"detect_every": 0}, {"max_gap": -1}])
def test_wrong_arguments_are_refused(detector: MTCNN, arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        VideoFaces(detector, **arguments)


def test_a_face_lost_in_the_second_of_two_frames_at_one_time(studio: Any, detector: MTCNN) -> None:
    image = studio.film.frame(studio.pose(*MIDDLE))
    video = VideoFaces(detector)
    times = [k / 30 for k in (0, 1, 2, 3, 3, 4, 5, 6, 7, 8)]
    images = [image if k != 4 else np.zeros_like(image) for k in range(10)]
    found = numbers([video.step(Frame(each, k, time)) for k, (each, time) in enumerate(zip(images, times, strict=True))])
    assert found[4] == []
    assert found[-1] == [1]
