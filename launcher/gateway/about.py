"""What the chat page has to know before anything is asked: GET /api/about. Reads, changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from launcher.gateway.modes import PRIORITY_NAMES, Rules

if TYPE_CHECKING:
    from launcher.gateway.server import Gateway
    from launcher.profile.model import ModelSection


def about(gateway: Gateway) -> dict[str, Any]:
    """Null is what is not known here: the engine will say. Times in seconds, unless a name says otherwise::

    version             of the launcher
    model               the name that requests put into 'model'; null: one of those at /v1/models
    mode                the one that is on; X-Mode asks for another
    modes               what each comes to with this profile: see _mode
    images.max_bytes    of a picture, as it comes
    images.max_pixels   the same
    images.max_count    pictures in a request
    images.kinds        formats that are taken
    takes_images        whether requests may have pictures
    upload_keep_s       how long an upload is kept after its last use
    context_tokens      most for a prompt and its answer
    keys_required       whether requests need an API key
    thinking.usual      whether the profile has the model think where a request does not say; null: as the model does
    thinking.is_parted  whether its reasoning comes apart from the answer
    """
    images, model = gateway.settings.images, gateway.model
    return {
        "version": gateway.version,
        "model": model.public_name,
        "mode": gateway.mode,
        "modes": [_mode(gateway, rules) for rules in gateway.modes.values()],
        "images": {
            "max_bytes": images.max_bytes,
            "max_pixels": images.max_pixels,
            "max_count": model.images_per_prompt if images.max_count is None else images.max_count,
            "kinds": list(images.formats),
        },
        "takes_images": _takes_images(gateway),
        "upload_keep_s": gateway.settings.uploads.keep,
        "context_tokens": gateway.pricer.context_tokens,
        "keys_required": gateway.gatekeeper.required,
        "thinking": _thinking(model),
    }


def _mode(gateway: Gateway, rules: Rules) -> dict[str, Any]:
    """A mode's rules, and what pictures are brought to in it::

    deadline_s          longest wait in the queue, by priority
    deadline_per_1k_s   added for each 1,000 prompt tokens to be computed beyond the first 1,000
    window_s            how long a full engine's next group may be collected
    window_when         when_saturated, always or never
    prefill_budgets     prompt tokens in hand before their first token, in batch token budgets of the engine
    image.max_tokens    most prompt tokens of a picture
    image.long_side     most pixels of a picture's longer side; both null: pictures stay as they come
    image.most_tokens   prompt tokens of the largest picture that there may be
    """
    costs = gateway.pricer.budgets.of(rules.mode)
    return {
        "mode": rules.mode,
        "deadline_s": dict(zip(PRIORITY_NAMES, rules.deadlines_s, strict=True)),
        "deadline_per_1k_s": rules.deadline_per_1k_s,
        "window_s": rules.window_s,
        "window_when": rules.window_when,
        "prefill_budgets": rules.prefill_budgets,
        "image": {
            "max_tokens": costs.budget.max_tokens,
            "long_side": costs.budget.long_side,
            "most_tokens": costs.unseen if costs.is_known else None,
        },
    }


def _takes_images(gateway: Gateway) -> bool | None:
    if gateway.model.images_per_prompt == 0:
        return False
    if gateway.pricer.budgets.usual.is_known:
        return True
    return gateway.has_images


def _thinking(model: ModelSection) -> dict[str, bool | None]:
    usual = model.chat_template_kwargs.get("enable_thinking")
    return {"usual": usual if isinstance(usual, bool) else None, "is_parted": model.reasoning_parser is not None}
