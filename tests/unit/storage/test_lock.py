"""Locks of folders."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segnetr.errors import UsageError
from segnetr.storage.lock import LOCK_NAME, lock_folder

HOLD = (
    "import sys, time\n"
    "from pathlib import Path\n"
    "from segnetr.storage.lock import lock_folder\n"
    "with lock_folder(Path(sys.argv[1])):\n"
    "    print('locked', flush=True)\n"
    "    time.sleep(60)\n"
)


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that has locked the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_locked_folder_is_refused_with_host_and_process(holder, tmp_path: Path) -> None:
    owner = f"process {holder.pid} on {socket.gethostname()}"
    with pytest.raises(UsageError, match=owner) as caught, lock_folder(tmp_path):
        pass
    assert "\n" not in str(caught.value)
    assert "another --out" in str(caught.value)


def test_lock_of_a_killed_process_is_taken_over_with_one_line(holder, tmp_path: Path) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK_NAME).is_file()
    messages: list[str] = []
    with lock_folder(tmp_path, on_message=messages.append):
        content = json.loads((tmp_path / LOCK_NAME).read_text())
        assert content["process"] == os.getpid()
    (message,) = messages
    assert f"process {holder.pid}" in message
    assert not (tmp_path / LOCK_NAME).exists()


def test_released_lock_leaves_no_file_and_can_be_taken_again(tmp_path: Path) -> None:
    messages: list[str] = []
    for _ in range(2):
        with lock_folder(tmp_path, on_message=messages.append):
            (tmp_path / "result").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["result"]
    assert messages == []


def test_new_folder_is_removed_if_nothing_was_written(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "run"
    with lock_folder(folder):
        assert folder.is_dir()
    assert not folder.exists()


def test_locks_of_different_names_do_not_exclude_each_other(tmp_path: Path) -> None:
    with lock_folder(tmp_path, name=".one"), lock_folder(tmp_path, name=".two"):
        pass


def test_one_of_many_processes_gets_the_lock(tmp_path: Path) -> None:
    code = HOLD.replace("time.sleep(60)", "time.sleep(3)")
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(4)
    ]
    limit = time.monotonic() + 60
    outputs = [process.communicate(timeout=limit - time.monotonic())[0] for process in started]
    assert outputs.count("locked\n") == 1
    assert sorted(process.returncode for process in started) == [0, 1, 1, 1]
