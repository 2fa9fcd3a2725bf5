"""Measures the registered Isolation Forest on the rows kept for that."""

from ocad.errors import OcadError
from ocad.recipes import measure, open_default_session
from ocad_registry import RegistryError

if __name__ == "__main__":
    try:
        findings = measure(open_default_session(), "isolation_forest-oran")
    except (OcadError, RegistryError) as error:
        raise SystemExit(f"error: {error}") from None
    print(f"{findings.ref}: {len(findings.frame)} rows, {len(findings.detection.incidents)} incidents")
    for name, value in {**(findings.metrics() or {}), **findings.latency_us}.items():
        print(f"{name:>16} {value:.4g}")
