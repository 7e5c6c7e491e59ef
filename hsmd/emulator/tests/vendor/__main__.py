#!/usr/bin/env python3
"""Drives a running emulator with the vendor's own library (PyPI `yubihsm[http]`).

Usage: python3 tests/vendor URL [SCENARIO...]

Every other file beside this one is a scenario with a function `run(url)`; all of them run where none is named. Each
begins with a device that was just reset. Ends with 0 if every step of every scenario holds.
"""

import importlib
import sys
from pathlib import Path

from yubihsm import YubiHsm

HERE = Path(__file__).parent


def scenarios():
    return sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))


def main():
    url, names = sys.argv[1], sys.argv[2:] or scenarios()
    for name in names:
        YubiHsm.connect(url).create_session_derived(1, "password").reset_device()
        importlib.import_module(name).run(url)
        print(f"{name}: holds", flush=True)


if __name__ == "__main__":
    main()
