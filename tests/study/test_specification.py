"""What a study says, and what is refused."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mien.engine.checks import check_names
from mien.errors import RecipeError
from mien.models import create_model
from mien.study.queue import read_queue
from mien.study.specification import FULL, create_jobs, load_study, study_names

Write = Callable[..., Path]


def test_a_grid_is_every_combination(tmp_path: Path, write_study: Write):
    more = "recipe: sa_csp_ca/fer2013\ngrid: {optim.lr: [0.1, 5e-3], optim.name: [sgd, adam], preprocess.size: [[40, 40]]}\n"
    rows = load_study(str(write_study(tmp_path, more))).all_rows()
    assert list(rows) == [f"lr={lr},name={name},size=40x40" for lr in ("0.1", "0.005") for name in ("sgd", "adam")]
    assert rows["lr=0.005,name=adam,size=40x40"].set == {"optim.lr": 0.005, "optim.name": "adam", "preprocess.size": [40, 40]}


def test_negative_values_have_rows_of_their_own(tmp_path: Path, write_study: Write):
    more = "recipe: sa_csp_ca/fer2013\ngrid: {preprocess.crop_shift: [0.05, -0.05]}\n"
    jobs = create_jobs(load_study(str(write_study(tmp_path, more))))
    assert [(job.row, job.recipe.preprocess.crop_shift) for job in jobs] == [
        ("crop_shift=0.05", 0.05),
        ("crop_shift=-0.05", -0.05),
    ]


def test_two_rows_of_the_same_recipe_are_refused(tmp_path: Path, write_study: Write):
    more = (
        "rows:\n  a: {recipe: sa_csp_ca/fer2013, set: {train.epochs: 4}}\n  b: {recipe: sa_csp_ca/fer2013}\n"
        "scales: {cpu: {train.epochs: 1}}\n"
    )
    study = load_study(str(write_study(tmp_path, more)))
    assert len(create_jobs(study)) == 2
    with pytest.raises(RecipeError, match="the rows a and b are the same recipe at the scale cpu"):
        create_jobs(study, "cpu")


def test_a_seed_that_is_given_twice_is_refused(tmp_path: Path, write_study: Write):
    with pytest.raises(RecipeError, match="a seed is given twice"):
        create_jobs(load_study(str(write_study(tmp_path))), seeds=[0, 0])


def test_jobs_are_in_order_of_seeds_and_have_folders_of_their_own(tmp_path: Path, write_study: Write):
    jobs = create_jobs(load_study(str(write_study(tmp_path))), seeds=[3, 1])
    assert [(job.recipe.seed, job.recipe.optim.lr) for job in jobs] == [(3, 0.05), (3, 0.001), (1, 0.05), (1, 0.001)]
    assert str(jobs[0].path) == "tiny/rates/full/lr=0.05/seed3"
    assert jobs[0].recipe.model.name == "dlib_resnet"


def test_a_scale_changes_every_row_and_a_row_may_change_more(tmp_path: Path, write_study: Write):
    more = (
        "rows:\n  a: {recipe: sa_csp_ca/fer2013}\n"
        "  b: {recipe: sa_csp_ca/fer2013, set: {optim.lr: 0.01}, scales: {cpu: {train.epochs: 4}}}\n"
        "scales: {cpu: {train.epochs: 3}}\n"
    )
    study = load_study(str(write_study(tmp_path, more)))
    assert [job.recipe.train.epochs for job in create_jobs(study, "cpu")] == [3, 4]
    assert [job.recipe.train.epochs for job in create_jobs(study)] == [2, 2]
    assert [job.row for job in create_jobs(study, rows=["b"])] == ["b"]


def test_folds_set_the_fold_of_the_protocol(tmp_path: Path, write_study: Write):
    more = "folds: 10\nrows:\n  a: {recipe: resnet50_cbam_erf/ckplus-image}\n"
    jobs = create_jobs(load_study(str(write_study(tmp_path, more))))
    assert [job.recipe.data.protocol["fold"] for job in jobs] == list(range(10))  # type: ignore[call-overload]
    assert jobs[3].path.name == "seed0-fold3"
    with pytest.raises(RecipeError, match=r"tiny/rates, row a: data.protocol of .* has no 5 folds"):
        create_jobs(load_study(str(write_study(tmp_path, more.replace("10", "5")))))


def test_a_recipe_file_is_relative_to_the_study(tmp_path: Path, write_study: Write, monkeypatch: pytest.MonkeyPatch):
    from mien.recipe import load_recipe

    (tmp_path / "mine.yaml").write_text(load_recipe("sa_csp_ca/fer2013", {"name": "mine"}).to_yaml())
    path = write_study(tmp_path, "rows:\n  a: {recipe: mine.yaml}\n")
    monkeypatch.chdir("/")
    assert create_jobs(load_study(str(path)))[0].recipe.name == "mine"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("recipee: x\n", "unknown key recipee; did you mean 'recipe'"),
        ("rows:\n  a: {recipe: sa_csp_ca/fer2013, sett: {}}\n", "unknown key rows.a.sett; did you mean 'set'"),
        ("recipe: sa_csp_ca/fer2013\n", "grid and recipe belong together"),
        ("recipe: sa_csp_ca/fer2013\ngrid: {optim.lr: []}\n", "grid.optim.lr has no values"),
        ("rows:\n  a: {recipe: sa_csp_ca/fer2013}\nreference: b\n", "reference: unknown row 'b'"),
        ("rows:\n  a: {recipe: sa_csp_ca/fer2013}\nseeds: [1, 1]\n", "a seed is given twice"),
        ("recipe: sa_csp_ca/fer2013\ngrid: {optim.name: [a/b, a-b]}\n", "two values give rows of the same name"),
        ("recipe: sa_csp_ca/fer2013\ngrid: {optim.lr: [0.1, 0.1]}\n", "two values give rows of the same name"),
        ("recipe: sa_csp_ca/fer2013\ngrid: {seed: [0, 1]}\n", r"write seeds: \[0, 1\]"),
        ("rows:\n  a: {recipe: sa_csp_ca/fer2013, set: {seed: 5}}\n", r"write seeds: \[0, 1\]"),
        (
            "recipe: sa_csp_ca/fer2013\ngrid: {optim.lr: [0.1]}\nscales: {cpu: {optim.lr: 1}}\n",
            "scales.cpu.optim.lr: the grid varies this key",
        ),
        ("rows:\n  a/b: {recipe: sa_csp_ca/fer2013}\n", "the name of a row is"),
        ("rows:\n  a: {recipe: sa_csp_ca/fer2013}\nfolds: two\n", "folds: input should be a valid integer"),
        ("", "either rows, or a recipe and a grid"),
        ("rows: [\n", "cannot be read as YAML"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, write_study: Write, more: str, message: str):
    with pytest.raises(RecipeError, match=message):
        load_study(str(write_study(tmp_path, more)))


def test_unknown_names_get_the_nearest(tmp_path: Path, write_study: Write):
    with pytest.raises(RecipeError, match="unknown study 'sa-csp-ca/table3'; did you mean 'sa-csp-ca/table2'"):
        load_study("sa-csp-ca/table3")
    study = load_study(str(write_study(tmp_path)))
    with pytest.raises(RecipeError, match=r"unknown row 'lr=0.5'; did you mean 'lr=0.05'"):
        create_jobs(study, rows=["lr=0.5"])
    with pytest.raises(RecipeError, match="unknown scale 'cpuu'"):
        create_jobs(study, "cpuu")
    wrong = write_study(tmp_path, "rows:\n  a: {recipe: sa_csp_ca/fer2014}\n")
    with pytest.raises(RecipeError, match=r"row a: unknown recipe 'sa_csp_ca/fer2014'; did you mean 'sa_csp_ca/fer2013'"):
        create_jobs(load_study(str(wrong)))
    wrong = write_study(tmp_path, "rows:\n  a: {recipe: sa_csp_ca/fer2013, set: {optim.lrr: 1}}\n")
    with pytest.raises(RecipeError, match=r"unknown key optim.lrr; did you mean 'lr'"):
        create_jobs(load_study(str(wrong)))


@functools.cache
def minimum_size(model: str, arguments: str) -> int:
    with torch.device("meta"):
        return create_model(model, num_classes=7, **json.loads(arguments)).minimum_size


@pytest.mark.parametrize("name", study_names())
def test_bundled_studies_are_complete(name: str):
    study = load_study(name)
    assert study.name == name
    assert study.title
    for scale in (FULL, *study.scales):
        for job in create_jobs(study, scale, seeds=[0]):
            check_names(job.recipe)
            sizes = [job.recipe.preprocess.size, job.recipe.train.early_size or job.recipe.preprocess.size]
            assert np.min(sizes) >= minimum_size(job.recipe.model.name, json.dumps(job.recipe.model.arguments))


@pytest.mark.parametrize(
    ("name", "swept"),
    [
        ("vgg16-gcca/fig6a", {"loss.arguments"}),
        ("vgg16-gcca/fig6b", {"loss.arguments"}),
        ("stn-resnet50/table2", {"optim.name", "optim.momentum"}),
        ("stn-resnet50/table3-ferplus", {"optim.lr"}),
        ("stn-resnet50/table4-random", {"model.name", "model.arguments", "model.start"}),
        ("sa-csp-ca/table2", {"model.arguments"}),
        ("sa-csp-ca/table2-gate", {"model.arguments"}),
    ],
)
def test_the_rows_of_a_sweep_differ_in_nothing_else(name: str, swept: set[str]):
    recipes = [
        job.recipe.model_dump(exclude={"name", "summary", "paper", "deviations"}) for job in create_jobs(load_study(name))
    ]
    flat = [
        {f"{part}.{key}": value for part, values in recipe.items() if isinstance(values, dict) for key, value in values.items()}
        for recipe in recipes
    ]
    assert {key for key in flat[0] if any(recipe[key] != flat[0][key] for recipe in flat)} == swept
    if name.startswith("vgg16"):
        key = "island_weight" if name.endswith("a") else "pair_weight"
        others = {tuple(value for k, value in recipe["loss.arguments"].items() if k != key) for recipe in flat}
        assert len(others) == 1
        assert len({recipe["loss.arguments"][key] for recipe in flat}) == len(flat)


def test_our_own_queue_is_complete():
    for selection in read_queue(Path(__file__).parents[2] / "results/queue.yaml"):
        assert selection.load()[1]


def test_a_queue_is_a_list_of_studies(tmp_path: Path):
    path = tmp_path / "queue.yaml"
    path.write_text("- {study: sa-csp-ca/table2, scale: cpu, seeds: [0, 1]}\n- {study: good-faith/fer2013}\n")
    first, second = read_queue(path)
    assert {job.recipe.seed for job in first.load()[1]} == {0, 1}
    assert {job.scale for job in second.load()[1]} == {FULL}
    for text, message in (
        ("- {studyy: a}", "entry 1: .*unknown key studyy; did you mean 'study'"),
        ("study: a", "is not a queue"),
        ("[", "cannot be read as YAML"),
    ):
        path.write_text(text)
        with pytest.raises(RecipeError, match=message):
            read_queue(path)
