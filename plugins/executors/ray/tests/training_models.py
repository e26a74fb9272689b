"""Models whose trainings wait for one another, and a method that trains two of them at once."""

import json
import time
from pathlib import Path

import attrs

from moco_core import Method, ModelCallError, Needs, PoolSource, Reply, System, option
from moco_toolkit_authoring import ScriptedPool
from moco_toolkit_authoring.scripted import ScriptedEngine


@attrs.frozen(kw_only=True)
class Options:
    log: str = option("", help="where trainings are written down: the model, the run's mark, the node")


class Waiting(ScriptedEngine):
    def __init__(self, options):
        super().__init__()
        self.log = Path(options.log)

    def train(self, model, job, site):
        import ray

        mark = job.rows[0].messages[0].content
        with self.log.open("a") as file:
            file.write(json.dumps([model.name, mark, ray.get_runtime_context().get_node_id()]) + "\n")
        end = time.monotonic() + 60
        while sum(json.loads(line)[1] == mark for line in self.log.read_text().splitlines()) < 2:
            if time.monotonic() > end:
                raise ModelCallError(f"{model.name}: nobody else is trained at the same time")
            time.sleep(0.05)
        return super().train(model, job, site)


class TrainingModels(PoolSource):
    "Scripted models whose trainings wait for one another."

    Options = Options

    def models(self):
        if not hasattr(self, "known"):
            scripts = {n: (lambda call, n=n: f"{n} says 4") for n in "ab"}
            fields = {n: {"base": n, "device_group": "cpu"} for n in "ab"}
            self.known = tuple(ScriptedPool(scripts, engine=Waiting(self.options), fields=fields).pool)
        return self.known


@attrs.frozen(eq=False, slots=False)
class TaughtSystem(System):
    trained: tuple

    def state(self):
        return {}

    async def respond(self, question, context):
        return Reply.of(await context.generate(self.trained[0], question))


class Taught(Method):
    "Trains both models at once."

    system = TaughtSystem

    def needs(self):
        return Needs(capabilities={"generate", "train"}, min_models=2)

    async def fit(self, pool, dev, context):
        from moco_toolkit_training import Demonstration, Sft

        job = Sft(rows=[Demonstration.of(f"seed {context.seed}", "4")])
        trained = await context.gather(context.train(model, job) for model in pool)
        return TaughtSystem(pool, self.options, trained=tuple(trained))
