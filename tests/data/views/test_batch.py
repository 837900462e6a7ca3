"""From views to tasks: batches, masks, keys, and a step in which all of it runs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax
from mtljax import Batch, Task, TaskInputs
from mtljax.data import views
from mtljax.losses import nt_xent, softmax_cross_entropy, squared_error
from mtljax.sharing import Network, hard
from mtljax.sharing.frames.network import key_for

KEY = jax.random.key(1)
X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4, 4, 1)), jnp.float32)
LABELS, HAVE = jnp.array([1, 0, 2, 1]), jnp.array([True, False, True, False])
BATCH = Batch(X, {"label": LABELS}, {"label": HAVE})


def negated(key, x):
    return -x, x


def noisy(key, x):
    noise = jax.random.normal(key, x.shape)
    return x + noise, noise, jnp.arange(len(x)) > 0


def network(size):
    def init(key, x):
        return 0.3 * jax.random.normal(key, (x[0].size, size)), ()

    def apply(w, state, x, *, key=None, train=False):
        return jnp.tanh(x.reshape(len(x), -1) @ w), state

    return views.on_pairs(Network(init, apply))


def test_a_batch_has_a_task_more_for_each_view():
    batch = views.add(BATCH, KEY, {"negate": negated, "noise": noisy})
    assert isinstance(batch.inputs, TaskInputs)
    assert sorted(batch.inputs.by_task) == sorted(batch.targets) == ["label", "negate", "noise"]
    np.testing.assert_array_equal(batch.inputs.by_task["label"], X)
    np.testing.assert_array_equal(batch.inputs.by_task["negate"], -X)
    np.testing.assert_array_equal(batch.targets["label"], LABELS)
    assert sorted(batch.mask) == ["label", "noise"]
    assert batch.mask["label"].tolist() == HAVE.tolist()
    assert batch.mask["noise"].tolist() == [False, True, True, True]
    # A mask that the batch has for a view counts too.
    masked = views.add(BATCH._replace(mask={"noise": HAVE, "negate": HAVE}), KEY, {"negate": negated, "noise": noisy})
    assert masked.mask["noise"].tolist() == [False, False, True, False]
    assert masked.mask["negate"].tolist() == HAVE.tolist()


def test_a_view_draws_alike_whichever_others_there_are():
    alone = views.add(BATCH, KEY, {"noise": noisy})
    beside = views.add(BATCH, KEY, {"a": noisy, "noise": noisy})
    np.testing.assert_array_equal(alone.targets["noise"], beside.targets["noise"])
    assert (beside.targets["a"] != beside.targets["noise"]).all()


def test_a_multi_input_batch_takes_views_of_each_tasks_own_examples():
    batch = {"label": Batch(X[:1], {"label": LABELS[:1]}), "noise": Batch(X, {}, {"noise": HAVE})}
    found = views.add(batch, KEY, {"noise": noisy})
    assert found["label"] is batch["label"]
    np.testing.assert_allclose(found["noise"].inputs - found["noise"].targets["noise"], X, atol=1e-6)
    assert found["noise"].mask["noise"].tolist() == [False, False, True, False]


def losses_fn(params, state, batch, key=None, train=False):
    """What the inner loss function was given."""
    return batch.targets["noise"], (key, train)


def test_views_are_fresh_in_training_and_fixed_in_evaluation():
    f = views.with_views(losses_fn, {"noise": noisy})
    first, (key, train) = f((), (), BATCH, KEY, True)
    assert train
    assert (first == f((), (), BATCH, KEY, True)[0]).all()
    assert (first != f((), (), BATCH, jax.random.key(2), True)[0]).all()
    assert key != KEY
    still, (key, train) = f((), (), BATCH)
    assert (key, train) == (None, False)
    assert (still == f((), (), BATCH, KEY, False)[0]).all()
    assert (still != views.with_views(losses_fn, {"noise": noisy}, seed=1)((), (), BATCH)[0]).all()
    with pytest.raises(ValueError, match="with_views: key must be given in training, since views are drawn from it"):
        f((), (), BATCH, None, True)


@pytest.mark.slow
def test_a_step_trains_supervised_and_self_supervised_tasks_together():
    heads = {"fill": network(16), "label": network(3), "match": network(2)}
    model = hard(network(6), heads)
    tasks = {
        "fill": Task(lambda z, y: squared_error(z, y.reshape(len(y), -1))),
        "label": Task(softmax_cross_entropy),
        "match": Task(nt_xent()),
    }
    chosen = {"fill": views.masked_cells(2, ratio=0.5), "match": views.contrastive_pairs(views.noise(1.0))}
    f = views.with_views(mtljax.make_losses_fn(model, tasks), chosen)
    init, step = mtljax.training.make_train_step(f, mtljax.methods.equal(), optax.sgd(0.1))
    params, model_state = model.init(KEY, X)
    state = init(params, model_state, key=KEY)
    traced = jax.jit(step).trace(state, BATCH)
    assert "callback" not in str(traced.jaxpr)
    compiled = traced.lower().compile()
    new, metrics = compiled(state, BATCH)
    assert all(bool(on) for on in metrics["active"].values())
    assert all(np.isfinite(loss) for loss in metrics["losses"].values())
    for old, moved in zip(jax.tree.leaves(params), jax.tree.leaves(new.params), strict=True):
        assert (old != moved).any()
    # The same batch again, another step: other views; the label's loss has not changed but through the parameters.
    again, _ = compiled(state._replace(step=state.step + 1), BATCH)
    assert (again.params.tasks["fill"] != new.params.tasks["fill"]).any()
    np.testing.assert_array_equal(again.params.tasks["label"], new.params.tasks["label"])


def test_evaluation_counts_every_example_once_and_draws_alike_each_time():
    found = list(views.evaluation_batches(BATCH, 3, {"negate": negated, "noise": noisy}))
    assert [batch.mask["label"].tolist() for batch in found] == [[True, False, True], [False, False, False]]
    assert [batch.mask["negate"].tolist() for batch in found] == [[True] * 3, [True, False, False]]
    assert [batch.mask["noise"].tolist() for batch in found] == [[False, True, True], [False] * 3]
    again = list(views.evaluation_batches(BATCH, 3, {"noise": noisy}))
    np.testing.assert_array_equal(found[1].targets["noise"], again[1].targets["noise"])
    assert (found[0].targets["noise"][0] != found[1].targets["noise"][0]).all()


def test_an_evaluation_scores_the_same_views_each_time_each_example_once():
    def noise(key, x):
        return jax.random.normal(key, x.shape), jnp.zeros(x.shape)

    model = mtljax.Model(None, lambda params, state, x, *, tasks=None, key=None, train=False: (x.by_task, state))
    data = Batch(X, {})
    evaluate = mtljax.training.make_evaluate(model, {"noise": Task(squared_error)})
    batches = lambda: views.evaluation_batches(data, 3, {"noise": noise}, seed=5)  # noqa: E731
    state = mtljax.TrainState(0, mtljax.Params((), {"noise": ()}), (), (), (), None)
    keys = [key_for(jax.random.fold_in(jax.random.key(5), i), "noise") for i in range(2)]
    first, second = (np.square(jax.random.normal(key, (3, *X.shape[1:]))) for key in keys)
    np.testing.assert_allclose(evaluate(state, batches())["noise"]["loss"], np.mean([*first, second[0]]), rtol=1e-6)
    assert evaluate(state, batches()) == evaluate(state, batches())
    with pytest.raises(TypeError, match="evaluation_batches: batch must be a Batch, found a dict"):
        next(views.evaluation_batches({"noise": data}, 3, {"noise": noise}))


@pytest.mark.parametrize(
    ("batch", "chosen", "error", "message"),
    [
        (BATCH, {}, ValueError, r"add: views must be at least one view by task name, found \{\}"),
        (X, {"a": negated}, TypeError, "add: batch must be a Batch, or a dict of Batch by task name"),
        (BATCH, {"label": negated}, ValueError, "the batch has targets for task 'label' already"),
        (BATCH._replace(inputs=TaskInputs({"label": X})), {"a": negated}, ValueError, "are TaskInputs already"),
        (Batch((), {}), {"a": negated}, ValueError, r"the inputs of the batch must be arrays \[B, ...\]"),
        ({"label": BATCH}, {"a": negated}, ValueError, r"an entry for view 'a', found entries for \['label'\]"),
        ({"a": Batch(X, {"a": X})}, {"a": negated}, ValueError, "the batch of task 'a' has targets for task 'a'"),
        (BATCH, {"a": lambda key, x: x}, TypeError, "view 'a' must return a tuple .* found"),
        (BATCH, {"a": lambda key, x: views.Pair(x, x)}, TypeError, "view 'a' must return a tuple .* found Pair"),
        (
            BATCH,
            {"a": lambda key, x: (x[:2], x)},
            ValueError,
            r"inputs of view 'a' must be \[4, ...\], found \[2, 4, 4, 1\]",
        ),
        (BATCH, {"a": lambda key, x: (x, 1.0)}, ValueError, r"targets of view 'a' must be \[4, ...\], found \[\]"),
        (
            BATCH,
            {"a": lambda key, x: (x, x, LABELS)},
            TypeError,
            r"mask of view 'a' must be of dtype bool, .* found int32",
        ),
    ],
)
def test_mistakes_are_named(batch, chosen, error, message):
    with pytest.raises(error, match=message):
        views.add(batch, KEY, chosen)


def test_no_views_are_refused_before_the_step():
    with pytest.raises(ValueError, match=r"with_views: views must be at least one view by task name, found \{\}"):
        views.with_views(losses_fn, {})
