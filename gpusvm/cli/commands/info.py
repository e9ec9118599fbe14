"""Options of ``gpusvm info``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def info(
    model: Annotated[Path | None, typer.Argument(help="Describe this model file instead.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Show what this machine can run, and why not the rest; or what a model file holds."""
    from gpusvm.cli.info import describe_machine, describe_model

    if model is not None:
        describe_model(model, as_json)
    else:
        describe_machine(as_json)
