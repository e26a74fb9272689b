"""Puts every package's folder of tests on the path, so that its tests can share a module beside them."""

import sys
from pathlib import Path

sys.path.extend(sorted(map(str, Path(__file__).parent.glob("*/*/tests"))))
