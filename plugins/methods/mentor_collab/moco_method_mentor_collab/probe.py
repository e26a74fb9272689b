"""The probe: a small classifier on the generator's hidden state that says whether to keep the generator's segment."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

__all__ = ["Probe", "train_probe"]


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
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, half),
            nn.ReLU(),
            nn.Dropout(dropout),
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
) -> tuple[Probe, float]:
    """Train a probe on ``features`` float32 (N, d) and ``labels`` (N,), 1 to keep; return it and its held-out accuracy.

    Binary cross-entropy with balanced classes; the split is by ``groups`` (questions), so that no question is on both
    sides; the epoch with the best held-out accuracy is kept, the earlier one of equals.
    """
    names = sorted(set(groups))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(names), generator=generator).tolist()
    held_names = {names[i] for i in order[: max(1, round(held_out * len(names)))]} if len(names) > 1 else set()
    held = torch.tensor([g in held_names for g in groups])
    train = ~held
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = Probe(features.shape[1], dropout)
        probe.mean.copy_(features[train].mean(0))
        probe.deviation.copy_(features[train].std(0, unbiased=False).clamp(min=1e-6))
        x, y = features[train], labels[train].float()
        positives = float(y.sum().clamp(min=1))
        balance = torch.tensor((len(y) - float(y.sum())) / positives).clamp(min=1e-3)
        optimiser = torch.optim.Adam(probe.parameters(), lr=learning_rate)
        best, state = -1.0, probe.state_dict()
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
                judged = held if bool(held.any()) else train
                accuracy = float(((probe(features[judged]) > 0) == labels[judged].bool()).float().mean())
            if accuracy > best:
                best, state = accuracy, {k: v.clone() for k, v in probe.state_dict().items()}
    probe.load_state_dict(state)
    return probe.eval(), best
