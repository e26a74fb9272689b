"""Puts the tests' helper module on the path, whatever import mode pytest runs in."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def mixed():
    from decoding_models import every_kind

    return every_kind()
