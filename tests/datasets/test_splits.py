import csv
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from PIL import Image

from mien.datasets import PROTOCOLS, Corpus, Rows, apply_protocol, load_corpus, read_protocol, write_protocol
from mien.datasets.protocols.splits import balanced, kfold, leave_one_subject_out, official, random_split, subjects
from mien.errors import DataError, MienError, OutputError, UnknownNameError

SHARED = Path(__file__).parents[3] / "shared" / "data"
CK48 = SHARED / "ckplus48" / "CK+48.zip"
FER2013 = SHARED / "fer2013" / "labels.csv"
Made = TypeVar("Made")
SEEDS = st.integers(0, 2**32 - 1)
TEN_FOLD = {"name": "kfold", "folds": 10, "fold": 3, "by": "subject", "val": 0.1, "seed": 0}


def corpus_of(target: Any, people: Any = None, split: Any = None, splits: tuple[str, ...] = ("all",)) -> Corpus:
    """A corpus of empty images; each person has sequences "0", "1", ... of three images."""
    target = np.asarray(target, np.int64)
    names = [] if people is None else [f"S{person:03}" for person in people]
    frames = {name: iter(range(len(target))) for name in names}
    rows = Rows(
        tuple("abcdefgh"[: target.max() + 1]),
        target,
        np.asarray(np.zeros(len(target)) if split is None else split, np.int8),
        splits,
        subjects=tuple(names),
        sequences=tuple(str(next(frames[name]) // 3) for name in names),
    )
    return Corpus("small", np.zeros((len(target), 2, 2), np.uint8), rows, fingerprint="f00d")


def posed(people: int = 24) -> Corpus:
    """A corpus in the manner of CK+: a person shows some of the classes, three images each, in no order."""
    random = np.random.RandomState(0)
    shown = [(person, c) for person in range(people) for c in range(7) if random.rand() < 0.3 + 0.1 * c]
    pairs = random.permutation(np.repeat(shown, 3, axis=0))
    return corpus_of(pairs[:, 1], pairs[:, 0])


@st.composite
def corpora(draw: st.DrawFn, most: int = 40) -> Corpus:
    """Corpora of 2 to 7 uneven classes of at most so many images, and of up to twelve people, in any order."""
    counts = draw(st.lists(st.integers(2, most), min_size=2, max_size=7))
    random = np.random.default_rng(draw(SEEDS))
    target = random.permutation(np.repeat(np.arange(len(counts)), counts))
    return corpus_of(target, random.integers(0, draw(st.integers(2, 12)), len(target)))


def sides(corpus: Corpus, names: tuple[str, ...]) -> list[set[str]]:
    return [{names[row] for row in np.flatnonzero(corpus.rows.split == i)} for i in range(len(corpus.splits))]


def made_or_refused(make: Callable[[], Made], refusal: str) -> Made:
    """What `make` returns; where it refuses for one of some reasons, the example is left out."""
    try:
        return make()
    except DataError as error:
        if not re.search(refusal, str(error)):
            raise
        reject()


def digest(corpus: Corpus) -> str:
    return hashlib.sha256(corpus.rows.split.tobytes()).hexdigest()[:16]


@settings(deadline=None)
@given(corpora(), st.floats(0.05, 0.6), st.sampled_from([0.0, 0.1, 0.3]), SEEDS)
def test_a_random_split_holds_its_share_of_every_class(corpus: Corpus, test: float, val: float, seed: int):
    split = made_or_refused(lambda: random_split(corpus, test, val, seed, "image"), "fewer images than classes|one image of")
    assert split.splits == (("train", "val", "test") if val else ("train", "test"))
    assert sum(len(split.where(name)) for name in split.splits) == len(corpus.target)
    drawn = split.where("test")
    assert len(drawn) == np.ceil(test * len(corpus.target))
    counts = np.bincount(corpus.target)
    assert (np.abs(np.bincount(corpus.target[drawn], minlength=len(counts)) - counts * len(drawn) / counts.sum()) <= 1).all()
    rest = counts - np.bincount(corpus.target[drawn], minlength=len(counts))
    if val:
        chosen = split.where("val")
        found = np.bincount(corpus.target[chosen], minlength=len(counts))
        assert (np.abs(found - rest * len(chosen) / rest.sum()) <= 1).all()
        assert (found <= rest).all()


@settings(deadline=None, max_examples=60)
@given(corpora(), st.integers(2, 6), SEEDS)
def test_folds_of_images_are_disjoint_complete_and_even(corpus: Corpus, folds: int, seed: int):
    if folds > np.bincount(corpus.target).max():
        with pytest.raises(DataError, match=rf"cannot be divided into {folds} folds by image: the number of images.* is"):
            kfold(corpus, folds, 0, "image", seed=seed)
        return
    tests = [kfold(corpus, folds, fold, "image", seed=seed).where("test") for fold in range(folds)]
    assert sorted(np.concatenate(tests)) == list(range(len(corpus.target)))
    counts = np.array([np.bincount(corpus.target[test], minlength=len(corpus.classes)) for test in tests])
    assert np.ptp(counts, axis=0).max() <= 1
    assert np.ptp(counts.sum(1)) <= 1


@settings(deadline=None, max_examples=40)
@given(corpora(9), st.integers(2, 4), st.sampled_from(["subject", "sequence"]), st.sampled_from([0.0, 0.1, 0.4]), SEEDS)
def test_no_person_and_no_sequence_is_on_two_sides(corpus: Corpus, folds: int, by: Any, val: float, seed: int):
    units = corpus.rows.subjects
    if by == "sequence":
        units = tuple(f"{person}/{sequence}" for person, sequence in zip(units, corpus.rows.sequences, strict=True))
    made = made_or_refused(
        lambda: [kfold(corpus, folds, i, by, val, seed) for i in range(folds)], "cannot be divided into|empty"
    )
    assert sorted(np.concatenate([one.where("test") for one in made])) == list(range(len(corpus.target)))
    for one in made:
        assert (one.rows.split >= 0).all()
        groups = sides(one, units)
        assert all(groups)
        assert sum(map(len, groups)) == len(set(units))


def test_folds_by_subject_are_near_in_classes():
    corpus = posed(60)
    counts = np.array(
        [np.bincount(corpus.target[kfold(corpus, 5, fold, "subject").where("test")], minlength=7) for fold in range(5)]
    )
    assert np.ptp(counts, axis=0).max() <= 9  # three sequences of three images
    assert np.ptp(counts.sum(1)) <= 30


@settings(deadline=None, max_examples=40)
@given(corpora(9), st.sampled_from([None, "subject"]), st.floats(0.05, 0.5), st.sampled_from([0.0, 0.2]), SEEDS)
def test_a_random_split_leaves_sequences_and_people_whole(corpus: Corpus, by: Any, test: float, val: float, seed: int):
    units = corpus.rows.subjects
    if by is None:
        units = tuple(f"{person}/{sequence}" for person, sequence in zip(units, corpus.rows.sequences, strict=True))
    made = made_or_refused(lambda: random_split(corpus, test, val, seed, by), "cannot be divided into|empty")
    groups = sides(made, units)
    assert all(groups)
    assert sum(map(len, groups)) == len(set(units))
    assert (made.rows.split >= 0).all()
    assert made.protocol.endswith(f", seed {seed}")
    assert f"test by {by or 'sequence'}" in made.protocol


def test_a_random_split_by_subject_has_nearly_its_share():
    corpus = posed(60)
    made = random_split(corpus, 0.2, 0.1, by="subject")
    assert len(made.where("test")) / len(corpus.target) == pytest.approx(0.2, abs=0.03)
    assert len(made.where("val")) / (0.8 * len(corpus.target)) == pytest.approx(0.1, abs=0.03)


PREPARED: dict[str, dict[str, Any]] = {
    "official": {"val": 0.2},
    "random_split": {"test": 0.25, "val": 0.2},
    "kfold": {"folds": 4, "val": 0.2},
}


def table(root: Path, sequences: bool = True, **columns: list[str]) -> Corpus:
    """A manifest of 24 training photos of two classes, fifteen copies of each, and of eight test photos."""
    lines = [",".join(("path", "label", "split", "sequence" if sequences else "note", *columns))]
    for photo in range(32):
        for copy in range(15 if photo < 24 else 1):
            name = f"{photo}~{copy}.png"
            Image.fromarray(np.full((4, 4), 7 * photo, np.uint8)).save(root / name)
            more = [values[photo] for values in columns.values()]
            side = "train" if photo < 24 else "test"
            lines.append(",".join((name, ("happy", "sad")[photo % 2], side, f"{photo}.jpg", *more)))
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")
    return load_corpus("manifest", root / "manifest.csv", options={"size": 4, "colour": False})


@pytest.mark.parametrize("name", PREPARED)
def test_copies_of_a_photo_stay_on_one_side(tmp_path: Path, name: str):
    corpus = table(tmp_path)
    made = apply_protocol(corpus, {"name": name} | PREPARED[name])
    assert sum(map(len, sides(made, corpus.rows.sequences))) == 32
    assert "by sequence" in made.protocol
    leaky = apply_protocol(corpus, {"name": name, "by": "image"} | PREPARED[name])
    assert sum(map(len, sides(leaky, corpus.rows.sequences))) > 32
    assert "by image" in leaky.protocol


def test_the_copies_of_a_left_out_person_stay_on_one_side(tmp_path: Path):
    corpus = table(tmp_path, subject=[f"p{photo % 4}" for photo in range(32)])
    for by, what in ((None, "subject"), ("sequence", "sequence"), ("image", "image")):
        made = leave_one_subject_out(corpus, "p1", 0.3, by=by)
        assert made.protocol == f"leave one subject out, p1, 30 % of train for val by {what}, seed 0"
        assert (sum(map(len, sides(made, corpus.rows.sequences))) == 32) == (what != "image")


@pytest.mark.parametrize("name", PREPARED)
def test_without_sequences_the_unit_is_an_image(tmp_path: Path, name: str):
    corpus = table(tmp_path, sequences=False)
    unknown = replace(corpus, rows=replace(corpus.rows, sequences=("",) * len(corpus.target)))  # a column that is empty
    wanted = apply_protocol(corpus, {"name": name, "by": "image"} | PREPARED[name])
    for one in (corpus, unknown):
        made = apply_protocol(one, {"name": name} | PREPARED[name])
        assert (made.rows.split == wanted.rows.split).all()
        assert made.protocol == wanted.protocol
    some = ("a", *unknown.rows.sequences[1:])
    with pytest.raises(DataError, match=r"not name the sequence of 0~1\.png, so it cannot be split by sequence; use by: image"):
        apply_protocol(replace(corpus, rows=replace(corpus.rows, sequences=some)), {"name": name} | PREPARED[name])


@settings(deadline=None, max_examples=40)
@given(corpora(20), st.data(), st.sampled_from([0.0, 0.2]), SEEDS)
def test_one_subject_is_left_out(corpus: Corpus, data: st.DataObject, val: float, seed: int):
    known = subjects(corpus)
    assert list(known) == sorted(set(corpus.rows.subjects))
    subject = data.draw(st.sampled_from(known))
    refusal = "cannot be divided into 2 folds|leaves (train|val) empty"
    split = made_or_refused(lambda: leave_one_subject_out(corpus, subject, val, seed), refusal)
    groups = sides(split, corpus.rows.subjects)
    assert groups[-1] == {subject}
    assert sum(map(len, groups)) == len(known)
    assert (split.rows.split >= 0).all()


@settings(deadline=None, max_examples=60)
@given(corpora(), st.integers(1, 12), SEEDS)
def test_a_balanced_subset_is_balanced_and_nested(corpus: Corpus, per_class: int, seed: int):
    fewest = np.bincount(corpus.target).min()
    if per_class > fewest:
        with pytest.raises(DataError, match=f"not {per_class}; lower per_class"):
            balanced(corpus, per_class, "all", seed)
        return
    subset = balanced(corpus, per_class, "all", seed)
    rows = subset.where("all")
    assert np.bincount(corpus.target[rows]).tolist() == [per_class] * len(corpus.classes)
    assert set(balanced(corpus, 1, "all", seed).where("all")) <= set(rows)
    assert (corpus.rows.split == 0).all()  # the corpus it came from is left alone


def test_rows_outside_a_subset_stay_outside():
    subset = balanced(posed(60), 20, "all")
    split = kfold(subset, 5, 2, "image", val=0.25)
    assert [len(split.where(name)) for name in split.splits] == [84, 28, 28]
    assert set(np.flatnonzero(split.rows.split < 0)) == set(np.flatnonzero(subset.rows.split < 0))
    wanted = "official; 20 images a class in all, seed 0; 5-fold by image, fold 2, 25 % of train for val by image, seed 0"
    assert split.protocol == wanted
    assert random_split(kfold(posed())).protocol == "random 20 % test by sequence, seed 0"
    with pytest.raises(DataError, match="none of its images is in a split"):
        random_split(replace(subset, rows=replace(subset.rows, split=np.full(len(subset.target), -1, np.int8))))


MAKERS: dict[str, dict[str, Any]] = {
    "random_split": {"val": 0.1, "by": "image"},
    "random_split by sequence": {"name": "random_split", "val": 0.1},
    "random_split by subject": {"name": "random_split", "val": 0.1, "by": "subject"},
    "kfold": {"val": 0.1, "by": "image"},
    "kfold by subject": {"name": "kfold", "by": "subject", "folds": 4},
    "kfold by sequence": {"name": "kfold", "val": 0.2},
    "leave_one_subject_out": {"subject": "S007", "val": 0.2},
    "balanced": {"per_class": 5, "split": "all"},
}


@pytest.mark.parametrize("case", MAKERS)
def test_the_seed_alone_decides(case: str):
    part = {"name": case} | MAKERS[case]
    np.random.seed(1)  # noqa: NPY002 (the state that must not matter)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first = apply_protocol(posed(), part | {"seed": 5})
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    again = apply_protocol(posed(), part | {"seed": 5})
    other = apply_protocol(posed(), part | {"seed": 6})
    assert (first.rows.split == again.rows.split).all()
    assert first.protocol == again.protocol != other.protocol
    assert (first.rows.split != other.rows.split).any()


GOLDEN = {
    "random_split": "30291cc23d12f770",
    "random_split by sequence": "5a5f27e415853205",
    "random_split by subject": "7fd8cb234acf02fb",
    "kfold": "53be8215648feab6",
    "kfold by subject": "22297c30555b4633",
    "kfold by sequence": "95df2b91ff96e1cd",
    "leave_one_subject_out": "cca61c86202c9b6e",
    "balanced": "cf97b979a1b48d17",
}
"""Figures stand on these splits: if one changes, its protocol needs another name."""


def test_splits_are_the_same_on_every_machine():
    assert {case: digest(apply_protocol(posed(), {"name": case} | part)) for case, part in MAKERS.items()} == GOLDEN


def test_validation_is_taken_out_of_training_alone():
    corpus = posed()
    images = ({"name": "kfold", "by": "image"}, {"name": "random_split", "by": "image"})
    for part in (*images, {"name": "kfold", "by": "subject"}, {"name": "kfold"}, {"name": "random_split"}):
        plain, carved = apply_protocol(corpus, part), apply_protocol(corpus, part | {"val": 0.2})
        assert carved.where("test").tolist() == plain.where("test").tolist()
        assert len(carved.where("val")) / len(plain.where("train")) == pytest.approx(0.2, abs=0.03)
        with pytest.raises(DataError, match="no split 'val'; its splits are train, test"):
            plain.where("val")


def test_official_splits():
    corpus = corpus_of([0, 1] * 50, split=[0] * 60 + [1] * 40, splits=("train", "test"))
    assert official(corpus) is corpus
    carved = official(corpus, val=0.1)
    assert carved.splits == ("train", "val", "test")
    assert carved.where("test").tolist() == corpus.where("test").tolist()
    assert np.bincount(carved.target[carved.where("val")]).tolist() == [3, 3]
    assert carved.protocol == "official, 10 % of train for val by image, seed 0"
    with pytest.raises(DataError, match=r"were replaced .*load it again"):
        official(random_split(corpus))
    with pytest.raises(DataError, match="has the splits all; leave val out"):
        official(posed(), val=0.1)
    with pytest.raises(DataError, match="has the splits train, val, test; leave val out"):
        official(corpus_of([0, 1] * 50, split=[0] * 60 + [1] * 20 + [2] * 20, splits=("train", "val", "test")), val=0.1)


def test_makers_validation_images_are_the_test_where_there_is_none():
    corpus = corpus_of([0, 1] * 50, split=[0] * 60 + [1] * 40, splits=("train", "val"))
    carved = official(corpus, val=0.1)
    assert carved.splits == ("train", "val", "test")
    assert carved.where("test").tolist() == corpus.where("val").tolist()
    assert set(carved.where("val")) < set(corpus.where("train"))


def test_protocols_are_named():
    corpus = posed()
    assert kfold(corpus, 10, 3, "subject").protocol == "10-fold by subject, fold 3, seed 0"
    assert random_split(corpus, 0.125, seed=4).protocol == "random 12.5 % test by sequence, seed 4"
    made = random_split(corpus, val=0.1, by="image")
    assert made.protocol == "random 20 % test by image, 10 % of train for val by image, seed 0"
    assert leave_one_subject_out(corpus, "S003").protocol == "leave one subject out, S003"
    made = apply_protocol(corpus, TEN_FOLD)
    assert made.protocol == "10-fold by subject, fold 3, 10 % of train for val by subject, seed 0"
    assert (made.rows.split == kfold(corpus, 10, 3, "subject", 0.1, 0).rows.split).all()
    assert PROTOCOLS.names() == ["official", "random_split", "kfold", "leave_one_subject_out", "balanced", "map_to", "file"]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"name": "kfold", "fodls": 5}, "kfold has no argument 'fodls'; did you mean 'folds'"),
        ({"name": "kfold", 5: 5}, "no argument '5'"),
        ({"name": "balanced"}, "balanced needs the argument 'per_class'"),
        ({"name": "leave_one_subject_out"}, "needs the argument 'subject'"),
        ({"name": "kfold", "folds": 1}, "folds is 1, not a whole number from 2"),
        ({"name": "kfold", "folds": True}, "folds is True"),
        ({"name": "kfold", "folds": "10"}, "folds is '10'"),
        ({"name": "kfold", "folds": 3, "fold": 3}, "the last of 3 folds is 2"),
        ({"name": "kfold", "fold": -1}, "fold is -1"),
        ({"name": "kfold", "by": "subjects"}, "by is 'subjects'; did you mean 'subject'"),
        ({"name": "kfold", "by": ["subject"]}, "by is \\['subject'\\]"),
        (
            {"name": "kfold", "by": "subject", "folds": 25},
            "cannot be divided into 25 folds by subject: the number of subjects is 24",
        ),
        ({"name": "kfold", "seed": -1}, "seed is -1"),
        ({"name": "kfold", "seed": 2**32}, "seed is 4294967296"),
        ({"name": "kfold", "seed": 1.0}, "seed is 1.0"),
        ({"name": "random_split", "test": 0}, "test is 0, not a share"),
        ({"name": "random_split", "test": 20}, "test is 20, not a share"),
        ({"name": "random_split", "test": float("nan")}, "test is nan, not a share"),
        ({"name": "random_split", "val": 1.0}, "val is 1.0, not a share"),
        ({"name": "random_split", "val": "0.1"}, "val is '0.1', not a share"),
        ({"name": "random_split", "by": "frame"}, "by is 'frame'.* Known: image, sequence, subject"),
        ({"name": "leave_one_subject_out", "subject": "S003", "by": "person"}, "by is 'person'"),
        ({"name": "random_split", "test": 0.001, "by": "image"}, "leaves one side with fewer images than classes"),
        ({"name": "balanced", "per_class": 0, "split": "all"}, "per_class is 0"),
        ({"name": "balanced", "per_class": 3}, "has no split 'train'; its splits are all"),
        ({"name": "leave_one_subject_out", "subject": "S999"}, "no subject 'S999'; it has 24, from 'S000' to 'S023'"),
        ({"name": "leave_one_subject_out", "subject": 7}, "subject is 7; give its name as text, subject: '7'"),
        ({"name": "file", "path": "no/such.json"}, "no/such.json: cannot be read"),
    ],
)
def test_a_protocol_that_cannot_be_is_refused(part: dict[str, Any], message: str):
    with pytest.raises(DataError, match=message):
        apply_protocol(posed(), part)


def test_a_sequence_of_which_some_images_name_nobody_is_refused():
    corpus = posed()
    people = ("", *corpus.rows.subjects[1:])
    mixed = replace(corpus, rows=replace(corpus.rows, subjects=people))
    with pytest.raises(DataError, match=r"some images of the sequence .* have a subject and others do not"):
        apply_protocol(mixed, {"name": "kfold", "by": "sequence", "folds": 3})


def test_an_unknown_protocol_names_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown protocol 'k_fold'; did you mean 'kfold'"):
        apply_protocol(posed(), {"name": "k_fold"})
    with pytest.raises(UnknownNameError, match=r"unknown protocol ''\. Known: official, "):
        apply_protocol(posed(), {})


def test_a_corpus_without_subjects_is_not_split_by_subject():
    corpus = corpus_of([0, 1] * 20)
    for part in ({"name": "kfold", "by": "subject"}, {"name": "leave_one_subject_out", "subject": "S001"}):
        with pytest.raises(DataError, match="small does not name the subject of its images, so it cannot be split by subject"):
            apply_protocol(corpus, part)
    with pytest.raises(DataError, match="does not name the sequence"):
        kfold(corpus, by="sequence")
    some = corpus_of([0, 1] * 20, range(40))
    some = replace(some, rows=replace(some.rows, subjects=(*some.rows.subjects[:9], "", *some.rows.subjects[10:])))
    with pytest.raises(DataError, match="the subject of row 9"):
        kfold(some, by="subject")


def test_one_image_or_one_person_cannot_be_divided():
    with pytest.raises(DataError, match="one image of b to split"):
        random_split(corpus_of([0] * 9 + [1]))
    with pytest.raises(DataError, match="cannot be divided into 2 folds by subject: the number of subjects is 1"):
        random_split(corpus_of([0, 1] * 5, [1] * 10), by="subject")
    with pytest.raises(DataError, match="leaves train empty"):
        leave_one_subject_out(corpus_of([0, 1] * 5, [1] * 10), "S001")
    with pytest.raises(DataError, match="cannot be divided into 2 folds by subject: the number of subjects is 1"):
        leave_one_subject_out(corpus_of([0, 1] * 5, [1] * 5 + [2] * 5), "S001", val=0.1)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(-1, 2), min_size=1, max_size=60))
def test_a_protocol_file_gives_back_every_row(tmp_path: Path, split: list[int]):
    corpus = corpus_of([0, 1] * 30)
    part = np.array(split + [-1] * (60 - len(split)), np.int8)
    made = replace(corpus, rows=replace(corpus.rows, split=part, splits=("train", "val", "test")), protocol="by hand")
    write_protocol(tmp_path / "p.json", made)
    again = read_protocol(tmp_path / "p.json", corpus)
    assert (again.rows.split == part).all()
    assert again.rows.split.dtype == np.int8
    assert (again.splits, again.protocol) == (made.splits, "by hand")


def test_a_protocol_file_is_short_and_used_by_name(tmp_path: Path):
    made = apply_protocol(posed(), TEN_FOLD)
    write_protocol(tmp_path / "p.json", made)
    again = apply_protocol(posed(), {"name": "file", "path": str(tmp_path / "p.json")})
    assert (again.rows.split == made.rows.split).all()
    assert again.protocol == made.protocol
    ordered = corpus_of([0] * 50, split=[0] * 40 + [1] + [-1] * 5 + [2] * 4, splits=("train", "val", "test"))
    write_protocol(tmp_path / "q.json", ordered)
    assert json.loads((tmp_path / "q.json").read_text())["splits"] == {"train": "0-39", "val": "40", "test": "46-49"}
    with pytest.raises(OutputError):
        write_protocol(tmp_path, made)


def test_a_protocol_of_another_corpus_is_refused(tmp_path: Path):
    write_protocol(tmp_path / "p.json", kfold(posed()))
    with pytest.raises(DataError, match=r"p\.json: is for the small with fingerprint f00d; this other has beef"):
        read_protocol(tmp_path / "p.json", replace(posed(), name="other", fingerprint="beef"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"splits": {"train": "0-9", "test": "9-12"}}, "test has a row that is in another split too"),
        ({"splits": {"train": "0-9,4"}}, "train has a row that is in another split too"),
        ({"splits": {"train": "0-40"}}, "train has the rows 0-40; the corpus has the rows 0 to 39"),
        ({"splits": {"train": "7-3"}}, "train has the rows 7-3"),
        ({"splits": {"train": "0-99999999999"}}, "train has the rows"),
        ({"splits": {"train": "0-9, 12"}}, "train has ' 12', which is neither a row nor a range"),
        ({"splits": {"train": "-1"}}, "'-1', which is neither"),
        ({"splits": {"train": "1,,2"}}, "'', which is neither"),
        ({"splits": {"train": "²"}}, "which is neither"),
        ({"splits": {"train": [1, 2]}}, "is not a protocol file, or is damaged"),
        ({"splits": ["0-9"]}, "is not a protocol file, or is damaged"),
        ({"splits": {}}, "is not a protocol file, or is damaged"),
        ({"splits": {str(i): str(i) for i in range(128)}}, "is not a protocol file, or is damaged"),
        ({"protocol": None}, "is not a protocol file, or is damaged"),
        ({"format": 2}, "format 2; this version of mien reads format 1"),
    ],
)
def test_a_damaged_protocol_file_is_refused(tmp_path: Path, change: dict[str, Any], message: str):
    corpus = corpus_of([0, 1] * 20)
    write_protocol(tmp_path / "p.json", random_split(corpus))
    values = json.loads((tmp_path / "p.json").read_text()) | change
    (tmp_path / "p.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match=message):
        read_protocol(tmp_path / "p.json", corpus)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40), st.integers(0, 400), st.integers(0, 40))
def test_any_change_of_a_protocol_file_is_read_or_refused(tmp_path: Path, data: bytes, start: int, length: int):
    corpus = corpus_of([0, 1] * 20)
    write_protocol(tmp_path / "p.json", random_split(corpus))
    whole = (tmp_path / "p.json").read_bytes()
    (tmp_path / "p.json").write_bytes(whole[:start] + data + whole[start + length :])
    try:
        made = read_protocol(tmp_path / "p.json", corpus)
    except MienError:
        return
    assert made.rows.split.shape == corpus.target.shape
    assert made.rows.split.max() < len(made.splits)


@pytest.mark.skipif(not CK48.is_file(), reason="the real CK+48 is not next to this checkout")
def test_the_real_ckplus_by_subject():
    corpus = load_corpus("ckplus", CK48)
    assert len(subjects(corpus)) == 118
    made = [kfold(corpus, 10, fold, "subject", val=0.1) for fold in range(10)]
    assert sorted(np.concatenate([one.where("test") for one in made])) == list(range(981))
    for one in made:
        assert sum(map(len, sides(one, corpus.rows.subjects))) == 118
        assert len(one.where("val")) / (981 - len(one.where("test"))) == pytest.approx(0.1, abs=0.02)
    counts = np.array([np.bincount(corpus.target[one.where("test")], minlength=7) for one in made])
    assert np.ptp(counts, axis=0).max() <= 9  # of three frames a sequence
    assert counts.min() >= 3


@pytest.mark.skipif(not FER2013.is_file(), reason="the real FER2013 is not next to this checkout")
def test_the_real_fer2013_by_image():
    with FER2013.open() as file:
        target = np.array([int(row["emotion"]) for row in csv.DictReader(file)])
    corpus = corpus_of(target)
    split = random_split(corpus, 0.2)
    assert [len(split.where(name)) for name in split.splits] == [28709, 7178]
    share = np.bincount(target[split.where("test")]) / np.bincount(target)
    assert np.abs(share - 0.2).max() < 0.001
    folds = [kfold(corpus, 5, fold).where("test") for fold in range(5)]
    assert np.ptp([np.bincount(target[rows]) for rows in folds], axis=0).max() <= 1
