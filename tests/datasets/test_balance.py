import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from mien.datasets.balance import class_weights, epoch_order, sampling_weights
from mien.errors import DataError, RecipeError

TARGETS = st.lists(st.integers(0, 6), min_size=1, max_size=200)
FER2013 = [3995, 436, 4097, 7215, 4830, 3171, 4965]
"""Images of each class in FER2013's training split."""


def of_counts(counts: list[int]) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))


@given(TARGETS)
def test_inverse_weights_are_scikit_learns(target: list[int]):
    present = np.unique(target)
    wanted = compute_class_weight("balanced", classes=present, y=np.array(target))
    weights = class_weights(target, 7, "inverse")
    assert weights.dtype == np.float32
    assert np.allclose(weights[present], wanted / wanted.mean())
    assert weights[np.setdiff1d(range(7), present)].sum() == 0


@given(TARGETS, st.sampled_from([0.0, 0.5, 0.99, 0.9999]))
def test_effective_weights_are_the_geometric_sum(target: list[int], beta: float):
    counts = np.bincount(target, minlength=7)
    wanted = np.array([1 / sum(beta**i for i in range(n)) if n else 0.0 for n in counts])  # E_n = 1 + beta + ... + beta**(n-1)
    assert np.allclose(class_weights(target, 7, "effective", beta), wanted / wanted[counts > 0].mean(), rtol=1e-5)


@settings(deadline=None)
@given(TARGETS, st.sampled_from(["inverse", "effective"]), st.randoms(use_true_random=False))
def test_class_weights_follow_the_counts_alone(target: list[int], scheme: str, random: object):
    weights = class_weights(target, 7, scheme)
    counts = np.bincount(target, minlength=7)
    assert weights[counts > 0].mean() == pytest.approx(1, abs=1e-5)
    shuffled = list(target)
    random.shuffle(shuffled)
    assert (class_weights(shuffled, 7, scheme) == weights).all()
    present = np.flatnonzero(counts)
    assert (np.diff(weights[present[np.argsort(counts[present])]]) <= 1e-6).all()  # the rarer, the heavier
    swapped = class_weights(6 - np.array(target), 7, scheme)  # the classes' order says nothing
    assert np.allclose(swapped[::-1], weights)


def test_beta_goes_from_equal_to_inverse():
    target = of_counts(FER2013)
    assert np.allclose(class_weights(target, 7, "effective", 0.0), 1)
    assert np.allclose(class_weights(target, 7, "effective", 1 - 1e-9), class_weights(target, 7, "inverse"), rtol=1e-3)
    ratios = [np.ptp(class_weights(target, 7, "effective", beta)) for beta in (0.9, 0.99, 0.999, 0.9999)]
    assert ratios == sorted(ratios)


@given(TARGETS)
def test_sampling_weights_draw_classes_by_their_scheme(target: list[int]):
    counts = np.bincount(target, minlength=7)
    present = counts > 0
    for scheme, power in (("balanced", 0.0), ("weighted", 0.5)):
        weights = sampling_weights(target, 7, scheme)
        assert weights.sum() == pytest.approx(1)
        mass = np.bincount(target, weights, minlength=7)
        wanted = np.where(present, counts.astype(float) ** power, 0)
        assert np.allclose(mass, wanted / wanted.sum())


@given(TARGETS, st.sampled_from(["balanced", "weighted"]), st.integers(0, 2**63))
def test_an_epoch_draws_every_row_and_class_its_share(target: list[int], scheme: str, seed: int):
    weights = sampling_weights(target, 7, scheme)
    order = epoch_order(target, weights, seed)
    assert order.dtype == np.int64
    assert order.shape == (len(target),)
    drawn = np.bincount(order, minlength=len(target))
    assert (np.abs(drawn - weights * len(target)) < 1 + 1e-9).all()
    classes = np.bincount(np.array(target)[order], minlength=7)
    assert (np.abs(classes - np.bincount(target, weights, minlength=7) * len(target)) < 1 + 1e-9).all()


@given(TARGETS, st.integers(0, 2**63))
def test_equal_weights_give_every_row_once(target: list[int], seed: int):
    assert sorted(epoch_order(target, None, seed)) == list(range(len(target)))
    assert sorted(epoch_order(target, np.full(len(target), 0.3), seed)) == list(range(len(target)))


@given(st.lists(st.sampled_from([0.0, 0.0, 1e-12, 1.0, 3.0]), min_size=1, max_size=60).filter(any), st.integers(0, 2**63))
def test_a_row_of_weight_zero_is_never_drawn(weights: list[float], seed: int):
    order = epoch_order([i % 3 for i in range(len(weights))], weights, seed)
    assert (np.array(weights)[order] > 0).all()


def test_an_epoch_of_fer2013_is_balanced_and_mixed():
    target = of_counts(FER2013)
    weights = sampling_weights(target, 7, "balanced")
    order = epoch_order(target, weights, (0, 1))
    assert np.ptp(np.bincount(target[order])) <= 1
    batches = target[order][:28_672].reshape(-1, 512)
    shares = np.array([np.bincount(batch, minlength=7) for batch in batches]) / 512
    assert 0.05 < shares.min() < shares.max() < 0.25  # the classes are not seen one after another
    assert len(np.unique(order[target[order] == 3])) == (target[order] == 3).sum()  # happy has enough rows for no repetition
    seen = np.unique(np.concatenate([epoch_order(target, weights, (0, epoch)) for epoch in range(1, 13)]))
    assert len(seen) > 0.98 * len(target)


def test_the_seed_alone_decides():
    target = of_counts([30, 5, 60])
    weights = sampling_weights(target, 3, "weighted")
    for given_weights in (None, weights):
        np.random.seed(1)  # noqa: NPY002 (the state that must not matter)
        first = epoch_order(target, given_weights, (3, 1))
        np.random.seed(2)  # noqa: NPY002
        assert (epoch_order(target, given_weights, (3, 1)) == first).all()
        assert (epoch_order(target, given_weights, (3, 2)) != first).any()
        assert (epoch_order(target, given_weights, (4, 1)) != first).any()


def test_rows_are_drawn_as_often_as_independent_draws_on_average():
    target = np.array([0] * 8 + [1] * 2)
    weights = sampling_weights(target, 2, "weighted")
    drawn = sum(np.bincount(epoch_order(target, weights, seed), minlength=10) for seed in range(4000)) / 4000
    assert np.allclose(drawn, 10 * weights, atol=0.05)


def test_what_cannot_be_balanced_is_refused():
    for call in (class_weights, lambda target, classes: sampling_weights(target, classes, "balanced")):
        with pytest.raises(DataError, match="the training split is empty"):
            call([], 7)
        with pytest.raises(DataError, match="targets are 0 to 7, outside the 7 classes"):
            call([0, 7], 7)
        with pytest.raises(DataError, match="targets are -1 to 3"):
            call([-1, 3], 7)
    with pytest.raises(RecipeError, match="unknown scheme 'invers'; did you mean 'inverse'"):
        class_weights([0, 1], 2, "invers")
    with pytest.raises(RecipeError, match="unknown scheme 'balance'; did you mean 'balanced'"):
        sampling_weights([0, 1], 2, "balance")
    for beta in (1.0, -0.1, float("nan")):
        with pytest.raises(RecipeError, match="from 0 to below 1"):
            class_weights([0, 1], 2, "effective", beta)
    for weights in ([1.0], [0.0, 0.0], [1.0, -1.0], [1.0, float("nan")]):
        with pytest.raises(DataError, match="2 finite numbers"):
            epoch_order([0, 1], weights, 0)


def test_torch_and_scikit_learn_are_not_loaded_before_they_are_needed():
    code = "import sys, mien.datasets; print(sorted({'torch', 'sklearn'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
