"""Where the trunk ends and the heads of the entries begin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mtljax.banks import Entries, is_mark
from mtljax.engines.linear.equations import upstream, variables_of


class Head(NamedTuple):
    """The equations of one entry.

    Attributes:
        eqns: from what the head reads to its loss.
        reads: the boundary's variables that it reads.
        marks: of a bank, the equations that make its features of these; empty where there are none.
        out: the variable of its loss.
    """

    eqns: list[Any]
    reads: list[Any]
    marks: list[Any]
    out: Any


def parted(
    jaxpr: Any, shared: Sequence[Any], own: Sequence[Sequence[Any]], bits: Sequence[int], entries: Entries
) -> tuple[list[Any], list[Head]]:
    """The trunk's equations, and the heads. A bank begins at its marks, if all that it reads is marked."""
    private = [
        [eqn for eqn, mine in zip(jaxpr.eqns, bits, strict=True) if mine == 1 << e] for e in range(len(entries.sizes))
    ]
    in_trunk = {id(eqn) for eqn, mine in zip(jaxpr.eqns, bits, strict=True) if mine & (mine - 1)}
    found: list[tuple[list[Any], list[Any]]] = []
    for e, size in enumerate(entries.sizes):
        eqns, marks = private[e], []
        if size is not None:
            marks = [eqn for eqn in eqns if is_mark(eqn)]
            before = upstream(eqns, marks)
            after = [eqn for eqn in eqns if id(eqn) not in before and eqn not in marks]
            made = set(shared) | {var for eqn in jaxpr.eqns if id(eqn) in in_trunk | before for var in eqn.outvars}
            early = variables_of([eqn for eqn in eqns if id(eqn) in before], *(mark.invars[0] for mark in marks))
            if marks and not made & set(variables_of(after, jaxpr.outvars[e])) and not set(own[e]) & set(early):
                in_trunk |= before
                eqns = after
            else:
                marks = []
        found.append((eqns, marks))
    trunk = [eqn for eqn in jaxpr.eqns if id(eqn) in in_trunk]
    provided = set(shared) | {var for eqn in trunk for var in eqn.outvars}
    heads = []
    for out, (eqns, marks) in zip(jaxpr.outvars, found, strict=True):
        reads = [eqn.invars[0] for eqn in marks] or [var for var in variables_of(eqns, out) if var in provided]
        heads.append(Head(eqns, reads, marks, out))
    return trunk, heads
