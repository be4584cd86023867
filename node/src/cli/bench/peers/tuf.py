"""The Update Framework as a peer of `bench release`: a repository that holds one file, and a client that fetches it.

    python3 -m venv V && V/bin/pip install tuf 'securesystemslib[crypto]'
    V/bin/python tuf.py FILE DIRECTORY

Prints one line of JSON: seconds that describing, signing and writing the metadata of FILE takes (`publish_s`), and seconds that
a new client takes to follow it from the first root, fetch FILE (a copy on this disk) and check it (`verify_s`). Packing and
unpacking are not in it: they are what `tar` and `zstd` do. Keys are Ed25519, one for each role.
"""

import datetime
import json
import pathlib
import sys
import time

from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

PIECE = 1 << 20
DAY = datetime.timedelta(days=1)


class Disk(FetcherInterface):
    """Answers file URLs from the disk."""

    def _fetch(self, url):
        path = pathlib.Path(url.removeprefix("file://"))
        if not path.exists():
            raise DownloadHTTPError(f"{path} is not there", 404)
        return self.pieces(path)

    @staticmethod
    def pieces(path):
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                yield piece


def publish(file, repository):
    """Writes the four roles; the bytes of the root that clients begin with."""
    expires = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0) + 7 * DAY
    signers = {role: CryptoSigner.generate_ed25519() for role in ("root", "targets", "snapshot", "timestamp")}
    root = Root(expires=expires, consistent_snapshot=False)
    for role, signer in signers.items():
        root.add_key(signer.public_key, role)
    targets = Targets(expires=expires)
    targets.targets[file.name] = TargetFile.from_file(file.name, str(file), ["sha256"])
    snapshot = Snapshot(expires=expires, meta={"targets.json": MetaFile(version=1)})
    roles = {"root": root, "targets": targets, "snapshot": snapshot, "timestamp": Timestamp(expires=expires)}
    for role, content in roles.items():
        signed = Metadata(content)
        signed.sign(signers[role])
        for name in (f"{role}.json", f"1.{role}.json"):
            signed.to_file(str(repository / name))
    return (repository / "root.json").read_bytes()


def verify(file, repository, client, root):
    """A client that has seen nothing but the first root."""
    (client / "metadata").mkdir(parents=True)
    (client / "targets").mkdir()
    updater = Updater(
        str(client / "metadata"), f"file://{repository}", str(client / "targets"), f"file://{file.parent}",
        fetcher=Disk(), bootstrap=root,
    )
    updater.refresh()
    info = updater.get_targetinfo(file.name)
    if info is None:
        sys.exit(f"tuf: the repository does not list {file.name}")
    updater.download_target(info)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    file, work = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    repository = work / "tuf-repository"
    repository.mkdir(parents=True)
    started = time.monotonic()
    root = publish(file, repository)
    published = time.monotonic()
    verify(file, repository, work / "tuf-client", root)
    print(json.dumps({"publish_s": published - started, "verify_s": time.monotonic() - published}))


if __name__ == "__main__":
    main()
