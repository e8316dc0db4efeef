from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import mien.recipe
from mien import weights
from mien.errors import RecipeError
from mien.recipe import RENAMED, Recipe, load_recipe, parse_recipe, read_variants, recipe_hash, recipe_names
from mien.yaml_files import read_yaml

FILES = sorted((Path(mien.recipe.__file__).parent / "recipes").glob("*/*.yaml"))

SWEEP = """
name: mine
summary: a small network
deviations: [of all]
seed: 3
model: {name: sa_csp_ca, arguments: {in_channels: 1, groups: 4}}
data: {corpus: fer2013, train: train, select: public_test}
preprocess: {size: [40, 40], channels: 1, mean: [0.5], std: [0.25]}
augment: {flip: 0.5, mixup: 0.2}
loss: {name: cross_entropy, arguments: {label_smoothing: 0.1}}
optim: {name: sgd, lr: 0.1, momentum: 0.8}
train: {epochs: 2, batch_size: 8}
variants:
  base:
  groups8:
    summary: eight groups
    deviations: [of this one]
    model: {arguments: {groups: 8}}
    optim: {lr: 5e-2}
    distill: {teachers: [runs/a]}
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A file with two variants."""
    path = tmp_path / "my.yaml"
    path.write_text(SWEEP)
    return path


@pytest.mark.parametrize("name", recipe_names())
def test_every_bundled_recipe_is_valid_and_has_its_name(name: str):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.data.select not in ("test", "private_test")
    assert parse_recipe(yaml.safe_load(recipe.to_yaml()), "read again") == recipe


def test_every_recipe_has_one_file_named_after_its_paper_and_a_file_without_variants_after_its_recipe():
    names = []
    for path in FILES:
        variants = read_variants(path)
        names += [values["name"] for values in variants.values()]
        paper = path.parent.name
        expected = [f"{paper}/{path.stem}"] if "" in variants else [f"{paper}/{variant}" for variant in variants]
        assert [values["name"] for values in variants.values()] == expected
    assert sorted(names) == recipe_names()
    assert len(FILES) <= 40


def test_bundled_models_name_recipes_that_can_be_loaded():
    for path in weights.bundled().values():
        assert load_recipe(weights.read_card(path)["recipe"]).name in recipe_names()


@pytest.mark.parametrize(("former", "name"), RENAMED.items())
def test_a_renamed_recipe_is_found_by_its_former_name(former: str, name: str):
    assert former not in recipe_names()
    assert load_recipe(former) == load_recipe(name)


def test_a_variant_changes_keys_of_sections_and_adds_deviations(sweep: Path):
    base, groups8 = load_recipe(f"{sweep}:base"), load_recipe(f"{sweep}:groups8")
    assert (base.name, groups8.name) == ("mine/base", "mine/groups8")
    assert (base.deviations, groups8.deviations) == (["of all"], ["of all", "of this one"])
    changes = {
        "name": "mine/groups8",
        "summary": "eight groups",
        "deviations": ["of all", "of this one"],
        "model": base.to_dict()["model"] | {"arguments": {"groups": 8}},  # whole, without in_channels
        "optim": base.to_dict()["optim"] | {"lr": 0.05},  # momentum stays
        "distill": {"teachers": ["runs/a"], "weight": 0.7, "temperature": 2.0, "once": False, "mirror": False},
    }
    assert groups8.to_dict() == base.to_dict() | changes


def test_a_variant_can_be_overridden_and_stands_alone(sweep: Path, tmp_path: Path):
    recipe = load_recipe(f"{sweep}:groups8", {"optim.lr": 0.3, "model.arguments.groups": 2})
    assert (recipe.optim.lr, recipe.optim.momentum, recipe.model.arguments) == (0.3, 0.8, {"groups": 2})
    (tmp_path / "alone.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "alone.yaml") == recipe
    assert load_recipe(f"{sweep}:groups8").optim.lr == 0.05


def test_a_bundled_recipe_is_not_changed_by_an_override():
    load_recipe("sa_csp_ca/table2-base-g8", {"optim.lr": 9.0, "model.arguments.groups": 2})
    recipe = load_recipe("sa_csp_ca/table2-base-g8")
    assert (recipe.optim.lr, recipe.model.arguments["groups"]) == (0.1, 8)


def test_variants_are_chosen_by_name(sweep: Path):
    with pytest.raises(RecipeError, match=r"my\.yaml: has the variants base, groups8; choose one, such as \S+my\.yaml:base"):
        load_recipe(sweep)
    with pytest.raises(RecipeError, match=r"my\.yaml: unknown variant 'group8'; did you mean 'groups8'\? Known: base, groups8"):
        load_recipe(f"{sweep}:group8")
    with pytest.raises(RecipeError, match=r"my\.yaml:groups8: unknown key optim\.lrr; did you mean 'lr'"):
        load_recipe(f"{sweep}:groups8", {"optim.lrr": 1})
    with pytest.raises(
        RecipeError, match=r"stn_resnet50/ferplus10 has variants.*choose one of stn_resnet50/table1-resnet50-fer"
    ):
        load_recipe("stn_resnet50/ferplus10")
    sweep.write_text(load_recipe(f"{sweep}:base").to_yaml())
    with pytest.raises(RecipeError, match=r"my\.yaml: has no variants, so it has no 'base'"):
        load_recipe(f"{sweep}:base")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("optim: {lr: 5e-2}", "optim: {lrr: 5e-2}", "my.yaml:groups8: unknown key optim.lrr; did you mean 'lr'"),
        ("    optim: {lr: 5e-2}", "    optin: {lr: 5e-2}", "my.yaml:groups8: unknown key optin; did you mean 'optim'"),
        ("  base:", "  0.03:", "my.yaml: variant 0.03: its name is not text; put it in quotes"),
        ("  base:", "  base: [1]", "my.yaml: variant base: is not a mapping of changes (got [1])"),
        ("  base:", "  base: {name: x}", "my.yaml: variant base: leave out name"),
        ("  base:", "  groups8: {}", "the key 'groups8' is given twice"),
        ("optim: {lr: 5e-2}", "optim: {lr: 5e-2, lr: 0.1}", "the key 'lr' is given twice"),
        ("name: mine\n", "", "my.yaml:groups8: name is missing"),
    ],
)
def test_a_mistake_in_a_variant_is_named(sweep: Path, old: str, new: str, message: str):
    assert old in SWEEP
    sweep.write_text(SWEEP.replace(old, new))
    with pytest.raises(RecipeError) as error:
        load_recipe(f"{sweep}:groups8")
    assert message in str(error.value)


@pytest.mark.parametrize("variants", ["[groups8]", "groups8", "{}", ""])
def test_variants_that_are_not_a_mapping_are_refused(sweep: Path, variants: str):
    sweep.write_text(SWEEP.partition("variants:")[0] + f"variants: {variants}")
    with pytest.raises(RecipeError, match=r"my\.yaml: variants is a mapping of names to changes"):
        load_recipe(sweep)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train.epoch": 1}, "unknown key train.epoch; did you mean 'epochs'"),
        ({"sede": 1}, "unknown key sede; did you mean 'seed'"),
        ({"model.nam": "x"}, "unknown key model.nam; did you mean 'name'"),
        ({"paper.tabel": "x"}, "unknown key paper.tabel; did you mean 'table'"),
        ({"optim.lr": -1}, "optim.lr: .*greater than 0"),
        ({"train.epochs": 0}, "train.epochs"),
        ({"optim.schedule": "linear"}, "optim.schedule"),
        ({"seed.x": 1}, "seed is not a section"),
        ({"seed": 2**40}, "seed: .*less than"),
        ({"augment.scale": [1.2, 0.8]}, r"augment\.scale is a range"),
        ({"augment.erase_area": [0.1, 1.5]}, r"augment\.erase_area is a range.* <= 1, got \[0\.1, 1\.5\]"),
        ({"model.arguments.num_classes": 8}, r"model\.arguments\.num_classes is set from the rest"),
        ({"loss.arguments.name": "x"}, r"loss\.arguments\.name is set"),
    ],
)
def test_a_typo_or_bad_value_is_named(overrides: dict, message: str):
    with pytest.raises(RecipeError, match=message):
        load_recipe("sa_csp_ca/fer2013", overrides)


def test_a_missing_key_is_named():
    values = load_recipe("sa_csp_ca/fer2013").to_dict()
    del values["optim"]["lr"]
    with pytest.raises(RecipeError, match=r"optim\.lr is missing"):
        parse_recipe(values, "x.yaml")


def test_files_that_are_not_recipes_are_named(tmp_path):
    with pytest.raises(RecipeError, match="no such recipe file"):
        load_recipe(tmp_path / "missing.yaml")
    with pytest.raises(RecipeError, match="did you mean 'sa_csp_ca/fer2013'"):
        load_recipe("sa_csp_ca/fer2031")
    for text in ("- a list", "key: [unclosed", "\x00"):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(RecipeError, match=r"bad\.yaml"):
            load_recipe(tmp_path / "bad.yaml")


def test_a_recipe_is_complete_in_its_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(load_recipe("sa_csp_ca/fer2013", {"seed": 5}).to_yaml())
    assert load_recipe(path).seed == 5


def test_a_section_a_recipe_leaves_out_can_be_set(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(load_recipe("sa_csp_ca/fer2013").to_yaml())
    assert "distill: null" in path.read_text()
    for name in (path, "sa_csp_ca/fer2013"):
        recipe = load_recipe(name, {"distill.teachers": ["runs/a"], "distill.weight": 0.5})
        assert (recipe.distill.teachers, recipe.distill.weight) == (["runs/a"], 0.5)


def test_numbers_with_an_exponent_are_numbers(tmp_path):
    path = tmp_path / "mine.yaml"
    text = load_recipe("sa_csp_ca/fer2013", {"loss.arguments": {"label_smoothing": 0.25}}).to_yaml()
    path.write_text(text.replace("label_smoothing: 0.25", "label_smoothing: 25e-2"))
    assert load_recipe(path).loss.arguments == {"label_smoothing": 0.25}
    assert read_yaml("[1e3, -5E-4, 1e+2, 1_0e1, e4, 1e, 0x1e4, v1e3, 1.5e3, 3, .5]") == (
        [1000.0, -0.0005, 100.0, 100.0, "e4", "1e", 0x1E4, "v1e3", 1500.0, 3, 0.5]
    )


@given(st.dictionaries(st.text(max_size=8), st.none() | st.integers() | st.text(max_size=5), max_size=4))
def test_any_mapping_is_read_or_refused(values: dict):
    with pytest.raises(RecipeError):
        parse_recipe(values, "x.yaml")


def test_every_key_is_documented():
    for part in [Recipe, *(f.annotation for f in Recipe.model_fields.values() if hasattr(f.annotation, "model_fields"))]:
        if part.__doc__ and "Attributes:" in part.__doc__:
            assert [key for key in part.model_fields if f"{key}:" not in part.__doc__ and part is not Recipe] == []


def test_a_plateau_needs_a_selection_split():
    plateau = {"optim.schedule": "plateau", "optim.warmup_epochs": 0}
    with pytest.raises(RecipeError, match=r"watches the split data\.select"):
        load_recipe("sa_csp_ca/fer2013", plateau | {"data.select": None})
    assert load_recipe("sa_csp_ca/fer2013", plateau).optim.schedule == "plateau"


def test_the_hash_tells_recipes_apart_but_not_seeds_and_texts(sweep: Path):
    recipe = load_recipe(f"{sweep}:base")
    same = {"seed": 8, "summary": "others' words", "deviations": [], "optim.schedule": "cosine"}
    assert recipe_hash(load_recipe(f"{sweep}:base", same)) == recipe_hash(recipe)
    for change in ({"name": "x"}, {"optim.lr": 0.2}, {"model.arguments.groups": 2}, {"data.protocol": {"name": "kfold"}}):
        assert recipe_hash(load_recipe(f"{sweep}:base", change)) != recipe_hash(recipe)


def test_a_field_that_is_added_later_does_not_change_the_hash_of_older_recipes(sweep: Path):
    values = yaml.safe_load(load_recipe(f"{sweep}:base").to_yaml())
    older = {**values, "train": {"epochs": 2, "batch_size": 8}}
    assert len(values["train"]) > len(older["train"])
    assert recipe_hash(parse_recipe(older, "")) == recipe_hash(parse_recipe(values, ""))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 20_000, "nested too deeply"),
        ("{a: " * 20_000, "nested too deeply"),
        ("a: &a [*a]", "more than 100,000 values"),
        (
            "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)),
            "values, perhaps",
        ),
    ],
    ids=["lists", "mappings", "a loop", "a bomb"],
)
def test_yaml_that_is_made_to_exhaust_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(RecipeError, match=rf"r\.yaml: cannot be read as YAML \(.*{why}"):
        load_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize("values", [None, [], 0.001, "text", {1: 2}])
def test_values_that_are_not_a_mapping_of_names_are_refused(values: object) -> None:
    with pytest.raises(RecipeError, match=r"^mine: "):
        parse_recipe(values, "mine")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("preprocess.std", [float("nan")]),
        ("preprocess.mean", [float("inf")]),
        ("preprocess.mean", [0.5] * 2),
        ("optim.lr", 1e400),
        ("model.arguments", {"depth": float("-inf")}),
        ("data.options", {"size": [float("nan")]}),
    ],
)
def test_numbers_that_train_nothing_are_refused_when_the_recipe_is_read(key: str, value: object) -> None:
    with pytest.raises(RecipeError, match=key.split(".")[0]):
        load_recipe("dlib_resnet/fer2013", {key: value})
