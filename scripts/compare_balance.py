"""Compare methods for imbalanced classes: class weights and sampling, with the same start, length and seeds.

Runs found in OUT are resumed. All metrics are on the selection split; no test split is used.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mien.atomic import atomic_path
from mien.datasets import load_corpus
from mien.engine import train
from mien.engine.torch_backend import TorchBackend
from mien.evaluate import evaluate
from mien.provenance import current_commit, hardware
from mien.recipe import Recipe, load_recipe
from mien.weights import sha256

BUDGET = {
    "train.epochs": 1,
    "train.ema_decay": 0.99,
    "optim.lr": 0.01,
    "optim.warmup_epochs": 0,
}
"""One more epoch for a trained network, which two cores can afford for three seeds of each method. Trained from scratch for so
short a time, a network recognises hardly any image of a rare class with any method."""

METHODS: dict[str, dict[str, Any]] = {
    "none": {},
    "class weights, inverse": {"loss.class_weights": "inverse"},
    "class weights, effective number": {"loss.class_weights": "effective"},
    "weighted sampling": {"data.sampling": "weighted"},
    "balanced sampling": {"data.sampling": "balanced"},
}

METRICS = ("accuracy", "macro_f1", "uar", "disgust_recall")


def measure(recipe: Recipe, data: Path, folder: Path) -> dict[str, float]:
    """Train a run and return its metrics on the selection split."""
    part = recipe.data
    corpus = load_corpus(part.corpus, data, options=part.options, protocol=part.protocol)
    train(recipe, corpus, folder)
    report = evaluate(TorchBackend(folder), corpus, str(recipe.data.select)).results["standard"]
    return {**{key: report[key] for key in METRICS[:3]}, "disgust_recall": report["recall"]["disgust"]}


def main() -> None:
    """Train every method with every seed and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--start", type=Path, required=True, help="checkpoint of sa_csp_ca/fer2013 to fine-tune")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in METHODS}
    for seed in arguments.seeds:
        for name, method in METHODS.items():
            changes = BUDGET | method | {"seed": seed, "model.start": str(arguments.start)}
            recipe = load_recipe("sa_csp_ca/fer2013", changes)
            folder = arguments.out / f"{name.replace(', ', '-').replace(' ', '_')}-seed{seed}"
            rows[name].append(measure(recipe, arguments.data, folder))
            print(seed, name, {key: round(100 * value, 2) for key, value in rows[name][-1].items()}, flush=True)
    results = {
        "what": "`sa_csp_ca`, trained on FER2013, fine-tuned for one epoch with each method and measured on public_test",
        "start": sha256(arguments.start),
        "budget": BUDGET,
        "seeds": arguments.seeds,
        "split": "public_test",
        "rows": {name: _summary(values) for name, values in rows.items()},
        "commit": current_commit(),
        "hardware": hardware(),
    }
    with atomic_path(arguments.results) as tmp_path:
        tmp_path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _summary(values: list[dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Return mean, standard deviation and the value of each seed for every metric, in per cent."""
    percent = {key: [100 * value[key] for value in values] for key in METRICS}
    return {
        key: {
            "mean": round(float(np.mean(each)), 2),
            "std": round(float(np.std(each, ddof=1)), 2) if len(each) > 1 else None,
            "seeds": [round(v, 2) for v in each],
        }
        for key, each in percent.items()
    }


if __name__ == "__main__":
    main()
