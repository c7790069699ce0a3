"""`python -m dlsim`: the command line."""

from dlsim.cli import main

raise SystemExit(main())
