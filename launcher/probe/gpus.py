"""The NVIDIA cards of this machine, from the driver (NVML). Imports neither torch nor CUDA, and claims no memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from launcher.errors import PreconditionError


@dataclass(frozen=True)
class Gpu:
    """One card. ``total_bytes`` is the driver's total; CUDA sees ``visible_bytes``, less what the driver keeps."""

    index: int
    name: str
    total_bytes: int
    used_bytes: int
    reserved_bytes: int
    driver: str

    @property
    def visible_bytes(self) -> int:
        """What CUDA reports as the card's memory, and vLLM multiplies its utilization with."""
        return self.total_bytes - self.reserved_bytes


def find_gpus() -> list[Gpu]:
    """Every card, by index. Raises PreconditionError when there is no NVIDIA driver or it does not answer."""
    pynvml: Any = import_module("pynvml")  # has no types of its own
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise PreconditionError(
            f"no NVIDIA card can be used: the driver's library does not answer ({error})",
            "Install the NVIDIA driver (nvidia-smi shows the cards then), in a container start it with --gpus all, "
            "or use a profile with hardware.device: cpu.",
        ) from None
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        return [_card(pynvml, index, driver) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        raise PreconditionError(
            f"the NVIDIA driver answered with an error: {error}", "`nvidia-smi` may say more; a reboot often helps."
        ) from None
    finally:
        pynvml.nvmlShutdown()


@dataclass(frozen=True)
class GpuUse:
    """One card at this moment. ``utilization``: per cent of the last second in which it computed; None: not told."""

    index: int
    name: str
    used_bytes: int
    total_bytes: int
    utilization: int | None


def gpu_use() -> list[GpuUse]:
    """The cards that CUDA_VISIBLE_DEVICES leaves us, as they are now; none where there is no driver, or it does not answer."""
    pynvml: Any = import_module("pynvml")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        uuids = [_text(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]
        return [_use(pynvml, index) for index in visible(uuids, os.environ.get("CUDA_VISIBLE_DEVICES"))]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def visible(uuids: Sequence[str], names: str | None) -> list[int]:
    """The indices of the cards that a CUDA_VISIBLE_DEVICES of ``names`` leaves: numbers, or UUIDs that may be cut short.

    As CUDA reads it, a name of no card hides all that come after it. Source: CUDA C++ Programming Guide, environment variables.
    """
    if names is None:
        return list(range(len(uuids)))
    found: list[int] = []
    for name in map(str.strip, names.split(",")):
        matching = [
            index
            for index, uuid in enumerate(uuids)
            if name == str(index) or (name[:4] == "GPU-" and uuid.startswith(name))
        ]
        if len(matching) != 1:
            break
        found += matching
    return found


def _use(pynvml: Any, index: int) -> GpuUse:
    card, utilization = _card(pynvml, index, ""), None
    with suppress(pynvml.NVMLError):  # cards that are shared out (MIG) do not tell
        utilization = int(pynvml.nvmlDeviceGetUtilizationRates(pynvml.nvmlDeviceGetHandleByIndex(index)).gpu)
    return GpuUse(index, card.name, card.used_bytes, card.total_bytes, utilization)


def _card(pynvml: Any, index: int, driver: str) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    name = _text(pynvml.nvmlDeviceGetName(handle))
    try:
        # version 2 tells what the driver keeps for itself apart from what processes use
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
        return Gpu(index, name, int(memory.total), int(memory.used), int(memory.reserved), driver)
    except (pynvml.NVMLError, AttributeError, TypeError):
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        return Gpu(index, name, int(memory.total), int(memory.used), 0, driver)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
