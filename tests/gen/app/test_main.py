"""The page's command: bad settings are a paragraph, and nothing opens it to a network by accident."""

from __future__ import annotations

import os
import re
import socket
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from cmrgen.app import __main__ as command

SECRET = "a long password"


@pytest.fixture(autouse=True)
def without_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(command.PASSWORD, raising=False)


def test_settings_are_read_as_the_other_commands_read_them():
    read = command.read(["generator=runs/x/0", "port=8000", "browser=true", "base_weights=null"])
    assert read == command.Settings("runs/x/0", port=8000, browser=True)
    assert command.read(["generator=~/a b/ä=1"]).generator == "~/a b/ä=1"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "generator=<folder of a ControlNet run> is needed"),
        (["generator=x", "prot=1"], "prot=1: give key=value, with a key of generator"),
        (["runs/demo/controlnet/0"], "give key=value"),
        (["generator=x", "port=99999"], "port=99999: give a whole number from 1 to 65535"),
        (["generator=x", "port=true"], "port=True"),
        (["generator=x", "browser=maybe"], "browser=maybe: it takes true or false"),
        (["generator=x", "host="], "host is empty"),
        (["generator=x", "host=::1"], "host=::1: give an IPv4 address"),
        (["generator="], "generator is empty|is needed"),
        (["generator=x", "share=true"], "share=true: give key=value"),
    ],
)
def test_a_bad_setting_is_a_paragraph_and_exit_status_1(arguments, told, capsys):
    assert command.main(arguments) == 1
    said = capsys.readouterr()
    assert re.search(told, said.err) and said.err.startswith("error: ")
    assert said.err.count("\n") == 1 and "Traceback" not in said.err


def test_help_lists_every_setting(capsys):
    assert command.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name}=" in said for name in command.Settings._fields)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.7", False),
        ("localhost.example.org", False),
        ("127.0.0.1.example.org", False),
    ],
)
def test_only_the_machines_own_addresses_are_local(host, local):
    assert command.is_local(host) is local


@pytest.mark.parametrize("password", [None, "short"])
def test_a_page_for_a_network_needs_a_password(run, cohort, password, monkeypatch, capsys):
    if password:
        monkeypatch.setenv(command.PASSWORD, password)
    monkeypatch.setattr(command, "_launch", lambda *args, **kwargs: pytest.fail("it was opened"))
    place = [f"generator={run}", f"data_root={cohort.folder.parent}", "host=0.0.0.0"]
    assert command.main(place) == 1
    said = capsys.readouterr().err
    assert "password of at least 8 characters" in said and "127.0.0.1" in said


def test_a_port_in_use_is_passed_over():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert command.free_port("127.0.0.1", port) > port
    with pytest.raises(ValueError, match="give another port= or host="):
        command.free_port("203.0.113.9", 7860)  # of no machine (RFC 5737)


def test_nothing_in_the_environment_opens_the_page_further(monkeypatch, tmp_path):
    for name in ("SHARE", "SERVER_NAME", "ALLOWED_PATHS", "MCP_SERVER", "VIBE_MODE"):
        monkeypatch.setenv(f"GRADIO_{name}", "true")
    monkeypatch.setattr(tempfile, "tempdir", None)
    for name in (
        "TMPDIR",
        "GRADIO_TEMP_DIR",
        "GRADIO_ANALYTICS_ENABLED",
        "HF_HUB_DISABLE_TELEMETRY",
    ):
        monkeypatch.setenv(name, "")  # so that they are restored
    monkeypatch.setenv("NO_PROXY", "example.org")
    command._alone(tmp_path)
    left = {name: value for name, value in os.environ.items() if name.startswith("GRADIO_")}
    assert left == {
        "GRADIO_TEMP_DIR": str(tmp_path / "gradio"),
        "GRADIO_ANALYTICS_ENABLED": "False",
    }
    assert tempfile.gettempdir() == str(tmp_path)
    assert os.environ["NO_PROXY"] == "example.org,127.0.0.1,localhost"


@pytest.mark.skipif(find_spec("gradio") is None, reason="needs the extra app")
def test_what_is_missing_is_said_before_anything_heavy(run, cohort, tmp_path, capsys):
    assert command.main([f"generator={tmp_path}/none"]) == 1
    assert "no finished run there" in capsys.readouterr().err
    assert command.main([f"generator={run}", f"data_root={tmp_path}"]) == 1
    assert (
        f"{Path(tmp_path) / cohort.folder.name}: the store of the cohort" in capsys.readouterr().err
    )
