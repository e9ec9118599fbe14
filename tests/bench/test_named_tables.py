"""Tables in a suite: what they hold, which rows are used for what, and a small suite from end to
end."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpusvm.bench import named_tables, runner, worker
from gpusvm.bench.named_tables import LabelledSamples, check_table, load_table, missing_file
from gpusvm.bench.record import load_record
from gpusvm.bench.runner import new_run, plan, resumed_run
from gpusvm.bench.spec import Spec
from gpusvm.bench.suite import Case, Suite
from gpusvm.bench.suite_file import load_suite, parse_suite
from gpusvm.bench.train_test_data import split_table
from gpusvm.errors import DataError

TINY = Path(__file__).with_name("tiny.toml")
BLOBS = {
    "source": "make_blobs", "n_samples": 60, "n_features": 4, "centers": 6, "center_box": [-3, 3], "random_state": 1,
}  # fmt: skip


@pytest.fixture
def suite() -> Suite:
    return load_suite(TINY)


@pytest.fixture
def no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where neither Adult nor Letter is found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GPUSVM_DATA_DIR", raising=False)
    return tmp_path


def spec_of(suite: Suite, name: str, contender: str = "sklearn", **changes: Any) -> Spec:
    case = next(case for case in suite.cases if case.name == name)
    dataset = suite.dataset_of(case)
    return Spec(
        contender, case, dataset, suite.sizes_of(case)[0], n_test=case.n_test, table=suite.tables[dataset], **changes
    )


def test_a_small_suite_from_end_to_end(suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured here: that each measurement has a process of its own is held by test_cli_bench."""
    monkeypatch.setattr(runner, "run_worker", lambda spec, timeout_s, command: worker.measure(spec))
    run = new_run(suite, tmp_path)
    run.measure()
    content = json.loads(run.path.read_text())
    rows = {(row["case"], row["contender"]): row for row in content["rows"]}
    assert len(rows) == 2 * 3
    assert {row["status"] for row in rows.values()} == {"ok"}
    for name in ("sklearn", "libsvm"):
        assert rows["wine", name]["certificate"]["kkt_gap"] < 2e-3
        assert rows["wine", name]["accuracy"] > 0.95
        assert rows["wine", name]["agreement"] == 1.0
    # The neighbours solve another problem, so LIBSVM is the only peer to be compared with.
    assert rows["two classes", "libsvm"]["fit_speedup"] == rows["two classes", "libsvm"]["predict_speedup"] == 1.0
    assert len(rows["two classes", "libsvm"]["fit_seconds"]["all"]) == 1
    assert len(rows["two classes", "sklearn"]["fit_seconds"]["all"]) == 2
    for measurement in content["measurements"]:
        assert measurement["n_fits"] > 1 or measurement["fit_seconds"] >= 0.02
    page = run.path.with_suffix(".md").read_text()
    assert "Data: wine, 13 features, 3 classes; tested on 178 rows, which may be rows that it was trained on." in page
    assert "Data: two-classes, 5 features, 2 classes; tested on 40 rows." in page
    assert "Speed-ups are over the faster peer" in page
    assert resumed_run(run.path).record.data == load_record(run.path).data


def test_a_suite_with_tables_survives_json(suite: Suite) -> None:
    assert parse_suite(json.loads(json.dumps(suite.to_dict())), "record") == suite


def test_a_spec_with_a_table_survives_its_line(suite: Suite) -> None:
    spec = spec_of(suite, "two classes", least_timed_s=0.5)
    assert Spec.from_line(spec.to_line()) == spec


def test_without_a_least_time_there_is_one_fit(suite: Suite) -> None:
    answer = worker.measure(spec_of(suite, "two classes"))
    assert (answer["n_fits"], answer["n_predictions"]) == (1, 1)


def test_a_case_with_its_own_data_is_measured_by_every_contender_in_it(suite: Suite) -> None:
    jobs = [(job.contender, job.case_key, job.repeat) for job in plan(suite)]
    assert ("knn", "two classes", 0) in jobs
    assert ("knn", "wine", 0) in jobs


def test_what_is_measured_once_has_no_second_repeat(suite: Suite) -> None:
    assert [job.contender for job in plan(suite) if job.repeat == 1] == ["sklearn"]


def test_new_sizes_are_no_larger_than_the_cases_own(suite: Suite) -> None:
    changed = suite.with_options(sizes=[50, 100, 1000], repeats=3)
    assert [changed.sizes_of(case) for case in changed.cases] == [(50, 60), (50, 100, 178)]
    assert changed.repeats_of("libsvm", changed.cases[0]) == 3


def test_training_rows_are_the_first_and_test_rows_the_last() -> None:
    table = LabelledSamples(np.arange(10, dtype=np.float32)[:, np.newaxis], np.arange(10))
    case = Case("any", n_test=4)
    train, test = split_table(table, "ten", case, 6)
    assert train.y.tolist() == [0, 1, 2, 3, 4, 5]
    assert test.y.tolist() == [6, 7, 8, 9]
    with pytest.raises(DataError, match="ten: has 10 rows, too few to train on 7 and test on 4 others"):
        split_table(table, "ten", case, 7)
    assert len(split_table(table, "ten", replace(case, test_on_training=True), 7)[0]) == 7
    with pytest.raises(DataError, match="ten: has 10 rows, not 11"):
        split_table(table, "ten", replace(case, test_on_training=True), 11)


@pytest.mark.parametrize("source", ["make_blobs", "wine", "adult", "letter"])
def test_a_table_is_the_same_each_time(source: str, no_files: Path) -> None:
    described = BLOBS if source == "make_blobs" else {"source": source}
    one, other = load_table(source, described), load_table(source, described)
    assert one.digest() == other.digest()
    assert one.X.dtype == np.float32
    assert np.isfinite(one.X).all()


def test_blobs_go_round_the_classes() -> None:
    y = load_table("blobs", BLOBS).y
    assert np.bincount(y[:30]).tolist() == [5] * 6


def test_wine_is_standardised() -> None:
    wine = load_table("wine", {"source": "wine"})
    np.testing.assert_allclose(wine.X.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(wine.X.std(axis=0), 1, atol=1e-6)


def test_where_a_file_is_missing_its_stand_in_is_like_it_and_named_so(no_files: Path) -> None:
    adult, letter = load_table("adult", {"source": "adult"}), load_table("letter", {"source": "letter"})
    assert adult.X.shape == (16_281, 122)
    assert (adult.X.sum(axis=1) == 14).all()
    assert np.unique(adult.y).tolist() == [-1, 1]
    assert letter.X.shape == (20_000, 16)
    assert (letter.X.min(), letter.X.max()) == (-1, 1)
    assert np.unique(letter.y).tolist() == list(range(1, 27))
    suite = Suite(
        "small",
        (Case("letter", dataset="letter", sizes=(500,), n_test=100),),
        backends=("sklearn",),
        tables={"letter": {"source": "letter"}},
    )
    run = new_run(suite, no_files)
    assert run.record.suite.cases[0].name == "letter (generated: no letter/letter.scale.gz here)"
    assert "letter (generated: no letter/letter.scale.gz here)" in run.record.data["cases"]


@pytest.mark.parametrize(
    "text", [b"+1 1:1 3:0.5\n-1 2:1\n", b"1 1 0 0.5\n-1 0 1 0\n"], ids=["pairs", "all values in order"]
)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_is_found_and_read(text: bytes, zipped: bool, no_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named_tables, "_ADULT_SHAPE", (2, 3))
    folder = no_files / "elsewhere" / "adult"
    folder.mkdir(parents=True)
    (folder / ("a9a.t.gz" if zipped else "a9a.t")).write_bytes(gzip.compress(text) if zipped else text)
    where = str(no_files / "elsewhere")
    assert missing_file({"source": "adult"}, where) is None
    found = load_table("adult", {"source": "adult"}, where)
    assert found.X.tolist() == [[1, 0, 0.5], [0, 1, 0]]
    assert found.y.tolist() == [1, -1]


@pytest.mark.parametrize(
    "content",
    [
        b"no gzip",
        gzip.compress(b"1 1:1\n", mtime=0),
        gzip.compress(b"1 9:1\n1 1:1\n", mtime=0),
        gzip.compress(b"a b\n1 1:1\n", mtime=0),
        gzip.compress(b"1 1:1\n1 1:1\n", mtime=0)[:-9],
    ],
)
def test_a_damaged_file_is_no_table(content: bytes, no_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named_tables, "_ADULT_SHAPE", (2, 3))
    path = no_files / "data" / "adult" / "a9a.t.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"^data/adult/a9a\.t\.gz: .*fetch the file again$"):
        load_table("adult", {"source": "adult"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "make_moons"}, "here: source must be one of make_classification, make_blobs"),
        ({"n_sample": 5}, "unknown key 'n_sample'; did you mean n_samples?"),
        ({"n_samples": 0}, "n_samples must be at least 1, not 0"),
        ({"center_box": [1]}, "center_box must have at least 2 items"),
        ({"center_box": [1, "x"]}, "center_box: each must be a number"),
    ],
)
def test_a_table_that_is_none_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        check_table(BLOBS | change, "here")
    assert message in str(caught.value)


def test_a_table_without_what_it_needs() -> None:
    with pytest.raises(DataError, match="here: random_state is missing"):
        check_table({key: value for key, value in BLOBS.items() if key != "random_state"}, "here")
    with pytest.raises(DataError, match="here: must be a table"):
        check_table(3, "here")


def test_arguments_that_contradict_each_other_are_scikit_learns_words() -> None:
    described = {
        "source": "make_classification", "n_samples": 20, "n_features": 2, "n_informative": 5, "random_state": 0,
    }  # fmt: skip
    with pytest.raises(DataError, match="table 'small': Number of informative, redundant and repeated features"):
        load_table("small", described)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sizes = [60]", "", "case 'two classes': sizes is missing"),
        ("n_test = 40", "", "case 'two classes': is measured on a table, and needs dataset, sizes and n_test"),
        ('dataset = "two-classes"', "", "case 'two classes': sizes is for a case with a dataset of its own"),
        ('dataset = "two-classes"\nsizes = [60]\nn_test = 40', "", "dataset is missing; a suite needs it"),
        ('once = ["libsvm", "knn"]', 'once = ["intelex"]', "once names intelex, which the suite does not list"),
        ('"best-peer"', '"best"', "reference must be one of"),
    ],
)
def test_data_that_a_suite_leaves_unclear(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "suite.toml"
    path.write_text(TINY.read_text().replace(old, new))
    with pytest.raises(DataError) as caught:
        load_suite(path)
    assert message in str(caught.value)
