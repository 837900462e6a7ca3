"""The table of data sets, for `load`, `source` and the names of `mtljax.data`."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple


class DataSet(NamedTuple):
    """The module, loader and builder of a data set.

    Attributes:
        module: its module under `mtljax.data.sets`, imported on first use: TFDS is slow to import, and some builders
            need other packages.
        loader: the function that loads the data set into memory.
        builder: its TFDS builder, as `module:class`; None for a data set that is generated and not stored.
        config: the builder's configuration that the loader uses without options; None if there is only one.
        also: other public names of the module.
    """

    module: str
    loader: str
    builder: str | None = None
    config: str | None = None
    also: tuple[str, ...] = ()


def _of_two_digits(name: str, also: tuple[str, ...] = ()) -> DataSet:
    config = f"{name}_pareto_overlap_20_seed_0"
    return DataSet("multi_mnist.load", f"load_{name}", "multi_mnist.builder:TwoDigits", config, also)


TABLE = {
    "chembl": DataSet("molecules.chembl", "load_chembl", "molecules.chembl:Chembl"),
    "computer_survey": DataSet("computer_survey", "load_computer_survey", "computer_survey:ComputerSurvey"),
    "dsprites_factors": DataSet("dsprites_factors", "load_dsprites_factors", "dsprites_factors:DspritesFactors"),
    "mnist_fashion": _of_two_digits("mnist_fashion"),
    "moving_shapes": DataSet(
        "scenes.moving_shapes", "load_moving_shapes", also=("MovingShapes", "load_moving_sequences")
    ),
    "multi_digits": DataSet(
        "multi_digits", "load_multi_digits", "multi_digits:MultiDigits", also=("MultiDigitsConfig",)
    ),
    "multi_fashion": _of_two_digits("multi_fashion"),
    "multi_mnist": _of_two_digits("multi_mnist"),
    "rendered_scenes": DataSet(
        "scenes.rendered_scenes", "load_rendered_scenes", also=("random_scenes", "render_scene", "sample_scene")
    ),
    "sarcos": DataSet("sarcos", "load_sarcos", "sarcos:Sarcos"),
    "school": DataSet("school", "load_school", "school:School"),
    "sider": DataSet("molecules.sider", "load_sider", "molecules.sider:Sider"),
    "tox21": DataSet("molecules.tox21", "load_tox21", "molecules.tox21:Tox21"),
    "ud_english": DataSet("ud.english", "load_ud_english", "ud.english:UdEnglish", also=("ud_vocabularies",)),
}


def imported(place: str) -> Any:
    """The object `module:name`, with the module under `mtljax.data.sets`."""
    module, name = place.split(":")
    return getattr(importlib.import_module(f"mtljax.data.sets.{module}"), name)


def places() -> dict[str, str]:
    """Every public name of the data sets, with its `module:name`."""
    found = {"TwoDigitsConfig": "multi_mnist.builder:TwoDigitsConfig"}
    for row in TABLE.values():
        found |= {name: f"{row.module}:{name}" for name in (row.loader, *row.also)}
        if row.builder is not None:
            found[row.builder.split(":")[1]] = row.builder
    return found
