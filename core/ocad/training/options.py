"""The options of the torch loop; light to import, so that a plugin's configuration can hold them."""

from __future__ import annotations

from pydantic import Field

from ocad.config import Settings


class TrainOptions(Settings):
    """How `ocad.training.loop.fit` trains: AdamW (Loshchilov & Hutter 2019) under a cosine schedule with warm-up."""

    epochs: int = Field(default=30, ge=1, description="the most passes over the training rows")
    batch_size: int = Field(default=512, ge=1, description="rows in one step")
    learning_rate: float = Field(default=1e-3, gt=0, description="the highest learning rate, reached after warm-up")
    weight_decay: float = Field(default=0.01, ge=0, description="decoupled weight decay of AdamW")
    warmup_epochs: float = Field(default=1.0, ge=0, description="epochs over which the rate rises linearly from zero")
    clip_norm: float = Field(default=1.0, gt=0, description="gradients are scaled down to this 2-norm at most")
    patience: int = Field(default=10, ge=0, description="epochs without a better validation value; 0 never stops early")
    min_delta: float = Field(
        default=0.0, ge=0, description="how much lower a validation value must be to count as better"
    )
    checkpoint_every: int = Field(default=10, ge=1, description="epochs between two numbered checkpoints")
    bf16: bool = Field(default=False, description="forward pass under bfloat16 autocast")
    threads: int = Field(default=1, ge=1, description="torch threads; one is fastest for small networks")
