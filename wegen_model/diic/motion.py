"""What moved between two pictures: the camera, or what it looks at.

The camera's motion is a similarity (shift, turn, zoom) on which corners all over the picture agree; what it explains is taken out, and
what still differs moved by itself. On a plain ground nothing tells a camera's motion from a thing's: there the camera counts as still.

a, b: (h,w) uint8 grey pictures of one size, SIDE pixels long at most
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from ..data.optional import need

SIDE = 192
CELLS = 48  # changes are counted in cells of the picture, CELLS x CELLS
LEAST = 25  # of 255: a cell that differs by more has changed
AGREE, SPREAD = 20, 5  # corners that must agree on a camera's motion, and ninths of the picture in which they must lie
SURE = 0.1  # of the peak of a phase correlation, 0..1
STILL = 0.004  # of the picture's side: less is no motion


@dataclass(frozen=True)
class Motion:
    """`subject`: share of the picture that changed by itself, 0..1. `right`, `down`: the scene's shift in widths and heights (a camera
    that pans to the left shifts it to the right); `zoom`: the scene's growth; `turn`: degrees."""

    subject: float
    right: float = 0.0
    down: float = 0.0
    zoom: float = 1.0
    turn: float = 0.0

    def dict(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in asdict(self).items()}

    def carry(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the scene (fractions) lies after the camera's motion; turns are small and left out."""
        return 0.5 + (x - 0.5) * self.zoom + self.right, 0.5 + (y - 0.5) * self.zoom + self.down


def grey(picture: np.ndarray) -> np.ndarray:
    """(h,w,3) to what this module compares."""
    cv2 = need("cv2")
    h, w = picture.shape[:2]
    scale = min(1.0, SIDE / max(h, w))
    size = (max(8, round(w * scale)), max(8, round(h * scale)))
    return cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)


def motion(a: np.ndarray, b: np.ndarray) -> Motion:
    """From picture a to picture b."""
    cv2 = need("cv2")
    everything = np.full(a.shape, 255, np.uint8)
    plain = Motion(_changed(a, b, everything))
    matrix = _similarity(a, b)
    if matrix is None:
        return plain
    h, w = a.shape
    carried = cv2.warpAffine(a, matrix, (w, h), flags=cv2.INTER_LINEAR)
    valid = cv2.erode(cv2.warpAffine(everything, matrix, (w, h), flags=cv2.INTER_NEAREST), np.ones((3, 3), np.uint8))
    left = _changed(carried, b, valid)
    if plain.subject and left > 0.7 * plain.subject:
        return plain
    zoom = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    turn = float(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))
    x, y = matrix @ np.array([w / 2, h / 2, 1.0])
    return Motion(left, float(x / w - 0.5), float(y / h - 0.5), zoom, turn)


def _changed(a: np.ndarray, b: np.ndarray, valid: np.ndarray) -> float:
    """Share of the valid cells whose brightness differs; a change of the whole picture's (a flash, the exposure) is none."""
    cv2 = need("cv2")
    cells = (min(CELLS, a.shape[1]), min(CELLS, a.shape[0]))
    small = [cv2.resize(p, cells, interpolation=cv2.INTER_AREA).astype(np.float32) for p in (a, b)]
    seen = cv2.resize(valid, cells, interpolation=cv2.INTER_AREA) > 250
    if not seen.any():
        return 1.0
    difference = (small[1] - small[0])[seen]
    return float((np.abs(difference - np.median(difference)) > LEAST).mean())


def _shift(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """About how far the whole picture went, in pixels, by the phases of its spectrum; nothing where they do not agree."""
    cv2 = need("cv2")
    window = cv2.createHanningWindow((a.shape[1], a.shape[0]), cv2.CV_32F)
    shift, sure = cv2.phaseCorrelate(a.astype(np.float32), b.astype(np.float32), window)
    return shift if sure > SURE else (0.0, 0.0)


def _similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """(2,3) from a's pixels to b's, if corners all over the picture agree on one that is a motion at all."""
    corners = need("cv2").goodFeaturesToTrack(a, 200, 0.01, 6)
    if corners is None or len(corners) < AGREE:
        return None
    matrix = _agreed(a, b, corners, (0.0, 0.0))
    if matrix is None:
        matrix = _agreed(a, b, corners, _shift(a, b))  # a fast pan goes further than corners are followed
    if matrix is None:
        return None
    h, w = a.shape
    ends = np.array([[0, w, 0, w], [0, 0, h, h], [1, 1, 1, 1.0]])
    return matrix if np.abs(matrix @ ends - ends[:2]).max() > STILL * max(h, w) else None


def _agreed(a: np.ndarray, b: np.ndarray, corners: np.ndarray, shift: tuple[float, float]) -> np.ndarray | None:
    """The similarity on which corners of a, looked for in b `shift` pixels away, agree; they must be many and all over the picture."""
    cv2 = need("cv2")
    search = {"winSize": (21, 21), "maxLevel": 4, "flags": cv2.OPTFLOW_USE_INITIAL_FLOW}
    found, status, _ = cv2.calcOpticalFlowPyrLK(a, b, corners, corners + np.array(shift, np.float32), **search)
    back, status_back, _ = cv2.calcOpticalFlowPyrLK(b, a, found, found - np.array(shift, np.float32), **search)
    kept = (status[:, 0] & status_back[:, 0]).astype(bool) & (np.linalg.norm((back - corners)[:, 0], axis=1) < 1.0)
    if kept.sum() < AGREE:
        return None
    matrix, inliers = cv2.estimateAffinePartial2D(corners[kept], found[kept], method=cv2.RANSAC, ransacReprojThreshold=1.5)
    if matrix is None:
        return None
    points = corners[kept][inliers[:, 0].astype(bool)][:, 0]
    h, w = a.shape
    ninths = {(int(3 * x / w), int(3 * y / h)) for x, y in points}
    return matrix if len(points) >= max(AGREE, 0.5 * kept.sum()) and len(ninths) >= SPREAD else None
