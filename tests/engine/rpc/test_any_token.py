"""Any text as an enrolment token: it is the token that was written, or refused by name."""

import base64
import hashlib

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from central_node.certificates import make_certificates, read_ca
from engine.errors import Code, Refused
from engine.rpc.token import EnrolmentToken, read_token, write_token
from tests.garbling import EXAMPLES

FUZZ = settings(deadline=None, database=None, max_examples=2 * EXAMPLES)
SECRET = bytes(range(32))


@pytest.fixture(scope="module", name="token")
def token_with_a_certificate(tmp_path_factory: pytest.TempPathFactory) -> EnrolmentToken:
    folder = tmp_path_factory.mktemp("central")
    make_certificates(folder, "central")
    return EnrolmentToken(SECRET, read_ca(folder))


def read(text: str) -> EnrolmentToken | None:
    """The token, or None where it was refused by name."""
    try:
        return read_token(text)
    except Refused as error:
        assert error.code is Code.TOKEN_UNREADABLE and "cannot be read" in error.what
        return None


@FUZZ
@given(data=st.data())
def test_a_token_is_read_whole_or_not_at_all(token: EnrolmentToken, data: st.DataObject) -> None:
    with_certificate = data.draw(st.booleans())
    shown = token if with_certificate else EnrolmentToken(SECRET, b"")
    text = write_token(shown)
    for _ in range(data.draw(st.integers(0, 3), "changes")):
        at, length = data.draw(st.integers(0, len(text))), data.draw(st.sampled_from([0, 0, 1, 5, 200]))
        text = (
            text[:at]
            + data.draw(st.one_of(st.text(max_size=3), st.sampled_from(["\n", " ", "=", "-", "."])))
            + text[at + length :]
        )
    found = read(text)
    event("refused" if found is None else "read")
    assert found in (None, shown), "a changed token is never another one"


@FUZZ
@given(
    text=st.one_of(
        st.text(max_size=50), st.text(max_size=50).map("ph1.".__add__), st.sampled_from(["ph1.", "ph1.=" * 9])
    )
)
def test_any_text_is_refused(text: str) -> None:
    assert read(text) is None


@FUZZ
@given(certificate=st.binary(min_size=1, max_size=300))
def test_a_token_around_a_certificate_that_is_none(certificate: bytes) -> None:
    body = SECRET + certificate
    whole = body + hashlib.sha256(body).digest()[:4]
    assert read("ph1." + base64.urlsafe_b64encode(whole).decode().rstrip("=")) is None
