"""Decoding on a CPU: how many threads, how they wait, and one model after the other against several side by side.

Every way is timed in a process of its own, idle and beside a second process that burns one core, in turns; medians of the
rounds. Ways: `default` is torch's own (a thread per core that spins while it waits), `one` a single thread, `passive` a thread
per core that waits passively, `side by side` what the pool does. Targets: beside the burner `side by side` takes at most 2.5
times as long as idle, and idle no longer than `default`.

    python tests/benchmarks/bench_threads.py [--size tiny|100m] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench_transformers_engine import WORK, checkpoint, ours, workload

WAYS = {
    "default": {"OMP_NUM_THREADS": str(os.cpu_count()), "OMP_WAIT_POLICY": "ACTIVE"},
    "one": {"OMP_NUM_THREADS": "1"},
    "passive": {"OMP_NUM_THREADS": str(os.cpu_count()), "OMP_WAIT_POLICY": "PASSIVE"},
    "side by side": {},
}
BURN = [sys.executable, "-c", "while True: pass"]


def work(size: str, folders: list[str], side_by_side: bool) -> None:
    """Decode a workload with every model, and print the seconds: of all, the first reply excepted."""
    from moco_pool_transformers.pool import Options, TransformersPool

    models = TransformersPool(Options(models=tuple(folders))).models()
    items = workload(size, varied=True)[: 64 if size == "tiny" else 8]
    for model in models:
        ours(model, items[:1])
    started = time.perf_counter()
    if side_by_side:  # those of one group one after the other, as the scheduler has it
        groups: dict[str, list] = {}
        for model in models:
            groups.setdefault(model.device_group, []).append(model)
        threads = [
            threading.Thread(target=lambda group=group: [ours(m, items) for m in group]) for group in groups.values()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    else:
        for model in models:
            ours(model, items)
    print(json.dumps(time.perf_counter() - started))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(WORK), action="append", help="default: both")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.size[0], args.work[1:], args.work[0] == "side by side")
        return
    for size in args.size or list(WORK):
        with tempfile.TemporaryDirectory() as root:
            folders = [checkpoint(Path(root) / f"m{i}", size, seed=i) for i in range(2)]
            seconds: dict[tuple[str, bool], list[float]] = {}
            for _ in range(args.rounds):
                for way, environment in WAYS.items():
                    for busy in (False, True):
                        burner = subprocess.Popen(BURN) if busy else None
                        clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "MKL_"))}
                        command = [sys.executable, __file__, "--size", size, "--work", way, *folders]
                        out = subprocess.run(command, env={**clean, **environment}, capture_output=True, check=True)
                        seconds.setdefault((way, busy), []).append(json.loads(out.stdout))
                        if burner is not None:
                            burner.kill()
                            burner.wait()
        base = statistics.median(seconds["side by side", False])
        print(f"{size}, two models: seconds, and x the idle time of side by side ({base:.2f} s)")
        for way in WAYS:
            idle, busy = (statistics.median(seconds[way, b]) for b in (False, True))
            print(f"  {way:13} idle {idle / base:5.2f} x   busy {busy / base:5.2f} x   busy to idle {busy / idle:5.2f}")


if __name__ == "__main__":
    main()
