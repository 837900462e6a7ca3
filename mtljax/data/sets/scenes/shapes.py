"""Simple shapes on a pixel grid: anti-aliased coverage and tight boxes, many at once.

Pixel `(i, j)` is the square from `(j, i)` to `(j + 1, i + 1)`: x grows to the right, y downwards, both in pixels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SHAPES = ("circle", "square", "triangle", "cross")

# Half the length and half the width of an arm of the cross, over the radius of the circle through all corners.
_ARM = (0.95, (1 - 0.95**2) ** 0.5)
_TRIANGLE = 2 * np.pi * np.arange(3) / 3 - np.pi / 2  # directions of the corners; the first points up


def shape_coverage(
    kind: npt.ArrayLike,
    center: npt.ArrayLike,
    radius: npt.ArrayLike,
    angle: npt.ArrayLike,
    *,
    height: int,
    width: int,
) -> np.ndarray:
    """The share of each pixel that each shape covers.

    `coverage = clip(1/2 - d, 0, 1)`, where d is the signed distance in pixels from the pixel's centre to the shape's
    nearest edge line, negative inside. This is the covered area exactly if the edge is parallel to the grid. For a
    radius of at least 1.5 pixels, the error is below 0.08 at other edges, and up to 0.36 at a corner. Smaller shapes
    are too large.

    Args:
        kind: int `[N]`, index into `SHAPES`: circle, square, equilateral triangle, cross of two bars.
        center: `[N, 2]`, x and y of the centre of the circle on which the corners lie.
        radius: `[N]`, radius of that circle, positive.
        angle: `[N]`, rotation in radians, clockwise in the image.
        height: rows of the grid.
        width: columns of the grid.

    Returns:
        float32 `[N, height, width]`, from 0 to 1.

    Raises:
        ValueError: shapes that do not match, an unknown kind, a radius that is not positive, a number that is not
            finite.

    Example:
        >>> square = shape_coverage([1], [[2.0, 1.5]], [2**0.5], [0.0], height=3, width=4)[0]  # of side 2
        >>> square.round(2).tolist()
        [[0.0, 0.5, 0.5, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 0.5, 0.5, 0.0]]
    """
    kind, center, radius, angle = _checked("shape_coverage", kind, center, radius, angle)
    columns, rows = np.arange(width, dtype=np.float32) + 0.5, np.arange(height, dtype=np.float32) + 0.5
    result = np.empty((len(kind), height, width), np.float32)
    for index in range(len(SHAPES)):
        chosen = kind == index
        if not chosen.any():
            continue
        x = columns[None, None, :] - center[chosen, 0, None, None]
        y = rows[None, :, None] - center[chosen, 1, None, None]
        r = radius[chosen, None, None]
        result[chosen] = np.clip(0.5 - _distance(SHAPES[index], x, y, r, angle[chosen]), 0, 1)
    return result


def shape_boxes(kind: npt.ArrayLike, center: npt.ArrayLike, radius: npt.ArrayLike, angle: npt.ArrayLike) -> np.ndarray:
    """The smallest upright box around each shape.

    Args:
        kind: int `[N]`, as for `shape_coverage`, like all arguments.
        center: `[N, 2]`.
        radius: `[N]`.
        angle: `[N]`.

    Returns:
        float32 `[N, 4]`: x and y of the box's centre, width, height. For a triangle the box's centre differs from
        `center`.

    Raises:
        ValueError: as for `shape_coverage`.

    Example:
        >>> shape_boxes([0], [[5.0, 6.0]], [2.0], [0.0]).tolist()
        [[5.0, 6.0, 4.0, 4.0]]
    """
    kind, center, radius, angle = _checked("shape_boxes", kind, center, radius, angle)
    low, high = np.full_like(center, -1), np.ones_like(center)  # of a circle
    for index, corners in _corners().items():
        chosen = kind == index
        turned = corners[None, :] + angle[chosen, None]
        points = np.stack([np.cos(turned), np.sin(turned)], -1)
        low[chosen], high[chosen] = points.min(1), points.max(1)
    low, high = center + radius[:, None] * low, center + radius[:, None] * high
    return np.concatenate([(low + high) / 2, high - low], axis=1)


def compose(coverage: np.ndarray, color: np.ndarray, background: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images of layers in front of one another, and the visible area of each layer.

    `picture = sum_k s_k color_k + (1 - sum_k s_k) background` with `s_k = coverage_k prod_{j > k} (1 - coverage_j)`:
    later layers are in front of earlier ones.

    Args:
        coverage: float `[F, K, H, W]`, from 0 to 1, of K layers in F images.
        color: float `[F, K, C]`.
        background: float `[H, W, C]`, the same for all images.

    Returns:
        `(pictures [F, H, W, C], seen [F, K])`, where `seen` is the sum of `s_k` over pixels; dtype of the coverage.

    Raises:
        ValueError: shapes that do not match.

    Example:
        >>> layers = np.array([[[[1.0, 1.0]], [[0.0, 0.5]]]])  # K = 2, a row of two pixels
        >>> pictures, seen = compose(layers, np.array([[[1.0], [3.0]]]), np.zeros([1, 2, 1]))
        >>> pictures.ravel().tolist(), seen.tolist()
        ([1.0, 2.0], [[1.5, 0.5]])
    """
    fits = coverage.ndim == 4 and color.ndim == 3 and background.ndim == 3
    if not fits or color.shape[:2] != coverage.shape[:2] or background.shape != (*coverage.shape[2:], color.shape[2]):
        raise ValueError(
            "compose: coverage, color and background must be [F, K, H, W], [F, K, C] and [H, W, C], "
            f"found {coverage.shape}, {color.shape} and {background.shape}"
        )
    pictures = np.zeros((coverage.shape[0], *background.shape), coverage.dtype)
    light = np.ones_like(coverage[:, 0])
    seen = np.zeros(coverage.shape[:2], coverage.dtype)
    for k in reversed(range(coverage.shape[1])):  # from the front to the back
        share = light * coverage[:, k]
        seen[:, k] = share.sum((1, 2))
        pictures += share[..., None] * color[:, k, None, None, :].astype(coverage.dtype)
        light -= share
    return pictures + light[..., None] * background[None].astype(coverage.dtype), seen


def hue_to_rgb(hue: npt.ArrayLike, saturation: npt.ArrayLike, value: npt.ArrayLike) -> np.ndarray:
    """HSV colours as RGB: `v (1 - s clip(min(n, 4 - n), 0, 1))`, n = 5, 3, 1 + 6 h modulo 6.

    Args:
        hue: `[...]`, 0 and 1 are red, 1/3 is green, 2/3 blue.
        saturation: from 0 to 1, of a shape that NumPy broadcasts with the hue's.
        value: from 0 to 1, likewise.

    Returns:
        float32 `[..., 3]`: red, green and blue, from 0 to 1.

    Example:
        >>> hue_to_rgb([0.0, 1 / 3], 1.0, 1.0).tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    hues, saturations, values = np.broadcast_arrays(hue, saturation, value)
    n = (np.array([5.0, 3.0, 1.0]) + 6 * hues[..., None]) % 6
    dip = np.clip(np.minimum(n, 4 - n), 0, 1)
    return (values[..., None] * (1 - saturations[..., None] * dip)).astype(np.float32)


def _distance(name: str, x: np.ndarray, y: np.ndarray, r: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Signed distance to the nearest edge line."""
    if name == "circle":
        return np.sqrt(x * x + y * y) - r
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    x, y = cos * x + sin * y, cos * y - sin * x
    if name == "triangle":
        # Each corner has an opposite edge, half a radius away from the centre.
        edges = [-(np.float32(np.cos(c)) * x + np.float32(np.sin(c)) * y) for c in _TRIANGLE]
        return np.maximum(np.maximum(edges[0], edges[1]), edges[2]) - r / 2
    x, y = np.abs(x), np.abs(y)
    if name == "square":
        return np.maximum(x, y) - r * np.float32(0.5**0.5)
    long, short = r * np.float32(_ARM[0]), r * np.float32(_ARM[1])
    return np.minimum(np.maximum(x - long, y - short), np.maximum(x - short, y - long))


def _corners() -> dict[int, np.ndarray]:
    """Directions of the corners from the centre, by kind, for kinds with corners."""
    quarters = np.pi / 2 * np.arange(4)
    arm = np.arctan2(_ARM[1], _ARM[0])
    return {1: quarters + np.pi / 4, 2: _TRIANGLE, 3: np.concatenate([quarters - arm, quarters + arm])}


def _checked(
    caller: str, kind: npt.ArrayLike, center: npt.ArrayLike, radius: npt.ArrayLike, angle: npt.ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    kinds = np.asarray(kind)
    centers, radii, angles = (np.asarray(array, np.float32) for array in (center, radius, angle))
    n = kinds.shape[0] if kinds.ndim else 0
    found = [kinds.shape, centers.shape, radii.shape, angles.shape]
    if found != [(n,), (n, 2), (n,), (n,)]:
        raise ValueError(f"{caller}: kind, center, radius, angle must be [N], [N, 2], [N], [N], found {found}")
    if not np.isin(kinds, np.arange(len(SHAPES))).all():
        raise ValueError(f"{caller}: kind must be from 0 to {len(SHAPES) - 1}, found {np.unique(kinds).tolist()}")
    if not (radii > 0).all():
        raise ValueError(f"{caller}: radius must be positive, found {radii.min()}")
    for name, array in {"center": centers, "radius": radii, "angle": angles}.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{caller}: {name} must be finite, found {array[~np.isfinite(array)][0]}")
    return kinds, centers, radii, angles
