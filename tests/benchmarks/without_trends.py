"""Run a server that counts no trends: `python without_trends.py flowhooks serve …`."""

from __future__ import annotations

import sys
from importlib import import_module

from flowhooks.background.trends import TrendRecorder


def main() -> None:
    """Serve."""
    sys.argv = sys.argv[1:]
    TrendRecorder.on_settled = lambda _recorder, _settled: None  # type: ignore[method-assign]
    TrendRecorder.answered = lambda _recorder, _source, _status, _seconds: None  # type: ignore[method-assign]
    import_module("flowhooks.cli.main").main()


if __name__ == "__main__":
    main()
