"""Makes a two-layer Llama without weights whose heads divide over two hosts, small enough for a CPU. It answers with noise.

python -m tests.e2e.tiny_llama FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.e2e.tiny_glm import amend, make_tokenizer

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 1024,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "dtype": "float32",
}


def make(folder: Path) -> None:
    """Write the model folder but for weights: serve it with load_format: dummy."""
    folder.mkdir(parents=True, exist_ok=True)
    make_tokenizer(folder)
    amend(folder / "tokenizer_config.json", processor_class=None)
    amend(folder / "config.json", **CONFIG)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
