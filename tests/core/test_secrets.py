"""Secrets: what is opened by ``reveal`` and shown nowhere else."""

import copy
import json
import logging
import pickle
from collections.abc import Mapping

import attrs
import pytest

from moco_core.cli.describing import describe
from moco_core.errors import ConfigError
from moco_core.options import as_given, build, option, plain
from moco_core.secrets import MASK, Secret, is_secret_name
from moco_core.types import digest

KEY = "sk-proj-S3CRET+/x%y'z_9\\q"


@attrs.frozen(kw_only=True)
class Entry:
    model: str = option()
    key: Secret | None = option(None)


@attrs.frozen(kw_only=True)
class Options:
    api_key: Secret | None = option(None, help="the key")
    models: tuple[str | Entry, ...] = option(())
    headers: Mapping[str, Secret] = option(factory=dict)


GIVEN = {"api_key": KEY, "models": ["a", {"model": "b", "key": KEY}], "headers": {"X-One": KEY}}


def test_a_secret_shows_itself_only_when_it_is_opened(caplog):
    secret = Secret(KEY)
    assert secret.reveal() == KEY and secret
    logging.getLogger("any").warning("%s %r %s", secret, secret, [secret])
    shown = [str(secret), repr(secret), f"{secret} {secret!r:>20}", "{}".format(secret), "%s" % secret, caplog.text]  # noqa: UP031, UP032
    shown += [
        repr(Options(api_key=secret)),
        repr(attrs.asdict(Options(api_key=secret))),
        json.dumps([secret], default=str),
    ]
    shown += [repr(pickle.loads(pickle.dumps(secret))), str(pickle.dumps(Options(api_key=secret)))]
    assert all(MASK in text for text in shown[:-1])
    assert not [text for text in shown if "S3CRET" in text]
    with pytest.raises(TypeError):
        json.dumps(secret)


def test_copies_in_this_process_open_and_copies_for_another_one_do_not():
    options = Options(api_key=Secret(KEY))
    for twin in (copy.copy(options), copy.deepcopy(options), attrs.evolve(options)):
        assert twin.api_key.reveal() == KEY
    carried = pickle.loads(pickle.dumps(options)).api_key
    assert not carried and carried.reveal() == ""
    assert not Secret("") and str(Secret("")) == ""


def test_secrets_are_equal_by_what_they_hold():
    assert Secret("one") == Secret("one") != Secret("two") and Secret("one") != "one"
    assert len({Secret("one"), Secret("one"), Secret("two")}) == 2


def test_options_are_built_with_secrets_and_recorded_without_them():
    options = build(Options, GIVEN)
    assert options.api_key.reveal() == options.models[1].key.reveal() == options.headers["X-One"].reveal() == KEY
    masked = {"api_key": MASK, "models": ["a", {"model": "b", "key": MASK}], "headers": {"X-One": MASK}}
    assert plain(options) == as_given(options, GIVEN) == masked
    other = build(Options, json.loads(json.dumps(GIVEN).replace("S3CRET", "other")))
    assert digest(plain(options)) == digest(plain(other))
    assert build(Options, plain(options)).api_key.reveal() == ""  # what a run folder holds
    assert as_given(build(Options, {"models": ["a"]}), {"models": ["a"]}) == {"models": ["a"]}
    assert {o.name: o.type for o in describe(Options)}["api_key"] == "secret or none"


@pytest.mark.parametrize(
    "given", [{"api_key": 987654}, {"api_key": ["987654"]}, {"models": [{"model": "m", "key": 987654}]}]
)
def test_what_was_meant_to_be_a_secret_is_not_repeated_by_the_error(given):
    with pytest.raises(ConfigError, match="expected") as caught:
        build(Options, given)
    assert "987654" not in str(caught.value)


def test_a_plain_text_is_no_secret():
    with pytest.raises(ConfigError, match="expected a Secret") as caught:
        Options(api_key=KEY)
    assert "S3CRET" not in str(caught.value)


def test_names_of_secrets_are_told_from_names_of_tokens_and_other_keys():
    secret = (
        "X-Api-Key apiKey api_key key token auth bearer Authorization accessToken password Cookie client_secret sig"
    )
    secret += " Ocp-Apim-Subscription-Key x-goog-api-key X-Auth-Token"
    assert [n for n in secret.split() if not is_secret_name(n)] == []
    harmless = "max_tokens stop_token eos_token token_ids prompt_cache_key keyword monkey author api-version stop user"
    assert [n for n in harmless.split() if is_secret_name(n)] == []
