"""Every public name of TorchJD and LibMTL has its place here: what does the same, or a sentence why nothing does.

What stands here is held at all times; that nothing is missing, where the libraries are installed (the extra `bench`).
"""

from __future__ import annotations

import importlib
import operator

import pytest

import mtljax

OURS = "mtljax."
INTERFACE = "An abstract class; here a method is a pair of functions, `mtljax.Method`."
AS_AGGREGATOR = "The same rule as {}, which here reads the Gramian itself."
TORCHJD = {
    "": {"Stateful": "A class with a reset; here state is passed in and out."},
    "aggregation": {
        "Aggregator": INTERFACE,
        "AlignedMTL": "mtljax.methods.aligned_mtl",
        "CAGrad": "mtljax.methods.cagrad",
        "ConFIG": "mtljax.methods.config",
        "Constant": "mtljax.methods.fixed",
        "CRMOGMWeighting": "mtljax.methods.cr_mogm",
        "DualProj": "mtljax.methods.dualproj",
        "ExcessMTL": "mtljax.methods.excess_mtl",
        "FairGrad": "mtljax.methods.fairgrad",
        "GradDrop": "mtljax.methods.graddrop",
        "GradVac": "mtljax.methods.gradvac",
        "GramianWeightedAggregator": INTERFACE,
        "IMTLG": "mtljax.methods.imtl_g",
        "Krum": "mtljax.methods.krum",
        "Mean": "mtljax.methods.fixed",
        "MGDA": "mtljax.methods.mgda",
        "MoDoWeighting": "mtljax.methods.modo",
        "NashMTL": "mtljax.methods.nash_mtl",
        "PCD": "mtljax.methods.pcd",
        "PCGrad": "mtljax.methods.pcgrad",
        "Random": "mtljax.methods.random",
        "SDMGradWeighting": "mtljax.methods.sdmgrad",
        "Sum": "mtljax.methods.equal",
        "TrimmedMean": "mtljax.methods.trimmed_mean",
        "UPGrad": "mtljax.methods.upgrad",
        "WeightedAggregator": INTERFACE,
        "Weighting": INTERFACE,
        **{
            f"{name}Weighting": AS_AGGREGATOR.format(name)
            for name in (
                *("AlignedMTL", "CAGrad", "Constant", "DualProj", "ExcessMTL", "FairGrad", "GradVac", "IMTLG"),
                *("Krum", "Mean", "MGDA", "PCD", "PCGrad", "Random", "Sum", "UPGrad"),
            )
        },
    },
    "scalarization": {
        "Constant": "mtljax.methods.fixed",
        "COSMOS": "mtljax.methods.cosmos",
        "DWA": "mtljax.methods.dwa",
        "FAMO": "mtljax.methods.famo",
        "GeometricMean": "mtljax.methods.geometric",
        "IMTLL": "mtljax.methods.imtl_l",
        "Mean": "mtljax.methods.fixed",
        "PBI": "mtljax.methods.pbi",
        "Random": "mtljax.methods.random",
        "Scalarizer": INTERFACE,
        "STCH": "mtljax.methods.stch",
        "Sum": "mtljax.methods.equal",
        "UW": "mtljax.methods.uncertainty",
    },
    "autojac": {
        "backward": "mtljax.value_and_grad",
        "jac": "mtljax.value_and_task_grads",
        "jac_to_grad": "mtljax.aggregate",
        "mtl_backward": "mtljax.value_and_grad",
    },
    "autogram": {
        # Of the losses of tasks; of the losses of single examples nothing does yet.
        "Engine": "mtljax.engines.gramian",
    },
    "linalg": {
        "DualConeProjector": "An abstract class of solvers; here there is one, `mtljax.solvers.cone_projection`.",
        "Matrix": "A tensor's type; here arrays are checked by shape.",
        "PSDMatrix": "A tensor's type; here arrays are checked by shape.",
        "QuadprogProjector": "mtljax.solvers.cone_projection",
    },
}
LIBMTL = {
    "weighting": {
        "AbsWeighting": INTERFACE,
        "Aligned_MTL": "mtljax.methods.aligned_mtl",
        "CAGrad": "mtljax.methods.cagrad",
        "DB_MTL": "mtljax.methods.db_mtl",
        "DWA": "mtljax.methods.dwa",
        "EW": "mtljax.methods.equal",
        "ExcessMTL": "mtljax.methods.excess_mtl",
        "FAMO": "mtljax.methods.famo",
        "FairGrad": "mtljax.methods.fairgrad",
        "GLS": "mtljax.methods.geometric",
        "GradDrop": "mtljax.methods.graddrop",
        "GradNorm": "mtljax.methods.gradnorm",
        "GradVac": "mtljax.methods.gradvac",
        "IMTL": "mtljax.methods.imtl_g",
        "MGDA": "mtljax.methods.mgda",
        "MoCo": "mtljax.methods.moco",
        "MoDo": "mtljax.methods.modo",
        "Nash_MTL": "mtljax.methods.nash_mtl",
        "PCGrad": "mtljax.methods.pcgrad",
        "RLW": "mtljax.methods.random",
        "SDMGrad": "mtljax.methods.sdmgrad",
        "STCH": "mtljax.methods.stch",
        "UPGrad": "mtljax.methods.upgrad",
        "UW": "mtljax.methods.uncertainty",
    },
    "architecture": {
        "AbsArchitecture": "An abstract class; here an architecture is a function to an `(init, apply)` pair.",
        "CGC": "mtljax.sharing.cgc",
        "Cross_stitch": "mtljax.sharing.cross_stitch",
        "DSelect_k": "mtljax.sharing.dselect_k",
        "HPS": "mtljax.sharing.hard",
        "LTB": "mtljax.sharing.ltb",
        "MMoE": "mtljax.sharing.mmoe",
        "MTAN": "mtljax.sharing.mtan",
        "PLE": "mtljax.sharing.ple",
    },
}
# Released are twelve weightings and seven architectures; the others stand in LibMTL's repository alone.
UNRELEASED = {
    *("Aligned_MTL", "DB_MTL", "ExcessMTL", "FAMO", "FairGrad", "LTB", "MoCo", "MoDo", "Nash_MTL", "SDMGrad"),
    *("STCH", "UPGrad"),
}
PLACES = [*TORCHJD.values(), *LIBMTL.values()]


@pytest.mark.parametrize("ours", sorted({ours for place in PLACES for ours in place.values()}))
def test_what_does_the_same_is_there(ours):
    if ours.startswith(OURS):
        assert callable(operator.attrgetter(ours.removeprefix(OURS))(mtljax))
    else:
        assert ours.endswith(".") and len(ours.split()) > 4


@pytest.mark.parametrize("place", TORCHJD)
def test_every_name_of_torchjd(place):
    pytest.importorskip("torchjd")
    module = importlib.import_module(f"torchjd.{place}" if place else "torchjd")
    assert set(module.__all__) == set(TORCHJD[place])


@pytest.mark.parametrize("place", LIBMTL)
def test_every_name_of_libmtl(place):
    pytest.importorskip("torch")
    peers = pytest.importorskip("benchmarks.peers")
    try:
        architecture, weighting = peers.import_libmtl()
    except peers.Lacking as lacking:
        pytest.skip(str(lacking))
    module = {"architecture": architecture, "weighting": weighting}[place]
    assert set(module.__all__) == set(LIBMTL[place]) - UNRELEASED
