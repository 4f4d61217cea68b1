"""Builds the Debian package from wheels that are there, without a network: same wheels, same bytes.

    python packaging/debian/build.py WHEELS OUTPUT [--python /usr/bin/python3]

WHEELS holds tsmon's wheel and those of requirements.lock. They are laid out as a venv in /usr/lib/tsmon for
one version of Python, that of `--python`, on which the package depends: Debian 12 has 3.11, Ubuntu 24.04
3.12, Debian 13 3.13, and each takes the package that was built with its own.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LAUNCHER = "#!/usr/lib/tsmon/bin/python -I\nfrom tsmon.cli import main\n\nmain()\n"
CONTROL = """Package: tsmon
Version: {version}
Architecture: {architecture}
Maintainer: the tsmon contributors <noreply@tsmon.invalid>
Depends: python3 (>= {python}~), python3 (<< {next}~), libc6, systemd, ca-certificates
Recommends: tailscale
Section: net
Priority: optional
Description: watches a Tailscale tailnet day and night
 One small process that reads the tailnet from this machine's tailscaled, keeps
 a true history, and says once, to the right person, when a node goes dark.
 When it cannot see it says so, and never calls that an outage.
"""


def run(*command: str, **environ: str) -> str:
    """Standard output. Raises CalledProcessError."""
    return subprocess.run(
        command, check=True, text=True, stdout=subprocess.PIPE, env=os.environ | environ
    ).stdout.strip()


def write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def lay_out(root: Path, wheels: Path, python: str, pip: str) -> tuple[str, str]:
    """The package's files below `root`; returns tsmon's version and Python's (3.11)."""
    minor = run(python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
    home = root / "usr/lib/tsmon"
    packages = home / f"lib/python{minor}/site-packages"
    install = (pip, "-m", "pip", "--isolated", "--python", python, "install", "--quiet", "--no-index")
    options = ("--no-deps", "--no-compile", "--find-links", str(wheels), "--target", str(packages))
    run(*install, *options, "-r", str(ROOT / "requirements.lock"), PIP_FIND_LINKS="")
    (ours,) = wheels.glob("tsmon-*.whl")
    version = ours.name.split("-")[1]
    run(*install, *options, f"tsmon=={version}", PIP_FIND_LINKS="")
    shutil.rmtree(packages / "bin", ignore_errors=True)
    compiling = ("-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s", str(root))
    run(python, *compiling, "-p", "/", str(packages))
    write(home / "pyvenv.cfg", f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {minor}\n")
    (home / "bin").mkdir()
    (home / "bin/python").symlink_to(f"/usr/bin/python{minor}")
    write(root / "usr/bin/tsmon", LAUNCHER, 0o755)
    unit = (ROOT / "packaging/systemd/tsmon.service").read_text()
    # A user that stays: files in /etc/tsmon can be given to its group.
    unit = unit.replace("/usr/local/bin/tsmon", "/usr/bin/tsmon").replace("DynamicUser=yes", "User=tsmon")
    write(root / "usr/lib/systemd/system/tsmon.service", unit)
    write(root / "usr/lib/sysusers.d/tsmon.conf", (HERE / "sysusers.conf").read_text())
    write(root / "etc/tsmon/environment", (HERE / "environment").read_text())
    documents = root / "usr/share/doc/tsmon"
    write(documents / "copyright", (ROOT / "LICENSE").read_text())
    for path in (ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))):
        write(documents / path.name, path.read_text())
    return version, minor


def control(root: Path, version: str, python: str) -> None:
    """What dpkg is to know and do."""
    major, minor = map(int, python.split("."))
    architecture = run("dpkg", "--print-architecture")
    text = CONTROL.format(
        version=version, architecture=architecture, python=python, next=f"{major}.{minor + 1}"
    )
    write(root / "DEBIAN/control", text)
    write(root / "DEBIAN/conffiles", "/etc/tsmon/environment\n")
    for name in ("postinst", "prerm", "postrm"):
        write(root / "DEBIAN" / name, (HERE / name).read_text(), 0o755)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("wheels", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--python", default="/usr/bin/python3")
    given = parser.parse_args()
    os.umask(0o022)
    os.environ.setdefault("SOURCE_DATE_EPOCH", "1767225600")
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "tsmon"
        root.mkdir()
        version, minor = lay_out(root, given.wheels.resolve(), given.python, sys.executable)
        control(root, version, minor)
        given.output.mkdir(parents=True, exist_ok=True)
        name = f"tsmon_{version}-py{minor}_{run('dpkg', '--print-architecture')}.deb"
        run("dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(root), str(given.output / name))
    print(given.output / name)


if __name__ == "__main__":
    main()
