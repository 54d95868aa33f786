"""A stand-in for the gateway's side of the control socket, which says what a test tells it to: states that are hard to
bring about, and texts that no gateway should let through."""
import json
import os
import socketserver
import subprocess
import threading
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qsl, urlsplit

from gateway import BINARY

CTL = os.environ.get('TAILRACECTL') or os.path.join(os.path.dirname(BINARY), 'tailracectl')
KEY = ('accountId:acct/orgId:default/projectId:p/pipelineId:b/runSequence:1/level0:pipeline/level1:stages/level2:s/'
       'level3:spec/level4:execution/level5:steps/level6:')


def status(**over):
    lines = {'accepted': 12345678, 'delivered': 12300000, 'spooled': 45678, 'superseded': 0, 'settled': 0, 'late': 0,
             'refused': 0, 'dead': 0}
    blobs = {'accepted': 123, 'delivered': 120, 'spooled': 3, 'repeated': 0, 'broken': 0, 'dead': 0}
    return {**{
        'time': '2026-01-02T03:04:05.678Z', 'version': '0.1.0', 'pid': 812, 'started': '2026-01-01T00:00:00.000Z',
        'uptime_seconds': 97445.5, 'state': 'serving', 'ready': True, 'not_ready': [],
        'config': {'file': '/etc/tailrace/tailrace.yaml', 'generation': 4, 'loaded': '2026-01-01T00:00:00.000Z',
                   'last_error': None, 'reload_failures': 0, 'policy_mode': 'enforce'},
        'ledger': {'lines': lines, 'blobs': blobs, 'lines_resent': 4, 'balanced': True},
        'spool': {'bytes': 12 << 20, 'limit_bytes': 10 << 30, 'room_bytes': 9 << 30, 'disk_free_bytes': 120 << 30,
                  'full_in_seconds': 12000, 'oldest_seconds': 81.5, 'failing': False, 'sealed': False, 'set_aside': 0,
                  'set_aside_bytes': 0, 'commits': 20, 'written_bytes': 243612},
        'rates': {'lines_in': 1234.5, 'lines_out': 1200, 'ack_p50_seconds': 0.002, 'ack_p99_seconds': 0.0094},
        'streams': {'known': 120, 'waiting': 3}, 'dead_letters': 0, 'credentials_refused': 0,
        'upstreams': [
            {'host': 'app.harness.io:443', 'kind': 'log-service', 'state': 'healthy', 'limit': 77, 'in_flight': 3,
             'waiting_for_seconds': None, 'last_success': '2026-01-02T03:04:05.000Z', 'last_error': None},
            {'host': 'storage.googleapis.com', 'kind': 'object-store', 'state': 'down', 'limit': 1, 'in_flight': 0,
             'waiting_for_seconds': 4.5, 'last_success': None,
             'last_error': {'time': '2026-01-02T03:04:01.000Z', 'text': 'could not connect: timed out'}}],
        'tunnels': {'open': 12, 'by_kind': {'tunnel': 12}}, 'connections': {'open': 40, 'limit': 16000}, 'denied': 7,
        'would_deny': 0, 'memory': {'records_bytes': 1, 'connections_bytes': 2, 'rss_bytes': 15 << 20},
        'listeners': [{'name': 'upstream', 'mode': 'upstream', 'address': '0.0.0.0:8443', 'tls': True}],
        'certificates': [{'name': 'listen.upstream', 'subject': 'CN=gw', 'not_after': '2026-02-02T00:00:00.000Z',
                          'expires_in_seconds': 2678400}],
        'problems': []}, **over}


def problem(severity, name='upstream-down', text='storage.googleapis.com has not answered for 5 minutes.'):
    return {'name': name, 'severity': severity, 'text': text, 'runbook': '#' + name}


def stream(name='step', **over):
    return {**{
        'account': 'acct', 'key': KEY + name, 'state': 'open', 'route': 'log-service',
        'opened': '2026-01-02T03:00:00.000Z', 'last_call': '2026-01-02T03:04:00.000Z',
        'oldest': '2026-01-02T03:04:00.000Z', 'backlog_lines': 1234567, 'backlog_records': 12, 'backlog_bytes': 5000,
        'lines': 2000000, 'blobs_waiting': 0, 'worker': 1, 'in_flight': True, 'retry_in_seconds': None,
        'last_error': None}, **over}


def streams(*found):
    return {'matched': len(found), 'known': len(found), 'next': None, 'streams': list(found)}


class Streamed(list):
    """An answer in pieces (bytes), after the last of which it goes on for ever if that is None."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def address_string(self):
        return 'unix'

    def log_message(self, *args):
        pass

    def answer(self):
        parts = urlsplit(self.path)
        owner = self.server.owner
        path, args = parts.path.removeprefix('/api/v1/'), dict(parse_qsl(parts.query, keep_blank_values=True))
        owner.asked.append((self.command, path, args))
        said = owner.answers.get((self.command, path), owner.answers.get(path, (404, {'error': 'there is no such command'})))
        said = said(args) if callable(said) else said
        code, body = said if isinstance(said, tuple) else (200, said)
        if isinstance(body, Streamed):
            return self.stream(body)
        body = json.dumps(body).encode() if not isinstance(body, bytes) else body
        self.send_response(code)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        return None

    def stream(self, pieces):
        self.send_response(200)
        self.send_header('Transfer-Encoding', 'chunked')
        self.end_headers()
        try:
            for piece in pieces:
                if piece is None:
                    self.server.owner.over.wait()
                    self.close_connection = True
                    return
                self.wfile.write(b'%x\r\n%s\r\n' % (len(piece), piece))
                self.wfile.flush()
            self.wfile.write(b'0\r\n\r\n')
        except OSError:
            self.close_connection = True

    do_GET = do_POST = answer


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class StandinGateway:
    """Answers at `socket`: `answers` maps paths, or (method, path), to JSON, (status, JSON), a function of the
    arguments that returns one of those, or Streamed."""

    def __init__(self, directory, **answers):
        self.socket = os.path.join(directory, 'control.sock')
        self.answers = {'status': status(), **answers}
        self.asked = []
        self.start()

    def start(self):
        self.over = threading.Event()
        self.server = Server(self.socket, Handler)
        self.server.owner = self
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self):
        self.over.set()
        self.server.shutdown()
        self.server.server_close()
        os.unlink(self.socket)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if os.path.exists(self.socket):
            self.stop()

    @property
    def command(self):
        return [CTL, '--socket', self.socket]

    def ctl(self, *words, code=0, columns=None, env=None):
        """Run tailracectl, not on a terminal; (standard output, standard error)."""
        environment = {**os.environ, 'LC_ALL': 'C.UTF-8', **({'COLUMNS': str(columns)} if columns else {}), **(env or {})}
        done = subprocess.run([*self.command, *map(str, words)], capture_output=True, text=True, timeout=30,
                              stdin=subprocess.DEVNULL, check=False, env=environment)
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout, done.stderr
