"""`ocad predict`: a registered version asked for predictions."""

from __future__ import annotations

from pathlib import Path

import click

from ocad.cli import completing
from ocad.cli.mapping import mapping_options
from ocad.cli.options import open_session, registry_option
from ocad.cli.output import emit, output_options
from ocad.cli.signatures import Signatures, SignedCommand, signature_options


@click.command(cls=SignedCommand)
@click.argument("reference", shell_complete=completing.references)
@click.option(
    "--data",
    required=True,
    shell_complete=completing.data,
    help="A name of the catalogue, a parquet or CSV file, or an npz of input arrays.",
)
@click.option("--output", type=click.Path(path_type=Path), help="Write the predictions to this parquet file.")
@mapping_options()
@signature_options
@registry_option
@output_options
def predict(reference: str, data: str, output: Path | None, signatures: Signatures, registry: str | None) -> None:
    """Ask the version REFERENCE for a prediction for every row of the data that it can answer."""
    from ocad.errors import UsageError
    from ocad.versions import predict_file

    if output and output.suffix != ".parquet":
        hint = "predictions are a parquet file: end its name in `.parquet`"
        raise UsageError(f"`--output` names `{output.name}`", hint)
    session = open_session(registry, signatures)
    version = session.registry.resolve(reference)
    frame = predict_file(version, session, data)
    answer: dict[str, object] = {"rows": len(frame), "output": str(output) if output else None, "ref": version.ref}
    if output:
        write_parquet(frame, output)
        emit(answer, f"{len(frame)} predictions of {version.ref} in {output}")
    else:
        answer["predictions"] = frame.to_dict(orient="records")
        emit(answer, lambda: f"{frame.tail(10).to_string(index=False)}\n{len(frame)} predictions of {version.ref}")


def write_parquet(frame: object, output: Path) -> None:
    """Writes a frame to `output` so that a reader never sees half of it; raises `DataError` when it cannot."""
    import pandas as pd

    from ocad.errors import DataError

    assert isinstance(frame, pd.DataFrame)
    temporary = output.with_name(f".{output.name}.partial")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(temporary, index=False)
        temporary.replace(output)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(f"cannot write `{output}` ({error.strerror})", "choose another `--output`") from None
