"""Rows of the kernel matrix on a CUDA device.

The samples are brought there once, in the form that suits them. The kernels of rows.cu multiply
them and turn the products into kernel values on the spot.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import partial
from itertools import pairwise
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from gpusvm.device import LARGE_BYTES, to_device, to_device_in_parts
from gpusvm.kernels import Array, Kernel, array_module, largest_entry, largest_norm, near_the_origin
from gpusvm.solver.cuda_kernels import source
from gpusvm.solver.operands import LARGEST_PIXEL, PIXEL_SCALES, quotient, take_whole_numbers, whole_numbers
from gpusvm.solver.sparse_samples import without_empty_features
from gpusvm.sparse import Sparse, is_sparse, most_entries, squared_norms, unpacked_if_smaller

THREADS = 256
"""Of every block; rows.cu has the same number."""

TILE_COLUMNS = 128
"""Columns of a block that multiplies dense samples."""

TILE_ROWS = {"rows_of_pixels": 128, "rows_by_tf32": 128, np.dtype(np.float32): 128, np.dtype(np.float64): 64}
"""Rows of such a block."""

HIGHEST = 65_535
"""Blocks of a grid in y."""

ALIGNMENT = 32
"""Bytes that a dense sample is padded to: a step of a matrix instruction."""

TOGETHER = 8
"""Rows of sparse samples that are multiplied at once."""

COPIED = 1024
"""Columns of a block that copies kernel values that were given."""

SCRATCH_BYTES = 64 * 2**20
"""Memory for rows of sparse samples with their zeros, if one group of `TOGETHER` does not take
more."""

BLOCK_BYTES = 64 * 2**20
"""Memory on the device for what is brought into another form at a time."""

MOST_CHUNKS = 2**32
"""Pieces of 16 bytes of all dense samples: they are counted in 32 bits, which reach for 64 GB."""

WHERE_TF32_IS_FASTER = frozenset({(8, 0), (9, 0), (10, 0), (10, 3)})
"""Devices whose tensor cores make three products of TF32 sooner than the other units make one of
float32: A100, H100 and B200. Those of desktop cards do not."""

EXPONENTIAL_UNITS = 4.0
"""By how many times its unit roundoff a float32 RBF value is off where its distance is exact:
CUDA's ``expf`` is off by two, and the rounded argument costs up to two more."""

COMPILED = (("float32", "float32"), ("float64", "float32"), ("float64", "float64"))
"""What rows.cu is compiled for: the type of products, and that of kernel values."""

_KINDS = {"linear": 0, "rbf": 1, "poly": 2, "sigmoid": 3}


def options(real: Any, dtype: Any) -> tuple[str, ...]:
    """What rows.cu is compiled with, for products and kernel values of these types."""
    names = {"float32": "float", "float64": "double"}
    return ("--std=c++17", f"-DREAL={names[np.dtype(real).name]}", f"-DVALUE={names[np.dtype(dtype).name]}")


class DeviceRows:
    """Computes rows of the kernel matrix of samples, which it keeps on the device.

    Parameters
    ----------
    X : (n_samples, n_features) array of NumPy or `xp`, uint8, float32 or float64; or CSR
        For a precomputed kernel, (n_samples, n_samples) kernel values. Neither kept nor written
        to. What is far from the origin goes through `kernels.near_the_origin` first. Pixels on the
        host travel as bytes.
    kernel : Kernel
    dtype : float32 or float64
        Of the kernel values.
    raw_module : callable
        ``cupy.RawModule``, or what stands for it.
    xp : module
        ``cupy``, or ``numpy`` for kernels that run on the host.
    capability : (int, int)
        The device's: what its tensor cores can do.
    pixels : Pixels, optional
        X as such, where somebody has looked.

    Attributes
    ----------
    products : str
        How inner products are taken: "int8", "tf32", "float32", "float64", "sparse float32",
        "sparse float64", "given".
    nbytes : int
        Memory that it holds on the device.
    largest_norm, largest_value : float
        Of the squared norms, and a bound on the kernel values.
    value_error : float
        The standard deviation of what rounding adds to a kernel value, at most:
        `Kernel.value_error`.
    work : float
        Multiplications for a kernel value.
    fits_float32 : bool
        Whether float32 has exponents for the values.

    Raises MemoryError where dense samples take more than 64 GB.
    """

    def __init__(
        self,
        X: Any,
        kernel: Kernel,
        dtype: Any,
        *,
        raw_module: Callable[..., Any],
        xp: ModuleType,
        capability: tuple[int, int],
        pixels: Pixels | None = None,
    ) -> None:
        self.kernel, self.dtype, self.xp = kernel, np.dtype(dtype), xp
        self.n = X.shape[0]
        self.form = _form_of(X, pixels, kernel, self.dtype, xp, capability)
        self.module = raw_module(code=source("rows.cu"), options=options(self.form.real, self.dtype))
        self.largest_norm = self.form.measure(self.module, kernel)
        self.largest_value = self.form.largest_value(kernel, self.largest_norm)
        self.products, self.work = self.form.products, float(self.form.work)
        self.everything = xp.arange(self.n, dtype=np.int32)
        self.nbytes = self.form.nbytes + self.everything.nbytes

    @property
    def fits_float32(self) -> bool:
        if self.kernel.precomputed:
            return bool(self.largest_value < np.finfo(np.float32).max)
        return self.kernel.fits_float32(self.largest_norm)

    @property
    def value_error(self) -> float:
        if self.kernel.precomputed:
            return float(np.finfo(self.dtype).eps) / 2 * self.largest_value
        if self.dtype == np.float32 and self.form.exact:
            norm = 0.0 if self.kernel.name == "rbf" else self.largest_norm
            return EXPONENTIAL_UNITS * self.kernel.value_error(norm, self.dtype)
        return self.kernel.value_error(self.largest_norm, self.dtype, self.form.summed)

    def of(self, kernel: Kernel) -> DeviceRows | None:
        """Rows of another kernel, of samples as they lie on the device.

        None where it wants them in another form.
        """
        if not self.form.suits(kernel):
            return None
        other = copy(self)
        other.kernel, other.largest_value = kernel, self.form.largest_value(kernel, self.largest_norm)
        return other

    def compute(self, samples: Array, slots: Array, out: Array, columns: Array | None = None) -> None:
        """Write kernel values of some samples with all.

        ``out[slots[i], c] = k(columns[samples[i]], columns[c])``. Only launches kernels: nothing
        is waited for, and nothing but launches depends on values on the device.

        Parameters
        ----------
        samples : (m,) int32 array
            Places in `columns` of the samples whose rows are wanted.
        slots : (m,) int32 array
            Where to write them, none twice.
        out : (capacity, width) array of `dtype`, C order
            Its first n columns are written, of the rows `slots`.
        columns : (n,) int32 array, optional
            Rows of X; all of them in their order where it is left out.
        """
        columns = self.everything if columns is None else columns
        assert out.dtype == self.dtype and out.shape[1] >= len(columns), (out.dtype, out.shape, len(columns))
        if len(samples) and len(columns):
            self.form.launch(self.module, self.kernel, samples, columns, slots, out)


class TrainingSamples:
    """The samples of one training, brought to the device once for any type of kernel values.

    Pixels travel as bytes, and the array that they came in stays where it is: their products are
    exact wherever the origin is. They are told from other samples, and made bytes, in one pass on
    the host, a part at a time. Other dense samples go to the device as they are, and near the
    origin there; CSR stays on the host.

    Parameters
    ----------
    X : (n_samples, n_features) array of NumPy or `xp`, float32 or float64; or CSR
        For a precomputed kernel, (n_samples, n_samples) kernel values.
    kernel : Kernel
    make_rows : callable
        ``make_rows(X, kernel, dtype)`` gives `DeviceRows`; of pixels it is told by the name
        `pixels`.
    xp : module
        The device's.
    n_threads : int
        Of the host, for that pass.

    Attributes
    ----------
    X : (n_samples, n_features) array or CSR
        What the kernel is to be taken of.
    """

    def __init__(
        self, X: Any, kernel: Kernel, make_rows: Callable[..., Any], xp: ModuleType, n_threads: int = 1
    ) -> None:
        self._make_rows, self._made, self._known = make_rows, dict[np.dtype, Any](), dict[str, Any]()
        self.X = unpacked_if_smaller(X)
        if is_sparse(self.X):
            return
        pixels = None if kernel.precomputed else pixels_of(self.X, xp, n_threads)
        if pixels is not None:
            self._known["pixels"] = Pixels(_brought(pixels.numbers, xp), pixels.scale)
        else:
            self.X = near_the_origin(_brought(self.X, xp), kernel)

    def rows(self, X: Any, kernel: Kernel, dtype: Any) -> Any:
        """`DeviceRows` of these samples, for a kernel of the same name; X is the attribute."""
        assert X is self.X
        made = self._made.pop(np.dtype(dtype), None)
        if made is not None and made.kernel != kernel:
            made = made.of(kernel)
        if made is None:
            made = self._make_rows(X, kernel, np.dtype(dtype), **self._known)
        self._made[np.dtype(dtype)] = made
        return made


class _Form(ABC):
    """Samples in the form that some kernels of rows.cu take.

    Attributes
    ----------
    real : dtype
        What products are taken in where they are not of whole numbers.
    exact : bool
        Whether products are as good as exact beside float32.
    work : float
        Multiplications for a product.
    summed : int
        As for `Kernel.value_error`.
    """

    products: str
    real: np.dtype
    exact: bool
    work: float
    summed = 1
    nbytes: int

    @abstractmethod
    def measure(self, module: Any, kernel: Kernel) -> float:
        """Compute what kernels need to know of each sample; returns the largest squared norm."""

    def largest_value(self, kernel: Kernel, norm: float) -> float:
        return kernel.largest_value(norm)

    @abstractmethod
    def suits(self, kernel: Kernel) -> bool:
        """Whether the form of the samples, and what is known of each, serve this kernel too."""

    @abstractmethod
    def launch(self, module: Any, kernel: Kernel, samples: Array, columns: Array, slots: Array, out: Array) -> None:
        """Compute rows; of one sample and one column at least."""


def _form_of(
    X: Any, pixels: Pixels | None, kernel: Kernel, dtype: np.dtype, xp: ModuleType, capability: tuple[int, int]
) -> _Form:
    if kernel.precomputed:
        return _Given(X, xp)
    if is_sparse(X):
        return _Nonzeros(X, kernel, dtype, xp)
    pixels = pixels or pixels_of(X, xp)
    if pixels is not None:
        return _Pixels(*pixels, dtype, xp)
    return _Reals(X, kernel, dtype, capability in WHERE_TF32_IS_FASTER, xp)


def _product_dtype(kernel: Kernel, norm: float, dtype: np.dtype) -> np.dtype:
    """The dtype of products, for squared norms up to `norm` and kernel values of `dtype`."""
    return np.dtype(dtype if dtype == np.float64 else kernel.product_dtype(norm))


def _function(kernel: Kernel, scale: float = 1.0) -> tuple[Any, ...]:
    """The arguments that say which kernel, of samples times `scale`."""
    unit = 1.0 / scale**2
    slope = unit if kernel.name == "linear" else kernel.gamma * unit
    return np.int32(_KINDS[kernel.name]), np.int32(kernel.degree), np.float64(slope), np.float64(kernel.coef0)


def _brought(array: Any, xp: ModuleType) -> Array:
    """The array, of NumPy or of the device, as one of the device."""
    return np.asarray(array) if xp is np else to_device(array)


def _blocks(n: int, row_bytes: int) -> list[slice]:
    """The rows 0 to n in parts of about `BLOCK_BYTES`."""
    size = max(1, BLOCK_BYTES // max(1, row_bytes))
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


# -- dense samples --------------------------------------------------------------------------------


class Pixels(NamedTuple):
    """Samples as pixels: `numbers` (n, d) uint8, of the host or the device, over `scale`."""

    numbers: Array
    scale: float


def pixels_of(X: Array, xp: ModuleType, n_threads: int = 1) -> Pixels | None:
    """X (n, d) as pixels; None where it holds something else, or products do not fit int32.

    Of something else few rows are looked at. Pixels of a large array of the host are brought to
    the device as they are found.
    """
    if not X.size or X.shape[1] * LARGEST_PIXEL**2 > np.iinfo(np.int32).max:
        return None
    if X.dtype == np.uint8:
        return Pixels(X, 1.0)
    for scale in PIXEL_SCALES:
        if array_module(X) is not np:
            found = _whole_numbers_on_device(X, scale, xp)
        elif xp is np or X.size < LARGE_BYTES:
            found = whole_numbers(X, scale)
        else:
            looks_so = whole_numbers(X[:64], scale) is not None  # before anything is made ready for all
            found = _whole_numbers_to_device(X, scale, n_threads) if looks_so else None
        if found is not None:
            return Pixels(found, scale)
    return None


def _whole_numbers_to_device(X: np.ndarray, scale: float, n_threads: int) -> Array | None:
    """As `operands.whole_numbers`, made by some threads, and brought to the device."""
    numbers = quotient(scale, X.dtype)
    with ThreadPoolExecutor(max(1, n_threads - 1)) as pool:

        def make(rows: slice, into: np.ndarray) -> bool:
            part, bounds = X[rows], np.linspace(0, len(into), n_threads + 1).astype(int).tolist()
            own, *others = (slice(*pair) for pair in pairwise(bounds))
            made = [pool.submit(partial(take_whole_numbers, part[band], *numbers, into[band])) for band in others]
            are_pixels = take_whole_numbers(part[own], *numbers, into[own])
            return all((are_pixels, *(each.result() for each in made)))

        return to_device_in_parts(X.shape, np.uint8, make)


def _whole_numbers_on_device(X: Array, scale: float, xp: ModuleType) -> Array | None:
    """As `operands.whole_numbers`, for an array on the device; looks at some rows before all."""
    factor = X.dtype.type(scale)
    pixels = xp.empty(X.shape, dtype=np.uint8)
    for rows in [slice(0, min(64, len(X))), *_blocks(len(X), 4 * X.itemsize * X.shape[1])]:
        part = X[rows]
        whole = xp.rint(part * factor)
        if not bool(((whole >= 0) & (whole <= LARGEST_PIXEL) & (whole / factor == part)).all()):
            return None
        pixels[rows] = whole.astype(np.uint8)
    return pixels


class _Dense(_Form):
    """Samples in rows of `pitch` bytes, without the features that none of them has."""

    name: str
    scale = 1.0

    def pack(self, X: Array, dtype: Any, xp: ModuleType) -> None:
        """Bring X (n, d) into rows of `dtype`, converted by `convert`, zeros behind them."""
        n, itemsize = X.shape[0], np.dtype(dtype).itemsize
        present = xp.flatnonzero((X != 0).any(axis=0)) if X.size else xp.zeros(0, dtype=np.int64)
        self.n_features = self.work = len(present)
        self.pitch = max(ALIGNMENT, -(-self.n_features * itemsize // ALIGNMENT) * ALIGNMENT)
        if n * self.pitch // 16 >= MOST_CHUNKS:
            raise MemoryError(f"{n:,} samples of {self.n_features:,} features take more than 64 GB on the device")
        self.X = xp.zeros((n, self.pitch // itemsize), dtype=dtype)
        for rows in _blocks(n, self.pitch):
            self.X[rows, : self.n_features] = self.convert(X[rows][:, present])
        self.nbytes = self.X.nbytes

    @abstractmethod
    def convert(self, part: Array) -> Array:
        """Features in the form that is kept."""

    def measured(self, module: Any, name: str, terms: Array, xp: ModuleType, *flags: Any) -> float:
        """Launch a kernel that writes each sample's terms; returns the largest squared norm."""
        self.terms, norms = terms, xp.zeros(len(self.X), dtype=np.float64)
        self.nbytes += terms.nbytes
        if not len(self.X):
            return 0.0
        arguments = np.int32(len(self.X)), np.int32(self.n_features), self.X, np.int64(self.pitch)
        blocks = -(-len(self.X) // (THREADS // 32))
        module.get_function(name)((blocks,), (THREADS,), (*arguments, *flags, terms, norms))
        return float(norms.max()) / self.scale**2

    def launch(self, module: Any, kernel: Kernel, samples: Array, columns: Array, slots: Array, out: Array) -> None:
        m, n = len(samples), len(columns)
        rows = TILE_ROWS[self.real] if self.name == "rows_of_reals" else TILE_ROWS[self.name]
        high = min(-(-n // TILE_COLUMNS), HIGHEST)
        grid = -(-m // rows), high, -(-n // (TILE_COLUMNS * high))
        sizes, lists = (np.int32(m), np.int32(n)), (samples, columns, slots)
        data = self.X, np.int64(self.pitch), self.terms
        arguments = (*sizes, *lists, *data, *_function(kernel, self.scale), out, np.int64(out.shape[1]))
        module.get_function(self.name)(grid, (THREADS,), arguments)


class _Pixels(_Dense):
    """Pixels, kept as signed bytes of 128 less.

    Their distances are those of the pixels, and no byte overflows.
    """

    name, products, exact = "rows_of_pixels", "int8", True

    def __init__(self, pixels: Array, scale: float, dtype: np.dtype, xp: ModuleType) -> None:
        self.scale, self.real, self.xp = scale, dtype, xp
        self.pack(_brought(pixels, xp), np.int8, xp)

    def convert(self, part: Array) -> Array:
        return (part ^ np.uint8(128)).view(np.int8)

    def suits(self, kernel: Kernel) -> bool:
        return (kernel.name == "rbf") == self.is_rbf

    def measure(self, module: Any, kernel: Kernel) -> float:
        self.is_rbf = kernel.name == "rbf"
        terms = self.xp.zeros(len(self.X), dtype=np.int32)
        return self.measured(module, "measure_pixels", terms, self.xp, np.int32(self.is_rbf))


class _Reals(_Dense):
    """float32 or float64 samples."""

    def __init__(self, X: Array, kernel: Kernel, dtype: np.dtype, by_tf32: bool, xp: ModuleType) -> None:
        self.norm, self.dtype, self.xp = largest_norm(X), dtype, xp
        self.real = _product_dtype(kernel, self.norm, dtype)
        self.exact = self.real == np.float64
        by_tf32 = by_tf32 and not self.exact
        self.name, self.products = ("rows_by_tf32", "tf32") if by_tf32 else ("rows_of_reals", self.real.name)
        self.pack(_brought(X.astype(self.real, copy=False), xp), self.real, xp)
        self.summed = self.n_features

    def suits(self, kernel: Kernel) -> bool:
        return _product_dtype(kernel, self.norm, self.dtype) == self.real

    def convert(self, part: Array) -> Array:
        return part

    def measure(self, module: Any, kernel: Kernel) -> float:
        return self.measured(module, "measure_reals", self.xp.zeros(len(self.X), dtype=self.real), self.xp)


# -- other samples --------------------------------------------------------------------------------


class _Nonzeros(_Form):
    """Sparse samples, without the features that none of them has.

    There is memory for some of them with their zeros.
    """

    def __init__(self, X: Sparse, kernel: Kernel, dtype: np.dtype, xp: ModuleType) -> None:
        X = without_empty_features(X)
        norms = squared_norms(X.astype(np.float64))
        self.norm, self.dtype = float(norms.max(initial=0.0)), dtype
        self.real = _product_dtype(kernel, self.norm, dtype)
        self.exact, self.products = self.real == np.float64, f"sparse {self.real.name}"
        self.summed = most_entries(X)
        self.starts = _brought(X.indptr.astype(np.int64), xp)
        self.features = _brought(X.indices.astype(np.int32), xp)
        self.values = _brought(X.data.astype(self.real), xp)
        self.terms = _brought(norms.astype(self.real), xp)
        group = max(1, X.shape[1]) * TOGETHER
        self.n_groups = max(1, min(SCRATCH_BYTES // (group * self.real.itemsize), -(-X.shape[0] // TOGETHER)))
        self.n_features, self.work = max(1, X.shape[1]), X.nnz / max(1, X.shape[0])
        self.unpacked = xp.zeros(self.n_groups * group, dtype=self.real)
        held = self.starts, self.features, self.values, self.terms, self.unpacked
        self.nbytes = sum(array.nbytes for array in held)

    def suits(self, kernel: Kernel) -> bool:
        return _product_dtype(kernel, self.norm, self.dtype) == self.real

    def measure(self, module: Any, kernel: Kernel) -> float:
        return self.norm

    def launch(self, module: Any, kernel: Kernel, samples: Array, columns: Array, slots: Array, out: Array) -> None:
        spread, multiply = (module.get_function(name) for name in ("spread_nonzeros", "rows_of_nonzeros"))
        data = self.starts, self.features, self.values, np.int64(self.n_features)
        n, step = len(columns), self.n_groups * TOGETHER
        for start in range(0, len(samples), step):
            part, into = samples[start : start + step], slots[start : start + step]
            m = len(part)
            blocks = -(-m // TOGETHER) * -(-n // THREADS)
            spread((m,), (THREADS,), (part, columns, *data, np.int32(0), self.unpacked))
            sizes, lists = (np.int32(m), np.int32(n)), (part, columns, into)
            arguments = (*sizes, *lists, *data, self.unpacked, self.terms, *_function(kernel))
            multiply((blocks,), (THREADS,), (*arguments, out, np.int64(out.shape[1])))
            spread((m,), (THREADS,), (part, columns, *data, np.int32(1), self.unpacked))


class _Given(_Form):
    """Kernel values."""

    products, exact, work = "given", False, 1.0

    def __init__(self, K: Array, xp: ModuleType) -> None:
        self.real = np.dtype(np.float64 if K.dtype == np.float64 else np.float32)
        self.largest = largest_entry(K) if K.size else 0.0
        self.K = xp.ascontiguousarray(_brought(K.astype(self.real, copy=False), xp))
        self.nbytes = self.K.nbytes

    def suits(self, kernel: Kernel) -> bool:
        return kernel.precomputed

    def measure(self, module: Any, kernel: Kernel) -> float:
        return 0.0

    def largest_value(self, kernel: Kernel, norm: float) -> float:
        return self.largest

    def launch(self, module: Any, kernel: Kernel, samples: Array, columns: Array, slots: Array, out: Array) -> None:
        blocks = len(samples) * -(-len(columns) // COPIED)
        lists = np.int32(len(columns)), samples, columns, slots
        arguments = (*lists, self.K, np.int64(self.K.shape[1]), out, np.int64(out.shape[1]))
        module.get_function("rows_as_given")((blocks,), (THREADS,), arguments)
