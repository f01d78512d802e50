"""Hypothesis strategies: every command with any values that the wire can carry."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from flowstream import protocol as p


def unsigned(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, (1 << bits) - 1)


u8, u16, u32, u64 = unsigned(8), unsigned(16), unsigned(32), unsigned(64)
i64 = st.integers(-(1 << 63), (1 << 63) - 1)
text = st.text(st.characters(codec="utf-8"), max_size=12)
texts = st.lists(text, max_size=4).map(tuple)
text_map = st.dictionaries(text, text, max_size=4)
body = st.binary(max_size=40)

offset_specs = st.one_of(
    st.sampled_from([p.OffsetSpec.first(), p.OffsetSpec.last(), p.OffsetSpec.next()]),
    st.builds(p.OffsetSpec.offset, u64),
    st.builds(p.OffsetSpec.timestamp, i64),
)
any_offset = offset_specs | st.just(p.OffsetSpec.none())
versions = st.lists(st.builds(p.CommandVersion, u16, u16, u16), max_size=4).map(tuple)
addresses = st.dictionaries(u16, st.builds(p.Address, text, u32), max_size=3)
metadata = st.lists(
    st.builds(p.StreamMetadata, text, u16, u16, st.lists(u16, max_size=3).map(tuple)), max_size=3
).map(tuple)
sub_entries = st.builds(
    p.SubEntry, u64, st.integers(0, 7), unsigned(16), u32, st.binary(max_size=30)
)
entries = st.lists(st.tuples(u64, body) | sub_entries, max_size=6)
filtered = st.lists(st.tuples(u64, text | st.none(), body), max_size=6)
SIMPLE_KEYS = [key for (key, _, _), row in p.COMMANDS.items() if row.command is p.Response]

FIELDS: dict[type[Any], dict[str, st.SearchStrategy[Any]]] = {
    p.DeclarePublisher: {
        "publisher_id": u8,
        "reference": text.filter(bool) | st.none(),
        "stream": text,
    },
    p.Publish: {"publisher_id": u8, "messages": entries},
    p.PublishFiltered: {"publisher_id": u8, "messages": filtered},
    p.PublishConfirm: {
        "publisher_id": u8,
        "publishing_ids": st.lists(u64, max_size=5).map(tuple),
    },
    p.PublishError: {
        "publisher_id": u8,
        "errors": st.lists(st.tuples(u64, u16), max_size=5).map(tuple),
    },
    p.QueryPublisherSequence: {"reference": text, "stream": text},
    p.QueryPublisherSequenceResponse: {"code": u16, "sequence": u64},
    p.DeletePublisher: {"publisher_id": u8},
    p.Subscribe: {
        "subscription_id": u8,
        "stream": text,
        "offset": offset_specs,
        "credit": u16,
        "properties": text_map,
    },
    p.Deliver: {
        "subscription_id": u8,
        "chunk": body,
        "committed_chunk_id": u64 | st.none(),
    },
    p.Credit: {"subscription_id": u8, "credit": u16},
    p.CreditError: {"code": u16, "subscription_id": u8},
    p.StoreOffset: {"reference": text, "stream": text, "offset": u64},
    p.QueryOffset: {"reference": text, "stream": text},
    p.QueryOffsetResponse: {"code": u16, "offset": u64},
    p.Unsubscribe: {"subscription_id": u8},
    p.CreateStream: {"stream": text, "arguments": text_map},
    p.DeleteStream: {"stream": text},
    p.Metadata: {"streams": texts},
    p.MetadataResponse: {"brokers": addresses, "streams": metadata},
    p.MetadataUpdate: {"code": u16, "stream": text},
    p.PeerProperties: {"properties": text_map},
    p.PeerPropertiesResponse: {"code": u16, "properties": text_map},
    p.SaslHandshake: {},
    p.SaslHandshakeResponse: {"code": u16, "mechanisms": texts},
    p.SaslAuthenticate: {"mechanism": text, "data": body | st.none()},
    p.SaslAuthenticateResponse: {"code": u16, "challenge": body | st.none()},
    p.Tune: {"frame_max": u32, "heartbeat": u32},
    p.TuneResponse: {"frame_max": u32, "heartbeat": u32},
    p.Open: {"virtual_host": text},
    p.OpenResponse: {"code": u16, "properties": text_map},
    p.Close: {"code": u16, "reason": text},
    p.Heartbeat: {},
    p.Route: {"routing_key": text, "super_stream": text},
    p.RouteResponse: {"code": u16, "streams": texts},
    p.Partitions: {"super_stream": text},
    p.PartitionsResponse: {"code": u16, "streams": texts},
    p.ConsumerUpdate: {"subscription_id": u8, "active": st.booleans()},
    p.ConsumerUpdateResponse: {"code": u16, "offset": any_offset},
    p.ExchangeCommandVersions: {"commands": versions},
    p.ExchangeCommandVersionsResponse: {"code": u16, "commands": versions},
    p.StreamStats: {"stream": text},
    p.StreamStatsResponse: {"code": u16, "stats": st.dictionaries(text, i64, max_size=4)},
    p.CreateSuperStream: {
        "name": text,
        "partitions": texts,
        "binding_keys": texts,
        "arguments": text_map,
    },
    p.DeleteSuperStream: {"name": text},
    p.ResolveOffsetSpec: {"stream": text, "offset": offset_specs, "properties": text_map},
    p.ResolveOffsetSpecResponse: {"code": u16, "offset": any_offset},
    p.Response: {"key": st.sampled_from(SIMPLE_KEYS), "code": u16},
}
"""Every command and what its fields may hold; a correlation id is added where there is one."""


def command_of(kind: type[Any]) -> st.SearchStrategy[Any]:
    wanted = dict(FIELDS[kind])
    if "correlation_id" in kind.__dataclass_fields__:
        wanted["correlation_id"] = u32
    return st.builds(kind, **wanted)


commands = st.one_of(*map(command_of, FIELDS))
