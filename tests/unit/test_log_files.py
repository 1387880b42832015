"""Logs in folders that others own: opened, shown and mounted so that their owners gain nothing by it."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.logstead.platform.plugins.module_utils import log_files
from ansible_collections.logstead.platform.plugins.modules import log_tail

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from roles.promtail.files import promtail_resume

NOBODY = 65534
IS_ROOT = os.getuid() == 0


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("name", ["open_log", "as_regex"])
def test_the_program_on_the_host_and_the_modules_do_it_alike(name: str) -> None:
    assert inspect.getsource(getattr(promtail_resume, name)) == inspect.getsource(getattr(log_files, name))


# --- Opening ----------------------------------------------------------------------------------------------------------


def test_a_file_is_opened_and_a_link_of_its_own_owner_too(folder: Path) -> None:
    (folder / "a.log").write_text("x\n")
    os.link(folder / "a.log", folder / "b.log")
    assert log_files.tail_of(folder / "b.log") == [b"x"]


@pytest.mark.parametrize("kind", ["link", "link above", "pipe", "device", "socket", "folder"])
def test_nothing_else_is_opened(folder: Path, kind: str) -> None:
    (folder / "secret").write_text("x\n")
    path = folder / "logs" / "a.log"
    path.parent.mkdir()
    if kind == "link":
        path.symlink_to(folder / "secret")
    elif kind == "link above":
        path.parent.rmdir()
        path.parent.symlink_to(folder)
        path.write_text("x\n")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        if not IS_ROOT:
            pytest.skip("only root can make a device")
        os.mknod(path, 0o20666, os.makedev(1, 5))
    elif kind == "socket":
        subprocess.run([sys.executable, "-c", f"import socket; socket.socket(1).bind('{path}')"], check=True)
    else:
        path.mkdir()
    with pytest.raises(OSError, match=r"regular file|symbolic link|No such device"):
        log_files.open_log(path)
    problem = log_files.problem_of_log(path)
    assert problem.startswith(str(folder / "logs")) or kind == "folder"


@pytest.mark.skipif(not IS_ROOT, reason="only root can give a file away")
def test_a_hard_link_to_a_file_of_another_is_not_opened(folder: Path) -> None:
    (folder / "secret").write_text("x\n")
    (folder / "logs").mkdir()
    os.link(folder / "secret", folder / "logs/a.log")
    os.chown(folder / "logs", NOBODY, NOBODY)
    with pytest.raises(OSError, match="a hard link to a file of another owner"):
        log_files.open_log(folder / "logs/a.log")


def test_no_link_to_a_folder_is_followed_to_find_logs(folder: Path) -> None:
    (folder / "logs").mkdir()
    (folder / "logs/root").symlink_to("/")
    (folder / "logs/a.log").touch()
    (folder / "logs/gone.log").symlink_to("/none")
    assert log_files.matches_of(f"{folder}/logs/**/*.log") == [folder / "logs/a.log", folder / "logs/gone.log"]
    assert log_files.matches_of(f"{folder}/logs/**/*.log", f"{folder}/logs/g*") == [folder / "logs/a.log"]
    assert log_files.matches_of(f"{folder}/logs/none.log") == []


def test_a_tail_of_a_file_with_a_hole_is_short(folder: Path) -> None:
    with (folder / "a.log").open("wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 40)
        file.write(b"\nlast\n")
    assert log_files.tail_of(folder / "a.log")[-1] == b"last"


# --- Showing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 中文\tand\nlines", "plain é 中文\tand\nlines"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b2J \x7f \r over", r"\x9b2J \x7f \r over"),
        ("\u202eback \u2066x\u2069 \u2028", r"\u202eback \u2066x\u2069 \u2028"),
        ("\udc9b", r"\udc9b"),
    ],
)
def test_no_character_does_anything_to_a_terminal(text: str, shown: str) -> None:
    assert log_files.printable(text) == shown


@pytest.mark.skipif(not IS_ROOT, reason="root has to act as another user")
def test_logs_are_shown_with_their_users_rights_only(folder: Path) -> None:
    for name in ("secret", "mine"):
        (folder / name).write_text(f"\x1b[31mthe {name}\n")
        (folder / name).chmod(0o600)
    os.chown(folder / "mine", NOBODY, NOBODY)
    (folder / "link").symlink_to(folder / "secret")
    os.link(folder / "secret", folder / "hard")
    os.mkfifo(folder / "pipe")
    names = ("secret", "mine", "link", "hard", "pipe", "none")
    text = log_tail.text_of([str(folder / name) for name in names], "nobody", 5)
    assert r"\x1b[31mthe mine" in text
    assert "the secret" not in text
    assert f"{folder}/link: a symbolic link, which is not followed" in text
    assert f"{folder}/pipe: " in text
    assert f"{folder}/none: No such file or directory" in text
    assert os.geteuid() == 0


def test_as_many_lines_are_shown_as_are_wanted(folder: Path) -> None:
    (folder / "a.log").write_text("".join(f"{number}\n" for number in range(10)))
    folder.chmod(0o755)
    (folder / "a.log").chmod(0o644)
    assert log_tail.text_of([str(folder / "a.log")], "nobody", 2) == f"==> {folder}/a.log <==\n8\n9\n"


# --- Mounting ---------------------------------------------------------------------------------------------------------

VIEW = """
import os, sys
sys.path.insert(0, {files!r})
import log_view
from pathlib import Path
log_view.VIEW = Path({view!r})
for _ in range(2):
    log_view.show([{logs!r}, "/none-of-this-name"])
seen = Path({view!r} + {logs!r})
print((seen / "a.log").read_text())
for name in ("link.log", "sub/link.log", "later.log"):
    if name == "later.log":
        os.symlink("/etc/hostname", {logs!r} + "/later.log")
    try:
        print("FOLLOWED", (seen / name).read_text())
    except OSError as error:
        print(name, error.strerror)
try:
    (seen / "new").touch()
except OSError as error:
    print(error.strerror)
log_view.hide()
print([line for line in open("/proc/self/mountinfo") if {view!r} in line])
"""


@pytest.mark.skipif(not IS_ROOT, reason="only root can mount")
def test_a_view_follows_no_link_whenever_and_wherever_below_it_is_made(folder: Path) -> None:
    logs, view = folder / "the logs", folder / "view"
    (logs / "sub").mkdir(parents=True)
    (logs / "a.log").write_text("a line")
    (logs / "link.log").symlink_to("/etc/hostname")
    program = VIEW.format(files=str(Path(promtail_resume.__file__).parent), view=str(view), logs=str(logs))
    mount = f'mount -t tmpfs none "{logs}/sub" && ln -s /etc/hostname "{logs}/sub/link.log"'
    words = ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$0" -c "$1"', sys.executable, program]
    result = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    if "unshare failed" in result.stderr:
        pytest.skip("this machine can't make mount namespaces")
    assert result.stdout.splitlines() == [
        *["/none-of-this-name isn't there: once it is, restart promtail.service, which protects it from links"] * 2,
        "a line",
        *(f"{name} Too many levels of symbolic links" for name in ("link.log", "sub/link.log", "later.log")),
        "Read-only file system",
        "[]",
    ], result.stderr
