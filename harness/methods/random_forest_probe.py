"""Random forest on frozen features, to measure the value of splits on single features."""

from __future__ import annotations

import functools
import io
import zipfile
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from harness.methods._frozen import FittedOnFeatures, FrozenFeatures
from harness.methods.base import Choice, Fitted, SearchSpace, method
from harness.methods.bench import Bench
from harness.methods.restoring import AGAIN, Expected, check_tensors
from harness.support import UsageError
from harness.tasks import Floats, Ints, Rows

_TRUSTED = ["sklearn.tree._tree.Tree"]
"""Types that skops loads only if named. scikit-learn follows a tree's node numbers without checks, so `_is_sound`
checks them."""

_MOST_UNPACKED = 200
"""Maximum ratio of the unpacked to the packed size of a forest; a higher one is refused as damage."""


@method
class RandomForestProbe(FrozenFeatures):
    """Fit a random forest on the frozen backbone's pooled vector.

    Each of T trees grows on a bootstrap sample of the encoded rows and tries a random part of the features at a split.
    The forest averages the shares of classes in the leaves that a vector z falls into:

        p(c) = (1 / T) * sum over trees of  share of c in leaf(z)

    `n_trainable` is the number of nodes of all trees: each holds a threshold or, at a leaf, shares of classes.
    Operations of a fit beyond encoding are the comparisons of growing the trees: splitting a node sorts its rows by
    each feature tried. The forest is saved in skops' format, and every tree is checked when it is read.

    Attributes:
        n_trees: number of trees.
        max_features: share of the features that a split may choose from; None is the square root of their number.
        min_samples_leaf: minimum number of rows in a leaf.
        max_depth: maximum depth of a tree; None grows it until its leaves are pure.
    """

    name = "random-forest-probe"
    family = "frozen features"
    trains = "a random forest on pooled features"
    source = "Breiman, 2001, doi:10.1023/A:1010933404324; scikit-learn"
    probabilities_are = "mean shares of the classes in the leaves of its trees"
    search_space: ClassVar[SearchSpace] = {"min_samples_leaf": Choice((1, 2, 5)), "max_features": Choice((None, 0.2))}

    n_trees: int = Field(default=200, ge=1)
    max_features: float | None = Field(default=None, gt=0, le=1)
    min_samples_leaf: int = Field(default=1, ge=1)
    max_depth: int | None = Field(default=None, ge=1)

    def warm_up(self) -> None:
        """Import scikit-learn and skops, grow a small forest and serialise it."""
        some = np.array([[0.0], [1.0]], dtype=np.float32)
        _dump(self._grow(some, np.array([0, 1]), n_trees=2, seed=0, n_threads=2))

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Encode the rows and grow the trees; the growing cannot be interrupted."""
        features = self.features(rows, bench, "encode")
        with bench.working("fit"):
            forest = self._grow(
                features, rows.known_labels, self.n_trees, bench.seeded("forest") % 2**32, bench.device.threads
            )
        bench.ledger.train_flops += _comparisons(forest)
        return _Forest(self, bench, forest)

    def restore(self, tensors: dict[str, npt.NDArray[Any]], state: dict[str, Any], bench: Bench) -> Fitted:
        """Return a predictor from the saved trees.

        Raises:
            UsageError: they are not a forest for these features and classes, or they are damaged.
        """
        check_tensors(tensors, {"forest": Expected((None,), "uint8")})
        forest = _load(tensors["forest"], self.n_trees, bench.some_backbone.hidden_size, bench.n_outputs)
        fitted = _Forest(self, bench, forest)
        fitted._dumped = tensors["forest"]  # serialised again, the bytes would differ
        return fitted

    def _grow(self, features: Floats, labels: Ints, n_trees: int, seed: int, n_threads: int) -> Any:
        from sklearn.ensemble import RandomForestClassifier

        forest = RandomForestClassifier(
            n_estimators=n_trees,
            max_features=self.max_features or "sqrt",
            min_samples_leaf=self.min_samples_leaf,
            max_depth=self.max_depth,
            random_state=seed,
            n_jobs=n_threads,  # each tree has its own seed, so the forest does not depend on the threads
        ).fit(features, labels)
        return forest.set_params(n_jobs=1)  # several threads would sum the trees' votes in varying order


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
        """The serialised forest, cached: skops numbers objects by address, so the bytes vary between calls."""
        return _dump(self._forest)


def _dump(forest: Any) -> npt.NDArray[np.uint8]:
    import skops.io

    written = skops.io.dumps(forest, compression=zipfile.ZIP_DEFLATED)
    return np.frombuffer(written, dtype=np.uint8)


def _load(written: npt.NDArray[np.uint8], n_trees: int, width: int, n_classes: int) -> Any:
    import skops.io
    from sklearn.ensemble import RandomForestClassifier

    try:
        with zipfile.ZipFile(io.BytesIO(written.tobytes())) as packed:
            n_bytes = sum(member.file_size for member in packed.infolist())
        if n_bytes > _MOST_UNPACKED * max(len(written), 2**16):
            raise UsageError(f"The saved forest claims {n_bytes:,} bytes, unpacked from {len(written):,}. {AGAIN}")
        forest = skops.io.loads(written.tobytes(), trusted=_TRUSTED)
        if type(forest) is not RandomForestClassifier:
            raise UsageError(f"A saved RandomForestClassifier was expected; this is a {type(forest).__name__}. {AGAIN}")
        sound = _is_sound(forest, n_trees, width, n_classes)
    except UsageError:
        raise
    except Exception as error:  # a damaged file can raise anything in skops and scikit-learn
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(f"The saved forest cannot be read: {first} Fit it again.") from error
    if not sound:
        raise UsageError(
            f"The saved forest is damaged, or not of {n_trees} trees for {width} features and {n_classes} classes."
        )
    return forest


def _is_sound(forest: Any, n_trees: int, width: int, n_classes: int) -> bool:
    """Return whether every node number points further into its tree and every feature exists.

    Predicting with a damaged tree could read foreign memory or never end.
    """
    from sklearn.tree import DecisionTreeClassifier

    classes = np.asarray(forest.classes_)
    if not (
        np.issubdtype(classes.dtype, np.integer)
        and len(classes) > 0
        and (np.diff(classes) > 0).all()
        and classes[0] >= 0
        and classes[-1] < n_classes
        and (forest.n_features_in_, forest.n_outputs_, forest.n_classes_) == (width, 1, len(classes))
        and len(forest.estimators_) == n_trees
    ):
        return False
    for estimator in forest.estimators_:
        if type(estimator) is not DecisionTreeClassifier:
            return False
        tree = estimator.tree_
        if (estimator.n_outputs_, tree.n_outputs, tree.n_features) != (1, 1, width):
            return False
        inner = tree.children_left != -1
        positions = np.arange(tree.node_count)
        for children in (tree.children_left, tree.children_right):
            if not ((children > positions) & (children < tree.node_count) | ~inner).all():
                return False
        if not ((tree.feature >= 0) & (tree.feature < width) | ~inner).all():
            return False
        if tree.value.shape != (tree.node_count, 1, len(classes)) or not np.isfinite(tree.value).all():
            return False
    return True


def _comparisons(forest: Any) -> float:
    """Return the comparisons of growing the trees: n * log2(n) for each feature that a split tried on its n rows."""
    total = 0.0
    for estimator in forest.estimators_:
        tree = estimator.tree_
        split = tree.n_node_samples[tree.children_left != -1].astype(np.float64)
        total += estimator.max_features_ * float((split * np.log2(split)).sum())
    return total
