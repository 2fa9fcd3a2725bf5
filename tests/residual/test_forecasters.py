"""Which registered versions may stand behind the detector, and what happens when one is not what it was."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.residual.samples import LENGTH, make_rows, open_session, publish_forecaster
from tests.serving.registries import flip
from tests.serving.servers import Server

from ocad.detection.remote import RemotePredictor
from ocad.errors import DataError
from ocad_registry import Registry
from ocad_residual.detector import ResidualDetector
from ocad_residual.forecasters import RegisteredForecaster, load_forecaster, resolve_forecasters


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A registry of the test's own, with `linear` at 1.0.0 for `udp_echo`."""
    root = tmp_path / "models"
    publish_forecaster(root, "linear", "udp_echo")
    return root


def resolve(root: Path, *references: str, **units: str) -> dict[str, RegisteredForecaster]:
    return resolve_forecasters(open_session(root).host_context(), references, units or {"udp_echo": "µs"})


def test_a_name_becomes_an_exact_version_with_its_digest(own: Path) -> None:
    publish_forecaster(own, "linear", "udp_echo", weights=[0.5, 0.5])
    Registry(own).promote("linear@1.0.0", "production")
    found = resolve(own, "linear")["udp_echo"]
    assert found.ref == "linear@1.0.0"
    assert found.metadata_sha256 == Registry(own).resolve("linear@1.0.0").metadata_sha256
    assert found.length == LENGTH
    assert found.next_value([100.0] * LENGTH) == pytest.approx(100.0)


@pytest.mark.parametrize(
    ("shape", "outputs", "dtype"), [([-1, 4], [-1, 1], "FP32"), ([-1, 4, 1], [-1], "FP64"), ([-1, 4], [-1], "FP64")]
)
def test_any_signature_of_one_series_will_do(own: Path, shape: list[int], outputs: list[int], dtype: str) -> None:
    publish_forecaster(own, "other", "lbm", weights=[0, 0, 0.25, 0.75], shape=shape, outputs=outputs, dtype=dtype)
    found = resolve(own, "other", lbm="µs")["lbm"]
    assert found.next_value([1.0, 2.0, 10.0, 20.0]) == pytest.approx(17.5)
    assert found.forecast(np.array([[1.0, 2, 10, 20], [0, 0, 4, 8]])) == pytest.approx([17.5, 7.0])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"task": "detect"}, r"`wrong@1\.0\.0` does not forecast the next value of one series \(task `detect`\)"),
        ({"outputs": [-1, 1, 1]}, r"of one series \(its signature\): name a version that takes `\(batch, length, 1\)`"),
        ({"shape": [1, 6, 1]}, "does not forecast the next value of one series"),
        ({"shape": [-1, 3, 2]}, "does not forecast the next value of one series"),
        (
            {"metric": "lbm"},
            r"was trained on the metric `lbm`, the detector reads `udp_echo`: name a forecaster of that",
        ),
        ({"metric": None}, "was trained on the metric `None`"),
        ({"unit": "ms"}, r"`wrong@1\.0\.0` was trained on `udp_echo` in ms, not in us: map the data to that unit"),
    ],
)
def test_what_does_not_fit_is_refused(own: Path, more: dict[str, Any], said: str) -> None:
    publish_forecaster(own, "wrong", **{"metric": "udp_echo", **more})
    with pytest.raises(DataError, match=said):
        resolve(own, "wrong")


@pytest.mark.parametrize(("unit", "data"), [(None, "µs"), ("us", ""), ("us", "us")])
def test_a_unit_that_nobody_contradicts(own: Path, unit: str | None, data: str) -> None:
    publish_forecaster(own, "other", "udp_echo", unit=unit)
    assert resolve(own, "other", udp_echo=data)["udp_echo"].ref == "other@1.0.0"


def test_two_forecasters_of_one_metric(own: Path) -> None:
    publish_forecaster(own, "second", "udp_echo")
    with pytest.raises(DataError, match=r"`linear@1\.0\.0` and `second@1\.0\.0` both forecast `udp_echo`"):
        resolve(own, "linear", "second")


def test_a_forecaster_that_is_not_there(own: Path) -> None:
    with pytest.raises(DataError, match=r"there is no forecaster `absent` \(.*\): register it first, or name none"):
        resolve(own, "absent")


def recorded(root: Path) -> RegisteredForecaster:
    found = resolve(root, "linear@1.0.0")["udp_echo"]
    found.predictor = None
    return found


def test_an_unloaded_forecaster_says_so(own: Path) -> None:
    with pytest.raises(DataError, match=r"`linear@1\.0\.0` is not loaded: load the detector by `ocad\.load`"):
        recorded(own).next_value([0.0] * LENGTH)


def test_a_forecaster_that_is_gone(own: Path) -> None:
    forecaster = recorded(own)
    shutil.rmtree(own / "linear" / "1.0.0")
    with pytest.raises(DataError, match=r"`d@1\.0\.0` needs the forecaster `linear@1\.0\.0`, which is not there: copy"):
        load_forecaster(open_session(own).host_context(), forecaster, "d@1.0.0")


@pytest.mark.parametrize("file", ["m.onnx", "metadata.json"])
def test_a_damaged_forecaster(own: Path, file: str) -> None:
    forecaster = recorded(own)
    flip(Registry(own).resolve("linear@1.0.0").path / file)
    with pytest.raises(DataError, match=r"needs the forecaster `linear@1\.0\.0`, which is damaged \(") as caught:
        load_forecaster(open_session(own).host_context(), forecaster, "d@1.0.0")
    assert "\n" not in str(caught.value)


def test_another_version_under_the_same_number(own: Path, tmp_path: Path) -> None:
    forecaster = recorded(own)
    publish_forecaster(tmp_path / "elsewhere", "linear", "udp_echo", weights=[1.0])
    with pytest.raises(DataError, match=r"needs the forecaster `linear@1\.0\.0` of metadata sha256 [0-9a-f]{12}, not"):
        load_forecaster(open_session(tmp_path / "elsewhere").host_context(), forecaster, "d@1.0.0")


def test_only_its_own_graphs_can_be_replaced(own: Path) -> None:
    detector = ResidualDetector(["udp_echo"], resolve(own, "linear"))
    assert list(detector.graphs()) == ["linear@1.0.0"]
    with pytest.raises(DataError, match="the detector has no forecaster `linear`: `graphs"):
        detector.use_graph("linear", detector.graphs()["linear@1.0.0"])


@pytest.fixture
def server(models: Path) -> Iterator[Server]:
    with Server(models) as running:
        running.wait_ready()
        yield running


def test_the_server_gives_equal_scores(models: Path, server: Server) -> None:
    metrics = ("udp_echo", "lbm")
    found = resolve(models, "linear-udp_echo", "linear-lbm", udp_echo="µs", lbm="µs")
    detector = ResidualDetector(metrics, found)
    detector.fit(make_rows(metrics=metrics))
    detector.calibrate(make_rows(metrics=metrics, seed=6))
    frame = make_rows(400, metrics=metrics, seed=7)
    here = detector.score(frame)
    detector.forget()
    for ref in detector.graphs():
        detector.use_graph(ref, RemotePredictor(f"http://{server.http}", Registry(models).resolve(ref)))
    np.testing.assert_allclose(detector.score(frame), here, rtol=0, atol=1e-5)
    assert server.metrics()['ocad_server_rows_total{protocol="http",model="linear-lbm"}'] > 700
