"""Error analysis of measured predictions: mistakes with twins and votes, suspect labels that cleanlab ranks, their CSV."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mien.datasets import Corpus, Rows, load_corpus, read_row_list
from mien.datasets.protocols.splits import random_split
from mien.datasets.votes import COLUMNS, Votes
from mien.errors import DataError, EditedError
from mien.evaluate import evaluate, write_evaluation
from mien.labels import label_set
from mien.model_info import ModelInfo
from mien.report import analyse, mistakes_figure, risk_coverage_figure, write_analysis
from mien.report.analysis import Twin, corpus_part
from mien.report.inputs import pool_folds
from mien.results import digest

CLASSES = label_set("fer2013")
FLIPPED = (3, 40, 77)
"""Rows of training whose label is changed to the next class; the network still sees the true one."""


class Brightness:
    """A backend that reads the class from the brightness of a face, and is less sure of some faces than of others."""

    device = "cpu"

    def __init__(self, info: ModelInfo) -> None:
        self.info = info

    def logits(self, batch: np.ndarray) -> np.ndarray:
        brightness = batch.mean((1, 2, 3)) * 0.25 * 255 + 127.5
        return (-np.abs(brightness[:, None] - (39.5 + 25 * np.arange(7))) / 5).astype(np.float32)


@pytest.fixture(scope="module")
def corpus(shared_fer2013_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """FER2013 of random faces with three wrong labels; row 100 of public_test is a copy of row 3."""
    whole = load_corpus("fer2013", shared_fer2013_csv, tmp_path_factory.mktemp("cache"))
    target, images = whole.target.copy(), np.array(whole.images)
    target[list(FLIPPED)] = (target[list(FLIPPED)] + 1) % 7
    images[100] = images[3]
    return replace(whole, images=images, rows=replace(whole.rows, target=target), fingerprint="f" * 64)


@pytest.fixture(scope="module")
def results(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `mien evaluate` writes for the training split. Not to be changed."""
    info = ModelInfo("tiny", {}, CLASSES, "fer2013", _spec(), data_fingerprint="f" * 64)
    path = tmp_path_factory.mktemp("results") / "train.json"
    trained = replace(
        info, split_fingerprint=corpus.split_fingerprint, recipe={"data": {"corpus": "fer2013", "train": "train"}}
    )
    write_evaluation(path, evaluate(Brightness(trained), corpus, "train"))
    return path


def _spec():
    from mien.preprocess import PreprocessSpec

    return PreprocessSpec(size=(40, 40), channels=1, mean=(0.5,), std=(0.25,), crop_scale=1.1)


def test_wrong_labels_are_the_most_suspect(results: Path, corpus: Corpus) -> None:
    found = analyse(results, corpus)
    assert set(found.rows[found.worst(3 / 96)]) == set(FLIPPED)
    assert set(np.flatnonzero(found.issue)) <= set(FLIPPED)
    assert {mistake.row for mistake in found.mistakes} == set(FLIPPED)
    assert [mistake.confidence for mistake in found.mistakes] == sorted((m.confidence for m in found.mistakes), reverse=True)
    for mistake in found.mistakes:
        assert mistake.label == CLASSES[(CLASSES.index(mistake.predicted) + 1) % 7]
        assert mistake.label_prob < mistake.confidence
    assert sum(pair.images for pair in found.pairs) == 3
    assert found.summary()["trained_on_these"] is True
    assert found.summary()["mistakes"] == 3


def test_a_mistake_comes_with_its_twins_and_votes(results: Path, corpus: Corpus) -> None:
    counts = np.zeros((len(corpus.target), 10), np.int64)
    named = label_set("ferplus10")
    true = corpus.target.copy()
    true[list(FLIPPED)] = (true[list(FLIPPED)] - 1) % 7
    counts[np.arange(len(counts)), [named.index(CLASSES[i]) for i in true]] = 7
    counts[:, COLUMNS.index("NF")] = 3
    found = analyse(results, corpus, votes=Votes(("x",) * len(counts), counts))
    (mistake,) = (mistake for mistake in found.mistakes if mistake.row == 3)
    assert mistake.twins == (Twin(100, "exact", "public_test", CLASSES[corpus.target[100]]),)
    assert mistake.votes == {mistake.predicted: 7, named[COLUMNS.index("NF")]: 3}
    differ = found.summary()["votes_differ"]
    assert differ["0.01"] == 1
    assert differ["1"] == pytest.approx(3 / 96)
    texts = [text.get_text() for text in mistakes_figure(found).texts]
    assert any(text.startswith("exact twin\n") for text in texts)
    assert any("votes: 7" in text for text in texts)


def test_the_tables_can_be_read_again(results: Path, corpus: Corpus, tmp_path: Path) -> None:
    found = analyse(results, corpus, top=2)
    paths = write_analysis(tmp_path / "new", found, worst=0.05)
    assert {path.name for path in paths} == {"mistakes.csv", "pairs.csv", "suspects.csv", "risk-coverage.csv", "summary.json"}
    suspects = read_row_list(tmp_path / "new/suspects.csv", corpus, weighted=True)
    assert list(suspects) == found.rows[found.worst(0.05)].tolist()
    assert list(suspects.values()) == sorted(suspects.values())
    assert read_row_list(tmp_path / "new/suspects.csv", random_split(corpus, seed=2)) == dict.fromkeys(suspects, 0.0)
    with (tmp_path / "new/risk-coverage.csv").open() as file:
        *_, last = csv.DictReader(file)
    assert (last["images"], float(last["coverage"]), float(last["risk"])) == ("96", 1, pytest.approx(3 / 96, abs=1e-5))
    with (tmp_path / "new/mistakes.csv").open() as file:
        assert [int(line["row"]) for line in csv.DictReader(file)] == [mistake.row for mistake in found.mistakes]
    assert json.loads((tmp_path / "new/summary.json").read_text())["images"] == 96


def test_folds_are_pooled(corpus: Corpus, tmp_path: Path) -> None:
    paths = []
    for fold in (0, 1):
        split = np.where(np.arange(160) % 2 == fold, 1, 0).astype(np.int8)
        half = replace(
            corpus, rows=replace(corpus.rows, split=split, splits=("train", "test")), protocol=f"2-fold, fold {fold}"
        )
        info = ModelInfo("tiny", {}, CLASSES, "fer2013", _spec(), split_fingerprint=half.split_fingerprint)
        study = {"name": "s", "row": "r", "scale": "full", "fold": fold}
        evaluation = evaluate(Brightness(info), half, "test", study=study)
        paths.append(write_evaluation(tmp_path / f"fold{fold}.json", evaluation)[0])
    found = analyse(paths, corpus)
    assert sorted(found.rows) == list(range(160))
    assert set(FLIPPED) <= {mistake.row for mistake in found.mistakes}


def test_other_data_and_edited_files_are_refused(results: Path, corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has eeee.*give the copy that was measured"):
        analyse(results, replace(corpus, fingerprint="e" * 64))
    alone = tmp_path / "alone.json"
    alone.write_text(results.read_text())
    with pytest.raises(DataError, match=r"alone-predictions.csv: cannot be read .*evaluate the model again"):
        analyse(alone, corpus)
    edited = tmp_path / "edited.json"
    edited.write_text(results.read_text().replace('"split": "train"', '"split": "test"'))
    with pytest.raises(EditedError, match="edited by hand"):
        analyse(edited, corpus)


def test_predictions_whose_rows_were_changed_are_refused(results: Path, corpus: Corpus, tmp_path: Path) -> None:
    """The confusion matrix still agrees: two images of one class have changed places with two that do not exist."""
    path = tmp_path / "train.json"
    path.write_text(results.read_text())
    text = results.with_name("train-predictions.csv").read_text()
    for row in ("1,", "2,", "96000,"):  # the row of another class, a row twice, a row that is not in the corpus
        (tmp_path / "train-predictions.csv").write_text(text.replace("\n0,", f"\n{row}"))
        with pytest.raises(EditedError, match="not those of the corpus"):
            analyse(path, corpus)


def test_one_class_and_no_mistakes_are_refused(corpus: Corpus, tmp_path: Path) -> None:
    rows = np.flatnonzero(corpus.target == 3)
    rows = rows[(rows >= 32) & ~np.isin(rows, FLIPPED)]
    split = np.full(160, -1, np.int8)
    split[rows] = 0
    happy = replace(corpus, rows=replace(corpus.rows, split=split, splits=("all",)))
    info = ModelInfo("tiny", {}, CLASSES, "other", _spec())
    write_evaluation(tmp_path / "all.json", evaluate(Brightness(info), happy, "all"))
    with pytest.raises(DataError, match=r"all its images are happy; suspect labels need two classes"):
        analyse(tmp_path / "all.json", happy)
    split[corpus.target == 4] = 0
    split[[*FLIPPED, 100]] = -1
    right = replace(corpus, rows=replace(corpus.rows, split=split, splits=("all",)))
    write_evaluation(tmp_path / "all.json", evaluate(Brightness(info), right, "all"))
    found = analyse(tmp_path / "all.json", right)
    assert (found.mistakes, found.pairs) == ((), ())
    assert found.summary()["aurc"] == 0
    with pytest.raises(DataError, match="no mistake to draw"):
        mistakes_figure(found)


def test_votes_need_the_classes_of_the_votes(corpus: Corpus, tmp_path: Path) -> None:
    classes = ("calm", "bright")
    rows = Rows(classes, np.arange(8) % 2, np.zeros(8, np.int8), ("all",))
    two = Corpus("folder", corpus.images[:8], rows, "f" * 64)
    info = ModelInfo("tiny", {}, (*classes, "c", "d", "e", "f", "g"), "own", _spec())
    write_evaluation(tmp_path / "all.json", evaluate(Brightness(info), two, "all"))
    with pytest.raises(DataError, match=r"no votes for some of the classes calm, bright"):
        analyse(tmp_path / "all.json", two, votes=Votes(("x",) * 8, np.ones((8, 10), np.int64)))


def test_the_corpus_is_opened_as_it_was_measured(results: Path, tmp_path: Path) -> None:
    values = json.loads(results.read_text())

    def part(**changes: object) -> dict[str, object]:
        changed = values | {"model": values["model"] | changes.pop("model", {}), "data": values["data"] | changes}
        path = tmp_path / "x.json"
        path.write_text(json.dumps(changed | {"digest": digest(changed)}))
        return corpus_part(pool_folds([path])[0])

    assert part() == {"corpus": "fer2013"}
    assert part(options={"size": 32}) == {"corpus": "fer2013", "options": {"size": 32}}
    assert part(model={"recipe": "sa_csp_ca/fer2013-votes"})["options"] == {"votes": "fer2013new.csv"}
    assert part(model={"recipe": "sa_csp_ca/ckplus-subject"}) == {"corpus": "fer2013"}


def test_the_risk_curve_ends_at_the_error_rate(results: Path) -> None:
    best, line = risk_coverage_figure(pool_folds([results])).axes[0].lines
    assert line.get_ydata()[-1] == best.get_ydata()[-1] == pytest.approx(300 / 96)
    assert best.get_label() == f"best order (AURC {(1 / 94 + 2 / 95 + 3 / 96) / 96:.3f})"
