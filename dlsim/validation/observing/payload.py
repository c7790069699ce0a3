"""What a batch is made of: the number of its tensors, their bytes, and the bytes of all else."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

PLAIN = (bool, int, float, complex, type(None))
PLAIN_BYTES = 8


class Payload(NamedTuple):
    """Tensors travel through shared memory, everything else pickled through a pipe."""

    tensors: float = 0
    tensor_bytes: float = 0
    pickled_bytes: float = 0

    def plus(self, other: Payload) -> Payload:
        """Both together."""
        return Payload(*(a + b for a, b in zip(self, other, strict=True)))


def payload_of(data: Any) -> Payload:
    """The payload of a batch: containers are walked, other objects' attributes too."""
    if isinstance(data, torch.Tensor):
        return Payload(1, data.numel() * data.element_size())
    if isinstance(data, PLAIN):
        return Payload(pickled_bytes=PLAIN_BYTES)
    if isinstance(data, (bytes, bytearray, str)):
        return Payload(pickled_bytes=len(data))
    if isinstance(data, np.ndarray) and not data.dtype.hasobject:
        return Payload(pickled_bytes=data.nbytes)
    if isinstance(data, Mapping):
        return together([*data.keys(), *data.values()])
    if isinstance(data, (list, tuple, set, frozenset)):
        return together(list(data))
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        return together([getattr(data, field.name) for field in dataclasses.fields(data)])
    if type(data).__module__ != "builtins" and vars_of(data):
        return together(list(vars_of(data).values()))
    return Payload(pickled_bytes=pickled(data))


def together(parts: list[Any]) -> Payload:
    """The payload of all parts."""
    whole = Payload()
    for part in parts:
        whole = whole.plus(payload_of(part))
    return whole


def vars_of(data: Any) -> dict[str, Any]:
    """The attributes of an object that is pickled by them, else none."""
    kind: Any = type(data)
    own = kind.__reduce_ex__ == object.__reduce_ex__ and kind.__reduce__ == object.__reduce__
    return dict(vars(data)) if own and hasattr(data, "__dict__") else {}


def pickled(data: Any) -> int:
    """The length of the pickle of `data`; 0 if it has none."""
    try:
        return len(pickle.dumps(data))
    except Exception:
        return 0
