"""What an inspection tells of a model: as much of its config.json as a plan needs, small enough for a termination
message (4096 bytes). Pure data; the operator keeps it in status. Whoever makes a model may decide what its pods say, so
every number has a bound.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from minisgl.info import Facts
from minisgl.plan.model import MOST, MOST_LAYERS, ExpertsConfig, ModelConfig
from minisgl.plan.rope import RopeConfig

Size = Annotated[int, Field(ge=1, le=MOST)]
Layers = Annotated[int, Field(ge=1, le=MOST_LAYERS)]


class Experts(Facts):
    """A mixture of experts."""

    num: Size = Field(description="Experts in a layer.")
    per_token: Size = Field(description="Experts that compute each token.")
    width: Size = Field(description="Width of one expert's MLP.")
    num_layers: Layers = Field(description="Layers that have experts.")


class Inspection(Facts):
    """The shape of a model."""

    architecture: str = Field(description="Model class of the checkpoint.")
    dtype: str = Field(description="Number format of the checkpoint's weights.")
    vocab_size: Size = Field(description="Token ids that the model knows.")
    hidden_size: Size = Field(description="Width of the residual stream.")
    intermediate_size: int = Field(ge=0, le=MOST, description="Width of a dense layer's MLP.")
    num_layers: Layers = Field(description="Layers of the decoder.")
    num_heads: Size = Field(description="Attention heads; ranks must divide them.")
    num_kv_heads: Size = Field(description="Heads of keys and values.")
    head_dim: Size = Field(description="Width of one head.")
    context_length: Size = Field(description="Longest prompt plus answer that the model was made for, in tokens.")
    tied_embeddings: bool = Field(default=False, description="Whether the head is the embedding's table.")
    qkv_bias: bool = Field(default=False, description="Whether queries, keys and values have biases.")
    output_bias: bool = Field(default=False, description="Whether attention's output has a bias.")
    mlp_bias: bool = Field(default=False, description="Whether the MLP has biases.")
    qk_norm: bool = Field(default=False, description="Whether each head's query and key are normed.")
    experts: Experts | None = Field(default=None, description="Mixture of experts; absent: a dense model.")

    @classmethod
    def of(cls, model: ModelConfig) -> Inspection:
        """What a plan needs of it."""
        experts = None
        if (mixed := model.experts) is not None:
            layers = len(mixed.layers)
            experts = Experts(num=mixed.num, per_token=mixed.per_token, width=mixed.width, num_layers=layers)
        own = {name: getattr(model, name) for name in cls.model_fields if name != "experts"}
        return cls(**own, experts=experts)

    def model(self) -> ModelConfig:
        """A configuration to plan with: of positions, norms and end tokens it knows nothing."""
        experts = None
        if (mixed := self.experts) is not None:
            layers = frozenset(range(mixed.num_layers))
            experts = ExpertsConfig(mixed.num, mixed.per_token, mixed.width, normalised=False, layers=layers)
        own = {name: getattr(self, name) for name in type(self).model_fields if name != "experts"}
        return ModelConfig(**own, experts=experts, norm_eps=0.0, rope=RopeConfig(), eos_token_ids=())


class Report(Facts):
    """The whole termination message of an inspection."""

    model: Inspection = Field(description="Shape of the model.")
    revision: str | None = Field(default=None, description="Commit of the hub that the configuration is from.")
