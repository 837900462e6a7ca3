"""Architectures: which parameters tasks share. Each function makes networks into a `Model`, the step's forward pass."""

from mtljax.sharing.adapters import adapters
from mtljax.sharing.adatt import adatt
from mtljax.sharing.cgc import cgc
from mtljax.sharing.cross_stitch import cross_stitch
from mtljax.sharing.deep_fusion import deep_fusion
from mtljax.sharing.dselect_k import dselect_k
from mtljax.sharing.encoders import encoders
from mtljax.sharing.esmm import esmm
from mtljax.sharing.film import film
from mtljax.sharing.frames.bank import Bank
from mtljax.sharing.frames.network import Network
from mtljax.sharing.hard import hard
from mtljax.sharing.hierarchical import hierarchical, successive_regularization
from mtljax.sharing.low_rank import low_rank
from mtljax.sharing.ltb import ltb, prune
from mtljax.sharing.mmoe import mmoe
from mtljax.sharing.moe import moe
from mtljax.sharing.mtan import mtan
from mtljax.sharing.nddr import nddr
from mtljax.sharing.ple import Experts, ple
from mtljax.sharing.single_task import single_task
from mtljax.sharing.sluice import sluice
from mtljax.sharing.soft import soft
from mtljax.sharing.statistics import statistics_by_task
from mtljax.sharing.surgery.add_task import add_task, without_task
from mtljax.sharing.surgery.edit import carry_over
from mtljax.sharing.surgery.freeze import freeze, part_labels, thaw
from mtljax.sharing.tree import tree

__all__ = [
    "Bank",
    "Experts",
    "Network",
    "adapters",
    "adatt",
    "add_task",
    "carry_over",
    "cgc",
    "cross_stitch",
    "deep_fusion",
    "dselect_k",
    "encoders",
    "esmm",
    "film",
    "freeze",
    "hard",
    "hierarchical",
    "low_rank",
    "ltb",
    "mmoe",
    "moe",
    "mtan",
    "nddr",
    "part_labels",
    "ple",
    "prune",
    "single_task",
    "sluice",
    "soft",
    "statistics_by_task",
    "successive_regularization",
    "thaw",
    "tree",
    "without_task",
]
