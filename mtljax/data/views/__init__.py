"""Views make self-supervised tasks: inputs and targets out of an unlabelled batch.

A view is a pure function `view(key, x) -> (inputs, targets)` or `(inputs, targets, mask)`, with static shapes. It runs
inside the jitted step, so every step draws new inputs and targets: see `with_views`.
"""

from mtljax.data.views.augmentation import chain, crop, cutout, flip, noise
from mtljax.data.views.batch import View, add, evaluation_batches, with_views
from mtljax.data.views.jigsaw import far_permutations, jigsaw
from mtljax.data.views.language import masked_tokens, next_token, span, subset
from mtljax.data.views.masked_cells import HiddenPixels, hidden_loss, masked_cells
from mtljax.data.views.pairs import Pair, contrastive_pairs, on_pairs
from mtljax.data.views.restoration import autoencoding, colorization, denoising, super_resolution
from mtljax.data.views.rotation import rotation
from mtljax.data.views.sentences import next_sentence
from mtljax.data.views.tokens import Text
from mtljax.data.views.words import Context, WordPairs, cbow, skip_gram

__all__ = [
    "Context",
    "HiddenPixels",
    "Pair",
    "Text",
    "View",
    "WordPairs",
    "add",
    "autoencoding",
    "cbow",
    "chain",
    "colorization",
    "contrastive_pairs",
    "crop",
    "cutout",
    "denoising",
    "evaluation_batches",
    "far_permutations",
    "flip",
    "hidden_loss",
    "jigsaw",
    "masked_cells",
    "masked_tokens",
    "next_sentence",
    "next_token",
    "noise",
    "on_pairs",
    "rotation",
    "skip_gram",
    "span",
    "subset",
    "super_resolution",
    "with_views",
]
