"""From a conversation to the tokens one model reads: chat templates, plain prompts, the end-of-turn token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

from moco_core.errors import ModelCallError, PromptTooLong
from moco_core.types import Message
from moco_toolkit_checkpoints.local import Rendered
from moco_toolkit_checkpoints.reasoning import Tags, left_open, markers, split

__all__ = ["TODAY", "Renderer"]

TODAY = datetime(2024, 7, 26)
"""What templates that write the date are told: a prompt, and so a reply, must not change overnight. Llama's own take this day
where there is no clock.
"""

_MARK = "moco"
"""A word to find again in what a template wrote."""


class Renderer:
    """Renders prompts for one tokenizer.

    ``style`` is ``chat`` or ``plain``; ``overlong`` is ``error`` or ``truncate_left``; ``context`` bounds prompt and reply
    together, None if there is no bound; ``template_options`` are arguments of the chat template (``enable_thinking``).

    Raises ModelCallError if the chat template leaves out what is asked.
    """

    def __init__(
        self,
        name: str,
        tokenizer: Any,
        *,
        style: str,
        overlong: str,
        context: int | None,
        tags: Tags,
        template_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.name, self.tokenizer, self.style = name, tokenizer, style
        self.overlong, self.context, self.tags = overlong, context, tags
        self.template_options = dict(template_options or {})
        self.fast: Any = getattr(tokenizer, "_tokenizer", None)
        self._bos = tokenizer.bos_token_id
        self._eos = tokenizer.eos_token_id
        self._memory: dict[Any, Rendered] = {}
        special = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._markers = {special[tag]: tag for tag in markers(special, tags)}
        self._parts = style == "chat" and self._wants_parts()

    # ---------------------------------------------------------------- text and tokens

    def encode(self, text: str) -> list[int]:
        """Tokenise text; special tokens are neither added nor parsed."""
        return list(self.tokenizer(self._valid(text), add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def _valid(self, text: str) -> str:
        """Return ``text``. Raises ModelCallError if it is none, as half of a character pair is."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ModelCallError(
                f"{self.name}: the text holds a lone surrogate (U+{ord(text[error.start]):04X}), which is no character and "
                "cannot be tokenised; correct or replace it where it comes from"
            ) from None
        return text

    def _encode_rendered(self, text: str) -> list[int]:
        """Tokenise the output of a template, which writes its special tokens itself."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _encode_plain(self, text: str) -> list[int]:
        """Tokenise text that stands alone: with BOS if the tokenizer adds one, once, and without a final EOS."""
        bos = self.tokenizer.bos_token
        if bos and text.startswith(bos):
            return self._encode_rendered(text)
        ids = list(self.tokenizer(text, add_special_tokens=True)["input_ids"])
        if not ids or ids[-1] != self._eos:
            return ids
        bare = self._encode_rendered(text)
        while len(ids) > len(bare) and ids and ids[-1] == self._eos and (not bare or ids[-len(bare) :] != bare):
            ids.pop()  # some tokenizers close every text; a prompt must stay open
        return ids

    def decode(self, ids: Sequence[int], *, tags: bool = False) -> str:
        """Turn tokens into text, special tokens skipped, spaces as they are. With ``tags`` those that mark reasoning stay."""
        if not tags or not self._markers:
            return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
        out: list[str] = []
        piece: list[int] = []
        for i in ids:
            if i in self._markers:
                out += [self.decode(piece), self._markers[i]]
                piece = []
            else:
                piece.append(i)
        return "".join([*out, self.decode(piece)])

    def answer(self, ids: Sequence[int], opened: str = "") -> str:
        """Return what the tokens of a reply answer, without what was thought; ``opened`` is the prompt's."""
        return split(self.decode(ids, tags=True), self.tags, opened)[1]

    # ---------------------------------------------------------------- prompts

    def render_input(self, given: Mapping[str, Any], reserve: int = 0) -> Rendered:
        """Render a call's input."""
        if "text" in given:
            return self._fit(self._finish(str(given["text"]), "raw"), reserve)
        return self.render([Message(role, content) for role, content in given["messages"]], reserve)

    def render(self, messages: Sequence[Message], reserve: int = 0) -> Rendered:
        """Render a conversation; one that ends with an assistant message is continued."""
        key = tuple(messages)
        found = self._memory.get(key)
        if found is None:
            found = self._chat(messages) if self.style == "chat" else self._finish(_plain(messages), "plain")
            if len(self._memory) > 4096:  # the same question is asked of a model many times within a method
                self._memory.clear()
            self._memory[key] = found
        return self._fit(found, reserve)

    def render_closed(self, given: Mapping[str, Any]) -> Rendered:
        """Render a text for an encoder: with every special token that the tokenizer puts around one.

        Positions may be fewer than the configuration says, as some encoders begin to count behind the padding token.
        """
        text = self._valid(str(given["text"]))
        ids = tuple(self.tokenizer(text, add_special_tokens=True)["input_ids"])
        spare = max(0, self.context - self.tokenizer.model_max_length) if self.context else 0
        return self._fit(Rendered(ids=ids, text=text, template="raw"), spare)

    def render_whole(self, given: Mapping[str, Any]) -> Rendered:
        """Render a finished conversation, for a model that judges it."""
        if "text" in given:
            return self._fit(self._finish(str(given["text"]), "raw"), 0)
        messages = [Message(role, content) for role, content in given["messages"]]
        if self.style != "chat":
            return self._fit(self._finish(_plain(messages, open_end=False), "plain"), 0)
        try:
            text = self._template(messages, add_generation_prompt=False)
        except Exception:
            try:
                messages = _fold(messages)
                text = self._template(messages, add_generation_prompt=False)
            except Exception as error:
                raise ModelCallError(
                    f"{self.name}: the chat template refused the conversation: {_line(error)}"
                ) from error
        return self._fit(self._finish(self._whole(text, messages), "chat"), 0)

    def _wants_parts(self) -> bool:
        """Return whether the template reads contents as lists of parts, as those of multimodal models may.

        A template does not say so: given the other form it writes a prompt without the question.
        """
        refused = False
        for parts in (False, True):
            self._parts = parts
            try:
                if _MARK in self._template([Message("user", _MARK)], add_generation_prompt=True):
                    return parts
            except (
                Exception
            ):  # in this form, or any conversation of this kind: what it takes is looked at when it is asked
                refused = True
        if refused:
            return False
        raise ModelCallError(f"{self.name}: its chat template leaves out what the user says; set template: plain")

    def _whole(self, text: str, turns: Sequence[Message]) -> str:
        """Return a rendered conversation. Raises ModelCallError if something that was said is not in it."""
        if any(m.role == "user" and m.content.strip() not in text for m in turns):
            raise ModelCallError(f"{self.name}: its chat template leaves out or changes what the user says")
        if any(m.role == "assistant" for m in turns[:-1]) and self._forgets:
            raise ModelCallError(f"{self.name}: its chat template leaves out what the assistant said before")
        return text

    @cached_property
    def _forgets(self) -> bool:
        """Whether the template leaves out earlier replies. It may well change them: many drop what was thought."""
        return self._leaves_out(Message("user", "a"), Message("assistant", _MARK), Message("user", "b"))

    @cached_property
    def _deaf(self) -> bool:
        """Whether the template leaves out what the system says."""
        return self._leaves_out(Message("system", _MARK), Message("user", "a"))

    def _leaves_out(self, *turns: Message) -> bool:
        try:
            return _MARK not in self._template(turns, add_generation_prompt=True)
        except Exception:  # a template that refuses such a conversation says so when it is asked
            return False

    def _template(self, turns: Sequence[Message], **options: Any) -> str:
        conversation = [
            {"role": m.role, "content": [{"type": "text", "text": m.content}] if self._parts else m.content}
            for m in turns
        ]
        given = {"strftime_now": TODAY.strftime, **self.template_options, **options}
        return str(self.tokenizer.apply_chat_template(conversation, tokenize=False, **given))

    def _chat(self, messages: Sequence[Message]) -> Rendered:
        turns = list(messages)
        folded = False
        system = next((m.content for m in turns if m.role == "system"), "")
        try:
            text = self._apply(turns)
            if system and (self._deaf or system.strip() not in text):  # a template without a system role may drop it silently
                raise ValueError("the chat template dropped the system message")
        except Exception as error:
            if not system:
                raise ModelCallError(
                    f"{self.name}: the chat template refused the conversation: {_line(error)}"
                ) from error
            turns, folded = _fold(turns), True
            try:
                text = self._apply(turns)
            except Exception as again:
                raise ModelCallError(
                    f"{self.name}: the chat template refused the conversation: {_line(again)}"
                ) from again
        text = self._whole(text, turns)
        return self._finish(text, "chat", folded=folded, continued=turns[-1].role == "assistant" if turns else False)

    def _apply(self, turns: Sequence[Message]) -> str:
        if not turns or turns[-1].role != "assistant":
            return self._template(turns, add_generation_prompt=True)
        if len(turns) > 1:
            # generation prompt + text keeps the text exactly, spaces included, where a template would strip it
            start = self._template(turns[:-1], add_generation_prompt=True)
            if not left_open(start, self.tags):
                return start + turns[-1].content
        return self._template(turns, continue_final_message=True)

    def _finish(self, text: str, template: str, *, folded: bool = False, continued: bool = False) -> Rendered:
        self._valid(text)
        ids = self._encode_rendered(text) if template == "chat" else self._encode_plain(text)
        meta: dict[str, Any] = {} if template == "chat" else {"template": template}
        if folded:
            meta["system"] = "folded"
        if not ids:  # an empty prompt: a model needs one token to start from
            start = self._bos if self._bos is not None else self._eos
            if start is None:
                raise ModelCallError(f"{self.name}: the prompt is empty and the tokenizer has no start token")
            ids = [start]
        opened = left_open(text, self.tags) if template == "chat" and not continued else ""
        if continued:
            for opening, closing in self.tags:
                if text.rfind(opening) > text.rfind(closing):
                    opened = closing
        return Rendered(ids=tuple(ids), text=text, template=template, opened=opened, meta=meta)

    def _fit(self, prompt: Rendered, reserve: int) -> Rendered:
        if self.context is None or len(prompt.ids) + reserve <= self.context:
            return prompt
        room = self.context - reserve
        if self.overlong == "error" or room < 2:
            raise PromptTooLong(
                f"{self.name}: prompt of {len(prompt.ids)} tokens plus a reply of up to {reserve} exceed the context of "
                f"{self.context}; shorten the prompt, lower max_new_tokens, or set the pool option overlong: truncate_left"
            )
        head = prompt.ids[:1] if prompt.ids[0] == self._bos else ()
        ids = head + prompt.ids[len(prompt.ids) - (room - len(head)) :]
        cut = len(prompt.ids) - len(ids)
        return Rendered(
            ids=ids,
            text=prompt.text,
            template=prompt.template,
            opened=prompt.opened,
            truncated=cut,
            meta={**prompt.meta, "truncated_tokens": cut},
        )

    def continuation_ids(self, prompt: Rendered, continuation: str) -> tuple[int, list[int]]:
        """Tokenise prompt + continuation as one text; return the length of the common prefix and the ids beyond it."""
        if prompt.truncated:
            return len(prompt.ids), self.encode(continuation)
        text = prompt.text + self._valid(continuation)
        whole = self._encode_rendered(text) if prompt.template == "chat" else self._encode_plain(text)
        kept = 0
        for mine, theirs in zip(prompt.ids, whole, strict=False):
            if mine != theirs:
                break
            kept += 1
        return kept, whole[kept:]

    def end_ids(self, configured: Iterable[int]) -> frozenset[int]:
        """Return every token that ends a reply: the configured ones, the tokenizer's, and the template's end of turn.

        They belong to the model, not to the weights it shares with others.
        """
        own = (self.tokenizer.eos_token_id, self.end_of_turn)
        return frozenset(configured).union(int(i) for i in own if i is not None)

    @cached_property
    def end_of_turn(self) -> int | None:
        """The special token that the chat template writes after an assistant's turn, if any."""
        if self.style != "chat":
            return None
        try:
            text = self._template([Message("user", "a"), Message("assistant", _MARK)])
        except Exception:  # a template that refuses this conversation says nothing about its end of turn
            return None
        _, found, tail = text.rpartition(_MARK)
        ids = self._encode_rendered(tail.lstrip()) if found and tail.strip() else []
        special = set(self.tokenizer.all_special_ids) | set(self.tokenizer.added_tokens_decoder)
        return ids[0] if ids and ids[0] in special else None


def _plain(messages: Sequence[Message], open_end: bool = True) -> str:
    """Write a conversation for a model that knows no chat: bare text while there is one user turn, else labelled turns."""
    spoken = [m for m in messages if m.role != "system"]
    head = [m.content for m in messages if m.role == "system"]
    if len(spoken) == 1:
        return "\n\n".join([*head, spoken[0].content])
    if len(spoken) == 2 and spoken[1].role == "assistant":
        return "\n\n".join([*head, spoken[0].content + "\n" + spoken[1].content])
    lines = [f"{m.role.capitalize()}: {m.content}" for m in spoken]
    if open_end and (not spoken or spoken[-1].role != "assistant"):
        lines.append("Assistant:")
    return "\n\n".join([*head, *lines])


def _fold(turns: Sequence[Message]) -> list[Message]:
    """Put the system text in front of the first user turn."""
    system = "\n\n".join(m.content for m in turns if m.role == "system")
    rest = [m for m in turns if m.role != "system"]
    for i, m in enumerate(rest):
        if m.role == "user":
            rest[i] = Message("user", f"{system}\n\n{m.content}")
            return rest
    return [Message("user", system), *rest]


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
