"""Checks of arguments that are not numbers: flags, functions, keys, methods, optimizers, tasks, names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.checks.messages import expect, found
from mtljax.checks.numbers import check_number
from mtljax.types import Key, Method, Task


def check_flag(where: str, what: str, value: Any) -> bool:
    """The flag, after checking that it is True or False.

    Example:
        >>> check_flag("fit", "donate", 1)
        Traceback (most recent call last):
        ...
        TypeError: fit: donate must be True or False, found 1
    """
    expect(isinstance(value, bool | np.bool_), where, what, "True or False", value, TypeError)
    return bool(value)


def check_refine(where: str, refine: Any, method: Method | None = None) -> bool:
    """The flag `refine`, after checking that it is True or False and that the method, if known, can use it.

    Example:
        >>> import mtljax
        >>> check_refine("aggregate", True, mtljax.methods.epo())
        Traceback (most recent call last):
        ...
        ValueError: aggregate: refine is for methods that make use of a Gramian in float64 (mgda, upgrad, dualproj,
        pcd, cagrad, conicgrad, config, imtl_g, aligned_mtl, nash_mtl, fairgrad, pivrg, consmtl), found epo
    """
    if check_flag(where, "refine", refine) and method is not None and not method.refines:
        raise ValueError(
            f"{where}: refine is for methods that make use of a Gramian in float64 (mgda, upgrad, dualproj, pcd, "
            f"cagrad, conicgrad, config, imtl_g, aligned_mtl, nash_mtl, fairgrad, pivrg, consmtl), found {method.name}"
        )
    if refine and method is not None and not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError(f"{where}: refine needs float64: call it within `with jax.enable_x64(True):`")
    return bool(refine)


def check_callable(where: str, what: str, value: Any, *, expected: str = "a function") -> Callable[..., Any]:
    """The function, after checking that it can be called.

    Example:
        >>> check_callable("with_lora", "loss", "mse")
        Traceback (most recent call last):
        ...
        TypeError: with_lora: loss must be a function, found 'mse'
    """
    expect(callable(value), where, what, expected, value, TypeError)
    return value


def check_choice(where: str, what: str, value: Any, choices: Sequence[str]) -> str:
    """The word, after checking that it is one of the choices.

    Example:
        >>> check_choice("sluice", "kind", "cos", ["cosine", "l2"])
        Traceback (most recent call last):
        ...
        ValueError: sluice: kind must be 'cosine' or 'l2', found 'cos'
    """
    expected = " or ".join(repr(choice) for choice in choices)
    expect(isinstance(value, str), where, what, expected, value, TypeError)
    expect(value in choices, where, what, expected, value, ValueError)
    return value


def check_key(where: str, what: str, value: Any) -> Key:
    """The key, after checking that it is one PRNG key, of `jax.random.key` or of the older `PRNGKey`.

    Example:
        >>> check_key("init", "key", 0)
        Traceback (most recent call last):
        ...
        TypeError: init: key must be one PRNG key, as jax.random.key(0) makes it, found 0
    """
    shape = getattr(value, "shape", None)
    typed = isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    expected = "one PRNG key, as jax.random.key(0) makes it"
    expect(typed or (shape == (2,) and value.dtype == np.uint32), where, what, expected, value, TypeError)
    if typed and shape != ():
        raise ValueError(f"{where}: {what} must be {expected}, found keys of shape {shape}")
    return value


def check_method(where: str, what: str, value: Any) -> Method:
    """The method, after checking that it is a `Method`, not the function that makes it.

    Example:
        >>> import mtljax
        >>> check_method("value_and_grad", "method", mtljax.methods.pcgrad)
        Traceback (most recent call last):
        ...
        TypeError: value_and_grad: method must be a mtljax.Method, found the function 'pcgrad'; call it: pcgrad()
    """
    if not isinstance(value, Method):
        raise TypeError(f"{where}: {what} must be a mtljax.Method, found {found(value)}{_uncalled(value)}")
    return value


def check_method_of_evidence(where: str, what: str, value: Any) -> Method:
    """The method, after checking that it reads losses, a Gramian or task gradients, and not batches.

    Example:
        >>> import mtljax
        >>> check_method_of_evidence("ema", "method", mtljax.methods.moml(inner_lr=0.1))
        Traceback (most recent call last):
        ...
        ValueError: ema: method must read losses, a Gramian or task gradients, found moml, which reads batches: give it
        to mtljax.value_and_grad or training.make_train_step as it is
    """
    method = check_method(where, what, value)
    if method.reads == "batches":
        raise ValueError(
            f"{where}: {what} must read losses, a Gramian or task gradients, found {method.name}, which reads batches: "
            "give it to mtljax.value_and_grad or training.make_train_step as it is"
        )
    return method


def check_optimizer(where: str, what: str, value: Any) -> Any:
    """The optimizer, after checking that it has optax's `init` and `update`.

    Example:
        >>> import optax
        >>> check_optimizer("make_train_step", "optimizer", optax.adam)
        Traceback (most recent call last):
        ...
        TypeError: make_train_step: optimizer must be an optax.GradientTransformation, found the function 'adam';
        call it: adam()
    """
    pair = all(callable(getattr(value, part, None)) for part in ("init", "update"))
    if not pair or isinstance(value, type | Method):
        expected = "an optax.GradientTransformation"
        raise TypeError(f"{where}: {what} must be {expected}, found {found(value)}{_uncalled(value)}")
    return value


def check_task(where: str, name: str, value: Any) -> Task:
    """The task, after checking its loss, its metrics and its prior.

    Example:
        >>> check_task("losses_fn", "depth", Task("mse"))
        Traceback (most recent call last):
        ...
        TypeError: losses_fn: the loss of task 'depth' must be a function, found 'mse'
    """
    expect(isinstance(value, Task), where, f"task '{name}'", "a mtljax.Task", value, TypeError)
    check_callable(where, f"the loss of task '{name}'", value.loss)
    expect(isinstance(value.metrics, dict), where, f"metrics of task '{name}'", "a dict", value.metrics, TypeError)
    for metric, function in value.metrics.items():
        check_callable(where, f"metric '{metric}' of task '{name}'", function)
    check_number(where, f"the prior of task '{name}'", value.prior, above=0, shape=None)
    return value


def check_names(where: str, what: str, value: Any) -> list[str]:
    """The names as a list, after checking that they are at least one string, and that all differ.

    Example:
        >>> check_names("per_task", "names", "depth")
        Traceback (most recent call last):
        ...
        TypeError: per_task: names must be a sequence of strings, found 'depth'
    """
    expected = "a sequence of strings"
    try:
        names = list(value)
    except TypeError:
        names = []
    strings = not isinstance(value, str) and hasattr(value, "__iter__") and all(isinstance(name, str) for name in names)
    expect(strings, where, what, expected, value, TypeError)
    expect(len(names) > 0 and len(set(names)) == len(names), where, what, "names that differ", names, ValueError)
    return names


def check_axis_name(where: str, value: Any) -> Any:
    """The name of a mapped axis, a sequence of names (may be empty), or None, after checking that names are strings.

    Example:
        >>> check_axis_name("make_train_step", 1)
        Traceback (most recent call last):
        ...
        TypeError: make_train_step: axis_name must be a sequence of strings, found 1
    """
    if value is not None and not isinstance(value, str) and value != ():
        check_names(where, "axis_name", value)
    return value


def check_alone(where: str, axis_name: Any) -> None:
    """Raise at trace time if `axis_name` is None inside `pmap` or `shard_map`; `jax.vmap` needs no name."""
    mapped = jax.sharding.get_abstract_mesh().manual_axes
    if axis_name is None and mapped:
        names = [name for name in mapped if not name.startswith("_")]
        given = (
            f"{names[0]!r}" if len(names) == 1 else f"of {names}" if names else "that of jax.pmap(..., axis_name=...)"
        )
        raise ValueError(
            f"{where}: axis_name must be {given} inside pmap or shard_map, else each device learns only from its own "
            "part of the batch, found None; if you want that, such as one seed per device, give axis_name=()"
        )


def _uncalled(value: Any) -> str:
    name = getattr(value, "__name__", None)
    return f"; call it: {name}()" if callable(value) and name else ""
