"""Offsets as applications write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from flowstream.client.consuming.options import offset_spec
from flowstream.errors import ConfigurationError
from flowstream.protocol import OffsetSpec


def test_offsets_as_applications_write_them() -> None:
    now = datetime(2024, 1, 1, 12, tzinfo=UTC)
    assert offset_spec("first") == OffsetSpec.first()
    assert offset_spec("last") == OffsetSpec.last()
    assert offset_spec("next") == OffsetSpec.next()
    assert offset_spec(5) == OffsetSpec.offset(5)
    assert offset_spec(now) == OffsetSpec.timestamp(1704110400000)
    assert offset_spec(timedelta(hours=1), now) == OffsetSpec.timestamp(1704106800000)
    assert offset_spec(timedelta.max, now) == OffsetSpec.timestamp(0)
    assert offset_spec(datetime.min.replace(tzinfo=UTC)) == OffsetSpec.timestamp(0)
    for wrong in ("end", -1, True, 1.5, None, 1 << 63, timedelta(hours=-1), timedelta.min):
        with pytest.raises(ConfigurationError, match="offset="):
            offset_spec(wrong)  # type: ignore[arg-type]
