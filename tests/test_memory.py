"""Free memory within the limits of a control group and of ulimit."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from gpusvm import memory

MB = 2**20


@pytest.fixture(autouse=True)
def control_group(tmp_path, monkeypatch):
    """A control group that each test describes for itself."""
    monkeypatch.setattr(memory, "CGROUP_ROOT", tmp_path)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=8000 * MB, available=5000 * MB))


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


@pytest.mark.parametrize(("cached_mb", "free_mb"), [(0, 400), (250, 650)])
def test_version_2_counts_the_page_cache_as_free(tmp_path, cached_mb, free_mb):
    stat = f"anon 5\ninactive_file {cached_mb * MB}\nactive_file 7"
    write(tmp_path, memory__max=1000 * MB, memory__current=600 * MB, memory__stat=stat)
    assert (memory.available_mb(), memory.total_mb()) == (free_mb, 1000)


def test_version_1(tmp_path):
    stat = f"inactive_file 1\ntotal_inactive_file {100 * MB}"
    files = {"memory__limit_in_bytes": 1000 * MB, "memory__usage_in_bytes": 600 * MB, "memory__stat": stat}
    write(tmp_path / "memory", **files)
    assert memory.available_mb() == 500
    write(tmp_path / "memory", memory__limit_in_bytes=9223372036854771712)
    assert memory.available_mb() == 5000


def test_no_limit_and_no_control_group(tmp_path):
    assert memory.available_mb() == 5000
    write(tmp_path, memory__max="max", memory__current=600 * MB)
    assert (memory.available_mb(), memory.total_mb()) == (5000, 8000)


def test_there_is_a_peak_where_there_is_no_module_resource(monkeypatch):
    """No other file imports it, says test_architecture.py."""

    def no_proc(path):
        raise OSError

    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr("pathlib.Path.read_text", no_proc)
    memory_info = SimpleNamespace(peak_wset=5 * MB)  # which psutil has on Windows
    monkeypatch.setattr("psutil.Process", lambda: SimpleNamespace(memory_info=lambda: memory_info))
    assert memory.peak_rss_mb() == 5


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS and /proc")
def test_the_limit_of_the_address_space_counts():
    code = """
import resource
from gpusvm.memory import address_space_mb, available_mb, require_address_space
require_address_space(1e9, "training")
assert address_space_mb() is None
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
assert 0 < address_space_mb() < 1024 and available_mb() <= address_space_mb()
require_address_space(10, "training")
try:
    require_address_space(5000, "training")
except MemoryError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith("training needs about 5000 MB, and ulimit -v leaves "), done.stderr
