"""The common base of the scikit-learn estimators: parameters, checks, and the compiled fit."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from mtljax.convex.fit import Fit, fit
from mtljax.convex.losses import Loss
from mtljax.convex.problem import TaskRows, columns, pad
from mtljax.penalties.common import Penalty
from mtljax.penalties.trace_norm import trace_norm


class LinearMultiTask:
    """The common base of the estimators. It imports scikit-learn only inside the functions that need it."""

    loss: Loss

    def __init__(
        self,
        penalty: Callable[[Any], Penalty] = trace_norm,
        *,
        strength: Any = 1.0,
        fit_intercept: bool = True,
        average: bool = False,
        tol: float | None = None,
        max_iter: int = 5000,
    ):
        self.penalty = penalty
        self.strength = strength
        self.fit_intercept = fit_intercept
        self.average = average
        self.tol = tol
        self.max_iter = max_iter

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name, as scikit-learn requires; no parameter is an estimator, so `deep` has no effect."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name.

        Raises:
            ValueError: there is no such parameter.
        """
        known = list(inspect.signature(type(self)).parameters)
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"Invalid parameter {name!r} for estimator {self}. Valid parameters are: {known!r}.")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self)).parameters
        given = {name: value for name, value in self.get_params().items() if value is not defaults[name].default}
        shown = (f"{name}={getattr(value, '__name__', repr(value))}" for name, value in given.items())
        return f"{type(self).__name__}({', '.join(shown)})"

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "coef_")

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(
            estimator_type=None, target_tags=TargetTags(required=True, multi_output=True), input_tags=InputTags()
        )

    def fit_labels(self, x: np.ndarray, y: np.ndarray, tasks: ArrayLike | None) -> None:
        """Fit the model to labels `y` `[n]` or `[n, T]`; NaN is a missing label."""
        self._several = y.ndim == 2
        if tasks is None:
            # An attribute of an earlier fit with tasks.
            self.__dict__.pop("tasks_", None)
            rows = columns(x, y if self._several else y[:, None])
        else:
            ids = checked_tasks(tasks, len(x))
            if self._several:
                raise ValueError(f"with tasks, y must have shape (n,), found {y.shape}")
            self.tasks_ = np.unique(ids)
            labeled = ~np.isnan(y)
            chosen = [(ids == task) & labeled for task in self.tasks_]
            rows = pad([x[rows] for rows in chosen], [y[rows] for rows in chosen])
        self.penalty(self.strength)  # checks the strength here, since the compiled fit gets it traced
        found = _compiled(
            rows,
            jax.tree.map(jnp.asarray, self.strength),
            self.tol,
            make_penalty=self.penalty,
            loss=self.loss,
            intercept=self.fit_intercept,
            average=self.average,
            max_iterations=self.max_iter,
        )
        one = tasks is None and not self._several
        self.coef_ = np.asarray(found.weights)[0 if one else slice(None)]
        self.intercept_ = np.asarray(found.intercepts)[0 if one else slice(None)]
        self.n_iter_ = int(found.iterations)
        self.objective_ = float(found.objective)
        self.certificate_ = float(found.certificate)
        if not found.converged:
            from sklearn.exceptions import ConvergenceWarning

            warnings.warn(
                f"{type(self).__name__}: after {self.n_iter_} iterations the relative error of the objective may be "
                f"{self.certificate_:.1e}, which is more than tol; raise max_iter or tol, enable float64 in JAX, or "
                f"scale the features",
                ConvergenceWarning,
                stacklevel=3,
            )

    def linear_outputs(self, inputs: ArrayLike, tasks: ArrayLike | None) -> np.ndarray:
        """Linear outputs: `[n]`, or `[n, T]` if the targets have several columns."""
        from sklearn.utils.validation import check_is_fitted, validate_data

        check_is_fitted(self)
        x = np.asarray(
            validate_data(self, inputs, reset=False, dtype=[np.float64, np.float32])  # pyright: ignore[reportArgumentType]
        )
        if not hasattr(self, "tasks_"):
            if tasks is not None:
                raise ValueError("the model was fitted without tasks, so it cannot predict with them")
            return x @ self.coef_.T + self.intercept_
        if tasks is None:
            raise ValueError("the model was fitted with tasks, so predictions need the tasks of their rows, found none")
        ids = checked_tasks(tasks, len(x))
        places = np.minimum(np.searchsorted(self.tasks_, ids), len(self.tasks_) - 1)
        unknown = ids[self.tasks_[places] != ids]
        if unknown.size:
            raise ValueError(f"the model was fitted without rows of task {unknown.tolist()[0]!r}")
        return np.sum(x * self.coef_[places], axis=1) + self.intercept_[places]


@functools.partial(jax.jit, static_argnames=("make_penalty", "loss", "intercept", "average", "max_iterations"))
def _compiled(
    rows: TaskRows,
    strength: Any,
    tolerance: float | None,
    *,
    make_penalty: Callable[[Any], Penalty],
    loss: Loss,
    intercept: bool,
    average: bool,
    max_iterations: int,
) -> Fit:
    """`fit`, compiled here, since the caller of an estimator cannot compile it."""
    return fit(
        rows,
        make_penalty(strength),
        loss=loss,
        intercept=intercept,
        average=average,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )


def checked_targets(x: np.ndarray, y: ArrayLike, *, numeric: bool = True) -> np.ndarray:
    """The targets as an array `[n]` or `[n, T]`, of a floating type if `numeric`.

    Args:
        x: `[n, ...]`.
        y: the targets; NaN is a missing label.
        numeric: whether they must be numbers.

    Returns:
        The array.

    Raises:
        ValueError: targets are None, infinite or all NaN, or have another length or shape.
    """
    from sklearn.utils.validation import check_array, check_consistent_length

    if y is None:
        raise ValueError("This estimator requires y to be passed, but the target y is None")
    dtype: Any = [np.float64, np.float32] if numeric else None
    targets = np.asarray(check_array(y, ensure_2d=False, dtype=dtype, ensure_all_finite=False, input_name="y"))
    if targets.ndim not in (1, 2):
        raise ValueError(f"y must have shape (n,) or (n, T), found {targets.shape}")
    if targets.dtype.kind == "f":
        if np.any(np.isinf(targets)):
            raise ValueError("Input y contains infinity or a value too large for dtype('float64').")
        if np.all(np.isnan(targets)):
            raise ValueError("Input y contains only NaN, so there are no labels")
    check_consistent_length(x, targets)
    return targets


def checked_tasks(tasks: ArrayLike, length: int) -> np.ndarray:
    """The task of each row as an array `[n]`; raises ValueError for another shape."""
    ids = np.asarray(tasks)
    if ids.shape != (length,):
        raise ValueError(f"tasks must have shape ({length},), one per row, found {ids.shape}")
    return ids
