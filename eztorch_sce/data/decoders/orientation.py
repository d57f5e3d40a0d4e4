"""How frames are turned to stand upright, by the display matrix of a file: int32 (3, 3), or None where it has none."""

import numpy as np


def upright(image: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Turn and mirror (H, W, 3) by quarter turns; a pixel at (x, y) moves to (x, y) times the matrix."""
    if matrix is None:
        return image
    if swaps_axes(matrix):
        image = image.transpose(1, 0, 2)
        turned_x, turned_y = matrix[1, 0] < 0, matrix[0, 1] < 0
    else:
        turned_x, turned_y = matrix[0, 0] < 0, matrix[1, 1] < 0
    return image[:: -1 if turned_y else 1, :: -1 if turned_x else 1]


def swaps_axes(matrix: np.ndarray | None) -> bool:
    """Tell whether `upright` makes rows of columns."""
    return matrix is not None and bool(abs(matrix[0, 1]) > abs(matrix[0, 0]))


def turn_in_words(matrix: np.ndarray | None) -> str:
    """Return by how much `upright` turns, as in "90 degrees clockwise mirrored"; "" where it does not."""
    if matrix is None:
        return ""
    corners = np.arange(4, dtype=np.uint8).reshape(2, 2, 1)
    shown = upright(corners, matrix)
    for mirrored, stored in (("", corners), ("mirrored", corners[:, ::-1])):
        for turns in range(4):
            if np.array_equal(np.rot90(stored, -turns), shown):
                degrees = f"{90 * turns} degrees clockwise" if turns else ""
                return " ".join(filter(None, (degrees, mirrored)))
    raise AssertionError("a quarter turn, mirrored or not, is one of eight")
