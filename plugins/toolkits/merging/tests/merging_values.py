"""Weights held in memory, and recipes tried on them: what the tests of merging share."""

import torch

from moco_toolkit_checkpoints.local import AdapterWeights
from moco_toolkit_merging import Consensus, MergeRecipe
from moco_toolkit_merging.adapters import delta, factors
from moco_toolkit_merging.workspace import Workspace

torch.set_num_threads(1)


class Dict:
    """Weights held in a dict: what a recipe reads."""

    def __init__(self, tensors, config=None):
        self.tensors, self.config, self.names = tensors, config or {}, list(tensors)

    def shape(self, name):
        return tuple(self.tensors[name].shape)

    def get(self, name):
        return self.tensors[name]


def merged(operation, *sources, name="w", workspace=None, out=None):
    recipe = MergeRecipe(
        operation=operation, sources=[f"s{i}" for i in range(len(sources))], workspace=workspace or Workspace()
    )
    operation.check(len(sources))
    weights = [s if isinstance(s, Dict) else Dict({name: torch.as_tensor(s)}) for s in sources]
    if out is None:
        return recipe.tensor(name, weights)
    assert recipe.write(name, weights, out)
    return out


def randoms(count, shape=(17, 9), seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) * scale for _ in range(count)]


def plain(weights, density=None, **keywords):
    density = (1.0,) * len(weights) if density is None else density
    return Consensus(weights=weights, density=density, **{"sparsify": "none", **keywords})


BASE, ONE, TWO = torch.ones(4), torch.tensor([3.0, 0, 1, 2]), torch.tensor([2.0, -3, 1, 1])


def adapter(rank=2, alpha=4, seed=0, modules=("m.q", "m.v"), shapes=((6, 5), (4, 6)), **config):
    tensors = {}
    for i, (module, (out, inn)) in enumerate(zip(modules, shapes, strict=False)):
        a, b = randoms(1, (rank, inn), seed * 10 + i)[0], randoms(1, (out, rank), seed * 10 + i + 5)[0]
        tensors[f"base_model.model.{module}.lora_A.weight"] = a
        tensors[f"base_model.model.{module}.lora_B.weight"] = b
    return AdapterWeights(
        config={"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": ["q", "v"]} | config,
        tensors=tensors,
    )


def updates(a):
    return {m: delta(f) for m, f in factors(a).items()}
