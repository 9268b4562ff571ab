"""Make the data of the keywords example: ten words, spoken by a synthesizer in many voices.

    apt-get install espeak-ng
    python -m examples.keywords.data

Debian's ``espeak-ng`` speaks each word in eight accents of English, with its voice variants as
speakers; a speaker is in the training set or in the test set, never in both.  Pitch, speed, start,
loudness, noise (white to rumbling) and other people's talk behind are drawn at random with a fixed
seed.  Beside the ten words there are "unknown" (other words; the test set has four that are never
heard in training) and "silence" (noise and far talk).

Features are log-mel energies, computed here in numpy: one second at 22,050 Hz, 49 frames of 40 ms
every 20 ms, 20 bands from 60 to 7,600 Hz.  Writes ``build/examples/keywords/{train,test}.npz``
(49, 20, 1), and 250 of the test examples beside itself as ``test.npz``.  Takes two minutes.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from examples import common
from tinygen.datasets import Data
from tinygen.errors import InputError
from tinygen.graph import Array

SEED = 5
WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
UNKNOWN, SILENCE = len(WORDS), len(WORDS) + 1
CLASSES = (*WORDS, "unknown", "silence")
OTHERS = (
    *("bed", "bird", "cat", "dog", "five", "four", "happy", "house", "marvin", "nine", "one"),
    *("seven", "sheila", "six", "three", "tree", "two", "wow", "zero", "water", "music", "window"),
)
NEW_OTHERS = ("eight", "learn", "visual", "forward")
ACCENTS = (
    *("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd"),
    *("en-029", "en-us-nyc"),
)
SPEAKERS = (
    *("Alex", "Alicia", "Andrea", "Andy", "Annie", "antonio", "aunty", "belinda", "benjamin"),
    *("boris", "caleb", "david", "Denis", "Diogo", "ed", "edward", "Gene", "grandma", "grandpa"),
    *("gustave", "Henrique", "Hugo", "iven", "Jacky", "john", "kaukovalta", "klatt", "klatt2"),
    *("klatt3", "Lee", "linda", "marcelo", "Marco", "Mario", "max", "Michael", "michel", "miguel"),
    *("Mike", "Nguyen", "pablo", "paul", "pedro", "quincy", "rob", "robert", "sandro", "shelby"),
    *("steph", "steph2", "steph3", "travis", "victor", "zac", "f1", "f2", "f3", "f4", "f5"),
    *("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "anika", "norbert"),
)
TEST_SPEAKERS = 20

RATE = 22_050
FRAME, HOP, FRAMES, BANDS = 882, 441, 49, 20
LOWEST, HIGHEST = 60.0, 7_600.0
TRAIN_EACH, TEST_EACH = 600, 150
COMMITTED = 250


@dataclass(frozen=True)
class Utterance:
    """A word as somebody says it: ``speed`` in words a minute, ``pitch`` 0 to 99."""

    word: str
    accent: str
    speaker: str
    speed: int
    pitch: int

    def command(self) -> list[str]:
        voice = f"{self.accent}+{self.speaker}"
        return ["-v", voice, "-s", str(self.speed), "-p", str(self.pitch), "--stdout", self.word]


def spoken(utterances: Sequence[Utterance]) -> list[Array]:
    """The sound of each, float32 in -1..1 at 22,050 Hz, without silence around it."""
    tool = shutil.which("espeak-ng")
    if tool is None:
        raise InputError("espeak-ng: not there", "it speaks: apt-get install espeak-ng")

    def say(utterance: Utterance) -> Array:
        done = subprocess.run([tool, *utterance.command()], capture_output=True, check=True)
        return trimmed(np.frombuffer(done.stdout[44:], dtype="<i2").astype(np.float32) / 32768)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(say, utterances))


def trimmed(sound: Array) -> Array:
    """``sound`` from where it is first louder than a fiftieth of its peak to where it last is."""
    loud = np.flatnonzero(np.abs(sound) > np.abs(sound).max(initial=1e-6) / 50)
    return sound[loud[0] : loud[-1] + 1] if len(loud) else sound


def draw_utterance(word: str, speakers: Sequence[str], draw: np.random.Generator) -> Utterance:
    accent, speaker = str(draw.choice(ACCENTS)), str(draw.choice(speakers))
    return Utterance(
        word, accent, speaker, int(draw.integers(110, 240)), int(draw.integers(10, 90))
    )


def noise(draw: np.random.Generator) -> Array:
    """A second of noise with an effective value of 1, from white to rumbling."""
    spectrum = np.fft.rfft(draw.normal(size=RATE))
    spectrum *= np.maximum(np.arange(len(spectrum)), 20.0) ** -draw.uniform(0, 1.0)
    sound = np.fft.irfft(spectrum, RATE)
    return sound / np.sqrt(np.mean(sound**2))


def placed(sound: Array, draw: np.random.Generator) -> Array:
    """A second with ``sound`` somewhere in it; of longer sounds a part."""
    second = np.zeros(RATE)
    room = RATE - len(sound)
    if room >= 0:
        start = int(draw.integers(0, room + 1))
        second[start : start + len(sound)] = sound
        return second
    start = int(draw.integers(0, -room + 1))
    return sound[start : start + RATE].astype(np.float64)


def mixed(sound: Array | None, talk: Array, draw: np.random.Generator) -> Array:
    """A second of ``sound`` (None: nobody speaks) before noise and, at times, others' ``talk``."""
    behind = noise(draw)
    if draw.uniform() < 0.3:
        talk = placed(talk, draw)
        behind += talk / np.sqrt(np.mean(talk**2) + 1e-9) * draw.uniform(0.2, 0.8)
    if sound is None:
        return behind * 10 ** draw.uniform(-3, -1.2)
    second = placed(sound, draw)
    level = np.sqrt(np.mean(sound**2)) * 10 ** (-draw.uniform(5, 30) / 20)
    return (second + behind * level) * 10 ** draw.uniform(-1, 0)


def mel_filters() -> Array:
    """Triangles on the mel scale, 2595 log10(1 + f / 700), (bins, 20)."""
    low, high = (2595 * np.log10(1 + f / 700) for f in (LOWEST, HIGHEST))
    edges = 700 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(1024, 1 / RATE)[:, np.newaxis]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(np.minimum(rising, falling), 0)


FILTERS = mel_filters()
WINDOW = np.hanning(FRAME)


def features(second: Array) -> Array:
    """Log-mel energies of one second, float32 (49, 20, 1), -1 to 1 in steps of 1/128."""
    starts = np.arange(FRAMES) * HOP
    frames = second[np.minimum(starts[:, np.newaxis] + np.arange(FRAME), RATE - 1)] * WINDOW
    power = np.abs(np.fft.rfft(frames, 1024)) ** 2 @ FILTERS
    energies = np.round(np.log10(power + 1e-6) * 32) / 128
    return np.clip(energies, -1, 1).astype(np.float32)[..., np.newaxis]


def make(each: int, speakers: Sequence[str], others: Sequence[str], seed: int) -> Data:
    """``each`` examples of every class, twice as many of unknown words, in random order."""
    draw = np.random.default_rng(seed)
    labels = [*np.repeat(np.arange(len(WORDS)), each), *[UNKNOWN] * (2 * each), *[SILENCE] * each]
    words = [WORDS[i] if i < UNKNOWN else str(draw.choice(others)) for i in labels]
    sounds = spoken([draw_utterance(word, speakers, draw) for word in words])
    talk = sounds[len(WORDS) * each :]
    examples = [
        features(mixed(None if label == SILENCE else sound, talk[draw.integers(len(talk))], draw))
        for sound, label in zip(sounds, labels, strict=True)
    ]
    data = Data(np.array(examples), np.array(labels, dtype=np.int64))
    return data.take(draw.permutation(len(data)))


def main() -> None:
    order = [str(s) for s in np.random.default_rng(SEED).permutation(SPEAKERS)]
    train = make(TRAIN_EACH, order[TEST_SPEAKERS:], OTHERS, SEED)
    test = make(TEST_EACH, order[:TEST_SPEAKERS], (*OTHERS, *NEW_OTHERS), SEED + 1)
    common.write("keywords", train, test, COMMITTED)


if __name__ == "__main__":
    main()
