"""What the profile says of pictures, put together for the gateway."""

from __future__ import annotations

import pytest

from launcher.errors import PreconditionError
from launcher.plan.image_budget import Budget
from launcher.plan.image_tokens import ImageRule
from launcher.profile.model import GatewaySection
from launcher.up.front import budgets

GLM = ImageRule("glm4v")


def gateway_with(images: dict[str, object]) -> GatewaySection:
    return GatewaySection.model_validate({"images": images})


def test_detail_goes_before_the_mode_and_that_before_the_usual_budget() -> None:
    section = {"budget": {"max_tokens": 324}, "detail": {"low": {"long_side": 280}}, "modes": {"balanced": "original"}}
    made = budgets(gateway_with(section), GLM)
    assert made.of("low-latency").budget == Budget(max_tokens=324)
    assert made.of("balanced").budget == Budget()
    assert made.of("balanced", "low").budget == Budget(long_side=280)


@pytest.mark.parametrize("key", ["budget", "detail.low", "modes.balanced"])
def test_a_budget_that_no_picture_can_keep(key: str) -> None:
    section: dict[str, object] = {"max_tokens": 3}
    for name in reversed(key.split(".")):
        section = {name: section}
    with pytest.raises(PreconditionError, match=rf"gateway\.images\.{key}: 3 tokens are too few: this model makes \d+"):
        budgets(gateway_with(section), GLM)
