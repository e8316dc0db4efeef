"""`mien verify`: whether the figures in results files hold.

Read `_check` from top to bottom: it reads the results, finds the weights and the data they name, measures again and compares.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.cli.inputs import corpus_of, open_corpus, open_photos, votes_on
from mien.cli.options import option
from mien.cli.terminal import StepBar, echo
from mien.errors import CheckpointError, DataError, EditedError, MienError, require
from mien.text import printable

if TYPE_CHECKING:
    from mien.datasets import Corpus
    from mien.predict.backend import Backend

PARTS = ("standard", "twin_free")

TOLERANCE = 0.001
"""Share of the images by which the number of correct ones may differ in int8 or on a GPU. An int8 network rounds differently on
another processor: 1 to 3 of 3,589 predictions changed. In float32 on CPUs nothing may differ."""

ROUNDING = 0.001
"""Difference up to which other figures of the same predictions are equal. Probabilities differ slightly between processors."""


def verify(
    results: Annotated[list[Path], typer.Argument(metavar="RESULT...", help="Results files (.json) of mien evaluate.")],
    data: Annotated[
        Path | None, option("The corpus they were measured on. Without it, nothing is measured again.", "DATA")
    ] = None,
    weights: Annotated[
        Path | None, option("The weights, if they are neither next to the results file nor bundled.", "FILE")
    ] = None,
) -> None:
    """Measure models again and check that the figures in their results files hold.

    Exit status 1 if one does not.
    """
    require("torchmetrics", "train")
    corpora: dict[str, Corpus] = {}
    failed, unchecked = 0, 0
    for path in results:
        try:
            holds, lines = _check(path, data, weights, corpora)
        except EditedError as error:
            holds, lines = False, ["does not hold: " + str(error).removeprefix(f"{path}: ")]
        except MienError as error:
            unchecked += 1
            echo(f"error: {path}: cannot be verified: " + str(error).removeprefix(f"{path}: "), err=True)
            continue
        failed += not holds
        typer.echo(printable(f"{path}: ") + "\n  ".join(map(printable, lines)))
    if failed or unchecked:
        raise typer.Exit(1 if failed else 2 if unchecked == len(results) else 3)


def _check(path: Path, data: Path | None, weights: Path | None, corpora: dict[str, Corpus]) -> tuple[bool, list[str]]:
    """Return whether the figures in a results file hold, and lines that say so and why."""
    from mien.evaluate import evaluate
    from mien.explain import load_backend
    from mien.results import predictions_path, read_predictions, read_results

    recorded = read_results(path)
    predictions = read_predictions(path) if predictions_path(path).is_file() else None
    notes = [] if recorded["digest"] else ["note: it has no digest, so edits by hand may go unnoticed"]
    if data is None and weights is None:
        return True, ["its files are consistent; give the corpus with --data to measure again", *notes]
    file = find_weights(path, recorded, weights)
    if data is None:
        return True, ["its files and weights are consistent; give the corpus with --data to measure again", *notes]

    backend = load_backend(file)
    corpus = _corpus(backend, data, recorded, corpora)
    wanted = recorded["data"]
    split, votes = wanted["split"], votes_on(corpus, data)
    with StepBar() as bar:
        again = evaluate(
            backend,
            corpus,
            split,
            file,
            partial(bar.step, f"measuring {path.name}"),
            view=recorded["view"],
            votes=votes,
            map_to=wanted["map_to"],
            options=wanted["options"],
        )
    measured = again.results
    if (recorded["twins"] or {}).get("training") == "given":  # its training data are not at hand
        notes.append("note: its twin-free figures are not checked, because the training data are not at hand")
        recorded["twin_free"] = measured["twin_free"]

    devices = {results["hardware"].get("device", "cpu") for results in (recorded, measured)}
    exact = recorded["precision"] == "fp32" and devices == {"cpu"}
    tolerance = 0 if exact else int(TOLERANCE * measured["standard"]["images"])
    problems: list[str] = []
    for part in PARTS:
        gained = _correct(measured[part]) - _correct(recorded[part])
        if gained:
            line = f"{part}: {_shown(measured[part])}, {abs(gained):,} {'more' if gained > 0 else 'fewer'} than in the file"
            (problems if abs(gained) > tolerance else notes).append(line)
    if measured["confusion"] == recorded["confusion"]:  # else a class may have gained the image that another one lost
        problems += _other_figures(recorded, measured)
    if predictions is not None:
        changed = int((predictions[2].argmax(1) != again.probs.argmax(1)).sum())
        notes.append(f"{changed:,} of {len(again.rows):,} predictions changed")
    if measured["confusion"] != recorded["confusion"]:
        notes.append(f"measured on {_origin(recorded)}; here on {_origin(measured)}")
    if problems:
        return False, [f"does not hold (tolerance: {tolerance} images)", *problems, *notes]
    shown = f"{_shown(measured['standard'])} on {corpus.name} {split}"
    return True, [f"holds: {shown}" + (f" (tolerance: {tolerance} images)" if tolerance else ""), *notes]


def find_weights(path: Path, recorded: dict[str, Any], weights: Path | None) -> Path:
    """Return the file with the weights that results were measured with: the one given, one next to them, or a bundled one."""
    from mien.weights import bundled, ensemble_file, known_sha256, sha256

    wanted = recorded["model"].get("weights_sha256")
    if wanted is None:
        raise CheckpointError("it does not have the sha256 of its weights; evaluate the model again with mien evaluate")
    if weights is not None:
        if not weights.is_file():
            raise CheckpointError(f"{weights}: no such file; --weights takes a .safetensors or .onnx file")
        if wanted not in known_sha256(weights):
            found = sha256(weights)
            raise CheckpointError(f"{weights}: these are other weights (sha256 {found[:16]}...; the file has {wanted[:16]}...)")
        return weights
    near = sorted(file for suffix in ("safetensors", "onnx") for file in path.parent.glob(f"*.{suffix}"))
    for file in (*near, *bundled().values(), ensemble_file()):
        if wanted in known_sha256(file):
            return file
    raise CheckpointError(
        f"its weights (sha256 {wanted[:16]}...) are neither in {path.parent} nor bundled; give their file with --weights FILE"
    )


def _corpus(backend: Backend, data: Path, recorded: dict[str, Any], corpora: dict[str, Corpus]) -> Corpus:
    """Return the corpus that results were measured on; `corpora` keeps those that were opened before."""
    from mien.leakage import protocol_of
    from mien.photos import NAME as PHOTOS

    wanted = recorded["data"]
    part = {"corpus": wanted["corpus"], "options": wanted["options"]} if wanted["options"] is not None else None
    key = json.dumps(part or backend.info.recipe.get("data") or backend.info.label_set, sort_keys=True)
    if wanted["corpus"] == PHOTOS:
        corpora[key] = open_photos(backend, data)[0]  # each model crops them in its own way
    if key not in corpora:
        corpora[key] = open_corpus(part, data, soft_labels=False) if part else corpus_of(backend, data)
    corpus = corpora[key]
    for word, ours, theirs in (
        ("corpus", corpus.name, wanted["corpus"]),
        ("data fingerprint", corpus.fingerprint, wanted["fingerprint"]),
        ("protocol", protocol_of(backend.info, corpus, wanted["split"]), wanted["protocol"]),
        ("split fingerprint", corpus.split_fingerprint, wanted["split_fingerprint"]),
    ):
        if ours != theirs and not (word == "protocol" and corpus.protocol == theirs):  # as earlier versions named it
            raise DataError(f"{data} is other data ({word} {ours}; the file has {theirs}); give the copy it was measured on")
    return corpus


def _correct(part: dict[str, Any] | None) -> int:
    """Return the number of images that were classified correctly; 0 without images."""
    return 0 if part is None else round(part["accuracy"] * part["images"])


def _shown(part: dict[str, Any] | None) -> str:
    if part is None:
        return "there are no such images"
    return f"{_correct(part):,} of {part['images']:,} images are correct ({100 * part['accuracy']:.2f} %)"


def _other_figures(recorded: dict[str, Any], measured: dict[str, Any]) -> list[str]:
    """Return a line for each figure that differs though every prediction is the same."""
    lines = []
    for part in PARTS:
        before, now = (_flat(results[part] or {}) for results in (recorded, measured))
        for key in before.keys() & now.keys():
            if abs(before[key] - now[key]) > ROUNDING:
                lines.append(f"{part}: {key} is {now[key]:.4f}, but the file has {before[key]:.4f}")
    return sorted(lines)


def _flat(part: dict[str, Any]) -> dict[str, float]:
    """Return the figures of a part by name, those by class as `recall happy`."""
    by_class = {f"{key} {name}": value for key in ("recall", "fpr") for name, value in (part.get(key) or {}).items()}
    return {key: value for key, value in (part | by_class).items() if isinstance(value, float)}


def _origin(results: dict[str, Any]) -> str:
    """Return the processor and the version of what ran the network."""
    hardware, versions = results["hardware"], results["versions"] or {}
    package = "onnxruntime" if results["backend"] == "onnx" else "torch"
    device = "" if hardware.get("device", "cpu") == "cpu" else f", {hardware['device']}"
    version = f" with {package} {versions[package]}" if versions.get(package) else ""
    return f"{hardware['processor']}{device}{version}"
