import io
import tempfile
import tracemalloc
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mien.datasets import twins
from mien.datasets.corpus import Corpus, Rows
from mien.datasets.twins import HASHES, NEAR, Twins, digests, find_twins, pixel_distance, twins_in, twins_of
from mien.errors import OutputError

NOBODY = np.empty((0, 2), np.int64)
NOTHING = np.empty(0, np.float32)


def face(seed: int, side: int = 48) -> NDArray[np.uint8]:
    """Return a picture like no other, its left unlike its right, with as much detail at every scale as photos have."""
    random = np.random.default_rng(seed)
    total = np.zeros((side, side))
    for weight, coarse in ((1, 4), (0.5, 8), (0.25, 16), (0.125, 32)):
        noise = Image.fromarray(random.integers(0, 256, (coarse, coarse)).astype(np.uint8))
        total += weight * np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC))
    return (total / 2).clip(0, 255).astype(np.uint8)


def compressed(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture as it comes back from a small JPEG."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=40)
    return np.asarray(Image.open(stream))


def enlarged_crop(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize((48, 48), Image.Resampling.BICUBIC, box=(1, 1, 47, 47)))


def stamped(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    marked = image.copy()
    marked[30:34, 10:26:3] = 230
    return marked


SAME = {
    "another file format": compressed,
    "less contrast": lambda image: (image // 2 + 90).astype(np.uint8),
    "moved": lambda image: np.pad(image, ((1, 0), (0, 1)), "edge")[:48, 1:],
    "cropped": enlarged_crop,
    "noise": lambda image: np.clip(image + np.random.default_rng(9).normal(0, 8, image.shape), 0, 255).astype(np.uint8),
    "a watermark": stamped,
}


@pytest.mark.parametrize("change", SAME)
def test_a_changed_copy_is_a_near_twin(change: str):
    images = np.stack([*(face(seed) for seed in range(20)), SAME[change](face(7))])
    found = find_twins(images)
    assert found.near.tolist() == [[7, 20]]
    assert 0 <= found.near_distance[0] <= NEAR
    assert len(found.mirrored) == len(found.exact) == 0


def test_the_twins_of_some_images_are_those_of_all():
    blank = np.full((48, 48), 9, np.uint8)
    others = [face(7), compressed(face(7)), enlarged_crop(face(3))[:, ::-1], face(7), blank, blank]
    images = np.stack([*(face(seed) for seed in range(20)), *others])
    assert twins_of(images, np.array([21, 3, 7, 0, 24])) == {
        21: [(7, "near"), (20, "near"), (23, "near")],
        3: [(22, "mirrored")],
        7: [(20, "exact"), (23, "exact"), (21, "near")],
        0: [],
        24: [(25, "exact")],
    }


@pytest.mark.parametrize("change", SAME)
def test_a_mirrored_copy_is_counted_apart(change: str):
    images = np.stack([*(face(seed) for seed in range(20)), SAME[change](face(7))[:, ::-1]])
    found = find_twins(images)
    assert found.mirrored.tolist() == [[7, 20]]
    assert len(found.near) == len(found.exact) == 0


def test_a_symmetric_picture_is_near_and_not_mirrored():
    nearly = (0.5 * face(3) + 0.4 * face(3)[:, ::-1]).astype(np.uint8)
    assert pixel_distance(np.stack([nearly, nearly]), np.array([[0, 1]]), mirrored=True) < NEAR
    found = find_twins(np.stack([nearly, compressed(nearly)]))
    assert found.near.tolist() == [[0, 1]]
    assert len(found.mirrored) == 0


@pytest.mark.parametrize("side", [48, 33, 112])
@pytest.mark.parametrize("colour", [False, True])
def test_unlike_pictures_are_no_twins_and_copies_are_exact(side: int, colour: bool):
    images = np.stack([face(seed, side) for seed in (*range(60), 4, 4, 9)])
    if colour:
        images = np.stack([images, images // 2, 255 - images], axis=-1)
    found = find_twins(images)
    assert [group.tolist() for group in found.groups()] == [[4, 60, 61], [9, 62]]
    assert found.exact.tolist() == [[4, 60], [4, 61], [9, 62]]
    assert len(found.near) == len(found.mirrored) == 0


def test_one_pixel_makes_a_near_twin_of_an_exact_one():
    changed = face(4).copy()
    changed[0, 0] ^= 1
    found = find_twins(np.stack([face(4), face(4), changed, face(5)]))
    assert found.exact.tolist() == [[0, 1]]
    assert found.near.tolist() == [[0, 2]]  # the first of a group stands for it


def test_blank_pictures_are_found_and_are_nearly_like_nothing():
    grey = np.stack([np.full((48, 48), value, np.uint8) for value in (0, 0, 255, 7)])
    one = grey[3].copy()
    one[40, 40] = 8
    found = find_twins(np.concatenate([grey, one[None], face(1)[None]]))
    assert found.blank.tolist() == [True, True, True, True, False, False]
    assert found.exact.tolist() == [[0, 1]]
    assert len(found.near) == len(found.mirrored) == 0
    red = np.zeros((1, 48, 48, 3), np.uint8) + np.array([200, 10, 10], np.uint8)
    assert find_twins(red).blank.tolist() == [True]


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch):
    images = np.stack([face(i // 2) if i % 3 else compressed(face(i // 2)) for i in range(40)])
    whole = find_twins(images)
    steps: list[tuple[str, int, int]] = []
    monkeypatch.setattr(twins, "BLOCK", 3)
    parts = find_twins(images, lambda *step: steps.append(step))
    for name in ("first", "near", "near_distance", "mirrored", "blank"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name)), name
    assert len(whole.near) > 5
    assert {what for what, done, total in steps if done == total} == {"hashing", "comparing", "comparing mirrored"}


def reference_distance(a: NDArray[np.uint8], b: NDArray[np.uint8], shift: int) -> float:
    """Return the smallest root mean square difference of the standardised overlaps, written as the docstring says it."""
    best = 2.0
    side = len(a)
    for down in range(-shift, shift + 1):
        for right in range(-shift, shift + 1):
            rows = [i for i in range(side) if 0 <= i + down < side]
            columns = [j for j in range(side) if 0 <= j + right < side]
            u = a[np.ix_([i + down for i in rows], [j + right for j in columns])].astype(float)
            v = b[np.ix_(rows, columns)].astype(float)
            u, v = ((x - x.mean()) / x.std() for x in (u, v))
            best = min(best, float(np.sqrt(((u - v) ** 2).mean())))
    return best


@pytest.mark.parametrize("shift", [0, 1, 2])
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_pixel_distance_is_what_it_says(shift: int, mirrored: bool):
    random = np.random.default_rng(2)
    images = np.stack([face(1), np.roll(face(1), 2, 0), face(2), random.integers(0, 256, (48, 48)).astype(np.uint8)])
    pairs = np.array(list(combinations(range(4), 2)))
    expected = [reference_distance(images[a], images[b][:, ::-1] if mirrored else images[b], shift) for a, b in pairs.tolist()]
    assert pixel_distance(images, pairs, mirrored, shift) == pytest.approx(expected, abs=2e-3)


def test_no_pairs_have_no_distances():
    assert pixel_distance(face(1)[None], NOBODY).shape == (0,)


def test_a_digest_tells_bytes_apart():
    images = np.zeros((3, 2, 2), np.uint8)
    images[1, 0, 1] = images[2, 1, 0] = 1
    every = digests(images)
    assert len(set(every.tolist())) == 3
    assert digests(images, [2, 2, 0]).tolist() == every[[2, 2, 0]].tolist()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_twins_in_each_split_are_counted_as_by_hand(data: st.DataObject):
    count = data.draw(st.integers(1, 12))
    copy_of = [data.draw(st.integers(0, i)) for i in range(count)]
    first = np.arange(count)
    for i, j in enumerate(copy_of):
        first[i] = first[j]
    heads = sorted(set(first.tolist()))
    pairs = list(combinations(heads, 2))
    near = data.draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    split = np.array([data.draw(st.integers(-1, 2)) for _ in range(count)], np.int8)
    found = Twins(first, np.zeros(count, bool), np.array(near, np.int64).reshape(-1, 2), NOTHING, NOBODY, NOTHING)
    reached = found.in_split(split, 3)
    touching = {frozenset(pair) for pair in near}
    for row in range(count):
        for other in range(3):
            there = [i for i in range(count) if split[i] == other and i != row]
            exact = any(first[i] == first[row] for i in there)
            close = any(frozenset((int(first[i]), int(first[row]))) in touching for i in there)
            assert reached["exact"][row, other] == exact
            assert reached["near"][row, other] == close
            assert reached["any"][row, other] == (exact or close)
    assert not reached["mirrored"].any()


def test_evaluations_leave_out_the_exact_twins_and_no_others():
    images = np.stack([face(seed) for seed in (0, 1, 2, 1, 3, 1, 4, 2)])
    images[6] = compressed(face(0))
    rows = Rows(("a", "b"), np.zeros(8, np.int64), np.array([0, 0, 0, 0, 1, 1, 1, -1], np.int8), ("train", "test"))
    corpus = Corpus("small", images, rows, "")
    found = find_twins(images)
    assert corpus.twin_free("test").tolist() == [True, False, True]
    test = corpus.where("test")
    assert (~found.in_split(rows.split, 2)["exact"][test, 0]).tolist() == [True, False, True]
    assert found.in_split(rows.split, 2)["any"][test, 0].tolist() == [False, True, True]
    assert corpus.twin_free("train").tolist() == [False] * 4


def test_twins_in_other_images_are_those_of_the_audit(monkeypatch: pytest.MonkeyPatch):
    images = np.stack([face(seed) for seed in (0, 1, 2, 3, 3, 0, 1, 3, 5, 6)])
    images[5], images[6] = compressed(face(0)), compressed(face(1))[:, ::-1]
    images[9] = 80
    split = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    test, train = np.flatnonzero(split == 1), np.flatnonzero(split == 0)
    found = find_twins(images).in_split(split, 2)
    for block in (2048, 2):
        monkeypatch.setattr(twins, "BLOCK", block)
        among = twins_in(images, test, images, train)
        for kind, mask in found.items():
            assert among[kind].tolist() == mask[test, 0].tolist(), kind
    assert [among[kind].tolist() for kind in ("exact", "near", "mirrored")] == [
        [False, False, True, False, False],
        [True, False, False, False, False],
        [False, True, False, False, False],
    ]
    large = np.stack([np.repeat(np.kron(image, np.ones((2, 2), np.uint8))[..., None], 3, -1) for image in images])
    assert twins_in(large, test, images, train)["any"].tolist() == among["any"].tolist()
    assert not twins_in(images, test, images, train[:0])["any"].any()


def test_the_hashes_of_a_cache_are_kept_next_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    images = np.stack([face(i // 2) if i % 3 else compressed(face(i // 2)) for i in range(12)])
    images.tofile(tmp_path / "images.bin")
    mapped = np.memmap(tmp_path / "images.bin", np.uint8, "r", shape=images.shape)
    even, odd = np.arange(0, 12, 2), np.arange(1, 12, 2)
    expected = twins_in(images, even, images, odd)["near"].tolist()
    assert any(expected)
    assert twins_in(mapped, even, mapped, odd)["near"].tolist() == expected
    steps: list[str] = []
    assert twins_in(mapped, even, mapped, odd, lambda what, done, total: steps.append(what))["near"].tolist() == expected
    assert "hashing" not in steps
    (tmp_path / HASHES).write_bytes(b"damaged")
    assert find_twins(mapped).near.tolist() == find_twins(images).near.tolist()


def test_pictures_of_a_large_corpus_lie_in_a_temporary_file_and_change_nothing(monkeypatch: pytest.MonkeyPatch):
    images = np.stack([face(i // 2) if i % 3 else compressed(face(i // 2)) for i in range(20)])
    whole = find_twins(images)
    monkeypatch.setattr(twins, "IN_MEMORY", 19 * 48 * 48)
    mapped = find_twins(images)
    for name in ("first", "near", "near_distance", "mirrored", "blank"):
        assert np.array_equal(getattr(whole, name), getattr(mapped, name)), name
    assert len(whole.near) > 2


def test_no_room_for_the_temporary_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(twins, "IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(OutputError, match=r"gone: cannot hold 0 MB \(No such file or directory\); set TMPDIR"):
        find_twins(np.stack([face(1), face(2)]))


def test_memory_does_not_grow_with_the_pairs():
    """All products of the first block with 20,000 others would take 164 MB."""
    hashes = np.random.default_rng(0).choice(np.array([-1, 1], np.int8), (20_000, 64))
    hashes[15_000] = hashes[3]
    small = np.zeros((20_000, 48, 48), np.uint8)
    small[[3, 15_000]] = face(3)
    tracemalloc.start()
    pairs, distance = twins._find_pairs(small, hashes, hashes, False, None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pairs.tolist() == [[3, 15_000]]
    assert distance[0] < 0.01
    assert peak < 60_000_000
