"""`python -m tests.browser DIR`: run the shop until Ctrl-C, to look at its page."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from tests.browser.demo import shop


def main() -> int:
    """Run it."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    with shop(folder) as api:
        sys.stdout.write(f"{api.url}  token: {api.token}\n")
        sys.stdout.flush()
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    return 0


if __name__ == "__main__":
    sys.exit(main())
