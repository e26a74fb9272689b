"""Scripted models for grids on a cluster: they take their time, and write down whom they answered."""

import json
import os
import time
from pathlib import Path

import attrs

from moco_core import PoolSource, option
from moco_toolkit_authoring import ScriptedPool
from moco_toolkit_authoring.scripted import ScriptedEngine


@attrs.frozen(kw_only=True)
class Options:
    names: tuple[str, ...] = option(("a", "b"))
    log: str = option("", help="where answered calls are written down")
    delay: float = option(0.0, help="seconds that a batch takes")
    batch: int = option(1 << 20, help="calls of a batch")
    hold: str = option("", help="nothing is answered before this file is there")


class Slow(ScriptedEngine):
    def __init__(self, options):
        super().__init__()
        self.options = options

    def serve(self, model, inbox):
        o = self.options
        while not inbox.cancelled and (calls := inbox.take(o.batch)):
            if o.log:
                with open(o.log, "a") as file:
                    file.writelines(json.dumps([os.getpid(), model.name, str(c.input)]) + "\n" for c in calls)
            until = time.monotonic() + o.delay
            while not inbox.cancelled and (time.monotonic() < until or (o.hold and not Path(o.hold).exists())):
                time.sleep(0.01)
            if not inbox.cancelled:
                inbox.resolve([(c, self.answer(c)) for c in calls])


class GridModels(PoolSource):
    "Slow scripted models."

    Options = Options

    def models(self):
        if not hasattr(self, "known"):
            engine = Slow(self.options)
            scripts = {
                n: (lambda call, n=n: f"{n} says {sum(call.prompt.encode()) % 7 + len(n)}") for n in self.options.names
            }
            fields = {n: {"device_group": n} for n in self.options.names}
            self.known = tuple(ScriptedPool(scripts, engine=engine, fields=fields).pool)
        return self.known
