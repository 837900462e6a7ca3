"""What one line of the table of all methods says."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mtljax.types import Method


class Case(NamedTuple):
    """A method and what it promises; the contract suite holds every method to its line.

    Attributes:
        name: for test ids.
        make: `make(num_tasks) -> Method`.
        alone: its first update at T = 1 is this times the gradient; None where it is no fixed multiple (then it is a
            non-negative multiple all the same).
        degree: the first update of `s` times the task gradients, with the losses as they are, is `s ** degree` times
            the update, for every s > 0; None where the rule has a scale of its own.
        permutable: permuting tasks permutes weights and changes nothing else (False for a method that draws at random,
            or goes by order).
        invariant: one loss multiplied by a constant leaves the direction of every update.
        identical: the first update of T identical tasks is the "sum" of their gradients, the "mean", or "other".
        nonconflicting: `<g_k, update> >= 0` for every task.
        linear: the update is linear under scaling of single tasks:
            `A(diag(a c + b e) J) = a A(diag(c) J) + b A(diag(e) J)` for positive a, b, c, e.
        vanishes: a zero Jacobian gives a zero update (every method; False only where the update is an average over past
            steps or is drawn).
        strong: a zero update means strong stationarity: where two tasks are exactly opposed and a third is free, the
            update still helps the third.
        duplicable: a task that is there twice changes the direction no more than one that is there once.
        variant: another setting of a method that has a line of its own, or a method of whose kin another one is in the
            default suite; run where slow tests are.
    """

    name: str
    make: Callable[[int], Method]
    alone: float | None = 1.0
    degree: float | None = 1.0
    invariant: bool = False
    identical: str = "mean"
    permutable: bool = True
    nonconflicting: bool = False
    linear: bool = False
    vanishes: bool = True
    strong: bool = False
    duplicable: bool = False
    variant: bool = False
