"""The artifact mirror's pure logic: where things lie, how they are checked, and what is refused."""

import hashlib
import io
import json
import os
import sys
import tarfile
import urllib.error
import zipfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.mirror import images, mirror

GRAFANA = {"bin/grafana": b"elf", "conf/defaults.ini": b"[server]\n", "public/index.html": b"<html>"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(mirror, "CACHE", tmp_path)
    for name, folder in (
        ("MIRROR", "mirror"),
        ("STANDIN", "standin"),
        ("FAULTY", "faulty"),
        ("MADE_FROM", "made-from"),
    ):
        monkeypatch.setattr(mirror, name, tmp_path / folder)
    monkeypatch.setattr(mirror, "ARCH", "amd64")
    monkeypatch.setattr(
        mirror, "versions", lambda: {"loki_version": "3.7.8", "grafana_version": "12.3.0", "grafana_build": "42"}
    )
    monkeypatch.delenv("GRAFANA_ARCHIVE", raising=False)
    return tmp_path


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What upstream serves, by URL; anything else can't be reached."""
    served: dict[str, bytes] = {}

    def fetch(url: str, target: Path) -> None:
        if url not in served:
            raise urllib.error.URLError("no such host")
        target.write_bytes(served[url])

    monkeypatch.setattr(mirror, "fetch", fetch)
    return served


def tarball(path: Path, top: str, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name in (".", top.rstrip("/")) if top else ():
            folder = tarfile.TarInfo(name)
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{top}{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def unpacked(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {m.name: content.read() for m in archive if (content := archive.extractfile(m))}


def test_the_layout_is_upstreams(cache: Path) -> None:  # noqa: ARG001 - sets the architecture
    folder = mirror.release_folder("3.7.8")
    assert f"{folder}/{mirror.program_zip('loki')}" == (
        "github.com/grafana/loki/releases/download/v3.7.8/loki-linux-amd64.zip"
    )
    assert mirror.grafana_tarball("12.3.0", "42") == (
        "dl.grafana.com/grafana/release/12.3.0/grafana_12.3.0_42_linux_amd64.tar.gz"
    )
    assert mirror.grafana_tarball("12.4.11", "") == "dl.grafana.com/oss/release/grafana-12.4.11.linux-amd64.tar.gz"
    assert mirror.suite_tarball("node_exporter", "1.12.1") == (
        "github.com/prometheus/node_exporter/releases/download/v1.12.1/node_exporter-1.12.1.linux-amd64.tar.gz"
    )


def test_sums_are_in_sha256sums_format() -> None:
    digest = hashlib.sha256(b"x").hexdigest()
    text = mirror.format_sums({"b.zip": digest, "a.zip": digest})
    assert text == f"{digest}  a.zip\n{digest}  b.zip\n"
    assert mirror.parse_sums(text) == {"a.zip": digest, "b.zip": digest}
    assert mirror.parse_sums(f"{digest} *a.zip\n<html>not a list</html>\n") == {"a.zip": digest}


def test_an_archive_counts_as_there_only_with_its_own_digest(tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip", "c.tar.gz", "grafana.tar.gz"):
        made = tmp_path / "made"
        made.write_text(name)
        archive = tmp_path / "mirror" / name
        mirror.publish(made, archive)
        assert mirror.is_whole(archive)
    assert set(mirror.parse_sums((tmp_path / "mirror" / "SHA256SUMS").read_text())) == {"a.zip", "b.zip"}
    (tmp_path / "mirror" / "b.zip").write_text("cut short")
    assert not mirror.is_whole(tmp_path / "mirror" / "b.zip")
    assert set(mirror.parse_sums((tmp_path / "mirror" / "sha256sums.txt").read_text())) == {"c.tar.gz"}
    (tmp_path / "mirror" / "grafana.tar.gz.sha256").unlink()
    assert not mirror.is_whole(tmp_path / "mirror" / "grafana.tar.gz")


def test_a_download_is_checked_against_upstreams_list(tmp_path: Path, upstream: dict[str, bytes]) -> None:
    upstream["https://host/v1/a.zip"] = b"archive"
    upstream["https://host/v1/SHA256SUMS"] = mirror.format_sums(
        {"a.zip": hashlib.sha256(b"archive").hexdigest()}
    ).encode()
    downloaded = mirror.download("host/v1/a.zip", tmp_path)
    assert downloaded
    assert downloaded.read_bytes() == b"archive"


@pytest.mark.parametrize("listed", ["a.zip", "other.zip"])
def test_a_download_that_upstream_does_not_vouch_for_is_refused(
    listed: str, tmp_path: Path, upstream: dict[str, bytes]
) -> None:
    upstream["https://host/v1/a.zip"] = b"tampered"
    upstream["https://host/v1/SHA256SUMS"] = mirror.format_sums(
        {listed: hashlib.sha256(b"archive").hexdigest()}
    ).encode()
    with pytest.raises(RuntimeError, match="is not what"):
        mirror.download("host/v1/a.zip", tmp_path)


def test_without_upstream_there_is_no_download(tmp_path: Path, upstream: dict[str, bytes]) -> None:
    assert not upstream
    assert mirror.download("host/v1/a.zip", tmp_path) is None


@pytest.mark.parametrize("release", [program.release for program in mirror.PROGRAMS])
def test_the_go_modules_pin_the_platforms_versions(release: str) -> None:
    version = mirror.versions()[f"{release}_version"]
    assert f"{mirror.LOKI_MODULE} v{version}\n" in (mirror.HERE / release / "go.mod").read_text()


@pytest.mark.parametrize("suite", mirror.SUITES, ids=lambda suite: suite.name)
def test_the_modules_of_prometheus_family_pin_the_platforms_versions(suite: mirror.Suite) -> None:
    pin = mirror.suite_module(suite.name, mirror.versions()[f"{suite.name}_version"])
    assert f"require {pin}\n" in (mirror.HERE / suite.name / "go.mod").read_text()


def test_prometheus_module_has_versions_of_its_own() -> None:
    assert mirror.suite_module("prometheus", "3.5.1") == "github.com/prometheus/prometheus v0.305.1"
    assert mirror.suite_module("alertmanager", "0.34.2") == "github.com/prometheus/alertmanager v0.34.2"


def test_another_version_than_the_go_modules_is_not_built(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"versions\.yml 9\.9\.9"):
        mirror.build(mirror.PROGRAMS[0], "9.9.9", tmp_path)
    for suite in mirror.SUITES:
        with pytest.raises(RuntimeError, match=r"versions\.yml 9\.9\.9"):
            mirror.build_suite(suite, "9.9.9", tmp_path)


def test_a_tarball_holds_one_folder_of_programs_and_is_reproducible(tmp_path: Path) -> None:
    folder = tmp_path / "alertmanager-1.0"
    folder.mkdir()
    for name in ("alertmanager", "amtool"):
        (folder / name).write_bytes(b"elf")
    tarballs = [tmp_path / number / "packed.tar.gz" for number in ("0", "1")]
    for tarball in tarballs:
        tarball.parent.mkdir()
        os.utime(folder / "amtool", (int(tarball.parent.name),) * 2)
        mirror.tar_folder(folder, tarball)
    assert tarballs[0].read_bytes() == tarballs[1].read_bytes()
    with tarfile.open(tarballs[0]) as archive:
        assert archive.getnames() == [f"alertmanager-1.0{name}" for name in ("", "/alertmanager", "/amtool")]
        assert archive.getmember("alertmanager-1.0/amtool").mode == 0o755


def test_go_versions_compare_as_numbers() -> None:
    assert mirror.numbers("go1.26.10") > mirror.numbers("1.26.9")


def test_a_zip_holds_its_program_executable_and_is_reproducible(tmp_path: Path) -> None:
    program = tmp_path / "loki"
    program.write_bytes(b"elf")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        mirror.zip_file(program, tmp_path / folder / "loki-linux-amd64.zip")
        os.utime(program, (0, 0))
    first, second = (tmp_path / folder / "loki-linux-amd64.zip" for folder in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert archive.namelist() == ["loki-linux-amd64"]
        assert archive.infolist()[0].external_attr >> 16 & 0o777 == 0o755


@pytest.mark.parametrize("top", ["grafana-11.2.0/", "./grafana-v11/", ""])
def test_a_given_grafana_is_laid_out_as_the_platforms_release(
    top: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFANA_ARCHIVE", str(tarball(cache / "given.tar.gz", top, GRAFANA)))
    mirror.fill_grafana(for_tests=False)
    archive = cache / "mirror" / mirror.grafana_tarball("12.3.0", "42")
    assert unpacked(archive) == {f"grafana-12.3.0/{name}": content for name, content in GRAFANA.items()}
    assert archive.with_name(f"{archive.name}.sha256").read_text() == mirror.sha256(archive)
    assert mirror.grafana_kind() == "genuine"


def test_a_given_grafana_may_be_a_zip(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(cache / "given.zip", "w") as given:
        given.mkdir("grafana-11")
        for name, content in GRAFANA.items():
            given.writestr(f"grafana-11/{name}", content)
    monkeypatch.setenv("GRAFANA_ARCHIVE", str(cache / "given.zip"))
    mirror.fill_grafana(for_tests=True)
    archive = cache / "mirror" / mirror.grafana_tarball("12.3.0", "42")
    assert unpacked(archive) == {f"grafana-12.3.0/{name}": content for name, content in GRAFANA.items()}
    with tarfile.open(archive) as laid:
        assert laid.getmember("grafana-12.3.0/bin/grafana").mode & 0o111
        assert not laid.getmember("grafana-12.3.0/conf/defaults.ini").mode & 0o111


def test_long_names_and_links_survive(tmp_path: Path) -> None:
    long = f"public/{'x' * 200}.js"
    with tarfile.open(tmp_path / "given.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as given:
        for name in ("bin/grafana", long):
            given.addfile(tarfile.TarInfo(f"grafana-11/{name}"))
        link = tarfile.TarInfo("grafana-11/hard")
        link.type, link.linkname = tarfile.LNKTYPE, f"grafana-11/{long}"
        given.addfile(link)
    mirror.relay(tmp_path / "given.tar.gz", tmp_path / "laid.tar.gz", "12.3.0")
    with tarfile.open(tmp_path / "laid.tar.gz") as laid:
        assert laid.getnames() == [f"grafana-12.3.0/{name}" for name in ("bin/grafana", long, "hard")]
        assert laid.getmember("grafana-12.3.0/hard").linkname == f"grafana-12.3.0/{long}"


@pytest.mark.parametrize(
    ("top", "files"),
    [("loki/", {"bin/loki": b""}), ("grafana-11/", {**GRAFANA, "../../etc/passwd": b""})],
    ids=["not Grafana", "a way out"],
)
def test_another_archive_is_refused(
    top: str, files: dict[str, bytes], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFANA_ARCHIVE", str(tarball(cache / "given.tar.gz", top, files)))
    with pytest.raises(RuntimeError, match="is no release of Grafana"):
        mirror.fill_grafana(for_tests=False)
    assert mirror.grafana_kind() == "none"


def test_a_broken_archive_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = tarball(cache / "given.tar.gz", "grafana-11/", {**GRAFANA, "public/big": os.urandom(100_000)})
    given.write_bytes(given.read_bytes()[:50_000])
    monkeypatch.setenv("GRAFANA_ARCHIVE", str(given))
    with pytest.raises(RuntimeError, match="can't be read"):
        mirror.fill_grafana(for_tests=False)
    assert mirror.grafana_kind() == "none"


def test_another_given_grafana_replaces_the_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFANA_ARCHIVE", str(cache / "given.tar.gz"))
    archive = cache / "mirror" / mirror.grafana_tarball("12.3.0", "42")
    for content in (b"one", b"two"):
        tarball(cache / "given.tar.gz", "grafana-11/", {"bin/grafana": content})
        mirror.fill_grafana(for_tests=False)
        made = archive.stat().st_mtime_ns
        mirror.fill_grafana(for_tests=False)
        assert archive.stat().st_mtime_ns == made
        assert unpacked(archive) == {"grafana-12.3.0/bin/grafana": content}


def test_the_stand_in_is_made_for_tests_only_and_apart_from_the_mirror(cache: Path, upstream: dict[str, bytes]) -> None:
    assert not upstream
    mirror.fill_grafana(for_tests=False)
    assert mirror.grafana_kind() == "none"
    mirror.fill_grafana(for_tests=True)
    assert mirror.grafana_kind() == "stand-in"
    assert mirror.is_whole(cache / "standin" / mirror.grafana_tarball("12.3.0", "42"))
    assert not list((cache / "mirror").rglob("*"))


def test_without_grafana_the_demo_is_told_what_to_set(
    cache: Path,  # noqa: ARG001 - an empty one
    upstream: dict[str, bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert not upstream
    mirror.fill_grafana(for_tests=False)
    assert "GRAFANA_ARCHIVE=/path/to/grafana.tar.gz" in capsys.readouterr().out


def test_wheels_are_fetched_for_every_python_whatever_the_markers_say() -> None:
    pinned = 'a==1 ; python_version < "3.13" \\\n    --hash=sha256:00\nb==2; sys_platform == "linux"\n'
    assert mirror.without_markers(pinned) == "a==1 \\\n    --hash=sha256:00\nb==2\n"


@pytest.mark.parametrize("fault", ["corrupt", "unlisted"])
def test_the_faulty_mirrors_are_faulty(fault: str, cache: Path) -> None:
    mirror.fill_faulty()
    archive = cache / "faulty" / fault / mirror.release_folder("3.7.8") / "loki-linux-amd64.zip"
    assert zipfile.ZipFile(archive).namelist() == ["loki-linux-amd64"]
    assert not mirror.is_whole(archive)
    assert ("loki-linux-amd64.zip" in (archive.with_name("SHA256SUMS")).read_text()) == (fault == "corrupt")


def test_an_image_is_an_oci_archive_that_names_itself_and_is_reproducible(tmp_path: Path) -> None:
    layer = images.layer_of_files({"/bin/toy": b"program"})
    for name in ("a.tar", "b.tar"):
        images.write_archive("docker.io/toys/toy:1.0", [layer], {"Entrypoint": ["/bin/toy"]}, "amd64", tmp_path / name)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        content = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert all(hashlib.sha256(content[name]).hexdigest() == Path(name).name for name in content if "blobs/" in name)
    (manifest,) = json.loads(content["index.json"])["manifests"]
    assert manifest["annotations"] == {"org.opencontainers.image.ref.name": "docker.io/toys/toy:1.0"}
    told = json.loads(content[f"blobs/{manifest['digest'].replace(':', '/')}"])
    assert content[f"blobs/{told['layers'][0]['digest'].replace(':', '/')}"] == layer


def test_a_programs_image_holds_what_its_archive_has(tmp_path: Path) -> None:
    folder = tmp_path / "toy-1.0"
    folder.mkdir()
    for name in ("toy", "toytool", "LICENSE"):
        (folder / name).write_text(name)
    mirror.tar_folder(folder, tmp_path / "toy.tar.gz")
    found = images.programs_of(tmp_path / "toy.tar.gz", ("/bin/toy", "/bin/toytool"))
    assert found == {"/bin/toy": b"toy", "/bin/toytool": b"toytool"}


@pytest.mark.parametrize(("use", "provided"), [("demo", []), ("tests", list(mirror.SUITES))])
def test_the_demo_gets_no_more_than_its_host_installs(
    cache: Path, monkeypatch: pytest.MonkeyPatch, use: str, provided: list[mirror.Suite]
) -> None:
    filled: dict[str, tuple[list[mirror.Suite], ...]] = {}
    for name in ("programs", "grafana", "faulty", "wheels", "images", "suites"):
        monkeypatch.setattr(mirror, f"fill_{name}", lambda *given, name=name, **_: filled.update({name: given}))
    monkeypatch.setattr("tests.hosts.cache.CACHE", cache)
    monkeypatch.setattr(sys, "argv", ["mirror.py", "fill", "--for", use])
    mirror.main()
    assert list(filled["suites"][0]) == provided
    assert {"programs", "grafana", "wheels"} <= set(filled)


def test_a_part_that_the_demo_is_given_comes_with_its_release(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "inventories/demo").mkdir(parents=True)
    (cache / "inventories/demo/hosts.yml").write_text("all: {children: {loki: {}, node_exporter: {}}}")
    monkeypatch.setattr(mirror, "REPO", cache)
    assert [suite.name for suite in mirror.demo_suites()] == ["node_exporter"]
