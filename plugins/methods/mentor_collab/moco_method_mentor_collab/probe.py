"""The probe: a small classifier on the generator's hidden state that says whether to keep the generator's segment."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from moco_toolkit_decoding import auroc

__all__ = ["Probe", "train_probe"]


class Dropout(nn.Module):
    """Dropout that draws from its own generator: training in a thread neither takes nor gives random numbers elsewhere."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.share:
            return x
        kept = torch.rand(x.shape, generator=self.generator) >= self.share
        return x * kept / (1 - self.share)


class Probe(nn.Module):
    """linear d -> 2d, batch norm, ReLU, dropout; 2d -> d, the same; d -> d/2, ReLU, dropout; d/2 -> 1 (author code).

    Inputs are standardised by the training set's mean and deviation. The output is the logit of "keep the generator's segment".
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.width = width
        half = max(1, width // 2)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.layers = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.BatchNorm1d(2 * width),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(2 * width, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(width, half),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(half, 1),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Return logits (N,) of hidden states (N, d)."""
        logits: Tensor = self.layers((hidden - self.mean) / self.deviation).squeeze(-1)
        return logits

    @torch.no_grad()
    def keeps(self, hidden: Tensor) -> float:
        """Return the probability that the generator's segment is the better one, for one hidden state (d,)."""
        self.eval()
        return float(self(hidden.float()[None]).sigmoid()[0])

    def fingerprint(self) -> str:
        """Return a digest of all parameters."""
        mark = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            mark.update(name.encode() + value.contiguous().numpy().tobytes())
        return mark.hexdigest()

    def save(self, path: Path) -> None:
        """Write the probe as safetensors."""
        tensors = {k: v.contiguous() for k, v in self.state_dict().items()}
        save_file(tensors, str(path), metadata={"width": str(self.width)})

    @classmethod
    def load(cls, path: Path) -> Probe:
        """Read a saved probe; its outputs are bit-equal."""
        with safe_open(str(path), framework="pt") as file:
            probe = cls(int(file.metadata()["width"]))
            probe.load_state_dict({k: file.get_tensor(k) for k in file.keys()})  # noqa: SIM118 (not a mapping)
        return probe.eval()


def train_probe(
    features: Tensor,
    labels: Tensor,
    groups: Sequence[str],
    *,
    dropout: float = 0.1,
    learning_rate: float = 1e-4,
    epochs: int = 20,
    held_out: float = 0.2,
    batch: int = 32,
    seed: int = 0,
) -> tuple[Probe, dict[str, float | None]]:
    """Train a probe on ``features`` float32 (N, d) and ``labels`` (N,), 1 to keep; return it and how good it is.

    Binary cross-entropy with balanced classes; the split is by ``groups`` (questions), so that no question is on both
    sides; the epoch with the best held-out accuracy is kept, the earlier one of equals. Of the held-out rows are told: their
    number, the accuracy, that of always keeping, the balanced accuracy, and the area under the ROC curve.
    """
    generator = torch.Generator().manual_seed(seed)
    train, held = _split(groups, held_out, generator)
    x, y = features[train], labels[train].float()
    with torch.device("meta"):  # the default initialisation would draw from everybody's generator
        probe = Probe(features.shape[1], dropout)
    probe.to_empty(device="cpu")
    for module in probe.modules():
        if isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            for parameter in module.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
        elif isinstance(module, nn.BatchNorm1d):
            module.reset_parameters()
        elif isinstance(module, Dropout):
            module.generator = generator
    probe.mean.copy_(x.mean(0))
    probe.deviation.copy_(x.std(0, unbiased=False).clamp(min=1e-6))
    balance = torch.tensor((len(y) - float(y.sum())) / float(y.sum().clamp(min=1))).clamp(min=1e-3)
    optimiser = torch.optim.Adam(probe.parameters(), lr=learning_rate)
    judged, wanted = (held, labels[held].bool()) if bool(held.any()) else (train, labels[train].bool())
    best, state, values = -1.0, probe.state_dict(), torch.zeros(len(wanted))
    for _ in range(epochs):
        probe.train()
        for index in torch.randperm(len(y), generator=generator).split(batch):
            if len(index) < 2:  # batch norm needs two rows
                continue
            optimiser.zero_grad()
            loss = nn.functional.binary_cross_entropy_with_logits(probe(x[index]), y[index], pos_weight=balance)
            loss.backward()
            optimiser.step()
        probe.eval()
        with torch.no_grad():
            logits = probe(features[judged])
        accuracy = float(((logits > 0) == wanted).float().mean())
        if accuracy > best:
            best, state, values = accuracy, {k: v.clone() for k, v in probe.state_dict().items()}, logits
    probe.load_state_dict(state)
    recalls = [float(((values > 0) == wanted)[kind].float().mean()) for kind in (wanted, ~wanted) if bool(kind.any())]
    area = auroc(values.tolist(), wanted.tolist())
    report = {
        "held_out": int(held.sum()),
        "accuracy": round(best, 4),
        "always_keep": round(float(wanted.float().mean()), 4),
        "balanced_accuracy": round(sum(recalls) / len(recalls), 4),
        "auroc": None if area is None else round(area, 4),
    }
    return probe.eval(), report


def _split(groups: Sequence[str], held_out: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return masks (N,) of the rows to train on and of those held out, whole groups each."""
    names = sorted(set(groups))
    order = torch.randperm(len(names), generator=generator).tolist()
    chosen = {names[i] for i in order[: max(1, round(held_out * len(names)))]} if len(names) > 1 else set()
    held = torch.tensor([group in chosen for group in groups])
    return ~held, held
