"""A model folder with words only: one token per byte, a chat template, no weights."""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from minisgl.tokenizer.decode import BYTE_OF

EOS = 256
CONTEXT = 4096
TEMPLATE = """\
{%- if messages[0].role == 'assistant' %}{{ raise_exception('the user must speak first') }}{% endif %}
{%- for message in messages %}
{%- if message.content == 'loop' %}
{%- for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}
{%- endif %}
{{- message.role }}: {{ message.content }}<|end|>
{%- endfor %}
{%- if tools %}tools: {{ tools | tojson }}<|end|>{% endif -%}
assistant: {% if enable_thinking %}<think>
{% elif enable_thinking is false %}<think>

</think>

{% endif %}"""


def byte_tokenizer() -> Tokenizer:
    """Token id = byte; 256 is the special `<|end|>`, 257 the ordinary added token `<think it over>`."""
    tokenizer = Tokenizer(models.BPE(dict(BYTE_OF), []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True)])
    tokenizer.add_tokens([AddedToken("<think it over>", special=False)])
    return tokenizer


def llama_tokenizer() -> Tokenizer:
    """Metaspace with byte fallback, as Llama 2 and Mistral have it."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁a", "a", "b", "▁hello", "é"]
    tokenizer = Tokenizer(models.Unigram([(piece, -float(i)) for i, piece in enumerate(pieces)], 0, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
    return tokenizer


def save_words(folder: Path) -> Path:
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|end|>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def save_dummy(folder: Path) -> Path:
    """The words, and the settings of a small Llama: all that `--dummy-weight` needs."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 258,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "eos_token_id": EOS,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    return save_words(folder)


def stopped(text: str, stops: tuple[str, ...], include_stop: bool) -> tuple[str, str | None]:
    """The oracle of stop strings, which sees the whole text: it ends at the first character that completes one; of
    several, the longest counts."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            stop = max(complete, key=len)
            return text[: end if include_stop else end - len(stop)], stop
    return text, None
