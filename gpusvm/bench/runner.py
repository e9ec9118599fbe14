"""Going through a suite: the order of the measurements, and the record kept of each as it ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gpusvm.bench.contenders import get_contender
from gpusvm.bench.machine import describe_machine
from gpusvm.bench.named_tables import LabelledSamples, load_table, missing_file
from gpusvm.bench.process import WORKER, run_worker
from gpusvm.bench.record import Key, Record, load_record, utc_now
from gpusvm.bench.spec import Spec
from gpusvm.bench.suite import Case, Suite
from gpusvm.bench.train_test_data import load_test_images, split_table
from gpusvm.data import Dataset, load_dataset
from gpusvm.errors import DataError, UsageError
from gpusvm.io.output import check_writable


@dataclass(frozen=True)
class Job:
    """One measurement to take.

    `case_key` is the case's name, or None for a contender without a kernel, which is measured once
    for all cases on the suite's data.
    """

    contender: str
    case: Case
    case_key: str | None
    n_train: int
    repeat: int

    @property
    def key(self) -> Key:
        return self.contender, self.case_key, self.n_train, self.repeat


_MUST_MATCH = ("cpu", "cores", "memory_mb", "os", "python", "versions", "gpu", "environment")
"""What of the machine a resumed run must find unchanged; which BLAS is loaded varies with what is
imported."""


class Observer(Protocol):
    """Told of each measurement as a run goes on; `number` counts from 1 to `total`."""

    def started(self, job: Job, number: int, total: int) -> None: ...

    def finished(self, job: Job, number: int, total: int, measurement: dict[str, Any]) -> None: ...


def plan(suite: Suite) -> list[Job]:
    """Every measurement of a suite, in order.

    The repeats of one case and size go round the contenders, so that a machine that slows down
    or speeds up meanwhile does so for all of them.
    """
    return list(_jobs(suite))


def _jobs(suite: Suite) -> Iterator[Job]:
    for case in suite.cases:
        most = max(suite.repeats_of(name, case) for name in suite.contenders)
        for n_train in suite.sizes_of(case):
            for repeat in range(most):
                for name in _reference_first(suite):
                    if repeat >= suite.repeats_of(name, case) or not suite.measures(name, n_train):
                        continue
                    if case.dataset is not None or get_contender(name).uses_kernel:
                        yield Job(name, case, case.name, n_train, repeat)
                    elif case is _first_on_the_suites_data(suite):
                        yield Job(name, case, None, n_train, repeat)


def _first_on_the_suites_data(suite: Suite) -> Case | None:
    return next((case for case in suite.cases if case.dataset is None), None)


def _reference_first(suite: Suite) -> list[str]:
    return sorted(suite.contenders, key=lambda name: name != suite.reference)


@dataclass
class Run:
    """A record in the making, and the file that it is kept in.

    Made by `new_run` or `resumed_run`.
    """

    record: Record
    path: Path
    data_dir: Path | None = None

    def measure(self, observer: Observer | None = None, command: Sequence[str] = WORKER) -> None:
        """Take the measurements that the record lacks, one after another, saving it after each.

        Parameters
        ----------
        observer : Observer, optional
        command : sequence of str
            The worker.

        Raises
        ------
        OutputError
            The record cannot be written.
        KeyboardInterrupt
            Ctrl-C; every measurement that ended is in the file.
        """
        jobs = plan(self.record.suite)
        self.record.finished = None
        self.record.save(self.path)
        for number, job in enumerate(jobs, start=1):
            if _is_settled(self.record, job):
                continue
            if observer is not None:
                observer.started(job, number, len(jobs))
            measurement = self._take(job, command)
            self.record.measurements.append(measurement)
            self.record.save(self.path)
            if observer is not None:
                observer.finished(job, number, len(jobs), measurement)
        self.record.finished = utc_now()
        self.record.save(self.path)

    def _take(self, job: Job, command: Sequence[str]) -> dict[str, Any]:
        suite = self.record.suite
        answer = run_worker(_spec(suite, job, self.data_dir), suite.timeout_of(job.contender), command)
        contender, case, n_train, repeat = job.key
        place = {"contender": contender, "case": case, "n_train": n_train, "repeat": repeat}
        return {**place, "at": utc_now(), **answer}


def new_run(suite: Suite, folder: Path, data_dir: Path | None = None) -> Run:
    """Begin a record of a suite, ``NAME-DATE.json`` in `folder` with a ``.md`` beside it.

    Parameters
    ----------
    suite : Suite
    folder : Path
    data_dir : Path, optional
        Where catalogue names are looked for first.

    Raises
    ------
    DataError
        A data set cannot be had, or has fewer samples than the suite wants.
    OutputError
        Nothing could be written there.
    """
    suite = _with_stand_ins_named(suite, data_dir)
    record = Record(suite, describe_machine(), describe_data(suite, data_dir))
    date = record.started[:19].replace("T", "-").replace(":", "")
    path = folder / f"{suite.name}-{date}.json"
    check_writable(path, path.with_suffix(".md"))
    return Run(record, path, data_dir)


def resumed_run(path: Path, data_dir: Path | None = None) -> Run:
    """Go on with the record in `path`.

    What was unavailable is asked again; what failed or timed out is not.

    Raises
    ------
    DataError
        The file is no record, or its data are not those found now.
    UsageError
        The record was made on another machine or with other versions.
    """
    record = load_record(path)
    _require_same_machine(record, path)
    if record.data != describe_data(record.suite, data_dir):
        raise DataError(f"{path}: was measured on other data than are found now; start a new run")
    check_writable(path, path.with_suffix(".md"))
    record.measurements = [m for m in record.measurements if m["status"] != "unavailable"]
    return Run(record, path, data_dir)


def _require_same_machine(record: Record, path: Path) -> None:
    now = describe_machine()
    changed = [key for key in _MUST_MATCH if now.get(key) != record.machine.get(key)]
    if changed:
        raise UsageError(
            f"{path}: was measured on another machine or with other versions ({', '.join(changed)} differ), "
            "and their figures must not be mixed; start a new run"
        )


def _with_stand_ins_named(suite: Suite, data_dir: Path | None) -> Suite:
    """The suite, with "generated" in the name of each case whose table has no file here."""
    where = None if data_dir is None else str(data_dir)
    cases = []
    for case in suite.cases:
        table = suite.table_of(case)
        missing = None if table is None else missing_file(table, where)
        cases.append(case if missing is None else replace(case, name=f"{case.name} (generated: no {missing} here)"))
    return replace(suite, cases=tuple(cases))


def describe_data(suite: Suite, data_dir: Path | None) -> dict[str, Any]:
    """The data of a suite, fetched if need be. Raises DataError where they do not suffice."""
    where = None if data_dir is None else str(data_dir)
    shared: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for case in suite.cases:
        if case.dataset is not None:
            own[case.name] = _describe_data_of(suite, case, where)
        elif not shared:
            shared = _describe_data_of(suite, case, where)
    return {**shared, **({"cases": own} if own else {})}


def _describe_data_of(suite: Suite, case: Case, data_dir: str | None) -> dict[str, Any]:
    table, dataset = suite.table_of(case), suite.dataset_of(case)
    if table is None:
        return _describe_images(suite, case, data_dir)
    largest = max(suite.sizes_of(case))
    train, test = split_table(load_table(dataset, table, data_dir), dataset, case, largest)
    for n_train in suite.sizes_of(case):
        _require_classes(train.y[:n_train], dataset)
    return {"train": _describe_table(train, dataset), "test": _describe_table(test, dataset)}


def _describe_images(suite: Suite, case: Case, data_dir: str | None) -> dict[str, Any]:
    dataset, largest = suite.dataset_of(case), max(suite.sizes_of(case))
    train = load_dataset(dataset, "train", data_dir=data_dir, progress=True, kind="images")
    if len(train) < largest:
        raise DataError(
            f"{dataset}: has {len(train):,} training images, not {largest:,} as the suite "
            "measures; choose smaller ones with --sizes"
        )
    _require_classes(train.require_labels(), dataset)
    test = load_test_images(dataset, suite.test_dataset_of(case), suite.n_test_of(case), data_dir)
    test.require_labels()
    if test.image_shape != train.image_shape:
        sizes = " and ".join(f"{height}x{width}" for height, width in (train.image_shape, test.image_shape))
        raise DataError(f"{dataset}: training and test images differ in size ({sizes}); name another test_dataset")
    return {"train": _describe(train), "test": _describe(test)}


def _require_classes(labels: np.ndarray, dataset: str) -> None:
    if len(np.unique(labels)) < 2:
        raise DataError(f"{dataset}: has one class only; an SVM needs at least two")


def _describe(data: Dataset) -> dict[str, Any]:
    return {
        "name": Path(data.name).resolve().name or data.name,
        "n": len(data),
        "image_shape": list(data.image_shape),
        "n_classes": len(np.unique(data.require_labels())),
        "digest": data.digest,
    }


def _describe_table(table: LabelledSamples, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "n": len(table),
        "n_features": table.X.shape[1],
        "n_classes": len(np.unique(table.y)),
        "digest": table.digest(),
    }


def _is_settled(record: Record, job: Job) -> bool:
    return (
        record.find(job.key) is not None
        or record.is_unavailable(job.contender)
        or record.has_failed(job.contender, job.case_key, job.n_train)
    )


def _spec(suite: Suite, job: Job, data_dir: Path | None) -> Spec:
    return Spec(
        contender=job.contender,
        case=job.case,
        dataset=suite.dataset_of(job.case),
        test_dataset=suite.test_dataset_of(job.case),
        table=suite.table_of(job.case),
        n_train=job.n_train,
        n_test=suite.n_test_of(job.case),
        seed=suite.seed,
        binarize=suite.binarize,
        deskew=suite.deskew,
        warmup=suite.warmup,
        least_timed_s=suite.least_timed_s,
        data_dir=None if data_dir is None else str(data_dir),
        # Once is enough: it can take longer than the fit.
        certify=job.repeat == 0,
    )
