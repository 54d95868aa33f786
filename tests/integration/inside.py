"""What the tests of interception share: a name server, origins of their own, TLS clients whose every byte is at hand."""
import json
import socket
import socketserver
import ssl
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WAIT = 20
HARNESS = 'app.harness.test'


class Names:
    """A name server on 127.0.0.1: A records from a table that may change; NXDOMAIN for the rest."""

    def __init__(self, table):
        self.table = table
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(('127.0.0.1', 0))
        self.address = '127.0.0.1:%d' % self.sock.getsockname()[1]
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while True:
            data, peer = self.sock.recvfrom(1500)
            if not data or len(data) < 17:
                return                                      # close() says so
            labels, at = [], 12
            while data[at]:
                labels.append(data[at + 1:at + 1 + data[at]].decode().lower())
                at += data[at] + 1
            kind, = struct.unpack('!H', data[at + 1:at + 3])
            address = self.table.get('.'.join(labels))
            records = [address] if address and kind == 1 else []
            out = data[:2] + struct.pack('!5H', 0x8180 | (0 if address else 3), 1, len(records), 0, 0) + data[12:at + 5]
            for a in records:
                out += struct.pack('!HHHIH', 0xC00C, 1, 1, 1, 4) + socket.inet_aton(a)
            self.sock.sendto(out, peer)

    def close(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.sendto(b'', self.sock.getsockname())
        self.thread.join(WAIT)
        self.sock.close()


class Origin:
    """An HTTPS server that answers with what it was asked, or, without a certificate, a TCP server that echoes."""

    def __init__(self, cert=None, host='127.0.0.1', port=0, greeting=b''):
        origin = self
        self.connections = 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def do_GET(self):
                body = json.dumps({'path': self.path, 'host': self.headers['Host'],
                                   'body': self.rfile.read(int(self.headers.get('Content-Length', 0))).decode()})
                self.send_response(200)
                self.send_header('Content-Length', str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            do_PUT = do_POST = do_GET

            def setup(self):
                origin.connections += 1
                super().setup()

            def log_message(self, *args):
                pass

        class Echo(socketserver.BaseRequestHandler):
            def handle(self):
                origin.connections += 1
                self.request.sendall(greeting)
                while True:
                    data = self.request.recv(65536)
                    if not data:
                        return
                    self.request.sendall(data)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = daemon_threads = True

            def handle_error(self, request, client_address):
                pass

        class Https(ThreadingHTTPServer):
            def handle_error(self, request, client_address):
                pass

        self.server = Https((host, port), Handler) if cert else Server((host, port), Echo)
        self.port = self.server.server_address[1]
        if cert:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*cert)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True,
                                                     do_handshake_on_connect=False)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def connect(port, authority, first=b''):
    """A socket behind a CONNECT that was answered with 200; `first` is sent along with it."""
    s = socket.create_connection(('127.0.0.1', port), WAIT)
    s.sendall(f'CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n'.encode() + first)
    head = b''
    while not head.endswith(b'\r\n\r\n'):
        piece = s.recv(1)
        assert piece, head
        head += piece
    assert head.startswith(b'HTTP/1.1 200'), head
    return s


class Tls:
    """A TLS client over a socket, byte by byte: `hello` is its first message, still unsent."""

    def __init__(self, sock, name, ca=None, alpn=('http/1.1',)):
        context = ssl.create_default_context(cafile=ca)
        if not name:
            context.check_hostname = False
        if alpn:
            context.set_alpn_protocols(list(alpn))
        self.sock, self.inside, self.outside = sock, ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.inside, self.outside, server_hostname=name)
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self.hello = self.outside.read()

    def run(self, what, *args):
        while True:
            try:
                result = what(*args)
                self.sock.sendall(self.outside.read())
                return result
            except ssl.SSLWantReadError:
                self.sock.sendall(self.outside.read())
                data = self.sock.recv(65536)
                if not data:
                    raise ConnectionResetError('closed') from None
                self.inside.write(data)
            except ssl.SSLError:
                if self.sock.fileno() >= 0:                 # the alert
                    try:
                        self.sock.sendall(self.outside.read())
                    except OSError:
                        pass
                raise

    def handshake(self, send_hello=True):
        if send_hello:
            self.sock.sendall(self.hello)
        self.run(self.tls.do_handshake)
        return self

    def read(self):
        data = self.run(self.tls.read, 65536)
        if not data:
            raise ConnectionResetError('closed')    # by close_notify
        return data

    def get(self, path, host, method='GET', body=b''):
        """(status, text) of one exchange with a Content-Length."""
        self.run(self.tls.write, f'{method} {path} HTTP/1.1\r\nHost: {host}\r\nX-Harness-Token: token-1\r\n'
                                 f'Content-Length: {len(body)}\r\n\r\n'.encode() + body)
        data = b''
        while b'\r\n\r\n' not in data:
            data += self.read()
        head, _, rest = data.partition(b'\r\n\r\n')
        length = 0
        for line in head.split(b'\r\n'):
            if line.lower().startswith(b'content-length:'):
                length = int(line.split(b':')[1])
        while len(rest) < length:
            rest += self.read()
        return int(head.split()[1]), rest.decode()
