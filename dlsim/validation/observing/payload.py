"""What a batch is made of: its tensors, how many have no row for each sample, and all bytes."""

from __future__ import annotations

import pickle
from contextlib import suppress
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import torch
from torch.storage import TypedStorage, UntypedStorage


class Payload(NamedTuple):
    """Tensors travel through shared memory, everything else pickled through a pipe.

    `listed`: the tensors that do not have as many rows as the batch has samples.
    """

    tensors: float = 0
    tensor_bytes: float = 0
    pickled_bytes: float = 0
    listed: float = 0


def payload_of(data: Any, samples: int) -> Payload:
    """The payload of a batch of so many `samples`, as pickling finds it on its way from a worker.

    The bytes of tensors are those of their storages, each once: a view shares all of what it is
    a view of. What cannot be pickled counts as far as pickling came.
    """
    counting = Counting(Length(), samples)
    return counting.payload(data)


class Length:
    """A file that keeps nothing of what is written to it, but how many `bytes` it was."""

    bytes = 0

    def write(self, part: Any) -> None:
        """So many more; a part is bytes, or a buffer of them."""
        self.bytes += memoryview(part).nbytes


class Counting(ForkingPickler):
    """Pickles as a worker does, but counts storages in place of sharing them."""

    def __init__(self, file: Length, samples: int) -> None:
        super().__init__(file, pickle.DEFAULT_PROTOCOL)
        self._file, self._samples = file, samples
        self._tensors = self._listed = 0
        self._sizes: dict[int, int] = {}

    def payload(self, data: Any) -> Payload:
        """What pickling `data` comes upon."""
        with suppress(Exception):  # of user code; without workers nothing else pickles it
            self.dump(data)
        sizes = sum(self._sizes.values())
        return Payload(self._tensors, sizes, self._file.bytes, self._listed)

    def reducer_override(self, found: Any) -> Any:
        """A plain tensor, or what a storage is made of, is counted; all else is taken apart."""
        plain = type(found) in (torch.Tensor, torch.nn.Parameter)
        if plain and found.layout is torch.strided and not found.is_nested:
            self._listed += found.shape[:1] != (self._samples,)
            return self.count(found.untyped_storage())
        if isinstance(found, TypedStorage):
            return self.count(found._untyped_storage)
        if isinstance(found, UntypedStorage):
            return self.count(found)
        return NotImplemented

    def count(self, storage: UntypedStorage) -> Any:
        """One more tensor, of bytes that may have been counted; nothing of it is pickled."""
        self._tensors += 1
        self._sizes[storage._cdata] = storage.nbytes()
        return type(None), ()
