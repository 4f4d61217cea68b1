"""What somebody without the token is answered."""

import json

import pytest

from tsmon.server.refusal import ask_for_token


@pytest.mark.parametrize(("wrong", "words"), [(False, "A token is needed"), (True, "This token is wrong")])
def test_a_browser_gets_a_page_that_says_what_to_type(wrong: bool, words: str) -> None:
    answer = ask_for_token("text/html,application/xhtml+xml,*/*;q=0.8", wrong=wrong)
    assert (answer.status, answer.content_type) == (401, "text/html")
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    assert words in str(answer.text)
    assert "any name, the token as the password" in str(answer.text)


@pytest.mark.parametrize(("wrong", "words"), [(False, "a token is needed"), (True, "the token is wrong")])
def test_a_program_gets_json(wrong: bool, words: str) -> None:
    answer = ask_for_token("*/*", wrong=wrong)
    error = json.loads(str(answer.text))["error"]
    assert error["code"] == "unauthorized"
    assert error["message"].startswith(words)
