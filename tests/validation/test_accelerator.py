from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import dlsim
from dlsim.scenario import Constant, Costs
from dlsim.validation import calibrate, observe, replay
from dlsim.validation.calibrating.steps import ahead
from dlsim.validation.calibrating.work import AHEAD
from dlsim.validation.fidelity.trials import timed
from dlsim.validation.observing import accelerator
from dlsim.validation.observing.accelerator import StepClock, copying
from tests.validation.test_replay import watched

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
SECONDS = 0.02


class Rows(Dataset):
    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return torch.full((1000,), float(index))


class Stream:
    """Stands in for an accelerator: does what it is given, one after another, until `free`."""

    free = 0.0

    def work(self, seconds):
        """Give it so many seconds of work."""
        self.free = max(time.monotonic(), self.free) + seconds

    def wait(self):
        """Wait until it has done all."""
        time.sleep(max(0.0, self.free - time.monotonic()))


class Event:
    """Stands in for a CUDA event in the stream."""

    def __init__(self, stream):
        self.stream = stream

    def record(self):
        """Be passed when all that the stream has to do is done."""
        self.time = max(time.monotonic(), self.stream.free)

    def synchronize(self):
        """Wait until that is so."""
        self.stream.wait()

    def elapsed_time(self, later):
        """Milliseconds from this one to a later one."""
        return 1000 * (later.time - self.time)


@pytest.fixture
def device(monkeypatch):
    """What torch's loader and dlsim take for a real one."""
    found = Stream()
    cuda = SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        init=lambda: None,
        max_memory_allocated=lambda: 1,
        synchronize=found.wait,
        Event=lambda enable_timing: Event(found),
    )
    monkeypatch.setattr(accelerator, "cuda", cuda)
    monkeypatch.setattr(accelerator, "copying", lambda size, *, pinned: 1e-3)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 0)
    monkeypatch.setattr(torch.accelerator, "set_device_index", lambda index: None)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self.clone())
    return found


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("waits", [True, False])
def test_steps_are_the_accelerator_s(device, waits, num_workers):
    """A step ends when the accelerator has done it, whether the host waits for that or not."""

    def step(batch):
        device.work(SECONDS)
        if waits:
            device.wait()

    loader = DataLoader(Rows(40), 4, num_workers=num_workers, pin_memory=True)
    seen = observe(loader, step=step)
    took = (seen.device_ended - seen.device_began)[seen.order]
    assert (took > 0.99 * SECONDS).all()
    assert (seen.finished >= seen.device_ended).all()
    assert (seen.device_began >= seen.returned).all()
    assert seen.end >= seen.device_ended.max()
    assert (seen.left < seen.device_ended).any() or waits
    scenario = calibrate(seen, transport=Costs())
    consumer = scenario.consumer
    assert consumer.device == "accelerator"
    assert consumer.step.mean + 1e-3 == pytest.approx(float(took[1:].mean()), rel=0.2)
    assert consumer.run_ahead > 0 or waits
    # with the few bytes of the message that names the tensor's memory
    assert scenario.costs.copy_byte == pytest.approx(1e-3 / 16_000, rel=0.01)
    again = dlsim.simulate(replay(seen))
    assert again.end >= took.sum()
    assert np.array_equal(again.order, seen.order)


def test_pinning_is_seen_and_calibrated(device, monkeypatch):
    """The time of pinning is told apart from receiving; the typical batch counts."""
    busy = iter([0.03, *[0.005] * 100])

    def pin(tensor):
        until = time.thread_time() + next(busy)
        while time.thread_time() < until:
            pass
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(accelerator, "begin", lambda loader: None)
    seen = observe(DataLoader(Rows(40), 4, num_workers=1, pin_memory=True))
    assert (seen.pinning >= seen.received).all()
    assert (seen.pinned > seen.pinning).all()
    assert (seen.returned >= seen.pinned).all()
    costs = calibrate(seen, transport=Costs()).costs
    assert costs.pin.of(1, 16_000) == pytest.approx(0.005, rel=0.2)
    assert 0 < costs.receive.of(1, 16_000) < 0.004


def test_without_pinning_nothing_is_pinned():
    """And no accelerator does any step."""
    seen = observe(DataLoader(Rows(20), 4), step=lambda batch: None)
    assert np.isnan(seen.pinned).all()
    assert np.isnan(seen.device_ended).all()
    assert (seen.finished == seen.left).all()
    assert (seen.entered <= seen.left).all()
    scenario = calibrate(seen, transport=Costs())
    assert scenario.costs.pin == dlsim.Cost()
    assert scenario.costs.copy_byte == 0.0


def test_how_far_the_host_was_ahead():
    """So many steps were under way when it left one; those that end just then are over."""
    scenario = dlsim.Scenario(
        loader=dlsim.Loader(),
        dataset=dlsim.MapDataset(20),
        consumer=dlsim.Consumer(step=Constant(1.0), run_ahead=3),
    )
    trace = dlsim.simulate(scenario, samples=True)
    left = np.append(trace.requested[1:], trace.requested[-1])
    seen = watched(trace, left=left, device_ended=trace.finished)
    assert ahead(seen) == 4
    assert ahead(watched(trace, left=trace.finished, device_ended=trace.finished + 1e-4)) == 0


def test_two_clocks_are_made_one(device):
    """Between two settlings the accelerator's time is mapped evenly to the host's."""
    clock = StepClock()
    clock.settle()
    for _ in range(3):
        before = clock.mark()
        device.work(SECONDS)
        clock.step(before, clock.mark())
    began, ended = clock.moments()
    assert ended - began == pytest.approx(np.full(3, SECONDS), rel=0.05)
    assert began[1:] == pytest.approx(ended[:-1], abs=1e-3)
    assert time.monotonic() >= ended[-1]


def test_a_process_without_cuda_has_no_marks():
    """Nothing is known of its steps' times on an accelerator."""
    clock = StepClock()
    if not torch.cuda.is_initialized():
        clock.step(clock.mark(), clock.mark())
        assert np.isnan(clock.moments()).all()
        assert np.isnan(copying(1000, pinned=True))


@pytest.fixture(scope="module")
def cycles():
    """How many cycles `torch.cuda._sleep` needs for SECONDS."""
    for _ in range(3):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        torch.cuda._sleep(50_000_000)
        ended.record()
        ended.synchronize()
    return int(50_000_000 * SECONDS / (began.elapsed_time(ended) / 1000))


@needs_gpu
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("waits", [True, False])
def test_steps_are_seen_on_the_gpu(cycles, waits, num_workers):
    """A step ends when the GPU has done it, however early the host leaves it."""

    def step(batch):
        there = batch.to("cuda", non_blocking=True)
        torch.cuda._sleep(cycles)
        if waits:
            there.sum().item()

    loader = DataLoader(Rows(40), 4, num_workers=num_workers, pin_memory=True)
    seen = observe(loader, step=step)
    took = (seen.device_ended - seen.device_began)[seen.order]
    assert took[1:] == pytest.approx(np.full(9, SECONDS), rel=0.3)
    assert (np.diff(seen.device_ended[seen.order]) > 0.7 * SECONDS).all()
    assert (seen.finished >= seen.device_ended).all()
    assert (seen.device_began >= seen.returned - 1e-4).all()
    host = (seen.left - seen.returned)[seen.order][2:]
    assert (host > 0.7 * SECONDS).all() if waits else (host < 0.3 * SECONDS).all()
    assert seen.end >= seen.device_ended.max()
    assert (seen.pinned >= seen.pinning).all()
    assert (seen.pin_cpu >= 0).all()
    scenario = calibrate(seen, transport=Costs())
    assert scenario.consumer.device == "accelerator"
    assert scenario.consumer.step.mean == pytest.approx(SECONDS, rel=0.3)
    assert scenario.consumer.run_ahead == (0 if waits else AHEAD)
    assert scenario.costs.pin.of(1, 16_000) > 0
    assert 0 < scenario.costs.copy_byte < 1e-7
    assert dlsim.simulate(replay(seen)).end == pytest.approx(seen.end, rel=0.02)


@needs_gpu
def test_an_epoch_ends_when_the_gpu_has_done_it(cycles):
    """Though the host gives it all away at once."""
    trial = timed(DataLoader(Rows(20), 4), lambda batch: torch.cuda._sleep(cycles))
    assert trial.epoch > 0.8 * 5 * SECONDS


@needs_gpu
def test_copying_takes_longer_the_more_there_is():
    """And nothing is known of what has no bytes."""
    torch.zeros(1, device="cuda")
    small, large = (copying(size, pinned=True) for size in (1e6, 1e8))
    assert 0 < small < large < 1
    assert np.isnan(copying(0, pinned=True))
