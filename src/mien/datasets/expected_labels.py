"""FER2013's labels softened by FER+'s votes, which are on the same images.

FER2013's labels are noisy: of PublicTest's, even the best guess from the votes of ten people meets only 67.2 %. What a label
says beyond its expectation given the image is noise, and the votes tell a good part of that expectation: multinomial logistic
regression, fitted on the rows of Training alone, gives P(FER2013's label | votes). Half the label and half this is a target of
the same mean, in FER2013's own habits of labelling (unlike FER+'s labels), with less noise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def soften(counts: NDArray[np.int64], target: NDArray[np.int64], train: NDArray[np.bool_], classes: int) -> NDArray[np.float32]:
    """Return half of each row's own label, as a vector, and half of the label its votes let one expect; float32 (N, K).

    Args:
        counts: Votes, (N, V).
        target: FER2013's label of each row, (N,).
        train: The rows whose labels may be learnt from, of two classes or more, (N,).
        classes: K; what no row of `train` is of is never expected.
    """
    return ((np.eye(classes)[target] + expected_labels(counts, target, train, classes)) / 2).astype(np.float32)


def expected_labels(
    counts: NDArray[np.int64], target: NDArray[np.int64], train: NDArray[np.bool_], classes: int
) -> NDArray[np.float64]:
    """Return P(label | votes) of each row, fitted on `train` alone, (N, K); the arguments are those of `soften`."""
    from sklearn.linear_model import LogisticRegression  # here: it takes a second, and few ask for it

    features = np.concatenate([np.sqrt(counts), counts], axis=1)
    model = LogisticRegression(max_iter=5000).fit(features[train], target[train])
    expected = np.zeros((len(counts), classes))
    expected[:, model.classes_] = model.predict_proba(features)
    return expected
