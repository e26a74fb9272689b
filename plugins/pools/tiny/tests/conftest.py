"""The scripts that train and measure the models are no part of the package; the tests find them by their names."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "training"))
