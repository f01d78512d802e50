"""The environment: addresses, pools by role, nodes, load balancers, healing, admin, credentials."""

from __future__ import annotations

from typing import Any

import pytest

from flowstream.client import State, Tls
from flowstream.errors import (
    AuthenticationFailed,
)
from flowstream.metrics import Metrics
from flowstream.protocol import (
    SaslAuthenticate,
    SaslAuthenticateResponse,
)
from tests.client.conftest import SECRET, Connect, Recorder
from tests.client.scripted import Cluster, Session
from tests.client.timing import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


@pytest.mark.medium
async def test_secrets_are_in_no_text(
    cluster: Cluster, connect: Connect, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")

    def refuse(session: Session, command: SaslAuthenticate) -> bool:
        session.send(SaslAuthenticateResponse(command.correlation_id, 8))
        return True

    texts: list[str] = []
    cluster.add("s", [b"0"])
    async with connect(cluster) as env:
        async with env.publisher("s") as publisher, env.consumer("s") as consumer:
            texts += map(repr, (env, publisher, consumer, publisher.statistics()))
            cluster.node.scripts[SaslAuthenticate] = refuse
            for session in cluster.node.live():
                session.drop()
            await publisher.wait_for(State.CLOSED)
        texts += map(repr, recorder.events)
    try:
        async with connect(cluster):
            pass
    except AuthenticationFailed as error:
        texts += [repr(error), str(error)]
    metrics = Metrics()
    for event in recorder.events:
        metrics.observe(event)
    texts.append(metrics.exposition()[1].decode())
    texts += [repr(vars(env)["url"]), repr(Tls(key_password=SECRET)), caplog.text]
    assert "node0" in "".join(texts)
    assert SECRET not in "".join(texts)
