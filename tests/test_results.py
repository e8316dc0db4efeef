import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mien.datasets import Corpus, load_corpus
from mien.datasets.protocols.splits import random_split
from mien.errors import DataError, EditedError
from mien.evaluate import Evaluation, evaluate, write_evaluation
from mien.predict.onnx_backend import OnnxBackend
from mien.results import digest, predictions_path, read_predictions, read_results, require_same_data

COMMITTED = Path(__file__).parents[1] / "results"


@pytest.fixture
def corpus(fer2013_csv: Path) -> Corpus:
    return load_corpus("fer2013", fer2013_csv)


@pytest.fixture
def written(tmp_path: Path, corpus: Corpus, tiny_onnx: Path) -> tuple[Path, Evaluation]:
    """A results file, and what it is about."""
    evaluation = evaluate(OnnxBackend(tiny_onnx), corpus, "public_test", weights=tiny_onnx)
    write_evaluation(tmp_path / "r.json", evaluation)
    return tmp_path / "r.json", evaluation


def test_a_results_file_is_read_as_it_was_written(written: tuple[Path, Evaluation]):
    path, evaluation = written
    assert read_results(path) == evaluation.results
    assert list(evaluation.results)[-1] == "digest"
    path.write_text(json.dumps(evaluation.results, sort_keys=True))  # laid out in another way, the content is the same
    assert read_results(path) == evaluation.results


@pytest.mark.parametrize("change", [{"accuracy": 0.9}, {"recall": {}}, {"more": 1}])
def test_an_edit_by_hand_is_noticed(written: tuple[Path, Evaluation], change: dict[str, object]):
    path, evaluation = written
    path.write_text(json.dumps(evaluation.results | {"standard": evaluation.results["standard"] | change}))
    with pytest.raises(EditedError, match=r"r\.json: was edited by hand"):
        read_results(path)
    path.write_text(json.dumps({key: value for key, value in evaluation.results.items() if key != "digest"}))
    with pytest.raises(EditedError, match=r"r\.json: was edited by hand"):
        read_results(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model": {}, "data": {}, "standard": {}}', "{" * 100_000])
def test_another_file_is_refused(tmp_path: Path, text: str):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(DataError, match=r"r\.json: is not a results file"):
        read_results(tmp_path / "r.json")
    with pytest.raises(DataError, match=r"none\.json: cannot be read"):
        read_results(tmp_path / "none.json")


def test_what_older_files_lack_is_unknown(written: tuple[Path, Evaluation]):
    path, evaluation = written
    older = {key: value for key, value in evaluation.results.items() if key not in ("digest", "training", "study", "versions")}
    older["model"] = {key: value for key, value in older["model"].items() if key != "recipe_hash"}
    older["standard"] = {"accuracy": 0.5}
    older["twin_free"] = None
    path.write_text(json.dumps(older))
    results = read_results(path)
    assert results["digest"] is results["training"] is results["study"] is results["model"]["recipe_hash"] is None
    unknown = dict.fromkeys(("kappa", "fpr", "votes_agreement", "accuracy_interval"))
    assert results["standard"] == {"accuracy": 0.5, **unknown}


def test_the_digest_is_sha256_of_the_content():
    assert digest({"b": [1, 0.5], "a": None, "digest": "x"}) == digest({"a": None, "b": [1, 0.5]})
    text = b'{"a":null,"b":[1,0.5]}'
    assert digest({"b": [1, 0.5], "a": None}) == hashlib.sha256(text).hexdigest()


def test_predictions_are_read_as_they_were_made(written: tuple[Path, Evaluation]):
    path, evaluation = written
    rows, target, probs = read_predictions(path)
    assert rows.tolist() == evaluation.rows.tolist()
    assert target.tolist() == evaluation.target.tolist()
    assert probs == pytest.approx(evaluation.probs, abs=1e-5)
    assert probs.argmax(1).tolist() == evaluation.probs.argmax(1).tolist()


def test_the_predicted_class_is_the_largest_even_if_rounding_made_two_equal(written: tuple[Path, Evaluation]):
    path, evaluation = written
    lines = predictions_path(path).read_text().splitlines()
    row, target, label, *_ = lines[1].split(",")
    predicted = evaluation.classes.index(label)
    assert predicted > 0  # the first of equal ones would be another
    equal = ["0.50000" if i in (0, predicted) else "0.00000" for i in range(7)]
    predictions_path(path).write_text("\n".join([lines[0], ",".join([row, target, label, *equal]), *lines[2:]]))
    assert read_predictions(path)[2][0].argmax() == predicted


def test_other_predictions_are_refused(written: tuple[Path, Evaluation]):
    path, _ = written
    file = predictions_path(path)
    head, first, *rest = file.read_text().splitlines()
    for lines, words in (
        ([head, *rest], "does not belong to r.json, or was changed"),
        ([head, first.replace("angry", "happy", 1), *rest], "does not belong to r.json, or was changed"),
        ([head.replace("row", "image"), first, *rest], "is not a file of predictions"),
        ([head, first.replace(",", ",angrily", 1), *rest], "is not a file of predictions"),
        ([head, first + ",0.1", *rest], "is not a file of predictions"),
        ([], "is not a file of predictions"),
    ):
        file.write_text("\n".join(lines))
        with pytest.raises(DataError, match=f"r-predictions.csv: {words}"):
            read_predictions(path)
    file.unlink()
    with pytest.raises(DataError, match=r"r-predictions\.csv: cannot be read"):
        read_predictions(path)


def test_a_probability_that_was_edited_is_noticed(written: tuple[Path, Evaluation]):
    path, evaluation = written
    file = predictions_path(path)
    head, first, *rest = file.read_text().splitlines()
    cells = first.split(",")
    cells[3 + evaluation.classes.index(cells[2])] = "0.00000"
    cells[3 + (evaluation.classes.index(cells[2]) + 1) % 7] = "1.00000"
    file.write_text("\n".join([head, ",".join(cells), *rest]))
    with pytest.raises(EditedError, match="was changed"):
        read_predictions(path)


def test_results_of_other_data_are_never_averaged(written: tuple[Path, Evaluation], corpus: Corpus, tiny_onnx: Path):
    ours = read_results(written[0])
    require_same_data([ours, ours], ["a.json", "b.json"])
    other_split = evaluate(OnnxBackend(tiny_onnx), corpus, "private_test").results
    drawn = ours | {"data": ours["data"] | {"split_fingerprint": random_split(corpus).split_fingerprint}}
    changed = [ours | {"data": ours["data"] | {key: "x"}} for key in ("fingerprint", "protocol", "corpus")]
    for theirs in (other_split, drawn, *changed):
        with pytest.raises(DataError, match=r"a\.json and c\.json were measured on different"):
            require_same_data([ours, ours, theirs], ["a.json", "b.json", "c.json"])


def test_every_committed_result_can_be_read_with_its_predictions():
    paths = [path.with_name(path.name.replace("-predictions.csv", ".json")) for path in COMMITTED.rglob("*-predictions.csv")]
    assert len(paths) > 20
    for path in paths:
        results, (rows, target, probs) = read_results(path), read_predictions(path)
        assert len(rows) == results["data"]["images"]
        accuracy = float(np.mean(probs.argmax(1) == target))
        assert accuracy == pytest.approx(results["standard"]["accuracy"], abs=1e-6), path


def test_a_class_that_is_a_formula_is_not_one_in_the_predictions(written: tuple[Path, Evaluation]):
    path, evaluation = written
    classes = ("=1+1", *evaluation.classes[1:])
    results = evaluation.results | {"classes": [*classes]}
    write_evaluation(path, replace(evaluation, classes=classes, results=results | {"digest": digest(results)}))
    text = predictions_path(path).read_text()
    assert "./=1+1" in text
    assert not any(cell.startswith("=") for line in text.splitlines() for cell in line.split(","))
    assert np.array_equal(read_predictions(path)[1], evaluation.target)
