"""In CI a skipped test is a failure, unless it says one of the reasons expected there."""

from __future__ import annotations

import os

import pytest

# Tests run side by side: libraries that start a thread a core would wait for each other.
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
    os.environ.setdefault(variable, "1")

EXPECTED = (
    "TINYGEN_TFLM_DIR names no TFLM tree",  # TFLM's sources are in no package registry
    "reference models not at",  # they lie beside the repository where they are at hand
    "measured with other tools",  # another compiler or emulator gives other figures
)


def unexpected(reasons: list[str]) -> list[str]:
    """Those of ``reasons`` for which nothing in :data:`EXPECTED` stands."""
    return [reason for reason in reasons if not any(known in reason for known in EXPECTED)]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get("CI"):
        return
    reasons = [str(report.longrepr) for report in reporter.stats.get("skipped", [])]
    for reason in unexpected(reasons):
        reporter.write_line(f"unexpected skip: {reason}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
