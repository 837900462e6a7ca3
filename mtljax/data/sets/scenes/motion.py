"""Sequences of moving shapes: the motion of objects, and their rendering."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mtljax.data.sets.scenes.shapes import SHAPES, compose, hue_to_rgb, shape_boxes, shape_coverage

_RADII = (4.5, 6.0)  # pixels, of the circle around an object
_SPEEDS = (1.5, 4.0)  # pixels per frame
_TURNS = 0.15  # probability per frame that an object turns by 60 to 120 degrees
_JITTER = 0.25  # pixels per frame, the random change of velocities
_SAME_KIND = 0.6  # probability that an object has its sequence's common shape; otherwise a random shape
_BOUNCING = 0.3  # share of objects that stay in the frame; others leave it and new ones enter
_MARK = 0.45  # radius of an object's mark, divided by the object's radius
_SEEN = 0.3  # smallest visibility of a labelled object
_NOISE = 0.03  # per pixel and frame

_OBJECT = np.dtype(
    [
        ("place", np.float32, 2),
        ("velocity", np.float32, 2),
        ("radius", np.float32),
        ("angle", np.float32),
        ("kind", np.int32),
        ("hues", np.float32, 2),  # of body and mark
        ("life", np.int32),  # counts the slot's objects from 1; 0 where there is none
    ]
)


class MovingShapes(NamedTuple):
    """S sequences of L frames, with up to K objects per frame. A slot holds one object until it has left, then another.

    Attributes:
        frames: float32 `[S, L, H, W, 3]`, from 0 to 1.
        box: float32 `[S, L, K, 4]`: x and y of the centre, width, height, divided by the frame's side, so from 0 to 1.
            The box encloses the whole object, including hidden parts.
        label: int32 `[S, L, K]`, index into `mtljax.data.sets.scenes.shapes.SHAPES`.
        identity: int32 `[S, L, K]`, from 1; different objects of a sequence have different numbers.
        velocity: float32 `[S, L, K, 2]`, pixels since the frame before; also known for the first frame.
        visibility: float32 `[S, L, K]`, the share of the object's drawn area that is in the frame and not hidden. Edges
            are anti-aliased, so an object is not fully hidden behind an equal object.
        present: bool `[S, L, K]`, whether the slot has a labelled object: the centre of its box is in the frame, and
            its visibility is at least 0.3. Where `present` is False, all other arrays except `visibility` are 0.
    """

    frames: np.ndarray
    box: np.ndarray
    label: np.ndarray
    identity: np.ndarray
    velocity: np.ndarray
    visibility: np.ndarray
    present: np.ndarray


def random_sequence(rng: np.random.Generator, length: int, size: int, max_objects: int) -> MovingShapes:
    """One sequence: arrays without the axis S. `load_moving_sequences` describes it and checks the arguments.

    Args:
        rng: the source of everything random.
        length: L.
        size: H and W.
        max_objects: K.

    Returns:
        `MovingShapes` of arrays `[L, ...]`.

    Example:
        >>> random_sequence(np.random.default_rng(0), length=3, size=24, max_objects=2).box.shape
        (3, 2, 4)
    """
    kind, hue = int(rng.integers(len(SHAPES))), rng.uniform()
    slots = [_slot(rng, length, size, kind, hue) for _ in range(max_objects)]
    objects = {field: np.stack([slot[field] for slot in slots], axis=1) for field in slots[0].dtype.names or ()}
    alive = objects["life"] > 0
    # Numbered slot by slot, so that all numbers differ.
    before = np.cumsum([0, *objects["life"].max(0)[:-1]])
    frames, visibility = _render(rng, objects, size)
    count = length * max_objects
    shape = [objects[field].reshape(count, *objects[field].shape[2:]) for field in ("kind", "place", "radius", "angle")]
    box = shape_boxes(*shape).reshape(length, max_objects, 4) / np.float32(size)
    inside = ((box[..., :2] >= 0) & (box[..., :2] < 1)).all(-1)
    present = alive & inside & (visibility >= _SEEN)
    return MovingShapes(
        frames=frames,
        box=np.where(present[..., None], box, 0),
        label=np.where(present, objects["kind"], 0),
        identity=np.where(present, objects["life"] + before[None], 0).astype(np.int32),
        velocity=np.where(present[..., None], objects["velocity"], 0),
        visibility=visibility,
        present=present,
    )


def _slot(rng: np.random.Generator, length: int, size: int, kind: int, hue: float) -> np.ndarray:
    """The object in one slot, per frame: `_OBJECT [L]`."""
    rows = np.zeros(length, _OBJECT)
    rows["radius"] = 1
    # Objects that start in the frame are simulated from one frame earlier, so that their velocities are known.
    inside, life = rng.uniform() < 0.8, 0
    t = -1 if inside else int(rng.integers(8))
    while t < length:
        life += 1
        radius = rng.uniform(*_RADII)
        places = _path(rng, size, radius, inside=inside, steps=length - t)
        first, last = max(t, 0), t + len(places)
        here = rows[first:last]
        here["place"] = places[first - t :]
        here["velocity"] = np.diff(places, axis=0, prepend=places[:1])[first - t :]
        here["radius"] = radius
        here["angle"] = rng.uniform(0, 2 * np.pi)
        here["kind"] = kind if rng.uniform() < _SAME_KIND else rng.integers(len(SHAPES))
        here["hues"] = hue + rng.uniform(-0.03, 0.03), rng.uniform()
        here["life"] = life
        t, inside = last + int(rng.integers(1, 4)), False
    return rows


def _path(rng: np.random.Generator, size: int, radius: float, *, inside: bool, steps: int) -> np.ndarray:
    """Places `[n, 2]` of an object's centre, with n at most `steps`, or less if the object leaves the frame."""
    low, high = radius, size - radius
    place = rng.uniform(low, high, 2)
    if not inside:
        place[rng.integers(2)] = rng.choice([-radius, size + radius])
    heading = rng.uniform(size / 4, 3 * size / 4, 2) - place
    velocity = rng.uniform(*_SPEEDS) * heading / np.maximum(np.hypot(*heading), 1)
    bouncing = rng.uniform() < _BOUNCING
    places = [place]
    while len(places) < steps:
        velocity = velocity + rng.normal(0, _JITTER, 2)
        if rng.uniform() < _TURNS:
            angle = np.deg2rad(rng.uniform(60, 120)) * rng.choice([-1, 1])
            velocity = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ velocity
        before, place = place, place + velocity
        if bouncing:  # only from inside: an object that turns round while it enters leaves again
            over, under = (before <= high) & (place > high), (before >= low) & (place < low)
            place = np.where(over, 2 * high - place, np.where(under, 2 * low - place, place))
            velocity = np.where(over | under, -velocity, velocity)
        places.append(place)
        if ((place < -radius) | (place > size + radius)).any():
            break
    return np.array(places)


def _render(rng: np.random.Generator, objects: dict[str, np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames `[L, H, W, 3]` and visibilities `[L, K]`."""
    alive = objects["life"] > 0
    count = alive.size
    kind, radius, angle = (objects[field].reshape(count) for field in ("kind", "radius", "angle"))
    place = objects["place"].reshape(count, 2)
    body = shape_coverage(kind, place, radius, angle, height=size, width=size)
    mark = shape_coverage(np.zeros_like(kind), place, _MARK * radius, angle, height=size, width=size)
    # The whole object on a canvas that holds it, at the same place within its pixel. The mark extends a little beyond
    # the body of a triangle or cross.
    middle = int(np.ceil(_RADII[1])) + 1
    canvas = {"height": 2 * middle + 1, "width": 2 * middle + 1}
    center = place % 1 + middle
    bare = 1 - shape_coverage(kind, center, radius, angle, **canvas)
    whole = 1 - bare * (1 - shape_coverage(np.zeros_like(kind), center, _MARK * radius, angle, **canvas))

    # Two layers per object: the mark is in front of the body.
    layers = np.stack([body, mark], 1).reshape(*alive.shape, 2, size, size) * alive[..., None, None, None]
    color = hue_to_rgb(objects["hues"], np.array([0.55, 0.9]), np.array([0.7, 1.0]))
    both = (alive.shape[0], 2 * alive.shape[1])
    frames, seen = compose(layers.reshape(*both, size, size), color.reshape(*both, 3), _background(rng, size))
    frames = np.clip(frames + _NOISE * rng.standard_normal(frames.shape, np.float32), 0, 1)
    share = seen.reshape(*alive.shape, 2).sum(2) / whole.sum((1, 2)).reshape(alive.shape)
    return frames, np.minimum(share, 1)


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A background of smooth dim clouds, `[H, W, 3]`."""
    knots = 6
    weights = np.stack([np.interp(np.linspace(0, knots - 1, size), np.arange(knots), row) for row in np.eye(knots)], 1)
    clouds = np.einsum("ia,jb,abc->ijc", weights, weights, rng.uniform(0.1, 0.45, (knots, knots, 3)))
    return clouds.astype(np.float32)
