"""Bad inputs of every kind, made from sound ones by random changes.

A function here takes a random generator and a folder with sound files, writes what is bad there,
and returns the words of a command, and what to tell of the case. `trees.py` has the changes that
any file in TOML can have.
"""
