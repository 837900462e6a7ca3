"""Every architecture, built from the same blocks: a new one enters the contract suite by one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from mtljax.penalties import l2_to_mean
from mtljax.penalties.robust import robust
from mtljax.sharing import (
    Network,
    adapters,
    adatt,
    cgc,
    cross_stitch,
    deep_fusion,
    dselect_k,
    encoders,
    esmm,
    film,
    hard,
    hierarchical,
    low_rank,
    ltb,
    mmoe,
    moe,
    mtan,
    nddr,
    ple,
    single_task,
    sluice,
    soft,
    statistics_by_task,
    tree,
)


class Blocks(NamedTuple):
    """What an architecture is built from.

    Attributes:
        layer: a network from features of any width to features of `width`; a fresh one at every call.
        width: of everything but the inputs and the outputs.
        heads: from features of that width to each task's outputs.
    """

    layer: Callable[[], Network]
    width: int
    heads: Mapping[str, Network]

    def stages(self, number=2):
        """Layers that follow one another."""
        return [self.layer() for _ in range(number)]


CASES = {
    "hard": lambda b: hard(b.layer(), b.heads),
    "single_task": lambda b: single_task(b.layer(), b.heads),
    "soft": lambda b: soft(b.layer(), b.heads, l2_to_mean()),
    "soft_stacked": lambda b: soft(b.layer(), b.heads, l2_to_mean(), stacked=True),
    "soft_parts": lambda b: soft(b.layer(), b.heads, robust(1e-3, 7e-4)),
    "cross_stitch": lambda b: cross_stitch(b.stages(), b.heads),
    "sluice": lambda b: sluice(b.stages(), b.heads, orthogonality=1e-3),
    "nddr": lambda b: nddr(b.stages(), b.heads),
    "deep_fusion": lambda b: deep_fusion(b.stages(), b.heads),
    "mmoe": lambda b: mmoe(b.layer(), b.heads, num_experts=3),
    "cgc": lambda b: cgc(b.layer(), b.heads, num_shared=2, num_specific=1),
    "ple": lambda b: ple(b.stages(), b.heads, num_shared=2, num_specific=1),
    "dselect_k": lambda b: dselect_k(b.layer(), b.heads, num_experts=3),
    "dselect_k_per_example": lambda b: dselect_k(b.layer(), b.heads, num_experts=4, per_example=True),
    "moe": lambda b: moe(b.layer(), b.heads, num_experts=4, noise=True),
    "adatt": lambda b: adatt(b.stages(), b.heads, num_shared=1, num_specific=2),
    "mtan": lambda b: mtan(b.stages(), b.heads, masks=b.stages(), forward=b.stages(1)),
    "ltb": lambda b: ltb(b.stages(), b.heads),
    "tree": lambda b: tree(b.stages(), b.heads, {task: (0, i) for i, task in enumerate(sorted(b.heads))}),
    "hierarchical": lambda b: hierarchical(b.stages(), b.heads, _depths(b)),
    "adapters": lambda b: adapters(b.stages(), b.heads, 2),
    "film": lambda b: film(b.stages(), b.heads),
    "encoders": lambda b: encoders(
        {"all but the first": b.layer(), "the first": b.layer()}, b.layer(), b.heads, kinds=_kinds(b)
    ),
    "low_rank": lambda b: low_rank(b.layer(), b.heads, 2),
    "statistics_by_task": lambda b: statistics_by_task(hard(b.layer(), b.heads)),
    "esmm": lambda b: _esmm(b),
}
"""From a name to a function from `Blocks` to the `Model`. Inputs are `[B, n]`."""

TWO_ALIKE = {"esmm"}
"""Those for two tasks of outputs of one shape, that of the first head; all that the first task reads is shared."""

VARIANTS = {"soft_stacked", "soft_parts", "dselect_k_per_example", "tree"}
"""Those that stand in the table a second time, so to speak; their tests are slow ones."""

NOTHING_SHARED = {"single_task", "soft", "soft_stacked", "soft_parts"}
"""Those whose tasks own all they read."""


def _esmm(blocks):
    """The first task's labels are clicks, the second's conversions."""
    click, conversion = sorted(blocks.heads)
    return esmm(blocks.layer(), dict.fromkeys(blocks.heads, blocks.heads[click]), click=click, conversion=conversion)


def _depths(blocks):
    """The first task at the first stage, the others at the second."""
    return {task: min(k, 1) for k, task in enumerate(sorted(blocks.heads))}


def _kinds(blocks):
    """The first task's inputs are of one kind, the others' of another."""
    return {task: "all but the first" if k else "the first" for k, task in enumerate(sorted(blocks.heads))}


NUMBERS = {
    ("moe", "balance"): lambda b, x: moe(b.layer(), b.heads, num_experts=3, balance=x),
    ("dselect_k", "entropy"): lambda b, x: dselect_k(b.layer(), b.heads, num_experts=3, entropy=x),
    ("dselect_k", "gamma"): lambda b, x: dselect_k(b.layer(), b.heads, num_experts=3, gamma=x),
    ("ltb", "temperature"): lambda b, x: ltb(b.stages(), b.heads, temperature=x),
    ("ltb", "warmup"): lambda b, x: ltb(b.stages(), b.heads, warmup=x),
    ("cross_stitch", "same"): lambda b, x: cross_stitch(b.stages(), b.heads, same=x),
    ("nddr", "same"): lambda b, x: nddr(b.stages(), b.heads, same=x),
    ("sluice", "same"): lambda b, x: sluice(b.stages(), b.heads, same=x),
    ("sluice", "last"): lambda b, x: sluice(b.stages(), b.heads, last=x),
    ("sluice", "orthogonality"): lambda b, x: sluice(b.stages(), b.heads, orthogonality=x),
    ("deep_fusion", "same"): lambda b, x: deep_fusion(b.stages(), b.heads, same=x),
    ("deep_fusion", "last"): lambda b, x: deep_fusion(b.stages(), b.heads, last=x),
    ("low_rank", "alpha"): lambda b, x: low_rank(b.layer(), b.heads, 2, alpha=x),
}
"""Every number that may be a traced array: by architecture and argument, a function of the blocks and the number."""

NOT_TRACED = {
    "adapters": ("size",),
    "adatt": ("num_shared", "num_specific"),
    "cgc": ("num_shared", "num_specific"),
    "cross_stitch": ("after",),
    "deep_fusion": ("after",),
    "dselect_k": ("num_experts", "num_selected"),
    "hierarchical": ("layers", "label_size"),
    "low_rank": ("rank",),
    "ltb": ("widths",),
    "mmoe": ("num_experts",),
    "moe": ("num_experts", "num_selected"),
    "nddr": ("after",),
    "ple": ("num_shared", "num_specific"),
    "sluice": ("subspaces", "after"),
    "tree": ("paths",),
}
"""Numbers that set shapes or which networks there are, and cannot be traced; docs/sharing.md lists them too."""
