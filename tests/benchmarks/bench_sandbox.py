"""How much faster programs run side by side than one after the other, in the sandbox.

    python tests/benchmarks/bench_sandbox.py [--programs N] [--isolation bubblewrap|limits]

Both ways run in one process, in alternating blocks, so that what else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import time

from moco_toolkit_sandbox import Limits, Sandbox

PROGRAM = """
def solve(n):
    sieve = [True] * (n + 1)
    for i in range(2, int(n ** 0.5) + 1):
        if sieve[i]:
            sieve[i * i :: i] = [False] * len(sieve[i * i :: i])
    return sum(sieve[2:])

assert solve(100_000) == 9592
assert {number} >= 0
"""


async def measure(isolation: str, programs: int, blocks: int = 4) -> tuple[float, float]:
    """Return the seconds of running one after the other, and side by side."""
    alone, together = Sandbox(isolation, parallel=1), Sandbox(isolation)  # type: ignore[arg-type]
    await alone.check()
    await together.check()
    sources = [PROGRAM.replace("{number}", str(i)) for i in range(programs)]
    spent = {id(alone): 0.0, id(together): 0.0}
    for block in range(blocks):
        part = sources[block::blocks]
        for sandbox in (alone, together):
            start = time.perf_counter()
            outcomes = await asyncio.gather(*(sandbox.run(p, Limits(seconds=60)) for p in part))
            spent[id(sandbox)] += time.perf_counter() - start
            assert all(o.passed for o in outcomes)
    return spent[id(alone)], spent[id(together)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=164)
    parser.add_argument(
        "--isolation",
        default="bubblewrap" if shutil.which("bwrap") else "limits",
        help="default: %(default)s, what is installed here",
    )
    given = parser.parse_args()
    alone, together = asyncio.run(measure(given.isolation, given.programs))
    both = f"one after the other {alone:.1f} s, {Sandbox().parallel} at once {together:.1f} s"
    print(f"{given.programs} programs ({given.isolation}), {both}")
    print(f"ratio {alone / together:.2f}")


if __name__ == "__main__":
    main()
