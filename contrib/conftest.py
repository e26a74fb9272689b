"""Every package's folder of tests is on the path, so that its tests can share a module beside them."""

import sys
from pathlib import Path

sys.path.extend(sorted(map(str, Path(__file__).parent.glob("*/tests"))))
