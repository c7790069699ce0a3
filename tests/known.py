"""Loaders whose long-run figures are known: finite queues of one worker and one training loop.

With one worker and a window of K, K + 1 places hold what is fetched: K credits, and the batch that
is trained on. Exponential times make them the queues of the textbooks. An idle training loop is an
empty queue of batches, an idle worker a full one.
"""

from __future__ import annotations

from math import exp

import numpy as np
from scipy.integrate import quad
from scipy.special import gammainc

import dlsim
from dlsim.scenario import Distribution


def alone(
    fetch: Distribution, step: Distribution, window: int, batches: int = 2000
) -> dlsim.Scenario:
    """One worker that fetches batches of one sample, with that window."""
    return dlsim.Scenario(
        loader=dlsim.Loader(num_workers=1, prefetch_factor=window),
        dataset=dlsim.MapDataset(batches, fetch=[dlsim.Stage("read", wait=fetch)]),
        consumer=dlsim.Consumer(step=step),
    )


def free(fetch: Distribution, workers: int, batches: int) -> dlsim.Scenario:
    """So many workers that never wait for the training loop: it takes no time."""
    return dlsim.Scenario(
        loader=dlsim.Loader(num_workers=workers, prefetch_factor=batches),
        dataset=dlsim.MapDataset(batches, fetch=[dlsim.Stage("read", wait=fetch)]),
    )


def stall_mm1(load: float, places: int) -> float:
    """The share of time for which M/M/1 with so many places is empty: `load ** 0 / sum`."""
    return 1 / sum(load**n for n in range(places + 1))


def stall_md1(load: float, places: int) -> float:
    """The share of time for which M/D/1 with so many places is empty.

    From what departures leave behind, an embedded Markov chain: arrivals during a service of
    length `load` are Poisson (Gross and Harris, Fundamentals of Queueing Theory, §5.1.7).
    """
    arrivals = np.array([exp(-load)] * places)
    for n in range(1, places):
        arrivals[n] = arrivals[n - 1] * load / n
    chain = np.zeros((places, places))
    for left in range(places):
        begun_with = max(left - 1, 0)
        chain[left, begun_with : places - 1] = arrivals[: places - 1 - begun_with]
        chain[left, -1] = 1 - chain[left].sum()
    equations = np.vstack([chain.T - np.eye(places), np.ones(places)])
    behind = np.linalg.lstsq(equations, np.append(np.zeros(places), 1.0), rcond=None)[0]
    return float(behind[0] / (behind[0] + load))


def epoch_of_pairs(fetch: float, step: float, batches: int) -> float:
    """Mean seconds of an epoch with a window of one and exponential times of these means.

    Each batch is fetched during the step on the one before: `S + (N - 1) E[max(S, T)] + T`.
    """
    longer = fetch + step - 1 / (1 / fetch + 1 / step)
    return fetch + (batches - 1) * longer + step


def epoch_of_free_workers(fetch: float, workers: int, batches: int) -> float:
    """Mean seconds of an epoch without steps, all batches on their way from the beginning.

    The last worker decides: the greatest of so many Erlang times, `E = integral of 1 - F ** W`.
    """
    mine = batches // workers
    return fetch * float(quad(lambda t: 1 - gammainc(mine, t) ** workers, 0, np.inf)[0])
