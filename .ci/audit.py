"""Ask pip-audit for known vulnerabilities of what is installed beside it: python .ci/audit.py [ITS OPTIONS].

pip-audit alone passes where its service knows none of the packages. Exit codes: 0 audited and none found, 1 some found,
2 nothing could be audited.
"""

import json
import subprocess
import sys


def main() -> int:
    command = ["-m", "pip_audit", "--skip-editable", "--progress-spinner=off", "--format=json"]
    done = subprocess.run([sys.executable, *command, *sys.argv[1:]], capture_output=True, text=True)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:  # it says why in its last line, after a traceback
        said = done.stderr.strip().splitlines() or [f"pip-audit ended with exit code {done.returncode}"]
        print(f"audit: nothing was audited: {said[-1]}", file=sys.stderr)
        return 2
    audited = [one for one in packages if "skip_reason" not in one]
    skipped = sorted(one["name"] for one in packages if "skip_reason" in one)
    if not audited:
        print(f"audit: nothing was audited: the service knows none of {len(packages)} packages", file=sys.stderr)
        return 2
    found = [(one, vulnerability) for one in audited for vulnerability in one["vulns"]]
    for one, vulnerability in found:
        fixed = ", ".join(vulnerability["fix_versions"]) or "no version"
        print(f"{one['name']} {one['version']}: {vulnerability['id']}, fixed in {fixed}")
    print(f"audit: {len(audited)} packages audited, {len(found)} vulnerabilities found")
    if skipped:
        print(f"not audited: {', '.join(skipped)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
