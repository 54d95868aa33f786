"""Deployments with one fault each, for `tailrace doctor`: servers that misbehave as told, and the command itself."""
import json
import os
import socket
import ssl
import struct
import subprocess
from email.utils import formatdate

from gateway import BINARY, SLOW, to_yaml
from proxies import Place

TOKEN = 'c2VjcmV0LXRva2Vu.of-the-log-service'


class Report:
    """What the doctor found."""

    def __init__(self, status, text, err=''):
        self.status, self.text, self.err = status, text, err
        self.findings = json.loads(text)['findings'] if text.startswith('{') else []

    def causes(self, *verdicts):
        return [f['cause'] for f in self.findings if f['verdict'] in (verdicts or ('fail',))]

    def one(self, cause, verdict='fail'):
        """The finding of that cause; whoever reads it must learn who is to do what."""
        found = [f for f in self.findings if f['cause'] == cause]
        assert found, f'{cause} was not found in {self.text}'
        assert found[0]['verdict'] == verdict, found
        assert all(found[0][name] for name in ('flow', 'step', 'seen', 'why', 'who', 'do')), found
        assert self.status == (1 if self.causes() else 0)
        return found[0]

    def fine(self, flow, step=None):
        return [f['seen'] for f in self.findings if f['flow'] == flow and f['verdict'] == 'ok'
                and step in (None, f['step'])]


def doctor(directory, url, *args, plain=False, timeout=1, before=(), **options):
    """Run it with that harness.url and those options; logs go through Harness unless they say otherwise."""
    config = {'harness': {'url': url, 'upload-logs': 'harness'},
              'listen': {'upstream': {'address': '127.0.0.1:0'}},
              'spool': {'directory': str(directory)}}
    for name, value in options.items():
        config[name] = {**config.get(name, {}), **value} if isinstance(value, dict) else value
    path = directory / 'tailrace.yaml'
    path.write_text(to_yaml(config))
    if timeout:
        args += '--timeout', str(timeout * SLOW)
    env = {k: v for k, v in os.environ.items() if k.lower() != 'https_proxy'}
    done = subprocess.run([*before, BINARY, 'doctor', '-c', str(path), *([] if plain else ['--json']), *args],
                          capture_output=True, text=True, timeout=60, env=env)
    assert TOKEN not in done.stdout + done.stderr
    return Report(done.returncode, done.stdout, done.stderr)


# ---- servers --------------------------------------------------------------------------------------

def context(cert, alpn=('http/1.1',), **more):
    """A server's TLS; `more` are attributes of it."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(*cert)
    made.set_alpn_protocols(list(alpn))
    if 'client_ca' in more:
        made.load_verify_locations(more.pop('client_ca'))
        made.verify_mode = ssl.CERT_REQUIRED
    for name, value in more.items():
        setattr(made, name, value)
    return made


def answer(status='200 OK', body=b'OK', *fields, date=None):
    head = [f'HTTP/1.1 {status}', f'Content-Length: {len(body)}', f'Date: {formatdate(date, usegmt=True)}', *fields]
    return '\r\n'.join(head).encode() + b'\r\n\r\n' + body


class Web(Place):
    """HTTP/1.1, over TLS if there is a context: each request's head is answered with `reply(head)`, bytes; None: cut."""

    def __init__(self, reply=lambda head: answer(), tls=None, host='127.0.0.1', port=0):
        self.reply, self.tls, self.heads = reply, tls, []
        super().__init__(self.talk, host, port)

    @property
    def url(self):
        return f'{"https" if self.tls else "http"}://127.0.0.1:{self.port}'

    def talk(self, s):
        if self.tls:
            s = self.tls.wrap_socket(s, server_side=True)
            self.connections.append(s)
        head = b''
        while True:
            while b'\r\n\r\n' not in head:
                piece = s.recv(65536)
                if not piece:
                    return
                head += piece
            self.heads.append(head.decode('latin-1'))
            said = self.reply(s, head) if self.reply.__code__.co_argcount == 2 else self.reply(head)
            head = b''
            if said is None:
                reset(s)
                return
            s.sendall(said)


def reset(s):
    """End it at once, as a firewall does: RST."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    s.close()


class Blackhole:
    """A port where SYNs are dropped: its queue is full and nobody accepts."""

    def __init__(self, host='127.0.0.1'):
        self.socket = socket.socket()
        self.socket.bind((host, 0))
        self.socket.listen(0)
        self.port = self.socket.getsockname()[1]
        self.queued = []
        for _ in range(4):
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex((host, self.port))
            self.queued.append(s)

    def close(self):
        for s in [self.socket, *self.queued]:
            s.close()
