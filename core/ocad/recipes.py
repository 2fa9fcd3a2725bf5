"""The detection scripts of well-known names as functions: measurements in, registered versions and reports out.

They work in the current folder, on the project's recording `oran_testbed` unless told otherwise, whose first 60 % of the
time is for fitting and tuning and whose last 40 % is for measuring.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml
from numpy.typing import NDArray

from ocad.config import Settings
from ocad.errors import ConfigError, DataError, UsageError, VerificationError
from ocad.runs import TrainRequest
from ocad.yamls import NOT_YAML, load_yaml

if TYPE_CHECKING:
    import pandas as pd

    from ocad.monitoring import Findings
    from ocad.pipeline import TrainResult
    from ocad.session import Session

METRIC, RECORDING = "oran", "oran_testbed"
METRICS = ("udp_echo", "ecpri", "lbm", "ccm")
TRAIN_ROWS, TEST_ROWS = (Path("data/processed") / f"multivariate_{part}.parquet" for part in ("train", "test"))
SCENARIOS, ANOMALIES = Path("data/inference_test_scenarios.csv"), Path("data/inference_anomaly_only.csv")
DETECTION_CONFIG = Path("configs/detection/detection_config.yaml")
VALIDATION_FROM, TEST_FROM = 0.4, 0.6
CONTEXT_ROWS = 60
"""Rows kept before and after each incident in the file of anomalies."""


class DetectionConfig(Settings):
    """`configs/detection/detection_config.yaml`: which versions detect, and how the composite weighs its members."""

    baseline: str = "rule_based-oran"
    composite: str = "composite-oran"
    members: tuple[str, ...] = ("changepoint-oran", "rule_based-oran", "residual-oran", "isolation_forest-oran")
    """The strongest first: it stands alone where no other rule is shown to be better."""
    weights: Mapping[str, float] = {}
    """By member; written by `optimise_weights`, which begins with them: what it finds must be better than they are."""


def write_multivariate(data: str = RECORDING) -> dict[Path, int]:
    """Writes the rows to fit and tune on and the rows to measure on; returns how many each file has."""
    rows = _rows(data)
    later = _share_of_time(rows) >= TEST_FROM
    return {path: _write(rows[part], path) for path, part in ((TRAIN_ROWS, ~later), (TEST_ROWS, later))}


def write_scenarios(data: str = RECORDING) -> dict[Path, int]:
    """Writes the labelled validation part, and the neighbourhoods of the test part's incidents; returns their rows."""
    rows = _rows(data)
    share = _share_of_time(rows)
    test = rows[share >= TEST_FROM]
    reach = 2 * CONTEXT_ROWS + 1
    near = test.groupby("endpoint")["label"].transform(lambda label: label.rolling(reach, 1, center=True).max()) > 0
    scenarios = rows[(share >= VALIDATION_FROM) & (share < TEST_FROM)]
    return {path: _write(part, path) for path, part in ((SCENARIOS, scenarios), (ANOMALIES, test[near]))}


def train_forest(
    session: Session, train_data: Path, test_data: Path, estimators: int, contamination: float, version: str
) -> TrainResult:
    """Trains and registers `isolation_forest-oran`: fitted on the first two thirds of `train_data`, measured on `test_data`."""
    import pandas as pd

    from ocad.pipeline import train

    parts = [_read(path) for path in (train_data, test_data)]
    whole = pd.concat(parts).sort_values(["endpoint", "timestamp"])
    joined = train_data.with_name("multivariate.parquet")
    _write(whole, joined)
    known = len(parts[0]) / len(whole)
    settings = {
        "split.train": known * VALIDATION_FROM / TEST_FROM,
        "split.validation": known * (1 - VALIDATION_FROM / TEST_FROM),
        "forest.n_estimators": estimators,
        "forest.contamination": contamination,
    }
    overrides = tuple(f"{key}={value}" for key, value in settings.items())
    request = TrainRequest(
        "isolation_forest", METRIC, str(joined), overrides=overrides, version=version.removeprefix("v")
    )
    result = train(request, session)
    if not result.version.manifest.passed:
        raise VerificationError(
            f"`{result.version.ref}` is registered, but it failed its gates or parity", "see its run"
        )
    return result


def measure(session: Session, reference: str, data: str | Path = TEST_ROWS) -> Findings:
    """What the version `reference` finds in `data`."""
    from ocad.monitoring import detect_data

    return detect_data(session.registry.resolve(reference), session, str(data))


def detect_with_report(session: Session, data: str, report: Path, trained: bool) -> Findings:
    """What the composite (or, not `trained`, the rules alone) finds in `data`, with a report and its JSON beside it."""
    from ocad.report import write_report

    config = read_detection_config()
    reference = config.composite if trained else config.baseline
    findings = measure(session, reference, data)
    report.parent.mkdir(parents=True, exist_ok=True)
    write_report(findings, session.registry.resolve(reference), report)
    scores = report.with_suffix(".parquet")
    findings.scores().to_parquet(scores, index=False)
    report.with_suffix(".json").write_text(json.dumps(findings.to_json(str(scores)), indent=2) + "\n", encoding="utf-8")
    return findings


def compare(session: Session, baseline: str, new: str, data: str | Path = TEST_ROWS) -> dict[str, dict[str, float]]:
    """The event metrics of two detectors on the same rows; `rule_based` and `trained_models` name those of the config.

    Raises `DataError` for rows without labels of both classes.
    """
    config = read_detection_config()
    named = {"rule_based": config.baseline, "trained_models": config.composite}
    answer = {}
    for name in (baseline, new):
        metrics = measure(session, named.get(name, name), data).metrics()
        if metrics is None:
            raise DataError(f"`{data}` has no labels of both classes", "give labelled rows")
        answer[name] = metrics
    return answer


def optimise_weights(session: Session, data: Path, config_file: Path = DETECTION_CONFIG) -> DetectionConfig:
    """Trains the composite on the labelled rows of `data` and writes what it found into `config_file`."""
    from ocad.pipeline import train

    config = read_detection_config(config_file)
    settings: dict[str, object] = {"members": f"[{','.join(config.members)}]", "optimise_on": "[train,validation]"}
    settings |= {"split.train": 0.4, "split.validation": 0.4}  # the rest must be enough rows for the gates
    settings["weights"] = str([config.weights.get(member, 0.0) for member in config.members] if config.weights else [])
    overrides = tuple(f"{key}={value}" for key, value in settings.items())
    name = config.composite.partition("@")[0]
    result = train(TrainRequest("composite", METRIC, str(data), overrides=overrides, name=name), session)
    rule = json.loads(result.version.file("estimator").read_text(encoding="utf-8"))["rule"]
    weights = dict(zip(config.members, (round(float(weight), 4) for weight in rule["weights"]), strict=True))
    config = config.model_copy(update={"weights": weights})
    write_detection_config(config, config_file)
    return config


def read_detection_config(path: Path = DETECTION_CONFIG) -> DetectionConfig:
    """The config at `path` in the current folder; the defaults where there is none."""
    from pydantic import ValidationError

    if not path.is_file():
        return DetectionConfig()
    try:
        return DetectionConfig.model_validate(load_yaml(path.read_text(encoding="utf-8")) or {})
    except (*NOT_YAML, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"cannot read `{path}` ({reason})", "correct it, or remove it for the defaults") from None


def write_detection_config(config: DetectionConfig, path: Path = DETECTION_CONFIG) -> None:
    """Writes `config`; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.partial")
    head = "# Which versions detect, and how the composite weighs its members (scripts/optimize_ensemble_weights.py).\n"
    unfinished.write_text(head + yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    unfinished.replace(path)


def open_default_session(registry: str | Path | None = None) -> Session:
    """The installed plugins with the registry at `registry` (default: `OCAD_REGISTRY`, then `./models`)."""
    from ocad.host import Host
    from ocad.progress import console_progress
    from ocad.session import Session
    from ocad_registry import Registry

    return Session(Host(), Registry(registry), console_progress())


def _rows(data: str) -> pd.DataFrame:
    from ocad.catalogue import find_data
    from ocad.timeseries.frame import read_frame

    rows = read_frame(find_data(data), METRICS, varying=False).data
    if "label" not in rows:
        raise DataError(f"data `{data}` has no labels", "give labelled rows")
    return rows


def _share_of_time(rows: pd.DataFrame) -> NDArray[np.float64]:
    seconds = (rows["timestamp"] - rows["timestamp"].min()).dt.total_seconds().to_numpy(np.float64)
    return np.asarray(seconds / seconds.max())


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise UsageError(f"there is no file `{path}`", "write it with `python scripts/prepare_multivariate_data.py`")
    return _rows(str(path))


def _write(rows: pd.DataFrame, path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        rows.to_csv(path, index=False)
    else:
        rows.to_parquet(path, index=False)
    return len(rows)
