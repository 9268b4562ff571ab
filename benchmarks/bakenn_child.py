"""Run by the Python of BakeNN's own environment: compile one model, say in JSON what came out.

``bakenn_child.py MODEL FOLDER NAME TARGET OPTION...`` with options ``cmsis_nn``, ``esp_nn``,
``any_padding`` and ``mve``.  ``any_padding`` lifts BakeNN's rule that CMSIS-NN gets no convolution
whose padding is uneven, which CMSIS-NN itself computes rightly: what then remains is CMSIS-NN
called directly, without an interpreter.  ``mve`` gives CMSIS-NN the scratch memory that its vector
kernels ask for, so that the same sources can be compiled for a core with vectors.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import bakenn
from bakenn.backend.portable_c.families import conv


def _vector_scratch(step: Any, channels: int, height: int, width: int) -> int:
    """Bytes, as ``arm_convolve_s8_get_buffer_size`` has them: four columns of whole vectors."""
    return 4 * 8 * -(-channels * height * width // 8)


def _vector_depthwise_scratch(step: Any, channels: int, height: int, width: int) -> int:
    """Bytes, as ``arm_depthwise_conv_s8_opt_get_buffer_size`` has them: 124 channels at a time."""
    return 4 * 124 * height * width


def main(model: str, folder: str, name: str, target: str, *options: str) -> dict[str, Any]:
    if "any_padding" in options:
        conv._symmetric_padding = lambda padding: True
    if "mve" in options:
        conv._cmsis_conv_scratch_bytes = _vector_scratch
        conv._cmsis_depthwise_scratch_bytes = _vector_depthwise_scratch
    chosen = bakenn.CBackendOptions(
        kernel_policy=bakenn.KernelPolicy.STATIC_PRIORITY,
        enable_cmsis_nn="cmsis_nn" in options,
        enable_esp_nn="esp_nn" in options,
        target=bakenn.targets.resolve_target(target),
    )
    made = bakenn.compile_tflite(Path(model), Path(folder), name=name, backend_options=chosen)
    files = made.artifacts
    own = (files.model_source, files.weights_source, files.kernels_source)
    return {
        "header": files.header.name,
        "sources": [str(path) for path in (*own, *files.support_sources)],
        "includes": [str(path) for path in (files.output_dir, *files.support_include_dirs)],
        "kernels": sorted({s.kernel_id for s in files.backend_plan.selections}),
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
