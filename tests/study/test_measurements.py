import json
import math
import re
from pathlib import Path

import pytest
import typer

from mien.cli import app
from mien.errors import DataError
from mien.recipe import load_recipe
from mien.results import digest
from mien.study.measurements import find_runs, gaps, measure, read_history, selection_gain, view_gains

ROOT = Path(__file__).parents[2]
RECIPE = "sa_csp_ca/table2-base"


def write_run(folder: Path, accuracy: float, recipe: str = RECIPE, **change) -> Path:
    """Write the files of a run as mien evaluate and mien train do: a results file and its recipe."""
    seed, fold, images = change.pop("seed", 0), change.pop("fold", None), change.pop("images", 1000)
    overrides = change.pop("overrides", {}) | {"seed": seed} | ({} if fold is None else {"data.protocol.fold": fold})
    corpus = load_recipe(recipe).data.corpus
    name = change.pop("name", "private_test" if corpus == "fer2013" else "test")
    free = {"images": images // 2, "accuracy": accuracy - 0.02} if change.pop("twins", True) else None
    results = {
        "model": {"recipe": recipe, "seed": seed},
        "data": {"corpus": corpus, "split": name.split("-")[0], "fingerprint": "f" * 64},
        "backend": "torch",
        "precision": "fp32",
        "view": "single",
        "standard": {"images": images, "accuracy": accuracy},
        "twin_free": free,
        "classes": ["a"],
        "confusion": [[images]],
        "hardware": {},
        "date": "2026-12-01",
    }
    for key, value in change.items():
        section, _, entry = key.partition("__")
        results[section] = results[section] | {entry: value} if entry else value
    results["digest"] = digest(results)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(results))
    (folder / "recipe.yaml").write_text(load_recipe(recipe, overrides).to_yaml())
    return folder / f"{name}.json"


def test_seeds_become_mean_deviation_and_interval(tmp_path):
    for seed, accuracy in enumerate((0.70, 0.71, 0.75)):
        write_run(
            tmp_path / f"studies/s/full/base/seed{seed}",
            accuracy,
            seed=seed,
            study={"name": "s", "scale": "full", "fold": None},
        )
    (one,) = measure(find_runs(tmp_path))[RECIPE]
    assert (one.seeds, one.folds) == (3, 0)
    assert one.accuracy == pytest.approx(72.0)
    assert one.deviation == pytest.approx(math.sqrt((4 + 1 + 9) / 3))  # N, not N - 1
    half = 4.302653 * math.sqrt((4 + 1 + 9) / 2) / math.sqrt(3)  # Student's t with two degrees of freedom
    assert one.interval == pytest.approx((72 - half, 72 + half), abs=1e-4)
    assert one.twin_free == pytest.approx(70.0)
    assert one.runs[0].twin_cost == pytest.approx(2.0)


def test_one_seed_has_wilsons_interval(tmp_path):
    write_run(tmp_path / "fer2013/net/run", 0.70)
    (one,) = measure(find_runs(tmp_path))[RECIPE]
    p, n, z = 0.70, 1000, 1.959964
    middle, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert one.interval == pytest.approx([100 * (middle + sign * half) / (1 + z**2 / n) for sign in (-1, 1)], abs=1e-4)
    assert one.deviation is None


def test_folds_are_pooled_and_incomplete_seeds_left_out(tmp_path):
    recipe = "sa_csp_ca/ckplus-image"
    for fold, (images, accuracy) in enumerate([(100, 1.0), (300, 0.5)]):
        write_run(tmp_path / f"seed0-fold{fold}", accuracy, recipe, fold=fold, images=images, twins=False)
    write_run(tmp_path / "seed1-fold0", 0.1, recipe, seed=1, fold=0, twins=False)
    (one,) = measure(find_runs(tmp_path))[recipe]
    assert (one.seeds, one.folds) == (1, 2)
    assert one.accuracy == pytest.approx(100 * 250 / 400)
    assert one.twin_free is None


def test_other_data_settings_or_scales_are_not_averaged(tmp_path):
    write_run(tmp_path / "a", 0.70)
    write_run(tmp_path / "b", 0.60, seed=1, data__fingerprint="e" * 64)
    write_run(tmp_path / "c", 0.50, seed=2, overrides={"optim.lr": 0.2})
    write_run(tmp_path / "d", 0.40, seed=3, study={"name": "s", "scale": "cpu", "fold": None}, overrides={"train.epochs": 15})
    found = measure(find_runs(tmp_path))[RECIPE]
    assert [(round(one.accuracy), one.seeds) for one in found] == [(70, 1), (60, 1), (50, 1), (40, 1)]
    assert [one.runs[0].changed for one in found[:3]] == [(), (), ("optim.lr",)]
    assert [one.runs[0].scale for one in found] == ["full", "full", "full", "cpu"]


@pytest.mark.parametrize(
    "change",
    [
        {"name": "public_test"},
        {"view": "ten views"},
        {"precision": "int8"},
        {"data__corpus": "ferplus"},
        {"model__recipe": "mine/own"},
    ],
    ids=str,
)
def test_what_is_no_measurement_of_a_row(tmp_path, change):
    write_run(tmp_path, 0.9, **change)
    assert find_runs(tmp_path) == []


def test_one_evaluation_per_run_and_torch_before_onnx(tmp_path):
    write_run(tmp_path, 0.70)
    write_run(tmp_path, 0.71, name="private_test-onnx", backend="onnx", date="2026-12-24")
    (run,) = find_runs(tmp_path)
    assert run.path.name == "private_test.json"


def test_a_former_name_of_a_recipe_counts(tmp_path):
    recipe = "sa_csp_ca/fer2013-finetune"
    write_run(tmp_path, 0.70, recipe, model__recipe="sa_csp_ca/fer2013-again")
    assert [run.recipe for run in find_runs(tmp_path)] == [recipe]


def test_a_file_edited_by_hand_is_refused(tmp_path):
    path = write_run(tmp_path, 0.70)
    assert len(find_runs(tmp_path)) == 1
    path.write_text(path.read_text().replace("0.7}", "0.8}"))
    with pytest.raises(DataError, match=r"private_test\.json: .*edited by hand"):
        find_runs(tmp_path)


def test_pages_and_audits_are_no_results(tmp_path):
    (tmp_path / "audit.json").write_text('{"data": {}, "twins": {}}')
    assert find_runs(tmp_path) == []
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(DataError, match=r"broken\.json"):
        find_runs(tmp_path)


# Traps -------------------------------------------------------------------------------------------------------------------


def test_gain_of_choosing_the_epoch(tmp_path):
    (tmp_path / "history.csv").write_text(
        "epoch,val_accuracy\n1,0.5\n2,0.60\n3,0.62\n4,0.65\n5,0.61\n6,0.63\n7,0.40\n", encoding="utf-8"
    )
    history = read_history(tmp_path)
    assert selection_gain(history) == pytest.approx(65 - (60 + 62 + 61 + 63) / 4)
    assert selection_gain(history[:4]) == pytest.approx(65 - 61)
    assert selection_gain([{"val_accuracy": 0.5}] * 9) == 0


def test_gaps_pair_recipes_of_the_same_scale(tmp_path):
    cpu = {"study": {"name": "s", "scale": "cpu", "fold": None}}
    write_run(tmp_path / "a", 0.75, "stn_resnet50/table2-sgd-random", name="test")
    write_run(tmp_path / "b", 0.70, "stn_resnet50/table2-sgd")
    write_run(tmp_path / "c", 0.66, "stn_resnet50/table2-nadam-random", name="test", **cpu)
    write_run(tmp_path / "d", 0.60, "stn_resnet50/table2-nadam")
    found = measure(find_runs(tmp_path))
    assert gaps(found, "-random", "") == pytest.approx([5.0])
    assert gaps(found, "-image", "-subject") == []


def test_view_gains_pair_the_same_weights_and_split(tmp_path):
    def weights(name: str) -> dict[str, str]:
        return {"model__weights_sha256": name}

    write_run(tmp_path / "a", 0.70, **weights("a"))
    write_run(tmp_path / "a", 0.72, name="private_test-ten", view="ten", **weights("a"))
    write_run(tmp_path / "b", 0.60, name="public_test-ten", view="ten", **weights("a"))
    write_run(tmp_path / "c", 0.75, name="private_test-ten", view="ten", **weights("c"))
    assert view_gains(tmp_path) == pytest.approx([2.0])


# The page ----------------------------------------------------------------------------------------------------------------


def test_the_page_shows_measurements_below_their_row(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import docs_claims

    write_run(tmp_path / "results/fer2013/sa_csp_ca/x", 0.70)
    write_run(tmp_path / "results/fer2013/good/x", 0.72, "good_faith/stn_resnet50")
    runs = find_runs(tmp_path / "results")
    monkeypatch.setattr(docs_claims, "measured", lambda: measure(runs))
    monkeypatch.setattr(docs_claims, "ROOT", tmp_path)
    rows = [line.strip("| ").split(" | ") for line in docs_claims.tables().splitlines()]
    assert max(map(len, rows)) == 7
    (base,) = [row for row in rows if row[0] == "Base"]
    assert base[2:4] == ["69.82\N{NO-BREAK SPACE}%", "`sa_csp_ca/table2-base`"]
    assert base[4].startswith("**70.00\N{NO-BREAK SPACE}%** (67.1 to 72.8)")
    attention = next(i for i, row in enumerate(rows) if row[0] == "ResNet50 + Adam + 0.001 + Attention")
    names = [row[0] for row in rows[attention : attention + 3]]
    assert names == ["ResNet50 + Adam + 0.001 + Attention", "FER2013, official", "same network, good-faith training"]
    assert "**72.00" in rows[attention + 2][4]
    assert not any("**72" in cell for row in rows for cell in row[4:5] if row[0] != "same network, good-faith training")
    commands = [line for row in rows for line in row if " --data " in line]
    assert any(line.startswith("mien train resemotenet/rafdb --data RAF-DB --out results/rafdb/") for line in commands)
    known = typer.main.get_command(app).commands
    for verb, words in re.findall(r"mien (train|evaluate) ([^;&]+)", "\n".join(commands)):
        assert set(re.findall(r"--[a-z]+", words)) <= {name for option in known[verb].params for name in option.opts}
