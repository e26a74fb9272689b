"""What Prometheus reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from moco_command_serve.service import Outcome, Service

__all__ = ["Metrics"]


class Metrics:
    """Counts of one server, in a registry of its own."""

    def __init__(self, service: Service) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("moco_requests", "Requests answered, by status.", ["status"], registry=self.registry)
        self.calls = Counter("moco_model_calls", "Model calls.", ["model", "role"], registry=self.registry)
        self.tokens = Counter("moco_tokens", "Tokens of calls.", ["model", "role", "kind"], registry=self.registry)
        self.seconds = Histogram("moco_request_seconds", "Seconds per answered request.", registry=self.registry)
        active = Gauge("moco_requests_in_progress", "Requests that are worked on.", registry=self.registry)
        active.set_function(lambda: service.active)

    def answered(self, status: int) -> None:
        self.requests.labels(str(status)).inc()

    def spent(self, outcome: Outcome) -> None:
        self.seconds.observe(outcome.seconds)
        for row in outcome.spent:
            self.calls.labels(row.model, row.role).inc(row.calls)
            self.tokens.labels(row.model, row.role, "prompt").inc(row.usage.prompt_tokens)
            self.tokens.labels(row.model, row.role, "completion").inc(row.usage.completion_tokens)

    def text(self) -> bytes:
        return generate_latest(self.registry)
