"""Makes everything a release consists of, in dist/, twice, and checks it: `make release`.

sdist, wheel, SBOM (CycloneDX), the context that the images are built from, the Debian package, the
changelog's section and SHA256SUMS. The time in all of them is that of the last commit, so the same commit
gives the same bytes.
"""

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
CONTEXT = ("Dockerfile", ".dockerignore", "pyproject.toml", "README.md", "LICENSE", "docker", "tsmon")
CONTEXT += ("requirements.lock", "requirements-build.lock", "packaging/grafana")
SYSTEM_PYTHON = "/usr/bin/python3"
PORT = 8911
_PIP = ("--quiet", "--disable-pip-version-check", "--no-deps")


def run(*command: str | Path, **environ: str) -> str:
    """Standard output. Raises CalledProcessError."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        env=os.environ | environ,
    )
    return done.stdout.strip()


def venv(directory: Path, python: str, *locks: str) -> Path:
    """A new venv with what the locks name; returns its Python."""
    run(python, "-m", "venv", directory)
    inside = directory / "bin" / "python"
    for lock in locks:
        run(inside, "-m", "pip", "install", *_PIP, "--require-hashes", "-r", lock)
    return inside


def fetch_wheels(pip_python: Path, wheels: Path) -> None:
    """The locked wheels for the Debian package: the only step that needs a network."""
    hashed = (*_PIP, "--require-hashes", "--only-binary=:all:")
    run(pip_python, "-m", "pip", "download", *hashed, "-d", wheels, "-r", "requirements.lock")


def make(into: Path, tools: Path, wheels: Path, version: str, moment: int) -> None:
    """All of it into an empty folder."""
    clock = {"SOURCE_DATE_EPOCH": str(moment)}
    run(tools, "-m", "hatchling", "build", "-d", into, **clock)
    (wheel,) = into.glob("*.whl")
    with tempfile.TemporaryDirectory() as directory:
        together = Path(directory)
        for path in (wheel, *wheels.iterdir()):
            shutil.copy(path, together)
        if Path(SYSTEM_PYTHON).exists() and shutil.which("dpkg-deb"):
            builder = ROOT / "packaging" / "debian" / "build.py"
            run(tools, builder, together, into, "--python", SYSTEM_PYTHON, **clock)
        else:
            print("SKIPPED LOUDLY: no Debian here, the package is not built", file=sys.stderr)
    sbom = json.dumps(bill(version, moment), indent=1, sort_keys=True)
    (into / f"tsmon-{version}.cdx.json").write_text(sbom + "\n")
    context(into / f"tsmon-{version}-image-context.tar.gz", moment)
    (into / f"tsmon-{version}-changes.md").write_text(section(version))
    sums = (f"{digest(path)}  {path.name}\n" for path in sorted(into.iterdir()))
    (into / "SHA256SUMS").write_text("".join(sums))


def bill(version: str, moment: int) -> dict[str, object]:
    """The SBOM: what an installation from requirements.lock holds (CycloneDX 1.6)."""
    locked = re.findall(
        r"^([a-z0-9._-]+)==([^ ;\\]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE
    )
    parts = [
        {
            "type": "library",
            "name": name,
            "version": number,
            "purl": f"pkg:pypi/{name}@{number}",
            "bom-ref": f"pkg:pypi/{name}@{number}",
        }
        for name, number in locked
    ]
    own = f"pkg:pypi/tsmon@{version}"
    top = {"type": "application", "name": "tsmon", "version": version, "purl": own, "bom-ref": own}
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"timestamp": stamp, "component": top | {"licenses": [{"license": {"id": "MIT"}}]}},
        "components": parts,
        "dependencies": [{"ref": own, "dependsOn": [part["bom-ref"] for part in parts]}],
    }


def context(path: Path, moment: int) -> None:
    """What `docker build` needs, and the compose files: unpack, and build as the documents say."""
    named = run("git", "ls-files", "-z", "--", *CONTEXT).split("\0")
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(filter(None, named)):
            info = tar.gettarinfo(ROOT / name, f"tsmon/{name}")
            info.uid = info.gid = 0
            info.uname = info.gname = "root"
            info.mtime = moment
            info.mode = 0o755 if info.mode & 0o100 else 0o644
            with (ROOT / name).open("rb") as file:
                tar.addfile(info, file)
    with path.open("wb") as out, gzip.GzipFile(filename="", fileobj=out, mode="wb", mtime=moment) as packed:
        packed.write(raw.getvalue())


def section(version: str) -> str:
    """What the changelog says of this version. Raises SystemExit when it says nothing."""
    text = (ROOT / "CHANGELOG.md").read_text()
    found = re.search(rf"^## {re.escape(version)}\b[^\n]*\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        sys.exit(f"CHANGELOG.md has no section {version}: rename Unreleased first (RELEASING.md)")
    return found[1].strip() + "\n"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# -- checks ------------------------------------------------------------------------------------------------


def check_wheel(wheel: Path) -> None:
    """All of tsmon/ as git has it, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = set(run("git", "ls-files", "--", "tsmon").splitlines())
    if held != wanted:
        sys.exit(f"the wheel differs from tsmon/: {sorted(held ^ wanted)}")


def check_demo(python: str, wheel: Path, version: str) -> None:
    """Installed alone, it shows its demo and calls itself by its version."""
    with tempfile.TemporaryDirectory() as directory:
        inside = venv(Path(directory) / "venv", python, "requirements.lock")
        run(inside, "-m", "pip", "install", *_PIP, wheel)
        command = inside.parent / "tsmon"
        if run(command, "version") != f"tsmon {version}":
            sys.exit(f"{python}: tsmon version says something else than {version}")
        demo = subprocess.Popen(
            [command, "demo", "--listen", f"127.0.0.1:{PORT}"], cwd=directory, stderr=subprocess.DEVNULL
        )
        try:
            await_answer(f"http://127.0.0.1:{PORT}/health-monitoring/summary", demo)
        finally:
            demo.terminate()
            demo.wait(20)


def await_answer(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 (our own, on loopback)
                if json.load(response)["total_nodes"]:
                    return
        except urllib.error.URLError:
            time.sleep(0.2)
    sys.exit(f"the demo never answered at {url}")


def pythons() -> list[str]:
    """The oldest that tsmon supports and the newest here."""
    found = {}
    for minor in range(11, 20):
        for path in (
            shutil.which(f"python3.{minor}"),
            *sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3")),
        ):
            if (
                path
                and subprocess.run(
                    [path, "-c", "import ensurepip"], check=False, capture_output=True
                ).returncode
                == 0
            ):
                found.setdefault(minor, str(path))
    if not found:
        sys.exit("no Python from 3.11 on that can make a venv")
    return [found[minor] for minor in sorted({min(found), max(found)})]


def only_deb() -> None:
    """The Debian package alone, of what lies here."""
    with tempfile.TemporaryDirectory() as directory:
        wheels = Path(directory) / "wheels"
        wheels.mkdir()
        tools = venv(Path(directory) / "tools", SYSTEM_PYTHON, "requirements-build.lock")
        fetch_wheels(tools, wheels)
        run(tools, "-m", "pip", "wheel", *_PIP, "--no-build-isolation", "-w", wheels, ".")
        print(run(tools, ROOT / "packaging" / "debian" / "build.py", wheels, DIST, "--python", SYSTEM_PYTHON))


def main() -> None:
    if sys.argv[1:] == ["--deb"]:
        only_deb()
        return
    if dirty := run("git", "status", "--porcelain"):
        sys.exit(f"a release is made of what is committed; uncommitted:\n{dirty}")
    moment = int(run("git", "log", "-1", "--format=%ct"))
    named = re.search(r'__version__ = "([^"]+)"', (ROOT / "tsmon" / "__init__.py").read_text())
    version = named[1] if named else sys.exit("tsmon/__init__.py names no version")
    section(version)
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        base = SYSTEM_PYTHON if Path(SYSTEM_PYTHON).exists() else sys.executable
        tools = venv(scratch / "tools", base, "requirements-build.lock")
        wheels = scratch / "wheels"
        wheels.mkdir()
        fetch_wheels(tools, wheels)
        made = [scratch / "first", scratch / "second"]
        for into in made:
            into.mkdir()
            make(into, tools, wheels, version, moment)
        first, second = ((into / "SHA256SUMS").read_text() for into in made)
        if first != second:
            sys.exit(f"two builds differ:\n{first}\n{second}")
        shutil.rmtree(DIST, ignore_errors=True)
        shutil.copytree(made[0], DIST)
    (wheel,) = DIST.glob("*.whl")
    check_wheel(wheel)
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, *DIST.glob("tsmon-*[0-9].tar.gz"))
    for python in pythons():
        check_demo(python, wheel, version)
        print(f"demo with {python}: fine")
    print((DIST / "SHA256SUMS").read_text(), end="")


if __name__ == "__main__":
    main()
