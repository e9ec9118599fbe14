"""Filling a template: what is put into it is escaped.

A value that a template asks for and does not get is an error.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def filled(folder: str, template: str, **values: Any) -> str:
    """The page that a template makes of values.

    Parameters
    ----------
    folder : str
        Of the templates, from the package on: "report/templates".
    template : str
        Its file name.
    **values
        What it is filled with. Each is escaped for HTML, unless the template says otherwise.

    Returns
    -------
    str
        Text that can be written as UTF-8: bytes of a file name that are not UTF-8 become question
        marks.
    """
    page = _environment(folder).get_template(template).render(values)
    return page.encode("utf-8", "replace").decode("utf-8")


@functools.cache
def _environment(folder: str) -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # only the pages need it

    return Environment(
        loader=PackageLoader("gpusvm", folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
