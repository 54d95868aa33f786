"""A machine under a systemd of its own (machine.sh), and the service in it as a package would install it."""
import contextlib
import ctypes
import os
import re
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

from gateway import BINARY, Gateway, Other, merge, to_yaml, wait_for

HERE = Path(__file__).resolve().parent
CONTRIB = HERE.parents[1] / 'contrib' / 'systemd'
SYSTEMD = '/lib/systemd/systemd'
NEW_NET = 0x40000000
LOG = 'var/log/tailrace/service.log'
LIBC = ctypes.CDLL(None, use_errno=True)


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Machine:
    """Booted when made; `sh(...)` runs something in it. Its network, empty but for `lo`, is this thread's until close()."""

    def __init__(self):
        self.directory, self.group, self.process, self.said = tempfile.mkdtemp(prefix='tailrace-machine-'), None, None, b''
        self.before = os.open('/proc/thread-self/ns/net', os.O_RDONLY)
        try:
            checked(LIBC.unshare(NEW_NET))
            subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True, capture_output=True)
            self.groups = self.find_groups()
            self.boot()
        except BaseException:
            self.close()
            raise

    def find_groups(self):
        """A control group of our own, in the unified hierarchy, wherever that is."""
        for line in Path('/proc/self/mountinfo').read_text().splitlines():
            if ' - cgroup2 ' in line:
                self.group = Path(line.split()[4]) / f'tailrace-machine-{os.getpid()}'
                self.group.mkdir()
                return
        raise OSError('no cgroup2 is mounted')

    def boot(self):
        self.master, slave = os.openpty()
        threading.Thread(target=self.listen, daemon=True).start()
        command = ['unshare', '--mount', '--pid', '--uts', '--ipc', '--cgroup', '--fork', '--kill-child', str(HERE / 'machine.sh'),
                   self.directory, os.ttyname(slave)]
        join = f'echo $$ > {self.group}/cgroup.procs && exec "$@"'
        self.process = subprocess.Popen(['bash', '-c', join, 'bash', *command], stdin=subprocess.DEVNULL,
                                        stdout=slave, stderr=slave, start_new_session=True)
        self.slave = slave
        wait_for(lambda: self.process.poll() is not None or self.first() and self.state() == 'active', what='booting')
        if self.process.poll() is not None:
            raise OSError(self.said.decode(errors='replace').strip() or 'it ended at once')

    def listen(self):
        with contextlib.suppress(OSError):
            while piece := os.read(self.master, 65536):
                self.said += piece

    def first(self):
        """The pid, out here, of its first process, once that is systemd."""
        children = Path(f'/proc/{self.process.pid}/task/{self.process.pid}/children').read_text().split()
        with contextlib.suppress(OSError):
            if children and Path(f'/proc/{children[0]}/comm').read_text() == 'systemd\n':
                return int(children[0])

    def state(self):
        return self.sh('systemctl', 'is-active', 'multi-user.target', check=False).stdout.strip()

    def sh(self, *command, check=True):
        done = subprocess.run(['nsenter', '-t', str(self.first()), '-m', '-p', '-u', '-i', '-C', *command],
                              capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, f'{command}: {done.stdout}{done.stderr}\n{self.said.decode()[-3000:]}'
        return done

    def path(self, name):
        return Path(f'/proc/{self.first()}/root') / name.lstrip('/')

    def outside(self, pid):
        """The pid out here of a process in there."""
        space = os.readlink(f'/proc/{self.first()}/ns/pid')
        for status in Path('/proc').glob('[0-9]*/status'):
            with contextlib.suppress(OSError):
                if re.search(r'NSpid:.*\s%d\n' % pid, status.read_text()) and os.readlink(status.parent / 'ns/pid') == space:
                    return int(status.parent.name)
        raise ProcessLookupError(pid)

    def close(self):
        if self.process:
            self.process.kill()         # unshare, and with it everything in there
            self.process.wait()
            os.close(self.slave)
            os.close(self.master)
        if self.group:
            groups = [Path(d) for d, _, _ in os.walk(self.group, topdown=False)]
            wait_for(lambda: 'populated 0' in (self.group / 'cgroup.events').read_text(), what='the end of its processes')
            for group in groups:
                group.rmdir()
        checked(LIBC.setns(self.before, NEW_NET))
        os.close(self.before)
        os.rmdir(self.directory)


class Service(Gateway):
    """tailrace.service in a machine: `start`, `stop` and the rest are systemctl's."""

    def __init__(self, machine, url, drop_in='', sockets=False, **options):
        self.machine, self.sockets = machine, sockets
        self.install(drop_in)
        super().__init__(machine.path('etc/tailrace'), url, start=False, **options)
        self.options = merge({
            'harness': {'url': url}, 'drain': {'limit': '10s'},
            'listen': {'upstream': {'address': '0.0.0.0:8443'}, 'admin': {'address': '127.0.0.1:9464'}},
            'log': {'level': 'debug'}}, options)
        self.log_path = machine.path(LOG)
        self.ports = {name: int(o['address'].rsplit(':', 1)[1]) for name, o in self.options['listen'].items()}
        self.write_config()
        self.config_path.chmod(0o644)

    def install(self, drop_in):
        """As a package does it."""
        at = self.machine.path
        shutil.copy(shutil.which(BINARY) or BINARY, at('usr/sbin/tailrace'))
        for unit in ('tailrace.service', 'tailrace.socket'):
            shutil.copy(CONTRIB / unit, at('usr/lib/systemd/system'))
        at('usr/lib/sysusers.d').mkdir(parents=True, exist_ok=True)
        shutil.copy(CONTRIB / 'tailrace.sysusers.conf', at('usr/lib/sysusers.d/tailrace.conf'))
        self.machine.sh('systemd-sysusers', 'tailrace.conf')
        for old in ('etc/tailrace', 'var/lib/tailrace', 'var/log/tailrace'):
            shutil.rmtree(at(old), ignore_errors=True)
        at('etc/tailrace').mkdir()
        at('var/log/tailrace').mkdir()          # before the service, which is given it, for the log to open
        extra = at('etc/systemd/system/tailrace.service.d')
        extra.mkdir(exist_ok=True)
        # There is no journal in there.
        (extra / 'test.conf').write_text(f'[Service]\nStandardOutput=append:/{LOG}\nStandardError=append:/{LOG}\n' + drop_in)
        self.machine.sh('systemctl', 'daemon-reload')

    def ctl(self, *words, check=True):
        done = self.machine.sh('systemctl', *words, check=False)
        assert not check or done.returncode == 0, f'{words}: {done.stderr}\n{self.log()[-3000:]}\n{self.machine.said.decode()[-3000:]}'
        return done

    def show(self, unit='tailrace.service'):
        """Its properties."""
        return dict(line.split('=', 1) for line in self.machine.sh('systemctl', 'show', unit).stdout.splitlines() if '=' in line)

    def main(self):
        """The main process, as systemd knows it."""
        return Other(self.machine.outside(int(self.show()['MainPID'])))

    def pids(self):
        """All of its processes, out here."""
        group, out = self.machine.path('sys/fs/cgroup/system.slice/tailrace.service/cgroup.procs'), []
        inside = self.machine.sh('cat', '/' + '/'.join(group.parts[4:])).stdout.split() if group.exists() else []
        for pid in inside:
            with contextlib.suppress(ProcessLookupError):       # ended since
                out.append(self.machine.outside(int(pid)))
        return out

    def start(self, wait=True):
        self.log_from = self.log_path.stat().st_size if self.log_path.exists() else 0
        if self.sockets:
            self.ctl('start', 'tailrace.socket')
        self.ctl('start', 'tailrace.service')
        self.process = self.main()
        return self

    def take_over(self, by_signal=True, wait=True, env=None, **options):
        self.write_config(**options)
        self.log_from = self.log_path.stat().st_size
        self.ctl('kill', '-s', 'USR2', '--kill-whom=main', 'tailrace.service')
        old = self.process
        wait_for(lambda: int(self.show()['MainPID']) and self.main().pid != old.pid, what='another MAINPID')
        self.before.append(old)
        self.process = self.main()
        return self.process

    def stop(self, timeout=40, patience=None):
        """As the service manager stops it: it has patience of its own."""
        self.ctl('stop', 'tailrace.socket', 'tailrace.service')
        self.ctl('reset-failed', check=False)
        self.before = []
        return 0
