"""Polygons of masks, along the edges of their pixels.

Pixel (x, y) covers x..x+1 and y..y+1, so that a polygon's area is its number of pixels, and a
region of one pixel is a square of side 1.
"""
import cv2
import numpy as np

MOST = 0.05  # of a region's area that its simplified polygon may be off by
TRIED = 16  # corners of a hole, at most, that a bridge to it may begin at


def outlines(mask: np.ndarray, tolerance: float) -> list[np.ndarray]:
    """Return a closed polygon for each region of a mask.

    Pixels that touch at a corner are one region. A hole is joined to the outline around it by a
    bridge without width, there and back, so that one polygon holds both.

    mask: bool (H, W), contiguous.
    tolerance: corners that the outline without them passes within so many pixels are left out; 0
    keeps all; a region whose area would change by more than `MOST` keeps all, too.
    Returns int (n, 2) each, x then y.
    """
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    if not width:
        return []
    # of four pixels in the place of each, every one lies at one of its corners
    fine = mask[top:top + height, left:left + width].view(np.uint8).repeat(2, 0).repeat(2, 1)
    contours, tree = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    regions: dict[int, list[np.ndarray]] = {}  # number of the outline -> it, and its holes
    for number, (contour, parent) in enumerate(zip(contours, tree[0, :, 3], strict=True)):
        regions.setdefault(number if parent < 0 else parent, []).append(_corners(contour[:, 0]))
    found = []
    for region in regions.values():
        # the outline is the one with the largest area, wherever OpenCV puts it among its holes
        region.sort(key=area, reverse=True)
        whole = _joined(region)
        simple = _joined([ring for ring in (_simplified(ring, tolerance) for ring in region)
                          if len(ring) > 2])
        fits = abs(area(simple) - area(whole)) <= MOST * area(whole)
        found.append((simple if fits else whole) + (left, top))
    return found


def area(polygon: np.ndarray) -> float:
    """Return the area inside a closed polygon (n, 2)."""
    x, y = polygon.T.astype(np.float64)
    return abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2 if len(polygon) else 0.0


def _corners(contour: np.ndarray) -> np.ndarray:
    """A contour of the four times finer mask -> the corners of pixels where the outline turns."""
    points = (contour + 1) // 2
    points = points[(points != np.roll(points, 1, 0)).any(1)]
    step = points - np.roll(points, 1, 0)  # along one axis
    return points[(step * np.roll(step, -1, 0)).sum(1) <= 0]


def _simplified(ring: np.ndarray, tolerance: float) -> np.ndarray:
    return cv2.approxPolyDP(ring.astype(np.int32), tolerance, True)[:, 0] if tolerance else ring


def _joined(rings: list[np.ndarray]) -> np.ndarray:
    """An outline and its holes as one ring. A bridge joins the nearest corners of the two, as far
    as these were tried."""
    if not rings:
        return np.empty((0, 2), np.int32)
    whole, *holes = rings
    for hole in holes:
        tried = hole[::len(hole) // TRIED + 1]
        distance = np.abs(whole[:, None] - tried).sum(2)
        at, of = np.unravel_index(distance.argmin(), distance.shape)
        turned = np.roll(hole, -of * (len(hole) // TRIED + 1), 0)
        whole = np.concatenate([whole[:at + 1], turned, turned[:1], whole[at:]])
    return whole
