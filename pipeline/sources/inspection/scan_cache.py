"""Results of reading each file, kept on disk: a second index of the same files does not read them again."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.durable import replacing
from pipeline.errors import MALFORMED, StorageError
from pipeline.fingerprint import digest
from pipeline.untrusted.own_files import open_plain

CACHE_FILE = "seen.jsonl"
"""Its name beside a domain's items."""

Entry = dict[str, Any]


def file_key(path: Path, stat: os.stat_result) -> list[Any]:
    """The key of a file's header: with the same path, size and date it need not be read again."""
    return ["header 4", str(path), stat.st_size, stat.st_mtime_ns]


class ScanCache:
    """Entries by key, one JSON line each, in a file that only grows while an index runs.

    Each line has a digest of its entry: a line that was damaged is as if it had never been written.

    A key contains all that its entry depends on (path, size and date of files), so an old entry is never wrong, at most
    useless. Safe for threads. Two indexes of one domain at the same time each write lines of their own.

    Args:
        path: the file; it is made when the first entry is written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._lines = dict(_read_lines(path))
        self._used: set[str] = set()

    def get(self, key: Any) -> Entry | None:
        """The entry of a JSON-able key; None where there is none yet."""
        name = digest(key)
        line = self._lines.get(name)
        if line is None:
            return None
        with self._lock:
            self._used.add(name)
        return _parse(line)[1]

    def get_or_make(self, key: Any, make: Callable[[], Entry]) -> Entry:
        """The entry of a JSON-able key; where there is none yet it is made and appended.

        Raises:
            StorageError: the file cannot be written.
        """
        entry = self.get(key)
        if entry is None:
            entry = make()
            self._append(digest(key), entry)
        return entry

    def _append(self, name: str, entry: Entry) -> None:
        line = json.dumps({"key": name, "sum": digest([name, entry]), "entry": entry}, separators=(",", ":"))
        try:
            with self._lock:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
                place = self._path.parent.resolve() / self._path.name
                with os.fdopen(open_plain(place, flags), "a", encoding="utf-8") as file:
                    file.write(line + "\n")
                self._lines[name] = line
                self._used.add(name)
        except OSError as error:
            raise StorageError(f"{self._path}: cannot be written: {error.strerror}; choose another folder") from error

    def drop_unused(self) -> None:
        """Writes the file again with only the entries that were read or added since it was opened.

        Raises:
            StorageError: the file cannot be written.
        """
        if self._used == self._lines.keys():
            return
        with replacing(self._path) as temporary:
            temporary.write_text("".join(f"{self._lines[k]}\n" for k in sorted(self._used)), encoding="utf-8")


def _read_lines(path: Path) -> list[tuple[str, str]]:
    """(key, line) pairs, without lines that are damaged, or that a killed process left half-written."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []
    pairs = []
    for line in lines:
        try:
            text = line.decode()
            pairs.append((_parse(text)[0], text))
        except MALFORMED:
            continue
    return pairs


def _parse(line: str) -> tuple[str, Entry]:
    """(key, entry); JSON as Python writes it, with infinities."""
    content = json.loads(line)
    key, entry = content["key"], content["entry"]
    if content["sum"] != digest([key, entry]):
        raise ValueError("the entry was changed")
    return key, entry
