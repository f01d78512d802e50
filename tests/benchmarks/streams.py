"""The streams that scenarios work on: made, filled and deleted by the harness."""

from __future__ import annotations

from flowstream.client import Environment, encode_data_all
from flowstream.errors import NotSupported
from tests.benchmarks.bodies import KEY, slices
from tests.benchmarks.measuring import BATCH, Skipped


async def create(url: str, stream: str, kind: str, messages: int) -> None:
    """A stream that holds what `kind` says: "empty", "raw" or "amqp" bodies, or a "super" stream
    of three partitions with raw bodies. Raises Skipped where the broker has no super streams."""
    async with Environment(url) as environment:
        if kind == "super":
            try:
                await environment.create_super_stream(stream, partitions=3)
            except NotSupported as error:
                raise Skipped(str(error)) from None
            async with environment.super_stream_publisher(stream) as partitions:
                for some in slices(messages, BATCH):
                    keys = [body[KEY].decode() for body in some]
                    await partitions.send_many(some, keys=keys)
            return
        await environment.create_stream(stream)
        if kind == "empty":
            return
        async with environment.publisher(stream) as publisher:
            for some in slices(messages, BATCH):
                await publisher.send_many(encode_data_all(some) if kind == "amqp" else some)


async def delete(url: str, stream: str, kind: str) -> None:
    async with Environment(url) as environment:
        if kind == "super":
            await environment.delete_super_stream(stream, missing_ok=True)
        else:
            await environment.delete_stream(stream, missing_ok=True)
