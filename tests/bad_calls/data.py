"""Bad calls of `mtljax.data`, its views and its generators, and of the weights of classes."""

from __future__ import annotations

import jax
import numpy as np
from flax import linen as nn

from mtljax import data, losses
from mtljax.data import synthetic, views
from mtljax.data.mixing.rates import LossDriven
from mtljax.data.sets.multi_mnist.idx import read_idx
from mtljax.types import Batch
from tests.bad_calls.bad import INF, NAN, NO_FLAGS, NO_FUNCTIONS, Bad, count, each, number

KEY, X = np.zeros(2, np.uint32), np.ones((4, 3), np.float32)
BATCH = Batch(X, {"a": np.arange(4)})
MASKED = BATCH._replace(mask={"a": np.ones(4, bool)})
WIDE = BATCH._replace(targets={"x": np.arange(4), "y": np.ones((4, 2))})
ONE_EACH = BATCH._replace(task={"a": np.array([0, 1, 1, 0])})
RAGGED = Batch(X, {"a": np.arange(3)})
SOURCES = {"a": BATCH, "b": Batch(X, {"b": np.arange(4)})}
RATES = {"a": 1.0, "b": 1.0}
IMAGES = np.ones((2, 4, 4, 3), np.float32)
TOKENS = np.ones((2, 5), np.int32)
VIEWS = {"jigsaw": views.jigsaw()}
NO_BATCHES = (None, X, {"a": X}, "train", BATCH.targets)
NO_WEIGHTS = (None, [True] * 4, "all", np.ones(4, np.int32))
NO_MASKS = (*NO_WEIGHTS, np.ones(4))
SHAPES = {"num_clusters": 2, "tasks_per_cluster": 2, "num_examples": 3, "within": 0.1}


def mixed(sources=None, rates=None, **options):
    return data.mix(sources or SOURCES, RATES if rates is None else rates, **({"batch_size": 2, "seed": 0} | options))


def clustered(**wrong):
    return synthetic.clustered_linear(wrong.pop("key", KEY), **(SHAPES | wrong))


def seen(view, x):
    return jax.eval_shape(view, KEY, x)


BAD = [
    # Batches in memory and on disk.
    *count(lambda n: data.batches(BATCH, batch_size=n, seed=0), ("batches", "batch_size"), 0, 5),
    *count(lambda n: data.batches(BATCH, batch_size=2, seed=n), ("batches", "seed"), -1),
    *count(lambda n: data.batches(BATCH, batch_size=2, seed=0, start_step=n), ("batches", "start_step"), -1),
    *each(
        lambda n: data.batches(BATCH, batch_size=2, seed=0, epochs=n),
        ("batches", "epochs"),
        ("1", 1.0, 2.5, True),
        TypeError,
    ),
    *each(lambda n: data.batches(BATCH, batch_size=2, seed=0, epochs=n), ("batches", "epochs"), (0, -1)),
    *each(
        lambda n: data.batches(BATCH, batch_size=2, seed=0, prefetch=n), ("batches", "prefetch"), ("1", 2.5), TypeError
    ),
    Bad(lambda: data.batches(BATCH, batch_size=2, seed=0, prefetch=-1), ("batches", "prefetch")),
    *each(lambda x: data.batches(BATCH, batch_size=2, seed=0, shuffle=x), ("batches", "shuffle"), NO_FLAGS, TypeError),
    *each(
        lambda x: data.batches(BATCH, batch_size=2, seed=0, shard=x),
        ("batches", "shard"),
        (0, None, (0,), [0, 1]),
        TypeError,
    ),
    *each(
        lambda x: data.batches(BATCH, batch_size=2, seed=0, shard=x), ("batches", "shard"), ((1, 1), (-1, 2), (0, 0))
    ),
    *each(
        lambda x: data.batches(BATCH, batch_size=2, seed=0, shard=x),
        ("batches", "shard"),
        ((0, 2.0), ("0", 1)),
        TypeError,
    ),
    Bad(lambda: data.batches(BATCH, batch_size=3, seed=0, shard=(0, 2)), ("batches", "batch_size")),
    *each(
        lambda x: data.batches(BATCH, batch_size=2, seed=0, collate=x), ("batches", "collate"), ("stack", 1), TypeError
    ),
    Bad(lambda: data.batches(3, batch_size=2, seed=0, collate=list), ("batches", "source"), TypeError),
    *each(
        lambda x: data.batches(BATCH, batch_size=2, seed=0, weights=x),
        ("batches", "weights"),
        ("w", True, X > 0),
        TypeError,
    ),
    *each(
        lambda x: data.batches(BATCH, batch_size=2, seed=0, weights=x),
        ("batches", "weights"),
        (np.ones(3), np.zeros(4), -np.ones(4), np.full(4, NAN), 1.0),
    ),
    Bad(lambda: data.batches(BATCH, batch_size=2, seed=0, weights=np.ones(4), shuffle=False), ("batches", "shuffle")),
    *each(lambda x: data.batches(x, batch_size=2, seed=0), ("batches", "batch"), (RAGGED, None, "train", 1.0, {})),
    *count(lambda n: data.evaluation_batches(BATCH, n), ("evaluation_batches", "batch_size"), 0, -1),
    *each(lambda x: data.evaluation_batches(x, 2), ("evaluation_batches", "batch"), NO_BATCHES, TypeError),
    Bad(lambda: data.evaluation_batches(RAGGED, 2), ("evaluation_batches", "batch")),
    *each(
        lambda mask: data.evaluation_batches(BATCH._replace(mask={"a": mask}), 2),
        ("evaluation_batches", "mask['a']"),
        NO_WEIGHTS,
        TypeError,
    ),
    Bad(
        lambda: data.evaluation_batches(BATCH._replace(mask={"a": np.ones(3, bool)}), 2),
        ("evaluation_batches", "mask['a']"),
    ),
    Bad(
        lambda: data.evaluation_batches(BATCH._replace(mask={"b": np.ones(4, bool)}), 2),
        ("evaluation_batches", "mask", "'b'"),
    ),
    Bad(lambda: data.evaluation_batches(BATCH._replace(mask=None), 2), ("evaluation_batches", "mask"), TypeError),  # type: ignore[arg-type]
    *count(lambda n: data.on_device(BATCH, batch_size=n, seed=0), ("on_device", "batch_size"), 0, 5),
    *count(lambda n: data.on_device(BATCH, batch_size=2, seed=n), ("on_device", "seed"), -1),
    Bad(lambda: data.on_device(BATCH, batch_size=2, seed=0, mesh="data"), ("on_device", "mesh"), TypeError),  # type: ignore[arg-type]
    Bad(
        lambda: data.on_device(BATCH, batch_size=2, seed=0, mesh=jax.sharding.Mesh(jax.devices()[:1], "x"), axis="y"),
        ("on_device", "axis", "'y'"),
    ),
    # Labels.
    *each(lambda x: data.mask_missing(x), ("mask_missing", "batch"), NO_BATCHES, TypeError),
    *each(lambda x: data.label_counts(x), ("label_counts", "batch"), ([X], {"a": X}, ["train"]), TypeError),
    *each(
        lambda mask: data.mask_missing(BATCH._replace(mask={"a": mask})),
        ("mask_missing", "mask['a']"),
        NO_WEIGHTS[1:],
        TypeError,
    ),
    *each(
        lambda mask: data.mask_missing(BATCH, present={"a": mask}),
        ("mask_missing", "present['a']"),
        NO_MASKS,
        TypeError,
    ),
    Bad(lambda: data.mask_missing(BATCH, present={"b": np.ones(4, bool)}), ("mask_missing", "present", "'b'")),
    *each(
        lambda x: data.mask_missing(BATCH, present=x), ("mask_missing", "present"), ("a", np.ones(4, bool)), TypeError
    ),
    *each(lambda x: data.mask_missing(BATCH, sentinel=x), ("mask_missing", "sentinel"), ("-1", 1j, True), TypeError),
    *each(
        lambda x: data.mask_missing(BATCH, axes=x), ("mask_missing", "axes"), ("1", 1.0, None, {"a": 1.5}), TypeError
    ),
    *each(lambda x: data.mask_missing(BATCH, axes=x), ("mask_missing", "axes"), (0, {"a": -1}, {"b": 1})),
    Bad(lambda: data.mask_missing(BATCH, axes=2), ("mask_missing", "targets['a']", "2 axes", "[[4]]")),
    Bad(
        lambda: data.mask_missing(BATCH, present={"a": np.ones((4, 2), bool)}),
        ("mask_missing", "targets['a']", "[[4]]", "[[4, 2]]"),
    ),
    Bad(lambda: data.mask_missing(BATCH, sentinel={"b": -1}), ("mask_missing", "sentinel", "'b'")),
    Bad(lambda: data.mask_missing(BATCH, sentinel={"a": 0.5}), ("mask_missing", "sentinel", "'a'")),
    Bad(lambda: data.mask_missing(RAGGED._replace(targets={"a": np.float32(1)})), ("mask_missing", "targets['a']")),
    *each(lambda x: data.multilabel(x), ("multilabel", "labels"), (X[0], np.ones((2, 0)), 1.0)),
    Bad(lambda: data.multilabel(np.full((2, 2), 2)), ("multilabel", "labels", "2")),
    Bad(lambda: data.multilabel(np.array([["a"]])), ("multilabel", "labels"), TypeError),
    Bad(lambda: data.multilabel(X, sentinel="-1"), ("multilabel", "sentinel"), TypeError),
    *count(lambda n: data.one_vs_rest(np.arange(2), n), ("one_vs_rest", "num_classes"), 1, 0),
    Bad(lambda: data.one_vs_rest(X[:, 0], 2), ("one_vs_rest", "classes"), TypeError),
    Bad(lambda: data.one_vs_rest(np.ones((2, 2), int), 2), ("one_vs_rest", "classes")),
    Bad(lambda: data.one_vs_rest(np.arange(4), 3), ("one_vs_rest", "classes", "3")),
    *each(lambda m: data.one_vs_rest(np.zeros(4, int), 2, mask=m), ("one_vs_rest", "mask"), NO_MASKS[1:], TypeError),
    # Mixtures.
    *count(lambda n: mixed(batch_size=n), ("mix", "batch_size"), 0, -1),
    *count(lambda n: mixed(seed=n), ("mix", "seed"), -1),
    *count(lambda n: mixed(start_step=n), ("mix", "start_step"), -1),
    *each(lambda x: mixed(capacity=x), ("mix", "capacity"), ("2", 2.0, True), TypeError),
    *each(lambda x: mixed(capacity=x), ("mix", "capacity"), (0, {"a": 2}, {"a": 2, "b": 0})),
    *each(lambda x: mixed(draw=x), ("mix", "draw"), NO_FUNCTIONS, TypeError),
    *each(
        lambda x: mixed(sources=x), ("mix", "sources"), ([BATCH], BATCH, {"a": X, "b": X}, {"a": iter([])}), TypeError
    ),
    Bad(lambda: mixed(sources={"b": BATCH}), ("mix", "sources['b']")),
    Bad(
        lambda: mixed(sources={"a": BATCH._replace(mask={"a": np.ones(3, bool)}), "b": SOURCES["b"]}),
        ("mix", "sources['a']"),
    ),
    Bad(
        lambda: mixed(sources={"a": BATCH._replace(mask={"a": [True] * 4}), "b": SOURCES["b"]}),
        ("mix", "sources['a']"),
        TypeError,
    ),
    *each(lambda x: mixed(rates=x), ("mix", "rates"), ("equal", 1.0, [1.0, 1.0], {"a": "1", "b": 1.0}), TypeError),
    *each(
        lambda x: mixed(rates=x),
        ("mix", "rates"),
        ({"a": 1.0}, {"a": -1.0, "b": 1.0}, {"a": NAN, "b": 1.0}, {"a": 0, "b": 0}),
    ),
    Bad(lambda: mixed(rates=LossDriven(*data.loss_driven(RATES)), start_step=1), ("mix", "start_step")),
    *each(lambda x: data.uniform(x), ("uniform", "tasks"), ("ab", None, 3, (1, 2)), TypeError),
    *each(lambda x: data.uniform(x), ("uniform", "tasks"), ((), ("a", "a"))),
    *each(
        lambda x: data.proportional(x),
        ("proportional", "sizes"),
        (None, [1, 2], "ab", {"a": "1"}, {"a": None}),
        TypeError,
    ),
    *each(lambda x: data.proportional(x), ("proportional", "sizes"), ({}, {"a": 0}, {"a": NAN}, {"a": INF})),
    *number(lambda x: data.proportional(RATES, temperature=x), ("proportional", "temperature"), 0.0, -1.0),
    *number(lambda x: data.proportional(RATES, scale=x), ("proportional", "scale"), 0.0, INF),
    *each(lambda x: data.proportional(RATES, maximum=x), ("proportional", "maximum"), ("1", 1j, True), TypeError),
    *each(lambda x: data.proportional(RATES, maximum=x), ("proportional", "maximum"), (0.0, -1.0, NAN)),
    *count(lambda n: data.annealed(RATES, epochs=n, steps_per_epoch=1), ("annealed", "epochs"), 0),
    *count(lambda n: data.annealed(RATES, epochs=1, steps_per_epoch=n), ("annealed", "steps_per_epoch"), 0),
    *number(lambda x: data.annealed(RATES, epochs=1, steps_per_epoch=1, drop=x), ("annealed", "drop"), -0.1, 1.1),
    *number(lambda x: data.loss_driven(RATES, decay=x), ("loss_driven", "decay"), -0.1, 1.0),
    *number(lambda x: data.loss_driven(RATES, floor=x), ("loss_driven", "floor"), -0.1, 1.1),
    *number(lambda x: data.loss_driven(RATES, power=x), ("loss_driven", "power"), INF),
    Bad(lambda: data.loss_driven("ab"), ("loss_driven", "tasks"), TypeError),
    Bad(
        lambda: (driven := data.loss_driven(RATES)).update(driven.init(), {"c": 1.0}), ("loss_driven", "losses", "'c'")
    ),
    # Data sets by name.
    *each(lambda name: data.load(name), ("load", "name"), ("mnist", "", "../school")),
    *each(lambda name: data.load(name), ("load", "name"), (None, 3, ["school"]), TypeError),
    *each(lambda split: data.load("school", split), ("load", "split"), (3, ["train"], True), TypeError),
    Bad(lambda: data.load("school", share=0.5), ("load", "options", "share")),
    Bad(
        lambda: data.load("moving_shapes", "training", num_sequences=(1, 1, 1), length=2, size=24),
        ("load", "split", "'training'", "validation"),
    ),
    *each(lambda name: data.source(name, "train"), ("source", "name"), ("mnist", "")),
    *each(lambda name: data.source(name, "train"), ("source", "name"), (None, 3), TypeError),
    *each(lambda split: data.source("school", split), ("source", "split"), (None, 3), TypeError),
    Bad(lambda: data.source("moving_shapes", "train"), ("source", "moving_shapes")),
    Bad(lambda: data.source("school", "train", config=3), ("source", "config"), TypeError),  # type: ignore[arg-type]
    *each(lambda x: data.load_school(x), ("load_school", "data_dir"), (3, "", ["/tmp"]), TypeError),
    *each(lambda x: data.load_school(train_share=x), ("load_school", "train_share"), ("half", True), TypeError),
    *each(lambda x: data.load_school(train_share=x), ("load_school", "train_share"), (-0.1, 1.1, NAN)),
    *count(lambda n: data.load_school(seed=n), ("load_school", "seed"), -1),
    *count(lambda n: data.load_sarcos(train_rows=n), ("load_sarcos", "train_rows"), 0),
    *count(lambda n: data.load_sarcos(test_rows=n), ("load_sarcos", "test_rows"), 0),
    *count(lambda n: data.load_sarcos(seed=n), ("load_sarcos", "seed"), -1),
    *each(lambda x: data.load_sarcos(standardize=x), ("load_sarcos", "standardize"), NO_FLAGS, TypeError),
    *count(lambda n: data.load_multi_digits(seed=n), ("load_multi_digits", "seed"), -1),
    *count(lambda n: data.load_multi_mnist(seed=n), ("seed",), -1),
    *each(lambda x: data.load_multi_fashion(variant=x), ("variant",), (None, 3), TypeError),
    *each(lambda x: data.load_mnist_fashion(variant=x), ("variant", "mgda", "pareto"), ("nested", "")),
    *each(lambda x: data.load_multi_mnist(overlap=x), ("overlap",), ("4", 4.0, True), TypeError),
    *each(lambda x: data.load_multi_mnist(overlap=x), ("overlap",), (-1, 28)),
    *each(lambda x: data.load_multi_mnist(normalize=x), ("load_multi_mnist", "normalize"), NO_FLAGS, TypeError),
    *each(
        lambda x: data.load_dsprites_factors(tasks=x), ("load_dsprites_factors", "tasks"), ("shape", 3, (1,)), TypeError
    ),
    *each(
        lambda x: data.load_dsprites_factors(tasks=x),
        ("load_dsprites_factors", "tasks"),
        ((), ("color",), ("shape",) * 2),
    ),
    *count(lambda n: data.load_dsprites_factors(split_seed=n), ("load_dsprites_factors", "split_seed"), -1),
    *count(lambda n: data.load_tox21(radius=n), ("load_tox21", "radius"), -1),
    *each(lambda x: data.multi_input(x, {}), ("multi_input", "batch"), (None, X, {"a": X}), TypeError),
    *each(lambda x: data.multi_input(ONE_EACH, x), ("multi_input", "banks"), (None, ("a", "b")), TypeError),
    Bad(lambda: data.multi_input(BATCH, {"a": ("b",)}), ("multi_input", "task", "['a']", "[]")),
    Bad(lambda: data.multi_input(ONE_EACH, {"b": ("c", "d")}), ("multi_input", "banks", "['b']", "['a']")),
    Bad(lambda: data.multi_input(ONE_EACH, {"a": ("b",)}), ("multi_input", "task['a']", "below 1", "1")),
    *each(lambda x: data.single_tasks(x, {}), ("single_tasks", "batch"), (None, X, {"a": X}), TypeError),
    *each(lambda x: data.single_tasks(WIDE, x), ("single_tasks", "banks"), (None, ("a", "b")), TypeError),
    Bad(lambda: data.single_tasks(WIDE, {"z": ("a", "b")}), ("single_tasks", "banks", "'z'")),
    Bad(lambda: data.single_tasks(WIDE, {"y": ("a",)}), ("single_tasks", "targets['y']", "[N, 1, ...]")),
    Bad(lambda: data.single_tasks(WIDE, {"y": ("a", "x")}), ("single_tasks", "'x'", "twice")),
    Bad(lambda: data.single_tasks(WIDE, {"y": ("a", "a")}), ("single_tasks", "banks['y']")),
    *count(lambda n: data.load_chembl(bits=n), ("load_chembl", "bits"), 0),
    *each(lambda name: data.banks(name), ("banks", "name"), ("mnist", "")),
    *each(lambda name: data.banks(name), ("banks", "name"), (None, 3), TypeError),
    *count(lambda n: data.load_sider(bits=n), ("load_sider", "bits"), 0),
    *count(lambda n: data.load_ud_english(max_length=n), ("load_ud_english", "max_length"), 0),
    *count(lambda n: data.load_ud_english(max_characters=n), ("load_ud_english", "max_characters"), 1),
    Bad(lambda: data.load_ud_english(vocabularies="words"), ("load_ud_english", "vocabularies"), TypeError),  # type: ignore[arg-type]
    *count(lambda n: data.ud_vocabularies(min_count=n), ("ud_vocabularies", "min_count"), 0),
    *count(lambda n: data.ud_vocabularies(max_offset=n), ("ud_vocabularies", "max_offset"), 0),
    *each(
        lambda x: data.sentence_vocabularies(x),
        ("sentence_vocabularies", "sentences"),
        ("He went", None, ["He"]),
        TypeError,
    ),
    *each(lambda x: data.sentence_batch(x, {}), ("sentence_batch", "sentences"), ("He went", None, ["He"]), TypeError),
    *each(lambda x: data.sentence_batch([], x), ("sentence_batch", "vocabularies"), (None, ["words"]), TypeError),
    *each(
        lambda x: data.load_moving_sequences(num_sequences=x),
        ("load_moving_sequences", "num_sequences"),
        (3, None, "333"),
        TypeError,
    ),
    *each(
        lambda x: data.load_moving_sequences(num_sequences=x),
        ("load_moving_sequences", "num_sequences"),
        ((1, 1), (1, 1, 0)),
    ),
    *count(lambda n: data.load_moving_sequences(length=n), ("load_moving_sequences", "length"), 0),
    *count(lambda n: data.load_moving_sequences(size=n), ("load_moving_sequences", "size"), 20, 26),
    *count(lambda n: data.load_moving_sequences(seed=n), ("load_moving_sequences", "seed"), -1),
    *count(lambda n: data.load_moving_shapes(max_objects=n), ("max_objects",), 0),
    *count(lambda n: data.load_rendered_scenes(num_train=n), ("load_rendered_scenes", "num_train"), 0),
    *count(lambda n: data.load_rendered_scenes(size=n), ("load_rendered_scenes", "size"), 1),
    *count(lambda n: data.load_rendered_scenes(seed=n), ("load_rendered_scenes", "seed"), -1),
    *each(lambda key: data.sample_scene(key), ("sample_scene", "key"), (0, None, X), TypeError),
    *each(lambda key: data.random_scenes(key), ("random_scenes", "keys"), (0, None, X), TypeError),
    Bad(lambda: read_idx("nowhere.gz", 3), ("read_idx", "shape"), TypeError),  # type: ignore[arg-type]
    # Vocabularies.
    *each(lambda x: data.Vocabulary(x), ("Vocabulary", "values"), ("ab", ["a"], None), TypeError),
    Bad(lambda: data.Vocabulary(("a", "a")), ("Vocabulary", "values")),
    *each(lambda x: data.Vocabulary(("a",), unknown=x), ("Vocabulary", "unknown"), ("0", 0.0, None, True), TypeError),
    Bad(lambda: data.Vocabulary(("a",), unknown=0), ("Vocabulary", "unknown")),
    *each(lambda x: data.Vocabulary(("a",), reserved=x), ("Vocabulary", "reserved"), ("?", [1], (1,)), TypeError),
    *count(lambda n: data.build_vocabulary("abc", unknown=-1, min_count=n), ("build_vocabulary", "min_count"), 0),
    Bad(lambda: data.build_vocabulary("abc", unknown=-1, min_count=2), ("build_vocabulary", "values")),
    Bad(lambda: data.build_vocabulary(3, unknown=-1), ("build_vocabulary", "values"), TypeError),  # type: ignore[arg-type]
    # Views.
    *each(lambda x: views.add(BATCH, KEY, x), ("add", "views"), (None, [views.rotation()], "jigsaw"), TypeError),
    Bad(lambda: views.add(BATCH, KEY, {}), ("add", "views")),
    *each(lambda x: views.add(BATCH, KEY, {"view": x}), ("add", "views['view']"), NO_FUNCTIONS, TypeError),
    *each(lambda x: views.add(x, KEY, VIEWS), ("add", "batch"), NO_BATCHES, TypeError),
    *each(lambda x: views.add(BATCH, x, VIEWS), ("add", "key"), (0, None, X), TypeError),
    Bad(lambda: views.add(BATCH, KEY, {"a": views.autoencoding()}), ("add", "'a'")),
    Bad(lambda: views.add({"b": BATCH}, KEY, VIEWS), ("add", "'jigsaw'")),
    Bad(lambda: views.add(BATCH, KEY, {"view": lambda key, x: x}), ("add", "'view'"), TypeError),
    *each(lambda x: views.with_views(x, VIEWS), ("with_views", "losses_fn"), NO_FUNCTIONS, TypeError),
    *each(lambda x: views.with_views(print, x), ("with_views", "views"), (None, "jigsaw"), TypeError),
    *count(lambda n: views.with_views(print, VIEWS, seed=n), ("with_views", "seed"), -1),
    Bad(lambda: views.with_views(print, VIEWS)(None, None, BATCH, None, True), ("with_views", "key")),
    *each(lambda x: views.evaluation_batches(x, 2, VIEWS), ("evaluation_batches", "batch"), NO_BATCHES, TypeError),
    *count(lambda n: views.evaluation_batches(BATCH, n, VIEWS), ("evaluation_batches", "batch_size"), 0),
    *count(lambda n: views.crop(n), ("crop", "pixels"), 0, -1),
    *count(lambda n: views.cutout(n), ("cutout", "side"), 0),
    *number(lambda x: views.flip(probability=x), ("flip", "probability"), -0.1, 1.1),
    *number(lambda x: views.noise(x), ("noise", "std"), 0.0, -1.0, INF),
    *number(lambda x: views.denoising(x), ("denoising", "std"), 0.0, INF),
    Bad(lambda: views.chain(), ("chain", "augmentations")),
    *each(lambda x: views.chain(x), ("chain", "augmentation"), NO_FUNCTIONS, TypeError),
    *each(lambda x: views.contrastive_pairs(x), ("contrastive_pairs", "first"), NO_FUNCTIONS, TypeError),
    *each(
        lambda x: views.contrastive_pairs(views.flip(), x), ("contrastive_pairs", "second"), ("flip", 1.0), TypeError
    ),
    *each(lambda x: views.on_pairs(x), ("on_pairs", "network"), (nn.Dense(4), None), TypeError),
    *each(lambda x: views.jigsaw(x), ("jigsaw", "grid"), ("2", 2.0, None, True, (2, 2.0)), TypeError),
    *each(lambda x: views.jigsaw(x), ("jigsaw", "grid"), (0, 1, (2,), (2, 2, 2), 3)),
    *each(
        lambda x: views.jigsaw(permutations=x), ("jigsaw", "permutations"), ("abcd", [[0.0, 1.0, 2.0, 3.0]]), TypeError
    ),
    *each(
        lambda x: views.jigsaw(permutations=x),
        ("jigsaw", "permutations"),
        ([0, 1, 2, 3], [[0, 1, 2, 2]], [[0, 1, 2, 3]]),
    ),
    *count(lambda n: views.far_permutations(n, 2), ("far_permutations", "cells"), 1, 10),
    *count(lambda n: views.far_permutations(4, n), ("far_permutations", "count"), 1),
    *each(lambda x: views.masked_cells(x), ("masked_cells", "cell"), ("2", 2.0, None), TypeError),
    *number(lambda x: views.masked_cells(2, ratio=x), ("masked_cells", "ratio"), 0.0, 1.0),
    *each(lambda x: views.masked_cells(2, hidden_only=x), ("masked_cells", "hidden_only"), NO_FLAGS, TypeError),
    *each(lambda x: views.hidden_loss(x), ("hidden_loss", "loss"), NO_FUNCTIONS, TypeError),
    *count(lambda n: views.super_resolution(n), ("super_resolution", "factor"), 1),
    *each(lambda x: views.super_resolution(2, keep_size=x), ("super_resolution", "keep_size"), NO_FLAGS, TypeError),
    *each(lambda x: views.colorization(keep_channels=x), ("colorization", "keep_channels"), NO_FLAGS, TypeError),
    *(
        bad
        for name, view in {
            "rotation": views.rotation(),
            "jigsaw": views.jigsaw(),
            "masked_cells": views.masked_cells(2),
            "denoising": views.denoising(0.1),
            "colorization": views.colorization(),
            "super_resolution": views.super_resolution(2),
        }.items()
        for bad in (
            *each(lambda x, view=view: view(KEY, x), (name, "images"), (None, "image", [1.0]), TypeError),
            *each(lambda x, view=view: seen(view, x), (name, "images"), (X, np.ones((2, 0, 4, 3), np.float32))),
        )
    ),
    Bad(lambda: seen(views.denoising(0.1), IMAGES.astype(np.uint8)), ("denoising", "floating"), TypeError),
    Bad(lambda: seen(views.colorization(), IMAGES[..., :1]), ("colorization", "channels")),
    Bad(lambda: seen(views.rotation(), IMAGES[:, :2]), ("rotation", "square")),
    Bad(lambda: seen(views.jigsaw(), IMAGES[:, :3]), ("jigsaw", "grid")),
    *count(lambda n: views.masked_tokens(n, 0), ("masked_tokens", "vocabulary"), 0),
    *count(lambda n: views.masked_tokens(9, n), ("masked_tokens", "mask_id"), -1),
    Bad(lambda: views.masked_tokens(9, 9), ("masked_tokens", "9")),
    Bad(lambda: views.masked_tokens(9, 0), ("masked_tokens", "mask_id", "padding")),
    *each(lambda x: views.masked_tokens(9, 1, special=x), ("masked_tokens", "special"), (2, "23", (2.0,)), TypeError),
    *each(
        lambda x: views.masked_tokens(9, 1, replace=x),
        ("masked_tokens", "replace"),
        ("all", None, ("1", 0, 0)),
        TypeError,
    ),
    *each(
        lambda x: views.masked_tokens(9, 1, replace=x),
        ("masked_tokens", "replace"),
        ((1, 0), (0.5, 0.5, 0.5), (-1, 1, 1)),
    ),
    *each(lambda x: views.masked_tokens(9, 1, select=x), ("masked_tokens", "select"), ("all", 1), TypeError),
    *each(lambda x: views.masked_tokens(9, 1, padding=x), ("masked_tokens", "padding"), ("0", 0.5), TypeError),
    *number(lambda x: views.subset(x), ("subset", "rate"), 0.0, 1.0),
    *number(lambda x: views.span(x), ("span", "rate"), 0.0, 1.0),
    Bad(lambda: views.span(0.5, at="left"), ("span", "at")),  # type: ignore[arg-type]
    Bad(lambda: views.span(0.5, at=3), ("span", "at"), TypeError),  # type: ignore[arg-type]
    *number(lambda x: views.next_sentence(negatives=x), ("next_sentence", "negatives"), 0.0, 1.0),
    *each(lambda x: views.next_token(padding=x), ("next_token", "padding"), ("0", 0.5), TypeError),
    Bad(lambda: seen(views.next_token(), TOKENS.astype(np.float32)), ("next_token", "integers"), TypeError),
    Bad(lambda: seen(views.next_token(), TOKENS[0]), ("next_token", "[B, L]")),
    Bad(lambda: views.next_token()(KEY, "text"), ("next_token", "integers"), TypeError),
    *count(lambda n: views.cbow(n), ("cbow", "window"), 0),
    *each(lambda x: views.cbow(2, shrink=x), ("cbow", "shrink"), NO_FLAGS, TypeError),
    *count(lambda n: views.skip_gram(n, 2, np.ones(4)), ("skip_gram", "window"), 0),
    *count(lambda n: views.skip_gram(2, n, np.ones(4)), ("skip_gram", "negatives"), 0),
    *number(lambda x: views.skip_gram(2, 2, np.ones(4), power=x), ("skip_gram", "power"), -1.0, INF),
    *each(lambda x: views.skip_gram(2, 2, x), ("skip_gram", "counts"), ("four", None, np.ones(4, bool)), TypeError),
    *each(lambda x: views.skip_gram(2, 2, x), ("skip_gram", "counts"), (4, -np.ones(4), np.zeros(4), np.ones((2, 2)))),
    # Generated regressions.
    *count(lambda n: clustered(num_clusters=n), ("clustered_linear", "num_clusters"), 0),
    *count(lambda n: clustered(num_examples=n), ("clustered_linear", "num_examples"), 0),
    *number(lambda x: clustered(within=x), ("clustered_linear", "within"), -1.0, INF),
    *number(lambda x: clustered(noise=x), ("clustered_linear", "noise"), -1.0),
    *each(lambda key: clustered(key=key), ("clustered_linear", "key"), (0, None, X), TypeError),
    Bad(lambda: clustered(example_key=0), ("clustered_linear", "example_key"), TypeError),
    *count(lambda n: synthetic.gradnorm_toy(KEY, n, num_examples=2), ("gradnorm_toy", "num_tasks"), 0),
    *number(
        lambda x: synthetic.gradnorm_toy(KEY, 2, num_examples=2, task_variance=x),
        ("gradnorm_toy", "task_variance"),
        -1.0,
    ),
    *each(
        lambda x: synthetic.gradnorm_toy(KEY, 2, num_examples=2, scales=x),
        ("gradnorm_toy", "scales"),
        ([1.0], 1.0, [0.0, 1.0]),
    ),
    Bad(lambda: synthetic.gradnorm_toy(KEY, 2, num_examples=2, scales="large"), ("gradnorm_toy", "scales"), TypeError),  # type: ignore[arg-type]
    *number(lambda x: synthetic.mmoe_toy(KEY, p=x, num_examples=2), ("mmoe_toy", "p"), -1.1, 1.1),
    *count(lambda n: synthetic.mmoe_toy(KEY, p=0.5, num_examples=2, num_features=n), ("mmoe_toy", "num_features"), 1),
    *each(
        lambda x: synthetic.mmoe_toy(KEY, p=0.5, num_examples=2, alpha=x), ("mmoe_toy", "alpha"), (1.0, [NAN], [[1.0]])
    ),
    Bad(
        lambda: synthetic.mmoe_toy(KEY, p=0.5, num_examples=2, alpha=[1.0], beta=[1.0, 2.0]),
        ("mmoe_toy", "alpha", "beta"),
    ),
    *number(lambda x: synthetic.same_function(KEY, 2, noise=x, num_examples=2), ("same_function", "noise"), -0.1, 1.1),
    *count(lambda n: synthetic.same_function(KEY, n, noise=0.1, num_examples=2), ("same_function", "num_tasks"), 0),
    *each(lambda x: synthetic.noise_task(x, KEY), ("noise_task", "batch"), NO_BATCHES, TypeError),
    *each(lambda key: synthetic.noise_task(BATCH, key), ("noise_task", "key"), (0, None), TypeError),
    Bad(lambda: synthetic.noise_task(BATCH, KEY, task="a"), ("noise_task", "task", "'a'")),
    Bad(lambda: synthetic.noise_task(BATCH, KEY, task=1), ("noise_task", "task"), TypeError),  # type: ignore[arg-type]
    *each(lambda x: synthetic.noise_task(BATCH, KEY, shape=x), ("noise_task", "shape"), (3, (2.0,), "3"), TypeError),
    *each(
        lambda n: synthetic.noise_task(BATCH, KEY, num_classes=n), ("noise_task", "num_classes"), ("2", 2.0), TypeError
    ),
    Bad(lambda: synthetic.noise_task(BATCH, KEY, num_classes=1), ("noise_task", "num_classes")),
    # Weights of classes.
    *count(lambda n: losses.class_counts(np.arange(2), n), ("class_counts", "num_classes"), 0),
    *each(
        lambda x: losses.class_counts(x, 4),
        ("class_counts", "targets"),
        ("ab", None, 1j),
        TypeError,
    ),
    Bad(lambda: losses.class_counts(np.arange(4), 3), ("class_counts", "targets")),
    *each(
        lambda m: losses.class_counts(np.zeros(4, int), 2, mask=m), ("class_counts", "mask"), NO_WEIGHTS[1:], TypeError
    ),
    Bad(lambda: losses.class_counts(np.zeros(4, int), 2, mask=np.ones(3, bool)), ("class_counts", "mask")),
    *each(
        lambda x: losses.inverse_frequency(x),
        ("inverse_frequency", "counts"),
        ("ab", None, np.ones(2, bool)),
        TypeError,
    ),
    *each(
        lambda x: losses.inverse_frequency(x),
        ("inverse_frequency", "counts"),
        (1.0, [0, 0], [-1, 2], [NAN], np.ones((2, 2))),
    ),
    *each(lambda x: losses.effective_number([1, 2], beta=x), ("effective_number", "beta"), ("1", 1j, True), TypeError),
    *each(lambda x: losses.effective_number([1, 2], beta=x), ("effective_number", "beta"), (-0.1, 1.0, NAN)),
    *each(lambda x: losses.sampling_weights(x, {"a": [1.0]}), ("sampling_weights", "batch"), NO_BATCHES, TypeError),
    *each(lambda x: losses.sampling_weights(BATCH, x), ("sampling_weights", "weights"), (None, [1.0], "a"), TypeError),
    *each(
        lambda x: losses.sampling_weights(BATCH, x),
        ("sampling_weights", "weights"),
        ({}, {"b": [1.0]}, {"a": [-1.0] * 4}, {"a": [NAN] * 4}, {"a": 1.0}),
    ),
]
