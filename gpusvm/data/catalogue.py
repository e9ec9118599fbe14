"""Data sets known by name: where on disk they are looked for, and where else they can be had."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpusvm.errors import DataError, DownloadError, OutputError, UsageError

if TYPE_CHECKING:
    import numpy as np

_N_DIGITS_TRAIN = 1437
# A gzip stream can be longer than what it holds, by its own headers and no more.
_GZIP_OVERHEAD_BYTES = 1 << 16


@dataclass(frozen=True)
class CatalogueFile:
    """One of a data set's files.

    `checksum` ("sha256:..." or "md5:...") is of the decompressed bytes, because mirrors compress
    the same bytes differently; `n_bytes` is their number.
    """

    name: str
    checksum: str
    n_bytes: int


@dataclass(frozen=True)
class CatalogueEntry:
    """A data set known by name.

    Attributes
    ----------
    name, title : str
    n_train, n_test : int
        How many images it has.
    files : tuple of CatalogueFile
        Train images, train labels, test images and test labels, in that order; empty for a set
        that comes with scikit-learn.
    mirrors : tuple of str
        Addresses of folders that hold the files.
    folders : tuple of str
        Names of folders in which other libraries keep it.
    recommended : dict
        Parameters of SVC that were measured to do well.
    """

    name: str
    title: str
    n_train: int
    n_test: int
    files: tuple[CatalogueFile, ...] = ()
    mirrors: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    recommended: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FileCheck:
    """What `verify` found of one file.

    Attributes
    ----------
    name : str
    path : Path or None
        Where it lies; None where it is missing.
    status : {"ok", "missing", "wrong sum"}
    """

    name: str
    path: Path | None
    status: str


def _idx_files(*checksums: str) -> tuple[CatalogueFile, ...]:
    names = (
        "train-images-idx3-ubyte", "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
    )  # fmt: skip
    sizes = (16 + 60_000 * 784, 8 + 60_000, 16 + 10_000 * 784, 8 + 10_000)
    return tuple(map(CatalogueFile, names, checksums, sizes))


CATALOGUE: dict[str, CatalogueEntry] = {
    entry.name: entry
    for entry in (
        CatalogueEntry(
            name="mnist",
            title="MNIST handwritten digits, 28x28, 10 classes",
            n_train=60_000,
            n_test=10_000,
            files=_idx_files(
                "sha256:ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "sha256:65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "sha256:0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "sha256:ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
            mirrors=(
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
            ),
            folders=("mnist", "MNIST/raw", "MNIST"),
            recommended={"C": 10.0, "gamma": 0.02},
        ),
        CatalogueEntry(
            name="fashion-mnist",
            title="Fashion-MNIST clothing, 28x28, 10 classes",
            n_train=60_000,
            n_test=10_000,
            # MD5 because that is what has been published of the decompressed files (MindSpore's
            # Fashion-MNIST loader lists them beside the publisher's own sums of the .gz).
            files=_idx_files(
                "md5:f4a8712d7a061bf5bd6d2ca38dc4d50a",
                "md5:9018921c3c673c538a1fc5bad174d6f9",
                "md5:8181f5470baa50b63fa0f6fddb340f0a",
                "md5:15d484375f8d13e6eb1aabb0c3f46965",
            ),
            mirrors=(
                "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
                "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
                "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
            ),
            folders=("fashion-mnist", "FashionMNIST/raw", "FashionMNIST"),
            # No `recommended`: nobody has searched for them on its training part. Zalando's own
            # benchmark standardises each pixel, which we do not, and compares on the test part.
        ),
        CatalogueEntry(
            name="digits",
            title="scikit-learn's bundled digits, 8x8, 10 classes",
            n_train=_N_DIGITS_TRAIN,
            n_test=360,
            # Found by benchmarks/recommended.py on the training part alone: the middle of a
            # plateau, C from 3 up and gamma from 0.1 to 0.4, in shuffled folds and in folds in the
            # file's order.
            recommended={"C": 10.0, "gamma": 0.2},
        ),
    )
}


def get_entry(name: str) -> CatalogueEntry:
    """The entry of that name. Raises UsageError for a name that is not in the catalogue."""
    if name not in CATALOGUE:
        raise UsageError(f"no data set is called {name!r}; there are {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def cache_dir() -> Path:
    """Where fetched data sets are kept: GPUSVM_CACHE_DIR, or the user's cache folder."""
    if override := os.environ.get("GPUSVM_CACHE_DIR"):
        return Path(override).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("gpusvm"))


def find_local(name: str, data_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """The folder that holds all files of a data set, or None; nothing is fetched.

    Looked for in `data_dir`, GPUSVM_DATA_DIR, `./data` and the cache, in that order; in each as
    `<name>/` or as torchvision lays it out. The files are not verified here.
    For `digits` it is the folder in which scikit-learn keeps its own.

    Parameters
    ----------
    name : str
    data_dir : str or path, optional

    Returns
    -------
    Path or None

    Raises
    ------
    UsageError
        No data set has that name.
    """
    entry = get_entry(name)
    if not entry.files:
        return _scikit_learn_folder()
    for folder in _candidates(entry, data_dir):
        if all(find_file(folder, file.name) for file in entry.files):
            return folder
    return None


def find_file(folder: Path, name: str) -> Path | None:
    """An IDX file of that name, gzipped or not; Kaggle's copies write `-idx3` as `.idx3`."""
    for stem in (name, name.replace("-idx", ".idx")):
        for path in (folder / stem, folder / f"{stem}.gz"):
            if path.is_file():
                return path
    return None


def read_split(
    name: str, split: str, data_dir: str | os.PathLike[str] | None = None, progress: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Read a data set of the catalogue, fetching it first where it is not on this machine.

    Returns
    -------
    images : ndarray of shape (n, height, width), uint8
    labels : ndarray of shape (n,), int64

    Raises
    ------
    DataError
        A file on disk is damaged or not the published one.
    DownloadError
        It is not on this machine, and no mirror gave it.
    """
    entry = get_entry(name)
    if not entry.files:
        return _read_digits(split)
    from gpusvm.data import idx

    folder = find_local(name, data_dir) or fetch(name, data_dir, progress)
    images, labels = entry.files[:2] if split == "train" else entry.files[2:]
    # The sums are compared on every load: SHA-256 of MNIST's 47 MB takes 0.03 s with the CPU's SHA
    # instructions and 0.2 s without, and a silently different data set makes every figure wrong.
    return (
        idx.read_images(_existing(folder, images), images.checksum),
        idx.read_labels(_existing(folder, labels), labels.checksum),
    )


def fetch(name: str, data_dir: str | os.PathLike[str] | None = None, progress: bool = False) -> Path:
    """Make sure that a data set is on this machine, whole and verified, and say in which folder.

    A copy that is already there is the one a load would use, so it is that one which is mended:
    files that are right are left alone, damaged .gz files are replaced. Where there is none, the
    set goes to `data_dir/<name>` or, without `data_dir`, to the cache.

    Parameters
    ----------
    name : str
    data_dir : str or path, optional
    progress : bool
        Show the progress of the download on stderr.

    Returns
    -------
    Path
        The folder that holds the files.

    Raises
    ------
    DataError
        A decompressed file that is not the right one stands where the right one would be fetched
        to.
    DownloadError
        No mirror gave one of the files; says what each of them did.
    UsageError
        No data set has that name.
    OutputError
        The folder cannot be written.
    """
    entry = get_entry(name)
    if not entry.files:
        return _scikit_learn_folder()
    folder = _folder_to_mend(name, data_dir) or (cache_dir() if data_dir is None else Path(data_dir)) / name
    for file in entry.files:
        if not _is_right(folder, file):
            _fetch_file(entry, file, folder, progress)
    return folder


def verify(name: str, data_dir: str | os.PathLike[str] | None = None) -> list[FileCheck]:
    """Compare each file of a data set with its published checksum; nothing is fetched.

    Looks in the folder that a load would use, or in the first that has any of the files.
    A set without files of its own (`digits`) gives an empty list.

    Parameters
    ----------
    name : str
    data_dir : str or path, optional
        Where to look first.

    Returns
    -------
    list of FileCheck

    Raises
    ------
    UsageError
        No data set has that name.
    """
    entry = get_entry(name)
    folder = find_local(name, data_dir) if entry.files else None
    if folder is None:
        candidates = _candidates(entry, data_dir)
        folder = next((f for f in candidates if any(find_file(f, file.name) for file in entry.files)), None)
    return [_check(folder, file) for file in entry.files]


def default_source(data_dir: str | os.PathLike[str] | None = None, progress: bool = False) -> tuple[str, str | None]:
    """What to use where no data set was named: MNIST, or `digits` where MNIST cannot be had.

    Parameters
    ----------
    data_dir : str or path, optional
        Where MNIST is looked for first, and fetched to.
    progress : bool
        Show the progress of a download on stderr.

    Returns
    -------
    name : str
        A catalogue name, ready to load.
    notice : str or None
        For the user, on one line, where it is not MNIST.
    """
    if find_local("mnist", data_dir) is not None:
        return "mnist", None
    try:
        fetch("mnist", data_dir, progress)
    except (DownloadError, OutputError) as error:
        n_images = CATALOGUE["digits"].n_train + CATALOGUE["digits"].n_test
        return "digits", f"using digits, scikit-learn's {n_images:,} bundled 8x8 images, because {error}"
    return "mnist", None


def _candidates(entry: CatalogueEntry, data_dir: str | os.PathLike[str] | None) -> Iterator[Path]:
    """Folders to look in, best first; lazily, since naming the cache imports platformdirs."""
    roots = [Path(data_dir)] if data_dir is not None else []
    if from_environment := os.environ.get("GPUSVM_DATA_DIR"):
        roots.append(Path(from_environment).expanduser())
    roots.append(Path("data"))
    for root in roots:
        yield from (root / folder for folder in entry.folders)
    if entry.folders:
        yield cache_dir() / entry.name


def _folder_to_mend(name: str, data_dir: str | os.PathLike[str] | None) -> Path | None:
    """Where a load would find the set, unless that is outside of a `data_dir` that was given."""
    local = find_local(name, data_dir)
    inside = local is not None and (data_dir is None or local.is_relative_to(data_dir))
    return local if inside else None


def _fetch_file(entry: CatalogueEntry, file: CatalogueFile, folder: Path, progress: bool) -> None:
    from gpusvm.data import idx
    from gpusvm.data.download import download

    in_the_way = folder / file.name
    if in_the_way.exists():
        raise DataError(f"{in_the_way}: is not the published file; move it away, then fetch again")
    try:
        download(
            f"{file.name}.gz",
            entry.mirrors,
            folder / f"{file.name}.gz",
            lambda path: idx.matches(path, file.checksum, file.n_bytes),
            max_bytes=file.n_bytes + _GZIP_OVERHEAD_BYTES,
            progress=progress,
        )
    except DownloadError as error:
        raise DownloadError(
            f"{entry.name} is not on this machine, and {error}; put its files in ./data/{entry.name}, or set"
            f" GPUSVM_DATA_DIR to the folder that holds {entry.name}/, or use digits, which needs no download"
        ) from error


def _is_right(folder: Path, file: CatalogueFile) -> bool:
    return _check(folder, file).status == "ok"


def _check(folder: Path | None, file: CatalogueFile) -> FileCheck:
    path = find_file(folder, file.name) if folder is not None else None
    if path is None:
        return FileCheck(file.name, None, "missing")
    from gpusvm.data import idx

    try:
        right = idx.matches(path, file.checksum, file.n_bytes)
    except DataError:
        right = False
    return FileCheck(file.name, path, "ok" if right else "wrong sum")


def _existing(folder: Path, file: CatalogueFile) -> Path:
    return find_file(folder, file.name) or folder / file.name


def _read_digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    # Sixteen grey levels to the bytes that every other source has.
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    rows = slice(None, _N_DIGITS_TRAIN) if split == "train" else slice(_N_DIGITS_TRAIN, None)
    return images[rows], digits.target[rows].astype(np.int64)


def _scikit_learn_folder() -> Path:
    found = find_spec("sklearn")  # which imports nothing
    assert found is not None and found.origin is not None
    return Path(found.origin).parent / "datasets" / "data"
