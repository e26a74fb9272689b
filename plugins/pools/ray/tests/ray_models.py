"""Scripted models for tests on a cluster: quick to open, and every call that they answer is written down."""

import json
import os
import time
from pathlib import Path

import attrs

from moco_core import EngineOutOfMemory, PoolSource, Secret, option
from moco_toolkit_authoring import ScriptedPool
from moco_toolkit_authoring.scripted import ScriptedEngine, ScriptedServer


@attrs.frozen(kw_only=True)
class Options:
    names: tuple[str, ...] = option(("a", "b"))
    log: str = option("", help="where answered calls are written down")
    hold: str = option("", help="calls of this prompt are answered once the file is there")
    delay: float = option(0.0, help="seconds that an answer takes")
    most: int = option(0, help="more calls at once do not fit into memory")
    server: bool = option(False, help="calls are submitted one by one")
    memory: int = option(0)
    group: str = option("cpu")
    prefix: str = option("")
    access_token: str = option("")
    api_key: Secret | None = option(None)


def mixin(base):
    class Engine(base):
        tells = True

        def __init__(self, options):
            super().__init__()
            self.options = options

        def answer(self, call):
            said = str(call.input)
            result = super().answer(call)
            if self.options.log:
                with open(self.options.log, "a") as file:
                    file.write(json.dumps([os.getpid(), call.model.name, said]) + "\n")
            time.sleep(self.options.delay)
            while self.options.hold and "hold" in said and not Path(self.options.hold).exists():
                time.sleep(0.02)
            return result

    return Engine


class Batching(mixin(ScriptedEngine)):
    def serve(self, model, inbox):
        most = self.options.most
        if not most and not self.options.delay:
            super().serve(model, inbox)
            return
        while calls := inbox.take(None if most else 1):
            if 0 < most < len(calls):
                raise EngineOutOfMemory(f"{model.name}: {len(calls)} calls do not fit")
            inbox.resolve([(call, self.answer(call)) for call in calls])


class Submitting(mixin(ScriptedServer)):
    pass


def reply(prefix):
    return lambda call: f"{prefix}{call.seed % 9973 if call.params.get('temperature') else call.prompt[::-1]}"


class RayScripted(PoolSource):
    "Scripted models whose calls are written down."

    Options = Options

    def models(self):
        if not hasattr(self, "known"):
            o = self.options
            engine = (Submitting if o.server else Batching)(o)
            fields = {n: {"memory": o.memory, "base": n, "device_group": o.group} for n in o.names}
            for name in o.names:
                fields[name]["fingerprint"] = f"ray scripted {name} {o.prefix}"
            self.known = tuple(ScriptedPool(dict.fromkeys(o.names, reply(o.prefix)), engine=engine, fields=fields).pool)
        return self.known
