"""Ways to train, one a file, all with the same two verbs: ``probe()`` and ``fit()``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpusvm.lazy import lazily

if TYPE_CHECKING:
    from gpusvm.backends.registry import Choice, backend_names, choose_backend, get_backend, probe_all
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "registry": ("Choice", "backend_names", "choose_backend", "get_backend", "probe_all"),
        },
    )

__all__ = ["Choice", "backend_names", "choose_backend", "get_backend", "probe_all"]
