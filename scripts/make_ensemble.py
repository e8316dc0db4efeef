"""Write src/mien/weights/ensemble.json: the members of the ensemble and its calibration.

    python scripts/make_ensemble.py fer2013.csv

The calibration is fitted on public_test, as `mien calibrate` does it, and only if a member has changed. Then evaluate the
ensemble (results/README.md has the commands) and run `make tables`, which adds the figures.
"""

from __future__ import annotations

import sys

import numpy as np

from mien import weights
from mien.atomic import write_json
from mien.calibration import class_bias, fit_calibration
from mien.datasets import load_corpus
from mien.evaluate import predict_split
from mien.predict.ensemble import LEAST_PROBABILITY, EnsembleBackend

MEMBERS = ("dlib_resnet-fer2013-small", "dlib_resnet-fer2013", "sa_csp_ca-fer2013")
SPLIT = "public_test"
BALANCE = 0.75
"""As in bundle_weights.py."""


def main() -> None:
    """Write the file."""
    path = weights.ensemble_file()
    members = {name: weights.sha256(weights.resolve(name)) for name in MEMBERS}
    if path.is_file() and weights.read_card(path).get("members") == members:
        raise SystemExit(f"{path}: its members have not changed")
    stored = {"members": members, "mirror": True, "calibration": {}, "results": {}, "former_sha256": []}
    write_json(path, stored)
    corpus = load_corpus("fer2013", sys.argv[1])
    logits = np.log(np.maximum(predict_split(EnsembleBackend(), corpus, SPLIT, print_step), LEAST_PROBABILITY))
    target = corpus.target[corpus.where(SPLIT)]
    bias = class_bias(np.bincount(corpus.target[corpus.where("train")]).astype(float), BALANCE)
    stored["calibration"] = fit_calibration(logits, target, bias) | {"split": SPLIT, "images": len(target)}
    write_json(path, stored)
    print(f"wrote {path}")


def print_step(done: int, total: int) -> None:
    """Print how far the prediction is."""
    print(f"\r{done:,} of {total:,}", end="\n" if done == total else "", flush=True)


if __name__ == "__main__":
    main()
