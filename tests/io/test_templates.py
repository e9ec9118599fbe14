"""Pages are filled with what they ask for, escaped."""

from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from gpusvm.io.templates import filled

VALUES = {
    "version": "1", "facts": "", "edges": "", "has_gamma": True, "Cs": [], "map": [], "trials": []
}  # fmt: skip


def test_values_are_escaped_and_can_be_written():
    page = filled("report/templates", "search.html", title="<b>&\udcff", **VALUES)
    page.encode("utf-8")
    assert "<title>&lt;b&gt;&amp;?: search" in page


def test_a_value_that_is_missing_is_an_error():
    with pytest.raises(UndefinedError, match="'title' is undefined"):
        filled("report/templates", "search.html", **VALUES)
