"""ocad takes a model from data to production and keeps the proof.

>>> import ocad
>>> ocad.load("tcn-udp_echo@production").predict(window)  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ocad.protocols import Detector, Predictor

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(reference: str, registry: str | Path | None = None) -> Predictor | Detector:
    """The registered version that `reference` (`name`, `name@1.2.0`, `name@production`) names, ready to answer.

    `registry` is its folder or URL (default: `OCAD_REGISTRY`, then `./models`). Raises `RegistryError` when the
    reference does not resolve or a digest is wrong, `PluginError` when the version's plugin is not installed.
    """
    from ocad.host import Host
    from ocad.progress import SilentProgress
    from ocad.session import Session
    from ocad_registry import Registry

    return Session(Host(), Registry(registry), SilentProgress()).load(reference)
