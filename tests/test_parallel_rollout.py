"""Parallel rollouts: steps in order, threads that end with the context."""

import itertools
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from test_evaluation import SHORT, fresh_policy

from ncp_agents.evaluation.parallel_rollout import CHUNK, parallel_rollouts
from ncp_agents.evaluation.rollout import Step, env_factory, env_groups, rollout
from ncp_agents.torch import kernels


@pytest.fixture(scope="module")
def policy():
    return fresh_policy()


@contextmanager
def rollouts(policy, num_envs):
    with env_groups(policy, env_factory(policy, SHORT, render=False), num_envs, seed=3) as groups:
        yield [rollout(*group) for group in groups]


def test_steps_are_those_of_each_rollout_alone_concatenated(policy):
    """Episodes of 25 steps, so that some end in both groups."""
    with (
        rollouts(policy, 3) as ours,
        rollouts(policy, 3) as alone,
        parallel_rollouts(ours) as steps,
    ):
        for step, first, second in itertools.islice(zip(steps, *alone, strict=False), 60):
            assert [len(first.actions), len(second.actions)] == [2, 1]
            for name in ("observations", "resets", "actions", "rewards"):
                expected = [*getattr(first, name), *getattr(second, name)]
                np.testing.assert_array_equal(getattr(step, name), expected, name)
            endings = [info.keys() for info in [*first.infos, *second.infos]]
            assert [info.keys() for info in step.infos] == endings
            assert step.rgb_frames is None


def test_groups_have_environments_and_random_numbers_of_their_own(policy):
    with rollouts(policy, 2) as both, parallel_rollouts(both) as steps:
        actions = np.array([step.actions for step in itertools.islice(steps, 25)])
    assert (actions[:, 0] != actions[:, 1]).any()


def numbered(start, threads=None):
    """Steps of one environment whose reward counts them."""
    for number in itertools.count(start):
        if threads is not None:
            threads.add((threading.get_ident(), torch.get_num_threads(), kernels.are_on()))
        one = np.array([number])
        yield Step(one, one, one, one, [{}], [one])


def test_each_rollout_has_a_thread_with_the_callers_settings():
    threads = set()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with kernels.off(), parallel_rollouts([numbered(0, threads), numbered(100, threads)]) as steps:
        for number, step in enumerate(itertools.islice(steps, 5 * CHUNK)):
            assert step.rewards.tolist() == [number, 100 + number]
            assert [frame.tolist() for frame in step.rgb_frames] == [[number], [100 + number]]
    torch.set_num_threads(before)
    identities, torch_threads, kernels_on = map(set, zip(*threads, strict=True))
    assert len(identities) == 2
    assert threading.get_ident() not in identities
    assert (torch_threads, kernels_on) == ({1}, {False})


def test_threads_end_with_the_context_however_it_ends():
    before = threading.active_count()

    def interrupted():
        with parallel_rollouts([numbered(0), numbered(1)]) as steps:
            next(steps)
            assert threading.active_count() == before + 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert threading.active_count() == before


def test_an_error_in_a_thread_reaches_the_caller():
    def breaks():
        yield next(numbered(0))
        raise OSError("the emulator broke")

    before = threading.active_count()
    with pytest.raises(OSError, match="broke"), parallel_rollouts([numbered(0), breaks()]) as steps:
        next(steps)
    assert threading.active_count() == before


def test_a_single_rollout_stays_in_the_callers_thread():
    threads = set()
    with parallel_rollouts([numbered(0, threads)]) as steps:
        assert next(steps).rewards == [0]
    assert {identity for identity, *_ in threads} == {threading.get_ident()}
