"""One rank of eight has a loader that takes longer: which one, why, and what does it cost all?

In a job that meets after every step, the slowest rank is as fast as all of them. A single rank's
trace shows nothing of it but waiting at the barrier; that of the job says for whom.
"""

from __future__ import annotations

import dlsim
from dlsim.trace import lateness, summarize
from dlsim.trace.job_metrics import causes_of, job_account
from dlsim.trace.telling import sentence

SCENARIO = dlsim.Scenario(
    loader=dlsim.Loader(batch_size=16, num_workers=2),
    dataset=dlsim.MapDataset(
        8 * 200 * 16, fetch=[dlsim.Stage("decode", wait=dlsim.Gamma(0.010, 1.0))]
    ),
    consumer=dlsim.Consumer(step=dlsim.Constant(0.100)),
    job=dlsim.Job(ranks=8),
)
SLOW = dlsim.replace(SCENARIO, {"job.differs": [{"rank": 5, "loader": 1.5}]})


def main() -> None:
    """Simulate both jobs, and tell what the slow rank does to the others."""
    for name, scenario in (("all alike", SCENARIO), ("one slow rank", SLOW)):
        job = dlsim.simulate_job(scenario, seed=1)
        late, counted = lateness(job), job_account(job)
        worst = late.worst
        print(f"{name}: {summarize(job).samples_per_s:,.0f} samples/s")
        print(f"  {sentence(counted.shares, counted.stall)}.")
        print(f"  Barrier amplification {late.amplification:.2f}. Rank {worst} was waited for the")
        print(f"  longest; it came last {late.last[worst]:.0f} of {late.meetings} times.")
        did = list(causes_of(job, worst).items())[:2]
        causes = ", ".join(f"{cause} {seconds:.1f} s" for cause, seconds in did)
        print(f"  Until it came, it spent: {causes}.")


if __name__ == "__main__":
    main()
