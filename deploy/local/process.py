"""One process of the local cluster: started, recognised again by a later command, and ended.

A pid file alone cannot tell our process from a stranger that got the same number later. So it keeps the number together
with the start time that the kernel gave (field 22 of /proc/PID/stat): the pair is never given out twice. Signals go
through a pidfd, taken before the pair is compared, so the number cannot change hands between the look and the signal.

Each process leads a session of its own. What it forks (nginx's workers) stays in that session and works in the same
directory, and so can be ended with it, even when the leader has been killed and its children live on.

Needs Linux 5.3 or later.
"""

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.05
STARTED = "--- started"  # stands in the log before each start


@dataclass(frozen=True)
class Stat:
    """What /proc/PID/stat says of one process."""

    pid: int
    session: int
    start: int

    @staticmethod
    def read(pid, zombie=False):
        """The process's entry, or None if it is gone. A zombie is gone: it only waits to be counted by its parent."""
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        fields = text[text.rindex(")") + 2 :].split()  # the name before it may hold blanks and brackets
        if fields[0] in "ZX" and not zombie:
            return None
        return Stat(pid, session=int(fields[3]), start=int(fields[19]))


class Process:
    """The process called `name` of the cluster whose state lies in `directory`, running or not."""

    def __init__(self, name, directory):
        self.name = name
        self.home = directory / name
        self.log = directory / "log" / f"{name}.log"
        self.pid_file = directory / "run" / f"{name}.pid"

    def spawn(self, command, environment):
        for folder in (self.home, self.log.parent, self.pid_file.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            log.write(time.strftime(f"{STARTED} %Y-%m-%d %H:%M:%S\n").encode())
            log.flush()
            child = subprocess.Popen(
                command,
                cwd=self.home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        stat = Stat.read(child.pid, zombie=True)  # ours to reap, so it is there even if it has ended already
        draft = self.pid_file.with_suffix(".new")
        draft.write_text(f"{stat.pid} {stat.start}\n")
        draft.replace(self.pid_file)  # at once or not at all: half a pid file would lose the process

    def leader(self):
        """The process that was started, or None if it is not running any more."""
        pid, start = self._recorded()
        stat = Stat.read(pid) if pid else None
        return stat if stat and stat.start == start else None

    def members(self):
        """The leader, and what it left behind."""
        pid, start = self._recorded()
        if not pid:
            return []
        holder = Stat.read(pid)
        if holder and holder.start != start:
            return []  # the number belongs to somebody else by now, and so does a session of that name
        everyone = (Stat.read(int(entry)) for entry in os.listdir("/proc") if entry.isdigit())
        return [stat for stat in everyone if stat and stat.session == pid and self._works_here(stat.pid)]

    def tell(self, number):
        """Sends a signal to the leader, who sees to the rest; to what it left behind if there is no leader."""
        leader = self.leader()
        for stat in [leader] if leader else self.members():
            _send(stat, number)

    def tell_all(self, number):
        for stat in self.members():
            _send(stat, number)

    def kill(self):
        """Ends it, and all it left behind, at once."""
        self.tell_all(signal.SIGKILL)
        self._wait_until_gone(10)
        self.pid_file.unlink(missing_ok=True)

    def wait_or_kill(self, seconds):
        """After SIGTERM: waits, then insists. True if it went by itself."""
        went = self._wait_until_gone(seconds)
        self.kill()
        return went

    def last_words(self, lines=20):
        """The end of its log, as far back as its last start."""
        try:
            text = self.log.read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return "".join(text[text.rfind(STARTED) :].splitlines(keepends=True)[-lines:])

    def _recorded(self):
        try:
            pid, start = self.pid_file.read_text().split()
            return int(pid), int(start)
        except (FileNotFoundError, ValueError):
            return None, None

    def _works_here(self, pid):
        try:
            return os.readlink(f"/proc/{pid}/cwd") == str(self.home.resolve())
        except OSError:
            return False

    def _wait_until_gone(self, seconds):
        deadline = time.monotonic() + seconds
        while self.members():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True


def _send(stat, number):
    try:
        handle = os.pidfd_open(stat.pid)
    except ProcessLookupError:
        return
    try:
        if Stat.read(stat.pid) == stat:
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)
