"""A Ceph cluster of one machine, with its object gateway: one monitor, one OSD that keeps everything in memory."""

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.servers import KEY, SECRET, S3Server, free_port, running, served_on

CONFIGURATION = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{monitor},v1:127.0.0.1:{monitor_v1}]
public addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
mon allow pool size one = true
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 2147483648
run dir = {folder}
log file = {folder}/$name.log
admin socket = {folder}/$name.asok
pid file = {folder}/$name.pid
mon data = {folder}/mon
osd data = {folder}/osd
rgw data = {folder}/rgw
keyring = {folder}/keyring
"""


@contextmanager
def ceph_server(folder: Path) -> Iterator[S3Server]:
    """Ceph's RADOS gateway, before a cluster that is gone with the block."""
    folder.mkdir(parents=True)
    ports = {"monitor": free_port(), "monitor_v1": free_port()}
    port, fsid, disk = free_port(), str(uuid.uuid4()), str(uuid.uuid4())
    configuration = folder / "ceph.conf"
    configuration.write_text(CONFIGURATION.format(fsid=fsid, folder=folder, **ports))
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir()
    (folder / "keyring").touch()

    def command(program: str, *arguments: str) -> list[str]:
        return [program, "-c", str(configuration), *arguments]

    addresses = f"[v2:127.0.0.1:{ports['monitor']},v1:127.0.0.1:{ports['monitor_v1']}]"
    monitors = str(folder / "monitors")
    call("monmaptool", "--create", "--fsid", fsid, "--addv", "a", addresses, monitors)
    call(*command("ceph-mon", "--mkfs", "-i", "a", "--monmap", monitors))
    with ExitStack() as stack:
        stack.enter_context(running(command("ceph-mon", "-f", "-i", "a"), ports["monitor"]))
        call(*command("ceph", "osd", "new", disk))
        call(*command("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk))
        # It listens on ports of its own choice; the gateway waits for it.
        stack.enter_context(running(command("ceph-osd", "-f", "-i", "0"), ports["monitor"]))
        frontend = f"--rgw-frontends=beast endpoint=127.0.0.1:{port}"
        stack.enter_context(running(command("radosgw", "-f", "-n", "client.rgw", frontend), port))
        user = ["user", "create", "--uid=tests", "--display-name=tests"]
        call(*command("radosgw-admin", *user, f"--access-key={KEY}", f"--secret-key={SECRET}"))
        yield stack.enter_context(served_on(port))


def call(*command: str) -> None:
    """Runs a program to its end; what it says is shown where it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stdout[-1000:]} {done.stderr[-2000:]}"
