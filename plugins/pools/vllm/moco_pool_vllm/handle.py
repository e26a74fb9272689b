"""One vLLM engine: a base checkpoint in a worker process, its adapters, and the requests it answers."""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from moco_core.errors import ModelCallError
from moco_core.models import Call, Model
from moco_core.types import ContinuationScore, FinishReason, Generation, Sampling, Usage
from moco_pool_vllm.loops import LoopThread
from moco_pool_vllm.opening import Opening, shut
from moco_pool_vllm.options import Options
from moco_pool_vllm.placement import Base, Placement
from moco_toolkit_checkpoints.growing import answer_so_far
from moco_toolkit_checkpoints.reasoning import split
from moco_toolkit_checkpoints.rendering import Renderer
from moco_toolkit_checkpoints.specs import Spec

__all__ = ["EngineHandle"]


class EngineHandle:
    """Wraps one ``AsyncLLM``. Prompts are rendered, tokenised and decoded here, by the code of the transformers engine, so
    that a model reads the same ids on both.
    """

    def __init__(self, base: Base, options: Options, llm: Any, loop: LoopThread) -> None:
        self.base, self.options, self.llm = base, options, llm
        self._loop = loop
        self._asleep = False
        self._readers: dict[tuple[Any, ...], Renderer] = {}
        self._adapters: dict[str, int] = {}
        self._waking = asyncio.Lock()

    # ---------------------------------------------------------------- life

    @classmethod
    async def open(cls, base: Base, place: Placement, options: Options) -> EngineHandle:
        """Start the worker process and load the weights. Raises ConfigError with one line."""
        loop = LoopThread(f"vllm-{base.name}")
        opening = Opening(base, place, options)
        try:
            llm = await loop.run(opening.run())
            opening.llm = None  # it is the handle's now, and goes when the handle lets go of it
        except asyncio.CancelledError:
            ready = await opening.give_up()
            if ready is not None:
                await loop.run(shut(ready))
            loop.stop()
            raise
        except BaseException:
            loop.stop()
            raise
        # What importing vLLM left behind lives as long as the process: walking through it would cost each full garbage
        # collection a third of a second, with every request waiting.
        gc.collect()
        gc.freeze()
        return cls(base, options, llm, loop)

    async def close(self) -> None:
        """End the worker process; its memory is free afterwards."""
        llm, self.llm = self.llm, None
        if llm is not None:
            await self._loop.run(shut(llm))
            self._loop.stop()

    async def sleep(self) -> None:
        await self._loop.run(self.llm.sleep(level=1))
        self._asleep = True

    async def wake(self) -> None:
        if self._asleep:
            async with self._waking:
                if self._asleep:
                    await self._loop.run(self.llm.wake_up())
                    self._asleep = False

    @property
    def dead(self) -> bool:
        """The worker process is gone."""
        return self.llm is None or bool(self.llm.errored)

    # ---------------------------------------------------------------- calls

    async def answer(self, call: Call, request: str) -> Any:
        """Answer one call of any kind this engine serves."""
        return await self._loop.run(self._answer(call, request))

    async def _answer(self, call: Call, request: str) -> Any:
        if call.kind == "generate":
            return await self._generate(call, request)
        if call.kind == "score":
            return await self._score(call, request)
        reader = self._reader(call.model)
        if call.kind == "embed":
            prompts = [reader.render_input({"text": text}).ids for text in call.input["texts"]]
            rows = await asyncio.gather(
                *(self._pool(call.model, ids, "embed", f"{request}-{i}") for i, ids in enumerate(prompts))
            )
            return tuple(rows)
        return await self._pool(call.model, reader.render_whole(call.input).ids, "classify", request)

    async def _generate(self, call: Call, request: str) -> Generation:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = Sampling.from_params(call.params)
        reader = self._reader(call.model)
        prompt = reader.render_input(call.input, sampling.max_new_tokens)
        spec: Spec = call.model.info["spec"]
        ends = reader.end_ids(spec.ends)
        top: int = call.model.info["top_logprobs"]
        params = SamplingParams(
            temperature=sampling.temperature,
            top_p=1.0 if sampling.greedy else sampling.top_p,
            top_k=0 if sampling.greedy else sampling.top_k,
            min_p=0.0 if sampling.greedy else sampling.min_p,
            max_tokens=sampling.max_new_tokens,
            stop=list(sampling.stop) or None,
            stop_token_ids=sorted(ends),
            seed=None if call.seed is None else call.seed % 2**63,  # torch takes 64 bits with sign
            logprobs=top,  # of the emitted token and so many of the likeliest, from the raw logits
            detokenize=bool(sampling.stop),  # only to find stop strings; the text is decoded here
            output_kind=RequestOutputKind.FINAL_ONLY if call.tell is None else RequestOutputKind.CUMULATIVE,
        )

        def told(output: Any) -> None:
            if call.tell is not None and not output.finished:
                text = reader.decode([int(i) for i in output.outputs[0].token_ids], tags=True)
                call.tell(answer_so_far(text, sampling.stop, spec.tags, prompt.opened))

        output = await self._last(
            self.llm.generate(
                {"prompt_token_ids": list(prompt.ids)}, params, request, lora_request=self._lora(call.model)
            ),
            told,
        )
        said = output.outputs[0]
        ids = [int(i) for i in said.token_ids]
        scores = [min(0.0, float(row[i].logprob)) for i, row in zip(ids, said.logprobs or [], strict=False)]
        if len(scores) != len(ids) or any(math.isnan(s) for s in scores):
            raise ModelCallError(
                f"{call.model.name}: vLLM returned {len(ids)} tokens and {len(scores)} log-probabilities"
            )
        if said.finish_reason not in ("stop", "length"):  # it was broken off
            raise ModelCallError(f"{call.model.name}: vLLM ended the reply with {said.finish_reason!r}")
        finish: FinishReason = "eos"
        if said.finish_reason == "length":
            finish = "length"
        elif isinstance(said.stop_reason, str):
            finish = "stop"
        text = reader.decode(ids[:-1] if finish == "eos" and ids and ids[-1] in ends else ids, tags=True)
        meta = dict(prompt.meta)
        if output.num_cached_tokens:
            meta["cached_tokens"] = int(output.num_cached_tokens)
        if top:
            meta["top_logprobs"] = {"k": top, "tokens": [_likeliest(row, top) for row in said.logprobs]}
        places = [(at, s) for s in sampling.stop if s and (at := text.find(s)) >= 0]
        if places:
            first = min(at for at, _ in places)
            meta["stop"] = max((s for at, s in places if at == first), key=len)
            text, finish = text[:first], "stop"
        reasoning, answer = split(text, spec.tags, prompt.opened)
        return Generation(
            text=answer,
            reasoning=reasoning,
            finish_reason=finish,
            token_ids=ids,
            token_logprobs=scores,
            usage=Usage(len(prompt.ids), len(ids)),
            meta=meta,
        )

    async def _score(self, call: Call, request: str) -> tuple[ContinuationScore, ...]:
        """Teacher-force each continuation: its tokens are those of prompt + continuation beyond the common prefix."""
        reader = self._reader(call.model)
        prompt = reader.render_input(call.input)
        rows: list[tuple[Sequence[int], list[int]]] = []
        for text in call.input["continuations"]:
            kept, ids = reader.continuation_ids(prompt, text)
            prefix = list(prompt.ids[:kept])
            if not prefix and ids:  # nothing predicts the first token of all: it is given, not scored
                prefix, ids = [ids[0]], ids[1:]
            limit = call.model.context_length
            if limit is not None and len(prefix) + len(ids) >= limit:  # vLLM emits one token beyond the prompt
                raise_or_cut = reader.render_input(call.input, len(ids) + len(prompt.ids) - kept + 1)
                prefix, ids = list(raise_or_cut.ids), reader.encode(text)
            rows.append((prefix, ids))
        found = await asyncio.gather(
            *(self._teacher_force(call.model, prefix, ids, f"{request}-{i}") for i, (prefix, ids) in enumerate(rows))
        )
        return tuple(
            ContinuationScore(token_ids=ids, token_logprobs=scores)
            for (_, ids), scores in zip(rows, found, strict=True)
        )

    async def _teacher_force(
        self, model: Model, prefix: Sequence[int], ids: Sequence[int], request: str
    ) -> list[float]:
        if not ids:
            return []
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY
        )
        output = await self._last(
            self.llm.generate({"prompt_token_ids": [*prefix, *ids]}, params, request, lora_request=self._lora(model))
        )
        given = output.prompt_logprobs[len(prefix) :]
        return [min(0.0, float(row[i].logprob)) for i, row in zip(ids, given, strict=True)]

    async def _pool(self, model: Model, ids: Sequence[int], task: Any, request: str) -> tuple[float, ...]:
        """Return one vector: a mean of hidden states, or a classifier's logits. Nothing is normalised or squashed."""
        from vllm import PoolingParams

        params = PoolingParams(task=task, use_activation=False)
        output = await self._last(self.llm.encode({"prompt_token_ids": list(ids)}, params, request))
        return tuple(float(x) for x in output.outputs.data.flatten().tolist())

    @staticmethod
    async def _last(stream: Any, told: Callable[[Any], None] | None = None) -> Any:
        last = None
        async for output in stream:
            last = output
            if told is not None:
                told(output)
        if last is None:
            raise ModelCallError("vLLM returned nothing")
        return last

    # ---------------------------------------------------------------- text

    def _reader(self, model: Model) -> Renderer:
        checkpoint: Spec = model.info["spec"]
        key = (
            checkpoint.tokenizer_folder,
            checkpoint.template_text,
            checkpoint.style,
            model.context_length,
            model.name,
        )
        found = self._readers.get(key)
        if found is None:
            from transformers import AutoTokenizer

            tokenizer: Any = AutoTokenizer.from_pretrained(
                checkpoint.tokenizer_folder,
                trust_remote_code=self.options.trust_remote_code,
                local_files_only=True,
            )
            if checkpoint.template_text is not None:
                tokenizer.chat_template = checkpoint.template_text
            found = self._readers[key] = Renderer(
                model.name,
                tokenizer,
                style=checkpoint.style,
                overlong=checkpoint.overlong,
                context=model.context_length,
                tags=checkpoint.tags,
                template_options=checkpoint.template_options,
            )
        return found

    def _lora(self, model: Model) -> Any:
        spec: Spec = model.info["spec"]
        if not spec.adapter:
            return None
        from vllm.lora.request import LoRARequest

        number = self._adapters.setdefault(spec.adapter, len(self._adapters) + 1)
        return LoRARequest(f"adapter-{number}", number, spec.adapter)


def _likeliest(row: Mapping[int, Any], top: int) -> list[list[Any]]:
    """Return [id, log-probability] of the likeliest tokens of one step, in order; the emitted one only if it is among them."""
    ranked = sorted((found.rank, i, float(found.logprob)) for i, found in row.items() if found.rank <= top)
    return [[int(i), min(0.0, score)] for _, i, score in ranked[:top]]
