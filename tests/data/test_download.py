"""Downloads from servers on this machine that stall, drop, lie, redirect without end, or lack a
certificate."""

import gzip
import hashlib
import re
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import trustme

from gpusvm.data import download as downloads
from gpusvm.data.download import download
from gpusvm.errors import DownloadError

NAME = "file.gz"
BODY = gzip.compress(bytes(range(256)) * 2000, mtime=0)
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def serve():
    """A function that starts a server, which answers every request as `answer(handler)` does, and
    gives its address."""
    servers = []

    def start(answer, certificate=None):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.close_connection = True
                answer(self)

            def log_message(self, *args):
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request, client_address):
                pass

        server = Server(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(context)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return f"{'http' if certificate is None else 'https'}://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def respond(handler, body=BODY, status=200, **headers):
    handler.send_response(status)
    for key, value in ({"Content-Length": len(BODY), "Connection": "close"} | headers).items():
        handler.send_header(key.replace("_", "-"), str(value))
    handler.end_headers()
    handler.wfile.write(body)


def say_nothing(handler):
    handler.rfile.read(1)  # which ends when the client has had enough


def stall(handler):
    respond(handler, BODY[:1000])
    handler.rfile.read(1)


def drop_in_a_chunk(handler):
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"%x\r\n" % len(BODY) + BODY[:1000])


def end_early_without_a_length(handler):
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(BODY[:1000])


def never_end(handler):
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(bytes(1 << 16))


def is_right(path):
    return hashlib.sha256(path.read_bytes()).hexdigest() == SHA256


def fetch(folder, *mirrors):
    download(NAME, mirrors, folder / NAME, is_right, max_bytes=len(BODY))


MISDEEDS = {
    "truncated": (end_early_without_a_length, "sent another file"),
    "other bytes": (lambda handler: respond(handler, BODY[:-9] + bytes(9)), "sent another file"),
    "404": (lambda handler: respond(handler, status=404), "answered 404"),
    "500": (lambda handler: respond(handler, status=500), "answered 500"),
    "redirect loop": (lambda handler: respond(handler, status=302, Location=handler.path), r"failed \("),
    "redirect to a file": (
        lambda handler: respond(handler, status=302, Location="file:///etc/passwd"), r"failed \("),
    "silence": (say_nothing, "did not answer in time"),
    # Where the machine is slow, the client may give up before it has seen the beginning.
    "stall": (stall, "broke off|did not answer in time"),
    "drop": (lambda handler: respond(handler, BODY[:1000]), "broke off"),
    "drop in a chunk": (drop_in_a_chunk, "broke off"),
    "no end": (never_end, "sent more than the file's size"),
    "no HTTP": (lambda handler: handler.wfile.write(b"\0" * 100), "broke off"),
}  # fmt: skip


@pytest.fixture
def have_little_patience(monkeypatch):
    """A function after which those mirrors are given up soon, and all others never."""
    original, given_up_soon = downloads._fetch, set()

    def fetch_from(url, *arguments):
        soon = any(url.startswith(mirror) for mirror in given_up_soon)
        monkeypatch.setattr(downloads, "READ_TIMEOUT_SECONDS", 0.2 if soon else 300.0)
        original(url, *arguments)

    monkeypatch.setattr(downloads, "_fetch", fetch_from)
    return given_up_soon.update


@pytest.mark.parametrize("kind", MISDEEDS)
def test_a_misdeed_is_named_and_the_next_mirror_used(tmp_path, serve, have_little_patience, kind):
    answer, said = MISDEEDS[kind]
    bad = serve(answer)
    if answer in (say_nothing, stall):
        have_little_patience([bad])
    with pytest.raises(DownloadError, match=said):
        fetch(tmp_path, bad)
    assert list(tmp_path.iterdir()) == []
    fetch(tmp_path, bad, serve(respond))
    assert is_right(tmp_path / NAME) and len(list(tmp_path.iterdir())) == 1


def test_the_message_has_what_each_mirror_said(tmp_path, serve, have_little_patience):
    mirrors = {serve(answer): (answer, said) for answer, said in MISDEEDS.values()}
    have_little_patience(mirror for mirror, (answer, _) in mirrors.items() if answer in (say_nothing, stall))
    with pytest.raises(DownloadError) as caught:
        fetch(tmp_path, *mirrors)
    reports = str(caught.value).partition("could not be fetched: ")[2].split("; ")
    for report, (mirror, (_, said)) in zip(reports, mirrors.items(), strict=True):
        assert report.startswith(mirror.split("/")[2]) and re.search(said, report)


def test_a_failure_leaves_the_file_that_was_there(tmp_path, serve):
    (tmp_path / NAME).write_bytes(b"old")
    with pytest.raises(DownloadError):
        fetch(tmp_path, serve(lambda handler: respond(handler, status=500)))
    assert (tmp_path / NAME).read_bytes() == b"old"


PROGRAM = f"""
import sys
from pathlib import Path
from gpusvm.data import download as downloads
import hashlib
downloads.READ_TIMEOUT_SECONDS = 300  # the other process may be slow to start
check = lambda path: hashlib.sha256(path.read_bytes()).hexdigest() == {SHA256!r}
downloads.download({NAME!r}, sys.argv[2:], Path(sys.argv[1], {NAME!r}), check, max_bytes={len(BODY)})
"""


def start_process(folder, *mirrors):
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder), *mirrors])


def test_two_processes_at_once(tmp_path, serve):
    both = threading.Barrier(2, timeout=300)

    def answer_when_both_ask(handler):
        respond(handler, BODY[:1000])
        both.wait()
        assert not (tmp_path / NAME).exists()
        both.wait()
        handler.wfile.write(BODY[1000:])

    mirror = serve(answer_when_both_ask)
    processes = [start_process(tmp_path, mirror) for _ in range(2)]
    assert [process.wait(300) for process in processes] == [0, 0]
    assert is_right(tmp_path / NAME) and len(list(tmp_path.iterdir())) == 1


def test_a_process_that_is_killed_leaves_nothing_under_the_files_name(tmp_path, serve):
    begun, ended = threading.Event(), threading.Event()

    def answer_half(handler):
        respond(handler, BODY[:1000])
        begun.set()
        ended.wait(300)

    process = start_process(tmp_path, serve(answer_half))
    assert begun.wait(300)
    process.kill()
    process.wait(300)
    ended.set()
    assert not (tmp_path / NAME).exists()
    fetch(tmp_path, serve(respond))
    assert is_right(tmp_path / NAME)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def trusted(authority, tmp_path_factory, monkeypatch):
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))


class TestCertificates:
    def test_one_that_nobody_vouches_for_is_refused(self, tmp_path, serve, authority):
        address = serve(respond, authority.issue_cert("127.0.0.1"))
        with pytest.raises(DownloadError, match="has no valid certificate"):
            fetch(tmp_path, address)
        assert list(tmp_path.iterdir()) == []

    def test_one_that_is_vouched_for_is_taken(self, tmp_path, serve, authority, trusted):
        fetch(tmp_path, serve(respond, authority.issue_cert("127.0.0.1")))
        assert is_right(tmp_path / NAME)

    def test_one_for_another_host_is_refused(self, tmp_path, serve, authority, trusted):
        with pytest.raises(DownloadError, match="has no valid certificate"):
            fetch(tmp_path, serve(respond, authority.issue_cert("example.org")))
