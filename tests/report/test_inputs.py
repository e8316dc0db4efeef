import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mien.errors import DataError, RecipeError
from mien.report import pool_folds, read_runs
from mien.report.inputs import (
    Measured,
    differing,
    group_runs,
    measured_labels,
    name_rows,
    one_measurement,
    require_one_split,
    study_rows,
)

ROOT = Path(__file__).parents[2]
Write = Callable[..., Path]


def test_folds_of_one_run_are_pooled(write_fold: Write) -> None:
    paths = [
        write_fold(0),
        write_fold(1, confusion=((1, 0, 0), (0, 2, 0), (0, 0, 1)), twin_free={"images": 5, "accuracy": 1.0}),
    ]
    pooled = one_measurement(pool_folds([*paths, paths[0]]))
    assert pooled.confusion.tolist() == [[7, 1, 3], [0, 20, 2], [4, 1, 6]]
    assert pooled.accuracy() == pytest.approx(33 / 44) == np.trace(pooled.confusion) / pooled.confusion.sum()
    assert pooled.accuracy("twin_free") == pytest.approx((20 * 0.5 + 5 * 1.0) / 25)


def test_without_a_twin_free_figure_in_every_fold_there_is_none(write_fold: Write) -> None:
    assert one_measurement(pool_folds([write_fold(0), write_fold(1, twin_free=None)])).accuracy("twin_free") is None


def test_other_files_are_not_pooled(write_fold: Write, write_results: Write) -> None:
    same = [write_results("a.json"), write_results("b.json")]
    assert len(pool_folds(same)) == 2
    with pytest.raises(DataError, match=r"a\.json and .*b\.json are not the folds of one run of a study"):
        one_measurement(pool_folds(same))
    for other in (write_fold(1, seed=1), write_fold(1, row="gate"), write_fold(1, data__split="val")):
        assert len(pool_folds([write_fold(0), other])) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data__fingerprint": "bb"}, "another copy of the corpus than another fold"),
        ({"data__corpus": "ckplus"}, "another corpus (ckplus, not fer2013)"),
        ({"classes": ["angry", "sad", "happy"]}, "has other classes"),
        ({"model__arguments": {}}, "another network than the other folds"),
    ],
)
def test_folds_that_do_not_go_together_are_refused(write_fold: Write, change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError) as caught:
        pool_folds([write_fold(0), write_fold(1, **change)])
    assert message in str(caught.value)


def test_a_fold_given_twice_is_refused(write_fold: Write, tmp_path: Path) -> None:
    copy = tmp_path / "copy.json"
    copy.write_bytes(write_fold(3).read_bytes())
    with pytest.raises(DataError, match="give each fold once"):
        pool_folds([write_fold(0), write_fold(3), copy])


def test_results_edited_by_hand_are_refused(write_results: Write) -> None:
    for edit, message in (
        ({"standard__accuracy": 0.99}, "one of them was edited"),
        ({"standard__images": 39}, "does not fit"),
        ({"classes": ["angry", "happy"]}, "does not fit"),
        ({"confusion": ((6, 1),)}, "does not fit"),
        ({"classes": None}, "does not fit|is not a results file"),
        ({"digest": "0" * 64}, "edited by hand"),
    ):
        with pytest.raises(DataError, match=message):
            pool_folds([write_results("r.json", **edit)])


def test_7_and_7_0_are_one_value(tmp_path: Path, write_run: Write) -> None:
    for seed, value in ((0, 7), (1, 7.0)):
        write_run(f"seed{seed}", {"loss.arguments": {"island_weight": 0.1, "pair_weight": value}, "seed": seed})
    assert len(group_runs(read_runs([tmp_path]))) == 1


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"model": 1}'])
def test_what_is_not_a_results_file_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "other.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=r"other\.json"):
        pool_folds([path])


def test_one_figure_shows_one_split_and_one_scale(write_results: Write) -> None:
    one = write_results("a.json")
    cpu, full = ({"name": "s", "row": "r", "scale": scale, "fold": None} for scale in ("cpu", "full"))
    require_one_split(pool_folds([one, write_results("b.json", study=full)]))
    for change, message in (({"data__split": "public_test"}, "another split"), ({"study": cpu}, "another scale")):
        with pytest.raises(DataError, match=message):
            require_one_split(pool_folds([one, write_results("b.json", **change)]))


def test_the_shortest_names_that_differ_are_the_labels(write_results: Write) -> None:
    def labels(*changes: dict[str, object]) -> list[str]:
        return measured_labels(pool_folds([write_results(f"{i}/r.json", **change) for i, change in enumerate(changes)]))

    study = {"name": "s", "scale": "cpu", "fold": None}
    assert labels({"study": study | {"row": "sgd"}}, {"study": study | {"row": "adam"}}) == ["sgd", "adam"]
    assert labels({}, {"model__arch": "vgg16"}) == ["sa_csp_ca", "vgg16"]
    assert labels({}, {"model__recipe": "sa_csp_ca/ckplus"}) == ["sa_csp_ca/fer2013", "sa_csp_ca/ckplus"]
    assert labels({}, {"precision": "int8"}) == ["sa_csp_ca/fer2013 (fp32)", "sa_csp_ca/fer2013 (int8)"]
    assert labels({}, {"model__seed": 1}) == ["sa_csp_ca/fer2013, seed 0", "sa_csp_ca/fer2013, seed 1"]
    assert labels({}, {}) == ["0/r.json", "1/r.json"]


def test_seeds_of_a_studys_row_belong_together(write_fold: Write, write_results: Write) -> None:
    seeds = [write_fold(0, seed=seed) for seed in (0, 1)]
    rows = study_rows(pool_folds([seeds[0], write_results("alone.json"), write_fold(0, row="gate"), seeds[1]]))
    assert [[each.paths[0].name for each in row] for row in rows] == [
        ["base-seed0-fold0.json", "base-seed1-fold0.json"],
        ["alone.json"],
        ["gate-seed0-fold0.json"],
    ]


def test_runs_are_found_below_a_study_and_kept_in_the_given_order(tmp_path: Path, write_run: Write) -> None:
    for name in ("study/full/sgd/seed0", "study/full/adam/seed1", "study/full/adam/seed0", "b"):
        write_run(name)
    runs = read_runs([tmp_path / name for name in ("b", "study", "b")])
    found = [run.folder.relative_to(tmp_path).as_posix() for run in runs]
    assert found == ["b", "study/full/adam/seed0", "study/full/adam/seed1", "study/full/sgd/seed0"]


def test_a_folder_without_runs_is_named(tmp_path: Path) -> None:
    for folder, message in ((tmp_path, "has no run in it"), (tmp_path / "missing", "no such folder")):
        with pytest.raises(DataError, match=message):
            read_runs([folder])


@pytest.mark.parametrize("text", ["a: [", "- a", "model: {name: x}", "{model: 1, data: 2, preprocess: 3, train: 4}"])
def test_a_recipe_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"recipe\.yaml: (cannot be read|is not the recipe of a run)"):
        read_runs([tmp_path])


def test_two_scales_are_refused(tmp_path: Path, write_run: Write) -> None:
    for scale in ("cpu", "full"):
        write_run(f"study/{scale}/sgd/seed0")
    with pytest.raises(DataError, match=r"different scales \(cpu, full\)"):
        read_runs([tmp_path / "study"])
    assert [read_runs([tmp_path / f"study/{scale}"])[0].scale for scale in ("cpu", "full")] == ["cpu", None]


def test_the_scale_is_that_of_the_results_wherever_the_folder_is(tmp_path: Path, write_run: Write) -> None:
    folder = write_run("copy", right=1, study={"name": "s", "row": "r", "scale": "tiny", "fold": None})
    assert read_runs([folder])[0].scale == "tiny"


def test_seeds_and_folds_make_a_row_and_everything_else_tells_rows_apart(tmp_path: Path, write_run: Write) -> None:
    kfold = {"data.protocol": {"name": "kfold", "folds": 2, "fold": 1, "seed": 0}}
    write_run("s/cpu/slow/seed0", {"optim.lr": 0.01})
    write_run("s/cpu/slow/seed1", {"optim.lr": 0.01, "seed": 1})
    write_run("s/cpu/fast/seed0", {"optim.lr": 0.1})
    rows = group_runs(read_runs([tmp_path / "s"]))
    assert [len(row) for row in rows] == [1, 2]
    assert name_rows(rows) == (["0.1", "0.01"], ["optim.lr"])
    write_run("k/cpu/a/seed0-fold0", kfold | {"data.protocol": kfold["data.protocol"] | {"fold": 0}})
    write_run("k/cpu/a/seed0-fold1", kfold)
    assert [len(row) for row in group_runs(read_runs([tmp_path / "k"]))] == [2]


def test_rows_that_differ_in_more_are_named_by_folder(tmp_path: Path, write_run: Write) -> None:
    for name, lr, epochs in (("slow", 0.01, 9), ("fast", 0.1, 3)):
        write_run(f"s/cpu/{name}/seed0", {"optim.lr": lr, "train.epochs": epochs})
        write_run(f"runs/{name}-seed0", {"optim.lr": lr, "train.epochs": epochs})
    keys = ["optim.lr", "train.epochs"]
    assert name_rows(group_runs(read_runs([tmp_path / "s"]))) == (["fast", "slow"], keys)
    assert name_rows(group_runs(read_runs([tmp_path / "runs"]))) == (["fast-seed0", "slow-seed0"], keys)


def test_a_run_counts_once(tmp_path: Path, write_run: Write) -> None:
    write_run("a")
    write_run("b")
    with pytest.raises(DataError, match="have the same recipe and seed; leave one out"):
        group_runs(read_runs([tmp_path]))


def test_committed_runs_can_be_read_whatever_their_version() -> None:
    runs = read_runs([ROOT / "results/fer2013"])
    assert len(runs) > 10
    assert all(run.history is not None for run in runs)
    assert any(run.splits for run in runs)
    assert "optim.lr" in differing(runs)


def test_a_history_of_another_program_is_named(write_run: Write) -> None:
    for text in (
        "epoch,loss\n1,2\n",
        "epoch,train_accuracy,val_accuracy\n1,0.5\n",
        "epoch,train_accuracy,val_accuracy\n1,x,0\n",
    ):
        folder = write_run("run")
        (folder / "history.csv").write_text(text)
        with pytest.raises(DataError, match=r"history\.csv: is not the history of a run"):
            read_runs([folder])[0].history  # noqa: B018


def test_only_results_named_after_their_split_count(write_run: Write, write_results: Write) -> None:
    folder = write_run("run", right=50)
    write_results(folder / "private_test-onnx.json")
    (folder / "card.json").write_text(json.dumps({"data": 1}))
    (folder / "broken.json").write_text("{")
    assert read_runs([folder])[0].splits == ["private_test"]


def test_a_measurement_needs_no_file() -> None:
    assert Measured((), ({"standard": {"images": 4, "accuracy": 0.25}, "confusion": [[1]]},)).accuracy() == 0.25
