"""Put on PYTHONPATH, it makes NVIDIA's management library tell of `FAKED_GPUS` devices that are not there.

What dask-cuda asks before it starts a worker is answered; CUDA itself is still missing.
"""

import os
from types import SimpleNamespace

import pynvml

_GPUS = int(os.environ.get("FAKED_GPUS", "0"))
_MEMORY = 16 * 2**30


def _by_uuid(uuid: bytes | str) -> int:
    return int((uuid.decode() if isinstance(uuid, bytes) else uuid).rpartition("-")[2], 16)


_ANSWERS = {
    "nvmlInit": lambda: None,
    "nvmlDeviceGetCount": lambda: _GPUS,
    "nvmlDeviceGetHandleByIndex": lambda index: index,
    "nvmlDeviceGetHandleByUUID": _by_uuid,
    "nvmlDeviceGetIndex": lambda handle: handle,
    "nvmlDeviceGetUUID": lambda handle: f"GPU-00000000-0000-0000-0000-{handle:012x}",
    "nvmlDeviceGetName": lambda _handle: "a GPU that is not there",
    "nvmlDeviceGetMigMode": lambda _handle: [0, 0],
    "nvmlDeviceIsMigDeviceHandle": lambda _handle: False,
    "nvmlDeviceGetMemoryInfo": lambda _handle: SimpleNamespace(total=_MEMORY, used=0, free=_MEMORY),
    "nvmlDeviceGetUtilizationRates": lambda _handle: SimpleNamespace(gpu=0, memory=0),
    "nvmlDeviceGetComputeRunningProcesses": lambda _handle: [],
    "nvmlDeviceGetComputeRunningProcesses_v2": lambda _handle: [],
    "nvmlDeviceGetCpuAffinity": lambda _handle, words: [2**64 - 1] * words,
    "nvmlSystemGetDriverVersion": lambda: "580.00",
}

if _GPUS:
    for _name, _answer in _ANSWERS.items():
        setattr(pynvml, _name, _answer)
