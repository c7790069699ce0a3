"""`python -m dlsim`: the command line."""

from dlsim.cli import script

script()
