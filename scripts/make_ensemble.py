"""Write src/mien/weights/ensemble.json: the members of the ensemble, its calibration, and what was measured with it.

    python scripts/make_ensemble.py fer2013.csv

The calibration is fitted on public_test, as `mien calibrate` does it. It is fitted again only if a member has changed; then
evaluate the ensemble (results/README.md has the commands) and run this once more, which adds the figures.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from mien import weights
from mien.atomic import write_json
from mien.calibration import fit_calibration
from mien.datasets import load_corpus
from mien.evaluate import predict_split
from mien.predict.ensemble import LEAST_PROBABILITY, EnsembleBackend
from mien.results import read_results

MEMBERS = ("dlib_resnet-fer2013-small", "dlib_resnet-fer2013", "sa_csp_ca-fer2013")
SPLIT = "public_test"
RESULTS = Path(__file__).parents[1] / "results/fer2013/ensemble"


def main() -> None:
    """Write the file."""
    path = weights.ensemble_file()
    members = {name: weights.sha256(weights.resolve(name)) for name in MEMBERS}
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if old.get("members") == members:
        stored = old
        if (digest := weights.sha256(path)) not in stored["former_sha256"]:
            stored["former_sha256"].append(digest)
    else:
        stored = {"members": members, "mirror": True, "calibration": {}, "results": {}, "former_sha256": []}
        write_json(path, stored)
        corpus = load_corpus("fer2013", sys.argv[1])
        logits = np.log(np.maximum(predict_split(EnsembleBackend(), corpus, SPLIT, print_step), LEAST_PROBABILITY))
        target = corpus.target[corpus.where(SPLIT)]
        stored["calibration"] = fit_calibration(logits, target) | {"split": SPLIT, "images": len(target)}
    for split in ("public_test", "private_test"):
        if (file := RESULTS / f"{split}.json").is_file():
            found = read_results(file)
            figures = {"accuracy": found["standard"]["accuracy"], "accuracy_twin_free": found["twin_free"]["accuracy"]}
            if found["model"]["weights_sha256"] in weights.known_sha256(path):
                stored["results"][split] = figures
    write_json(path, stored)
    print(f"wrote {path}")


def print_step(done: int, total: int) -> None:
    """Print how far the prediction is."""
    print(f"\r{done:,} of {total:,}", end="\n" if done == total else "", flush=True)


if __name__ == "__main__":
    main()
