"""OpenStack Swift on one machine with one copy of everything, spoken to by way of its s3api."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.servers import KEY, SECRET, S3Server, free_port, running, served_on
from tests.stores.ceph import call

PATHS = """\
[swift-hash]
swift_hash_path_suffix = tests
[storage-policy:0]
name = one
default = yes
"""
KINDS = ("account", "container", "object")
BACKEND = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = root
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
workers = 0
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
PROXY = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = root
swift_dir = {folder}
workers = 0
[pipeline:main]
pipeline = catch_errors gatekeeper cache listing_formats s3api tempauth slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
conn_timeout = 30
node_timeout = 60
account_autocreate = true
allow_account_management = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:cache]
use = egg:swift#memcache
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
s3_acl = false
[filter:tempauth]
use = egg:swift#tempauth
user_{account}_{user} = {secret} .admin
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""


@contextmanager
def swift_server(folder: Path) -> Iterator[S3Server]:
    """Swift's proxy server with its account, container and object servers. The access key is account and user in one."""
    folder.mkdir(parents=True)
    (folder / "devices/one").mkdir(parents=True)
    (folder / "swift.conf").write_text(PATHS)
    with ExitStack() as stack:
        for kind in KINDS:
            port = free_port()
            configuration = folder / f"{kind}.conf"
            configuration.write_text(BACKEND.format(port=port, folder=folder, kind=kind))
            builder = str(folder / f"{kind}.builder")
            call("swift-ring-builder", builder, "create", "4", "1", "1")
            call("swift-ring-builder", builder, "add", f"r1z1-127.0.0.1:{port}/one", "1")
            call("swift-ring-builder", builder, "rebalance")
            stack.enter_context(running([f"swift-{kind}-server", str(configuration)], port))
        port = free_port()
        configuration = folder / "proxy.conf"
        account, user = KEY, "tests"
        configuration.write_text(PROXY.format(port=port, folder=folder, account=account, user=user, secret=SECRET))
        stack.enter_context(running(["swift-proxy-server", str(configuration)], port))
        yield stack.enter_context(served_on(port, key=f"{account}:{user}"))
