"""Known noise: the filter matches the texts of the inventory and nothing else, in RE2 as in Python."""

from __future__ import annotations

import json
import re

import pytest
from ansible_collections.logstead.platform.plugins.plugin_utils.components import ROLES, defaults_of
from ansible_collections.logstead.platform.plugins.plugin_utils.noise import noise_filter, noise_problems, noise_regex

OWN = defaults_of(ROLES / "platform")["platform_known_noise"]


@pytest.mark.parametrize(
    ("text", "line", "muted"),
    [
        ("a.b (c) [d] {e} ^f$ |g| h+ i? \\j", "x a.b (c) [d] {e} ^f$ |g| h+ i? \\j y", True),
        ("disk sd*: probe failed", "kernel: disk sda1: probe failed, retry", True),
        ("disk sd*: probe failed", "kernel: disk sd: probe succeeded", False),
        ("*sd **: probe", "a sd 2:0 : probe b", True),
        ("a.b.c.d.e", "aXbXcXdXe", False),
        ('said "no" to 你好', 'it said "no" to 你好!', True),
    ],
)
def test_a_text_matches_itself_and_a_star_any_characters(text: str, line: str, muted: bool) -> None:
    assert bool(re.search(noise_regex(text), line)) is muted
    stage = noise_filter({"one": text, "another": "what no line has"})
    assert stage.startswith("!~ ")
    assert bool(re.search(json.loads(stage.removeprefix("!~ ")), line)) is muted


def test_without_noise_there_is_no_filter() -> None:
    assert noise_filter({}) == noise_filter({"ssh-probe": "", "other": None}) == ""


def test_the_platforms_own_entries_are_valid_and_mute_the_usual_suspects() -> None:
    assert list(noise_problems(OWN)) == []
    regex = json.loads(noise_filter(OWN).removeprefix("!~ "))
    for line in (
        "error: Unable to open env file: /etc/default/locale: No such file or directory",
        "error: kex_exchange_identification: Connection closed by remote host",
        "piix4_smbus 0000:00:07.3: SMBus Host Controller not enabled!",
        "sd 2:0:0:0: [sda] Assuming drive cache: write through",
    ):
        assert re.search(regex, line)
    assert not re.search(regex, "sshd: error: maximum authentication attempts exceeded for root")
