import hashlib
import json
import subprocess
import sys
import textwrap

import pytest

from segnetr.errors import ModelFileError, WriteError
from segnetr.storage.manifest import (
    MANIFEST_NAME,
    recover_folder,
    replace_folder,
    verify_manifest,
    write_json,
    write_manifest,
    write_text_atomic,
)


def names_in(folder):
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def sealed(tmp_path):
    folder = tmp_path / "model"
    (folder / "part").mkdir(parents=True)
    (folder / "a.bin").write_bytes(bytes(range(256)))
    (folder / "part" / "b.json").write_text("{}")
    write_manifest(folder)
    return folder


def test_manifest_has_the_format_of_sha256sum(sealed):
    digest = hashlib.sha256((sealed / "a.bin").read_bytes()).hexdigest()
    lines = (sealed / MANIFEST_NAME).read_text().splitlines()
    assert f"{digest}  a.bin" in lines
    assert [line.split("  ")[1] for line in lines] == ["a.bin", "part/b.json"]


def test_unmodified_folder_is_accepted_and_sealing_again_changes_nothing(sealed):
    before = (sealed / MANIFEST_NAME).read_bytes()
    write_manifest(sealed)
    assert (sealed / MANIFEST_NAME).read_bytes() == before
    verify_manifest(sealed, required=["a.bin", "part/b.json"])


@pytest.mark.parametrize("position", [0, 100, 255])
def test_file_with_a_flipped_bit_is_named(sealed, position):
    data = bytearray((sealed / "a.bin").read_bytes())
    data[position] ^= 1
    (sealed / "a.bin").write_bytes(data)
    with pytest.raises(ModelFileError, match=r"a\.bin: the bytes differ") as caught:
        verify_manifest(sealed)
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(sealed):
    (sealed / "part" / "b.json").unlink()
    with pytest.raises(ModelFileError, match=r"b\.json: the file is missing"):
        verify_manifest(sealed)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"nowhere.*missing"):
        verify_manifest(tmp_path / "nowhere")


def test_file_missing_from_the_manifest_is_rejected(sealed):
    (sealed / "c.bin").write_bytes(b"foreign")
    with pytest.raises(ModelFileError, match=r"does not list c\.bin"):
        verify_manifest(sealed, required=["c.bin"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense\n",
        f"{'0' * 64}  ../outside\n",
        f"{'0' * 64}  /etc/passwd\n",
        f"{'z' * 64}  a\n",
    ],
)
def test_truncated_or_malicious_manifest_is_rejected(sealed, text):
    (sealed / MANIFEST_NAME).write_text(text)
    with pytest.raises(ModelFileError, match=MANIFEST_NAME):
        verify_manifest(sealed)


def test_folder_replaces_the_older_one_without_leftover_files(tmp_path):
    target = tmp_path / "model"
    for text in ("one", "two"):
        replace_folder(lambda folder, text=text: write_json(folder / "v.json", text), target)
    verify_manifest(target, required=["v.json"])
    assert json.loads((target / "v.json").read_text()) == "two"
    assert names_in(tmp_path) == ["model"]


def test_full_disk_leaves_the_older_folder_intact(tmp_path):
    target = tmp_path / "model"
    replace_folder(lambda folder: write_json(folder / "v.json", 1), target)

    def fill_disk(folder):
        (folder / "v.json").write_text("half")
        raise OSError(28, "No space left on device", str(folder / "v.json"))

    with pytest.raises(WriteError, match="No space left") as caught:
        replace_folder(fill_disk, target)
    assert "\n" not in str(caught.value)
    verify_manifest(target, required=["v.json"])
    assert names_in(tmp_path) == ["model"]


def test_text_file_is_replaced_atomically(tmp_path):
    path = tmp_path / "note.txt"
    write_text_atomic(path, "one")
    write_text_atomic(path, "zwei ä")
    assert path.read_text(encoding="utf-8") == "zwei ä"
    assert names_in(tmp_path) == ["note.txt"]


def test_writing_below_a_file_gives_a_one_line_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write"):
        write_text_atomic(tmp_path / "file" / "note.txt", "x")


KILLED_WRITER = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path

    from segnetr.storage import manifest

    target, kill_at = Path(sys.argv[1]), int(sys.argv[2])
    calls = 0

    def deadly(function):
        def call(*arguments, **options):
            global calls
            calls += 1
            if calls == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)
        return call

    for name in ("fsync", "rename", "replace", "mkdir", "rmdir", "unlink"):
        setattr(os, name, deadly(getattr(os, name)))
    manifest.replace_folder(lambda folder: manifest.write_json(folder / "v.json", "new"), target)
    """
)


@pytest.mark.slow
def test_folder_killed_during_replacement_is_complete_old_or_new(tmp_path):
    target = tmp_path / "model"
    found = set()
    for kill_at in range(1, 60):
        replace_folder(lambda folder: write_json(folder / "v.json", "old"), target)
        script = [sys.executable, "-c", KILLED_WRITER, str(target), str(kill_at)]
        code = subprocess.run(script, check=False).returncode
        recover_folder(target)
        verify_manifest(target, required=["v.json"])
        found.add(json.loads((target / "v.json").read_text()))
        assert names_in(tmp_path) == ["model"]
        if code == 0:
            break
    else:
        pytest.fail("the writer was killed each time")
    assert found == {"old", "new"}


def test_manifest_with_a_null_byte_in_a_name_is_rejected(tmp_path):
    (tmp_path / MANIFEST_NAME).write_bytes(b"0" * 64 + b"  a\0b\n")
    with pytest.raises(ModelFileError, match="damaged or changed"):
        verify_manifest(tmp_path)
