"""Make the data of the motion example: a simulated accelerometer worn while doing seven things.

    python -m examples.motion.data

No package and no recording: each window of 2.56 s (128 samples at 50 Hz, three axes, in g) is the
sum of gravity, of movement at the harmonics of a pace, of vibration, drift and noise, and is seen
by a sensor that sits at an angle of its own.  People differ in pace, strength and how their steps
sound; those of the test set are not those of the training set.  The activities overlap on purpose:
a slow walk looks like climbing stairs.  Writes ``build/examples/motion/{train,test}.npz``, and 500
of the test windows beside itself as ``test.npz``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from examples import common
from tinygen.datasets import Data
from tinygen.graph import Array

SEED = 3
RATE = 50.0
SAMPLES = 128
STEP = 1 / 32
"""What the sensor tells apart, in g: 8 bits for -4 to 4 g, as small ones give at low power."""

PEOPLE, TEST_PEOPLE = 150, 40
WINDOWS = 8
"""Windows of each person in each activity."""

COMMITTED = 500


@dataclass(frozen=True)
class Activity:
    """How one thing moves: ranges of people's pace (Hz) and strength (g), and shares.

    ``harmonics`` are strengths at 1, 2, 3, ... times the pace of the vertical movement, ``sway``
    is the share of movement to the side at half the pace, ``forward`` of movement along, ``impact``
    of the short knock once a pace, ``vibration`` the strength in g of what shakes faster.
    """

    name: str
    pace: tuple[float, float]
    strength: tuple[float, float]
    harmonics: tuple[float, ...]
    sway: float
    forward: float
    impact: float
    vibration: float


ACTIVITIES = (
    Activity("rest", (0.15, 0.4), (0.0, 0.03), (1.0,), 0.5, 0.5, 0.0, 0.012),
    Activity("walk", (1.6, 2.1), (0.15, 0.35), (1.0, 0.5, 0.2), 0.45, 0.5, 0.35, 0.03),
    Activity("upstairs", (1.2, 1.65), (0.12, 0.3), (1.0, 0.2, 0.35), 0.7, 0.3, 0.15, 0.03),
    Activity("downstairs", (1.7, 2.4), (0.22, 0.5), (1.0, 0.55, 0.4), 0.35, 0.35, 0.9, 0.04),
    Activity("run", (2.2, 3.1), (0.5, 1.2), (1.0, 0.35, 0.15), 0.3, 0.45, 0.5, 0.05),
    Activity("cycle", (0.9, 1.6), (0.06, 0.2), (1.0, 0.2), 0.9, 0.8, 0.05, 0.07),
    Activity("shake", (2.6, 5.5), (0.3, 1.3), (1.0, 0.15), 0.8, 0.9, 0.0, 0.04),
)


@dataclass(frozen=True, eq=False)
class Person:
    """Where in every activity's ranges somebody is, and what is their own."""

    pace: float
    strength: float
    accents: Array
    balance: Array


def person(draw: np.random.Generator) -> Person:
    return Person(
        pace=draw.uniform(0, 1),
        strength=draw.uniform(0, 1),
        accents=draw.uniform(0.8, 1.25, 6),
        balance=draw.uniform(0.85, 1.2, 3),
    )


def window(activity: Activity, who: Person, draw: np.random.Generator) -> Array:
    """One window, float32 (128, 3), in g as the turned sensor sees it."""
    time = np.arange(SAMPLES) / RATE
    pace = np.interp(np.clip(who.pace + draw.normal(0, 0.15), 0, 1), (0, 1), activity.pace)
    at = np.clip(who.strength + draw.normal(0, 0.2), 0, 1)
    strength = np.interp(at, (0, 1), activity.strength)
    wander = np.cumsum(draw.normal(0, 0.02, SAMPLES))
    phase = 2 * np.pi * (pace * time + draw.uniform()) + wander
    vertical = sum(
        share * who.accents[k] * np.sin((k + 1) * phase + draw.normal(0, 0.5))
        for k, share in enumerate(activity.harmonics)
    )
    knock = np.maximum(np.cos(phase + draw.normal(0, 0.3)), 0) ** 12
    side = activity.sway * np.sin(phase / 2 + draw.uniform(0, 6.3))
    along = activity.forward * np.sin(phase + draw.uniform(0, 6.3))
    along += activity.impact * 0.3 * np.roll(knock, 2)
    moves = np.stack([side, along, vertical + activity.impact * 2 * knock], axis=1) * who.balance
    fast = draw.normal(0, activity.vibration * draw.uniform(0.5, 2), (SAMPLES, 3))
    seen = (strength * moves + fast + [0, 0, 1]) @ turned(draw).T
    drift = draw.normal(0, 0.03, 3) + np.linspace(-1, 1, SAMPLES)[:, None] * draw.normal(0, 0.04, 3)
    noise = draw.normal(0, 0.025, seen.shape)
    return np.clip(np.round((seen + drift + noise) / STEP) * STEP, -4, 4).astype(np.float32)


def turned(draw: np.random.Generator) -> Array:
    """A rotation in space drawn evenly (of a normal quaternion)."""
    quaternion = draw.normal(size=4)
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def turned_anew(windows: Array, draw: np.random.Generator) -> Array:
    """``windows`` each as seen by a sensor at another angle."""
    turns = np.array([turned(draw) for _ in windows])
    return np.clip(windows @ turns.transpose(0, 2, 1), -4, 4).astype(np.float32)


def simulate(people: int, draw: np.random.Generator) -> Data:
    """Every activity by ``people``, in an order drawn at random."""
    windows, labels = [], []
    for who in [person(draw) for _ in range(people)]:
        for label, activity in enumerate(ACTIVITIES):
            windows += [window(activity, who, draw) for _ in range(WINDOWS)]
            labels += [label] * WINDOWS
    data = Data(np.array(windows), np.array(labels, dtype=np.int64))
    return data.take(draw.permutation(len(data)))


def main() -> None:
    draw = np.random.default_rng(SEED)
    train, test = simulate(PEOPLE, draw), simulate(TEST_PEOPLE, draw)
    common.write("motion", train, test, COMMITTED)


if __name__ == "__main__":
    main()
