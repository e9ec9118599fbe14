"""Rows of the kernel matrix from rows.cu, compiled by g++ against the shim: every way of taking
products, every kernel, against float64 on fresh random samples; and a barrier left out is
noticed."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy import sparse

from gpusvm import device
from gpusvm.kernels import MOST_SPREAD, Kernel, largest_norm
from gpusvm.solver import cuda_rows
from gpusvm.solver.cuda_kernels import source
from gpusvm.solver.cuda_rows import DeviceRows, _whole_numbers_on_device, pixels_of
from tests.fake_cuda import FakeArray, FakeCupy, install
from tests.solver.cuda_shim.build import Module, barrier_lines, needs_compiler

pytestmark = needs_compiler

A100, T4, DESKTOP = (8, 0), (7, 5), (12, 0)

KERNELS = [
    Kernel("rbf", gamma=0.02),
    Kernel("linear"),
    Kernel("poly", gamma=0.03, degree=3, coef0=0.5),
    Kernel("sigmoid", gamma=0.01, coef0=-0.2),
]


def make_rows(X, kernel, dtype, capability=A100, *, seed=0, skipped_line=0, xp=np):
    """DeviceRows of NumPy and the shim, which is the device that `capability` says."""
    arch = f"-D__CUDA_ARCH__={100 * capability[0] + 10 * capability[1]}"

    def raw_module(code, options):
        return Module(code, (*options, arch), seed=seed, skipped_line=skipped_line)

    return DeviceRows(X, kernel, dtype, raw_module=raw_module, xp=xp, capability=capability)


def pixels(rng, n, d, dtype=np.float32):
    """Scaled pixels, half of them black, two features in all samples."""
    drawn = rng.integers(0, 256, (n, d)) * (rng.random((n, d)) < 0.5)
    drawn[:, :: max(1, d // 2)] = 0
    return (drawn.astype(dtype) / dtype(255)).astype(dtype)


def reals(rng, n, d, dtype=np.float32):
    return rng.normal(size=(n, d)).astype(dtype)


def nonzeros(rng, n, d, dtype=np.float32):
    """Sparse samples, among them one without an entry, and a feature that none has."""
    X = reals(rng, n, d, dtype) * (rng.random((n, d)) < 0.2)
    X[n // 2] = 0
    X[:, d // 3] = 0
    return sparse.csr_array(X)


WAYS = {
    "int8": (pixels, np.float32, A100),
    "int8 of a T4": (pixels, np.float32, T4),
    "int8 in float64": (partial(pixels, dtype=np.float64), np.float64, A100),
    "tf32": (reals, np.float32, A100),
    "float32": (reals, np.float32, DESKTOP),
    "float32 of a T4": (reals, np.float32, T4),
    "float64": (partial(reals, dtype=np.float64), np.float64, A100),
    "float64 of a T4": (partial(reals, dtype=np.float64), np.float64, T4),
    "sparse float32": (nonzeros, np.float32, A100),
    "sparse float64": (partial(nonzeros, dtype=np.float64), np.float64, A100),
}


def dense64(X):
    return np.asarray(X.toarray() if sparse.issparse(X) else X, dtype=np.float64)


def reference(X, kernel, places, columns):
    """Kernel values in float64, of what X is in float64."""
    X = dense64(X)[columns]
    return kernel(X[places], X)


def compute(rows, places, slots, capacity, columns, width):
    """`rows.compute` into an array of NaN."""
    out = np.full((capacity, width), np.nan, dtype=rows.dtype)
    rows.compute(places.astype(np.int32), slots.astype(np.int32), out, columns.astype(np.int32))
    return out


@pytest.mark.parametrize("way", [way for way in WAYS if "T4" not in way])
@pytest.mark.parametrize("kernel", [KERNELS[0], KERNELS[2]], ids=lambda kernel: kernel.name)
def test_rows_of_another_kernel_are_those_made_anew(way, kernel, rng):
    """Of samples that stay as they are: to the last bit."""
    make, dtype, capability = WAYS[way]
    X, other = make(rng, 30, 9), replace(kernel, gamma=3 * kernel.gamma, degree=2)
    rows, anew = make_rows(X, kernel, dtype, capability).of(other), make_rows(X, other, dtype, capability)
    assert (rows.largest_value, rows.value_error) == (anew.largest_value, anew.value_error)
    everything = np.arange(30)
    found, expected = (compute(r, everything[:5], everything[:5], 5, everything, 30) for r in (rows, anew))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("make", "kernel", "other"),
    [
        (pixels, Kernel("rbf", 0.02), Kernel("linear")),  # of distances other numbers are known than of products
        (reals, Kernel("rbf", 0.02), Kernel("rbf", 1e4)),  # whose products are taken in float64
        (nonzeros, Kernel("rbf", 0.02), Kernel("rbf", 1e4)),
    ],
)
def test_a_kernel_that_wants_samples_in_another_form_says_so(make, kernel, other, rng):
    assert make_rows(make(rng, 20, 9), kernel, np.float32).of(other) is None


def allowed(rows, d):
    """How far off a value may be: each of d products is rounded once it is added up, at random."""
    return (4 + d**0.5) * rows.value_error


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("way", WAYS)
def test_rows_are_those_of_float64(way, kernel, rng):
    make, dtype, capability = WAYS[way]
    for n, d, n_columns, m in [(140, 45, 131, 7), (60, 23, 60, 1), (7, 3, 5, 5), (50, 300, 37, 4)]:
        X = make(rng, n, d)
        rows = make_rows(X, kernel, dtype, capability)
        assert rows.products == way.removesuffix(" of a T4").removesuffix(" in float64")
        columns, places = rng.permutation(n)[:n_columns], rng.permutation(n_columns)[:m]
        slots = rng.permutation(m + 3)[:m]
        out = compute(rows, places, slots, m + 3, columns, n_columns + 2)
        expected = reference(X, kernel, places, columns)
        np.testing.assert_allclose(out[slots, :n_columns], expected, rtol=0, atol=allowed(rows, d))
        others = np.setdiff1d(np.arange(m + 3), slots)
        assert np.isnan(out[others]).all() and np.isnan(out[:, n_columns:]).all(), "other places were written to"


@pytest.mark.parametrize("kernel", KERNELS[:3], ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("way", ["tf32", "float32", "float64", "sparse float32"])
def test_no_value_is_further_off_than_value_error_says(way, kernel, rng):
    """Of many features, where rounding adds up, most of all where all products are positive."""
    make, dtype, capability = WAYS[way]
    for d in (10, 784):
        X = make(rng, 30, d)
        X = abs(X) if sparse.issparse(X) else X * X.dtype.type(0.1) + X.dtype.type(1)
        kernel = replace(kernel, gamma=1.0 / largest_norm(X)) if kernel.name != "rbf" else Kernel("rbf", 1.0 / d)
        rows, places = make_rows(X, kernel, dtype, capability), np.arange(9)
        out = compute(rows, places, places, 9, np.arange(30), 30)
        off = np.abs(out - reference(X, kernel, places, np.arange(30)))
        assert off.max() <= MOST_SPREAD * rows.value_error and np.sqrt(np.mean(off**2)) <= rows.value_error


@pytest.mark.parametrize("way", WAYS)
def test_several_tiles_of_rows_and_columns(way, rng):
    make, dtype, capability = WAYS[way]
    X = make(rng, 300, 10)
    rows, columns = make_rows(X, KERNELS[0], dtype, capability), rng.permutation(300)[:259]
    places = rng.permutation(259)[:133]
    out = compute(rows, places, np.arange(133), 133, columns, 259)
    np.testing.assert_allclose(out, reference(X, KERNELS[0], places, columns), rtol=0, atol=allowed(rows, 10))


@pytest.mark.parametrize("way", WAYS)
def test_every_depth_of_samples(way, rng):
    """Features fill stages of 64 bytes wholly, by half, and up to one more than are on their way
    at once."""
    make, dtype, capability = WAYS[way]
    itemsize = 1 if way.startswith("int8") else np.dtype(dtype).itemsize
    for n_bytes in range(32, 289, 32):
        X = make(rng, 9, n_bytes // itemsize + 4)
        rows = make_rows(X, KERNELS[1], dtype, capability)
        out = compute(rows, np.arange(9), np.arange(9), 9, np.arange(9), 9)
        expected = reference(X, KERNELS[1], np.arange(9), np.arange(9))
        np.testing.assert_allclose(out, expected, rtol=0, atol=allowed(rows, X.shape[1]))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_threads_does_not_matter(way, seed, rng):
    make, dtype, capability = WAYS[way]
    X, places, columns = make(rng, 140, 210), np.arange(5), np.arange(140)
    first, second = (
        compute(make_rows(X, KERNELS[0], dtype, capability, seed=s), places, places, 5, columns, 140) for s in (0, seed)
    )
    assert np.array_equal(first, second)


SOURCE = source("rows.cu")


@pytest.mark.parametrize("line", barrier_lines(SOURCE))
def test_a_barrier_left_out_is_noticed(line, rng):
    """Whoever writes to shared memory too early or reads it too soon makes other values, in some
    order of threads."""
    of_warp = "__syncwarp" in SOURCE.splitlines()[line - 1]
    ways = ["sparse float32"] if of_warp else ["int8", "float32 of a T4"]
    for way in ways:
        make, dtype, capability = WAYS[way]
        X, places, columns = make(rng, 140, 400), np.arange(70), np.arange(140)
        right, *others = (
            compute(
                make_rows(X, KERNELS[0], dtype, capability, seed=seed, skipped_line=skipped),
                places, places, 70, columns, 140,
            )
            for seed, skipped in [(0, 0), (1, line), (2, line)]
        )  # fmt: skip
        assert any(not np.array_equal(right, other) for other in others), f"{way}: nothing depends on it"


def test_products_of_pixels_are_exact(rng):
    """The value of every kernel is that of the exact product, rounded once or twice."""
    whole = rng.integers(0, 256, (40, 784)).astype(np.uint8)
    whole[0], whole[1] = 255, 0
    places = np.arange(40)
    for kernel in (Kernel("linear"), Kernel("rbf", gamma=1e-7)):
        rows = make_rows(whole, kernel, np.float64)
        out = compute(rows, places, places, 40, places, 40)
        np.testing.assert_allclose(out, reference(whole, kernel, places, places), rtol=1e-15)
        assert rows.products == "int8" and rows.largest_norm == 784 * 255**2


@pytest.mark.parametrize("scale", [1.0, 16.0, 255.0])
def test_pixels_are_recognised_wherever_they_are(scale, rng):
    drawn = rng.integers(0, 17, (200, 30))
    X = drawn.astype(np.float32) / np.float32(scale)
    assert make_rows(X, KERNELS[0], np.float32).products == "int8"
    assert np.array_equal(_whole_numbers_on_device(X, scale, np), drawn)
    for wrong in (-1 / scale, 0.7 / scale, 256 / scale, np.nan):
        other = X.copy()
        other[150, 7] = wrong
        assert make_rows(other, KERNELS[0], np.float32).products != "int8"
        assert _whole_numbers_on_device(other, scale, np) is None


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("part_rows", [1, 7, 64, 1000])
def test_pixels_of_a_large_array_go_to_the_device_in_parts(part_rows, n_threads, rng, monkeypatch):
    """All of them, whatever is in the way; one number that is none, wherever it is, keeps them
    from it."""
    cupy = install(monkeypatch)
    monkeypatch.setattr(cuda_rows, "LARGE_BYTES", 1)
    monkeypatch.setattr(device, "PART_BYTES", part_rows * 30)
    for scale, largest in ((255.0, 255), (1.0, 255), (16.0, 16)):
        drawn = rng.integers(0, largest + 1, (200, 30)).astype(np.uint8)
        drawn[3, 4] = 5  # of a sixteenth nothing is taken for other pixels
        for dtype in (np.float32, np.float64):
            X = drawn.astype(dtype) / dtype(scale)
            found = pixels_of(X, cupy, n_threads)
            assert found.scale == scale and type(found.numbers) is FakeArray
            assert np.array_equal(found.numbers.get(), drawn)
            for row in (0, 100, 199):
                other = X.copy()
                other[row, 29] = 0.3 / scale
                assert pixels_of(other, cupy, n_threads) is None


@pytest.mark.parametrize(
    ("way", "where"),
    [(way, where) for way in WAYS for where in ("host", "device") if where == "host" or "sparse" not in way],
)
def test_arrays_of_the_host_and_of_the_device_are_kept_apart(way, where, rng, monkeypatch):
    """CuPy refuses them together, and so does what stands for it."""
    make, dtype, capability = WAYS[way]
    X, cupy = make(rng, 70, 12), FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    if where == "device":
        X = X.view(FakeArray)
    rows = make_rows(X, KERNELS[0], dtype, capability, xp=cupy)
    samples, slots, columns = (cupy.asarray(np.int32(places)) for places in ([3, 60], [1, 0], np.arange(70)))
    out = cupy.zeros((2, 70), dtype=dtype)
    rows.compute(samples, slots, out, columns)
    expected = reference(X, KERNELS[0], np.array([60, 3]), np.arange(70))
    np.testing.assert_allclose(out.get(), expected, rtol=0, atol=allowed(rows, 12))
    assert rows.products == way.removesuffix(" of a T4").removesuffix(" in float64")


@pytest.mark.parametrize("way", WAYS)
def test_no_value_of_rbf_exceeds_one(way, rng):
    """Rounding makes distances of equal samples negative."""
    make, dtype, capability = WAYS[way]
    X, places = make(rng, 40, 150), np.repeat(np.arange(40), 2)
    out = compute(make_rows(X, KERNELS[0], dtype, capability), places, np.arange(80), 80, np.arange(40), 40)
    assert out.min() >= 0 and out.max() <= 1


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("way", [way for way in WAYS if not way.endswith("T4")])
def test_a_device_computes_the_same(way, kernel, rng):
    import cupy

    make, dtype, capability = WAYS[way]
    for n, d, m in [(7, 3, 5), (1500, 45, 300), (3000, 784, 129)]:
        X = make(rng, n, d)
        rows = DeviceRows(X, kernel, dtype, raw_module=cupy.RawModule, xp=cupy, capability=capability)
        places = rng.permutation(n)[:m].astype(np.int32)
        out = cupy.zeros((m, n), dtype=dtype)
        rows.compute(cupy.asarray(places), cupy.arange(m, dtype=np.int32), out)
        expected = reference(X, kernel, places, np.arange(n))
        np.testing.assert_allclose(out.get(), expected, rtol=0, atol=allowed(rows, d))


def test_three_products_of_tf32_are_as_fine_as_one_of_float32(rng):
    for shift in (0.0, 1.0):
        X, places = reals(rng, 60, 500) + np.float32(shift), np.arange(60)
        expected = reference(X, Kernel("linear"), places, places)
        errors = {}
        for capability in (A100, DESKTOP):
            rows = make_rows(X, Kernel("linear"), np.float32, capability)
            out = compute(rows, places, places, 60, places, 60)
            errors[rows.products] = np.sqrt(np.mean((out - expected) ** 2))
        assert errors["tf32"] <= errors["float32"]


def test_products_are_taken_in_float64_where_float32_is_too_coarse(rng):
    X, places = reals(rng, 50, 20), np.arange(50)
    coarse, fine = (make_rows(X, Kernel("rbf", gamma=gamma), np.float32) for gamma in (0.1, 2.0))
    assert (coarse.products, fine.products) == ("tf32", "float64") and fine.dtype == np.float32
    out = compute(fine, places, places, 50, places, 50)
    np.testing.assert_allclose(out, reference(X, fine.kernel, places, places), rtol=0, atol=fine.value_error)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_given_kernel_values_are_copied(dtype, rng):
    K = rng.normal(size=(30, 30))
    K = K @ K.T
    rows = make_rows(K, Kernel("precomputed"), dtype)
    columns, places = rng.permutation(30)[:21], rng.permutation(21)[:6]
    out = compute(rows, places, np.arange(6), 6, columns, 21)
    assert np.array_equal(out, K[columns][:, columns][places].astype(dtype))
    assert rows.largest_value == np.abs(K).max() and rows.products == "given" and rows.fits_float32


def test_sparse_rows_are_multiplied_in_parts_where_memory_is_short(rng, monkeypatch):
    X, places = nonzeros(rng, 300, 50), rng.permutation(300)[:77]
    whole = make_rows(X, KERNELS[0], np.float32)
    monkeypatch.setattr(cuda_rows, "SCRATCH_BYTES", 3 * 8 * 50 * 4)
    parts = make_rows(X, KERNELS[0], np.float32)
    columns = np.arange(300)
    first, second = (compute(rows, places, np.arange(77), 77, columns, 300) for rows in (whole, parts))
    assert np.array_equal(first, second) and parts.nbytes < whole.nbytes
    np.testing.assert_allclose(first, reference(X, KERNELS[0], places, columns), rtol=0, atol=allowed(whole, 50))
    assert not parts.form.unpacked.any(), "the next rows would begin with these"


@pytest.mark.parametrize("way", ["int8", "tf32", "float32", "float64", "sparse float32"])
def test_more_columns_than_a_grid_is_high(way, rng, monkeypatch):
    monkeypatch.setattr(cuda_rows, "HIGHEST", 3)
    make, dtype, capability = WAYS[way]
    few, many, places = make(rng, 5, 4), np.arange(1300) % 5, np.array([1299, 3])
    rows = make_rows(few, KERNELS[0], dtype, capability)
    out = compute(rows, places, np.arange(2), 2, many, 1301)
    expected = reference(few, KERNELS[0], np.arange(5), np.arange(5))[many[places]][:, many]
    np.testing.assert_allclose(out[:, :1300], expected, rtol=0, atol=allowed(rows, 4))
    assert np.isnan(out[:, 1300]).all()


def test_more_than_65535_rows_and_columns(rng):
    few, many = pixels(rng, 5, 4), np.arange(65_700) % 5
    rows = make_rows(few, KERNELS[0], np.float32)
    for places, columns in ((np.array([65_699, 3]), many), (np.arange(65_700), many[:1])):
        out = compute(rows, places % len(columns), np.arange(len(places)), len(places), columns, len(columns))
        values = reference(few, KERNELS[0], np.arange(5), np.arange(5))
        expected = values[columns[places % len(columns)]][:, columns]
        np.testing.assert_allclose(out, expected, rtol=0, atol=allowed(rows, 4))


def test_rows_lie_beyond_the_reach_of_32_bits(tmp_path, rng):
    """A file of which only a few pages are written stands for 9 GB of a device."""
    width, capacity = 70_000, 32_000
    out = np.memmap(tmp_path / "rows", dtype=np.float32, mode="w+", shape=(capacity, width))
    assert out.size > 2**31
    places, slots, columns = (
        np.arange(3, dtype=np.int32),
        np.int32([capacity - 1, 5, 31_000]),
        np.arange(9, dtype=np.int32),
    )
    for make, capability in ((pixels, A100), (reals, A100), (reals, DESKTOP), (nonzeros, A100)):
        X = make(rng, 9, 6)
        rows = make_rows(X, KERNELS[0], np.float32, capability)
        out[slots, :9] = np.nan
        rows.compute(places, slots, out, columns)
        expected = reference(X, KERNELS[0], places, columns)
        np.testing.assert_allclose(out[slots, :9], expected, rtol=0, atol=allowed(rows, 6))


def test_more_than_a_device_counts_is_refused(monkeypatch, rng):
    monkeypatch.setattr(cuda_rows, "MOST_CHUNKS", 100)
    with pytest.raises(MemoryError, match="50 samples of 20 features"):
        make_rows(reals(rng, 50, 20), KERNELS[0], np.float32)


@pytest.mark.parametrize("way", WAYS)
def test_without_columns_all_samples_have_one(way, rng):
    make, dtype, capability = WAYS[way]
    X, none = make(rng, 11, 5), np.zeros(0, dtype=np.int32)
    rows = make_rows(X, KERNELS[2], dtype, capability)
    out = np.full((2, 11), np.nan, dtype=dtype)
    rows.compute(none, none, out)
    assert np.isnan(out).all(), "no rows were asked for"
    rows.compute(np.int32([10, 4]), np.int32([0, 1]), out)
    expected = reference(X, KERNELS[2], np.array([10, 4]), np.arange(11))
    np.testing.assert_allclose(out, expected, rtol=0, atol=allowed(rows, 5))


@pytest.mark.parametrize("X", [np.zeros((6, 3), dtype=np.float32), sparse.csr_array((6, 3), dtype=np.float32)])
def test_samples_of_zeros(X):
    rows = make_rows(X, KERNELS[0], np.float32)
    out = compute(rows, np.arange(6), np.arange(6), 6, np.arange(6), 6)
    assert (out == 1).all() and rows.largest_norm == 0 and rows.nbytes > 0
