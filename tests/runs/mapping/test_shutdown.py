"""A run that is asked to stop finishes what it began, and says that there is more."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.errors import RunStopped
from pipeline.runs.mapping.run import RunStarted, TileEnded, run
from pipeline.runs.mapping.shutdown import Stop, stop_on_signals
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.tracking.status import status
from tests.support.campaigns import cog_bytes, make_campaign, strays
from tests.support.waiting import LONGEST_S

ASKED_TWICE = """
import os, signal, sys
from pipeline.runs.mapping.shutdown import Stop, stop_on_signals
number = signal.Signals(int(sys.argv[1]))
former = signal.getsignal(number)
with stop_on_signals() as stop:
    assert stop.reason is None
    os.kill(os.getpid(), number)
    assert stop.reason == number.name
    try:
        os.kill(os.getpid(), number)
    except KeyboardInterrupt:
        print("ended")
    assert stop.reason == number.name
assert signal.getsignal(number) is former
"""


@pytest.mark.parametrize(("number", "said"), [(signal.SIGUSR1, ""), (signal.SIGTERM, ""), (signal.SIGINT, "ended\n")])
def test_a_signal_is_a_request_and_the_second_interrupt_is_an_end(number: signal.Signals, said: str) -> None:
    # In a process of its own: where it fails, the signal ends the process.
    command = [sys.executable, "-c", ASKED_TWICE, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST_S)
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


def test_outside_the_main_thread_nothing_is_installed() -> None:
    former = signal.getsignal(signal.SIGTERM)
    seen = []

    def other() -> None:
        with stop_on_signals() as stop:
            seen.append((stop.reason, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [(None, former)]


def test_a_stopped_run_seals_what_is_in_flight_submits_no_more_and_goes_on_when_run_again(tmp_path: Path) -> None:
    made = make_campaign(tmp_path)
    events: list[RunStarted | TileEnded] = []

    def told(event: RunStarted | TileEnded) -> None:
        events.append(event)
        if isinstance(event, TileEnded) and len(events) == 2:
            stop.ask("SIGTERM")

    stop = Stop()
    with pytest.raises(RunStopped, match=r"SIGTERM.* still to do: run again") as caught:
        run(make_plan(made.campaign), listener=told, stop=stop)
    assert caught.value.exit_code == 5
    (state,) = status(made.campaign)
    # The first tile, and the other of the two in flight; the third may have been submitted before the signal.
    assert set(state.sealed) == {e.tile for e in events if isinstance(e, TileEnded)}
    assert 2 <= len(state.sealed) <= 3
    assert not strays(made.products)
    before = cog_bytes(made.products)
    with pytest.raises(RunStopped, match="SIGTERM"):
        run(make_plan(made.campaign), stop=stop)
    assert cog_bytes(made.products) == before
    assert len(run(make_plan(made.campaign))) == 6 - len(state.sealed)
    assert not status(made.campaign)[0].missing
