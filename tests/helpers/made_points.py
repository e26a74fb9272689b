"""Entry points of distributions that are not installed, for tests of the catalogue."""

from importlib.metadata import EntryPoint


class Dist:
    def __init__(self, name, version="1.0", keywords="moco,spec-1,level-text", summary="Does things."):
        self.text = f"Name: {name}\nVersion: {version}\nSummary: {summary}\nKeywords: {keywords}\n\nName: not this\n"

    def read_text(self, name):
        return self.text if name == "METADATA" else None


def point(name, module, dist, kind="method"):
    made = EntryPoint(name=name, value=module, group=f"moco.{kind}")
    vars(made)["dist"] = dist
    return made
