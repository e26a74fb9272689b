"""The particle swarm of Model Swarms (Feng et al. 2024, arXiv 2410.11163) and Heterogeneous Swarms (2502.04510).

Other particle swarms draw one random number per coordinate and know no worst point; here four *scalars* are drawn per
particle and iteration, the velocity is a normalised mean of four terms, particles are repelled from the worst point ever
seen, steps shrink, and a stuck particle restarts from its own best. That is why no optimisation library replaces it.

Scores are maximised. The swarm is asked and told, so that whoever uses it evaluates as it likes::

    swarm = Swarm(SwarmSettings(seed=7), one_hot(4))
    while proposals := swarm.ask():
        swarm.tell([await score(p.position) for p in proposals])
    swarm.best, swarm.best_score
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import attrs

from moco_core import ConfigError, build, digest, plain
from moco_core.converters import anything, floats, ints
from moco_toolkit_swarm.settings import SwarmSettings
from moco_toolkit_swarm.space import Numbers, VectorSpace

__all__ = ["Proposal", "Round", "Swarm", "enlarge"]

V = TypeVar("V")
FORMAT = 1


@attrs.frozen(kw_only=True)
class Proposal(Generic[V]):
    """One point to evaluate: where particle ``particle`` stands in iteration ``iteration`` (0: the initial points)."""

    iteration: int
    particle: int
    position: V


@attrs.frozen(kw_only=True)
class Round:
    """One line of the trajectory.

    ``scores`` are those of the particles after the round (an old one where the evaluation was skipped), ``best`` the best
    score ever, ``best_particle`` who reached it and ``best_iteration`` when, ``step`` the step length of the move that led
    here, and ``restarted`` the particles that were put back to their own best before it.
    """

    iteration: int
    scores: tuple[float, ...] = attrs.field(converter=floats)
    best: float
    best_particle: int
    best_iteration: int
    step: float
    restarted: tuple[int, ...] = attrs.field(default=(), converter=ints)
    positions: tuple[Any, ...] = attrs.field(default=(), converter=anything)


@attrs.define
class _Particle(Generic[V]):
    x: V
    v: V
    best: V
    best_score: float = -math.inf
    score: float = -math.inf
    stale: int = 0  # evaluation rounds since its own best improved
    cool: int = 0  # iterations until it may restart again


class Swarm(Generic[V]):
    """One search. Everything drawn depends on (seed, iteration, particle) alone.

    ``positions`` are the initial points; ``velocities`` replaces what ``settings.starting_velocity`` says. ``space`` is
    R^D unless given. Raises ConfigError for fewer than one particle, or fewer than two with random velocities.
    """

    def __init__(
        self,
        settings: SwarmSettings,
        positions: Sequence[V],
        *,
        velocities: Sequence[V] | None = None,
        space: VectorSpace[V] | None = None,
        record_positions: bool = True,
    ) -> None:
        if not positions:
            raise ConfigError("swarm: no initial positions; give at least one")
        if velocities is not None and len(velocities) != len(positions):
            raise ConfigError(f"swarm: {len(velocities)} velocities for {len(positions)} positions; give one for each")
        self.settings = settings
        self.space: VectorSpace[V] = space if space is not None else Numbers()  # type: ignore[assignment]
        self.iteration = 0
        self.step = settings.step_length
        self.trajectory: list[Round] = []
        self._record = record_positions
        self._restarted: list[int] = []
        self._moved_by = 0.0
        self._pending: list[Proposal[V]] | None = None
        self._told = False  # whether the initial points have scores
        zero = self.space.linear([0.0], [positions[0]])
        self._particles = [_Particle(x, zero, x) for x in positions]
        for i, particle in enumerate(self._particles):
            if velocities is not None:
                particle.v = velocities[i]
            elif settings.starting_velocity == "random":
                particle.v = self._minus(positions[self._partner(i)], particle.x)
        self._explicit = velocities is not None
        self._best: V = positions[0]
        self._best_score = -math.inf
        self._best_at = (0, 0)
        self._worst: V = positions[0]
        self._worst_score = math.inf
        self._stale = 0

    # ---------------------------------------------------------------- results

    @property
    def best(self) -> V:
        """The best point ever evaluated; ties go to the earliest, then to the lowest particle."""
        return self._best

    @property
    def best_score(self) -> float:
        """Its score; minus infinity before the first :meth:`tell`."""
        return self._best_score

    @property
    def personal_bests(self) -> list[tuple[V, float]]:
        """Every particle's own best point and its score, in particle order."""
        return [(p.best, p.best_score) for p in self._particles]

    @property
    def velocities(self) -> list[V]:
        """The current velocities, in particle order."""
        return [p.v for p in self._particles]

    @property
    def positions(self) -> list[V]:
        """The current positions, in particle order."""
        return [p.x for p in self._particles]

    @property
    def moved_by(self) -> float:
        """The step length of the move that led to the current positions; 0 before the first."""
        return self._moved_by

    @property
    def finished(self) -> bool:
        """Whether the search has ended: enough iterations, or ``patience`` of them without a better best."""
        return self._told and (self.iteration >= self.settings.max_iterations or self._stale >= self.settings.patience)

    # ---------------------------------------------------------------- ask and tell

    def ask(self) -> list[Proposal[V]]:
        """Return the points to evaluate next, in particle order; an empty list once the search has ended.

        Asked again before :meth:`tell`, it returns the same points.
        """
        if self._pending is None:
            if self.finished:
                return []
            if self._told:
                self._move()
            self._pending = self._proposals()
            while not self._pending:  # every evaluation of this round was dropped
                self._take({})
                if self.finished:  # telling may have ended it
                    return []
                self._move()
                self._pending = self._proposals()
        return list(self._pending)

    def tell(self, scores: Sequence[float]) -> None:
        """Give the scores of the points of the last :meth:`ask`, in their order. Raises ValueError for NaN."""
        if self._pending is None:
            raise ValueError("tell() before ask()")
        if len(scores) != len(self._pending):
            raise ValueError(f"{len(scores)} scores for {len(self._pending)} points")
        if any(math.isnan(s) for s in scores):
            raise ValueError("a score is not a number")
        self._take({p.particle: float(s) for p, s in zip(self._pending, scores, strict=True)})

    def _proposals(self) -> list[Proposal[V]]:
        out = []
        settings, t = self.settings, self.iteration
        skip_round = self._told and settings.drop_round > 0 and self._rng("round", t).random() < settings.drop_round
        for i, particle in enumerate(self._particles):
            skip = skip_round or (
                self._told
                and settings.drop_particle > 0
                and self._rng("particle", t, i).random() < settings.drop_particle
            )
            if not skip:
                out.append(Proposal(iteration=t, particle=i, position=particle.x))
        return out

    def _take(self, scores: Mapping[int, float]) -> None:
        self._pending = None
        improved = False
        for i, particle in enumerate(self._particles):
            particle.stale += 1
            if i not in scores:
                continue
            particle.score = scores[i]
            if particle.score > particle.best_score:
                particle.best, particle.best_score, particle.stale = particle.x, particle.score, 0
            if particle.score > self._best_score:
                self._best, self._best_score, self._best_at = particle.x, particle.score, (self.iteration, i)
                improved = True
            if particle.score < self._worst_score:
                self._worst, self._worst_score = particle.x, particle.score
        self._stale = 0 if improved else self._stale + 1
        if not self._told and not self._explicit and self.settings.starting_velocity == "best":
            for particle in self._particles:
                particle.v = self._minus(self._best, particle.x)
        self._told = True
        self.trajectory.append(
            Round(
                iteration=self.iteration,
                scores=tuple(p.score for p in self._particles),
                best=self._best_score,
                best_particle=self._best_at[1],
                best_iteration=self._best_at[0],
                step=self._moved_by,
                restarted=tuple(self._restarted),
                positions=tuple(self.space.dump(p.x) for p in self._particles) if self._record else (),
            )
        )

    # ---------------------------------------------------------------- moving

    def _move(self) -> None:
        """Move every particle once; all read the same best and worst."""
        self.iteration += 1
        self._restarted = []
        for i, particle in enumerate(self._particles):
            self._restart(i, particle)
            particle.v = self._velocity(i, particle)
            particle.x = self.space.linear([1.0, self.step], [particle.x, particle.v])
        self._moved_by = self.step
        self.step = max(self.step * self.settings.step_length_factor, self.settings.minimum_step_length)

    def _restart(self, i: int, particle: _Particle[V]) -> None:
        patience = self.settings.restart_patience
        if patience is not None and particle.stale >= patience and particle.cool == 0:
            particle.x = particle.best
            particle.v = self.space.linear([0.0], [particle.v])
            particle.cool = patience if self.settings.cooldown is None else self.settings.cooldown
            self._restarted.append(i)
        particle.cool = max(particle.cool - 1, 0)

    def _velocity(self, i: int, particle: _Particle[V]) -> V:
        s = self.settings
        draws = (1.0, 1.0, 1.0, 1.0)
        if s.weight_randomness:
            rng = self._rng("move", self.iteration, i)
            draws = (rng.random(), rng.random(), rng.random(), rng.random())
        raw = [
            r * phi for r, phi in zip(draws, (s.inertia, s.cognitive_coeff, s.social_coeff, s.repel_coeff), strict=True)
        ]
        total = math.fsum(raw)
        if total == 0:
            return particle.v
        a, b, c, d = (r / total for r in raw)
        # a v + b (p - x) + c (g - x) + d (x - w): one pass, and identical points cancel exactly
        return self.space.linear(
            [a, b, c, d],
            [
                particle.v,
                self._minus(particle.best, particle.x),
                self._minus(self._best, particle.x),
                self._minus(particle.x, self._worst),
            ],
        )

    def _minus(self, a: V, b: V) -> V:
        return self.space.linear([1.0, -1.0], [a, b])

    def _partner(self, i: int) -> int:
        count = len(self._particles)
        if count < 2:
            raise ConfigError("swarm: random starting velocities need two particles; use starting_velocity 'zero'")
        j = self._rng("partner", i).randrange(count - 1)
        return j if j < i else j + 1

    def _rng(self, *parts: Any) -> random.Random:
        return random.Random(int(digest("swarm", self.settings.seed, list(parts))[:16], 16))

    # ---------------------------------------------------------------- saving

    def state(self) -> dict[str, Any]:
        """Return everything as JSON data. What is drawn depends on (seed, iteration, particle): no generator to save."""
        dump = self.space.dump
        return {
            "format": FORMAT,
            "settings": plain(self.settings),
            "iteration": self.iteration,
            "step": self.step,
            "moved_by": self._moved_by,
            "told": self._told,
            "explicit": self._explicit,
            "pending": None if self._pending is None else [p.particle for p in self._pending],
            "restarted": list(self._restarted),
            "particles": [
                {
                    "x": dump(p.x),
                    "v": dump(p.v),
                    "best": dump(p.best),
                    "best_score": _number(p.best_score),
                    "score": _number(p.score),
                    "stale": p.stale,
                    "cool": p.cool,
                }
                for p in self._particles
            ],
            "best": [dump(self._best), _number(self._best_score), list(self._best_at)],
            "worst": [dump(self._worst), _number(self._worst_score)],
            "stale": self._stale,
            "record_positions": self._record,
            "trajectory": [plain(r) for r in self.trajectory],
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any], *, space: VectorSpace[V] | None = None) -> Swarm[V]:
        """Continue a saved search: from here on it equals the uninterrupted one bit for bit."""
        if state.get("format") != FORMAT:
            raise ConfigError(f"swarm: saved state of format {state.get('format')!r}, this version reads {FORMAT}")
        vectors: VectorSpace[V] = space if space is not None else Numbers()  # type: ignore[assignment]
        load, saved = vectors.load, state["particles"]
        swarm = cls(
            build(SwarmSettings, state["settings"], "swarm.settings"),
            [load(p["x"]) for p in saved],
            velocities=[load(p["v"]) for p in saved],
            space=vectors,
            record_positions=state["record_positions"],
        )
        for particle, p in zip(swarm._particles, saved, strict=True):
            particle.best, particle.stale, particle.cool = load(p["best"]), p["stale"], p["cool"]
            particle.best_score, particle.score = _read(p["best_score"], -1), _read(p["score"], -1)
        swarm.iteration, swarm.step, swarm._moved_by = state["iteration"], state["step"], state["moved_by"]
        swarm._told, swarm._explicit, swarm._stale = state["told"], state["explicit"], state["stale"]
        swarm._restarted = list(state["restarted"])
        best, worst = state["best"], state["worst"]
        swarm._best, swarm._best_score, swarm._best_at = load(best[0]), _read(best[1], -1), (best[2][0], best[2][1])
        swarm._worst, swarm._worst_score = load(worst[0]), _read(worst[1], 1)
        swarm.trajectory = [Round(**r) for r in state["trajectory"]]
        if state["pending"] is not None:
            swarm._pending = [
                Proposal(iteration=swarm.iteration, particle=i, position=swarm._particles[i].x)
                for i in state["pending"]
            ]
        return swarm


def enlarge(positions: Sequence[V], size: int, rng: random.Random, space: VectorSpace[V] | None = None) -> list[V]:
    """Return ``positions`` grown to ``size`` points: each child is t a + (1 - t) b of two distinct parents, t ~ U(0, 2).

    Half of the children interpolate, half extrapolate; only the given points are parents. Raises ConfigError if there is
    nothing to cross.
    """
    vectors: VectorSpace[V] = space if space is not None else Numbers()  # type: ignore[assignment]
    out = list(positions)
    if len(out) < 2 and size > len(out):
        raise ConfigError(f"swarm: cannot grow {len(out)} expert to a population of {size}; give at least two experts")
    while len(out) < size:
        a, b = rng.sample(range(len(positions)), 2)
        t = rng.uniform(0.0, 2.0)
        out.append(vectors.linear([t, 1.0 - t], [positions[a], positions[b]]))
    return out


def _number(value: float) -> float | None:
    """JSON has no infinities: a score that is not there yet is None."""
    return value if math.isfinite(value) else None


def _read(value: float | None, sign: int) -> float:
    return sign * math.inf if value is None else value
