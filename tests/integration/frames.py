"""HTTP/2 by hand: frames that no library would send, and what comes back. And a watch on a gateway that is being abused."""
import os
import re
import socket
import struct
import time

from calls import Api
from gateway import BINARY, key, wait_for
from hpack import Decoder, Encoder

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = range(4)
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 6, 7, 8, 9, 11
PREFACE = b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'


def frame(kind, flags=0, stream=0, payload=b''):
    return struct.pack('>I', len(payload))[1:] + bytes([kind, flags]) + struct.pack('>I', stream) + payload


def settings(**values):
    numbers = {'table': 1, 'push': 2, 'streams': 3, 'window': 4, 'frame': 5, 'headers': 6}
    return frame(SETTINGS, 0, 0, b''.join(struct.pack('>HI', numbers[k], v) for k, v in values.items()))


class H2:
    """One connection in clear, by prior knowledge. Sends raw frames, collects what is answered."""

    def __init__(self, port, start=True, timeout=10, **values):
        self.sock = socket.create_connection(('127.0.0.1', port), timeout)
        self.encoder, self.decoder = Encoder(), Decoder()
        self.pending, self.closed = b'', False
        self.goaway = None          # its error code
        self.resets = {}            # stream -> error code
        self.answers = {}           # stream -> {'status', 'headers', 'body', 'ended', 'heads'}
        self.pings = 0
        if start:
            self.send(PREFACE + settings(**values))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.sock.close()

    def send(self, data):
        """False if the peer has gone: a flood may be cut short."""
        try:
            self.sock.sendall(data)
            return True
        except OSError:
            return False

    def block(self, method='GET', path='/healthz', *more, authority='x', scheme='http'):
        fields = [(':method', method), (':scheme', scheme), (':authority', authority), (':path', path), *more]
        return self.encoder.encode(fields)

    def request(self, stream, method='GET', path='/healthz', *more, body=None, **kw):
        head = self.block(method, path, *more, **kw)
        self.send(frame(HEADERS, END_HEADERS | (END_STREAM if body is None else 0), stream, head))
        if body is not None:
            for at in range(0, max(len(body), 1), 16384):
                last = at + 16384 >= len(body)
                self.send(frame(DATA, END_STREAM if last else 0, stream, body[at:at + 16384]))

    def put(self, stream, api, name, body):
        self.request(stream, 'PUT', api.target('/stream', name), ('x-harness-token', api.token), body=body)

    def take(self, kind, flags, stream, payload):
        if kind == GOAWAY:
            self.goaway = struct.unpack('>I', payload[4:8])[0]
        elif kind == RST_STREAM:
            self.resets[stream] = struct.unpack('>I', payload)[0]
        elif kind == PING and flags & ACK:
            self.pings += 1
        elif kind == SETTINGS and not flags & ACK:
            self.send(frame(SETTINGS, ACK))
        elif kind in (HEADERS, DATA):
            a = self.answers.setdefault(stream, dict(status=0, headers={}, body=b'', ended=False, heads=0))
            if kind == HEADERS:
                fields = self.decoder.decode(payload)
                a['headers'].update(fields)
                a['status'] = int(a['headers'].get(':status', 0))
                a['heads'] += 1
            else:
                a['body'] += payload
            a['ended'] = a['ended'] or bool(flags & END_STREAM)

    def read(self, until=lambda: False, timeout=10):
        """Until `until()`, the end of the connection, or silence for `timeout` s."""
        end = time.monotonic() + timeout
        while not until() and not self.closed and time.monotonic() < end:
            self.sock.settimeout(max(0.01, end - time.monotonic()))
            try:
                piece = self.sock.recv(65536)
            except socket.timeout:
                break
            except OSError:
                piece = b''
            self.closed = not piece
            self.pending += piece
            while len(self.pending) >= 9:
                n = int.from_bytes(self.pending[:3], 'big')
                if len(self.pending) < 9 + n:
                    break
                head, payload = self.pending[:9], self.pending[9:9 + n]
                self.pending = self.pending[9 + n:]
                self.take(head[3], head[4], int.from_bytes(head[5:9], 'big') & 0x7fffffff, payload)
        return self

    def answer(self, stream, timeout=10):
        """The whole answer on a stream; fails if it is reset or does not come."""
        self.read(lambda: stream in self.resets or self.answers.get(stream, {}).get('ended'), timeout)
        assert stream in self.answers and self.answers[stream]['ended'], (self.resets, self.goaway, self.answers)
        return self.answers[stream]

    def ends(self, timeout=10):
        """Read to the end of the connection; the GOAWAY's code, or None if it just ended."""
        self.read(timeout=timeout)
        assert self.closed, 'the connection is still open'
        return self.goaway


SANITIZED = None


def sanitized():
    """Built with a sanitizer: what memory it takes then says nothing."""
    global SANITIZED
    if SANITIZED is None:
        import shutil
        with open(shutil.which(BINARY) or BINARY, 'rb') as f:
            SANITIZED = bool(re.search(rb'__(asan|tsan|ubsan)_', f.read()))
    return SANITIZED


class Watch:
    """What must hold after any abuse: others are served, descriptors given back, memory bounded, something was counted."""

    def __init__(self, far, gw):
        self.far, self.gw = far, gw
        self.serve('before')
        self.fds = gw.fds()
        self.glitches = gw.metric('http_glitches_total')
        self.counted = gw.metric('client_requests_total')
        try:
            with open(f'/proc/{gw.pid}/clear_refs', 'w') as f:
                f.write('5')  # begin the high-water mark anew
        except OSError:
            pass
        self.kb = gw.rss_kb()
        self.number = 0

    def serve(self, word):
        """Another client's lines arrive upstream."""
        api, name = Api(self.gw.log_url, account='other'), key(f'{word}-{os.urandom(4).hex()}')
        assert api.open(name)[0] == 204 and api.put(name, f'{word}\n')[0] == 204
        api.close()
        wait_for(lambda: self.far.lines('other', name) == [f'{word}\n'], what='delivery for another client')

    def disturbed_nothing(self, mb=64, glitch=None, counted=False, spare=8):
        """`glitch`: the kind that must have been counted; `spare`: descriptors that may be kept for reuse."""
        if glitch:
            wait_for(lambda: self.gw.metric('http_glitches_total') > self.glitches and
                     self.gw.metric('http_glitches_total', kind=glitch), what=f'a glitch {glitch}')
        if counted:
            assert self.gw.metric('client_requests_total') > self.counted
        self.serve('after')
        try:
            # Longer than connections upstream are kept unused: earlier deliveries may have made some meanwhile.
            wait_for(lambda: self.gw.fds() <= self.fds + spare, 60, what='descriptors given back')
        except AssertionError as e:
            raise AssertionError(f'{e}: {self.fds} before, now {self.gw.fd_list()}') from None
        if not sanitized():
            grown = (self.gw.rss_kb(peak=True) - self.kb) / 1024
            assert grown < mb, f'grew by {grown:.0f} MiB'
