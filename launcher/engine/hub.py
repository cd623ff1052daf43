"""Downloads a model from the Hugging Face hub before the engine starts, so that failures are ours to explain.

HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE mean what they mean to huggingface_hub, which does the
work (and is imported only here, when needed).
"""

from __future__ import annotations

import errno
import glob
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from launcher.engine.hub_failure import hub_failure, is_unreachable, not_here
from launcher.engine.model_folder import folder_faults
from launcher.errors import PreconditionError
from launcher.profile.units import format_gib

Progress = Callable[[str], None]

COMMIT = re.compile(r"[0-9a-f]{40}")
SPARE_BYTES = 2**30  # left free on the disk after a download
PROGRESS_EVERY_S = 2.0
STALE_S = 3600.0  # a partial file that nobody has written to for so long belongs to no running download

# Never needed to serve: other frameworks' weights, and pictures for the model's page.
NOT_SERVED = (
    *("*.gguf", "*.onnx", "*.onnx_data", "*.h5", "*.msgpack", "*.ot", "*.tflite", "*.mlmodel", "*.ckpt", "onnx/*"),
    *("openvino/*", "coreml/*", "*.mlpackage/*", "*.png", "*.jpg", "*.jpeg", "*.gif", "*.mp4", "*.pdf", "optimizer.*"),
)
# The same weights again, in older formats, where there are safetensors; Meta's own beside those of transformers.
BESIDE_SAFETENSORS = ("*.bin", "*.pt", "*.pth", "original/*", "metal/*")


def download(
    repo: str, revision: str | None, *, progress: Progress, offline: bool | None = None, weights: bool = True
) -> Path:
    """The snapshot folder of ``repo`` at ``revision``, downloaded as far as it is not there yet.

    A connection that breaks is taken up where it broke; after a killed launcher, finished files are kept.
    A pinned commit that is complete needs no network at all. Raises PreconditionError: no such repository, licence not
    accepted, no network and no copy, too little disk, broken off.
    """
    snapshot = local_snapshot(repo, revision)
    if snapshot is not None and revision is not None and COMMIT.fullmatch(revision) and _is_finished(snapshot, weights):
        return snapshot
    complete = snapshot is not None and not folder_faults(snapshot, weights=weights)
    if is_offline() if offline is None else offline:
        if snapshot is not None and complete:
            return snapshot
        raise not_here(repo, snapshot, hub_cache())
    try:
        return _download(repo, revision, progress, weights)
    except Exception as problem:
        if is_unreachable(problem) and snapshot is not None and complete:
            progress(f"the hub cannot be reached: using the copy of {repo} in {snapshot}")
            return snapshot
        raise hub_failure(problem, repo, revision, hub_cache(), endpoint()) from problem


def wanted_files(names: Sequence[str], *, weights: bool = True) -> list[str]:
    """The files of a repository that serving needs: one format of the weights, config, tokenizer, code, templates."""
    kept = [name for name in names if not any(fnmatch(name, pattern) for pattern in NOT_SERVED)]
    safe = [name for name in kept if name.endswith(".safetensors")]
    if safe:
        kept = [name for name in kept if not any(fnmatch(name, pattern) for pattern in BESIDE_SAFETENSORS)]
    if any(not name.rpartition("/")[2].startswith("consolidated") for name in safe):  # Mistral ships both
        kept = [name for name in kept if not name.rpartition("/")[2].startswith("consolidated")]
    if not weights:
        kept = [name for name in kept if not fnmatch(name, "*.safetensors") and not fnmatch(name, "*.bin")]
    return kept


def local_snapshot(repo: str, revision: str | None) -> Path | None:
    """The folder in the hub's cache that holds ``revision`` (default: main), whole or in part; reads names only."""
    folder = hub_cache() / f"models--{repo.replace('/', '--')}"
    commit = revision or "main"
    if not COMMIT.fullmatch(commit):
        try:
            commit = (folder / "refs" / commit).read_text(encoding="utf-8").strip()
        except OSError:
            return None
    snapshot = folder / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None


def hub_cache() -> Path:
    """Where huggingface_hub keeps downloads: HF_HUB_CACHE, HF_HOME/hub, XDG_CACHE_HOME/huggingface/hub."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface" / "hub"


def endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def is_offline() -> bool:
    said = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return said.upper() in ("1", "ON", "YES", "TRUE")


def _download(repo: str, revision: str | None, progress: Progress, weights: bool) -> Path:
    import huggingface_hub
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()  # ours go through ``progress``
    cache = hub_cache()
    api = huggingface_hub.HfApi(endpoint=endpoint())
    progress(f"asking {endpoint()} for {repo}")
    info = api.model_info(repo, revision=revision, files_metadata=True, timeout=20)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    files = wanted_files(list(sizes), weights=weights)
    _require_weights(repo, list(sizes), files, weights)
    snapshot = cache / f"models--{repo.replace('/', '--')}" / "snapshots" / str(info.sha)
    missing = [name for name in files if not (snapshot / name).exists()]
    folder = snapshot.parent.parent
    left = sum(sizes[name] for name in missing)
    _sweep(folder / "blobs", progress)
    _require_space(repo, cache, left)
    with _reported(repo, folder / "blobs", left, progress):
        path = huggingface_hub.snapshot_download(
            repo,
            revision=revision,
            cache_dir=cache,
            endpoint=endpoint(),
            allow_patterns=[glob.escape(name) for name in files],
        )
    _note_finished(Path(path), files, weights)
    if missing:
        progress(f"downloaded {repo}: {format_gib(sum(sizes[name] for name in files))} in {len(files)} files")
    return Path(path)


def _finished_note(snapshot: Path) -> Path:
    return snapshot.parent.parent / ".launcher" / f"{snapshot.name}.json"


def _note_finished(snapshot: Path, files: list[str], weights: bool) -> None:
    """Keeps which files a finished download has, so that a pinned commit needs no network later."""
    if weights:
        note = _finished_note(snapshot)
        note.parent.mkdir(exist_ok=True)
        note.write_text(json.dumps(files), encoding="utf-8")


def _is_finished(snapshot: Path, weights: bool) -> bool:
    """Whether every file of a download that was finished is still there. Without a note nobody knows: False."""
    try:
        files = json.loads(_finished_note(snapshot).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all((snapshot / name).exists() for name in files) and not folder_faults(snapshot, weights=weights)


def _require_weights(repo: str, names: list[str], files: list[str], weights: bool) -> None:
    if not weights or any(fnmatch(name, pattern) for name in files for pattern in ("*.safetensors", "*.bin", "*.pt*")):
        return
    if any(name.endswith(".gguf") for name in names):
        raise PreconditionError(
            f"model.id: {repo} holds GGUF files only, and vLLM reads safetensors",
            "Take the repository that it was made from, or download one .gguf file and give it as model.path.",
        )
    raise PreconditionError(
        f"model.id: {repo} holds no weights that vLLM reads (it has {', '.join(names[:5]) or 'no files'})",
        "Check the id: an adapter or a data set is not a model.",
    )


def _require_space(repo: str, cache: Path, wanted: int) -> None:
    if wanted <= 0:
        return
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if free < wanted + SPARE_BYTES:
        raise PreconditionError(
            f"model.id: {repo} needs {format_gib(wanted)} more in {cache}, where {format_gib(free)} are free "
            f"({format_gib(SPARE_BYTES)} are kept free)",
            "Free some space, or set HF_HOME to a folder on a larger disk.",
        )


def _sweep(blobs: Path, progress: Progress) -> None:
    """Deletes what killed downloads left: huggingface_hub gives each attempt a file of its own and never goes back to it."""
    stale = [path for path in blobs.glob("*.incomplete") if time.time() - path.stat().st_mtime > STALE_S]
    freed = sum(_size(path) for path in stale)
    for path in stale:
        path.unlink(missing_ok=True)
    if stale:
        progress(f"removed {format_gib(freed)} that broken downloads had left in {blobs}")


@contextmanager
def _reported(repo: str, blobs: Path, total: int, progress: Progress) -> Iterator[None]:
    """Tells every few seconds how far it is, by what lies in the cache: that holds for each way of downloading."""
    if total == 0:
        yield
        return
    before = _blob_bytes(blobs)
    ended = threading.Event()

    def report() -> None:
        began = time.monotonic()
        while not ended.wait(PROGRESS_EVERY_S):
            done = min(_blob_bytes(blobs) - before, total)
            progress(download_line(repo, done, total, done / (time.monotonic() - began)))

    thread = threading.Thread(target=report, name="download-progress", daemon=True)
    progress(download_line(repo, 0, total, 0.0))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def download_line(repo: str, done: int, total: int, rate: float) -> str:
    """``downloading X: 3.20 GiB of 19.26 GiB (17 %), 85 MiB/s, about 4 min left``; ``rate`` in bytes a second."""
    line = f"downloading {repo}: {format_gib(done)} of {format_gib(total)} ({100 * done // total} %)"
    if rate > 0 and done < total:
        left_s = (total - done) / rate
        left = f"{left_s:.0f} s" if left_s < 90 else f"{left_s / 60:.0f} min"
        line += f", {rate / 2**20:.0f} MiB/s, about {left} left"
    return line


def _blob_bytes(blobs: Path) -> int:
    return sum(_size(path) for path in blobs.glob("*"))


def _size(path: Path) -> int:
    try:
        status = path.stat()
    except OSError as gone:  # renamed from .incomplete between the listing and here
        if gone.errno == errno.ENOENT:
            return 0
        raise
    return min(status.st_size, status.st_blocks * 512)  # a sparse file counts by what is written
