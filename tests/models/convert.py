"""Converts a Llama-shaped GGUF file to a plain model folder: no torch, no transformers.

Knows the GGUF names of a Llama and SmolLM2's tokenizer; knows nothing of caches or downloads.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors import TensorSpec, serialize_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
CONTROL_TOKEN = 3  # GGUF's token type for special tokens


def convert(source: Path, folder: Path, say: Callable[[str], None]) -> None:
    """Write weights (bfloat16), config, tokenizer and chat template of `source` into `folder`."""
    reader = gguf.GGUFReader(source)
    facts = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    config = model_config(facts, tied=not any(tensor.name == "output.weight" for tensor in reader.tensors))
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "generation_config.json").write_text(
        json.dumps({"bos_token_id": config["bos_token_id"], "eos_token_id": config["eos_token_id"]}, indent=2)
    )
    write_tokenizer(facts, folder)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    weights = {}
    for done, tensor in enumerate(reader.tensors, 1):
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        name, kind = plain_name(tensor.name)
        if kind in heads:
            values = unpermute(values, heads[kind])
        weights[name] = bfloat16(values)
        if done % 90 == 0:
            say(f"  {done} of {len(reader.tensors)} tensors")
    save(weights, folder / "model.safetensors")


def model_config(facts: dict[str, Any], *, tied: bool) -> dict[str, Any]:
    """config.json as the hub writes it for a Llama."""
    heads, hidden = facts["llama.attention.head_count"], facts["llama.embedding_length"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "num_hidden_layers": facts["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": facts["llama.attention.head_count_kv"],
        "head_dim": hidden // heads,
        "intermediate_size": facts["llama.feed_forward_length"],
        "vocab_size": len(facts["tokenizer.ggml.tokens"]),
        "max_position_embeddings": facts["llama.context_length"],
        "rms_norm_eps": round(float(facts["llama.attention.layer_norm_rms_epsilon"]), 12),
        "rope_theta": float(facts["llama.rope.freq_base"]),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "bos_token_id": facts["tokenizer.ggml.bos_token_id"],
        "eos_token_id": facts["tokenizer.ggml.eos_token_id"],
    }


def write_tokenizer(facts: dict[str, Any], folder: Path) -> None:
    """tokenizer.json from the file's own metadata.

    SmolLM2 splits digits one by one before the byte-level step; converters that forget this differ wherever two
    spaces stand before a digit.
    """
    if facts["tokenizer.ggml.pre"] != "smollm":
        raise SystemExit(f"tokenizer.ggml.pre={facts['tokenizer.ggml.pre']}: only SmolLM2's tokenizer is known here")
    tokens = facts["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in facts["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = facts["tokenizer.ggml.token_type"]
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": tokens[facts["tokenizer.ggml.bos_token_id"]],
                "eos_token": tokens[facts["tokenizer.ggml.eos_token_id"]],
                "model_max_length": facts["llama.context_length"],
                "clean_up_tokenization_spaces": False,
            },
            indent=2,
        )
    )
    (folder / "chat_template.jinja").write_text(facts["tokenizer.chat_template"])


def plain_name(name: str) -> tuple[str, str]:
    """`blk.3.attn_q.weight` -> (`model.layers.3.self_attn.q_proj.weight`, `attn_q`)."""
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{LAYER[parts[2]]}.{parts[3]}", parts[2]
    return f"{TOP[parts[0]]}.{parts[1]}", parts[0]


def unpermute(weight: np.ndarray, heads: int) -> np.ndarray:
    """GGUF interleaves the two halves of each rotary pair; the hub's layout keeps them apart.

    [heads, head_dim/2, 2, hidden] -> [heads, 2, head_dim/2, hidden]
    """
    rows, hidden = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, hidden).swapaxes(1, 2).reshape(rows, hidden)


def bfloat16(values: np.ndarray) -> np.ndarray:
    """Round float32 to the nearest bfloat16, ties to even; the result holds its bits as uint16."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def save(weights: dict[str, np.ndarray], path: Path) -> None:
    """Write bfloat16 bits as one safetensors file."""
    specs = {
        name: TensorSpec(dtype="bfloat16", shape=list(bits.shape), data_ptr=bits.ctypes.data, data_len=bits.nbytes)
        for name, bits in weights.items()
    }
    serialize_file(specs, str(path), {"format": "pt"})
    path.chmod(0o644)  # pods read it as another user
