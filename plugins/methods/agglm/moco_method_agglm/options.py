"""Options of agglm."""

from __future__ import annotations

import attrs

from moco_core import ConfigError, Sampling, option

__all__ = ["Options"]


@attrs.frozen(kw_only=True)
class Options:
    """How many solutions are read, who reads them, and how the reader is trained."""

    aggregator: str | int = option(
        0, help="who writes the final solution: a member's name or index", paper="the solver"
    )
    m: int | None = option(None, ge=1, le=16, help="solutions in a set; none: as many as models, at least 4", paper="8")
    solution_temperature: float = option(1.0, ge=0, help="sampling of the solutions", paper="1.5; 1.0 in evaluation")
    eval_temperature: float = option(0.0, ge=0, help="sampling of the final solution; 0 is greedy", paper="1.0")
    max_new_tokens: int | None = option(
        None, ge=1, help="budget of a solution, a rollout and the final solution; none takes the run's", paper="16384"
    )
    max_prompt: int = option(
        4096, ge=64, help="tokens of the aggregator's prompt: longer solutions keep their ends", paper="16384"
    )
    skip_if_unanimous: bool = option(False, help="where all solutions give one answer, return the first of them")
    train: bool = option(True, help="train the aggregator on dev; else it is asked as it is")
    sets_per_question: int = option(4, ge=1, le=16, help="sets drawn per dev question", paper="16")
    easy_ratio: float = option(
        0.5, ge=0, help="sets whose majority is right, per set whose majority is not", paper="0.5"
    )
    max_easy: int = option(64, ge=0, help="sets to train on where no dev set has a wrong majority")
    skip_unsolvable: bool = option(False, help="leave out sets of which no solution is right", paper="false")
    val_fraction: float = option(0.2, gt=0, lt=0.9, help="share of dev questions held out to choose a checkpoint by")
    checkpoints: int = option(4, ge=1, help="stages of the training to choose among, beside its start")
    num_generations: int = option(8, ge=2, help="completions per set", paper="8")
    batch: int = option(64, ge=2, help="completions per update, a multiple of num_generations", paper="1024")
    epochs: float = option(1.0, gt=0, help="passes over the sets", paper="1")
    temperature: float = option(1.0, gt=0, help="sampling of the completions that are trained on", paper="1.5")
    beta: float = option(0.001, ge=0, help="weight of the KL divergence from the untrained aggregator", paper="0.001")
    epsilon: float = option(0.2, ge=0, le=1, help="clipping of the probability ratio")
    learning_rate: float | None = option(None, gt=0, help="none: 1e-5, or 1e-6 where all weights are trained")
    lora_r: int = option(32, ge=0, help="rank of the adapter; 0 trains all weights", paper="0")
    lora_alpha: int = option(64, ge=1, help="its scale")
    lora_dropout: float = option(0.05, ge=0, lt=1, help="its dropout")
    seed: int = option(
        0, help="added to the run's seed for the order of solutions, the split, the mixture and the training"
    )

    def __attrs_post_init__(self) -> None:
        if self.batch % self.num_generations:
            raise ConfigError(
                f"batch: {self.batch} completions are no multiple of num_generations ({self.num_generations}); "
                f"take {max(1, self.batch // self.num_generations) * self.num_generations}"
            )

    def size(self, models: int) -> int:
        """Return how many solutions are in a set."""
        return self.m or max(models, 4)

    def solving(self, run: Sampling) -> Sampling:
        """Return the decoding of solutions."""
        return self._with(run, self.solution_temperature)

    def final(self, run: Sampling) -> Sampling:
        """Return the decoding of the final solution."""
        return self._with(run, self.eval_temperature)

    def retry(self, run: Sampling) -> Sampling:
        """Return the decoding of a second attempt, which must be able to differ from a greedy first one."""
        return self._with(run, self.eval_temperature or self.temperature)

    def _with(self, run: Sampling, temperature: float) -> Sampling:
        return attrs.evolve(run, temperature=temperature, max_new_tokens=self.max_new_tokens or run.max_new_tokens)
