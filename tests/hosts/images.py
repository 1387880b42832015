"""Images of Debian hosts with systemd as PID 1, kept under a tag that is the hash of their recipe."""

import hashlib
import re
import shutil
import subprocess
import time
from pathlib import Path

from tests.hosts.cache import CACHE, locked
from tests.hosts.podman import output, podman

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SUITES = {"debian12": "bookworm", "debian13": "trixie"}
PACKAGES = (
    "systemd systemd-sysv libpam-systemd dbus python3 python3-apt python3-venv openssh-server iproute2 curl "
    "ca-certificates logrotate sudo procps gnupg acl nftables runc"
)
# What roles install by apt: the hosts reach no Debian mirror, so it lies in a folder of theirs.
FROM_APT = "nginx podman"
# What a container can't do, or what would disturb a test: masked, so that a good boot is `running`, never `degraded`.
MASKED = (
    "systemd-modules-load.service systemd-sysctl.service systemd-binfmt.service systemd-udevd.service "
    "systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udev-trigger.service getty.target "
    "console-getty.service dev-hugepages.mount dev-mqueue.mount sys-kernel-config.mount sys-kernel-debug.mount "
    "sys-kernel-tracing.mount sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount apt-daily.timer "
    "apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service dpkg-db-backup.timer fstrim.timer"
)
INIT = """\
#!/bin/sh
# The host's own cgroups arrive read-only; systemd has to make its units' cgroups in them.
for m in /sys/fs/cgroup /sys/fs/cgroup/*; do
    if [ ! -L "$m" ] && mountpoint -q "$m"; then mount -o remount,rw,bind "$m"; fi
done
mount --make-rshared / # without it, LoadCredential= and SetCredential= fail
exec /lib/systemd/systemd
"""
CUSTOMIZE = f"""\
set -eu
install -m 755 /dev/stdin "$1/usr/local/sbin/host-init" <<'EOF'
{INIT}EOF
for unit in {MASKED}; do ln -sf /dev/null "$1/etc/systemd/system/$unit"; done
mkdir -p "$1/var/log/journal" # the journal outlives a power cut, as on a real host
: > "$1/etc/machine-id"       # each host makes its own
rm -f "$1/etc/hostname"
mkdir -p "$1/etc/containers/containers.conf.d" # crun, podman's default, fails on hybrid cgroups
printf '[engine]\nruntime = "runc"\n' > "$1/etc/containers/containers.conf.d/test-host.conf"
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
apt-get clean
apt-get --quiet=2 --yes --download-only install {FROM_APT}
mkdir "$1/srv/packages"
mv "$1"/var/cache/apt/archives/*.deb "$1/srv/packages"
cd "$1/srv/packages"
for file in *.deb; do
    dpkg-deb --field "$file"
    printf 'Filename: ./%s\\nSize: %s\\n' "$file" "$(stat --format %s "$file")"
    printf 'SHA256: %s\\n\\n' "$(sha256sum "$file" | cut --delimiter ' ' --fields 1)"
done > Packages
rm -rf "$1"/etc/apt/sources.list.d/*
echo 'deb [trusted=yes] file:/srv/packages ./' > "$1/etc/apt/sources.list"
"""


def recipe_hash(name: str) -> str:
    """Return what names the image: a changed recipe is a new image."""
    recipe = "\n".join([SUITES[name], *PACKAGES.split(), CUSTOMIZE])
    return hashlib.sha256(recipe.encode()).hexdigest()[:12]


def tag(name: str) -> str:
    """Return the image's full name."""
    return f"localhost/logstead-{name}:{recipe_hash(name)}"


def sources(targets: str, codename: str, suite: str) -> list[str]:
    """Turn the machine's own Debian sources ("URI SUITE" lines) into the ones for `suite`; none if it has none."""
    found = re.findall(rf"^(\S+) {codename}(|-updates|-security)$", targets, re.MULTILINE)
    return sorted({f"deb [signed-by={KEYRING}] {uri} {suite}{part} main" for uri, part in found})


def machine_sources(suite: str) -> list[str]:
    """Return the sources for `suite` on the mirror that this machine uses; empty means mmdebstrap's default."""
    os_release = Path("/etc/os-release").read_text(encoding="utf-8")
    codename = re.search(r"^VERSION_CODENAME=(\w+)$", os_release, re.MULTILINE)
    if not codename or not re.search(r"^ID=debian$", os_release, re.MULTILINE):
        return []
    wanted = ["Created-By: Packages", "Component: main"]
    targets = output("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", *wanted)
    return sources(targets, codename[1], suite)


def is_built(name: str) -> bool:
    """Tell whether this machine has the image."""
    return podman("image", "exists", tag(name), check=False).returncode == 0


def ensure_image(name: str) -> str:
    """Return the image's tag, building the image first where this machine doesn't have it yet."""
    if is_built(name):
        return tag(name)
    with locked(f"image-{name}") as lock:
        if is_built(name):  # by the run that held the lock
            return tag(name)
        start = time.monotonic()
        print(f"image {name}: building, takes a minute or two", flush=True)
        work = CACHE / "build" / name  # ours alone while the lock is held; a killed run's rest goes first
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        options = [
            line for line in output("apt-config", "dump").splitlines() if re.match(r"Acquire::(https?::|Check-)", line)
        ]
        (work / "apt.conf").write_text("\n".join(options) + "\n", encoding="utf-8")
        (work / "customize").write_text(CUSTOMIZE, encoding="utf-8")
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}"]
        command += [f"--aptopt={work}/apt.conf", f'--customize-hook=sh {work}/customize "$1"']
        command += [SUITES[name], str(work / "root.tar"), *machine_sources(SUITES[name])]
        subprocess.run(command, check=True, pass_fds=[lock])
        changes = ['CMD ["/usr/local/sbin/host-init"]', "STOPSIGNAL SIGRTMIN+3"]
        # Imported without a name and then named: a name is never seen on half an image.
        image = podman("import", "--quiet", *(f"--change={c}" for c in changes), str(work / "root.tar")).stdout.strip()
        podman("tag", image, tag(name))
        shutil.rmtree(work)
        print(f"image {name}: {tag(name)}, {time.monotonic() - start:.0f} s", flush=True)
    return tag(name)
