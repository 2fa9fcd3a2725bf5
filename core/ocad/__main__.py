"""`python -m ocad` and the `ocad` command: runs a command and turns its failure into one line and an exit code."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Runs the command line and exits: 0 done, 1 failed, 2 wrong usage, 3 a gate, parity or verification said no."""
    sys.exit(run())


def run() -> int:
    """Runs the command that `sys.argv` names and returns its exit code."""
    import click

    from ocad.cli.main import cli
    from ocad.cli.output import fail, wants

    if "_OCAD_COMPLETE" in os.environ:  # the shell asks what can follow
        from ocad.cli.completing import prepare

        prepare()
    try:
        code = cli.main(prog_name="ocad", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Abort:
        fail("interrupted", "interrupted", "")
        return 1
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "ocad"
        fail("usage", _sentence(error.format_message()), f"see `{command} --help`")
        return 2
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception as error:
        if wants("--debug"):
            raise
        code = str(getattr(error, "code", "internal"))
        message, hint = getattr(error, "message", None), getattr(error, "hint", "")
        if message is None:
            message, hint = (
                f"{type(error).__name__}: {_sentence(str(error))}",
                "run again with `--debug` for the traceback",
            )
        fail(code, message, hint)
        return int(getattr(error, "exit_code", 1))


def _sentence(text: str) -> str:
    """`text` on one line, without a capital or full stop, in the manner of our own messages."""
    line = " ".join(text.split()).rstrip(".").replace("'", "`")
    return line[:1].lower() + line[1:]


if __name__ == "__main__":
    main()
