"""Test that `segnetr data prepare` installs and audits archives completely or not at all."""

import functools
import hashlib
import http.server
import json
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segnetr.data.download.sources import OFFICIAL, Archive
from segnetr.data.download.transaction import open_transaction
from segnetr.workflows.datasets import list_datasets as data_list
from segnetr.workflows.datasets import prepare

FOLDERS = {
    "train": ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"),
    "validation": (
        "ISIC2018_Task1-2_Validation_Input",
        "ISIC2018_Task1_Validation_GroundTruth",
    ),
}


def pack(folder: Path, path: Path, *, inside: str | None = None) -> Path:
    """Zip a folder under its own name or another one."""
    top = folder.name if inside is None else inside
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, (Path(top) / file.relative_to(folder)).as_posix())
    return path


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


@pytest.fixture
def archives(images: Path, tmp_path: Path) -> Path:
    """Return archives of the training images and masks, each with its own name."""
    folder = tmp_path / "archives"
    folder.mkdir()
    for name in FOLDERS["train"]:
        pack(images / name, folder / f"my_{name}.zip")
    return folder


@pytest.fixture
def run(command: Callable, tmp_path: Path) -> Callable:
    """Prepare ISIC 2018 in this process."""

    def prepare_set(*arguments: object, name: str = "isic2018"):
        where = ("--data-dir", tmp_path / "data", "--workers", 0)
        return command("data", "prepare", name, *arguments, *where, "--quiet")

    return prepare_set


def one_line(done) -> str:
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def test_archives_are_unpacked_and_audited_without_being_modified(
    run, command, archives, images, tmp_path
):
    before = snapshot(archives)
    done = run("--source", *archives.glob("*.zip"), "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert {item["name"] for item in facts["prepared"]} == set(before)
    assert facts["checks"][0]["cases"] == 6
    assert facts["checks"][0]["issues"] == []
    data = tmp_path / "data"
    assert names(data) == {*FOLDERS["train"], ".segnetr-prepared.json"}
    for name in FOLDERS["train"]:
        assert {k: v[1] for k, v in snapshot(data / name).items()} == {
            k: v[1] for k, v in snapshot(images / name).items()
        }
    assert snapshot(archives) == before
    checked = command("data", "check", "--dataset", "isic2018", "--data-dir", data, "--workers", 0)
    assert checked.returncode == 0


def test_second_run_changes_nothing(run, archives, tmp_path):
    assert run("--source", archives).returncode == 0
    before, folder = snapshot(tmp_path / "data"), (tmp_path / "data").stat().st_mtime_ns
    done = run("--source", archives)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("already installed") == 2
    assert snapshot(tmp_path / "data") == before
    assert (tmp_path / "data").stat().st_mtime_ns == folder


def test_removed_files_are_prepared_again(run, archives, tmp_path):
    assert run("--source", archives).returncode == 0
    shutil.rmtree(tmp_path / "data" / FOLDERS["train"][0])
    done = run("--source", archives, "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["prepared"]) == 1


def test_another_split_is_added_to_the_existing_data(run, archives, images, tmp_path):
    assert run("--source", archives).returncode == 0
    for name in FOLDERS["validation"]:
        pack(images / name, tmp_path / f"{name[:-1]}.zip")
    done = run("--source", *tmp_path.glob("ISIC*.zip"), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["checks"][0]["cases"] == 9
    record = json.loads((tmp_path / "data/.segnetr-prepared.json").read_text())
    assert len(record["archives"]) == 4


def test_error_for_images_without_masks_names_the_missing_archive(run, archives, tmp_path):
    done = run("--source", archives / f"my_{FOLDERS['train'][0]}.zip")
    assert done.returncode == 2
    assert FOLDERS["train"][1] in one_line(done)
    assert names(tmp_path / "data") == {FOLDERS["train"][0], ".segnetr-prepared.json"}


def test_issues_in_the_data_are_listed_with_exit_code_4(run, images, tmp_path):
    for name in FOLDERS["train"]:
        shutil.copytree(images / name, tmp_path / "copy" / name)
    truncated = sorted((tmp_path / "copy" / FOLDERS["train"][0]).iterdir())[0]
    truncated.write_bytes(truncated.read_bytes()[:500])
    done = run("--source", pack(tmp_path / "copy", tmp_path / "a.zip", inside=""))
    assert done.returncode == 4
    assert (
        f"image-unreadable: {tmp_path / 'data' / FOLDERS['train'][0] / truncated.name}"
        in done.stdout
    )


def test_official_name_with_a_wrong_hash_is_rejected(run, images, tmp_path):
    name = FOLDERS["train"][1]
    done = run("--source", pack(images / name, tmp_path / f"{name}.zip"))
    assert done.returncode == 4
    assert "99f8b2bb3c4d6af483362010715f7e7d5d122d9f6c02cac0e0d15bef77c7604c" in one_line(done)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("order", [1, -1])
def test_single_bad_archive_leaves_no_files(run, archives, tmp_path, order: int):
    with zipfile.ZipFile(archives / "zz.zip", "w") as archive:
        archive.writestr("../evil.png", b"1")
    done = run("--source", *sorted(archives.iterdir())[::order])
    assert done.returncode == 4
    assert "points out of its folder" in one_line(done)
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "evil.png").exists()


def test_two_archives_with_the_same_file_are_rejected(run, archives, tmp_path):
    shutil.copy(archives / f"my_{FOLDERS['train'][0]}.zip", archives / "again.zip")
    done = run("--source", archives)
    assert done.returncode == 4
    assert "another --source holds too" in one_line(done)
    assert not (tmp_path / "data").exists()


def test_existing_file_is_never_replaced(run, archives, tmp_path):
    taken = sorted(zipfile.ZipFile(archives / f"my_{FOLDERS['train'][0]}.zip").namelist())[0]
    first = tmp_path / "data" / taken
    first.parent.mkdir(parents=True)
    first.write_text("mine")
    done = run("--source", archives)
    assert done.returncode == 2
    assert f"{first}: exists and was not installed" in one_line(done)
    assert snapshot(tmp_path / "data").keys() == {taken}
    assert first.read_text() == "mine"


class Killed(BaseException):
    """Simulate a killed process."""


def test_next_run_completes_a_run_killed_between_two_moves(run, archives, tmp_path, monkeypatch):
    rename, calls = Path.rename, []

    def die(self: Path, target: Path) -> Path:
        if self.parent.name == "contents":
            calls.append(self.name)
            if len(calls) == 2:
                raise Killed
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", die)
    with pytest.raises(Killed):
        run("--source", archives)
    assert FOLDERS["train"][0] in names(tmp_path / "data")
    assert FOLDERS["train"][1] not in names(tmp_path / "data")
    monkeypatch.setattr(Path, "rename", rename)
    done = run("--source", archives)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("already installed") == 2
    assert names(tmp_path / "data") == {*FOLDERS["train"], ".segnetr-prepared.json"}


def test_next_run_removes_files_of_a_run_killed_while_unpacking(
    run, archives, tmp_path, monkeypatch
):
    left = tmp_path / "data/.segnetr-prepare/contents/half"
    left.mkdir(parents=True)
    (left / "a.png").write_bytes(b"1")
    assert run("--source", archives).returncode == 0
    assert names(tmp_path / "data") == {*FOLDERS["train"], ".segnetr-prepared.json"}


def test_failed_move_is_rolled_back(run, archives, tmp_path, monkeypatch):
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.parent.name == "contents" and self.name == FOLDERS["train"][1]:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    done = run("--source", archives)
    assert done.returncode == 1
    assert "No space left on device" in one_line(done)
    assert not (tmp_path / "data").exists()


def test_two_processes_cannot_prepare_one_folder_at_once(run, archives, tmp_path):
    with open_transaction(tmp_path / "data"):
        done = run("--source", archives)
    assert done.returncode == 2
    assert "another process" in one_line(done)


def test_unpacked_folder_is_copied_and_not_modified(run, images, tmp_path):
    before = snapshot(images)
    done = run("--source", images, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["checks"][0]["cases"] == 12
    assert snapshot(images) == before
    again = run("--source", images)
    assert "already installed" in again.stdout


def test_link_in_an_unpacked_folder_is_rejected(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/a.jpg").symlink_to("/etc/passwd")
    done = run("--source", tmp_path / "mine")
    assert done.returncode == 4
    assert "is a link or a device" in one_line(done)
    assert not (tmp_path / "data").exists()


def test_error_for_a_rar_file_asks_to_unpack_it_first(run, tmp_path):
    (tmp_path / "PH2Dataset.rar").write_bytes(b"Rar!\x1a\x07\x01\0" + bytes(100))
    done = run("--source", tmp_path / "PH2Dataset.rar")
    assert done.returncode == 4
    assert "unrar x PH2Dataset.rar" in one_line(done)


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [("--max-files", 3, "more than 3 files"), ("--max-gib", 1e-6, "more than 1073 bytes")],
)
def test_limits_are_set_by_flags(run, archives, flag: str, value: float, message: str):
    done = run("--source", archives, flag, value)
    assert done.returncode == 4
    assert message in one_line(done)
    assert flag in one_line(done)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("isic2018", [], "nothing to prepare isic2018 from; give --source ARCHIVE or DIR, or --do"),
        ("isic18", ["--download"], "did you mean 'isic2018'"),
        ("synthetic", ["--download"], "generated by this program"),
        ("medmnist", ["--download"], "--subset is missing: one of pathmnist"),
        ("medmnist", ["--download", "--subset", "mnist"], "unknown --subset 'mnist'; there are"),
        ("isic2018", ["--download", "--subset", "x"], "one set, without subsets"),
        ("isic2018", ["--source", "not-there.zip"], "no such file or folder"),
        ("isic2018", ["--download"], "license: CC BY-NC 4.0"),
        ("cifar10", ["--download"], "add --accept-license if you agree"),
    ],
)
def test_wrong_usage_gives_a_one_line_error_without_a_prompt(
    run, tmp_path, name, arguments, message
):
    done = run(*arguments, name=name)
    assert done.returncode == 2
    assert message in one_line(done)
    assert not (tmp_path / "data").exists()


def test_nested_source_and_target_are_rejected(command, images):
    for target in (images, images / "sub"):
        done = command("data", "prepare", "isic2018", "--source", images, "--data-dir", target)
        assert done.returncode == 2
        assert "overlap" in one_line(done)
    assert not (images / "sub").exists()


def test_classification_dataset_is_prepared(run, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        f"{part}_{kind}": value
        for part in ("train", "val", "test")
        for kind, value in (
            ("images", rng.integers(0, 256, (4, 28, 28)).astype(np.uint8)),
            ("labels", np.array([[0], [1], [0], [1]])),
        )
    }
    np.savez(tmp_path / "tiny.npz", **arrays)
    done = run("--source", tmp_path / "tiny.npz", "--json", name="medmnist")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["checks"][0]["cases"] == 12
    assert (tmp_path / "data/tiny.npz").read_bytes() == (tmp_path / "tiny.npz").read_bytes()
    (tmp_path / "truncated.npz").write_bytes((tmp_path / "tiny.npz").read_bytes()[:-40])
    assert run("--source", tmp_path / "truncated.npz", name="medmnist").returncode != 0


def test_list_shows_downloadable_datasets_with_their_license(command):
    rows = json.loads(command("data", "list", "--json").stdout)["datasets"]
    sets = {row["name"]: row for row in rows}
    assert sets["synthetic"]["download"] == "not needed"
    assert sets["synthetic"]["archives"] == []
    assert sets["isic2018"]["download"] == "about 13 GB"
    assert len(sets["isic2018"]["archives"]) == 6
    assert sets["cifar10"]["archives"][0]["md5"] == "c58f30108f718f92721af3b95e74349a"
    assert all(row["license"] for row in rows)


def test_every_official_archive_has_a_valid_description():
    for name, source in OFFICIAL.items():
        assert source.title, name
        assert source.license, name
        assert source.page.startswith("http"), name
        files = [archive.name for archive in source.archives]
        assert len(files) == len(set(files)) > 0
        for archive in source.archives:
            assert archive.address == "" or archive.address.startswith("https://")
            assert archive.sha256 is None or len(bytes.fromhex(archive.sha256)) == 32
            assert archive.md5 is None or len(bytes.fromhex(archive.md5)) == 16
            assert archive.subset == "" or archive.subset in source.subsets
            assert bool(archive.folder) == archive.is_packed
    hashes = [
        value
        for source in OFFICIAL.values()
        for archive in source.archives
        for value in (archive.sha256, archive.md5)
        if value
    ]
    assert len(hashes) == len(set(hashes))


class _Files(http.server.SimpleHTTPRequestHandler):
    """Serve the files of a folder and redirect `astray` to a local file of the machine."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if "astray" in self.path:
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""


@pytest.fixture
def site(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """Start a server with two official archives, one without its folder, and return their table."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    folder = tmp_path / "site"
    folder.mkdir()
    handler = functools.partial(_Files, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.asked = []
    address = f"http://127.0.0.1:{server.server_address[1]}"
    found = []
    for number, name in enumerate(FOLDERS["train"]):
        path = pack(images / name, folder / f"{name}.zip", inside="" if number else None)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        url = f"{address}/{path.name}"
        found.append(Archive(name=path.name, address=url, folder=name, sha256=sha256))
    source = replace(OFFICIAL["isic2018"], archives=tuple(found))
    server.table = {**OFFICIAL, "isic2018": source}
    monkeypatch.setattr(prepare, "OFFICIAL", server.table)
    monkeypatch.setattr(data_list, "OFFICIAL", server.table)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_download_requires_the_license_and_installs_checked_files(run, site, tmp_path):
    done = run("--download")
    assert done.returncode == 2
    assert "CC BY-NC 4.0" in one_line(done)
    assert site.asked == []
    done = run("--download", "--accept-license", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert all(item["is_official"] for item in facts["prepared"])
    assert facts["checks"][0]["cases"] == 6
    assert names(tmp_path / "data") == {*FOLDERS["train"], ".segnetr-prepared.json"}
    site.asked.clear()
    again = run("--download")
    assert again.returncode == 0, again.stderr
    assert "already installed" in again.stdout
    assert site.asked == []


def test_download_fetches_only_missing_archives(run, site, tmp_path):
    mine = tmp_path / "site" / f"{FOLDERS['train'][0]}.zip"
    done = run("--source", mine, "--download", "--accept-license", "--keep-archives")
    assert done.returncode == 0, done.stderr
    assert site.asked == [f"/{FOLDERS['train'][1]}.zip"]
    assert names(tmp_path / "data/.segnetr-downloads") == {f"{FOLDERS['train'][1]}.zip"}
    assert mine.exists()


def test_download_with_a_wrong_hash_installs_nothing_and_keeps_the_valid_archive(
    run, site, tmp_path
):
    bad = tmp_path / "site" / f"{FOLDERS['train'][1]}.zip"
    good = bad.read_bytes()
    bad.write_bytes(good[:-1] + b"!")
    done = run("--download", "--accept-license")
    assert done.returncode == 1
    assert "has the sha256" in one_line(done)
    assert names(tmp_path / "data") == {".segnetr-downloads"}
    bad.write_bytes(good)
    site.asked.clear()
    assert run("--download", "--accept-license").returncode == 0
    assert site.asked == [f"/{bad.name}"]
    assert names(tmp_path / "data") == {*FOLDERS["train"], ".segnetr-prepared.json"}


def test_redirect_of_a_download_to_a_local_file_is_rejected(run, site, tmp_path):
    first, second = site.table["isic2018"].archives
    astray = replace(first, address=first.address.replace(".zip", "-astray.zip"))
    site.table["isic2018"] = replace(site.table["isic2018"], archives=(astray, second))
    done = run("--download", "--accept-license")
    assert done.returncode == 1
    assert "no http or https address; it was not followed" in one_line(done)


def test_renamed_official_archive_is_recognized_by_its_hash(run, site, tmp_path):
    for number, name in enumerate(FOLDERS["train"]):
        shutil.copy(tmp_path / "site" / f"{name}.zip", tmp_path / f"renamed{number}.zip")
    done = run("--source", *tmp_path.glob("renamed*.zip"), "--json")
    assert done.returncode == 0, done.stderr
    assert all(item["is_official"] for item in json.loads(done.stdout)["prepared"])
    assert names(tmp_path / "data") == {*FOLDERS["train"], ".segnetr-prepared.json"}


def test_uncompressed_tar_with_system_metadata_files_is_prepared(run, images, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in FOLDERS["train"]:
            archive.add(images / name, name)
        archive.addfile(tarfile.TarInfo(f"{FOLDERS['train'][0]}/._ISIC_0000000.jpg"))
    done = run("--source", tmp_path / "a.tar")
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "data").rglob("._*"))
