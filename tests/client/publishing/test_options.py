"""Options of a publisher."""

from __future__ import annotations

import pytest

from flowstream.client import Compression
from flowstream.client.publishing.options import PublisherOptions
from flowstream.errors import NotSupported


def test_a_missing_codec_names_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from flowstream.protocol import compression

    compression.codec_of.cache_clear()
    monkeypatch.setitem(sys.modules, "cramjam", None)
    with pytest.raises(NotSupported, match="cramjam"):
        PublisherOptions(sub_entry_size=10, compression=Compression.ZSTD)
    PublisherOptions(sub_entry_size=10, compression=Compression.GZIP)
    compression.codec_of.cache_clear()
