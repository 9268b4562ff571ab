"""Where stored values stand when the zeros before each of them are counted."""

from __future__ import annotations

import numpy as np

from tinygen.graph import Array


def positions(line: Array, most: int) -> Array:
    """Positions of the values to store, at most ``most`` apart, the last one where the line ends.

    They are those of the values that are not 0, of the last value, and of zeros in between.
    """
    places = np.flatnonzero(line)
    if not places.size or places[-1] != line.size - 1:
        places = np.append(places, line.size - 1)
    steps = np.diff(places, prepend=-1)
    parts = -(-steps // most)
    behind = np.repeat(np.cumsum(parts), parts) - 1 - np.arange(parts.sum())
    fillers = np.repeat(places - steps, parts) + most * (np.repeat(parts, parts) - behind)
    found: Array = np.where(behind == 0, np.repeat(places, parts), fillers)
    return found
