"""Jinja filters that turn the unit of a program into the unit of its container, and make command lines of podman."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

Unit = dict[str, dict[str, Any]]

# How settings begin by which systemd shuts a process off, names its user or opens folders to it.
# The process would be podman, which needs all of that to make the container; the container has its own means.
CONTAINERS_OWN = (
    "AmbientCapabilities",
    "CapabilityBoundingSet",
    "Device",
    "DynamicUser",
    "Group",
    "InaccessiblePaths",
    "LockPersonality",
    "MemoryDenyWriteExecute",
    "NoNewPrivileges",
    "Private",
    "ProcSubset",
    "Protect",
    "ReadOnlyPaths",
    "ReadWritePaths",
    "RemoveIPC",
    "Restrict",
    "StateDirectory",
    "SupplementaryGroups",
    "SystemCall",
    "UMask",
    "User",
    "WorkingDirectory",
)
MOST_TASKS = 2048
SANDBOX = (
    "--read-only",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    # Relabelling a host's own logs, or a large store at each start, would do more harm than it prevents.
    "--security-opt=label=disable",
    f"--pids-limit={MOST_TASKS}",
)


def lines_of(service: Mapping[str, Any], name: str) -> list[str]:
    """Return the lines of a setting, which is a text, or a list of texts."""
    value = service.get(name) or []
    return [value] if isinstance(value, str) else list(value)


def words_of(service: Mapping[str, Any], name: str) -> list[str]:
    """Return the words of a setting, which is a text, or a list of texts."""
    return [word for text in lines_of(service, name) for word in str(text).split()]


def identity(user: str, groups: list[str]) -> list[str]:
    """Return the arguments by which a container runs as a user of the host; names mean what they mean there."""
    return [
        *(f"--user={user}", "--volume=/etc/passwd:/etc/passwd:ro", "--volume=/etc/group:/etc/group:ro"),
        # podman 4 looks for these names in the image; the module that writes the unit puts the number there.
        *(f"--group-add={{gid:{group}}}" for group in groups),
    ]


def container_once(image: str, name: str, program: str, *folders: str) -> list[str]:
    """Return the command line that runs another program of a part's image once, beside its container or without one.

    It is the part's user, and has its settings, its data and the standard input. `folders` can be written to as well.
    The program's arguments are to be appended.
    """
    writes = [f"--volume={path}:{path}" for path in (f"/var/lib/{name}", *folders)]
    return [
        *(
            "/usr/bin/podman",
            "run",
            "--rm",
            "--interactive",
            "--pull=never",
            "--log-driver=none",
            "--image-volume=ignore",
            "--env=TZ",
        ),
        *(*identity(name, []), *SANDBOX, "--network=host", f"--volume=/etc/{name}:/etc/{name}:ro", *writes),
        *(f"--entrypoint={program}", image),
    ]


def container_unit(
    unit: Mapping[str, Mapping[str, Any]], name: str, user: str, command: str, container: Mapping[str, Any]
) -> Unit:
    """Return the unit that has podman run `command` as `user` in a container called `name`.

    Limits, restarts and time-outs stay with systemd: the container's processes are in the unit's own control group.
    Users, groups and folders are those of the host. `container` is what the role's variable of that name holds.

    Raises:
        AnsibleFilterError: There is no image, or the container would run as root.
    """
    if not container.get("image"):
        raise AnsibleFilterError(f"{name}: the runtime podman needs an image")
    if user == "root":
        raise AnsibleFilterError(f"{name}: a container has a user of its own; root is none")
    service = unit["Service"]
    writes = [f"/var/lib/{name}", *(path.lstrip("+-") for path in words_of(service, "ReadWritePaths"))]
    reads = [f"/etc/{name}", *(path.lstrip("+-") for path in words_of(service, "ReadOnlyPaths"))]
    program, *arguments = command.split()
    words = [
        *str(container.get("launcher") or "").split(),
        *("/usr/bin/podman", "run", f"--name={name}", "--replace", "--rm", "--pull=never", "--detach"),
        # The main process is conmon, which lives and ends as the container does. What the container writes goes to the
        # journal as the unit's own.
        *("--sdnotify=conmon", "--cgroups=split", "--log-driver=passthrough"),
        *("--no-healthcheck", "--image-volume=ignore"),
        *identity(user, words_of(service, "SupplementaryGroups")),
        *SANDBOX,
        *("--network=host", "--ulimit=host", f"--umask={service['UMask']}", f"--workdir={service['WorkingDirectory']}"),
        *(["--env-host"] if "Environment" in service or "EnvironmentFile" in service else []),
        *(f"--volume={path}:{path}:ro" for path in reads),
        # What is mounted there later is seen, too.
        *(f"--volume={path}:{path}:ro,rslave" for path in container.get("reads") or []),
        *(f"--volume={path}:{path}" for path in writes),
        *(container.get("arguments") or []),
        *(f"--entrypoint={program}", str(container["image"])),
    ]
    kept = {key: value for key, value in service.items() if not key.startswith(CONTAINERS_OWN)}
    if "ExecReload" in kept:
        # The main process is conmon, which doesn't pass it on.
        kept["ExecReload"] = f"/usr/bin/podman kill --signal HUP {name}"
    return {
        **{section: dict(settings) for section, settings in unit.items()},
        "Service": {
            "TasksMax": MOST_TASKS,
            **kept,
            "NotifyAccess": "all",
            "Delegate": True,
            # The signal goes to conmon, which passes it on.
            "KillMode": "mixed",
            "ExecStart": " \\\n  ".join([*words, *arguments]),
            "ExecStopPost": [*lines_of(service, "ExecStopPost"), f"-/usr/bin/podman rm --force --ignore {name}"],
        },
    }


class FilterModule:
    """Tells Ansible the filters' names."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"container_unit": container_unit, "container_once": container_once}
