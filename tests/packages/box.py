"""A copy of this system that forgets everything: an overlay of `/` whose upper layer is in memory, with a systemd of its
own as process 1, in namespaces of its own but for the network."""
import os
import shutil
import signal
import subprocess
import time
import uuid
from pathlib import Path


def cannot_boot():
    """Why there can be no such machine here; None if there can."""
    if os.geteuid() != 0:
        return 'needs root'
    if not shutil.which('systemd-nspawn'):
        return 'systemd-container is not installed'
    if 'overlay' not in Path('/proc/filesystems').read_text():
        return 'this kernel has no overlayfs'
    return None


class Machine:
    def __init__(self, directory):
        self.top = Path(directory) / 'm'
        self.root = self.top / 'root'
        self.name = f'tailrace-{os.getpid()}'
        self.process = self.leader = None
        self.mounted = []

    def _mount(self, *args):
        subprocess.run(['mount', *args], check=True, capture_output=True)
        self.mounted.append(args[-1])

    def boot(self, deadline):
        self.top.mkdir()
        self._mount('-t', 'tmpfs', '-o', 'size=512M', 'tmpfs', str(self.top))
        for name in ('upper', 'work', 'root'):
            (self.top / name).mkdir()
        self._mount('-t', 'overlay', '-o', f'lowerdir=/,upperdir={self.top}/upper,workdir={self.top}/work', 'overlay',
                    str(self.root))
        (self.root / 'etc/machine-id').write_text(uuid.uuid4().hex + '\n')
        # Services of this system are not wanted there, and those that a package brings may start.
        for wants in (self.root / 'etc/systemd/system').glob('*.wants'):
            shutil.rmtree(wants)
        (self.root / 'usr/sbin/policy-rc.d').unlink(missing_ok=True)
        for minimal in ('docker', 'excludes'):      # small systems leave out manual pages and documents
            (self.root / 'etc/dpkg/dpkg.cfg.d' / minimal).unlink(missing_ok=True)
        self.process = subprocess.Popen(
            ['systemd-nspawn', '--quiet', '--register=no', '--keep-unit', '--settings=no', '--link-journal=no',
             '-D', str(self.root), f'--machine={self.name}', '--console=pipe', '-b', 'systemd.unit=multi-user.target'],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while True:
            children = Path(f'/proc/{self.process.pid}/task/{self.process.pid}/children')
            found = children.read_text().split() if self.process.poll() is None else []
            if found:
                self.leader = found[0]
                if self.run('systemctl', 'is-system-running', check=False).stdout.strip() in ('running', 'degraded'):
                    return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f'it does not boot: {self.process.poll()}')
            time.sleep(0.1)

    def run(self, *args, check=True, timeout=100):
        done = subprocess.run(['nsenter', '-t', self.leader, '-a', 'env', '-i',
                               'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
                               'DEBIAN_FRONTEND=noninteractive', 'LANG=C.UTF-8', *args],
                              capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
        assert done.returncode == 0 or not check, f'{args}: {done.returncode}\n{done.stdout}\n{done.stderr}'
        return done

    def out(self, *args, **kw):
        return self.run(*args, **kw).stdout.strip()

    def write(self, path, text, mode=0o644):
        """Into the running machine (its /run and /tmp are not those of `root`)."""
        target = Path(f'/proc/{self.leader}/root') / path.lstrip('/')
        target.write_bytes(text if isinstance(text, bytes) else text.encode())
        target.chmod(mode)

    def exists(self, path):
        return os.path.lexists(f'/proc/{self.leader}/root{path}')

    def close(self):
        if self.process and self.process.poll() is None:
            for _ in range(2):      # the second one does not wait for units to stop
                self.process.send_signal(signal.SIGTERM)
                try:
                    self.process.wait(5)
                    break
                except subprocess.TimeoutExpired:
                    pass
            else:
                self.process.kill()
                self.process.wait()
        for path in reversed(self.mounted):
            subprocess.run(['umount', '-l', path], capture_output=True)
        shutil.rmtree(f'/run/systemd/nspawn/propagate/{self.name}', ignore_errors=True)
