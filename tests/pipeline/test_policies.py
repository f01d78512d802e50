"""Retries count attempts, and values that cannot work are refused."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest

from flowstream.errors import ConfigurationError
from flowstream.pipeline import Backoff, RateLimit, Retry

NO_NUMBERS: tuple[Any, ...] = (math.inf, -math.inf, math.nan, 10**400, True, "1")


def test_retry_counts_attempts_in_all():
    retry = Retry(attempts=3)
    assert [retry.delay(attempt) is None for attempt in (1, 2, 3)] == [False, False, True]
    assert Retry(attempts=1).delay(1) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: Retry(attempts=0),
        lambda: Retry(backoff=3),  # type: ignore[arg-type]
        lambda: Backoff(initial=-1),
        lambda: Backoff(factor=0.5),
        lambda: Backoff(jitter=2),
        lambda: RateLimit(),
        lambda: RateLimit(messages=-1),
        lambda: RateLimit(messages=1, interval=0),
        *(
            partial(make, **{name: value})
            for value in (*NO_NUMBERS, 1e-300)
            for make, name in (
                (RateLimit, "messages"),
                (RateLimit, "bytes"),
                (partial(RateLimit, 1), "interval"),
                (partial(Backoff, maximum=1e9), "factor"),
                (Retry, "attempts"),
            )
        ),
        *(
            partial(Backoff, **{name: value})
            for value in NO_NUMBERS
            for name in ("initial", "maximum", "factor", "jitter")
        ),
    ],
)
def test_values_that_cannot_work_are_refused(make):
    with pytest.raises(ConfigurationError):
        make()
