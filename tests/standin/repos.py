"""What builds fetch from: a git server (git's own http-backend) and an image registry.

    python3 -m standin.repos CONFIG.json

serves HTTPS until its standard input ends. CONFIG: `git`, `registry`: addresses; `port`;
`certificate`, `key`; `repositories`: directory of bare repositories; `users`: {user: password} of
the registry; `log`: file that gets a line of JSON for each request."""
import base64
import hashlib
import http.server
import json
import os
import ssl
import subprocess
import sys
import threading

LAYER = bytes(range(256)) * 4096            # a megabyte
CONFIG = b'{"architecture":"amd64","os":"linux"}'


def digest(data):
    return 'sha256:' + hashlib.sha256(data).hexdigest()


MANIFEST = json.dumps({
    'schemaVersion': 2, 'mediaType': 'application/vnd.oci.image.manifest.v1+json',
    'config': {'mediaType': 'application/vnd.oci.image.config.v1+json', 'size': len(CONFIG),
               'digest': digest(CONFIG)},
    'layers': [{'mediaType': 'application/vnd.oci.image.layer.v1.tar', 'size': len(LAYER),
                'digest': digest(LAYER)}]}).encode()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *args):
        pass

    def note(self, status):
        line = json.dumps({'server': self.server.name, 'method': self.command, 'path': self.path,
                           'from': self.client_address[0], 'status': status,
                           'authorization': self.headers.get('Authorization')})
        with self.server.lock, open(self.server.spec['log'], 'a') as out:
            out.write(line + '\n')

    def answer(self, status, body=b'', headers=()):
        self.note(status)
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    def do_GET(self):
        self.serve(b'')

    do_HEAD = do_GET

    def do_POST(self):
        if self.headers.get('Transfer-Encoding') == 'chunked':
            body = b''
            while True:
                size = int(self.rfile.readline(), 16)
                body += self.rfile.read(size)
                self.rfile.readline()
                if size == 0:
                    break
        else:
            body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
        self.serve(body)


class Git(Handler):
    """git's smart HTTP, by the program that ships with git."""

    def serve(self, body):
        path, _, query = self.path.partition('?')
        env = dict(os.environ, GIT_PROJECT_ROOT=self.server.spec['repositories'], GIT_HTTP_EXPORT_ALL='1',
                   PATH_INFO=path, QUERY_STRING=query, REQUEST_METHOD=self.command,
                   CONTENT_TYPE=self.headers.get('Content-Type', ''), CONTENT_LENGTH=str(len(body)),
                   HTTP_CONTENT_ENCODING=self.headers.get('Content-Encoding', ''),
                   GIT_PROTOCOL=self.headers.get('Git-Protocol', ''), REMOTE_ADDR=self.client_address[0],
                   GIT_CONFIG_COUNT='1', GIT_CONFIG_KEY_0='safe.directory', GIT_CONFIG_VALUE_0='*')
        done = subprocess.run(['git', 'http-backend'], input=body, env=env, capture_output=True, timeout=30)
        head, _, data = done.stdout.partition(b'\r\n\r\n')
        status, headers = 200, []
        for line in head.decode().split('\r\n'):
            name, _, value = line.partition(': ')
            if name == 'Status':
                status = int(value.split()[0])
            elif name:
                headers.append((name, value))
        self.answer(status, data, headers)


class Registry(Handler):
    """Enough of an OCI registry to be pulled from with the credential of a .dockercfg."""

    def serve(self, body):
        given = self.headers.get('Authorization', '')
        known = ['Basic ' + base64.b64encode(('%s:%s' % pair).encode()).decode()
                 for pair in self.server.spec['users'].items()]
        parts = self.path.split('/')
        if given not in known:
            self.answer(401, b'{}', [('WWW-Authenticate', 'Basic realm="registry"')])
        elif self.path == '/v2/':
            self.answer(200, b'{}')
        elif len(parts) > 4 and parts[-2] == 'manifests':
            self.answer(200, MANIFEST, [('Content-Type', 'application/vnd.oci.image.manifest.v1+json'),
                                        ('Docker-Content-Digest', digest(MANIFEST))])
        elif len(parts) > 4 and parts[-2] == 'blobs':
            found = [b for b in (LAYER, CONFIG) if digest(b) == parts[-1]]
            self.answer(200 if found else 404, found[0] if found else b'')
        else:
            self.answer(404, b'{}')


def serve(name, handler, spec):
    server = http.server.ThreadingHTTPServer((spec[name], spec.get('port', 443)), handler)
    server.name, server.spec, server.lock, server.daemon_threads = name, spec, threading.Lock(), True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(spec['certificate'], spec['key'])
    # The handshake belongs to the connection's own thread.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()


if __name__ == '__main__':
    with open(sys.argv[1]) as config:
        given = json.load(config)
    serve('git', Git, given)
    serve('registry', Registry, given)
    print('{"event": "ready"}', flush=True)
    sys.stdin.read()
