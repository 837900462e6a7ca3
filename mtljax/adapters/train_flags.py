"""Arguments that tell a module whether it trains."""

from __future__ import annotations

import inspect
from collections.abc import Callable

_TRAIN = ("train", "training", "is_training")
_EVAL = ("deterministic", "use_running_average")

FLAGS = (*_TRAIN, *_EVAL)


def train_flags(call: Callable) -> tuple[str, ...]:
    """Those arguments of `call` that say whether it trains.

    Example:
        >>> train_flags(lambda x, *, train, scale=1.0: x)
        ('train',)
    """
    parameters = inspect.signature(call).parameters
    return tuple(name for name in FLAGS if name in parameters)


def flag_values(flags: tuple[str, ...], train: bool) -> dict[str, bool]:
    """Each flag's value: `train` for those that mean training, its opposite for those that mean evaluation.

    Example:
        >>> flag_values(("train", "deterministic"), True)
        {'train': True, 'deterministic': False}
    """
    return {name: train if name in _TRAIN else not train for name in flags}
