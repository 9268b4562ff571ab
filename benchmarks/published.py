"""What others need, measured once on 2026-11-23 and not measured again by ``make bench``.

TensorFlow Lite for Microcontrollers is in no package registry, so these figures stand beside the
ones of a run, marked as what they are.  Cortex-M4 (`mps2-an386` in QEMU 7.2, instructions of the
second inference), GCC 12.2, batch 1, the input that ``firmware/bench/main.c`` makes too.  Flash is
text and data of a minimal program, RAM data and bss of it, the arena included, the stack not; the
better of -O2 and -O3.  Every program gave TFLM's bytes.
"""

from __future__ import annotations

from collections.abc import Mapping

DATE = "2026-11-23"

TFLM: Mapping[str, Mapping[str, tuple[float, int, int]]] = {
    "kws_ref_model": {
        "tflm": (43.1e6, 95_668, 23_256),
        "tflm_cmsis_nn": (7.70e6, 141_736, 23_304),
        "cmsis_nn": (7.69e6, 52_204, 16_272),
    },
    "pretrainedResnet_quant": {
        "tflm": (107.5e6, 144_800, 54_824),
        "tflm_cmsis_nn": (29.9e6, 181_284, 55_480),
        "cmsis_nn": (29.9e6, 101_496, 51_472),
    },
    "vww_96_int8": {
        "tflm": (100.5e6, 375_020, 101_144),
        "tflm_cmsis_nn": (24.1e6, 421_088, 101_192),
        "cmsis_nn": (24.1e6, 267_736, 65_552),
    },
    "ad01_int8": {
        "tflm": (1.95e6, 297_768, 3_000),
        "tflm_cmsis_nn": (0.582e6, 312_020, 3_320),
        "cmsis_nn": (0.579e6, 277_212, 784),
    },
    "str_ww_ref_model": {
        "tflm": (8.30e6, 117_056, 15_704),
        "tflm_cmsis_nn": (2.23e6, 159_176, 17_048),
        "cmsis_nn": (2.22e6, 78_448, 10_512),
    },
    "person_detect": {
        "tflm": (95.9e6, 341_144, 82_744),
        "tflm_cmsis_nn": (22.9e6, 374_624, 82_760),
        "cmsis_nn": (22.9e6, 263_768, 56_336),
    },
}
"""Instructions, flash and RAM on the Cortex-M4, by model: TFLM's reference kernels, TFLM with
CMSIS-NN, and CMSIS-NN called directly by a program written by hand, without an interpreter."""

M55: Mapping[str, float] = {
    "kws_ref_model": 1.79e6,
    "pretrainedResnet_quant": 4.81e6,
    "vww_96_int8": 6.43e6,
    "ad01_int8": 0.150e6,
    "str_ww_ref_model": 0.407e6,
    "person_detect": 6.38e6,
}
"""Instructions of TFLM with CMSIS-NN on the Cortex-M55 with vectors (`mps3-an547`)."""
