"""Entry points of distributions that are not installed, for tests of the catalogue."""

from moco_core.discovery import EntryPoint


class Dist:
    def __init__(self, name, version="1.0", keywords="moco,spec-1,level-text", summary="Does things."):
        self.text = f"Name: {name}\nVersion: {version}\nSummary: {summary}\nKeywords: {keywords}\n\nName: not this\n"

    def read_text(self, name):
        return self.text if name == "METADATA" else None


def point(name, value, dist, kind="method"):
    module, _, attr = value.partition(":")
    return EntryPoint(name, f"moco.{kind}", module, attr, dist)
