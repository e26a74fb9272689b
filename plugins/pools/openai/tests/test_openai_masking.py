"""What is masked in texts that others wrote, in whatever form it stands there."""

from __future__ import annotations

import base64
import json
import textwrap
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moco_core.secrets import MASK, Secret
from moco_pool_openai.masking import looks_like_key, mask

KEY = "sk-proj-S3CRET+/x%y'z_9\\q"
FORMS = {
    "as it is": KEY,
    "its repr": repr(KEY),
    "the repr of a header": repr(f"Bearer {KEY}\r".encode()),
    "the repr of a repr": repr(repr(KEY)),
    "JSON": json.dumps({"key": KEY}),
    "percent-encoded": quote(KEY, safe=""),
    "percent-encoded but for slashes": quote(KEY),
    "percent-encoded in small letters": quote(KEY, safe="").replace("%2B", "%2b").replace("%2F", "%2f"),
    "percent-encoded twice": quote(quote(KEY, safe=""), safe=""),
    "hexadecimal": KEY.encode().hex(),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64 for addresses": base64.urlsafe_b64encode(KEY.encode()).decode(),
    "basic authorization, key as password": base64.b64encode(f"user:{KEY}".encode()).decode(),
    "basic authorization, longer user": base64.b64encode(f"users:{KEY}".encode()).decode(),
    "basic authorization, key as user": base64.b64encode(f"{KEY}:".encode()).decode(),
    "wrapped": "\n".join(textwrap.wrap(KEY, 9)),
    "wrapped in a frame": "".join(f"│ {line} │\n" for line in textwrap.wrap(KEY, 9)),
    "wrapped, repr": repr("\n    ".join(textwrap.wrap(KEY, 9))),
    "its beginning": KEY[:15] + "...",
    "its end": "..." + KEY[-16:],
    "capitals": KEY.upper(),
    "escapes of Unicode": "".join(f"\\u{ord(c):04x}" for c in KEY),
    "escapes of bytes": "".join(f"\\x{ord(c):02x}" for c in KEY),
    "octal escapes": "".join(f"\\{ord(c):03o}" for c in KEY),
    "every letter percent-encoded": "".join(f"%{ord(c):02X}" for c in KEY),
    "entities of HTML": "".join(f"&#{ord(c)};" for c in KEY),
    "hexadecimal entities of HTML": "".join(f"&#x{ord(c):X};" for c in KEY),
    "hexadecimal with colons": KEY.encode().hex(":"),
    "a list of bytes": str(list(KEY.encode())),
    "a list of letters": str(list(KEY)),
    "base32": base64.b32encode(KEY.encode()).decode(),
    "base64 twice": base64.b64encode(base64.b64encode(KEY.encode())).decode(),
    "the repr of UTF-16": repr(KEY.encode("utf-16-le")),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
def test_no_form_of_a_secret_passes(form):
    clean = mask(f"the key ({form}) is wrong", [Secret(KEY)])
    assert clean.startswith("the key (") and clean.endswith(") is wrong") and MASK in clean
    rest = clean.removeprefix("the key (").removesuffix(") is wrong")
    assert len(rest.replace(MASK, "")) <= 12, rest


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=60),
    st.text(max_size=30),
    st.text(max_size=30),
)
def test_no_secret_passes_between_any_words(key, before, after):
    assert key not in mask(before + key + after, [key])


def test_what_is_no_secret_stays():
    text = "model 'test-model' has no max_tokens; Bearer authentication is required, basically"
    assert mask(text, [Secret(KEY), Secret(MASK), Secret("")]) == text
    assert mask("max_tokens", ["x"]) == "max_tokens"  # a key of one letter hides nothing
    assert mask("the key dummy, not dummy_model", ["dummy"]) == "the key ***, not dummy_model"


def test_what_stands_where_secrets_stand_is_masked_whoever_it_belongs_to():
    assert mask("proxy http://me:pass@host:80/x failed", []) == "proxy http://***@host:80/x failed"
    assert mask("sent 'Authorization: Bearer abc.def-123456'", []) == "sent 'Authorization: Bearer ***'"
    assert mask("Basic dXNlcjpwYXNz1234==", []) == "Basic ***"


def test_keys_are_told_from_names():
    keys = [
        "sk-SUPERSECRETKEY",
        "sk-proj-abc123",
        "gsk_abcDEF12345678",
        "Bearer abcdef123456",
        "AIzaSyA1234567890abcdefghij",
        "ya29.A0ARrdaM-abcdefghijklmnop",
        "AQ.Ab8RN6abcdefghijklmnopqrst",
        "ASIAIOSFODNN7EXAMPLE",
        "ABSKQmVkcm9ja0FQSUtleS1hYmNkZWZnaDEyMw==",
        "dapi0123456789abcdef0123456789abcdef",
        "esecret_abc123def456",
        "key-0123456789abcdef0123456789abcdef",
    ]
    assert [k for k in keys if not looks_like_key(k)] == []
    names = ["OPENAI_API_KEY", "my_key", "hf_transfer_key", "sklearn", "Bearer tokens", "sk", "pk_learning_rate"]
    names += ["key-value", "sess-1", "token-classification", "npm_config_cache", "jina_embeddings"]
    assert [n for n in names if looks_like_key(n)] == []
