"""Single calls of the log API, made by hand: what the real clients send, byte by byte where it matters."""
import http.client
import json
import socket
import ssl
from urllib.parse import quote, urlsplit

TOKEN = 'token-1'


def row(text, pos=0, **more):
    return dict({'level': 'info', 'pos': pos, 'out': text, 'time': '2026-08-21T09:56:10.123456789Z', 'args': None},
                **more)


def body_of(*texts, start=0):
    """A PUT's body with these lines."""
    return json.dumps([row(t, start + i) for i, t in enumerate(texts)]).encode()


class Api:
    """Calls to one base URL (…/log-service); each returns (status, text, headers)."""

    def __init__(self, url, account='acct', token=TOKEN, ca=None, timeout=20):
        parts = urlsplit(url)
        self.host, self.port, self.base = parts.hostname, parts.port, parts.path
        self.tls = ssl.create_default_context(cafile=ca) if parts.scheme == 'https' else None
        self.account, self.token, self.timeout = account, token, timeout
        self.conn = None

    def connection(self):
        if self.conn is None:
            if self.tls:
                self.conn = http.client.HTTPSConnection(self.host, self.port, timeout=self.timeout, context=self.tls)
            else:
                self.conn = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
        return self.conn

    def request(self, method, target, body=None, headers=None):
        conn = self.connection()
        try:
            conn.putrequest(method, target, skip_accept_encoding=True)
            for name, value in (headers if headers is not None else {'X-Harness-Token': self.token}).items():
                conn.putheader(name, value)
            if body is not None or method in ('POST', 'PUT'):
                conn.putheader('Content-Length', str(len(body or b'')))
            conn.endheaders(body)
            answer = conn.getresponse()
            text = answer.read()
            return answer.status, text.decode('utf-8', 'replace'), {k.lower(): v for k, v in answer.getheaders()}
        except (OSError, http.client.HTTPException):
            self.close()
            raise

    def close(self):
        if self.conn:
            self.conn.close()
        self.conn = None

    def target(self, path, key, more='', raw=True):
        spelled = key if raw else quote(key, safe='')
        return f'{self.base}{path}?accountID={self.account}&key={spelled}{more}'

    def open(self, key, **kw):
        return self.request('POST', self.target('/stream', key, **kw))

    def put(self, key, *texts, start=0, **kw):
        return self.request('PUT', self.target('/stream', key, **kw), body_of(*texts, start=start))

    def put_raw(self, key, body, headers=None):
        return self.request('PUT', self.target('/stream', key), body,
                            dict({'X-Harness-Token': self.token}, **(headers or {})))

    def delete(self, key, more=''):
        return self.request('DELETE', self.target('/stream', key, more))

    def blob(self, key, data):
        return self.request('POST', self.target('/blob', key), data)

    def link(self, key):
        return self.request('POST', self.target('/blob/link/upload', key))

    def put_link(self, key, data):
        """Both steps of an upload by link."""
        status, text, _ = self.link(key)
        assert status == 200, text
        return self.put_to(json.loads(text)['link'], data)

    def put_to(self, link, data):
        parts = urlsplit(link)
        return self.request('PUT', parts.path + ('?' + parts.query if parts.query else ''), data)


def raw(port, data, timeout=10, shut=False):
    """Send bytes, read until the peer closes or is silent: for what no HTTP library would send."""
    with socket.create_connection(('127.0.0.1', port), timeout) as s:
        s.sendall(data)
        if shut:
            s.shutdown(socket.SHUT_WR)
        out = b''
        try:
            while True:
                piece = s.recv(65536)
                if not piece:
                    return out
                out += piece
        except (socket.timeout, ConnectionResetError):
            return out


def error_of(text):
    """The error_msg of an answer; fails if it is not of the service's form (HP §1.4)."""
    value = json.loads(text)
    assert set(value) == {'error_msg'} and value['error_msg']
    return value['error_msg']
