"""``gpusvm demo``: a page to draw on, of a model or of one that is trained for it, opened in the browser."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from gpusvm.backends.registry import backend_names
from gpusvm.cli.console import messages, note_raw, pair_progress
from gpusvm.cli.model_argument import load_named_model
from gpusvm.cli.options import DataDir
from gpusvm.data import default_source, load_dataset
from gpusvm.errors import UsageError
from gpusvm.estimators import SVC
from gpusvm.io.model_file import save_model
from gpusvm.io.output import check_writable
from gpusvm.io.web import require_pictures, title_of, write_page
from gpusvm.model import SVMModel
from gpusvm.training import recommended_parameters, steps_for, train_model


def demo(
    model_file: Annotated[
        Path | None,
        typer.Argument(metavar="model", help="Model file; if not given, one is trained.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The page; default: beside the model.", show_default=False)
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open it in the browser.")] = False,
    backend: Annotated[
        str, typer.Option(help=f"What trains: auto, {', '.join(backend_names())}; see gpusvm info.", metavar="NAME")
    ] = "native",
    data_dir: DataDir = None,
) -> None:
    """Write a page to draw on, and open it: of a model, or of one trained on MNIST's 60,000 digits."""
    if model_file is not None:
        page = out or model_file.with_suffix(".html")
        _check_paths(page, model_file)
        model = load_named_model(model_file)
        require_pictures(model)
        note_raw(messages(), model)
    else:
        model, page = _trained(out, backend, data_dir)
    write_page(model, page, title=title_of(model, page.stem))
    messages().print(f"Wrote {page} ({page.stat().st_size / 2**20:.1f} MB). {_opened(page, no_open)}", soft_wrap=True)


def _check_paths(page: Path, model: Path) -> None:
    if page.resolve() == model.resolve():
        raise UsageError(f"{page} is the model itself; name another file with --out")
    check_writable(page)


def _trained(out: Path | None, backend: str, data_dir: Path | None) -> tuple[SVMModel, Path]:
    """A model with probabilities, saved beside the page that is to be; and the page's path."""
    notes = messages()
    source, notice = default_source(data_dir, progress=True)
    if notice:
        notes.print(notice, soft_wrap=True)
    page = out or Path(f"{source}.html")
    path = page.with_suffix(".svm")
    _check_paths(page, path)
    check_writable(path)
    data = load_dataset(source, "train", data_dir=data_dir)
    notes.print(
        f"Training on the {len(data):,} images of {source}, and in folds of them for probabilities",
        soft_wrap=True,
    )
    svc = SVC(**recommended_parameters(source), backend=backend, probability=True)
    with pair_progress(notes) as progress:
        model = train_model(svc, data, steps_for(data), progress)
    save_model(model, path)
    notes.print(f"Model: {path}, trained in {model.provenance['fit_seconds']:.1f} s", soft_wrap=True)
    return model, page


def _opened(page: Path, no_open: bool) -> str:
    """Open the page in the browser, where there is a screen; what to say of it."""
    if not no_open and _has_screen() and webbrowser.open(page.resolve().as_uri()):
        return "It opens in the browser; it needs no network."
    return "Open it in a browser; it needs no network."


def _has_screen() -> bool:
    """Whether a window can be seen: a text browser in the terminal could not show the page."""
    return sys.platform in ("win32", "darwin") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
