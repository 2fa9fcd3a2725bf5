"""`ocad serve`: starts the server over a registry."""

from __future__ import annotations

import os
import sys

import click

from ocad.cli.options import registry_option
from ocad.cli.output import output_options


@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.option("--onnxruntime", help="The runtime library (default: that of the installed onnxruntime).")
@registry_option
@output_options
@click.pass_context
def serve(ctx: click.Context, onnxruntime: str | None, registry: str | None) -> None:
    """Serve every version that has a graph over the Open Inference Protocol; other options go to `ocad-server`.

    `ocad-server --help` lists them (--http, --grpc, --max-queue, …). This process becomes the server: signals reach it.
    """
    from ocad.serving import find_onnxruntime, find_server

    command = [str(find_server()), "--registry", registry or "models"]
    command += ["--onnxruntime", str(find_onnxruntime(onnxruntime)), *ctx.args]
    sys.stdout.flush()
    os.execv(command[0], command)
