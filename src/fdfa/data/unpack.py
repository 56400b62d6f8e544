"""Unpacks an official archive of very many files, all of it or nothing."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from pathlib import Path

from fdfa.data.official import OfficialFile, Progress
from fdfa.data.reading import refuse
from fdfa.errors import briefly

__all__ = ["unpack"]


def unpack(file: OfficialFile, archive: Path, folder: Path, report: Progress) -> None:
    """Unpacks a zip archive that holds one folder.

    The folder gets its name when all is there; what a killed process left is thrown away.

    Args:
        file: what the archive has to be: only official bytes are unpacked.
        archive: where it is.
        folder: where the archive's one folder shall be, under the same name, beside the archive;
            nothing else may be unpacking there at the same time.
        report: called with the folder's name, the bytes unpacked, and how many there will be.

    Raises:
        DataError: if the archive is not the official one.
        OSError: if the disk refuses.
    """
    if not file.is_whole(archive):
        refuse(archive, "is not the official file: its size or its checksum differs")
    hidden = folder.with_name(f".unpacking-{folder.name}")
    shutil.rmtree(hidden, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as content:
            members = content.infolist()
            done, total = 0, sum(member.file_size for member in members)
            for member in members:
                content.extract(member, hidden)
                done += member.file_size
                report(folder.name, done, total)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        refuse(archive, f"cannot be unpacked: {briefly(error)}", cause=error)
    if not (hidden / folder.name).is_dir():
        refuse(archive, f"holds no folder {folder.name}")
    (hidden / folder.name).rename(folder)
    shutil.rmtree(hidden, ignore_errors=True)
