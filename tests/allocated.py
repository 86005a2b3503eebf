"""What tensors take while something runs."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocated(TorchDispatchMode):
    """Counts the bytes of all tensors that operations return while they live: what the allocator holds.

    Works on fake tensors too, so that a model of any size can be measured. What an operation allocates and frees
    within itself is not seen.
    """

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._live = {}

    def add(self, tensor):
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._live:
            return

        def freed(_):
            self.now -= self._live.pop(key)[1]

        self._live[key] = weakref.ref(storage, freed), storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        returned = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(returned):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        return returned
