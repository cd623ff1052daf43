"""The shipped profiles on Kubernetes, as they were last looked at."""

from __future__ import annotations

import pytest

from tests.deploy.helm.chart import Helm
from tests.deploy.helm.golden_files import GOLDEN, NAMES, golden_text


@pytest.mark.parametrize("name", NAMES)
def test_it_is_as_it_was(helm: Helm, name: str) -> None:
    renew = "if this is meant: python -m tests.deploy.helm.golden_files, and read the diff"
    assert golden_text(helm, name) == (GOLDEN / f"{name}.yaml").read_text(encoding="utf-8"), renew


def test_there_is_one_for_each_profile_and_for_ray() -> None:
    assert sorted(path.stem for path in GOLDEN.iterdir()) == sorted(NAMES)
