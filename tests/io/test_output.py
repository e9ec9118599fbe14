"""Where results go: whole files, behind links, or into what is no file at all."""

from __future__ import annotations

import os
import sys
import threading

import pytest
from forks import run_in_a_fork

from gpusvm.io.output import check_writable, remove_unfinished, replacing, write_text

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs links and pipes with names")


def test_a_failure_leaves_the_old_file(tmp_path):
    target = tmp_path / "r.txt"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(target) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_an_interrupt_while_the_temporary_file_is_made_leaves_none(tmp_path, monkeypatch):
    def interrupted(handle):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", interrupted)
        with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "r.txt"):
            pass
    assert list(tmp_path.iterdir()) == []


@posix
def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    real, link = tmp_path / "elsewhere" / "real.txt", tmp_path / "link.txt"
    real.write_text("old")
    link.symlink_to(real)
    check_writable(link)
    write_text(link, "new")
    assert link.is_symlink() and real.read_text() == "new"


@posix
def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    check_writable(pipe)
    write_text(pipe, "through")
    reader.join(timeout=300)
    assert read == ["through"] and pipe.is_fifo()


# Not tried on /dev/null itself: run by root, a fault here would replace it for the whole machine.
@posix
def test_a_link_to_a_pipe_is_followed(tmp_path):
    pipe, link, read = tmp_path / "pipe", tmp_path / "link", []
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    write_text(link, "through")
    reader.join(timeout=300)
    assert read == ["through"] and link.is_symlink() and pipe.is_fifo()


def test_an_interrupt_before_the_clean_up_leaves_something_to_remove(tmp_path):
    """Python may raise it in the context manager's own code, and the process ends before the
    generator is resumed."""
    (tmp_path / "result").write_text("old")
    begun = replacing(tmp_path / "result")
    begun.__enter__().write_text("half")
    assert len(list(tmp_path.iterdir())) == 2
    remove_unfinished()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("again", [False, True], ids=["once", "and again while that is cleaned up"])
def test_ctrl_c_between_writing_and_clean_up_leaves_nothing(tmp_path, monkeypatch, again):
    """The command as a whole: Python raises the interrupt as the block of `replacing` is left."""
    script = (
        "import contextlib, signal, sys\n"
        "from gpusvm.cli import main\n"
        "leave = contextlib._GeneratorContextManager.__exit__\n"
        "def interrupted(self, *exception):\n"
        "    if self.gen.__name__ == 'replacing':\n"
        "        raise KeyboardInterrupt\n"
        "    return leave(self, *exception)\n"
        "contextlib._GeneratorContextManager.__exit__ = interrupted\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "remove = main.remove_unfinished\n"
        f"main.remove_unfinished = lambda: ({again} and signal.raise_signal(signal.SIGINT), remove())\n"
        "sys.argv = 'gpusvm train digits --limit 200 --backend sklearn --out m.svm'.split()\n"
        "main.run()\n"
    )
    monkeypatch.chdir(tmp_path)
    done = run_in_a_fork(script)
    assert done.returncode == 130 and "Traceback" not in done.stderr, done.stderr
    assert list(tmp_path.iterdir()) == []
