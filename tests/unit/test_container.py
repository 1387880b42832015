"""The runtime podman: the unit that runs a container, the images, and the way from one runtime to the other."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible.module_utils.testing import patch_module_args
from ansible_collections.logstead.platform.plugins.module_utils import systemd_app_files, systemd_app_unit
from ansible_collections.logstead.platform.plugins.module_utils.systemd_app_container import command_in
from fake_podman import Podman
from fake_systemd import Systemd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ansible_collections.logstead.platform.plugins.filter.container import container_once, container_unit
from ansible_collections.logstead.platform.plugins.filter.scrape_configs import file_scrape_configs, log_folders
from ansible_collections.logstead.platform.plugins.modules import systemd_app, systemd_app_facts, systemd_app_image

from tests.mirror.images import layer_of_files, write_archive

IMAGE = "docker.io/toys/toy:1.0"
UNIT: dict[str, dict[str, Any]] = {
    "Unit": {"Description": "A toy"},
    "Service": {
        "Type": "exec",
        "ExecStart": "/bin/toy",
        "User": "toy",
        "Group": "toy",
        "UMask": "0027",
        "WorkingDirectory": "/var/lib/toy",
        "StateDirectory": "toy",
        "StateDirectoryMode": "0750",
        "ProtectSystem": "strict",
        "PrivateTmp": True,
        "DevicePolicy": "closed",
        "RestrictNamespaces": True,
        "SystemCallFilter": ["@system-service"],
        "CapabilityBoundingSet": "",
        "MemoryMax": "50%",
        "LimitNOFILE": 65536,
        "Restart": "always",
        "RestartSec": 2,
        "TimeoutStopSec": 120,
    },
}


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Podman:
    folder = tmp_path / "podman-bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return Podman(folder)


def service_of(container: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    """Return the section [Service] of the container's unit."""
    unit = {**UNIT, "Service": {**UNIT["Service"], **settings}}
    made = container_unit(unit, "toy", "toy", "/bin/toy --port 1", {"image": IMAGE, **(container or {})})
    assert made["Unit"] == UNIT["Unit"]
    return made["Service"]


def words_of(service: dict[str, Any]) -> list[str]:
    return str(service["ExecStart"]).replace("\\\n", " ").split()


# --- The unit ---------------------------------------------------------------------------------------------------------


def test_limits_and_restarts_stay_with_systemd_and_what_would_shut_podman_off_goes() -> None:
    service = service_of()
    kept = ("Type", "MemoryMax", "LimitNOFILE", "Restart", "RestartSec", "TimeoutStopSec")
    assert {name: service[name] for name in kept} == {name: UNIT["Service"][name] for name in kept}
    added = {"TasksMax", "NotifyAccess", "Delegate", "KillMode", "ExecStart", "ExecStopPost"}
    assert set(service) == {*kept, *added}


def test_the_container_can_do_no_more_than_it_must() -> None:
    words = words_of(service_of())
    assert {"--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--pids-limit=2048"} <= set(words)
    assert {"--user=toy", "--umask=0027", "--pull=never"} <= set(words)
    assert not [word for word in words if word.startswith(("--privileged", "--cap-add"))]


def test_the_program_gets_its_arguments_and_the_image_comes_before_them() -> None:
    words = words_of(service_of())
    assert words[-4:] == ["--entrypoint=/bin/toy", IMAGE, "--port", "1"]
    assert words[:3] == ["/usr/bin/podman", "run", "--name=toy"]


def test_a_launcher_gets_podman_appended() -> None:
    words = words_of(service_of({"launcher": "/usr/bin/python3 /opt/toy/launch.py"}))
    assert words[:4] == ["/usr/bin/python3", "/opt/toy/launch.py", "/usr/bin/podman", "run"]


def test_only_the_folders_of_the_program_are_in_the_container() -> None:
    words = words_of(
        service_of({"reads": ["/var/log"]}, ReadWritePaths="/var/log/toy -/srv/toy", ReadOnlyPaths="/srv/a")
    )
    assert [word.removeprefix("--volume=") for word in words if word.startswith("--volume")] == [
        "/etc/passwd:/etc/passwd:ro",
        "/etc/group:/etc/group:ro",
        "/etc/toy:/etc/toy:ro",
        "/srv/a:/srv/a:ro",
        "/var/log:/var/log:ro,rslave",
        "/var/lib/toy:/var/lib/toy",
        "/var/log/toy:/var/log/toy",
        "/srv/toy:/srv/toy",
    ]


def test_groups_are_left_to_the_module_that_knows_their_numbers() -> None:
    words = words_of(service_of(SupplementaryGroups="adm systemd-journal"))
    assert [word for word in words if "group-add" in word] == [
        "--group-add={gid:adm}",
        "--group-add={gid:systemd-journal}",
    ]


@pytest.mark.parametrize("setting", [{"EnvironmentFile": "/etc/toy/toy.env"}, {"Environment": ["A=secret"]}])
def test_an_environment_reaches_the_program_without_being_in_the_command_line(setting: dict[str, Any]) -> None:
    service = service_of(**setting)
    assert setting.items() <= service.items()
    assert "--env-host" in words_of(service)
    assert "secret" not in service["ExecStart"]
    assert "--env-host" not in words_of(service_of())


@pytest.mark.parametrize(
    ("image", "user", "words"), [("", "toy", "needs an image"), (IMAGE, "root", "a user of its own")]
)
def test_a_container_without_an_image_or_as_root_is_refused(image: str, user: str, words: str) -> None:
    with pytest.raises(AnsibleFilterError, match=words):
        container_unit(UNIT, "toy", user, "/bin/toy", {"image": image})


def test_a_command_run_once_is_shut_off_as_well() -> None:
    words = container_once(IMAGE, "toy", "/bin/other", "/tmp/x")
    assert {"--read-only", "--cap-drop=all", "--user=toy", "--rm", "--interactive", "--volume=/tmp/x:/tmp/x"} <= set(
        words
    )
    assert words[-2:] == ["--entrypoint=/bin/other", IMAGE]


def test_a_check_sees_nothing_but_the_folders_that_are_there(tmp_path: Path) -> None:
    words = command_in(IMAGE, "/bin/toy --check %s", tmp_path, tmp_path / "none")
    assert [word for word in words if word.startswith("--volume")] == [f"--volume={tmp_path}:{tmp_path}:ro"]
    assert words[-4:] == ["--entrypoint=/bin/toy", IMAGE, "--check", "%s"]
    assert "--cap-drop=all" in words


def test_a_collector_gets_folders_that_every_host_has() -> None:
    paths = ("/var/log/app/*.log", "/srv/app/log/x.log", "/var/lib/app/a.log", "/opt/x/*.log")
    entries = [{"job": "app", "path": path} for path in paths]
    assert log_folders({"scrape_configs": file_scrape_configs(entries)}) == ["/opt", "/srv", "/var/lib", "/var/log"]
    assert log_folders({}) == []
    deeper = [{"job": "app", "path": path} for path in (*paths, "/srv/*/x.log", "/x.log")]
    assert log_folders({"scrape_configs": file_scrape_configs(deeper)}, 2) == [
        *("/opt/x", "/srv", "/srv/app", "/var/lib", "/var/log")
    ]


def test_what_a_part_does_when_it_stops_is_kept_beside_a_container() -> None:
    unit = {**UNIT, "Service": {**UNIT["Service"], "ExecStopPost": "/bin/mine"}}
    stops = container_unit(unit, "toy", "toy", "/bin/toy", {"image": IMAGE})["Service"]["ExecStopPost"]
    assert stops == ["/bin/mine", "-/usr/bin/podman rm --force --ignore toy"]


# --- Images -----------------------------------------------------------------------------------------------------------


class Images:
    """The module systemd_app_image, with folders for a host and for a mirror."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.opt, self.web, self.cache = folder / "opt", folder / "web", folder / "cache"
        self.capsys = capsys

    def run(self, image: str | None = IMAGE, **parameters: Any) -> dict[str, Any]:
        """Run the module as Ansible does, and return its result."""
        given = {"name": "toy", "root": str(self.opt), "cache": str(self.cache), **parameters}
        with patch_module_args({**given, **({"image": image} if image else {})}), pytest.raises(SystemExit):
            systemd_app_image.main()
        result: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        return result

    def publish(self, image: str, path: str) -> str:
        """Publish an archive that holds an image, and return the mirror's address."""
        archive = self.web / "images" / path
        archive.parent.mkdir(parents=True, exist_ok=True)
        archive.write_text(image)
        Path(f"{archive}.sha256").write_text(hashlib.sha256(image.encode()).hexdigest())
        return f"file://{self.web}"

    def record(self) -> list[str]:
        """Return the images that the program has, by its record."""
        return (self.opt / "toy/images").read_text().split()


@pytest.fixture
def images(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Images:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    return Images(tmp_path, capsys)


def test_an_image_is_pulled_once_and_remembered(podman: Podman, images: Images) -> None:
    assert images.run()["changed"]
    assert podman.images() == {IMAGE}
    assert images.record() == [IMAGE]
    assert not images.run()["changed"]
    assert len([line for line in podman.asked() if line.startswith("pull")]) == 1


def test_an_image_is_loaded_from_a_mirror(podman: Podman, images: Images) -> None:
    mirror = images.publish(IMAGE, "docker.io/toys/toy/1.0-amd64.tar")
    assert images.run(mirror=mirror)["changed"]
    assert podman.images() == {IMAGE}
    assert not images.cache.exists(), "the archive is not needed any more"


def test_an_archive_that_holds_another_image_is_refused_and_goes(podman: Podman, images: Images) -> None:
    mirror = images.publish("docker.io/toys/other:1.0", "docker.io/toys/toy/1.0-amd64.tar")
    result = images.run(mirror=mirror)
    assert result["failed"]
    assert "holds docker.io/toys/other:1.0, and not docker.io/toys/toy:1.0. Nothing was changed" in result["msg"]
    assert podman.images() == set()


def test_an_archive_with_another_digest_is_not_even_loaded(podman: Podman, images: Images, tmp_path: Path) -> None:
    layer = layer_of_files({"/bin/toy": b"program"})
    write_archive(IMAGE, [layer], {}, "amd64", tmp_path / "toy.tar")
    mirror = images.publish((tmp_path / "toy.tar").read_text(), "docker.io/toys/toy/1.0-amd64.tar")
    digest = systemd_app_image.digest_in(tmp_path / "toy.tar")
    result = images.run(f"{IMAGE}@sha256:{'0' * 64}", mirror=mirror)
    assert f"holds an image with the digest sha256:{digest}, and not {IMAGE}@sha256:000" in result["msg"]
    assert not [line for line in podman.asked() if line.startswith("load")]


def test_an_archive_with_another_checksum_is_not_loaded(podman: Podman, images: Images) -> None:
    mirror = images.publish(IMAGE, "docker.io/toys/toy/1.0-amd64.tar")
    (images.web / "images/docker.io/toys/toy/1.0-amd64.tar").write_text("damaged")
    assert "is expected" in images.run(mirror=mirror)["msg"]
    assert podman.images() == set()


def test_a_pull_that_fails_says_why_and_what_to_do(podman: Podman, images: Images) -> None:
    podman.refuses_to_pull("pinging container registry docker.io: no such host")
    result = images.run()
    assert result["failed"]
    assert f"{IMAGE} can't be pulled: pinging container registry docker.io: no such host" in result["msg"]
    assert "platform_image_registry" in result["msg"]
    assert not (images.opt / "toy").exists()


@pytest.mark.parametrize(
    ("image", "path"),
    [
        ("reg.example.org:5000/a/b:1.0", "reg.example.org:5000/a/b/1.0-amd64.tar"),
        (f"docker.io/a/b:1.0@sha256:{'a' * 64}", "docker.io/a/b/1.0-amd64.tar"),
        (f"docker.io/a/b@sha256:{'a' * 64}", f"docker.io/a/b/{'a' * 64}-amd64.tar"),
    ],
)
@pytest.mark.usefixtures("images")
def test_the_path_of_an_archive_follows_from_the_name(image: str, path: str) -> None:
    assert systemd_app_image.archive_url(image, "http://mirror") == f"http://mirror/images/{path}"


@pytest.mark.parametrize("image", ["docker.io/a/b", "docker.io/a/b@sha256:1234", "a b:1"])
@pytest.mark.usefixtures("podman")
def test_a_name_without_a_version_is_refused(images: Images, image: str) -> None:
    assert "has a tag or a digest" in images.run(image, mirror="http://127.0.0.1:9")["msg"]


def test_one_earlier_image_stays_and_what_a_container_uses_does_too(podman: Podman, images: Images) -> None:
    names = [f"docker.io/toys/toy:{version}.0" for version in (1, 2, 3, 4)]
    for name in names[:3]:
        images.run(name)
    assert podman.images() == set(names[1:3])
    podman.uses(names[1])
    images.run(names[3])
    assert images.record() == [names[3], names[2], names[1]]
    assert podman.images() == set(names[1:])


def test_removal_takes_the_container_and_our_images_only(podman: Podman, images: Images) -> None:
    podman.has("docker.io/others/app:1")
    images.run()
    assert images.run(None, state="absent")["changed"]
    assert podman.images() == {"docker.io/others/app:1"}
    assert "rm --force --ignore toy" in podman.asked()
    assert not images.run(None, state="absent")["changed"]


def test_a_check_run_changes_nothing(podman: Podman, images: Images) -> None:
    mirror = images.publish(IMAGE, "docker.io/toys/toy/1.0-amd64.tar")
    assert images.run(mirror=mirror, _ansible_check_mode=True)["changed"]
    assert images.run(_ansible_check_mode=True)["changed"]
    assert podman.images() == set()
    assert not images.opt.exists()


def test_the_facts_tell_which_image_runs_while_it_is_there(podman: Podman, images: Images) -> None:
    images.run()
    assert systemd_app_facts.facts_of(images.opt)["systemd_app_releases"] == {"toy": {"image": IMAGE}}
    (podman.folder / "images" / IMAGE.replace("/", "+")).unlink()
    assert systemd_app_facts.facts_of(images.opt)["systemd_app_releases"] == {}


# --- Back to what ran before, and from one runtime to the other -------------------------------------------------------


@pytest.mark.parametrize(("unit", "refused"), [("another image", True), ("the same", False)])
def test_settings_that_another_image_refuses_are_refused_though_they_have_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, podman: Podman, unit: str, refused: bool
) -> None:
    podman.has(IMAGE)
    (podman.folder / "podman").write_text('#!/bin/sh\n[ "$1" != run ]\n')
    monkeypatch.setattr(systemd_app_files, "UNIT_FOLDER", tmp_path)
    texts = {"toy.service": "the same", "etc/toy.conf": "text"}
    (tmp_path / "etc").mkdir()
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o644)
    common = {
        "secret": None,
        "mode": "0644",
        "owner": "root",
        "group": "root",
        "apply": None,
        "on_change": "restart",
        "read_by": None,
    }
    files = [
        systemd_app_files.File.from_parameters(
            {**common, "path": str(tmp_path / name), "content": text, "validate": check}, "toy.service"
        )
        for name, text, check in (("etc/toy.conf", "text", ["/bin/toy --check %s"]), ("toy.service", unit, []))
    ]
    if refused:
        with pytest.raises(systemd_app_files.FilesError, match="was refused by `/bin/toy --check"):
            systemd_app_files.put_in_place(files, [], "toy.service", check_mode=False, image=IMAGE)
    else:
        systemd_app_files.put_in_place(files, [], "toy.service", check_mode=False, image=IMAGE)
    assert {name: (tmp_path / name).read_text() for name in texts} == texts


class Toy:
    """The module systemd_app for a toy, whose service never gets ready with the text `bad`."""

    def __init__(self, folder: Path, systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings, self.opt, self.systemd = folder / "etc/toy.conf", folder / "opt", systemd
        (self.opt / "toy").mkdir(parents=True)
        monkeypatch.setattr(systemd_app, "wait_until_ready", self.wait)

    def wait(self, unit: str, *_: Any) -> None:
        """Do what the real one does."""
        if "bad" in self.settings.read_text() or (self.opt / "toy/current/bad").exists():
            raise systemd_app_unit.UnitError(f"{unit} is not ready.")

    def release(self, version: str) -> None:
        """Make a release the current one, as the module systemd_app_release does."""
        (self.opt / "toy" / version).mkdir(exist_ok=True)
        link = self.opt / "toy/current"
        link.unlink(missing_ok=True)
        link.symlink_to(version)

    def converge(self, text: str, image: str | None = None) -> dict[str, Any]:
        """Have a text in place and the service ready."""
        file: dict[str, Any] = {"path": str(self.settings), "content": text, "secret": None, "mode": "0640"}
        file |= {
            "owner": "root",
            "group": "root",
            "validate": [],
            "apply": None,
            "on_change": "restart",
            "read_by": None,
        }
        ready: dict[str, Any] = {
            "ready_url": "http://x",
            "ready_body": "x",
            "ready_timeout": 1,
            "ready_ca": None,
            "reload_check": None,
        }
        given = {
            "unit": "toy.service",
            "files": [file],
            "absent": [],
            "reads": [],
            "image": image,
            "root": str(self.opt),
        }
        return systemd_app.converge({**given, **ready}, check_mode=False)


@pytest.fixture
def toy(tmp_path: Path, systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> Toy:
    return Toy(tmp_path, systemd, monkeypatch)


def test_settings_with_which_a_service_does_not_get_ready_are_taken_back(toy: Toy) -> None:
    toy.converge("good")
    with pytest.raises(
        systemd_app_unit.UnitError, match=r"is not ready\.\nWhat ran before was put back and runs again"
    ):
        toy.converge("bad")
    assert toy.settings.read_text() == "good"
    assert toy.systemd.asked()[-1] == "restart toy.service"


def test_a_release_with_which_a_service_does_not_get_ready_is_taken_back(toy: Toy) -> None:
    toy.release("1.0")
    toy.converge("good")
    toy.release("2.0")
    (toy.opt / "toy/2.0/bad").touch()
    with pytest.raises(systemd_app_unit.UnitError, match="runs again"):
        toy.converge("good")
    assert os.readlink(toy.opt / "toy/current") == "1.0"
    toy.release("2.0")
    (toy.opt / "toy/2.0/bad").unlink()
    toy.converge("good")
    assert os.readlink(toy.opt / "toy/current") == "2.0"


def test_a_first_installation_that_fails_leaves_what_there_is_to_look_at(toy: Toy, systemd: Systemd) -> None:
    systemd.has(ActiveState="inactive")
    with pytest.raises(systemd_app_unit.UnitError) as error:
        toy.converge("bad")
    assert "put back" not in str(error.value)
    assert toy.settings.read_text() == "bad"


def test_a_change_to_podman_removes_the_releases_and_keeps_the_other_files(toy: Toy, systemd: Systemd) -> None:
    toy.release("1.0")
    toy.converge("good")
    (toy.opt / "toy/launch.py").touch()
    assert toy.converge("good", IMAGE)["actions"] == ["stop", "restart", "clean"]
    assert "stop toy.service" in systemd.asked(), "it stops as the old unit says"
    assert [path.name for path in (toy.opt / "toy").iterdir()] == ["launch.py"]
    assert toy.converge("good", IMAGE)["actions"] == []


def test_a_change_from_podman_removes_the_container_and_its_images(toy: Toy, podman: Podman) -> None:
    podman.has(IMAGE)
    (toy.opt / "toy/images").write_text(f"{IMAGE}\n")
    toy.release("1.0")
    assert toy.converge("good")["actions"] == ["stop", "restart", "clean"]
    assert podman.images() == set()
    assert not (toy.opt / "toy/images").exists()
    assert toy.converge("good")["actions"] == []


def test_a_change_of_the_runtime_that_fails_leaves_the_old_one(toy: Toy, podman: Podman) -> None:
    toy.release("1.0")
    toy.converge("good")
    with pytest.raises(systemd_app_unit.UnitError, match="runs again"):
        toy.converge("bad", IMAGE)
    assert os.readlink(toy.opt / "toy/current") == "1.0"
    assert podman.images() == set()
