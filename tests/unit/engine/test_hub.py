"""Downloads from a hub on loopback: what is taken, resumed, refused, and how each failure reads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.engine.hub import download, download_line, hub_cache, local_snapshot, wanted_files
from launcher.errors import PreconditionError
from tests.unit.engine.conftest import MODEL_FILES, safetensors
from tests.unit.engine.hub_server import COMMIT, Hub, Repo

BIG = safetensors(30_000_000)  # more than one of huggingface_hub's 10 MB chunks


def silent(line: str) -> None:
    pass


@pytest.fixture
def repo(hub: Hub) -> Repo:
    hub.repos["acme/tiny-llama"] = Repo(dict(MODEL_FILES))
    return hub.repos["acme/tiny-llama"]


def failure(repo: str = "acme/tiny-llama", revision: str | None = None, **how: bool) -> PreconditionError:
    with pytest.raises(PreconditionError) as caught:
        download(repo, revision, progress=silent, **how)
    return caught.value


def test_download_gives_the_snapshot_with_every_file_and_says_how_far_it_is(hub: Hub, repo: Repo) -> None:
    lines: list[str] = []
    folder = download("acme/tiny-llama", None, progress=lines.append)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == MODEL_FILES
    assert (
        folder == local_snapshot("acme/tiny-llama", None) == hub_cache() / "models--acme--tiny-llama/snapshots" / COMMIT
    )
    assert lines[0] == f"asking {hub.url} for acme/tiny-llama"
    assert lines[1].startswith("downloading acme/tiny-llama: 0 MiB of 0 MiB (0 %)")
    assert lines[-1] == "downloaded acme/tiny-llama: 0 MiB in 3 files"


def test_duplicate_formats_are_left_out(hub: Hub, repo: Repo) -> None:
    repo.files |= {
        "pytorch_model.bin": b"x",
        "original/consolidated.00.pth": b"x",
        "model.Q4.gguf": b"x",
        "a.png": b"x",
    }
    folder = download("acme/tiny-llama", None, progress=silent)
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == sorted(MODEL_FILES)
    assert not hub.downloads("pytorch_model.bin")


def test_a_second_start_downloads_nothing(hub: Hub, repo: Repo) -> None:
    first = download("acme/tiny-llama", None, progress=silent)
    hub.requests.clear()
    assert download("acme/tiny-llama", None, progress=silent) == first
    assert not [path for method, path, _ in hub.requests if "/resolve/" in path and method == "GET"]


def test_a_pinned_commit_that_is_complete_asks_nothing(hub: Hub, repo: Repo) -> None:
    download("acme/tiny-llama", COMMIT, progress=silent)
    hub.requests.clear()
    download("acme/tiny-llama", COMMIT, progress=silent)
    assert hub.requests == []


def test_a_pinned_commit_that_lacks_a_file_is_completed(hub: Hub, repo: Repo) -> None:
    repo.files["preprocessor_config.json"] = b"{}"
    folder = download("acme/tiny-llama", COMMIT, progress=silent)
    (folder / "preprocessor_config.json").unlink()
    assert (download("acme/tiny-llama", COMMIT, progress=silent) / "preprocessor_config.json").exists()


def test_the_token_is_sent(hub: Hub, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.gated = True
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    download("acme/tiny-llama", None, progress=silent)
    assert "Bearer hf_secret" in hub.tokens


def test_a_connection_that_breaks_is_continued_where_it_broke(hub: Hub, repo: Repo) -> None:
    repo.files["model.safetensors"] = BIG
    hub.cut_after["model.safetensors"] = 25_000_000
    folder = download("acme/tiny-llama", None, progress=silent)
    assert (folder / "model.safetensors").read_bytes() == BIG
    ranges = hub.downloads("model.safetensors")
    assert len(ranges) == 2
    assert ranges[1].startswith("bytes=")


def test_a_killed_download_keeps_finished_files_and_its_rest_is_swept(hub: Hub, repo: Repo) -> None:
    repo.files |= {"model.safetensors": BIG}
    hub.stall_after["model.safetensors"] = 25_000_000
    code = "from launcher.engine.hub import download; download('acme/tiny-llama', None, progress=print)"
    blobs = hub_cache() / "models--acme--tiny-llama/blobs"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, env=dict(os.environ)) as child:
        assert hub.stalled.wait(60)
        snapshot = blobs.parent / "snapshots" / COMMIT
        while not (snapshot / "config.json").exists() or not (snapshot / "tokenizer.json").exists():
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)
    left = list(blobs.glob("*.incomplete"))
    assert left
    for path in left:
        os.utime(path, (0, 0))
    hub.requests.clear()
    lines: list[str] = []
    folder = download("acme/tiny-llama", None, progress=lines.append)
    assert (folder / "model.safetensors").read_bytes() == BIG
    assert not hub.downloads("config.json")
    assert lines[1].endswith(f"that broken downloads had left in {blobs}")
    assert not list(blobs.glob("*.incomplete"))


def test_no_such_repository_names_the_nearest(hub: Hub, repo: Repo) -> None:
    error = failure("acme/tiny-lama")
    assert error.message == (
        f"model.id: {hub.url} knows no repository acme/tiny-lama, or it is private, did you mean acme/tiny-llama?"
    )
    assert "HF_TOKEN" in error.hint


def test_gated_asks_for_the_licence(hub: Hub, repo: Repo) -> None:
    repo.gated = True
    error = failure()
    assert error.message == "model.id: acme/tiny-llama may only be downloaded once its licence is accepted"
    assert error.hint.startswith(f"Accept it at {hub.url}/acme/tiny-llama while logged in, then set HF_TOKEN")


def test_no_such_revision(hub: Hub, repo: Repo) -> None:
    error = failure(revision="v9")
    assert error.message == "model.revision: acme/tiny-llama has no branch, tag or commit 'v9'"


def test_an_id_that_is_none(hub: Hub) -> None:
    assert failure("/models/x").message == "model.id: '/models/x' is not a hub id"


def test_gguf_only(hub: Hub, repo: Repo) -> None:
    repo.files = {"model.Q4_K_M.gguf": b"GGUF", "README.md": b""}
    assert failure().message == "model.id: acme/tiny-llama holds GGUF files only, and vLLM reads safetensors"


def test_no_weights_at_all(hub: Hub, repo: Repo) -> None:
    repo.files = {"README.md": b""}
    assert failure().message == "model.id: acme/tiny-llama holds no weights that vLLM reads (it has README.md)"


def test_dummy_weights_need_none(hub: Hub, repo: Repo) -> None:
    folder = download("acme/tiny-llama", None, progress=silent, weights=False)
    assert not (folder / "model.safetensors").exists()


def test_too_little_disk_is_found_before_the_download(hub: Hub, repo: Repo) -> None:
    repo.claimed_sizes["model.safetensors"] = 2**50
    error = failure()
    assert error.message.startswith("model.id: acme/tiny-llama needs 1048576.00 GiB more in ")
    assert error.hint == "Free some space, or set HF_HOME to a folder on a larger disk."
    assert not hub.downloads("model.safetensors")


def test_offline_without_a_copy(hub: Hub, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    error = failure()
    assert (
        error.message == f"model.id: acme/tiny-llama is not in {hub_cache()}, and the network is off (HF_HUB_OFFLINE)"
    )
    assert "hf download acme/tiny-llama" in error.hint
    assert hub.requests == []


def test_offline_with_part_of_a_copy(hub: Hub, repo: Repo) -> None:
    folder = download("acme/tiny-llama", None, progress=silent)
    (folder / "model.safetensors").unlink()
    assert "is only in part in" in failure(offline=True).message


def test_offline_with_a_copy(hub: Hub, repo: Repo) -> None:
    folder = download("acme/tiny-llama", None, progress=silent)
    assert download("acme/tiny-llama", None, progress=silent, offline=True) == folder


def test_no_network_without_a_copy(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody listens
    error = failure()
    assert error.message.startswith("model.id: http://127.0.0.1:9 cannot be reached (")
    assert error.message.endswith("and acme/tiny-llama is not on this machine in full")
    assert "model.path" in error.hint


def test_no_network_with_a_copy_serves_the_copy_and_says_so(
    hub: Hub, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = download("acme/tiny-llama", None, progress=silent)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    lines: list[str] = []
    assert download("acme/tiny-llama", None, progress=lines.append) == folder
    assert lines[-1] == f"the hub cannot be reached: using the copy of acme/tiny-llama in {folder}"


def test_a_hub_that_is_down_is_not_a_missing_model(hub: Hub, repo: Repo) -> None:
    hub.status = 503
    assert failure().message.startswith(f"model.id: {hub.url} answers 503, and acme/tiny-llama is not on this machine")


def test_a_cache_that_cannot_be_written(hub: Hub, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("HF_HOME", str(blocked))  # a file stands where the folder should be: also root is stopped
    assert failure().message.startswith("model.id: the download of acme/tiny-llama failed: [Errno 20] Not a directory")


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (["a.safetensors", "a.bin", "config.json"], ["a.safetensors", "config.json"]),
        (["pytorch_model.bin", "config.json"], ["pytorch_model.bin", "config.json"]),
        (["consolidated.safetensors", "params.json"], ["consolidated.safetensors", "params.json"]),
        (["consolidated.safetensors", "model-1.safetensors"], ["model-1.safetensors"]),
        (
            ["onnx/model.onnx", "m.safetensors", "tokenizer.model", "code.py"],
            ["m.safetensors", "tokenizer.model", "code.py"],
        ),
    ],
)
def test_wanted_files(names: list[str], kept: list[str]) -> None:
    assert wanted_files(names) == kept


def test_download_line() -> None:
    gib = 2**30
    assert download_line("a/b", 0, 8 * gib, 0) == "downloading a/b: 0 MiB of 8.00 GiB (0 %)"
    assert download_line("a/b", 2 * gib, 8 * gib, 100 * 2**20) == (
        "downloading a/b: 2.00 GiB of 8.00 GiB (25 %), 100 MiB/s, about 61 s left"
    )
    assert download_line("a/b", 2 * gib, 80 * gib, 10 * 2**20).endswith("10 MiB/s, about 133 min left")
