import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien.calibration import calibrated_probs
from mien.datasets import Corpus, Rows, load_corpus, read_protocol, vote_counts, write_protocol
from mien.datasets.fer2013 import COUNTS
from mien.datasets.protocols.splits import random_split
from mien.datasets.votes import COLUMNS
from mien.engine.history import Epoch, write_history
from mien.errors import CheckpointError, DataError, LabelError, OutputError
from mien.evaluate import evaluate, notes, views, write_evaluation
from mien.labels import label_set
from mien.leakage import protocol_of
from mien.model_info import ModelInfo
from mien.predict.onnx_backend import OnnxBackend
from mien.preprocess import preprocess
from mien.recipe import load_recipe, parse_recipe, recipe_hash
from mien.statistics import interval_of_images


class Oracle:
    """A backend that answers from a table: brightness tells the class in the test corpus, in FER2013's order."""

    def __init__(self, info: ModelInfo) -> None:
        self.info = info
        self.order = [label_set("fer2013").index(name) for name in info.classes]

    device = "cpu"

    def logits(self, batch: np.ndarray) -> np.ndarray:
        brightness = batch.mean((1, 2, 3)) * 0.25 * 255 + 127.5
        nearest = np.abs(brightness[:, None] - (39.5 + 25 * np.arange(7))).argmin(1)
        return np.eye(7, dtype=np.float32)[nearest][:, self.order] * 10


@pytest.fixture
def corpus(fer2013_csv: Path) -> Corpus:
    return load_corpus("fer2013", fer2013_csv)


def test_a_perfect_backend_scores_one(corpus: Corpus, tiny_info: ModelInfo):
    results = evaluate(Oracle(tiny_info), corpus, "private_test").results
    assert results["standard"]["accuracy"] == results["standard"]["uar"] == 1
    assert np.diag(results["confusion"]).sum() == results["standard"]["images"] == 32
    data = {"corpus": "fer2013", "protocol": "splits of an unverified copy", "split": "private_test", "images": 32}
    data |= {"left_out": 0, "split_file": None, "options": None, "map_to": None}
    data |= {"unknown_classes": {}, "absent_classes": []}
    fingerprints = {"fingerprint": corpus.fingerprint, "split_fingerprint": corpus.split_fingerprint}
    assert results["data"] == data | fingerprints


def test_a_drawn_split_must_be_the_one_that_trained_the_network(corpus: Corpus, tiny_info: ModelInfo):
    drawn = random_split(corpus, seed=1)
    trained = replace(tiny_info, split_fingerprint=drawn.split_fingerprint)
    assert evaluate(Oracle(trained), drawn, "test").results["data"]["protocol"].startswith("random 20 % test")
    for other in (random_split(corpus, seed=2), replace(drawn, fingerprint="another copy")):
        with pytest.raises(DataError, match="copy of the corpus that trained it"):
            evaluate(Oracle(trained), other, "test")


def test_a_network_of_a_drawn_split_is_not_measured_on_the_official_one(corpus: Corpus, tiny_info: ModelInfo):
    """Its training images are among the official test's."""
    recipe = {"data": {"corpus": "fer2013", "protocol": {"name": "random_split", "test": 0.2}}}
    trained = replace(tiny_info, recipe=recipe, split_fingerprint=random_split(corpus, seed=1).split_fingerprint)
    with pytest.raises(DataError, match="copy of the corpus that trained it"):
        evaluate(Oracle(trained), corpus, "private_test")


def test_answers_that_are_no_numbers_are_refused(corpus: Corpus, tiny_info: ModelInfo):
    class Astray(Oracle):
        def logits(self, batch: np.ndarray) -> np.ndarray:
            return np.full((len(batch), 7), np.nan, np.float32)

    with pytest.raises(CheckpointError, match="nan or infinite"):
        evaluate(Astray(tiny_info), corpus, "private_test")


def test_without_training_images_there_is_one_figure(corpus: Corpus, tiny_info: ModelInfo):
    keep = np.flatnonzero(corpus.rows.split == 2)
    alone = replace(corpus, images=np.array(corpus.images[keep]), rows=corpus.rows.take(keep))
    results = evaluate(Oracle(tiny_info), alone, "private_test").results
    assert results["twin_free"] is None
    assert results["standard"]["accuracy"] == 1


def test_twins_are_left_out_of_the_second_figure(tmp_path: Path, fer2013_csv: Path, tiny_info: ModelInfo):
    lines = fer2013_csv.read_text().splitlines()
    stolen = lines[1].replace("Training", "PrivateTest")  # angry, seen in training
    wrong = "1" + lines[3][1:].replace("Training", "PrivateTest")  # a twin with another label
    fer2013_csv.write_text("\n".join([*lines, stolen, wrong]) + "\n")
    results = evaluate(Oracle(tiny_info), load_corpus("fer2013", fer2013_csv), "private_test").results
    assert (results["standard"]["images"], results["twin_free"]["images"]) == (34, 32)
    assert results["standard"]["accuracy"] == pytest.approx(33 / 34)
    assert results["standard"]["accuracy_interval"] == list(interval_of_images(33, 34))
    assert results["twin_free"]["accuracy"] == 1
    assert results["twins"] == {"training": "unverified", "exact": 2, "near": 0, "mirrored": 0, "any": 2}


def test_the_files_hold_what_was_measured(tmp_path: Path, corpus: Corpus, tiny_onnx: Path):
    evaluation = evaluate(OnnxBackend(tiny_onnx), corpus, "public_test", weights=tiny_onnx)
    written = write_evaluation(tmp_path / "out" / "r.json", evaluation)
    assert [p.name for p in written] == ["r.json", "r-predictions.csv"]
    results = json.loads(written[0].read_text())
    assert results == evaluation.results
    assert len(results["model"]["weights_sha256"]) == 64
    with written[1].open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["row"]) for row in rows] == corpus.where("public_test").tolist()
    right = np.mean([row["target"] == row["label"] for row in rows])
    assert right == pytest.approx(results["standard"]["accuracy"])


def test_results_say_where_they_come_from(tmp_path: Path, corpus: Corpus, tiny_info: ModelInfo, tiny_onnx: Path):
    recipe, study = load_recipe("sa_csp_ca/fer2013", {"seed": 3}), {"name": "s", "row": "r", "scale": "cpu", "fold": None}
    values = recipe.to_dict()
    write_protocol(tmp_path / "mine.json", random_split(corpus))
    drawn = read_protocol(tmp_path / "mine.json", corpus)
    values["data"]["protocol"] = [{"name": "file", "path": str(tmp_path / "mine.json")}]
    info = replace(tiny_info, recipe=values, split_fingerprint=drawn.split_fingerprint)
    history = [Epoch(number, 0.1, 1, 0.5, 1, accuracy, 2.25, 100) for number, accuracy in enumerate((0.25, 0.5, 0.5), start=1)]
    write_history(tmp_path, history)
    results = evaluate(Oracle(info), drawn, "test", tiny_onnx, study=study).results
    assert results["model"]["recipe_hash"] == recipe_hash(parse_recipe(values, "")) != recipe_hash(recipe)
    assert results["data"]["split_file"] == "mine.json"
    assert results["training"] == {"epochs": 3, "best_epoch": 2, "seconds": 6.8}
    assert results["study"] == study
    assert results["versions"].keys() == {"mien", "torch", "timm", "numpy", "onnxruntime", "python"}
    assert results["versions"]["numpy"] == np.__version__
    (tmp_path / "history.csv").write_text("epoch,loss\n1,0.5\n")  # of another program
    assert evaluate(Oracle(info), drawn, "test", tiny_onnx).results["training"] is None


def test_predictions_are_compared_with_ferplus_votes(corpus: Corpus, fer2013_csv: Path, tiny_info: ModelInfo):
    """Of an image of class i, all who chose one of the seven classes chose i, except that two of three said 0 for class 6."""
    assert vote_counts(corpus, fer2013_csv) is None
    order = [COLUMNS.index(name) for name in ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")]
    usages = [usage for usage, count in (("Training", 96), ("PublicTest", 32), ("PrivateTest", 32)) for _ in range(count)]
    lines = ["Usage,Image name," + ",".join(COLUMNS)]
    for row, usage in enumerate(usages):
        counts = np.zeros(10, int)
        target = corpus.target[row]
        counts[order[target]], counts[COLUMNS.index("unknown")] = 3, 7
        if target == 6:
            counts[[order[0], order[6]]] = 2, 1
        if target == 5:
            counts[order[5]] = 0  # everybody said unknown: left out
        lines.append(f"{usage},x.png,{','.join(map(str, counts))}")
    file = fer2013_csv.with_name("fer2013new.csv")
    file.write_text("\n".join(lines))
    assert load_corpus("fer2013", fer2013_csv).fingerprint == corpus.fingerprint
    votes = vote_counts(random_split(corpus), fer2013_csv)
    part = evaluate(Oracle(tiny_info), corpus, "private_test", votes=votes).results["standard"]
    count = np.bincount(corpus.target[corpus.where("private_test")])
    assert part["votes_agreement"] == pytest.approx((count[:5].sum() + count[6] / 3) / (count[:5].sum() + count[6]))
    assert vote_counts(replace(corpus, name="ferplus"), fer2013_csv) is None
    file.write_text("\n".join(lines[:-1]))
    with pytest.raises(DataError, match="are both complete"):
        vote_counts(corpus, fer2013_csv)


def test_another_order_of_the_classes_changes_nothing(corpus: Corpus, tiny_info: ModelInfo):
    other = Oracle(replace(tiny_info, classes=label_set("rafdb")))
    evaluation = evaluate(other, corpus, "public_test")
    assert evaluation.classes == label_set("rafdb")
    assert evaluation.results["standard"]["accuracy"] == 1
    assert evaluation.results["standard"] == evaluate(Oracle(tiny_info), corpus, "public_test").results["standard"]


def relabelled(corpus: Corpus, classes: tuple[str, ...]) -> Corpus:
    """Return a corpus whose classes have other names."""
    return replace(corpus, name="folder", rows=replace(corpus.rows, classes=classes))


def test_classes_that_one_of_the_two_lacks_are_counted_and_said(corpus: Corpus, tiny_info: ModelInfo):
    other = relabelled(corpus, ("Anger", "disgust", "contempt", "happy", "sad", "surprise", "d\u00e9go\u00fbt"))
    evaluation = evaluate(Oracle(tiny_info), other, "private_test")
    count = np.bincount(corpus.target[corpus.where("private_test")])
    data, standard = evaluation.results["data"], evaluation.results["standard"]
    assert data["unknown_classes"] == {"contempt": count[2], "d\u00e9go\u00fbt": count[6]}
    assert data["absent_classes"] == ["fear", "neutral"]
    assert (standard["images"], standard["accuracy"]) == (32 - count[2] - count[6], 1)
    assert standard["recall"]["fear"] is None
    lines = notes(evaluation.results)
    assert any(f"{count[2]} of contempt, {count[6]} of d\u00e9go\u00fbt" in line for line in lines)
    assert any("no image shows fear, neutral" in line for line in lines)
    votes = np.zeros((len(corpus.target), 7), np.int64)
    votes[:, 3] = 1  # everybody says happy
    part = evaluate(Oracle(tiny_info), other, "private_test", votes=votes).results["standard"]
    assert part["votes_agreement"] == pytest.approx(count[3] / standard["images"])


def test_the_network_chooses_among_the_classes_of_a_label_set(corpus: Corpus, tiny_info: ModelInfo):
    """CK+ has no neutral, so an image of it is left out, and no other image can be called neutral."""
    evaluation = evaluate(Oracle(tiny_info), corpus, "private_test", map_to="ckplus")
    assert evaluation.classes == ("angry", "disgust", "fear", "happy", "sad", "surprise")
    assert evaluation.results["data"]["unknown_classes"].keys() == {"neutral"}
    np.testing.assert_allclose(evaluation.probs.sum(1), 1, atol=1e-6)
    assert evaluation.results["standard"]["accuracy"] == 1
    with pytest.raises(LabelError, match="unknown label set 'ckplu'"):
        evaluate(Oracle(tiny_info), corpus, "private_test", map_to="ckplu")


def test_data_of_one_class_in_common_are_refused(corpus: Corpus, tiny_info: ModelInfo):
    with pytest.raises(LabelError, match="evaluate it on data of which it knows two classes or more"):
        evaluate(Oracle(tiny_info), relabelled(corpus, ("a", "b", "c", "happy", "d", "e", "f")), "public_test")


def test_a_published_split_is_known_by_its_counts(corpus: Corpus, tiny_info: ModelInfo):
    target = np.repeat(np.arange(7), COUNTS["private_test"])
    rows = Rows(corpus.classes, target, np.full(len(target), 2, np.int8), corpus.splits)
    copy = replace(corpus, images=np.zeros((len(target), 2, 2), np.uint8), rows=rows, fingerprint="a")
    assert protocol_of(tiny_info, copy, "private_test") == "official"
    assert protocol_of(tiny_info, replace(copy, rows=rows.take(target != 1)), "private_test") != "official"
    assert protocol_of(
        replace(tiny_info, data_fingerprint="a"), replace(copy, rows=rows.take(target != 1)), "private_test"
    ) == ("official")
    assert protocol_of(tiny_info, replace(copy, name="folder"), "private_test") == "own splits"
    assert protocol_of(tiny_info, replace(copy, name="folder", protocol="labels of fer2013; official"), "test") == (
        "labels of fer2013; own splits"
    )


def test_a_folder_of_other_pictures_is_not_filed_as_fer2013(tmp_path: Path, tiny_info: ModelInfo):
    for name in ("test/happy/1.png", "test/sad/2.png"):
        (tmp_path / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((48, 48), 90, np.uint8)).save(tmp_path / "own" / name)
    with pytest.raises(
        DataError, match=r"not fer2013: its private_test has 3,589 images, and this folder has 2; .*--corpus folder"
    ):
        evaluate(Oracle(tiny_info), load_corpus("fer2013", tmp_path / "own"), "private_test")
    data = evaluate(Oracle(tiny_info), load_corpus("folder", tmp_path / "own"), "test").results["data"]
    assert (data["corpus"], data["protocol"]) == ("folder", "own splits")


def test_images_that_trained_the_network_are_marked(tmp_path: Path, tiny_info: ModelInfo):
    """Its own training split as the test of another folder: its bytes, small JPEG files of it, or mirror images."""
    random, images = np.random.default_rng(0), []
    for i in range(14):
        noise = Image.fromarray(random.integers(0, 60, (8, 8)).astype(np.uint8)).resize((48, 48), Image.Resampling.BICUBIC)
        images.append(np.asarray(noise) + np.uint8(25 * (i % 7)))
    target, classes = np.arange(14) % 7, label_set("fer2013")
    rows = Rows(classes, target, np.zeros(14, np.int8), ("train",))
    trained = Corpus("folder", np.stack(images), rows, "trained")
    known = {"data_fingerprint": "trained", "split_fingerprint": trained.split_fingerprint}
    info = replace(tiny_info, recipe={"data": {"corpus": "folder", "train": "train"}}, **known)

    def compressed(image: np.ndarray) -> np.ndarray:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=70)
        return np.asarray(Image.open(stream))

    changed = {"exact": images[:4], "near": [compressed(image) for image in images[4:9]]}
    changed["mirrored"] = [image[:, ::-1] for image in images[9:]]
    test = replace(
        trained,
        images=np.stack([image for group in changed.values() for image in group]),
        rows=replace(rows, splits=("test",)),
        fingerprint="other",
    )
    blind = evaluate(Oracle(info), test, "test").results
    assert blind["data"]["protocol"] == "own splits"
    assert blind["twins"] == {"training": "unverified"}
    assert blind["twin_free"] is None
    assert notes(blind)[0].startswith("WARNING: the fingerprints do not show")
    seen = evaluate(Oracle(info), test, "test", training=trained).results
    assert seen["twins"] == {"training": "given", "exact": 4, "near": 5, "mirrored": 5, "any": 14}
    assert seen["twin_free"]["images"] == 10
    assert notes(seen) == [
        "4 of 14 images have a byte-identical copy among the training images (twin-free is without them); 10 more are nearly "
        "the same or mirrored, and are not left out"
    ]
    own = evaluate(Oracle(info), trained, "train").results
    assert own["twins"]["training"] == "same split"
    assert own["twin_free"] is None
    assert "every image is one that trained the model" in notes(own)[0]
    with pytest.raises(DataError, match="other data than trained the model"):
        evaluate(Oracle(info), trained, "train", training=test)


def test_the_same_images_with_another_split_are_refused_under_any_name(corpus: Corpus, tiny_info: ModelInfo):
    trained = replace(tiny_info, data_fingerprint=corpus.fingerprint, split_fingerprint="drawn")
    trained = replace(trained, recipe={"data": {"corpus": "ferplus", "protocol": {"name": "random_split"}}})
    with pytest.raises(DataError, match="may have seen these test images"):
        evaluate(Oracle(trained), corpus, "private_test")


def test_an_unknown_split_is_refused(corpus: Corpus, tiny_info: ModelInfo):
    with pytest.raises(DataError, match="its splits are"):
        evaluate(Oracle(tiny_info), corpus, "val")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, corpus: Corpus, tiny_info: ModelInfo):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_evaluation(tmp_path / "file" / "r.json", evaluate(Oracle(tiny_info), corpus, "public_test"))


def test_views_are_the_image_its_mirror_and_ten_squares():
    image = np.arange(48 * 48, dtype=np.uint16).reshape(48, 48).view(np.uint8).reshape(48, 48, 2)[..., 0]
    assert [each.shape for each in views(image, "single")] == [(48, 48)]
    np.testing.assert_array_equal(views(image, "mirror")[1], image[:, ::-1])
    ten = views(image, "ten")
    assert [each.shape for each in ten] == [(44, 44)] * 10
    for square, expected in zip(
        ten, (image[:44, :44], image[:44, 4:], image[4:, :44], image[4:, 4:], image[2:46, 2:46]), strict=False
    ):
        np.testing.assert_array_equal(square, expected)
    np.testing.assert_array_equal(ten[5], ten[0][:, ::-1])


def test_the_probabilities_of_views_are_averaged(tiny_onnx: Path, corpus: Corpus):
    backend = OnnxBackend(tiny_onnx)
    image = corpus.images[corpus.where("public_test")[:1]][0]
    single = calibrated_probs(backend.logits(preprocess([image], backend.info.preprocess)), {})[0]
    mirrored = calibrated_probs(backend.logits(preprocess([image[:, ::-1]], backend.info.preprocess)), {})[0]
    evaluation = evaluate(backend, corpus, "public_test", view="mirror")
    np.testing.assert_allclose(evaluation.probs[0], (single + mirrored) / 2, atol=1e-5)
    assert evaluation.results["view"] == "mirror"
    assert evaluate(backend, corpus, "public_test", view="ten").probs.shape == (32, 7)
