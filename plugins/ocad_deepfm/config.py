"""What can be set for the plugin `deepfm`; each key is a line of `configs/deepfm/*.yaml` or a `--set`."""

from __future__ import annotations

from pydantic import Field

from ocad.clicks.torch_config import TorchClickConfig
from ocad.config import Settings


class NetworkSettings(Settings):
    """The network of Guo et al. 2017, *DeepFM: A Factorization-Machine based Neural Network for CTR Prediction*."""

    embedding: int = Field(
        default=16, ge=1, description="entries of a vector, for fields that name no size of their own"
    )
    numeric_pieces: int = Field(
        default=1, ge=1, description="pieces of the piecewise linear curve that a number's vector is; 1: x · v"
    )
    hidden: tuple[int, ...] = Field(
        default=(256, 128, 64), min_length=1, description="width of each layer of the deep part"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="share of hidden values dropped in training")
    embedding_dropout: float = Field(default=0.0, ge=0, lt=1, description="share of vector entries dropped in training")
    batch_norm: bool = Field(default=False, description="batch normalisation before each ReLU")


class DeepFmConfig(TorchClickConfig):
    """The configuration of the plugin `deepfm`."""

    network: NetworkSettings = NetworkSettings()
