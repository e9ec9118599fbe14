"""Calls of CuPy in Python sources, held against the signatures of the CuPy that is installed.

A stand-in made of NumPy takes arguments that CuPy does not; CuPy itself imports without a driver.
`wrong_calls` reads a source and gives each name that CuPy lacks and each call that it would
refuse.

What is CuPy's is found from the names: ``cupy``, ``xp`` (of a function or an object),
``array_module(...)``, what is imported from CuPy, and what is assigned from these. Methods of
arrays are known by `ARRAY_METHODS`, whatever they are called on.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

_ARRAY_METHODS = """
    all any argmax argmin argpartition argsort astype cumsum max mean min nonzero prod ravel reshape std sum transpose
    var view
"""
ARRAY_METHODS = frozenset(_ARRAY_METHODS.split())
"""Methods that the GPU's path calls on arrays of either module: what it asks of them CuPy must
take."""


def wrong_calls(code: str, cupy: Any) -> list[str]:
    """``line: what is wrong`` for each name and call of CuPy that the CuPy given would refuse."""
    reader = _Reader(cupy)
    reader.visit(ast.parse(code))
    return reader.wrong


def n_calls(code: str, cupy: Any) -> int:
    """How many calls `wrong_calls` looks at."""
    reader = _Reader(cupy)
    reader.visit(ast.parse(code))
    return reader.checked


_Unknown = object()
"""What an expression is where it is not known."""


class _Instance:
    """An object of a class of CuPy's."""

    def __init__(self, kind: type) -> None:
        self.kind = kind


class _Reader(ast.NodeVisitor):
    def __init__(self, cupy: Any) -> None:
        self.cupy, self.wrong, self.checked = cupy, [], 0
        self.names: list[dict[str, Any]] = [{"cupy": cupy, "xp": cupy}]
        self.unresolved: set[tuple[int, str]] = set()

    # -- what names stand for ---------------------------------------------------------------------

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.names.append({})
        self.generic_visit(node)
        self.names.pop()

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if (node.module or "").partition(".")[0] in ("cupy", "cupyx"):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                if not hasattr(module, alias.name):
                    self.wrong.append(f"{node.lineno}: {node.module} has no {alias.name}")
                self.names[-1][alias.asname or alias.name] = getattr(module, alias.name, _Unknown)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name.partition(".")[0] in ("cupy", "cupyx"):
                module = importlib.import_module(alias.name)
                self.names[-1][alias.asname or alias.name.partition(".")[0]] = (
                    module if alias.asname else importlib.import_module(alias.name.partition(".")[0])
                )

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        if len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            self.names[-1][name] = self.cupy if name == "xp" else self.resolve(node.value)

    def resolve(self, node: ast.expr) -> Any:
        """What an expression is: an object of CuPy's, an `_Instance` of its class, or
        `_Unknown`."""
        if isinstance(node, ast.Name):
            return next((scope[node.id] for scope in reversed(self.names) if node.id in scope), _Unknown)
        if isinstance(node, ast.Attribute):
            if node.attr == "xp":
                return self.cupy
            owner = self.resolve(node.value)
            if owner is _Unknown:
                return _Unknown
            kind = owner.kind if isinstance(owner, _Instance) else owner
            if not hasattr(kind, node.attr):
                self.unresolved.add((node.lineno, f"{getattr(kind, '__name__', kind)} has no {node.attr}"))
                return _Unknown
            return getattr(kind, node.attr)
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id == "array_module":
                return self.cupy
            return self._result(self.resolve(node.func))
        if isinstance(node, ast.Subscript) and isinstance(self.resolve(node.value), _Instance):
            return self.resolve(node.value)
        return _Unknown

    def _result(self, called: Any) -> Any:
        if isinstance(called, type):
            return _Instance(called)
        if called is self.cupy.cuda.get_current_stream:
            return _Instance(self.cupy.cuda.Stream)
        if called is self.cupy.get_default_memory_pool:
            return _Instance(self.cupy.cuda.MemoryPool)
        gives_arrays = ("cupy._creation", "cupy._manipulation", "cupy._sorting", "cupy._math")
        if str(getattr(called, "__module__", "")).startswith(gives_arrays) or isinstance(called, self.cupy.ufunc):
            return _Instance(self.cupy.ndarray)
        return _Unknown

    # -- what is asked of them --------------------------------------------------------------------

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        self.unresolved.clear()
        self.resolve(node)
        for line, what in self.unresolved:
            if f"{line}: {what}" not in self.wrong:
                self.wrong.append(f"{line}: {what}")

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        called, is_method = self.resolve(node.func), False
        if called is _Unknown and isinstance(node.func, ast.Attribute) and node.func.attr in ARRAY_METHODS:
            if _is_numpys(node.func):
                return
            called, is_method = getattr(self.cupy.ndarray, node.func.attr, _Unknown), True
        elif isinstance(node.func, ast.Attribute):
            is_method = isinstance(self.resolve(node.func.value), _Instance)
        if called is _Unknown or isinstance(called, _Instance):
            return
        self.checked += 1
        try:
            _bind(called, node, is_method)
        except TypeError as error:
            self.wrong.append(f"{node.lineno}: {ast.unparse(node.func)}: {error}")


def _is_numpys(node: ast.expr) -> bool:
    """Whether an expression begins with NumPy's name: ``np.abs(a).max`` is no method of CuPy's."""
    while isinstance(node, ast.Attribute | ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return isinstance(node, ast.Name) and node.id in ("np", "numpy")


def _bind(called: Any, node: ast.Call, is_method: bool) -> None:
    """Raise TypeError where `called` would refuse the call's arguments."""
    signature = signature_of(called)
    starred = any(isinstance(argument, ast.Starred) for argument in node.args)
    double_starred = any(keyword.arg is None for keyword in node.keywords)
    positional = [argument for argument in node.args if not isinstance(argument, ast.Starred)]
    named = {keyword.arg: None for keyword in node.keywords if keyword.arg is not None}
    parameters = list(signature.parameters.values())
    if is_method and parameters and parameters[0].name == "self":
        signature = signature.replace(parameters=parameters[1:])
    bind = signature.bind_partial if starred or double_starred else signature.bind
    bind(*[None] * len(positional), **named)


@functools.cache
def signature_of(called: Any) -> inspect.Signature:
    """The signature of a function, class or ufunc of CuPy's; of compiled ones as their docstring
    begins.

    Raises ValueError where neither tells.
    """
    if type(called).__name__ != "ufunc":
        try:
            return inspect.signature(called)
        except (TypeError, ValueError):
            pass
    documented = re.match(r"[\w.]+\((.*?)\)(?: -> [^\n]*)?(?:\n|$)", called.__doc__ or "", re.DOTALL)
    if documented is None:
        raise ValueError(f"neither a signature nor a docstring that begins with one: {called!r}")
    kind, parameters = inspect.Parameter.POSITIONAL_OR_KEYWORD, []
    for text in _parts(documented[1]):
        if text.lstrip("\\") == "*":
            kind = inspect.Parameter.KEYWORD_ONLY
        elif text == "/":
            parameters = [p.replace(kind=inspect.Parameter.POSITIONAL_ONLY) for p in parameters]
        else:
            declared, _, default = text.partition("=")
            name = re.findall(r"\w+", declared.partition(":")[0])[-1]
            of_kind = kind
            if declared.startswith("**"):
                of_kind = inspect.Parameter.VAR_KEYWORD
            elif declared.startswith("*"):
                of_kind, kind = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.KEYWORD_ONLY
            empty = inspect.Parameter.empty
            parameters.append(inspect.Parameter(name, of_kind, default=default if default else empty))
    return inspect.Signature(parameters)


def _parts(text: str) -> Iterator[str]:
    """The parameters of a documented signature, split where no bracket is open."""
    depth, part = 0, ""
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            yield part.strip()
            part = ""
        else:
            part += letter
    if part.strip():
        yield part.strip()
