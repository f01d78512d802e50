"""TLS verifies by default, and its options are checked."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from flowstream.client import Environment, Tls
from flowstream.errors import (
    ConfigurationError,
)
from tests.client.conftest import SECRET, URL


@pytest.mark.medium
def test_tls_options_are_checked(tmp_path: Any) -> None:
    with pytest.raises(ConfigurationError, match="it needs certificate="):
        Tls(key="k").context()
    with pytest.raises(ConfigurationError, match="ca"):
        Tls(ca=tmp_path / "missing.pem").context()
    broken = tmp_path / "broken.pem"
    broken.write_text("nothing")
    with pytest.raises(ConfigurationError, match="certificate"):
        Tls(certificate=broken).context()
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -passout pass:{SECRET} -subj /CN=x -keyout k -out c",
        shell=True, cwd=tmp_path, check=True, capture_output=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    files = {"certificate": tmp_path / "c", "key": tmp_path / "k"}
    Tls(**files, key_password=SECRET).context()
    for wrong in (None, "", f"{SECRET}x", SECRET * 500):  # and nobody is asked on the terminal
        with pytest.raises(ConfigurationError, match="key_password is right") as caught:
            Tls(**files, key_password=wrong).context()
        assert SECRET not in str(caught.value)
    with pytest.raises(ConfigurationError, match=r"needs a rabbitmq-stream\+tls://"):
        Environment(URL, tls=Tls())


def test_tls_verifies_by_default() -> None:
    import ssl

    assert Tls().context().verify_mode is ssl.CERT_REQUIRED
    assert Tls().context().check_hostname
    assert Tls(verify=False).context().verify_mode is ssl.CERT_NONE
