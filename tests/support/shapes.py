"""A model's configuration where no checkpoint is needed."""

from minisgl.plan.model import ModelConfig, RopeConfig

SMALL = ModelConfig(
    architecture="LlamaForCausalLM",
    vocab_size=1000,
    hidden_size=64,
    intermediate_size=128,
    num_layers=2,
    num_heads=8,
    num_kv_heads=4,
    head_dim=8,
    context_length=1024,
    norm_eps=1e-5,
    rope=RopeConfig(),
    tied_embeddings=True,
    qkv_bias=False,
    output_bias=False,
    mlp_bias=False,
    qk_norm=False,
    dtype="bfloat16",
    eos_token_ids=(2,),
)
