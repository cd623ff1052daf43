"""Whether it fits, what would make it fit, and what wastes the memory that there is."""

from __future__ import annotations

from collections.abc import Iterator

from launcher.plan.checks_model import has_argument
from launcher.plan.finding import Case, Finding, Findings
from launcher.plan.measured import has_peer_to_peer
from launcher.plan.placement import cards_of_replica
from launcher.plan.profiled_media import profiled_media
from launcher.profile.units import MIB, format_gib

REMEDIES = 2
ENOUGH_KV = 0.5  # replicas are advised where they keep this share of the KV cache


def check_memory(case: Case) -> Findings:
    """One request at full length fits beside all else."""
    budget = case.tightest
    if not case.kv_known:
        return
    if case.profile.hardware.device == "cpu":
        yield from _check_main_memory(case)
    else:
        yield from _check_free(case)
    needed = case.request_bytes(case.settings.max_len)
    if budget.kv >= needed:
        return
    if budget.kv <= 0:
        assert budget.requested is not None
        message = (
            f"before any KV cache a card needs {format_gib(budget.before_kv)}, but {format_gib(budget.requested)} are to be had "
            f"({_share(case)})."
        )
        yield Finding("error", "no-room-for-kv", "hardware.gpu", message, _remedy(case))
        return
    message = (
        f"one request of {case.settings.max_len} tokens takes {format_gib(needed)} of KV cache, but only {format_gib(budget.kv)} are left: "
        f"{case.longest_that_fits} tokens."
    )
    yield Finding("error", "kv-below-max-len", "model.max_len", message, _remedy(case))


def _share(case: Case) -> str:
    budget = case.tightest
    assert budget.visible is not None
    return f"{case.settings.utilization:g} of {format_gib(budget.visible)}"


def _check_free(case: Case) -> Findings:
    budget = case.tightest
    if budget.visible is None or budget.requested is None:
        return
    free = budget.visible - budget.held  # vLLM stops when less than it asks for is free
    if budget.requested <= free:
        return
    if case.engine.kv_cache_memory is not None:
        largest = (free - budget.before_kv) // MIB
        yield Finding(
            "error",
            "kv-above-memory",
            "engine.kv_cache_memory",
            f"{format_gib(budget.kv)} of KV cache and {format_gib(budget.before_kv)} of all else are more than the "
            f"{format_gib(free)} that are free on an empty card.",
            f"Set engine.kv_cache_memory to {largest}MiB or less." if largest > 0 else _remedy(case),
        )
    else:
        highest = int(free / budget.visible * 100) / 100
        yield Finding(
            "error",
            "utilization-above-free",
            "engine.gpu_memory_utilization",
            f"{case.settings.utilization:g} asks for {format_gib(budget.requested)}, but about {format_gib(free)} of "
            f"{format_gib(budget.visible)} are free on an empty card: vLLM stops at the start.",
            f"Set engine.gpu_memory_utilization to {highest:g} or less.",
        )


def _check_main_memory(case: Case) -> Findings:
    budget = case.tightest
    assert budget.requested is not None
    if budget.visible is None or budget.requested <= budget.visible:
        return
    yield Finding(
        "error",
        "main-memory",
        "hardware.memory",
        f"{case.engine.replicas} × {format_gib(budget.requested)} of main memory are needed, but {_main_memory(case)}.",
        "Lower engine.kv_cache_memory or engine.replicas"
        + (", or raise hardware.memory if the machine has more." if case.profile.hardware.memory else "."),
    )


def _main_memory(case: Case) -> str:
    memory = case.profile.hardware.memory
    if memory is not None:
        return f"hardware.memory is {format_gib(memory)}"
    assert case.machine_memory is not None
    return f"this machine has {format_gib(case.machine_memory)}"


def _changes(case: Case) -> Iterator[tuple[str, Case]]:
    """Changes that give room, the mildest first, each with what to write."""
    settings, device = case.settings, case.profile.hardware.device
    longest = case.longest_that_fits
    if longest >= 1024:
        yield f"model.max_len to {longest}", case.changed(model={"max_len": longest})
    if device == "cpu":
        return
    if settings.videos_per_prompt:
        yield "model.videos_per_prompt to 0", case.changed(model={"videos_per_prompt": 0})
    if settings.max_num_seqs > 64:
        yield "engine.max_num_seqs to 64", case.changed(engine={"max_num_seqs": 64})
    if settings.max_num_batched_tokens > 2048:
        fewer = {"max_num_batched_tokens": 2048, "max_num_seqs": min(64, settings.max_num_seqs)}
        yield "engine.max_num_batched_tokens to 2048 and engine.max_num_seqs to 64", case.changed(engine=fewer)
    if settings.utilization < 0.95 and case.engine.kv_cache_memory is None:
        yield "engine.gpu_memory_utilization to 0.95", case.changed(engine={"gpu_memory_utilization": 0.95})
    if case.engine.kv_cache_dtype == "auto":
        yield "engine.kv_cache_dtype to fp8", case.changed(engine={"kv_cache_dtype": "fp8"})
    if case.profile.model.quantization is None and not case.shape.quantization:
        yield "model.quantization to fp8", case.changed(model={"quantization": "fp8"})
        yield "model.quantization to bitsandbytes", case.changed(model={"quantization": "bitsandbytes"})
    nodes = case.engine.nodes
    cards = case.profile.hardware.gpus * nodes // (case.engine.replicas * case.engine.pipeline_parallel)
    for tensor in (2, 4, 8):
        is_even = case.shape.heads % tensor == 0 and tensor * case.engine.pipeline_parallel % nodes == 0
        if settings.tensor_parallel < tensor <= cards and is_even:
            yield f"engine.tensor_parallel to {tensor}", case.changed(engine={"tensor_parallel": tensor})
    if case.profile.model.quantization is None and not case.shape.quantization:
        both = case.changed(model={"quantization": "bitsandbytes", "max_len": min(settings.max_len, 8192)})
        if settings.max_len > 8192:
            yield "model.quantization to bitsandbytes and model.max_len to 8192", both


def _remedy(case: Case) -> str:
    working = [(words, other) for words, other in _changes(case) if other.has_room][:REMEDIES]
    if not working:
        return "No single setting makes it fit: use a smaller or a quantised model, or a card with more memory."
    told = [f"{words} ({other.kv_tokens} tokens of KV cache)" for words, other in working]
    return f"Set {', or '.join(told)}."


def check_sampler(case: Case) -> Findings:
    """Sampling for max_num_seqs at once may be the largest thing in the profiling run."""
    extra = case.tightest.sampler_extra
    if case.profile.hardware.device == "cpu" or extra < max(512 * MIB, 0.05 * max(0, case.tightest.kv)):
        return
    fewer = case.settings.max_num_seqs
    while fewer > 16 and case.changed(engine={"max_num_seqs": fewer}).tightest.sampler_extra > 0:
        fewer //= 2
    gained = case.changed(engine={"max_num_seqs": fewer}).tightest.kv - case.tightest.kv
    yield Finding(
        "warning",
        "sampler-warm-up",
        "engine.max_num_seqs",
        f"sampling for {case.settings.max_num_seqs} sequences at once takes {format_gib(extra)} more than the model's own pass; "
        "that memory is kept from the KV cache.",
        f"Set engine.max_num_seqs to {fewer}: {format_gib(gained)} more of KV cache.",
    )


def check_video(case: Case) -> Findings:
    """A video may be the largest thing that vLLM reserves memory for."""
    asked, settings, rule = case.profile.model.videos_per_prompt, case.settings, case.shape.image
    key = "model.videos_per_prompt"
    if asked and not settings.videos_per_prompt:
        message = f"{asked}, but {case.shape.architecture or 'the model'} takes no video."
        yield Finding("warning", "no-video", key, message, f"Set {key} to 0.")
    if not settings.videos_per_prompt:
        return
    if rule is None or rule.family != "glm4v":
        message = f"what a video takes is not known for {case.shape.architecture}: the memory that vLLM reserves for it is left out."
        yield Finding("warning", "video-unknown", key, message, f"Set {key} to 0 where no video is sent.")
        return
    without = case.changed(model={"videos_per_prompt": 0})
    freed = without.tightest.kv - case.tightest.kv
    if case.engine.kv_cache_memory is not None:
        freed = case.tightest.before_kv - without.tightest.before_kv
    if freed <= 0:
        return
    media = profiled_media(case.shape, settings, case.profile.model.image_longest_edge)
    yield Finding(
        "warning",
        "video-memory",
        key,
        f"vLLM reserves memory for the longest video, {media.tokens} tokens: {format_gib(freed)} a card that the KV cache does "
        "not get (an estimate).",
        f"Set {key} to 0 where no video is sent.",
    )


def check_peer_to_peer(case: Case) -> Findings:
    """Cards that cannot reach each other's memory hang in NCCL or in vLLM's own all-reduce when told that they can."""
    hardware, tensor = case.profile.hardware, case.settings.tensor_parallel
    on_one_host = min(tensor, cards_of_replica(case.engine))
    if on_one_host < 2 or hardware.device == "cpu" or has_peer_to_peer(case.profile) is not False:
        return
    missing = []
    if case.engine.env.get("NCCL_P2P_DISABLE") != "1":
        missing.append("NCCL_P2P_DISABLE: '1' to engine.env")
    if not has_argument(case, "--disable-custom-all-reduce"):
        missing.append("--disable-custom-all-reduce to engine.extra_args")
    name = hardware.gpu or "these cards"
    if missing:
        yield Finding(
            "warning",
            "no-peer-to-peer",
            "engine.tensor_parallel",
            f"{tensor} × {name} without peer-to-peer: vLLM trusts the driver's word and may hang at the start without an error.",
            f"Add {' and '.join(missing)}.",
        )
    else:
        yield Finding(
            "note",
            "no-peer-to-peer",
            "engine.tensor_parallel",
            f"{tensor} × {name} without peer-to-peer: every layer's sums go through main memory, twice a layer.",
        )


def check_replicas(case: Case) -> Findings:
    """Where one card holds the model, whole replicas serve more than cards that wait for each other in every layer."""
    tensor = case.settings.tensor_parallel
    if tensor < 2 or case.profile.hardware.device == "cpu" or not case.kv_known or case.engine.nodes > 1:
        return  # over several hosts: see checks_nodes
    replicas = case.engine.replicas * tensor
    alone = {"tensor_parallel": 1, "replicas": replicas}
    for words, model in (("", {}), (" with model.quantization fp8", {"quantization": "fp8"})):
        if model and (case.profile.model.quantization or case.shape.quantization):
            return
        other = case.changed(engine=alone, model=model)
        enough = ENOUGH_KV * case.engine.replicas * case.kv_tokens
        if not other.has_room or replicas * other.kv_tokens < enough:
            continue
        yield Finding(
            "note" if model else "warning",
            "replicas-instead",
            "engine.tensor_parallel",
            f"one card holds the model{words}: {replicas} replicas would keep {replicas} × {other.kv_tokens} tokens of KV cache "
            f"({case.engine.replicas} × {case.kv_tokens} now) and never wait for each other.",
            f"Set engine.tensor_parallel to 1 and engine.replicas to {replicas}"
            + (", and model.quantization to fp8." if model else ".")
            + " Keep it if one request's latency matters more than how many are served.",
        )
        return


CHECKS = (check_memory, check_sampler, check_video, check_peer_to_peer, check_replicas)
