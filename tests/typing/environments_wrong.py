"""What is no environment: checkers must complain of each line with `# wrong`, of no other."""

from __future__ import annotations

from flowstream import IterableProducer, Pipeline
from flowstream.connectors import StreamEnvironment
from flowstream.testing import MemoryEnvironment


class HasOffsetsOnly:
    async def query_offset(self, reference: str, stream: str) -> int | None:
        return None


class StoresTexts(MemoryEnvironment):
    async def query_offset(self, reference: str, stream: str) -> str:  # type: ignore[override] # pyright: ignore
        return ""


class DoesNotWait(MemoryEnvironment):
    def stream_exists(self, name: str) -> bool:  # type: ignore[override] # pyright: ignore
        return True


incomplete: StreamEnvironment = HasOffsetsOnly()  # wrong
of_texts: StreamEnvironment = StoresTexts()  # wrong
of_functions: StreamEnvironment = DoesNotWait()  # wrong
address: StreamEnvironment = "rabbitmq-stream://localhost"  # wrong

pipeline = Pipeline("orders", IterableProducer([]))


async def run() -> None:
    await pipeline.run(url=5552)  # wrong
    pipeline.start(url=b"rabbitmq-stream://localhost")  # wrong
