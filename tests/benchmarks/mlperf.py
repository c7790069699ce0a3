"""Published results of MLPerf Storage beside what is simulated; a table for docs/storage.md.

    python -m tests.benchmarks.mlperf

A result is how many emulated accelerators a drive kept busy for a share of the time: 90 %, or 70 %
with CosmoFlow. Simulated is the largest number of ranks that keep it, from the bandwidth that the
drive's description states, the benchmark's own sizes, and nothing else. All results of the closed
division of v1.0 with a single local drive whose reading is stated, for two kinds of accelerators.
"""

from __future__ import annotations

import dlsim
from dlsim.scenario import Scenario

# mlcommons/storage_results_v1.0 at 1c5efa7 (September 2024), Closed/Micron: of each drive, its
# peak_bandwidth for reading (systems/*.json), and of each workload and accelerator the accelerators
# (train_num_accelerators of results/*/*/*/mlperf_storage_report.json).
DRIVES = {
    "Micron 6500": (
        6.8e9,
        {
            ("unet3d", "h100"): 1,
            ("unet3d", "a100"): 3,
            ("resnet50", "h100"): 37,
            ("resnet50", "a100"): 72,
            ("cosmoflow", "h100"): 9,
            ("cosmoflow", "a100"): 15,
        },
    ),
    "Micron 9400": (
        7.0e9,
        {
            ("unet3d", "h100"): 2,
            ("unet3d", "a100"): 4,
            ("resnet50", "h100"): 38,
            ("cosmoflow", "h100"): 12,
            ("cosmoflow", "a100"): 18,
        },
    ),
    "Micron 9550": (
        10.0e9,
        {
            ("unet3d", "h100"): 4,
            ("unet3d", "a100"): 8,
            ("resnet50", "h100"): 58,
            ("resnet50", "a100"): 115,
            ("cosmoflow", "h100"): 13,
            ("cosmoflow", "a100"): 20,
        },
    ),
}
# The benchmark's own: samples of a batch, bytes of a sample and their deviation, the share of the
# time, and seconds of a step.
WORKLOADS = {
    "unet3d": (7, 146_600_628.0, 68_341_808.0, 0.9, {"h100": 0.323, "a100": 0.636}),
    "resnet50": (400, 114_660.07, 0.0, 0.9, {"h100": 0.224, "a100": 0.435}),
    "cosmoflow": (1, 2_828_486.0, 71_311.0, 0.7, {"h100": 0.0035, "a100": 0.00551}),
}
WORKERS, STEPS, WARM = 4, 200, 50


def scenario(workload: str, accelerator: str, bandwidth: float, ranks: int) -> Scenario:
    """So many accelerators that read from one drive, and meet after every step."""
    size, mean, deviation, _, steps = WORKLOADS[workload]
    # of a batch, that is read in one go
    amount = dlsim.Gamma(size * mean, deviation / mean / size**0.5 or 1e-9)
    return Scenario(
        loader=dlsim.Loader(batch_size=size, num_workers=WORKERS),
        dataset=dlsim.MapDataset(
            size * STEPS * ranks, fetch=[dlsim.Stage("read", read_bytes=amount)], batched=True
        ),
        consumer=dlsim.Consumer(step=dlsim.Constant(steps[accelerator])),
        machine=dlsim.Machine(storage=dlsim.Storage(bandwidth=bandwidth)),
        job=dlsim.Job(ranks=ranks),
    )


def utilisation(found: Scenario) -> float:
    """The share of the time that accelerators are busy, without the first `WARM` steps."""
    rank = dlsim.simulate_job(found).ranks[0]
    ended = rank.finished[rank.order]
    step = found.consumer.step.mean
    return float(step * (STEPS - WARM) / (ended[-1] - ended[WARM - 1]))


def fed(workload: str, accelerator: str, bandwidth: float) -> int:
    """The most accelerators that the drive keeps busy."""
    size, mean, _, wanted, steps = WORKLOADS[workload]
    ranks = int(bandwidth / (wanted * size * mean / steps[accelerator])) + 1
    while utilisation(scenario(workload, accelerator, bandwidth, ranks)) < wanted:
        ranks -= 1
    return ranks


def main() -> None:
    """Simulate each result, and print it beside what was published."""
    print("| drive | states | workload | published | simulated |")
    print("|---|---|---|---|---|")
    for drive, (bandwidth, results) in DRIVES.items():
        for (workload, accelerator), published in results.items():
            found = fed(workload, accelerator, bandwidth)
            print(
                f"| {drive} | {bandwidth / 1e9:g} GB/s | {workload}, {accelerator.upper()} "
                f"| {published} | {found} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
