"""`ocad verify`: parity and gates again, from the stored artifacts."""

from __future__ import annotations

import click

from ocad.cli import completing
from ocad.cli.options import open_registry, registry_option
from ocad.cli.output import emit, output_options, table


@click.command()
@click.argument("reference", shell_complete=completing.references)
@registry_option
@output_options
def verify(reference: str, registry: str | None) -> int:
    """Check the digests of the version REFERENCE, run its graph on its stored samples, judge its gates; exit 3 for no."""
    from ocad.versions import verify_version

    verdict = verify_version(open_registry(registry).resolve(reference))

    def text() -> str:
        rows = [(gate.name, f"{gate.op} {gate.threshold:g}", gate.observed, gate.passed) for gate in verdict.gates]
        if verdict.parity:
            parity = verdict.parity
            rows.append(("parity", f"<= {parity.tolerance:g} of scale", parity.max_scaled_diff, parity.passed))
        lines = table(("gate", "bar", "observed", "passed"), rows)
        return f"{verdict.version.ref}  {'verified' if verdict.passed else 'refused'}\n{lines}"

    emit(verdict.to_json(), text)
    return 0 if verdict.passed else 3
