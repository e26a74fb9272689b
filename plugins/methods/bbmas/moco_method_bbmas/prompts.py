"""The prompts of the blackboard: the question first, then the board, then who is asked what.

In this order the prompts of one question begin alike and grow at the end, which is what engines that keep what they have read
can use. Agents are numbered, never named; what stands on the board is data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moco_method_bbmas.parse import ACTIONS
from moco_toolkit_quoting import fence

__all__ = [
    "DUTIES",
    "TASKS",
    "control",
    "defend",
    "execute",
    "experts",
    "finalize",
    "perform",
    "resolve",
    "select",
    "vote",
]

TASKS: Mapping[str, str] = {
    "plan": "Write a plan: the steps that lead to the answer. Do not carry them out.",
    "step": "Carry out the next step towards the answer and write down its result.",
    "verify": "Check an entry of the blackboard by working it out again, and say whether it is right.",
    "critique": "Name what is wrong or missing on the blackboard, and why.",
    "finalize": "Give the final answer.",
}

DUTIES: Mapping[str, str] = {
    "planner": "breaks the question into steps",
    "decider": "judges whether the blackboard settles the question, and then gives the final answer",
    "critic": "finds mistakes in entries",
    "cleaner": "removes useless or repeated entries",
    "conflict_resolver": "finds entries that contradict each other and settles the matter with their authors",
}

_ORDERS: Mapping[str, str] = {
    "planner": TASKS["plan"],
    "critic": TASKS["critique"],
    "expert": "Contribute what you know: carry out a step, or correct an entry of the blackboard.",
    "decider": (
        "If the blackboard settles the question, reply with the line DECISION: final and the final answer below it. "
        "If not, reply with the line DECISION: continue and below it what is missing."
    ),
    "cleaner": (
        "Which entries are useless, repeated or superseded? Reply with their numbers in one line, as in "
        "REMOVE: 2, 5. If all should stay, reply REMOVE: none."
    ),
    "conflict_resolver": (
        "Which entries contradict each other? Reply with their numbers in one line, as in CONFLICT: 2, 5. "
        "If none do, reply CONFLICT: none."
    ),
}


def select(question: str, board: str, who: str, short: bool = False) -> str:
    """Return the prompt that asks an agent what it wants to do next; ``short`` asks for the tag alone."""
    if short:
        return _join(question, board, f"You are {who}. Reply with one line, ACTION: and one of {', '.join(ACTIONS)}.")
    menu = "\n".join(f"- {action}: {TASKS[action]}" for action in ACTIONS)
    ask = "Which one action helps most now? Give your reasons, then end with one line, ACTION: and the action's name."
    return _join(question, board, f"You are {who}. You may do one of these:\n{menu}\n{ask}")


def execute(question: str, board: str, who: str, action: str, why: str, answer_format: str) -> str:
    """Return the prompt that has an agent do what it chose; ``why`` is its reasoning, empty if there is none."""
    reasons = f" Your reasons:\n{fence('reasons', why)}\n" if why else " "
    return _join(question, board, f"You are {who}. You chose to {action}.{reasons}{_task(action, answer_format)}")


def finalize(question: str, board: str, who: str, answer_format: str) -> str:
    """Return the prompt that asks an agent for its final answer once the rounds are over."""
    return _join(question, board, f"You are {who}. The discussion ends now. {_task('finalize', answer_format)}")


def vote(question: str, conclusions: Sequence[str]) -> str:
    """Return the prompt that asks for the better of several conclusions, in the order in which they are to be shown."""
    shown = "\n".join(f"Conclusion #{i}:\n{fence('conclusion', text)}" for i, text in enumerate(conclusions, 1))
    ask = "Which conclusion is right? Check each of them, then end with its number, as in: Conclusion #1."
    return f"{question}\n\nConclusions so far:\n{shown}\n\n{ask}"


def experts(question: str, count: int) -> str:
    """Return the prompt that makes up experts for a question."""
    ask = (
        f"Name {count} experts who together could answer this question. Write one line for each, as in\n"
        "Historian: knows the dates and causes of events\nDo not answer the question."
    )
    return f"{question}\n\n{ask}"


def control(question: str, board: str, team: Mapping[str, str]) -> str:
    """Return the prompt that asks the control unit who acts next; ``team`` says what each agent does."""
    listed = "\n".join(f"- {name}: {duty}" for name, duty in team.items())
    ask = "Who should act next? Name one agent or several in one line, as in AGENTS: planner, critic."
    return _join(question, board, f"You choose who writes on the blackboard. Agents:\n{listed}\n{ask}")


def perform(question: str, board: str, name: str, duty: str, answer_format: str) -> str:
    """Return the prompt that has a role do its work."""
    order = _ORDERS.get(name, _ORDERS["expert"])
    if name == "decider" and answer_format.strip():
        order += f" {answer_format.strip()}"
    return _join(question, board, f"You are the {_said(name)}, who {duty}. {order}")


def defend(question: str, name: str, entries: Sequence[str]) -> str:
    """Return the prompt of a private discussion: an author looks again at the entries that contradict each other."""
    listed = "\n".join(fence("entry", text) for text in entries)
    ask = (
        f"You are the {_said(name)} and wrote one of them. Say which is right and why; take yours back if it is wrong."
    )
    return f"{question}\n\nThese entries of a blackboard contradict each other:\n{listed}\n\n{ask}"


def resolve(question: str, statements: Sequence[str]) -> str:
    """Return the prompt that has the conflict resolver write down what came out of a private discussion."""
    said = "\n".join(f"Author {i}:\n{fence('statement', text)}" for i, text in enumerate(statements, 1))
    ask = "You are the conflict resolver. Write down in a few sentences what is right."
    return f"{question}\n\nAuthors of entries that contradict each other said:\n{said}\n\n{ask}"


def _said(name: str) -> str:
    return name.replace("_", " ")


def _task(action: str, answer_format: str) -> str:
    closing = answer_format.strip() if action == "finalize" else ""
    return f"{TASKS[action]} {closing}".strip()


def _join(question: str, board: str, rest: str) -> str:
    return f"{question}\n\nBlackboard:\n{board}\n\n{rest}"
