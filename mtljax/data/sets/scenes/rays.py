"""Intersections of rays with convex solids in a room: the mathematics of the renderer, exact up to rounding.

World: right-handed, metres, z up, floor at z = 0. Camera frame: x right, y down, z forward along the optical axis. A
pixel's ray is `(u, v, 1)` in the camera frame, so the ray's parameter is the depth along the optical axis.

In this module a vector is a tuple of its components, each an array over rays. All operations are then elementwise, and
compile to one loop over pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtljax.types import Array

Vector = tuple[Array, ...]  # components, each `[*s]`
KINDS = ("sphere", "box", "cylinder")  # order of the first axis of a scene's solids


class Solids(NamedTuple):
    """Solids in k kinds (3, as in `KINDS`) and n slots of each; floating arrays of one type.

    Attributes:
        center: `[3, n, 3]`, in the world.
        half: `[3, n, 3]`, half extents: three radii of a sphere, all equal; the half edges of a box; two radii and half
            the height of an upright cylinder.
        yaw: `[3, n]`, the rotation about the vertical axis, in radians.
        present: bool `[3, n]`, False for a slot without a solid.
    """

    center: Array
    half: Array
    yaw: Array
    present: Array


class Scene(NamedTuple):
    """A room with solids in it, a camera and a light; floating arrays of one type.

    Attributes:
        position: `[3]`, the camera's, in the world: inside the room and outside all solids.
        rotation: `[3, 3]`, rows are the camera's right, down and forward in the world: `camera = rotation @ world`.
        room: `[2, 3]`, lowest and highest corner.
        solids: the solids in the room.
        albedo: `[2 + 3 n, 3]`, colours from 0 to 1 of the floor, the walls and the solids.
        light: `[3]`, unit vector towards the light, in the world.
    """

    position: Array
    rotation: Array
    room: Array
    solids: Solids
    albedo: Array
    light: Array


class Surface(NamedTuple):
    """The first surface that each ray meets.

    Attributes:
        depth: `[*s]`, the ray's parameter: metres along the optical axis for the rays of `camera_rays`.
        normals: `[3, *s]`, unit, in the camera frame, towards the camera.
        instances: int32 `[*s]`: 0 the floor, 1 the walls and the ceiling, 2 + i solid i, counted kind by kind.
    """

    depth: Array
    normals: Array
    instances: Array


def camera_rays(size: int, tangent: float, dtype: jax.typing.DTypeLike = jnp.float32) -> Array:
    """Rays through the centres of a square image's pixels, in the camera frame.

    `ray[:, i, j] = (tangent (2 j + 1 - size) / size, tangent (2 i + 1 - size) / size, 1)`.

    Args:
        size: pixels per side.
        tangent: tangent of half the field of view.
        dtype: floating type.

    Returns:
        `[3, size, size]`.

    Example:
        >>> camera_rays(2, 1.0)[:, 0, 1].tolist()
        [0.5, -0.5, 1.0]
    """
    steps = tangent * (2 * jnp.arange(size, dtype=dtype) + 1 - size) / size
    across, down = jnp.broadcast_to(steps[None, :], (size, size)), jnp.broadcast_to(steps[:, None], (size, size))
    return jnp.stack([across, down, jnp.ones_like(across)])


def cast(scene: Scene, rays: Array) -> Surface:
    """The first surface that each ray meets.

    A ray is transformed into the frame of each solid and divided by the solid's half extents. This keeps the parameter
    of the ray, and makes the solid a unit ball, cube or cylinder. A convex solid may be an intersection of simpler
    solids: a ray enters it where it enters the last of them, unless it has left one of them before. The room is convex
    and seen from inside, so every ray meets a surface. Of two surfaces at the same parameter, the room comes before
    solids, an earlier slot before a later slot, and within a slot the order is that of `KINDS`.

    Args:
        scene: the scene.
        rays: `[3, *s]`, directions in the camera frame, third component 1.

    Returns:
        `Surface` of arrays `[*s]`.

    Example:
        >>> from mtljax.data.sets.scenes.rendered_scenes import sample_scene
        >>> look = lambda key: cast(sample_scene(key), camera_rays(32, 0.6))
        >>> surface = jax.eval_shape(look, jax.random.key(0))
        >>> surface.depth.shape, surface.normals.shape
        ((32, 32), (3, 32, 32))
    """
    ray, slots = _turned(scene.rotation.T, tuple(rays)), scene.solids.present.shape[1]

    def place(first: tuple, slot: tuple[Array, Solids]) -> tuple[tuple, None]:
        """The nearest surface after the solids of one slot, one of each kind, are added to the room."""
        depth, normal, instances = first
        index, solids = slot
        for kind, solid in enumerate((_ball, _cube, _cylinder)):
            entry, own = _meet(solid, jax.tree.map(lambda leaf, kind=kind: leaf[kind], solids), scene.position, ray)
            nearer = entry < depth
            depth = jnp.where(nearer, entry, depth)
            normal = tuple(jnp.where(nearer, mine, other) for mine, other in zip(own, normal, strict=True))
            instances = jnp.where(nearer, 2 + slots * kind + index, instances)
        return (depth, normal, instances), None

    # A loop over slots compiles faster, and keeps compilers from casting a pixel's ray again for every use.
    by_slot = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), scene.solids)
    nothing = _inside_room(scene.room, tuple(scene.position), ray)
    (depth, normal, instances), _ = jax.lax.scan(place, nothing, (jnp.arange(slots, dtype=jnp.int32), by_slot))
    length = jnp.sqrt(_dot(normal, normal))
    normal = _turned(scene.rotation, tuple(part / length for part in normal))
    return Surface(depth, jnp.stack(normal), instances)


def turned(matrix: Array, vectors: Array) -> Array:
    """`matrix @ vectors` for `[3, 3]` and `[3, *s]`, in the precision of the vectors on every device.

    Example:
        >>> turned(jnp.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), jnp.array([1.0, 2.0, 3.0])).tolist()
        [-2.0, 1.0, 3.0]
    """
    return jnp.stack(_turned(matrix, tuple(vectors)))


def _turned(matrix: Array, vector: Vector) -> Vector:
    return tuple(_dot(tuple(row), vector) for row in matrix)


def _dot(left: Vector, right: Vector) -> Array:
    first, *others = (x * y for x, y in zip(left, right, strict=True))
    return sum(others, start=first)


def _inside_room(room: Array, origin: Vector, ray: Vector) -> tuple[Array, Vector, Array]:
    """Where rays leave the room: parameter, inward normal in the world, and 0 for the floor, 1 for other surfaces."""
    exits = []
    for low, high, start, step in zip(*room, origin, ray, strict=True):
        wall = jnp.where(step > 0, high, low)
        exits.append(jnp.where(step == 0, jnp.inf, (wall - start) / jnp.where(step == 0, 1, step)))
    faces = _first(exits[0] <= jnp.minimum(exits[1], exits[2]), exits[1] <= exits[2])
    instances = jnp.where(faces[2] & (ray[2] < 0), 0, 1).astype(jnp.int32)
    return jnp.minimum(jnp.minimum(exits[0], exits[1]), exits[2]), _against(ray, faces), instances


def _meet(solid: Callable, solids: Solids, position: Array, ray: Vector) -> tuple[Array, Vector]:
    """Parameters where rays enter one solid, infinite for a miss, and outward normals there, of any length."""
    half, cos, sin = tuple(solids.half), jnp.cos(solids.yaw), jnp.sin(solids.yaw)

    def own_frame(x: Array, y: Array, z: Array) -> Vector:
        return (cos * x + sin * y) / half[0], (cos * y - sin * x) / half[1], z / half[2]

    enter, leave, normal = solid(own_frame(*(position - solids.center)), own_frame(*ray))
    entered = solids.present & (enter < leave) & (enter > 0)
    # A normal is divided by the factors that stretch the surface.
    x, y, z = (part / extent for part, extent in zip(normal, half, strict=True))
    return jnp.where(entered, enter, jnp.inf), (cos * x - sin * y, sin * x + cos * y, z)


def _ball(origin: Vector, ray: Vector) -> tuple[Array, Array, Vector]:
    """Entry and exit of the unit ball, and the normal at the entry; an arbitrary normal for a miss."""
    enter, leave = _round(origin, ray)
    return enter, leave, _point(origin, ray, enter)


def _cube(origin: Vector, ray: Vector) -> tuple[Array, Array, Vector]:
    """As `_ball`, for the cube from -1 to 1."""
    (x, x_end), (y, y_end), (z, z_end) = map(_slab, origin, ray)
    faces = _first(x >= jnp.maximum(y, z), y >= z)
    enter, leave = jnp.maximum(jnp.maximum(x, y), z), jnp.minimum(jnp.minimum(x_end, y_end), z_end)
    return enter, leave, _against(ray, faces)


def _cylinder(origin: Vector, ray: Vector) -> tuple[Array, Array, Vector]:
    """As `_ball`, for the cylinder of radius 1 about the third axis from -1 to 1."""
    (side, side_end), (cap, cap_end) = _round(origin[:2], ray[:2]), _slab(origin[2], ray[2])
    x, y = _point(origin[:2], ray[:2], side)
    on_side = side > cap
    normal = (jnp.where(on_side, x, 0), jnp.where(on_side, y, 0), jnp.where(on_side, 0, -jnp.sign(ray[2])))
    return jnp.maximum(side, cap), jnp.minimum(side_end, cap_end), normal


def _round(origin: Vector, ray: Vector) -> tuple[Array, Array]:
    """Where a ray enters and leaves the unit ball in the given coordinates; enters at infinity where it misses.

    It starts from the point nearest to the centre, since `b^2 - a c` loses half of the digits for a distant ball.
    """
    speed = _dot(ray, ray)
    safe = jnp.where(speed == 0, 1, speed)
    middle = -_dot(origin, ray) / safe
    nearest = _point(origin, ray, middle)
    inside = 1 - _dot(nearest, nearest)
    half = jnp.where(speed == 0, jnp.inf, jnp.sqrt(jnp.where(inside > 0, inside, 1) / safe))
    return jnp.where(inside > 0, middle - half, jnp.inf), jnp.where(inside > 0, middle + half, -jnp.inf)


def _slab(origin: Array, ray: Array) -> tuple[Array, Array]:
    """Where a ray enters and leaves `-1 < x < 1`; a parallel ray outside enters at infinity."""
    safe, side = jnp.where(ray == 0, 1, ray), jnp.where(ray < 0, -1, 1)
    within = jnp.where(jnp.abs(origin) < 1, jnp.inf, -jnp.inf)
    enter, leave = (-side - origin) / safe, (side - origin) / safe
    return jnp.where(ray == 0, -within, enter), jnp.where(ray == 0, within, leave)


def _first(x: Array, y: Array) -> Vector:
    """One face of three: the first if `x`, else the second if `y`, else the third."""
    return x, ~x & y, ~x & ~y


def _against(ray: Vector, faces: Vector) -> Vector:
    """Normal, towards the ray's origin, of the face across the one axis that is True."""
    return tuple(jnp.where(face, -jnp.sign(step), 0) for step, face in zip(ray, faces, strict=True))


def _point(origin: Vector, ray: Vector, parameter: Array) -> Vector:
    """The point of a ray; its origin where the parameter is infinite."""
    finite = jnp.where(jnp.isfinite(parameter), parameter, 0)
    return tuple(start + finite * step for start, step in zip(origin, ray, strict=True))
