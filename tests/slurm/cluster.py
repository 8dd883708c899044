"""A real SLURM on this machine: controller, emulated nodes, pretend GPUs, accounting if wanted.

    python tests/slurm/cluster.py start FOLDER [--nodes N] [--accounting]
    python tests/slurm/cluster.py stop FOLDER

Needs root and Debian's or Ubuntu's packages slurm-wlm and munge (for accounting: slurmdbd and
mariadb-server). All its files are in FOLDER, except links in /etc/slurm: the plugin strips
SLURM_CONF from a job's environment, so SLURM has to find its configuration by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "sinfo", "scontrol")
ACCOUNTING_TOOLS = ("slurmdbd", "sacct", "sacctmgr", "mariadbd", "mariadb-install-db", "mariadb")
PACKAGES = "slurm-wlm munge slurmdbd mariadb-server"
# Character devices that every machine has; nothing ever opens them as GPUs.
PRETEND_GPUS = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")
START_SECONDS = 60.0
SYSTEM = Path("/etc/slurm")
CONFIGURATION = ("slurm.conf", "gres.conf", "slurmdbd.conf")
DATABASE_PASSWORD = "pretend"


def obstacle(accounting: bool = False) -> str | None:
    """Return why SLURM cannot run here, or None."""
    missing = [tool for tool in TOOLS + ACCOUNTING_TOOLS * accounting if _find(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (apt-get install {PACKAGES})"
    if os.geteuid() != 0:
        return "SLURM's node daemon needs root"
    for name in CONFIGURATION:
        if (SYSTEM / name).exists() and not (SYSTEM / name).is_symlink():
            return f"this machine already has a SLURM: {SYSTEM / name}"
    if "UP" in subprocess.run(["scontrol", "ping"], capture_output=True, text=True).stdout:
        return "another SLURM runs here"
    return None


class Cluster:
    """SLURM's daemons, whose files are in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

    def start(
        self,
        *,
        nodes: int = 1,
        gpus_per_node: int = 2,
        accounting: bool = False,
        partitions: Sequence[str] = ("main Default=YES",),
        **settings: str,
    ) -> None:
        """Start the daemons and wait until every node is idle.

        Args:
            nodes: emulated nodes, each with its part of the memory.
            gpus_per_node: pretend GPUs, and as many cores.
            accounting: also start slurmdbd and a MariaDB, so that `sacct` knows the jobs.
            partitions: each a name and settings.
            settings: more lines of slurm.conf.

        Raises:
            RuntimeError: it cannot be started here; the message has the ends of the logs.
        """
        if reason := obstacle(accounting):
            raise RuntimeError(reason)
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("state", "spool", "log", "run"):
            (self.folder / name).mkdir(exist_ok=True)
        self._start_munge()
        port = self._start_accounting() if accounting else None
        self._write_configuration(nodes, gpus_per_node, port, partitions, settings)
        SYSTEM.mkdir(exist_ok=True)
        for name in CONFIGURATION:
            (SYSTEM / name).unlink(missing_ok=True)
            if (self.folder / name).exists():
                (SYSTEM / name).symlink_to(self.folder / name)
        if accounting:
            self._daemon("slurmdbd", "-D")
            self._wait_for(self._cluster_known, "the accounting daemon")
        self._daemon("slurmctld", "-D", "-c")
        for node in node_names(nodes):
            self.start_node(node)
        self._wait_for(lambda: self._idle_nodes() == nodes, "the nodes to be idle")

    def node_of(self, job: str) -> str:
        """Return the node that a job runs on."""
        return self.run("squeue", "--noheader", "--jobs", job, "--format=%N").strip()

    def start_node(self, node: str) -> None:
        """Start a node's daemon."""
        self._daemon("slurmd", "-D", "-N", node, log=node)

    def kill_node(self, node: str) -> None:
        """Kill a node's daemon and all that it runs, as if the machine had lost power."""
        path = self.folder / "run" / f"slurmd{node}.daemon"
        os.kill(int(path.read_text().split()[0]), signal.SIGKILL)
        for pid in _processes_of(node):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        path.unlink()

    def stop(self) -> None:
        """End all daemons, the jobs' first."""
        order = ("slurmd", "slurmctld", "slurmdbd", "mariadbd", "munged")
        files = sorted(
            (self.folder / "run").glob("*.daemon"),
            key=lambda path: order.index(path.read_text().split()[1]),
        )
        for path in files:
            pid = int(path.read_text().split()[0])
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            if not _ended(pid, 10):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            path.unlink()
        for name in CONFIGURATION:
            if (SYSTEM / name).is_symlink() and (SYSTEM / name).readlink() == self.folder / name:
                (SYSTEM / name).unlink()

    def run(self, *command: str, check: bool = True) -> str:
        """Run a SLURM command and return what it prints."""
        done = subprocess.run(
            [_find(command[0]) or command[0], *command[1:]],
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def _start_accounting(self) -> int:
        """Start a database and write the accounting daemon's configuration."""
        data, socket_file = self.folder / "database", self.folder / "run" / "mariadb.socket"
        port, database_port = _free_port(), _free_port()
        user = getpass.getuser()
        if not data.exists():
            self.run(
                "mariadb-install-db",
                "--no-defaults",
                f"--datadir={data}",
                f"--user={user}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            )
        self._daemon(
            "mariadbd",
            "--no-defaults",
            f"--datadir={data}",
            f"--user={user}",
            f"--socket={socket_file}",
            f"--pid-file={self.folder / 'run' / 'mariadb.pid'}",
            "--bind-address=127.0.0.1",
            f"--port={database_port}",
        )
        self._wait_for(socket_file.exists, "the database")
        for host in ("localhost", "127.0.0.1"):
            account = f"slurm@'{host}' IDENTIFIED BY '{DATABASE_PASSWORD}'"
            statement = f"CREATE USER IF NOT EXISTS {account}; GRANT ALL ON *.* TO slurm@'{host}'"
            self.run("mariadb", "--no-defaults", f"--socket={socket_file}", "-e", statement)
        values = {
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={self._munge_socket}",
            "DbdHost": "localhost",
            "DbdPort": str(port),
            "SlurmUser": user,
            "StorageType": "accounting_storage/mysql",
            "StorageHost": "127.0.0.1",  # a name would mean the system's socket
            "StoragePort": str(database_port),
            "StorageUser": "slurm",
            "StoragePass": DATABASE_PASSWORD,
            "StorageLoc": "accounting",
            "LogFile": str(self.folder / "log" / "slurmdbd.log"),
            "PidFile": str(self.folder / "run" / "slurmdbd.pid"),
        }
        file = self.folder / "slurmdbd.conf"
        file.write_text("".join(f"{key}={value}\n" for key, value in values.items()))
        file.chmod(0o600)
        return port

    def _cluster_known(self) -> bool:
        """Return whether the accounting daemon answers and knows the cluster."""
        self.run("sacctmgr", "--immediate", "add", "cluster", "pretend", check=False)
        return "pretend" in self.run("sacctmgr", "--noheader", "list", "cluster", check=False)

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        if not key.exists():
            key.write_bytes(secrets.token_bytes(128))
            key.chmod(0o600)
        self.folder.chmod(0o755)
        (self.folder / "run").chmod(0o755)
        files = {
            "socket": self._munge_socket,
            "key-file": key,
            "pid-file": self.folder / "run" / "munged.pid",
            "log-file": self.folder / "log" / "munged.log",
            "seed-file": self.folder / "state" / "munged.seed",
        }
        options = [f"--{name}={path}" for name, path in files.items()]
        self._daemon("munged", "--foreground", "--force", *options)
        self._wait_for(self._munge_socket.exists, "munge's socket")

    @property
    def _munge_socket(self) -> Path:
        return self.folder / "run" / "munge.socket"

    def _write_configuration(
        self,
        nodes: int,
        gpus_per_node: int,
        accounting: int | None,
        partitions: Sequence[str],
        settings: dict[str, str],
    ) -> None:
        host, user = socket.gethostname().split(".")[0], getpass.getuser()
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
        # Emulated nodes share one machine: SLURM counts each one's cores and memory by itself.
        gpus = [PRETEND_GPUS[n * gpus_per_node :][:gpus_per_node] for n in range(nodes)]
        values = {
            "ClusterName": "pretend",
            "SlurmctldHost": f"{host}(127.0.0.1)",
            "SlurmctldPort": str(_free_port()),
            "SlurmUser": user,
            "SlurmdUser": user,
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={self._munge_socket}",
            "CredType": "cred/munge",
            "StateSaveLocation": str(self.folder / "state"),
            "SlurmdSpoolDir": str(self.folder / "spool" / "%n"),
            "SlurmctldPidFile": str(self.folder / "run" / "slurmctld.pid"),
            "SlurmdPidFile": str(self.folder / "run" / "slurmd-%n.pid"),
            "SlurmctldLogFile": str(self.folder / "log" / "slurmctld.log"),
            "SlurmdLogFile": str(self.folder / "log" / "slurmd-%n.log"),
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "MpiDefault": "none",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core_Memory",
            "SchedulerParameters": "sched_interval=2,bf_interval=2",
            "SchedulerType": "sched/backfill",
            "GresTypes": "gpu",
            "ReturnToService": "2",
            "SlurmdTimeout": "20",
            "JobAcctGatherType": "jobacct_gather/linux",
            "JobAcctGatherFrequency": "task=5",
            "AccountingStorageType": "accounting_storage/none",
            "MailProg": "/bin/true",
            **(
                {
                    "AccountingStorageType": "accounting_storage/slurmdbd",
                    "AccountingStorageHost": "127.0.0.1",
                }
                if accounting
                else {}
            ),
            **settings,
        }
        if accounting is not None:
            values["AccountingStorageType"] = "accounting_storage/slurmdbd"
            values["AccountingStorageHost"] = "localhost"
            values["AccountingStoragePass"] = str(self._munge_socket)
            values["AccountingStoragePort"] = str(accounting)
        lines = [f"{key}={value}" for key, value in values.items()]
        for number, node in enumerate(node_names(nodes)):
            lines.append(
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={_free_port()} "
                f"CPUs={gpus_per_node} RealMemory={memory // nodes} "
                f"Gres=gpu:{len(gpus[number])} State=UNKNOWN"
            )
        lines += [f"PartitionName={words} Nodes=ALL MaxTime=1-0 State=UP" for words in partitions]
        (self.folder / "slurm.conf").write_text("\n".join(lines) + "\n")
        gres = [
            f"NodeName={node} Name=gpu File={device}"
            for node, devices in zip(node_names(nodes), gpus, strict=True)
            for device in devices
        ]
        (self.folder / "gres.conf").write_text("\n".join(gres) + "\n")

    def _idle_nodes(self) -> int:
        lines = self.run("sinfo", "--noheader", "--Node", "--format=%N %T", check=False).split("\n")
        return sum(line.endswith(" idle") for line in {*lines})  # one line for each partition

    def _daemon(self, name: str, *arguments: str, log: str = "") -> None:
        out = self.folder / "log" / f"{name}{log}.out"
        with out.open("ab") as file:
            process = subprocess.Popen(
                [_find(name), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        (self.folder / "run" / f"{name}{log}.daemon").write_text(f"{process.pid} {name}")

    def _wait_for(self, ready: Callable[[], bool], awaited: str) -> None:
        end = time.monotonic() + START_SECONDS
        while not ready():
            if time.monotonic() > end:
                logs = [*(self.folder / "log").iterdir()]
                tails = [f"{path.name}:\n{path.read_text()[-2000:]}" for path in sorted(logs)]
                raise RuntimeError(f"waited in vain for {awaited}\n" + "\n".join(tails))
            time.sleep(0.2)


def node_names(count: int) -> list[str]:
    """Return the emulated nodes' names."""
    return [f"node{number}" for number in range(1, count + 1)]


def _processes_of(node: str) -> list[int]:
    """Return the processes of a node's jobs: first the daemons that would report their end."""
    tasks, daemons = [], []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"SLURMD_NODENAME={node}\0".encode() in (folder / "environ").read_bytes():
                tasks.append(int(folder.name))
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if Path(f"/proc/{parent}/comm").read_text().startswith("slurmstepd"):
                    daemons.append(parent)
    return [*daemons, *tasks]


def _find(tool: str) -> str | None:
    return shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _ended(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("action", choices=["start", "stop"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--accounting", action="store_true")
    given = parser.parse_args()
    cluster = Cluster(given.folder)
    if given.action == "stop":
        cluster.stop()
    else:
        cluster.start(nodes=given.nodes, accounting=given.accounting)
        print(cluster.run("sinfo").strip())
