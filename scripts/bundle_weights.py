"""Bundle a finished run with the package: export its weights, calibrate and measure the files, and write their cards.

    python scripts/bundle_weights.py runs/a --data fer2013.csv [--name sa_csp_ca-fer2013] [--ckplus CK+48.zip]

Writes src/mien/weights/NAME.onnx and NAME-int8.onnx with their cards, and under results/<corpus>/<network>/ the run's recipe,
history and curves and an evaluation of both files on the selection split and on the test split. This is the only place that
uses the test split: run it once, for the run that was chosen on the selection split. With --ckplus, both files are measured on
CK+48 too, which the choice of the default needs. What the cards say comes from these results (see model_cards.py).
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import model_cards
import numpy as np
from numpy.typing import NDArray

from mien import weights
from mien.atomic import write_json
from mien.checkpoint import load_checkpoint, save_checkpoint
from mien.datasets import Corpus, load_corpus, vote_counts
from mien.engine.calibrate import calibrate
from mien.engine.export import Export, calibration_crops, export_int8, export_onnx, write_card
from mien.engine.torch_backend import TorchBackend
from mien.evaluate import evaluate, write_evaluation
from mien.predict.onnx_backend import OnnxBackend

RESULTS = Path(__file__).parents[1] / "results"


def main() -> None:
    """Export, calibrate, measure, write the cards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--data", type=Path, required=True, help="the corpus it was trained on")
    parser.add_argument("--name", help="name of the bundled model; by default <network>-<corpus>")
    parser.add_argument(
        "--smooth", type=float, help="preprocess.smooth, instead of the run's; choose it on the selection split"
    )
    parser.add_argument("--balance", type=float, default=0.75, help="see `mien calibrate`; docs/model-cards.md says why 0.75")
    parser.add_argument("--no-int8", action="store_true", help="write the float32 file alone")
    parser.add_argument("--ckplus", type=Path, help="the folder or archive CK+48; also measure on it")
    arguments = parser.parse_args()
    if arguments.smooth is not None:
        set_smooth(arguments.run, arguments.smooth)
    backend = TorchBackend(arguments.run)
    info = backend.info
    corpus = load_corpus(info.label_set, arguments.data, options=info.recipe["data"]["options"])
    if corpus.fingerprint != info.data_fingerprint:
        parser.error(f"{arguments.data} is not the data this run was trained on")
    kind = info.recipe["name"].rpartition(info.label_set)[2].lstrip("-")  # such as "distilled" of dlib_resnet/fer2013-distilled
    folder = RESULTS / info.label_set / info.arch / "-".join(filter(None, (kind, f"seed{info.recipe['seed']}")))
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("recipe.yaml", "history.csv", "curves.png"):
        shutil.copy(arguments.run / file, folder / file)
    parameters = sum(p.numel() for p in backend.model.parameters())
    target = weights.FOLDER / f"{arguments.name or f'{info.arch}-{info.label_set}'}.onnx"
    crops = calibration_crops(corpus)
    exports = {"onnx": export_onnx(arguments.run, target, crops, half_size=True)}
    if not arguments.no_int8:
        exports["onnx-int8"] = export_int8(arguments.run, target, target.with_name(f"{target.stem}-int8.onnx"), crops)
    for export in exports.values():
        calibrate(export.path, corpus, balance=arguments.balance)
    measured = load_corpus(info.label_set, arguments.data)  # FER+: the majority of the votes, not their distribution
    votes = vote_counts(measured, arguments.data)
    for stem, export in exports.items():
        measure(export, measured, folder, stem, votes)
        if arguments.ckplus is not None:
            measure_ckplus(export, arguments.ckplus)
    for export in exports.values():
        card = write_card(export, parameters=parameters)
        write_json(card, weights.read_card(export.path) | model_cards.facts(export.path, export.info))


def set_smooth(run: Path, smooth: float) -> None:
    """Change `preprocess.smooth` in the best checkpoint of a run."""
    model, info = load_checkpoint(run)
    info = replace(info, preprocess=replace(info.preprocess, smooth=smooth))
    save_checkpoint(run / "best.safetensors", model.state_dict(), info)


def measure(export: Export, corpus: Corpus, folder: Path, stem: str, votes: NDArray[np.int64] | None) -> None:
    """Evaluate an exported file on the selection and the test split."""
    backend = OnnxBackend(export.path)
    for split in corpus.splits[1:]:
        evaluation = evaluate(backend, corpus, split, weights=export.path, votes=votes)
        write_evaluation(folder / f"{split}-{stem}.json", evaluation)
        print(f"{export.path.name} on {split}: {100 * evaluation.results['standard']['accuracy']:.2f} %")


def measure_ckplus(export: Export, source: Path) -> None:
    """Evaluate an exported file on CK+48, as given and padded. The predictions are not kept: CK+ may not be redistributed."""
    backend, name = OnnxBackend(export.path), export.path.stem
    for stem, options, map_to in (
        (name, {}, None),
        (f"{name}-six-classes", {}, "ckplus"),
        (f"{name}-padded", {"pad": model_cards.PAD}, None),
    ):
        corpus = load_corpus("ckplus", source, options=options)
        evaluation = evaluate(backend, corpus, "all", weights=export.path, map_to=map_to, options=options)
        path = RESULTS / "ckplus48" / f"{stem}.json"
        _, predictions = write_evaluation(path, evaluation)
        predictions.unlink()
        print(f"{stem} on CK+48: {100 * evaluation.results['standard']['accuracy']:.2f} %")


if __name__ == "__main__":
    main()
