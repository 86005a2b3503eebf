"""verl 0.9.1 without an accelerator: a platform for CPUs and the rollout server in hf_rollout.py.

Every process of a run imports this: VERL_USE_EXTERNAL_MODULES=cpu_platform.
"""

import importlib
import os
import types
from functools import partial

import torch
from verl.plugin.platform import platform_manager
from verl.plugin.platform.platform_cuda import PlatformCUDA
from verl.utils import distributed
from verl.workers.rollout import base
from verl.workers.rollout.replica import RolloutReplicaRegistry


class Device(types.ModuleType):
    """What verl asks of torch.cuda: memory is not counted, streams and caches do not exist."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if "memory_" in name:
            return lambda *args, **kwargs: 0
        return getattr(torch.cpu, name, lambda *args, **kwargs: None)

    mem_get_info = staticmethod(lambda *args: (2**33, 2**34))
    get_rng_state = staticmethod(lambda *args: torch.get_rng_state())
    set_rng_state = staticmethod(lambda state, *args: torch.set_rng_state(state))
    get_device_name = staticmethod(lambda *args: "CPU")


@platform_manager.PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformCUDA):
    """Ray's "GPU" stays the resource that workers ask for; the run declares as many as it has ranks."""

    device_name = vendor_name = "cpu"
    device_module = Device("cpu_device")

    def _nothing(self, *args, **kwargs):
        pass

    set_device = synchronize = set_allocator_settings = empty_cache = is_ipc_supported = _nothing

    def is_available(self):
        return True

    def current_device(self):
        return torch.device("cpu")

    def device_count(self):
        return 1

    def communication_backend_name(self):
        return "gloo"


# Replaces the platform that `import verl` has already chosen.
platform_manager._current_platform = PlatformCPU()
# The engine that is registered for CUDA serves: FSDP asks the platform for everything else.
os.environ["VERL_ENGINE_DEVICE"] = "cuda"
# verl would name gloo twice, for the CPU and for the device, which torch refuses.
distributed.initialize_global_process_group_ray = partial(
    distributed.initialize_global_process_group_ray, backend="gloo"
)
base._ROLLOUT_REGISTRY["hf", "async"] = "hf_rollout.Adapter"
RolloutReplicaRegistry.register("hf", lambda: importlib.import_module("hf_rollout").Replica)
