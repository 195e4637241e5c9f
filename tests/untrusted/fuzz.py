"""Damages files of every format that is parsed, and sorts what the package makes of them.

`make fuzz MINUTES=30`; `make fuzz SEED=1 FORMAT='sealed COG' INPUT=17` repeats one input. Each damaged file is read in
a process of its own, forked from this one, which has imported everything: within 15 s, and without allocations of
gigabytes.
"""

import argparse
import gc
import itertools
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import LandcoverError
from pipeline.fingerprint import digest
from pipeline.model.network import _import_smp
from tests.support.forking import fork
from tests.support.mutations import mutate
from tests.untrusted.formats import DOMAIN, FORMATS, Format, header
from tests.untrusted.fuzz_inputs import make_inputs

LONGEST_S = 15
"""Of a processor; asleep, or on a busy machine, four times as long."""
MOST_BYTES = 3 << 30
"""A larger allocation for one small file is a finding, even where it fails."""
KINDS = ("right", "clean error", "undetectable", "unnamed", "traceback", "hang", "crash", "memory", "silently wrong")
"""`undetectable`: another result, and nothing in the product tells; `unnamed`: an error that does not name the file."""
FINDINGS = KINDS[3:]
SLOTS = 2
WHOLE = 0
"""Number of the input that is not damaged."""


@dataclass(frozen=True)
class Outcome:
    """What came of a damaged file."""

    kind: str
    detail: str
    result: str = ""
    """Digest of what was read."""
    header: str = ""


@dataclass
class _Child:
    """A process that reads one file in the folder of a slot."""

    pid: int
    pipe: int
    slot: int
    own: Format
    number: int
    whole: bytes
    mtime_ns: int
    started: float


class Fuzzer:
    """Reads damaged files in forked processes, two at a time, each in its own copy of the inputs.

    Args:
        folder: an empty one.
        formats: to damage.
        seed: of all mutations.
        say: gets lines of progress.
    """

    def __init__(self, folder: Path, formats: Sequence[Format], *, seed: int, say: Callable[[str], None]) -> None:
        self._folder, self._formats, self._seed, self._say = folder, formats, seed, say
        self.counts = {own.name: Counter[str]() for own in formats}
        self.findings = 0
        self._expected: dict[str, Outcome] = {}
        self._running: dict[int, _Child] = {}

    def prepare(self) -> None:
        """Makes the inputs, and reads each file whole."""
        _wait(fork(lambda: make_inputs(self._files(0))))
        for slot in range(1, SLOTS):
            shutil.copytree(self._files(0), self._files(slot), symlinks=True)
        _import_smp()  # which every model would import again, for seconds
        gc.freeze()
        for child, outcome in self._read_all((own, WHOLE) for own in self._formats):
            self._expected[child.own.name] = outcome
            if outcome.kind != "right":
                raise AssertionError(f"{child.own.name}: the whole file: {outcome.kind}: {outcome.detail}")

    def fuzz(self, jobs: Iterator[tuple[Format, int]], *, until: float) -> None:
        """Reads damaged files until the time is over, or no more are wanted."""
        said = began = time.monotonic()
        for child, outcome in self._read_all(itertools.takewhile(lambda _: time.monotonic() < until, jobs)):
            self._count(child, outcome)
            if time.monotonic() - said > 5:
                said = time.monotonic()
                done = sum(c.total() for c in self.counts.values())
                self._say(f"{done} inputs, {self.findings} findings, {said - began:.0f} s")

    def _read_all(self, jobs: Iterable[tuple[Format, int]]) -> Iterator[tuple[_Child, Outcome]]:
        """Reads files in a process each; yields them in the order in which they end."""
        waiting = iter(jobs)
        while True:
            while len(self._running) < SLOTS and (job := next(waiting, None)):
                self._start(*job, min(set(range(SLOTS)) - self._running.keys()))
            if not self._running:
                return
            yield from self._ended()

    def _files(self, slot: int) -> Path:
        return self._folder / str(slot) / "files"

    def _count(self, child: _Child, outcome: Outcome) -> None:
        expected = self._expected[child.own.name]
        if outcome.kind == "right" and outcome.result != expected.result:
            told = child.own.evidence == "checksum" or outcome.header != expected.header
            outcome = Outcome("silently wrong" if told else "undetectable", outcome.detail)
        self.counts[child.own.name][outcome.kind] += 1
        if outcome.kind in FINDINGS:
            self.findings += 1
            self._say(f"{outcome.kind}: {outcome.detail}")
            self._say(f"  make fuzz SEED={self._seed} FORMAT='{child.own.name}' INPUT={child.number}")

    def _start(self, own: Format, number: int, slot: int) -> None:
        files = self._files(slot)
        shutil.rmtree(scratch := files.parent / "scratch", ignore_errors=True)
        scratch.mkdir()
        path = own.path(files)
        whole, mtime_ns = path.read_bytes(), path.stat().st_mtime_ns
        if number != WHOLE:
            path.write_bytes(mutate(whole, random.Random(f"{self._seed} {own.name} {number}"), own.place))
            os.utime(path, ns=(mtime_ns, mtime_ns))  # as after a failure of the disk
        reading, writing = os.pipe()
        pid = fork(lambda: os.write(writing, _read(own, files)) and None, scratch / "log")
        os.close(writing)
        self._running[slot] = _Child(pid, reading, slot, own, number, whole, mtime_ns, time.monotonic())

    def _ended(self) -> Iterator[tuple[_Child, Outcome]]:
        """Waits until a process ends, or has to be ended."""
        while True:
            ready, _, _ = select.select([c.pipe for c in self._running.values()], [], [], 0.2)
            now = time.monotonic()
            ended = [c for c in self._running.values() if c.pipe in ready or now - c.started > 4 * LONGEST_S]
            for child in ended:
                del self._running[child.slot]
                yield child, self._outcome(child, late=child.pipe not in ready)
            if ended:
                return

    def _outcome(self, child: _Child, *, late: bool) -> Outcome:
        content = b""
        if late:
            os.kill(child.pid, signal.SIGKILL)
        else:
            while piece := os.read(child.pipe, 1 << 16):
                content += piece
        os.close(child.pipe)
        _, status = os.waitpid(child.pid, 0)
        files = self._files(child.slot)
        path = child.own.path(files)
        path.write_bytes(child.whole)
        os.utime(path, ns=(child.mtime_ns, child.mtime_ns))
        if late:
            return Outcome("hang", f"more than {4 * LONGEST_S} s")
        if content:
            return Outcome(**json.loads(content))
        log = (files.parent / "scratch" / "log").read_bytes().decode(errors="replace")[-300:]
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
            return Outcome("hang", f"more than {LONGEST_S} s of a processor")
        ended = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"
        return Outcome("memory" if "bad_alloc" in log else "crash", f"{ended}: {log}")


def _wait(pid: int) -> None:
    _, status = os.waitpid(pid, 0)
    if status:
        raise AssertionError("the inputs could not be made")


def _read(own: Format, folder: Path) -> bytes:
    """Reads the file in this process; returns the outcome as JSON."""
    warnings.simplefilter("ignore")
    os.environ["LANDCOVER_CACHE"] = str(folder / "c" / "cache")
    tempfile.tempdir = str(folder.parent / "scratch")
    before = _memory("VmSize")
    most = before + 2 * MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    used = int(time.process_time()) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (used + LONGEST_S, used + LONGEST_S + 1))
    path, shown = own.path(folder), str(folder)
    kind, detail, result = "right", "", ""
    try:
        result = digest(repr(own.read(folder)).replace(shown, ""))
    except LandcoverError as error:
        named = any(name in str(error) for name in (path.stem, shown, f"domain {DOMAIN}", "http://127.0.0.1:"))
        place = str(error).partition(":")[0]
        named |= place.startswith("/") and place.encode() in path.read_bytes()  # the place that the file names
        kind, detail = "clean error" if named else "unnamed", f"{type(error).__name__}: {error}"
        kind = "memory" if _lacked_memory(error) else kind
    except BaseException as error:  # noqa: BLE001  which is what is looked for
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "/pipeline/" in f.filename]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        kind, detail = "traceback", f"{type(error).__name__} at {where}: {error}"
        kind = "memory" if _lacked_memory(error) else kind
    if _memory("VmPeak") - before > MOST_BYTES:
        kind = "memory"
    seen = digest(repr(header(path, own.evidence))) if own.evidence in ("catalog", "header") else ""
    outcome = {"kind": kind, "detail": detail.replace(shown, "")[:300], "result": result, "header": seen}
    return json.dumps(outcome).encode()


def _lacked_memory(error: BaseException | None) -> bool:
    """Whether an error comes from an allocation that failed."""
    while error is not None:
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _memory(field: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.split(f"{field}:")[1].split()[0]) * 1024


def _jobs(formats: Sequence[Format], inputs: int | None, only: int | None) -> Iterator[tuple[Format, int]]:
    """One input of each format, then the next one of each."""
    number = 1 if only is None else only
    while only is None or number == only:
        for own in formats:
            if inputs is not None and (number - 1) * len(formats) + formats.index(own) >= inputs:
                return
            yield own, number
        number += 1


def _table(counts: dict[str, Counter[str]]) -> str:
    width = max(map(len, [*counts, "all"]))
    rows = [("all", sum(counts.values(), Counter())), *counts.items()]
    lines = ["  ".join((" " * width, "inputs", *KINDS))]
    for name, own in rows:
        cells = [f"{own.total():6}", *(f"{own[kind] or '·':>{len(kind)}}" for kind in KINDS)]
        lines.append("  ".join((name.ljust(width), *cells)))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns 1 where there are findings."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--inputs", type=int, help="stop after so many")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--format", default="", help="only formats whose name contains this")
    parser.add_argument("--input", type=int, help="only this input of each format")
    given = parser.parse_args(arguments)
    began = time.monotonic()

    def say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    formats = [own for own in FORMATS if given.format in own.name]
    say(f"{len(formats)} formats, seed {given.seed}; making the files")
    with tempfile.TemporaryDirectory(prefix="landcover-fuzz-") as folder:
        fuzzer = Fuzzer(Path(folder), formats, seed=given.seed, say=say)
        fuzzer.prepare()
        say(f"the whole files are read after {time.monotonic() - began:.0f} s")
        fuzzer.fuzz(_jobs(formats, given.inputs, given.input), until=began + 60 * given.minutes)
    say(_table(fuzzer.counts))
    return int(fuzzer.findings > 0)


if __name__ == "__main__":
    sys.exit(main())
