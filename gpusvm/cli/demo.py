"""What ``gpusvm demo`` does: write a page to draw on, and open it in the browser.

The page is for a model, or for one that is trained for it.
"""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path

from gpusvm.cli.console import messages
from gpusvm.cli.model_argument import load_named_model
from gpusvm.cli.model_samples import note_raw
from gpusvm.cli.progress import pair_progress
from gpusvm.data import default_source, load_dataset
from gpusvm.errors import UsageError
from gpusvm.estimators import SVC
from gpusvm.io.model_file import save_model
from gpusvm.io.output import check_writable
from gpusvm.io.web import require_pictures, title_of, write_page
from gpusvm.model import SVMModel
from gpusvm.training import recommended_parameters, steps_for, train_model


def run(model_file: Path | None, out: Path | None, backend: str, data_dir: Path | None, *, opens: bool) -> None:
    """Write a page to draw on, for the model at a path or for one that is trained.

    Where `opens`, it is opened in the browser.
    """
    if model_file is not None:
        page = out or model_file.with_suffix(".html")
        _check_paths(page, model_file)
        model = load_named_model(model_file)
        require_pictures(model)
        note_raw(messages(), model)
    else:
        model, page = _trained(out, backend, data_dir)
    write_page(model, page, title=title_of(model, page.stem))
    messages().print(f"Wrote {page} ({page.stat().st_size / 2**20:.1f} MB). {_opened(page, opens)}", soft_wrap=True)


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


def _opened(page: Path, opens: bool) -> str:
    """Open the page in the browser, where there is a screen; what to say of it."""
    if opens and _has_screen() and webbrowser.open(page.resolve().as_uri()):
        return "It opens in the browser; it needs no network."
    return "Open it in a browser; it needs no network."


def _has_screen() -> bool:
    """Whether a window can be seen: a text browser in the terminal could not show the page."""
    return sys.platform in ("win32", "darwin") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
