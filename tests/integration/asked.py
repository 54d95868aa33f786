"""What a gateway answers over its control socket."""
import http.client
import json
import socket
from urllib.parse import urlencode


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=20):
        super().__init__('gateway', timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def socket_of(gw):
    return gw.directory / 'spool' / 'control.sock'


def start(gw, what, method='GET', timeout=20, **args):
    """(connection, answer): for those that go on and on."""
    connection = UnixConnection(socket_of(gw), timeout)
    query = '?' + urlencode(args) if args else ''
    connection.request(method, '/api/v1/' + what + query)
    return connection, connection.getresponse()


def ask(gw, what, method='GET', status=200, **args):
    """The JSON of one answer."""
    connection, answer = start(gw, what, method, **args)
    try:
        text = answer.read()
        assert answer.status == status, (what, args, answer.status, text[:500])
        assert answer.headers['Content-Type'] == 'application/json'
        return json.loads(text)
    finally:
        connection.close()
