"""The module systemd_app_release: one release below /opt, whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.logstead.platform.plugins.module_utils import systemd_app_download

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ansible_collections.logstead.platform.plugins.modules import systemd_app_release as module


def make_zip(path: Path, files: dict[str, bytes], mode: int = 0o100755) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            archive.writestr(member, content)
    return path


def make_tarball(path: Path, files: dict[str, bytes], mode: int = 0o644) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = mode
            archive.addfile(entry, io.BytesIO(content))
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def everything_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


class Host:
    """A host's /opt and cache, and the web server that it downloads from, as folders."""

    def __init__(self, folder: Path) -> None:
        self.web, self.opt, self.cache = folder / "web", folder / "opt", folder / "cache"
        self.web.mkdir()
        self.opt.mkdir()

    @property
    def home(self) -> Path:
        """Folder of the program's releases."""
        return self.opt / "toy"

    def publish(self, version: str, content: bytes | None = None) -> Path:
        """Have the web server offer a version, listed in its SHA256SUMS."""
        folder = self.web / version
        folder.mkdir(exist_ok=True)
        archive = make_zip(folder / "toy-linux-amd64.zip", {"toy-linux-amd64": content or version.encode()})
        (folder / "SHA256SUMS").write_text(f"{digest(archive)}  {archive.name}\n")
        return archive

    def parameters(self, version: str, **changed: Any) -> dict[str, Any]:
        """Return the module's parameters for a version."""
        return {
            "name": "toy",
            "version": version,
            "url": f"file://{self.web}/{version}/toy-linux-{{arch}}.zip",
            "checksum": f"file://{self.web}/{version}/SHA256SUMS",
            "keep": 1,
            "root": str(self.opt),
            "cache": str(self.cache),
            **changed,
        }

    def converge(
        self, version: str, state: str = "installed", check_mode: bool = False, **changed: Any
    ) -> dict[str, Any]:
        """Run the module's work without Ansible around it."""
        return module.converge(module.Release(self.parameters(version, **changed)), state, check_mode)

    def offline(self) -> None:
        """Take the web server away."""
        shutil.rmtree(self.web)

    def releases(self) -> set[str]:
        """Return what is beside the link."""
        return {path.name for path in self.home.iterdir()} - {"current"}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    return Host(tmp_path)


HOSTILE: dict[str, dict[str, Any]] = {
    "a link to a folder of the host": {"name": "x", "type": tarfile.SYMTYPE, "linkname": "/etc"},
    "a link out of the archive": {"name": "x/../y", "type": tarfile.SYMTYPE, "linkname": "../../../etc/passwd"},
    "a pipe": {"name": "x", "type": tarfile.FIFOTYPE},
    "a device": {"name": "x", "type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3},
    "a name above": {"name": "../../above"},
    "a file behind a link": {"name": "link/above"},
}


@pytest.mark.parametrize("entry", HOSTILE.values(), ids=HOSTILE)
def test_an_archive_that_leads_out_of_its_folder_is_refused(host: Host, tmp_path: Path, entry: dict[str, Any]) -> None:
    archive = tmp_path / "toy.tar.gz"
    with tarfile.open(archive, "w:gz") as content:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        member = tarfile.TarInfo(entry["name"])
        for name, value in entry.items():
            setattr(member, name, value)
        for each in [link, member] if entry["name"].startswith("link/") else [member]:
            content.addfile(each)
    before = everything_in(tmp_path)
    with pytest.raises(systemd_app_download.ReleaseError, match="Nothing was changed"):
        host.converge("1", url=f"file://{archive}", checksum=digest(archive))
    assert everything_in(tmp_path) - before <= {"cache", "cache/toy-1-toy.tar.gz", "opt/toy"}


def test_a_zip_keeps_to_its_folder(host: Host, tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "toy.zip", {"../../above": b"x", "/etc/logstead-test": b"x", "toy": b"x"})
    before = everything_in(tmp_path)
    host.converge("1", url=f"file://{archive}", checksum=digest(archive))
    assert all(name.startswith("opt/toy") for name in everything_in(tmp_path) - before)
    assert not Path("/etc/logstead-test").exists()


@pytest.fixture
def umask_of_a_hardened_host() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def run_main(parameters: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Run the module as Ansible does; return what it prints."""
    with patch_module_args(parameters), pytest.raises(SystemExit):
        module.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


# --- What becomes of an archive ---------------------------------------------------------------------------------------


def test_a_zip_of_one_file_becomes_an_executable_of_the_programs_name(host: Host) -> None:
    archive = host.publish("1.0")
    expected = digest(archive)
    result = host.converge("1.0")
    assert (host.home / "1.0" / "toy").read_bytes() == b"1.0"
    assert (host.home / "1.0" / "toy").stat().st_mode & 0o777 == 0o755
    assert (host.home / "current").resolve() == host.home / "1.0"
    assert result == {"changed": True, "path": str(host.home / "1.0"), "sha256": expected}


def test_the_link_is_relative_so_that_the_folder_can_be_moved(host: Host) -> None:
    host.publish("1.0")
    host.converge("1.0")
    assert str((host.home / "current").readlink()) == "1.0"


def test_a_tarball_of_one_folder_is_unpacked_without_it(host: Host, tmp_path: Path) -> None:
    files = {"toy-v1.0/bin/toy": b"elf", "toy-v1.0/conf/defaults.ini": b"x=1"}
    archive = make_tarball(host.web / "toy.tar.gz", files)
    host.converge("1.0", url=f"file://{archive}", checksum=digest(archive))
    assert (host.home / "current/bin/toy").read_bytes() == b"elf"
    assert (host.home / "current/conf/defaults.ini").read_bytes() == b"x=1"
    assert everything_in(tmp_path / "opt") >= {"toy/1.0/bin", "toy/1.0/conf"}


def test_an_archive_of_several_entries_keeps_them_and_which_of_them_is_executable(host: Host) -> None:
    archive = host.web / "several.zip"
    make_zip(archive, {"run": b"#!"}, mode=0o100700)
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr("README", "hello")
    host.converge("1.0", url=f"file://{archive}", checksum=digest(archive))
    assert (host.home / "1.0/run").stat().st_mode & 0o777 == 0o755
    assert (host.home / "1.0/README").stat().st_mode & 0o777 == 0o644


def test_an_archive_that_is_none_is_refused_and_leaves_no_release(host: Host) -> None:
    archive = host.web / "toy.zip"
    archive.write_bytes(b"<html>not found</html>")
    with pytest.raises(
        systemd_app_download.ReleaseError, match=r"toy\.zip could not be unpacked: tar: .*Nothing was changed"
    ):
        host.converge("1.0", url=f"file://{archive}", checksum=digest(archive))
    assert everything_in(host.opt) == {"toy"}


def test_every_user_can_read_a_release_that_root_unpacked_with_a_strict_umask(
    host: Host,
    umask_of_a_hardened_host: None,  # noqa: ARG001 - is in force
    capsys: pytest.CaptureFixture[str],
) -> None:
    archive = make_tarball(host.web / "toy.tar.gz", {"toy-1.0/bin/toy": b"elf"}, mode=0o755)
    for version, url in (("1.0", archive), ("1.1", host.publish("1.1"))):
        result = run_main(host.parameters(version, url=f"file://{url}", checksum=digest(url)), capsys)
        assert result["changed"], result
    for path in (host.home, *host.home.rglob("*")):
        if not path.is_symlink():
            assert path.stat().st_mode & 0o055 == (0o055 if path.is_dir() or path.name == "toy" else 0o044), path


# --- Checksums --------------------------------------------------------------------------------------------------------

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "listing",
    [
        f"{DIGEST}  toy.zip\n",
        f"{DIGEST} *toy.zip\n",
        f"{DIGEST}\ttoy.zip\n",
        f"{DIGEST}  ./toy.zip\n",
        f"{DIGEST}\n",
        f"  {DIGEST.upper()}  TOY.zip\r\n",
        f"{'f' * 64}  other.zip\n{DIGEST}  toy.zip\n{'e' * 64}  toy.zip.sbom\n",
        f"-----BEGIN PGP SIGNED MESSAGE-----\n\n{DIGEST}  toy.zip\n",
    ],
)
def test_a_checksum_is_found_however_it_is_listed(listing: str) -> None:
    assert systemd_app_download.listed_checksum(listing, "toy.zip", "https://x/SHA256SUMS") == DIGEST


@pytest.mark.parametrize(
    "listing", ["", f"{DIGEST}  nottoy.zip\n", f"{DIGEST[:-1]}  toy.zip\n", "<html>toy.zip</html>"]
)
def test_a_checksum_that_is_not_listed_is_no_checksum(listing: str) -> None:
    with pytest.raises(
        systemd_app_download.ReleaseError, match=r"https://x/SHA256SUMS lists no checksum for toy\.zip .*pin"
    ):
        systemd_app_download.listed_checksum(listing, "toy.zip", "https://x/SHA256SUMS")


def test_the_message_names_what_is_listed_instead_and_no_page_of_html() -> None:
    with pytest.raises(systemd_app_download.ReleaseError, match=r"it lists: Other\.zip\)"):
        systemd_app_download.listed_checksum(
            f"<html>some words</html>\n{DIGEST}  Other.zip", "toy.zip", "https://x/SHA256SUMS"
        )


@pytest.mark.parametrize("pinned", [DIGEST, DIGEST.upper(), f"sha256:{DIGEST}", f" {DIGEST}\n"])
def test_a_pinned_checksum_is_taken_as_it_is_usually_written(pinned: str) -> None:
    assert systemd_app_download.expected_checksum(pinned, "toy.zip") == DIGEST


@pytest.mark.parametrize("checksum", ["", "abc", "md5:" + "a" * 32, DIGEST + "0", "/etc/passwd"])
def test_what_is_no_checksum_is_refused(checksum: str) -> None:
    with pytest.raises(systemd_app_download.ReleaseError, match="neither 64 hex digits nor the address"):
        systemd_app_download.expected_checksum(checksum, "toy.zip")


def test_a_wrong_checksum_leaves_nothing_behind_at_all(host: Host, tmp_path: Path) -> None:
    host.publish("1.0")
    (host.web / "1.0/SHA256SUMS").write_text(f"{DIGEST}  toy-linux-amd64.zip\n")
    before = everything_in(tmp_path)
    with pytest.raises(systemd_app_download.ReleaseError, match=rf"but {DIGEST} is expected.*Nothing was changed"):
        host.converge("1.0")
    assert everything_in(tmp_path) == before


def test_a_wrong_checksum_leaves_the_running_release_alone(host: Host) -> None:
    host.publish("1.0")
    host.converge("1.0")
    host.publish("1.1")
    before = everything_in(host.opt)
    with pytest.raises(systemd_app_download.ReleaseError):
        host.converge("1.1", checksum=DIGEST)
    assert everything_in(host.opt) == before
    assert (host.home / "current/toy").read_bytes() == b"1.0"


def test_a_changed_pin_of_an_installed_release_is_noticed(host: Host) -> None:
    first = digest(host.publish("1.0"))
    host.converge("1.0", checksum=first)
    assert host.converge("1.0", checksum=first.upper())["changed"] is False
    second = digest(host.publish("1.0", b"rebuilt"))
    assert host.converge("1.0", checksum=second)["changed"] is True
    assert (host.home / "current/toy").read_bytes() == b"rebuilt"
    assert host.releases() == {"1.0"}


def test_a_release_that_is_unpacked_again_gets_a_new_link_so_that_the_service_is_restarted(host: Host) -> None:
    host.converge("1.0", checksum=digest(host.publish("1.0")))
    before = (host.home / "current").lstat().st_ino, (host.home / "current").lstat().st_ctime_ns
    checksum = digest(host.publish("1.0", b"rebuilt"))
    host.converge("1.0", checksum=checksum)
    after = (host.home / "current").lstat()
    assert (after.st_ino, after.st_ctime_ns) != before
    # The same, where the run was interrupted between unpacking and the link.
    os.utime(host.home / "current", ns=(1, 1), follow_symlinks=False)
    assert host.converge("1.0", checksum=checksum)["changed"] is True
    assert host.converge("1.0", checksum=checksum)["changed"] is False


# --- Again, back and forth --------------------------------------------------------------------------------------------


def test_a_second_run_changes_nothing_and_needs_no_network(host: Host) -> None:
    host.publish("1.0")
    host.converge("1.0")
    host.offline()
    assert host.converge("1.0")["changed"] is False


@pytest.mark.parametrize(("keep", "kept"), [(0, {"4"}), (1, {"3", "4"}), (2, {"2", "3", "4"})])
def test_an_upgrade_keeps_as_many_earlier_releases_as_asked(host: Host, keep: int, kept: set[str]) -> None:
    for version in ("1", "2", "3", "4"):
        host.publish(version)
        host.converge(version, keep=keep)
    assert host.releases() == kept


def test_folders_that_are_no_releases_are_left_alone_by_an_upgrade(host: Host) -> None:
    (host.home / "plugins").mkdir(parents=True)
    for version in ("1", "2"):
        host.publish(version)
        host.converge(version, keep=0)
    assert host.releases() == {"2", "plugins"}


def test_a_rollback_downloads_nothing(host: Host) -> None:
    for version in ("1.0", "1.1"):
        host.publish(version)
        host.converge(version)
    host.offline()
    assert host.converge("1.0")["changed"] is True
    assert (host.home / "current/toy").read_bytes() == b"1.0"
    assert host.releases() == {"1.0", "1.1"}


def test_after_a_rollback_the_release_that_ran_is_the_one_that_is_kept(host: Host) -> None:
    for version in ("1.0", "1.1-bad"):
        host.publish(version)
        host.converge(version)
    host.converge("1.0")
    host.publish("1.2")
    host.converge("1.2")
    assert host.releases() == {"1.0", "1.2"}


def test_what_an_interrupted_run_left_is_cleared(host: Host) -> None:
    host.publish("1.0")
    (host.home / ".unpack-killed" / "toy").mkdir(parents=True)
    (host.home / ".current-new").symlink_to("0.9")
    (host.cache / ".download-toy-1.0-toy-linux-amd64.zip-killed").mkdir(parents=True)
    host.converge("1.0")
    assert everything_in(host.opt) == {"toy", "toy/1.0", "toy/1.0/toy", "toy/1.0/.sha256", "toy/current"}
    assert not host.cache.exists()


def test_a_folder_without_its_origin_is_no_release_and_is_replaced(host: Host) -> None:
    host.publish("1.0")
    (host.home / "1.0").mkdir(parents=True)
    (host.home / "1.0/half").touch()
    host.converge("1.0")
    assert {path.name for path in (host.home / "1.0").iterdir()} == {"toy", ".sha256"}


# --- Fetched, and check mode ------------------------------------------------------------------------------------------


def test_fetched_downloads_and_verifies_but_does_not_unpack(host: Host) -> None:
    archive = host.publish("1.0")
    assert host.converge("1.0", "fetched")["changed"] is True
    assert [digest(path) for path in host.cache.iterdir()] == [digest(archive)]
    assert everything_in(host.opt) == set()
    assert host.converge("1.0", "fetched")["changed"] is False


def test_a_fetched_archive_is_used_and_then_removed(host: Host) -> None:
    pin = digest(host.publish("1.0"))
    host.converge("1.0", "fetched", checksum=pin)
    host.offline()
    assert host.converge("1.0", checksum=pin)["changed"] is True
    assert not host.cache.exists()
    assert host.converge("1.0", "fetched", checksum=pin)["changed"] is False


def test_a_damaged_archive_in_the_cache_is_fetched_again(host: Host) -> None:
    archive = host.publish("1.0")
    host.converge("1.0", "fetched")
    (stored,) = host.cache.iterdir()
    stored.write_bytes(b"damaged")
    assert host.converge("1.0", "fetched")["changed"] is True
    assert digest(stored) == digest(archive)


def test_archives_of_other_programs_stay_in_the_cache(host: Host) -> None:
    host.cache.mkdir()
    (host.cache / "other-1.0-other.zip").touch()
    host.publish("1.0")
    host.converge("1.0")
    assert everything_in(host.cache) == {"other-1.0-other.zip"}


@pytest.mark.parametrize("state", ["fetched", "installed"])
def test_check_mode_tells_the_truth_and_changes_nothing(host: Host, tmp_path: Path, state: str) -> None:
    host.publish("1.0")
    before = everything_in(tmp_path)
    assert host.converge("1.0", state, check_mode=True)["changed"] is True
    assert everything_in(tmp_path) == before
    host.converge("1.0", state)
    assert host.converge("1.0", state, check_mode=True)["changed"] is False


def test_check_mode_tells_of_a_coming_rollback_without_carrying_it_out(host: Host) -> None:
    for version in ("1.0", "1.1"):
        host.publish(version)
        host.converge(version)
    assert host.converge("1.0", check_mode=True)["changed"] is True
    assert (host.home / "current/toy").read_bytes() == b"1.1"


@pytest.mark.parametrize("state", ["fetched", "installed"])
def test_check_mode_notices_a_missing_archive(host: Host, state: str) -> None:
    host.publish("1.0").unlink()
    with pytest.raises(
        systemd_app_download.ReleaseError, match=r"toy-linux-amd64\.zip can't be reached.*platform_mirror_url"
    ):
        host.converge("1.0", state, check_mode=True)


def test_check_mode_notices_an_unlisted_archive(host: Host) -> None:
    host.publish("1.0")
    (host.web / "1.0/SHA256SUMS").write_text("")
    with pytest.raises(systemd_app_download.ReleaseError, match="lists no checksum"):
        host.converge("1.0", check_mode=True)


# --- What goes wrong --------------------------------------------------------------------------------------------------


def test_a_disk_that_fills_during_the_download_is_told_of_and_leaves_nothing(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.publish("1.0")
    before = everything_in(tmp_path)
    monkeypatch.setattr("shutil.copyfileobj", full_disk)
    with pytest.raises(
        systemd_app_download.ReleaseError, match=r"could not be stored in .*No space left.*Nothing was changed"
    ):
        host.converge("1.0")
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize("where", ["unpack", "tempfile.mkdtemp"])
def test_a_disk_that_fills_during_unpacking_is_told_of_and_leaves_the_old_release(
    host: Host, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    host.publish("1.0")
    host.converge("1.0")
    host.publish("1.1")
    host.converge("1.1", "fetched")
    before = everything_in(host.opt)
    monkeypatch.setattr(f"{module.__name__}.{where}", full_disk)
    with pytest.raises(
        systemd_app_download.ReleaseError, match=r"could not be unpacked: .*No space left.*Nothing was changed"
    ):
        host.converge("1.1")
    assert everything_in(host.opt) == before


def test_what_tar_says_is_passed_on(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.publish("1.0")

    def failing(*_: Any) -> None:
        raise subprocess.CalledProcessError(2, ["tar"], stderr=b"tar: Unexpected EOF in archive")

    monkeypatch.setattr(module, "unpack", failing)
    with pytest.raises(systemd_app_download.ReleaseError, match="Unexpected EOF in archive"):
        host.converge("1.0")


@pytest.mark.parametrize(("machine", "architecture"), [("x86_64", "amd64"), ("aarch64", "arm64")])
def test_the_hosts_architecture_goes_into_the_address_and_the_checksum(
    host: Host, monkeypatch: pytest.MonkeyPatch, machine: str, architecture: str
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    release = module.Release(host.parameters("1.0", checksum="https://x/{arch}.sha256"))
    assert release.filename == f"toy-linux-{architecture}.zip"
    assert release.checksum == f"https://x/{architecture}.sha256"


def test_the_module_fails_with_one_sentence_for_an_architecture_without_releases(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    result = run_main(host.parameters("1.0"), capsys)
    assert result["failed"] is True
    assert result["msg"] == "toy 1.0: there are no releases for riscv64, only for x86_64, aarch64."


def test_the_module_fails_with_one_sentence_where_nothing_can_be_written(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host.publish("1.0")
    monkeypatch.setattr(module.Release, "switch", full_disk)
    result = run_main(host.parameters("1.0"), capsys)
    assert result["failed"] is True
    assert result["msg"] == "toy 1.0 could not be put in place: [Errno 28] No space left on device"
