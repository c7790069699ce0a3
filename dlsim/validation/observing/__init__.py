"""Watching a real loader: any torch DataLoader comes in, the trace of its run goes out.

Read `run.py` (`observe`) first. It runs the copy of the loader that `wrapped_loader.py` makes,
whose dataset (`wrapped_dataset.py`) and other callables report to `hooks.py`, which writes it down
(`probe.py`) inside each process; `records.py` reads that, `assemble.py` makes a trace of
it, and `problem.py` tells what ended the run.
`cpu_time.py` reads what a thread has had of the processor, `accelerator.py` what the GPU did,
`payload.py` what a batch is made of, `machine.py` what else went on, `settings.py` the loader's
keywords (`shards.py`: the files of a stream); `target.py` finds the loader that a command line
names, and `unwatchable.py` says of some why they cannot be watched, and what can in their place.
"""
