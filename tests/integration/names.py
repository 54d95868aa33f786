"""A name server for tests."""
import socket
import struct
import threading


class Names:
    """A name server: a table of name -> addresses, or -> list of such lists, one for each question of a family in turn
    (the last one stays); all else does not exist. `asked` are the names asked for; `ttl` may be changed."""

    def __init__(self, table, ttl=60):
        self.table = {name.lower(): addresses for name, addresses in table.items()}
        self.asked = []
        self.turns = {}
        self.ttl = ttl
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(('127.0.0.1', 0))
        self.address = '127.0.0.1:%d' % self.socket.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def addresses(self, name, kind):
        found = self.table.get(name, [])
        if found and isinstance(found[0], list):
            turn = self.turns.get((name, kind), 0)
            self.turns[name, kind] = turn + 1
            found = found[min(turn, len(found) - 1)]
        return [a for a in found if (':' in a) == (kind == 28)]

    def serve(self):
        while True:
            try:
                query, peer = self.socket.recvfrom(512)
            except OSError:
                return
            at, labels = 12, []
            while query[at]:
                labels.append(query[at + 1:at + 1 + query[at]].decode())
                at += 1 + query[at]
            kind, = struct.unpack('>H', query[at + 1:at + 3])
            name = '.'.join(labels).lower()
            self.asked.append(name)
            family = {1: socket.AF_INET, 28: socket.AF_INET6}.get(kind)
            found = self.addresses(name, kind) if family else []
            if found == ['silent']:
                continue
            answers = b''.join(b'\xc0\x0c' + struct.pack('>HHIH', kind, 1, self.ttl, 4 if kind == 1 else 16) +
                               socket.inet_pton(family, a) for a in found)
            code = 0x8180 if name in self.table else 0x8183
            self.socket.sendto(query[:2] + struct.pack('>HHHHH', code, 1, len(found), 0, 0) +
                               query[12:at + 5] + answers, peer)

    def close(self):
        self.socket.close()
