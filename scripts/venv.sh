#!/bin/sh
# Make .venv with the locked versions; make it anew where an earlier attempt left half of one. `make` calls it.
#   PYTHON  the interpreter, python3 by default
#   TORCH   auto (default): PyTorch's CPU build on Linux without an NVIDIA GPU, else the usual one; cpu; gpu
#   EXTRAS  of pyproject.toml
set -eu
PYTHON=${PYTHON:-python3} TORCH=${TORCH:-auto} EXTRAS=${EXTRAS:-dev,app,cluster,ray,loggers}
BIN=.venv/bin

"$PYTHON" -c 'import sys
good = (3, 11) <= sys.version_info[:2] <= (3, 13)
sys.exit(None if good else "Python 3.11 to 3.13 is needed, %s is %d.%d; give another one: make PYTHON=python3.12"
         % (sys.executable, *sys.version_info[:2]))'
case $TORCH in auto | cpu | gpu) ;; *) echo "TORCH=$TORCH: it takes auto, cpu or gpu" >&2 && exit 1 ;; esac

wanted=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
whole() { # does .venv work, with this Python and something that installs?
    [ "$("$BIN/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$wanted" ] &&
        { [ -x "$BIN/uv" ] || command -v uv >/dev/null || "$BIN/python" -m pip --version >/dev/null 2>&1; }
}
if ! whole; then
    if [ -e .venv ]; then
        [ -e .venv/pyvenv.cfg ] || [ -z "$(ls -A .venv)" ] || { echo ".venv is there and is no virtual environment; move it away" >&2 && exit 1; }
        echo "the .venv that is there is half made or of another Python; making it anew"
        rm -rf .venv
    fi
    if command -v uv >/dev/null; then
        uv venv --quiet --python "$PYTHON" .venv
    elif ! "$PYTHON" -m venv .venv >/dev/null 2>&1; then
        rm -rf .venv
        echo "$PYTHON -m venv fails; install it (Debian, Ubuntu: apt install python3-venv), or uv, or give another PYTHON=" >&2
        exit 1
    fi
fi

if [ -x "$BIN/uv" ]; then UV=$BIN/uv; elif command -v uv >/dev/null; then UV=uv; else
    "$BIN/python" -m pip install --quiet uv
    UV=$BIN/uv
fi
# the CPU build is some gigabytes smaller; on a machine that surely has no NVIDIA GPU nothing else is of use
if [ "$TORCH" = auto ]; then
    if [ "$(uname -s)" = Linux ] && [ ! -e /proc/driver/nvidia ] && [ ! -e /dev/nvidia0 ] && ! command -v nvidia-smi >/dev/null &&
        ! "$BIN/python" -c 'import torch' 2>/dev/null; then TORCH=try; else TORCH=gpu; fi
fi
install() { "$UV" pip install --quiet --compile-bytecode --python "$BIN/python" "$@" -e ".[$EXTRAS]" -c requirements.lock; }
case $TORCH in
cpu) install --torch-backend=cpu ;;
try) install --torch-backend=cpu 2>/dev/null || {
    echo "no NVIDIA GPU here, but PyTorch's CPU build can't be had; installing the usual one (some gigabytes)"
    install
} ;;
gpu) install ;;
esac
