"""What the control app's requests and answers look like: the source of its OpenAPI document.

The state is what launcher/gateway/live.py gives, a look what watch.py gives, the plan what `launcher plan -o json` prints;
tests compare each with its model. Units are in the names.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

ModeName = Literal["low-latency", "balanced", "high-throughput"]
PriorityName = Literal["high", "normal", "low"]
LengthGroup = Literal["<=256", "<=1k", "<=4k", "<=16k", ">16k"]
Count = Annotated[int, Field(ge=0)]
Index = Annotated[int, Field(ge=0, le=999_999, description="The replica's number, as the state has it.")]


class Part(BaseModel):
    """A part of a request or of an answer; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


# Answers.


class Held(Part):
    """How much of something a replica has in hand, and how much it may have."""

    held: Count
    cap: int | None = Field(description="null: not known, not counted.")


class LedgerState(Part):
    """What a replica has in hand."""

    prefill_tokens: Held = Field(description="Prompt tokens sent whose first token has not come.")
    sequences: Held = Field(description="Sequences that it works on.")
    kv_tokens: Held = Field(description="KV cache tokens, expected growth included.")


class PaceState(Part):
    """How fast a replica is, as learnt of late; null: not known yet."""

    prefill_tokens_s: float | None = Field(description="Prompt tokens a second.")
    itl_ms: float | None = Field(description="Time between tokens of one stream.")


class ReplicaState(Part):
    """One replica."""

    index: Count
    url: str
    ready: bool = Field(description="Its engine is well.")
    draining: bool = Field(description="It gets nothing new, by an operator's word.")
    leaving: bool = Field(description="It is forgotten once it is idle.")
    external: bool = Field(description="A server that runs elsewhere: it may leave.")
    reason: str = Field(description="Why it is not ready.")
    in_flight: Count
    answered: Count = Field(description="Answers that it began, since the gateway's start.")
    ledger: LedgerState
    pace: PaceState


class QueueState(Part):
    """Who waits."""

    count: Count
    tokens: Count = Field(description="Prompts and expected answers.")
    oldest_s: float = Field(ge=0, description="The longest wait.")
    by_priority: dict[PriorityName, Count]
    by_length: dict[LengthGroup, Count] = Field(description="By prompt tokens; prices, where they are not counted.")


class Totals(Part):
    """What has become of inference requests since the gateway's start."""

    served: Count
    refused: Count
    evicted: Count
    cancelled: Count = Field(description="The client left.")
    failed: Count
    refusals: dict[str, Count] = Field(description="By reason; all routes.")
    evictions: dict[str, Count] = Field(description="By reason.")
    resumed: Count = Field(description="Streams that went on from another replica.")


Within = Annotated[
    tuple[float | None, Count], Field(description="Seconds, and how many took no longer; null: any time, so all.")
]


class Rates(Part):
    """Of the last minute, or of the time since the start where that is shorter."""

    seconds: float = Field(description="What they were measured over.")
    requests_s: float = Field(description="Inference requests that ended.")
    prompt_tokens_s: float = Field(description="Of requests that ended.")
    output_tokens_s: float = Field(description="Of requests that ended.")
    ttft_p50_ms: float | None = Field(description="Of streams; from a histogram, so about. null: there were none.")
    ttft_p99_ms: float | None
    itl_p50_ms: float | None = Field(description="Of streams, one value each: the mean gap between its pieces.")
    itl_p99_ms: float | None
    ttft_within: list[Within] = Field(description="How many streams had their first piece within each bound.")
    itl_within: list[Within] = Field(description="How many streams had a mean gap within each bound.")
    served: Count
    refused: Count
    evicted: Count
    cancelled: Count
    failed: Count
    refusals: dict[str, Count] = Field(description="By reason; all routes.")
    evictions: dict[str, Count] = Field(description="By reason.")


class State(Part):
    """The deployment at a moment."""

    name: str
    model: str
    version: str
    mode: ModeName
    draining: bool = Field(description="No new requests are admitted: it is stopping.")
    reason: str = Field(description="Why it is draining.")
    uptime_s: float
    connections: Count
    in_flight: Count
    queue: QueueState
    replicas: list[ReplicaState]
    totals: Totals
    last_minute: Rates


class EngineLook(Part):
    """One engine, ours or a server that runs elsewhere; its own figures are null where it does not tell them in time."""

    index: Count
    phase: str = Field(
        description="Ours: stopped, starting, warming, ready, killing, backoff, stopping or failed. Elsewhere: asking, ready or down."
    )
    stage: str | None = Field(description="How far it is, more finely; may be empty.")
    since: float | None = Field(description="When it entered this phase, in seconds since the epoch.")
    url: str | None
    restarts: int | None
    last_failure: str | None
    running: float | None = Field(description="Requests that it works on.")
    waiting: float | None = Field(description="Requests in its own queue.")
    kv_cache: float | None = Field(description="Share of its KV cache in use, 0 to 1.")
    preemptions: float | None = Field(description="Requests that it put back for want of KV cache, since its start.")
    prefix_hit_rate: float | None = Field(
        description="Share of the prompt tokens looked up in its prefix cache that were there, since its start."
    )


class CardLook(Part):
    """One card of this machine."""

    index: Count
    name: str
    used_bytes: Count
    total_bytes: Count
    utilization: int | None = Field(description="Per cent of the last second in which it computed.")
    growth_bytes_per_s: float | None = Field(description="Of the last two minutes; null: too little was seen.")
    full_in_s: float | None = Field(description="If it goes on like this; null: it does not grow steadily.")
    warning: str | None = Field(description="A sentence, once it will be full soon.")


class EndLook(Part):
    """An end of an engine that nobody asked for."""

    at: float = Field(description="In seconds since the epoch.")
    engine: Count = Field(description="Its index.")
    cause: Literal["exited", "hung", "start", "lost"] = Field(
        description="start: not well in time, or ended before. lost: a server that runs elsewhere is no longer well."
    )
    reason: str = Field(description="The diagnosis.")
    remedy: str = Field(description="May be empty.")


class Look(Part):
    """All that the operator's page shows, at a moment."""

    at: float = Field(description="In seconds since the epoch.")
    name: str
    state: str = Field(description="preparing, starting, ready, degraded, draining, failed, stopped or dead.")
    url: str | None
    live: State | None = Field(description="null: the gateway did not answer.")
    engines: list[EngineLook]
    gpus: list[CardLook]
    warnings: list[str] = Field(description="Those of the cards.")
    ends: list[EndLook] = Field(description="The last 20, the oldest first.")


class Finding(Part):
    """Something that the plan says of the profile."""

    severity: Literal["error", "warning", "note"]
    code: str
    key: str | None = Field(description="The profile's key that it is about.")
    message: str
    remedy: str | None


class PlanAnswer(Part):
    """The plan. Sizes are in bytes, KV figures for one replica; settings by their dotted keys."""

    schema_version: int
    profile: str = Field(description="The profile's file.")
    name: str
    verdict: Literal["fits", "does_not_fit", "unknown"]
    summary: str
    findings: list[Finding]
    model: dict[str, Any]
    placements: list[dict[str, Any]] = Field(description="Which cards each replica has.")
    budgets: list[dict[str, Any]] = Field(description="The memory of a card of each kind, line by line.")
    kv: dict[str, Any]
    images: list[dict[str, Any]] = Field(description="What pictures of some sizes take in tokens.")
    settings: dict[str, dict[str, Any]] = Field(description="Each with its value and where that is from.")
    commands: list[dict[str, Any]] = Field(description="What is run for each replica, without secrets.")


class ReplicaList(Part):
    """The replicas."""

    replicas: list[ReplicaState]


class ReplicaAnswer(Part):
    """A replica after a change, and what follows from it."""

    replica: ReplicaState
    note: str


class ModeAnswer(Part):
    """The mode after a change."""

    mode: ModeName
    before: ModeName


class KeyState(Part):
    """One API key, without its secret."""

    id: str
    name: str
    priority: PriorityName = Field(description="Of its requests unless they ask for another.")
    max_priority: PriorityName = Field(description="The highest that they may ask for.")
    weight: float = Field(description="Its share of a full engine, beside the other keys' weights.")
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    is_admin: bool = Field(description="May use /api.")
    created: AwareDatetime
    expires: AwareDatetime | None = None
    revoked: AwareDatetime | None = None


class KeyList(Part):
    """The keys, revoked ones too."""

    keys: list[KeyState]


class KeyAnswer(Part):
    """A key after a change."""

    key: KeyState
    in_force: bool = Field(description="The gateway goes by it already; false: it asks for no keys, or is not there.")


class NewKeyAnswer(KeyAnswer):
    """A new key."""

    secret: str = Field(description="Shown this once and kept nowhere: only its hash is.")
    note: str = Field(description="What the first key changes; empty for others.")


class ErrorDetail(Part):
    """Why not, in OpenAI's shape."""

    message: str = Field(description="A sentence for people.")
    type: str
    param: str | None
    code: int = Field(description="The HTTP status.")
    reason: str = Field(description="A word that programs can compare.")
    src: Literal["control", "gateway"] = Field(description="Who says so.")


class ErrorAnswer(Part):
    """An error."""

    error: ErrorDetail


# Requests.


class ModeChange(Part):
    """Which mode to switch to."""

    mode: ModeName


class Server(Part):
    """A server that runs elsewhere and joins."""

    url: str = Field(
        max_length=2000, description="Base URL without /v1.", examples=["http://10.0.0.5:8000"], pattern="^https?://"
    )


def _in_future(moment: datetime) -> datetime:
    if not datetime.now(UTC) < moment < LAST_MOMENT:
        raise ValueError(f"this must be a time from now to the year {LAST_MOMENT.year}")
    return moment


LAST_MOMENT = datetime(9000, 1, 1, tzinfo=UTC)
Limit = Annotated[int, Field(ge=1, le=10**12, strict=True)]  # true is no number
KeyId = Annotated[str, Field(pattern="^[0-9a-f]{8}$", description="As the list has it: 8 hexadecimal digits.")]


class NewKey(Part):
    """What a new key may do. The same fields as `launcher key add`."""

    name: str = Field(
        pattern="^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$",
        description="1 to 64 letters, digits, dots, hyphens, underscores or @, the first a letter or digit.",
    )
    priority: PriorityName = "normal"
    max_priority: PriorityName | None = Field(None, description="Default: its priority.")
    weight: float = Field(1.0, ge=0.001, le=1000, strict=True)
    requests_per_minute: Limit | None = Field(None, description="null: no limit.")
    tokens_per_minute: Limit | None = Field(None, description="null: no limit.")
    is_admin: bool = Field(False, strict=True)
    expires: Annotated[AwareDatetime, AfterValidator(_in_future)] | None = Field(None, description="null: never.")

    @model_validator(mode="after")
    def _priorities_agree(self) -> NewKey:
        order = ("high", "normal", "low")
        if self.max_priority is not None and order.index(self.max_priority) > order.index(self.priority):
            raise ValueError(f"max_priority: {self.max_priority} is below priority, {self.priority}")
        return self
