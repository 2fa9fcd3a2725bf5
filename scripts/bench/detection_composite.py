"""A composite as a method: members and alarm rule trained in a registry of its own, on training rows with injected incidents."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from detection_methods import Detected, Method, unlabelled

from ocad.detection.ensemble import Ensemble
from ocad.detection.inject import Injection, inject
from ocad.errors import UsageError
from ocad.host import Host
from ocad.pipeline import train
from ocad.progress import SilentProgress
from ocad.runs import TrainRequest
from ocad.session import Session
from ocad_registry import Registry


def composite_method(
    members: Mapping[str, str], config: str, seed: int = 7, how: Injection | None = None, overrides: Sequence[str] = ()
) -> Method:
    """A composite over `members` (plugin → configuration), its rule searched with `seed` on incidents put in by `how`.

    Members are fitted on the training rows as they are; the search sees the same rows with incidents in their last 40 %.
    It runs over the training rows before the test rows.
    """
    wanted = how or Injection(prevalence=0.1, seed=seed, clean=0.6)

    def method(rows: pd.DataFrame, test: pd.DataFrame, metrics: Sequence[str]) -> Detected:
        clean = unlabelled(rows, metrics)
        with tempfile.TemporaryDirectory() as folder:
            session = Session(Host(), Registry(Path(folder) / "models"), SilentProgress())

            def registered(plugin: str, frame: pd.DataFrame, file: str, *given: str) -> str:
                path = Path(folder) / f"{plugin}.parquet"
                frame.to_parquet(path, index=False)
                columns = f"metrics=[{','.join(metrics)}]"
                runs = str(Path(folder) / "runs")
                request = TrainRequest(plugin, None, str(path), file, (columns, *given), f"{plugin}-bench", runs=runs)
                return train(request, session).version.ref

            references = [registered(plugin, clean, file) for plugin, file in members.items()]
            injected, _ = inject(clean, metrics, wanted)
            given = (f"members=[{','.join(references)}]", f"seed={seed}", *overrides)
            model = session.load(registered("composite", injected, config, *given))
            if not isinstance(model, Ensemble):
                raise UsageError("the plugin `composite` made no ensemble", "score it with `plugin_method`")
            model.forget()
            model.detect(clean)
            found = model.detect(unlabelled(test, metrics))
            return Detected(found.scores, found.alarms, incidents=tuple(found.incidents))

    return method
