"""Games in several threads, as if in one: while emulators run for some, a policy looks at others.

Emulators and kernels run outside of Python, so that threads keep all cores busy
(`scripts/benchmarks/evaluation.py`).
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import copy_context

import numpy as np

from ncp_agents.evaluation.rollout import Step

AT_ONCE = 8  # steps that a thread plays before it hands them over, which wakes another


@contextmanager
def parallel_rollouts(loops: Sequence[Iterator[Step]]) -> Iterator[Iterator[Step]]:
    """Endless loops, each in a thread of its own and up to 3 * AT_ONCE steps ahead, as one: its
    steps join theirs. The threads have ended when the context does.
    """
    if len(loops) == 1:
        yield loops[0]
        return
    with ExitStack() as stack:
        threads = [ThreadPoolExecutor(1, thread_name_prefix="ncp-agents") for _ in loops]
        for thread in threads:
            stack.callback(thread.shutdown, cancel_futures=True)
        yield _merged(loops, threads)


def _merged(loops: Sequence[Iterator[Step]], threads: list[ThreadPoolExecutor]) -> Iterator[Step]:
    contexts = [copy_context() for _ in loops]  # whether kernels are on, for instance

    def more() -> list[Future[list[Step]]]:
        return [
            thread.submit(context.run, list, itertools.islice(loop, AT_ONCE))
            for thread, context, loop in zip(threads, contexts, loops, strict=True)
        ]

    coming = deque([more(), more()])
    while True:
        played = [steps.result() for steps in coming.popleft()]
        coming.append(more())
        for steps in zip(*played, strict=True):
            yield _joined(steps)


def _joined(steps: Sequence[Step]) -> Step:
    """Steps of some games each, as one step of all of them."""
    first = steps[0]
    states = [step.state for step in steps if step.state is not None]
    return Step(
        observations=np.concatenate([step.observations for step in steps]),
        resets=np.concatenate([step.resets for step in steps]),
        actions=np.concatenate([step.actions for step in steps]),
        state=tuple(np.concatenate(parts, axis=1) for parts in zip(*states, strict=True)),
        rewards=np.concatenate([step.rewards for step in steps]),
        dones=np.concatenate([step.dones for step in steps]),
        infos=[info for step in steps for info in step.infos],
        rgb_frames=first.rgb_frames
        and [screen for step in steps for screen in step.rgb_frames or ()],
    )
