"""The same in-order loader by other means: what each returns is when batches are returned.

Constant times; one worker takes every eighth batch. Ciw has no reorder buffer, and needs none where
all batches take equally long: its batches come one after another, as fast as workers need them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import ciw
import salabim
import simpy

import dlsim
from dlsim.engine.in_order import suits


def times(plan: dlsim.Scenario) -> tuple[int, int, int, float, float]:
    """Batches, workers, window, and the seconds of a batch and of a step."""
    assert suits(plan)
    loader, service = plan.loader, plan.dataset.fetch[0].wait
    return (
        plan.dataset.length,
        loader.num_workers,
        loader.window,
        service.mean,
        plan.consumer.step.mean,
    )


def loop(plan: dlsim.Scenario) -> list[float]:
    """The recurrence as a plain Python loop."""
    batches, workers, window, service, step = times(plan)
    fetched, returned, now = [0.0] * workers, [], 0.0
    for k in range(batches):
        sent = returned[k - window] if k >= window else 0.0
        fetched[k % workers] = max(fetched[k % workers], sent) + service
        returned.append(max(now, fetched[k % workers]))
        now = returned[k] + step
    return returned


def in_simpy(plan: dlsim.Scenario) -> list[float]:
    """The barest SimPy model."""
    batches, workers, window, service, step = times(plan)
    env = simpy.Environment()
    queues = [simpy.Store(env) for _ in range(workers)]
    results = simpy.Store(env)
    returned = []

    def worker(queue: simpy.Store) -> Iterator[simpy.Event]:
        while True:
            number = yield queue.get()
            yield env.timeout(service)
            results.put(number)

    def main() -> Iterator[simpy.Event]:
        sent = 0
        while sent < min(window, batches):
            queues[sent % workers].put(sent)
            sent += 1
        early: set[int] = set()
        for wanted in range(batches):
            while wanted not in early:
                early.add((yield results.get()))
            early.remove(wanted)
            if sent < batches:
                queues[sent % workers].put(sent)
                sent += 1
            returned.append(env.now)
            yield env.timeout(step)

    for queue in queues:
        env.process(worker(queue))
    env.run(env.process(main()))
    return returned


def in_salabim(plan: dlsim.Scenario) -> list[float]:
    """The same with salabim's components, which wake each other."""
    batches, workers, window, service, step = times(plan)
    salabim.yieldless(False)
    env = salabim.Environment(trace=False)
    early: set[int] = set()
    returned: list[float] = []

    class Worker(salabim.Component):
        def setup(self) -> None:
            self.queue: deque[int] = deque()

        def give(self, number: int) -> None:
            self.queue.append(number)
            if self.ispassive():
                self.activate()

        def process(self) -> Iterator[object]:
            while True:
                while not self.queue:
                    yield self.passivate()
                number = self.queue.popleft()
                yield self.hold(service)
                early.add(number)
                if main.ispassive():
                    main.activate()

    class Main(salabim.Component):
        def process(self) -> Iterator[object]:
            sent = 0
            while sent < min(window, batches):
                pool[sent % workers].give(sent)
                sent += 1
            for wanted in range(batches):
                while wanted not in early:
                    yield self.passivate()
                early.remove(wanted)
                if sent < batches:
                    pool[sent % workers].give(sent)
                    sent += 1
                returned.append(env.now())
                yield self.hold(step)
            env.main().activate()

    pool = [Worker() for _ in range(workers)]
    main = Main()
    env.run()
    return returned


def in_ciw(plan: dlsim.Scenario) -> list[float]:
    """A network of two queues, the second of which blocks the first when the window is full."""
    batches, workers, window, service, step = times(plan)
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Deterministic(service / workers), None],
        service_distributions=[ciw.dists.Deterministic(service), ciw.dists.Deterministic(step)],
        number_of_servers=[workers, 1],
        queue_capacities=[float("inf"), window - workers],
        routing=[[0.0, 1.0], [0.0, 0.0]],
    )
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_customers(batches, method="Finish")
    return sorted(
        record.service_start_date for record in simulation.get_all_records() if record.node == 2
    )
