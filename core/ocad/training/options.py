"""The options of the torch loop and of the losses; light to import, so that a plugin's configuration can hold them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from ocad.config import Settings

OptimizerName = Literal["adamw", "adam", "lazy_adam"]
ScheduleName = Literal["cosine", "warm_restarts", "plateau", "constant"]
LossName = Literal["log_loss", "weighted", "focal", "class_balanced"]


class TrainOptions(Settings):
    """How `ocad.training.loop.fit` trains: AdamW (Loshchilov & Hutter 2019) under a cosine schedule with warm-up.

    `adam` is Kingma & Ba (2015), with `weight_decay` as an L2 gradient (0 unless given). `lazy_adam` is the same but
    updates only those rows of embedding tables that a batch touches, for tables of 100,000 rows and more.
    Schedules: `cosine` and `warm_restarts` (Loshchilov & Hutter 2017, SGDR), `plateau` (divided when validation stops
    improving), `constant`; each after the same linear warm-up. `average_epochs` is stochastic weight averaging (Izmailov
    et al. 2018); `bf16` is mixed precision as Kalamkar et al. (2019) studied it.
    """

    epochs: int = Field(default=30, ge=1, description="the most passes over the training rows")
    batch_size: int = Field(default=512, ge=1, description="rows in one step")
    optimizer: OptimizerName = Field(default="adamw", description="the rule that moves the weights")
    learning_rate: float = Field(default=1e-3, gt=0, description="the highest learning rate, reached after warm-up")
    weight_decay: float = Field(default=0.01, ge=0, description="decoupled decay of `adamw`, L2 gradient of `adam`")
    embedding_l2: float = Field(default=0.0, ge=0, description="l of the penalty l/2·|w|² on embedding tables")
    schedule: ScheduleName = Field(default="cosine", description="how the learning rate falls")
    warmup_epochs: float = Field(default=1.0, ge=0, description="epochs over which the rate rises linearly from zero")
    restart_epochs: float = Field(default=1.0, gt=0, description="epochs of the first period of `warm_restarts`")
    restart_factor: int = Field(default=2, ge=1, description="each period is this many times the one before")
    plateau_factor: float = Field(default=0.1, gt=0, lt=1, description="what `plateau` multiplies the rate by")
    plateau_patience: int = Field(default=1, ge=0, description="epochs without improvement that `plateau` forgives")
    clip_norm: float = Field(default=1.0, ge=0, description="gradients are scaled down to this 2-norm; 0 never clips")
    accumulate: int = Field(default=1, ge=1, description="parts that a batch is computed in, to need less memory")
    monitor: dict[str, float] = Field(
        default={}, description="weights of validation metrics whose sum is to rise; empty: the plugin's own choice"
    )
    patience: int = Field(default=10, ge=0, description="epochs without a better validation value; 0 never stops early")
    min_delta: float = Field(
        default=0.0, ge=0, description="how much lower a validation value must be to count as better"
    )
    average_epochs: int = Field(
        default=0, ge=0, description="last epochs whose weights are averaged, if that is better"
    )
    checkpoint_every: int = Field(default=10, ge=1, description="epochs between two numbered checkpoints")
    bf16: bool = Field(default=False, description="forward pass under bfloat16 autocast; float32 where that fails")
    compile: bool = Field(default=False, description="torch.compile the network; needs a C++ compiler")
    threads: int = Field(default=1, ge=1, description="torch threads; one is fastest for small networks")

    @model_validator(mode="before")
    @classmethod
    def _plain_adam_does_not_decay(cls, values: Any) -> Any:
        """0.01 is a mild decoupled decay, but a strong L2 gradient: the default is for `adamw` alone."""
        if isinstance(values, dict) and values.get("optimizer", "adamw") != "adamw":
            return {"weight_decay": 0.0, **values}
        return values

    @model_validator(mode="after")
    def _compiled_tables_are_dense(self) -> TrainOptions:
        if self.compile and self.optimizer == "lazy_adam":
            raise ValueError("`compile` cannot produce the sparse gradients of `lazy_adam`: choose one of them")
        return self


class LossSettings(Settings):
    """The loss of a click model, `ocad.training.losses.ClickLoss`.

    `log_loss`; `weighted`: clicks count `pos_weight` times; `focal`: rows that are predicted well count less (Lin et al.
    2017); `class_balanced`: classes weigh by their effective number of rows (Cui et al. 2019). The rest goes with each of
    them: label smoothing (Szegedy et al. 2016), hard-negative mining (Shrivastava et al. 2016, OHEM), and negative sampling
    with the odds corrected (He et al. 2014, Practical lessons from predicting clicks on ads at Facebook).
    """

    kind: LossName = Field(default="log_loss", description="the form of the loss")
    pos_weight: float | Literal["auto"] = Field(
        default="auto", description="weight of a click in `weighted`; `auto` is negatives / positives"
    )
    gamma: float = Field(default=2.0, ge=0, description="exponent of `focal`; 0 is log loss")
    beta: float = Field(default=0.9999, ge=0, lt=1, description="(N-1)/N of `class_balanced`; 0 is log loss")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="share of a label that is spread evenly")
    hard_negatives: float = Field(
        default=1.0, gt=0, le=1, description="share of a batch's negatives that count: those with the highest loss"
    )
    negative_rate: float = Field(default=1.0, gt=0, le=1, description="share of negatives drawn anew for each epoch")

    @model_validator(mode="after")
    def _positive_weight(self) -> LossSettings:
        if self.pos_weight != "auto" and self.pos_weight <= 0:
            raise ValueError("`pos_weight` must be above zero, or `auto`")
        return self
