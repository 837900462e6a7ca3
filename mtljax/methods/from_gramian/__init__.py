"""Methods that read only the Gramian of the task gradients."""

from mtljax.methods.from_gramian.aligned_mtl import aligned_mtl
from mtljax.methods.from_gramian.cagrad import cagrad
from mtljax.methods.from_gramian.config import config
from mtljax.methods.from_gramian.conicgrad import conicgrad
from mtljax.methods.from_gramian.consmtl import consmtl
from mtljax.methods.from_gramian.dualproj import dualproj
from mtljax.methods.from_gramian.epo import epo
from mtljax.methods.from_gramian.fairgrad import fairgrad
from mtljax.methods.from_gramian.gradnorm import gradnorm
from mtljax.methods.from_gramian.gradvac import gradvac
from mtljax.methods.from_gramian.imtl_g import imtl_g
from mtljax.methods.from_gramian.krum import krum
from mtljax.methods.from_gramian.mgda import mgda
from mtljax.methods.from_gramian.modo import modo
from mtljax.methods.from_gramian.nash_mtl import nash_mtl
from mtljax.methods.from_gramian.ntkmtl import ntkmtl
from mtljax.methods.from_gramian.pcd import pcd
from mtljax.methods.from_gramian.pcgrad import pcgrad
from mtljax.methods.from_gramian.pivrg import pivrg
from mtljax.methods.from_gramian.sdmgrad import sdmgrad
from mtljax.methods.from_gramian.upgrad import upgrad

__all__ = [
    "aligned_mtl",
    "cagrad",
    "config",
    "conicgrad",
    "consmtl",
    "dualproj",
    "epo",
    "fairgrad",
    "gradnorm",
    "gradvac",
    "imtl_g",
    "krum",
    "mgda",
    "modo",
    "nash_mtl",
    "ntkmtl",
    "pcd",
    "pcgrad",
    "pivrg",
    "sdmgrad",
    "upgrad",
]
