"""What can be set for every click-through plugin that trains a torch network; light to import."""

from __future__ import annotations

from pydantic import Field

from ocad.clicks.config import ClickConfig
from ocad.training.options import LossSettings, OptimizerName, TrainOptions


class ClickTraining(TrainOptions):
    """The torch loop with the defaults of click models: Adam, 1e-3, batches of 256, the epoch of the lowest log loss."""

    epochs: int = Field(default=15, ge=1, description="the most passes over the training rows")
    batch_size: int = Field(default=256, ge=1, description="rows in one step")
    optimizer: OptimizerName = Field(default="adam", description="the rule that moves the weights")
    weight_decay: float = Field(default=0.0, ge=0, description="decoupled decay of `adamw`, L2 gradient of `adam`")
    warmup_epochs: float = Field(default=0.0, ge=0, description="epochs over which the rate rises linearly from zero")
    patience: int = Field(default=3, ge=0, description="epochs without a better validation value; 0 never stops early")
    monitor: dict[str, float] = Field(
        default={"val_loss": -1.0}, description="weights of `val_auc` and `val_loss` whose sum is to rise"
    )


class TorchClickConfig(ClickConfig):
    """The sections of a plugin whose model is a torch network."""

    loss: LossSettings = LossSettings()
    train: ClickTraining = ClickTraining()
