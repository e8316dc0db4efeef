"""Write the metadata, digests and cards of the bundled models again, without changing an answer.

    python scripts/restamp_weights.py

A recipe in the metadata takes the name, the texts and the start weights of the current recipe; all that was trained with stays.
Afterwards run `make tables`: the model pages show the new SHA-256.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mien import weights
from mien.engine.export import restamp
from mien.predict.onnx_backend import OnnxBackend
from mien.preprocess import preprocess
from mien.recipe import RENAMED, load_recipe


def main() -> None:
    """Restamp every bundled model whose file would change."""
    crops = list(np.random.default_rng(0).integers(0, 256, (64, 48, 48), dtype=np.uint8))
    for name, path in weights.bundled().items():
        before = OnnxBackend(path)
        batch = preprocess(crops, before.info.preprocess)
        restamp(path, replace(before.info, recipe=renamed(before.info.recipe)))
        after = OnnxBackend(path)
        if not np.array_equal(before.logits(batch), after.logits(batch)):
            raise SystemExit(f"{name}: its answers changed; restore it with git checkout")
        print(f"{name}: sha256 {weights.sha256(path)}")


def renamed(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return the recipe of a model with the names that are in use now."""
    current = load_recipe(RENAMED.get(recipe["name"], recipe["name"])).model_dump(mode="json")
    texts = {key: current[key] for key in ("name", "summary", "deviations")}
    return recipe | texts | {"model": recipe["model"] | {"start": current["model"]["start"]}}


if __name__ == "__main__":
    main()
