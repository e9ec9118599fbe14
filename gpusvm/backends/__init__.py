"""Ways to train, one a file, all with the same two verbs: ``probe()`` and ``fit()``."""

from gpusvm.backends.registry import Choice, backend_names, choose_backend, get_backend, probe_all

__all__ = ["Choice", "backend_names", "choose_backend", "get_backend", "probe_all"]
