"""The page's command: `python -m cmrgen.app generator=runs/demo/controlnet/0`. It says what it will
do and where before anything heavy is imported."""

from __future__ import annotations

import hmac
import ipaddress
import json
import os
import signal
import socket
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

USAGE = """python -m cmrgen.app generator=<folder of a ControlNet run> [key=value ...]

Open a page on which a mask is chosen, deformed or painted, and the generator draws the heart.

  generator=...       folder of a finished `train.py experiment=controlnet` run, e.g. runs/demo/controlnet/0
  data_root=data      where the cohort's store lies
  base_weights=null   where the generator's base lies now, if it has moved since
  device=auto         auto (the GPU if there is one), cpu, cuda or cuda:<number>
  host=127.0.0.1      this machine alone; another address opens the page to a network, behind a password
  port=7860           or the next free one
  browser=false       true: open it in the browser

A password is taken from the environment, CMR_APP_PASSWORD, and then asked for on 127.0.0.1, too. docs/app.md tells more."""
PASSWORD = "CMR_APP_PASSWORD"
LEAST = 8  # characters of a password
PORTS = 20  # tried one after the other


class Settings(NamedTuple):
    """What the command line says."""

    generator: str
    data_root: str = "data"
    base_weights: str | None = None
    device: str = "auto"
    host: str = "127.0.0.1"
    port: int = 7860
    browser: bool = False


def main(arguments: list[str]) -> int:
    """Serve the page until it is interrupted; an error is a paragraph and exit status 1."""
    if set(arguments) & {"-h", "--help"}:
        print(USAGE)
        return 0
    from cmrstudy import plain_errors

    try:
        serve(read(arguments))
    except KeyboardInterrupt:
        print("\nthe page is closed", flush=True)
    except Exception as error:
        if (text := plain_errors.paragraph(error)) is None:
            raise
        print(f"error: {text}", file=sys.stderr)
        return 1
    return 0


def read(arguments: list[str]) -> Settings:
    """The settings of a command line of key=value. Raises ValueError naming what is wrong with
    it."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for text in arguments:
        key = text.partition("=")[0]
        if "=" not in text or key not in Settings._fields:
            raise ValueError(
                f"{text}: give key=value, with a key of {', '.join(Settings._fields)}; --help "
                "explains them"
            )
    try:
        given: Any = OmegaConf.to_container(OmegaConf.from_dotlist(arguments))
    except (OmegaConfBaseException, ValueError) as error:
        raise ValueError(f"{' '.join(arguments)}: {str(error).splitlines()[0]}") from None
    if given.get("generator") is None:
        raise ValueError(
            "generator=<folder of a ControlNet run> is needed, e.g. runs/demo/controlnet/0"
        )
    port, browser = given.get("port", 7860), given.get("browser", False)
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
        raise ValueError(f"port={port}: give a whole number from 1 to 65535")
    if not isinstance(browser, bool):
        raise ValueError(f"browser={browser}: it takes true or false")
    if ":" in str(given.get("host", "")):
        raise ValueError(f"host={given['host']}: give an IPv4 address, or a name of this machine")
    words = {key: None if value is None else str(value) for key, value in given.items()}
    if empty := [
        key for key, value in words.items() if value in (None, "") and key != "base_weights"
    ]:
        raise ValueError(f"{empty[0]} is empty; give a value, or leave it out")
    return Settings(**{**words, "port": port, "browser": browser})  # type: ignore[arg-type]


def serve(settings: Settings) -> None:
    """Say what comes, load the generator, open the page, and wait."""
    run, data_root = _place(settings.generator), _place(settings.data_root)
    facts = _facts(run, data_root)
    local = is_local(settings.host)
    password = _password(needed=not local)
    port = free_port(settings.host, settings.port)
    name = socket.gethostname() if settings.host == "0.0.0.0" else settings.host
    address = f"http://{name}:{port}"
    print(
        f"app: generator {settings.generator}, cohort {facts['cohort']}, {facts['pixels']} px, "
        f"device {settings.device}; "
        f"{'for this machine alone' if local else f'for everyone who reaches {settings.host}'}"
        f"{' and has the password' * bool(password)}\napp: the page will be at {address} (loading "
        "takes half a minute; Ctrl-C ends it)",
        flush=True,
    )
    if not local:
        print(
            "app: this is plain HTTP: whoever listens on the network can read the password. "
            f"Better is host=127.0.0.1 and `ssh -L {port}:127.0.0.1:{port} <this machine>`",
            flush=True,
        )
    began = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the scratch folder goes
    with tempfile.TemporaryDirectory(prefix="cmr-app-", ignore_cleanup_errors=True) as scratch:
        _alone(Path(scratch))
        _launch(settings, run, data_root, Path(scratch), port=port, password=password)
        print(f"app: ready after {time.monotonic() - began:.0f} s: {address}", flush=True)
        while True:
            time.sleep(3600)


def _launch(
    settings: Settings,
    run: Path,
    data_root: Path,
    scratch: Path,
    *,
    port: int,
    password: str | None,
) -> Any:
    """The page, open at a port; its judges get ready in the background."""
    import gradio as gr
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from cmrgen.app.answers import Preparation
    from cmrgen.app.page import HERE, make_page
    from cmrgen.app.studio import open_studio

    studio = open_studio(
        run, data_root=data_root, base_weights=settings.base_weights, device=settings.device
    )
    preparation = Preparation(studio, scratch)
    blocks = make_page(studio, preparation, run=settings.generator, local=is_local(settings.host))

    def known(name: str, given: str) -> bool:
        return hmac.compare_digest(given.encode(), (password or "").encode())

    # a website whose name points at this machine (DNS rebinding) gets nothing
    names = ["127.0.0.1", "localhost", settings.host]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=names)
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    blocks.launch(
        server_name=settings.host,
        server_port=port,
        auth=known if password else None,
        auth_message="Any name, and the password that the owner of this page gave you.",
        theme=gr.themes.Default(primary_hue="blue", font=fonts, font_mono=["monospace"]),
        css=(HERE / "page.css").read_text(),
        inbrowser=settings.browser,
        share=False,
        debug=False,
        quiet=True,
        prevent_thread_lock=True,
        show_error=False,
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        max_file_size="1mb",
        app_kwargs={"middleware": [hosts]} if is_local(settings.host) else None,
    )
    preparation.begin()
    return blocks


def is_local(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def free_port(host: str, first: int) -> int:
    """The first port from `first` on that can be listened to. Raises ValueError where there is
    none."""
    fault = ""
    for port in range(first, min(first + PORTS, 65536)):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind((host, port))
            except OSError as error:
                fault = error.strerror or str(error)
                continue
            return port
    raise ValueError(
        f"host={host}, port={first}: none of {PORTS} ports from there on can be listened to "
        f"({fault}); give another port= or host="
    )


def _password(*, needed: bool) -> str | None:
    """The password that the environment sets. Raises ValueError for a short one, and where one is
    needed and there is none."""
    password = os.environ.get(PASSWORD, "")
    if not password and not needed:
        return None
    if len(password) < LEAST:
        what = f"has {len(password)} characters" if password else "is not set"
        raise ValueError(
            f"host: a page that is open to a network takes a password of at least {LEAST} "
            f"characters, and {PASSWORD} {what}. Set it in the environment, or leave "
            "host=127.0.0.1 and come through `ssh -L 7860:127.0.0.1:7860 <this machine>`"
            if needed
            else f"{PASSWORD} {what}; give at least {LEAST}, or leave it out"
        )
    return password


def _facts(run: Path, data_root: Path) -> dict[str, Any]:
    """What a generator's folder says of itself, looked at without torch. Raises where something is
    missing."""
    from cmrstudy import runs

    if find_spec("gradio") is None:
        raise ValueError("the page needs the extra app: pip install -e '.[app]'")
    runs.facts(run)
    told = run / "controlnet" / "generator.json"
    if not told.exists():
        raise FileNotFoundError(
            f"generator={run}: no ControlNet there; give the folder of a `train.py "
            "experiment=controlnet` run"
        )
    try:
        facts: dict[str, Any] = json.loads(told.read_text())
        store = data_root / facts["cohort"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"generator={run}: generator.json is damaged; copy the run again from where it was "
            "trained"
        ) from None
    if not (store / "store.json").exists():
        raise FileNotFoundError(
            f"{store}: the store of the cohort that taught this generator is not there; give its "
            "folder with data_root=, or run generate.py once, which prepares it"
        )
    return facts


def _place(path: str) -> Path:
    """A path as the other commands take it: the working directory's where it is there, else the
    home's."""
    from cmrstudy import paths

    here = Path(paths.plain(path))
    return here if here.is_absolute() or here.exists() else paths.home() / here


def _alone(scratch: Path) -> None:
    """Nothing in the environment opens the page further, nothing is told to anyone, and whatever is
    written goes into `scratch`."""
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    tempfile.tempdir = str(scratch)
    os.environ |= {
        "TMPDIR": str(scratch),
        "GRADIO_TEMP_DIR": str(scratch / "gradio"),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": ",".join(filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1,localhost"))),
    }


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # nobody waits for the server's threads, or for judges half trained
