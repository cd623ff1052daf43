"""Where there is no browser: skipped at home, where that is read, and a failure in CI."""

from __future__ import annotations

import pytest

from tests.browser.conftest import no_browser


def test_ci_does_not_go_on_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="there is no Chromium"):
        no_browser()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="there is no Chromium"):
        no_browser()
