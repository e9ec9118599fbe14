"""``gpusvm tune`` as its users type it, against scikit-learn's search on the same folds."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from forks import run_in_a_fork
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC as Reference
from typer.testing import CliRunner

from gpusvm import load_model
from gpusvm.cli.main import app
from gpusvm.params import Resources
from gpusvm.report.search import shade
from gpusvm.split import load_split
from gpusvm.tuning import Search, Settings, Trial


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def gpusvm(*arguments: object):
    return CliRunner().invoke(app, ["tune", *(str(a) for a in arguments)])


def done(*arguments: object):
    result = gpusvm(*arguments)
    assert result.exit_code == 0, result.output
    return result


def one_line_error(*arguments: object, code: int = 2) -> str:
    result = gpusvm(*arguments)
    assert result.exit_code == code, result.output
    lines = result.stderr.strip().splitlines()
    assert lines[-1].startswith("error: ")
    return lines[-1]


@pytest.fixture
def wine():
    """wine.npz: 178 x 13 with words for labels."""
    found = load_wine()
    np.savez("wine.npz", X=found.data, y=np.array([f"class {k}" for k in range(3)])[found.target])


@pytest.fixture
def cancer():
    """cancer.npz: 569 x 30, two classes."""
    found = load_breast_cancer()
    np.savez("cancer.npz", X=found.data, y=found.target)


GRID = ("--C", "0.1,1,10,100", "--gamma", "0.001,0.01,0.1", "--no-fine")


def trials(path="out.json"):
    return {(t["C"], t["gamma"]): t for t in json.loads(Path(path).read_text())["trials"]}


@pytest.mark.parametrize("source", ["wine", "cancer"])
def test_every_trial_is_what_scikit_learn_finds(source, request):
    request.getfixturevalue(source)
    done(f"{source}.npz", *GRID, "--exhaustive", "--json", "out.json")
    train = load_split(f"{source}.npz").train
    X, y = StandardScaler().fit_transform(train.X), train.require_labels()
    theirs = GridSearchCV(
        Reference(), {"C": [0.1, 1, 10, 100], "gamma": [0.001, 0.01, 0.1]},
        cv=StratifiedKFold(5, shuffle=True, random_state=0),
    ).fit(X, y)  # fmt: skip
    ours = trials()
    for params, mean in zip(theirs.cv_results_["params"], theirs.cv_results_["mean_test_score"], strict=True):
        assert ours[params["C"], params["gamma"]]["mean_accuracy"] == pytest.approx(mean, abs=1e-12)
    best = json.loads(Path("out.json").read_text())["best"]
    assert best["mean_accuracy"] == pytest.approx(theirs.best_score_)


def test_the_model_is_trained_with_the_best(wine):
    result = done("wine.npz", *GRID, "--out", "wine.svm", "--json", "out.json")
    best = json.loads(Path("out.json").read_text())["best"]
    model = load_model("wine.svm")
    assert (model.problem.C, model.kernel.gamma) == (best["C"], best["gamma"])
    assert f"Best: C={best['C']:.4g}" in result.stdout
    assert "Accuracy:" in result.stdout
    assert "Scaling: standard" in result.stdout


def test_what_cannot_win_is_given_up_and_said(cancer):
    result = done("cancer.npz", *GRID, "--json", "out.json")
    found = trials()
    given_up = [trial for trial in found.values() if trial["given_up"]]
    assert given_up
    assert all(len(trial["fold_accuracies"]) < 5 for trial in given_up)
    assert f"{len(given_up)} of them given up early" in result.stdout
    done("cancer.npz", *GRID, "--exhaustive", "--json", "all.json")
    full = trials("all.json")
    assert not any(trial["given_up"] for trial in full.values())
    best = max(full.values(), key=lambda trial: trial["mean_accuracy"])
    assert best["mean_accuracy"] - json.loads(Path("out.json").read_text())["best"]["mean_accuracy"] <= 0.002


def test_a_closer_grid_is_tried_around_the_best(wine):
    done("wine.npz", "--C", "1,10", "--gamma", "0.01,0.1", "--json", "out.json")
    assert len(trials()) == 4 + 24


def test_the_default_grid_and_a_linear_kernel(wine):
    done("wine.npz", "--kernel", "linear", "--json", "out.json", "--folds", 3)
    assert {trial["gamma"] for trial in trials().values()} == {None}
    assert load_model("wine.svm").kernel.name == "linear"
    assert "means nothing for the linear kernel" in one_line_error("wine.npz", "--kernel", "linear", "--gamma", "1")


def test_the_edge_of_the_grid_is_warned_of(wine):
    result = done("wine.npz", "--C", "0.001,0.01", "--gamma", "0.01,0.02,0.04", "--no-fine")
    assert "note: the best has the smallest C and the smallest gamma that was tried" in result.stderr


def test_classes_may_be_weighed(cancer):
    done("cancer.npz", *GRID, "--balanced", "--exhaustive", "--json", "out.json")
    train = load_split("cancer.npz").train
    theirs = GridSearchCV(
        Reference(class_weight="balanced"), {"C": [0.1], "gamma": [0.01]},
        cv=StratifiedKFold(5, shuffle=True, random_state=0),
    ).fit(StandardScaler().fit_transform(train.X), train.require_labels())  # fmt: skip
    assert trials()[0.1, 0.01]["mean_accuracy"] == pytest.approx(theirs.best_score_)
    assert load_model("cancer.svm").problem.class_weight is not None


def table_of(path):
    return {key: {**trial, "seconds": 0} for key, trial in trials(path).items()}


KILLED = """
import os, signal
from gpusvm import tuning
from gpusvm.cli.main import run

def write_then_die(self):
    write(self)
    if len(self.entries) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

write, tuning._Kept.write = tuning._Kept.write, write_then_die
tuning._Kept.EVERY_SECONDS = 0.0
run()
"""
"""The command, killed when it has kept three results."""


def test_a_killed_search_goes_on_to_the_same_table(cancer):
    arguments = ["cancer.npz", "--resume", "kept.json", "--json", "resumed.json"]
    assert run_in_a_fork(KILLED, "tune", *arguments).returncode == -signal.SIGKILL
    assert len(json.loads(Path("kept.json").read_text())["results"]) == 3
    done(*arguments)
    assert len(json.loads(Path("kept.json").read_text())["results"]) > 3
    done("cancer.npz", "--json", "whole.json")
    assert table_of("resumed.json") == table_of("whole.json")


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"gpusvm_search": 1, "digest": 3, "results": []}'])
def test_a_file_that_holds_no_results_is_refused(wine, content):
    Path("kept.json").write_text(content)
    assert "kept.json" in one_line_error("wine.npz", *GRID, "--resume", "kept.json")


def test_results_of_another_search_are_refused(wine):
    done("wine.npz", *GRID, "--resume", "kept.json")
    assert "belongs to a search on other samples" in one_line_error(
        "wine.npz", *GRID, "--resume", "kept.json", "--folds", 4
    )
    damaged = json.loads(Path("kept.json").read_text())
    for entry in damaged["results"].values():
        entry["right"] = ["zz"]
    Path("kept.json").write_text(json.dumps(damaged))
    assert "is damaged" in one_line_error("wine.npz", *GRID, "--resume", "kept.json")


def test_a_page_shows_the_map(wine):
    done("wine.npz", *GRID, "--report", "page")
    page = Path("page/index.html").read_text()
    assert page.count("<td") > 12
    assert 'class="best"' in page
    assert "http:" not in page and "https:" not in page


@pytest.mark.parametrize("option, value", [("--C", "1,x"), ("--C", "0"), ("--gamma", "-1"), ("--C", "1,inf")])
def test_values_out_of_range_are_refused(wine, option, value):
    assert f"{option} must be numbers with commas between" in one_line_error("wine.npz", option, value)


def test_a_class_of_one_sample_is_refused():
    np.savez("rare.npz", X=np.random.default_rng(0).normal(size=(20, 2)), y=[0] * 10 + [1] * 9 + [2])
    assert "single sample" in one_line_error("rare.npz", "--test", "rare.npz", code=1)


def test_the_resume_file_is_no_result(wine):
    assert "also where a result is written" in one_line_error("wine.npz", "--resume", "wine.svm")


def samples(rng, n=300):
    X = rng.normal(size=(n, 4))
    return X, (X[:, 0] + rng.normal(size=n) > 0).astype(int)


def test_a_search_out_of_time_ends_with_the_best_so_far(rng):
    X, y = samples(rng)
    ticks = iter(range(1000))
    search = Search(X, y, Settings(exhaustive=True), Resources(n_jobs=1))

    def out_of_time():
        if next(ticks) == 12:
            search.deadline = 0.0

    search.watch = out_of_time
    search.run([0.1, 1.0, 10.0], [0.01, 0.1, 1.0])
    assert search.timed_out
    assert search.best() in search.results
    assert 0 < search.n_done < 45


def test_of_equal_trials_the_smoothest_is_best(rng):
    X = np.concatenate([rng.normal(size=(30, 2)) - 9, rng.normal(size=(30, 2)) + 9])
    search = Search(X, np.repeat([0, 1], 30), Settings(), Resources(n_jobs=1))
    search.run([1.0, 10.0], [0.01, 0.001])
    assert search.best() == Trial(1.0, 0.001)


def test_without_memory_for_all_kernel_values_the_table_is_the_same(rng):
    X, y = samples(rng, 1300)
    tables = []
    for cache_size in (None, 5.0):
        search = Search(X, y, Settings(folds=3, exhaustive=True), Resources(cache_size, 1))
        search.run([0.1, 1.0, 10.0], [0.05])
        tables.append({trial: result.scores for trial, result in search.results.items()})
    for trial, scores in tables[0].items():
        np.testing.assert_allclose(tables[1][trial], scores, atol=0.003)


def test_shades_grow_lighter_with_accuracy():
    light = [sum(shade(value, 0.5, 1.0)) for value in (0.5, 0.8, 0.9, 0.95, 1.0)]
    assert light == sorted(light)
    assert shade(0.5, 0.5, 0.5) == shade(1.0, 0.5, 1.0)
