"""Where commands of the documentation run: a gateway with something in it, in front of a stand-in for Harness, and a directory
that stands for `/` as far as the commands name paths."""
import contextlib
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

from calls import Api
from gateway import BINARY, Gateway, Other, key, wait_for

TOP = Path(__file__).resolve().parents[2]
TIMEOUT = 30
POISON = '{"error_msg":"invalid character"}'
BUILD_STREAM = key('build')   # one that is open

# What takes the configuration from its usual place, unless it is told another.
CONFIGURED = ('tailrace', 'tailracectl')


class Sandbox:
    def __init__(self, top, far):
        self.top, self.root, self.far, self.letters = Path(top), Path(top) / 'root', far, 0
        for name in ('etc/tailrace/private', 'var/lib', 'var/log/tailrace', 'root', 'bin', 'usr/share/doc'):
            (self.root / name).mkdir(parents=True)
        (self.root / 'root/log-token').touch(0o600)
        (self.root / 'root/log-token').write_text('token')
        self.gateway = Gateway(
            self.root / 'etc/tailrace', far.url,
            listen={'proxy': {'address': '127.0.0.1:0'}}, spool={'directory': str(self.root / 'var/lib/tailrace')},
            audit={'to': 'file', 'file': str(self.root / 'var/log/tailrace/audit.json')},
            egress={'mode': 'enforce'})
        self.api = Api(self.gateway.log_url)
        self.make_programs()
        self.fill()

    def make_programs(self):
        """Programs on PATH that take their default paths from the sandbox."""
        config = self.gateway.config_path
        where = Path(BINARY).resolve().parent
        for name in CONFIGURED:
            program = where / name
            assert program.exists(), f'{program} is not built'
            version = '|*" version "*' if name == 'tailrace' else ''
            lines = [f'case " $* " in *" -c "*|*" --config "*|*" --socket "*|*" --directory "*{version}|"  ") '
                     f'exec {program} "$@" ;; esac']
            if name == 'tailrace':      # `tailrace spool verify FILE`: the file says it all
                lines.append(f'case "$1 $2 $3" in "spool "*" "[!-]*) exec {program} "$@" ;; esac')
                lines.append(f'case "$1" in spool) sub=$1 verb=$2; shift 2; exec {program} $sub $verb -c {config} "$@" ;; esac')
                lines.append(f'word=$1; shift; exec {program} "$word" -c {config} "$@"')
            else:
                lines.append(f'exec {program} -c {config} "$@"')
            path = self.root / 'bin' / name
            path.write_text('#!/bin/sh\n' + '\n'.join(lines) + '\n')
            path.chmod(0o755)

    def fill(self):
        """A stream with lines that waits for more, a denial, and a damaged spool beside the one in use."""
        assert self.api.open(BUILD_STREAM)[0] == 204
        assert self.api.put(BUILD_STREAM, 'compiling\n', 'done\n')[0] == 204
        self.gateway.wait_delivered()
        subprocess.run(['curl', '-s', '-x', f'http://127.0.0.1:{self.gateway.ports["proxy"]}', 'https://denied.example/'],
                       capture_output=True, timeout=TIMEOUT)
        wait_for((self.root / 'var/log/tailrace/audit.json').exists, what='the audit trail')
        spool = self.root / 'var/lib/tailrace/spool.db'
        subprocess.run(['sqlite3', str(spool), f'.backup {self.damaged()}'], check=True, timeout=TIMEOUT)
        Path(f'{self.damaged()}-wal').touch()

    def damaged(self):
        return self.root / 'var/lib/tailrace/spool.db.damaged-2026-01-02T03:04:05Z'

    def dead_letter(self):
        """The id of a letter that is there."""
        before = int(self.gateway.metric('dead_letters'))
        self.letters += 1
        name = key('refused', self.letters)
        assert self.api.open(name)[0] == 204
        fault = self.far.fault('status', 'lines', count=None, key=name, code=400, body=POISON)
        assert self.api.put(name, 'bad\n')[0] == 204
        wait_for(lambda: self.gateway.metric('dead_letters') > before, what='the letter')
        self.far.clear_faults(fault)
        assert self.api.put(name, 'good\n', start=1)[0] == 204 and self.api.delete(name)[0] == 204
        self.gateway.wait_delivered()
        text = self.run('tailracectl --json dead list').stdout
        return max(map(int, re.findall(r'"id": ?(\d+)', text)))

    def translate(self, text):
        """With the sandbox's paths and ports in place of the usual ones."""
        text = re.sub(r'(?<![\w/.])/(etc/tailrace|var/lib/tailrace|var/log/tailrace|root)\b', rf'{self.root}/\1', text)
        text = text.replace('http://HARNESS', self.far.url)
        for name, port in (('admin', 9464), ('upstream', 8443), ('proxy', 3128)):
            text = re.sub(rf'\b(127\.0\.0\.1|localhost|tailrace\.corp\.example):{port}\b',
                          f'127.0.0.1:{self.gateway.ports[name]}', text)
        return text

    def take_pages(self, pages):
        for page in pages:
            section = self.root / f'usr/share/man/man{page.name[-1]}'
            section.mkdir(parents=True, exist_ok=True)
            shutil.copy(page, section)

    def run(self, text, cwd=None, env=None):
        env = dict(os.environ, MANPATH=f'{self.root}/usr/share/man', PATH=f'{self.root}/bin:{os.environ["PATH"]}:/usr/sbin:/sbin', LC_ALL='C.UTF-8', TERM='dumb',
                   PYTHONDONTWRITEBYTECODE='1', **(env or {}))
        return subprocess.run(['sh', '-c', self.translate(text)], capture_output=True, text=True, errors='replace', timeout=TIMEOUT,
                              stdin=subprocess.DEVNULL, cwd=cwd or self.top, env=env)

    def close(self):
        self.api.close()
        later = []      # what an upgrade started
        for pid in re.findall(r'"handing over" pid=(\d+)', self.gateway.log()):
            with contextlib.suppress(ProcessLookupError):
                later.append(Other(int(pid)))
        self.gateway.close()
        for process in later:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(TIMEOUT)
        shutil.rmtree(self.root, ignore_errors=True)
