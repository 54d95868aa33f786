"""Parent proxies: a real Squid, and one that misbehaves as told."""
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

from gateway import free_port, wait_for

SQUID = shutil.which('squid', path=os.environ.get('PATH', '') + ':/usr/sbin:/sbin')
NCSA = '/usr/lib/squid/basic_ncsa_auth'


class Squid:
    """Squid on a free port of 127.0.0.1. `users`: {name: password} to ask for; `tls`: (certificate, key) for an
    https_port; `hosts`: {name: address} that it alone can resolve."""

    def __init__(self, users=None, tls=None, hosts=None):
        self.directory, self.port = Path(tempfile.mkdtemp(prefix='squid')), free_port()
        directory, run_as = self.directory, {}
        if os.getuid() == 0:  # it refuses to be root, and others' directories are closed to it
            run_as = {'user': 'proxy', 'group': 'proxy', 'extra_groups': []}
        if tls:
            tls = [shutil.copy(path, directory) for path in tls]
        self.url = f'{"https" if tls else "http"}://127.0.0.1:{self.port}'
        lines = [
            f'https_port 127.0.0.1:{self.port} tls-cert={tls[0]} tls-key={tls[1]}' if tls else
            f'http_port 127.0.0.1:{self.port}',
            f'pid_filename {directory}/pid', f'cache_log {directory}/cache.log',
            f'access_log stdio:{directory}/access.log', f'coredump_dir {directory}',
            'buffered_logs off', 'cache deny all', 'cache_mem 1 MB', 'netdb_filename none', 'shutdown_lifetime 0 seconds',
            'visible_hostname parent.test', 'max_filedescriptors 1024', 'pinger_enable off', 'memory_cache_shared off', 'via off', 'forwarded_for delete',
            f'hosts_file {directory}/hosts']
        if users:
            lines += [f'auth_param basic program {NCSA} {directory}/users', 'auth_param basic realm parent',
                      'acl known proxy_auth REQUIRED', 'http_access allow known']
            (directory / 'users').write_text(''.join('%s:%s\n' % (name, subprocess.run(
                ['openssl', 'passwd', '-apr1', word], capture_output=True, text=True, check=True).stdout.strip())
                for name, word in users.items()))
        else:
            lines.append('http_access allow localhost')
        lines.append('http_access deny all')
        (directory / 'hosts').write_text(''.join(f'{address} {name}\n' for name, address in (hosts or {}).items()))
        (directory / 'squid.conf').write_text('\n'.join(lines) + '\n')
        with open(directory / 'out', 'wb') as out:
            if run_as:
                for path in [directory, *directory.iterdir()]:
                    shutil.chown(path, 'proxy', 'proxy')
            self.process = subprocess.Popen([SQUID, '-N', '-n', f'test{self.port}', '-f', str(directory / 'squid.conf')], stdin=subprocess.DEVNULL,
                                            stdout=out, stderr=out, **run_as)
        try:
            wait_for(self.answers, 30, what='squid')
        except AssertionError:
            text = (directory / 'out').read_text()
            self.close()
            raise AssertionError(text)

    def answers(self):
        assert self.process.poll() is None, (self.directory / 'out').read_text()
        with socket.socket() as s:
            return s.connect_ex(('127.0.0.1', self.port)) == 0

    def requests(self):
        """[(status, method, target)], in the order in which they ended."""
        path = self.directory / 'access.log'
        found = re.findall(r'^\S+ +\d+ \S+ \S+/(\d+) \d+ (\S+) (\S+)', path.read_text() if path.exists() else '', re.M)
        return [(int(status), method, target) for status, method, target in found
                if not target.startswith('error:')]

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class OddParent:
    """Reads the head of one request on each connection and does what `behave(connection, head)` does."""

    def __init__(self, behave):
        self.behave = behave
        self.heads = []
        self.over = threading.Event()
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.port = self.listener.getsockname()[1]
        self.url = f'http://127.0.0.1:{self.port}'
        self.connections = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with connection:
            head = b''
            try:
                while b'\r\n\r\n' not in head:
                    piece = connection.recv(4096)
                    if not piece:
                        return
                    head += piece
                self.heads.append(head.decode('latin-1'))
                self.behave(self, connection, head)
            except OSError:
                pass

    def close(self):
        self.over.set()
        self.listener.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def pipe(one, other):
    """Join two sockets until both have ended."""
    def run(source, sink):
        try:
            while piece := source.recv(65536):
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass
    back = threading.Thread(target=run, args=(other, one), daemon=True)
    back.start()
    run(one, other)
    back.join()


def audit_entries(path, event=None):
    """The entries of an audit file in JSON."""
    lines = path.read_text().splitlines() if path.exists() else []
    entries = [json.loads(line) for line in lines]
    return [e for e in entries if event in (None, e['event'])]
