"""What observers for experiment trackers share: one worker, figures of a run, its table and its report."""

from moco_toolkit_tracking.figures import closing, flat, points, report_text, safe, table
from moco_toolkit_tracking.observer import Tracked, Tracker, TrackingObserver, TrackingOptions, silenced

__all__ = [
    "Tracked",
    "Tracker",
    "TrackingObserver",
    "TrackingOptions",
    "closing",
    "flat",
    "points",
    "report_text",
    "safe",
    "silenced",
    "table",
]
