"""The page's command: bad settings are a paragraph, and nothing opens it to a network by accident."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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


@pytest.mark.parametrize("port", [1, 65535])
def test_every_port_there_is_may_be_asked_for(port):
    assert command.read(["generator=x", f"port={port}"]).port == port
    wrong = 0 if port == 1 else 65536
    with pytest.raises(ValueError, match=f"port={wrong}: give a whole number"):
        command.read(["generator=x", f"port={wrong}"])


def test_settings_that_are_left_out_have_their_defaults():
    assert command.read(["generator=x"]) == command.Settings("x")
    assert command.Settings("x") == ("x", "data", None, "auto", "127.0.0.1", 7860, False)


@pytest.mark.parametrize(
    ("password", "needed", "wanted"),
    [
        (None, False, None),
        ("", False, None),
        ("8 chars!", False, "8 chars!"),
        ("8 chars!", True, "8 chars!"),
        ("7 chars", False, "CMR_APP_PASSWORD has 7 characters; give at least 8, or leave it out"),
        ("7 chars", True, "at least 8 characters, and CMR_APP_PASSWORD has 7 characters"),
        (None, True, "at least 8 characters, and CMR_APP_PASSWORD is not set"),
    ],
)
def test_a_password_has_eight_characters(monkeypatch, password, needed, wanted):
    if password is not None:
        monkeypatch.setenv(command.PASSWORD, password)
    if wanted in (None, password):
        assert command._password(needed=needed) == wanted
    else:
        with pytest.raises(ValueError, match=wanted):
            command._password(needed=needed)


def test_twenty_ports_are_tried_and_none_beyond_the_last(monkeypatch):
    tried = []

    class Taken(socket.socket):
        def bind(self, address: Any) -> None:
            tried.append(address[1])
            raise OSError(98, "Address already in use")

    monkeypatch.setattr(socket, "socket", Taken)
    with pytest.raises(ValueError, match="none of 20 ports .* .Address already in use."):
        command.free_port("127.0.0.1", 7860)
    assert tried == list(range(7860, 7880))
    tried.clear()
    with pytest.raises(ValueError, match="port=65534"):
        command.free_port("127.0.0.1", 65534)
    assert tried == [65534, 65535]


def test_a_port_that_was_just_closed_can_be_taken_again(monkeypatch):
    options = []

    class Watched(socket.socket):
        def setsockopt(self, *of: Any) -> None:
            options.append(of)

    monkeypatch.setattr(socket, "socket", Watched)
    command.free_port("127.0.0.1", 20000)
    assert (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1) in options


def test_an_interruption_closes_the_page_and_an_unforeseen_error_is_shown_whole(
    monkeypatch, capsys
):
    def interrupted(settings: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "serve", interrupted)
    assert command.main(["generator=x"]) == 0
    assert capsys.readouterr().out == "\nthe page is closed\n"

    def broken(settings: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(command, "serve", broken)
    with pytest.raises(ZeroDivisionError):
        command.main(["generator=x"])
    monkeypatch.setattr(command, "serve", lambda settings: None)
    assert command.main(["generator=x"]) == 0
    assert command.main(["-h"]) == 0


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A run and a store that say of themselves what is needed, and a page that is never opened."""
    from cmrstudy import runs

    run = tmp_path / "run"
    (run / "controlnet").mkdir(parents=True)
    facts = {"cohort": "fake-1", "pixels": 32}
    (run / "controlnet" / "generator.json").write_text(json.dumps(facts))
    runs.finish(run)
    (tmp_path / "fake-1").mkdir()
    (tmp_path / "fake-1" / "store.json").write_text("{}")
    monkeypatch.setattr(command, "find_spec", lambda name: name == "gradio")
    monkeypatch.setattr(command, "_alone", lambda scratch: None)
    monkeypatch.setattr(command, "free_port", lambda host, first: first + 1)

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command.time, "sleep", interrupted)
    return [f"generator={run}", f"data_root={tmp_path}"]


def test_it_says_what_it_will_do_before_and_when_it_is_ready(told, tmp_path, monkeypatch, capsys):
    launched: list[Any] = []

    def launch(*of: Any, **how: Any) -> None:
        assert capsys.readouterr().out == (
            f"app: generator {tmp_path}/run, cohort fake-1, 32 px, device auto; for this machine "
            "alone\napp: the page will be at http://127.0.0.1:7861 (loading takes half a minute; "
            "Ctrl-C ends it)\n"
        )
        assert of[3].is_dir() and signal.getsignal(signal.SIGTERM) is signal.default_int_handler
        launched.append((of, how))

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(command, "_launch", launch)
    try:
        assert command.main(told) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    [((settings, run, data_root, scratch), how)] = launched
    assert (run, data_root) == (tmp_path / "run", tmp_path) and settings.port == 7860
    assert how == {"port": 7861, "password": None} and not scratch.exists()
    said = capsys.readouterr().out
    assert re.fullmatch(
        r"app: ready after \d s: http://127.0.0.1:7861\n\nthe page is closed\n", said
    )


def test_a_page_for_a_network_says_that_it_is_plain_http(told, monkeypatch, capsys):
    monkeypatch.setenv(command.PASSWORD, SECRET)
    given: dict[str, Any] = {}
    monkeypatch.setattr(command, "_launch", lambda *_, **how: given.update(how))
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert command.main([*told, "host=0.0.0.0"]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    said = capsys.readouterr().out
    assert "; for everyone who reaches 0.0.0.0 and has the password\n" in said
    assert f"the page will be at http://{socket.gethostname()}:7861 " in said
    assert "this is plain HTTP" in said and "ssh -L 7861:127.0.0.1:7861" in said
    assert given["password"] == SECRET and SECRET not in said


@pytest.mark.parametrize("facts", ["{", "[]", '{"pixels": 32}'])
def test_a_damaged_generator_is_named(told, tmp_path, facts, capsys):
    (tmp_path / "run" / "controlnet" / "generator.json").write_text(facts)
    assert command.main(told) == 1
    assert "run: generator.json is damaged" in capsys.readouterr().err
    (tmp_path / "run" / "controlnet" / "generator.json").unlink()
    assert command.main(told) == 1
    assert "run: no ControlNet there" in capsys.readouterr().err


def test_without_its_extra_the_page_says_what_to_install(told, monkeypatch, capsys):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert command.main(told) == 1
    assert "needs the extra app: pip install -e '.[app]'" in capsys.readouterr().err


@pytest.mark.parametrize(("host", "password"), [("127.0.0.1", None), ("10.0.0.7", SECRET)])
def test_nothing_is_shared_offered_or_reported(host, password, tmp_path, monkeypatch):
    """What Gradio is asked for, with stand-ins for it and for the page."""
    (tmp_path / "page.css").write_text("p {}")
    asked: dict[str, Any] = {}
    begun: list[Any] = []
    blocks = SimpleNamespace(launch=lambda **how: asked.update(how))

    def make_page(studio: Any, preparation: Any, *, run: str, local: bool) -> Any:
        assert (studio, run, local) == (("studio", "cpu"), "runs/x/0", password is None)
        return blocks

    page = SimpleNamespace(HERE=tmp_path, make_page=make_page)
    answers = SimpleNamespace(
        Preparation=lambda studio, scratch: SimpleNamespace(
            begin=lambda: begun.append((studio, scratch, bool(asked)))
        ),
    )
    studio = SimpleNamespace(
        open_studio=lambda run, *, data_root, base_weights, device: ("studio", device)
    )
    gradio = SimpleNamespace(themes=SimpleNamespace(Default=lambda **how: how))
    for name, stand_in in (
        ("gradio", gradio),
        ("cmrgen.app.answers", answers),
        ("cmrgen.app.page", page),
        ("cmrgen.app.studio", studio),
    ):
        monkeypatch.setitem(sys.modules, name, stand_in)
    settings = command.Settings("runs/x/0", host=host, device="cpu", browser=True)
    opened = command._launch(
        settings, tmp_path, tmp_path, tmp_path / "s", port=17, password=password
    )
    assert opened is blocks and begun == [(("studio", "cpu"), tmp_path / "s", True)]
    auth, middleware = asked.pop("auth"), asked.pop("app_kwargs")
    asked.pop("theme"), asked.pop("auth_message")
    assert asked == {
        "server_name": host,
        "server_port": 17,
        "css": "p {}",
        "inbrowser": True,
        "share": False,
        "debug": False,
        "quiet": True,
        "prevent_thread_lock": True,
        "show_error": False,
        "footer_links": [],
        "run_history": False,
        "allowed_paths": [],
        "enable_monitoring": False,
        "ssr_mode": False,
        "mcp_server": False,
        "pwa": False,
        "max_file_size": "1mb",
    }
    if password is None:
        [hosts] = middleware["middleware"]
        assert auth is None and hosts.kwargs == {
            "allowed_hosts": ["127.0.0.1", "localhost", "127.0.0.1"]
        }
    else:
        assert middleware is None and auth("anyone", password)
        assert not auth("anyone", password[:-1]) and not auth("anyone", "")
