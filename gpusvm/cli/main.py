"""The ``gpusvm`` command: its sub-commands, and the one place where an error becomes an exit code.

What stands here and in `commands` is imported before anything is done; the rest, and rich, once it
is needed.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gpusvm.cli.commands import bench, data, demo, evaluate, export, info, predict, train, tune
from gpusvm.errors import INTERRUPTED, GpuSvmError
from gpusvm.io.output import remove_unfinished
from gpusvm.version import __version__


class _Commands(TyperGroup):
    """Turns the errors that gpusvm raises on purpose into one line and their exit code."""

    def invoke(self, ctx: Any) -> Any:
        from gpusvm.cli.console import warnings_as_notes

        try:
            with warnings_as_notes():
                return _interrupts_as_such(super().invoke, ctx)
        except BrokenPipeError:
            raise
        except (GpuSvmError, OSError, MemoryError, RuntimeError, ImportError) as error:
            if isinstance(error, (RuntimeError, ImportError)) and not _is_want_of_memory(error):
                raise
            if ctx.params.get("debug"):
                traceback.print_exc()
            _say_error(_describe(error))
            raise typer.Exit(getattr(error, "exit_code", GpuSvmError.exit_code)) from None
        except KeyboardInterrupt:
            _say_interrupted()
            raise typer.Exit(INTERRUPTED) from None


def _interrupts_as_such(work: Callable[[Any], Any], ctx: Any) -> Any:
    """Do it; raise KeyboardInterrupt for an error that has one for its cause.

    Before Python 3.12 a class body turns whatever is raised in a ``__set_name__`` into a
    RuntimeError, so that Ctrl-C while a library is imported arrives as one.
    """
    try:
        return work(ctx)
    except RuntimeError as error:
        cause = error.__cause__
        while cause is not None and not isinstance(cause, KeyboardInterrupt):
            cause = cause.__cause__
        if cause is not None:
            raise cause from None
        raise


app = typer.Typer(
    name="gpusvm",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train, evaluate and apply exact kernel support vector machines on tables and images, on a GPU or a CPU.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"gpusvm {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options that stand before the command."""


app.command()(info.info)
app.add_typer(data.app, name="data")
app.command()(train.train)
app.command()(tune.tune)
app.command()(evaluate.evaluate)
app.command()(predict.predict)
app.command()(bench.bench)
app.command()(export.export)
app.command()(demo.demo)


def run() -> None:
    """Entry point of the ``gpusvm`` script."""
    try:
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _end_at_once()
        raise
    except KeyboardInterrupt:  # while the command line was read
        _say_interrupted()
        _end_at_once()
    except BrokenPipeError:
        # The reader of our output went away (``| head``): nothing is wrong, and nobody is
        # listening.
        sys.stderr.close()
        sys.exit(0)


def _say_error(text: str) -> None:
    from rich.text import Text

    from gpusvm.cli.console import messages

    messages().print(Text("error:", style="bold red"), text, soft_wrap=True)


def _say_interrupted() -> None:
    from gpusvm.cli.console import messages

    messages().print("interrupted; results that were not finished are not written")


def _end_at_once() -> None:
    """End without winding up: threads may still be in a library, and it can crash under them."""
    # Not SIG_IGN: Python complains of a pending signal that it finds ignored.
    signal.signal(signal.SIGINT, lambda *_: None)
    remove_unfinished()
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))  # whoever reads our output may let us wait
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(INTERRUPTED)


def _is_want_of_memory(error: Exception) -> bool:
    """Whether Python got no memory for a thread's stack, or the loader none for a library."""
    return any(text in str(error) for text in ("can't start new thread", "failed to map segment"))


def _describe(error: Exception) -> str:
    """An error of gpusvm's says what to do; one of the system's is named with its file."""
    if isinstance(error, (MemoryError, RuntimeError, ImportError)):
        reason = " ".join(str(error).split()) or "an allocation failed"
        return f"not enough memory: {reason}; raise the limit (ulimit -v), free some, or take fewer samples (--limit)"
    if isinstance(error, OSError):
        where = error.filename or "standard output"
        return f"{where}: {error.strerror or error}; check that it can be read or written, and the space left there"
    return str(error)


if __name__ == "__main__":
    run()
