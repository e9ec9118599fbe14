"""The catalogue: search order, checksums, and downloads from mirrors that misbehave."""

import gzip
import hashlib
import socket
import threading
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from gpusvm.data import (
    CATALOGUE,
    catalogue,
    default_source,
    download,
    fetch,
    find_local,
    idx,
    load_dataset,
    verify,
)
from gpusvm.errors import DataError, DownloadError, OutputError, UsageError

NAMES = [file.name for file in CATALOGUE["mnist"].files]


@pytest.fixture(autouse=True)
def no_real_places(tmp_path, monkeypatch):
    """An empty working directory and cache, and no proxy between us and our own server."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.delenv("GPUSVM_DATA_DIR", raising=False)
    monkeypatch.setenv("GPUSVM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """The decompressed bytes of four small IDX files, by name."""
    folder = tmp_path_factory.mktemp("small")
    rng = np.random.default_rng(0)
    arrays = (rng.integers(0, 256, (6, 4, 4)), np.arange(6), rng.integers(0, 256, (3, 4, 4)), np.arange(3))
    for name, array in zip(NAMES, arrays, strict=True):
        idx.write(folder / name, array)
    return {name: (folder / name).read_bytes() for name in NAMES}


@pytest.fixture
def small(contents, monkeypatch):
    """A function that puts a small data set into MNIST's place in the catalogue, with the given
    mirrors."""

    def install(*mirrors):
        files = [
            catalogue.CatalogueFile(name, "sha256:" + hashlib.sha256(content).hexdigest(), len(content))
            for name, content in contents.items()
        ]
        entry = replace(CATALOGUE["mnist"], files=tuple(files), mirrors=mirrors)
        monkeypatch.setitem(CATALOGUE, "mnist", entry)

    install()
    return install


def fill(folder, contents, pack=gzip.compress, suffix=".gz"):
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / f"{name}{suffix}").write_bytes(pack(content))
    return folder


@pytest.fixture
def mirror():
    """A function that starts a server; `answers` maps a path to its body, or to a whole
    response."""
    servers = []

    def start(answers):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                answer = answers.get(self.path.lstrip("/"))
                status, headers, body = answer if isinstance(answer, tuple) else (200, {}, answer)
                if body is None:
                    self.send_error(404)
                    return
                self.send_response(status)
                for key, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        asked = []
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        return address, asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def dead_mirror():
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    return f"http://127.0.0.1:{port}/"


def zipped(contents):
    return {f"{name}.gz": gzip.compress(content) for name, content in contents.items()}


def files_below(folder):
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


class TestFinding:
    @pytest.mark.parametrize("layout", ["mnist", "MNIST/raw", "MNIST"])
    def test_layouts(self, tmp_path, small, contents, layout):
        folder = fill(tmp_path / "sets" / layout, contents)
        assert find_local("mnist", tmp_path / "sets") == folder
        assert load_dataset("mnist", data_dir=tmp_path / "sets").images.shape == (6, 4, 4)

    def test_plain_files_are_found_too(self, tmp_path, small, contents):
        fill(tmp_path / "sets" / "mnist", contents, pack=bytes, suffix="")
        assert len(load_dataset("mnist", "test", data_dir=tmp_path / "sets")) == 3

    def test_search_order(self, tmp_path, small, contents, monkeypatch):
        assert find_local("mnist") is None
        cached = fill(tmp_path / "cache" / "mnist", contents)
        assert find_local("mnist") == cached
        fill(Path("data/mnist"), contents)
        assert find_local("mnist") == Path("data/mnist")
        named = fill(tmp_path / "environment" / "mnist", contents)
        monkeypatch.setenv("GPUSVM_DATA_DIR", str(tmp_path / "environment"))
        assert find_local("mnist") == named
        given = fill(tmp_path / "given" / "mnist", contents)
        assert find_local("mnist", tmp_path / "given") == given

    def test_an_incomplete_folder_is_passed_over(self, tmp_path, small, contents):
        (fill(tmp_path / "sets" / "mnist", contents) / f"{NAMES[3]}.gz").unlink()
        cached = fill(tmp_path / "cache" / "mnist", contents)
        assert find_local("mnist", tmp_path / "sets") == cached

    def test_digits_needs_no_files(self):
        assert find_local("digits").is_dir() and fetch("digits") == find_local("digits")
        assert verify("digits") == []

    def test_unknown_names(self):
        for call in (find_local, fetch, verify):
            with pytest.raises(UsageError, match="no data set is called 'imagenet'; there are mnist"):
                call("imagenet")

    def test_a_file_on_disk_that_is_another_is_not_loaded(self, tmp_path, small, contents):
        folder = fill(tmp_path / "sets" / "mnist", contents)
        changed = contents[NAMES[0]][:-1] + b"\x2a"
        (folder / f"{NAMES[0]}.gz").write_bytes(gzip.compress(changed))
        with pytest.raises(DataError, match=f"{NAMES[0]}.gz: is not the published file"):
            load_dataset("mnist", data_dir=tmp_path / "sets")
        assert len(load_dataset(folder)) == 6  # by its path it is anybody's data set


class TestVerifying:
    def test_each_file_gets_its_verdict(self, tmp_path, small, contents):
        folder = fill(tmp_path / "sets" / "mnist", contents)
        (folder / f"{NAMES[0]}.gz").write_bytes(gzip.compress(contents[NAMES[0]] + b"\0"))
        (folder / f"{NAMES[1]}.gz").write_bytes(b"\x1f\x8b damaged")
        (folder / f"{NAMES[2]}.gz").unlink()
        checks = verify("mnist", tmp_path / "sets")
        assert [check.status for check in checks] == ["wrong sum", "wrong sum", "missing", "ok"]
        assert [check.name for check in checks] == NAMES
        assert checks[2].path is None and checks[3].path == folder / f"{NAMES[3]}.gz"

    def test_nothing_there(self, small):
        assert {check.status for check in verify("mnist")} == {"missing"}


class TestFetching:
    def test_into_the_cache(self, tmp_path, small, contents, mirror):
        address, asked = mirror(zipped(contents))
        small(address)
        data = load_dataset("mnist")
        assert data.images.shape == (6, 4, 4) and data.labels.tolist() == [0, 1, 2, 3, 4, 5]
        assert files_below(tmp_path / "cache") == sorted(tmp_path / "cache" / "mnist" / f"{n}.gz" for n in NAMES)
        assert len(asked) == 4
        assert fetch("mnist") == tmp_path / "cache" / "mnist"
        assert len(asked) == 4  # what is there and right is not fetched again

    def test_into_a_folder_of_ones_own(self, tmp_path, small, contents, mirror):
        small(mirror(zipped(contents))[0])
        assert fetch("mnist", tmp_path / "own") == tmp_path / "own" / "mnist"
        assert not (tmp_path / "cache").exists()

    def test_a_damaged_copy_is_replaced(self, tmp_path, small, contents, mirror):
        address, asked = mirror(zipped(contents))
        small(address)
        fill(tmp_path / "cache" / "mnist", contents)
        (tmp_path / "cache" / "mnist" / f"{NAMES[1]}.gz").write_bytes(b"\x1f\x8b damaged")
        fetch("mnist")
        assert asked == [f"/{NAMES[1]}.gz"]
        assert {check.status for check in verify("mnist")} == {"ok"}

    @pytest.mark.parametrize("explicit", [True, False])
    def test_the_copy_that_a_load_would_use_is_the_one_mended(
        self, tmp_path, small, contents, mirror, monkeypatch, explicit
    ):
        small(mirror(zipped(contents))[0])
        folder = fill(tmp_path / "sets" / "MNIST" / "raw", contents)
        (folder / f"{NAMES[1]}.gz").write_bytes(b"\x1f\x8b damaged")
        monkeypatch.setenv("GPUSVM_DATA_DIR", str(tmp_path / "sets"))
        assert fetch("mnist", tmp_path / "sets" if explicit else None) == folder
        assert {check.status for check in verify("mnist")} == {"ok"}
        assert len(load_dataset("mnist")) == 6

    def test_somebodys_own_decompressed_file_is_left_alone(self, tmp_path, small, contents, mirror):
        small(mirror(zipped(contents))[0])
        own = tmp_path / "own" / "mnist" / NAMES[0]
        own.parent.mkdir(parents=True)
        own.write_bytes(b"mine")
        with pytest.raises(DataError, match="move it away"):
            fetch("mnist", tmp_path / "own")
        assert own.read_bytes() == b"mine"

    @pytest.mark.parametrize(
        ("spoil", "said"),
        [
            (lambda body: None, "answered 404"),
            (lambda body: (503, {}, b"busy"), "answered 503"),
            (lambda body: gzip.compress(b"another file"), "sent another file"),
            (lambda body: b"<html>please log in</html>", "sent another file"),
            (lambda body: body[:-9], "sent a damaged or truncated file"),
            (lambda body: body[:30] + b"\xff" * 9 + body[39:], "sent"),
            (lambda body: bytes(1_000_000), "sent more than the file's size"),
            (lambda body: (200, {"Content-Length": "99999"}, body), "broke off"),
            (lambda body: b"", "sent another file"),
        ],
    )
    def test_a_mirror_that_is_wrong_gives_way_to_the_next(self, tmp_path, small, contents, mirror, spoil, said):
        bad, _ = mirror({name: spoil(body) for name, body in zipped(contents).items()})
        good, asked = mirror(zipped(contents))
        small(bad, good)
        fetch("mnist")
        assert len(asked) == 4
        assert {check.status for check in verify("mnist")} == {"ok"}

        small(bad)
        with pytest.raises(DownloadError, match=said) as caught:
            fetch("mnist", tmp_path / "own")
        assert files_below(tmp_path / "own") == []
        assert "\n" not in str(caught.value)

    def test_a_dead_mirror_gives_way_to_the_next(self, small, contents, mirror, dead_mirror):
        small(dead_mirror, mirror(zipped(contents))[0])
        fetch("mnist")
        assert {check.status for check in verify("mnist")} == {"ok"}

    def test_when_all_fail_each_is_listed_with_what_to_do(self, tmp_path, small, mirror, dead_mirror):
        address, asked = mirror({})
        small(dead_mirror, address)
        with pytest.raises(DownloadError) as caught:
            load_dataset("mnist")
        message = str(caught.value)
        assert "cannot be reached" in message and "answered 404" in message and "\n" not in message
        assert "./data/mnist" in message and "GPUSVM_DATA_DIR" in message and "digits" in message
        assert len(asked) == 1  # the other three files would fare no better
        assert files_below(tmp_path / "cache") == []

    def test_a_slow_mirror_is_given_up(self, small, contents, monkeypatch):
        monkeypatch.setattr(download, "READ_TIMEOUT_SECONDS", 0.2)
        with closing(socket.socket()) as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            small(f"http://127.0.0.1:{silent.getsockname()[1]}/")
            with pytest.raises(DownloadError, match="did not answer in time"):
                fetch("mnist")

    def test_a_server_that_unpacks_what_it_serves(self, small, contents, mirror):
        encoded = {name: (200, {"Content-Encoding": "gzip"}, body) for name, body in zipped(contents).items()}
        small(mirror(encoded)[0])
        assert gzip.decompress((fetch("mnist") / f"{NAMES[0]}.gz").read_bytes()) == contents[NAMES[0]]

    def test_nowhere_to_write(self, tmp_path, small, contents, mirror):
        small(mirror(zipped(contents))[0])
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match="cannot write"):
            fetch("mnist", tmp_path / "file")

    def test_progress_is_a_line_where_there_is_no_terminal(self, small, contents, mirror, capsys):
        address, _ = mirror(zipped(contents))
        small(address)
        fetch("mnist", progress=True)
        printed = capsys.readouterr()
        assert printed.out == ""
        host = address.split("/")[2]
        assert f"fetching {NAMES[0]}.gz from {host}" in printed.err
        assert len(printed.err.splitlines()) == 4


class TestDefaultSource:
    def test_mnist_where_it_is_here(self, tmp_path, small, contents):
        fill(tmp_path / "sets" / "mnist", contents)
        assert default_source(tmp_path / "sets") == ("mnist", None)

    def test_mnist_where_it_can_be_fetched(self, small, contents, mirror):
        small(mirror(zipped(contents))[0])
        assert default_source() == ("mnist", None)

    def test_digits_with_a_notice_where_it_cannot(self, small, dead_mirror):
        small(dead_mirror)
        name, notice = default_source()
        assert name == "digits"
        assert notice.startswith("using digits, scikit-learn's 1,797 bundled 8x8 images") and "\n" not in notice
        assert "cannot be reached" in notice

    def test_digits_where_nothing_can_be_written(self, tmp_path, small, contents, mirror, monkeypatch):
        small(mirror(zipped(contents))[0])
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("GPUSVM_CACHE_DIR", str(tmp_path / "file"))
        name, notice = default_source()
        assert name == "digits" and "cannot write" in notice


def test_entries_are_complete():
    for name, entry in CATALOGUE.items():
        assert entry.name == name and entry.title
        if entry.files:
            assert len(entry.files) == 4 and len(entry.mirrors) >= 2
            assert all(address.startswith("https://") and address.endswith("/") for address in entry.mirrors)
    assert CATALOGUE["mnist"].recommended == {"C": 10.0, "gamma": 0.02}
    assert CATALOGUE["digits"].recommended == {"C": 10.0, "gamma": 0.2}
    assert CATALOGUE["fashion-mnist"].recommended == {}, "say in docs/data.md how they were found"
    assert {file.checksum.partition(":")[0] for file in CATALOGUE["mnist"].files} == {"sha256"}


def test_importing_downloads_nothing_and_no_downloader():
    import subprocess
    import sys

    program = (
        "import sys, gpusvm.data.dataset, gpusvm.data.download; print({'requests', 'matplotlib'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
