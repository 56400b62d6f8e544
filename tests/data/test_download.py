"""Downloads from a server here that fails in every way that mirrors do; the net is never asked."""

from __future__ import annotations

import dataclasses
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import filelock
import pytest

from fdfa.data import download as downloading
from fdfa.data.download import download
from fdfa.data.official import LOCK, OfficialFile, missing
from fdfa.errors import DataError
from tests.data.mirror_server import Mirror, fingerprint, mirror

CONTENT = random.Random(0).randbytes(300_000)
WHOLE = fingerprint(CONTENT)


@pytest.fixture
def server() -> Iterator[Mirror]:
    with mirror(CONTENT) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def official(server: Mirror, *faults: str, name: str = "file") -> OfficialFile:
    return OfficialFile(
        name=name,
        packed=WHOLE,
        mirrors=tuple(server.url(fault, name) for fault in faults),
    )


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {LOCK}


def assert_whole(folder: Path) -> None:
    assert (folder / "file").read_bytes() == CONTENT
    assert files_in(folder) == {"file"}


def test_a_file_and_its_progress(tmp_path: Path, server: Mirror) -> None:
    told: list[tuple[str, int, int]] = []
    download(
        [official(server, "slow")], tmp_path / "new" / "set", progress=lambda *t: told.append(t)
    )
    assert_whole(tmp_path / "new" / "set")
    assert {(name, total) for name, _, total in told} == {("file", len(CONTENT))}
    done = [done for _, done, _ in told]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, len(CONTENT))
    assert len(done) > 5


def test_what_is_there_is_not_asked_for(tmp_path: Path, server: Mirror) -> None:
    (tmp_path / "a").write_bytes(b"unpacked")
    (tmp_path / "b.gz").write_bytes(b"packed")
    files = [official(server, "good", name=name) for name in ("a.gz", "b.gz", "file")]
    assert missing(files, tmp_path) == files[2:]
    download(files, tmp_path)
    assert server.asked == [("good", None)]
    assert (tmp_path / "a").read_bytes() == b"unpacked"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("absent", "answers 404 Not Found"),
        ("wrong", "sends a file of another checksum"),
        ("page", "has 28 bytes for us where the file has 300,000"),
        ("short", "ends after 299,993 of 300,000 bytes"),
        ("endless", "goes on after the 300,000 bytes of the file"),
        ("silent", "fails: .*timed out"),
    ],
)
def test_a_mirror_that_fails_is_left_for_the_next(
    tmp_path: Path, server: Mirror, monkeypatch: pytest.MonkeyPatch, fault: str, reason: str
) -> None:
    monkeypatch.setattr(downloading, "SILENT_SECONDS", 0.2)
    monkeypatch.setattr(downloading, "BREAKS", 1)
    with pytest.raises(DataError, match=rf"/{fault}/file {reason}") as caught:
        download([official(server, fault)], tmp_path)
    assert "file cannot be downloaded into" in str(caught.value)
    assert "file" not in files_in(tmp_path)
    download([official(server, fault, "good")], tmp_path)
    assert_whole(tmp_path)


def test_the_error_names_every_mirror_and_what_to_do(tmp_path: Path, server: Mirror) -> None:
    nobody = "http://127.0.0.1:9/file"
    file = official(server, "absent", "page")
    with pytest.raises(DataError) as caught:
        download([dataclasses.replace(file, mirrors=(*file.mirrors, nobody))], tmp_path)
    text = str(caught.value)
    assert [line.split()[0] for line in text.splitlines()[1:4]] == [*file.mirrors, nobody]
    assert "Connection refused" in text
    assert "HTTPS_PROXY" in text
    assert "put the file there yourself." in text
    assert "kept" not in text  # nothing came


def test_an_endless_answer_is_cut_off(tmp_path: Path, server: Mirror) -> None:
    with pytest.raises(DataError, match="goes on after"):
        download([official(server, "endless")], tmp_path)
    # 32 MB were on offer. What the sockets hold is beyond anybody's control.
    assert server.sent < 16_000_000
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= len(CONTENT)


def test_a_broken_connection_is_gone_on_from(tmp_path: Path, server: Mirror) -> None:
    server.breaks = 3
    download([official(server, "cut")], tmp_path)
    assert_whole(tmp_path)
    assert server.asked == [
        ("cut", None),
        ("cut", "bytes=150000-"),
        ("cut", "bytes=225000-"),
        ("cut", "bytes=262500-"),
    ]


def test_a_connection_that_breaks_for_ever_is_left(
    tmp_path: Path, server: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "BREAKS", 2)
    server.breaks = 10**6
    with pytest.raises(DataError, match="Connection broken") as caught:
        download([official(server, "cut")], tmp_path)
    assert "What has come so far is kept, and gone on from next time." in str(caught.value)
    assert len(server.asked) == 3
    download([official(server, "good")], tmp_path)
    assert server.asked[-1] == ("good", "bytes=262500-")
    assert_whole(tmp_path)


@pytest.mark.parametrize("fault", ["good", "encoded", "elsewhere"])
def test_the_next_run_asks_for_the_rest_only(tmp_path: Path, server: Mirror, fault: str) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    server.sent = 0
    download([official(server, fault)], tmp_path)
    assert_whole(tmp_path)
    assert server.asked[-1][1] == "bytes=1000-"
    assert server.sent == len(CONTENT) - 1000


def test_bytes_that_an_encoding_is_claimed_for_stay_as_they_are(
    tmp_path: Path, server: Mirror
) -> None:
    download([official(server, "encoded")], tmp_path)
    assert_whole(tmp_path)


def test_a_server_without_ranges_starts_again(tmp_path: Path, server: Mirror) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    download([official(server, "deaf")], tmp_path)
    assert_whole(tmp_path)
    assert server.asked == [("deaf", "bytes=1000-")]


def test_a_server_that_sends_another_range_is_left(tmp_path: Path, server: Mirror) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    with pytest.raises(
        DataError, match="'bytes 1001-299999/300000' when asked for the bytes from 1000"
    ):
        download([official(server, "shifted")], tmp_path)
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:1000]


@pytest.mark.parametrize("size", [1000, 300_000, 300_001])
def test_a_spoilt_part_is_thrown_away(tmp_path: Path, server: Mirror, size: int) -> None:
    # Of another version, or zeros that a power cut left: the mirror is not to blame.
    (tmp_path / "file.part").write_bytes(bytes(size))
    download([official(server, "good")], tmp_path)
    assert_whole(tmp_path)


def test_a_whole_part_needs_no_mirror(tmp_path: Path, server: Mirror) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT)
    download([official(server, "absent")], tmp_path)
    assert_whole(tmp_path)
    assert server.asked == []


START = """
import sys
from pathlib import Path
from fdfa.data.download import download
from fdfa.data.official import Fingerprint, OfficialFile
url, size, checksum, folder = sys.argv[1:]
file = OfficialFile(name="file", packed=Fingerprint(int(size), checksum), mirrors=(url,))
download([file], Path(folder))
"""


def started(server: Mirror, folder: Path) -> subprocess.Popen:
    """A process in the middle of a download."""
    arguments = [server.url("slow"), str(WHOLE.size), WHOLE.checksum, str(folder)]
    process = subprocess.Popen([sys.executable, "-c", START, *arguments], stderr=subprocess.DEVNULL)
    while server.sent < 100_000:
        assert process.poll() is None
        time.sleep(0.01)
    return process


@pytest.mark.parametrize(
    "stop",
    [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)],
    ids=["kill", "ctrl-c"],
)
def test_a_stopped_process_leaves_what_the_next_goes_on_from(
    tmp_path: Path, server: Mirror, stop: signal.Signals
) -> None:
    server.pause = 0.05
    process = started(server, tmp_path)
    process.send_signal(stop)
    assert process.wait() != 0
    assert files_in(tmp_path) == {"file.part"}
    before = (tmp_path / "file.part").stat().st_size
    assert before >= 50_000
    download([official(server, "good")], tmp_path)
    assert_whole(tmp_path)
    assert server.asked[-1] == ("good", f"bytes={before}-")


def test_of_two_processes_one_downloads(tmp_path: Path, server: Mirror) -> None:
    server.pause = 0.03
    other = started(server, tmp_path)
    download([official(server, "good")], tmp_path)
    assert_whole(tmp_path)
    assert other.wait() == 0
    assert server.asked == [("slow", None)]


def test_who_waits_sees_what_the_other_has_got(
    tmp_path: Path, server: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "WAIT_SECONDS", 0.05)
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    other = filelock.FileLock(tmp_path / LOCK)
    other.acquire()
    told: list[int] = []

    def note(name: str, done: int, total: int) -> None:
        told.append(done)
        other.release()

    download([official(server, "good")], tmp_path, progress=note)
    assert told[:2] == [1000, 1000]  # waiting, then going on
    assert told[-1] == len(CONTENT)


def test_a_full_disk_is_noticed_first(
    tmp_path: Path, server: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        downloading.shutil, "disk_usage", lambda folder: SimpleNamespace(free=299_000)
    )
    with pytest.raises(DataError, match="has 299,000 bytes left, and the download needs 300,000"):
        download([official(server, "good")], tmp_path)
    assert server.asked == []
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    download([official(server, "good")], tmp_path)
    assert_whole(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path: Path, server: Mirror) -> None:
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(DataError, match=r"taken/set cannot be downloaded into: .* Choose another"):
        download([official(server, "good")], tmp_path / "taken" / "set")


def test_the_proxy_of_the_environment_is_used(
    tmp_path: Path, server: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = "http://127.0.0.1:9/file"
    file = dataclasses.replace(official(server), mirrors=(nobody,))
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    download([file], tmp_path / "through")
    assert_whole(tmp_path / "through")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(DataError, match="Connection refused"):
        download([file], tmp_path / "past")
