"""Models of every kind, made once."""

import pytest


@pytest.fixture(scope="session")
def mixed():
    from decoding_models import every_kind

    return every_kind()
