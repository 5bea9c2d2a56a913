"""Rollouts in several threads, joined into one.

Emulators and kernels run outside of Python's interpreter lock, so that threads keep all cores busy
(`scripts/benchmarks/evaluation.py`).
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import numpy as np

from ncp_agents.evaluation.rollout import Step

CHUNK = 8  # steps that a thread hands over at once; each hand-over wakes another thread


@contextmanager
def parallel_rollouts(rollouts: Sequence[Iterator[Step]]) -> Iterator[Iterator[Step]]:
    """Run endless rollouts in a thread each, and give their steps joined along the batch axis.

    A thread is up to 3 * CHUNK steps ahead. All threads have ended when the context is left. A
    single rollout stays in the caller's thread.
    """
    if len(rollouts) == 1:
        yield rollouts[0]
        return
    with ExitStack() as stack:
        threads = [ThreadPoolExecutor(1, thread_name_prefix="ncp-agents") for _ in rollouts]
        for thread in threads:
            stack.callback(thread.shutdown, cancel_futures=True)
        yield _joined(rollouts, threads)


def _joined(
    rollouts: Sequence[Iterator[Step]], threads: list[ThreadPoolExecutor]
) -> Iterator[Step]:
    def submit_chunk() -> list[Future[list[Step]]]:
        return [
            thread.submit(list, itertools.islice(steps, CHUNK))
            for thread, steps in zip(threads, rollouts, strict=True)
        ]

    pending = deque([submit_chunk(), submit_chunk()])
    while True:
        chunks = [chunk.result() for chunk in pending.popleft()]
        pending.append(submit_chunk())
        for steps in zip(*chunks, strict=True):
            yield _concatenated(steps)


def _concatenated(steps: Sequence[Step]) -> Step:
    first = steps[0]
    return Step(
        observations=np.concatenate([step.observations for step in steps]),
        resets=np.concatenate([step.resets for step in steps]),
        actions=np.concatenate([step.actions for step in steps]),
        rewards=np.concatenate([step.rewards for step in steps]),
        infos=[info for step in steps for info in step.infos],
        rgb_frames=first.rgb_frames
        and [frame for step in steps for frame in step.rgb_frames or ()],
    )
