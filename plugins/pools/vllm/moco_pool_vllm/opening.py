"""Starting and ending a vLLM engine: its arguments, its worker process, and openings that are given up."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
from multiprocessing import resource_tracker
from typing import Any

from moco_core.errors import ConfigError
from moco_pool_vllm.options import Options
from moco_pool_vllm.placement import Base, Placement

__all__ = ["Opening", "engine_args", "shut"]

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks vLLM reserves room for."""

_GRACE = 30.0
"""Seconds that a worker process has to clear up before it is killed. On a busy machine it takes more than vLLM's five."""


class Opening:
    """One start of an engine. It blocks the thread it runs in, for minutes perhaps; :meth:`give_up` ends it from another."""

    def __init__(self, base: Base, place: Placement, options: Options) -> None:
        self.base, self.place, self.options = base, place, options
        self._lock = threading.Lock()
        self._given_up = False
        self.llm: Any = None
        self._before: frozenset[int | None] | None = None
        self._done = threading.Event()

    async def run(self) -> Any:
        """Return the engine, its worker process ready. Raises ConfigError with one line."""
        _keep_logs_out()
        try:
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM

            args = engine_args(self.base, self.place, self.options)
        except ImportError as error:
            raise ConfigError(f"pool vllm: vLLM is installed but cannot be imported: {_line(error)}") from error
        with self._lock:
            if self._given_up:
                raise asyncio.CancelledError
            self._before = frozenset(p.pid for p in multiprocessing.active_children())
        _keep_interrupts_out()
        try:
            llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**args))
            with self._lock:
                given_up, self.llm = self._given_up, llm
            if given_up:
                await shut(llm)
            return llm
        except Exception as error:
            # the worker's own traceback stands in its log; here it is one line
            folder = self.base.spec.folder
            raise ConfigError(f"pool vllm: {self.base.name}: vLLM cannot open {folder}: {_line(error)}") from error
        finally:
            self._done.set()

    async def give_up(self) -> Any:
        """End the worker process that is being started, if there is one, and return when vLLM has noticed.

        Returns the engine if it was ready before: then it is to be shut. vLLM has no word for giving up: until a worker is
        ready it does not listen, and nobody but vLLM knows it. So it is found as a child process that came since.
        """
        with self._lock:
            self._given_up = True
            if self._before is None or self.llm is not None:
                return self.llm  # in the first case nothing was started, and nothing will be
        while not self._done.is_set():
            for child in multiprocessing.active_children():
                if child.name.startswith("EngineCore") and child.pid not in self._before:
                    child.kill()
            await asyncio.sleep(0.02)
        return None


def _keep_logs_out() -> None:
    """Have vLLM log errors alone, and not to the standard output: that is the results'. What the user has set stays."""
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    if "VLLM_LOGGING_LEVEL" not in os.environ:
        os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
        # it speaks while it is imported, before it reads its settings
        logging.getLogger("vllm").setLevel(logging.ERROR)


def _keep_interrupts_out() -> None:
    """Block SIGINT in this thread, and so in the processes it starts: Ctrl-C is the main thread's, which ends them."""
    if hasattr(signal, "pthread_sigmask"):
        resource_tracker.ensure_running()  # or the first process to be started would start it, which unblocks the signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


async def shut(llm: Any) -> None:
    """End an engine's worker process; its memory is free afterwards."""
    manager = getattr(getattr(getattr(llm, "engine_core", None), "resources", None), "engine_manager", None)
    workers = list(getattr(manager, "processes", ()))
    llm.shutdown(timeout=_GRACE)
    llm.shutdown = lambda *args, **kwargs: None  # its destructor would do it again, and fail at the interpreter's end
    for worker in workers:  # it was told to end, or killed; it has ended when the system says so
        await asyncio.to_thread(worker.join, 60)


def engine_args(base: Base, place: Placement, options: Options) -> dict[str, Any]:
    """Return the arguments of vLLM's AsyncEngineArgs for one engine."""
    spec = base.spec
    args: dict[str, Any] = {
        "model": spec.local_folder(),
        "tokenizer": spec.folder,
        "dtype": base.dtype,
        "max_num_seqs": options.max_num_seqs,
        "enforce_eager": options.enforce_eager,
        "enable_prefix_caching": options.prefix_caching and base.task == "generate",
        "trust_remote_code": options.trust_remote_code,
        "load_format": "safetensors",  # weights of any other kind may carry code
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "generation_config": "vllm",  # sampling is what the call says, never a checkpoint's default
        "seed": 0,
    }
    if options.max_model_len is not None:
        args["max_model_len"] = options.max_model_len
    if options.top_logprobs > 20:  # vLLM's own limit
        args["max_logprobs"] = options.top_logprobs
    if place.device_group == "cpu":
        args["kv_cache_memory_bytes"] = int(options.kv_cache * 2**30)
    else:
        args |= {"gpu_memory_utilization": place.share, "tensor_parallel_size": len(place.devices)}
        if place.sliced and options.swap == "sleep":
            args["enable_sleep_mode"] = True
    if base.adapters:
        rank = max(base.adapters.values())
        # On a CPU a row without adapter reads the last slot (index -1) when it shares a batch with rows that have one, so
        # one slot more than there are adapters stays empty. GPU kernels skip such rows.
        slots = len(base.adapters) + 1 if place.device_group == "cpu" else min(len(base.adapters), 8)
        args |= {
            "enable_lora": True,
            "max_loras": slots,
            "max_cpu_loras": max(slots, len(base.adapters)),
            "max_lora_rank": next((r for r in _RANKS if r >= rank), rank),
        }
    if base.task == "embed":
        from vllm.config import PoolerConfig

        pooler = PoolerConfig(pooling_type="MEAN", use_activation=False)
        args |= {"runner": "pooling", "convert": "embed", "pooler_config": pooler}
    elif base.task == "reward":
        args |= {"runner": "pooling"}
    return {**args, **options.engine_args}


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
