"""For each alert, series in which it is quiet, fires and clears: one value a minute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

P = 'pipeline="p"'
PS = f'{P},stream="s"'
PI = f'{P},instance="i"'
PW = f'{P},super_stream="s"'


@dataclass(frozen=True, slots=True)
class Case:
    """`series` by their selector; the minutes at which the alert is `quiet`, `fires` (None: never)
    and is `clear` again; the labels it has, and its value as the description shows it."""

    series: Mapping[str, str]
    fires: int | None
    clear: int
    labels: Mapping[str, str] = field(default_factory=dict)
    value: str = ""
    quiet: int = 5


def flat(value: float, minutes: int) -> str:
    return " ".join([f"{value:g}"] * minutes)


def ramp(start: float, step: float, minutes: int) -> str:
    return " ".join(f"{start + step * minute:g}" for minute in range(minutes))


def nothing(minutes: int) -> str:
    return " ".join(["_"] * minutes)


def joined(*parts: str) -> str:
    return " ".join(parts)


_EVENT_LOOP = "flowstream_event_loop_lag_seconds_bucket"

CASES: dict[str, list[Case]] = {
    "FlowstreamLagGrowing": [
        Case(
            {
                f"flowstream_lag_messages{{{PS}}}": joined(
                    flat(0, 10), ramp(0, 600, 40), ramp(24000, -600, 30)
                ),
                f"flowstream_lag_seconds{{{PS}}}": joined(flat(0, 10), flat(90, 60)),
            },
            fires=35,
            clear=65,
            labels={"pipeline": "p", "stream": "s"},
            value="10",
        ),
        Case(  # a burst that is worked off at once
            {
                f"flowstream_lag_messages{{{PS}}}": joined(flat(0, 10), ramp(0, 600, 40)),
                f"flowstream_lag_seconds{{{PS}}}": flat(3, 50),
            },
            fires=None,
            clear=45,
        ),
    ],
    "FlowstreamLagHigh": [
        Case(
            {
                f"flowstream_lag_messages{{{PS}}}": joined(
                    flat(0, 10), flat(5000, 50), flat(0, 30)
                ),
                f"flowstream_lag_seconds{{{PS}}}": joined(flat(0, 10), flat(900, 50), flat(0, 30)),
            },
            fires=40,
            clear=65,
            labels={"pipeline": "p", "stream": "s"},
            value="15m 0s",
        ),
        Case(  # it catches up
            {
                f"flowstream_lag_messages{{{PS}}}": joined(flat(0, 10), ramp(50_000, -600, 60)),
                f"flowstream_lag_seconds{{{PS}}}": joined(flat(0, 10), flat(900, 60)),
            },
            fires=None,
            clear=45,
        ),
        Case(  # paused
            {
                f"flowstream_lag_messages{{{PS}}}": flat(5000, 60),
                f"flowstream_lag_seconds{{{PS}}}": flat(900, 60),
                f"flowstream_paused{{{PI}}}": flat(1, 60),
            },
            fires=None,
            clear=45,
        ),
    ],
    "FlowstreamPaused": [
        Case(
            {f"flowstream_paused{{{PI}}}": joined(flat(0, 10), flat(1, 50), flat(0, 20))},
            fires=45,
            clear=65,
            labels={"pipeline": "p", "instance": "i"},
        ),
        Case(  # for a while
            {f"flowstream_paused{{{PI}}}": joined(flat(0, 10), flat(1, 25), flat(0, 30))},
            fires=None,
            clear=50,
        ),
    ],
    "FlowstreamNotCommitting": [
        Case(
            {
                f'flowstream_commits_total{{{PS},result="sent"}}': joined(
                    ramp(0, 12, 20), flat(228, 30), ramp(228, 12, 30)
                ),
                f'flowstream_commits_total{{{PS},result="failed"}}': joined(
                    flat(0, 20), ramp(0, 12, 30), flat(348, 30)
                ),
                f"flowstream_received_messages_total{{{PS}}}": ramp(0, 600, 80),
                f"flowstream_tail_offset{{{PS}}}": ramp(0, 600, 80),
            },
            fires=35,
            clear=60,
            labels={"pipeline": "p", "stream": "s"},
        ),
        Case(  # nothing arrives
            {
                f'flowstream_commits_total{{{PS},result="sent"}}': flat(5, 60),
                f"flowstream_received_messages_total{{{PS}}}": flat(100, 60),
                f"flowstream_tail_offset{{{PS}}}": flat(99, 60),
            },
            fires=None,
            clear=40,
        ),
        Case(  # a source without offsets, such as a file
            {
                f'flowstream_commits_total{{{PS},result="sent"}}': flat(0, 60),
                f"flowstream_received_messages_total{{{PS}}}": ramp(0, 600, 60),
            },
            fires=None,
            clear=40,
        ),
    ],
    "FlowstreamDeadLettering": [
        Case(
            {
                f'flowstream_settled_messages_total{{{PS},outcome="ok"}}': ramp(0, 600, 80),
                f'flowstream_settled_messages_total{{{PS},outcome="dead_lettered"}}': joined(
                    flat(0, 20), ramp(0, 60, 30), flat(1740, 30)
                ),
            },
            fires=40,
            clear=65,
            labels={"pipeline": "p"},
            value="9.091%",
        )
    ],
    "FlowstreamTruncated": [
        Case(  # found at the start of a run, so its first value is not 0
            {f"flowstream_truncated_messages_total{{{PS}}}": joined(nothing(10), flat(250, 90))},
            fires=12,
            clear=80,
            labels={"pipeline": "p", "stream": "s"},
            value="250",
        ),
        Case(  # the process restarts, and the alert stays
            {
                f"flowstream_truncated_messages_total{{{PS}}}": joined(
                    flat(0, 10), flat(7, 10), flat(0, 90)
                )
            },
            fires=40,
            clear=90,
            labels={"pipeline": "p", "stream": "s"},
            value="7",
        ),
    ],
    "FlowstreamStuck": [
        Case(
            {
                f"flowstream_progress_age_seconds{{{PI}}}": joined(
                    flat(0, 10), ramp(0, 60, 20), flat(0, 20)
                ),
                f"flowstream_oldest_in_flight_seconds{{{PI}}}": joined(
                    flat(0, 10), ramp(0, 60, 20), flat(1, 20)
                ),
                f"flowstream_paused{{{PI}}}": flat(0, 50),
            },
            fires=14,
            clear=35,
            labels={"pipeline": "p", "instance": "i"},
            value="4m 0s",
        ),
        Case(  # one worker has nothing in flight, another settles while one message waits
            {
                f'flowstream_progress_age_seconds{{{PI},worker="1"}}': ramp(0, 60, 50),
                f'flowstream_oldest_in_flight_seconds{{{PI},worker="1"}}': flat(0, 50),
                f'flowstream_progress_age_seconds{{{PI},worker="2"}}': flat(1, 50),
                f'flowstream_oldest_in_flight_seconds{{{PI},worker="2"}}': ramp(0, 60, 50),
                f'flowstream_paused{{{PI},worker="1"}}': flat(0, 50),
                f'flowstream_paused{{{PI},worker="2"}}': flat(0, 50),
            },
            fires=None,
            clear=35,
        ),
        Case(  # nothing is in flight
            {
                f"flowstream_progress_age_seconds{{{PI}}}": ramp(0, 60, 50),
                f"flowstream_oldest_in_flight_seconds{{{PI}}}": flat(0, 50),
                f"flowstream_paused{{{PI}}}": flat(0, 50),
            },
            fires=None,
            clear=35,
        ),
        Case(  # somebody paused it
            {
                f"flowstream_progress_age_seconds{{{PI}}}": ramp(0, 60, 50),
                f"flowstream_oldest_in_flight_seconds{{{PI}}}": ramp(0, 60, 50),
                f"flowstream_paused{{{PI}}}": flat(1, 50),
            },
            fires=None,
            clear=35,
        ),
    ],
    "FlowstreamHandlerStuck": [
        Case(
            {
                f'flowstream_longest_handler_seconds{{{PI},stage="load"}}': joined(
                    flat(0, 10), ramp(0, 60, 20), flat(0, 20)
                )
            },
            fires=17,
            clear=35,
            labels={"pipeline": "p", "instance": "i", "stage": "load"},
            value="7m 0s",
        )
    ],
    "FlowstreamStageCrashing": [
        Case(
            {
                f'flowstream_stage_crashes_total{{{PI},stage="load",restarted="true"}}': joined(
                    nothing(10), flat(1, 50)
                )
            },
            fires=12,
            clear=30,
            labels={"pipeline": "p", "instance": "i", "stage": "load"},
            value="1",
        )
    ],
    "FlowstreamRestarting": [
        Case(
            {
                f"flowstream_start_timestamp_seconds{{{PI}}}": joined(
                    flat(1000, 6), flat(1300, 3), flat(1500, 3), flat(1700, 40)
                )
            },
            fires=13,
            clear=35,
            labels={"pipeline": "p", "instance": "i"},
            value="3",
        )
    ],
    "FlowstreamUneven": [
        Case(  # worker 2 has no partition for 20 minutes; a difference of one does not matter
            {
                f'flowstream_active_partitions{{{PW},worker="1"}}': joined(
                    flat(1, 10), flat(3, 20), flat(1, 40)
                ),
                f'flowstream_active_partitions{{{PW},worker="2"}}': joined(
                    flat(2, 10), flat(0, 20), flat(1, 40)
                ),
                f'flowstream_active_partitions{{{PW},worker="3"}}': joined(
                    flat(1, 10), flat(1, 20), flat(2, 40)
                ),
            },
            fires=22,
            clear=32,
            labels={"pipeline": "p", "super_stream": "s"},
            value="2.25",
        )
    ],
    "FlowstreamGone": [
        Case(
            {
                f"flowstream_start_timestamp_seconds{{{PI}}}": joined(
                    flat(1000, 20), "stale", nothing(100)
                )
            },
            fires=30,
            clear=90,
            labels={"pipeline": "p"},
        ),
        Case(  # another process has it
            {
                f"flowstream_start_timestamp_seconds{{{PI}}}": joined(flat(1000, 20), "stale"),
                f'flowstream_start_timestamp_seconds{{{P},instance="j"}}': flat(1100, 60),
            },
            fires=None,
            clear=40,
        ),
    ],
    "FlowstreamDisconnected": [
        Case(
            {
                'flowstream_recovering{instance="i",kind="consumer",name="s"}': joined(
                    flat(0, 10), flat(1, 10), flat(0, 10)
                )
            },
            fires=15,
            clear=25,
            labels={"instance": "i", "kind": "consumer", "name": "s"},
        )
    ],
    "FlowstreamNotReady": [
        Case(
            {
                f'flowstream_ready{{{PI},check="progress"}}': joined(
                    flat(1, 10), flat(0, 10), flat(1, 10)
                )
            },
            fires=18,
            clear=25,
            labels={"pipeline": "p", "instance": "i", "check": "progress"},
        )
    ],
    "FlowstreamPublishRefused": [
        Case(
            {
                'flowstream_confirmed_messages_total{instance="i",stream="s",code="1"}': ramp(
                    0, 600, 80
                ),
                'flowstream_confirmed_messages_total{instance="i",stream="s",code="0"}': joined(
                    nothing(20), flat(5, 60)
                ),
            },
            fires=25,
            clear=45,
            labels={"instance": "i", "stream": "s"},
            value="5",
        ),
        Case(  # the very first message
            {
                'flowstream_confirmed_messages_total{instance="i",stream="s",code="0"}': joined(
                    nothing(10), flat(1, 60)
                ),
            },
            fires=12,
            clear=40,
            labels={"instance": "i", "stream": "s"},
            value="1",
        ),
    ],
    "FlowstreamEventLoopBlocked": [
        Case(
            {
                f'{_EVENT_LOOP}{{instance="i",le="0.5"}}': joined(
                    ramp(0, 240, 20), flat(4560, 20), ramp(4560, 240, 30)
                ),
                f'{_EVENT_LOOP}{{instance="i",le="1"}}': ramp(0, 240, 70),
                f'{_EVENT_LOOP}{{instance="i",le="+Inf"}}': ramp(0, 240, 70),
            },
            fires=33,
            clear=60,
            labels={"instance": "i"},
            value="995ms",
        )
    ],
}
