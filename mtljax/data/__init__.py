"""Data sets, input pipelines, task mixing and self-supervised views.

Data sets are imported on first use, since TFDS is slow to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mtljax.data import synthetic, views
from mtljax.data.batches import Stream, batches
from mtljax.data.evaluation import evaluation_batches
from mtljax.data.labels import LabelCounts, label_counts, mask_missing
from mtljax.data.mixing.draws import largest_remainder, multinomial, one_task, round_robin, systematic
from mtljax.data.mixing.rates import LossDriven, annealed, loss_driven, proportional, uniform
from mtljax.data.mixing.stream import Mixture, mix
from mtljax.data.multi_input import multi_input
from mtljax.data.multilabel import multilabel, one_vs_rest
from mtljax.data.on_device import on_device
from mtljax.data.sets import table as _table
from mtljax.data.sets.lookup import banks, load, names, source
from mtljax.data.sets.ud.batches import sentence_batch, sentence_vocabularies
from mtljax.data.single_tasks import single_tasks
from mtljax.data.vocabulary import Vocabulary, build_vocabulary

if TYPE_CHECKING:
    from mtljax.data.sets.computer_survey import ComputerSurvey, load_computer_survey
    from mtljax.data.sets.dsprites_factors import DspritesFactors, load_dsprites_factors
    from mtljax.data.sets.molecules.chembl import Chembl, load_chembl
    from mtljax.data.sets.molecules.sider import Sider, load_sider
    from mtljax.data.sets.molecules.tox21 import Tox21, load_tox21
    from mtljax.data.sets.multi_digits import MultiDigits, MultiDigitsConfig, load_multi_digits
    from mtljax.data.sets.multi_mnist.builder import TwoDigits, TwoDigitsConfig
    from mtljax.data.sets.multi_mnist.load import load_mnist_fashion, load_multi_fashion, load_multi_mnist
    from mtljax.data.sets.sarcos import Sarcos, load_sarcos
    from mtljax.data.sets.scenes.moving_shapes import MovingShapes, load_moving_sequences, load_moving_shapes
    from mtljax.data.sets.scenes.rendered_scenes import load_rendered_scenes, random_scenes, render_scene, sample_scene
    from mtljax.data.sets.school import School, load_school
    from mtljax.data.sets.ud.english import UdEnglish, load_ud_english, ud_vocabularies

__all__ = [
    "Chembl",
    "ComputerSurvey",
    "DspritesFactors",
    "LabelCounts",
    "LossDriven",
    "Mixture",
    "MovingShapes",
    "MultiDigits",
    "MultiDigitsConfig",
    "Sarcos",
    "School",
    "Sider",
    "Stream",
    "Tox21",
    "TwoDigits",
    "TwoDigitsConfig",
    "UdEnglish",
    "Vocabulary",
    "annealed",
    "banks",
    "batches",
    "build_vocabulary",
    "evaluation_batches",
    "label_counts",
    "largest_remainder",
    "load",
    "load_chembl",
    "load_computer_survey",
    "load_dsprites_factors",
    "load_mnist_fashion",
    "load_moving_sequences",
    "load_moving_shapes",
    "load_multi_digits",
    "load_multi_fashion",
    "load_multi_mnist",
    "load_rendered_scenes",
    "load_sarcos",
    "load_school",
    "load_sider",
    "load_tox21",
    "load_ud_english",
    "loss_driven",
    "mask_missing",
    "mix",
    "multi_input",
    "multilabel",
    "multinomial",
    "names",
    "on_device",
    "one_task",
    "one_vs_rest",
    "proportional",
    "random_scenes",
    "render_scene",
    "round_robin",
    "sample_scene",
    "sentence_batch",
    "sentence_vocabularies",
    "single_tasks",
    "source",
    "synthetic",
    "systematic",
    "ud_vocabularies",
    "uniform",
    "views",
]


def __getattr__(name: str) -> Any:
    """Import the module of a data set when one of its names is first asked for."""
    places = _table.places()
    if name in places:
        return _table.imported(places[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Names of this module, those of the data sets among them."""
    return sorted({*globals(), *_table.places()})
