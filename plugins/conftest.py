"""Every package's folder of tests is on the path, so that its tests can share a module beside them; nothing is timed."""

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.extend(sorted(map(str, Path(__file__).parent.glob("*/*/tests"))))

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
