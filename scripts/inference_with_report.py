"""Finds incidents in a file with the registered composite, or the rules alone, and writes a report."""

import argparse
from pathlib import Path

from ocad.errors import OcadError
from ocad.recipes import ANOMALIES, detect_with_report, open_default_session
from ocad_registry import RegistryError

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-source", default=str(ANOMALIES))
    parser.add_argument("--model-path", default="models", metavar="DIR", help="the registry's folder")
    parser.add_argument("--use-trained-models", action="store_true", help="the composite; without it the rules alone")
    parser.add_argument("--report", type=Path, default=Path("reports/inference_report.html"))
    given = parser.parse_args()
    try:
        session = open_default_session(given.model_path)
        findings = detect_with_report(session, given.data_source, given.report, given.use_trained_models)
    except (OcadError, RegistryError) as error:
        raise SystemExit(f"error: {error}") from None
    print(
        f"{findings.ref}: {len(findings.detection.incidents)} incidents in {len(findings.frame)} rows; see {given.report}"
    )
