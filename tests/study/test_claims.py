import functools
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mien.errors import DataError
from mien.recipe import load_recipe, recipe_names
from mien.study.claims import Claims, read_claims

ROOT = Path(__file__).parents[2]
CLAIMS = ROOT / "results/claims.yaml"
RECIPE = "sa_csp_ca/table2-base"


@functools.cache
def claims() -> Claims:
    return read_claims(CLAIMS)


def changed(tmp_path: Path, change) -> Path:
    """Write claims.yaml with a change made to its values."""
    values = yaml.safe_load(CLAIMS.read_text())
    change(values["papers"])
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return tmp_path / "claims.yaml"


# claims.yaml -------------------------------------------------------------------------------------------------------------


def test_every_recipe_of_a_paper_has_a_row():
    named = {name for _, cell in claims().cells() for name in cell.recipes}
    assert {name for name in recipe_names() if load_recipe(name).paper is not None} == named


def test_recipes_report_what_the_claims_report():
    printed: dict[str, set[tuple[str, float]]] = {}
    for corpus, cell in claims().cells():
        for name in cell.recipes:
            printed.setdefault(name, set())
            for key, value in ((corpus, cell.reported), (f"{corpus}_train", cell.training)):
                if value is not None:
                    printed[name].add((key, value))
    for name, values in printed.items():
        recipe = load_recipe(name)
        assert set(recipe.paper.reported.items()) <= values, name
        assert {key for key, _ in values if not key.endswith("_train")} <= set(recipe.paper.reported), name


def test_the_papers_have_the_titles_of_the_recipes():
    for paper in claims().papers.values():
        recipes = {
            name for table in paper.tables.values() for row in table.rows.values() for c in row.values() for name in c.recipes
        }
        assert {load_recipe(name).paper.title for name in recipes} == {paper.title}


def test_no_torch():
    code = "import sys, mien.study.claims as c; c.read_claims(c.Path(sys.argv[1])); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(CLAIMS)], timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ({"reportd": 71.0}, "sa_csp_ca > tables > Table 2 > rows > Base > fer2013 > reportd: Extra inputs"),
        ({"reported": 171.0}, "Base > fer2013 > reported: Input should be less than or equal to 100"),
        ({"reported": "71 %"}, "Base > fer2013 > reported: Input should be a valid number"),
        ({}, "Base > fer2013: a cell needs a reported figure, recipes or both"),
        ({"recipes": ["sa_csp_ca/table2-bas"]}, "unknown recipe 'sa_csp_ca/table2-bas'; did you mean 'sa_csp_ca/table2-base'?"),
        ({"recipes": ["sa_csp_ca/fer2013-distilled"]}, "the recipe sa_csp_ca/fer2013-distilled stands for no row of a paper"),
        ({"reported": 1.0, "not_run": "tired"}, "Base > fer2013 > not_run: Input should be 'yet', 'gpu' or 'licensed'"),
        ({"reported": 1.0, "other_training": True}, "other_training needs recipes"),
    ],
)
def test_a_wrong_cell_is_named(tmp_path, cell, words):
    path = changed(tmp_path, lambda papers: papers["sa_csp_ca"]["tables"]["Table 2"]["rows"]["Base"].update(fer2013=cell))
    with pytest.raises(DataError) as error:
        read_claims(path)
    assert words in str(error.value)


def test_a_short_row_of_numbers_is_named(tmp_path):
    path = changed(
        tmp_path, lambda papers: papers["resemotenet"]["numbers"]["Table I"]["rows"].update({"Total samples": [1, 2]})
    )
    with pytest.raises(DataError, match=r"Table I: row 'Total samples' has 2 numbers for 3 columns"):
        read_claims(path)


def test_a_row_given_twice_is_refused(tmp_path):
    (tmp_path / "claims.yaml").write_text("papers: {}\npapers: {}\n")
    with pytest.raises(DataError, match="'papers' is given twice"):
        read_claims(tmp_path / "claims.yaml")
    with pytest.raises(DataError, match="cannot be read"):
        read_claims(tmp_path / "none.yaml")


# What the contradictions say, computed again -----------------------------------------------------------------------------


def reported(network: str, table: str, row: str, corpus: str) -> float:
    value = claims().papers[network].tables[table].rows[row][corpus].reported
    assert value is not None
    return value


def fits(percent: float, images: int) -> bool:
    """Return whether a whole number of images gives this accuracy, rounded to two decimals."""
    near = round(percent * images / 100)
    return any(abs(100 * k / images - percent) <= 0.005 + 1e-9 for k in (near - 1, near, near + 1))


def test_resemotenets_counts():
    numbers = claims().papers["resemotenet"].numbers
    fer2013, others = numbers["Table II, FER2013"], numbers["Table II, RAF-DB and AffectNet"]
    for table in (fer2013, others):
        assert [sum(column) for column in zip(*table.rows.values(), strict=True)] == table.total
    total, (train, test) = numbers["Table I"].rows["Total samples"], fer2013.total
    assert total[0] - train - test == 3589
    assert total[1:] == [sum(others.total[:2]), sum(others.total[2:])]
    audit = json.loads((ROOT / "results/audit/fer2013.json").read_text())["statistics"]
    true = dict(zip(audit["classes"], audit["counts"], strict=True))
    assert all(true[name.lower()][0] == row[0] for name, row in fer2013.rows.items())
    wrong = [name for name, row in fer2013.rows.items() if true[name.lower()][2] != row[1]]
    assert wrong == ["Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise"]
    assert sorted(row[1] for row in fer2013.rows.values()) == sorted(counts[2] for counts in true.values())
    assert true["sad"][0] == 4830
    assert true["disgust"][0] == 436  # vgg16_gcca, section 3.5


def test_accuracies_that_no_number_of_images_gives():
    table = functools.partial(reported, "resemotenet", "Table III", "Proposed ResEmoteNet")
    test = claims().papers["resemotenet"].numbers["Table II, RAF-DB and AffectNet"].total
    assert (test[1], test[3]) == (3068, 3500)
    assert not fits(table("rafdb"), 3068)
    assert not fits(table("affectnet7"), 3500)
    assert not fits(table("fer2013"), 3589)
    assert [round(100 * k / n, 2) for k, n in ((2907, 3068), (2908, 3068), (2552, 3500), (2553, 3500), (2864, 3589))] == [
        94.75, 94.78, 72.91, 72.94, 79.80,
    ]  # fmt: skip
    assert math.floor(100 * 100 * 2864 / 3589) / 100 == table("fer2013")

    ours = reported("resnet50_cbam_erf", "Table 2", "Ours", "ckplus")
    assert not fits(ours, 981)
    assert [n for n in range(10, 300) if fits(ours, n)] == list(range(33, 300, 33))
    assert [round(100 * k / 9) for k in (3, 8, 1)] == [33, 89, 11]

    base = [row["fer2013"].reported for row in claims().papers["sa_csp_ca"].tables["Table 2"].rows.values()]
    assert [value for value in base if not fits(value, 3589)] == [69.23]
    chance = 71 / 200  # two decimals, steps of 1/3589: about this share of values fits
    assert 7 * chance**6 * (1 - chance) + chance**7 == pytest.approx(0.01, abs=0.001)
    assert max(base[:5]) - min(base[:5]) == pytest.approx(1.07)

    ckplus = reported("sa_csp_ca", "Table 3", "Ours", "ckplus")
    assert not fits(ckplus, 981)
    assert not fits(ckplus, 927)
    assert [n for n in range(10, 580) if fits(ckplus, n)] == list(range(290, 299))
    for images in (981, 927):  # the mean of ten folds; errors of the larger folds and of the others
        small, larger = divmod(images, 10)
        means = [100 - 10 * (a / (small + 1) + b / small) for a in range(10) for b in range(10) if larger or not a]
        assert not [mean for mean in means if abs(mean - ckplus) <= 0.005]


def test_what_the_baseline_of_resnet50_cbam_erf_would_have():
    rows = claims().papers["resnet50_cbam_erf"].tables["Table 1"].rows
    ours = rows["Ours"]["fer2013"].reported
    assert round(ours - 12.7, 2) == 60.75
    assert round(ours / 1.127, 2) == 65.17
    assert min(row["fer2013"].reported for row in rows.values()) > ours / 1.127


def test_rates_of_stn_resnet50_bound_its_accuracy():
    """With share p of a class, errors are p (1 - TPR) and at least (1 - p) FPR."""
    bounds = [100 * (1 - share * (1 - 0.814) - (1 - share) * 0.253) for share in (0, 0.36, 0.5, 1)]
    assert max(bounds) == pytest.approx(81.4)
    audit = json.loads((ROOT / "results/audit/fer2013.json").read_text())["statistics"]
    happy = sum(audit["counts"][audit["classes"].index("happy")]) / 35887
    assert 100 * (1 - happy * (1 - 0.83) - (1 - happy) * 0.2267) == pytest.approx(78.8, abs=0.05)
    table4 = claims().papers["stn_resnet50"].tables["Table IV"].rows
    assert min(row["ferplus10_random_split"].reported for row in table4.values()) == pytest.approx(82.40, abs=0.005)
    assert max(row["fer2013_random_split"].reported for row in table4.values()) == pytest.approx(79.59, abs=0.005)


def test_figures_of_stn_resnet50():
    tables = claims().papers["stn_resnet50"].tables.values()
    rows = [row for table in tables for row in table.rows.values() if next(iter(row.values())).reported is not None]
    cells = [(row["fer2013_random_split"], row["ferplus10_random_split"]) for row in rows]
    test = {(fer.reported, plus.reported) for fer, plus in cells}
    train = {(fer.training, plus.training) for fer, plus in cells}
    assert (len(test), len(train)) == (12, 12)
    differences = [plus - fer for fer, plus in test | train]
    assert (round(min(differences), 1), round(max(differences), 1)) == (5.1, 5.5)
    assert round(min(fer for fer, _ in train | test), 1) == 24.9
    assert round(max(fer for fer, _ in train | test), 1) == 90.8
    for value in {figure / 100 for pair in test for figure in pair}:
        assert all(abs(round(value * n) / n - value) > 0.6e-6 for n in (7177, 7178)), value
    above = [fer.reported - fer.training for fer, _ in cells if fer.reported > fer.training]
    assert sorted(round(gap, 1) for gap in above) == [9.5, 11.4]
