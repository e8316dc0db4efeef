"""The model cards of the bundled models, in Hugging Face's format."""

import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from huggingface_hub import ModelCard

from mien import weights
from mien.model_info import DIGEST_KEY, METADATA_KEY, NO_DIGEST, ModelInfo, write_digest
from mien.predict.backend import open_backend
from mien.predict.onnx_backend import OnnxBackend
from mien.results import read_results
from mien.weights.card import DATA, MAX_DEFAULT_PARAMETERS, METRICS, chosen, markdown, uses

ROOT = Path(__file__).parents[1]

CORPORA = {
    "fer2013": {"public_test", "private_test", "ckplus48", "ckplus48_padded"},
    "ferplus": {"ferplus_public_test", "ferplus_private_test", "ckplus48", "ckplus48_padded"},
}


def corpus_of(name: str) -> str:
    return "ferplus" if "ferplus" in name else "fer2013"


@pytest.mark.parametrize("name", weights.files())
def test_the_card_of_a_bundled_model_is_read_by_hugging_face(name: str) -> None:
    path = weights.files()[name]
    card, parsed = weights.read_card(path), ModelCard(markdown(path, open_backend(path, threads=1).info))
    about = parsed.data
    assert (about.license, about.library_name, about.pipeline_tag) == ("apache-2.0", "mien", "image-classification")
    assert (about.model_name, about.datasets) == (name, [corpus_of(name)])
    found = {(r.dataset_name, r.dataset_revision, r.metric_name): r.metric_value for r in about.eval_results or []}
    expected = {
        (DATA[data][0], figures["fingerprint"], METRICS[metric][1]): round(figures[metric], 4)
        for data, figures in card["results"].items()
        for metric in METRICS
        if figures[metric] is not None
    }
    assert found == expected
    assert len(found) == (2 * 6 + 2 * 4 if corpus_of(name) == "fer2013" else 2 * 5 + 2 * 4)  # not all have every metric
    shares = [figures["accuracy_twin_free"] for figures in card["results"].values()]
    for share in (*shares, card.get("selection", {}).get("mean")):
        assert share is None or f"{100 * share:.2f} %" in parsed.text
    titles = [line for line in parsed.text.splitlines() if line.startswith("#")]
    assert len(titles) == len(set(titles)) >= 11
    assert "dlib" in parsed.text.split("## Licences")[1]


@pytest.mark.parametrize("name", weights.files())
def test_the_figures_of_a_card_are_those_of_its_results_files(name: str) -> None:
    path = weights.files()[name]
    card = weights.read_card(path)
    assert set(card["results"]) == CORPORA[corpus_of(name)] <= set(DATA)
    for figures in card["results"].values():
        measured = read_results(ROOT / figures["file"])
        assert measured["model"]["weights_sha256"] in weights.known_sha256(path)
        assert {key: measured["standard"][key] for key in ("accuracy", "recall")} == {
            k: figures[k] for k in ("accuracy", "recall")
        }
    if corpus_of(name) == "ferplus":
        assert "selection" not in card  # its figures are about other labels
        return
    shares = [card["results"][data]["accuracy"] for data in ("public_test", "ckplus48", "ckplus48_padded")]
    assert card["selection"]["mean"] == pytest.approx((shares[0] + (shares[1] + shares[2]) / 2) / 2)


def test_the_rule_chooses_a_small_model_and_never_looks_at_private_test(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = {path: weights.read_card(path) for path in weights.files().values()}
    known = [cards[path] for path in weights.bundled().values() if "selection" in cards[path]]
    small = [card for card in known if card["parameters"] <= MAX_DEFAULT_PARAMETERS]
    best = max(small, key=lambda card: card["selection"]["mean"])
    before = chosen(), uses()
    assert cards[weights.bundled()[chosen()]] == best
    for card in cards.values():
        card["results"].pop("private_test", None)
    monkeypatch.setattr(weights, "read_card", lambda path: cards[path])
    assert (chosen(), uses()) == before


def test_a_model_of_ones_own_has_a_card_with_what_is_known(tmp_path: Path, tiny_onnx: Path, tiny_info: ModelInfo) -> None:
    path, model = tmp_path / "mine: #1.onnx", onnx.load(tiny_onnx)
    info = replace(tiny_info, label_set="no", recipe={})
    onnx.helper.set_model_props(model, {METADATA_KEY: info.to_json(), DIGEST_KEY: NO_DIGEST})
    onnx.save(model, path)
    write_digest(path)
    parsed = ModelCard(markdown(path, OnnxBackend(path).info))
    assert (parsed.data.license, parsed.data.datasets, parsed.data.eval_results) == (None, ["no"], None)
    assert "must not be used" in parsed.text
    assert "Licences" not in parsed.text
    weights.card_path(path).write_text(json.dumps({"results": {"private_test": {"accuracy": 0.5}}}))  # of an earlier version
    assert "Accuracy" not in markdown(path, info)
