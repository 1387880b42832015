"""Make three releases of the toy below /srv: an archive and its SHA256SUMS each."""

import hashlib
import pathlib
import zipfile

for version in ("1.0", "2.0", "3.0"):
    folder = pathlib.Path("/srv", version)
    folder.mkdir(exist_ok=True)
    sums = []
    for arch in ("amd64", "arm64"):
        archive = folder / f"toy-linux-{arch}.zip"
        with zipfile.ZipFile(archive, "w") as content:
            content.writestr(f"toy-linux-{arch}", pathlib.Path("/srv/toy.py").read_text().replace("@version@", version))
        sums.append(f"{hashlib.sha256(archive.read_bytes()).hexdigest()}  {archive.name}\n")
    (folder / "SHA256SUMS").write_text("".join(sums))
