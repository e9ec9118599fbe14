r"""The scattering transform of images: moduli of wavelet coefficients, averaged over squares.

The squares have 2^J x 2^J pixels. With wavelets :math:`\psi_{j, \theta}` of scales :math:`2^j` and
L directions, and a low pass :math:`\phi_J`, the coefficients of an image x are

.. math::
    x \star \phi_J, \qquad
    |x \star \psi_{j_1, \theta_1}| \star \phi_J, \qquad
    ||x \star \psi_{j_1, \theta_1}| \star \psi_{j_2, \theta_2}| \star \phi_J \quad (j_1 < j_2)

each at every 2^J-th pixel of every 2^J-th row. They hardly change where strokes move or bend a
little, and tell strokes apart by direction, width and curvature. Nothing is learned.

A modulus at scale j is kept at every 2^j-th pixel. Convolutions are circular. Spectra are
products; to keep every f-th pixel is to add up the f^2 parts of a spectrum that then look alike.
So a product with all wavelets of a scale, and the sum of the parts, is one matrix product for each
frequency (`_folded`); what follows the last modulus is linear, and one more.

References
----------
S. Mallat, "Group invariant scattering", Communications on Pure and Applied Mathematics 65 (2012).
J. Bruna, S. Mallat, "Invariant scattering convolution networks", IEEE PAMI 35 (2013): sections 2
and 4.
M. Andreux et al., "Kymatio: scattering transforms in Python", JMLR 21 (2020): the wavelets'
parameters.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np

from gpusvm.jobs import effective_jobs
from gpusvm.kernels import Array, array_module
from gpusvm.preprocess.pixels import PixelStep, is_image_shape

LARGEST_SIDE = 256
"""Pixels of a side, padded: a bank of filters for it has some 100 MB."""
MOST_SCALES = 6
MOST_DIRECTIONS = 16

_BLOCK_IMAGES = 16
"""Images at once on a CPU, of 32 x 32: what they become stays in the cache of a core."""
_DEVICE_BYTES = 2**30
"""Memory for the largest intermediate array on a device."""


class Scattering(PixelStep):
    r"""Scattering coefficients of zeroth, first and second order, of images as rows of pixels.

    Parameters
    ----------
    image_shape : tuple of two int
        Height and width. Images are centred among zeros to multiples of 2^J: 28 x 28 to 32 x 32.
        Borders are circular, so they should have some margin, as the digits of MNIST have.
    J : int, default=3
        Scales, and the averaging: over some 2^J pixels.
    L : int, default=8
        Directions.
    n_jobs : int, optional
        Threads, as joblib counts; None is every core, or what an enclosing context says.

    Attributes
    ----------
    n_features_out : int
        (1 + J L + L^2 J (J - 1) / 2) coefficients for each of (height / 2^J)(width / 2^J) places.

    Notes
    -----
    Features are ordered by coefficient, then row, then column. Coefficients are in the order 0;
    (j, theta); (j1, j2, theta1, theta2), the last fastest. Directions theta are multiples of
    pi / L from the x axis towards larger rows.

    Wavelets are Morlet's, :math:`\psi_j(u) = g_j(u) (e^{i \xi_j u_1} - \kappa)` along the x axis,
    with a Gaussian g_j of standard deviations 0.8 2^j and 0.8 2^j L / 4 (across),
    :math:`\xi_j = 3 \pi / 4 / 2^j`, and :math:`\kappa` so that they add up to zero; the low pass
    is a Gaussian of standard deviation 0.8 2^(J-1).

    `transform` takes NumPy arrays, and on a CUDA device CuPy's. It gives the same bits for any
    number of threads.

    Examples
    --------
    >>> import numpy as np
    >>> from gpusvm.preprocess import Scattering
    >>> images = np.random.default_rng(0).random((5, 28 * 28))
    >>> Scattering((28, 28)).fit_transform(images).shape
    (5, 3472)
    """

    def __init__(self, image_shape: tuple[int, int], J: int = 3, L: int = 8, n_jobs: int | None = None) -> None:
        self.image_shape = image_shape
        self.J = J
        self.L = L
        self.n_jobs = n_jobs

    @property
    def n_features_out(self) -> int:
        """How many coefficients an image has."""
        height, width = _padded(self.image_shape, self.J)
        return _n_coefficients(self.J, self.L) * (height >> self.J) * (width >> self.J)

    def transform(self, X: Any) -> Any:
        """Compute the coefficients of images.

        Parameters
        ----------
        X : array-like of shape (n, height * width), or CuPy array

        Returns
        -------
        (n, n_features_out) float32 array
            Of X's module.

        Raises
        ------
        ValueError
            NaN or infinity in X, or parameters that are out of range or do not fit X.
        """
        if array_module(X) is np:
            return super().transform(X)
        self._check_parameters(X.shape[1])
        return self._on_device(X)

    def _check_parameters(self, n_pixels: int) -> None:
        if not is_image_shape(self.image_shape):
            raise ValueError(f"image_shape must be two positive integers, got {self.image_shape!r:.80}")
        for name, value, most in (("J", self.J, MOST_SCALES), ("L", self.L, MOST_DIRECTIONS)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value <= most:
                raise ValueError(f"{name} must be a whole number from 1 to {most}, got {value!r:.80}")
        height, width = self.image_shape
        if height * width != n_pixels:
            raise ValueError(f"image_shape {height}x{width} does not fit rows of {n_pixels} pixels")
        if max(_padded(self.image_shape, self.J)) > LARGEST_SIDE:
            raise ValueError(f"image_shape {height}x{width} is above {LARGEST_SIDE} pixels a side")

    def _transform(self, X: np.ndarray) -> np.ndarray:
        images = X.reshape(-1, *self.image_shape)
        from gpusvm.solver.cpu import one_blas_thread  # with Numba, which takes a while

        bank = _filter_bank(_padded(self.image_shape, self.J), self.J, self.L)
        result = np.empty((len(images), self.n_features_out), dtype=np.float32)

        def scatter(start: int) -> None:
            rows = slice(start, start + _BLOCK_IMAGES)
            result[rows] = _scattered(images[rows], bank)

        # The products are small: threads of BLAS would wait for each other.
        with one_blas_thread, ThreadPoolExecutor(effective_jobs(self.n_jobs)) as threads:
            list(threads.map(scatter, range(0, len(images), _BLOCK_IMAGES)))
        return result

    def _on_device(self, X: Array) -> Array:
        """The same of a CuPy array, in larger blocks."""
        xp = array_module(X)
        shape = _padded(self.image_shape, self.J)
        images = xp.asarray(X, dtype=xp.float32).reshape(-1, *self.image_shape)
        bank = _filter_bank(shape, self.J, self.L).on(xp)
        result = xp.empty((len(images), self.n_features_out), dtype=xp.float32)
        step = max(1, _DEVICE_BYTES // (8 * self.L**2 * shape[0] * shape[1]))
        for start in range(0, len(images), step):
            result[start : start + step] = _scattered(images[start : start + step], bank)
        return result


@dataclass(frozen=True, eq=False)
class _FilterBank:
    """What `_scattered` multiplies with, for images of one size.

    Attributes
    ----------
    shape : (height, width)
    first : tuple of (h, w, L, f^2) float32 arrays
        For each scale j, spectra of its wavelets on images, as `_parts` orders them with f = 2^j.
    second : dict of (j, k) to (h, w, L, f^2) float32 arrays
        Spectra of the wavelets of scale k on images at every 2^j-th pixel, with f = 2^(k - j).
    averages : tuple of pairs of float32 arrays (height / 2^J, h) and (width / 2^J, w)
        The low pass along columns and along rows, at every 2^J-th pixel, of images at every 2^j-th
        one.
    """

    shape: tuple[int, int]
    J: int
    L: int
    first: tuple[Array, ...]
    second: dict[tuple[int, int], Array]
    averages: tuple[tuple[Array, Array], ...]

    def on(self, xp: Any) -> _FilterBank:
        """The same in the arrays of another module."""
        return _FilterBank(
            self.shape,
            self.J,
            self.L,
            tuple(map(xp.asarray, self.first)),
            {scales: xp.asarray(values) for scales, values in self.second.items()},
            tuple((xp.asarray(down), xp.asarray(along)) for down, along in self.averages),
        )


def _scattered(images: Array, bank: _FilterBank) -> Array:
    """Coefficients (n, n_features) float32 of images (n, height, width) float32.

    Arrays in between are (rows, columns, ..., images): what is done for each pixel or frequency is
    then done for long runs of numbers.
    """
    xp = array_module(images)
    n, J, L = len(images), bank.J, bank.L
    pixels = xp.zeros((*bank.shape, n), dtype=xp.float32)
    top, left = ((whole - part) // 2 for whole, part in zip(bank.shape, images.shape[1:], strict=True))
    pixels[top : top + images.shape[1], left : left + images.shape[2]] = images.transpose(1, 2, 0)
    n_places = (bank.shape[0] >> J) * (bank.shape[1] >> J)
    result = xp.empty((_n_coefficients(J, L), n_places, n), dtype=xp.float32)
    result[0] = _averaged(pixels, bank.averages[0])
    spectrum = _fft2(pixels)
    second = 1 + J * L
    for j in range(J):
        moduli = _moduli(spectrum, bank.first[j])  # (h, w, L, n)
        result[1 + j * L : 1 + (j + 1) * L] = _averaged(moduli, bank.averages[j]).reshape(-1, L, n).swapaxes(0, 1)
        if j == J - 1:
            break
        spectra = _fft2(moduli.reshape(*moduli.shape[:2], L * n))
        for k in range(j + 1, J):
            again = _averaged(_moduli(spectra, bank.second[j, k]), bank.averages[k])
            by_paths = again.reshape(-1, L, L, n).transpose(2, 1, 0, 3)  # (theta1, theta2, place, image)
            result[second : second + L * L] = by_paths.reshape(L * L, -1, n)
            second += L * L
    return result.reshape(-1, n).T


def _moduli(spectra: Array, wavelets: Array) -> Array:
    """Moduli (h, w, L, m) of images with all wavelets of a scale.

    `spectra` are (H, W, m), `wavelets` (h, w, L, f^2).
    """
    xp = array_module(spectra)
    values = _ifft2(_folded(spectra, wavelets)).view(xp.float32)
    values *= values
    return xp.sqrt(values[..., 0::2] + values[..., 1::2])


def _folded(spectra: Array, wavelets: Array) -> Array:
    """Spectra (h, w, L, m) complex64 of what `_moduli` takes moduli of, at every f-th pixel."""
    xp = array_module(spectra)
    height, _, m = spectra.shape
    h, w, _, n_parts = wavelets.shape
    f = height // h
    parts = xp.ascontiguousarray(spectra).view(xp.float32).reshape(f, h, f, w, 2 * m)
    parts = parts.transpose(1, 3, 0, 2, 4).reshape(h, w, n_parts, 2 * m)
    products = wavelets * parts if n_parts == 1 else xp.matmul(wavelets, parts)  # wavelets' spectra are real
    return products.view(xp.complex64)


def _averaged(values: Array, average: tuple[Array, Array]) -> Array:
    """Low pass (places, m) of values (h, w, ...)."""
    down, along = average
    h, w = values.shape[:2]
    rows = (down @ values.reshape(h, -1)).reshape(len(down), w, -1)
    return (along @ rows).reshape(len(down) * len(along), -1)


def _fft2(values: Array) -> Array:
    return _fft_of(values).fft2(values, axes=(0, 1))


def _ifft2(values: Array) -> Array:
    return _fft_of(values).ifft2(values, axes=(0, 1), overwrite_x=True)


def _fft_of(values: Array) -> Any:
    """SciPy's transforms, which unlike NumPy's keep single precision, or CuPy's."""
    if array_module(values) is np:
        import scipy.fft

        return scipy.fft
    import cupyx.scipy.fft

    return cupyx.scipy.fft


def _padded(image_shape: tuple[int, int], J: int) -> tuple[int, int]:
    height, width = (-(-int(side) // 2**J) * 2**J for side in image_shape)
    return height, width


def _n_coefficients(J: int, L: int) -> int:
    return 1 + J * L + L * L * J * (J - 1) // 2


@lru_cache(maxsize=4)
def _filter_bank(shape: tuple[int, int], J: int, L: int) -> _FilterBank:
    spectra = [
        np.stack([np.fft.fft2(morlet(shape, j, np.pi * direction / L, L)).real for direction in range(L)])
        for j in range(J)
    ]
    return _FilterBank(
        shape,
        J,
        L,
        first=tuple(_parts(spectra[j], 2**j) for j in range(J)),
        second={(j, k): _parts(_at_every(spectra[k], 2**j), 2 ** (k - j)) for j in range(J) for k in range(j + 1, J)},
        averages=tuple((_average(shape[0], j, J), _average(shape[1], j, J)) for j in range(J)),
    )


def morlet(shape: tuple[int, int], j: int, theta: float, L: int) -> np.ndarray:
    """The wavelet of scale j and direction theta, around pixel (0, 0) of a torus.

    It is (height, width) complex128.
    """
    sigma, frequency, slant = 0.8 * 2**j, 0.75 * np.pi / 2**j, 4 / L
    envelope, waves = np.zeros(shape), np.zeros(shape, dtype=complex)
    reach = sigma / min(slant, 1.0)
    for y, x in product(_offsets(shape[0], reach), _offsets(shape[1], reach)):
        along = np.cos(theta) * x + np.sin(theta) * y[:, None]
        across = np.cos(theta) * y[:, None] - np.sin(theta) * x
        gauss = np.exp(-(along**2 + (slant * across) ** 2) / (2 * sigma**2))
        envelope += gauss
        waves += gauss * np.exp(1j * frequency * along)
    centred: np.ndarray = waves - envelope * (waves.sum() / envelope.sum())
    return centred * (slant / (2 * np.pi * sigma**2))


def low_pass(side: int, J: int) -> np.ndarray:
    """The Gaussian of scale J on a circle (side,), around pixel 0; its values add up to one.

    Of images the low pass is the product of that of their columns and that of their rows.
    """
    sigma = 0.8 * 2 ** (J - 1)
    values = np.sum([np.exp(-(x**2) / (2 * sigma**2)) for x in _offsets(side, sigma)], axis=0)
    return np.asarray(values / values.sum())


def _offsets(side: int, sigma: float) -> list[np.ndarray]:
    """Offsets (side,) from pixel 0 of a circle, once for each turn that a Gaussian reaches."""
    turns = int(np.ceil(8 * sigma / side))
    return [np.fft.fftfreq(side, 1 / side) + turn * side for turn in range(-turns, turns + 1)]


def _at_every(spectra: np.ndarray, f: int) -> np.ndarray:
    """Spectra (L, h, w) of filters taken at every f-th pixel, from theirs (L, H, W).

    They have f^2 times the weight.
    """
    L, height, width = spectra.shape
    return spectra.reshape(L, f, height // f, f, width // f).sum(axis=(1, 3))


def _parts(spectra: np.ndarray, f: int) -> np.ndarray:
    """Spectra (L, H, W) as (h, w, L, f^2) float32, divided by f^2.

    The last axis holds the parts that become one where every f-th pixel is kept.
    """
    L, height, width = spectra.shape
    h, w = height // f, width // f
    parts = spectra.reshape(L, f, h, f, w).transpose(2, 4, 0, 1, 3).reshape(h, w, L, f * f)
    return np.ascontiguousarray(parts / f**2, dtype=np.float32)


def _average(side: int, j: int, J: int) -> np.ndarray:
    """The low pass (side / 2^J, side / 2^j) along one axis, of values at every 2^j-th pixel."""
    at = low_pass(side, J)[:: 2**j] * 2**j
    # The filter is even: its value at place - pixel is that at pixel - place.
    rows = [np.roll(at, place) for place in range(0, len(at), 2 ** (J - j))]
    return np.array(rows, dtype=np.float32)
