"""The parts of `tracking.py`: four tasks on pairs of frames, their losses and networks, and the tracker."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from scipy.optimize import linear_sum_assignment
from scipy.special import expit

import mtljax
from mtljax.data.sets.scenes.moving_shapes import STRIDE
from mtljax.data.sets.scenes.shapes import SHAPES
from mtljax.metrics.tracking import box_iou

TEMPERATURE = 0.1  # of the contrastive loss
EMBEDDING = 16  # numbers that describe an identity
WIDTH = 32  # channels
LEAST_SCORE = 0.2  # smallest score of a box
MOST_OVERLAP = 0.4  # largest IoU of two boxes

# `mtljax.data.sets.scenes.moving_shapes.as_pairs` describes the targets of the losses below.


def at_centers(values: jax.Array, center: jax.Array) -> jax.Array:
    """Mean `[B]` of values over the cells with the centre of an object, both `[B, ...]`; 0 without centres."""
    axes = tuple(range(1, center.ndim))
    return jnp.sum(jnp.where(center, values, 0), axes) / jnp.maximum(jnp.sum(center, axes), 1)


def detect_loss(outputs: dict[str, jax.Array], targets: dict[str, jax.Array]) -> jax.Array:
    """CenterNet's loss: `1/N sum f + 1/N sum_centres (|o - offset|_1 + |s - size|_1)`, lengths in cells, N centres.

    `f = -(1 - p)^2 log p` at centres and `-(1 - y)^4 p^2 log(1 - p)` elsewhere, y the heatmap, p = sigmoid(z).
    """
    center, z = targets["center"], outputs["heatmap"]
    p = jax.nn.sigmoid(z)
    near = -jnp.square(1 - p) * jax.nn.log_sigmoid(z)
    far = -((1 - targets["heatmap"]) ** 4) * jnp.square(p) * jax.nn.log_sigmoid(-z)
    focal = jnp.sum(jnp.where(center, near, far), (1, 2, 3)) / jnp.maximum(jnp.sum(center, (1, 2, 3)), 1)
    grid = center.shape[-1]
    lengths = jnp.abs(outputs["offset"] - targets["offset"]) + jnp.abs(outputs["size"] - grid * targets["size"])
    return focal + at_centers(jnp.sum(lengths, -1), center)


def classify_loss(outputs: jax.Array, targets: dict[str, jax.Array]) -> jax.Array:
    """Mean over centres of `logsumexp(z) - z[y]`."""
    label = jax.nn.one_hot(targets["label"], outputs.shape[-1])
    return at_centers(-jnp.sum(label * jax.nn.log_softmax(outputs), -1), targets["center"])


def class_told(outputs: jax.Array, targets: dict[str, jax.Array]) -> jax.Array:
    """Share of objects whose class is predicted correctly."""
    return at_centers((jnp.argmax(outputs, -1) == targets["label"]).astype(jnp.float32), targets["center"])


def likeness(outputs: jax.Array, targets: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Cosines `[B, 2K, 2K]` between objects of both frames, over the temperature, and a mask of equal objects."""
    size, frames, slots = targets["cell"].shape
    features = outputs.reshape(size, frames, -1, outputs.shape[-1])
    found = jnp.take_along_axis(features, targets["cell"][..., None], axis=2).reshape(size, frames * slots, -1)
    cosine = jnp.einsum("bie,bje->bij", found, found) / TEMPERATURE
    identity = targets["identity"].reshape(size, -1)
    other = (identity > 0)[:, None, :] & ~jnp.eye(frames * slots, dtype=bool)[None]
    return jnp.where(other, cosine, -1e9), other & (identity[:, :, None] == identity[:, None, :])


def associate_loss(outputs: jax.Array, targets: dict[str, jax.Array]) -> jax.Array:
    """Mean of `log sum_{j != i} exp(e_i.e_j / t) - e_i.e_i' / t` over objects i that are i' in the other frame."""
    cosine, same = likeness(outputs, targets)
    return at_centers(jax.nn.logsumexp(cosine, -1) - jnp.sum(jnp.where(same, cosine, 0), -1), same.any(-1))


def identity_told(outputs: jax.Array, targets: dict[str, jax.Array]) -> jax.Array:
    """Share of objects whose most similar embedding is their own in the other frame."""
    cosine, same = likeness(outputs, targets)
    best = jnp.take_along_axis(same, jnp.argmax(cosine, -1)[..., None], -1)[..., 0]
    return at_centers(best.astype(jnp.float32), same.any(-1))


def motion_loss(outputs: jax.Array, targets: dict[str, jax.Array]) -> jax.Array:
    """Mean over centres of `|d - displacement|_1`, in pixels."""
    return at_centers(jnp.sum(jnp.abs(outputs - targets["displacement"]), -1), targets["center"])


def motion_error(outputs: jax.Array, targets: dict[str, jax.Array]) -> jax.Array:
    """Mean over centres of the distance between predicted and true displacement, in pixels."""
    return at_centers(jnp.linalg.norm(outputs - targets["displacement"], axis=-1), targets["center"])


TASKS = {
    "associate": mtljax.Task(associate_loss, {"accuracy": identity_told}),
    "classify": mtljax.Task(classify_loss, {"accuracy": class_told}),
    "detect": mtljax.Task(detect_loss),
    "motion": mtljax.Task(motion_loss, {"error": motion_error}),
}


class Trunk(nn.Module):
    """From frames `[B, 2, H, W, 3]`, each by itself, to features `[B, 2, G, G, C]`."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = x.reshape(-1, *x.shape[2:]) - 0.4
        y = nn.relu(nn.Conv(WIDTH // 2, (3, 3), 2)(y))
        y = nn.relu(nn.Conv(WIDTH, (3, 3), 2)(y))
        for _ in range(2):
            y = y + nn.Conv(WIDTH, (3, 3))(nn.relu(nn.Conv(WIDTH, (3, 3))(y)))
        return nn.relu(y).reshape(*x.shape[:2], *y.shape[1:])


class Head(nn.Module):
    """From features to a task's output in every cell; `motion` reads both frames at once, the others each frame."""

    task: str

    @nn.compact
    def __call__(self, x: jax.Array) -> Any:
        if self.task == "motion":
            return self.cells(jnp.concatenate([x[:, 0], x[:, 1]], -1), 2, layers=2)
        if self.task == "classify":
            return self.cells(x, len(SHAPES))
        if self.task == "associate":
            y = self.cells(x, EMBEDDING, layers=2)
            return y * jax.lax.rsqrt(jnp.sum(jnp.square(y), -1, keepdims=True) + 1e-6)
        y = self.cells(x, 5)
        return {"heatmap": y[..., 0] - 2, "offset": y[..., 1:3], "size": y[..., 3:]}  # most cells are empty

    def cells(self, x: jax.Array, size: int, layers: int = 1) -> jax.Array:
        """`[..., G, G, C]` to `[..., G, G, size]`."""
        y = x.reshape(-1, *x.shape[-3:])
        for _ in range(layers):
            y = nn.relu(nn.Conv(WIDTH, (3, 3))(y))
        return nn.Conv(size, (1, 1))(y).reshape(*x.shape[:-1], size)


class Found(NamedTuple):
    """The n boxes that a network finds in one frame.

    Attributes:
        box: `[n, 4]`: x and y of the centre, width, height, pixels.
        score: `[n]`.
        motion: `[n, 2]`, pixels since the frame before; 0 if the network does not predict motion.
        look: `[n, E]`, embeddings of length 1; 0 if the network does not predict them.
    """

    box: np.ndarray
    score: np.ndarray
    motion: np.ndarray
    look: np.ndarray


def read_boxes(outputs: dict[str, Any], length: int) -> list[list[Found]]:
    """Boxes of every frame of every sequence, from the outputs for all pairs of frames in order.

    A cell's box is kept if its score is above `LEAST_SCORE` and its IoU with every kept box of a higher score is at
    most `MOST_OVERLAP`.
    """

    def frames(pairs: np.ndarray) -> np.ndarray:
        """`[S (L - 1), 2, ...]` to `[S, L, ...]`."""
        pairs = pairs.reshape(-1, length - 1, *pairs.shape[1:])
        return np.concatenate([pairs[:, :1, 0], pairs[:, :, 1]], axis=1)

    detect = {name: frames(array) for name, array in outputs["detect"].items()}
    score = expit(detect["heatmap"])
    look = frames(outputs["associate"]) if "associate" in outputs else np.zeros((*score.shape, 1))
    motion = np.zeros((*score.shape, 2))
    if "motion" in outputs:
        motion[:, 1:] = outputs["motion"].reshape(motion[:, 1:].shape)
    return [[_boxes(s, t, score, detect, motion, look) for t in range(length)] for s in range(len(score))]


def _boxes(
    s: int, t: int, score: np.ndarray, detect: dict[str, np.ndarray], motion: np.ndarray, look: np.ndarray
) -> Found:
    rows, columns = np.nonzero(score[s, t] > LEAST_SCORE)
    place = np.stack([columns, rows], -1) + detect["offset"][s, t, rows, columns]
    box = STRIDE * np.concatenate([place, np.maximum(detect["size"][s, t, rows, columns], 0)], -1)
    overlap = box_iou(box, box)
    kept: list[int] = []
    for i in np.argsort(-score[s, t, rows, columns]):
        if not (overlap[i, kept] > MOST_OVERLAP).any():
            kept.append(int(i))
    cells = (s, t, rows[kept], columns[kept])
    return Found(box[kept], score[cells], motion[cells], look[cells])


@dataclasses.dataclass(frozen=True)
class Tracker:
    """A tracker, which links boxes to tracks frame by frame: one to one, at smallest cost, for costs of at most 1.

    `cost = |place of the box - expected place of the track| / gate + weight (1 - cosine of their embeddings)`

    Attributes:
        motion: the expected place: `"none"`, the last place; `"past"`, the last place moved by the track's own mean
            velocity; `"learned"`, the last place, while the box is moved back by the network's motion.
        weight: of the learned look; 0 for none. A track's look is a running mean: 0.7 of the old, 0.3 of the new.
        threshold: least score of a box.
        gate: pixels.
        inertia: share of the old velocity in the new one, for `"past"`.
        patience: frames for which a track without a box is kept.
    """

    motion: str
    weight: float = 0.0
    threshold: float = 0.35
    gate: float = 8.0
    inertia: float = 0.3
    patience: int = 3


def follow(frames: Sequence[Found], tracker: Tracker) -> list[tuple[np.ndarray, np.ndarray]]:
    """Boxes `[n, 4]` above the threshold and their identities `[n]`, frame by frame, without a look ahead."""
    tracks: list[dict[str, Any]] = []
    found, count = [], 0
    for frame in frames:
        box, _, motion, look = (array[frame.score >= tracker.threshold] for array in frame)
        place = box[:, :2]
        cost = np.zeros((len(tracks), len(box)))
        for i, track in enumerate(tracks):
            # A track that had no box in the frame before is taken along with the velocity it had last.
            ahead = {"none": 0, "past": track["missed"] + 1, "learned": track["missed"]}[tracker.motion]
            origin = place - motion if tracker.motion == "learned" else place
            way = origin - (track["place"] + ahead * track["velocity"])[None]
            cost[i] = np.hypot(way[:, 0], way[:, 1]) / tracker.gate + tracker.weight * (1 - look @ track["look"])
        identities = np.zeros(len(box), np.int32)
        for track in tracks:
            track["missed"] += 1
        for i, j in zip(*linear_sum_assignment(np.where(cost <= 1, cost, 1e3)), strict=True):
            if cost[i, j] > 1:
                continue
            track = tracks[i]
            velocity = (place[j] - track["place"]) / track["missed"]
            if track["seen"] > 1:
                velocity = tracker.inertia * track["velocity"] + (1 - tracker.inertia) * velocity
            mixed = 0.7 * track["look"] + 0.3 * look[j]
            track["look"] = mixed / max(float(np.linalg.norm(mixed)), 1e-9)
            track["velocity"] = motion[j] if tracker.motion == "learned" else velocity
            track["place"], track["missed"], track["seen"] = place[j], 0, track["seen"] + 1
            identities[j] = track["identity"]
        tracks = [track for track in tracks if track["missed"] <= tracker.patience]
        for j in np.flatnonzero(identities == 0):
            count += 1
            identities[j] = count
            velocity = motion[j] if tracker.motion == "learned" else np.zeros(2)
            new = {"identity": count, "place": place[j], "velocity": velocity, "look": look[j], "missed": 0, "seen": 1}
            tracks.append(new)
        found.append((box, identities))
    return found
