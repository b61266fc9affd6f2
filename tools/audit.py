"""Holds constraints.txt against published vulnerabilities: ``make audit``. Needs the network.

pip-audit is installed into the environment when it is first asked for, beside what constraints.txt pins.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"
UNREACHABLE = ("ConnectionError", "ServiceError", "NameResolutionError", "Max retries exceeded", "ConnectTimeout")


def main() -> int:
    if importlib.util.find_spec("pip_audit") is None:
        print("audit: installing pip-audit", flush=True)
        install = [sys.executable, "-m", "pip", "install", "-q", "--constraint", str(CONSTRAINTS), "pip-audit"]
        if subprocess.run(install, check=False).returncode:
            return stop("pip-audit cannot be installed, see above. Without network nothing can be audited")
    audit = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off"]
    done = subprocess.run([*audit, "-r", str(CONSTRAINTS)], stderr=subprocess.PIPE, text=True, check=False)
    if any(name in done.stderr for name in UNREACHABLE):
        return stop(f"the list of vulnerabilities cannot be reached ({done.stderr.strip().splitlines()[-1][:200]})")
    print(done.stderr, end="", file=sys.stderr)
    if done.returncode:
        print(f"audit: raise what is named in {CONSTRAINTS.name} to a mended version, then: make setup test")
    return done.returncode


def stop(reason: str) -> int:
    print(f"audit: {reason}. Nothing was checked.", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
