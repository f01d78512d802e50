"""Advice on a declaration: options that work, but do not fit each other. Pure.

A declaration that cannot work is a ConfigurationError. One with advice runs, but not as its options
say: `flowstream check` lists the advice, and each start of the pipeline logs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from flowstream.pipeline.declaration import Declaration, Declared
from flowstream.pipeline.options import BatcherOptions, PipelineOptions, ProcessorOptions

SLOW = 100
"""Messages a second of a stream that has few."""
LARGEST_CHANCE = 1.0
"""The random part of a backoff that gives its longest delay."""


@dataclass(frozen=True, slots=True)
class Advice:
    """`subject` is the stage or option that it is about; `remedy` says what to do."""

    subject: str
    text: str
    remedy: str

    def __str__(self) -> str:
        about = "" if self.text.startswith(f"{self.subject}=") else f"{self.subject}: "
        return f"{about}{self.text}; {self.remedy}"


def advice_for(declaration: Declaration) -> list[Advice]:
    """All advice on a declaration."""
    options, declared = declaration.options, declaration.processor
    processor: ProcessorOptions = ProcessorOptions() if declared is None else declared.options
    batchers = {name: each.options for name, each in declaration.batchers.items()}
    keyed = bool(options.partition_by or processor.partition_by)
    return [
        *_window(options, batchers, keyed=keyed),
        *_window_bytes(options, batchers, keyed=keyed),
        *_windows_of_time(options, declaration.batchers),
        *_drain(options, processor, batchers),
        *_retries(options),
    ]


# -- batches and the window


def _window(
    options: PipelineOptions, batchers: Mapping[str, BatcherOptions], *, keyed: bool
) -> Iterator[Advice]:
    """Batches that are open or handled at the same time, and do not fit into the window."""
    sizes = {name: each.size for name, each in batchers.items() if isinstance(each.size, int)}
    needed, terms = _open_together(sizes, batchers, keyed=keyed)
    window = options.max_in_flight
    if needed > window:
        yield Advice(
            "max_in_flight",
            f"max_in_flight={window:,} is less than the batches hold that are open at the same "
            f"time: {terms} = {needed:,} messages. Once it is reached nothing more "
            "comes in, and batches close before they are full: by their batch_timeout, or because "
            "everything waits in them",
            f"raise max_in_flight to at least {needed:,}, or lower size",
        )
        return
    for name, size in sizes.items():
        workers = batchers[name].concurrency
        if size * workers > window:
            yield Advice(
                name,
                f"concurrency={workers} batches of size={size:,} are {size * workers:,} messages, "
                f"and max_in_flight={window:,} admits no more than {window // size} full batches "
                "at a time",
                f"raise max_in_flight to at least {size * workers:,}, or lower size or concurrency",
            )


def _window_bytes(
    options: PipelineOptions, batchers: Mapping[str, BatcherOptions], *, keyed: bool
) -> Iterator[Advice]:
    sizes = {name: each.max_bytes for name, each in batchers.items() if each.max_bytes is not None}
    needed, terms = _open_together(sizes, batchers, keyed=keyed)
    window = options.max_in_flight_bytes
    if needed > window:
        yield Advice(
            "max_in_flight_bytes",
            f"max_in_flight_bytes={window:,} is less than the batches may hold that are open at "
            f"the same time: {terms} = {needed:,} bytes. Once it is reached nothing "
            "more comes in, and batches close before they have max_bytes",
            f"raise max_in_flight_bytes to at least {needed:,}, or lower max_bytes",
        )


def _windows_of_time(
    options: PipelineOptions, batchers: Mapping[str, Declared]
) -> Iterator[Advice]:
    """Batches of a time that may have many more messages in it than the window admits."""
    for name, declared in batchers.items():
        rolling = None if declared.sink is None else declared.sink.rolling
        if rolling is None or rolling.window is None:
            continue
        rate = options.max_in_flight / rolling.window
        if rate < SLOW:
            span = timedelta(seconds=rolling.window)
            yield Advice(
                name,
                f"a batch has the messages of {span}, and max_in_flight={options.max_in_flight:,} "
                f"admits {rate:.3g} messages for each second of that. With more it is closed early",
                f"raise max_in_flight (at {SLOW:,} messages a second to "
                f"{int(SLOW * rolling.window):,}) and max_in_flight_bytes, or lower roll",
            )


def _open_together(
    sizes: Mapping[str, int], batchers: Mapping[str, BatcherOptions], *, keyed: bool
) -> tuple[int, str]:
    """The messages of all batches that may be open at the same time, and the sum as text:
    `'eu' 4 x 500 + 'us' 500`.

    With `partition_by` a batcher has an open batch for each of its workers.
    """
    needed, terms = 0, []
    for name, size in sizes.items():
        options = batchers[name]
        times = options.concurrency if keyed or options.partition_by is not None else 1
        needed += size * times
        terms.append(f"{name!r} {f'{times} x ' if times > 1 else ''}{size:,}")
    return needed, " + ".join(terms)


# -- what a stop waits for


def _drain(
    options: PipelineOptions, processor: ProcessorOptions, batchers: Mapping[str, BatcherOptions]
) -> Iterator[Advice]:
    """Handlers that may take longer than a stop waits for them, alone or in a row.

    `batch_timeout` does not matter here: a stop closes the open batches at once.
    """
    drain = options.drain_timeout
    cut = f"drain_timeout={drain:g}: a stop may cut"
    longest = {name: each.timeout or 0.0 for name, each in batchers.items()}
    first = processor.timeout or 0.0
    if first > drain:
        yield Advice(
            processor.name,
            f"timeout={first:g} is longer than {cut} a message off, which is then repeated",
            f"raise drain_timeout to at least {first:g}, or lower timeout",
        )
    for name, seconds in longest.items():
        if seconds > drain:
            yield Advice(
                name,
                f"timeout={seconds:g} is longer than {cut} a batch off, which is then repeated",
                f"raise drain_timeout to at least {seconds:g}, or lower timeout",
            )
    last = max(longest, key=lambda name: longest[name], default=None)
    if last is None or max(first, longest[last]) > drain:
        return
    both = first + longest[last]
    if both > drain:
        yield Advice(
            "drain_timeout",
            f"timeout={first:g} of {processor.name!r} and timeout={longest[last]:g} of "
            f"{last!r} are {both:g} s together, longer than {cut} off what is in its second "
            "handler, which is then repeated",
            f"raise drain_timeout to at least {both:g}, or lower one of them",
        )


def _retries(options: PipelineOptions) -> Iterator[Advice]:
    retry, drain = options.retry, options.drain_timeout
    if retry is None or retry.attempts < 2:
        return
    longest = retry.backoff.delay(retry.attempts - 1, LARGEST_CHANCE)
    if longest > drain:
        yield Advice(
            "retry",
            f"the last of {retry.attempts:,} attempts may wait {longest:g} s, longer than "
            f"drain_timeout={drain:g}: a stop gives up what waits longer, which is then repeated, "
            "and ends with DrainTimeout",
            f"raise drain_timeout to at least {longest:g}, or lower the backoff's maximum",
        )
