"""From Python functions over numbers and arrays to LLVM's language, in which nothing is slow.

`function.py` reads a function as a tree, and writes what it does; `module.py` all that it calls.
What it works with are the types in `values.py`; `builder.py` writes instructions, `memory.py` those
that read and write arrays, `built_in.py` what Python has built in. How arrays get from Python to
machine code is in `arrays.py`. Whoever wants a part of Python that is not there adds it.
"""
