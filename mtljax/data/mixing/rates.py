"""Rates at which `mix` draws tasks: fixed, a function of the step, or driven by losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from mtljax.checks import check_count, check_number, expect
from mtljax.sharing.frames.network import task_names

Rates = dict[str, float]


class LossDriven(NamedTuple):
    """Rates that follow the losses, as three pure functions; the state is a dict that JSON holds unchanged.

    Attributes:
        init: `init() -> state`, before any loss is known.
        update: `update(state, losses) -> state`; `losses` are floats by name, of the tasks in the batch. A loss that is
            not finite is ignored.
        rates: `rates(state) -> dict` by task, which sum to 1.
    """

    init: Callable[[], dict[str, Any]]
    update: Callable[[dict[str, Any], Mapping[str, float]], dict[str, Any]]
    rates: Callable[[dict[str, Any]], Rates]


def uniform(tasks: Iterable[str]) -> Rates:
    """The same rate for every task, independent of its size.

    Example:
        >>> uniform(["a", "b"])
        {'a': 0.5, 'b': 0.5}
    """
    names = task_names("uniform", tasks)
    return dict.fromkeys(names, 1 / len(names))


def proportional(
    sizes: Mapping[str, float], *, maximum: float | None = None, temperature: float = 1.0, scale: float = 1.0
) -> Rates:
    """Rates in proportion to the tasks' sizes, capped, then flattened by a temperature.

    `r_k = min(scale n_k, K)^(1 / temperature)`, divided by their sum: the cap comes before the temperature. Temperature
    1 keeps the proportions. An infinite temperature, or a cap below every size, makes the rates uniform.

    C. Raffel and others, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", JMLR 21,
    2020, section 3.5.2: K is the "artificial data set size limit" of examples-proportional mixing, and temperature
    scaled mixing has a large K. mT5's `alpha` (L. Xue and others, NAACL 2021) is `1 / temperature`.

    Args:
        sizes: number of examples by task, positive.
        maximum: K, positive; None for no cap.
        temperature: positive, may be infinite.
        scale: multiplies every size, positive and finite; has an effect only with a cap.

    Returns:
        Rates by task, sorted, which sum to 1.

    Raises:
        ValueError: a size, cap, temperature or scale that is not positive (a task without examples would get a rate
            at infinite temperature); a size or scale that is not finite; no tasks.

    Example:
        >>> proportional({"small": 10, "large": 1000}, maximum=30)
        {'large': 0.75, 'small': 0.25}
    """
    expect(isinstance(sizes, Mapping), "proportional", "sizes", "a dict by task name", sizes, TypeError)
    names = task_names("proportional", sizes, what="sizes")
    if maximum is not None:
        check_number("proportional", "maximum", maximum, above=0, finite=False)
    check_number("proportional", "temperature", temperature, above=0, finite=False)
    check_number("proportional", "scale", scale, above=0)
    for name in names:
        check_number("proportional", f"sizes[{name!r}]", sizes[name], above=0)
    # Sizes and cap are divided by the scale, which otherwise cancels.
    capped = {name: min(sizes[name], math.inf if maximum is None else maximum / scale) for name in names}
    largest = max(capped.values())  # so that no power overflows
    return _normalized({name: (capped[name] / largest) ** (1 / temperature) for name in names})


def annealed(
    sizes: Mapping[str, float], *, epochs: int, steps_per_epoch: int, drop: float = 0.8
) -> Callable[[int], Rates]:
    """Rates that go from proportional to nearly uniform during training.

    In epoch e of E, counted from 1, `r_k` is proportional to `n_k^alpha` with `alpha = 1 - drop (e - 1) / (E - 1)`.
    With one epoch alpha is 1. After the last epoch alpha stays as it is.

    A. C. Stickland and I. Murray, "BERT and PALs: Projected Attention Layers for Efficient Adaptation in Multi-Task
    Learning", ICML 2019, section 4.1.

    Args:
        sizes: number of examples by task, positive.
        epochs: E, at least 1.
        steps_per_epoch: steps per epoch, over all tasks; at least 1.
        drop: from 0 to 1; the paper's is .8.

    Returns:
        `rates(step) -> dict` by task, for `mix`.

    Raises:
        ValueError: epochs or steps below 1, drop outside its range, sizes as for `proportional`.

    Example:
        >>> rates = annealed({"a": 1, "b": 3}, epochs=2, steps_per_epoch=100, drop=1.0)
        >>> rates(99), rates(100)
        ({'a': 0.25, 'b': 0.75}, {'a': 0.5, 'b': 0.5})
    """
    check_count("annealed", "epochs", epochs)
    check_count("annealed", "steps_per_epoch", steps_per_epoch)
    check_number("annealed", "drop", drop, least=0, most=1)
    proportional(sizes)  # for its checks

    def rates(step: int) -> Rates:
        epoch = min(step // steps_per_epoch, epochs - 1)
        alpha = 1 - drop * epoch / max(epochs - 1, 1)
        return proportional(sizes, temperature=math.inf if alpha <= 0 else 1 / alpha)

    return rates


def loss_driven(tasks: Iterable[str], *, decay: float = 0.9, power: float = 1.0, floor: float = 0.1) -> LossDriven:
    """Rates that favour the tasks whose losses have fallen least.

    `q_k = (m_k / L_k(first))^power`, with m_k an exponential average of the task's losses, and
    `r_k = floor / T + (1 - floor) q_k / sum_j q_j`. The ratio to the first loss does not depend on the unit of the
    loss. A task that was not drawn yet has ratio 1. A first loss that is not positive is ignored. Ratios are clipped
    to 1e-12 and 1e12, so m_k may be negative.

    The ratio is the inverse training rate of GradNorm (Z. Chen and others, ICML 2018). GradNorm weighs tasks by it;
    here it decides how often a task is drawn.

    Args:
        tasks: names.
        decay: of the average, from 0 (only the last loss) to below 1.
        power: how strongly rates follow the ratios, finite; 0 is uniform, a negative power favours the tasks that
            learn fastest.
        floor: share of the rates that is divided equally, from 0 to 1, so that every task is drawn.

    Returns:
        `LossDriven`.

    Raises:
        ValueError: decay, power or floor outside its range, no tasks; from update, a loss of an unknown task.

    Example:
        >>> driven = loss_driven(["a", "b"], decay=0.0, floor=0.0)
        >>> state = driven.update(driven.init(), {"a": 4.0, "b": 8.0})
        >>> driven.rates(driven.update(state, {"a": 3.0, "b": 2.0}))
        {'a': 0.75, 'b': 0.25}
    """
    names = task_names("loss_driven", tasks)
    check_number("loss_driven", "decay", decay, least=0, below=1)
    check_number("loss_driven", "floor", floor, least=0, most=1)
    check_number("loss_driven", "power", power)

    def init() -> dict[str, Any]:
        return {"first": {}, "mean": {}}

    def update(state: dict[str, Any], losses: Mapping[str, float]) -> dict[str, Any]:
        unknown = sorted(set(losses) - set(names))
        if unknown:
            raise ValueError(f"loss_driven: losses must be of the tasks {list(names)}, found {unknown}")
        first, mean = dict(state["first"]), dict(state["mean"])
        for name, value in losses.items():
            loss = float(value)
            if not math.isfinite(loss) or (name not in first and loss <= 0):
                continue
            first.setdefault(name, loss)
            mean[name] = decay * mean.get(name, loss) + (1 - decay) * loss
        return {"first": first, "mean": mean}

    def rates(state: dict[str, Any]) -> Rates:
        first, mean = state["first"], state["mean"]
        # A loss of 0 or below counts as the smallest ratio.
        ratios = {name: min(max(mean[name] / first[name], 1e-12), 1e12) if name in first else 1.0 for name in names}
        unit = max(ratios.values()) if power > 0 else min(ratios.values())  # the powers do not overflow or all vanish
        found = _normalized({name: (ratio / unit) ** power for name, ratio in ratios.items()})
        return {name: floor / len(names) + (1 - floor) * rate for name, rate in found.items()}

    return LossDriven(init, update, rates)


def _normalized(rates: Rates) -> Rates:
    total = math.fsum(rates.values())
    return {name: rate / total for name, rate in rates.items()}
