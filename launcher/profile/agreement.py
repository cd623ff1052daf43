"""Rules that span several keys of a profile: pure, and every one that is broken is told, not only the first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from launcher.profile.model import ExternalEngine, Profile, VllmEngine


class Broken(NamedTuple):
    """A broken rule: the key to blame, a sentence about it (without the key), and all the keys that the rule looks at."""

    key: str
    sentence: str
    about: tuple[str, ...]


class Disagreement(ValueError):
    """Raised while a profile is validated; ``rules`` are all the rules that it breaks."""

    def __init__(self, rules: tuple[Broken, ...]) -> None:
        super().__init__("; ".join(f"{rule.key}: {rule.sentence}" for rule in rules))
        self.rules = rules


# What only a vLLM that is started here can heed. A key that does nothing is refused rather than ignored.
FOR_A_STARTED_ENGINE = (
    "dtype",
    "quantization",
    "load_format",
    "trust_remote_code",
    "hf_overrides",
    "chat_template",
    "chat_template_kwargs",
    "reasoning_parser",
    "tool_parser",
)
FOR_A_GPU = ("gpu", "gpus", "gpu_memory", "peer_to_peer")


def find_disagreements(profile: Profile) -> tuple[Broken, ...]:
    """All the rules that this profile breaks, in the order of its sections."""
    engine = profile.engine
    found = [*_sources(profile)]
    if engine.kind == "vllm":
        for rule in (_missing_model, _device, _kv_budget, _batch, _nodes):
            found += rule(profile, engine)
    else:
        found += _inert_for_external(profile, engine)
    for check in (_gateway, _warmup, _restart):
        found += check(profile)
    return tuple(found)


def _sources(profile: Profile) -> Iterator[Broken]:
    model = profile.model
    keys = ("model.id", "model.path", "model.packaged")
    named = [key for key in keys if getattr(model, key.removeprefix("model.")) is not None]
    if len(named) > 1:
        others = " and ".join(named[:-1])
        yield Broken(
            named[-1], f"the model is already named by {others}: give exactly one of id, path and packaged", keys
        )
    if model.revision is not None and model.id is None and named:
        yield Broken(
            "model.revision",
            f"a revision belongs to model.id; {named[0]} has none: take it out",
            ("model.revision", *keys),
        )


def _missing_model(profile: Profile, engine: VllmEngine) -> Iterator[Broken]:
    if profile.model.source is None:
        yield Broken(
            "model",
            "names no model: give one of id (hub), path (folder) and packaged (smollm2-135m-instruct)",
            ("model.id", "model.path", "model.packaged", "engine.kind"),
        )


def _device(profile: Profile, engine: VllmEngine) -> Iterator[Broken]:
    hardware = profile.hardware
    if hardware.device == "cuda":
        if hardware.memory is not None:
            yield Broken(
                "hardware.memory",
                "only device: cpu heeds it; a card's own is gpu_memory",
                ("hardware.memory", "hardware.device"),
            )
        return
    for name in FOR_A_GPU:
        if getattr(hardware, name) != type(hardware).model_fields[name].default:
            yield Broken(
                f"hardware.{name}", "device: cpu has no cards: take it out", (f"hardware.{name}", "hardware.device")
            )
    if engine.kv_cache_memory is None:
        yield Broken(
            "engine.kv_cache_memory",
            "is missing: on device: cpu vLLM would claim nearly all memory; give a size, such as 2GiB",
            ("engine.kv_cache_memory", "hardware.device"),
        )


def _kv_budget(profile: Profile, engine: VllmEngine) -> Iterator[Broken]:
    if engine.gpu_memory_utilization is not None and engine.kv_cache_memory is not None:
        keys = ("engine.gpu_memory_utilization", "engine.kv_cache_memory")
        yield Broken(keys[0], "kv_cache_memory is given too, and overrides it: give one of the two", keys)


def _batch(profile: Profile, engine: VllmEngine) -> Iterator[Broken]:
    """vLLM refuses both of these at its start; here they cost no start."""
    budget, seqs, max_len = engine.max_num_batched_tokens, engine.max_num_seqs, profile.model.max_len
    if budget is not None and seqs is not None and budget < seqs:
        yield Broken(
            "engine.max_num_batched_tokens",
            f"{budget} is less than max_num_seqs {seqs}, and every sequence needs a token in a step: give {seqs} or more",
            ("engine.max_num_batched_tokens", "engine.max_num_seqs"),
        )
    if budget is not None and max_len is not None and budget < max_len and engine.chunked_prefill is False:
        yield Broken(
            "engine.chunked_prefill",
            f"without it a prompt must fit one step, but max_num_batched_tokens {budget} is less than model.max_len {max_len}: "
            f"set it to true, or give {max_len} tokens or more",
            ("engine.chunked_prefill", "engine.max_num_batched_tokens", "model.max_len"),
        )


def _nodes(profile: Profile, engine: VllmEngine) -> Iterator[Broken]:
    on_cpu = profile.hardware.device == "cpu"
    if engine.distributed == "ray" and on_cpu:
        yield Broken(
            "engine.distributed",
            "vLLM has no Ray on device: cpu: write mp, which is vLLM's own way over several hosts",
            ("engine.distributed", "hardware.device"),
        )
    if engine.nodes == 1:
        return
    width = engine.tensor_parallel * engine.pipeline_parallel
    if width % engine.nodes:
        yield Broken(
            "engine.nodes",
            f"{engine.nodes} hosts cannot have equal shares of tensor_parallel {engine.tensor_parallel} × "
            f"pipeline_parallel {engine.pipeline_parallel} = {width}: make the product a multiple of {engine.nodes}",
            ("engine.nodes", "engine.tensor_parallel", "engine.pipeline_parallel"),
        )
    if engine.replicas > 1:
        yield Broken(
            "engine.replicas",
            f"a launcher runs one engine over several hosts, not {engine.replicas}: write 1, run each replica with "
            "`launcher engine` on hosts of its own, and before them `launcher gateway --engines URL,URL`",
            ("engine.replicas", "engine.nodes"),
        )
    if on_cpu and engine.pipeline_parallel > 1:
        yield Broken(
            "engine.pipeline_parallel",
            "vLLM's CPU build starts with pipeline stages on several hosts, and dies at the first request (seen with 0.32): "
            "write 1, and divide each layer with tensor_parallel",
            ("engine.pipeline_parallel", "engine.nodes", "hardware.device"),
        )


def _inert_for_external(profile: Profile, engine: ExternalEngine) -> Iterator[Broken]:
    for section, names in (
        (profile.model, FOR_A_STARTED_ENGINE),
        (profile.hardware, tuple(type(profile.hardware).model_fields)),
    ):
        for name in names:
            if getattr(section, name) != type(section).model_fields[name].default:
                key = f"{'model' if section is profile.model else 'hardware'}.{name}"
                yield Broken(
                    key,
                    "has no effect with engine.kind: external: set it where that server is started, and take it out here",
                    (key, "engine.kind"),
                )


def _gateway(profile: Profile) -> Iterator[Broken]:
    keys = ("gateway.tls_cert", "gateway.tls_key")
    given = [profile.gateway.tls_cert is not None, profile.gateway.tls_key is not None]
    if any(given) and not all(given):
        missing, there = (keys[1], keys[0]) if given[0] else keys
        yield Broken(missing, f"is missing: HTTPS needs both; give it, or take {there} out", keys)


def _warmup(profile: Profile) -> Iterator[Broken]:
    if profile.model.images_per_prompt == 0 and profile.warmup.image not in ("auto", "none"):
        yield Broken(
            "warmup.image",
            "model.images_per_prompt is 0, so no image can be sent: write none, or allow images",
            ("warmup.image", "model.images_per_prompt"),
        )


def _restart(profile: Profile) -> Iterator[Broken]:
    if profile.restart.max_backoff < profile.restart.backoff:
        yield Broken(
            "restart.max_backoff",
            "is shorter than restart.backoff, the first wait: make it as long or longer",
            ("restart.backoff", "restart.max_backoff"),
        )
