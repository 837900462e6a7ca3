"""Three tasks on images of two real digits, trained in three ways: a table in under a minute, offline."""

import jax
import optax
from flax import linen as nn

import mtljax
from mtljax.adapters.flax_linen import from_linen

TASKS = {
    "left": mtljax.Task(mtljax.losses.softmax_cross_entropy, {"accuracy": mtljax.metrics.accuracy}),
    "right": mtljax.Task(mtljax.losses.softmax_cross_entropy, {"accuracy": mtljax.metrics.accuracy}),
    "sum": mtljax.Task(mtljax.losses.huber(), {"error": mtljax.metrics.absolute_error}),  # half its labels are missing
}


def main(steps: int = 600, data_dir: str = "outputs/multi_digits/data") -> None:
    """Train, test, print the table."""
    data = mtljax.data.load("multi_digits", data_dir=data_dir)
    train, test = (data[part]._replace(targets={k: data[part].targets[k] for k in TASKS}) for part in ("train", "test"))
    trunk = from_linen(nn.Sequential([lambda x: x.reshape(len(x), -1), nn.Dense(192), nn.relu, nn.Dense(192), nn.relu]))
    heads = {"left": nn.Dense(10), "right": nn.Dense(10), "sum": nn.Sequential([nn.Dense(1), lambda x: x[:, 0]])}
    heads = {task: from_linen(head) for task, head in heads.items()}
    shared, apart = mtljax.sharing.hard(trunk, heads), mtljax.sharing.single_task(trunk, heads)
    rows = {"single-task": (apart, mtljax.methods.equal()), "equal weighting": (shared, mtljax.methods.equal())}
    print(f"{'method':16}{'left %':>8}{'right %':>9}{'sum, error':>12}")
    for row, (model, method) in (rows | {"IMTL-G": (shared, mtljax.methods.imtl_g())}).items():
        init, step = mtljax.training.make_train_step(mtljax.make_losses_fn(model, TASKS), method, optax.adam(2e-3))
        state = init(jax.random.key(0), train.inputs[:1])
        batches = mtljax.data.batches(train, batch_size=128, seed=0)
        state = mtljax.training.fit(mtljax.training.jit(step), state, batches, num_steps=steps).state
        evaluate = mtljax.training.make_evaluate(model, TASKS)
        found = evaluate(state, mtljax.data.evaluation_batches(test, 500))
        left, right = 100 * found["left"]["accuracy"], 100 * found["right"]["accuracy"]
        print(f"{row:16}{left:8.1f}{right:9.1f}{found['sum']['error']:12.2f}")


if __name__ == "__main__":
    main()
