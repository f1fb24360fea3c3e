"""Where scrapy-mock keeps its cassettes, wherever pytest was called, and when it may record.

To record anew: delete a cassette, start `python tests/fixtures/record.py`, run these tests.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import vcr

CASSETTES = Path(__file__).resolve().parents[2] / "fixtures" / "cassettes"


@pytest.fixture(scope="session")
def vcr_settings() -> vcr.VCR:
    """scrapy-mock's own settings, but with an absolute path."""
    return vcr.VCR(
        serializer="yaml",
        decode_compressed_response=True,
        cassette_library_dir=str(CASSETTES),
        record_mode="none" if os.getenv("CI") else "once",
    )
