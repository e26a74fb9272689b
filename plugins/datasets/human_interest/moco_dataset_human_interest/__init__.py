"""Human interest: open questions over 16 everyday topics (Feng et al., 2024, Model Swarms, arXiv 2410.11163)."""

from __future__ import annotations

from moco_core import DatasetFacts, Example, hookimpl
from moco_toolkit_data import Row, SourceDataset, SourceOptions

__all__ = ["HumanInterest"]

_TOPICS = (
    "asian_food",
    "cartoons",
    "drone_AI",
    "electric_vehicles",
    "finance",
    "legal_AI",
    "luxury_car",
    "music_instrument",
    "olympics",
    "phd_application",
    "plastic",
    "policy",
    "sandbox_games",
    "social_network",
    "south_america",
    "us_tourism",
)


class HumanInterest(SourceDataset[SourceOptions]):
    """Open replies to 800 questions; topics are the subsets. The dataset is not on the Hub."""

    name = "human_interest"
    facts = DatasetFacts(
        title="Human interest (Model Swarms)",
        metric="reward_model",
        paper="arXiv 2410.11163",
        licence="Apache-2.0 (repository)",
        source="https://github.com/BunsenFeng/model_swarm (data/eval/human_<topic>.json)",
        sizes=(400, 400),
        fields="id, prompt",
        notes="The replies in the reference study's file were written by models: they are no references.",
    )
    subsets = _TOPICS
    fixture = "fixture"
    dev_from = test_from = ("train",)
    access_hint = "git clone https://github.com/BunsenFeng/model_swarm and give its data/eval as path"

    def record(self, row: Row) -> Example:
        """Read a row of the authors' files (``prompt``, ``id``) or of the study (``input``, ``output``, maybe null)."""
        study = "input" in row
        id = row.key("id")
        topic = row.subset or id.rpartition("_")[0]
        if not id.startswith(topic):
            id = f"{topic}_{id}"
        meta = {"model_reply": row.optional("output")} if study else {}
        return self.text(id, row.text("input" if study else "prompt"), [], "open", subset=topic, meta=meta)

    def file_names(self) -> tuple[str, ...]:
        """The authors keep the files of other tasks in the same folder."""
        return (self.name, *(f"human_{topic}" for topic in _TOPICS))


@hookimpl
def moco_dataset() -> type[HumanInterest]:
    return HumanInterest
