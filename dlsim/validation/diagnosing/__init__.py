"""What is wrong with my loader, and what should I set? A loader comes in, an answer goes out.

Read `search.py` first: watch, calibrate, simulate other settings, try the best ones for real.
`memory.py` says whether they fit; `answer.py` holds what was found, and `words.py` says it.
"""
