"""Holds constraints.txt against published vulnerabilities: ``make audit``. Needs the network.

pip-audit is installed into the environment when it is first asked for, beside what constraints.txt pins.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"


def main() -> int:
    if importlib.util.find_spec("pip_audit") is None:
        print("audit: installing pip-audit", flush=True)
        install = [sys.executable, "-m", "pip", "install", "-q", "--constraint", str(CONSTRAINTS), "pip-audit"]
        if subprocess.run(install, check=False).returncode:
            return stop("pip-audit cannot be installed, see above. Without network nothing can be audited")
    audit = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off", "-f", "json"]
    done = subprocess.run([*audit, "-r", str(CONSTRAINTS)], capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        return stop(f"pip-audit failed: {last[0][:300]}. It needs the network")
    return report(packages)


def report(packages: list[dict[str, Any]]) -> int:
    """Says what was found, and of what nothing is known. Status 1: something must be raised; 2: nothing was checked."""
    unknown = [one["name"] for one in packages if "skip_reason" in one]
    if len(unknown) == len(packages):
        return stop(f"the list of vulnerabilities knows none of the {len(packages)} packages. Is PyPI itself reached")
    found = [(one, flaw) for one in packages for flaw in one.get("vulns", [])]
    for one, flaw in found:
        print(
            f"{one['name']} {one['version']}: {flaw['id']}, mended in {', '.join(flaw['fix_versions']) or 'no version'}"
        )
    print(f"audit: {len(packages) - len(unknown)} packages of {CONSTRAINTS.name}, {len(found)} known vulnerabilities")
    if unknown:
        print(f"audit: not checked, unknown to the list: {', '.join(unknown)}")
    if found:
        print(f"audit: raise them in {CONSTRAINTS.name}, then: make setup test")
    return 1 if found else 0


def stop(reason: str) -> int:
    print(f"audit: {reason}. Nothing was checked", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
