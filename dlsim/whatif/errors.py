"""What questions about many simulations are refused with."""

from __future__ import annotations

from dlsim.scenario import DlsimError


class WhatIfError(DlsimError):
    """A question that cannot be asked, or an answer that cannot be kept, said in one line."""
