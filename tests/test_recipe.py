import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mien.errors import RecipeError
from mien.recipe import Recipe, load_recipe, parse_recipe, read_yaml, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_every_bundled_recipe_is_valid_and_named_after_its_file(name: str):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.data.select not in ("test", "private_test")
    assert parse_recipe(yaml.safe_load(recipe.to_yaml()), "again") == recipe


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
        ({"augment.erase_area": [0.1, 1.5]}, r"augment\.erase_area is a range.* at most 1,"),
        ({"model.arguments.num_classes": 8}, r"model\.arguments\.num_classes follows from the rest"),
        ({"loss.arguments.name": "x"}, r"loss\.arguments\.name follows"),
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


def test_files_that_are_no_recipe_are_named(tmp_path):
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
    with pytest.raises(RecipeError, match=r"watches data\.select"):
        load_recipe("sa_csp_ca/fer2013", plateau | {"data.select": None})
    assert load_recipe("sa_csp_ca/fer2013", plateau).optim.schedule == "plateau"
