"""A run stops on request: it seals the tiles in flight and reports the ones that are left."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from distributed import Client

from pipeline.errors import RunStopped
from pipeline.runs.mapping.events import RunStarted, TileEnded
from pipeline.runs.mapping.run import run
from pipeline.runs.mapping.shutdown import StopRequest, stop_on_signals
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.tracking.status import status
from tests.support.campaigns import cog_bytes, make_campaign, strays
from tests.support.waiting import LONGEST_S

SIGNALLED_TWICE = """
import os, signal, sys
from pipeline.runs.mapping.shutdown import StopRequest, stop_on_signals
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
def test_a_signal_requests_a_stop_and_a_second_interrupt_ends_at_once(number: signal.Signals, said: str) -> None:
    # In a process of its own: where it fails, the signal ends the process.
    command = [sys.executable, "-c", SIGNALLED_TWICE, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST_S)
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


def test_outside_the_main_thread_no_handler_is_installed() -> None:
    former = signal.getsignal(signal.SIGTERM)
    seen = []

    def other() -> None:
        with stop_on_signals() as stop:
            seen.append((stop.reason, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [(None, former)]


def test_a_stopped_run_seals_tiles_in_flight_and_the_next_one_resumes(tmp_path: Path, dask_client: Client) -> None:
    made = make_campaign(tmp_path)
    events: list[RunStarted | TileEnded] = []

    def on_event(event: RunStarted | TileEnded) -> None:
        events.append(event)
        if isinstance(event, TileEnded) and len(events) == 2:
            stop.request("SIGTERM")

    stop = StopRequest()
    with pytest.raises(RunStopped, match=r"stopped by SIGTERM: .* still to map; run again") as caught:
        run(make_plan(made.campaign), on_event=on_event, stop=stop, client=dask_client)
    assert caught.value.exit_code == 5
    (state,) = status(made.campaign)
    # The first tile, and the other of the two in flight; the third may have been submitted before the signal.
    assert set(state.sealed) == {e.tile for e in events if isinstance(e, TileEnded)}
    assert 2 <= len(state.sealed) <= 3
    assert not strays(made.products)
    before = cog_bytes(made.products)
    with pytest.raises(RunStopped, match="SIGTERM"):
        run(make_plan(made.campaign), stop=stop, client=dask_client)
    assert cog_bytes(made.products) == before
    assert len(run(make_plan(made.campaign), client=dask_client)) == 6 - len(state.sealed)
    assert not status(made.campaign)[0].missing
