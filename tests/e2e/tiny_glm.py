"""Makes a two-layer GLM-4.xV with random weights, small enough for a CPU; its pictures cost what real ones do.

python -m tests.e2e.tiny_glm FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TURNS = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
MEDIA = tuple(f"<|{edge}_of_{kind}|>" for kind in ("image", "video") for edge in ("begin", "end"))
SPECIAL = ("<|endoftext|>", "[gMASK]", "<sop>", *TURNS, *MEDIA, "<|image|>", "<|video|>", "<think>", "</think>")
TEMPLATE = """[gMASK]<sop>
{%- for m in messages %}<|{{ m.role }}|>
{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}\
{% if c.type in ('image', 'image_url') %}<|begin_of_image|><|image|><|end_of_image|>{% else %}{{ c.text }}{% endif %}\
{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% endif %}"""
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6], "partial_rotary_factor": 0.5}
TEXT = {
    "model_type": "glm4v_text",
    "vocab_size": 1024,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "rope_parameters": ROPE,
    "rope_scaling": ROPE,
    "partial_rotary_factor": 0.5,
    "attention_bias": True,
    "eos_token_id": [0],
    "pad_token_id": 0,
    "dtype": "float32",
}
VISION = {
    "model_type": "glm4v_vision",
    "depth": 2,
    "hidden_size": 64,
    "num_heads": 4,
    "intermediate_size": 128,
    "out_hidden_size": 128,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "image_size": 336,
}
PROCESSOR = {
    "processor_class": "Glm4vProcessor",
    "patch_size": 14,
    "merge_size": 2,
    "temporal_patch_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def make_tokenizer(folder: Path) -> dict[str, int]:
    """A byte-level tokenizer with GLM's special tokens; their ids."""
    from transformers import PreTrainedTokenizerFast

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=800, initial_alphabet=alphabet, special_tokens=list(SPECIAL), show_progress=False
    )
    trained.train_from_iterator([Path(__file__).read_text()], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained,
        eos_token=SPECIAL[0],
        pad_token=SPECIAL[0],
        additional_special_tokens=list(SPECIAL[1:]),
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    amend(folder / "tokenizer_config.json", processor_class="Glm4vProcessor")
    return {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}


def amend(path: Path, **values: object) -> None:
    """Set keys of a JSON file, which need not be there yet."""
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, **values}, indent=1))


def make(folder: Path) -> None:
    """Write the whole model folder but for weights: serve it with load_format: dummy."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = make_tokenizer(folder)
    tokens = {
        f"{kind}_{edge}_token_id": ids[f"<|{word}_of_{kind}|>"]
        for kind in ("image", "video")
        for edge, word in (("start", "begin"), ("end", "end"))
    }
    tokens |= {f"{kind}_token_id": ids[f"<|{kind}|>"] for kind in ("image", "video")}
    amend(
        folder / "config.json",
        architectures=["Glm4vForConditionalGeneration"],
        model_type="glm4v",
        text_config=TEXT,
        vision_config=VISION,
        tie_word_embeddings=False,
        dtype="float32",
        **tokens,
    )
    image = {"shortest_edge": 12544, "longest_edge": 9633792}
    amend(folder / "preprocessor_config.json", **PROCESSOR, image_processor_type="Glm4vImageProcessor", size=image)
    video = {"shortest_edge": 12544, "longest_edge": 47040000}
    amend(
        folder / "video_preprocessor_config.json",
        **PROCESSOR,
        video_processor_type="Glm4vVideoProcessor",
        size=video,
        fps=2.0,
        num_frames=16,
    )
    amend(folder / "generation_config.json", eos_token_id=[0], pad_token_id=0)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
