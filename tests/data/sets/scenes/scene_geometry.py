"""The geometry of rendered scenes written anew: textbook formulas in float64, one solid and one face at a time."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np


def rays_of(scene, size):
    """Camera rays `[S, S, 3]`, and the same in the world."""
    steps = [0.6 * (2 * i + 1 - size) / size for i in range(size)]
    rays = np.array([[[steps[j], steps[i], 1.0] for j in range(size)] for i in range(size)])
    return rays, rays @ scene.rotation


def solids_of(scene):
    """Every slot: its instance number, kind and numbers."""
    slots = scene.solids.present.shape[1]
    for kind, slot in np.ndindex(3, slots):
        center, half, yaw, present = (leaf[kind, slot] for leaf in scene.solids)
        turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])  # own -> world
        yield SimpleNamespace(number=2 + slots * kind + slot, kind=kind, center=center, half=half, turn=turn), present


def candidates(solid, origin, rays):
    """All crossings of rays with a solid's surface: (parameter, outward normal) each; NaN where there is none."""
    o, d, half = (origin - solid.center) @ solid.turn, rays @ solid.turn, solid.half
    found = []
    if solid.kind in (0, 2):  # sphere, side of the cylinder: |o + t d|^2 = r^2 in three or two coordinates
        axes = slice(0, 3 if solid.kind == 0 else 2)
        a, b, c = (d[..., axes] ** 2).sum(-1), d[..., axes] @ o[axes], o[axes] @ o[axes] - half[0] ** 2
        for sign in (-1, 1):
            t = (-b + sign * np.sqrt(b * b - a * c)) / a
            point = o + t[..., None] * d
            normal = np.where(np.arange(3) < axes.stop, point, 0) / half[0]
            inside = np.abs(point[..., 2]) <= (half[2] if solid.kind == 2 else np.inf)
            found.append((np.where(inside, t, np.nan), normal))
    for axis in {0: (), 1: (0, 1, 2), 2: (2,)}[solid.kind]:  # flat faces
        for sign in (-1, 1):
            t = (sign * half[axis] - o[axis]) / d[..., axis]
            point = o + t[..., None] * d
            others = [k for k in range(3) if k != axis]
            if solid.kind == 1:
                inside = (np.abs(point[..., others]) <= half[others]).all(-1)
            else:
                inside = np.hypot(point[..., 0], point[..., 1]) <= half[0]
            found.append((np.where(inside, t, np.nan), np.broadcast_to(sign * np.eye(3)[axis], d.shape)))
    return [(t, normal @ solid.turn.T) for t, normal in found]


def brute_force(scene, size):
    """Depth, normals in the camera frame and instances of a scene: the nearest of all crossings in front."""
    _, world = rays_of(scene, size)
    hits = [
        (np.where(t > 0, t, np.inf), n, s.number)
        for s, there in solids_of(scene)
        if there
        for t, n in candidates(s, scene.position, world)
    ]
    for axis in range(3):
        for side in range(2):
            t = (scene.room[side, axis] - scene.position[axis]) / world[..., axis]
            normal = np.broadcast_to((1 - 2 * side) * np.eye(3)[axis], world.shape)
            hits.append((np.where(t > 0, t, np.inf), normal, 0 if (axis, side) == (2, 0) else 1))
    depth = np.stack([np.where(np.isnan(t), np.inf, t) for t, _, _ in hits])
    first = depth.argmin(0)
    normals = np.take_along_axis(np.stack([n for _, n, _ in hits]), first[None, ..., None], 0)[0]
    return depth.min(0), normals @ scene.rotation.T, np.array([number for _, _, number in hits])[first]
