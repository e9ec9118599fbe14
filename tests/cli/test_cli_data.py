"""``gpusvm data``: what its commands print and write."""

import gzip
import io
import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from gpusvm.cli import show
from gpusvm.cli.commands import data as command
from gpusvm.data import CATALOGUE, idx
from gpusvm.errors import DataError, DownloadError, OutputError, UsageError

NAMES = [file.name for file in CATALOGUE["mnist"].files]


@pytest.fixture(autouse=True)
def no_real_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GPUSVM_DATA_DIR", raising=False)
    monkeypatch.setenv("GPUSVM_CACHE_DIR", str(tmp_path / "cache"))


def run(*arguments):
    return CliRunner().invoke(command.app, [str(argument) for argument in arguments])


def printed(*arguments):
    result = run(*arguments)
    assert result.exception is None, result.exception
    return result.stdout


def save_npz(path, n=12, **arrays):
    rng = np.random.default_rng(0)
    np.savez(path, images=rng.integers(0, 256, (n, 28, 28), dtype=np.uint8), **arrays)
    return path


class TestList:
    def test_says_where_each_set_is(self, tmp_path):
        for name in NAMES:
            idx.write(tmp_path / "sets" / "mnist" / f"{name}.gz", np.zeros(3))
        lines = printed("list", "--data-dir", tmp_path / "sets").splitlines()
        assert lines[0].split() == ["name", "train", "test", "what", "where"]
        assert lines[1].startswith("mnist") and lines[1].rstrip().endswith(str(tmp_path / "sets" / "mnist"))
        assert "60,000" in lines[1] and "10,000" in lines[1]
        assert "not on this machine: gpusvm data fetch fashion-mnist" in lines[2]
        assert "inside scikit-learn" in lines[3]


class TestFetch:
    def test_what_is_here_is_named(self):
        result = run("fetch", "digits")
        assert result.exit_code == 0 and "sklearn" in result.stdout
        assert "digits is complete and verified" in result.stderr

    def test_errors_reach_the_main_program(self, monkeypatch):
        assert isinstance(run("fetch", "imagenet").exception, UsageError)
        entry = CATALOGUE["mnist"]
        monkeypatch.setitem(CATALOGUE, "mnist", type(entry)(**{**vars(entry), "mirrors": ()}))
        assert isinstance(run("fetch", "mnist").exception, DownloadError)


class TestVerify:
    def test_nothing_to_verify_is_in_order_unless_named(self):
        output = printed("verify")
        assert output.count("missing") == 8 and "inside scikit-learn" in output
        error = run("verify", "mnist").exception
        assert isinstance(error, DataError) and "gpusvm data fetch mnist" in str(error)

    def test_a_wrong_file_is_an_error(self, tmp_path):
        folder = tmp_path / "sets" / "mnist"
        folder.mkdir(parents=True)
        (folder / f"{NAMES[0]}.gz").write_bytes(gzip.compress(b"another"))
        result = run("verify", "--data-dir", tmp_path / "sets")
        assert isinstance(result.exception, DataError) and f"{folder / NAMES[0]}.gz" in str(result.exception)
        first = next(line for line in result.stdout.splitlines() if NAMES[0] in line)
        assert "wrong sum" in first and str(folder) in first

    def test_digits_is_always_right(self):
        assert "ok" in printed("verify", "digits")


class TestShow:
    def test_digits(self):
        output = printed("show", "digits")
        assert "digits, train: 1,437 images of 8x8" in output
        assert "First rows" in output and "pixel32" in output
        assert "10 classes" in output and "9.9%" in output
        assert "Pixel histogram" in output and "240 to 255" in output
        assert "▀" in output and "█" in output and "\x1b" not in output

    def test_split_and_limit(self):
        assert "digits, test: 7 images" in printed("show", "digits", "--split", "test", "--limit", 7)

    def test_without_labels(self, tmp_path):
        output = printed("show", save_npz(tmp_path / "a.npz"))
        assert "12 images of 28x28" in output and "No labels" in output

    def test_many_classes_are_cut_short(self, tmp_path):
        path = save_npz(tmp_path / "a.npz", n=50, labels=np.arange(50))
        output = printed("show", path)
        assert "50 classes" in output and "... and 20 more" in output

    def test_names_with_brackets_are_no_markup(self, tmp_path):
        labels = np.array(["[bold]", "[/]", "x"] * 4)
        output = printed("show", save_npz(tmp_path / "[red]a.npz", labels=labels))
        assert "[red]a.npz" in output and "[bold]" in output and "[/]" in output

    @pytest.mark.parametrize("shape", [(3, 1, 5), (3, 5, 1), (2, 1, 1), (1, 300, 400)])
    def test_odd_shapes(self, tmp_path, shape):
        np.savez(tmp_path / "a.npz", images=np.full(shape, 200, dtype=np.uint8))
        assert f"{shape[2]}x{shape[1]}" in printed("show", tmp_path / "a.npz")

    def test_errors_reach_the_main_program(self, tmp_path):
        assert isinstance(run("show", "nowhere").exception, DataError)
        assert isinstance(run("show", "digits", "--split", "dev").exception, UsageError)
        assert isinstance(run("show", "digits", "--out", tmp_path).exception, OutputError)


class TestPng:
    @pytest.mark.parametrize("limit", [1, 15, 300])
    def test_is_a_picture(self, tmp_path, limit):
        result = run("show", "digits", "--limit", limit, "--out", tmp_path / "new" / "a.png")
        assert result.exception is None, result.exception
        assert "Wrote" in result.stderr and result.stdout == ""
        with Image.open(tmp_path / "new" / "a.png") as picture:
            assert picture.format == "PNG" and picture.width == 1200
            assert len(picture.convert("L").getcolors(256)) > 20

    def test_labels_may_be_words_many_or_none(self, tmp_path):
        words = np.array([f"{i} $\\frac$ a rather long name" for i in range(60)])
        for number, labels in enumerate(({}, {"labels": words})):
            path = save_npz(tmp_path / f"{number}.npz", n=60, **labels)
            assert run("show", path, "--out", tmp_path / f"{number}.png").exception is None

    def test_without_matplotlib_it_says_what_to_install(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        error = run("show", "digits", "--out", tmp_path / "a.png").exception
        assert isinstance(error, UsageError) and 'pip install "gpusvm[plot]"' in str(error)
        assert list(tmp_path.iterdir()) == []


class TestDrawing:
    image = np.array([[0, 255], [255, 255], [255, 0]], dtype=np.uint8)

    def draw(self, encoding="utf-8", **options):
        raw = io.BytesIO()
        file = io.TextIOWrapper(raw, encoding=encoding)
        console = Console(file=file, width=40, **options)
        for line in show._draw(self.image, console):
            console.print(line)
        file.flush()
        return raw.getvalue().decode(encoding)

    def test_two_pixels_a_character(self):
        assert self.draw().splitlines() == ["▄█", "▀ "]

    def test_greys_on_a_terminal_with_colours(self):
        drawn = self.draw(force_terminal=True, color_system="truecolor")
        assert "38;2;0;0;0;48;2;255;255;255" in drawn and "▀" in drawn

    def test_no_colours_where_they_are_not_wanted(self):
        assert "38;2" not in self.draw(force_terminal=True, color_system="truecolor", no_color=True)

    def test_plain_characters_where_there_are_no_blocks(self):
        assert self.draw(encoding="ascii").splitlines() == [".:", "' "]

    @pytest.mark.parametrize(("fraction", "bar"), [(0, ""), (1e-9, "▏"), (0.5, "█" * 20), (1, "█" * 40)])
    def test_bars(self, fraction, bar):
        assert show._bar(fraction, Console(file=io.TextIOWrapper(io.BytesIO(), "utf-8"))).plain == bar
