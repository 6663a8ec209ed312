"""Artifacts of dermoscopic images: hair, gel bubbles, glare, rulers, ink, vignetting."""

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from segnetr.data.datasets.synthetic.noise import Field, draw_clouds, smooth_step

# cv2 draws with a precision of 1/16 pixel with this shift.
_SHIFT = 4
_FINE = 1 << _SHIFT


def add_hair(rng: Generator, image: Field) -> Field:
    """Draw curved hairs on an image (H, W, 3). Most are dark, some are fair."""
    height, width = image.shape[:2]
    count = int(rng.choice([rng.integers(1, 6), rng.integers(6, 30)], p=[0.6, 0.4]))
    direction = rng.uniform(0, np.pi)
    cover = np.zeros((height, width), np.uint8)
    for _ in range(count):
        curve = _bend_hair(rng, height, width, direction + rng.normal(0, 0.6))
        opacity, thick = int(rng.uniform(110, 230)), int(rng.choice([1, 1, 2]))
        cv2.polylines(cover, [curve], False, opacity, thick, cv2.LINE_AA, _SHIFT)
    soft = cv2.GaussianBlur(cover, (0, 0), rng.uniform(0.4, 0.8)).astype(np.float32) / 255
    is_fair = rng.random() < 0.2
    base = np.array([0.80, 0.72, 0.60] if is_fair else [0.16, 0.10, 0.08], np.float32)
    return _blend(image, base * np.float32(rng.uniform(0.8, 1.3)), soft)


def _blend(image: Field, color: Field, opacity: Field) -> Field:
    """Blend a color over an image with an opacity (H, W)."""
    share = opacity[..., None]
    return image * (1 - share) + color * share


def _bend_hair(rng: Generator, height: int, width: int, angle: float) -> NDArray[np.int32]:
    """Return a hair as points (n, 1, 2) in cv2's fixed-point format."""
    length = rng.uniform(0.25, 1.1) * width
    start = rng.uniform(-0.1, 1.1, 2) * (width, height)
    way = np.array([np.cos(angle), np.sin(angle)])
    bend = np.array([-way[1], way[0]]) * rng.normal(0, 0.18, (2, 1)) * length
    t = np.linspace(0, 1, 24)[:, None]
    points = start + t * length * way + t * (1 - t) * 4 * (bend[0] * (1 - t) + bend[1] * t)
    return np.asarray(np.round(points * _FINE), np.int32)[:, None, :]


def add_bubbles(rng: Generator, image: Field) -> Field:
    """Draw gel bubbles on an image: rings that are brighter on one side, with a highlight."""
    height, width = image.shape[:2]
    rows, columns = np.indices((height, width), np.float32)
    for _ in range(rng.integers(1, 9)):
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        radius = np.exp(rng.uniform(np.log(2.5), np.log(0.07 * width)))
        distance = np.hypot(rows - y, columns - x)
        ring = np.exp(-(((distance - radius) / 1.1) ** 2))
        side = ((columns - x) + (rows - y)) / (1.5 * radius)
        light = -0.22 * ring * np.clip(side, -1, 1) + 0.03 * (distance < radius)
        glint = np.hypot(rows - y + 0.4 * radius, columns - x + 0.4 * radius)
        light = light + rng.uniform(0.2, 0.6) * np.exp(-((glint / (0.16 * radius + 0.6)) ** 2))
        image = image + light[..., None].astype(np.float32)
    return image


def add_glare(rng: Generator, image: Field) -> Field:
    """Draw small specular highlights on an image, as on wet skin scales."""
    height, width = image.shape[:2]
    grains = draw_clouds(rng, height, width, coarsest=3.0, octaves=2)
    where = draw_clouds(rng, height, width, coarsest=width / 5, octaves=2)
    spots = smooth_step(grains, 1.9, 2.9) * smooth_step(where, 0.3, 1.2)
    return image + rng.uniform(0.15, 0.4) * spots[..., None]


def add_ruler(rng: Generator, image: Field) -> Field:
    """Draw a scale with millimeter marks along one side of an image."""
    height, width = image.shape[:2]
    cover = np.zeros((height, width), np.uint8)
    vertical = rng.random() < 0.4
    step = rng.uniform(0.035, 0.07) * width
    reach = height if vertical else width
    edge = rng.uniform(0.02, 0.1) * (width if vertical else height)
    first = rng.uniform(0, step)
    for mark in range(int((reach - first) / step) + 1):
        along = first + mark * step
        size = step * (1.5 if mark % 10 == 0 else 1.1 if mark % 5 == 0 else 0.7)
        ends = np.array([[edge, along], [edge + size, along]])
        ends = ends if vertical else ends[:, ::-1]
        fixed = np.round(ends * _FINE).astype(int)
        cv2.line(cover, tuple(fixed[0]), tuple(fixed[1]), 255, 1, cv2.LINE_AA, _SHIFT)
        if mark % 10 == 0:
            corner = ends[1] + ((2, 3) if vertical else (-3, 9))
            origin = (int(corner[0]), int(corner[1]))
            font = cv2.FONT_HERSHEY_SIMPLEX
            cv2.putText(cover, str(mark // 10), origin, font, 0.3, 255, 1, cv2.LINE_AA)
    if rng.random() < 0.5:
        cover = np.ascontiguousarray(cover[::-1, ::-1])
    ink = np.full(3, 0.95 if rng.random() < 0.25 else 0.12, np.float32)
    return _blend(image, ink, cover.astype(np.float32) / 255 * np.float32(rng.uniform(0.5, 0.85)))


def add_ink(rng: Generator, image: Field) -> Field:
    """Draw a violet surgical pen mark that starts at one side of an image."""
    height, width = image.shape[:2]
    cover = np.zeros((height, width), np.uint8)
    corner = np.array([rng.choice([0.02, 0.98]) * width, rng.uniform(0, 1) * height])
    inward = np.array([width / 2, height / 2]) - corner
    turn = rng.uniform(1.0, 1.7) * rng.choice([-1, 1])
    way = np.array(
        [
            np.cos(turn) * inward[0] - np.sin(turn) * inward[1],
            np.sin(turn) * inward[0] + np.cos(turn) * inward[1],
        ]
    )
    start, end = corner + 0.1 * inward, corner + 0.1 * inward + way * rng.uniform(0.4, 0.9)
    fixed = np.round(np.stack([start, end]) * _FINE).astype(int)
    thick = int(rng.integers(3, 9))
    cv2.line(cover, tuple(fixed[0]), tuple(fixed[1]), 255, thick, cv2.LINE_AA, _SHIFT)
    soft = cv2.GaussianBlur(cover, (0, 0), 1.5).astype(np.float32) / 255
    streaks = draw_clouds(rng, height, width, coarsest=10, octaves=3)
    opacity = np.clip(soft * (0.5 + 0.2 * streaks), 0, 0.8)
    return _blend(image, image * np.array([0.38, 0.26, 0.60], np.float32), opacity)


def add_tube(rng: Generator, image: Field) -> Field:
    """Darken towards the corners. In some images, the black rim of the tube is visible."""
    height, width = image.shape[:2]
    rows, columns = np.indices((height, width), np.float32)
    y, x = (height - 1) * rng.uniform(0.45, 0.55), (width - 1) * rng.uniform(0.46, 0.54)
    half = np.hypot(height, width) / 2
    distance = np.hypot(rows - y, columns - x)
    image = image * (1 - rng.uniform(0.05, 0.4) * (distance / half) ** 2.5)[..., None]
    if rng.random() < 0.35:
        radius = half * rng.uniform(0.78, 0.97)
        soft = rng.uniform(1.0, 6.0)
        inside = smooth_step(distance, radius + soft, radius - soft)[..., None]
        image = image * inside + 0.03 * (1 - inside)
    return image
