"""Results files and folders of runs, small and of the real layout."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mien.recipe import load_recipe


@pytest.fixture
def write_results(tmp_path: Path) -> Callable[..., Path]:
    """Write a results file of three classes; `changes` replaces values, with `__` between the keys of nested ones."""

    def write(
        name: str | Path, confusion: tuple[tuple[int, ...], ...] = ((6, 1, 3), (0, 18, 2), (4, 1, 5)), **changes: Any
    ) -> Path:
        counts = np.array(confusion)
        model = {
            "arch": "sa_csp_ca",
            "arguments": {"in_channels": 1},
            "recipe": "sa_csp_ca/fer2013",
            "seed": 0,
            "input": [40, 40],
        }
        values: dict[str, Any] = {
            "model": model,
            "data": {"corpus": "fer2013", "protocol": "official", "split": "private_test", "fingerprint": "aa"},
            "training": {"epochs": 15},
            "study": None,
            "backend": "torch",
            "precision": "fp32",
            "hardware": {"processor": "a processor", "cores": 2},
            "standard": {"images": int(counts.sum()), "accuracy": float(np.trace(counts) / counts.sum())},
            "twin_free": {"images": 20, "accuracy": 0.5},
            "classes": ["angry", "happy", "sad"],
            "confusion": confusion,
        }
        for key, value in changes.items():
            *sections, last = key.split("__")
            target = values
            for section in sections:
                target = target[section]
            target[last] = value
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
        return path

    return write


@pytest.fixture
def write_fold(write_results: Callable[..., Path]) -> Callable[..., Path]:
    """Write the results of one fold of a study."""

    def write(fold: int, seed: int = 0, row: str = "base", **changes: Any) -> Path:
        study = {"name": "sa-csp-ca/table2", "row": row, "scale": "cpu", "fold": fold}
        protocol = f"10-fold by subject, fold {fold}, seed 0"
        name = f"{row}-seed{seed}-fold{fold}.json"
        return write_results(name, **{"study": study, "model__seed": seed, "data__protocol": protocol} | changes)

    return write


@pytest.fixture
def write_run(tmp_path: Path, write_results: Callable[..., Path]) -> Callable[..., Path]:
    """Write the folder of a run: recipe, history of accuracies on the selection split, results of 100 images."""

    def write(
        name: str,
        overrides: dict[str, Any] | None = None,
        val: list[float] | None = None,
        right: int | None = None,
        split: str = "private_test",
        **changes: Any,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.yaml").write_text(load_recipe("sa_csp_ca/fer2013", overrides).to_yaml())
        if val is not None:
            lines = ["epoch,lr,train_loss,train_accuracy,val_loss,val_accuracy,seconds,images_per_second"]
            lines += [f"{epoch},0.1,1.0,{value + 0.1:.6g},1.0,{value},10,100" for epoch, value in enumerate(val, 1)]
            (folder / "history.csv").write_text("\n".join(lines) + "\n")
        if right is not None:
            write_results(folder / f"{split}.json", ((right, 100 - right, 0), (0,) * 3, (0,) * 3), data__split=split, **changes)
        return folder

    return write
