"""A random forest on frozen features: what do splits on single features give?"""

from __future__ import annotations

import functools
import zipfile
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from harness.errors import UsageError
from harness.methods._frozen import FittedOnFeatures, FrozenFeatures
from harness.methods.base import Bench, Choice, Fitted, SearchSpace, method
from harness.tasks.base import Floats, Ints, Rows

_TRUSTED = ["sklearn.tree._tree.Tree"]
"""What skops does not load unless it is named: scikit-learn follows a tree's node numbers without checking them, so
they are checked here (`_check_trees`)."""


@method
class RandomForestProbe(FrozenFeatures):
    """A random forest on the frozen backbone's pooled vector.

    `n_trainable` is the number of nodes of all trees: each holds a threshold or, at a leaf, shares of classes.
    Operations of a fit beyond encoding are the comparisons of growing the trees: a node that is split sorts its rows
    by each of the features it tries.

    Attributes:
        n_trees: in the forest.
        max_features: share of the features that a split may choose from; None is the square root of their number.
        min_samples_leaf: rows of a leaf, at least.
        max_depth: of a tree; None grows it until its leaves are pure.
    """

    name = "random-forest-probe"
    family = "frozen features"
    trains = "a random forest on pooled features"
    source = "Breiman, 2001, doi:10.1023/A:1010933404324; scikit-learn"
    search_space: ClassVar[SearchSpace] = {"min_samples_leaf": Choice((1, 2, 5)), "max_features": Choice((None, 0.2))}

    n_trees: int = Field(default=200, ge=1)
    max_features: float | None = Field(default=None, gt=0, le=1)
    min_samples_leaf: int = Field(default=1, ge=1)
    max_depth: int | None = Field(default=None, ge=1)

    def warm_up(self) -> None:
        """Import scikit-learn and skops, grow a forest and write it."""
        some = np.array([[0.0], [1.0]], dtype=np.float32)
        _dump(self._grow(some, np.array([0, 1]), n_trees=2, seed=0, n_threads=2))

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Encode, and grow the trees; cannot be interrupted."""
        features = self.features(rows, bench, "encode")
        with bench.working("fit"):
            forest = self._grow(
                features, rows.known_labels, self.n_trees, bench.seeded("forest") % 2**32, bench.device.threads
            )
        bench.ledger.train_flops += _comparisons(forest)
        return _Forest(self, bench, forest)

    def restore(self, tensors: dict[str, npt.NDArray[Any]], state: dict[str, Any], bench: Bench) -> Fitted:
        """From the saved trees.

        Raises:
            UsageError: they are not a forest for these features and classes, or they are damaged.
        """
        return _Forest(self, bench, _load(tensors["forest"], bench.some_backbone.hidden_size, bench.n_outputs))

    def _grow(self, features: Floats, labels: Ints, n_trees: int, seed: int, n_threads: int) -> Any:
        from sklearn.ensemble import RandomForestClassifier

        forest = RandomForestClassifier(
            n_estimators=n_trees,
            max_features=self.max_features or "sqrt",
            min_samples_leaf=self.min_samples_leaf,
            max_depth=self.max_depth,
            random_state=seed,
            n_jobs=n_threads,  # each tree has a seed of its own: the forest does not depend on it
        ).fit(features, labels)
        return forest.set_params(n_jobs=1)  # threads would add up the trees' votes in any order


class _Forest(FittedOnFeatures):
    def __init__(self, method: RandomForestProbe, bench: Bench, forest: Any) -> None:
        super().__init__(method, bench, sum(tree.tree_.node_count for tree in forest.estimators_))
        self._forest = forest

    def probabilities(self, features: Floats, bench: Bench) -> Floats:
        spread = np.zeros((len(features), bench.n_outputs), dtype=np.float32)
        spread[:, self._forest.classes_] = self._forest.predict_proba(features)
        return spread

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        return {"forest": self._dumped}

    @functools.cached_property
    def _dumped(self) -> npt.NDArray[np.uint8]:
        """Once: skops numbers objects by their addresses, so that another time it is other bytes."""
        return _dump(self._forest)


def _dump(forest: Any) -> npt.NDArray[np.uint8]:
    import skops.io

    written = skops.io.dumps(forest, compression=zipfile.ZIP_DEFLATED)
    return np.frombuffer(written, dtype=np.uint8)


def _load(written: npt.NDArray[np.uint8], width: int, n_classes: int) -> Any:
    import skops.io
    from sklearn.ensemble import RandomForestClassifier
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        forest = skops.io.loads(written.tobytes(), trusted=_TRUSTED)
    except (UntrustedTypesFoundException, zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise UsageError(f"The saved forest cannot be read: {str(error).splitlines()[0]} Fit it again.") from error
    if not isinstance(forest, RandomForestClassifier):
        raise UsageError(f"A saved RandomForestClassifier was expected; this is a {type(forest).__name__}.")
    _check_trees(forest, width, n_classes)
    return forest


def _check_trees(forest: Any, width: int, n_classes: int) -> None:
    """Every node number must point further into its tree and every feature must exist: else predicting could crash."""
    classes = np.asarray(forest.classes_)
    sound = bool(forest.n_features_in_ == width and classes.min() >= 0 and classes.max() < n_classes)
    for estimator in forest.estimators_:
        tree = estimator.tree_
        inner = tree.children_left != -1
        positions = np.arange(tree.node_count)
        for children in (tree.children_left, tree.children_right):
            sound = sound and bool(((children > positions) & (children < tree.node_count) | ~inner).all())
        sound = sound and bool(((tree.feature >= 0) & (tree.feature < width) | ~inner).all())
        sound = sound and tree.value.shape == (tree.node_count, 1, len(classes))
    if not sound:
        raise UsageError(f"The saved forest is damaged, or not for {width} features and {n_classes} classes.")


def _comparisons(forest: Any) -> float:
    """Of growing the trees: n * log2(n) for each feature that a split tried on its n rows."""
    total = 0.0
    for estimator in forest.estimators_:
        tree = estimator.tree_
        split = tree.n_node_samples[tree.children_left != -1].astype(np.float64)
        total += estimator.max_features_ * float((split * np.log2(split)).sum())
    return total
