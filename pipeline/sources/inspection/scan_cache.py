"""What was seen in each file, written down as it is seen: an index that is begun again goes on from there."""

import json
import threading
from pathlib import Path
from typing import Any

from pipeline.durable import replacing
from pipeline.errors import StorageError
from pipeline.fingerprint import digest

JOURNAL_FILE = "seen.jsonl"
"""Its name beside a domain's items."""

Entry = dict[str, Any]


class Journal:
    """Facts by key, one JSON line each, in a file that only grows while an index runs.

    A key says all that its entry depends on (path, size and date of files), so an old entry is never wrong,
    at most useless. Safe for threads; two indexes of one domain at once would each write lines of their own.
    """

    def __init__(self, path: Path) -> None:
        """Opens the journal at `path`; the file is made when the first entry is written."""
        self._path = path
        self._lock = threading.Lock()
        self._lines = dict(_read(path))
        self._used: set[str] = set()

    def get(self, key: Any) -> Entry | None:
        """The entry of a JSON-able key; None where it was not seen yet."""
        name = digest(key)
        line = self._lines.get(name)
        if line is None:
            return None
        with self._lock:
            self._used.add(name)
        entry: Entry = json.loads(line)["entry"]
        return entry

    def put(self, key: Any, entry: Entry) -> None:
        """Appends an entry.

        Raises:
            StorageError: the file cannot be written.
        """
        name = digest(key)
        line = json.dumps({"key": name, "entry": entry}, separators=(",", ":"))
        try:
            with self._lock:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
                self._lines[name] = line
                self._used.add(name)
        except OSError as error:
            raise StorageError(f"{self._path}: cannot be written: {error.strerror}; choose another folder") from error

    def drop_unused(self) -> None:
        """Writes the file anew with what was asked for or added since it was opened.

        Raises:
            StorageError: the file cannot be written.
        """
        if self._used == self._lines.keys():
            return
        with replacing(self._path) as temporary:
            temporary.write_text("".join(f"{self._lines[k]}\n" for k in sorted(self._used)), encoding="utf-8")


def _read(path: Path) -> list[tuple[str, str]]:
    """(key, line) pairs; a line that a killed process left half-written is dropped."""
    try:
        lines = path.read_bytes().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = []
    for line in lines:
        try:
            found.append((json.loads(line)["key"], line.decode()))
        except (ValueError, KeyError, TypeError):
            continue
    return found
