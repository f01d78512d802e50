"""Every type of AMQP 1.0 is tested, and has the width that its constructor says."""

from __future__ import annotations

from struct import calcsize
from uuid import UUID

import pytest

from flowstream import protocol as p
from flowstream.protocol.amqp_decode import skip_value
from flowstream.protocol.amqp_types import FIXED, Fixed
from tests.protocol.amqp_strategies import SCALARS


def test_every_type_is_in_the_strategies():
    variable = {bool, p.Char, UUID, bytes, str, p.Symbol}
    assert set(SCALARS) == variable | {row.kind for row in FIXED}


@pytest.mark.parametrize("row", FIXED, ids=lambda row: f"{row.kind.__name__}-{row.code:#x}")
def test_the_width_of_a_type_is_the_one_that_its_constructor_tells(row: Fixed):
    assert skip_value(bytes((row.code,)) + bytes(16), 0) == 1 + calcsize(">" + row.form)
