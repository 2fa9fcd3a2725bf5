"""Parity: what passes, and all that must not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ocad.errors import OcadError
from ocad.export.parity import EXPORT_TOLERANCE, load_samples, measure_parity, save_samples
from ocad.protocols import Arrays
from ocad_registry import Parity, Signature, Tensor

ROWS = 600
SCALE = 50.0
Predict = Callable[[Arrays], dict[str, NDArray[Any]]]


def signature(scale: float | None = SCALE) -> Signature:
    return Signature(
        inputs=[Tensor(name="values", dtype="FP32", shape=[-1, 2])],
        outputs=[Tensor(name="total", dtype="FP32", shape=[-1, 1], scale=scale)],
    )


@pytest.fixture
def samples() -> dict[str, NDArray[np.float32]]:
    return {"values": np.random.default_rng(5).normal(400, SCALE, (ROWS, 2)).astype(np.float32)}


def total(inputs: Arrays) -> dict[str, NDArray[Any]]:
    return {"total": inputs["values"].sum(axis=1, keepdims=True, dtype=np.float32)}


def measure(predict: Predict, samples: Arrays, scale: float | None = SCALE) -> Parity:
    return measure_parity(predict, signature(scale), samples, total(samples))


def test_an_equal_graph_passes(samples: Arrays) -> None:
    parity = measure(total, samples)
    assert parity.model_dump() == {
        "reference": "ocad_reference",
        "samples": ROWS,
        "max_scaled_diff": 0.0,
        "tolerance": EXPORT_TOLERANCE,
        "passed": True,
    }


def test_every_batch_size_is_asked(samples: Arrays) -> None:
    asked: list[int] = []

    def counted(inputs: Arrays) -> dict[str, NDArray[Any]]:
        asked.append(len(inputs["values"]))
        return total(inputs)

    measure(counted, samples)
    assert {size: asked.count(size) for size in (1, 7, 256)} == {1: ROWS, 7: ROWS // 7, 256: ROWS // 256}
    assert sum(asked) == 3 * ROWS


def off_by(difference: float, row: int = 17, batch: int | None = None) -> Predict:
    """`total` with `difference` added in one row, only at the batch size `batch` when one is given."""
    seen = 0

    def predict(inputs: Arrays) -> dict[str, NDArray[Any]]:
        nonlocal seen
        answer = total(inputs)["total"].astype(np.float64)
        first, seen = seen % ROWS, seen + len(answer)
        if first <= row < first + len(answer) and batch in (None, len(answer)):
            answer[row - first] += difference
        return {"total": answer}

    return predict


@pytest.mark.parametrize(("share", "passed"), [(0.5, True), (1.0, True), (2.0, False), (1000.0, False), (-2.0, False)])
def test_one_row_beyond_the_tolerance_fails(samples: Arrays, share: float, passed: bool) -> None:
    difference = share * EXPORT_TOLERANCE * SCALE
    parity = measure(off_by(difference), samples)
    assert parity.passed is passed
    assert parity.max_scaled_diff == pytest.approx(abs(difference) / SCALE)


def test_two_ulps_of_the_reference_are_allowed_on_top(samples: Arrays) -> None:
    """At 800 µs a float32 step is 6e-5: more than the tolerance of a small scale."""
    ulp = float(np.spacing(np.float32(total(samples)["total"][17, 0])))
    assert measure(off_by(2 * ulp), samples, scale=1e-3).passed
    assert not measure(off_by(3 * ulp), samples, scale=1e-3).passed


@pytest.mark.parametrize("batch", [1, 7, 256])
def test_a_difference_at_one_batch_size_fails(samples: Arrays, batch: int) -> None:
    assert not measure(off_by(1.0, batch=batch), samples).passed


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_answer_that_is_not_finite_fails_with_a_finite_number(samples: Arrays, value: float) -> None:
    parity = measure(off_by(value), samples)
    assert not parity.passed
    assert np.isfinite(parity.max_scaled_diff)


def test_no_samples_prove_nothing(samples: Arrays) -> None:
    with pytest.raises(OcadError) as caught:
        measure(total, {"values": samples["values"][:0]})
    assert str(caught.value) == (
        "there are no samples to measure parity on: return validation inputs in `Export.samples`"
    )


def test_an_output_without_a_scale_is_compared_as_it_is(samples: Arrays) -> None:
    assert measure(total, samples, scale=None).passed
    assert not measure(off_by(0.01), samples, scale=None).passed


def test_another_shape_is_named(samples: Arrays) -> None:
    with pytest.raises(OcadError) as caught:
        measure(lambda inputs: {"total": inputs["values"]}, samples)
    assert str(caught.value) == (
        "the graph answers shape (600, 2) where the reference has (600, 1): correct `ocad_reference`"
    )


def test_a_missing_output_is_named(samples: Arrays) -> None:
    with pytest.raises(OcadError) as caught:
        measure_parity(total, signature(), samples, {"sum": samples["values"]})
    assert str(caught.value) == "the reference has no output `total`: return every output of the signature"


def test_samples_come_back_as_they_were_stored(tmp_path: Path, samples: Arrays) -> None:
    save_samples(tmp_path / "parity.npz", samples, total(samples))
    inputs, reference = load_samples(tmp_path / "parity.npz")
    np.testing.assert_array_equal(inputs["values"], samples["values"])
    np.testing.assert_array_equal(reference["total"], total(samples)["total"])
    assert (set(inputs), set(reference)) == ({"values"}, {"total"})


def test_the_same_samples_give_the_same_bytes(tmp_path: Path, samples: Arrays) -> None:
    for name in ("first.npz", "second.npz"):
        save_samples(tmp_path / name, samples, total(samples))
    assert (tmp_path / "first.npz").read_bytes() == (tmp_path / "second.npz").read_bytes()
