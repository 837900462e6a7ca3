"""The frame of the TFDS builders: version, file format, and what the information on every data set says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow_datasets as tfds


class Frame(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base class of the TFDS builders of this folder. TFDS asks for a class.

    A builder adds `_info`, which calls `describe`, and the generators of its splits and rows.

    Example:
        >>> Frame.VERSION
        Version('1.0.0')
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}

    def __init__(self, *, file_format: Any = "array_record", **kwargs: Any):
        """Make the builder; arguments are those of `tfds.core.GeneratorBasedBuilder`.

        TFDS's own default format needs TensorFlow.
        """
        super().__init__(file_format=file_format, **kwargs)

    def describe(self, features: Mapping[str, Any], **known: Any) -> tfds.core.DatasetInfo:
        """The information on a data set whose rows keep the order in which they are generated.

        Args:
            features: TFDS's feature by name.
            **known: other arguments of `tfds.core.DatasetInfo`, such as `description`, `citation` and `license`.
        """
        rows = tfds.features.FeaturesDict(dict(features))
        return tfds.core.DatasetInfo(builder=self, features=rows, disable_shuffling=True, **known)
