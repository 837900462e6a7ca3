"""DSelect-k: the smooth step, its binary selectors, and gates that end with k experts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax
from mtljax.sharing import Network
from mtljax.sharing.dselect_k import _entropy, _selectors, _smooth_step, dselect_k
from mtljax.types import Batch, Params, Regularized

X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)


def plain(fun):
    """A network without parameters."""
    return Network(lambda key, x: ((), ()), lambda p, state, x, *, key=None, train=False: (fun(x), state))


def step_by_hand(t, gamma):
    if abs(t) >= gamma / 2:
        return float(t > 0)
    return -2 / gamma**3 * t**3 + 3 / (2 * gamma) * t + 0.5


def selectors_by_hand(z, count, gamma):
    """Equation by equation; z is one selector's bits. Codes beyond the last expert begin again at the first."""
    weights = np.zeros(count)
    for code in range(2 ** len(z)):
        ones = {bit for bit in range(len(z)) if code >> bit & 1}
        steps = [step_by_hand(t, gamma) for t in z]
        weight = np.prod([steps[bit] if bit in ones else 1 - steps[bit] for bit in range(len(z))])
        weights[code if code < count else code - count] += weight
    return weights


def test_the_smooth_step_is_cubic_between_exact_ends():
    step = jax.jit(_smooth_step)
    for gamma in (0.1, 1.0, 10.0):
        t = gamma * np.array([-9.0, -0.5001, -0.5, -0.3, 0.0, 0.2, 0.5, 0.5001, 9.0], np.float32)
        found = np.asarray(step(t, gamma))
        np.testing.assert_allclose(found, [step_by_hand(float(each), gamma) for each in t], atol=1e-6)
        assert found[:2].tolist() == [0.0, 0.0] and found[4] == 0.5 and found[-2:].tolist() == [1.0, 1.0]


selectors = jax.jit(_selectors, static_argnums=(1, 2))


@pytest.mark.parametrize("count", [4, 5, 7])
def test_selectors_are_products_over_bits_and_always_sum_to_one(count):
    bits = (count - 1).bit_length()
    z = np.random.default_rng(count).uniform(-0.7, 0.7, size=(6, 2, bits)).astype(np.float32)
    found = np.asarray(selectors(z, count, 1.0))
    expected = [[selectors_by_hand(each, count, 1.0) for each in row] for row in z.astype(np.float64)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(-1), 1.0, rtol=1e-6)


def test_decided_bits_give_one_expert_all_the_weight_exactly_and_no_nan():
    codes = np.arange(8)
    z = np.where(codes[:, None, None] >> np.arange(3) & 1, 0.6, -0.6).astype(np.float32)
    np.testing.assert_array_equal(selectors(z, 5, 1.0)[:, 0], np.eye(5)[[0, 1, 2, 3, 4, 0, 1, 2]])
    value, slope = disorder(z)
    assert value == 0.0 and not np.any(slope)
    # At the very edge of the slope the derivative of r log r is 0 times infinity; the limit is 0.
    for edge in (0.5, 0.4999999):
        assert np.all(np.isfinite(disorder(np.full((8, 1, 3), edge, np.float32))[1]))


@jax.jit
@jax.value_and_grad
def disorder(z):
    return jnp.sum(_entropy(_selectors(z, 5, 1.0)))


def test_the_entropy_and_its_derivative():
    z = np.random.default_rng(1).uniform(-0.45, 0.45, size=(8, 1, 3))

    def by_hand(z):
        weights = np.array([selectors_by_hand(each, 5, 1.0) for each in z.reshape(-1, 3)])
        return float(-np.sum(weights * np.log(weights)))

    value, slope = disorder(z.astype(np.float32))
    np.testing.assert_allclose(value, by_hand(z), rtol=1e-5)
    moves = 1e-6 * np.eye(z.size).reshape(-1, *z.shape)
    differences = [(by_hand(z + move) - by_hand(z - move)) / 2e-6 for move in moves]
    np.testing.assert_allclose(np.ravel(slope), differences, rtol=1e-3, atol=1e-4)


def mixed_by_hand(alpha, z, gamma, factors, x):
    """The mixture, and the entropy of all selectors, where expert i multiplies its input by factors[i]."""
    alpha = np.exp(np.asarray(alpha, np.float64))
    each = [selectors_by_hand(bits, len(factors), gamma) for bits in np.asarray(z, np.float64)]
    weights = sum(share * selector for share, selector in zip(alpha / alpha.sum(), each, strict=True))
    entropy = -sum(np.sum(selector[selector > 0] * np.log(selector[selector > 0])) for selector in each)
    return (weights @ factors) * np.asarray(x, np.float64), entropy


FACTORS = np.array([1.0, -2.0, 3.0, 5.0, -7.0])
EXPERTS = [plain(lambda x, f=factor: x * f) for factor in FACTORS]
HEADS = {"depth": plain(lambda x: x), "label": plain(lambda x: x)}
DRAWN = np.random.default_rng(2)


def test_static_gates_against_the_equations():
    model = dselect_k(EXPERTS, HEADS, num_selected=2, gamma=0.8, entropy=0.3)
    params, state = jax.eval_shape(model.init, jax.random.key(0), X)
    assert jax.tree.map(jnp.shape, params.tasks["label"]) == {"gate": {"alpha": (2,), "z": (2, 3)}, "head": ()}
    gates = {task: {"alpha": DRAWN.normal(size=2), "z": DRAWN.uniform(-0.5, 0.5, size=(2, 3))} for task in HEADS}
    params = Params(params.shared, {t: {"gate": jax.tree.map(jnp.float32, gates[t]), "head": ()} for t in HEADS})
    outputs, _ = jax.jit(model.apply)(params, state, X)
    for task, gate in gates.items():
        mixture, _ = mixed_by_hand(gate["alpha"], gate["z"], 0.8, FACTORS, X)
        np.testing.assert_allclose(outputs[task], mixture, rtol=1e-4, atol=1e-5)
    own = Params(params.shared, {"label": params.tasks["label"]})
    trained, _ = jax.jit(lambda *args: model.apply(*args, tasks=("label",), train=True))(own, state, X)
    assert isinstance(trained["label"], Regularized) and sorted(trained) == ["label"]
    np.testing.assert_allclose(trained["label"].outputs, outputs["label"], rtol=1e-6)
    np.testing.assert_allclose(
        trained["label"].term,
        0.3 * mixed_by_hand(gates["label"]["alpha"], gates["label"]["z"], 0.8, FACTORS, X)[1],
        rtol=1e-4,
    )


def test_per_example_gates_against_the_equations():
    model = dselect_k(EXPERTS, {"a": HEADS["depth"]}, num_selected=2, gamma=2.0, entropy=0.3, per_example=True)
    params, state = jax.eval_shape(model.init, jax.random.key(0), X)
    assert params.tasks["a"]["gate"].shape == (3, 2 * (1 + 3))
    w = DRAWN.normal(size=(3, 8)) * 0.3
    params = Params(params.shared, {"a": {"gate": jnp.float32(w), "head": ()}})
    found, _ = jax.jit(lambda *args: model.apply(*args, train=True))(params, state, X)
    by_hand = []
    for x in np.asarray(X, np.float64):
        logits = x @ w
        by_hand.append(mixed_by_hand(logits[:2], logits[2:].reshape(2, 3), 2.0, FACTORS, x))
    np.testing.assert_allclose(found["a"].outputs, [mixture for mixture, _ in by_hand], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["a"].term, 0.3 * np.mean([entropy for _, entropy in by_hand]), rtol=1e-4)


def test_it_starts_with_all_codes_alike():
    static, read = (
        dselect_k(EXPERTS[:4], {"a": HEADS["depth"]}, num_selected=1, gamma=2.0, per_example=per_example)
        for per_example in (False, True)
    )
    gates = jax.jit(lambda key: [model.init(key, X)[0].tasks["a"]["gate"] for model in (static, read)])
    own, linear = gates(jax.random.key(0))
    for alpha, z in ((own["alpha"], own["z"]), (linear[:, :1], linear[:, 1:])):
        assert not np.any(alpha)
        assert 0.005 < np.abs(z).max() <= 0.02


@pytest.mark.parametrize("per_example", [False, True])
def test_one_expert_needs_no_bits_and_no_entropy_is_no_term(per_example):
    model = dselect_k(EXPERTS[1:2], {"a": HEADS["depth"]}, num_selected=1, entropy=0.0, per_example=per_example)
    gate = np.ones((3, 1)) if per_example else {"alpha": np.ones(1), "z": np.ones((1, 0))}
    gate = jax.tree.map(jnp.float32, gate)
    state = jax.eval_shape(model.init, jax.random.key(0), X)[1]
    params = Params({"expert/0": ()}, {"a": {"gate": gate, "head": ()}})
    outputs, _ = jax.jit(lambda *args: model.apply(*args, train=True))(params, state, X)
    np.testing.assert_array_equal(outputs["a"], -2 * np.asarray(X))


@pytest.mark.slow
def test_training_by_the_librarys_losses_ends_with_k_experts_and_zeros_elsewhere():
    # Expert i gives the unit vector i, so the mixture shows the weights; the target asks for two of the five.
    experts = [plain(lambda x, unit=unit: x * unit[None, :]) for unit in np.eye(5, dtype=np.float32)]
    model = dselect_k(experts, {"a": plain(lambda x: x)}, num_selected=2, entropy=0.1)
    f = mtljax.make_losses_fn(model, {"a": mtljax.Task(lambda z, y: jnp.sum((z - y) ** 2, axis=1))})
    x, wanted = jnp.ones((2, 1)), np.array([0.0, 0.65, 0.0, 0.35, 0.0], np.float32)
    params, state = jax.jit(model.init)(jax.random.key(0), x)
    batch = Batch(x, {"a": jnp.tile(wanted, (2, 1))})

    def loss(params):
        losses, report = f(params, state, batch, None, True)
        return losses["a"], report.metrics["a"]["regularization"]

    @jax.jit
    def descend(params):
        def move(params, _):
            gradient, term = jax.grad(loss, has_aux=True)(params)
            return jax.tree.map(lambda p, g: p - 0.05 * g, params, gradient), term

        return jax.lax.scan(move, params, None, length=500)

    params, terms = descend(params)
    assert terms[0] > 0.2 and terms[-1] < 1e-5
    weights = np.asarray(jax.jit(model.apply)(params, state, x)[0]["a"])[0]
    assert np.count_nonzero(weights) == 2
    np.testing.assert_allclose(weights, wanted, atol=1e-3)


def started(inputs=X, **options):
    return jax.eval_shape(dselect_k(EXPERTS, HEADS, **options).init, jax.random.key(0), inputs)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: dselect_k(EXPERTS, HEADS, num_selected=6), ValueError, "num_selected must be from 1 to 5, found 6"),
        (lambda: dselect_k(EXPERTS, HEADS, num_selected=0), ValueError, "num_selected must be from 1 to 5, found 0"),
        (lambda: dselect_k(EXPERTS, HEADS, gamma=0.0), ValueError, "dselect_k: gamma must be above 0, found 0.0"),
        (
            lambda: dselect_k(EXPERTS, HEADS, gamma=float("nan")),
            ValueError,
            "dselect_k: gamma must be above 0, found nan",
        ),
        (lambda: dselect_k(EXPERTS, HEADS, entropy=-1), ValueError, "dselect_k: entropy must be at least 0, found -1"),
        (
            lambda: dselect_k(EXPERTS, HEADS, gate=HEADS["depth"]),
            ValueError,
            "dselect_k: per_example must be True where a gate is given, found False",
        ),
        (
            lambda: started(per_example=True, gate=HEADS["depth"]),
            ValueError,
            "dselect_k: the gate must return logits [B, 8], found [4, 3]",
        ),
        (
            lambda: started(X[:, :, None], per_example=True),
            ValueError,
            "dselect_k: a default gate's inputs must be [B, d], found [4, 3, 1]",
        ),
        (lambda: dselect_k(EXPERTS[0], HEADS), TypeError, "dselect_k: num_experts must be an integer, found None"),
    ],
)
def test_mistakes_get_messages(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)
