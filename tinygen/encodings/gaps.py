"""Where stored values stand when the zeros before each of them are counted."""

from __future__ import annotations

import numpy as np

from tinygen.encodings.base import Lines, ceil_divide, summed, within
from tinygen.graph import Array


def positions(lines: Lines, most: int) -> tuple[Array, Array]:
    """Positions among ``lines.values`` of those to store, and how many each line has.

    They are at most ``most`` apart: values that are not 0, the last value of each line, and zeros
    in between.
    """
    wanted = lines.nonzero.copy()
    wanted[np.cumsum(lines.lengths) - 1] = True
    places = np.flatnonzero(wanted)
    steps = np.diff(places, prepend=-1)
    parts = ceil_divide(steps, most)
    # The last of several parts is what remains.
    to_end = np.repeat(parts, parts) - 1 - within(parts)
    starts = np.repeat(places - steps, parts)
    found = np.where(to_end == 0, np.repeat(places, parts), starts + most * (within(parts) + 1))
    marks = np.zeros(lines.values.size, bool)
    marks[found] = True
    return found, summed(marks, lines.lengths)
