"""Knowledge cards: models write passages about the question, selectors keep the best, one model answers with them."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_knowledge_card.method import KnowledgeCard

    return KnowledgeCard
