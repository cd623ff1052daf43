"""Exact weight bytes from safetensors headers: a file begins with eight bytes of length and a JSON table of its tensors."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from typing import Any

from launcher.plan.model_shape import WeightBytes

LARGEST_HEADER = 100 * 2**20  # the format's own limit
DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
VISION_NAMES = (
    "visual.",
    "vision_tower.",
    "vision_model.",
    "vision.",
    "multi_modal_projector.",
    "vision_embed_tokens.",
)


def header_length(first_eight: bytes) -> int:
    """Bytes of the JSON table that follows. Raises ValueError for what is no safetensors file."""
    if len(first_eight) < 8:
        raise ValueError("it is shorter than a safetensors header")
    length: int = struct.unpack("<Q", first_eight[:8])[0]
    if not 0 < length <= LARGEST_HEADER:
        raise ValueError(f"its header would be {length} bytes long, so it is no safetensors file")
    return length


def parse_header(table: bytes) -> dict[str, Any]:
    """Tensor name → its entry (dtype, shape, data_offsets). Raises ValueError when it is not such a table."""
    entries = json.loads(table)
    if not isinstance(entries, dict):
        raise ValueError("its header is not a table of tensors")
    entries.pop("__metadata__", None)
    return entries


def is_vision(name: str) -> bool:
    """Whether a tensor of this name belongs to the vision encoder or to what joins it to the language model."""
    bare = name.removeprefix("model.").removeprefix("transformer.")
    return bare.startswith(VISION_NAMES)


def weights_of(headers: Iterable[Mapping[str, Any]]) -> WeightBytes:
    """Bytes over all files: total, by part, by dtype. Raises ValueError for a tensor without offsets."""
    vision = language = 0
    by_dtype: dict[str, int] = {}
    for header in headers:
        for name, entry in header.items():
            try:
                begin, end = entry["data_offsets"]
                size, dtype = int(end) - int(begin), str(entry["dtype"])
            except (KeyError, TypeError, ValueError):
                raise ValueError(f"its header has no offsets for the tensor {name}") from None
            by_dtype[dtype] = by_dtype.get(dtype, 0) + size
            if is_vision(name):
                vision += size
            else:
                language += size
    return WeightBytes(vision + language, language, vision, by_dtype)


def main_dtype(weights: WeightBytes) -> str | None:
    """The floating-point type that most bytes have, as config.json would call it; None when most are quantised."""
    if not weights.by_dtype:
        return None
    return DTYPES.get(max(weights.by_dtype, key=lambda dtype: weights.by_dtype[dtype]))
