"""Fixtures all tests share."""

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the repository; without it the test is skipped, except in CI."""
    if not SHARED.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"reference data are missing: {SHARED}")
        pytest.skip(f"needs the reference data in {SHARED}")
    return SHARED
